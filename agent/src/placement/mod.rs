//! The one decision: for a resource, seen from one site, which available sites are answered in which order, and what
//! happens to a request that arrives here. Pure: no clock, no I/O, no locks.

mod tenure;
#[cfg(test)]
mod tests;
mod view;

use std::{cmp::Reverse, fmt};

use serde::{Deserialize, Serialize};

pub use tenure::{Tenure, Tenures, adopt, take_over};
pub use view::{InstanceView, Override, Overrides, State, Why, view};

use crate::config::Resource;

/// What was decided for one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The available sites, the one to try first at the front. Empty: the resource's `all_down` policy applies.
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
    /// Served here after this site has taken over, if the resource's `takeover` rule lets it.
    TakeOver,
    /// Forwarded to this site.
    Forward(String),
    /// Refused, and counted.
    Refuse,
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serve => f.write_str("serve here"),
            Self::TakeOver => f.write_str("serve here, after taking over"),
            Self::Forward(site) => write!(f, "forward to {site}"),
            Self::Refuse => f.write_str("refuse"),
        }
    }
}

/// Decides for one resource, seen from `site`. `instances` are in the resource's policy order (`view` gives them so).
///
/// Available active instances come before available standby ones, and the policy's order decides among equals. The
/// first standby of that order is the one to take over where no active instance is available, so that all sites with the
/// same evidence agree on it.
pub fn place(site: &str, instances: &[InstanceView]) -> Placement {
    let mut available: Vec<&InstanceView> = instances.iter().filter(|i| i.serves()).collect();
    // Stable: the policy's order stays among equals.
    available.sort_by_key(|instance| Reverse(instance.state == State::Active));
    let own = available.iter().find(|instance| instance.site == site);
    let arrival = match (own, available.first()) {
        (_, None) => Arrival::Refuse,
        (Some(own), _) if own.state == State::Active => Arrival::Serve,
        (Some(own), Some(first)) if own.site == first.site => Arrival::TakeOver,
        (_, Some(first)) => Arrival::Forward(first.site.clone()),
    };
    Placement { answer: available.into_iter().map(|i| i.site.clone()).collect(), arrival }
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
