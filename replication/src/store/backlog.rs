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

/// At most so many rows are looked at before anything else is done.
const LOOK: u64 = 10 * ROWS;

/// Bytes that are kept for peers that are away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Of changes that not every peer has applied.
    pub changes: u64,
    /// Of what rows were that are deleted.
    pub images: u64,
    /// Of the knowledge that they are.
    pub deletions: u64,
}

impl Kept {
    /// Of all.
    pub fn bytes(&self) -> u64 {
        self.changes + self.images + self.deletions
    }
}

/// What [`Store::forget_beyond`] found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weighed {
    /// What was kept before.
    pub kept: Kept,
    /// It forgot something, or has not looked at everything; then there may be more to do.
    pub forgot: bool,
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
    /// many as go into one batch. Without any peer nothing has to be kept at all.
    ///
    /// # Errors
    /// `Damaged`, `Sqlite`.
    pub fn compact(&mut self, least: u64) -> Result<bool, Error> {
        if self.outside.is_none() {
            return Ok(false);
        }
        let extents = self.extents()?;
        if extents.is_empty() {
            return self.collect_alone();
        }
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

    /// Forgets what is kept for peers that are away, while it takes more than `limit` bytes: first what deleted rows were, then
    /// the oldest groups, at last that rows were deleted. As much at a time as goes into one batch, so that nobody waits
    /// long for the write lock.
    ///
    /// A peer that lacks these groups goes on behind them and is compared with this site; so is one that brings back a row
    /// whose values are forgotten.
    ///
    /// # Errors
    /// `Damaged`, `Sqlite`.
    pub fn forget_beyond(&mut self, limit: u64) -> Result<Weighed, Error> {
        let mut pass = match self.pass.take() {
            Some(pass) => pass,
            None => Pass { after: START, kept: self.kept(limit)? },
        };
        pass.kept.changes = changes(&self.database)?;
        let kept = pass.kept;
        if kept.bytes() <= limit {
            return Ok(Weighed { kept, forgot: false });
        }
        let forgot = if kept.images > 0 {
            let looked = some_deleted(&self.database, &pass.after, DeletedRow::image)?;
            self.transact(|work| forget_images(work.transaction, &looked.found))?;
            pass.kept.images = kept.images.saturating_sub(looked.bytes);
            self.go_on(pass, looked)
        } else if self.forget_oldest(kept.bytes() - limit)? {
            self.pass = Some(pass);
            true
        } else {
            let looked = some_deleted(&self.database, &pass.after, DeletedRow::rest)?;
            self.transact(|work| {
                work.state.forgot = work.state.clock.0;
                forget_deletions(work.transaction, &looked.found)
            })?;
            pass.kept.deletions = kept.deletions.saturating_sub(looked.bytes);
            self.go_on(pass, looked)
        };
        Ok(Weighed { kept, forgot })
    }

    /// Remembers how far the pass has come. Says whether it found anything, or may not have looked at everything.
    fn go_on(&mut self, pass: Pass, looked: Looked) -> bool {
        let goes_on = pass.after != START || looked.after.is_some() || !looked.found.is_empty();
        self.pass = looked.after.map(|after| Pass { after, ..pass });
        goes_on
    }

    /// Forgets the oldest groups, until they take so many bytes. Says whether there are any.
    fn forget_oldest(&mut self, bytes: u64) -> Result<bool, Error> {
        self.transact(|work| {
            let Some(run) = oldest(work.transaction, bytes)? else { return Ok(false) };
            work.transaction.execute("DELETE FROM _ssw_change WHERE grp <= ?", [run.last])?;
            work.transaction.execute("DELETE FROM _ssw_group WHERE grp <= ?", [run.last])?;
            Ok(true)
        })
    }

    /// What is kept for peers that are away. What is known of deleted rows is read, and so only counted if the whole database
    /// takes more than `limit` bytes.
    ///
    /// # Errors
    /// `Damaged`, `Sqlite`.
    pub fn kept(&self, limit: u64) -> Result<Kept, Error> {
        let ask = |sql| self.database.query_row(sql, [], |row| row.get::<_, u64>(0));
        let mut kept = Kept { changes: changes(&self.database)?, ..Kept::default() };
        let pages = ask("PRAGMA page_count")?.saturating_sub(ask("PRAGMA freelist_count")?);
        if pages * ask("PRAGMA page_size")? > limit {
            each_row(&self.database, &START, |deleted| {
                if let Some(deleted) = deleted {
                    kept.images += deleted.image();
                    kept.deletions += deleted.rest();
                }
                true
            })?;
        }
        Ok(kept)
    }
}

