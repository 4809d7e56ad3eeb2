//! Versions of rows that are not yet the same everywhere, for all we know (`_ssw_row`).

use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    clock::Stamp,
    merge::Row,
    value::{Key, Value},
};

use super::{Error, damaged, live::Live};

/// The row as it is known here: what is kept of it, with the values that are in the table now. Says also whether anything
/// is kept.
pub(super) fn load(database: &Connection, live: &Live, key: &Key, now: Option<&[Value]>) -> Result<(Row, bool), Error> {
    let kept: Option<Vec<u8>> = database
        .prepare_cached("SELECT state FROM _ssw_row WHERE tbl=? AND key=?")?
        .query_row(params![live.table.number, key.0], |row| row.get(0))
        .optional()?;
    match (kept, now) {
        (Some(kept), now) => {
            let mut row = Row::kept(&kept, &live.defaults, now.map(<[Value]>::to_vec))
                .ok_or_else(|| damaged("a row's versions", "_ssw_row"))?;
            name(&mut row, live, key)?;
            Ok((row, true))
        }
        (None, Some(now)) => Ok((Row::settled(now.to_vec()), false)),
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

pub(super) fn save(database: &Connection, live: &Live, key: &Key, row: &Row) -> Result<(), Error> {
    // A row of which something is missing is kept until it is told.
    let newest = if row.lives() && !row.visible() { Stamp::MAX } else { row.newest() };
    database
        .prepare_cached("INSERT OR REPLACE INTO _ssw_row(tbl, key, newest, state) VALUES(?,?,?,?)")?
        .execute(params![live.table.number, key.0, newest, row.keep()])?;
    Ok(())
}

pub(super) fn forget(database: &Connection, live: &Live, key: &Key) -> Result<(), Error> {
    database
        .prepare_cached("DELETE FROM _ssw_row WHERE tbl=? AND key=?")?
        .execute(params![live.table.number, key.0])?;
    Ok(())
}

/// Keys of the rows of which something is missing.
pub(super) fn partial(database: &Connection, live: &Live) -> Result<Vec<Key>, Error> {
    let mut statement = database.prepare_cached("SELECT key FROM _ssw_row WHERE newest=? AND tbl=?")?;
    let keys = statement.query_map(params![Stamp::MAX, live.table.number], |row| Ok(Key(row.get(0)?)))?;
    Ok(keys.collect::<Result<_, _>>()?)
}
