//! The one decision: for a resource, seen from one site, which available sites are answered in which order, and what
//! happens to a request that arrives here. Pure: no clock, no I/O, no locks.

mod instance;
mod tenure;
#[cfg(test)]
mod tests;
mod view;

use std::{cmp::Reverse, fmt};

use serde::{Deserialize, Serialize};

pub use instance::{Instance, Instances};
pub(crate) use tenure::takeover_cause;
pub use tenure::{Cause, Change, Changes, MAX_EPOCH, Tenure, Tenures, adopt, may_fail_back, may_take_over};
pub use view::{InstanceView, Override, Overrides, State, Why, view};

use crate::config::{Resource, Takeover};

/// What was decided for one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The available sites, the one to try first at the front; drained ones only where there is no other. Empty: the
    /// resource's `all_down` policy applies.
    pub answer: Vec<String>,
    /// What is done with a request for the resource that arrives at this site.
    pub arrival: Arrival,
}

/// What is done with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do", content = "site")]
pub enum Arrival {
    /// Served here.
    Serve,
    /// Served here after this site has taken over, which the resource's `takeover` rule lets it, and which it does as
    /// soon as the change is stored and what the holder has committed is here. Until then forwarded to the drained holder,
    /// if that is why; refused where no holder can serve.
    TakeOver(Option<String>),
    /// Forwarded to this available site.
    Forward(String),
    /// Forwarded to this site, which holds the resource and is not counted on: it is silent, or an operator has set it
    /// down here alone. No other may take over yet, and its tunnel may still work.
    ForwardSilent(String),
    /// Refused, and counted.
    Refuse,
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serve => f.write_str("serve here"),
            Self::TakeOver(None) => f.write_str("serve here, after taking over"),
            Self::TakeOver(Some(site)) => write!(f, "serve here, after taking over; forward to {site} until then"),
            Self::Forward(site) => write!(f, "forward to {site}"),
            Self::ForwardSilent(site) => {
                write!(f, "forward to {site}, not counted on, but no other site may take over yet")
            }
            Self::Refuse => f.write_str("refuse"),
        }
    }
}

/// Decides for one resource, seen from `site`. `instances` are in the resource's policy order (`view` gives them so),
/// `rule` is the resource's.
///
/// Available active instances come before available standby ones, and the policy's order decides among equals. A drained
/// site's instance counts only where no other is available. The first standby of that order is the one to take over
/// where no active instance is available, so that all sites with the same evidence agree on it.
pub fn place(site: &str, instances: &[InstanceView], rule: Takeover) -> Placement {
    let serving: Vec<&InstanceView> = instances.iter().filter(|instance| instance.serves()).collect();
    let mut answer: Vec<&InstanceView> = serving.iter().copied().filter(|instance| !instance.drained).collect();
    if answer.is_empty() {
        answer.clone_from(&serving);
    }
    // Stable: the policy's order stays among equals.
    answer.sort_by_key(|instance| Reverse(instance.state == State::Active));

    let own_or_first = |candidates: &[&InstanceView]| {
        let mut active = candidates.iter().filter(|instance| instance.state == State::Active);
        let first = active.clone().next()?;
        Some(if active.any(|instance| instance.site == site) { site.to_owned() } else { first.site.clone() })
    };
    let to = |target: String| if target == site { Arrival::Serve } else { Arrival::Forward(target) };
    let allowed = may_take_over(instances, rule);
    let silent_holder = || {
        let holder = instances.iter().find(|instance| instance.may_still_serve());
        holder.map_or(Arrival::Refuse, |holder| Arrival::ForwardSilent(holder.site.clone()))
    };
    let arrival = match (answer.first(), own_or_first(&answer)) {
        (None, _) if allowed => Arrival::Refuse,
        (None, _) => silent_holder(),
        (_, Some(active)) => to(active),
        (Some(first), None) if allowed && first.site == site => Arrival::TakeOver(own_or_first(&serving)),
        // A drained site goes on until the first standby has taken over.
        (Some(first), None) => match own_or_first(&serving) {
            Some(drained) => to(drained),
            None if allowed => Arrival::Forward(first.site.clone()),
            None => silent_holder(),
        },
    };
    Placement { answer: answer.into_iter().map(|instance| instance.site.clone()).collect(), arrival }
}

/// The addresses to answer with, in order: each site's as configured, or what the `all_down` policy gives where no site
/// is available.
pub fn addresses(resource: &Resource, placement: &Placement) -> Vec<std::net::IpAddr> {
    use crate::config::AllDown;
    let of = |site: &String| resource.instances[site].addresses.iter().copied();
    if !placement.answer.is_empty() {
        return placement.answer.iter().flat_map(of).collect();
    }
    match &resource.all_down {
        AllDown::All => resource.order.iter().flat_map(of).collect(),
        AllDown::Fallback(addresses) => addresses.clone(),
        AllDown::NoData | AllDown::ServFail => Vec::new(),
    }
}
