//! Next hops follow the kernel: real interfaces, routes and neighbours in network namespaces. Needs root.

mod hosts;

use std::{collections::BTreeSet, fmt::Write, fs, future::Future, net::IpAddr, sync::Arc, time::Duration};

use hosts::{Host, enter_new, ip, run, set};
use siteswap::nexthop::{Hop, Hops, NextHops, Unresolved};
use tokio::{sync::watch, time::timeout};

/// Longer than the kernel and the follower take for anything here.
const DEADLINE: Duration = Duration::from_secs(40);

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| address(text)).collect()
}

/// The hops being followed from this thread's namespace.
struct Followed {
    addresses: watch::Sender<BTreeSet<IpAddr>>,
    hops: watch::Receiver<Arc<Hops>>,
    _running: NextHops,
}

impl Followed {
    fn start(watched: &[&str]) -> Self {
        let (addresses, receiver) = watch::channel(addresses(watched));
        let (running, hops) = NextHops::start(receiver).unwrap();
        Self { addresses, hops, _running: running }
    }

    /// Waits until the hops are so.
    async fn until(&mut self, so: impl Fn(&Hops) -> bool) -> Arc<Hops> {
        let waited =
            timeout(DEADLINE, self.hops.wait_for(|hops| so(hops))).await.map(|hops| Arc::clone(&hops.unwrap()));
        waited.unwrap_or_else(|_| panic!("in vain; they are {:#?}", *self.hops.borrow()))
    }

    /// Waits until this address is resolved so.
    async fn hop(&mut self, to: &str, so: impl Fn(&Hop) -> bool) -> Hop {
        let to = address(to);
        let hops = self.until(|hops| matches!(hops.get(&to), Some(Ok(hop)) if so(hop))).await;
        hops[&to].clone().unwrap()
    }

    /// Waits until this address is unresolved so.
    async fn unresolved(&mut self, to: &str, so: impl Fn(&Unresolved) -> bool) {
        let to = address(to);
        self.until(|hops| matches!(hops.get(&to), Some(Err(why)) if so(why))).await;
    }
}

/// Runs a test on the edge: this thread, in a new namespace, with a runtime of its own.
fn on_edge<F: Future>(test: impl FnOnce() -> F) {
    enter_new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { test().await });
}

/// A backend at 10.1.0.11 and fd01::11 on the edge's `lan0`.
fn backend() -> Host {
    let backend = Host::new();
    backend.connect("lan0", "eth0");
    ip("addr add 10.1.0.1/24 dev lan0");
    ip("addr add fd01::1/64 dev lan0 nodad");
    backend.ip("addr add 10.1.0.11/24 dev eth0");
    backend.ip("addr add fd01::11/64 dev eth0 nodad");
    backend
}

/// A router at 192.0.2.1 and fd02::1 on the edge's `wan0`.
fn router() -> Host {
    let router = Host::new();
    router.connect("wan0", "eth0");
    ip("addr add 192.0.2.2/24 dev wan0");
    ip("addr add fd02::2/64 dev wan0 nodad");
    router.ip("addr add 192.0.2.1/24 dev eth0");
    router.ip("addr add fd02::1/64 dev eth0 nodad");
    router
}

fn index(interface: &str) -> u32 {
    nix::net::if_::if_nametoindex(interface).unwrap()
}

