//! A change: what one site did to one row, as it is kept in the change table and sent.

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};

use crate::{
    clock::{Stamp, Version},
    value::Value,
};

/// What one site did to one row since it last said anything about it. All stamps are that site's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The row was inserted or, unless deletes win, changed: it should be there.
    pub alive: Option<Stamp>,
    /// It was deleted.
    pub deleted: Option<Deleted>,
    /// All its columns are told, as after an insert.
    pub whole: bool,
    /// The columns changed, in ascending order; none of the key's.
    pub cells: Vec<Cell>,
    /// What was added to counters, in ascending order of columns and times; nothing that a newer cell does away with.
    pub adds: Vec<Add>,
}

/// A row's deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// When.
    pub stamp: Stamp,
    /// Signs of life up to this one are over: usually the deletion's own version; where edits win, the last one that the
    /// site had seen.
    pub ends: Version,
}

/// A column's new value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Which column, as the table counts them.
    pub column: u16,
    /// When.
    pub stamp: Stamp,
    /// The value.
    pub value: Value,
}

/// What was added to a counter: it counts on top of every value that the column was given before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Add {
    /// Which column.
    pub column: u16,
    /// When it was added to last.
    pub stamp: Stamp,
    /// As made then it counts: not after `stamp`. What one site adds in quick succession has one such time, so that there
    /// are few of them.
    pub since: Stamp,
    /// How much, modulo 2^64.
    pub delta: i64,
}

/// How it is encoded: each stamp as its distance below the newest.
#[derive(Serialize, Deserialize)]
struct Head {
    newest: Stamp,
    alive: Option<u64>,
    deleted: Option<(u64, Option<Version>)>,
    whole: bool,
    cells: usize,
    adds: usize,
}

