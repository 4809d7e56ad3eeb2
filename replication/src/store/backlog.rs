//! What waits for a peer that is away: it is consolidated, and at last forgotten.

use std::collections::{BTreeMap, btree_map::Entry};

use rusqlite::{Connection, Row as SqlRow, params};

use crate::{
    change::Change,
    clock::{Sight, SiteId, Stamp},
    layout::NOTICES,
    merge::Row,
};

use super::{
    Error, Peer, Store,
    batch::{BYTES, ROWS, sight},
    damaged,
};

/// All groups, the oldest first, as [`Run::of`] reads them.
const GROUPS: &str = "SELECT grp, last, rows, bytes FROM _ssw_group ORDER BY grp";

/// What is kept of a deleted row without its values takes some forty bytes: whatever takes no more than this is not looked
/// at for any.
const WITHOUT_VALUES: u64 = 64;

/// Bytes that are kept for peers that are away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Of changes that not every peer has applied.
    pub changes: u64,
    /// Of what rows were that are deleted.
    pub images: u64,
}

impl Kept {
    /// Of both.
    pub fn bytes(&self) -> u64 {
        self.changes + self.images
    }
}

/// Neighbouring groups that are consolidated or forgotten together.
#[derive(Clone, Copy)]
struct Run {
    first: u64,
    last: u64,
    groups: u64,
    rows: u64,
    bytes: u64,
}

impl Run {
    /// One group.
    fn of(row: &SqlRow<'_>) -> rusqlite::Result<Self> {
        Ok(Self { first: row.get(0)?, last: row.get(1)?, groups: 1, rows: row.get(2)?, bytes: row.get(3)? })
    }

    /// The run with the next one behind it, if both go into one batch.
    fn with(&self, next: &Self) -> Option<Self> {
        let (rows, bytes) = (self.rows + next.rows, self.bytes + next.bytes);
        let groups = self.groups + next.groups;
        (rows <= ROWS && bytes <= BYTES).then_some(Self { first: self.first, last: next.last, groups, rows, bytes })
    }
}

/// How much of this site a peer has.
struct Extent {
    /// All up to this group, for certain.
    acknowledged: u64,
    /// Nothing after this one.
    told: u64,
}

impl Extent {
    /// It has all of these groups, or none of them.
    fn is_beside(&self, run: &Run) -> bool {
        run.last <= self.acknowledged || self.told < run.first
    }
}

impl Store {
    /// Consolidates the changes of neighbouring groups, `least` or more of them, into one group: of changes to one row the
    /// newest of each column stays. Says whether it did; then there may be more to do.
    ///
    /// Only groups are taken of which each peer has all or none, because the new one is applied as a whole, and only as
    /// many as go into one batch.
    ///
    /// # Errors
    /// `Damaged`, `Sqlite`.
    pub fn compact(&mut self, least: u64) -> Result<bool, Error> {
        if self.outside.is_none() {
            return Ok(false);
        }
        let extents = self.extents()?;
        // Nobody waits for the write lock if there is nothing to do. Only this store tells peers anything, and only it
        // consolidates.
        let Some(run) = run(&self.database, &extents, least)? else { return Ok(false) };
        self.transact(|work| consolidate(work.transaction, work.settings.site, run))?;
        Ok(true)
    }

    /// What each peer has. One that was never heard may begin with a copy of this database, or of another peer's, and so
    /// anywhere.
    fn extents(&self) -> Result<Vec<Extent>, Error> {
        let told = |site| self.told.borrow().get(&site).map_or(self.opened, |told| self.opened.max(*told));
        let extent = |(site, peer): (SiteId, Peer)| Extent {
            acknowledged: peer.acknowledged,
            told: peer.incarnation.map_or(u64::MAX, |_| told(site).max(peer.acknowledged)),
        };
        Ok(self.peers()?.into_iter().map(extent).collect())
    }

