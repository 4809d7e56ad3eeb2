//! Layouts of the maps' keys and values.
//!
//! Every field is plain bytes or integers in host order, valid for every bit pattern, and padding is explicit:
//! `bpftool map dump` prints each of them by name. Change a layout, and [`LAYOUT`] must change with it.

/// Version of everything in this file: part of the pin directory's name, because the loader reuses a pinned map without
/// comparing its layout.
pub const LAYOUT: u32 = 3;

/// Entries of the map behind `ANSWERS[0]`, as many in every one: the kernel compiles the look-up in an array into the
/// program only if it knows its size. More than the resources that a site can report.
pub const SETS: u32 = 10_240;

/// Entries of the maps behind `NAMES`, likewise.
pub const NAME_SLOTS: u32 = 1 << 17;

/// Entries of the maps behind `SEEDS`.
pub const NAME_SEEDS: u32 = 1 << 15;

/// Entries of the maps behind `ADDRESSES`.
pub const ADDRESS_SLOTS: u32 = 1 << 16;

/// Entries of the maps behind `ADDRESS_SEEDS`.
pub const ADDRESS_SEEDS: u32 = 1 << 14;

/// Tables of names, and of addresses: the current one, and the next one while the agent fills it.
pub const TABLES: u32 = 2;

/// Entries of `TARGETS`; 0 is none.
pub const TARGETS: u32 = 1 << 16;

/// Targets in an entry of `RINGS`.
pub const RING_CHUNK: u32 = 64;

/// Entries of `RINGS`: four million targets, the tables of 10,000 resources with two backends and more.
pub const RING_CHUNKS: u32 = 1 << 16;

/// Flows in an entry of `FLOWS`: a line of the CPU's cache.
pub const FLOW_WAYS: u32 = 8;

/// Entries of `FLOWS` unless the configuration says otherwise, a power of two: 131,072 flows in a megabyte, which a core's
/// own cache holds.
pub const FLOW_SETS: u32 = 1 << 14;

/// The longest name, in wire format with its root label, that the program answers; longer ones go up to the agent.
pub const NAME_BYTES: usize = 128;

/// The most addresses of one family in an answer.
pub const MAX_ADDRESSES: usize = 8;

/// The most addresses of one family that queries are answered on.
pub const MAX_LISTEN: usize = 8;

/// The most ports of a resource.
pub const MAX_PORTS: usize = 8;

/// Value in the maps behind `NAMES`. Its index follows from the name's hash (`name::hash`) and the seed that the map
/// behind the same slot of `SEEDS` has for it ([`placing::NAMES`](crate::placing::NAMES)); all zeros if no name has this
/// index.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameEntry {
    /// Must equal the set's `id`: the two tables are replaced one after the other, and a query in between goes up.
    pub set_id: u64,
    /// Index into the map behind `ANSWERS[0]`.
    pub set: u32,
    /// Bytes of `name` in use.
    pub length: u32,
    /// Wire format in lower case (RFC 4343), zeros after `length`.
    pub name: [u8; NAME_BYTES],
}

/// Value in the map behind `ANSWERS[0]`: one resource's answer, addresses in the order clients should try them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerSet {
    /// Tells which resource, for which configuration; compared with [`NameEntry::set_id`].
    pub id: u64,
    /// Seconds.
    pub ttl: u32,
    /// Addresses in `v4`. None: A queries go up to the agent.
    pub v4_count: u8,
    /// Addresses in `v6`. None: AAAA queries go up to the agent.
    pub v6_count: u8,
    /// Ones'-complement sum (RFC 1071) of the A answer section, records as they are on the wire, starting at an even
    /// offset, as a big-endian word in host order.
    pub v4_sum: u16,
    /// The same of the AAAA answer section.
    pub v6_sum: u16,
    /// Zero.
    pub reserved: [u8; 6],
    /// A records' addresses, network order.
    pub v4: [[u8; 4]; MAX_ADDRESSES],
    /// AAAA records' addresses, network order.
    pub v6: [[u8; 16]; MAX_ADDRESSES],
}