/// The MAC in what `ip link show` printed.
fn mac(shown: &str) -> [u8; 6] {
    let text = shown.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap();
    let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// How long the kernel waits before it doubts and discards a neighbour on the LAN.
fn shorten_patience() {
    set("net/ipv4/neigh/lan0/delay_first_probe_time", "1");
    set("net/ipv4/neigh/lan0/retrans_time_ms", "50");
}

fn own_mac(interface: &str) -> [u8; 6] {
    mac(&ip(&format!("link show dev {interface}")))
}

/// Waits until the kernel has this neighbour in this state.
async fn until_neighbour(address: &str, state: &str) {
    let so = |line: &str| line.starts_with(address) && line.contains(state);
    let waited = timeout(DEADLINE, async {
        while !ip("neigh show dev lan0").lines().any(so) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{address} is not {state}: {}", ip("neigh show dev lan0")));
}

fn no_neighbour(why: &Unresolved) -> bool {
    matches!(why, Unresolved::NoNeighbour { gateway: None, .. })
}

#[test]
fn a_backend_on_the_lan_is_its_own_next_hop() {
    on_edge(async || {
        let backend = backend();
        let mut followed = Followed::start(&["10.1.0.11", "fd01::11"]);
        for (to, source) in [("10.1.0.11", "10.1.0.1"), ("fd01::11", "fd01::1")] {
            let expected = Hop {
                interface: index("lan0"),
                name: "lan0".to_owned(),
                source_mac: own_mac("lan0"),
                mac: mac(&backend.ip("link show dev eth0")),
                mtu: 1500,
                source: address(source),
                gateway: None,
            };
            assert_eq!(followed.hop(to, |_| true).await, expected);
        }
    });
}

#[test]
fn a_peer_behind_a_gateway_is_reached_by_the_gateways_mac() {
    on_edge(async || {
        let router = router();
        ip("route add default via 192.0.2.1");
        ip("route add default via fd02::1");
        ip("route add 203.0.113.0/24 via inet6 fd02::1 dev wan0");
        let mut followed = Followed::start(&["198.51.100.2", "2001:db8::2", "203.0.113.2"]);
        let to_router = mac(&router.ip("link show dev eth0"));
        for (to, gateway, source) in [
            ("198.51.100.2", "192.0.2.1", "192.0.2.2"),
            ("2001:db8::2", "fd02::1", "fd02::2"),
            ("203.0.113.2", "fd02::1", "192.0.2.2"),
        ] {
            let hop = followed.hop(to, |_| true).await;
            assert_eq!((hop.name.as_str(), hop.mac), ("wan0", to_router), "{to}");
            assert_eq!((hop.gateway, hop.source), (Some(address(gateway)), address(source)), "{to}");
        }
    });
}

#[test]
fn the_mtu_is_the_routes_or_the_interfaces_as_they_change() {
    on_edge(async || {
        let _backend = backend();
        let _router = router();
        ip("route add 198.51.100.0/24 via 192.0.2.1 mtu 1400");
        let mut followed = Followed::start(&["10.1.0.11", "198.51.100.2"]);
        followed.hop("198.51.100.2", |hop| hop.mtu == 1400).await;
        followed.hop("10.1.0.11", |hop| hop.mtu == 1500).await;
        ip("route change 198.51.100.0/24 via 192.0.2.1 mtu 1300");
        followed.hop("198.51.100.2", |hop| hop.mtu == 1300).await;
        ip("link set lan0 mtu 9000");
        followed.hop("10.1.0.11", |hop| hop.mtu == 9000).await;
        ip("link set wan0 mtu 1280");
        followed.hop("198.51.100.2", |hop| hop.mtu == 1280).await;
    });
}

#[test]
fn what_cannot_be_reached_is_said_why() {
    on_edge(async || {
        let _backend = backend();
        ip("route add blackhole 10.66.0.0/16");
        ip("route add prohibit fd66::/64");
        ip("route add unreachable 10.67.0.0/16");
        ip("route add 10.77.0.0/16 dev lo");
        let refused = |why: &str| Unresolved::Refused { why: why.to_owned() };
        let cases = [
            ("203.0.113.9", Unresolved::NoRoute),
            ("2001:db8::9", Unresolved::NoRoute),
            ("10.1.0.1", Unresolved::Local),
            ("fd01::1", Unresolved::Local),
            ("10.1.0.255", Unresolved::NotUnicast),
            ("10.66.0.1", refused("blackhole")),
            ("fd66::1", refused("prohibit")),
            ("10.67.0.1", refused("unreachable")),
            ("10.77.0.1", Unresolved::NotEthernet { interface: "lo".to_owned() }),
        ];
        let mut followed = Followed::start(&cases.each_ref().map(|(to, _)| *to));
        for (to, expected) in &cases {
            followed.unresolved(to, |why| why == expected).await;
        }
        // A route is all that this one lacked.
        ip("addr add 203.0.113.1/24 dev lan0");
        followed.unresolved("203.0.113.9", no_neighbour).await;
    });
}

#[test]
fn a_neighbour_that_does_not_answer_is_asked_until_it_does() {
    on_edge(async || {
        let backend = backend();
        let mut followed = Followed::start(&["10.1.0.12", "fd01::12"]);
        for silent in ["10.1.0.12", "fd01::12"] {
            followed.unresolved(silent, no_neighbour).await;
        }
        until_neighbour("10.1.0.12 ", "FAILED").await;
        backend.ip("addr add 10.1.0.12/24 dev eth0");
        backend.ip("addr add fd01::12/64 dev eth0 nodad");
        followed.hop("10.1.0.12", |_| true).await;
        followed.hop("fd01::12", |_| true).await;
    });
}

#[test]
fn a_neighbours_new_mac_is_taken_when_it_is_announced_and_when_it_is_found() {
    on_edge(async || {
        let backend = backend();
        let mut followed = Followed::start(&["10.1.0.11", "fd01::11"]);
        let old = followed.hop("10.1.0.11", |_| true).await.mac;
        followed.hop("fd01::11", |hop| hop.mac == old).await;
        backend.set("net/ipv4/conf/eth0/arp_notify", "1");
        backend.set("net/ipv6/conf/eth0/ndisc_notify", "1");
        backend.ip("link set eth0 address 02:00:00:00:00:99");
        for to in ["10.1.0.11", "fd01::11"] {
            followed.hop(to, |hop| hop.mac == [2, 0, 0, 0, 0, 0x99]).await;
        }
        backend.set("net/ipv4/conf/eth0/arp_notify", "0");
        backend.ip("link set eth0 address 02:00:00:00:00:77");
        ip("neigh flush dev lan0");
        followed.hop("10.1.0.11", |hop| hop.mac == [2, 0, 0, 0, 0, 0x77]).await;
    });
}

/// The kernel would never find out: a STALE entry stays as it is while nothing is sent through the kernel's stack.
#[test]
fn a_neighbours_new_mac_is_found_even_if_nobody_announces_it() {
    on_edge(async || {
        let backend = backend();
        shorten_patience();
        let mut followed = Followed::start(&["10.1.0.11"]);
        let old = followed.hop("10.1.0.11", |_| true).await.mac;
        ip(&format!("neigh replace 10.1.0.11 dev lan0 lladdr {} nud stale", text(old)));
        backend.ip("link set eth0 address 02:00:00:00:00:99");
        followed.hop("10.1.0.11", |hop| hop.mac == [2, 0, 0, 0, 0, 0x99]).await;
    });
}

#[test]
fn a_neighbour_that_was_resolved_and_fails_is_unresolved() {
    on_edge(async || {
        let backend = backend();
        shorten_patience();
        let mut followed = Followed::start(&["10.1.0.11"]);
        let mac = followed.hop("10.1.0.11", |_| true).await.mac;
        backend.ip("addr del 10.1.0.11/24 dev eth0");
        // The kernel doubts, probes, and gives up.
        ip(&format!("neigh replace 10.1.0.11 dev lan0 lladdr {} nud probe", text(mac)));
        followed.unresolved("10.1.0.11", no_neighbour).await;
    });
}

#[test]
fn a_permanent_neighbour_stays_permanent() {
    on_edge(async || {
        let _backend = backend();
        ip("neigh add 10.1.0.50 dev lan0 lladdr 02:00:00:00:00:50 nud permanent");
        let mut followed = Followed::start(&["10.1.0.50", "10.1.0.11"]);
        followed.hop("10.1.0.50", |hop| hop.mac == [2, 0, 0, 0, 0, 0x50]).await;
        followed.hop("10.1.0.11", |_| true).await;
        assert!(ip("neigh show 10.1.0.50 dev lan0").contains("PERMANENT"));
    });
}

#[test]
fn an_interface_that_goes_down_takes_its_hops_along_and_brings_them_back() {
    on_edge(async || {
        let backend = backend();
        let mut followed = Followed::start(&["10.1.0.11"]);
        followed.hop("10.1.0.11", |_| true).await;
        // The kernel takes the route away without saying so.
        ip("link set lan0 down");
        followed.unresolved("10.1.0.11", |why| *why == Unresolved::NoRoute).await;
        ip("link set lan0 up");
        followed.hop("10.1.0.11", |_| true).await;
        // The cable is cut: the route stays.
        backend.ip("link set eth0 down");
        followed.unresolved("10.1.0.11", |why| *why == Unresolved::Down { interface: "lan0".to_owned() }).await;
        backend.ip("link set eth0 up");
        followed.hop("10.1.0.11", |_| true).await;
        ip("link del lan0");
        followed.unresolved("10.1.0.11", |why| *why == Unresolved::NoRoute).await;
    });
}

#[test]
fn a_route_that_moves_to_another_interface_is_followed_there() {
    on_edge(async || {
        let _backend = backend();
        let _router = router();
        ip("route add 198.51.100.0/24 via 192.0.2.1");
        let mut followed = Followed::start(&["198.51.100.2"]);
        followed.hop("198.51.100.2", |hop| hop.name == "wan0").await;
        ip("route replace 198.51.100.0/24 via 10.1.0.11");
        let hop = followed.hop("198.51.100.2", |hop| hop.name == "lan0").await;
        assert_eq!((hop.gateway, hop.source), (Some(address("10.1.0.11")), address("10.1.0.1")));
        // A rule moves it without any change of a route.
        ip("route add 198.51.100.0/24 via 192.0.2.1 table 77");
        ip("rule add to 198.51.100.2 table 77");
        followed.hop("198.51.100.2", |hop| hop.name == "wan0").await;
        ip("rule del to 198.51.100.2 table 77");
        followed.hop("198.51.100.2", |hop| hop.name == "lan0").await;
        // A better route goes down with its interface, and leaves the way to the next.
        ip("route add 198.51.100.0/25 via 192.0.2.1");
        followed.hop("198.51.100.2", |hop| hop.name == "wan0").await;
        ip("link set wan0 down");
        followed.hop("198.51.100.2", |hop| hop.name == "lan0").await;
    });
}

#[test]
fn addresses_are_added_and_removed_while_others_stay() {
    on_edge(async || {
        let backend = backend();
        backend.ip("addr add 10.1.0.12/24 dev eth0");
        let mut followed = Followed::start(&[]);
        followed.addresses.send_replace(addresses(&["10.1.0.11"]));
        followed.hop("10.1.0.11", |_| true).await;
        followed.addresses.send_replace(addresses(&["10.1.0.11", "10.1.0.12"]));
        followed.until(|hops| hops.len() == 2 && hops.values().all(Result::is_ok)).await;
        followed.addresses.send_replace(addresses(&["10.1.0.12"]));
        let left = followed.until(|hops| hops.len() == 1).await;
        assert!(left[&address("10.1.0.12")].is_ok());
        followed.addresses.send_replace(addresses(&[]));
        followed.until(Hops::is_empty).await;
    });
}

#[test]
fn nothing_is_told_while_nothing_that_matters_changes() {
    on_edge(async || {
        let backend = backend();
        let mut followed = Followed::start(&["10.1.0.11"]);
        followed.hop("10.1.0.11", |_| true).await;
        followed.hops.mark_unchanged();
        // Other neighbours, other routes, and the same neighbour in other states.
        let mac = text(mac(&backend.ip("link show dev eth0")));
        ip("route add 198.51.100.0/24 via 10.1.0.11");
        ip("neigh add 10.1.0.99 dev lan0 lladdr 02:00:00:00:00:99");
        for state in ["stale", "reachable", "delay", "stale"] {
            ip(&format!("neigh replace 10.1.0.11 dev lan0 lladdr {mac} nud {state}"));
        }
        // A change that does matter comes alone.
        ip("link set lan0 mtu 1400");
        timeout(DEADLINE, followed.hops.changed()).await.unwrap().unwrap();
        let seen = followed.hops.borrow_and_update()[&address("10.1.0.11")].clone().unwrap();
        assert_eq!(seen.mtu, 1400);
    });
}

/// Messages that the kernel could not deliver to a netlink socket of this namespace: the column before the last.
fn dropped() -> u64 {
    let sockets = fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
    sockets.lines().skip(1).map(|line| line.split_whitespace().rev().nth(1).unwrap().parse::<u64>().unwrap()).sum()
}

/// ENOBUFS: while nobody reads, more news come than the socket holds, and the one that matters is among the lost.
#[test]
fn missed_news_lead_to_a_complete_reading() {
    on_edge(async || {
        let _backend = backend();
        ip("neigh add 10.1.0.50 dev lan0 lladdr 02:00:00:00:00:50 nud permanent");
        let mut followed = Followed::start(&["10.1.0.50"]);
        followed.hop("10.1.0.50", |_| true).await;
        // No await until the end: the follower, on this same thread, does not read.
        let mut flood = String::new();
        for round in 0..20 {
            for host in 1..=250 {
                writeln!(flood, "neigh replace 10.1.0.{host} dev lan0 lladdr 02:00:00:00:{round:02x}:{host:02x}")
                    .unwrap();
            }
        }
        writeln!(flood, "neigh replace 10.1.0.50 dev lan0 lladdr 02:00:00:00:ff:ff").unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, flood).unwrap();
        run("ip", &["-batch", file.path().to_str().unwrap()]);
        assert!(dropped() > 0, "the flood is too small for this socket");
        followed.hop("10.1.0.50", |hop| hop.mac == [2, 0, 0, 0, 0xff, 0xff]).await;
    });
}

#[test]
fn following_ends_with_its_handle() {
    on_edge(async || {
        let _backend = backend();
        let mut followed = Followed::start(&["10.1.0.11"]);
        followed.hop("10.1.0.11", |_| true).await;
        let Followed { addresses: _addresses, mut hops, _running } = followed;
        drop(_running);
        timeout(DEADLINE, async { while hops.changed().await.is_ok() {} }).await.unwrap();
    });
}
