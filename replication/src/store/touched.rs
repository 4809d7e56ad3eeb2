//! What the touches of one row say about it, once it is known how the row looks now.

use crate::{
    change::{Add, Cell, Change, Deleted},
    clock::{SiteId, Stamp, Version},
    merge::Row,
    schema::{MASK_BITS, Table},
    value::Value,
};

use super::{Deletes, Granularity, live::Live};

/// What a trigger saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// The row was inserted.
    Insert,
    /// It was updated, and in which columns, bit by bit.
    Update(u64),
    /// It was deleted.
    Delete,
    /// A REPLACE may delete the row, without any trigger saying so.
    Evict,
}

/// All touches of one row since the last fold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    inserted: Option<Stamp>,
    edits: Vec<(u64, Stamp)>,
    deleted: Option<Stamp>,
    newest: Stamp,
    /// Counters that were updated.
    counted: Vec<Counted>,
}

/// A counter that was updated.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counted {
    column: u16,
    /// What it was at first; nothing, if it was something else than an integer in between, or that is not known.
    first: Option<i64>,
    /// When it was updated last.
    stamp: Stamp,
}

impl Touched {
    /// The next touch, in the order in which they were made.
    pub(super) fn add(&mut self, op: Op, stamp: Stamp) {
        self.newest = stamp;
        match op {
            Op::Insert => {
                self.inserted = Some(stamp);
                self.edits.clear();
                self.counted.clear();
            }
            // Updates that changed nothing leave a touch too.
            Op::Update(0) => {}
            Op::Update(mask) => self.edits.push((mask, stamp)),
            Op::Delete => self.deleted = Some(stamp),
            // The row itself says whether it is gone.
            Op::Evict => {}
        }
    }

    /// The update that was added last: which columns it changed, and what the counters `were` before it.
    pub(super) fn count(&mut self, table: &Table, columns: u64, were: &[Value]) {
        let newest = self.newest;
        for (place, column) in table.counters.iter().enumerate().filter(|(_, column)| columns & bit(**column) != 0) {
            let was = if let Value::Integer(was) = were[place] { Some(was) } else { None };
            match self.counted.iter_mut().find(|counted| counted.column == *column) {
                Some(counted) => {
                    counted.first = counted.first.filter(|_| was.is_some());
                    counted.stamp = newest;
                }
                None => self.counted.push(Counted { column: *column, first: was, stamp: newest }),
            }
        }
    }

    /// What was added to counters of a row that is not new. One that was not an integer all the time was given its value.
    pub(super) fn adds(&self, row: &Row, site: SiteId) -> Vec<Add> {
        let add = |counted: &Counted| {
            let Counted { column, first: Some(first), stamp } = *counted else { return None };
            let Some(Value::Integer(last)) = row.values.get(usize::from(column))? else { return None };
            let since = row.counts_since(site, column, stamp);
            Some(Add { column, stamp, since, delta: last.wrapping_sub(first) })
        };
        let mut adds: Vec<Add> = self.counted.iter().filter_map(add).collect();
        adds.sort_unstable_by_key(|add| add.column);
        adds
    }

    /// The change. `there`: the row is in the table. `last` are its values, the last ones if it is gone, nothing if nobody
    /// knows them; the change takes them with it. `adds` was added to its counters, if it is not new. `known_alive` is the newest sign of life of it that this site knows of.
    /// `None`: nothing has changed after all.
    pub(super) fn change(
        mut self,
        site: SiteId,
        live: &Live,
        there: bool,
        last: &mut [Option<Value>],
        mut adds: Vec<Add>,
        known_alive: Version,
    ) -> Option<Change> {
        let returned = there && self.deleted > self.inserted;
        if returned {
            // Deleted, and there again without an INSERT that a trigger saw.
            self.inserted = Some(self.newest);
        }
        if self.inserted.is_some() {
            adds.clear();
        }
        let edited = self.edits.last().map(|(_, stamp)| *stamp);
        let alive = match live.rules.deletes {
            Deletes::Win => self.inserted,
            Deletes::Latest | Deletes::Lose => self.inserted.max(edited),
        };
        let cells = self.cells(live, &adds, last);
        let deleted = (!there).then(|| {
            // A trigger may delete the row that it is fired for, before ours say what happened to that.
            let stamp = self.newest;
            let ends = match live.rules.deletes {
                Deletes::Lose => alive.map_or(known_alive, |alive| known_alive.max(Version::new(alive, site))),
                Deletes::Latest | Deletes::Win => Version::new(stamp, site),
            };
            Deleted { stamp, ends }
        });
        adds.retain(|add| add.delta != 0);
        let change = Change { alive, deleted, whole: self.inserted.is_some(), cells, adds };
        (change != Change::default()).then_some(change)
    }

    fn cells(&mut self, live: &Live, adds: &[Add], row: &mut [Option<Value>]) -> Vec<Cell> {
        let (table, rules) = (&live.table, &live.rules);
        let alone = alone(live);
        self.edits.iter_mut().for_each(|(mask, _)| *mask = widen(*mask, table, rules.granularity) & !(alone & !*mask));
        let stamp_of = |column: u16| {
            let bit = bit(column);
            self.edits.iter().rev().find(|(mask, _)| mask & bit != 0).map(|(_, stamp)| *stamp).max(self.inserted)
        };
        let count = if self.inserted.is_some() { row.len() } else { 1 };
        let mut cells = Vec::with_capacity(count);
        let added = |column: u16| adds.iter().any(|add| add.column == column);
        let others = (0..).zip(row).filter(|(column, _)| !table.in_key(*column) && !added(*column));
        cells.extend(
            others.filter_map(|(column, value)| Some(Cell { column, stamp: stamp_of(column)?, value: value.take()? })),
        );
        cells
    }
}

/// A column's bit in a mask.
fn bit(column: u16) -> u64 {
    1 << usize::from(column).min(MASK_BITS)
}

/// The columns that have a rule of their own, and so change by themselves alone.
fn alone(live: &Live) -> u64 {
    let own = live.table.counters.iter().chain(live.extremes.keys());
    own.filter(|column| usize::from(**column) < MASK_BITS).fold(0, |mask, column| mask | bit(*column))
}

/// With one column of a set that only makes sense together, all of them change.
fn widen(mask: u64, table: &Table, granularity: Granularity) -> u64 {
    if granularity == Granularity::Row {
        return u64::MAX;
    }
    let set = |columns: &Vec<u16>| columns.iter().fold(0, |set, column| set | bit(*column));
    table.together.iter().map(set).filter(|set| set & mask != 0).fold(mask, |mask, set| mask | set)
}
