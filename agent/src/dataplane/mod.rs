//! The agent's side of the XDP program: load, attach, publish, renew the lease, read the counters.
//!
//! Links and maps are pinned, so the program outlives the agent: it answers from the last published table until its
//! lease runs out, and a restarted agent finds everything where it was. Only [`Dataplane::detach`] takes it away.

mod attach;
mod error;
mod events;
mod interfaces;
mod load;
mod pins;
pub mod requests;
mod tables;

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, Pod,
    maps::{Array, ArrayOfMaps, MapData, MapError, PerCpuArray},
    programs::{TestRun as _, TestRunOptions},
};
use hickory_proto::rr::LowerName;
use nix::{
    errno::Errno,
    time::{ClockId, clock_gettime},
};
use siteswap_common::{
    maps::{AnswerSet, Control, Counter, FLOW_WAYS, Found, TABLES, Target},
    outcome::Outcome,
    steer::Knew,
};

pub use self::{
    attach::{Attachment, must_exist},
    error::Error,
    load::{BENCHMARK, Constants, OBJECT, PROGRAM, Templates, verify},
    requests::Requests,
};
use self::{
    interfaces::Interfaces,
    load::{ADDRESS_SEEDS, ADDRESSES, ANSWERS, CONTROL, COUNTERS, EXPLAINED, INSTANCES, NAMES, RINGS, SEEDS, TARGETS},
    pins::Pins,
    requests::{Register, Write, Writes},
    tables::{Left, Sets, Slots},
};
use crate::{answers::AnswerTable, config, nexthop::Hops};

/// The program in the kernel, and the hands on its maps.
#[derive(Debug)]
pub struct Dataplane {
    ebpf: Ebpf,
    templates: Templates,
    pins: Pins,
    config: config::Dataplane,
    constants: Constants,
    interfaces: Interfaces,
    contents: Contents,
    /// Held for its task, which ends with it.
    _events: Option<events::Forwarder>,
}

/// Domains, and their resources' ids and indices.
type Named = (Arc<BTreeMap<LowerName, usize>>, Vec<(u64, u32)>);

/// What the maps hold, as far as this agent knows.
#[derive(Debug, Default)]
struct Contents {
    slots: Slots,
    /// The map behind `ANSWERS[0]`, and the one that takes its place next.
    current: Option<Answers>,
    spare: Option<Answers>,
    /// The names that were published, and the resources they lead to.
    names: Option<Named>,
    register: Register,
    addresses: Option<Vec<requests::Claim>>,
    flow_seed: u64,
}

/// An inner map of `ANSWERS`.
struct Answers {
    map: Array<MapData, AnswerSet>,
    /// What it holds.
    sets: Vec<Option<AnswerSet>>,
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("sets", &self.sets).finish_non_exhaustive()
    }
}

impl Answers {
    fn new(templates: &Templates) -> Result<Self, Error> {
        Ok(Self { map: templates.make(ANSWERS)?, sets: Vec::new() })
    }

    /// Whether it holds `sets`.
    fn hold(&self, sets: &[Option<AnswerSet>]) -> bool {
        let length = self.sets.len().max(sets.len());
        (0..length).all(|index| self.sets.get(index).copied().flatten() == sets.get(index).copied().flatten())
    }

    /// Makes it hold `sets`.
    fn fill(&mut self, sets: &[Option<AnswerSet>]) -> Result<(), Error> {
        let length = self.sets.len().max(sets.len());
        self.sets.resize(length, None);
        for (index, held) in (0..).zip(&mut self.sets) {
            let wanted = sets.get(index as usize).copied().flatten();
            if *held != wanted {
                self.map.set(index, wanted.unwrap_or(AnswerSet::NONE), 0).map_err(Error::map(ANSWERS))?;
                *held = wanted;
            }
        }
        Ok(())
    }
}

/// When each part of a published table became visible to the program; `None`: it had not changed.
///
/// The kernel exchanges an inner map at once, but returns only after every CPU has left the old one (an RCU grace period,
/// milliseconds). These moments are from just before the exchange, so they are at most microseconds too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The answers, in one exchange for all resources.
    pub answers: Option<Instant>,
    /// The names, in one exchange too.
    pub names: Option<Instant>,
}

/// What would become of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// What it would be counted as.
    pub outcome: Outcome,
    /// Where it would be sent.
    pub target: Option<SentTo>,
    /// What is known of its flow.
    pub knew: Knew,
}

/// A target of the program's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentTo {
    /// The backend's address, or the peer's tunnel.
    pub address: IpAddr,
    /// Index of the interface that leads there.
    pub interface: u32,
}

