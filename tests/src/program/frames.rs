//! Queries as frames, built from readable parts. Every part can be made wrong by itself.

use super::table::wire;

/// The server's addresses in every frame.
pub const SERVER_V4: [u8; 4] = [192, 0, 2, 2];
/// Its IPv6 address.
pub const SERVER_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
/// The client's addresses.
pub const CLIENT_V4: [u8; 4] = [203, 0, 113, 10];
/// Its IPv6 address.
pub const CLIENT_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0xc1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
/// The client's MAC address.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xc1];
/// The server's MAC address.
pub const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x5e];

/// Type A.
pub const A: u16 = 1;
/// Type AAAA.
pub const AAAA: u16 = 28;

/// A DNS message in the making.
#[derive(Clone, Debug)]
pub struct Query {
    /// Identifier.
    pub id: u16,
    /// Flags word of the header.
    pub flags: u16,
    /// The four counts.
    pub counts: [u16; 4],
    /// The question's name in wire format.
    pub name: Vec<u8>,
    /// The question's type.
    pub kind: u16,
    /// The question's class.
    pub class: u16,
    /// What follows the question.
    pub rest: Vec<u8>,
}

impl Query {
    /// A query as a resolver sends it, without EDNS.
    pub fn new(name: &str, kind: u16) -> Self {
        Self { id: 0xbeef, flags: 0, counts: [1, 0, 0, 0], name: wire(name), kind, class: 1, rest: Vec::new() }
    }

    /// Adds an OPT record.
    pub fn edns(mut self, opt: &Opt) -> Self {
        self.counts[3] += 1;
        self.rest.extend(opt.wire());
        self
    }

    /// Sets bits in the flags word.
    pub fn flags(mut self, flags: u16) -> Self {
        self.flags |= flags;
        self
    }

    /// Its bytes.
    pub fn wire(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [self.id, self.flags].iter().chain(&self.counts) {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(&self.name);
        bytes.extend(self.kind.to_be_bytes());
        bytes.extend(self.class.to_be_bytes());
        bytes.extend(&self.rest);
        bytes
    }
}

/// An OPT record (RFC 6891 section 6.1.2).
#[derive(Clone, Debug)]
pub struct Opt {
    /// Owner in wire format.
    pub owner: Vec<u8>,
    /// Record type.
    pub kind: u16,
    /// UDP payload size.
    pub size: u16,
    /// Extended RCODE.
    pub rcode: u8,
    /// Version.
    pub version: u8,
    /// Flags, DO first.
    pub flags: u16,
    /// Options as they are on the wire.
    pub options: Vec<u8>,
    /// RDLENGTH, if it is not the options' length.
    pub length: Option<u16>,
}

impl Default for Opt {
    fn default() -> Self {
        Self { owner: vec![0], kind: 41, size: 1232, rcode: 0, version: 0, flags: 0, options: Vec::new(), length: None }
    }
}

impl Opt {
    /// Adds an option.
    pub fn option(mut self, code: u16, data: &[u8]) -> Self {
        let length = u16::try_from(data.len()).expect("a short option");
        self.options.extend(code.to_be_bytes());
        self.options.extend(length.to_be_bytes());
        self.options.extend(data);
        self
    }

    /// Its bytes.
    pub fn wire(&self) -> Vec<u8> {
        let options = u16::try_from(self.options.len()).expect("few options");
        let mut bytes = self.owner.clone();
        bytes.extend(self.kind.to_be_bytes());
        bytes.extend(self.size.to_be_bytes());
        bytes.extend([self.rcode, self.version]);
        bytes.extend(self.flags.to_be_bytes());
        bytes.extend(self.length.unwrap_or(options).to_be_bytes());
        bytes.extend(&self.options);
        bytes
    }
}

/// The addresses of a packet.
#[derive(Clone, Copy, Debug)]
pub enum Addresses {
    /// IPv4: source, destination.
    V4([u8; 4], [u8; 4]),
    /// IPv6: source, destination.
    V6([u8; 16], [u8; 16]),
}

/// From the client to the server over IPv4.
pub const V4: Addresses = Addresses::V4(CLIENT_V4, SERVER_V4);
/// From the client to the server over IPv6.
pub const V6: Addresses = Addresses::V6(CLIENT_V6, SERVER_V6);

/// A UDP datagram in a frame. Lengths and checksums are right unless they are set.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Destination MAC address.
    pub to: [u8; 6],
    /// Source MAC address.
    pub from: [u8; 6],
    /// 802.1Q tags.
    pub tags: Vec<[u8; 4]>,
    /// EtherType, if it is not the IP version's.
    pub ethertype: Option<u16>,
    /// Source and destination.
    pub addresses: Addresses,
    /// First byte of the IP header.
    pub version: u8,
    /// Type of service or traffic class.
    pub service: u8,
    /// Identification, flags and fragment offset of IPv4.
    pub fragment: [u8; 4],
    /// TTL or hop limit.
    pub hops: u8,
    /// Protocol or next header.
    pub protocol: u8,
    /// IP length field, if it is not right.
    pub ip_length: Option<u16>,
    /// Added to the IPv4 header checksum.
    pub ip_damage: u16,
    /// IPv4 options or IPv6 extension headers.
    pub options: Vec<u8>,
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// UDP length field, if it is not right.
    pub udp_length: Option<u16>,
    /// UDP checksum field, if it is not right.
    pub udp_checksum: Option<u16>,
    /// UDP payload.
    pub payload: Vec<u8>,
    /// What follows the IP header instead of UDP.
    pub transport: Option<Vec<u8>>,
    /// Bytes after the packet, as Ethernet pads it.
    pub padding: Vec<u8>,
}

