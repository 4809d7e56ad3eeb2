//! The lab on paper: nodes, cables, addresses and routes. Nothing here touches the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One data centre's part of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its name, which is its edge's node too.
    pub name: &'static str,
    /// The other site's name.
    pub peer: &'static str,
    /// 1 or 2: the part of its addresses that differs.
    number: u8,
    /// The first three bytes of its public addresses.
    wan: [u8; 3],
}

/// Both sites.
pub const SITES: [Site; 2] = [
    Site { name: "east", peer: "west", number: 1, wan: [192, 0, 2] },
    Site { name: "west", peer: "east", number: 2, wan: [198, 51, 100] },
];

/// East.
pub const EAST: Site = SITES[0];
/// West.
pub const WEST: Site = SITES[1];

/// Port of the data tier, TCP and UDP.
pub const DATA_PORT: u16 = 7001;
/// Port of the agents' link.
pub const LINK_PORT: u16 = 7400;

/// What an edge offers users, by the last part of its public addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Public {
    /// The name server: the edge itself.
    Dns,
    /// Resource `www`.
    Www,
    /// Resource `orders`.
    Orders,
    /// Resource `accounts`.
    Accounts,
}

/// The resources.
pub const RESOURCES: [Public; 3] = [Public::Www, Public::Orders, Public::Accounts];

impl Public {
    /// The domain name users ask for; the name server's own differs by site.
    pub fn domain(self) -> &'static str {
        match self {
            Self::Dns => "shop.test.",
            Self::Www => "www.shop.test.",
            Self::Orders => "orders.shop.test.",
            Self::Accounts => "accounts.shop.test.",
        }
    }
}

/// Hosts of a site's LAN: the name after the site's, and the last part of the address.
pub const LAN: [(&str, u8); 3] = [("web1", 11), ("web2", 12), ("db", 21)];

impl Site {
    /// The site of this name.
    pub fn named(name: &str) -> Option<Self> {
        SITES.into_iter().find(|site| site.name == name)
    }

    /// A public IPv4 address.
    pub fn v4(&self, what: Public) -> Ipv4Addr {
        let [a, b, c] = self.wan;
        let host = match what {
            Public::Dns => 2,
            Public::Www => 80,
            Public::Orders => 81,
            Public::Accounts => 82,
        };
        Ipv4Addr::new(a, b, c, host)
    }

    /// A public IPv6 address: the name server's is in the WAN's prefix, the resources' in one that is routed to the edge.
    pub fn v6(&self, what: Public) -> Ipv6Addr {
        let (subnet, host) = match what {
            Public::Dns => (0, 0x2),
            Public::Www => (0x80, 0x80),
            Public::Orders => (0x80, 0x81),
            Public::Accounts => (0x80, 0x82),
        };
        Ipv6Addr::new(0x2001, 0xdb8, self.number.into(), subnet, 0, 0, 0, host)
    }

    /// Both public addresses, IPv4 first.
    pub fn public(&self, what: Public) -> [IpAddr; 2] {
        [self.v4(what).into(), self.v6(what).into()]
    }

    /// The WAN router's addresses on this site's side.
    fn router(&self) -> [IpAddr; 2] {
        let [a, b, c] = self.wan;
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, self.number.into(), 0, 0, 0, 0, 1);
        [Ipv4Addr::new(a, b, c, 1).into(), v6.into()]
    }

    /// An address on the site's LAN: 10.N.0.`host`, or fdNN::`host` with the same digits.
    pub fn lan(&self, host: u8) -> [IpAddr; 2] {
        let digits = u16::from(host / 10 * 16 + host % 10);
        let v6 = Ipv6Addr::new(0xfd00 + u16::from(self.number), 0, 0, 0, 0, 0, 0, digits);
        [Ipv4Addr::new(10, self.number, 0, host).into(), v6.into()]
    }

    /// The edge's address on the inter-centre link.
    pub fn link(&self) -> [IpAddr; 2] {
        let v6 = Ipv6Addr::new(0xfd00, 0x255, 0, 0, 0, 0, 0, self.number.into());
        [Ipv4Addr::new(10, 255, 0, self.number).into(), v6.into()]
    }

    /// The name of a host on its LAN.
    pub fn node(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }
}

/// A region of users.
struct Region {
    client: &'static str,
    number: u16,
    first: u8,
}

const REGIONS: [Region; 2] =
    [Region { client: "client-e", number: 0xc1, first: 0 }, Region { client: "client-w", number: 0xc2, first: 128 }];

