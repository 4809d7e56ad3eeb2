//! Compares this database with its peers' when it may not be what they know, without being told to: a restored backup,
//! changes that a peer has forgotten, and tables that were without our triggers for a while.

use std::time::Duration;

use siteswap_replication::{store::Doubt, verify::Policy};
use tokio::{sync::mpsc, time::sleep};

use super::{Shared, compare::Comparer};

/// Whether there is any doubt is looked at after this.
const LOOK: Duration = Duration::from_secs(1);
/// A comparison that failed is tried again after a wait that doubles up to this: it reads whole tables.
const LONGEST: Duration = Duration::from_secs(60);

/// Compares and repairs as long as there is any doubt.
pub(super) async fn mend(comparer: Comparer, shared: Shared) {
    let (mut told, mut said, mut wait) = (None, String::new(), LOOK);
    loop {
        let doubt = shared.database.run(|store| store.doubt()).await.ok().flatten();
        if let Some(doubt) = doubt.as_ref().filter(|doubt| told.as_ref() != Some(*doubt)) {
            tracing::warn!("the database is to be compared: {doubt}");
        }
        told.clone_from(&doubt);
        let settled = match doubt {
            Some(doubt) => settle(&comparer, doubt).await,
            None => Ok(()),
        };
        match settled {
            Ok(()) => {
                said.clear();
                wait = LOOK;
            }
            Err(why) => {
                if why != said {
                    tracing::warn!("the database is still to be compared: {why}");
                }
                said = why;
                wait = (wait * 2).min(LONGEST);
            }
        }
        sleep(wait).await;
    }
}

/// Makes one comparison.
async fn settle(comparer: &Comparer, doubt: Doubt) -> Result<(), String> {
    match doubt {
        Doubt::Unheard(_) => Err(doubt.to_string()),
        Doubt::Restored(peer) => compare(comparer, &peer, None, Policy::Ruled).await,
        Doubt::Anew(peer) => compare(comparer, &peer, None, Policy::Keep).await,
        Doubt::Missed(peer) => compare(comparer, &peer, None, Policy::Behind).await,
        // What no trigger has seen was written here; any peer knows the rest.
        Doubt::Unrecorded(tables) => compare_with_any(comparer, &tables, Policy::Here).await,
        // Here or at the other sites, who have made them anew too.
        Doubt::Rebuilt(tables) => compare_with_any(comparer, &tables, Policy::KeepHere).await,
    }
}

async fn compare_with_any(comparer: &Comparer, tables: &[String], policy: Policy) -> Result<(), String> {
    let mut last = Ok(());
    for peer in comparer.peers.keys() {
        last = compare(comparer, peer, Some(tables.to_vec()), policy).await;
        if last.is_ok() {
            break;
        }
    }
    last
}

async fn compare(comparer: &Comparer, peer: &str, tables: Option<Vec<String>>, policy: Policy) -> Result<(), String> {
    // Nobody looks at the progress.
    let (told, _progress) = mpsc::channel(1);
    let compared = comparer.compare(peer, tables, Some(policy), &told).await?;
    let (rows, repaired) = (compared.rows, compared.repaired);
    if compared.equal {
        tracing::info!(peer, rows, repaired, "the database was compared and is equal");
        return Ok(());
    }
    Err(match (&compared.alone[..], &compared.lacking[..]) {
        ([], []) => format!(
            "rows are changed faster than they can be compared with {peer}'s, or changes are not taken: siteswap db status \
             says which wait and why"
        ),
        ([], [column, ..]) => format!("column {column} is at one of the two sites only, {peer} or this one: add it"),
        ([table, ..], _) => format!("table {table} is replicated at one of the two sites only, {peer} or this one"),
    })
}
