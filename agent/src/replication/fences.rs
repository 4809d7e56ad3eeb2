//! Who may write here: tables of resources that another site holds refuse writes, if the configuration wants that, and
//! for as long as a resource moves, its tables do.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use siteswap_replication::store::Store;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use super::{Shared, database::Failed, now, set};

/// A resource that moves has a new holder after so long, or stays where it is.
const MOVING: Duration = Duration::from_secs(10);

/// A resource's tables, and who holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// Its tables.
    pub tables: BTreeSet<String>,
    /// Its epoch.
    pub epoch: u64,
    /// The site that holds it, if it is one and not this one.
    pub holder: Option<String>,
    /// Writes are refused here while another site holds it.
    pub refuse: bool,
}

/// Whether a resource moves.
#[derive(Debug)]
pub(super) enum Move {
    /// It is about to.
    Begins {
        /// Which.
        resource: String,
        /// The site that will take it.
        to: String,
        /// Where it goes how far this site is, once no more writes can follow.
        reply: oneshot::Sender<Result<BTreeMap<u32, u64>, Failed>>,
    },
    /// It is not taken after all by the site for which it was to move.
    Ends {
        /// Which.
        resource: String,
        /// The site.
        to: String,
    },
}

/// A resource that moves.
struct Moving {
    /// The site that will take it.
    to: String,
    /// In this epoch it moves, and not in the next.
    epoch: u64,
    /// Until then at the latest.
    until: Instant,
}

/// Keeps the tables as they should be.
pub(super) async fn keep(
    mut guarded: watch::Receiver<Option<BTreeMap<String, Guarded>>>,
    mut moves: mpsc::Receiver<Move>,
    shared: Shared,
) {
    // Until it is known who holds what, tables that refused writes before the agent was started go on doing so.
    if guarded.wait_for(Option::is_some).await.is_err() {
        return;
    }
    let mut moving: BTreeMap<String, Moving> = BTreeMap::new();
    let mut set = None;
    loop {
        let wanted = {
            let guarded = guarded.borrow_and_update().clone().unwrap_or_default();
            moving.retain(|resource, moving| {
                moving.until > Instant::now()
                    && guarded.get(resource).is_some_and(|guarded| guarded.epoch == moving.epoch)
            });
            refusals(&guarded, &moving)
        };
        if set.as_ref() != Some(&wanted) {
            set = set_refusals(&shared, wanted.clone()).await.map(|_| wanted).ok();
        }
        let due = moving.values().map(|moving| moving.until).min();
        // Not set: the database cannot be written to now.
        let due = if set.is_none() { Some(Instant::now() + Duration::from_secs(1)) } else { due };
        tokio::select! {
            changed = guarded.changed() => if changed.is_err() { return },
            () = until(due) => {}
            order = moves.recv() => {
                let (resource, to, reply) = match order {
                    Some(Move::Begins { resource, to, reply }) => (resource, to, reply),
                    Some(Move::Ends { resource, to }) => {
                        moving.retain(|moves, moving| *moves != resource || moving.to != to);
                        continue;
                    }
                    None => return,
                };
                let known = |guarded: &BTreeMap<String, Guarded>| Some(guarded.get(&resource)?.epoch);
                let Some(epoch) = guarded.borrow().as_ref().and_then(known) else {
                    // It has no tables here; a promise that nothing is written to them would be an empty one.
                    let _ = reply.send(Err(Failed::Refused(format!("resource {resource} has no tables here"))));
                    continue;
                };
                moving.insert(resource, Moving { to, epoch, until: Instant::now() + MOVING });
                let wanted = refusals(&guarded.borrow().clone().unwrap_or_default(), &moving);
                let reached = set_refusals(&shared, wanted.clone()).await;
                set = reached.is_ok().then_some(wanted);
                // The peer has given up.
                let _ = reply.send(reached);
            }
        }
    }
}

/// Which tables refuse writes, and whom they name.
fn refusals(
    guarded: &BTreeMap<String, Guarded>,
    moving: &BTreeMap<String, Moving>,
) -> BTreeMap<String, Option<String>> {
    let mut all = BTreeMap::new();
    for (resource, Guarded { tables, holder, refuse, .. }) in guarded {
        let holder = holder.clone().filter(|_| *refuse);
        let named = moving.get(resource).map(|moving| moving.to.clone()).or(holder);
        all.extend(tables.iter().map(|table| (table.clone(), named.clone())));
    }
    all
}

/// Sets them, and returns how far this site is then.
async fn set_refusals(shared: &Shared, wanted: BTreeMap<String, Option<String>>) -> Result<BTreeMap<u32, u64>, Failed> {
    let job = move |store: &mut Store| Ok((store.refuse(&wanted, now())?, store.position()?.0));
    let (reached, group) = shared.database.run(job).await?;
    set(&shared.groups, group);
    Ok(reached)
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
