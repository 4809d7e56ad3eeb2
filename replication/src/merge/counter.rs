//! Columns to which sites add: what was added without knowledge of each other all counts.

use serde::{Deserialize, Serialize};

use super::{Cells, Row};
use crate::{
    change::{Add, Cell},
    clock::{Seen, SiteId, Stamp, Version},
    value::Value,
};

/// What a site has added to a counter, as long as not every site is known to have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Who.
    pub site: SiteId,
    /// What.
    pub add: Add,
}

/// So many additions of one site to one counter are kept apart in any case.
const APART: usize = 16;

impl Added {
    /// It counts on top of values that are older than this.
    fn since(&self) -> Version {
        Version::new(self.add.since, self.site)
    }

    /// Who knows this knows all of it.
    pub(super) fn newest(&self) -> Version {
        Version::new(self.add.stamp, self.site)
    }
}

impl Row {
    /// As made when does it count what `site` adds to a counter at `stamp`? If much is kept apart already, as what it added
    /// before: so much is added to that that what is kept grows with the logarithm of the time only.
    pub fn counts_since(&self, site: SiteId, column: u16, stamp: Stamp) -> Stamp {
        let own = self.added.iter().filter(|added| added.site == site && added.add.column == column);
        let own = own.map(|added| added.add.since);
        match (own.clone().min(), own.clone().max()) {
            (Some(oldest), Some(newest)) if own.count() >= APART && stamp - newest < newest - oldest => newest,
            _ => stamp,
        }
    }

    /// Forgets that something was added apart from the rest, once every site has it: who changes the row from now on knows.
    pub fn settle(&mut self, settled: impl Fn(Version) -> bool) {
        let values = &self.values;
        let known = |column: u16| values.get(usize::from(column)).is_some_and(Option::is_some);
        self.added.retain(|added| !known(added.add.column) || !settled(added.newest()));
    }

    /// Was something added to this column that still matters?
    pub(super) fn is_counted(&self, column: u16) -> bool {
        self.added.iter().any(|added| added.add.column == column)
    }

    /// Takes in what a site has added. What is below the value that the column was given is gone.
    pub(super) fn join_add(&mut self, origin: SiteId, add: Add, changed: &mut Vec<u16>) {
        let at = usize::from(add.column);
        let added = Added { site: origin, add };
        if self.versions.get(at).is_none_or(|given| added.since() < *given) {
            return;
        }
        if let Some(Some(Value::Integer(number))) = self.values.get_mut(at) {
            *number = number.wrapping_add(add.delta);
            if !changed.contains(&add.column) {
                changed.push(add.column);
            }
        }
        self.note_added(added);
    }

    /// Notes what was added, and is in the value already.
    pub(super) fn note_added(&mut self, Added { site, add }: Added) {
        let same =
            |other: &&mut Added| other.site == site && other.add.column == add.column && other.add.since == add.since;
        match self.added.iter_mut().find(same) {
            Some(Added { add: mine, .. }) => {
                mine.stamp = mine.stamp.max(add.stamp);
                mine.delta = mine.delta.wrapping_add(add.delta);
            }
            None => self.added.push(Added { site, add }),
        }
    }

    /// Takes in the value that a column is given to which something was added: what was added before is gone, and lost if the
    /// giver did not know of it.
    pub(super) fn join_given(&mut self, origin: SiteId, seen: &Seen, cell: Cell, cells: &mut Cells) {
        let Cell { column, stamp, value } = cell;
        let at = usize::from(column);
        let (mine, theirs) = (self.versions[at], Version::new(stamp, origin));
        let old = self.values[at].clone().map(|value| on_top(value, self.sum(column).wrapping_neg()));
        let concurrent = !seen.knew(origin, mine) && old.as_ref().is_some_and(|old| *old != value);
        if theirs <= mine {
            if concurrent && theirs < mine {
                cells.there.add(mine, theirs, column, value);
            }
            return;
        }
        self.versions[at] = theirs;
        self.added.retain(|added| {
            let gone = added.add.column == column && added.since() < theirs;
            if gone && !seen.knew(origin, added.newest()) {
                cells.reset.entry(added.site).or_default().sum(theirs, added.newest(), column, added.add.delta);
            }
            !gone
        });
        let value = on_top(value, self.sum(column));
        let before = self.values[at].replace(value);
        if before != self.values[at] {
            cells.changed.push(column);
        }
        if let Some(old) = old.filter(|_| concurrent) {
            cells.here.add(theirs, mine, column, old);
        }
    }

    /// Columns that nobody has told have these values, with what was added to them.
    pub(crate) fn fill(&mut self, defaults: &[Value]) {
        for (column, default) in (0..).zip(defaults) {
            let at = usize::from(column);
            // A value that was told once may be lost since, and that is another thing.
            if self.values[at].is_none() && !self.versions[at].is_change() {
                self.values[at] = Some(on_top(default.clone(), self.sum(column)));
            }
        }
    }

    /// A value given here, by who knew all that was added.
    pub(super) fn forget_added(&mut self, column: u16) {
        self.added.retain(|added| added.add.column != column);
    }

    /// What was added to a column on top of the value that it was given.
    pub(crate) fn sum(&self, column: u16) -> i64 {
        let own = self.added.iter().filter(|added| added.add.column == column);
        own.fold(0, |sum, added| sum.wrapping_add(added.add.delta))
    }
}

/// A value to which so much was added: nothing, if it is not an integer.
pub(crate) fn on_top(value: Value, sum: i64) -> Value {
    match value {
        Value::Integer(number) => Value::Integer(number.wrapping_add(sum)),
        other => other,
    }
}
