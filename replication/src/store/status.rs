//! How a database stands.

use std::collections::BTreeMap;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use crate::capture::{self, Wanted};

use super::{
    Error, Settings, State, Store,
    acknowledge::forgotten_for,
    fenced, fold, parked, take_up,
    work::{self, Work},
};

/// How a database stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// An operator wants no changes sent or taken.
    pub paused: bool,
    /// A schema change is under way: no table takes an application's writes.
    pub fenced: bool,
    /// This site's last group.
    pub group: u64,
    /// Rows whose versions are kept: not yet known to be the same everywhere.
    pub unsettled: u64,
    /// Conflicts in the log.
    pub conflicts: u64,
    /// Columns that peers have and this site lacks, as `table.column`: what is written to them waits here.
    pub lacking: Vec<String>,
    /// What each peer, by name, has not applied yet.
    pub peers: BTreeMap<String, Backlog>,
}

/// What a peer has not applied yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Its groups up to this one are applied here.
    pub applied: u64,
    /// Our groups up to this one are applied there.
    pub acknowledged: u64,
    /// Rows in later groups.
    pub rows: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// Milliseconds since the oldest of them was recorded.
    pub lag: u64,
    /// It lacks more, which is not kept here any more: once it is back the databases are compared.
    pub forgotten: bool,
}

impl Store {
    /// How the database stands at `now`, in milliseconds since 1970.
    ///
    /// # Errors
    /// `Damaged`, `Sqlite`.
    pub fn status(&self, now: i64) -> Result<Status, Error> {
        let count = |sql| self.database.query_row(sql, [], |row| row.get(0));
        Ok(Status {
            paused: self.paused()?,
            fenced: fenced(&self.database)?,
            group: State::load(&self.database)?.group,
            unsettled: count("SELECT count(*) FROM _ssw_row")?,
            conflicts: count("SELECT count(*) FROM _ssw_conflict")?,
            lacking: parked::lacking(&self.database, self.tables.values().map(|live| &**live))?,
            peers: self.backlogs(now)?,
        })
    }

    /// What each peer, by name, has not applied yet at `now`.
    ///
    /// # Errors
    /// `Damaged`, `Sqlite`.
    pub fn backlogs(&self, now: i64) -> Result<BTreeMap<String, Backlog>, Error> {
        backlogs(&self.database, &self.settings, now)
    }

    /// Ends the capture of all tables, if every peer has applied all that was written before; then nothing of ours is left,
    /// and the store is of no use any more. Otherwise only what was written is folded, and it returns what waits.
    ///
    /// # Errors
    /// `Doubtful`, `Capture`, `Damaged`, `Sqlite`.
    pub fn detach(&mut self, now: i64) -> Result<BTreeMap<String, Backlog>, Error> {
        self.detach_telling(now, |_, _| ())
    }

    /// The same; tells now and then how many of the touches that were not folded it has, and of how many.
    ///
    /// # Errors
    /// As [`detach`](Self::detach).
    pub fn detach_telling(
        &mut self,
        now: i64,
        mut tell: impl FnMut(u64, u64),
    ) -> Result<BTreeMap<String, Backlog>, Error> {
        self.is_beyond_doubt()?;
        let transaction = Transaction::new(&mut self.database, TransactionBehavior::Immediate)?;
        let tables = take_up(&transaction, &self.settings, self.schema)?;
        let mut work = Work::begin(&transaction, &self.settings, tables.as_ref().unwrap_or(&self.tables))?;
        fold::fold_and_tell(&mut work, now, &mut tell)?;
        work.finish()?;
        let mut waiting = backlogs(&transaction, &self.settings, now)?;
        waiting.retain(|_, backlog| backlog.rows > 0 || backlog.forgotten);
        if waiting.is_empty() {
            capture::detach(&transaction, Wanted::All)?;
        }
        transaction.commit()?;
        // Whoever goes on with it looks at the schema anew.
        self.schema = None;
        Ok(waiting)
    }

    /// The replicated tables' names.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        self.tables.values().map(|live| live.table.name.as_str())
    }
}

fn backlogs(database: &Connection, settings: &Settings, now: i64) -> Result<BTreeMap<String, Backlog>, Error> {
    let mut backlogs = BTreeMap::new();
    let last = State::load(database)?.group;
    for (site, peer) in work::peers(database, settings)? {
        let sql =
            "SELECT ifnull(sum(rows), 0), ifnull(sum(bytes), 0), ifnull(min(ms), ?) FROM _ssw_group WHERE last > ?";
        let backlog = database.prepare_cached(sql)?.query_row(params![now, peer.acknowledged], |row| {
            Ok(Backlog {
                applied: peer.applied,
                acknowledged: peer.acknowledged,
                rows: row.get(0)?,
                bytes: row.get(1)?,
                lag: u64::try_from(now - row.get::<_, i64>(2)?).unwrap_or(0),
                forgotten: false,
            })
        })?;
        let forgotten = forgotten_for(database, last, peer.acknowledged)? > peer.acknowledged;
        let backlog = Backlog { forgotten, ..backlog };
        backlogs.insert(settings.sites.get(&site).cloned().unwrap_or_default(), backlog);
    }
    Ok(backlogs)
}
