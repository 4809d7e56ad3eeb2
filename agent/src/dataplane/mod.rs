//! The agent's side of the XDP program: load, attach, publish, renew the lease, read the counters.
//!
//! Links and maps are pinned, so the program outlives the agent: it answers from the last published table until its
//! lease runs out, and a restarted agent finds everything where it was. Only [`Dataplane::detach`] takes it away.

mod attach;
mod error;
mod events;
mod load;
mod pins;
mod tables;

use std::{
    fmt,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, Pod,
    maps::{Array, ArrayOfMaps, MapData, MapError, PerCpuArray},
};
use nix::{
    errno::Errno,
    time::{ClockId, clock_gettime},
};
use siteswap_common::{
    maps::{AnswerSet, Control, NAME_TABLES, NameEntry},
    outcome::Outcome,
};

pub use self::{
    attach::Attachment,
    error::Error,
    load::{BENCHMARK, OBJECT, PROGRAM, Templates},
};
use self::{
    load::{ANSWERS, CONTROL, COUNTERS, NAMES, SEEDS},
    pins::Pins,
    tables::{Compiled, Contents, Left, Slots},
};
use crate::{answers::AnswerTable, config};

/// The program in the kernel, and the hands on its maps.
#[derive(Debug)]
pub struct Dataplane {
    ebpf: Ebpf,
    templates: Templates,
    pins: Pins,
    config: config::Dataplane,
    attachments: Vec<(String, Attachment)>,
    /// What the maps hold, once this agent has published.
    published: Option<Contents>,
    slots: Slots,
    current: Option<Answers>,
    spare: Option<Answers>,
    /// Held for its task, which ends with it.
    _events: Option<events::Forwarder>,
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
        Ok(Self { map: array(templates.answers()?, ANSWERS)?, sets: Vec::new() })
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

impl Dataplane {
    /// Loads the program, answering on `dns`, and puts it on the configured interfaces: in place of the one a previous
    /// agent left there, with no packet lost, and on its maps. Inside a tokio runtime the program's log is forwarded.
    ///
    /// Blocks while the kernel verifies the program, which may take a second.
    pub fn start(config: &config::Dataplane, dns: &[IpAddr]) -> Result<Self, Error> {
        attach::indices(&config.interfaces)?;
        let pins = Pins::new(&config.pins);
        pins.create()?;
        let (mut ebpf, templates) = load::load(dns, &pins)?;
        let slots = slots_in_use(&ebpf);
        let events = events::forward(&mut ebpf);
        let program = load::program(&mut ebpf)?;
        let attachments = attach::attach(program, &config.interfaces, config.mode, &pins)?;
        pins.remove_other_layouts()?;
        Ok(Self {
            ebpf,
            templates,
            pins,
            config: config.clone(),
            attachments,
            published: None,
            slots,
            current: None,
            spare: None,
            _events: events,
        })
    }