impl AnswerSet {
    /// An entry that no name refers to.
    pub const NONE: Self = Self {
        id: 0,
        ttl: 0,
        v4_count: 0,
        v6_count: 0,
        v4_sum: 0,
        v6_sum: 0,
        reserved: [0; 6],
        v4: [[0; 4]; MAX_ADDRESSES],
        v6: [[0; 16]; MAX_ADDRESSES],
    };
}

/// Value in the maps behind `ADDRESSES`: an address of a resource. Its index follows from its hash as a name's does; all
/// zeros if no address has this index.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressEntry {
    /// Network order, IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// Must equal [`InstanceEntry::id`]: a request in between their changes goes up.
    pub instance_id: u64,
    /// Index into `INSTANCES`.
    pub instance: u32,
    /// Ports in `ports`.
    pub port_count: u32,
    /// What is served or forwarded there.
    pub ports: [PortEntry; MAX_PORTS],
}

/// A protocol's port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortEntry {
    /// As in an IP header.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
    /// Host order; 0 stands for any.
    pub port: u16,
}

/// What is done with requests for a resource that no flow in `FLOWS` decides.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    /// They are left to the host.
    Pass = 0,
    /// One of this site's backends serves them.
    Serve = 1,
    /// They go through the tunnel.
    Forward = 2,
    /// They are dropped.
    Refuse = 3,
}

/// Value in `INSTANCES`: this site's instance of a resource.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceEntry {
    /// Tells which resource, for which configuration; compared with [`AddressEntry::instance_id`].
    pub id: u64,
    /// The resource's.
    pub epoch: u64,
    /// Index in `RINGS` of its table of backends.
    pub ring: u32,
    /// Entries of that table; 0: none.
    pub ring_size: u32,
    /// A [`Steer`].
    pub steer: u32,
    /// The target that requests are forwarded to.
    pub peer: u32,
    /// The target that established flows still go to: the peer that held the resource before. 0: none.
    pub leaving: u32,
    /// Whether established flows stay at this site's backends while new ones are forwarded: 1 or 0.
    pub stay: u32,
}

impl InstanceEntry {
    /// An entry that no address refers to.
    pub const NONE: Self =
        Self { id: 0, epoch: 0, ring: 0, ring_size: 0, steer: Steer::Pass as u32, peer: 0, leaving: 0, stay: 0 };
}

/// Value in `RINGS`: a part of some instance's Maglev table.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingChunk {
    /// Indices in `TARGETS`.
    pub targets: [u16; RING_CHUNK as usize],
}

/// What a [`Target`] is.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// Nothing, or not reachable now.
    None = 0,
    /// One of this site's backends, in the same Ethernet.
    Backend = 1,
    /// A peer, behind its tunnel.
    Peer = 2,
}

/// Value in `TARGETS`: where frames are sent.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The backend's address, or the peer's tunnel; network order, IPv4 as `::ffff:a.b.c.d`. For people.
    pub address: [u8; 16],
    /// Whose it is: the backend's [`InstanceEntry::id`], or 0 for a peer.
    pub owner: u64,
    /// A [`TargetKind`].
    pub kind: u32,
    /// 1 for the first that this index was given to, and one more for each of the next, from 255 on to 1 again: a flow with
    /// another number is not for this one. 0: nobody ever had the index.
    pub generation: u32,
    /// The interface's index.
    pub interface: u32,
    /// The next hop's MAC address.
    pub to: [u8; 6],
    /// The interface's own.
    pub from: [u8; 6],
    /// Bytes of the longest packet that fits the tunnel.
    pub mtu: u32,
    /// Of the tunnel's header: this end's address, network order.
    pub source: [u8; 4],
    /// The peer's.
    pub destination: [u8; 4],
    /// Its port, host order.
    pub port: u32,
}

impl Target {
    /// Nothing.
    pub const NONE: Self = Self {
        address: [0; 16],
        owner: 0,
        kind: TargetKind::None as u32,
        generation: 0,
        interface: 0,
        to: [0; 6],
        from: [0; 6],
        mtu: 0,
        source: [0; 4],
        destination: [0; 4],
        port: 0,
    };
}

