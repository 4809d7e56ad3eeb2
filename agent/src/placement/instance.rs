//! What a site keeps of its own instance of a resource: its state, why it is so, and since when.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Cause, State, Tenure};
use crate::config::Role;

/// One instance's record. It survives a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its state.
    pub state: State,
    /// Why it has this state, for people: "configured", "took over from east: …", "west holds it since epoch 3".
    pub why: String,
    /// Since when it has this state, seconds since 1970.
    pub since: u64,
}

/// A site's own instances by resource.
pub type Instances = BTreeMap<String, Instance>;

impl Instance {
    /// The record of `site`'s instance with this configured role, once `tenure` holds. `cause` is why the holder changed,
    /// if that is known here. `now`: seconds since 1970.
    pub fn after(
        before: Option<&Self>,
        site: &str,
        role: Role,
        tenure: &Tenure,
        cause: Option<&Cause>,
        now: u64,
    ) -> Self {
        let state = tenure.state(site, role);
        let before = before.filter(|before| before.state == state);
        let why = match (&tenure.holder, cause, before) {
            (None, ..) => "configured".to_owned(),
            _ if role == Role::Disabled => "configured".to_owned(),
            (Some(holder), ..) if holder != site => format!("{holder} holds it since epoch {}", tenure.epoch),
            (_, Some(cause), _) => cause.to_string(),
            // Nothing new: the cause was said when the tenure began.
            (_, None, Some(before)) => before.why.clone(),
            (_, None, None) => format!("holds it since epoch {}", tenure.epoch),
        };
        Self { state, why, since: before.map_or(now, |before| before.since) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_the_state_its_reason_and_since_when() {
        let record = |state, why: &str, since| Instance { state, why: why.to_owned(), since };
        let after = |before: Option<&Instance>, role, tenure: &Tenure, cause: Option<&Cause>, now| {
            Instance::after(before, "east", role, tenure, cause, now)
        };
        let configured = after(None, Role::Active, &Tenure::default(), None, 10);
        assert_eq!(configured, record(State::Active, "configured", 10));

        let west = Tenure { epoch: 3, holder: Some("west".to_owned()) };
        let standby = after(Some(&configured), Role::Active, &west, None, 20);
        assert_eq!(standby, record(State::Standby, "west holds it since epoch 3", 20));
        let north = Tenure { epoch: 4, holder: Some("north".to_owned()) };
        let still = after(Some(&standby), Role::Active, &north, None, 30);
        assert_eq!(still, record(State::Standby, "north holds it since epoch 4", 20), "the state is as old as before");

        let ours = Tenure { epoch: 5, holder: Some("east".to_owned()) };
        let taken = after(Some(&still), Role::Active, &ours, Some(&Cause::FailBack), 40);
        assert_eq!(taken, record(State::Active, "fail-back", 40));
        assert_eq!(after(Some(&taken), Role::Active, &ours, None, 50), taken, "a restart changes nothing");
        assert_eq!(after(None, Role::Active, &ours, None, 50), record(State::Active, "holds it since epoch 5", 50));
        assert_eq!(after(Some(&taken), Role::Disabled, &ours, None, 60), record(State::Disabled, "configured", 60));
    }
}