impl Region {
    fn address(&self, host: u8) -> [IpAddr; 2] {
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, self.number, 0, 0, 0, 0, u16::from(host / 10 * 16 + host % 10));
        [Ipv4Addr::new(203, 0, 113, self.first + host).into(), v6.into()]
    }
}

/// The nodes by name, in the order in which they are listed to people.
pub fn nodes() -> Vec<String> {
    let mut nodes: Vec<String> = ["wan", "client-e", "client-w"].map(String::from).to_vec();
    for site in SITES {
        nodes.push(site.name.into());
        nodes.extend(LAN.map(|(host, _)| site.node(host)));
    }
    nodes
}

/// A network cable: two interfaces that reach each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cable {
    /// What it is called in `cut` and `mend`.
    pub name: String,
    /// Node and interface at the end that `cut` takes down.
    pub near: (String, String),
    /// Node and interface at the other end.
    pub far: (String, String),
    /// Whether an edge's XDP program works at the far end: checksums must be complete there.
    pub xdp: bool,
}

/// All cables: one per client and site to the WAN, the inter-centre `link`, and one per LAN host.
pub fn cables() -> Vec<Cable> {
    let cable = |name: &str, near: (&str, &str), far: (&str, &str), xdp| Cable {
        name: name.into(),
        near: (near.0.into(), near.1.into()),
        far: (far.0.into(), far.1.into()),
        xdp,
    };
    let mut cables = vec![cable("link", ("east", "link0"), ("west", "link0"), false)];
    for Region { client, .. } in REGIONS {
        cables.push(cable(client, ("wan", client), (client, "eth0"), false));
    }
    for site in SITES {
        cables.push(cable(site.name, ("wan", site.name), (site.name, "wan0"), true));
        for (host, _) in LAN {
            let node = site.node(host);
            cables.push(cable(&node, (site.name, host), (&node, "eth0"), false));
        }
    }
    cables
}

/// An interface's address with its prefix length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Interface.
    pub interface: String,
    /// Address.
    pub address: IpAddr,
    /// Prefix length.
    pub prefix: u8,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub destination: IpAddr,
    /// Its prefix length; 0 for the default route.
    pub prefix: u8,
    /// Gateway.
    pub gateway: IpAddr,
}

fn both(interface: &str, addresses: [IpAddr; 2], prefixes: [u8; 2]) -> [Address; 2] {
    [0, 1].map(|family| Address { interface: interface.into(), address: addresses[family], prefix: prefixes[family] })
}

/// A node's addresses.
pub fn addresses(node: &str) -> Vec<Address> {
    let mut list = Vec::new();
    for region in REGIONS {
        if node == "wan" {
            list.extend(both(region.client, region.address(1), [25, 64]));
        } else if node == region.client {
            list.extend(both("eth0", region.address(10), [25, 64]));
        }
    }
    for site in SITES {
        if node == "wan" {
            list.extend(both(site.name, site.router(), [24, 64]));
        } else if node == site.name {
            list.extend(both("wan0", site.public(Public::Dns), [24, 64]));
            list.extend(both("lan0", site.lan(1), [24, 64]));
            list.extend(both("link0", site.link(), [30, 64]));
            // Local to the edge, so that a port nobody serves is refused and not routed in a circle.
            list.extend(RESOURCES.into_iter().flat_map(|r| both("lo", site.public(r), [32, 128])));
        }
        for (host, number) in LAN {
            if node == site.node(host) {
                list.extend(both("eth0", site.lan(number), [24, 64]));
            }
        }
    }
    list
}

/// A node's routes beyond those of its addresses.
pub fn routes(node: &str) -> Vec<Route> {
    let default = |gateways: [IpAddr; 2]| {
        let any = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
        [0, 1].map(|family| Route { destination: any[family], prefix: 0, gateway: gateways[family] })
    };
    let mut list = Vec::new();
    for region in REGIONS {
        if node == region.client {
            list.extend(default(region.address(1)));
        }
    }
    for site in SITES {
        if node == "wan" {
            let [v4, v6] = site.public(Public::Dns);
            list.extend(RESOURCES.map(|resource| Route {
                destination: site.v4(resource).into(),
                prefix: 32,
                gateway: v4,
            }));
            list.push(Route {
                destination: Ipv6Addr::new(0x2001, 0xdb8, site.number.into(), 0x80, 0, 0, 0, 0).into(),
                prefix: 64,
                gateway: v6,
            });
        } else if node == site.name {
            list.extend(default(site.router()));
        } else if LAN.iter().any(|(host, _)| node == site.node(host)) {
            list.extend(default(site.lan(1)));
        }
    }
    list
}