/// A deleted row of which something is kept.
struct DeletedRow {
    table: u32,
    key: Vec<u8>,
    /// Bytes that are kept.
    bytes: usize,
    /// What is to be kept without its values.
    without: Vec<u8>,
}

impl DeletedRow {
    /// Bytes of its values.
    fn image(&self) -> u64 {
        self.bytes.saturating_sub(self.without.len()) as u64
    }

    /// Bytes of what is kept besides.
    fn rest(&self) -> u64 {
        (self.key.len() + self.without.len()) as u64
    }
}

/// A table's number and a key.
type Place = (u32, Vec<u8>);

/// Before all rows.
const START: Place = (0, Vec::new());

/// A look through what is kept of rows, in the order of their keys, a part at a time.
#[derive(Debug)]
pub(super) struct Pass {
    /// The last row looked at.
    after: Place,
    /// What was kept when it began, less what was forgotten since.
    kept: Kept,
}

/// A part of it.
struct Looked {
    /// Deleted rows.
    found: Vec<DeletedRow>,
    /// Bytes that they take.
    bytes: u64,
    /// The last row looked at. `None`: there are no more.
    after: Option<Place>,
}

fn changes(database: &Connection) -> Result<u64, Error> {
    Ok(database.query_row("SELECT ifnull(sum(bytes), 0) FROM _ssw_group", [], |row| row.get(0))?)
}

/// Looks at what is kept of each row behind this one, for as long as `each` says. Returns the last one; `None`, if there
/// are no more.
fn each_row(
    database: &Connection,
    (table, key): &Place,
    mut each: impl FnMut(Option<DeletedRow>) -> bool,
) -> Result<Option<Place>, Error> {
    let sql = "SELECT tbl, key, state FROM _ssw_row WHERE (tbl, key) > (?, ?) ORDER BY tbl, key";
    let mut statement = database.prepare_cached(sql)?;
    let mut rows = statement.query(params![table, key])?;
    while let Some(row) = rows.next()? {
        let state = row.get_ref(2)?.as_blob().unwrap_or_default();
        let without = Row::kept_of_deleted(state).ok_or_else(|| damaged("a row's versions", "_ssw_row"))?;
        let deleted =
            |without| Ok::<_, Error>(DeletedRow { table: row.get(0)?, key: row.get(1)?, bytes: state.len(), without });
        if !each(without.map(deleted).transpose()?) {
            return Ok(Some((row.get(0)?, row.get(1)?)));
        }
    }
    Ok(None)
}

/// Of the rows behind `after`, deleted ones for which `size` is more than nothing, as many as go into one batch. Looks at
/// [`LOOK`] rows at most. Only this store writes what is kept of rows: it need not be a transaction's.
fn some_deleted(database: &Connection, after: &Place, size: impl Fn(&DeletedRow) -> u64) -> Result<Looked, Error> {
    let (mut found, mut bytes, mut looked) = (Vec::new(), 0, 0);
    let after = each_row(database, after, |deleted| {
        looked += 1;
        if let Some(deleted) = deleted.filter(|deleted| size(deleted) > 0) {
            bytes += size(&deleted);
            found.push(deleted);
        }
        (found.len() as u64) < ROWS && bytes < BYTES && looked < LOOK
    })?;
    Ok(Looked { found, bytes, after })
}

/// Forgets what these rows were.
fn forget_images(database: &Connection, rows: &[DeletedRow]) -> Result<(), Error> {
    let mut update = database.prepare_cached("UPDATE _ssw_row SET state=? WHERE tbl=? AND key=?")?;
    for DeletedRow { table, key, without, .. } in rows {
        update.execute(params![without, table, key])?;
    }
    Ok(())
}

/// Forgets that these rows were deleted.
fn forget_deletions(database: &Connection, rows: &[DeletedRow]) -> Result<(), Error> {
    let mut delete = database.prepare_cached("DELETE FROM _ssw_row WHERE tbl=? AND key=?")?;
    for DeletedRow { table, key, .. } in rows {
        delete.execute(params![table, key])?;
    }
    Ok(())
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