/// A value, as [`Value`] is encoded, that is only passed over.
#[derive(Deserialize)]
#[expect(dead_code, reason = "nobody looks at it")]
enum Passed<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(&'a [u8]),
    Blob(&'a [u8]),
}

impl Change {
    /// The newest stamp in it.
    pub fn newest(&self) -> Stamp {
        self.stamps().max().unwrap_or(0)
    }

    /// All stamps in it.
    pub fn stamps(&self) -> impl Iterator<Item = Stamp> + '_ {
        let cells = self.cells.iter().map(|cell| cell.stamp);
        let adds = self.adds.iter().map(|add| add.stamp);
        cells.chain(adds).chain(self.alive).chain(self.deleted.map(|deleted| deleted.stamp))
    }

    /// Combines two changes of one site to one row into one: of two to the same column the newer stays, those to
    /// different columns both do (claim C3), and what was added to one is summed. Whichever comes first.
    pub fn combine(&mut self, other: Self) {
        self.alive = self.alive.max(other.alive);
        self.deleted = match (self.deleted, other.deleted) {
            (Some(one), Some(two)) => Some(Deleted { stamp: one.stamp.max(two.stamp), ends: one.ends.max(two.ends) }),
            (one, two) => one.or(two),
        };
        self.whole |= other.whole;
        if self.cells.is_empty() {
            self.cells = other.cells;
        } else if !other.cells.is_empty() {
            let mine = std::mem::take(&mut self.cells);
            self.cells = combine_cells(mine, other.cells);
        }
        self.combine_adds(other.adds);
    }

    fn combine_adds(&mut self, other: Vec<Add>) {
        for add in other {
            let place = |mine: &Add| (mine.column, mine.since).cmp(&(add.column, add.since));
            match self.adds.binary_search_by(place) {
                Ok(at) => {
                    let mine = &mut self.adds[at];
                    mine.stamp = mine.stamp.max(add.stamp);
                    mine.delta = mine.delta.wrapping_add(add.delta);
                }
                Err(at) => self.adds.insert(at, add),
            }
        }
        let cells = &self.cells;
        let given = |add: &Add| cells.iter().any(|cell| cell.column == add.column && cell.stamp > add.since);
        self.adds.retain(|add| !given(add));
    }

    /// Appends its encoding. `site` made it.
    pub fn encode(&self, site: u32, into: &mut Vec<u8>) {
        let newest = self.newest();
        let below = |stamp: Stamp| newest.abs_diff(stamp);
        let head = Head {
            newest,
            alive: self.alive.map(below),
            deleted: self.deleted.map(|deleted| {
                let usual = deleted.ends == Version::new(deleted.stamp, site);
                (below(deleted.stamp), (!usual).then_some(deleted.ends))
            }),
            whole: self.whole,
            cells: self.cells.len(),
            adds: self.adds.len(),
        };
        append(&head, into);
        for cell in &self.cells {
            append(&(cell.column, below(cell.stamp), &cell.value), into);
        }
        for Add { column, stamp, since, delta } in &self.adds {
            append(&(column, below(*stamp), below(*since), delta), into);
        }
    }

    /// Is this one encoding and nothing else, as far as can be told without making a change of it?
    pub fn is_encoded(mut bytes: &[u8]) -> bool {
        let Some(Head { cells, adds, .. }) = read(&mut bytes) else { return false };
        (0..cells).all(|_| read::<(u16, u64, Passed<'_>)>(&mut bytes).is_some())
            && (0..adds).all(|_| read::<(u16, u64, u64, i64)>(&mut bytes).is_some())
            && bytes.is_empty()
    }

    /// Reads an encoding, made by `site`, from the front of `bytes`. `None`: it is none.
    pub fn decode(site: u32, bytes: &mut &[u8]) -> Option<Self> {
        let head: Head = read(bytes)?;
        let stamp = |below: u64| head.newest.checked_sub_unsigned(below).filter(|stamp| *stamp >= 0);
        let mut cells = Vec::with_capacity(head.cells.min(bytes.len()));
        for _ in 0..head.cells {
            let (column, below, value) = read(bytes)?;
            if cells.last().is_some_and(|cell: &Cell| cell.column >= column) {
                return None;
            }
            cells.push(Cell { column, stamp: stamp(below)?, value });
        }
        let mut adds = Vec::with_capacity(head.adds.min(bytes.len()));
        for _ in 0..head.adds {
            let (column, below, since, delta) = read(bytes)?;
            let add = Add { column, stamp: stamp(below)?, since: stamp(since)?, delta };
            let follows = adds.last().is_none_or(|last: &Add| (last.column, last.since) < (column, add.since));
            if !follows || add.since > add.stamp {
                return None;
            }
            adds.push(add);
        }
        let deleted = match head.deleted {
            Some((below, ends)) => {
                let stamp = stamp(below)?;
                Some(Deleted { stamp, ends: ends.unwrap_or(Version::new(stamp, site)) })
            }
            None => None,
        };
        let alive = match head.alive {
            Some(below) => Some(stamp(below)?),
            None => None,
        };
        Some(Self { alive, deleted, whole: head.whole, cells, adds })
    }
}

/// Merges two ascending lists; of two for one column the newer stays.
fn combine_cells(mine: Vec<Cell>, theirs: Vec<Cell>) -> Vec<Cell> {
    let mut all = Vec::with_capacity(mine.len().max(theirs.len()));
    let (mut mine, mut theirs) = (mine.into_iter().peekable(), theirs.into_iter().peekable());
    loop {
        let next = match (mine.peek(), theirs.peek()) {
            (Some(one), Some(two)) if one.column == two.column => {
                let (one, two) = (mine.next(), theirs.next());
                one.into_iter().chain(two).max_by_key(|cell| cell.stamp)
            }
            (Some(one), Some(two)) if one.column < two.column => mine.next(),
            (Some(_), None) => mine.next(),
            _ => theirs.next(),
        };
        match next {
            Some(cell) => all.push(cell),
            None => return all,
        }
    }
}

/// Appends postcard's encoding.
pub(crate) fn append(what: &impl Serialize, into: &mut Vec<u8>) {
    // A vector takes everything, and none of our types refuses to be encoded.
    let _ = postcard::serialize_with_flavor(what, Appended(into));
}

/// Takes slices as a whole, which postcard's own way of extending a vector does not.
struct Appended<'a>(&'a mut Vec<u8>);

impl Flavor for Appended<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

fn read<'a, T: Deserialize<'a>>(bytes: &mut &'a [u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
    *bytes = rest;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cell(column: u16, stamp: Stamp, value: i64) -> Cell {
        Cell { column, stamp, value: Value::Integer(value) }
    }

    #[test]
    fn c3_changes_to_different_columns_are_combined_and_superseded_ones_deleted() {
        let mut first = Change { cells: vec![cell(1, 10, 1), cell(2, 10, 1)], alive: Some(10), ..Change::default() };
        first.combine(Change { cells: vec![cell(2, 20, 2), cell(4, 20, 2)], alive: Some(20), ..Change::default() });
        assert_eq!(first.cells, [cell(1, 10, 1), cell(2, 20, 2), cell(4, 20, 2)]);
        assert_eq!(first.alive, Some(20));
    }

    fn added(column: u16, since: Stamp, stamp: Stamp, delta: i64) -> Add {
        Add { column, stamp, since, delta }
    }

    #[test]
    fn what_is_added_is_summed_and_done_away_with_by_a_newer_value() {
        let add = |since, stamp, delta| Change { adds: vec![added(1, since, stamp, delta)], ..Change::default() };
        let mut all = add(10, 10, 3);
        all.combine(add(10, 20, -1));
        all.combine(add(30, 30, i64::MAX));
        assert_eq!(all.adds, [added(1, 10, 20, 2), added(1, 30, 30, i64::MAX)]);
        let given = Change { cells: vec![cell(1, 25, 7), cell(2, 40, 7)], ..Change::default() };
        let mut other = given.clone();
        all.combine(given);
        assert_eq!(all.adds, [added(1, 30, 30, i64::MAX)]);
        other.combine(add(10, 10, 1));
        assert_eq!(other.adds, [], "whichever comes first");
    }

    fn change() -> impl Strategy<Value = Change> {
        let adds = prop::collection::btree_map((0_u16..70, 1_i64..1 << 56), (0_i64..1 << 56, any::<i64>()), 0..4);
        (given(), adds).prop_map(|(given, adds)| {
            let adds = adds.into_iter();
            let adds = adds.map(|((column, since), (later, delta))| added(column, since, since + later, delta));
            Change { adds: adds.collect(), ..given }
        })
    }

    /// A change that adds nothing.
    fn given() -> impl Strategy<Value = Change> {
        let stamp = 1_i64..1 << 57;
        let cells = prop::collection::btree_map(0_u16..70, (stamp.clone(), any::<i64>()), 0..6);
        let deleted = prop::option::of((stamp.clone(), prop::option::of(stamp.clone())));
        (prop::option::of(stamp), deleted, any::<bool>(), cells).prop_map(|(alive, deleted, whole, cells)| Change {
            alive,
            deleted: deleted.map(|(stamp, ends)| Deleted {
                stamp,
                ends: ends.map_or(Version::new(stamp, 7), |ends| Version::new(ends, 9)),
            }),
            whole,
            cells: cells.into_iter().map(|(column, (stamp, value))| cell(column, stamp, value)).collect(),
            adds: Vec::new(),
        })
    }

    proptest! {
        #[test]
        fn an_encoding_is_read_as_what_was_written(change in change()) {
            let mut bytes = Vec::new();
            change.encode(7, &mut bytes);
            let mut rest = &bytes[..];
            prop_assert_eq!(Change::decode(7, &mut rest), Some(change));
            prop_assert!(rest.is_empty());
            prop_assert!(Change::is_encoded(&bytes));
            prop_assert!(!Change::is_encoded(&bytes[..bytes.len() - 1]), "cut at the end");
            bytes.push(0);
            prop_assert!(!Change::is_encoded(&bytes), "followed by something");
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Change::decode(7, &mut &bytes[..]);
        }

        #[test]
        fn the_order_of_combining_does_not_matter(one in change(), two in change(), three in change()) {
            let fold = |changes: [&Change; 3]| {
                let mut all = Change::default();
                changes.into_iter().for_each(|change| all.combine(change.clone()));
                all
            };
            // Of one site's changes no two to one column have the same stamp.
            let first = fold([&one, &two, &three]);
            prop_assert_eq!(&first, &fold([&three, &one, &two]));
        }

        #[test]
        fn what_only_gives_values_may_be_combined_twice(one in given(), two in given()) {
            let first = one.clone().also(&two);
            prop_assert_eq!(&first, &first.clone().also(&one));
        }
    }

    impl Change {
        fn also(mut self, other: &Self) -> Self {
            self.combine(other.clone());
            self
        }
    }
}
