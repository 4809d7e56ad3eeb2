//! The program in the kernel, run by `BPF_PROG_TEST_RUN`.

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, ArrayOfMaps, Map, MapData, PerCpuArray},
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use siteswap::dataplane::{OBJECT, Templates, verify};
use siteswap_common::{
    maps::{AddressEntry, AnswerSet, Control, Counter, NameEntry},
    outcome::{Action, Outcome},
    placing::{ADDRESSES, NAMES, Places},
};

use super::{Verdict, host::FLOW_SEED, table::Table};

/// Longer than any frame that `BPF_PROG_TEST_RUN` takes.
const PAGE: usize = 4096;

/// The program, loaded and not attached.
pub struct Kernel {
    ebpf: Ebpf,
    templates: Templates,
}

impl Kernel {
    /// Loads the program for the table's DNS addresses and tunnel, and publishes the table.
    pub fn new(table: &Table) -> Result<Self> {
        let ebpf = EbpfLoader::new()
            .override_global("DNS_V4", &table.dns_v4, true)
            .override_global("DNS_V6", &table.dns_v6, true)
            .override_global("TUNNEL", &table.tunnel, true)
            .override_global("PEERS", &table.peers, true)
            .override_global("FLOW_MASK", &(table.flow_sets - 1), true)
            .map_max_entries("FLOWS", table.flow_sets)
            .load(OBJECT)?;
        let mut kernel = Self { ebpf, templates: Templates::new()? };
        kernel.publish_sets(&table.sets)?;
        kernel.publish_names(&table.names)?;
        kernel.publish_addresses(&table.addresses)?;
        kernel.publish_requests(table)?;
        kernel.lease(if table.leased { u64::MAX } else { 0 })?;
        verify(kernel.program_mut("siteswap")?)?;
        Ok(kernel)
    }

    /// Replaces the table of names.
    pub fn publish_names(&mut self, names: &[(u64, NameEntry)]) -> Result<()> {
        let hashes: Vec<_> = names.iter().map(|(hash, _)| *hash).collect();
        let entries: Vec<_> = names.iter().map(|(_, entry)| *entry).collect();
        self.publish(["SEEDS", "NAMES"], &NAMES.place(&hashes), &entries)
    }

    /// Replaces the table of resources' addresses.
    pub fn publish_addresses(&mut self, addresses: &[AddressEntry]) -> Result<()> {
        let hashes: Vec<_> = addresses.iter().map(AddressEntry::hash).collect();
        self.publish(["ADDRESS_SEEDS", "ADDRESSES"], &ADDRESSES.place(&hashes), addresses)
    }

    fn publish<V: Pod>(&mut self, [seeds, keys]: [&'static str; 2], places: &Places, entries: &[V]) -> Result<()> {
        let found = (0..).zip(places.seeds.iter().copied()).filter(|(_, seed)| *seed != 0);
        self.exchange(seeds, found)?;
        let slots = places.slots.iter().map(|slot| slot.context("a key without a place"));
        let slots = slots.collect::<Result<Vec<_>>>()?;
        self.exchange(keys, slots.into_iter().zip(entries.iter().copied()))
    }

    /// Replaces the table of answers.
    pub fn publish_sets(&mut self, sets: &[AnswerSet]) -> Result<()> {
        self.exchange("ANSWERS", (0..).zip(sets.iter().copied()))
    }

    /// Says what becomes of requests, but for their addresses.
    pub fn publish_requests(&mut self, table: &Table) -> Result<()> {
        self.fill("INSTANCES", &table.instances)?;
        self.fill("RINGS", &table.rings)?;
        self.fill("TARGETS", &table.targets)
    }

    fn fill<V: Pod>(&mut self, name: &'static str, values: &[V]) -> Result<()> {
        let mut map: Array<_, V> = self.map_mut(name)?.try_into()?;
        for (index, value) in (0..).zip(values) {
            map.set(index, value, 0)?;
        }
        Ok(())
    }

    /// Puts a new map into the first slot of a map of maps.
    fn exchange<V: Pod>(&mut self, name: &'static str, entries: impl Iterator<Item = (u32, V)>) -> Result<()> {
        let mut inner: Array<MapData, V> = self.templates.make(name)?;
        for (index, entry) in entries {
            inner.set(index, entry, 0)?;
        }
        let mut outer: ArrayOfMaps<_, Array<MapData, V>> = self.map_mut(name)?.try_into()?;
        Ok(outer.set(0, &inner, 0)?)
    }

    /// Sets the end of the lease.
    pub fn lease(&mut self, until: u64) -> Result<()> {
        self.control(until, FLOW_SEED)
    }

    /// Makes all flows new ones: with another secret they have other places.
    pub fn forget_flows(&mut self, flow_seed: u64) -> Result<()> {
        self.control(u64::MAX, flow_seed)
    }

    fn control(&mut self, lease_until: u64, flow_seed: u64) -> Result<()> {
        self.fill("CONTROL", &[Control { lease_until, names: 0, addresses: 0, jiffy: 0, time: 0, flow_seed }])
    }

    /// Every counter's total over all CPUs, in the order of [`Outcome::ALL`].
    pub fn counters(&self) -> Result<Vec<u64>> {
        let map = self.ebpf.map("COUNTERS").context("no map COUNTERS")?;
        let counters: PerCpuArray<_, Counter> = map.try_into()?;
        let count =
            |outcome: &Outcome| Ok(counters.get(&outcome.index(), 0)?.iter().map(|counter| counter.packets).sum());
        Outcome::ALL.iter().map(count).collect()
    }

    /// Runs one frame, of at least 14 bytes, through the program.
    pub fn run(&self, frame: &[u8]) -> Result<Verdict> {
        let before = self.counters()?;
        let mut out = vec![0; PAGE];
        let result = self.program("siteswap")?.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::new()
        })?;
        out.truncate(result.data_size_out as usize);
        let rises = self.counters()?.into_iter().zip(before);
        let counted = Outcome::ALL
            .iter()
            .zip(rises)
            .map(|(outcome, (after, before))| (*outcome, after - before))
            .filter(|(_, rise)| *rise > 0)
            .collect();
        Ok(Verdict { action: action(result.return_value)?, counted, frame: out })
    }

    /// A program of the object.
    pub fn program(&self, name: &str) -> Result<&Xdp> {
        let program = self.ebpf.program(name);
        Ok(program.with_context(|| format!("no program {name}"))?.try_into()?)
    }

    /// A program of the object, to be loaded.
    pub fn program_mut(&mut self, name: &str) -> Result<&mut Xdp> {
        let program = self.ebpf.program_mut(name);
        Ok(program.with_context(|| format!("no program {name}"))?.try_into()?)
    }

    fn map_mut(&mut self, name: &str) -> Result<&mut Map> {
        self.ebpf.map_mut(name).with_context(|| format!("no map {name}"))
    }
}

/// What a number of `linux/bpf.h`'s `enum xdp_action` means.
fn action(number: u32) -> Result<Action> {
    Ok(match number {
        1 => Action::Drop,
        2 => Action::Pass,
        3 => Action::Transmit,
        4 => Action::Send,
        _ => bail!("XDP action {number}"),
    })
}
