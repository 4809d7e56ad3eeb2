//! Compares this database with its peers' when it may not be what they know, without being told to: a restored backup, and
//! tables that were without our triggers for a while.

use std::time::Duration;

use siteswap_replication::store::Doubt;
use tokio::{sync::mpsc, time::sleep};

use super::{
    Shared,
    compare::{Comparer, Comparing, Comparison, Keep},
};

/// It is looked at after this, and a comparison that failed is tried again.
const LOOK: Duration = Duration::from_secs(1);

/// Compares and repairs as long as there is any doubt.
pub(super) async fn mend(comparer: Comparer, shared: Shared) {
    let mut said = String::new();
    loop {
        let doubt = shared.database.run(|store| store.doubt()).await.ok().flatten();
        if let Some(doubt) = doubt {
            if let Err(why) = settle(&comparer, doubt).await
                && why != said
            {
                tracing::warn!("the database is still to be compared: {why}");
                said = why;
            }
        } else {
            said.clear();
        }
        sleep(LOOK).await;
    }
}

/// Makes one comparison.
async fn settle(comparer: &Comparer, doubt: Doubt) -> Result<(), String> {
    match doubt {
        Doubt::Unheard(site) => Err(format!("{site} has not been heard since the database was restored")),
        Doubt::Restored(peer) => {
            compare(comparer, Comparison { peer, tables: Vec::new(), repair: Some(Keep::Newest) }).await
        }
        // What no trigger has seen was written here; any peer knows the rest.
        Doubt::Unrecorded(tables) => {
            let mut last = Ok(());
            for peer in comparer.peers.keys() {
                let (peer, tables) = (peer.clone(), tables.clone());
                last = compare(comparer, Comparison { peer, tables, repair: Some(Keep::Here) }).await;
                if last.is_ok() {
                    break;
                }
            }
            last
        }
    }
}

async fn compare(comparer: &Comparer, comparison: Comparison) -> Result<(), String> {
    // Nobody looks at the progress.
    let (told, _progress) = mpsc::channel::<Comparing>(1);
    let compared = comparer.compare(&comparison, &told).await?;
    let (peer, rows, repaired) = (&comparison.peer, compared.rows, compared.repaired);
    if compared.equal {
        tracing::info!(peer, rows, repaired, "the database was compared and is equal");
        return Ok(());
    }
    Err(format!("rows are still changed faster than they can be compared with {peer}'s"))
}