    /// Takes a changed configuration, with no packet lost. On an error everything is as it was.
    pub fn reconfigure(&mut self, config: &config::Dataplane, dns: &[IpAddr]) -> Result<(), Error> {
        if config.pins != self.config.pins {
            return Err(Error::PinsMoved { from: self.config.pins.clone(), to: config.pins.clone() });
        }
        match Self::start(config, dns) {
            Ok(new) => {
                let old = std::mem::replace(self, new);
                self.published = old.published;
                self.slots = old.slots;
                self.current = old.current;
                self.spare = old.spare;
                Ok(())
            }
            Err(error) => {
                // Interfaces that already run the new program get the old one back.
                let program = load::program(&mut self.ebpf)?;
                attach::attach(program, &self.config.interfaces, self.config.mode, &self.pins)?;
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
        let Compiled { contents, slots, left } = tables::compile(table, &self.slots);
        let old = self.published.take();
        let same_sets = old.as_ref().is_some_and(|old| old.sets == contents.sets);
        let same_names = old.as_ref().is_some_and(|old| old.names == contents.names);
        let mut published = Published { answers: None, names: None };
        if !same_sets {
            published.answers = Some(self.exchange_answers(&contents)?);
            self.slots = slots;
        }
        if !same_names {
            for (name, why) in &left {
                let why = match why {
                    Left::TooLong => "it is too long",
                    Left::NoSlot => "it has another name's hash, or there are too many names",
                    Left::NoSet => "there are too many resources",
                };
                tracing::info!(%name, "answered by the agent's server only: {why}");
            }
            published.names = Some(self.exchange_names(&contents)?);
        }
        self.published = Some(contents);
        Ok(published)
    }

    /// Fills the map that no packet sees, and puts it in the other's place.
    fn exchange_answers(&mut self, contents: &Contents) -> Result<Instant, Error> {
        let mut next = match self.spare.take() {
            Some(spare) => spare,
            None => Answers::new(&self.templates)?,
        };
        next.fill(&contents.sets)?;
        let mut outer: ArrayOfMaps<_, Array<MapData, AnswerSet>> = outer(&mut self.ebpf, ANSWERS)?;
        let moment = Instant::now();
        outer.set(0, &next.map, 0).map_err(Error::map(ANSWERS))?;
        // The kernel has waited until no packet saw the old one. Made before it is needed: the kernel may take longer for
        // two megabytes than a failover should.
        let old = self.current.replace(next);
        self.spare = Some(old.map_or_else(|| Answers::new(&self.templates), Ok)?);
        Ok(moment)
    }

    /// Fills the table that is not current, and makes it so.
    fn exchange_names(&mut self, contents: &Contents) -> Result<Instant, Error> {
        let mut control = self.control()?.get(&0, 0).map_err(Error::map(CONTROL))?;
        control.names = (control.names + 1) % NAME_TABLES;

        let mut seeds: Array<_, u32> = array(self.templates.seeds()?, SEEDS)?;
        for (bucket, seed) in (0..).zip(&contents.seeds).filter(|(_, seed)| **seed != 0) {
            seeds.set(bucket, seed, 0).map_err(Error::map(SEEDS))?;
        }
        let mut entries: Array<_, NameEntry> = array(self.templates.names()?, NAMES)?;
        for (slot, entry) in &contents.names {
            entries.set(*slot, entry, 0).map_err(Error::map(NAMES))?;
        }
        let mut slots: ArrayOfMaps<_, Array<MapData, u32>> = outer(&mut self.ebpf, SEEDS)?;
        slots.set(control.names, &seeds, 0).map_err(Error::map(SEEDS))?;
        let mut slots: ArrayOfMaps<_, Array<MapData, NameEntry>> = outer(&mut self.ebpf, NAMES)?;
        slots.set(control.names, &entries, 0).map_err(Error::map(NAMES))?;

        let moment = Instant::now();
        self.control()?.set(0, control, 0).map_err(Error::map(CONTROL))?;
        Ok(moment)
    }

    /// Lets the program answer for `duration` from now.
    pub fn renew_lease(&mut self, duration: Duration) -> Result<(), Error> {
        let failed = |error: Errno| Error::Map { map: CONTROL, cause: error.to_string() };
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_err(failed)?;
        let until = Duration::from(now).saturating_add(duration).as_nanos();
        let mut map = self.control()?;
        let control = map.get(&0, 0).map_err(Error::map(CONTROL))?;
        let control = Control { lease_until: u64::try_from(until).unwrap_or(u64::MAX), ..control };
        map.set(0, control, 0).map_err(Error::map(CONTROL))
    }

    fn control(&mut self) -> Result<Array<&mut MapData, Control>, Error> {
        let missing = || Error::Map { map: CONTROL, cause: "is not in the object".into() };
        self.ebpf.map_mut(CONTROL).ok_or_else(missing)?.try_into().map_err(Error::map(CONTROL))
    }

    /// Packets by outcome, all CPUs together, since the maps were made.
    pub fn counters(&self) -> Result<Vec<(Outcome, u64)>, Error> {
        let missing = || Error::Map { map: COUNTERS, cause: "is not in the object".into() };
        let map: PerCpuArray<_, u64> =
            self.ebpf.map(COUNTERS).ok_or_else(missing)?.try_into().map_err(Error::map(COUNTERS))?;
        let count = |outcome: &Outcome| {
            let values = map.get(&outcome.index(), 0).map_err(Error::map(COUNTERS))?;
            Ok((*outcome, values.iter().sum()))
        };
        Outcome::ALL.iter().map(count).collect()
    }

    /// The interfaces, with how the program is attached to each.
    pub fn attachments(&self) -> Vec<(String, Attachment)> {
        self.attachments.clone()
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

/// `inner`, which is an array of `V`.
fn array<V: Pod>(inner: MapData, name: &'static str) -> Result<Array<MapData, V>, Error> {
    Array::try_from(aya::maps::Map::Array(inner)).map_err(Error::map(name))
}

fn outer<'a, V>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<ArrayOfMaps<&'a mut MapData, V>, Error>
where
    ArrayOfMaps<&'a mut MapData, V>: TryFrom<&'a mut aya::maps::Map, Error = MapError>,
{
    let missing = || Error::Map { map: name, cause: "is not in the object".into() };
    ebpf.map_mut(name).ok_or_else(missing)?.try_into().map_err(Error::map(name))
}

/// The indices in the answers that a previous agent published, so that its names stay right when new answers come.
fn slots_in_use(ebpf: &Ebpf) -> Slots {
    let read = || -> Option<Slots> {
        let outer: ArrayOfMaps<_, Array<MapData, AnswerSet>> = ebpf.map(ANSWERS)?.try_into().ok()?;
        let sets = outer.get(&0, 0).ok()?;
        let used = (0..).zip(sets.iter()).filter_map(|(index, set)| Some((set.ok()?.id, index)));
        Some(used.filter(|(id, _)| *id != 0).collect())
    };
    read().unwrap_or_default()
}
