use std::{path::Path, sync::Arc, time::Duration};

use super::*;
use crate::{
    config::{self, Config, Takeover},
    doctor::{Verdict, facts::Address},
};

const CONFIG: &str = r#"
[agent]
site = "east"
[sites.east]
link = "10.255.0.1:7400"
tunnel = "10.255.0.1:7401"
fingerprint = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
[sites.west]
link = "10.255.0.2:7400"
tunnel = "10.255.0.2:7401"
fingerprint = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
[link]
key = "east.pem"
[dns]
listen = ["192.0.2.2"]
[dataplane]
interfaces = ["wan0", "lan0", "link0"]
[resources.www]
ports = ["tcp/80"]
probe = { tcp = true }
[resources.www.sites.east]
role = "active"
addresses = ["192.0.2.80", "2001:db8::80"]
backends = ["10.1.0.11:80"]
[resources.www.sites.west]
role = "active"
addresses = ["198.51.100.80", "2001:db8:2::80"]
[resources.local]
probe = { tcp = true }
[resources.local.sites.east]
role = "active"
backends = ["10.1.0.1:81"]
"#;

fn config() -> Config {
    config::parse(CONFIG, Path::new("/etc/siteswap/east.toml")).unwrap_or_else(|error| panic!("{error}"))
}

fn interface(name: &str) -> Interface {
    Interface {
        name: name.to_owned(),
        kind: Kind::Ethernet,
        up: true,
        carrier: true,
        mtu: 1500,
        below: Vec::new(),
        program: Some(Program { name: Some(PROGRAM.to_owned()), generic: false }),
        lro: false,
        gro: true,
        takes_tags: true,
        tx_checksums: true,
        rp_filter: 0,
        arp_ignore: 0,
        arp_announce: 0,
    }
}

fn address(address: &str, prefix: u8, interface: &str) -> Address {
    Address { address: address.parse().unwrap(), prefix, interface: interface.to_owned() }
}

fn hop(name: &str, mtu: u32) -> Hop {
    Hop {
        interface: 7,
        name: name.to_owned(),
        source_mac: [2, 0, 0, 0, 0, 1],
        mac: [2, 0, 0, 0, 0, 0x11],
        mtu,
        source: [10, 1, 0, 1].into(),
        gateway: None,
    }
}

fn unreachable() -> Unresolved {
    Unresolved::Refused { why: "unreachable".to_owned() }
}

fn answered(full: bool) -> Echo {
    Echo::Answered { after: Duration::from_micros(250), full }
}

/// A host on which all is well.
fn good(config: &Config) -> Edge<'_> {
    let hops = [
        ("10.1.0.11", Ok(hop("lan0", 1500))),
        ("10.1.0.1", Err(Unresolved::Local)),
        ("10.255.0.2", Ok(hop("link0", 9000))),
    ];
    Edge {
        config,
        host: Host {
            interfaces: ["wan0", "lan0", "link0"].map(interface).into(),
            addresses: vec![
                address("192.0.2.2", 24, "wan0"),
                address("10.1.0.1", 24, "lan0"),
                address("10.255.0.1", 30, "link0"),
            ],
            all_rp_filter: 0,
        },
        release: "6.1.0-13-amd64".to_owned(),
        bpf_file_system: true,
        forwards_v4: true,
        forwards_v6: true,
        unrouted: ["192.0.2.80", "2001:db8::80"].map(|own| (own.parse().unwrap(), unreachable())).into(),
        echoes: [("west".to_owned(), answered(true))].into(),
        hops: Arc::new(hops.into_iter().map(|(address, hop)| (address.parse().unwrap(), hop)).collect()),
    }
}

fn set_hop(edge: &mut Edge<'_>, address: &str, hop: Result<Hop, Unresolved>) {
    Arc::make_mut(&mut edge.hops).insert(address.parse().unwrap(), hop);
}

