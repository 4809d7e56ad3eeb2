//! Placements of all resources, compiled into what acts on them: the answer table and the report to the peers. Pure.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use hickory_proto::rr::LowerName;

use crate::{
    answers::{AnswerSet, AnswerTable, MAX_ADDRESSES},
    config::Config,
    evidence::{Evidence, InstanceReport, Report},
    placement::{self, InstanceView, Overrides, Placement, Tenure, Tenures, Why},
};

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
}

impl Knowledge {
    /// The tenure of `resource`.
    pub fn tenure(&self, resource: &str) -> Tenure {
        self.tenures.get(resource).cloned().unwrap_or_default()
    }

    /// Decides on every resource. `names` is [`names`] of the same configuration.
    pub fn decide(&self, names: &Names) -> Decision {
        let mut decision = Decision::default();
        for (name, resource) in &self.config.resources {
            let tenure = self.tenure(name);
            let instances = placement::view(&self.config, name, &self.evidence, &self.overrides, &tenure);
            let placement = placement::place(&self.config.site, &instances);
            decision.table.sets.push(AnswerSet {
                resource: name.clone(),
                ttl: resource.ttl,
                addresses: bounded(placement::addresses(resource, &placement)),
                all_down: placement.answer.is_empty().then(|| resource.all_down.clone()),
            });
            decision.resources.insert(name.clone(), Decided { instances, placement, tenure });
        }
        decision.table.names = Arc::clone(names);
        decision
    }

    /// The tenures after taking over what the decision says this site should and may. The caller stores them, puts them
    /// into `tenures` and decides again.
    pub fn take_over(&self, decision: &Decision) -> Tenures {
        let mut taken = Tenures::new();
        for (name, decided) in &decision.resources {
            let rule = self.config.resources[name].takeover;
            let new =
                placement::take_over(&self.config.site, rule, &decided.placement, &decided.instances, &decided.tenure);
            taken.extend(new.map(|tenure| (name.clone(), tenure)));
        }
        taken
    }

    /// The tenures that peers know better, to be treated as those of `take_over`.
    pub fn adopt(&self) -> Tenures {
        let mut adopted = Tenures::new();
        for (name, resource) in &self.config.resources {
            let now = self.tenure(name);
            let reports = self.evidence.peers.values().filter_map(|peer| peer.report.as_ref());
            let heard = reports.filter_map(|report| report.instances.get(name));
            let best =
                heard.fold(now.clone(), |best, heard| placement::adopt(&resource.order, &best, heard).unwrap_or(best));
            if best != now {
                adopted.insert(name.clone(), best);
            }
        }
        adopted
    }

    /// What this site's agent tells its peers.
    pub fn report(&self, decision: &Decision) -> Report {
        let own = |instances: &[InstanceView]| instances.iter().find(|i| i.site == self.config.site).cloned();
        let instances = decision.resources.iter().filter_map(|(name, decided)| {
            let instance = own(&decided.instances)?;
            let reason = match (instance.forced, &instance.why) {
                (Some(forced), _) => format!("an operator set it {forced}"),
                (None, Why::Probes(reason)) => reason.clone(),
                (None, why) => why.to_string(),
            };
            let Tenure { epoch, holder } = decided.tenure.clone();
            Some((name.clone(), InstanceReport { available: instance.serves(), epoch, holder, reason }))
        });
        Report { instances: instances.collect() }
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
pub mod tests;
