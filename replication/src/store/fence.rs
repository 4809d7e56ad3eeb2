//! A schema change that all sites must make alike.
//!
//! Before it, no more is written to the replicated tables anywhere, and what was recorded comes to be the same everywhere:
//! then nothing has to be known of any row. Between that and the commit nothing of ours stands in the way of ALTER and
//! DROP. With the commit a site records its tables as they are then, under new numbers, and counts its *schema* up. A batch
//! of another count is refused and waits at its sender, so that a site which has committed before another does not get ahead
//! of it.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Transaction};

use crate::{
    capture::{self, Wanted, unverified},
    schema::{self, Table, quoted},
};

use super::{Error, Store, damaged, fold, parked};

/// What an application's write fails with meanwhile.
const MESSAGE: &str = "siteswap: a schema change is under way; siteswap db schema commit ends it";

impl Store {
    /// Lets nothing more be written to the replicated tables, and takes our triggers off them. To be repeated until it
    /// says yes: then every peer has applied what was written here. When all sites say so, the schema can be changed.
    ///
    /// # Errors
    /// `Lacking`, `Capture`, `Damaged`, `Sqlite`.
    pub fn fence(&mut self, now: i64) -> Result<bool, Error> {
        let fenced = fenced(&self.database)?;
        self.transact(|work| {
            if !fenced {
                fold::fold(work, now)?;
                let lacking = parked::lacking(work.transaction, work.tables)?;
                if !lacking.is_empty() {
                    return Err(Error::Lacking(lacking.join(", ")));
                }
                work.close_group()?;
                for live in work.tables.values() {
                    capture::disarm(work.transaction, &live.table).map_err(capture::Error::from)?;
                    capture::refuse(work.transaction, &live.table, Some(MESSAGE)).map_err(capture::Error::from)?;
                }
                work.transaction.execute("INSERT OR REPLACE INTO _ssw_meta(k, v) VALUES('fence', 1)", [])?;
            }
            Ok(work.peers.values().all(|peer| peer.acknowledged >= work.state.group))
        })
    }
}

/// Is a schema change under way?
///
/// # Errors
/// Whatever SQLite says.
pub fn fenced(database: &Connection) -> rusqlite::Result<bool> {
    database.prepare_cached("SELECT 1 FROM _ssw_meta WHERE k='fence'")?.exists([])
}

/// Ends a schema change here: the tables are recorded as they are now, and take writes again. With `force` also if a peer
/// lacks something, which is lost to it until the sites are compared. Returns the tables.
///
/// # Errors
/// `NotFenced`, `Waiting`, `Capture`, `Sqlite`. The transaction should then be rolled back.
pub fn end_fence(transaction: &Transaction<'_>, wanted: Wanted<'_>, force: bool) -> Result<Vec<Table>, Error> {
    if !capture::is_attached(transaction)? || !fenced(transaction)? {
        return Err(Error::NotFenced);
    }
    let waiting: u64 = transaction.query_row("SELECT ifnull(sum(rows), 0) FROM _ssw_group", [], |row| row.get(0))?;
    if waiting > 0 && !force {
        return Err(Error::Waiting(waiting));
    }
    let stored = capture::tables(transaction)?;
    let guarded = guarded(transaction, &stored)?;
    let tables = capture::anew(transaction, wanted)?;
    doubt(transaction, &stored, &guarded, &tables)?;
    refuse(transaction, &tables, &remembered(transaction)?)?;
    transaction.execute_batch(
        "DELETE FROM _ssw_meta WHERE k='fence';
         INSERT INTO _ssw_meta(k, v) VALUES('schema', 1) ON CONFLICT(k) DO UPDATE SET v = v + 1;",
    )?;
    Ok(tables)
}

/// Names of tables that have refused writes since the schema change began, and were in no doubt before. SQLite's way to change what
/// ALTER TABLE cannot drops the table, and our triggers with it: then writes may have been made that nobody has recorded.
fn guarded(transaction: &Transaction<'_>, stored: &[Table]) -> Result<Vec<String>, Error> {
    let mut doubted = transaction.prepare_cached("SELECT 1 FROM _ssw_meta WHERE k=?")?;
    let mut all = Vec::new();
    for name in schema::names(transaction).map_err(capture::Error::from)? {
        for table in stored {
            if capture::refuses(transaction, table, &name)? && !doubted.exists([unverified(table)])? {
                all.push(name.clone());
            }
        }
    }
    Ok(all)
}

/// Marks tables that may have taken writes before the end of the schema change. One that is new and has no rows need not be
/// compared: if a peer's has some, the peer knows.
fn doubt(transaction: &Transaction<'_>, stored: &[Table], guarded: &[String], tables: &[Table]) -> Result<(), Error> {
    for table in tables.iter().filter(|table| !guarded.contains(&table.name)) {
        let is_new = !stored.iter().any(|old| old.name.eq_ignore_ascii_case(&table.name));
        let sql = format!("SELECT 1 FROM main.{}", quoted(&table.name));
        if !is_new || transaction.prepare(&sql)?.exists([])? {
            capture::doubt(transaction, table)?;
        }
    }
    Ok(())
}

/// Which tables take no writes because another site holds them.
type Held = BTreeMap<String, Option<String>>;

/// Has writes to tables that another site holds fail and name it.
pub(super) fn refuse<'a>(
    transaction: &Transaction<'_>,
    tables: impl IntoIterator<Item = &'a Table>,
    held: &Held,
) -> Result<(), Error> {
    for table in tables {
        let Some((_, holder)) = held.iter().find(|(name, _)| name.eq_ignore_ascii_case(&table.name)) else { continue };
        let message = |holder| format!("siteswap: site {holder} holds table {}; write it there", table.name);
        let message = holder.as_ref().map(message);
        capture::refuse(transaction, table, message.as_deref()).map_err(capture::Error::from)?;
    }
    Ok(())
}

/// For tables that are recorded anew.
pub(super) fn remember(database: &Connection, held: &Held) -> Result<(), Error> {
    let held = postcard::to_stdvec(held).map_err(|_| damaged("who holds tables", "_ssw_meta"))?;
    database.execute("INSERT OR REPLACE INTO _ssw_meta(k, v) VALUES('held', ?)", [held])?;
    Ok(())
}

fn remembered(database: &Connection) -> Result<Held, Error> {
    let held: Option<Vec<u8>> =
        database.query_row("SELECT v FROM _ssw_meta WHERE k='held'", [], |row| row.get(0)).optional()?;
    let read = |held: Vec<u8>| postcard::from_bytes(&held).map_err(|_| damaged("who holds tables", "_ssw_meta"));
    held.map_or_else(|| Ok(Held::new()), read)
}

/// How often the schema was changed at all sites.
pub(super) fn count(database: &Connection) -> rusqlite::Result<u32> {
    let count = database
        .prepare_cached("SELECT v FROM _ssw_meta WHERE k='schema'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(count.unwrap_or(0))
}
