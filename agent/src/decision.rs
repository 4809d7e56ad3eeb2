//! Placements of all resources, compiled into what acts on them: the answer table and the report to the peers. Pure.
//!
//! `changes` says which resources change their holder, `timers` what begins and ends with time.

mod changes;
mod timers;

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use hickory_proto::rr::LowerName;

use crate::{
    answers::{AnswerSet, AnswerTable, MAX_ADDRESSES},
    config::{AllDown, Config},
    evidence::{Backlog, Evidence, InstanceReport, OwnInstance, Report},
    placement::{self, Instance, InstanceView, Instances, Overrides, Placement, Tenure, Tenures, Why},
};

pub use changes::Taking;
pub use timers::{Leaving, Timers};

/// Every domain of every resource, with the index of its answers; only a new configuration changes it.
pub type Names = Arc<BTreeMap<LowerName, usize>>;

/// All that a decision depends on.
#[derive(Clone, Debug)]
pub struct Knowledge {
    /// What should be.
    pub config: Arc<Config>,
    /// What is.
    pub evidence: Evidence,
    /// What operators say.
    pub overrides: Overrides,
    /// Who holds what.
    pub tenures: Tenures,
    /// An operator has drained this site.
    pub drained: bool,
    /// By peer: what of this site's changes to the database waits for it.
    pub backlogs: BTreeMap<String, Backlog>,
    /// What is kept of this site's own instances.
    pub instances: Instances,
    /// What began and will end.
    pub timers: Timers,
}

/// What was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// By resource.
    pub resources: BTreeMap<String, Decided>,
    /// The answers that follow.
    pub table: AnswerTable,
}

/// What was decided for one resource, and from what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// What placement saw, in the policy's order.
    pub instances: Vec<InstanceView>,
    /// What it decided.
    pub placement: Placement,
    /// The resource's epoch and holder.
    pub tenure: Tenure,
    /// The site that served what arrived here before and does not any more, although it could: flows established there
    /// finish there. It is in contact (or this site) and available. Set for the resource's `drain_time` from when this site
    /// saw the change.
    pub leaving: Option<String>,
}

impl Knowledge {
    /// Nothing but what should be.
    pub fn new(config: Arc<Config>) -> Self {
        Self {
            evidence: Evidence::new(&config),
            config,
            overrides: Overrides::new(),
            tenures: Tenures::new(),
            drained: false,
            backlogs: BTreeMap::new(),
            instances: Instances::new(),
            timers: Timers::default(),
        }
    }

    /// The tenure of `resource`.
    pub fn tenure(&self, resource: &str) -> Tenure {
        self.tenures.get(resource).cloned().unwrap_or_default()
    }

    /// Decides on every resource. `names` is [`names`] of the same configuration.
    pub fn decide(&self, names: &Names) -> Decision {
        let mut decision = Decision::default();
        for (name, resource) in &self.config.resources {
            let tenure = self.tenure(name);
            let instances = placement::view(&self.config, name, &self.evidence, &self.overrides, self.drained, &tenure);
            let placement = placement::place(&self.config.site, &instances, resource.takeover);
            let leaving = self.timers.leaving(name, &self.config.site, &instances, &placement.arrival);
            // That no site is available is said of no resource before this site's instance is measured.
            let known = self.measured(name) || !placement.answer.is_empty();
            let all_down = if known { resource.all_down.clone() } else { AllDown::ServFail };
            let addresses = if known { placement::addresses(resource, &placement) } else { Vec::new() };
            decision.table.sets.push(AnswerSet {
                resource: name.clone(),
                ttl: resource.ttl,
                addresses: bounded(addresses),
                all_down: placement.answer.is_empty().then_some(all_down),
            });
            decision.resources.insert(name.clone(), Decided { instances, placement, tenure, leaving });
        }
        decision.table.names = Arc::clone(names);
        decision
    }

    /// Is this site's instance of `resource` measured, or has it none?
    fn measured(&self, resource: &str) -> bool {
        self.evidence.own.get(resource).is_none_or(OwnInstance::measured)
    }

    /// What this site's agent tells its peers: nothing of an instance that is not measured.
    pub fn report(&self, decision: &Decision) -> Report {
        let own = |instances: &[InstanceView]| instances.iter().find(|i| i.site == self.config.site).cloned();
        let measured = decision.resources.iter().filter(|(name, _)| self.measured(name));
        let instances = measured.filter_map(|(name, decided)| {
            let instance = own(&decided.instances)?;
            let reason = match (instance.forced, &instance.why) {
                (Some(forced), _) => format!("an operator set it {forced}"),
                (None, Why::Probes(reason)) => reason.clone(),
                (None, why) => why.to_string(),
            };
            let Tenure { epoch, holder } = decided.tenure.clone();
            let Instance { state, why, since } = self.instance(name, &decided.tenure);
            let available = instance.serves();
            Some((name.clone(), InstanceReport { available, epoch, holder, state, why, since, reason }))
        });
        let contacts = self.evidence.peers.iter().filter(|(_, peer)| peer.contact).map(|(name, _)| name.clone());
        Report {
            drained: self.drained,
            contacts: contacts.collect(),
            backlogs: self.backlogs.clone(),
            instances: instances.collect(),
        }
    }

    /// What is kept of this site's instance of `resource`, or would be if it were stored.
    pub fn instance(&self, resource: &str, tenure: &Tenure) -> Instance {
        let site = &self.config.site;
        let role = self.config.resources[resource].instances[site].role;
        let kept = self.instances.get(resource);
        kept.cloned().unwrap_or_else(|| Instance::after(None, site, role, tenure, None, 0))
    }
}

/// The names of a configuration.
pub fn names(config: &Config) -> Names {
    let domains = config
        .resources
        .values()
        .enumerate()
        .flat_map(|(index, resource)| resource.domains.iter().map(move |domain| (domain.clone(), index)));
    Arc::new(domains.collect())
}

/// Each address once, and at most [`MAX_ADDRESSES`] of each family.
fn bounded(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut seen = HashSet::new();
    let mut left = [MAX_ADDRESSES; 2];
    let mut keep = |address: &IpAddr| {
        let left = &mut left[usize::from(address.is_ipv6())];
        let kept = *left > 0 && seen.insert(*address);
        *left -= usize::from(kept);
        kept
    };
    addresses.into_iter().filter(|address| keep(address)).collect()
}

#[cfg(test)]
mod model;
#[cfg(test)]
pub mod tests;
