//! What waits for a peer that is away: it is consolidated, and at last forgotten.

use std::collections::{BTreeMap, btree_map::Entry};

use rusqlite::{Connection, params};

use crate::change::Change;

use super::{
    Error, Store,
    batch::{BYTES, ROWS},
    damaged,
};

/// Neighbouring groups that may be consolidated.
struct Run {
    first: u64,
    last: u64,
    groups: u64,
    rows: u64,
    bytes: u64,
    /// What their writers could have seen: the same for all.
    seen: Vec<u8>,
    /// They were recorded before the database was opened.
    early: bool,
}

impl Run {
    /// The run with the next one behind it, if both are alike and go into one batch.
    fn with(&self, next: &Self) -> Option<Self> {
        let (rows, bytes) = (self.rows + next.rows, self.bytes + next.bytes);
        let alike = self.seen == next.seen && self.early == next.early;
        (alike && rows <= ROWS && bytes <= BYTES).then(|| Self {
            first: self.first,
            last: next.last,
            groups: self.groups + next.groups,
            rows,
            bytes,
            seen: next.seen.clone(),
            early: self.early,
        })
    }
}

impl Store {
    /// Consolidates the changes of neighbouring groups, `least` or more of them, into one group: of changes to one row the
    /// newest of each column stays. Says whether it did; then there may be more to do.
    ///
    /// Only groups that no peer can have are taken, because the new one is applied as a whole, and only as many as go
    /// into one batch.
    ///
    /// # Errors
    /// `Damaged`, `Sqlite`.
    pub fn compact(&mut self, least: u64) -> Result<bool, Error> {
        let Some(told) = self.told() else { return Ok(false) };
        let bounds = (told, self.opened);
        // Nobody waits for the write lock if there is nothing to do.
        if run(&self.database, bounds, least)?.is_none() {
            return Ok(false);
        }
        self.transact(|work| {
            let Some((first, last)) = run(work.transaction, bounds, least)? else { return Ok(false) };
            consolidate(work.transaction, work.settings.site, first, last)?;
            Ok(true)
        })
    }

    /// Forgets the oldest groups while all of them take more than `limit` bytes. A peer that lacks them goes on behind them
    /// and is compared with this site. Says whether it forgot any.
    ///
    /// # Errors
    /// `Damaged`, `Sqlite`.
    pub fn forget_beyond(&mut self, limit: u64) -> Result<bool, Error> {
        let total: u64 =
            self.database.query_row("SELECT ifnull(sum(bytes), 0) FROM _ssw_group", [], |row| row.get(0))?;
        if total <= limit {
            return Ok(false);
        }
        self.transact(|work| {
            // Not for every change anew.
            let enough = total - limit / 5 * 4;
            let sql =
                "SELECT max(grp) FROM (SELECT grp, sum(bytes) OVER (ORDER BY grp) - bytes AS before FROM _ssw_group)
                       WHERE before < ?";
            let last: u64 = work.transaction.query_row(sql, [enough], |row| row.get(0))?;
            work.transaction.execute("DELETE FROM _ssw_change WHERE grp <= ?", [last])?;
            work.transaction.execute("DELETE FROM _ssw_group WHERE grp <= ?", [last])?;
            Ok(true)
        })
    }
}

/// Neighbouring groups above `told` with `least` rows or more that go into one batch, by the numbers of the first and the
/// last. Those from before the database was `opened` are kept apart from later ones.
fn run(database: &Connection, (told, opened): (u64, u64), least: u64) -> Result<Option<(u64, u64)>, Error> {
    let worth = |run: &Run| run.groups > 1 && run.rows >= least;
    let sql = "SELECT grp, last, seen, rows, bytes FROM _ssw_group WHERE grp > ? ORDER BY grp";
    let mut statement = database.prepare_cached(sql)?;
    let mut groups = statement.query([told])?;
    let mut run: Option<Run> = None;
    while let Some(row) = groups.next()? {
        let first = row.get(0)?;
        let (last, seen, rows, bytes) = (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
        let next = Run { first, last, groups: 1, rows, bytes, seen, early: first <= opened };
        match run.as_ref().and_then(|run| run.with(&next)) {
            Some(longer) => run = Some(longer),
            None if run.as_ref().is_some_and(worth) => break,
            None => run = Some(next),
        }
    }
    Ok(run.filter(worth).map(|run| (run.first, run.last)))
}

/// Makes one group of those between these numbers.
fn consolidate(database: &Connection, site: u32, first: u64, last: u64) -> Result<(), Error> {
    let mut all: BTreeMap<(u32, Vec<u8>), Change> = BTreeMap::new();
    let mut statement =
        database.prepare_cached("SELECT tbl, key, body FROM _ssw_change WHERE grp BETWEEN ? AND ? ORDER BY grp")?;
    let mut changes = statement.query([first, last])?;
    while let Some(row) = changes.next()? {
        let body: Vec<u8> = row.get(2)?;
        let change = Change::decode(site, &mut &body[..]).ok_or_else(|| damaged("a change", "_ssw_change"))?;
        match all.entry((row.get(0)?, row.get(1)?)) {
            Entry::Vacant(entry) => drop(entry.insert(change)),
            Entry::Occupied(mut entry) => entry.get_mut().combine(change),
        }
    }
    drop(changes);
    database.execute("DELETE FROM _ssw_change WHERE grp BETWEEN ? AND ?", [first, last])?;
    let mut insert = database.prepare_cached("INSERT INTO _ssw_change(grp, tbl, key, body) VALUES(?,?,?,?)")?;
    let mut bytes = 0;
    for ((table, key), change) in &all {
        let mut body = Vec::with_capacity(64);
        change.encode(site, &mut body);
        insert.execute(params![first, table, key, body])?;
        bytes += key.len() + body.len();
    }
    let clock: i64 =
        database.query_row("SELECT max(clock) FROM _ssw_group WHERE grp BETWEEN ? AND ?", [first, last], |row| {
            row.get(0)
        })?;
    database.execute("DELETE FROM _ssw_group WHERE grp > ? AND grp <= ?", [first, last])?;
    database.execute(
        "UPDATE _ssw_group SET last=?2, clock=?3, rows=?4, bytes=?5 WHERE grp=?1",
        params![first, last, clock, all.len(), bytes],
    )?;
    Ok(())
}
