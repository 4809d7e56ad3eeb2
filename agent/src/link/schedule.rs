//! When heartbeats are sent and periods end, by the local clock. Pure: the caller passes the time.

use std::time::{Duration, Instant};

/// Heartbeats sent in each period, evenly spread: one may be lost without an empty period at the peer.
pub const HEARTBEATS_PER_PERIOD: u32 = 3;

/// The next tick, and where in the period it is.
///
/// A tick that comes late by more than the time between two ticks means that this agent itself stood still (suspended,
/// starved). What its peers sent meanwhile may still be in the socket, so the period is not judged: it is prolonged by
/// one tick, once, in which the socket is read.
#[derive(Clone, Debug)]
pub struct Schedule {
    step: Duration,
    next: Instant,
    done: u32,
    prolonged: bool,
}

/// What to do at a tick, besides sending a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// Nothing.
    Within,
    /// The period ends: judge it.
    PeriodEnds,
    /// This agent stood still for this long: the period goes on until the next tick.
    Stalled(Duration),
}

impl Schedule {
    /// A period of this length begins now.
    pub fn new(period: Duration, now: Instant) -> Self {
        let step = period / HEARTBEATS_PER_PERIOD;
        Self { step, next: now + step, done: 0, prolonged: false }
    }

    /// When the next tick is due.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// The tick that was due at `next()` happens now.
    pub fn tick(&mut self, now: Instant) -> Tick {
        let late = now.saturating_duration_since(self.next);
        let stalled = late > self.step;
        self.next = if stalled { now } else { self.next } + self.step;
        if stalled && !self.prolonged {
            self.prolonged = true;
            self.done = HEARTBEATS_PER_PERIOD - 1;
            return Tick::Stalled(late);
        }
        self.done += 1;
        if self.done < HEARTBEATS_PER_PERIOD {
            return Tick::Within;
        }
        self.done = 0;
        self.prolonged = false;
        Tick::PeriodEnds
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PERIOD: Duration = Duration::from_millis(300);

    fn ticks(delays: &[u64]) -> Vec<(u64, Tick)> {
        let start = Instant::now();
        let mut schedule = Schedule::new(PERIOD, start);
        let tick = |delay: &u64| {
            let now = schedule.next() + Duration::from_millis(*delay);
            let tick = schedule.tick(now);
            (u64::try_from((now - start).as_millis()).unwrap(), tick)
        };
        delays.iter().map(tick).collect()
    }

    #[test]
    fn three_ticks_make_a_period_and_small_delays_do_not_add_up() {
        use Tick::{PeriodEnds, Within};
        let expected =
            [(100, Within), (290, Within), (301, PeriodEnds), (400, Within), (500, Within), (600, PeriodEnds)];
        assert_eq!(ticks(&[0, 90, 1, 0, 0, 0]), expected);
    }

    #[test]
    fn a_stall_of_several_periods_prolongs_the_period_until_the_socket_was_read() {
        let stalled = Tick::Stalled(Duration::from_secs(2));
        let expected = [(100, Tick::Within), (2200, stalled), (2300, Tick::PeriodEnds), (2400, Tick::Within)];
        assert_eq!(ticks(&[0, 2000, 0, 0]), expected);
    }

    #[test]
    fn an_agent_that_is_always_late_judges_all_the_same() {
        let judged = ticks(&[1000; 6]);
        assert_eq!(judged.iter().filter(|(_, tick)| *tick == Tick::PeriodEnds).count(), 3);
    }

    proptest! {
        #[test]
        fn a_period_is_never_shorter_than_a_tick_under_three(delays in prop::collection::vec(0_u64..500, 1..100)) {
            let mut began = 0;
            for (at, tick) in ticks(&delays) {
                if tick == Tick::PeriodEnds {
                    prop_assert!(at - began >= 100, "{began}..{at}");
                    began = at;
                }
            }
        }
    }
}
