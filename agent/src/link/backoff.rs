//! How long to wait between attempts to connect.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);

/// Doubles from 100 ms to 2 s: short enough that a peer which returns is in contact again soon.
#[derive(Clone, Debug)]
pub struct Backoff(Duration);

impl Backoff {
    /// The first wait is the shortest.
    pub fn new() -> Self {
        Self(FIRST)
    }

    /// How long to wait this time.
    pub fn wait(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (wait * 2).min(LONGEST);
        wait
    }

    /// A connection lasted: the next wait is the shortest again.
    pub fn reset(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_two_seconds_and_start_again_after_success() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..7).map(|_| backoff.wait().as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 2000, 2000]);
        backoff.reset();
        assert_eq!(backoff.wait().as_millis(), 100);
    }
}
