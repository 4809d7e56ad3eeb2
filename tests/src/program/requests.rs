//! Requests as frames: each named by what it shows, with the outcome it must have and the frame that must leave.
//! Expected frames are put together here from their parts, without the program's own code.

use std::net::Ipv4Addr;

use siteswap_common::{
    maps::{
        AddressEntry, InstanceEntry, MAX_PORTS, PortEntry, RING_CHUNK, RingChunk, Steer, Target, TargetKind, TunnelPeer,
    },
    outcome::Outcome,
    steer::tunnel::site,
};

use super::{
    frames::{Addresses, CLIENT_MAC, CLIENT_V4, CLIENT_V6, Datagram, SERVER_MAC, SERVER_V4, SERVER_V6, checksum},
    table::Table,
};

/// A frame and what must become of it.
pub struct Fixture {
    /// What it shows.
    pub name: String,
    /// The frame.
    pub frame: Vec<u8>,
    /// What must be counted.
    pub outcome: Outcome,
    /// The frame that must leave; `None`: it is dropped or passed as it came.
    pub leaves: Option<Vec<u8>>,
}

/// Resources of the table, by the last part of their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Of {
    /// Served by one backend: tcp/80, udp/80, tcp/443.
    Www = 80,
    /// Forwarded to west, epoch 5: every port of TCP and UDP.
    Orders,
    /// Available nowhere.
    Refused,
    /// Served, but no backend passes its probes.
    Backendless,
    /// Forwarded to a peer whose tunnel cannot be reached.
    Unreachable,
    /// Not decided on.
    Unmanaged,
    /// Its address and its instance are of different age.
    Changing,
    /// Its Maglev table names another resource's backend.
    Confused,
}

const ALL: [Of; 8] =
    [Of::Www, Of::Orders, Of::Refused, Of::Backendless, Of::Unreachable, Of::Unmanaged, Of::Changing, Of::Confused];

/// Of the resource that is forwarded.
pub const EPOCH: u64 = 5;
/// Bytes of the longest packet that the tunnel takes.
pub const TUNNEL_MTU: u32 = 1456;
/// Where the backend is.
const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 0x10, 0x11];
const LAN_MAC: [u8; 6] = [2, 0, 0, 0, 0x10, 1];
/// Where the peer is.
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0xff, 2];
const LINK_MAC: [u8; 6] = [2, 0, 0, 0, 0xff, 1];
const OWN_TUNNEL: [u8; 4] = [10, 255, 0, 1];
const PEER_TUNNEL: [u8; 4] = [10, 255, 0, 2];
const TUNNEL_PORT: u16 = 7401;

/// Index of the only backend of `Www`.
pub const BACKEND: u32 = 1;
/// Index of west.
pub const PEER: u32 = 2;

impl Of {
    /// Its address in both forms.
    pub fn v4(self) -> [u8; 4] {
        [192, 0, 2, self as u8]
    }

    /// Its IPv6 address.
    pub fn v6(self) -> [u8; 16] {
        let mut address = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0];
        address[15] = self as u8;
        address
    }

    /// From the client, in one version of IP.
    fn asked(self, v6: bool) -> Addresses {
        match v6 {
            false => Addresses::V4(CLIENT_V4, self.v4()),
            true => Addresses::V6(CLIENT_V6, self.v6()),
        }
    }

    fn id(self) -> u64 {
        0x1000 + self as u64
    }
}

/// A backend's entry.
pub fn backend(owner: Of, number: u8) -> Target {
    let [a, b, c, d, e, _] = BACKEND_MAC;
    Target {
        address: [number; 16],
        owner: owner.id(),
        kind: TargetKind::Backend as u32,
        interface: 7,
        to: [a, b, c, d, e, number],
        from: LAN_MAC,
        ..Target::NONE
    }
}

/// An instance's entry.
pub fn instance(of: Of, steer: Steer) -> InstanceEntry {
    InstanceEntry { id: of.id(), steer: steer as u32, ..InstanceEntry::NONE }
}

