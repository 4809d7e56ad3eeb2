//! Columns of which the smallest or the greatest value stays, of those that were given without knowledge of each other.

use std::{cmp::Ordering, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use super::Row;
use crate::{
    change::Cell,
    clock::{Seen, SiteId, Version},
    value::Value,
};

/// Which value stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extreme {
    /// The smallest.
    Min,
    /// The greatest.
    Max,
}

/// A table's columns of this kind.
pub type Extremes = BTreeMap<u16, Extreme>;

/// The values of such a column that nobody has given another in place of, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contested {
    /// Which column.
    pub column: u16,
    /// The values, and who gave each: one at most of each site.
    pub values: Vec<(Version, Value)>,
    /// Values up to these are among them, or replaced.
    pub seen: Seen,
}

impl Extreme {
    /// Does the first stay? NULL yields to everything, and of two that SQL takes for equal the older to the newer.
    fn prefers(self, one: &(Version, Value), other: &(Version, Value)) -> bool {
        let nulls = other.1.is_null().cmp(&one.1.is_null());
        let values = match self {
            Self::Min => other.1.sql_order(&one.1),
            Self::Max => one.1.sql_order(&other.1),
        };
        nulls.then(values).then(one.0.cmp(&other.0)) == Ordering::Greater
    }
}

impl Row {
    /// Takes in a value that `origin` gave a column of this kind, and what it had `seen` then: it replaces those that it
    /// knew, and stands beside the others.
    pub(super) fn join_extreme(
        &mut self,
        origin: SiteId,
        seen: &Seen,
        cell: Cell,
        extreme: Extreme,
        changed: &mut Vec<u16>,
    ) {
        let Cell { column, stamp, value } = cell;
        let at = usize::from(column);
        let Some(mine) = self.versions.get_mut(at) else { return };
        let theirs = Version::new(stamp, origin);
        let before = *mine;
        *mine = theirs.max(before);
        let contested = contested(&mut self.contested, column, before, self.values[at].as_ref());
        contested.values.retain(|(version, _)| !seen.knew(origin, *version));
        if contested.seen.of(origin) < stamp {
            contested.values.push((theirs, value));
        }
        contested.seen.join(seen);
        contested.seen.pass(origin, stamp);
        let best = contested.values.iter().reduce(|best, next| if extreme.prefers(next, best) { next } else { best });
        if let Some((_, best)) = best
            && self.values[at].as_ref() != Some(best)
        {
            self.values[at] = Some(best.clone());
            changed.push(column);
        }
    }

    /// The own site has given a column of this kind a value, knowing all others.
    pub(super) fn give_extreme(&mut self, seen: &Seen, version: Version, column: u16, value: &Value) {
        let contested = contested(&mut self.contested, column, Version::NONE, None);
        contested.values = vec![(version, value.clone())];
        contested.seen.join(seen);
        contested.seen.pass(version.site, version.stamp);
    }
}

/// What is known of the column; at first the value that it has, if that is not known everywhere.
fn contested<'a>(
    all: &'a mut Vec<Contested>,
    column: u16,
    version: Version,
    value: Option<&Value>,
) -> &'a mut Contested {
    let at = all.iter().position(|contested| contested.column == column).unwrap_or_else(|| {
        let mut seen = Seen::default();
        let mut values = Vec::new();
        if let Some(value) = value.filter(|_| version.is_change()) {
            seen.pass(version.site, version.stamp);
            values.push((version, value.clone()));
        }
        all.push(Contested { column, values, seen });
        all.len() - 1
    });
    &mut all[at]
}