    /// Forgets what is kept for peers that are away, while it takes more than `limit` bytes: first the values of deleted
    /// rows, then the oldest groups. As much at a time as goes into one batch, so that nobody waits long for the write lock. A
    /// peer that lacks these groups goes on behind them and is compared with this site; so is one that brings back a row
    /// whose values are forgotten. Says whether it forgot anything; then there may be more to do.
    ///
    /// # Errors
    /// `Damaged`, `Sqlite`.
    pub fn forget_beyond(&mut self, limit: u64) -> Result<bool, Error> {
        let kept = self.kept(limit)?;
        if kept.bytes() <= limit {
            return Ok(false);
        }
        self.transact(|work| {
            if kept.images > 0 && forget_images(work.transaction)? {
                return Ok(true);
            }
            let Some(run) = oldest(work.transaction, kept.changes.saturating_sub(limit))? else { return Ok(false) };
            work.transaction.execute("DELETE FROM _ssw_change WHERE grp <= ?", [run.last])?;
            work.transaction.execute("DELETE FROM _ssw_group WHERE grp <= ?", [run.last])?;
            Ok(true)
        })
    }

    /// What is kept for peers that are away. What deleted rows were is read, and so only counted if the whole database takes
    /// more than `limit` bytes.
    ///
    /// # Errors
    /// `Damaged`, `Sqlite`.
    pub fn kept(&self, limit: u64) -> Result<Kept, Error> {
        let ask = |sql| self.database.query_row(sql, [], |row| row.get::<_, u64>(0));
        let mut kept = Kept { changes: ask("SELECT ifnull(sum(bytes), 0) FROM _ssw_group")?, images: 0 };
        let pages = ask("PRAGMA page_count")?.saturating_sub(ask("PRAGMA freelist_count")?);
        if pages * ask("PRAGMA page_size")? > limit {
            each_image(&self.database, |_, _, bytes| {
                kept.images += bytes;
                true
            })?;
        }
        Ok(kept)
    }
}

/// What is kept of rows that were deleted, with their values: tables' numbers, keys, what to keep without the values, and the
/// bytes that this saves. For as long as `each` says.
fn each_image(database: &Connection, mut each: impl FnMut((u32, Vec<u8>), Vec<u8>, u64) -> bool) -> Result<(), Error> {
    let mut statement = database.prepare_cached("SELECT tbl, key, state FROM _ssw_row WHERE length(state) > ?")?;
    let mut rows = statement.query([WITHOUT_VALUES])?;
    while let Some(row) = rows.next()? {
        let state = row.get_ref(2)?.as_blob().unwrap_or_default();
        let without = Row::kept_without_values(state).ok_or_else(|| damaged("a row's versions", "_ssw_row"))?;
        if let Some(without) = without {
            let bytes = state.len().saturating_sub(without.len()) as u64;
            if !each((row.get(0)?, row.get(1)?), without, bytes) {
                break;
            }
        }
    }
    Ok(())
}

/// Forgets what deleted rows were, as many at a time as go into one batch. Says whether there were any.
fn forget_images(database: &Connection) -> Result<bool, Error> {
    let (mut found, mut freed) = (Vec::new(), 0);
    each_image(database, |row, without, bytes| {
        found.push((row, without));
        freed += bytes;
        (found.len() as u64) < ROWS && freed < BYTES
    })?;
    let mut update = database.prepare_cached("UPDATE _ssw_row SET state=? WHERE tbl=? AND key=?")?;
    for ((table, key), without) in &found {
        update.execute(params![without, table, key])?;
    }
    Ok(!found.is_empty())
}

/// The oldest groups, one at least, until they take so many bytes or no more go into one batch.
fn oldest(database: &Connection, bytes: u64) -> Result<Option<Run>, Error> {
    let mut statement = database.prepare_cached(GROUPS)?;
    let mut groups = statement.query([])?;
    let mut run: Option<Run> = None;
    while run.is_none_or(|run| run.bytes < bytes)
        && let Some(row) = groups.next()?
    {
        let next = Run::of(row)?;
        match run.map(|run| run.with(&next)) {
            None => run = Some(next),
            Some(Some(longer)) => run = Some(longer),
            Some(None) => break,
        }
    }
    Ok(run)
}

