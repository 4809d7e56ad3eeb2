//! From configuration, evidence, overrides and tenures to what placement needs to know of each instance.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Tenure;
use crate::{
    config::{Config, Role},
    evidence::Evidence,
};

/// One instance, as placement sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceView {
    /// Its site.
    pub site: String,
    /// What it is now.
    pub state: State,
    /// What was measured or reported, whatever an operator says.
    pub measured: bool,
    /// What an operator says, if not `auto`.
    pub forced: Option<Override>,
    /// Where `measured` comes from.
    pub why: Why,
    /// Its site is drained: it serves only where no other can.
    pub drained: bool,
}

/// An instance's state now: its configured role, or what a change of holder made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Serves.
    Active,
    /// Serves only if no active instance can.
    Standby,
    /// Does not serve.
    Disabled,
}

/// An operator's word on an instance; it is kept beside what is measured and never overwrites it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Override {
    /// Available, whatever the probes and the peer say.
    Up,
    /// Not available, whatever the probes and the peer say.
    Down,
}

/// Operators' overrides by resource and site.
pub type Overrides = BTreeMap<(String, String), Override>;

/// Why an instance is measured as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// This site's own probes.
    Probes(String),
    /// The peer's report, heard in contact.
    Reported(String),
    /// The peer is not in contact, so nothing it said counts.
    Silence,
    /// Nor do its public addresses answer this site: what was tried.
    Lost(String),
    /// The peer is not in contact with this site, but with this other one, which is.
    Vouched(String),
    /// The peer is not in contact yet, but speaks again.
    Returning,
    /// In contact, but it has not reported this resource.
    Unreported,
    /// Its configuration disables it.
    Disabled,
}

impl InstanceView {
    /// Available: an operator's word first, then what was measured.
    pub fn available(&self) -> bool {
        self.forced.map_or(self.measured, |forced| forced == Override::Up)
    }

    /// Available and not disabled.
    pub fn serves(&self) -> bool {
        self.state != State::Disabled && self.available()
    }

    /// Active as far as is known, and perhaps able to serve although this site does not count on it: its site is silent,
    /// its agent has just been started, while its program goes on, or an operator has set it down here alone.
    pub fn may_still_serve(&self) -> bool {
        let silent =
            matches!(self.why, Why::Silence | Why::Lost(_) | Why::Vouched(_) | Why::Returning | Why::Unreported);
        let down = self.forced == Some(Override::Down);
        let reports = matches!(self.why, Why::Reported(_)) && self.measured;
        self.state == State::Active && if down { reports } else { silent }
    }
}

/// The instances of `resource`, in the order of its policy, seen from `config`'s site, which is `drained` or not.
///
/// # Panics
///
/// If `config` has no such resource.
pub fn view(
    config: &Config,
    resource: &str,
    evidence: &Evidence,
    overrides: &Overrides,
    drained: bool,
    tenure: &Tenure,
) -> Vec<InstanceView> {
    let configured = &config.resources[resource];
    let mut views = Vec::with_capacity(configured.order.len());
    for site in &configured.order {
        let state = tenure.state(site, configured.instances[site].role);
        let (measured, why) = measure(config, resource, site, state, evidence);
        let forced = overrides.get(&(resource.to_owned(), site.clone())).copied();
        let drained = if *site == config.site { drained } else { evidence.drained(site) };
        views.push(InstanceView { site: site.clone(), state, measured, forced, why, drained });
    }
    views
}

fn measure(config: &Config, resource: &str, site: &str, state: State, evidence: &Evidence) -> (bool, Why) {
    if state == State::Disabled {
        return (false, Why::Disabled);
    }
    if site == config.site {
        let own = &evidence.own[resource];
        return (own.available(), Why::Probes(own.reason()));
    }
    let Some(peer) = evidence.peers.get(site).filter(|peer| peer.contact) else {
        return (false, silence(resource, site, evidence));
    };
    match peer.report.as_ref().and_then(|report| report.instances.get(resource)) {
        Some(report) => (report.available, Why::Reported(report.reason.clone())),
        None => (false, Why::Unreported),
    }
}

/// What is known of a peer that is not in contact.
fn silence(resource: &str, site: &str, evidence: &Evidence) -> Why {
    let peer = evidence.peers.get(site);
    let tried = peer.and_then(|peer| peer.lost.get(resource));
    match (evidence.voucher(site), tried) {
        (Some(voucher), _) => Why::Vouched(voucher.to_owned()),
        _ if peer.is_some_and(|peer| peer.speaks) => Why::Returning,
        (None, Some(tried)) => Why::Lost(tried.clone()),
        (None, None) => Why::Silence,
    }
}

impl From<Role> for State {
    fn from(role: Role) -> Self {
        match role {
            Role::Active => Self::Active,
            Role::Standby => Self::Standby,
            Role::Disabled => Self::Disabled,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Standby => "standby",
            Self::Disabled => "disabled",
        })
    }
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "up" => Ok(Self::Up),
            "down" => Ok(Self::Down),
            other => Err(format!("\"{other}\" is not an override: up or down")),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Probes(reason) => write!(f, "this site's probes: {reason}"),
            Self::Reported(reason) => write!(f, "the peer reports: {reason}"),
            Self::Silence => f.write_str("the peer is not in contact"),
            Self::Lost(tried) => write!(f, "the peer is not in contact, and {tried}"),
            Self::Returning => f.write_str("the peer speaks again, but is not in contact yet"),
            Self::Vouched(site) => write!(f, "the peer is not in contact, but {site} is in contact with it"),
            Self::Unreported => f.write_str("the peer is in contact but has not reported this resource"),
            Self::Disabled => f.write_str("disabled by configuration"),
        }
    }
}
