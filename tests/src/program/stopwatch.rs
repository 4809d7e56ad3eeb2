//! The benchmark's programs around the one that is measured.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    maps::{Array, MapData, ProgramArray},
    programs::{TestRun as _, TestRunOptions, Xdp},
};

use siteswap::dataplane::{BENCHMARK, verify};

use super::{kernel::Kernel, table::Table};

/// `XDP_TX` and `XDP_REDIRECT` of `linux/bpf.h`.
const SENT: [u32; 2] = [3, 4];

/// Words of an entry of `FRAMES`: length, offset and bytes of the last word, two for the Ethernet header, and fourteen
/// for the rest of the frame.
const WORDS: usize = HEAD + 14;
/// Those before the fourteen.
const HEAD: usize = 4;
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// What `restore` calls.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// The data plane.
    Program,
    /// The bare reflector.
    Reflector,
}

/// Measures the program and the reflector by turns, with the same queries.
pub struct Stopwatch {
    bench: Ebpf,
    /// The kernel empties a program array that no process has open.
    _targets: ProgramArray<MapData>,
    kernel: Kernel,
    frames: u32,
    first: Vec<u8>,
}

impl Stopwatch {
    /// Loads everything and publishes the table.
    pub fn new(table: &Table) -> Result<Self> {
        let kernel = Kernel::new(table)?;
        let mut bench = Ebpf::load(BENCHMARK)?;
        for name in ["restore", "reflector"] {
            verify(xdp_mut(&mut bench, name)?)?;
        }
        let mut targets = ProgramArray::try_from(bench.take_map("TARGETS").context("TARGETS")?)?;
        let program = kernel.program("siteswap")?.fd()?;
        targets.set(Target::Program as u32, program, 0)?;
        targets.set(Target::Reflector as u32, xdp(&bench, "reflector")?.fd()?, 0)?;
        Ok(Self { bench, _targets: targets, kernel, frames: 0, first: Vec::new() })
    }

    /// The program that is measured.
    pub fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }

    /// Sets the frames that take turns; all of one length.
    pub fn frames(&mut self, queries: &[Vec<u8>]) -> Result<()> {
        self.frames = set_frames(&mut self.bench, queries)?;
        self.first = queries.first().context("no query")?.clone();
        Ok(())
    }

    /// The mean time of a packet.
    pub fn run(&mut self, target: Target, repeat: u32) -> Result<Duration> {
        set_plan(&mut self.bench, &Plan { target: target as u32, frames: self.frames, ..Plan::default() })?;
        let result = xdp(&self.bench, "restore")?.test_run(TestRunOptions {
            data_in: Some(&self.first),
            repeat,
            ..TestRunOptions::new()
        })?;
        let action = result.return_value;
        ensure!(SENT.contains(&action), "{target:?} gave XDP action {action} and sent nothing");
        Ok(result.duration)
    }
}

/// Sets the frames that `restore` writes by turns; says how many they are.
pub(super) fn set_frames(bench: &mut Ebpf, queries: &[Vec<u8>]) -> Result<u32> {
    let map = bench.map_mut("FRAMES").context("FRAMES")?;
    let mut frames: Array<_, [u64; WORDS]> = map.try_into()?;
    for (index, query) in (0..).zip(queries) {
        frames.set(index, entry(query)?, 0)?;
    }
    Ok(u32::try_from(queries.len())?)
}

/// What `restore` does.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plan {
    /// Which of `TARGETS` it calls.
    pub target: u32,
    /// Behind how many frames.
    pub frames: u32,
    /// Where `send` sends them.
    pub interface: u32,
    /// Nanoseconds from one to the next, at least.
    pub gap: u32,
}

/// Sets what `restore` does.
pub(super) fn set_plan(bench: &mut Ebpf, &Plan { target, frames, interface, gap }: &Plan) -> Result<()> {
    let map = bench.map_mut("PLAN").context("PLAN")?;
    let mut plan: Array<_, [u32; 8]> = map.try_into()?;
    Ok(plan.set(0, [target, frames, 0, interface, gap, 0, 0, 0], 0)?)
}

/// `Query` of the benchmark's programs.
fn entry(query: &[u8]) -> Result<[u64; WORDS]> {
    let (ethernet, rest) = query.split_at_checked(ETHERNET).context("too short a query")?;
    ensure!(rest.len() < 8 * (WORDS - HEAD), "too long a query");
    let tail = query.last_chunk().context("too short a query")?;
    let (whole, _) = rest.as_chunks();
    let mut words = [0; WORDS];
    // Two numbers of 32 bits, as this machine orders them.
    let [a, b, c, d] = u32::try_from(query.len())?.to_ne_bytes();
    let [e, f, g, h] = u32::try_from(query.len() - 8)?.to_ne_bytes();
    words[0] = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
    words[1] = u64::from_ne_bytes(*tail);
    let mut header = [0; 16];
    header[..ETHERNET].copy_from_slice(ethernet);
    for (word, bytes) in words[2..HEAD].iter_mut().zip(header.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    for (word, bytes) in words[HEAD..].iter_mut().zip(whole) {
        *word = u64::from_ne_bytes(*bytes);
    }
    Ok(words)
}

pub(super) fn xdp<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a Xdp> {
    let program = ebpf.program(name);
    Ok(program.with_context(|| format!("no program {name}"))?.try_into()?)
}

pub(super) fn xdp_mut<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name);
    Ok(program.with_context(|| format!("no program {name}"))?.try_into()?)
}