/// What every fixture is judged by.
pub fn table() -> Table {
    let mut table = Table::new(&[SERVER_V4], &[SERVER_V6]);
    table.tunnel = [u32::from_be_bytes(OWN_TUNNEL), TUNNEL_PORT.into(), site("east")];
    table.peers[0] = TunnelPeer { address: [10, 255, 0, 9], site: site("north") };
    table.peers[1] = TunnelPeer { address: PEER_TUNNEL, site: site("west") };
    table.targets = vec![
        Target::NONE,
        backend(Of::Www, 0x11),
        Target {
            address: [0xfe; 16],
            kind: TargetKind::Peer as u32,
            interface: 8,
            to: PEER_MAC,
            from: LINK_MAC,
            mtu: TUNNEL_MTU,
            source: OWN_TUNNEL,
            destination: PEER_TUNNEL,
            port: TUNNEL_PORT.into(),
            ..Target::NONE
        },
        Target { address: [0xfd; 16], ..Target::NONE },
    ];
    table.rings = vec![ring(&[BACKEND])];
    table.instances = ALL.iter().map(|of| decided(*of)).collect();
    let port = |protocol, port| PortEntry { protocol, reserved: 0, port };
    for (index, of) in (0..).zip(ALL) {
        let named: &[PortEntry] = match of {
            Of::Www => &[port(6, 80), port(17, 80), port(6, 443)],
            _ => &[port(6, 0), port(17, 0)],
        };
        let mut ports = [PortEntry::default(); MAX_PORTS];
        ports[..named.len()].copy_from_slice(named);
        let port_count = u32::try_from(named.len()).expect("few");
        let instance_id = if of == Of::Changing { 1 } else { of.id() };
        for address in [mapped(of.v4()), of.v6()] {
            table.addresses.push(AddressEntry { address, instance_id, instance: index, port_count, ports });
        }
    }
    table
}

fn mapped(address: [u8; 4]) -> [u8; 16] {
    Ipv4Addr::from(address).to_ipv6_mapped().octets()
}

/// A part of a Maglev table in which these targets take turns.
pub fn ring(targets: &[u32]) -> RingChunk {
    let mut chunk = RingChunk { targets: [0; RING_CHUNK as usize] };
    for (entry, target) in chunk.targets.iter_mut().zip(targets.iter().cycle()) {
        *entry = u16::try_from(*target).expect("a target's index");
    }
    chunk
}

fn decided(of: Of) -> InstanceEntry {
    match of {
        Of::Www | Of::Confused => InstanceEntry { ring_size: RING_CHUNK, ..instance(of, Steer::Serve) },
        Of::Orders => InstanceEntry { peer: PEER, epoch: EPOCH, ..instance(of, Steer::Forward) },
        Of::Refused => instance(of, Steer::Refuse),
        Of::Backendless => InstanceEntry { ring: 1, ..instance(of, Steer::Serve) },
        Of::Unreachable => InstanceEntry { peer: 3, ..instance(of, Steer::Forward) },
        Of::Unmanaged | Of::Changing => instance(of, Steer::Pass),
    }
}

/// A TCP header (RFC 9293 section 3.1) and payload, from the client's port.
pub fn tcp(source: u16, destination: u16, flags: u8, payload: usize) -> Vec<u8> {
    let mut bytes = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0x12, 0x34, 0, 0]);
    bytes.extend((0..payload).map(|index| u8::try_from(index % 251).expect("below 251")));
    bytes
}

/// SYN.
pub const SYN: u8 = 2;
/// ACK.
pub const ACK: u8 = 16;

/// A packet from the client with this transport.
pub fn packet(of: Of, v6: bool, protocol: u8, transport: Vec<u8>) -> Datagram {
    Datagram { protocol, transport: Some(transport), ..Datagram::new(of.asked(v6), &[]) }
}

