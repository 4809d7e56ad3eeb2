//! The program's logic on the host.

use std::collections::HashMap;

use siteswap_common::{
    answer::{self, Present},
    frame::Frame,
    maps::{AddressEntry, AnswerSet, InstanceEntry, NameEntry, RingChunk, Target},
    placing::{ADDRESSES, NAMES},
    steer::{
        self,
        flows::{Set, Way},
        receive,
    },
};

use super::{Verdict, table::Table};

/// What flow hashes begin with, here and in [`Kernel`](super::kernel::Kernel).
pub const FLOW_SEED: u64 = 0x5eed;

/// A [`Table`] to look things up in.
pub struct Host {
    table: Table,
    seeds: Vec<u32>,
    names: HashMap<u32, NameEntry>,
    address_seeds: Vec<u32>,
    addresses: HashMap<u32, AddressEntry>,
    flows: Vec<Set>,
}

impl Host {
    /// Publishes a table.
    pub fn new(table: &Table) -> Self {
        let hashes: Vec<_> = table.names.iter().map(|(hash, _)| *hash).collect();
        let places = NAMES.place(&hashes);
        let names = places.slots.iter().zip(&table.names).filter_map(|(slot, (_, entry))| Some(((*slot)?, *entry)));
        let hashes: Vec<_> = table.addresses.iter().map(AddressEntry::hash).collect();
        let address_places = ADDRESSES.place(&hashes);
        let addresses = address_places.slots.iter().zip(&table.addresses);
        Self {
            names: names.collect(),
            seeds: places.seeds,
            addresses: addresses.filter_map(|(slot, entry)| Some(((*slot)?, *entry))).collect(),
            address_seeds: address_places.seeds,
            flows: (0..table.flow_sets).map(|_| Set::default()).collect(),
            table: table.clone(),
        }
    }

    /// Changes what is said of requests, but for which addresses there are; flows stay.
    pub fn update(&mut self, change: impl FnOnce(&mut Table)) {
        change(&mut self.table);
        for entry in self.addresses.values_mut() {
            let said = self.table.addresses.iter().find(|said| said.address == entry.address);
            *entry = *said.expect("the same addresses");
        }
    }

    /// Runs a frame through [`receive`].
    pub fn run(&self, bytes: &[u8]) -> Verdict {
        self.run_frame(Frame::new(bytes.to_vec()))
    }

    /// The same with a frame of limited room.
    pub fn run_frame(&self, mut frame: Frame) -> Verdict {
        let outcome = receive(&mut frame, self).outcome();
        Verdict { action: outcome.action(), counted: vec![(outcome, 1)], frame: frame.bytes }
    }
}

impl answer::Tables for Host {
    fn serves_v4(&self, address: u32) -> bool {
        address != 0 && self.table.dns_v4.contains(&address.to_be_bytes())
    }

    fn serves_v6(&self, [high, low]: [u64; 2]) -> bool {
        let address = u128::from(high) << 64 | u128::from(low);
        address != 0 && self.table.dns_v6.contains(&address.to_be_bytes())
    }

    fn present(&self) -> Present {
        Present { leased: self.table.leased, names: 0, addresses: 0, flow_seed: FLOW_SEED, now: 1 << 40 }
    }

    fn seed(&self, _names: u32, bucket: u32) -> Option<u32> {
        self.seeds.get(bucket as usize).copied()
    }

    fn name(&self, _names: u32, slot: u32) -> Option<&NameEntry> {
        self.names.get(&slot)
    }

    fn set(&self, index: u32) -> Option<&AnswerSet> {
        self.table.sets.get(index as usize)
    }
}

impl steer::Tables for Host {
    fn address_seed(&self, _addresses: u32, bucket: u32) -> Option<u32> {
        self.address_seeds.get(bucket as usize).copied()
    }

    fn address(&self, _addresses: u32, slot: u32) -> Option<&AddressEntry> {
        self.addresses.get(&slot)
    }

    fn instance(&self, index: u32) -> Option<&InstanceEntry> {
        self.table.instances.get(index as usize)
    }

    fn ring(&self, chunk: u32) -> Option<&RingChunk> {
        self.table.rings.get(chunk as usize)
    }

    fn target(&self, index: u32) -> Option<&Target> {
        self.table.targets.get(index as usize)
    }

    fn flows(&self, hash: u64) -> Option<&Set> {
        self.flows.get(usize::try_from(hash & u64::from(self.table.flow_sets - 1)).ok()?)
    }

    fn keep(&self, flow: &Way, word: u64) {
        flow.store(word);
    }

    fn tunnel(&self) -> (u32, u32) {
        (self.table.tunnel[0], self.table.tunnel[1])
    }

    fn site(&self) -> u32 {
        self.table.tunnel[2]
    }

    fn peer(&self, address: u32) -> Option<u32> {
        let peers = self.table.peers.iter().filter(|peer| peer.address != [0; 4]);
        peers.map(|peer| (u32::from_be_bytes(peer.address), peer.site)).find(|(own, _)| *own == address).map(|(_, s)| s)
    }

    fn may_tell(&self, _now: u64) -> bool {
        true
    }
}