/// Neighbouring groups with `least` rows or more that may be consolidated.
fn run(database: &Connection, extents: &[Extent], least: u64) -> Result<Option<Run>, Error> {
    let free = |run: &Run| extents.iter().all(|extent| extent.is_beside(run));
    let worth = |run: &Run| run.groups > 1 && run.rows >= least;
    let mut statement = database.prepare_cached(GROUPS)?;
    let mut groups = statement.query([])?;
    let mut run: Option<Run> = None;
    while let Some(row) = groups.next()? {
        let next = Run::of(row)?;
        match run.and_then(|run| run.with(&next)).filter(free) {
            Some(longer) => run = Some(longer),
            None if run.as_ref().is_some_and(worth) => break,
            None => run = Some(next).filter(free),
        }
    }
    Ok(run.filter(worth))
}

/// Makes one group of these.
fn consolidate(database: &Connection, site: u32, Run { first, last, .. }: Run) -> Result<(), Error> {
    let mut all: BTreeMap<(u32, Vec<u8>), Change> = BTreeMap::new();
    // The later of two is the one that was restored.
    let move_notices = "UPDATE OR REPLACE _ssw_change SET grp=?1 WHERE grp BETWEEN ?1 AND ?2 AND tbl=?3";
    database.prepare_cached(move_notices)?.execute(params![first, last, NOTICES])?;
    let mut statement = database
        .prepare_cached("SELECT tbl, key, body FROM _ssw_change WHERE grp BETWEEN ? AND ? AND tbl <> ? ORDER BY grp")?;
    let mut changes = statement.query(params![first, last, NOTICES])?;
    while let Some(row) = changes.next()? {
        let body: Vec<u8> = row.get(2)?;
        let change = Change::decode(site, &mut &body[..]).ok_or_else(|| damaged("a change", "_ssw_change"))?;
        match all.entry((row.get(0)?, row.get(1)?)) {
            Entry::Vacant(entry) => drop(entry.insert(change)),
            Entry::Occupied(mut entry) => entry.get_mut().combine(change),
        }
    }
    drop(changes);
    database
        .execute("DELETE FROM _ssw_change WHERE grp BETWEEN ? AND ? AND tbl <> ?", params![first, last, NOTICES])?;
    let mut insert = database.prepare_cached("INSERT INTO _ssw_change(grp, tbl, key, body) VALUES(?,?,?,?)")?;
    for ((table, key), change) in &all {
        let mut body = Vec::with_capacity(64);
        change.encode(site, &mut body);
        insert.execute(params![first, table, key, body])?;
    }
    let (clock, mut sight) = seen(database, first, last)?;
    sight.keep(all.values().flat_map(Change::stamps));
    let sight = postcard::to_stdvec(&sight).map_err(|_| damaged("what was seen", "_ssw_group"))?;
    database.execute("DELETE FROM _ssw_group WHERE grp > ? AND grp <= ?", [first, last])?;
    database.execute(
        "UPDATE _ssw_group SET last=?2, clock=?3, seen=?4, (rows, bytes)=(SELECT count(*), \
         ifnull(sum(length(key) + length(body)), 0) FROM _ssw_change WHERE grp=?1) WHERE grp=?1",
        params![first, last, clock, sight],
    )?;
    Ok(())
}

/// The newest stamp in these groups, and what their writers could have seen.
fn seen(database: &Connection, first: u64, last: u64) -> Result<(Stamp, Sight), Error> {
    let mut statement =
        database.prepare_cached("SELECT clock, seen FROM _ssw_group WHERE grp BETWEEN ? AND ? ORDER BY grp")?;
    let mut groups = statement.query([first, last])?;
    let (mut clock, mut all) = (0, Sight::default());
    while let Some(group) = groups.next()? {
        clock = group.get(0)?;
        all.append(sight(group.get_ref(1)?)?);
    }
    Ok((clock, all))
}