/// A flow in `FLOWS`. For people: the program reads and writes all of it at once, as the word whose lower end comes first.
/// All zeros are none.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEntry {
    /// When, in units of 8.6 seconds, modulo 256.
    pub seen: u8,
    /// Of its target: [`Target::generation`].
    pub generation: u8,
    /// Index in `TARGETS`.
    pub target: u16,
    /// The upper half of its hash.
    pub hash: u32,
}

/// Value in `FLOWS`: see `flows`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSet {
    /// Those of which one packet has been seen are at the end.
    pub flows: [FlowEntry; FLOW_WAYS as usize],
}

/// Value in `COUNTERS`, by [`Outcome`](crate::outcome::Outcome) and CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Since the map was made.
    pub packets: u64,
}

/// Value of `ERRORS[0]`: ICMP errors to senders whose packets are too big for the tunnel.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errors {
    /// The span of time, of 134 milliseconds, in which the last was sent.
    pub span: u64,
    /// How many in that.
    pub count: u64,
}

/// Value of `REPORTED[0]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The lease whose end is in the log: its [`Control::lease_until`].
    pub lease_until: u64,
}

/// Value of `EXPLAINED[0]`: what the explaining program found.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The index of an [`Outcome`](crate::outcome::Outcome).
    pub outcome: u32,
    /// Index in `TARGETS`; 0 is none.
    pub target: u32,
    /// The index of the interface that leads there.
    pub interface: u32,
    /// A [`Knew`](crate::steer::Knew).
    pub knew: u32,
}

/// A peer that requests are taken from, as the program's read-only data has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelPeer {
    /// Its tunnel's address, network order. Zeros end the list.
    pub address: [u8; 4],
    /// What it calls itself in the tunnel's header: `tunnel::site`.
    pub site: u32,
}

/// The most peers with tunnels.
pub const MAX_PEERS: usize = 16;

/// Value of `CONTROL[0]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// The program answers until this moment of `CLOCK_MONOTONIC_COARSE`, nanoseconds. Zero: no agent ever had it.
    pub lease_until: u64,
    /// The slot of `SEEDS` and `NAMES` with the current table of names. So both are exchanged at once.
    pub names: u32,
    /// The slot of `ADDRESS_SEEDS` and `ADDRESSES` with the current table of addresses.
    pub addresses: u32,
    /// The program's own: a number of jiffies since the kernel started, and what that clock showed then.
    pub jiffy: u64,
    /// See `jiffy`.
    pub time: u64,
    /// A secret of this site's, chosen once: without it nobody can tell which flows share an entry of `FLOWS`.
    pub flow_seed: u64,
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: `repr(C)`, integers and byte arrays only, without implicit padding (asserted below): every bit pattern is
    // valid and every byte initialised.
    unsafe impl aya::Pod for super::NameEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::AnswerSet {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Control {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::AddressEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::InstanceEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::RingChunk {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Target {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::FlowSet {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Counter {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Found {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::TunnelPeer {}
}

const _: () = assert!(size_of::<Control>() == 40);
const _: () = assert!(size_of::<AddressEntry>() == 16 + 8 + 4 + 4 + 4 * MAX_PORTS);
const _: () = assert!(size_of::<InstanceEntry>() == 40);
const _: () = assert!(size_of::<RingChunk>() == 2 * RING_CHUNK as usize);
const _: () = assert!(size_of::<Target>() == 64);
const _: () = assert!(size_of::<FlowEntry>() == 8);
const _: () = assert!(size_of::<FlowSet>() == 8 * FLOW_WAYS as usize);
const _: () = assert!(size_of::<Counter>() == 8);
const _: () = assert!(size_of::<Found>() == 16);
const _: () = assert!(size_of::<TunnelPeer>() == 8);
const _: () = assert!(size_of::<NameEntry>() == 8 + 4 + 4 + NAME_BYTES);
const _: () = assert!(size_of::<AnswerSet>() == 24 + 20 * MAX_ADDRESSES);
