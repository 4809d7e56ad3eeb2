//! The program's logic on the host.

use std::collections::HashMap;

use siteswap_common::{
    answer::{Tables, respond},
    frame::Frame,
    maps::{AnswerSet, NameEntry},
    placing::place,
};

use super::{Verdict, table::Table};

/// A [`Table`] to look things up in.
pub struct Host {
    table: Table,
    seeds: Vec<u32>,
    names: HashMap<u32, NameEntry>,
}

impl Host {
    /// Publishes a table.
    pub fn new(table: &Table) -> Self {
        let hashes: Vec<_> = table.names.iter().map(|(hash, _)| *hash).collect();
        let places = place(&hashes);
        let names = places.slots.iter().zip(&table.names).filter_map(|(slot, (_, entry))| Some(((*slot)?, *entry)));
        Self { names: names.collect(), seeds: places.seeds, table: table.clone() }
    }

    /// Runs a frame through [`respond`].
    pub fn run(&self, bytes: &[u8]) -> Verdict {
        self.run_frame(Frame::new(bytes.to_vec()))
    }

    /// The same with a frame of limited room.
    pub fn run_frame(&self, mut frame: Frame) -> Verdict {
        let outcome = respond(&mut frame, self);
        Verdict { action: outcome.action(), counted: vec![(outcome, 1)], frame: frame.bytes }
    }
}

impl Tables for Host {
    fn serves_v4(&self, address: u32) -> bool {
        address != 0 && self.table.dns_v4.contains(&address.to_be_bytes())
    }

    fn serves_v6(&self, [high, low]: [u64; 2]) -> bool {
        let address = u128::from(high) << 64 | u128::from(low);
        address != 0 && self.table.dns_v6.contains(&address.to_be_bytes())
    }

    fn leased(&self) -> Option<u32> {
        self.table.leased.then_some(0)
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
