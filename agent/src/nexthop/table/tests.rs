use super::*;

const LAN: u32 = 3;
const WAN: u32 = 4;
const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const BACKEND: [u8; 6] = [2, 0, 0, 0, 0, 11];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link(name: &str) -> Link {
    Link { name: name.to_owned(), mac: Some(OWN), mtu: 1500, up: true }
}

fn on_link(source: &str) -> Route {
    Route { interface: LAN, gateway: None, source: Some(ip(source)), mtu: None }
}

fn by(gateway: &str, source: &str) -> Route {
    Route { interface: WAN, gateway: Some(ip(gateway)), source: Some(ip(source)), mtu: None }
}

const KNOWN: Neighbour = Neighbour { mac: BACKEND, fixed: false };

/// Two interfaces, and these routes and neighbours.
fn table<const R: usize, const N: usize>(routes: [(&str, Route); R], neighbours: [(u32, &str); N]) -> Table {
    Table {
        links: [(LAN, link("lan0")), (WAN, link("wan0"))].into(),
        neighbours: neighbours.map(|(link, address)| ((link, ip(address)), KNOWN)).into(),
        routes: routes.map(|(address, route)| (ip(address), Ok(route))).into(),
    }
}

fn hop(table: &Table, address: &str) -> Result<Hop, Unresolved> {
    table.hops().remove(&ip(address)).unwrap()
}

#[test]
fn an_address_on_the_interfaces_network_is_its_own_next_hop() {
    for (address, source) in [("10.1.0.11", "10.1.0.1"), ("2001:db8::11", "2001:db8::1")] {
        let table = table([(address, on_link(source))], [(LAN, address)]);
        let expected = Hop {
            interface: LAN,
            name: "lan0".to_owned(),
            source_mac: OWN,
            mac: BACKEND,
            mtu: 1500,
            source: ip(source),
            gateway: None,
        };
        assert_eq!(hop(&table, address), Ok(expected));
    }
}

#[test]
fn an_address_behind_a_gateway_is_sent_to_the_gateways_mac_even_if_it_is_of_the_other_family() {
    for gateway in ["192.0.2.1", "fe80::1"] {
        let table = table([("198.51.100.2", by(gateway, "192.0.2.2"))], [(WAN, gateway), (LAN, "198.51.100.2")]);
        let hop = hop(&table, "198.51.100.2").unwrap();
        assert_eq!((hop.interface, hop.mac, hop.gateway), (WAN, BACKEND, Some(ip(gateway))));
    }
}

#[test]
fn the_routes_mtu_counts_before_the_interfaces_but_cannot_exceed_it() {
    for (own, expected) in [(None, 1500), (Some(1400), 1400), (Some(9000), 1500)] {
        let route = Route { mtu: own, ..on_link("10.1.0.1") };
        assert_eq!(hop(&table([("10.1.0.11", route)], [(LAN, "10.1.0.11")]), "10.1.0.11").unwrap().mtu, expected);
    }
}

#[test]
fn what_lacks_is_named() {
    let good = || table([("10.1.0.11", on_link("10.1.0.1"))], [(LAN, "10.1.0.11")]);
    let interface = || "lan0".to_owned();
    let without = |spoil: fn(&mut Table)| {
        let mut table = good();
        spoil(&mut table);
        hop(&table, "10.1.0.11").unwrap_err()
    };
    assert_eq!(without(|table| table.links.clear()), Unresolved::NoRoute);
    assert_eq!(
        without(|table| table.links.get_mut(&LAN).unwrap().up = false),
        Unresolved::Down { interface: interface() }
    );
    assert_eq!(
        without(|table| table.links.get_mut(&LAN).unwrap().mac = None),
        Unresolved::NotEthernet { interface: interface() }
    );
    assert_eq!(
        without(|table| table.neighbours.clear()),
        Unresolved::NoNeighbour { gateway: None, interface: interface() }
    );
    assert_eq!(
        without(|table| {
            table.routes.insert(ip("10.1.0.11"), Ok(Route { source: None, ..on_link("10.1.0.1") }));
        }),
        Unresolved::NoSource { interface: interface() }
    );
    assert_eq!(
        without(|table| {
            table.routes.insert(ip("10.1.0.11"), Err(Unresolved::Local));
        }),
        Unresolved::Local
    );
}

