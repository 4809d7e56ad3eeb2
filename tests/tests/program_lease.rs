//! The lease, by the clock that the agent reads.

use std::time::Duration;

use anyhow::Result;
use lab::program::{
    fixtures::{self, NAME},
    frames::{A, Datagram, Query, V4},
    kernel::Kernel,
};
use nix::time::{ClockId, clock_gettime};
use siteswap_common::outcome::Outcome;

/// The kernel's coarse clock, in nanoseconds.
fn now() -> Result<u64> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)?);
    Ok(u64::try_from(now.as_nanos())?)
}

#[test]
fn the_program_answers_until_the_lease_ends_and_again_when_it_is_renewed() -> Result<()> {
    let query = Datagram::new(V4, &Query::new(NAME, A).wire()).frame();
    let mut kernel = Kernel::new(&fixtures::table())?;
    let far = now()? + 60_000_000_000;
    for (until, outcome) in
        [(far, Outcome::AnsweredA), (now()? - 1, Outcome::NoLease), (0, Outcome::NoLease), (far, Outcome::AnsweredA)]
    {
        kernel.lease(until)?;
        assert_eq!(kernel.run(&query)?.outcome(), outcome, "lease until {until}");
    }
    Ok(())
}

#[test]
fn a_lease_runs_out_by_itself() -> Result<()> {
    let query = Datagram::new(V4, &Query::new(NAME, A).wire()).frame();
    let mut kernel = Kernel::new(&fixtures::table())?;
    let until = now()? + 200_000_000;
    kernel.lease(until)?;
    let deadline = until + 10_000_000_000;
    loop {
        let before = now()?;
        let outcome = kernel.run(&query)?.outcome();
        if outcome == Outcome::NoLease {
            assert!(now()? >= until, "before its time");
            return Ok(());
        }
        // A tick of the slowest clock, 100 a second, late at most.
        assert!(before < until + 10_000_000, "still answered after the lease");
        assert!(before < deadline);
    }
}
