//! Columns that a peer has and this site does not have yet: their values are parked with their rows until it has them.

use std::{collections::BTreeSet, rc::Rc};

use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};

use super::{
    Error,
    apply::{Found, Resolved, Waiting, write},
    conflicts, damaged, fence,
    live::Live,
    repair::{self, Check, Checks},
    rows, schema_version,
    work::Work,
};

/// What this site lacks.
#[derive(Default, Serialize, Deserialize)]
struct Lacking {
    /// Tables and columns.
    columns: BTreeSet<(String, String)>,
    /// `PRAGMA schema_version` when they were last looked for.
    looked: i64,
}

impl Lacking {
    fn load(database: &Connection) -> Result<Self, Error> {
        let bytes: Option<Vec<u8>> = database
            .prepare_cached("SELECT v FROM _ssw_meta WHERE k='lacking'")?
            .query_row([], |row| row.get(0))
            .optional()?;
        bytes.map_or_else(|| Ok(Self::default()), |bytes| postcard::from_bytes(&bytes).map_err(|_| unreadable()))
    }

    fn may_be_there(&self, database: &Connection) -> Result<bool, Error> {
        Ok(!self.columns.is_empty() && self.looked != schema_version(database)?)
    }

    fn save(&self, database: &Connection) -> Result<(), Error> {
        if self.columns.is_empty() {
            database.execute("DELETE FROM _ssw_meta WHERE k='lacking'", [])?;
            return Ok(());
        }
        let bytes = postcard::to_stdvec(self).map_err(|_| unreadable())?;
        database.execute("INSERT OR REPLACE INTO _ssw_meta(k, v) VALUES('lacking', ?)", [bytes])?;
        Ok(())
    }
}

fn unreadable() -> Error {
    damaged("what this site lacks", "_ssw_meta")
}

/// A peer has this column.
///
/// # Errors
/// `Unknown`: a schema change is under way, after which nothing is known of parked values. `Damaged`, `Sqlite`.
pub(super) fn note(database: &Connection, table: &str, column: &str) -> Result<(), Error> {
    if fence::fenced(database)? {
        return Err(Error::Unknown(format!("column {table}.{column}")));
    }
    let mut lacking = Lacking::load(database)?;
    if lacking.columns.insert((table.to_owned(), column.to_owned())) {
        lacking.looked = schema_version(database)?;
        lacking.save(database)?;
    }
    Ok(())
}

/// The columns of these tables that peers have and this site lacks, as `table.column`.
pub(super) fn lacking<'a>(
    database: &Connection,
    tables: impl IntoIterator<Item = &'a Live>,
) -> Result<Vec<String>, Error> {
    let names: Vec<&str> = tables.into_iter().map(|live| live.table.name.as_str()).collect();
    let is_named = |table: &str| names.iter().any(|name| name.eq_ignore_ascii_case(table));
    let columns = Lacking::load(database)?.columns.into_iter().filter(|(table, _)| is_named(table));
    Ok(columns.map(|(table, column)| format!("{table}.{column}")).collect())
}

/// May there be a column that was lacking?
pub(super) fn may_be_there(database: &Connection) -> Result<bool, Error> {
    Lacking::load(database)?.may_be_there(database)
}

/// Puts parked values into columns that were added. What applications have written to these must have been folded.
pub(super) fn take_up(work: &mut Work<'_>, now: i64) -> Result<(), Error> {
    let mut lacking = Lacking::load(work.transaction)?;
    if !lacking.may_be_there(work.transaction)? {
        return Ok(());
    }
    let (mut found, mut checks) = (Found::default(), Checks::new());
    for live in work.tables.values() {
        let before = lacking.columns.len();
        let is_there = |(table, column): &(String, String)| {
            table.eq_ignore_ascii_case(&live.table.name) && live.table.column(column).is_some()
        };
        lacking.columns.retain(|column| !is_there(column));
        if lacking.columns.len() < before {
            take_up_table(work, live, &mut found, &mut checks)?;
        }
    }
    lacking.looked = schema_version(work.transaction)?;
    lacking.save(work.transaction)?;
    checks.extend(repair::collisions(work, &mut found, now)?);
    repair::check_all(work, &mut checks, &mut found, now)
}

fn take_up_table(work: &mut Work<'_>, live: &Rc<Live>, found: &mut Found, checks: &mut Checks) -> Result<(), Error> {
    let mut table = Resolved::new(live, Vec::new(), work.transaction)?;
    work.flush()?;
    for key in rows::parked(work.transaction, live)? {
        let columns = key.columns().ok_or_else(|| damaged("a key", "_ssw_row"))?;
        let now = live.read(work.transaction, &columns)?;
        let there = now.is_some();
        let (mut row, kept) = work.rows.load(live, &key, now)?;
        let joined = row.unpark(|name| live.table.column(name), &live.extremes);
        for conflict in &joined.conflicts {
            conflicts::log(work, live, &key, conflict)?;
        }
        let written = write(work, &mut table, &columns, there, &row, &joined.changed)?;
        work.keep(live, &key, &mut row, kept)?;
        checks.push(Check::new(live, &key));
        if !written {
            found.waiting.push(Waiting { live: Rc::clone(live), key, row });
        }
    }
    Ok(())
}
