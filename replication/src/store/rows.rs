//! Versions of rows that are not yet the same everywhere, for all we know (`_ssw_row`).

use std::collections::BTreeMap;

use rusqlite::{CachedStatement, Connection, OptionalExtension, Statement, ToSql, params};

use crate::{
    clock::Stamp,
    merge::Row,
    value::{Key, Value},
};

use super::{Error, damaged, live::Live};

const LOAD: &str = "SELECT state FROM _ssw_row WHERE tbl=? AND key=?";
/// Not OR REPLACE, before which SQLite writes down every page that the statement changes, to be able to undo it alone.
const SAVE: &str = "INSERT INTO _ssw_row(tbl, key, newest, state)";
const OR_UPDATE: &str = " ON CONFLICT(tbl, key) DO UPDATE SET newest=excluded.newest, state=excluded.state";
const FORGET: &str = "DELETE FROM _ssw_row WHERE tbl=? AND key=?";

/// Rows in one statement: several take half as long.
pub(super) const TOGETHER: usize = 32;

/// Inserts rows of four values, as many in one statement as can be. Returns how many were inserted.
pub(super) fn insert_all<'r, T>(
    database: &Connection,
    (insert, end): (&str, &str),
    rows: &'r [T],
    values: impl Fn(&'r T) -> [&'r dyn ToSql; 4],
) -> Result<usize, Error> {
    if rows.is_empty() {
        return Ok(0);
    }
    let together = if rows.len() == TOGETHER { TOGETHER } else { 1 };
    let mut statement = database.prepare_cached(&many(insert, together, end))?;
    let mut inserted = 0;
    for some in rows.chunks(together) {
        for (at, value) in (1..).zip(some.iter().flat_map(&values)) {
            statement.raw_bind_parameter(at, value)?;
        }
        inserted += statement.raw_execute()?;
    }
    Ok(inserted)
}

/// A statement that inserts so many rows of four values.
pub(super) fn many(insert: &str, rows: usize, end: &str) -> String {
    let mut sql = String::with_capacity(insert.len() + 10 * rows + end.len() + 8);
    sql += insert;
    sql += " VALUES(?,?,?,?)";
    (1..rows).for_each(|_| sql += ",(?,?,?,?)");
    sql += end;
    sql
}

/// What is kept of rows, for a transaction that writes it.
pub(super) struct Rows<'a> {
    database: &'a Connection,
    load: CachedStatement<'a>,
    forget: CachedStatement<'a>,
    /// Rows that are not in the table yet.
    soon: Vec<Soon>,
    /// Is anything kept of a table's rows? As far as that was asked.
    any: BTreeMap<u32, bool>,
}

struct Soon {
    table: u32,
    key: Key,
    newest: Stamp,
    state: Vec<u8>,
}

impl<'a> Rows<'a> {
    pub(super) fn open(database: &'a Connection) -> Result<Self, Error> {
        let (load, forget) = (database.prepare_cached(LOAD)?, database.prepare_cached(FORGET)?);
        Ok(Self { database, load, forget, soon: Vec::new(), any: BTreeMap::new() })
    }

    /// The row as it is known here: what is kept of it, with the values that are in the table now. Says also whether
    /// anything is kept.
    pub(super) fn load(&mut self, live: &Live, key: &Key, now: Option<Vec<Value>>) -> Result<(Row, bool), Error> {
        self.flush_before(live, key)?;
        let any = self.any(live)?;
        self.load_if(any, live, key, now)
    }

    /// The same, and `any` says whether anything was kept of the table's rows before those that were saved since, of which
    /// this is none.
    pub(super) fn load_if(
        &mut self,
        any: bool,
        live: &Live,
        key: &Key,
        now: Option<Vec<Value>>,
    ) -> Result<(Row, bool), Error> {
        let kept = if any { kept(&mut self.load, live, key)? } else { None };
        known(live, key, kept, now)
    }

    /// Is anything kept of the table's rows?
    pub(super) fn any(&mut self, live: &Live) -> Result<bool, Error> {
        if let Some(any) = self.any.get(&live.table.number) {
            return Ok(*any);
        }
        let any = self.database.prepare_cached("SELECT 1 FROM _ssw_row WHERE tbl=?")?.exists([live.table.number])?;
        self.any.insert(live.table.number, any);
        Ok(any)
    }

    /// Keeps what is known of the row; it is in the table after the next [`flush`](Self::flush).
    pub(super) fn save(&mut self, live: &Live, key: Key, row: &Row) -> Result<(), Error> {
        let table = live.table.number;
        self.any.insert(table, true);
        self.soon.push(Soon { table, key, newest: newest(row), state: row.keep() });
        if self.soon.len() == TOGETHER { self.flush() } else { Ok(()) }
    }