/// What is not as it should be, after `spoil`: verdict, check, of what, and the command that mends it.
fn wrong(spoil: impl FnOnce(&mut Edge<'_>)) -> Vec<(Verdict, &'static str, String, Option<String>)> {
    let config = config();
    let mut edge = good(&config);
    spoil(&mut edge);
    let findings = check(&edge).into_iter().filter(|finding| finding.verdict != Verdict::Ok);
    findings.map(|finding| (finding.verdict, finding.check, finding.about, finding.mend)).collect()
}

fn problem(check: &'static str, about: &str, mend: Option<&str>) -> (Verdict, &'static str, String, Option<String>) {
    (Verdict::Problem, check, about.to_owned(), mend.map(str::to_owned))
}

fn warning(check: &'static str, about: &str, mend: Option<&str>) -> (Verdict, &'static str, String, Option<String>) {
    (Verdict::Warning, check, about.to_owned(), mend.map(str::to_owned))
}

#[test]
fn nothing_is_wrong_with_a_good_host() {
    assert_eq!(wrong(|_| ()), []);
}

#[test]
fn an_old_kernel_is_a_problem() {
    for old in ["5.15.0-101-generic", "6.0.19", "4.19", "odd"] {
        assert_eq!(wrong(|edge| edge.release = old.to_owned()), [problem("kernel", old, None)]);
    }
    assert_eq!(wrong(|edge| edge.release = "10.0".to_owned()), []);
}

#[test]
fn pins_need_a_bpf_file_system() {
    let expected = problem("bpf file system", "/sys/fs/bpf/siteswap", Some("mount -t bpf bpf /sys/fs/bpf"));
    assert_eq!(wrong(|edge| edge.bpf_file_system = false), [expected]);
}

#[test]
fn each_family_of_the_resources_addresses_must_be_forwarded() {
    let v4 = problem("forwarding", "IPv4", Some("sysctl -w net.ipv4.ip_forward=1"));
    assert_eq!(wrong(|edge| edge.forwards_v4 = false), [v4]);
    let v6 = problem("forwarding", "IPv6", Some("sysctl -w net.ipv6.conf.all.forwarding=1"));
    assert_eq!(wrong(|edge| edge.forwards_v6 = false), [v6]);
}

#[test]
fn a_configured_interface_must_exist_and_be_up() {
    assert_eq!(wrong(|edge| drop(edge.host.interfaces.remove(0))), [problem("interface", "wan0", None)]);
    assert_eq!(
        wrong(|edge| edge.host.interfaces[0].up = false),
        [problem("interface", "wan0", Some("ip link set wan0 up"))]
    );
    assert_eq!(wrong(|edge| edge.host.interfaces[0].carrier = false), [problem("interface", "wan0", None)]);
}

#[test]
fn the_program_should_be_attached_native_and_alone() {
    let program = |name: &str, generic| Some(Program { name: Some(name.to_owned()), generic });
    assert_eq!(
        wrong(|edge| edge.host.interfaces[0].program = None),
        [warning("program", "wan0", Some("systemctl start siteswap"))]
    );
    assert_eq!(
        wrong(|edge| edge.host.interfaces.iter_mut().for_each(|on| on.program = program(PROGRAM, true))),
        ["wan0", "lan0", "link0"].map(|name| warning("program", name, None))
    );
    assert_eq!(
        wrong(|edge| edge.host.interfaces[0].program = program("xdp_other", false)),
        [problem("program", "wan0", Some("ip link set dev wan0 xdp off"))]
    );
    let mut generic = config();
    generic.dataplane.mode = Mode::Generic;
    let mut edge = good(&generic);
    edge.host.interfaces.iter_mut().for_each(|on| on.program = program(PROGRAM, true));
    assert!(check(&edge).iter().all(|finding| finding.verdict == Verdict::Ok));
}

#[test]
fn native_programs_lose_what_they_send_to_interfaces_with_generic_ones() {
    let generic = || Some(Program { name: Some(PROGRAM.to_owned()), generic: true });
    let expected = [warning("program", "lan0", None), problem("program", "modes", Some("siteswap reload"))];
    assert_eq!(wrong(|edge| edge.host.interfaces[1].program = generic()), expected);
    // Another's program is a problem of its own.
    let other = || Some(Program { name: Some("xdp_other".to_owned()), generic: true });
    let mend = Some("ip link set dev lan0 xdp off");
    assert_eq!(wrong(|edge| edge.host.interfaces[1].program = other()), [problem("program", "lan0", mend)]);
}

#[test]
fn offloads_that_change_what_the_program_sees_must_be_off() {
    assert_eq!(
        wrong(|edge| edge.host.interfaces[1].lro = true),
        [problem("large receive offload", "lan0", Some("ethtool -K lan0 lro off"))]
    );
    assert_eq!(
        wrong(|edge| edge.host.interfaces[1].kind = Kind::Veth),
        [warning("transmit checksums", "lan0", Some("ethtool -K lan0 tx off"))]
    );
}

/// `wan0` becomes a bridge with a VLAN of `eth0` as its port.
fn bridged(edge: &mut Edge<'_>) {
    let [port, vlan] =
        [interface("eth0"), Interface { kind: Kind::Vlan, below: vec!["eth0".to_owned()], ..interface("eth0.7") }];
    edge.host.interfaces[0].below = vec!["eth0.7".to_owned()];
    edge.host.interfaces.extend([Interface { gro: false, ..vlan }, port]);
}

#[test]
fn below_a_generic_program_packets_must_not_be_merged() {
    let generic = |edge: &mut Edge<'_>| {
        bridged(edge);
        edge.host.interfaces[..3].iter_mut().flat_map(|on| &mut on.program).for_each(|program| program.generic = true);
    };
    let mend = Some("ethtool -K eth0 gro off");
    assert!(wrong(generic).contains(&problem("generic receive offload", "eth0", mend)));
    assert_eq!(wrong(bridged), []);
}

