//! Who is refused, and what it costs the others: nothing.

mod link_sites;

use std::{net::UdpSocket, time::Duration};

use link_sites::{
    Agent, World,
    raw::{Raw, ask, closed, said, send_stream},
    until,
};
use quinn::{Connection, TransportErrorCode};
use siteswap::{
    config::Fingerprint,
    evidence::Report,
    link::{
        Close, keys,
        message::{self, Heartbeat, MAX_MESSAGE, MAX_REQUEST, ReportMessage, Request, VERSION},
    },
};

#[tokio::test]
async fn strangers_are_refused_and_counted_while_the_peer_stays_connected() {
    let world = World::new(&["east", "west"]);
    let (mut east, west) = (world.start("east").await, world.start("west").await);
    east.contact("west", true).await;
    let (target, key) = (world.address("west"), world.key("stranger"));
    keys::generate(&key, false).unwrap();

    let denied = Raw::new(target, Some(&key)).refusal(target).await;
    let access_denied = TransportErrorCode::crypto(49);
    assert!(
        matches!(&denied, quinn::ConnectionError::ConnectionClosed(close) if close.error_code == access_denied),
        "{denied:?}"
    );
    Raw::new(target, None).refusal(target).await;
    Raw::new(target, Some(&world.key("east"))).speaking("h3").refusal(target).await;
    until("three are counted", || west.link.counters().refused == 3).await;

    assert!(west.peer("east").connected);
    assert_eq!((west.link.counters().reconnects, east.link.counters().reconnects), (0, 0));
}

#[tokio::test]
async fn garbage_on_the_port_changes_nothing() {
    let world = World::new(&["east", "west"]);
    let (mut east, west) = (world.start("east").await, world.start("west").await);
    east.contact("west", true).await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in 0..1400_usize {
        let first = u8::try_from(length % 256).unwrap();
        let mut bytes = vec![first; length];
        bytes.iter_mut().skip(1).zip((0..=u8::MAX).cycle()).for_each(|(byte, i)| *byte ^= i.wrapping_mul(31));
        socket.send_to(&bytes, world.address("west")).unwrap();
    }
    west.say("after the garbage");
    east.reported("west", "after the garbage").await;
    assert_eq!((west.link.counters().reconnects, west.link.counters().malformed), (0, 0));
}

#[tokio::test]
async fn a_flood_of_strangers_is_ignored_before_the_handshake() {
    let world = World::new(&["east", "west"]);
    let (mut east, mut config) = (world.start("east").await, world.config("west"));
    // The strangers here come from an address that is no peer's.
    config.sites.get_mut("east").unwrap().link = "127.0.0.2:4400".parse().unwrap();
    let west = Agent::start(config).await.unwrap();
    east.contact("west", true).await;
    let target = world.address("west");
    let flood: Vec<_> = (0..60)
        .map(|_| tokio::spawn(async move { Raw::new(target, None).connect(target).await.map(|_| ()) }))
        .collect();
    until("some are ignored", || west.link.counters().ignored > 0).await;
    flood.iter().for_each(|one| one.abort());
    west.say("still here");
    east.reported("west", "still here").await;
    assert_eq!(west.link.counters().reconnects, 0);
}

#[tokio::test]
async fn a_peer_with_another_key_than_the_configured_one_is_never_connected() {
    let world = World::new(&["east", "west"]);
    let mut config = world.config("east");
    config.sites.get_mut("west").unwrap().fingerprint = Fingerprint([7; 32]);
    let (east, west) = (Agent::start(config).await.unwrap(), world.start("west").await);
    until("the dialler refuses", || east.link.counters().refused > 1).await;
    let error = east.peer("west").last_error.unwrap();
    for fingerprint in [Fingerprint([7; 32]), world.sites["west"].fingerprint] {
        assert!(error.contains(&fingerprint.to_string()), "{error}");
    }
    assert!(!west.peer("east").connected && !east.peer("west").connected);

    let mut config = world.config("west");
    config.sites.get_mut("east").unwrap().fingerprint = Fingerprint([9; 32]);
    east.link.close().await;
    west.link.close().await;
    let (east, west) = (world.start("east").await, Agent::start(config).await.unwrap());
    until("the acceptor refuses", || west.link.counters().refused > 1).await;
    until("the dialler learns why", || {
        let error = east.peer("west").last_error.unwrap_or_default();
        error.contains("must have this site's fingerprint")
    })
    .await;
    assert!(!east.peer("west").contact && !west.peer("east").contact);
}

