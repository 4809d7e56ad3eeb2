//! What the program is told to answer.

use siteswap_common::{
    answers,
    maps::{
        AddressEntry, AnswerSet, FLOW_SETS, InstanceEntry, MAX_LISTEN, MAX_PEERS, NameEntry, RingChunk, Target,
        TunnelPeer,
    },
    name,
};

/// Names, their answers, and where queries are answered.
#[derive(Clone, Debug)]
pub struct Table {
    /// By hash.
    pub names: Vec<(u64, NameEntry)>,
    /// In the order that entries refer to.
    pub sets: Vec<AnswerSet>,
    /// IPv4 addresses that queries are answered on, up to the first of zeros.
    pub dns_v4: [[u8; 4]; MAX_LISTEN],
    /// The IPv6 ones.
    pub dns_v6: [[u8; 16]; MAX_LISTEN],
    /// Whether the agent's lease runs.
    pub leased: bool,
    /// Resources' addresses.
    pub addresses: Vec<AddressEntry>,
    /// By index.
    pub instances: Vec<InstanceEntry>,
    /// By index.
    pub rings: Vec<RingChunk>,
    /// By index.
    pub targets: Vec<Target>,
    /// Address and port of this end of the tunnel, and what the site calls itself there.
    pub tunnel: [u32; 3],
    /// The other ends.
    pub peers: [TunnelPeer; MAX_PEERS],
    /// Sets of flows, a power of two.
    pub flow_sets: u32,
}

impl Table {
    /// A table without names, leased, answering on the given addresses.
    pub fn new(v4: &[[u8; 4]], v6: &[[u8; 16]]) -> Self {
        let mut table = Self {
            names: Vec::new(),
            sets: Vec::new(),
            dns_v4: [[0; 4]; MAX_LISTEN],
            dns_v6: [[0; 16]; MAX_LISTEN],
            leased: true,
            addresses: Vec::new(),
            instances: Vec::new(),
            rings: Vec::new(),
            targets: vec![Target::NONE],
            tunnel: [0; 3],
            peers: [TunnelPeer::default(); MAX_PEERS],
            flow_sets: FLOW_SETS,
        };
        table.dns_v4[..v4.len()].copy_from_slice(v4);
        table.dns_v6[..v6.len()].copy_from_slice(v6);
        table
    }

    /// Adds a name with a set of its own.
    ///
    /// # Panics
    ///
    /// If the program cannot answer it.
    pub fn add(&mut self, name: &str, ttl: u32, v4: &[[u8; 4]], v6: &[[u8; 16]]) {
        let index = u32::try_from(self.sets.len()).expect("few sets");
        let id = 0x1000 + u64::from(index);
        self.sets.push(answers::set(id, ttl, v4, v6).expect("few addresses"));
        self.name(name, index);
    }

    /// Adds a name for the set with this index.
    ///
    /// # Panics
    ///
    /// If the program cannot find it, or there is no such set.
    pub fn name(&mut self, name: &str, set: u32) {
        let id = self.sets[set as usize].id;
        self.names.push(name::entry(&wire(name), set, id).expect("a name the program can find"));
    }
}

/// A name in wire format: its labels, which are split at dots, each behind its length.
///
/// # Panics
///
/// If a label is longer than 255 bytes.
pub fn wire(name: &str) -> Vec<u8> {
    let labels = name.trim_end_matches('.').split('.');
    let mut wire = Vec::new();
    for label in labels.filter(|label| !label.is_empty()) {
        wire.push(u8::try_from(label.len()).expect("a short label"));
        wire.extend(label.bytes());
    }
    wire.push(0);
    wire
}