#[test]
fn interfaces_that_are_below_each_other_are_gone_through_once() {
    let below =
        |name: &str, below: &str| Interface { below: vec!["wan0".to_owned(), below.to_owned()], ..interface(name) };
    let host = Host {
        interfaces: vec![below("wan0", "eth0"), below("eth0", "eth1"), below("eth1", "eth0")],
        ..Host::default()
    };
    let names: Vec<&str> = all_below(&host, &host.interfaces[0]).iter().map(|found| found.name.as_str()).collect();
    assert_eq!(names, ["eth0", "eth1"]);
}

#[test]
fn the_program_must_see_the_tags_of_the_vlans_on_its_interfaces() {
    let vlan = |edge: &mut Edge<'_>| {
        edge.host.interfaces.push(Interface {
            kind: Kind::Vlan,
            below: vec!["lan0".to_owned()],
            ..interface("lan0.7")
        });
    };
    assert_eq!(wrong(vlan), [problem("VLAN tags", "lan0", Some("ethtool -K lan0 rxvlan off"))]);
    let left_on = |edge: &mut Edge<'_>| {
        vlan(edge);
        edge.host.interfaces[1].takes_tags = false;
    };
    assert_eq!(wrong(left_on), []);
}

#[test]
fn what_users_send_should_fit_the_way_to_the_backends() {
    let shorter = |edge: &mut Edge<'_>| edge.host.interfaces[1].mtu = 1400;
    assert_eq!(wrong(shorter), [warning("packet size", "lan0", Some("ip link set lan0 mtu 1500"))]);
    let larger = |edge: &mut Edge<'_>| {
        edge.host.interfaces[1].mtu = 9000;
        // Or the backends would not be told that less fits the way out.
        edge.unrouted.clear();
    };
    assert_eq!(wrong(larger), []);
    // The tunnel's.
    assert_eq!(wrong(|edge| edge.host.interfaces[2].mtu = 9000), []);
}

/// What is wrong if users and the tunnel come by `wan0`, which takes packets of `mtu` bytes, and `lan0` takes `lan`.
fn shared(mtu: u32, lan: u32) -> Vec<(Verdict, &'static str, String, Option<String>)> {
    wrong(|edge| {
        edge.host.interfaces[0].mtu = mtu;
        edge.host.interfaces[1].mtu = lan;
        edge.host.interfaces[2].name = "unused0".to_owned();
        set_hop(edge, "10.255.0.2", Ok(hop("wan0", mtu)));
    })
    .into_iter()
    .filter(|(_, check, ..)| ["packet size", "tunnel"].contains(check))
    .collect()
}

