//! Who holds a resource: epochs, who may change the holder and why, and adopting what a peer knows better. Pure.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{InstanceView, Override, State, Why};
use crate::{
    config::{Failback, Resource, Role, Takeover},
    evidence::InstanceReport,
};

/// A resource's epoch and who holds it in that epoch. It survives restarts, and an epoch never goes back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenure {
    /// Raised by one at each change of holder.
    pub epoch: u64,
    /// `None`: roles are as configured. So it is in epoch 0, and where several sites are configured as active, after what
    /// makes all of them so again.
    pub holder: Option<String>,
}

/// The highest epoch that is believed: no service changes its holder so often, so a higher one is a fault, and adopting
/// it would leave no room for the next.
pub const MAX_EPOCH: u64 = 1 << 48;

/// Tenures by resource; a resource without one is in epoch 0.
pub type Tenures = BTreeMap<String, Tenure>;

/// A tenure that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The new one.
    pub tenure: Tenure,
    /// Why this site took the resource. `None`: it did not; it adopts what a peer knows better.
    pub cause: Option<Cause>,
}

/// Changes by resource.
pub type Changes = BTreeMap<String, Change>;

/// Why a site took a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No active instance could serve, and the `takeover` rule allowed it.
    TakeOver {
        /// The sites it was taken from.
        from: Vec<String>,
        /// What was known of the first of them.
        because: String,
    },
    /// The site that held it is drained.
    Drain(String),
    /// Roles are as configured again.
    FailBack,
    /// An operator's order.
    Swap,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TakeOver { from, because } => write!(f, "took over from {}: {because}", from.join(", ")),
            Self::Drain(site) => write!(f, "{site} is drained"),
            Self::FailBack => f.write_str("fail-back"),
            Self::Swap => f.write_str("swap by an operator"),
        }
    }
}

impl Tenure {
    /// The state of `site`'s instance: a holder is active and the others stand by, whatever their configured roles.
    pub fn state(&self, site: &str, role: Role) -> State {
        match (&self.holder, role) {
            (_, Role::Disabled) => State::Disabled,
            (None, role) => role.into(),
            (Some(holder), _) if holder == site => State::Active,
            (Some(_), _) => State::Standby,
        }
    }

    /// The next one, in which `site` holds the resource because of `cause`. `None`: there is no epoch after this one.
    pub fn taken(&self, site: &str, cause: Cause) -> Option<Change> {
        self.next(Some(site.to_owned()), cause)
    }

    /// The next one, with this holder.
    pub fn next(&self, holder: Option<String>, cause: Cause) -> Option<Change> {
        let tenure = Tenure { epoch: self.epoch + 1, holder };
        (self.epoch < MAX_EPOCH).then_some(Change { tenure, cause: Some(cause) })
    }
}

/// Whether the first available standby may take over: the rule allows it by what is known of every active instance.
///
/// Its own site says that it cannot serve; or its site is silent, and that is enough ([`Takeover::Silence`]), or an
/// operator here has set it down, or it comes with public addresses that do not answer ([`Takeover::Confirmed`]). Nothing is taken from a site that a peer in contact is
/// still in contact with, nor from one that speaks again: both would take it from each other until contact is back. A drained
/// site's operator gives it away under every rule, but not to another drained one: they would give it to each other.
pub fn may_take_over(instances: &[InstanceView], rule: Takeover) -> bool {
    let taker = instances.iter().any(|instance| instance.serves() && !instance.drained);
    let lost = |instance: &InstanceView| match instance.why {
        _ if instance.drained && taker => true,
        _ if rule == Takeover::Manual => false,
        // An operator's word about a peer that says it can serve is about this site's answers alone.
        Why::Reported(_) => !instance.measured,
        Why::Probes(_) | Why::Disabled | Why::Lost(_) => true,
        Why::Silence => rule == Takeover::Silence || instance.forced == Some(Override::Down),
        Why::Vouched(_) | Why::Returning | Why::Unreported => false,
    };
    let mut active = instances.iter().filter(|instance| instance.state == State::Active).peekable();
    // Without an active instance there is nobody to take it from, nor anybody's word that it may be taken.
    (active.peek().is_some() || rule != Takeover::Manual) && active.all(lost)
}

/// Why the resource is taken over, where it is.
pub(crate) fn takeover_cause(instances: &[InstanceView]) -> Cause {
    let active: Vec<&InstanceView> = instances.iter().filter(|instance| instance.state == State::Active).collect();
    match active.iter().find(|instance| instance.drained && instance.available()) {
        Some(drained) => Cause::Drain(drained.site.clone()),
        None => Cause::TakeOver {
            from: active.iter().map(|instance| instance.site.clone()).collect(),
            because: match active.first() {
                Some(first) if first.forced == Some(Override::Down) => "an operator set it down".to_owned(),
                Some(first) => first.why.to_string(),
                None => "no instance is active".to_owned(),
            },
        },
    }
}

/// Whether `site` should make roles as configured again once it has been so for the resource's `failback_after`: it is
/// the first that is configured as active, available, and is or hears the holder.
pub fn may_fail_back(site: &str, resource: &Resource, instances: &[InstanceView], now: &Tenure) -> bool {
    if resource.failback != Failback::Auto {
        return false;
    }
    let find = |site: &str| instances.iter().find(|instance| instance.site == site);
    let heard = |holder: &str| find(holder).is_some_and(|holder| matches!(holder.why, Why::Reported(_)));
    resource.configured_active().next().is_some_and(|first| first == site)
        && resource.configured_holder() != now.holder.as_ref()
        && now.holder.as_deref().is_some_and(|holder| holder == site || heard(holder))
        && find(site).is_some_and(|own| own.serves() && !own.drained)
}

/// The tenure after hearing a peer's: the higher epoch wins. Two sites that took over in the same epoch, out of contact
/// with each other, agree on the one that comes first in `order`, and before all on roles as configured. `None` where
/// nothing changes.
pub fn adopt(order: &[String], now: &Tenure, heard: &InstanceReport) -> Option<Tenure> {
    // A holder this configuration does not know cannot be one: nothing would be served.
    let rank = |holder: &Option<String>| match holder {
        None => Some(0),
        Some(holder) => order.iter().position(|site| site == holder).map(|position| position + 1),
    };
    let theirs = rank(&heard.holder).filter(|_| heard.epoch <= MAX_EPOCH)?;
    let better =
        heard.epoch > now.epoch || (heard.epoch == now.epoch && rank(&now.holder).is_some_and(|ours| theirs < ours));
    better.then(|| Tenure { epoch: heard.epoch, holder: heard.holder.clone() })
}