#[tokio::test]
async fn a_peer_that_dials_against_the_rule_is_refused() {
    let world = World::new(&["east", "west"]);
    let east = world.start("east").await;
    let target = world.address("east");
    let (code, reason) = said(Raw::new(target, Some(&world.key("west"))).refusal(target).await);
    assert_eq!(code, Close::WrongDirection as u64);
    assert!(reason.contains("sorts first"), "{reason}");
    assert_eq!(east.link.counters().refused, 1);
}

/// Connected to `west` with east's key, so authenticated.
async fn as_east(world: &World) -> (Raw, Connection) {
    let target = world.address("west");
    let raw = Raw::new(target, Some(&world.key("east")));
    let connection = raw.connect(target).await.unwrap();
    (raw, connection)
}

fn message(site: &str) -> ReportMessage {
    ReportMessage { site: site.to_owned(), number: 1, period: Duration::from_millis(100), report: Report::default() }
}

#[tokio::test]
async fn a_malformed_message_closes_the_connection_with_a_reason_and_is_counted() {
    let world = World::new(&["east", "west"]);
    let mut west = world.start("west").await;
    let good = message::encode_report(message("east")).unwrap();
    let other_version = [&[VERSION + 1], &good[1..]].concat();
    let cases: [(&[u8], &str); 6] = [
        (b"", "not a well-formed report"),
        (&good[..good.len() - 1], "not a well-formed report"),
        (&[&good[..], b"more"].concat(), "not a well-formed report"),
        (&other_version, &format!("link version {}, this agent speaks version {VERSION}", VERSION + 1)),
        (&message::encode_report(message("north")).unwrap(), "calls itself \"north\""),
        (&vec![VERSION; MAX_MESSAGE + 1], "longer than"),
    ];
    for (i, (bytes, expected)) in (1..).zip(cases) {
        let (_raw, connection) = as_east(&world).await;
        send_stream(&connection, bytes).await;
        let (code, reason) = said(closed(&connection).await);
        assert_eq!(code, Close::Malformed as u64);
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(west.link.counters().malformed, i);
        assert!(west.peer("east").last_error.unwrap().contains(expected));
    }

    let (_raw, connection) = as_east(&world).await;
    connection.send_datagram(vec![VERSION, 0xff].into()).unwrap();
    let (code, reason) = said(closed(&connection).await);
    assert_eq!(code, Close::Malformed as u64);
    assert!(reason.contains("not a well-formed heartbeat"), "{reason}");

    // None of this keeps the real peer out.
    let mut east = world.start("east").await;
    west.reported("east", "east is well").await;
    east.contact("west", true).await;
}

#[tokio::test]
async fn a_malformed_request_closes_the_connection_and_reaches_nobody() {
    let world = World::new(&["east", "west"]);
    let mut west = world.start("west").await;
    let good = message::encode_request(&Request::Take {
        resource: "orders".to_owned(),
        epoch: 3,
        force: false,
        as_configured: false,
    })
    .unwrap();
    let cases: [(&[u8], &str); 6] = [
        (b"", "not a well-formed opening of a stream"),
        (&[VERSION, 9], "not a well-formed opening of a stream"),
        (&good[..good.len() - 1], "not a well-formed request"),
        (&[&[1], &good[1..]].concat(), &format!("link version 1, this agent speaks version {VERSION}")),
        (&good.to_ascii_uppercase(), "cannot name a site or resource"),
        (&[&good[..], &[0; MAX_REQUEST]].concat(), "longer than"),
    ];
    for (i, (bytes, expected)) in (1..).zip(cases) {
        let (_raw, connection) = as_east(&world).await;
        assert!(ask(&connection, bytes).await.is_none());
        let (code, reason) = said(closed(&connection).await);
        assert_eq!(code, Close::Malformed as u64);
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(west.link.counters().malformed, i);
    }
    assert!(west.asked.try_recv().is_err());
}