impl Dataplane {
    /// Loads the program and puts it on the configured interfaces that are there: in place of the one a previous agent left,
    /// with no packet lost, and on its maps. If that one's maps are of another layout it stays until
    /// [`attach`](Self::attach). Inside a tokio runtime the program's log is forwarded.
    ///
    /// Blocks while the kernel verifies the program, which may take a second.
    pub fn start(config: &config::Dataplane, constants: &Constants) -> Result<Self, Error> {
        let pins = Pins::new(&config.pins);
        pins.create()?;
        let (mut ebpf, templates) = load::load(constants, flow_sets(config), &pins)?;
        let contents = found(&mut ebpf, constants.flow_seed)?;
        let events = events::forward(&mut ebpf);
        let other_layout = pins.other_layout()?;
        let mut dataplane = Self {
            ebpf,
            templates,
            pins,
            config: config.clone(),
            constants: constants.clone(),
            interfaces: Interfaces::new(config),
            contents,
            _events: events,
        };
        // New maps have no lease, and a program without one passes everything. Where there was none that takes nothing away,
        // but one that answers from maps of its own goes on until these are filled.
        if !other_layout {
            dataplane.attach()?;
        }
        Ok(dataplane)
    }

    /// Puts the program on the interfaces if [`start`](Self::start) has not. To be called when it has been told all that it
    /// should answer and do with requests.
    pub fn attach(&mut self) -> Result<(), Error> {
        if self.interfaces.wait() {
            self.interfaces.start(load::program(&mut self.ebpf)?, &self.pins)?;
            self.pins.settle_new_maps()?;
            self.pins.remove_other_layouts()?;
        }
        Ok(())
    }

    /// The secret by which flows are told apart: that of the maps, where an earlier agent has left some.
    pub fn flow_seed(&self) -> u64 {
        self.contents.flow_seed
    }

    /// Takes a changed configuration, with no packet lost. On an error everything is as it was.
    pub fn reconfigure(&mut self, config: &config::Dataplane, constants: &Constants) -> Result<(), Error> {
        if config.pins != self.config.pins {
            return Err(Error::PinsMoved { from: self.config.pins.clone(), to: config.pins.clone() });
        }
        match Self::start(config, constants) {
            Ok(new) => {
                let old = std::mem::replace(self, new);
                self.contents = old.contents;
                Ok(())
            }
            Err(error) => {
                // Interfaces that already run the new program get the old one back.
                self.interfaces.restore(load::program(&mut self.ebpf)?, &self.pins)?;
                self.pins.drop_new_maps()?;
                Err(error)
            }
        }
    }

    /// Makes the program answer from `table`. What did not change is left alone.
    ///
    /// Blocks for an RCU grace period per exchanged map (milliseconds); the change is visible before that, see
    /// [`Published`]. Between the exchange of the answers and that of the names, a query for a name of a new resource
    /// goes up to the agent's server; all others are answered by the program throughout.
    pub fn publish(&mut self, table: &AnswerTable) -> Result<Published, Error> {
        let mut published = Published { answers: None, names: None };
        let Sets { sets, slots, owners } = tables::sets(table, &self.contents.slots);
        if !self.contents.current.as_ref().is_some_and(|current| current.hold(&sets)) {
            published.answers = Some(self.exchange_answers(&sets)?);
            self.contents.slots = slots;
        }
        // A failover changes no name, and a hundred thousand of them are not compiled in passing.
        let same = |(names, resources): &Named| *names == table.names && *resources == owners;
        if !self.contents.names.as_ref().is_some_and(same) {
            let names = tables::names(table, &owners);
            for (name, why) in &names.left {
                let why = match why {
                    Left::TooLong => "it is too long",
                    Left::NoSlot => "it has another name's hash, or there are too many names",
                    Left::NoSet => "there are too many resources",
                };
                tracing::info!(%name, "answered by the agent's server only: {why}");
            }
            published.names = Some(self.exchange_names(&names)?);
            self.contents.names = Some((Arc::clone(&table.names), owners));
        }
        Ok(published)
    }

    /// Fills the map that no packet sees, and puts it in the other's place.
    fn exchange_answers(&mut self, sets: &[Option<AnswerSet>]) -> Result<Instant, Error> {
        let mut next = match self.contents.spare.take() {
            Some(spare) => spare,
            None => Answers::new(&self.templates)?,
        };
        next.fill(sets)?;
        let mut outer: ArrayOfMaps<_, Array<MapData, AnswerSet>> = map(&mut self.ebpf, ANSWERS)?;
        let moment = Instant::now();
        outer.set(0, &next.map, 0).map_err(Error::map(ANSWERS))?;
        // The kernel has waited until no packet saw the old one. Made before it is needed: the kernel may take longer for
        // two megabytes than a failover should.
        let old = self.contents.current.replace(next);
        self.contents.spare = Some(old.map_or_else(|| Answers::new(&self.templates), Ok)?);
        Ok(moment)
    }

