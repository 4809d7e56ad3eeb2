//! How far a peer's clock is from this site's, by its heartbeats. Pure: the caller says when a period ends.

/// Of the heartbeats of a period, the one that was on its way for the shortest time tells most: one that waited, with
/// others, while a network or an agent stood still makes the peer's clock look behind, and never ahead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skew {
    most: Option<i64>,
    wrong: bool,
}

impl Skew {
    /// A heartbeat in the running period: so many milliseconds the peer's clock would be ahead, had it not waited.
    pub fn heartbeat(&mut self, ahead: i64) {
        self.most = self.most.max(Some(ahead));
    }

    /// The running period ends: by how much the peer's clock is ahead, if that is known, and whether it has just turned
    /// wrong. Near the limit it turns wrong once.
    pub fn end_period(&mut self) -> Option<(i64, bool)> {
        let ahead = self.most.take()?;
        let wrong = is_wrong(ahead) || self.wrong && is_wrong(ahead.saturating_mul(2));
        let before = std::mem::replace(&mut self.wrong, wrong);
        Some((ahead, self.wrong && !before))
    }

    /// This agent stood still: what came meanwhile says nothing.
    pub fn forget(&mut self) {
        self.most = None;
    }
}

/// Clocks that differ by so many milliseconds are wrong, and not only told late.
pub fn is_wrong(ahead: i64) -> bool {
    ahead.unsigned_abs() >= 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_that_waited_behind_each_other_do_not_make_a_clock_wrong() {
        let mut skew = Skew::default();
        for ahead in [-4_000, -3_000, -1_500, -20] {
            skew.heartbeat(ahead);
        }
        assert_eq!(skew.end_period(), Some((-20, false)));
        skew.heartbeat(-2_000);
        skew.forget();
        assert_eq!(skew.end_period(), None);
    }

    #[test]
    fn a_clock_near_the_limit_turns_wrong_once() {
        let mut skew = Skew::default();
        let mut told = 0;
        for ahead in [999, 1_001, 998, 1_003, -700, 1_000, 499, 1_200] {
            skew.heartbeat(ahead);
            told += u32::from(skew.end_period().is_some_and(|(_, turns)| turns));
        }
        assert_eq!(told, 2, "again only after it was right");
    }
}
