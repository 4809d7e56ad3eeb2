//! Which resources change their holder: by what this site finds, by what peers know better, and by an operator's order.

use super::{Decision, Knowledge};
use crate::{
    config::Role,
    placement::{self, Arrival, Cause, Change, Changes, Instance, Instances, State},
};

/// What comes of an order to take a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taking {
    /// This site takes it.
    Take(Change),
    /// This site holds it already, in this epoch.
    Holds(u64),
}

impl Knowledge {
    /// What this site should take at once: where placement says so, and where it has been well for long enough to fail
    /// back. The caller stores each change and then has it [entered](Self::enter).
    pub fn take(&self, decision: &Decision, now: std::time::Instant) -> Changes {
        let mut taken = Changes::new();
        for (name, decided) in &decision.resources {
            let resource = &self.config.resources[name];
            let change = if matches!(decided.placement.arrival, Arrival::TakeOver(_)) {
                decided.tenure.taken(&self.config.site, placement::takeover_cause(&decided.instances))
            } else if self.timers.is_well(name, resource.failback_after, now) {
                decided.tenure.next(resource.configured_holder().cloned(), Cause::FailBack)
            } else {
                continue;
            };
            taken.extend(change.map(|change| (name.clone(), change)));
        }
        taken
    }

    /// What peers know better, to be treated as what is taken.
    pub fn adopt(&self) -> Changes {
        let mut adopted = Changes::new();
        for (name, resource) in &self.config.resources {
            let now = self.tenure(name);
            let reports = self.evidence.peers.values().filter_map(|peer| peer.report.as_ref());
            let heard = reports.filter_map(|report| report.instances.get(name));
            let best =
                heard.fold(now.clone(), |best, heard| placement::adopt(&resource.order, &best, heard).unwrap_or(best));
            if best != now {
                adopted.insert(name.clone(), Change { tenure: best, cause: None });
            }
        }
        adopted
    }

    /// An operator orders this site to take `resource`, whose epoch is `epoch` where the order was given, or to make its
    /// roles as configured. The error says why it does not.
    pub fn swap(&self, decision: &Decision, resource: &str, epoch: u64, as_configured: bool) -> Result<Taking, String> {
        let site = &self.config.site;
        let decided = decision.resources.get(resource).ok_or_else(|| self.no_resource(resource))?;
        let Some(own) = decided.instances.iter().find(|instance| instance.site == *site) else {
            return Err(format!("{site} has no instance of {resource}"));
        };
        let now = &decided.tenure;
        let holder = match as_configured {
            true => self.config.resources[resource].configured_holder(),
            false => Some(site),
        };
        let alone = || decided.instances.iter().all(|i| i.site == *site || i.state != State::Active);
        let holds = if holder.is_some() { own.state == State::Active && alone() } else { now.holder.is_none() };
        let refusal = match own.state {
            _ if as_configured && self.role(resource) != Some(Role::Active) => {
                Some("its instance is not configured as active".to_owned())
            }
            _ if holds => return Ok(Taking::Holds(now.epoch)),
            State::Disabled => Some("its instance is disabled by configuration".to_owned()),
            _ if now.epoch != epoch => Some(format!(
                "its epoch has moved: {} at {site}, {epoch} where the order was given; look at `siteswap instances`, and try again",
                now.epoch
            )),
            _ if own.drained => Some(format!("the site is drained; `siteswap undrain {site}` first")),
            _ if !own.serves() => Some(match own.forced {
                Some(forced) => format!("an operator set its instance {forced}; `siteswap set {resource} auto` first"),
                None => format!("its instance is not available: {}", own.why),
            }),
            _ => None,
        };
        match refusal {
            Some(reason) => Err(format!("{site} does not take {resource}: {reason}")),
            None => {
                let change = now.next(holder.cloned(), Cause::Swap);
                change.map(Taking::Take).ok_or_else(|| "no epoch is left".to_owned())
            }
        }
    }

    /// Says which resources there are.
    pub fn no_resource(&self, resource: &str) -> String {
        let known: Vec<&str> = self.config.resources.keys().map(String::as_str).collect();
        format!("{} has no resource \"{resource}\"; it has: {}", self.config.site, known.join(", "))
    }

    /// The record of this site's instance once `change` holds, if it has one. `now`: seconds since 1970.
    pub fn record(&self, resource: &str, change: &Change, now: u64) -> Option<Instance> {
        let role = self.role(resource)?;
        let before = self.instances.get(resource);
        Some(Instance::after(before, &self.config.site, role, &change.tenure, change.cause.as_ref(), now))
    }

    /// Takes in a change that is stored, with its record.
    pub fn enter(&mut self, resource: String, change: Change, record: Option<Instance>) {
        if let Some(record) = record {
            self.instances.insert(resource.clone(), record);
        }
        self.tenures.insert(resource, change.tenure);
    }

    /// The records that differ from what is kept because the configuration is another one.
    pub fn new_records(&self, now: u64) -> Instances {
        let records = self.config.resources.keys().filter_map(|name| {
            let before = self.instances.get(name);
            let record = Instance::after(before, &self.config.site, self.role(name)?, &self.tenure(name), None, now);
            (before != Some(&record)).then(|| (name.clone(), record))
        });
        records.collect()
    }

    /// The configured role of this site's instance.
    fn role(&self, resource: &str) -> Option<Role> {
        self.config.resources.get(resource)?.instances.get(&self.config.site).map(|instance| instance.role)
    }
}
