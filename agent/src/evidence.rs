//! What is known: this site's probes and what the peers report. Measured, never wished for; operators' overrides are
//! kept apart (`placement`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a site's agent says about its own instances. It crosses the link, so it is bounded and checked there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// By resource.
    pub instances: BTreeMap<String, InstanceReport>,
}

/// One instance, as its own site sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceReport {
    /// It can serve: its probes pass and no operator has taken it out.
    pub available: bool,
    /// The resource's epoch as this site knows it.
    pub epoch: u64,
    /// The site that holds it in that epoch, as this site knows it. `None`: every active instance serves.
    pub holder: Option<String>,
    /// Why it is available or not, for people.
    pub reason: String,
}
