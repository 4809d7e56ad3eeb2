//! A schema change that all sites must make alike.
//!
//! Before it, no more is written to the replicated tables anywhere, and what was recorded comes to be the same everywhere:
//! then nothing has to be known of any row. Between that and the commit nothing of ours stands in the way of ALTER and
//! DROP. With the commit a site records its tables as they are then, under new numbers, and counts its *schema* up, to a
//! count that all sites agreed on before the first was fenced ([`agree`]). A batch of another count is refused and waits at
//! its sender, so that a site which has committed before another does not get ahead of it.
//!
//! A commit without a change takes the beginning back: nothing is forgotten, and the count stays.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Transaction};

use crate::{
    capture::{self, Wanted, rebuilt, unverified},
    schema::{self, Table, quoted},
};

use super::{Error, Store, damaged, fold, parked, work::Work};

/// What an application's write fails with meanwhile.
const MESSAGE: &str = "siteswap: a schema change is under way; siteswap db schema commit ends it";

/// How often the schema was changed at a site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// So often, until now.
    pub count: u32,
    /// The count that was agreed on for the schema change that is under way, if one is.
    pub agreed: Option<u32>,
}

/// The count that a schema change at all these sites ends with. One that is under way and was ended nowhere keeps its own.
/// If sites count differently, it is two above the most: so each knows that it must not keep its own count.
///
/// # Errors
/// A site that has not ended the schema change which another has ended.
pub fn agree(sites: &BTreeMap<String, Counted>) -> Result<u32, &str> {
    let counts = || sites.values().map(|site| site.count);
    let (least, most) = (counts().min().unwrap_or(0), counts().max().unwrap_or(0));
    if let Some((site, _)) = sites.iter().find(|(_, site)| site.agreed.is_some_and(|agreed| agreed <= most)) {
        return Err(site);
    }
    let agreed = sites.values().filter_map(|site| site.agreed).max();
    Ok(agreed.unwrap_or(most.saturating_add(if least == most { 1 } else { 2 })))
}

impl Store {
    /// Could a schema change begin here? Also tells how often the schema was changed. To be asked at all sites before the
    /// first is fenced.
    ///
    /// # Errors
    /// `Doubtful`, `Lacking`, `Capture`, `Damaged`, `Sqlite`.
    pub fn before_fence(&mut self, now: i64) -> Result<Counted, Error> {
        if agreed(&self.database)?.is_none() {
            self.is_beyond_doubt()?;
        }
        self.transact(|work| {
            let counted = Counted { count: count(work.transaction)?, agreed: agreed(work.transaction)? };
            if counted.agreed.is_none() {
                nothing_is_lacking(work, now)?;
            }
            Ok(counted)
        })
    }

    /// Lets nothing more be written to the replicated tables, and takes our triggers off them. To be repeated until it
    /// says yes: then every peer has applied what was written here. When all sites say so, the schema can be changed. `agreed` is what [`agree`] said.
    ///
    /// # Errors
    /// `Lacking`, `Capture`, `Damaged`, `Sqlite`.
    pub fn fence(&mut self, agreed: u32, now: i64) -> Result<bool, Error> {
        self.transact(|work| {
            if !fenced(work.transaction)? {
                nothing_is_lacking(work, now)?;
                work.close_group()?;
                // Nobody has recorded what was written to tables that a change of their schema has left without our triggers.
                for table in capture::unarmed(work.transaction)? {
                    capture::doubt(work.transaction, &table).map_err(capture::Error::from)?;
                }
                for live in work.tables.values() {
                    capture::disarm(work.transaction, &live.table).map_err(capture::Error::from)?;
                    capture::refuse(work.transaction, &live.table, Some(MESSAGE)).map_err(capture::Error::from)?;
                }
                work.transaction.execute("INSERT OR IGNORE INTO _ssw_meta(k, v) VALUES('schema', 0)", [])?;
            }
            work.transaction.execute("INSERT OR REPLACE INTO _ssw_meta(k, v) VALUES('fence', ?)", [agreed])?;
            Ok(work.peers.values().all(|peer| peer.acknowledged >= work.state.group))
        })
    }

    /// A peer counts so many schema changes. A database that was attached since the last one, and has told and applied nothing
    /// yet, has its result: it counts as the peer does. (One that took part in any, or was copied from one that did, has a
    /// count; an older copy of one that did not has applied something.)
    pub(super) fn count_as_peer(&mut self, theirs: u32) -> Result<(), Error> {
        if theirs == 0 || stored_count(&self.database)?.is_some() {
            return Ok(());
        }
        if self.peers()?.values().any(|peer| peer.applied > 0 || peer.acknowledged > 0) {
            return Ok(());
        }
        self.transact(|work| {
            work.transaction.execute("INSERT OR IGNORE INTO _ssw_meta(k, v) VALUES('schema', ?)", [theirs])?;
            Ok(())
        })
    }
}

