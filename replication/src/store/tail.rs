//! The change table for people.

use rusqlite::params;
use serde::Serialize;

use crate::{
    change::Change,
    clock::millis,
    layout::NOTICES,
    value::{Key, Value, plain},
};

use super::{Error, Store, damaged};

/// One row of the change table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Its group.
    pub group: u64,
    /// When it was made, in milliseconds since 1970.
    pub ms: i64,
    /// `insert`, `update` or `delete`.
    pub what: &'static str,
    /// The table.
    pub table: String,
    /// The row's key.
    #[serde(serialize_with = "plain::list")]
    pub key: Vec<Value>,
    /// The columns that it sets.
    #[serde(serialize_with = "plain::columns")]
    pub columns: Vec<(String, Value)>,
}

impl Store {
    /// The changes in groups after this one that a peer has not acknowledged yet, the oldest first.
    ///
    /// # Errors
    /// `Damaged`, `Sqlite`.
    pub fn told_after(&self, group: u64) -> Result<Vec<Told>, Error> {
        let mut statement = self.database.prepare_cached(
            "SELECT grp, tbl, key, body FROM _ssw_change WHERE grp > ? AND tbl <> ? ORDER BY grp, tbl, key",
        )?;
        let mut rows = statement.query(params![group, NOTICES])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let body: Vec<u8> = row.get(3)?;
            let change = Change::decode(self.settings.site, &mut &body[..]);
            let change = change.ok_or_else(|| damaged("a change", "_ssw_change"))?;
            let key = Key(row.get(2)?).columns().ok_or_else(|| damaged("a key", "_ssw_change"))?;
            let Some(live) = self.tables.get(&row.get(1)?) else { continue };
            let name = |column: u16| live.table.columns.get(usize::from(column)).map(|column| column.name.clone());
            all.push(Told {
                group: row.get(0)?,
                ms: millis(change.newest()),
                what: what(&change),
                table: live.table.name.clone(),
                key,
                columns: change.cells.into_iter().filter_map(|cell| Some((name(cell.column)?, cell.value))).collect(),
            });
        }
        Ok(all)
    }
}

fn what(change: &Change) -> &'static str {
    match change.deleted {
        Some(deleted) if change.alive.is_none_or(|alive| alive <= deleted.stamp) => "delete",
        _ if change.whole => "insert",
        _ => "update",
    }
}
