//! What the control socket says and hears, as JSON. The command line prints the same.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use crate::{
    evidence::Backlog,
    link::{LinkCounters, PeerStatus},
    placement::{Arrival, InstanceView, Override, State},
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
    /// An operator has drained this site.
    pub drained: bool,
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
    /// By peer: how far its database and this site's are apart. Empty without a database.
    pub replication: BTreeMap<String, Replicated>,
    /// The XDP program; `None` without one.
    pub program: Option<ProgramStatus>,
    /// What the agent's own name server did, by outcome.
    pub server: BTreeMap<String, u64>,
    /// What the link did.
    pub link: LinkCounters,
    /// The last changes of answers, newest last.
    pub changes: Vec<Change>,
}

/// How far a peer's database and this site's are apart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Replicated {
    /// Changes made here that it has not applied.
    pub waits: Backlog,
    /// Changes made there that are not applied here, as it last said; `None` without contact.
    pub missing: Option<Backlog>,
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
    /// The site that flows established before the last change finish at.
    pub leaving: Option<String>,
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
    /// Every configured interface: `native`, `generic`, `missing`, or `none: ` and why.
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

/// One of `GET /v1/instances`: a resource at one site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRow {
    /// The resource.
    pub resource: String,
    /// The site.
    pub site: String,
    /// Its state, as its own site last said; before that, as this site takes it to be.
    pub state: State,
    /// The site that holds the resource, likewise. `None`: every active instance serves.
    pub holder: Option<String>,
    /// The resource's epoch, likewise.
    pub epoch: u64,
    /// It can serve, as this site believes.
    pub available: bool,
    /// Its site is drained.
    pub drained: bool,
    /// Its site is in contact, or is this one.
    pub contact: bool,
    /// Why it has its state.
    pub why: String,
    /// Since when, seconds since 1970; `None` if its site has not said.
    pub since: Option<u64>,
}

/// `POST /v1/swap`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Swap {
    /// The resource.
    pub resource: String,
    /// The site that shall hold it. Left out: roles shall be as configured.
    pub to: Option<String>,
    /// Also if it cannot be known that everything is there that its holders have committed.
    #[serde(default)]
    pub force: bool,
    /// Milliseconds to wait until the others have adopted it.
    pub wait_ms: u64,
}

/// Answer to [`Swap`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Swapped {
    /// The resource.
    pub resource: String,
    /// The site that was asked.
    pub to: String,
    /// The site that holds it. `None`: all that are configured as active are.
    pub holder: Option<String>,
    /// In this epoch.
    pub epoch: u64,
    /// So it was before; nothing was done.
    pub already: bool,
    /// What was done, in order.
    pub steps: Vec<Step>,
    /// Sites in contact that had not adopted it when the wait was over.
    pub waiting: Vec<String>,
    /// Sites that are not in contact and adopt it when they return.
    pub absent: Vec<String>,
    /// Old holders that may have committed what was not there when it was taken: they were not connected, or the order
    /// was to be carried out by force. The new one itself, if its database may lack what peers count as applied there.
    pub behind: Vec<String>,
}

/// One step of a swap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What was done.
    pub step: StepKind,
    /// The site that did it.
    pub site: String,
    /// How long it took, microseconds.
    pub micros: u64,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepKind {
    /// The order went to the site and its answer came back.
    Asked,
    /// The old holder's tables took no more writes, and the site applied everything that was committed there.
    #[serde(rename = "caught up")]
    CaughtUp,
    /// The site stored the new epoch.
    Taken,
    /// The new holder's own answers follow.
    Published,
    /// Its report came with the new epoch, counted from when the taking was known here.
    Adopted,
}

/// `POST /v1/drain`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// The site.
    pub site: String,
    /// Drain it, or take that back.
    pub drained: bool,
    /// Milliseconds to wait until what it holds has moved.
    pub wait_ms: u64,
}

/// Answer to [`Drain`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Resources that another site holds now, and which.
    pub moved: BTreeMap<String, String>,
    /// Resources that stay, and why.
    pub stays: BTreeMap<String, String>,
    /// Resources that another site could take, and had not when the wait was over.
    pub waiting: Vec<String>,
}

/// Answer to `POST /v1/database/fence`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fenced {
    /// Of each site: every other one has applied what was written there before the fence. Or why it is not known.
    pub sites: BTreeMap<String, Result<bool, String>>,
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

/// Bytes, as hexadecimal digits in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hex(pub Vec<u8>);

impl Hex {
    /// Reads pairs of digits; spaces and colons between them mean nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.chars().filter(|c| !matches!(c, ' ' | ':')).map(|c| c.to_digit(16));
        let digits = digits.collect::<Option<Vec<u32>>>()?;
        let (pairs, []) = digits.as_chunks() else { return None };
        pairs.iter().map(|[high, low]| u8::try_from(high << 4 | low).ok()).collect::<Option<_>>().map(Self)
    }
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl From<Hex> for String {
    fn from(hex: Hex) -> Self {
        hex.to_string()
    }
}

impl TryFrom<String> for Hex {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        Self::parse(&text).ok_or("not pairs of hexadecimal digits")
    }
}

/// `POST /v1/explain-packet`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainPacket {
    /// An Ethernet frame from its destination address on, without its check sequence.
    pub frame: Hex,
}

/// Answer to [`ExplainPacket`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExplainedPacket {
    /// The counter that such a packet raises.
    pub outcome: String,
    /// What happens to the frame.
    pub action: String,
    /// The resource it is for, or the packet in it if it came through the tunnel.
    pub resource: Option<String>,
    /// The backend or peer it goes to.
    pub target: Option<IpAddr>,
    /// The index of the interface it leaves by.
    pub interface: Option<u32>,
    /// That interface's name, if it has one now.
    pub interface_name: Option<String>,
    /// A known flow decides that.
    pub established: bool,
    /// A flow is known, but it cannot stay where it was.
    pub moved: bool,
    /// The same in words.
    pub lines: Vec<String>,
}

/// Any answer that is not the one asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// What was wrong, and what would be right.
    pub error: String,
}