impl Datagram {
    /// A client's query.
    pub fn new(addresses: Addresses, payload: &[u8]) -> Self {
        Self {
            to: SERVER_MAC,
            from: CLIENT_MAC,
            tags: Vec::new(),
            ethertype: None,
            addresses,
            version: match addresses {
                Addresses::V4(..) => 0x45,
                Addresses::V6(..) => 0x60,
            },
            service: 0,
            fragment: [0x12, 0x34, 0, 0],
            hops: 57,
            protocol: 17,
            ip_length: None,
            ip_damage: 0,
            options: Vec::new(),
            source: 40_053,
            destination: 53,
            udp_length: None,
            udp_checksum: None,
            payload: payload.to_vec(),
            transport: None,
            padding: Vec::new(),
        }
    }

    /// Its bytes.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = [self.to, self.from].concat();
        frame.extend(self.tags.concat());
        let (ethertype, ip) = match self.addresses {
            Addresses::V4(source, destination) => (0x0800, self.v4(source, destination)),
            Addresses::V6(source, destination) => (0x86dd, self.v6(source, destination)),
        };
        frame.extend(self.ethertype.unwrap_or(ethertype).to_be_bytes());
        frame.extend(ip);
        frame.extend(self.transport());
        frame.extend(&self.padding);
        frame
    }

    fn v4(&self, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let total = length(20 + self.options.len() + self.transport().len());
        let mut header = vec![self.version, self.service];
        header.extend(self.ip_length.unwrap_or(total).to_be_bytes());
        header.extend(self.fragment);
        header.extend([self.hops, self.protocol, 0, 0]);
        header.extend(source);
        header.extend(destination);
        header.extend(&self.options);
        let checksum = checksum(&header).wrapping_add(self.ip_damage);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    fn v6(&self, source: [u8; 16], destination: [u8; 16]) -> Vec<u8> {
        let payload = length(self.options.len() + self.transport().len());
        let mut header = vec![self.version | self.service >> 4, self.service << 4, 0, 0];
        header.extend(self.ip_length.unwrap_or(payload).to_be_bytes());
        header.extend([self.protocol, self.hops]);
        header.extend(source);
        header.extend(destination);
        header.extend(&self.options);
        header
    }

    fn transport(&self) -> Vec<u8> {
        self.transport.clone().unwrap_or_else(|| self.udp())
    }

    fn udp(&self) -> Vec<u8> {
        let right = length(8 + self.payload.len());
        let mut udp = Vec::new();
        udp.extend(self.source.to_be_bytes());
        udp.extend(self.destination.to_be_bytes());
        udp.extend(self.udp_length.unwrap_or(right).to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(&self.payload);
        let checksum = self.udp_checksum.unwrap_or_else(|| udp_checksum(self.addresses, &udp));
        udp[6..8].copy_from_slice(&checksum.to_be_bytes());
        udp
    }
}

fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("a short packet")
}

/// The Internet checksum (RFC 1071), in the plainest way.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

/// The UDP checksum of a datagram whose field is zero (RFC 768, RFC 8200 section 8.1).
pub fn udp_checksum(addresses: Addresses, udp: &[u8]) -> u16 {
    let mut pseudo = match addresses {
        Addresses::V4(source, destination) => [source, destination].concat(),
        Addresses::V6(source, destination) => [source, destination].concat(),
    };
    pseudo.extend([0, 17]);
    pseudo.extend(length(udp.len()).to_be_bytes());
    pseudo.extend(udp);
    match checksum(&pseudo) {
        0 => 0xffff,
        sum => sum,
    }
}
