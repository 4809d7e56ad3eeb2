//! Apply: a peer's batch is joined with what is here, in one transaction that also remembers it.

use std::{collections::BTreeSet, mem::replace, rc::Rc};

use rusqlite::{CachedStatement, Connection, ErrorCode, OptionalExtension, params, params_from_iter};

use crate::{
    clock::Version,
    merge::{Conflict, Joined, Kind, Parked, Row, on_top},
    schema::{Table, Unique},
    value::{Key, Value},
    wire::{Part, RowChange},
};

use super::{Error, Store, conflicts, damaged, fence, fold, live::Live, parked, repair, triggers, work, work::Work};

/// What has become of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// It is kept until the rest of its batch has come.
    Kept,
    /// Its batch is applied: so many rows, so many of them in conflict.
    Applied {
        /// Rows in the batch.
        rows: u64,
        /// Conflicts, those included that repairing UNIQUE and foreign keys has found.
        conflicts: u64,
    },
    /// It was applied before.
    Duplicate,
    /// Something between what is applied and this is missing: the sender goes on from what is applied.
    Gap,
}

/// A sender's table as it looks here.
pub(super) struct Resolved<'a> {
    live: Rc<Live>,
    /// Where each of the sender's columns is here, or the name of one that is not.
    columns: Vec<Result<u16, String>>,
    reader: CachedStatement<'a>,
    inserter: CachedStatement<'a>,
    /// The columns that were set last, and the statement that sets them.
    updater: Option<(Vec<u16>, CachedStatement<'a>)>,
}

/// A row that cannot be written before others have made room.
pub(super) struct Waiting {
    pub(super) live: Rc<Live>,
    pub(super) key: Key,
    pub(super) row: Row,
}

/// What applying has come across.
#[derive(Default)]
pub(super) struct Found {
    pub(super) waiting: Vec<Waiting>,
    pub(super) conflicts: u64,
    pub(super) rows: u64,
    /// Deleted rows that were called back by what refers to them: their tables' numbers and their keys.
    pub(super) returned: BTreeSet<(u32, Key)>,
}

impl Store {
    /// Takes in a part of a peer's batch; with its last part the batch is applied. `now` is the agent's clock in
    /// milliseconds since 1970.
    ///
    /// # Errors
    /// `Malformed`, `Unknown`, `Schema`: nothing is applied, and nothing is lost, for the peer keeps it. `Damaged`, `Sqlite`.
    pub fn receive(&mut self, part: &Part, now: i64) -> Result<Received, Error> {
        if part.origin == self.settings.site || !self.settings.sites.contains_key(&part.origin) || part.hi <= part.lo {
            return Err(Error::Malformed("it is from nowhere"));
        }
        self.transact(|work| {
            let ours = fence::count(work.transaction)?;
            if part.schema != ours {
                return Err(Error::Schema { theirs: part.schema, ours });
            }
            let applied = work.peers.get(&part.origin).map_or(0, |peer| peer.applied);
            if part.hi <= applied {
                return Ok(Received::Duplicate);
            }
            if part.lo != applied {
                return Ok(Received::Gap);
            }
            if part.number == 0 && part.last {
                return apply(work, part, &[], now);
            }
            if !keep(work, part)? {
                return Ok(Received::Gap);
            }
            if part.last { apply(work, part, &kept(work, part)?, now) } else { Ok(Received::Kept) }
        })
    }
}

/// Keeps a part until the last one has come. Says no if the one before it is missing.
fn keep(work: &Work<'_>, part: &Part) -> Result<bool, Error> {
    if part.number == 0 {
        work.transaction.execute("DELETE FROM _ssw_inbox WHERE origin=?", [part.origin])?;
    } else {
        let before = params![part.origin, part.hi, part.number - 1];
        let found = work
            .transaction
            .query_row("SELECT 1 FROM _ssw_inbox WHERE origin=? AND batch=? AND part=?", before, |_| Ok(()))
            .optional()?;
        if found.is_none() {
            return Ok(false);
        }
    }
    let bytes = postcard::to_stdvec(part).map_err(|_| Error::Malformed("a part that cannot be kept"))?;
    work.transaction.execute(
        "INSERT OR REPLACE INTO _ssw_inbox(origin, batch, part, data) VALUES(?,?,?,?)",
        params![part.origin, part.hi, part.number, bytes],
    )?;
    Ok(true)
}

