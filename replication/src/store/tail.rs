//! The change table for people.

use std::{collections::BTreeMap, ops::ControlFlow};

use rusqlite::{Row, params};
use serde::Serialize;

use crate::{
    capture,
    change::Change,
    clock::{SiteId, millis},
    layout::NOTICES,
    schema::Table,
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
    /// What it adds to counters.
    #[serde(serialize_with = "plain::columns", skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<(String, Value)>,
}

impl Store {
    /// Tells the changes in groups after this one that a peer has not acknowledged yet, the oldest first, until `tell`
    /// breaks off. Tables count as they are captured now. The write-ahead log cannot begin anew meanwhile.
    ///
    /// # Errors
    /// `Capture`, `Damaged`, `Sqlite`.
    pub fn tell_after<B>(
        &self,
        group: u64,
        mut tell: impl FnMut(Told) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, Error> {
        self.at_one_moment(|database| {
            let tables: BTreeMap<u32, Table> =
                capture::tables(database)?.into_iter().map(|table| (table.number, table)).collect();
            let mut statement = database.prepare_cached(
                "SELECT grp, tbl, key, body FROM _ssw_change WHERE grp > ? AND tbl <> ? ORDER BY grp, tbl, key",
            )?;
            let mut rows = statement.query(params![group, NOTICES])?;
            while let Some(row) = rows.next()? {
                let Some(table) = tables.get(&row.get(1)?) else { continue };
                if let end @ ControlFlow::Break(_) = tell(told(self.settings.site, table, row)?) {
                    return Ok(end);
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }
}

fn told(site: SiteId, table: &Table, row: &Row<'_>) -> Result<Told, Error> {
    let body: Vec<u8> = row.get(3)?;
    let change = Change::decode(site, &mut &body[..]).ok_or_else(|| damaged("a change", "_ssw_change"))?;
    let key = Key(row.get(2)?).columns().ok_or_else(|| damaged("a key", "_ssw_change"))?;
    let mut added: Vec<(u16, i64)> = Vec::new();
    for add in &change.adds {
        match added.last_mut().filter(|(column, _)| *column == add.column) {
            Some((_, sum)) => *sum = sum.wrapping_add(add.delta),
            None => added.push((add.column, add.delta)),
        }
    }
    let name = |column: u16| table.columns.get(usize::from(column)).map(|column| column.name.clone());
    Ok(Told {
        group: row.get(0)?,
        ms: millis(change.newest()),
        what: what(&change),
        table: table.name.clone(),
        key,
        added: added.into_iter().filter_map(|(column, sum)| Some((name(column)?, Value::Integer(sum)))).collect(),
        columns: change.cells.into_iter().filter_map(|cell| Some((name(cell.column)?, cell.value))).collect(),
    })
}

fn what(change: &Change) -> &'static str {
    match change.deleted {
        Some(deleted) if change.alive.is_none_or(|alive| alive <= deleted.stamp) => "delete",
        _ if change.whole => "insert",
        _ => "update",
    }
}