    /// Fills the table of names that is not current, and makes it so.
    fn exchange_names(&mut self, names: &tables::Names) -> Result<Instant, Error> {
        let next = (self.control()?.names + 1) % TABLES;
        self.exchange(SEEDS, next, numbered(&names.seeds))?;
        self.exchange(NAMES, next, names.entries.iter().copied())?;
        let moment = Instant::now();
        self.set_control(|control| control.names = next)?;
        Ok(moment)
    }

    /// Makes the program do with requests what `requests` says. What did not change is left alone. Established flows stay
    /// where they are.
    pub fn steer(&mut self, requests: &Requests, hops: &Hops) -> Result<(), Error> {
        let Writes { before, after } = self.contents.register.compile(requests, hops);
        self.write(&before)?;
        let claims = self.contents.register.claims(requests);
        if self.contents.addresses.as_ref() != Some(&claims) {
            let addresses = requests::addresses(&claims);
            for address in &addresses.left {
                tracing::error!(%address, "left to the host: there are too many addresses");
            }
            let next = (self.control()?.addresses + 1) % TABLES;
            self.exchange(ADDRESS_SEEDS, next, numbered(&addresses.seeds))?;
            self.exchange(ADDRESSES, next, addresses.entries.iter().copied())?;
            self.set_control(|control| control.addresses = next)?;
            self.contents.addresses = Some(claims);
        }
        self.write(&after)
    }

    fn write(&mut self, writes: &[Write]) -> Result<(), Error> {
        for write in writes {
            match *write {
                Write::Instance(index, entry) => set(&mut self.ebpf, INSTANCES, index, entry)?,
                Write::Chunk(index, chunk) => set(&mut self.ebpf, RINGS, index, chunk)?,
                Write::Target(index, target) => set(&mut self.ebpf, TARGETS, index, target)?,
            }
        }
        Ok(())
    }

    /// Puts a new map with these entries, and zeros otherwise, into `slot` of a map of maps.
    fn exchange<V: Pod>(
        &mut self,
        name: &'static str,
        slot: u32,
        entries: impl IntoIterator<Item = (u32, V)>,
    ) -> Result<(), Error> {
        let mut inner: Array<MapData, V> = self.templates.make(name)?;
        for (index, entry) in entries {
            inner.set(index, entry, 0).map_err(Error::map(name))?;
        }
        let mut outer: ArrayOfMaps<_, Array<MapData, V>> = map(&mut self.ebpf, name)?;
        outer.set(slot, &inner, 0).map_err(Error::map(name))
    }

    /// Lets the program answer and serve for `duration` from now, once it has been told what
    /// ([`publish`](Self::publish), [`steer`](Self::steer)): until then its maps hold what an earlier agent decided, which
    /// goes on for that agent's lease and no longer.
    pub fn renew_lease(&mut self, duration: Duration) -> Result<(), Error> {
        if self.contents.current.is_none() || self.contents.addresses.is_none() {
            return Ok(());
        }
        let failed = |error: Errno| Error::Map { map: CONTROL, cause: error.to_string() };
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_err(failed)?;
        let until = Duration::from(now).saturating_add(duration).as_nanos();
        self.set_control(|control| control.lease_until = u64::try_from(until).unwrap_or(u64::MAX))
    }

    fn control(&mut self) -> Result<Control, Error> {
        let map: Array<_, Control> = map(&mut self.ebpf, CONTROL)?;
        map.get(&0, 0).map_err(Error::map(CONTROL))
    }

    fn set_control(&mut self, change: impl FnOnce(&mut Control)) -> Result<(), Error> {
        let mut control = self.control()?;
        change(&mut control);
        set(&mut self.ebpf, CONTROL, 0, control)
    }

    /// Packets by outcome, all CPUs together, since the maps were made.
    pub fn counters(&self) -> Result<Vec<(Outcome, u64)>, Error> {
        let missing = || Error::Map { map: COUNTERS, cause: "is not in the object".into() };
        let map: PerCpuArray<_, Counter> =
            self.ebpf.map(COUNTERS).ok_or_else(missing)?.try_into().map_err(Error::map(COUNTERS))?;
        let count = |outcome: &Outcome| {
            let values = map.get(&outcome.index(), 0).map_err(Error::map(COUNTERS))?;
            Ok((*outcome, values.iter().map(|counter| counter.packets).sum()))
        };
        Outcome::ALL.iter().map(count).collect()
    }

    /// Puts the program on interfaces that were missing and are there. To be called every second or so; costs next to nothing
    /// while all are as they were.
    pub fn follow_interfaces(&mut self) -> Result<(), Error> {
        self.interfaces.follow(load::program(&mut self.ebpf)?, &self.pins);
        Ok(())
    }

