//! Time stamps that order changes the way people would, and never contradict what a site has seen.
//!
//! A stamp is a hybrid logical clock (Kulkarni et al. 2014): milliseconds since 1970 times 65,536, plus a counter. It is
//! given when a change is folded, in the order in which SQLite committed, and is above every stamp that the site has
//! applied before; so what was made knowing another change compares greater, whatever the clocks say.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A hybrid time stamp.
pub type Stamp = i64;

/// Which site, by a number that is the same everywhere and never given to another.
pub type SiteId = u32;

/// The stamp of a change made at `ms` milliseconds since 1970, if nothing is newer.
pub fn stamp(ms: i64) -> Stamp {
    ms.clamp(0, i64::MAX >> 16) << 16
}

/// Milliseconds since 1970, as far as a stamp tells.
pub fn millis(stamp: Stamp) -> i64 {
    stamp >> 16
}

/// Who changed something, and when: greater is newer. No two changes have the same, for a site never gives a stamp twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// When.
    pub stamp: Stamp,
    /// Where. Decides between equal stamps.
    pub site: SiteId,
}

impl Version {
    /// Older than every change.
    pub const NONE: Self = Self { stamp: 0, site: 0 };
    /// Of a row that is there and of which nothing more is kept: all sites have it. Older than every change.
    pub const SETTLED: Self = Self { stamp: 1, site: 0 };

    /// A change made at `site`.
    pub fn new(stamp: Stamp, site: SiteId) -> Self {
        Self { stamp, site }
    }

    /// Of a change, and not one of those above.
    pub fn is_change(self) -> bool {
        self > Self::SETTLED
    }
}

/// Beyond this no clock goes, whatever a peer says: there is room for 2^40 stamps after it.
const LATEST: Stamp = i64::MAX - (1 << 40);

/// A site's clock. It is kept in the database and moves in the transactions that use it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Clock(pub Stamp);

impl Clock {
    /// The stamp of the next change, made at `ms` milliseconds since 1970.
    pub fn tick(&mut self, ms: i64) -> Stamp {
        self.0 = (self.0 + 1).max(stamp(ms));
        self.0
    }

    /// From now on every stamp is above `other`.
    pub fn pass(&mut self, other: Stamp) {
        self.0 = self.0.max(other.min(LATEST));
    }
}

/// How much of each other site's changes a site has applied: all of those with stamps up to this one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen(BTreeMap<SiteId, Stamp>);

impl Seen {
    /// Everything of `site` up to here.
    pub fn of(&self, site: SiteId) -> Stamp {
        self.0.get(&site).copied().unwrap_or(0)
    }

    /// Was this change known? Those of `maker` itself always were to it.
    pub fn knew(&self, maker: SiteId, version: Version) -> bool {
        !version.is_change() || version.site == maker || version.stamp <= self.of(version.site)
    }

    /// Everything of `site` up to `stamp` is applied now.
    pub fn pass(&mut self, site: SiteId, stamp: Stamp) {
        let seen = self.0.entry(site).or_default();
        *seen = stamp.max(*seen);
    }

    /// What both have seen.
    pub fn join(&mut self, other: &Self) {
        other.0.iter().for_each(|(site, stamp)| self.pass(*site, *stamp));
    }
}

/// What the maker of changes had seen, by their stamps: each entry is of those up to its own that none before it is of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sight(Vec<(Stamp, Seen)>);

impl Sight {
    /// Of all changes up to `newest`.
    pub fn new(newest: Stamp, seen: Seen) -> Self {
        Self(vec![(newest, seen)])
    }

    /// What the maker of a change with this stamp had seen.
    pub fn at(&self, stamp: Stamp) -> &Seen {
        static NOTHING: Seen = Seen(BTreeMap::new());
        self.0.get(self.of(stamp)).map_or(&NOTHING, |(_, seen)| seen)
    }

    fn of(&self, stamp: Stamp) -> usize {
        self.0.partition_point(|(newest, _)| *newest < stamp)
    }

    /// Goes on with that of later changes.
    pub fn append(&mut self, later: Self) {
        for (newest, seen) in later.0 {
            match self.0.last_mut() {
                Some(last) if last.1 == seen => last.0 = newest,
                _ => self.0.push((newest, seen)),
            }
        }
    }

    /// Forgets what is of none of these stamps.
    pub fn keep(&mut self, stamps: impl Iterator<Item = Stamp>) {
        let used: BTreeSet<usize> = stamps.map(|stamp| self.of(stamp)).collect();
        let mut at = 0..;
        self.0.retain(|_| at.next().is_some_and(|at| used.contains(&at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_set_back_never_repeats_a_stamp() {
        let mut clock = Clock::default();
        let stamps = [5_000, 5_000, 4_000, 1, 5_000, 5_001].map(|ms| clock.tick(ms));
        assert!(stamps.is_sorted_by(|one, two| one < two), "{stamps:?}");
        assert_eq!(millis(stamps[5]), 5_001);
    }

    #[test]
    fn what_follows_another_sites_change_is_newer_though_the_clock_is_an_hour_behind() {
        let mut clock = Clock::default();
        clock.pass(stamp(3_600_000));
        assert!(clock.tick(0) > stamp(3_600_000));
    }

    #[test]
    fn a_time_no_clock_shows_does_no_harm() {
        for ms in [i64::MIN, -1, i64::MAX] {
            assert!(stamp(ms) >= 0);
        }
    }

    #[test]
    fn what_was_seen_is_found_by_a_changes_stamp() {
        let seen = |stamp| {
            let mut seen = Seen::default();
            seen.pass(2, stamp);
            seen
        };
        let mut sight = Sight::new(10, seen(1));
        for (newest, of) in [(20, 1), (30, 2), (40, 3)] {
            sight.append(Sight::new(newest, seen(of)));
        }
        let of = |sight: &Sight| [1, 10, 11, 20, 21, 30, 31, 40].map(|stamp| sight.at(stamp).of(2));
        assert_eq!(of(&sight), [1, 1, 1, 1, 2, 2, 3, 3]);
        assert_eq!(sight.at(41).of(2), 0, "nobody knows");
        assert_eq!(sight.0.len(), 3, "what is the same is there once");
        sight.keep([35, 12].into_iter());
        assert_eq!(sight, Sight(vec![(20, seen(1)), (40, seen(3))]));
        assert_eq!((sight.at(35).of(2), sight.at(12).of(2)), (3, 1));
    }

    #[test]
    fn a_change_knew_its_own_sites_changes_and_what_was_seen() {
        let mut seen = Seen::default();
        seen.pass(2, 100);
        assert!(
            seen.knew(1, Version::new(999, 1)) && seen.knew(1, Version::new(100, 2)) && seen.knew(1, Version::NONE)
        );
        assert!(!seen.knew(1, Version::new(101, 2)) && !seen.knew(1, Version::new(5, 3)));
    }
}
