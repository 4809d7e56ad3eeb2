//! Requests through the program's logic on the host and through the program in the kernel: claims A2, A3 and A4 frame by
//! frame, and what flows are for.

use anyhow::{Result, ensure};
use lab::program::{
    Verdict,
    host::Host,
    kernel::Kernel,
    requests::{self, ACK, BACKEND, Fixture, Of, PEER, SYN, backend, instance, ring, segment},
    table::Table,
};
use siteswap_common::{
    maps::{InstanceEntry, RING_CHUNK, Steer, Target},
    outcome::{Action, Outcome},
};

fn judge(fixture: &Fixture, verdict: &Verdict) -> Result<()> {
    let outcome = verdict.outcome();
    ensure!(outcome == fixture.outcome, "{outcome:?} instead of {:?}", fixture.outcome);
    ensure!(verdict.action == outcome.action(), "{:?} does not follow from {outcome:?}", verdict.action);
    let expected = fixture.expected(&verdict.frame).unwrap_or_else(|| fixture.frame.clone());
    ensure!(verdict.frame == expected, "left: {:02x?}\nnot: {expected:02x?}", verdict.frame);
    Ok(())
}

fn judge_all(run: impl Fn(&[u8]) -> Result<Verdict>) -> Result<()> {
    let failures: Vec<String> = requests::all()
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
fn every_request_has_its_outcome_on_the_host() -> Result<()> {
    let host = Host::new(&requests::table());
    judge_all(|frame| Ok(host.run(frame)))
}

#[test]
fn every_request_has_its_outcome_in_the_kernel_and_the_host_agrees_in_every_byte() -> Result<()> {
    let (host, kernel) = (Host::new(&requests::table()), Kernel::new(&requests::table())?);
    judge_all(|frame| {
        let verdict = kernel.run(frame)?;
        ensure!(verdict == host.run(frame), "the host disagrees");
        Ok(verdict)
    })
}

#[test]
fn without_a_lease_every_request_goes_up() -> Result<()> {
    let mut table = requests::table();
    table.leased = false;
    let (host, kernel) = (Host::new(&table), Kernel::new(&table)?);
    for fixture in requests::all().iter().filter(|fixture| fixture.outcome.action() == Action::Send) {
        let verdict = kernel.run(&fixture.frame)?;
        assert_eq!(verdict.action, Action::Pass, "{}", fixture.name);
        assert_eq!(verdict.frame, fixture.frame, "{}", fixture.name);
        assert_eq!(verdict, host.run(&fixture.frame), "{}", fixture.name);
    }
    Ok(())
}

/// The host and the kernel, told the same.
struct Both {
    table: Table,
    host: Host,
    kernel: Kernel,
}

impl Both {
    fn new() -> Result<Self> {
        Self::with_flows(requests::table().flow_sets)
    }

    /// `Www` has two backends, and the table of them gives every flow to the first.
    fn with_flows(flow_sets: u32) -> Result<Self> {
        let mut table = requests::table();
        table.targets.push(backend(Of::Www, 0x12));
        table.flow_sets = flow_sets;
        Ok(Self { host: Host::new(&table), kernel: Kernel::new(&table)?, table })
    }

    fn update(&mut self, change: impl Fn(&mut Table)) -> Result<()> {
        change(&mut self.table);
        self.host.update(&change);
        self.kernel.publish_requests(&self.table)
    }

    fn decide(&mut self, of: Of, entry: InstanceEntry) -> Result<()> {
        self.update(|table| table.instances[of as usize - Of::Www as usize] = entry)
    }

    /// What becomes of a segment of the flow from this port.
    fn run(&self, frame: &[u8]) -> Result<Verdict> {
        let verdict = self.kernel.run(frame)?;
        ensure!(verdict == self.host.run(frame), "the host disagrees with {verdict:02x?}");
        Ok(verdict)
    }

    /// The last byte of the MAC address that a flow's segment goes to, or its outcome.
    fn goes(&self, source: u16, flags: u8) -> Result<Result<u8, Outcome>> {
        let verdict = self.run(&segment(Of::Www, false, source, flags).frame())?;
        Ok(if verdict.action == Action::Send { Ok(verdict.frame[5]) } else { Err(verdict.outcome()) })
    }
}

const FIRST: Result<u8, Outcome> = Ok(0x11);
const SECOND: Result<u8, Outcome> = Ok(0x12);
/// The index of the second backend.
const OTHER: u32 = 4;

fn serving() -> InstanceEntry {
    InstanceEntry { ring_size: RING_CHUNK, ..instance(Of::Www, Steer::Serve) }
}

fn forwarding() -> InstanceEntry {
    InstanceEntry { peer: PEER, ..instance(Of::Www, Steer::Forward) }
}

/// West's place at the end of the Ethernet address.
const WEST: Result<u8, Outcome> = Ok(2);

#[test]
fn an_established_flow_stays_at_its_backend_when_the_table_of_backends_changes() -> Result<()> {
    let mut both = Both::new()?;
    assert_eq!(both.goes(1, SYN)?, FIRST);
    assert_eq!(both.goes(2, SYN)?, FIRST);
    assert_eq!(both.goes(2, ACK)?, FIRST);
    both.update(|table| table.rings = vec![ring(&[OTHER])])?;
    assert_eq!(both.goes(1, ACK)?, FIRST, "known since its first packet");
    assert_eq!(both.goes(2, ACK)?, FIRST);
    assert_eq!(both.goes(3, SYN)?, SECOND, "a new flow");
    Ok(())
}

#[test]
fn a_flow_leaves_a_backend_that_has_failed_and_does_not_return() -> Result<()> {
    let mut both = Both::new()?;
    assert_eq!(both.goes(1, SYN)?, FIRST);
    let working = both.table.targets[BACKEND as usize];
    both.update(|table| {
        table.rings = vec![ring(&[OTHER])];
        table.targets[BACKEND as usize] = Target { address: working.address, ..Target::NONE };
    })?;
    assert_eq!(both.goes(1, ACK)?, SECOND);
    both.update(|table| {
        table.rings = vec![ring(&[BACKEND])];
        table.targets[BACKEND as usize] = working;
    })?;
    assert_eq!(both.goes(1, ACK)?, SECOND);
    Ok(())
}

#[test]
fn a_flow_does_not_go_to_what_has_its_backends_index_now() -> Result<()> {
    let mut both = Both::new()?;
    assert_eq!(both.goes(1, SYN)?, FIRST);
    both.update(|table| {
        table.rings = vec![ring(&[OTHER])];
        table.targets[BACKEND as usize] = Target { generation: 1, ..backend(Of::Www, 0x13) };
    })?;
    assert_eq!(both.goes(1, ACK)?, SECOND);
    Ok(())
}

#[test]
fn after_a_swap_established_flows_finish_here_and_new_ones_go_to_the_new_holder() -> Result<()> {
    let mut both = Both::new()?;
    assert_eq!(both.goes(1, SYN)?, FIRST);
    both.decide(Of::Www, InstanceEntry { stay: 1, ..forwarding() })?;
    assert_eq!(both.goes(1, ACK)?, FIRST);
    assert_eq!(both.goes(2, SYN)?, WEST);
    assert_eq!(both.goes(1, SYN)?, WEST, "a new connection from the same port");
    both.decide(Of::Www, forwarding())?;
    assert_eq!(both.goes(1, ACK)?, WEST, "the time to drain is over");
    Ok(())
}

#[test]
fn after_a_swap_to_this_site_established_flows_still_go_to_the_old_holder() -> Result<()> {
    let mut both = Both::new()?;
    both.decide(Of::Www, forwarding())?;
    assert_eq!(both.goes(1, SYN)?, WEST);
    both.decide(Of::Www, InstanceEntry { leaving: PEER, ..serving() })?;
    assert_eq!(both.goes(1, ACK)?, WEST);
    assert_eq!(both.goes(2, SYN)?, FIRST);
    both.decide(Of::Www, serving())?;
    assert_eq!(both.goes(1, ACK)?, FIRST, "the time to drain is over");
    Ok(())
}

#[test]
fn a_flow_known_to_be_forwarded_is_not_forwarded_again_when_a_peer_forwards_it_here() -> Result<()> {
    let mut both = Both::new()?;
    both.decide(Of::Www, forwarding())?;
    assert_eq!(both.goes(1, SYN)?, WEST);
    let inner = segment(Of::Www, false, 1, ACK).frame()[14..].to_vec();
    let verdict = both.run(&requests::Tunnelled::new(0, &inner).frame())?;
    assert_eq!(verdict.outcome(), Outcome::TunnelLoop);
    Ok(())
}

#[test]
fn a_flow_that_a_peer_forwards_finishes_here_after_a_swap() -> Result<()> {
    let mut both = Both::new()?;
    let tunnelled =
        |source, flags| requests::Tunnelled::new(0, &segment(Of::Www, false, source, flags).frame()[14..]).frame();
    assert_eq!(both.run(&tunnelled(1, SYN))?.outcome(), Outcome::ServedForPeer);
    both.decide(Of::Www, InstanceEntry { stay: 1, ..forwarding() })?;
    assert_eq!(both.run(&tunnelled(1, ACK))?.outcome(), Outcome::ServedForPeer);
    assert_eq!(both.run(&tunnelled(2, SYN))?.outcome(), Outcome::TunnelLoop);
    Ok(())
}

/// The two differ in both addresses, by the same bit.
#[test]
fn a_chosen_packet_for_another_resource_takes_no_flows_place() -> Result<()> {
    let mut both = Both::new()?;
    let flow = segment(Of::Www, true, 1, ACK).frame();
    let mut chosen = segment(Of::Orders, true, 1, ACK).frame();
    // In the client's address, half a word away from where the resources' differ.
    chosen[14 + 8 + 11] ^= Of::Www as u8 ^ Of::Orders as u8;
    assert_eq!(both.run(&flow)?.frame[5], 0x11);
    assert_eq!(both.run(&chosen)?.outcome(), Outcome::Forwarded);
    both.update(|table| table.rings = vec![ring(&[OTHER])])?;
    assert_eq!(both.run(&flow)?.frame[5], 0x11);
    Ok(())
}

#[test]
fn an_icmp_error_follows_its_flow_and_begins_none() -> Result<()> {
    let mut both = Both::new()?;
    let all = requests::all();
    let error =
        all.iter().find(|fixture| fixture.name == "ICMP error 3 goes to the flow's backend, IPv4").expect("one");
    // It is about port 7.
    assert_eq!(both.goes(7, SYN)?, FIRST);
    both.update(|table| table.rings = vec![ring(&[OTHER])])?;
    assert_eq!(both.run(&error.frame)?.frame[5], 0x11);

    let mut both = Both::new()?;
    assert_eq!(both.run(&error.frame)?.frame[5], 0x11);
    both.update(|table| table.rings = vec![ring(&[OTHER])])?;
    assert_eq!(both.run(&error.frame)?.frame[5], 0x12);
    Ok(())
}

/// The host and the kernel agree on each.
#[test]
fn of_more_flows_than_there_is_room_for_the_last_stay() -> Result<()> {
    let mut both = Both::with_flows(2)?;
    let flows = 0..20;
    for source in flows.clone() {
        assert_eq!(both.goes(source, SYN)?, FIRST);
    }
    both.update(|table| table.rings = vec![ring(&[OTHER])])?;
    let stayed: Vec<_> =
        flows.rev().filter_map(|source| both.goes(source, ACK).ok().filter(|to| *to == FIRST)).collect();
    // Each of the two sets has room for two that have not gone on.
    assert_eq!(stayed.len(), 4);
    Ok(())
}

/// Many times as many flows as there is room for.
#[test]
fn a_flood_of_new_flows_moves_no_flow_that_carries_traffic() -> Result<()> {
    let mut both = Both::new()?;
    let kept = 200..300;
    for source in kept.clone() {
        assert_eq!(both.host.run(&segment(Of::Www, true, source, SYN).frame()).frame[5], 0x11);
        assert_eq!(both.host.run(&segment(Of::Www, true, source, ACK).frame()).frame[5], 0x11);
    }
    both.host.update(|table| table.rings = vec![ring(&[OTHER])]);
    let mut syn = segment(Of::Www, true, 1, SYN).frame();
    for stranger in 0..2_000_000_u32 {
        // The client's address, as of many clients.
        syn[26..30].copy_from_slice(&stranger.to_be_bytes());
        let sent = both.host.run(&syn);
        assert_eq!(sent.action, Action::Send);
    }
    for source in kept {
        assert_eq!(both.host.run(&segment(Of::Www, true, source, ACK).frame()).frame[5], 0x11);
    }
    Ok(())
}

/// RFC 4443 section 2.4.
#[test]
fn senders_of_packets_that_are_too_big_are_told_at_a_bounded_rate() -> Result<()> {
    let kernel = Kernel::new(&requests::table())?;
    let all = requests::all();
    let big = all.iter().find(|fixture| fixture.outcome == Outcome::TooBig).expect("one");
    let many = 100_000;
    for _ in 0..many {
        match kernel.run(&big.frame)?.outcome() {
            Outcome::TooBig => {}
            Outcome::TooBigLimit => return Ok(()),
            other => panic!("{other:?}"),
        }
    }
    panic!("{many} senders were told");
}