/// The numbers of the parts kept before the last one.
fn kept(work: &Work<'_>, last: &Part) -> Result<Vec<u32>, Error> {
    let mut statement = work
        .transaction
        .prepare_cached("SELECT part FROM _ssw_inbox WHERE origin=? AND batch=? AND part<? ORDER BY part")?;
    let numbers = statement.query_map(params![last.origin, last.hi, last.number], |row| row.get(0))?;
    Ok(numbers.collect::<Result<_, _>>()?)
}

fn read_kept(work: &Work<'_>, last: &Part, number: u32) -> Result<Part, Error> {
    let bytes: Vec<u8> = work
        .transaction
        .prepare_cached("SELECT data FROM _ssw_inbox WHERE origin=? AND batch=? AND part=?")?
        .query_row(params![last.origin, last.hi, number], |row| row.get(0))?;
    postcard::from_bytes(&bytes).map_err(|_| damaged("a part", "_ssw_inbox"))
}

/// Applies a batch: the kept parts by number, then the last one.
fn apply(work: &mut Work<'_>, last: &Part, earlier: &[u32], now: i64) -> Result<Received, Error> {
    // What was committed here before must be in the change table before anything overwrites it.
    fold::fold(work, now)?;
    work.state.clock.pass(last.clock);
    // What is changed from here on is changed by one who knows the batch.
    if !work.state.missed.contains_key(&last.origin) {
        work.state.seen.pass(last.origin, last.clock);
    }
    let mut found = Found::default();
    for number in earlier {
        join_part(work, &read_kept(work, last, *number)?, &mut found)?;
    }
    join_part(work, last, &mut found)?;
    let mut checks = repair::collisions(work, &mut found, now)?;
    for number in earlier {
        repair::references(work, &read_kept(work, last, *number)?, &mut found, now)?;
    }
    repair::references(work, last, &mut found, now)?;
    repair::check_all(work, &mut checks, &mut found, now)?;

    if let Some(peer) = work.peers.get_mut(&last.origin) {
        peer.applied = last.hi;
    }
    work::save_peer(work, last.origin)?;
    if !earlier.is_empty() {
        work.transaction.execute("DELETE FROM _ssw_inbox WHERE origin=?", [last.origin])?;
    }
    Ok(Received::Applied { rows: found.rows, conflicts: found.conflicts })
}

fn join_part(work: &mut Work<'_>, part: &Part, found: &mut Found) -> Result<(), Error> {
    let mut tables = resolve(work, part)?;
    for row in part.rows() {
        let mut row = row.ok_or(Error::Malformed("a row that is none"))?;
        let table = tables.get_mut(row.table as usize).ok_or(Error::Malformed("a row of no table"))?;
        let parked = translate(&mut row, table, part)?;
        join_row(work, table, part, row, parked, found)?;
        found.rows += 1;
    }
    for notice in &part.notices {
        notice.key.columns().ok_or(Error::Malformed("a key that is none"))?;
        conflicts::take(work.transaction, notice)?;
    }
    Ok(())
}

/// Finds the sender's tables and columns here.
fn resolve<'a>(work: &Work<'a>, part: &Part) -> Result<Vec<Resolved<'a>>, Error> {
    let find = |name: &str| work.tables.values().rev().find(|live| live.table.name.eq_ignore_ascii_case(name));
    part.tables
        .iter()
        .map(|shape| {
            let live = find(&shape.name).ok_or_else(|| Error::Unknown(format!("table {}", shape.name)))?;
            let column = |name: &String| live.table.column(name).ok_or_else(|| name.clone());
            let columns: Vec<Result<u16, String>> = shape.columns.iter().map(column).collect();
            for name in columns.iter().filter_map(|column| column.as_ref().err()) {
                parked::note(work.transaction, &live.table.name, name)?;
            }
            Resolved::new(live, columns, work.transaction)
        })
        .collect()
}

