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

/// Port of the web servers.
pub const WEB_PORT: u16 = 80;
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
    /// The resource's name, which is that of its table too, if it has one.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Www => "www",
            Self::Orders => "orders",
            Self::Accounts => "accounts",
        }
    }

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

/// A host of a site's LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its node's name after the site's, and that of the switch's port to it.
    pub name: &'static str,
    /// The last part of its addresses.
    pub number: u8,
    /// What it serves. It owns the addresses that these have at every site: a request may have arrived at any of them.
    pub serves: &'static [Public],
}

/// The data tier's host.
pub const DB: Host = Host { name: "db", number: 21, serves: &[Public::Orders, Public::Accounts] };

/// Hosts of a site's LAN.
pub const LAN: [Host; 3] = [
    Host { name: "web1", number: 11, serves: &[Public::Www] },
    Host { name: "web2", number: 12, serves: &[Public::Www] },
    DB,
];

impl Host {
    /// The port it serves on.
    pub fn port(&self) -> u16 {
        if *self == DB { DATA_PORT } else { WEB_PORT }
    }

    /// The addresses of what it serves.
    pub fn resources(&self) -> impl Iterator<Item = IpAddr> {
        SITES.into_iter().flat_map(|site| self.serves.iter().flat_map(move |&resource| site.public(resource)))
    }
}

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

    /// An address on the site's LAN: 10.N.0.`host`, or fdNN::`host` with the same digits. Host 0 is the LAN itself.
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

    /// The name of the node that is its LAN's switch.
    pub fn switch(&self) -> String {
        self.node("lan")
    }

    /// The other site.
    pub fn other(&self) -> Self {
        SITES[usize::from(self.number == 1)]
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
        nodes.extend([site.name.into(), site.switch()]);
        nodes.extend(LAN.map(|host| site.node(host.name)));
    }
    nodes
}

/// What a node is to the packets that reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Sends and receives its own.
    Host,
    /// Passes them on: the WAN, and the edges.
    Router,
    /// Has resources' addresses besides its own, which only the site's edge may know: it answers no ARP for them.
    Backend,
}

impl Part {
    /// The part of a node.
    pub fn of(node: &str) -> Self {
        let is_backend = |site: Site| LAN.iter().any(|host| node == site.node(host.name));
        if node == "wan" || Site::named(node).is_some() {
            Self::Router
        } else if SITES.into_iter().any(is_backend) {
            Self::Backend
        } else {
            Self::Host
        }
    }
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
    /// Where edges' XDP programs work.
    pub programs: Programs,
}

/// Ends of a cable with an edge's XDP program: frames must arrive there with complete checksums, and what the program
/// sends is lost unless the opposite end has a program too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Programs {
    /// None.
    Neither,
    /// The far end.
    Far,
    /// Both: the cable connects two edges.
    Both,
}

/// The switch's port to the edge.
const TO_EDGE: &str = "edge";

/// All cables: one per client and site to the WAN, the inter-centre `link`, and those of the LANs' switches.
pub fn cables() -> Vec<Cable> {
    let cable = |name: &str, near: (&str, &str), far: (&str, &str), programs| Cable {
        name: name.into(),
        near: (near.0.into(), near.1.into()),
        far: (far.0.into(), far.1.into()),
        programs,
    };
    let mut cables = vec![cable("link", ("east", "link0"), ("west", "link0"), Programs::Both)];
    for Region { client, .. } in REGIONS {
        cables.push(cable(client, ("wan", client), (client, "eth0"), Programs::Neither));
    }
    for site in SITES {
        let switch = site.switch();
        cables.push(cable(site.name, ("wan", site.name), (site.name, "wan0"), Programs::Far));
        cables.push(cable(&switch, (&switch, TO_EDGE), (site.name, "lan0"), Programs::Far));
        for Host { name, .. } in LAN {
            let node = site.node(name);
            cables.push(cable(&node, (&switch, name), (&node, "eth0"), Programs::Neither));
        }
    }
    cables
}

/// The ports of a LAN's switch.
pub fn ports() -> Vec<&'static str> {
    [TO_EDGE].into_iter().chain(LAN.map(|host| host.name)).collect()
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
    /// Gateway. `None`: nowhere; the sender is told, unless there is another route to the same destination.
    pub gateway: Option<IpAddr>,
}

/// The length of the prefix that is one address.
fn whole(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
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
        }
        for host in LAN {
            if node == site.node(host.name) {
                list.extend(both("eth0", site.lan(host.number), [24, 64]));
                let own = |address| Address { interface: "lo".into(), address, prefix: whole(address) };
                list.extend(host.resources().map(own));
            }
        }
    }
    list
}

/// A node's routes beyond those of its addresses.
pub fn routes(node: &str) -> Vec<Route> {
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
                gateway: Some(v4),
            }));
            list.push(Route {
                destination: Ipv6Addr::new(0x2001, 0xdb8, site.number.into(), 0x80, 0, 0, 0, 0).into(),
                prefix: 64,
                gateway: Some(v6),
            });
        } else if node == site.name {
            list.extend(default(site.router()));
            list.extend(by(site.other().lan(0), [24, 64], site.other().link()));
            // What the program does not steer ends here instead of going back to the WAN.
            let nowhere = |address| Route { destination: address, prefix: whole(address), gateway: None };
            list.extend(RESOURCES.into_iter().flat_map(|resource| site.public(resource)).map(nowhere));
        } else if LAN.iter().any(|host| node == site.node(host.name)) {
            list.extend(default(site.lan(1)));
        }
    }
    list
}

fn default(gateways: [IpAddr; 2]) -> [Route; 2] {
    by([Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()], [0, 0], gateways)
}

fn by(destinations: [IpAddr; 2], prefixes: [u8; 2], gateways: [IpAddr; 2]) -> [Route; 2] {
    [0, 1].map(|family| Route {
        destination: destinations[family],
        prefix: prefixes[family],
        gateway: Some(gateways[family]),
    })
}
