//! Who holds a resource: epochs, taking over, and adopting what a peer knows better. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Arrival, InstanceView, Override, Placement, State, Why};
use crate::{
    config::{Role, Takeover},
    evidence::InstanceReport,
};

/// A resource's epoch and who holds it in that epoch. It survives restarts, and an epoch never goes back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenure {
    /// Raised by one at each change of holder.
    pub epoch: u64,
    /// `None`, in epoch 0: roles are as configured.
    pub holder: Option<String>,
}

/// The highest epoch that is believed: no service changes its holder so often, so a higher one is a fault, and adopting
/// it would leave no room for the next.
pub const MAX_EPOCH: u64 = 1 << 48;

/// Tenures by resource; a resource without one is in epoch 0.
pub type Tenures = BTreeMap<String, Tenure>;

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
}

/// The tenure after this site has taken over, or `None` where it must not.
///
/// It may where placement says so and the rule allows what the evidence shows of every active instance: the holder
/// itself, or an operator, says it cannot serve; or, under [`Takeover::Silence`], its site is silent. Under
/// [`Takeover::Confirmed`] silence alone is not enough.
pub fn take_over(
    site: &str,
    rule: Takeover,
    placement: &Placement,
    instances: &[InstanceView],
    now: &Tenure,
) -> Option<Tenure> {
    if placement.arrival != Arrival::TakeOver || rule == Takeover::Manual {
        return None;
    }
    let lost = |instance: &InstanceView| match instance.why {
        _ if instance.forced == Some(Override::Down) => true,
        Why::Reported(_) | Why::Probes(_) | Why::Disabled => true,
        Why::Silence => rule == Takeover::Silence,
        Why::Unreported => false,
    };
    let allowed = instances.iter().filter(|instance| instance.state == State::Active).all(lost);
    allowed.then(|| Tenure { epoch: now.epoch + 1, holder: Some(site.to_owned()) })
}

/// The tenure after hearing a peer's: the higher epoch wins. Two sites that took over in the same epoch, out of contact
/// with each other, agree on the one that comes first in `order`. `None` where nothing changes.
pub fn adopt(order: &[String], now: &Tenure, heard: &InstanceReport) -> Option<Tenure> {
    // A holder this configuration does not know cannot be one: nothing would be served.
    let rank = |holder: &Option<String>| holder.as_ref().and_then(|h| order.iter().position(|site| site == h));
    let theirs = rank(&heard.holder).filter(|_| heard.epoch <= MAX_EPOCH)?;
    let better =
        heard.epoch > now.epoch || (heard.epoch == now.epoch && rank(&now.holder).is_some_and(|ours| theirs < ours));
    better.then(|| Tenure { epoch: heard.epoch, holder: heard.holder.clone() })
}
