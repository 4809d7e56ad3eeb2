//! One table of frames, through the program's logic on the host and through the program in the kernel.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use lab::program::{
    Verdict, decode,
    fixtures::{self, Fixture},
    frames::{A, Datagram, Query, V4, V6},
    host::Host,
    kernel::Kernel,
    requests,
};
use siteswap_common::{
    frame::Frame,
    outcome::{Action, Outcome},
};

/// A fixture's outcome, an unchanged frame unless it is answered, and a right reply if it is.
fn judge(fixture: &Fixture, verdict: &Verdict) -> Result<()> {
    let outcome = verdict.outcome();
    ensure!(outcome == fixture.outcome, "{outcome:?} instead of {:?}", fixture.outcome);
    ensure!(verdict.action == outcome.action(), "{:?} does not follow from {outcome:?}", verdict.action);
    match &fixture.reply {
        Some(reply) => decode::check(&reply.query, &verdict.frame, reply.ttl, &reply.addresses),
        None => {
            ensure!(verdict.frame == fixture.frame, "the frame was changed");
            Ok(())
        }
    }
}

/// All fixtures, with every failure in the message.
fn judge_all(run: impl Fn(&[u8]) -> Result<Verdict>) -> Result<()> {
    let failures: Vec<String> = fixtures::all()
        .iter()
        .filter_map(|fixture| {
            let verdict = run(&fixture.frame).and_then(|verdict| judge(fixture, &verdict));
            verdict.err().map(|error| format!("{}: {error:#}", fixture.name))
        })
        .collect();
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

#[test]
fn every_fixture_has_its_outcome_on_the_host() -> Result<()> {
    let host = Host::new(&fixtures::table());
    judge_all(|frame| Ok(host.run(frame)))
}

#[test]
fn every_fixture_has_its_outcome_in_the_kernel_and_the_host_agrees_in_every_byte() -> Result<()> {
    let table = fixtures::table();
    let host = Host::new(&table);
    let kernel = Kernel::new(&table)?;
    judge_all(|frame| {
        let verdict = kernel.run(frame)?;
        ensure!(verdict == host.run(frame), "the host disagrees with {verdict:02x?}");
        Ok(verdict)
    })
}

#[test]
fn fixtures_reach_every_outcome_but_those_that_need_another_table() {
    let queries = fixtures::all().into_iter().map(|fixture| fixture.outcome);
    let reached: HashSet<Outcome> = queries.chain(requests::all().iter().map(|fixture| fixture.outcome)).collect();
    let apart = [Outcome::NoLease, Outcome::NoRoom, Outcome::TooBigLimit, Outcome::Fault];
    for outcome in Outcome::ALL {
        assert_ne!(reached.contains(outcome), apart.contains(outcome), "{outcome:?}");
    }
}

#[test]
fn fixtures_have_names_of_their_own() {
    let mut names = HashSet::new();
    for fixture in fixtures::all() {
        assert!(names.insert(fixture.name.clone()), "{}", fixture.name);
    }
}

#[test]
fn without_a_lease_every_query_goes_up() -> Result<()> {
    let mut table = fixtures::table();
    table.leased = false;
    let host = Host::new(&table);
    let kernel = Kernel::new(&table)?;
    for fixture in fixtures::all().iter().filter(|fixture| fixture.reply.is_some()) {
        let verdict = kernel.run(&fixture.frame)?;
        assert_eq!(verdict.outcome(), Outcome::NoLease, "{}", fixture.name);
        assert_eq!(verdict.frame, fixture.frame, "{}", fixture.name);
        assert_eq!(verdict, host.run(&fixture.frame), "{}", fixture.name);
    }
    Ok(())
}

#[test]
fn a_frame_that_cannot_grow_goes_up_unchanged() {
    let host = Host::new(&fixtures::table());
    for addresses in [V4, V6] {
        let bytes = Datagram::new(addresses, &Query::new(fixtures::NAME, A).wire()).frame();
        let frame = Frame { room: bytes.len() + 31, headroom: usize::MAX, bytes: bytes.clone() };
        let verdict = host.run_frame(frame);
        assert_eq!(verdict.outcome(), Outcome::NoRoom);
        assert_eq!(verdict.action, Action::Pass);
        assert_eq!(verdict.frame, bytes);
    }
}

#[test]
fn without_room_before_the_frame_replies_are_the_same() {
    let host = Host::new(&fixtures::table());
    for fixture in fixtures::all() {
        let cramped = Frame { headroom: 0, ..Frame::new(fixture.frame.clone()) };
        assert_eq!(host.run_frame(cramped), host.run(&fixture.frame), "{}", fixture.name);
    }
}

/// Row 92: nobody has checked the query's UDP checksum yet.
#[test]
fn a_damaged_query_gets_a_reply_whose_checksum_is_as_wrong() -> Result<()> {
    let kernel = Kernel::new(&fixtures::table())?;
    for addresses in [V4, V6] {
        let mut frame = Datagram::new(addresses, &Query::new(fixtures::NAME, A).wire()).frame();
        let id = frame.len() - 12 - fixtures::NAME.len() - 2 - 4;
        frame[id] ^= 0x10;
        let verdict = kernel.run(&frame)?;
        assert_eq!(verdict.outcome(), Outcome::AnsweredA);
        let (should, is) = decode::Packet::read(&verdict.frame)?.checksums()?;
        assert_ne!(should, is);
    }
    Ok(())
}
