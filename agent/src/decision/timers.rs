//! What begins with a decision and ends with time: flows that finish where they began, and the wait before a fail-back.
//! Pure: the caller passes the time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{Decided, Decision, Knowledge, Names};
use crate::placement::{self, Arrival, InstanceView, State};

/// What began and will end.
#[derive(Clone, Debug, Default)]
pub struct Timers {
    leaving: BTreeMap<String, Leaving>,
    well: BTreeMap<String, Well>,
}

/// A site that flows of a resource finish at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// The site.
    pub site: String,
    /// Until when.
    pub until: Instant,
}

/// Since when this site could take a resource back.
#[derive(Clone, Debug)]
struct Well {
    since: Instant,
    /// Another holder, another wait.
    epoch: u64,
}

impl Timers {
    /// Goes on with what an earlier agent began.
    pub fn resume(leaving: BTreeMap<String, Leaving>) -> Self {
        Self { leaving, well: BTreeMap::new() }
    }

    /// By resource, the sites that flows finish at.
    pub fn all_leaving(&self) -> &BTreeMap<String, Leaving> {
        &self.leaving
    }

    /// The next moment after `after` at which a decision is due.
    pub fn next(&self, knowledge: &Knowledge, after: Instant) -> Option<Instant> {
        let wait = |name: &String| knowledge.config.resources.get(name).map(|resource| resource.failback_after);
        let leaving = self.leaving.values().map(|leaving| leaving.until);
        let well = self.well.iter().filter_map(|(name, well)| Some(well.since + wait(name)?));
        leaving.chain(well).filter(|moment| *moment > after).min()
    }

    /// The site that flows of a resource finish at, if they can there and requests that arrive at `own` go elsewhere now.
    pub(super) fn leaving(
        &self,
        resource: &str,
        own: &str,
        instances: &[InstanceView],
        arrival: &Arrival,
    ) -> Option<String> {
        let site = &self.leaving.get(resource)?.site;
        (finishes(site, instances) && server(own, arrival) != Some(site.as_str())).then(|| site.clone())
    }

    pub(super) fn is_well(&self, resource: &str, wait: Duration, now: Instant) -> bool {
        self.well.get(resource).is_some_and(|well| now >= well.since + wait)
    }
}

impl Knowledge {
    /// Decides at `now`, after `last`, and sets the timers.
    pub fn settle(&mut self, last: Option<&Decision>, names: &Names, now: Instant) -> Decision {
        self.timers.leaving.retain(|_, leaving| leaving.until > now);
        let mut decision = self.decide(names);
        for (name, decided) in &mut decision.resources {
            let resource = &self.config.resources[name];
            let before = last.and_then(|last| last.resources.get(name));
            if let Some(site) = before.and_then(|before| leaves(&self.config.site, before, decided))
                && resource.drain_time > Duration::ZERO
            {
                let until = now + resource.drain_time;
                self.timers.leaving.insert(name.clone(), Leaving { site: site.clone(), until });
                decided.leaving = Some(site);
            }
            if placement::may_fail_back(&self.config.site, resource, &decided.instances, &decided.tenure) {
                let epoch = decided.tenure.epoch;
                let well = self.timers.well.entry(name.clone()).or_insert(Well { since: now, epoch });
                if well.epoch != epoch {
                    *well = Well { since: now, epoch };
                }
            } else {
                self.timers.well.remove(name);
            }
        }
        let known = |name: &String| self.config.resources.contains_key(name);
        self.timers.leaving.retain(|name, _| known(name));
        self.timers.well.retain(|name, _| known(name));
        decision
    }
}

/// The site that served requests which arrived at `own`, and could still, but does not any more.
fn leaves(own: &str, before: &Decided, now: &Decided) -> Option<String> {
    let served = server(own, &before.placement.arrival)?;
    let leaves = server(own, &now.placement.arrival) != Some(served) && finishes(served, &now.instances);
    leaves.then(|| served.to_owned())
}

/// The site that serves requests which arrive at `own`.
fn server<'a>(own: &'a str, arrival: &'a Arrival) -> Option<&'a str> {
    match arrival {
        Arrival::Serve => Some(own),
        Arrival::Forward(site) | Arrival::ForwardSilent(site) | Arrival::TakeOver(Some(site)) => Some(site),
        Arrival::TakeOver(None) | Arrival::Refuse => None,
    }
}

/// Could serve those that are under way.
fn finishes(site: &str, instances: &[InstanceView]) -> bool {
    instances.iter().any(|i| i.site == site && i.state != State::Disabled && i.available())
}