#[test]
fn an_interface_that_users_share_with_the_tunnel_may_take_more_for_its_sake() {
    assert_eq!(shared(1544, 1500), []);
    let size = || warning("packet size", "lan0", Some("ip link set lan0 mtu 1500"));
    assert_eq!(shared(1544, 1400), [size()]);
    let tunnel = warning("tunnel", "west", Some("ip link set wan0 mtu 1544"));
    assert_eq!(shared(1500, 1400), [size(), tunnel]);
}

#[test]
fn strict_reverse_path_filters_drop_backends_replies() {
    let mend = "sysctl -w net.ipv4.conf.lan0.rp_filter=0";
    assert_eq!(
        wrong(|edge| edge.host.interfaces[1].rp_filter = 1),
        [problem("reverse path filter", "lan0", Some(mend))]
    );
    let mend = "sysctl -w net.ipv4.conf.all.rp_filter=0 && sysctl -w net.ipv4.conf.wan0.rp_filter=0";
    let strict = |edge: &mut Edge<'_>| {
        edge.host.all_rp_filter = 1;
        edge.host.interfaces[0].rp_filter = 1;
    };
    assert_eq!(wrong(strict), [warning("reverse path filter", "wan0", Some(mend))]);
}

#[test]
fn loose_reverse_path_filters_drop_replies_from_addresses_that_cannot_be_sent_to() {
    const CHECK: &str = "reverse path filter";
    let mend = Some("sysctl -w net.ipv4.conf.lan0.rp_filter=0");
    assert_eq!(wrong(|edge| edge.host.interfaces[1].rp_filter = 2), [problem(CHECK, "lan0", mend)]);
    let only = |address: &str, why: Unresolved| {
        let found = wrong(|edge| {
            edge.host.interfaces[1].rp_filter = 2;
            edge.unrouted = [(address.parse().unwrap(), why)].into();
        });
        found.into_iter().filter(|(_, check, ..)| *check == CHECK).collect::<Vec<_>>()
    };
    for why in [unreachable(), Unresolved::NoRoute] {
        assert_eq!(only("198.51.100.80", why), [problem(CHECK, "lan0", mend)]);
    }
    // IPv6 has no such filter, and from others' addresses nothing is replied.
    for address in ["2001:db8::80", "203.0.113.1"] {
        assert_eq!(only(address, unreachable()), [], "{address}");
    }
}

#[test]
fn a_name_with_dots_is_written_so_that_sysctl_understands_it() {
    assert_eq!(set_ipv4("eth0.10", "rp_filter", 0), "sysctl -w net/ipv4/conf/eth0.10/rp_filter=0");
}

#[test]
fn interfaces_to_backends_and_peers_should_have_the_program() {
    for address in ["10.1.0.11", "10.255.0.2"] {
        assert_eq!(wrong(|edge| set_hop(edge, address, Ok(hop("eth9", 9000)))), [warning("program", "eth9", None)]);
    }
}

#[test]
fn a_steered_address_must_not_be_the_edges_own() {
    for (own, prefix) in [("192.0.2.80", 32), ("2001:db8::80", 64), ("198.51.100.80", 24)] {
        let mend = format!("ip addr del {own}/{prefix} dev wan0");
        assert_eq!(
            wrong(|edge| edge.host.addresses.push(address(own, prefix, "wan0"))),
            [problem("address", own, Some(&mend))]
        );
    }
}

/// As if these were routed.
fn routed(edge: &mut Edge<'_>, addresses: &[&str]) {
    edge.unrouted.retain(|unrouted, _| !addresses.contains(&unrouted.to_string().as_str()));
}