    /// The interfaces that the program is on, with how it is attached.
    pub fn attachments(&self) -> Vec<(String, Attachment)> {
        self.interfaces.attachments()
    }

    /// All configured interfaces: `native`, `generic`, `missing`, or `none` and why.
    pub fn interfaces(&self) -> Vec<(String, String)> {
        self.interfaces.status()
    }

    /// What would become of a frame of at least fourteen bytes. It goes through a second program, the same but that it
    /// writes nothing, on the maps of the first. Blocks while the kernel verifies that.
    pub fn explain(&self, frame: &[u8]) -> Result<Explained, Error> {
        let mut ebpf = load::load_explaining(&self.constants, flow_sets(&self.config), &self.pins)?;
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() };
        load::program(&mut ebpf)?.test_run(options).map_err(|error| Error::verifying(PROGRAM, error))?;
        let found: Array<_, Found> = map(&mut ebpf, EXPLAINED)?;
        let Found { outcome, target: index, interface, knew } = found.get(&0, 0).map_err(Error::map(EXPLAINED))?;
        let nothing = || Error::Map { map: EXPLAINED, cause: "holds no outcome".into() };
        let outcome = Outcome::from_index(outcome).ok_or_else(nothing)?;
        let targets: Array<_, Target> = map(&mut ebpf, TARGETS)?;
        let target = match index {
            0 => None,
            index => Some(targets.get(&index, 0).map_err(Error::map(TARGETS))?),
        };
        let address = |target: Target| IpAddr::from(target.address).to_canonical();
        let target = target.map(|target| SentTo { address: address(target), interface });
        Ok(Explained { outcome, target, knew: Knew::from_number(knew) })
    }

    /// Takes the program off its interfaces and removes every pin. Merely dropped, the data plane leaves all that to
    /// the next agent.
    pub fn detach(self) -> Result<(), Error> {
        Self::detach_pinned(self.pins.base()).map(drop)
    }

    /// The same for what an agent that is gone left behind under `pins` (`dataplane.pins`). Returns whether there was
    /// anything.
    pub fn detach_pinned(pins: &Path) -> Result<bool, Error> {
        Pins::new(pins).remove()
    }
}

/// Entries of `FLOWS`.
fn flow_sets(config: &config::Dataplane) -> u32 {
    config.flows / FLOW_WAYS
}

/// A map of the program's, as what it is.
fn map<'a, M>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<M, Error>
where
    M: TryFrom<&'a mut aya::maps::Map, Error = MapError>,
{
    let missing = || Error::Map { map: name, cause: "is not in the object".into() };
    ebpf.map_mut(name).ok_or_else(missing)?.try_into().map_err(Error::map(name))
}

fn set<V: Pod>(ebpf: &mut Ebpf, name: &'static str, index: u32, value: V) -> Result<(), Error> {
    let mut map: Array<_, V> = map(ebpf, name)?;
    map.set(index, value, 0).map_err(Error::map(name))
}

/// Every entry of an array.
fn entries<V: Pod>(ebpf: &mut Ebpf, name: &'static str) -> Result<Vec<(u32, V)>, Error> {
    let map: Array<_, V> = map(ebpf, name)?;
    (0..).zip(map.iter()).map(|(index, value)| Ok((index, value.map_err(Error::map(name))?))).collect()
}

fn numbered(seeds: &[u32]) -> impl Iterator<Item = (u32, u32)> {
    (0..).zip(seeds.iter().copied()).filter(|(_, seed)| *seed != 0)
}

/// What a previous agent left in the maps, so that names, requests and flows stay right when this one publishes.
fn found(ebpf: &mut Ebpf, flow_seed: u64) -> Result<Contents, Error> {
    let register = Register::found(entries(ebpf, INSTANCES)?, entries(ebpf, TARGETS)?);
    let control: Array<_, Control> = map(ebpf, CONTROL)?;
    let control = control.get(&0, 0).map_err(Error::map(CONTROL))?;
    let flow_seed = if control.flow_seed == 0 { flow_seed } else { control.flow_seed };
    if flow_seed != control.flow_seed {
        set(ebpf, CONTROL, 0, Control { flow_seed, ..control })?;
    }
    Ok(Contents { slots: slots_in_use(ebpf), register, flow_seed, ..Contents::default() })
}

/// The indices in the answers that a previous agent published.
fn slots_in_use(ebpf: &Ebpf) -> Slots {
    let read = || -> Option<Slots> {
        let outer: ArrayOfMaps<_, Array<MapData, AnswerSet>> = ebpf.map(ANSWERS)?.try_into().ok()?;
        let sets = outer.get(&0, 0).ok()?;
        let used = (0..).zip(sets.iter()).filter_map(|(index, set)| Some((set.ok()?.id, index)));
        Some(used.filter(|(id, _)| *id != 0).collect())
    };
    read().unwrap_or_default()
}
