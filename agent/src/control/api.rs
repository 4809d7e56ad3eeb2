//! What the control socket says and hears, as JSON. The command line prints the same.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use crate::{
    link::{LinkCounters, PeerStatus},
    placement::{Arrival, InstanceView, Override},
};

/// `GET /v1/status`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// siteswap's version.
    pub version: String,
    /// This agent's site.
    pub site: String,
    /// The first complete round of probes is over and answers are given.
    pub ready: bool,
    /// When the agent started, seconds since 1970.
    pub started: u64,
    /// The configuration file.
    pub config: String,
    /// Every resource.
    pub resources: Vec<ResourceStatus>,
    /// What is probed here.
    pub backends: Vec<BackendStatus>,
    /// The other sites.
    pub peers: Vec<PeerStatus>,
    /// The XDP program; `None` without one.
    pub program: Option<ProgramStatus>,
    /// What the agent's own name server did, by outcome.
    pub server: BTreeMap<String, u64>,
    /// What the link did.
    pub link: LinkCounters,
    /// The last changes of answers, newest last.
    pub changes: Vec<Change>,
}

/// One resource.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResourceStatus {
    /// Its name.
    pub name: String,
    /// Its domain names.
    pub domains: Vec<String>,
    /// Raised at each change of holder.
    pub epoch: u64,
    /// `None`: as configured.
    pub holder: Option<String>,
    /// In the policy's order.
    pub instances: Vec<InstanceStatus>,
    /// The sites answered, the one to try first at the front.
    pub answer: Vec<String>,
    /// The addresses answered.
    pub addresses: Vec<IpAddr>,
    /// No site is available: `addresses` is what the `all_down` policy gives.
    pub all_down: bool,
    /// What is done with a request that arrives here.
    pub arrival: Arrival,
}

/// One instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Measured and forced, side by side.
    #[serde(flatten)]
    pub view: InstanceView,
    /// What counts.
    pub available: bool,
}

/// One backend, as this site's probes see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackendStatus {
    /// The resource it serves.
    pub resource: String,
    /// The backend.
    pub backend: SocketAddr,
    /// What is believed of it; `None` before its first try has ended.
    pub up: Option<bool>,
    /// Seconds that has been believed.
    pub since: Option<f64>,
    /// What the last try found.
    pub last: String,
    /// How long the last try took, milliseconds.
    pub latency: Option<f64>,
    /// Tries in a row with the last one's result.
    pub streak: u32,
}

/// The XDP program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProgramStatus {
    /// Interface to `native` or `generic`.
    pub interfaces: BTreeMap<String, String>,
    /// Seconds the program answers after the agent's last sign of life.
    pub lease: f64,
    /// Packets by outcome.
    pub counters: BTreeMap<String, u64>,
}

/// A change of answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Change {
    /// Milliseconds since 1970.
    pub at: u64,
    /// What was found or ordered.
    pub cause: String,
    /// Microseconds from its finding (the last try's end, the empty period's end, the order's arrival) to the changed map.
    pub micros: u64,
}

/// `PUT /v1/override`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetOverride {
    /// The resource.
    pub resource: String,
    /// This agent's own site if left out.
    pub site: Option<String>,
    /// `None`: measured again (`auto`).
    pub state: Option<Override>,
}

/// `POST /v1/explain`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    /// A domain name.
    pub name: String,
    /// Who asks.
    pub client: Option<IpAddr>,
}

/// Answer to [`Explain`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// The name, as understood.
    pub name: String,
    /// The resource it belongs to.
    pub resource: Option<String>,
    /// The addresses answered, in order.
    pub addresses: Vec<IpAddr>,
    /// Which rule put which address where, in words.
    pub lines: Vec<String>,
}

/// Any answer that is not the one asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// What was wrong, and what would be right.
    pub error: String,
}
