use super::*;
use crate::doctor::{Verdict, facts::Address};

fn interface(name: &str, kind: Kind) -> Interface {
    Interface {
        name: name.to_owned(),
        kind,
        up: true,
        carrier: true,
        mtu: 1500,
        below: Vec::new(),
        program: None,
        lro: false,
        gro: true,
        takes_tags: true,
        tx_checksums: true,
        rp_filter: 0,
        arp_ignore: if kind == Kind::Loopback { 0 } else { 1 },
        arp_announce: if kind == Kind::Loopback { 0 } else { 2 },
    }
}

const RESOURCES: [&str; 2] = ["192.0.2.80", "2001:db8::80"];

/// A backend that is as it should be.
fn good() -> Host {
    let place =
        |address: &str, prefix| Address { address: address.parse().unwrap(), prefix, interface: "lo".to_owned() };
    Host {
        interfaces: vec![
            interface("lo", Kind::Loopback),
            interface("eth0", Kind::Ethernet),
            interface("d0", Kind::Dummy),
        ],
        addresses: vec![place(RESOURCES[0], 32), place(RESOURCES[1], 128)],
        all_rp_filter: 0,
    }
}

/// The problems after `spoil`: the check, of what, and the command that mends it.
fn problems(spoil: impl FnOnce(&mut Host)) -> Vec<(&'static str, String, String)> {
    let mut host = good();
    spoil(&mut host);
    let findings = check(&host, &RESOURCES.map(|address| address.parse().unwrap())).into_iter();
    let problems = findings.filter(|finding| finding.verdict != Verdict::Ok);
    problems.map(|finding| (finding.check, finding.about, finding.mend.unwrap())).collect()
}

fn problem(check: &'static str, about: &str, mend: &str) -> (&'static str, String, String) {
    (check, about.to_owned(), mend.to_owned())
}

#[test]
fn nothing_is_wrong_with_a_good_backend() {
    assert_eq!(problems(|_| ()), []);
    assert_eq!(problems(|host| host.addresses[0].interface = "d0".to_owned()), []);
}

#[test]
fn a_backend_must_own_the_resources_addresses_and_nothing_more() {
    assert_eq!(
        problems(|host| host.addresses.clear()),
        [
            problem("loopback", "192.0.2.80", "ip addr add 192.0.2.80/32 dev lo"),
            problem("loopback", "2001:db8::80", "ip addr add 2001:db8::80/128 dev lo"),
        ]
    );
    let mend = "ip addr del 192.0.2.80/24 dev lo && ip addr add 192.0.2.80/32 dev lo";
    assert_eq!(problems(|host| host.addresses[0].prefix = 24), [problem("loopback", "192.0.2.80", mend)]);
}

#[test]
fn others_must_not_find_the_resources_addresses_here() {
    let mend = "ip addr del 192.0.2.80/32 dev eth0 && ip addr add 192.0.2.80/32 dev lo";
    assert_eq!(
        problems(|host| host.addresses[0].interface = "eth0".to_owned()),
        [problem("loopback", "192.0.2.80", mend)]
    );
    let both = |host: &mut Host| {
        host.addresses.push(Address { interface: "eth0".to_owned(), prefix: 24, ..host.addresses[0].clone() });
    };
    assert_eq!(problems(both), [problem("loopback", "192.0.2.80", "ip addr del 192.0.2.80/24 dev eth0")]);
    let all = "sysctl -w net.ipv4.conf.all.arp_ignore=1";
    assert_eq!(problems(|host| host.interfaces[1].arp_ignore = 0), [problem("arp_ignore", "eth0", all)]);
    let both = format!("{all} && sysctl -w net.ipv4.conf.eth0.arp_ignore=1");
    assert_eq!(problems(|host| host.interfaces[1].arp_ignore = 8), [problem("arp_ignore", "eth0", &both)]);
    let all = "sysctl -w net.ipv4.conf.all.arp_announce=2";
    assert_eq!(problems(|host| host.interfaces[1].arp_announce = 1), [problem("arp_announce", "eth0", all)]);
}

#[test]
fn arp_does_not_matter_for_ipv6_alone() {
    let mut host = good();
    host.interfaces[1].arp_ignore = 0;
    let findings = check(&host, &[RESOURCES[1].parse().unwrap()]);
    assert!(matches!(findings[..], [Finding { check: "loopback", verdict: Verdict::Ok, .. }]), "{findings:?}");
}
