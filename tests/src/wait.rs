//! Waiting for conditions, with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(10);

/// Waits until `condition` holds; says how long that took.
///
/// # Errors
/// It does not hold within `deadline`; the error names `what`.
pub fn wait_until(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Result<Duration> {
    let start = Instant::now();
    loop {
        if condition() {
            return Ok(start.elapsed());
        }
        if start.elapsed() > deadline {
            bail!("not within {deadline:?}: {what}");
        }
        thread::sleep(PAUSE);
    }
}