#[test]
fn what_is_for_no_port_goes_round_without_an_unreachable_route() {
    let own = "192.0.2.80";
    let mend = "ip route add unreachable 192.0.2.80";
    assert_eq!(wrong(|edge| routed(edge, &[own])), [warning("route", own, Some(mend))]);
    let mend6 = "ip route add unreachable 2001:db8::80";
    assert_eq!(wrong(|edge| routed(edge, &["2001:db8::80"])), [warning("route", "2001:db8::80", Some(mend6))]);
    // A filter that the route would turn against the backends' replies goes first.
    let loose = |edge: &mut Edge<'_>| {
        routed(edge, &[own]);
        edge.host.interfaces[1].rp_filter = 2;
    };
    let both = format!("sysctl -w net.ipv4.conf.lan0.rp_filter=0 && {mend}");
    assert_eq!(wrong(loose), [warning("route", own, Some(&both))]);
    // What becomes of an address of the host's own is said already.
    let placed = |edge: &mut Edge<'_>| {
        routed(edge, &[own]);
        edge.host.addresses.push(address(own, 32, "lo"));
    };
    assert_eq!(wrong(placed), [problem("address", own, Some("ip addr del 192.0.2.80/32 dev lo"))]);
    // It may be another host's where nothing is steered.
    let mut unsteered = config();
    unsteered.dataplane.interfaces.clear();
    let mut edge = good(&unsteered);
    edge.unrouted.clear();
    assert!(check(&edge).iter().all(|finding| finding.check != "route" || finding.verdict == Verdict::Ok));
}

#[test]
fn an_unreachable_route_keeps_backends_from_learning_what_fits_a_narrow_way_out() {
    let narrow = |edge: &mut Edge<'_>| edge.host.interfaces[0].mtu = 1400;
    let expected = ["192.0.2.80", "2001:db8::80"].map(|own| warning("route", own, None));
    assert_eq!(wrong(narrow), expected);
    let without = |edge: &mut Edge<'_>| {
        narrow(edge);
        edge.unrouted.clear();
    };
    assert_eq!(wrong(without), []);
    // The tunnel's interface is no way out, unless there is no other.
    assert_eq!(wrong(|edge| edge.host.interfaces[2].mtu = 1400), []);
    let mut shared = config();
    shared.dataplane.interfaces.pop();
    let mut edge = good(&shared);
    narrow(&mut edge);
    set_hop(&mut edge, "10.255.0.2", Ok(hop("wan0", 1400)));
    let warned = check(&edge).into_iter().filter(|finding| finding.check == "route" && finding.mend.is_none());
    assert_eq!(warned.filter(|finding| finding.verdict == Verdict::Warning).count(), 2);
    // Nobody knows where the tunnel goes.
    let unknown = |edge: &mut Edge<'_>| {
        narrow(edge);
        set_hop(edge, "10.255.0.2", Err(Unresolved::NoRoute));
    };
    assert_eq!(wrong(unknown), [problem("tunnel", "west", None)]);
}

#[test]
fn nothing_is_taken_over_from_a_silent_peer_that_cannot_be_tried() {
    let (four, six) = ("198.51.100.80", "2001:db8:2::80");
    let unrouted = |addresses: &[&str], why: &Unresolved| {
        let insert = |edge: &mut Edge<'_>| {
            edge.unrouted.extend(addresses.iter().map(|address| (address.parse().unwrap(), why.clone())));
        };
        wrong(insert)
    };
    for why in [unreachable(), Unresolved::NoRoute] {
        assert_eq!(unrouted(&[four, six], &why), [four, six].map(|address| problem("route", address, None)));
        assert_eq!(unrouted(&[four], &why), [problem("route", four, None)]);
        // A site may have no IPv6.
        assert_eq!(unrouted(&[six], &why), [warning("route", six, None)]);
    }
    let mut silence = config();
    silence.resources.get_mut("www").unwrap().takeover = Takeover::Silence;
    let mut edge = good(&silence);
    edge.unrouted.insert(four.parse().unwrap(), unreachable());
    assert!(check(&edge).iter().all(|finding| finding.verdict == Verdict::Ok), "it need not be tried");
}

#[test]
fn a_steered_backend_must_answer_on_a_network_of_the_edges() {
    let none = || Err(Unresolved::NoNeighbour { gateway: None, interface: "lan0".to_owned() });
    assert_eq!(wrong(|edge| set_hop(edge, "10.1.0.11", none())), [problem("backend", "10.1.0.11", None)]);
    assert_eq!(
        wrong(|edge| set_hop(edge, "10.1.0.11", Err(Unresolved::Local))),
        [problem("backend", "10.1.0.11", None)]
    );
    let gateway = Some([10, 1, 0, 254].into());
    let behind = || Ok(Hop { gateway, ..hop("lan0", 1500) });
    assert_eq!(wrong(|edge| set_hop(edge, "10.1.0.11", behind())), [problem("backend", "10.1.0.11", None)]);
    // Where the program does not send to it, only the probes must get there.
    assert_eq!(wrong(|edge| set_hop(edge, "10.1.0.1", behind())), []);
    assert_eq!(wrong(|edge| set_hop(edge, "10.1.0.1", none())), [problem("backend", "10.1.0.1", None)]);
}