/// Checks a row's change, and makes it name our columns. Returns the values of columns that are none of ours.
fn translate(row: &mut RowChange, table: &Resolved<'_>, part: &Part) -> Result<Vec<Parked>, Error> {
    if row.change.newest() > part.clock {
        return Err(Error::Malformed("a stamp that is newer than its batch"));
    }
    let (mut parked, mut unknown) = (Vec::new(), false);
    row.change.cells.retain_mut(|cell| match table.columns.get(usize::from(cell.column)) {
        Some(Ok(column)) if !table.live.table.in_key(*column) => {
            cell.column = *column;
            true
        }
        Some(Err(name)) => {
            let (version, value) = (Version::new(cell.stamp, part.origin), replace(&mut cell.value, Value::Null));
            parked.push(Parked { column: name.clone(), version, value });
            false
        }
        _ => {
            unknown = true;
            false
        }
    });
    if unknown {
        return Err(Error::Malformed("a cell of no column"));
    }
    for add in &mut row.change.adds {
        add.column = match table.columns.get(usize::from(add.column)) {
            Some(Ok(column)) if !table.live.table.in_key(*column) => *column,
            // There is no value here that it would count on top of.
            Some(Err(name)) => return Err(Error::Unknown(format!("column {}.{name}", table.live.table.name))),
            _ => return Err(Error::Malformed("an addition to no column")),
        };
    }
    Ok(parked)
}

fn join_row<'a>(
    work: &mut Work<'a>,
    table: &mut Resolved<'a>,
    part: &Part,
    RowChange { key, change, .. }: RowChange,
    parked: Vec<Parked>,
    found: &mut Found,
) -> Result<(), Error> {
    let live = Rc::clone(&table.live);
    let columns = key.columns().filter(|columns| columns.len() == live.table.key.len());
    let columns = columns.ok_or(Error::Malformed("a key that is none"))?;
    // A row that seems to be new is not looked for: if it is there all the same, inserting it fails.
    let seems_new = change.whole && change.alive.is_some() && change.deleted.is_none() && !work.rows.any(&live)?;
    let now = if seems_new { None } else { live.read_by(&mut table.reader, &columns)? };
    let there = now.is_some();
    let (mut row, kept) = work.rows.load(&live, &key, now)?;
    let whole = change.whole;
    let Joined { conflicts, changed } = row.join(part.origin, &part.sight, change, &live.extremes);
    // What a site has added it knows to the last: the others leave it to that to say that it is lost.
    let own = |conflict: &Conflict| conflict.kind != Kind::CounterReset || conflict.lost.site == work.settings.site;
    let conflicts: Vec<Conflict> = conflicts.into_iter().filter(own).collect();
    parked.into_iter().for_each(|parked| row.park(parked));
    if whole {
        // The sender told all columns that it had then.
        row.fill(&live.defaults);
    }
    for conflict in &conflicts {
        conflicts::log(work, &live, &key, conflict)?;
    }
    found.conflicts += conflicts.len() as u64;
    let mut written = write(work, table, &columns, there, &row, &changed)?;
    if seems_new
        && !(written && row.visible())
        && let Some(now) = live.read_by(&mut table.reader, &columns)?
    {
        let changed = lay_over(&mut row, now);
        written = write(work, table, &columns, true, &row, &changed)?;
    }
    let forgotten = row.removed.is_change() || row.lacks() || work.state.forgot > work.settled_up_to();
    if row.lives() && !row.visible() && forgotten {
        // It was deleted, and its values are forgotten by now, or even that it was; or it has vanished behind the triggers.
        // Who changed it knows them.
        work.state.incomplete.insert(part.origin, part.hi);
    }
    work.keep(&live, &key, &mut row, kept)?;
    if !written {
        found.waiting.push(Waiting { live, key, row });
    }
    Ok(())
}

