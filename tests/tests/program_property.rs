//! Random and mutated frames: the host and the kernel agree in every byte, what is passed is unchanged, and what is
//! answered is what an independent parser calls a query for that name.

mod mutations;

use std::{net::IpAddr, sync::LazyLock};

use hickory_proto::rr::{DNSClass, RecordType};
use lab::program::{
    Verdict,
    decode::{self, Packet},
    fixtures,
    host::Host,
    kernel::Kernel,
};
use proptest::{collection::vec, prelude::*};
use siteswap_common::{answers::Kind, maps::AnswerSet, outcome::Action};

static HOST: LazyLock<Host> = LazyLock::new(|| Host::new(&fixtures::table()));
static FRAMES: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| fixtures::all().into_iter().map(|fixture| fixture.frame).collect());

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    mutations::mutated(&FRAMES)
}

fn random() -> impl Strategy<Value = Vec<u8>> {
    mutations::random(&FRAMES)
}

/// What holds for every frame.
fn judge(frame: &[u8], verdict: &Verdict) -> Result<(), TestCaseError> {
    prop_assert_eq!(verdict.action, verdict.outcome().action());
    match verdict.action {
        Action::Transmit => {
            let judged = judge_reply(frame, &verdict.frame);
            prop_assert!(judged.is_ok(), "{:#}", judged.unwrap_err());
        }
        Action::Send | Action::Pass | Action::Drop => prop_assert_eq!(&verdict.frame, frame),
    }
    Ok(())
}

fn judge_reply(frame: &[u8], reply: &[u8]) -> anyhow::Result<()> {
    let query = unpadded(frame);
    let packet = Packet::read(query)?;
    let message = packet.message()?;
    anyhow::ensure!(message.queries.len() == 1, "not one question");
    let question = &message.queries[0];
    anyhow::ensure!(question.query_class == DNSClass::IN, "class");
    let kind = match question.query_type {
        RecordType::A => Kind::A,
        RecordType::AAAA => Kind::Aaaa,
        other => anyhow::bail!("type {other}"),
    };
    let name = question.name.to_ascii();
    let table = fixtures::table();
    let found =
        table.names.iter().find(|(_, entry)| entry.name[..entry.length as usize] == wire_lower(packet.udp.as_slice()));
    let Some((_, entry)) = found else {
        anyhow::bail!("{name} is not in the table");
    };
    let set = &table.sets[entry.set as usize];
    let (should, is) = packet.checksums()?;
    if should != is {
        let (should, is) = Packet::read(reply)?.checksums()?;
        anyhow::ensure!(should != is, "a damaged query made a valid reply");
        return Ok(());
    }
    decode::check(query, reply, set.ttl, &addresses(set, kind))
}

/// The question's name, read label by label, in lower case.
fn wire_lower(udp: &[u8]) -> Vec<u8> {
    let message = &udp[20..];
    let mut end = 0;
    while message[end] != 0 {
        end += 1 + usize::from(message[end]);
    }
    message[..=end].to_ascii_lowercase()
}

fn addresses(set: &AnswerSet, kind: Kind) -> Vec<IpAddr> {
    match kind {
        Kind::A => set.v4[..set.v4_count.into()].iter().map(|&address| address.into()).collect(),
        Kind::Aaaa => set.v6[..set.v6_count.into()].iter().map(|&address| address.into()).collect(),
    }
}

/// The frame without what Ethernet added.
fn unpadded(frame: &[u8]) -> &[u8] {
    let ip = if frame[12..14] == [0x81, 0] { 18 } else { 14 };
    let field = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let length = match frame[ip] >> 4 {
        4 => field(ip + 2),
        _ => 40 + field(ip + 4),
    };
    &frame[..ip + length]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_frames_on_the_host(frame in mutated()) {
        judge(&frame, &HOST.run(&frame))?;
    }

    #[test]
    fn random_frames_on_the_host(frame in random()) {
        judge(&frame, &HOST.run(&frame))?;
    }

    #[test]
    fn frames_too_short_for_the_kernel_on_the_host(frame in vec(any::<u8>(), 0..14)) {
        prop_assert_eq!(HOST.run(&frame).frame, frame);
    }
}

#[test]
fn random_and_mutated_frames_in_the_kernel() {
    let kernel = Kernel::new(&fixtures::table()).expect("the program loads");
    let config = ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() };
    let run = |frame: Vec<u8>| {
        let verdict = kernel.run(&frame).map_err(|error| TestCaseError::fail(error.to_string()))?;
        judge(&frame, &verdict)?;
        prop_assert_eq!(verdict, HOST.run(&frame));
        Ok(())
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let frames = prop_oneof![3 => mutated(), 1 => random()];
    runner.run(&frames, run).unwrap_or_else(|error| panic!("{error}"));
}
