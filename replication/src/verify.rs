//! How two sites find the rows in which they differ, and which of them is right: the messages and the rule.
//!
//! The asking site has the peer split a table, in the order of its primary key, into pieces of so many rows, and compares
//! the pieces' sums with its own. Pieces that differ are split again, sixteenfold, down to some 64 rows, whose hashes are
//! compared one by one (range-based set reconciliation). What differs then is asked for by key, again and again while
//! replication catches up: rows with changes on their way are no difference yet.
//!
//! Every answer is true of one moment, and no moment lasts longer than one answer: a long comparison keeps SQLite from
//! nothing.

use serde::{Deserialize, Serialize};

use crate::{
    clock::{Seen, SiteId, Version},
    value::Key,
    wire::Shape,
};

/// So few rows are compared one by one.
pub const LEAF: u64 = 64;
/// Into so many pieces a piece that differs is split, and so many are in one answer at most.
pub const FAN_OUT: u64 = 16;
/// Rows in the first pieces.
pub const PIECE: u64 = LEAF * FAN_OUT * FAN_OUT;
/// Keys in one question, and rows in one answer, at most.
pub const KEYS: usize = 4_096;

/// The first 16 bytes of the BLAKE3 hash of a row's values, canonically encoded one after the other.
pub type Hash = u128;

/// Hashes a row's encoding.
pub fn hash(row: &[u8]) -> Hash {
    let [hash @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *blake3::hash(row).as_bytes();
    Hash::from_le_bytes(hash)
}

/// What rows come to, in whatever order they are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// How many.
    pub rows: u64,
    /// The sum of their hashes, modulo 2^128.
    pub sum: u128,
    /// Their exclusive or.
    pub xor: u128,
}

impl Sum {
    /// Adds a row.
    pub fn add(&mut self, hash: Hash) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(hash);
        self.xor ^= hash;
    }
}

/// Rows of a table between two keys, as the table orders its primary key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Behind this one; from the beginning if there is none.
    pub after: Option<Key>,
    /// Up to this one and including it; to the end if there is none.
    pub to: Option<Key>,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Which tables are there?
    Tables,
    /// What do the range's rows come to, in pieces of so many rows, at most [`FAN_OUT`] of them?
    Split {
        /// The table, and the columns that are compared.
        table: Shape,
        /// The range.
        range: Range,
        /// Rows in a piece.
        rows: u64,
    },
    /// Which rows are in the range? At most [`KEYS`].
    Rows {
        /// The table, and the columns that are compared.
        table: Shape,
        /// The range.
        range: Range,
    },
    /// How are these rows, at most [`KEYS`]?
    Keys {
        /// The table, and the columns that are compared.
        table: Shape,
        /// Their keys.
        keys: Vec<Key>,
        /// Changes up to these do not come to the asking site any more.
        past: Seen,
    },
    /// Say again how these rows are, as changes made now: yours stay. Those that are no longer as you told are left out.
    Assert(Vec<Assertion>),
}

/// Rows of one table that a site says again, if they are still as they were told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assertion {
    /// The table, and the columns that were compared.
    pub table: Shape,
    /// Each row's key and hash; without a hash it is not there.
    pub rows: Vec<(Key, Option<Hash>)>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// To `Tables`.
    Tables {
        /// How much the site's rows are worth.
        standing: Standing,
        /// The tables and all of their columns.
        tables: Vec<Shape>,
    },
    /// To `Split`: each piece ends where the next begins. With `more` the rest of the range is still to be asked for, else
    /// the last piece goes to its end.
    Pieces {
        /// The pieces, one at least.
        pieces: Vec<Piece>,
        /// There are more rows in the range.
        more: bool,
    },
    /// To `Rows`.
    Rows {
        /// Keys and hashes.
        rows: Vec<(Key, Hash)>,
        /// There are more rows in the range.
        more: bool,
    },
    /// To `Keys`.
    Keys {
        /// One for each.
        rows: Vec<Told>,
        /// Changes up to these do not come to the answering site any more.
        past: Seen,
    },
    /// To `Assert`: so many rows were said again.
    Asserted(u64),
    /// To anything: this is why there is no answer.
    Refused(String),
}

/// Rows that follow one another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The last key in it; none if it goes to the table's end.
    pub to: Option<Key>,
    /// What its rows come to.
    pub sum: Sum,
}

/// A row, as a site tells of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Its hash; none, if it is not there.
    pub hash: Option<Hash>,
    /// The newest change of it that is still kept.
    pub version: Version,
    /// Of how many of its columns a change is still kept.
    pub changes: u16,
    /// There are changes of it that the other site does not know yet.
    pub moving: bool,
    /// It is not there only because some of its columns are not known: it was changed where an older copy of it was.
    pub partial: bool,
}

impl Told {
    /// Nothing is known of it there.
    fn is_unknown(&self) -> bool {
        self.hash.is_none() && !self.version.is_change()
    }
}

