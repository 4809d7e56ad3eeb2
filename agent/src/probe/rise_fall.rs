//! From results to belief.

/// How many equal results in a row change what is believed of a backend. Apart from all I/O and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RiseFall {
    rise: u32,
    fall: u32,
    up: Option<bool>,
    last: Option<bool>,
    streak: u32,
}

/// What is believed from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The backend is good.
    Up,
    /// The backend has failed.
    Down,
}

impl RiseFall {
    /// `rise` successes in a row make a failed backend good, `fall` failures in a row a good one failed. Of a backend that
    /// nothing is known of, the first success is believed, and `fall` failures in a row are.
    pub fn new(rise: u32, fall: u32) -> Self {
        Self { rise, fall, up: None, last: None, streak: 0 }
    }

    /// Takes the next result.
    pub fn observe(&mut self, ok: bool) -> Option<Change> {
        let same = self.last == Some(ok);
        self.streak = if same { self.streak.saturating_add(1) } else { 1 };
        self.last = Some(ok);
        let enough = match self.up {
            None => ok || self.streak >= self.fall,
            Some(up) if up == ok => false,
            Some(_) => self.streak >= if ok { self.rise } else { self.fall },
        };
        if !enough {
            return None;
        }
        self.up = Some(ok);
        Some(if ok { Change::Up } else { Change::Down })
    }

    /// What is believed. `None`: nothing yet.
    pub fn up(&self) -> Option<bool> {
        self.up
    }

    /// How many results in a row were like the last one.
    pub fn streak(&self) -> u32 {
        self.streak
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// The changes at each of `results`, `+` and `-`.
    fn changes(rise: u32, fall: u32, results: &str) -> String {
        let mut machine = RiseFall::new(rise, fall);
        let change = |result| match machine.observe(result == '+') {
            None => '.',
            Some(Change::Up) => 'U',
            Some(Change::Down) => 'D',
        };
        results.chars().map(change).collect()
    }

    #[test]
    fn the_first_success_decides_and_all_other_results_need_their_number() {
        for (rise, fall, results, expected) in [
            (2, 3, "+", "U"),
            (2, 3, "---", "..D"),
            (2, 3, "--+", "..U"),
            (2, 3, "+--+---", "U.....D"),
            (2, 3, "---+-++", "..D...U"),
            (2, 3, "+---++", "U..D.U"),
            (1, 1, "+-+-", "UDUD"),
            (2, 3, "++++----", "U.....D."),
        ] {
            assert_eq!(changes(rise, fall, results), expected, "{rise}/{fall} {results}");
        }
    }

    proptest! {
        /// A change is believed exactly when the last `rise` or `fall` results all contradict the belief; without one, the
        /// first success is enough.
        #[test]
        fn belief_changes_exactly_when_the_last_results_all_contradict_it(
            rise in 1..5_u32, fall in 1..5_u32, results in vec(any::<bool>(), 1..60)
        ) {
            let mut machine = RiseFall::new(rise, fall);
            let mut up = None;
            for (index, &ok) in results.iter().enumerate() {
                let needed = match (up, ok) {
                    (None, true) => 1,
                    (Some(_), true) => rise as usize,
                    (_, false) => fall as usize,
                };
                let window = &results[(index + 1).saturating_sub(needed)..=index];
                let enough = window.len() == needed && window.iter().all(|&result| result == ok);
                let change = machine.observe(ok);
                prop_assert_eq!(change.is_some(), up != Some(ok) && enough);
                if let Some(change) = change {
                    up = Some(change == Change::Up);
                    prop_assert_eq!(up, Some(ok));
                }
                prop_assert_eq!(machine.up(), up);
            }
        }
    }
}