#[tokio::test]
async fn a_peer_that_leaves_its_requests_unfinished_takes_six_streams_and_no_more() {
    let world = World::new(&["east", "west"]);
    let mut west = world.start("west").await;
    let (_raw, connection) = as_east(&world).await;
    let report = message::encode_report(message("east")).unwrap();
    send_stream(&connection, &report).await;
    assert!(matches!(west.next().await, siteswap::link::LinkEvent::Report { .. }));
    let mut unfinished = Vec::new();
    for _ in 0..6 {
        let (mut stream, _) = connection.open_bi().await.unwrap();
        stream.write_all(&[VERSION]).await.unwrap();
        unfinished.push(stream);
    }
    let seventh = tokio::spawn({
        let connection = connection.clone();
        async move { connection.open_bi().await.is_ok() }
    });
    // Reports go on meanwhile.
    let newer = message::encode_report(ReportMessage { number: 2, ..message("east") }).unwrap();
    send_stream(&connection, &newer).await;
    assert!(matches!(west.next().await, siteswap::link::LinkEvent::Report { .. }));
    assert!(!seventh.is_finished());
    seventh.abort();
    assert_eq!(west.link.counters().malformed, 0);
}

#[tokio::test]
async fn the_newest_report_of_a_connection_stays_whatever_comes_after_it() {
    let world = World::new(&["east", "west"]);
    let mut west = world.start("west").await;
    let (_raw, connection) = as_east(&world).await;
    let numbered = |number, reason: &str| {
        let report = link_sites::report(reason);
        message::encode_report(ReportMessage { number, report, ..message("east") }).unwrap()
    };
    for (number, reason) in [(2, "second"), (1, "first"), (3, "third")] {
        send_stream(&connection, &numbered(number, reason)).await;
    }
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != "third") {
        if let siteswap::link::LinkEvent::Report { report, .. } = west.next().await {
            seen.push(report.instances["www"].reason.clone());
        }
    }
    assert_eq!(seen, ["second", "third"]);

    let heartbeat = Heartbeat { sequence: 1, report: 4, clock: 0 };
    connection.send_datagram(message::encode_heartbeat(&heartbeat).into()).unwrap();
    until("a report it speaks of is missed", || !west.peer("east").report_current).await;
}

#[tokio::test]
async fn b7_a_peer_that_reports_and_falls_silent_before_it_is_in_contact_is_said_to_be_out_of_contact() {
    let world = World::new(&["east", "west"]);
    let mut west = world.start("west").await;
    let (_raw, connection) = as_east(&world).await;
    send_stream(&connection, &message::encode_report(message("east")).unwrap()).await;
    assert!(matches!(west.next().await, siteswap::link::LinkEvent::Report { .. }));
    let reason = west.contact("east", false).await;
    assert!(reason.contains("no heartbeat in the last period of 100ms"), "{reason}");
}

#[tokio::test]
async fn a_newer_connection_of_the_same_peer_replaces_the_older_one() {
    let world = World::new(&["east", "west"]);
    let mut west = world.start("west").await;
    let report = message::encode_report(message("east")).unwrap();
    let (_first, old) = as_east(&world).await;
    send_stream(&old, &report).await;
    assert!(matches!(west.next().await, siteswap::link::LinkEvent::Report { .. }));
    let (_second, new) = as_east(&world).await;
    assert_eq!(said(closed(&old).await).0, Close::Replaced as u64);
    send_stream(&new, &report).await;
    assert!(matches!(west.next().await, siteswap::link::LinkEvent::Report { .. }));
    assert!(west.peer("east").connected);
    assert_eq!(west.link.counters().reconnects, 1);
}

#[tokio::test]
async fn a_peer_with_another_period_is_heard_and_the_difference_is_told() {
    let world = World::new(&["east", "west"]);
    let mut west = world.start("west").await;
    let (_raw, connection) = as_east(&world).await;
    let slow = ReportMessage { period: Duration::from_secs(2), ..message("east") };
    send_stream(&connection, &message::encode_report(slow).unwrap()).await;
    assert!(matches!(west.next().await, siteswap::link::LinkEvent::Report { .. }));
    let told = west.peer("east").last_error.unwrap();
    assert_eq!(told, "its heartbeat period is 2s, this site's 100ms: set the same at all sites");
}
