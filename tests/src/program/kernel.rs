//! The program in the kernel, run by `BPF_PROG_TEST_RUN`.

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, ArrayOfMaps, Map, MapData, PerCpuArray},
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use siteswap::dataplane::{OBJECT, Templates};
use siteswap_common::{
    maps::{AnswerSet, Control, NameEntry},
    outcome::{Action, Outcome},
    placing::place,
};

use super::{Verdict, table::Table};

/// Longer than any frame that `BPF_PROG_TEST_RUN` takes.
const PAGE: usize = 4096;

/// The program, loaded and not attached.
pub struct Kernel {
    ebpf: Ebpf,
    templates: Templates,
}

impl Kernel {
    /// Loads the program for the table's DNS addresses and publishes the table.
    pub fn new(table: &Table) -> Result<Self> {
        let ebpf = EbpfLoader::new()
            .override_global("DNS_V4", &table.dns_v4, true)
            .override_global("DNS_V6", &table.dns_v6, true)
            .load(OBJECT)?;
        let mut kernel = Self { ebpf, templates: Templates::new()? };
        kernel.publish_sets(&table.sets)?;
        kernel.publish_names(&table.names)?;
        kernel.lease(if table.leased { u64::MAX } else { 0 })?;
        kernel.program_mut("siteswap")?.load()?;
        Ok(kernel)
    }

    /// Replaces the table of names.
    pub fn publish_names(&mut self, names: &[(u64, NameEntry)]) -> Result<()> {
        let hashes: Vec<_> = names.iter().map(|(hash, _)| *hash).collect();
        let places = place(&hashes);
        let mut seeds: Array<_, u32> = Map::Array(self.templates.seeds()?).try_into()?;
        for (bucket, seed) in (0..).zip(&places.seeds).filter(|(_, seed)| **seed != 0) {
            seeds.set(bucket, seed, 0)?;
        }
        let mut entries: Array<_, NameEntry> = Map::Array(self.templates.names()?).try_into()?;
        for (slot, (_, entry)) in places.slots.iter().zip(names) {
            entries.set(slot.context("a name without a place")?, entry, 0)?;
        }
        let mut outer: ArrayOfMaps<_, Array<MapData, u32>> = self.map_mut("SEEDS")?.try_into()?;
        outer.set(0, &seeds, 0)?;
        let mut outer: ArrayOfMaps<_, Array<MapData, NameEntry>> = self.map_mut("NAMES")?.try_into()?;
        Ok(outer.set(0, &entries, 0)?)
    }

    /// Replaces the table of answers.
    pub fn publish_sets(&mut self, sets: &[AnswerSet]) -> Result<()> {
        let mut inner: Array<_, AnswerSet> = Map::Array(self.templates.answers()?).try_into()?;
        for (index, set) in (0..).zip(sets) {
            inner.set(index, set, 0)?;
        }
        let mut outer: ArrayOfMaps<_, Array<MapData, AnswerSet>> = self.map_mut("ANSWERS")?.try_into()?;
        Ok(outer.set(0, &inner, 0)?)
    }

    /// Sets the end of the lease.
    pub fn lease(&mut self, until: u64) -> Result<()> {
        let mut control: Array<_, Control> = self.map_mut("CONTROL")?.try_into()?;
        Ok(control.set(0, Control { lease_until: until, names: 0, reserved: 0, jiffy: 0, time: 0 }, 0)?)
    }

    /// Every counter's total over all CPUs, in the order of [`Outcome::ALL`].
    pub fn counters(&self) -> Result<Vec<u64>> {
        let map = self.ebpf.map("COUNTERS").context("no map COUNTERS")?;
        let counters: PerCpuArray<_, u64> = map.try_into()?;
        Outcome::ALL.iter().map(|outcome| Ok(counters.get(&outcome.index(), 0)?.iter().sum())).collect()
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
        _ => bail!("XDP action {number}"),
    })
}