/// Must this site have deleted the row that another tells of, and forgotten that? Its newest change was made here.
fn deleted_by((standing, own): (Standing, Told), told: Told) -> bool {
    standing.forgetful && own.is_unknown() && told.version.site == standing.site
}

/// How much a site's rows are worth to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Standing {
    /// What has happened to its database.
    pub history: History,
    /// Which site.
    pub site: SiteId,
    /// It has forgotten that rows were deleted, of which the other may not have heard.
    pub forgetful: bool,
    /// It has forgotten changes of which the other does not even know that it lacks them,
    pub withholds: bool,
    /// or lacks changes that the other has forgotten.
    pub lacks: bool,
}

impl Standing {
    /// A site with this history of which nothing else is to be said.
    pub fn new(site: SiteId, history: History) -> Self {
        Self { history, site, forgetful: false, withholds: false, lacks: false }
    }
}

/// What has happened to a site's database, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum History {
    /// It is a restored backup, and what it had told its peers later is known to them alone.
    Restored,
    /// Nothing.
    Usual,
    /// It was restored, and has taken over all that the peer knew that had been told the most. Others may have missed some
    /// of that.
    Mended,
}

/// Which of two rows that differ stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The one that is known in full; else the one at the site with the better history; else the one with the newer change
    /// kept; else the one with more of them; else none, if that site has forgotten what was deleted there; else one that is there rather than none; else the
    /// one at the site with the greater number.
    #[default]
    Ruled,
    /// One that is there rather than none; else as `Ruled`. For sites that had data before they were joined.
    Keep,
    /// One that is there rather than none; else the asking site's. For tables that nobody recorded for a while.
    KeepHere,
    /// The asking site's.
    Here,
    /// The peer's.
    There,
    /// As `Ruled`, if the peer lacks changes that the asking site has forgotten. Else the peer's, which has taken in everything that the asking site has, and more; but not if it knows nothing of the row,
    /// or not enough. Where it has forgotten what it deleted, a row of which it knows nothing is one of those.
    Behind,
}

impl Policy {
    /// Does the first row stay? Both sites say the same: of (one, two) and (two, one), one is true.
    pub fn first_stays(self, one: (Standing, Told), two: (Standing, Told)) -> bool {
        let ruled = |(standing, told): (Standing, Told), other| {
            let changed = if deleted_by(other, told) { (Version::NONE, 0) } else { (told.version, told.changes) };
            let forgotten = standing.forgetful && told.hash.is_none();
            (!told.partial, standing.history, changed, forgotten, told.hash.is_some(), standing.site)
        };
        let ruled = || ruled(one, two) > ruled(two, one);
        match self {
            Self::Ruled => ruled(),
            Self::Keep | Self::KeepHere if one.1.hash.is_some() != two.1.hash.is_some() => one.1.hash.is_some(),
            Self::Keep => ruled(),
            Self::Here | Self::KeepHere => true,
            Self::There => false,
            Self::Behind if one.0.withholds || two.0.lacks => ruled(),
            Self::Behind if two.1.is_unknown() => !two.0.forgetful,
            Self::Behind => two.1.partial,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(site: SiteId) -> impl Strategy<Value = (Standing, Told)> {
        let history = prop::sample::select(vec![History::Restored, History::Usual, History::Mended]);
        (history, prop::option::of(0..3_u128), 0..3_i64, 1..4_u32).prop_map(move |(history, hash, stamp, by)| {
            (Standing::new(site, history), Told { hash, version: Version::new(stamp, by), ..Told::default() })
        })
    }

    proptest! {
        #[test]
        fn both_sites_come_to_the_same_conclusion(one in row(1), two in row(2)) {
            for policy in [Policy::Ruled, Policy::Keep] {
                prop_assert_ne!(policy.first_stays(one, two), policy.first_stays(two, one));
            }
        }
    }

    #[test]
    fn a_restored_site_yields_until_it_is_mended() {
        let row = |site, history, stamp| {
            (Standing::new(site, history), Told { version: Version::new(stamp, site), ..Told::default() })
        };
        assert!(Policy::Ruled.first_stays(row(1, History::Usual, 5), row(2, History::Restored, 9)));
        assert!(Policy::Ruled.first_stays(row(1, History::Mended, 5), row(2, History::Usual, 9)));
        assert!(Policy::Ruled.first_stays(row(1, History::Usual, 9), row(2, History::Usual, 5)));
        assert!(!Policy::Ruled.first_stays(row(1, History::Usual, 0), row(2, History::Usual, 0)));
    }

    #[test]
    fn sums_depend_on_every_row_and_not_on_their_order() {
        let sum = |rows: &[&[u8]]| {
            let mut all = Sum::default();
            rows.iter().for_each(|row| all.add(hash(row)));
            all
        };
        assert_eq!(sum(&[b"a", b"b", b"c"]), sum(&[b"c", b"a", b"b"]));
        assert_ne!(sum(&[b"a", b"a"]), sum(&[b"b", b"b"]));
        assert_ne!(sum(&[b"a"]), sum(&[b"a", b"a"]));
    }
}
