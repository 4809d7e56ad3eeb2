//! What tables must show, put together from the changes that the sites recorded, by code that has nothing in common with
//! the merge: each of a row's registers has the greatest (stamp, site) that anybody ever gave it.

use std::collections::{BTreeMap, BTreeSet};

use siteswap_replication::{Value, clock::SiteId};

use super::Recorded;

/// When, and where.
type Stamped = (i64, SiteId);

#[derive(Default)]
struct Row {
    key: Vec<Value>,
    alive: Stamped,
    dead: Stamped,
    cells: BTreeMap<u16, (Stamped, Value)>,
}

/// The table's rows as [`Site::rows`](super::Site::rows) writes them. `key` says at which of its `columns` the key's are.
pub fn joined(recorded: &[Recorded], table: &str, key: &[usize], columns: usize) -> BTreeSet<String> {
    let mut rows: BTreeMap<Vec<u8>, Row> = BTreeMap::new();
    for (site, _, row_key, change, _) in recorded.iter().filter(|recorded| recorded.1 == table) {
        let row = rows.entry(row_key.0.clone()).or_default();
        row.key = row_key.columns().expect("a key");
        if let Some(alive) = change.alive {
            row.alive = row.alive.max((alive, *site));
        }
        if let Some(deleted) = change.deleted {
            row.dead = row.dead.max((deleted.ends.stamp, deleted.ends.site));
        }
        for cell in &change.cells {
            let new = ((cell.stamp, *site), cell.value.clone());
            let old = row.cells.entry(cell.column).or_insert_with(|| new.clone());
            if new.0 > old.0 {
                *old = new;
            }
        }
    }
    let visible = rows.into_values().filter(|row| row.alive > row.dead);
    visible
        .map(|row| {
            let value = |column: usize| match key.iter().position(|at| *at == column) {
                Some(at) => row.key[at].clone(),
                None => row.cells[&u16::try_from(column).expect("few columns")].1.clone(),
            };
            format!("{:?}", (0..columns).map(value).collect::<Vec<_>>())
        })
        .collect()
}
