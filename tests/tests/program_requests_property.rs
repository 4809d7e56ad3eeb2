//! Any frame, any table: the host and the kernel agree in every byte, what is passed or dropped is unchanged, and what is
//! sent holds the packet that came.

mod mutations;

use std::sync::LazyLock;

use lab::program::{Verdict, host::Host, kernel::Kernel, requests, table::Table};
use mutations::{mutated, random};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use siteswap_common::{
    maps::{AddressEntry, InstanceEntry, MAX_PORTS, PortEntry, RING_CHUNK, RingChunk, Target},
    outcome::{Action, Outcome},
};

static FRAMES: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| requests::all().into_iter().map(|fixture| fixture.frame).collect());

/// What holds for every frame.
fn judge(frame: &[u8], verdict: &Verdict) -> Result<(), TestCaseError> {
    let outcome = verdict.outcome();
    prop_assert_eq!(verdict.action, outcome.action());
    match verdict.action {
        Action::Pass | Action::Drop => {
            prop_assert_ne!(outcome, Outcome::Fault);
            prop_assert_eq!(&verdict.frame, frame);
        }
        Action::Send if outcome == Outcome::Forwarded => {
            let start = if frame[12..14] == [0x81, 0] { 18 } else { 14 };
            prop_assert!(verdict.frame.ends_with(&frame[start..]), "the packet in the tunnel is another");
        }
        Action::Send => prop_assert!(frame.ends_with(&verdict.frame[14..]), "the packet is another"),
        Action::Transmit => {}
    }
    Ok(())
}

prop_compose! {
    /// An instance's entry with anything in it, but for what tells whose it is.
    fn instance(id: u64)(
        epoch in 0..8u64, ring in 0..4u32, ring_size in prop_oneof![Just(0), Just(64), 1..500u32, any::<u32>()],
        steer in 0..6u32, peer in 0..7u32, leaving in 0..7u32, stay in 0..3u32,
    ) -> InstanceEntry {
        InstanceEntry { id, epoch, ring, ring_size, steer, peer, leaving, stay }
    }
}

prop_compose! {
    fn target(owners: Vec<u64>)(
        owner in prop_oneof![Just(0), proptest::sample::select(owners)], kind in 0..4u32, generation in 0..300u32,
        interface in prop_oneof![Just(7u32), any::<u32>()], mtu in prop_oneof![Just(1456), 0..3000u32, any::<u32>()],
        port in any::<u32>(), bytes in any::<[u8; 16]>(),
    ) -> Target {
        // Not where a frame comes from: the kernel tells that apart, the host does not know.
        let interface = interface.max(2);
        let [a, b, c, d, ..] = bytes;
        Target {
            address: bytes, owner, kind, generation, interface, mtu, port,
            to: [2, a, b, c, d, 1], from: [2, d, c, b, a, 2], source: [a, b, c, d], destination: [d, c, b, a],
        }
    }
}

prop_compose! {
    /// An address with any ports, perhaps of another instance or none.
    fn address(is: AddressEntry)(
        instance_id in prop_oneof![4 => Just(is.instance_id), 1 => any::<u64>()],
        instance in prop_oneof![4 => Just(is.instance), 1 => 0..8u32, 1 => any::<u32>()],
        port_count in prop_oneof![4 => Just(is.port_count), 2 => 0..12u32, 1 => any::<u32>()],
        ports in prop_oneof![2 => Just(is.ports.to_vec()), 1 => vec(port(), MAX_PORTS)],
    ) -> AddressEntry {
        AddressEntry { instance_id, instance, port_count, ports: ports.try_into().expect("as many"), ..is }
    }
}

prop_compose! {
    fn port()(
        protocol in prop_oneof![Just(6), Just(17), any::<u8>()],
        port in prop_oneof![Just(80), Just(7001), Just(0), any::<u16>()],
    ) -> PortEntry {
        PortEntry { protocol, reserved: 0, port }
    }
}

/// What becomes of requests, whatever that may be.
#[derive(Clone, Debug)]
struct Contents {
    addresses: Vec<AddressEntry>,
    instances: Vec<InstanceEntry>,
    rings: Vec<RingChunk>,
    targets: Vec<Target>,
}

fn contents() -> impl Strategy<Value = Contents> {
    let ids: Vec<u64> = requests::table().instances.iter().map(|entry| entry.id).collect();
    let instances: Vec<_> = ids.iter().map(|&id| instance(id)).collect();
    let ring =
        vec(0..8u16, RING_CHUNK as usize).prop_map(|targets| RingChunk { targets: targets.try_into().expect("64") });
    let addresses: Vec<_> = requests::table().addresses.into_iter().map(address).collect();
    (addresses, instances, vec(ring, 4), vec(target(ids), 7)).prop_map(|(addresses, instances, rings, mut targets)| {
        targets.insert(0, Target::NONE);
        Contents { addresses, instances, rings, targets }
    })
}

impl Contents {
    fn put(&self, table: &mut Table) {
        table.addresses.clone_from(&self.addresses);
        table.instances.clone_from(&self.instances);
        table.rings.clone_from(&self.rings);
        table.targets.clone_from(&self.targets);
    }
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn any_frame_and_any_table_on_the_host() {
    let mut host = Host::new(&requests::table());
    let frames = vec(prop_oneof![3 => mutated(&FRAMES), 1 => random(&FRAMES)], 1..40);
    let strategy = (contents(), frames);
    let mut runner = TestRunner::new(config(1_000));
    let host = std::cell::RefCell::new(&mut host);
    let run = |(contents, frames): (Contents, Vec<Vec<u8>>)| {
        host.borrow_mut().update(|table| contents.put(table));
        frames.iter().try_for_each(|frame| judge(frame, &host.borrow().run(frame)))
    };
    runner.run(&strategy, run).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn any_frame_and_any_table_in_the_kernel() {
    let table = requests::table();
    let both = std::cell::RefCell::new((Host::new(&table), Kernel::new(&table).expect("the program loads"), table));
    let frames = vec(prop_oneof![3 => mutated(&FRAMES), 1 => random(&FRAMES)], 1..60);
    let run = |(contents, frames): (Contents, Vec<Vec<u8>>)| {
        let (host, kernel, table) = &mut *both.borrow_mut();
        let failed = |error: anyhow::Error| TestCaseError::fail(format!("{error:#}"));
        contents.put(table);
        host.update(|table| contents.put(table));
        kernel.publish_addresses(&table.addresses).map_err(failed)?;
        kernel.publish_requests(table).map_err(failed)?;
        for frame in &frames {
            let verdict = kernel.run(frame).map_err(failed)?;
            // The kernel bounds how many senders are told, the host does not.
            if verdict.outcome() == Outcome::TooBigLimit {
                continue;
            }
            judge(frame, &verdict)?;
            prop_assert_eq!(verdict, host.run(frame));
        }
        Ok(())
    };
    let mut runner = TestRunner::new(config(150));
    runner.run(&(contents(), frames), run).unwrap_or_else(|error| panic!("{error}"));
}