    pub(super) fn forget(&mut self, live: &Live, key: &Key) -> Result<(), Error> {
        self.flush_before(live, key)?;
        self.forget.execute(params![live.table.number, key.0])?;
        Ok(())
    }

    /// Looks at all that is kept of rows that are not in the table.
    pub(super) fn each_gone(
        &mut self,
        live: &Live,
        mut look: impl FnMut(Key, Row) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.flush()?;
        let mut statement = self.database.prepare_cached("SELECT key, state FROM _ssw_row WHERE tbl=?")?;
        let mut rows = statement.query([live.table.number])?;
        while let Some(row) = rows.next()? {
            let (key, state): (Key, Vec<u8>) = (Key(row.get(0)?), row.get(1)?);
            if Row::kept_visible(&state) == Some(false) {
                let (row, _) = known(live, &key, Some(state), None)?;
                look(key, row)?;
            }
        }
        Ok(())
    }

    /// Writes what was saved, if this row is among it.
    fn flush_before(&mut self, live: &Live, key: &Key) -> Result<(), Error> {
        let saved = |soon: &Soon| soon.table == live.table.number && soon.key == *key;
        if self.soon.iter().any(saved) { self.flush() } else { Ok(()) }
    }

    /// Writes what was saved.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        insert_all(self.database, (SAVE, OR_UPDATE), &self.soon, |soon| {
            [&soon.table, &soon.key.0, &soon.newest, &soon.state]
        })?;
        self.soon.clear();
        Ok(())
    }
}

/// The stamp up to which all must be settled before the row is. One of which something is missing is kept until it is told;
/// one for which something is parked, until its table has the column.
fn newest(row: &Row) -> Stamp {
    match row.lives() {
        true if !row.visible() => MISSING,
        true if !row.parked.is_empty() => PARKED,
        _ => row.newest(),
    }
}

/// Above all stamps.
const MISSING: Stamp = Stamp::MAX;
const PARKED: Stamp = Stamp::MAX - 1;

/// The same as [`Rows::load`], for one row, outside a transaction that writes.
pub(super) fn load(database: &Connection, live: &Live, key: &Key, now: Option<&[Value]>) -> Result<(Row, bool), Error> {
    let mut statement = database.prepare_cached(LOAD)?;
    let kept = kept(&mut statement, live, key)?;
    known(live, key, kept, now.map(<[Value]>::to_vec))
}

fn kept(statement: &mut Statement<'_>, live: &Live, key: &Key) -> Result<Option<Vec<u8>>, Error> {
    Ok(statement.query_row(params![live.table.number, key.0], |row| row.get(0)).optional()?)
}

fn known(live: &Live, key: &Key, kept: Option<Vec<u8>>, now: Option<Vec<Value>>) -> Result<(Row, bool), Error> {
    match (kept, now) {
        (Some(kept), now) => {
            let mut row =
                Row::kept(&kept, &live.defaults, now).ok_or_else(|| damaged("a row's versions", "_ssw_row"))?;
            name(&mut row, live, key)?;
            Ok((row, true))
        }
        (None, Some(now)) => Ok((Row::settled(now), false)),
        (None, None) => {
            let mut row = Row::unknown(live.table.columns.len());
            name(&mut row, live, key)?;
            Ok((row, false))
        }
    }
}

/// The key's columns are known with the key.
fn name(row: &mut Row, live: &Live, key: &Key) -> Result<(), Error> {
    let values = key.columns().filter(|values| values.len() == live.table.key.len());
    let values = values.ok_or_else(|| damaged("a key", &live.table.name))?;
    for (column, value) in live.table.key.iter().zip(values) {
        row.values[usize::from(*column)] = Some(value);
    }
    Ok(())
}

/// Keys of the rows of which something is missing.
pub(super) fn partial(database: &Connection, live: &Live) -> Result<Vec<Key>, Error> {
    let mut statement = database.prepare_cached("SELECT key FROM _ssw_row WHERE tbl=? AND newest=?")?;
    let keys = statement.query_map(params![live.table.number, MISSING], |row| Ok(Key(row.get(0)?)))?;
    Ok(keys.collect::<Result<_, _>>()?)
}

/// Keys of the rows for which something is parked, also of those that are gone: an edit may bring them back.
pub(super) fn parked(database: &Connection, live: &Live) -> Result<Vec<Key>, Error> {
    let mut statement = database.prepare_cached("SELECT key, state FROM _ssw_row WHERE tbl=?")?;
    let mut rows = statement.query([live.table.number])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        let state = row.get_ref(1)?.as_blob().unwrap_or_default();
        if Row::kept_parked(state).ok_or_else(|| damaged("a row's versions", "_ssw_row"))? {
            keys.push(Key(row.get(0)?));
        }
    }
    Ok(keys)
}