/// What is parked is known of rows as they are before the change.
fn nothing_is_lacking(work: &mut Work<'_>, now: i64) -> Result<(), Error> {
    fold::fold(work, now)?;
    let lacking = parked::lacking(work.transaction, work.tables.values().map(|live| &**live))?;
    if lacking.is_empty() { Ok(()) } else { Err(Error::Lacking(lacking.join(", "))) }
}

/// Is a schema change under way?
///
/// # Errors
/// Whatever SQLite says.
pub fn fenced(database: &Connection) -> rusqlite::Result<bool> {
    Ok(agreed(database)?.is_some())
}

/// The count that the schema change which is under way ends with.
fn agreed(database: &Connection) -> rusqlite::Result<Option<u32>> {
    database.prepare_cached("SELECT v FROM _ssw_meta WHERE k='fence'")?.query_row([], |row| row.get(0)).optional()
}

/// Ends a schema change here: the tables are recorded as they are now, and take writes again. With `force` also if a peer
/// lacks something, which is lost to it until the sites are compared. If the schema was not changed, nothing is lost,
/// whatever waits. Returns the tables.
///
/// # Errors
/// `NotFenced`, `Waiting`, `Capture`, `Sqlite`. The transaction should then be rolled back.
pub fn end_fence(transaction: &Transaction<'_>, wanted: Wanted<'_>, force: bool) -> Result<Vec<Table>, Error> {
    let agreed = if capture::is_attached(transaction)? { agreed(transaction)? } else { None };
    let agreed = agreed.ok_or(Error::NotFenced)?;
    let stored = capture::tables(transaction)?;
    let guarded = guarded(transaction, &stored)?;
    let (ours, unchanged) = (count(transaction)?, is_unchanged(transaction, &stored, wanted)?);
    let tables = if unchanged {
        capture::resume(transaction, wanted)?
    } else {
        let rows = "SELECT ifnull(sum(rows), 0) FROM _ssw_group";
        let waiting: u64 = transaction.query_row(rows, [], |row| row.get(0))?;
        if waiting > 0 && !force {
            return Err(Error::Waiting(waiting));
        }
        capture::anew(transaction, wanted)?
    };
    doubt(transaction, &stored, &guarded, &tables)?;
    refuse(transaction, &tables, &remembered(transaction)?)?;
    // More than one above ours: the sites have counted differently, and agree from now on.
    let count = if unchanged && agreed <= ours.saturating_add(1) { ours } else { agreed };
    transaction.execute("DELETE FROM _ssw_meta WHERE k='fence'", [])?;
    transaction.execute("INSERT OR REPLACE INTO _ssw_meta(k, v) VALUES('schema', ?)", [count])?;
    Ok(tables)
}

/// Are the tables what they were, but for what may be changed at any time?
fn is_unchanged(transaction: &Transaction<'_>, stored: &[Table], wanted: Wanted<'_>) -> Result<bool, Error> {
    let departures = capture::inspect(transaction, false)?;
    let same = departures.iter().all(|departure| departure.difference.is_mended_by_refresh());
    Ok(same && stored.iter().all(|table| wanted.includes(&table.name)))
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
            transaction.execute("INSERT OR REPLACE INTO _ssw_meta(k, v) VALUES(?, 1)", [rebuilt(table)])?;
        }
    }
    Ok(())
}

/// Which tables take no writes because another site holds them.
type Held = BTreeMap<String, Option<String>>;

/// Has writes to tables that another site holds fail and name it, and those to all others succeed.
pub(super) fn refuse<'a>(
    transaction: &Transaction<'_>,
    tables: impl IntoIterator<Item = &'a Table>,
    held: &Held,
) -> Result<(), Error> {
    for table in tables {
        let message = |holder| format!("siteswap: site {holder} holds table {}; write it there", table.name);
        let message = holder(held, table).map(message);
        capture::refuse(transaction, table, message.as_deref()).map_err(capture::Error::from)?;
    }
    Ok(())
}

fn holder<'a>(held: &'a Held, table: &Table) -> Option<&'a String> {
    held.iter().find(|(name, _)| name.eq_ignore_ascii_case(&table.name)).and_then(|(_, holder)| holder.as_ref())
}

/// Refuses writes to tables that another site holds and that have come, or were made anew, since [`refuse`].
pub(super) fn refuse_new(transaction: &Transaction<'_>) -> Result<(), Error> {
    let held = remembered(transaction)?;
    for table in capture::tables(transaction)? {
        let exists = schema::read(transaction, &table.name).is_ok();
        if exists && holder(&held, &table).is_some() && !capture::refuses(transaction, &table, &table.name)? {
            refuse(transaction, [&table], &held)?;
        }
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
    Ok(stored_count(database)?.unwrap_or(0))
}

/// None: since it was attached it has not taken part in a schema change, or heard of one.
fn stored_count(database: &Connection) -> rusqlite::Result<Option<u32>> {
    database.prepare_cached("SELECT v FROM _ssw_meta WHERE k='schema'")?.query_row([], |row| row.get(0)).optional()
}