/// Of a row that was there, the same at all sites, what a change does not tell stays as it was. Returns the columns in which
/// the row differs from that.
fn lay_over(row: &mut Row, was: Vec<Value>) -> Vec<u16> {
    let mut changed = Vec::new();
    for (column, was) in (0..).zip(was) {
        let at = usize::from(column);
        if row.versions[at].is_change() {
            if row.values[at].as_ref() != Some(&was) {
                changed.push(column);
            }
            continue;
        }
        let sum = row.sum(column);
        if sum != 0 {
            changed.push(column);
        }
        row.values[at] = Some(on_top(was, sum));
    }
    changed
}

impl<'a> Resolved<'a> {
    pub(super) fn new(
        live: &Rc<Live>,
        columns: Vec<Result<u16, String>>,
        database: &'a Connection,
    ) -> Result<Self, Error> {
        let (reader, inserter) = (live.reader(database)?, live.inserter(database)?);
        Ok(Self { live: Rc::clone(live), columns, reader, inserter, updater: None })
    }

    /// Sets these columns of a row that is there.
    fn update(
        &mut self,
        database: &'a Connection,
        key: &[Value],
        row: &Row,
        columns: &[u16],
    ) -> Result<(), rusqlite::Error> {
        let updater = match &mut self.updater {
            Some((last, updater)) if last == columns => updater,
            other => {
                let updater = self.live.updater(database, columns.iter().copied())?;
                &mut other.insert((columns.to_vec(), updater)).1
            }
        };
        let values = columns.iter().filter_map(|column| row.values[usize::from(*column)].as_ref());
        self.live.passed(updater.execute(params_from_iter(values.chain(key)))?)
    }
}

/// Makes the table show the row, which differs in the columns `changed` if it is `there`. Says no if another row is in the
/// way; the row is not in the table then.
pub(super) fn write<'a>(
    work: &Work<'a>,
    table: &mut Resolved<'a>,
    key: &[Value],
    there: bool,
    row: &Row,
    changed: &[u16],
) -> Result<bool, Error> {
    let database = work.transaction;
    triggers::fire(database, table.live.rules.fire_triggers)?;
    match (there, row.visible()) {
        (false, false) => Ok(true),
        (true, false) => Ok(table.live.delete(database, key).map(|()| true)?),
        (false, true) => {
            let inserted = table.inserter.execute(params_from_iter(row.values.iter().flatten()));
            free(inserted.and_then(|rows| table.live.passed(rows)))
        }
        (true, true) => {
            if changed.is_empty() || free(table.update(database, key, row, changed))? {
                return Ok(true);
            }
            table.live.delete(database, key)?;
            Ok(false)
        }
    }
}

/// Tells a collision with another row from all other failures.
pub(super) fn free(result: Result<(), rusqlite::Error>) -> Result<bool, Error> {
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_ROWID, SQLITE_CONSTRAINT_UNIQUE};
    match result {
        Ok(()) => Ok(true),
        Err(rusqlite::Error::SqliteFailure(error, _))
            if error.code == ErrorCode::ConstraintViolation
                && [SQLITE_CONSTRAINT_UNIQUE, SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_ROWID]
                    .contains(&error.extended_code) =>
        {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// The newest version of a row's claim to its values in unique columns; `None`: in all indexes that are not described.
pub(super) fn claim(table: &Table, row: &Row, unique: Option<&Unique>) -> Version {
    let newest = |columns: &mut dyn Iterator<Item = &u16>| {
        columns.map(|column| row.versions[usize::from(*column)]).max().unwrap_or_default()
    };
    match unique {
        Some(unique) if unique.primary => row.alive,
        Some(unique) => newest(&mut unique.columns.iter().map(|(column, _)| column)),
        None => newest(&mut table.otherwise_unique.iter().flatten()),
    }
}
