//! Layouts of the maps' keys and values.
//!
//! Every field is plain bytes or integers in host order, valid for every bit pattern, and padding is explicit:
//! `bpftool map dump` prints each of them by name. Change a layout, and [`LAYOUT`] must change with it.

/// Version of everything in this file: part of the pin directory's name, because the loader reuses a pinned map without
/// comparing its layout.
pub const LAYOUT: u32 = 2;

/// Entries of the map behind `ANSWERS[0]`, as many in every one: the kernel compiles the look-up in an array into the
/// program only if it knows its size. More than the resources that a site can report.
pub const SETS: u32 = 10_240;

/// Entries of the maps behind `NAMES`, likewise.
pub const NAME_SLOTS: u32 = 1 << 17;

/// Entries of the maps behind `SEEDS`.
pub const NAME_SEEDS: u32 = 1 << 15;

/// The most names that the program answers, with slots left so that `placing` always finds one.
pub const MAX_NAMES: usize = NAME_SLOTS as usize / 8 * 7;

/// Tables of names: the current one, and the next one while the agent fills it.
pub const NAME_TABLES: u32 = 2;

/// The longest name, in wire format with its root label, that the program answers; longer ones go up to the agent.
pub const NAME_BYTES: usize = 128;

/// The most addresses of one family in an answer.
pub const MAX_ADDRESSES: usize = 8;

/// The most addresses of one family that queries are answered on.
pub const MAX_LISTEN: usize = 8;

/// The most ports of a resource.
pub const MAX_PORTS: usize = 8;

/// Value in the maps behind `NAMES`. Its index follows from the name's hash (`name::hash`) and the seed that the map
/// behind the same slot of `SEEDS` has for it (`placing`); all zeros if no name has this index.
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

/// Value of `CONTROL[0]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// The program answers until this moment of `CLOCK_MONOTONIC_COARSE`, nanoseconds. Zero: no agent ever had it.
    pub lease_until: u64,
    /// The slot of `SEEDS` and `NAMES` with the current table of names. So both are exchanged at once.
    pub names: u32,
    /// Zero.
    pub reserved: u32,
    /// The program's own: a number of jiffies since the kernel started, and what that clock showed then.
    pub jiffy: u64,
    /// See `jiffy`.
    pub time: u64,
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
}

const _: () = assert!(size_of::<Control>() == 32);
const _: () = assert!(size_of::<NameEntry>() == 8 + 4 + 4 + NAME_BYTES);
const _: () = assert!(size_of::<AnswerSet>() == 24 + 20 * MAX_ADDRESSES);