/// A TCP segment from a port of the client's.
pub fn segment(of: Of, v6: bool, source: u16, flags: u8) -> Datagram {
    // IPv4 with DF, as TCP sends it.
    Datagram { fragment: [0x12, 0x34, 0x40, 0], ..packet(of, v6, 6, tcp(source, 80, flags, 100)) }
}

/// A packet to the client with this transport, without a frame.
fn answered(of: Of, v6: bool, protocol: u8, transport: Vec<u8>) -> Vec<u8> {
    let addresses = match of.asked(v6) {
        Addresses::V4(client, server) => Addresses::V4(server, client),
        Addresses::V6(client, server) => Addresses::V6(server, client),
    };
    let sent = Datagram { protocol, transport: Some(transport), ..Datagram::new(addresses, &[]) };
    sent.frame()[14..].to_vec()
}

/// Packets for `Www` whose lengths end inside a transport header, which the padding behind them seems to complete.
fn cut_short(v6: bool) -> Vec<(String, Datagram)> {
    let icmp = if v6 { 58 } else { 1 };
    let quoted = answered(Of::Www, v6, 6, tcp(80, 7, ACK, 0));
    let error = [&[if v6 { 1 } else { 3 }, 0, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
    let mut options = tcp(7, 80, ACK, 8);
    options[12] = 0x70;
    let quoted_ports = error.len() - 20;
    let cut = |what: &str, protocol, transport: &[u8], at: usize| {
        let (kept, padding) = transport.split_at(at);
        let padding = padding.to_vec();
        let datagram = Datagram { padding, ..packet(Of::Www, v6, protocol, kept.to_vec()) };
        (format!("{what} cut after {at} bytes and padded"), datagram)
    };
    vec![
        cut("TCP", 6, &tcp(7, 80, SYN, 0), 0),
        cut("TCP", 6, &tcp(7, 80, SYN, 0), 19),
        cut("TCP with options", 6, &options, 27),
        cut("UDP", 17, &tcp(7, 80, 0, 0), 7),
        cut("an ICMP error", icmp, &error, 7),
        cut("an ICMP error", icmp, &error, quoted_ports + 3),
    ]
}

/// What leaves for a backend: the IP packet behind a new Ethernet header.
pub fn to_backend(frame: &[u8], start: usize, target: &Target) -> Vec<u8> {
    let ethertype: [u8; 2] = if frame[start] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    [&target.to[..], &target.from, &ethertype, &frame[start..]].concat()
}

/// A packet in the tunnel: Ethernet, IPv4, UDP, the tunnel's header.
#[derive(Clone, Debug)]
pub struct Tunnelled {
    /// Outer source.
    pub source: [u8; 4],
    /// Outer destination.
    pub destination: [u8; 4],
    /// UDP's source port.
    pub port: u16,
    /// The tunnel's header.
    pub header: Vec<u8>,
    /// What is inside.
    pub inner: Vec<u8>,
}

impl Tunnelled {
    /// As west sends it here.
    pub fn new(epoch: u64, inner: &[u8]) -> Self {
        Self {
            source: PEER_TUNNEL,
            destination: OWN_TUNNEL,
            port: 0xc123,
            header: header(1, 1, "west", epoch),
            inner: inner.to_vec(),
        }
    }

    /// Its bytes; the Ethernet addresses are those of a frame that arrives.
    pub fn frame(&self) -> Vec<u8> {
        let datagram = Datagram {
            source: self.port,
            destination: TUNNEL_PORT,
            udp_checksum: Some(0),
            fragment: [0, 0, 0x40, 0],
            hops: 64,
            ..Datagram::new(Addresses::V4(self.source, self.destination), &[&self.header[..], &self.inner].concat())
        };
        datagram.frame()
    }
}

/// The tunnel's header.
pub fn header(version: u8, mark: u8, from: &str, epoch: u64) -> Vec<u8> {
    [&[version, mark, 0, 0][..], &site(from).to_be_bytes(), &epoch.to_be_bytes()].concat()
}

/// Checks what leaves through the tunnel for `inner`: all but the source port, which only must be one of the range that is
/// for nothing else.
fn to_peer(frame: &[u8], inner: &[u8]) -> Vec<u8> {
    let port = frame.get(34..36).map_or(0, |port| u16::from_be_bytes([port[0], port[1]])).max(0xc000);
    let mut expected = Tunnelled {
        source: OWN_TUNNEL,
        destination: PEER_TUNNEL,
        port,
        header: header(1, 1, "east", EPOCH),
        inner: inner.to_vec(),
    }
    .frame();
    expected[..6].copy_from_slice(&PEER_MAC);
    expected[6..12].copy_from_slice(&LINK_MAC);
    expected
}

impl Fixture {
    /// The frame that must leave, when `sent` has left.
    pub fn expected(&self, sent: &[u8]) -> Option<Vec<u8>> {
        match self.outcome {
            Outcome::Forwarded => Some(to_peer(sent, self.leaves.as_ref()?)),
            _ => self.leaves.clone(),
        }
    }
}

/// All of them.
pub fn all() -> Vec<Fixture> {
    let mut all = Collection::default();
    for v6 in [false, true] {
        all.version = if v6 { "IPv6" } else { "IPv4" };
        all.served(v6);
        all.forwarded(v6);
        all.not_served(v6);
        all.odd(v6);
        all.errors(v6);
        all.tunnelled(v6);
    }
    all.version = "tunnel";
    all.forged();
    all.list
}

#[derive(Default)]
struct Collection {
    list: Vec<Fixture>,
    version: &'static str,
}

impl Collection {
    fn add(&mut self, name: &str, frame: Vec<u8>, outcome: Outcome, leaves: Option<Vec<u8>>) {
        self.list.push(Fixture { name: format!("{name}, {}", self.version), frame, outcome, leaves });
    }

    /// A frame whose packet begins at `start` and goes to the backend.
    fn serve(&mut self, name: &str, frame: Vec<u8>, start: usize, outcome: Outcome) {
        let leaves = to_backend(&frame, start, &backend(Of::Www, 0x11));
        self.add(name, frame, outcome, Some(leaves));
    }

    /// A frame whose packet begins at `start` and goes to west.
    fn forward(&mut self, name: &str, frame: Vec<u8>, start: usize) {
        let leaves = frame[start..].to_vec();
        self.add(name, frame, Outcome::Forwarded, Some(leaves));
    }

    /// A frame that stays as it is.
    fn stop(&mut self, name: &str, frame: Vec<u8>, outcome: Outcome) {
        self.add(name, frame, outcome, None);
    }

    fn served(&mut self, v6: bool) {
        let served = Outcome::Served;
        self.serve("a SYN is served", segment(Of::Www, v6, 1, SYN).frame(), 14, served);
        self.serve("a segment is served", segment(Of::Www, v6, 2, ACK).frame(), 14, served);
        let udp = Datagram { destination: 80, ..Datagram::new(Of::Www.asked(v6), b"hello") };
        self.serve("a datagram is served", udp.frame(), 14, served);
        let second = packet(Of::Www, v6, 6, tcp(3, 443, SYN, 0));
        self.serve("the second port", second.frame(), 14, served);
        let padded = Datagram { padding: vec![0; 9], ..segment(Of::Www, v6, 4, SYN) };
        self.serve("Ethernet padding (RFC 894)", padded.frame(), 14, served);
        let tagged = Datagram { tags: vec![[0x81, 0, 0, 7]], ..segment(Of::Www, v6, 5, SYN) };
        self.serve("an 802.1Q tag, taken off", tagged.frame(), 18, served);
        let service = Datagram { service: 0x2e, hops: 1, ..segment(Of::Www, v6, 6, ACK) };
        self.serve("type of service and hops, kept", service.frame(), 14, served);
    }

    fn forwarded(&mut self, v6: bool) {
        self.forward("a SYN is forwarded whole", segment(Of::Orders, v6, 1, SYN).frame(), 14);
        self.forward("a segment is forwarded whole", segment(Of::Orders, v6, 2, ACK).frame(), 14);
        let udp = Datagram { destination: 7001, ..Datagram::new(Of::Orders.asked(v6), b"orders\n") };
        self.forward("any port of UDP", udp.frame(), 14);
        let tagged = Datagram { tags: vec![[0x81, 0, 0, 7]], ..segment(Of::Orders, v6, 3, SYN) };
        self.forward("an 802.1Q tag, taken off before the tunnel", tagged.frame(), 18);
        let header = if v6 { 40 } else { 20 };
        let sized = |length: u32| {
            let payload = usize::try_from(length).expect("short") - header - 20;
            packet(Of::Orders, v6, 6, tcp(4, 80, ACK, payload))
        };
        let df = |datagram| Datagram { fragment: [0x12, 0x34, 0x40, 0], ..datagram };
        self.forward("the longest packet that fits", df(sized(TUNNEL_MTU)).frame(), 14);
        let long = df(sized(TUNNEL_MTU + 1)).frame();
        let told = too_big(&long, v6, vec![]);
        self.add("a longer one: its sender is told (RFC 1191, RFC 8201)", long, Outcome::TooBig, Some(told));
        let tags = vec![[0x81, 0, 0, 7]];
        let tagged = Datagram { tags: tags.clone(), ..df(sized(TUNNEL_MTU + 1)) }.frame();
        let told = too_big(&tagged, v6, tags);
        self.add("a longer one behind a tag, which the answer has too", tagged, Outcome::TooBig, Some(told));
        if !v6 {
            self.stop("a longer one that may be fragmented", sized(TUNNEL_MTU + 1).frame(), Outcome::TooLong);
        }
    }

    fn not_served(&mut self, v6: bool) {
        for (of, outcome) in [
            (Of::Refused, Outcome::Refused),
            (Of::Backendless, Outcome::NoBackend),
            (Of::Unreachable, Outcome::NoTunnel),
            (Of::Unmanaged, Outcome::Unmanaged),
            (Of::Changing, Outcome::TableChanging),
            (Of::Confused, Outcome::NoBackend),
        ] {
            self.stop(&format!("{of:?}"), segment(of, v6, 1, SYN).frame(), outcome);
        }
    }

    fn odd(&mut self, v6: bool) {
        let base = || segment(Of::Www, v6, 7, SYN);
        self.stop("another port", packet(Of::Www, v6, 6, tcp(7, 81, SYN, 0)).frame(), Outcome::OtherPort);
        self.stop("another protocol's port", packet(Of::Www, v6, 17, tcp(7, 443, 0, 0)).frame(), Outcome::OtherPort);
        let echo: u8 = if v6 { 128 } else { 8 };
        let icmp = if v6 { 58 } else { 1 };
        let ping = packet(Of::Www, v6, icmp, vec![echo, 0, 0, 0, 0, 0, 0, 0]);
        self.stop("an ICMP echo request", ping.frame(), Outcome::OtherProtocol);
        let other = if v6 { 1 } else { 58 };
        let ping = packet(Of::Www, v6, other, vec![3, 0, 0, 0, 0, 0, 0, 0]);
        self.stop("the other version's ICMP", ping.frame(), Outcome::OtherProtocol);
        self.stop("GRE", packet(Of::Www, v6, 47, vec![0; 20]).frame(), Outcome::OtherProtocol);
        let group = Datagram { to: [0xff; 6], ..base() };
        self.stop("a broadcast frame (RFC 1122 section 3.3.6)", group.frame(), Outcome::GroupMac);
        let mut short = base().frame();
        short.truncate(short.len() - 1);
        self.stop("a byte is missing", short, Outcome::BadLength);
        let flagless = packet(Of::Www, v6, 6, tcp(7, 80, SYN, 0)[..12].to_vec());
        self.stop("TCP without flags", flagless.frame(), Outcome::BadLength);
        let portless = packet(Of::Www, v6, 6, tcp(7, 80, SYN, 0)[..3].to_vec());
        self.stop("TCP without ports", portless.frame(), Outcome::BadLength);
        for (name, short) in cut_short(v6) {
            self.stop(&name, short.frame(), Outcome::BadLength);
        }
        if v6 {
            for extension in [0, 43, 60, 51] {
                let extended = Datagram { protocol: extension, options: vec![6, 0, 1, 4, 0, 0, 0, 0], ..base() };
                self.stop(&format!("extension header {extension}"), extended.frame(), Outcome::Options);
            }
            let Addresses::V6(client, _) = Of::Www.asked(true) else { unreachable!("IPv6") };
            let mapped = Datagram::new(Addresses::V6(client, mapped(Of::Www.v4())), &[]);
            let mapped = Datagram { protocol: 6, transport: Some(tcp(7, 80, SYN, 0)), ..mapped };
            self.stop("an IPv4 resource's address, mapped (RFC 4291 section 2.5.5.2)", mapped.frame(), Outcome::NotUdp);
            let fragment = Datagram { protocol: 44, options: vec![6, 0, 0, 1, 0, 0, 0, 1], ..base() };
            self.stop("a fragment (RFC 8200 section 4.5)", fragment.frame(), Outcome::Fragment);
            let jumbo = Datagram { ip_length: Some(0), ..base() };
            self.stop("a jumbogram's length without its option (RFC 2675)", jumbo.frame(), Outcome::BadLength);
        } else {
            let options = Datagram { version: 0x46, options: vec![1, 1, 1, 0], ..base() };
            self.stop("options (RFC 791 section 3.1)", options.frame(), Outcome::Options);
            for (name, fragment) in [("first", [0, 1, 0x20, 0]), ("last", [0, 1, 0, 9])] {
                let fragment = Datagram { fragment, ..base() };
                self.stop(&format!("the {name} fragment (RFC 791 section 3.2)"), fragment.frame(), Outcome::Fragment);
            }
            let short = Datagram { ip_length: Some(19), ..base() };
            self.stop("a length shorter than the header", short.frame(), Outcome::BadLength);
        }
    }

    /// ICMP errors about what a resource sent to the client.
    fn errors(&mut self, v6: bool) {
        let about = |of: Of, protocol: u8| answered(of, v6, protocol, tcp(80, 7, ACK, 8));
        let error = |of: Of, kind: u8, about: Vec<u8>| {
            let icmp = if v6 { 58 } else { 1 };
            packet(of, v6, icmp, [&[kind, 0, 0, 0, 0, 0, 5, 0][..], &about].concat()).frame()
        };
        let kinds: &[u8] = if v6 { &[1, 2, 3, 4] } else { &[3, 11, 12] };
        for &kind in kinds {
            let served = error(Of::Www, kind, about(Of::Www, 6));
            self.serve(&format!("ICMP error {kind} goes to the flow's backend"), served, 14, Outcome::Served);
            let forwarded = error(Of::Orders, kind, about(Of::Orders, 17));
            self.forward(&format!("ICMP error {kind} goes to the flow's site"), forwarded, 14);
        }
        let foreign = error(Of::Www, kinds[0], about(Of::Orders, 6));
        self.stop("an ICMP error about another resource's packet", foreign, Outcome::OtherProtocol);
        let gre = error(Of::Www, kinds[0], about(Of::Www, 47));
        self.stop("an ICMP error about another protocol", gre, Outcome::OtherProtocol);
        let cut = error(Of::Www, kinds[0], about(Of::Www, 6)[..10].to_vec());
        self.stop("an ICMP error that quotes too little", cut, Outcome::BadLength);
        let portless = error(Of::Www, kinds[0], about(Of::Www, 6)[..if v6 { 42 } else { 22 }].to_vec());
        self.stop("an ICMP error that quotes no port", portless, Outcome::BadLength);
        let long = [about(Of::Orders, 6), vec![0; 1500]].concat();
        self.stop(
            "an ICMP error too long for the tunnel (RFC 1122 section 3.2.2)",
            error(Of::Orders, kinds[0], long),
            Outcome::TooLong,
        );
    }

    fn tunnelled(&mut self, v6: bool) {
        const INNER: usize = 14 + 20 + 8 + 16;
        let inner = |of, source| segment(of, v6, source, SYN).frame()[14..].to_vec();
        let good = Tunnelled::new(3, &inner(Of::Www, 30));
        self.serve("forwarded here and served", good.frame(), INNER, Outcome::ServedForPeer);
        let echo = Tunnelled::new(EPOCH, &inner(Of::Orders, 31));
        self.stop("forwarded here and not held in the same epoch", echo.frame(), Outcome::TunnelLoop);
        let older = Tunnelled::new(EPOCH - 1, &inner(Of::Orders, 31));
        self.stop("forwarded here by a peer with an older epoch", older.frame(), Outcome::TunnelOlder);
        let newer = Tunnelled::new(EPOCH + 1, &inner(Of::Orders, 31));
        self.stop("forwarded here by a peer with a newer epoch", newer.frame(), Outcome::TunnelNewer);
        let mut cut = inner(Of::Www, 32);
        cut.truncate(cut.len() - 1);
        self.stop("forwarded here and truncated", Tunnelled::new(3, &cut).frame(), Outcome::TunnelInner);
        let mut padded = Tunnelled::new(3, &cut).frame();
        padded.push(0);
        self.stop("forwarded here, truncated, and padded", padded, Outcome::TunnelInner);
        let mut padded = good.frame();
        padded.push(0);
        self.serve("forwarded here, whole, and padded", padded, INNER, Outcome::ServedForPeer);
        for (name, short) in cut_short(v6) {
            let frame = Tunnelled::new(3, &short.frame()[14..]).frame();
            self.stop(&format!("forwarded here: {name}"), frame, Outcome::TunnelInner);
        }
        let foreign = match Of::Www.asked(v6) {
            Addresses::V4(client, _) => Addresses::V4(client, SERVER_V4),
            Addresses::V6(client, _) => Addresses::V6(client, SERVER_V6),
        };
        let unknown = Datagram { protocol: 6, transport: Some(tcp(1, 80, SYN, 0)), ..Datagram::new(foreign, &[]) };
        let unknown = Tunnelled::new(3, &unknown.frame()[14..]);
        self.stop("forwarded here for no resource", unknown.frame(), Outcome::TunnelUnknown);
        for (name, nothing) in [
            ("for another port", packet(Of::Www, v6, 6, tcp(1, 81, SYN, 0))),
            ("with another protocol", packet(Of::Www, v6, 47, vec![0; 20])),
            ("while its instance changes", segment(Of::Changing, v6, 1, SYN)),
        ] {
            let nothing = Tunnelled::new(3, &nothing.frame()[14..]);
            self.stop(&format!("forwarded here {name}"), nothing.frame(), Outcome::TunnelUnknown);
        }
    }

    fn forged(&mut self) {
        let inner = segment(Of::Www, false, 40, SYN).frame()[14..].to_vec();
        let good = Tunnelled::new(3, &inner);
        let stranger = Tunnelled { source: [203, 0, 113, 66], ..good.clone() };
        self.stop("from a stranger's address", stranger.frame(), Outcome::TunnelStranger);
        for (name, header) in [
            ("another version", header(2, 1, "west", 3)),
            ("no mark", header(1, 0, "west", 3)),
            ("two marks", header(1, 3, "west", 3)),
            ("an echo reply", header(1, 4, "west", 3)),
            ("another site's name", header(1, 1, "north", 3)),
            ("an unknown site", header(1, 1, "south", 3)),
            ("reserved bytes in use", [&[1, 1, 0, 1][..], &site("west").to_be_bytes(), &[0; 8]].concat()),
        ] {
            self.stop(name, Tunnelled { header, ..good.clone() }.frame(), Outcome::TunnelHeader);
        }
        let none = Tunnelled { header: vec![1; 15], inner: Vec::new(), ..good.clone() };
        self.stop("a header cut short", none.frame(), Outcome::TunnelHeader);
        let mut short = Tunnelled { header: header(1, 2, "west", 0), inner: Vec::new(), ..good.clone() }.frame();
        short[39] -= 1;
        self.stop("a question whose header UDP's length cuts short", short, Outcome::TunnelHeader);
        let empty = Tunnelled { inner: Vec::new(), ..good.clone() };
        self.stop("nothing inside", empty.frame(), Outcome::TunnelInner);
        for version in [0x00, 0x55, 0xff] {
            let mut odd = inner.clone();
            odd[0] = version;
            let odd = Tunnelled { inner: odd, ..good.clone() };
            self.stop(&format!("version byte {version:02x} inside"), odd.frame(), Outcome::TunnelInner);
        }
        let mut damaged = good.frame();
        damaged[24] ^= 0x40;
        self.stop("a damaged outer header", damaged, Outcome::TunnelHeader);
        let nested = Tunnelled::new(3, &good.frame()[14..]);
        self.stop("a tunnel in the tunnel", nested.frame(), Outcome::TunnelUnknown);
        let question = Tunnelled { header: header(1, 2, "west", 0), inner: Vec::new(), ..good.clone() };
        let long = Tunnelled { inner: vec![0; TUNNEL_MTU as usize], ..question.clone() };
        for (text, question) in [("a peer asks whether this end answers", &question), ("with a long packet", &long)] {
            let mut answer = question.frame();
            answer[..6].copy_from_slice(&CLIENT_MAC);
            answer[6..12].copy_from_slice(&SERVER_MAC);
            answer[26..30].copy_from_slice(&OWN_TUNNEL);
            answer[30..34].copy_from_slice(&PEER_TUNNEL);
            answer.copy_within(34..36, 36);
            answer[34..36].copy_from_slice(&TUNNEL_PORT.to_be_bytes());
            answer[43] = 4;
            answer[46..50].copy_from_slice(&site("east").to_be_bytes());
            self.add(text, question.frame(), Outcome::TunnelEcho, Some(answer));
        }
        let question = Tunnelled { source: [10, 255, 0, 7], ..question };
        self.stop("a stranger asks", question.frame(), Outcome::TunnelStranger);
        let mut other = good.frame();
        other[36..38].copy_from_slice(&7400u16.to_be_bytes());
        self.stop("to another port of the tunnel's address", other, Outcome::NotDnsAddress);
    }
}

/// What the sender of a frame is told.
fn too_big(frame: &[u8], v6: bool, tags: Vec<[u8; 4]>) -> Vec<u8> {
    let mtu = TUNNEL_MTU.to_be_bytes();
    let quoted = &frame[14 + 4 * tags.len()..][..if v6 { 1280 - 48 } else { 28 }];
    let (kind, protocol) = if v6 { ([2, 0], 58) } else { ([3, 4], 1) };
    let mut icmp = [&kind[..], &[0, 0], &mtu, quoted].concat();
    let answered = if v6 { Of::Orders.asked(true) } else { Of::Orders.asked(false) };
    let (addresses, pseudo) = match answered {
        Addresses::V4(client, server) => (Addresses::V4(server, client), Vec::new()),
        Addresses::V6(client, server) => {
            let length = u32::try_from(icmp.len()).expect("short").to_be_bytes();
            (Addresses::V6(server, client), [&server[..], &client, &length, &[0, 0, 0, protocol]].concat())
        }
    };
    let sum = checksum(&[&pseudo[..], &icmp].concat());
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    Datagram {
        to: CLIENT_MAC,
        from: SERVER_MAC,
        protocol,
        transport: Some(icmp),
        hops: 64,
        fragment: [0; 4],
        tags,
        ..Datagram::new(addresses, &[])
    }
    .frame()
}
