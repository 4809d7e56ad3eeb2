//! When a peer is in contact. No clock, no I/O: the caller says when a period ends.

use std::collections::VecDeque;

/// **A peer is in contact while every one of the last N periods held at least one heartbeat.**
///
/// So one empty period ends contact, and N full ones in a row begin it. A new `Contact` remembers no period and is out
/// of contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    needed: usize,
    ended: VecDeque<bool>,
    heard: bool,
}

/// What the end of a period did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The last N periods are full now.
    Gained,
    /// The period that ended was empty.
    Lost,
}

impl Contact {
    /// Out of contact; `periods` (N, at least 1) full periods in a row begin it.
    pub fn new(periods: u32) -> Self {
        Self { needed: count(periods), ended: VecDeque::new(), heard: false }
    }

    /// A heartbeat arrived in the running period.
    pub fn heartbeat(&mut self) {
        self.heard = true;
    }

    /// The running period ends and the next one begins. `Some` if that changed whether the peer is in contact.
    pub fn end_period(&mut self) -> Option<Change> {
        let before = self.in_contact();
        self.ended.push_back(std::mem::take(&mut self.heard));
        if self.ended.len() > self.needed {
            self.ended.pop_front();
        }
        match (before, self.in_contact()) {
            (false, true) => Some(Change::Gained),
            (true, false) => Some(Change::Lost),
            _ => None,
        }
    }

    /// Whether every one of the last N periods held a heartbeat.
    pub fn in_contact(&self) -> bool {
        self.ended.len() == self.needed && self.ended.iter().all(|full| *full)
    }

    /// The last N ended periods, oldest first; fewer until N have ended. `true`: held a heartbeat.
    pub fn periods(&self) -> impl Iterator<Item = bool> {
        self.ended.iter().copied()
    }

    /// Changes N. A peer in contact stays so: the periods before those remembered count as full. One that is not comes into
    /// contact at the end of a period, as ever.
    pub fn set_needed(&mut self, periods: u32) {
        let contact = self.in_contact();
        self.needed = count(periods);
        while self.ended.len() > self.needed {
            self.ended.pop_front();
        }
        while contact && self.ended.len() < self.needed {
            self.ended.push_front(true);
        }
        if !contact && self.in_contact() {
            self.ended.pop_front();
        }
    }
}

fn count(periods: u32) -> usize {
    usize::try_from(periods.max(1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Periods by how many heartbeats each held.
    fn after(needed: u32, periods: &[u8]) -> Contact {
        let mut contact = Contact::new(needed);
        for heartbeats in periods {
            (0..*heartbeats).for_each(|_| contact.heartbeat());
            contact.end_period();
        }
        contact
    }

    #[test]
    fn every_history_of_up_to_eight_periods_follows_the_rule() {
        for needed in 1..=4 {
            for length in 0..=8_usize {
                for bits in 0..1_u32 << length {
                    let periods: Vec<u8> = (0..length).map(|i| (bits >> i & 1) as u8).collect();
                    let n = needed as usize;
                    let expected = length >= n && periods[length - n..].iter().all(|held| *held > 0);
                    assert_eq!(after(needed, &periods).in_contact(), expected, "{needed} {periods:?}");
                }
            }
        }
    }

    #[test]
    fn b7_one_lost_heartbeat_of_three_changes_nothing() {
        let mut contact = after(3, &[3, 3, 3]);
        for heartbeats in [2, 3, 1] {
            (0..heartbeats).for_each(|_| contact.heartbeat());
            assert_eq!(contact.end_period(), None);
            assert!(contact.in_contact());
        }
    }

    #[test]
    fn b7_one_empty_period_ends_contact_at_once_and_n_full_ones_begin_it() {
        let mut contact = after(3, &[3, 3, 3]);
        assert_eq!(contact.end_period(), Some(Change::Lost));
        for expected in [None, None, Some(Change::Gained)] {
            contact.heartbeat();
            assert_eq!(contact.end_period(), expected);
        }
    }

    #[test]
    fn heartbeats_count_only_in_the_period_they_arrive_in() {
        let mut contact = after(1, &[9]);
        assert!(contact.in_contact());
        assert_eq!(contact.end_period(), Some(Change::Lost));
    }

    proptest! {
        #[test]
        fn changes_are_reported_exactly_when_contact_changes(
            needed in 1_u32..6, periods in prop::collection::vec(0_u8..4, 0..60),
        ) {
            let mut contact = Contact::new(needed);
            for heartbeats in periods {
                (0..heartbeats).for_each(|_| contact.heartbeat());
                let before = contact.in_contact();
                let expected = match (before, contact.end_period()) {
                    (false, Some(Change::Gained)) => true,
                    (true, Some(Change::Lost)) => false,
                    (before, None) => before,
                    wrong => panic!("{wrong:?}"),
                };
                prop_assert_eq!(contact.in_contact(), expected);
                prop_assert!(contact.periods().count() <= needed as usize);
            }
        }

        #[test]
        fn another_number_of_periods_alone_neither_ends_nor_begins_contact(
            needed in 1_u32..6, other in 1_u32..9, periods in prop::collection::vec(0_u8..2, 0..12),
        ) {
            let mut contact = after(needed, &periods);
            let before = contact.in_contact();
            contact.set_needed(other);
            prop_assert_eq!(contact.in_contact(), before);
            prop_assert!(contact.periods().count() <= other as usize);
            let full_period = |_| {
                contact.heartbeat();
                contact.end_period()
            };
            let told: Vec<Change> = (0..other).filter_map(full_period).collect();
            prop_assert_eq!(told, if before { vec![] } else { vec![Change::Gained] });
        }
    }
}