#[test]
fn every_reason_says_what_mends_it() {
    let interface = || "lan0".to_owned();
    let gateway = Some(ip("10.1.0.254"));
    let reasons = [
        (Unresolved::NoRoute, "ip route add"),
        (Unresolved::Refused { why: "prohibit".to_owned() }, "ip route del"),
        (Unresolved::Local, "ip addr del"),
        (Unresolved::NotUnicast, "name a host's own"),
        (Unresolved::Down { interface: interface() }, "ip link set lan0 up"),
        (Unresolved::NotEthernet { interface: interface() }, "lan0, which is not Ethernet; route it"),
        (Unresolved::NoSource { interface: interface() }, "ip addr add ADDRESS/PREFIX dev lan0"),
        (Unresolved::NoNeighbour { gateway: None, interface: interface() }, "it does not answer on lan0"),
        (Unresolved::NoNeighbour { gateway, interface: interface() }, "its gateway 10.1.0.254 does not answer on lan0"),
    ];
    for (reason, says) in reasons {
        assert!(reason.to_string().contains(says), "{reason}");
    }
}

#[test]
fn the_kernel_is_asked_for_neighbours_that_are_missing_or_age_but_never_for_permanent_ones() {
    let mut table = table([("10.1.0.11", on_link("10.1.0.1")), ("198.51.100.2", by("192.0.2.1", "192.0.2.2"))], []);
    assert_eq!(table.asks(ip("10.1.0.11")), Some((LAN, ip("10.1.0.11"))));
    assert_eq!(table.asks(ip("198.51.100.2")), Some((WAN, ip("192.0.2.1"))));
    table.learn(News::Neighbour((LAN, ip("10.1.0.11")), Some(KNOWN)));
    assert_eq!(table.asks(ip("10.1.0.11")), Some((LAN, ip("10.1.0.11"))));
    table.learn(News::Neighbour((LAN, ip("10.1.0.11")), Some(Neighbour { fixed: true, ..KNOWN })));
    assert_eq!(table.asks(ip("10.1.0.11")), None);
    table.learn(News::Link(WAN, Some(Link { up: false, ..link("wan0") })));
    assert_eq!(table.asks(ip("198.51.100.2")), None);
    assert_eq!(table.asks(ip("203.0.113.1")), None, "nobody watches it");
}

#[test]
fn only_news_that_may_move_a_route_have_it_looked_up_again() {
    let mut table = table(
        [
            ("10.1.0.11", on_link("10.1.0.1")),
            ("198.51.100.2", by("192.0.2.1", "192.0.2.2")),
            ("2001:db8::11", on_link("2001:db8::1")),
        ],
        [(LAN, "10.1.0.11"), (WAN, "192.0.2.1")],
    );
    let mut affected = |news| table.learn(news).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let prefix = |address, length| News::Routes(Some(Prefix { address: ip(address), length }));
    let all = "10.1.0.11 198.51.100.2 2001:db8::11";
    assert_eq!(affected(prefix("0.0.0.0", 0)), "10.1.0.11 198.51.100.2");
    assert_eq!(affected(prefix("::", 0)), "2001:db8::11");
    assert_eq!(affected(prefix("10.1.0.8", 29)), "10.1.0.11");
    assert_eq!(affected(prefix("10.1.0.12", 30)), "");
    assert_eq!(affected(prefix("198.51.100.2", 32)), "198.51.100.2");
    assert_eq!(affected(prefix("2001:db8::", 64)), "2001:db8::11");
    assert_eq!(affected(News::Routes(None)), all);
    assert_eq!(affected(News::Link(LAN, Some(link("lan0")))), "", "nothing new");
    assert_eq!(affected(News::Link(LAN, Some(Link { up: false, ..link("lan0") }))), all);
    assert_eq!(affected(News::Link(WAN, None)), all);
    assert_eq!(affected(News::Neighbour((LAN, ip("10.1.0.11")), Some(KNOWN))), "");
    assert_eq!(
        affected(News::Neighbour((WAN, ip("192.0.2.1")), None)),
        "198.51.100.2",
        "perhaps its route went with it"
    );
    assert_eq!(affected(News::Neighbour((LAN, ip("192.0.2.1")), None)), "");
}

#[test]
fn a_neighbour_that_fails_is_unresolved_and_a_new_mac_is_taken() {
    let mut table = table([("10.1.0.11", on_link("10.1.0.1"))], [(LAN, "10.1.0.11")]);
    let key = (LAN, ip("10.1.0.11"));
    let mac = [2, 0, 0, 0, 0, 99];
    table.learn(News::Neighbour(key, Some(Neighbour { mac, fixed: false })));
    assert_eq!(hop(&table, "10.1.0.11").unwrap().mac, mac);
    table.learn(News::Neighbour(key, None));
    assert!(matches!(hop(&table, "10.1.0.11"), Err(Unresolved::NoNeighbour { gateway: None, .. })));
}
