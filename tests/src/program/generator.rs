//! Live frames: a generator that sends them out of an interface, and a sink that counts what arrives.

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    maps::{Array, MapData, PerCpuArray, ProgramArray},
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, XdpMode},
};
use nix::net::if_::if_nametoindex;
use siteswap::dataplane::{BENCHMARK, verify};

use super::stopwatch::{Plan, set_frames, set_plan, xdp, xdp_mut};

/// Frames that the kernel sends at once.
const BATCH: u32 = 64;
/// Slot of `TARGETS` that `send` is in.
const SEND: u32 = 0;
/// Kinds of frames that the sink knows.
pub const KINDS: usize = 5;

/// A UDP packet over IPv4 that the sink expects.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Destination MAC address; its last byte is the kind's number.
    pub to: [u8; 6],
    /// Destination address.
    pub address: [u8; 4],
    /// Destination port.
    pub port: u16,
}

/// The generator and its sink.
pub struct Generator {
    bench: Ebpf,
    /// The kernel empties a program array that no process has open.
    _targets: ProgramArray<MapData>,
    plan: Plan,
    first: Vec<u8>,
}

impl Generator {
    /// For frames, all of one length, that take turns, and what may become of them on their way.
    pub fn new(frames: &[Vec<u8>], expected: &[Arrival; KINDS]) -> Result<Self> {
        let mut bench = Ebpf::load(BENCHMARK)?;
        for name in ["restore", "send", "sink"] {
            verify(xdp_mut(&mut bench, name)?)?;
        }
        let mut targets = ProgramArray::try_from(bench.take_map("TARGETS").context("TARGETS")?)?;
        targets.set(SEND, xdp(&bench, "send")?.fd()?, 0)?;
        let mut kinds: Array<_, [u8; 12]> = bench.map_mut("EXPECTED").context("EXPECTED")?.try_into()?;
        for (index, Arrival { to, address, port }) in (0..).zip(expected) {
            ensure!(u32::from(to[5]) == index, "kind {index} has a MAC address that ends in {}", to[5]);
            let mut entry = [0; 12];
            entry[..6].copy_from_slice(to);
            entry[6..8].copy_from_slice(&port.to_be_bytes());
            entry[8..].copy_from_slice(address);
            kinds.set(index, entry, 0)?;
        }
        let first = frames.first().context("no frame")?.clone();
        let plan = Plan { target: SEND, frames: set_frames(&mut bench, frames)?, ..Plan::default() };
        Ok(Self { bench, _targets: targets, plan, first })
    }

    /// Makes an interface of this thread's namespace the sink.
    pub fn attach_sink(&mut self, interface: &str) -> Result<()> {
        xdp_mut(&mut self.bench, "sink")?.attach(interface, XdpMode::Driver)?;
        Ok(())
    }

    /// Chooses the interface, of this thread's namespace, that frames leave by.
    pub fn aim(&mut self, interface: &str) -> Result<()> {
        self.plan.interface = if_nametoindex(interface)?;
        Ok(())
    }

    /// A copy of the program `send`, to be attached on an edge: it sends on whatever comes, as it is, out of an interface
    /// of this thread's namespace.
    pub fn sender(interface: &str) -> Result<Ebpf> {
        let mut bench = Ebpf::load(BENCHMARK)?;
        set_plan(&mut bench, &Plan { target: SEND, interface: if_nametoindex(interface)?, ..Plan::default() })?;
        verify(xdp_mut(&mut bench, "send")?)?;
        Ok(bench)
    }

    /// Sends that many frames from this thread's namespace, with at least `gap` nanoseconds from one to the next.
    pub fn send(&mut self, packets: u32, gap: u32) -> Result<()> {
        set_plan(&mut self.bench, &Plan { gap, ..self.plan })?;
        xdp(&self.bench, "restore")?.test_run(TestRunOptions {
            data_in: Some(&self.first),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        })?;
        Ok(())
    }

    /// How many packets of each kind have come.
    ///
    /// # Errors
    /// One came that is of no kind.
    pub fn arrived(&self) -> Result<[u64; KINDS]> {
        let counts: PerCpuArray<_, u64> = self.bench.map("ARRIVED").context("ARRIVED")?.try_into()?;
        let count = |kind: usize| Ok::<_, anyhow::Error>(counts.get(&u32::try_from(kind)?, 0)?.iter().sum::<u64>());
        let strange = count(KINDS)?;
        ensure!(strange == 0, "{strange} packets arrived that nobody should send there");
        let mut arrived = [0; KINDS];
        for (kind, sum) in arrived.iter_mut().enumerate() {
            *sum = count(kind)?;
        }
        Ok(arrived)
    }
}