#[test]
fn a_tunnels_path_must_resolve_and_should_take_whole_packets() {
    assert_eq!(wrong(|edge| set_hop(edge, "10.255.0.2", Err(Unresolved::NoRoute))), [problem("tunnel", "west", None)]);
    assert_eq!(wrong(|edge| set_hop(edge, "10.255.0.2", Ok(hop("link0", 1544)))), []);
    let mend = "ip link set link0 mtu 1544";
    assert_eq!(
        wrong(|edge| set_hop(edge, "10.255.0.2", Ok(hop("link0", 1543)))),
        [warning("tunnel", "west", Some(mend))]
    );
    assert_eq!(
        wrong(|edge| set_hop(edge, "10.255.0.2", Ok(hop("link0", 1323)))),
        [problem("tunnel", "west", Some(mend))],
        "IPv6 does not fit"
    );
}

#[test]
fn what_users_may_send_should_fit_the_tunnel_too() {
    let tunnel = |users: u32, mtu: u32| {
        wrong(|edge| {
            edge.host.interfaces[0].mtu = users;
            edge.host.interfaces[1].mtu = 9000;
            // The way out of a LAN with larger packets.
            edge.unrouted.clear();
            set_hop(edge, "10.255.0.2", Ok(hop("link0", mtu)));
        })
    };
    let mend = "ip link set link0 mtu 4044";
    assert_eq!(tunnel(4000, 4043), [warning("tunnel", "west", Some(mend))]);
    assert_eq!(tunnel(4000, 4044), []);
    // Those from the LAN are told.
    assert_eq!(tunnel(1500, 1544), []);
}

#[test]
fn what_is_left_in_the_tunnel_is_said() {
    let config = config();
    let mut edge = good(&config);
    set_hop(&mut edge, "10.255.0.2", Ok(hop("link0", 1500)));
    let findings = check(&edge);
    let tunnel = findings.iter().find(|finding| finding.about == "west").unwrap();
    assert!(tunnel.says.contains("MTU of 1500 leaves 1456 bytes") && tunnel.says.contains("ICMP"), "{}", tunnel.says);
}

#[test]
fn a_path_that_loses_packets_of_its_own_mtu_is_a_problem() {
    let config = config();
    for mtu in [9000, 1500] {
        let mut edge = good(&config);
        set_hop(&mut edge, "10.255.0.2", Ok(hop("link0", mtu)));
        edge.echoes.insert("west".to_owned(), answered(false));
        let findings = check(&edge);
        let wrong: Vec<_> = findings.iter().filter(|finding| finding.verdict != Verdict::Ok).collect();
        let [Finding { check: "tunnel", verdict: Verdict::Problem, says, .. }] = wrong[..] else { panic!("{wrong:?}") };
        assert!(says.contains(&format!("none of {mtu} bytes")), "{says}");
    }
}

#[test]
fn a_peers_program_must_answer_through_the_tunnel() {
    for bad in [Echo::Refused, Echo::Stranger, Echo::Silent, Echo::Unsent("no buffer space".to_owned())] {
        assert_eq!(wrong(|edge| drop(edge.echoes.insert("west".to_owned(), bad))), [problem("peer", "west", None)]);
    }
}

#[test]
fn this_sites_tunnel_should_end_here() {
    assert_eq!(wrong(|edge| drop(edge.host.addresses.pop())), [warning("tunnel", "this site", None)]);
}

#[test]
fn without_interfaces_nothing_is_steered() {
    let mut config = config();
    config.dataplane.interfaces.clear();
    let findings = check(&good(&config));
    let warned: Vec<_> = findings.iter().filter(|finding| finding.verdict != Verdict::Ok).collect();
    assert!(matches!(warned[..], [Finding { check: "program", verdict: Verdict::Warning, .. }]), "{warned:?}");
}
