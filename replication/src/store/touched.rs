//! What the touches of one row say about it, once it is known how the row looks now.

use crate::{
    change::{Cell, Change, Deleted},
    clock::{SiteId, Stamp, Version},
    schema::{MASK_BITS, Table},
    value::Value,
};

use super::{Deletes, Granularity, Rules};

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
}

impl Touched {
    /// The next touch, in the order in which they were made.
    pub(super) fn add(&mut self, op: Op, stamp: Stamp) {
        self.newest = stamp;
        match op {
            Op::Insert => {
                self.inserted = Some(stamp);
                self.edits.clear();
            }
            // Updates that changed nothing leave a touch too.
            Op::Update(0) => {}
            Op::Update(mask) => self.edits.push((mask, stamp)),
            Op::Delete => self.deleted = Some(stamp),
            // The row itself says whether it is gone.
            Op::Evict => {}
        }
    }

    /// The change. `there`: the row is in the table. `last` are its values, the last ones if it is gone, nothing if nobody
    /// knows them; the change takes them with it. `known_alive` is the newest sign of life of it that this site knows of.
    /// `None`: nothing has changed after all.
    pub(super) fn change(
        mut self,
        site: SiteId,
        table: &Table,
        rules: Rules,
        there: bool,
        last: &mut [Option<Value>],
        known_alive: Version,
    ) -> Option<Change> {
        let returned = there && self.deleted > self.inserted;
        if returned {
            // Deleted, and there again without an INSERT that a trigger saw.
            self.inserted = Some(self.newest);
        }
        let edited = self.edits.last().map(|(_, stamp)| *stamp);
        let alive = match rules.deletes {
            Deletes::Win => self.inserted,
            Deletes::Latest | Deletes::Lose => self.inserted.max(edited),
        };
        let cells = self.cells(table, rules, last);
        let deleted = (!there).then(|| {
            // A trigger may delete the row that it is fired for, before ours say what happened to that.
            let stamp = self.newest;
            let ends = match rules.deletes {
                Deletes::Lose => alive.map_or(known_alive, |alive| known_alive.max(Version::new(alive, site))),
                Deletes::Latest | Deletes::Win => Version::new(stamp, site),
            };
            Deleted { stamp, ends }
        });
        let change = Change { alive, deleted, whole: self.inserted.is_some(), cells };
        (change != Change::default()).then_some(change)
    }

    fn cells(&mut self, table: &Table, rules: Rules, row: &mut [Option<Value>]) -> Vec<Cell> {
        self.edits.iter_mut().for_each(|(mask, _)| *mask = widen(*mask, table, rules.granularity));
        let stamp_of = |column: u16| {
            let bit = bit(column);
            self.edits.iter().rev().find(|(mask, _)| mask & bit != 0).map(|(_, stamp)| *stamp).max(self.inserted)
        };
        let count = if self.inserted.is_some() { row.len() } else { 1 };
        let mut cells = Vec::with_capacity(count);
        let others = (0..).zip(row).filter(|(column, _)| !table.in_key(*column));
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

/// With one column of a set that only makes sense together, all of them change.
fn widen(mask: u64, table: &Table, granularity: Granularity) -> u64 {
    if granularity == Granularity::Row {
        return u64::MAX;
    }
    let set = |columns: &Vec<u16>| columns.iter().fold(0, |set, column| set | bit(*column));
    table.together.iter().map(set).filter(|set| set & mask != 0).fold(mask, |mask, set| mask | set)
}
