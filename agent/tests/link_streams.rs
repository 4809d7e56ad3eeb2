//! Streams of frames between agents: what is sent arrives, who sends waits for who reads, and nothing else waits for either.

mod link_sites;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use link_sites::{
    Agent, DEADLINE, World,
    raw::{Raw, closed, said, send_stream},
    until,
};
use quinn::{Connection, RecvStream, SendStream};
use siteswap::{
    evidence::Report,
    link::{
        Close, LinkEvent, Opener,
        frames::{FrameError, FrameReceiver, FrameSender, Frames, MAX_FRAME, Topic},
        message::{self, ReportMessage, Request, Response},
    },
};
use tokio::time::timeout;

/// `east` and `west`, in contact.
async fn pair(world: &World) -> (Agent, Agent) {
    let (mut east, mut west) = (world.start("east").await, world.start("west").await);
    east.contact("west", true).await;
    west.contact("east", true).await;
    (east, west)
}

/// A stream that `from` opens, at both ends.
async fn stream(opener: &mut Opener, (from, to): (&str, &mut Agent)) -> (Frames, Frames) {
    let ours = timeout(DEADLINE, opener.open()).await.expect("it is connected").unwrap();
    (ours, to.next_stream(from).await)
}

/// The next frame, or what became of the stream.
async fn next(receiver: &mut FrameReceiver) -> Result<Option<Vec<u8>>, FrameError> {
    timeout(DEADLINE, receiver.receive()).await.expect("something comes")
}

/// A frame of this length that no other of the tests equals.
fn frame(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|i| u8::try_from((i * 31 + number) % 251).unwrap()).collect()
}

async fn arrive(sender: &mut FrameSender, receiver: &mut FrameReceiver, lengths: &[usize]) {
    let sending = async {
        for (number, length) in lengths.iter().enumerate() {
            sender.send(&frame(number, *length)).await.unwrap();
        }
    };
    let receiving = async {
        for (number, length) in lengths.iter().enumerate() {
            let received = next(receiver).await.unwrap().unwrap();
            assert!(received == frame(number, *length), "frame {number} of {length} bytes");
        }
    };
    tokio::join!(sending, receiving);
}

#[tokio::test]
async fn frames_arrive_whole_and_in_order_both_ways_on_a_stream_from_each_site() {
    let world = World::new(&["east", "west"]);
    let (mut east, mut west) = pair(&world).await;
    let (mut from_east, mut from_west) =
        (east.link.opener("west", Topic::Changes).unwrap(), west.link.opener("east", Topic::Changes).unwrap());
    let streams =
        [stream(&mut from_east, ("east", &mut west)).await, stream(&mut from_west, ("west", &mut east)).await];
    let lengths = [0, 1, 3, 0, 1200, 5, 100_000, MAX_FRAME, 2];
    for (mut here, mut there) in streams {
        tokio::join!(
            arrive(&mut here.sender, &mut there.receiver, &lengths),
            arrive(&mut there.sender, &mut here.receiver, &lengths),
        );
        // What was sent before the end arrives before it.
        here.sender.send(b"the last").await.unwrap();
        drop(here.sender);
        assert_eq!(next(&mut there.receiver).await, Ok(Some(b"the last".to_vec())));
        assert_eq!(next(&mut there.receiver).await, Ok(None));
    }
    assert!(east.link.opener("north", Topic::Changes).is_none());
}

#[tokio::test]
async fn a_frame_that_is_received_in_pieces_survives_that_its_reader_is_cancelled() {
    let world = World::new(&["east", "west"]);
    let (east, mut west) = pair(&world).await;
    let mut opener = east.link.opener("west", Topic::Changes).unwrap();
    let (mut here, mut there) = stream(&mut opener, ("east", &mut west)).await;
    let sent = frame(7, 3 << 20);
    let sending = here.sender.send(&sent);
    let receiving = async {
        loop {
            tokio::select! {
                biased;
                // Given up whenever there is nothing to read at the moment.
                received = there.receiver.receive() => return received.unwrap().unwrap(),
                () = tokio::task::yield_now() => {}
            }
        }
    };
    let (done, received) = timeout(DEADLINE, async { tokio::join!(sending, receiving) }).await.unwrap();
    done.unwrap();
    assert!(received == sent);

    // One that is sent cannot be taken back, so there is none after it.
    let long = frame(8, MAX_FRAME);
    tokio::select! {
        biased;
        _ = here.sender.send(&long) => panic!("more is sent than is read"),
        () = tokio::task::yield_now() => {}
    }
    assert_eq!(here.sender.send(b"more").await, Err(FrameError::Torn));
    drop(here.sender);
    assert_eq!(next(&mut there.receiver).await, Err(FrameError::Torn));
}

#[tokio::test]
async fn too_long_a_frame_is_not_sent() {
    let world = World::new(&["east", "west"]);
    let (east, mut west) = pair(&world).await;
    let mut opener = east.link.opener("west", Topic::Changes).unwrap();
    let (mut here, mut there) = stream(&mut opener, ("east", &mut west)).await;
    assert_eq!(here.sender.send(&vec![0; MAX_FRAME + 1]).await, Err(FrameError::TooLong(MAX_FRAME + 1)));
    arrive(&mut here.sender, &mut there.receiver, &[8]).await;
}

/// Each of both asks the other, and says something that the other hears.
async fn talk(east: &mut Agent, west: &mut Agent, round: usize) {
    say_and_ask(("east", east), ("west", west), round).await;
    say_and_ask(("west", west), ("east", east), round).await;
}

async fn say_and_ask((name, agent): (&str, &Agent), (other, listener): (&str, &mut Agent), round: usize) {
    let asking = agent.link.ask(other, Request::Drain(true));
    let answering = async { listener.asked.recv().await.unwrap().reply.send(Response::Drained).unwrap() };
    let (response, ()) = tokio::join!(asking, answering);
    assert_eq!(response, Ok(Response::Drained));
    let said = format!("round {round}");
    agent.say(&said);
    hear(listener, name, &said).await;
}

/// As `Agent::reported`, but the contact must not end meanwhile.
async fn hear(agent: &mut Agent, name: &str, said: &str) {
    loop {
        match agent.next().await {
            LinkEvent::Contact { contact, reason, .. } => assert!(contact, "{reason}"),
            LinkEvent::Report { peer, report } if peer == name && report.instances["www"].reason == said => return,
            LinkEvent::Report { .. } => {}
        }
    }
}

/// Heartbeats arrive at both.
async fn heartbeats(east: &Agent, west: &Agent) {
    let heard = || [east, west].map(|agent| agent.link.counters().heartbeats_received);
    let before = heard();
    until("heartbeats arrive", || heard().iter().zip(before).all(|(now, before)| *now > before + 9)).await;
}

const PIECE: usize = 256 << 10;

/// Sends `count` frames, counting those that are sent.
fn send_all(mut sender: FrameSender, count: usize) -> (Arc<AtomicUsize>, tokio::task::JoinHandle<FrameSender>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&sent);
    let task = tokio::spawn(async move {
        for number in 0..count {
            sender.send(&frame(number, PIECE)).await.unwrap();
            counting.fetch_add(1, Ordering::Relaxed);
        }
        sender
    });
    (sent, task)
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_the_sender_and_nothing_else() {
    let world = World::new(&["east", "west"]);
    let (mut east, mut west) = pair(&world).await;
    let (mut from_east, mut from_west) =
        (east.link.opener("west", Topic::Changes).unwrap(), west.link.opener("east", Topic::Changes).unwrap());
    let (east_own, mut at_west) = stream(&mut from_east, ("east", &mut west)).await;
    let (west_own, mut at_east) = stream(&mut from_west, ("west", &mut east)).await;
    // All four directions are full.
    let senders = [east_own.sender, at_west.sender, west_own.sender, at_east.sender].map(|sender| send_all(sender, 40));
    until("all have sent something", || senders.iter().all(|(sent, _)| sent.load(Ordering::Relaxed) > 0)).await;
    for round in 0..20 {
        talk(&mut east, &mut west, round).await;
    }
    heartbeats(&east, &west).await;
    for (sent, task) in &senders {
        let under_way = sent.load(Ordering::Relaxed) * PIECE;
        assert!(under_way <= 2 << 20 && !task.is_finished(), "{under_way} bytes are under way");
    }

    // As soon as somebody reads, it goes on, and nothing is missing.
    for receiver in [&mut at_west.receiver, &mut at_east.receiver] {
        for number in 0..40 {
            assert!(next(receiver).await.unwrap().unwrap() == frame(number, PIECE), "frame {number}");
        }
    }
    until("what is read is sent", || senders[0].1.is_finished() && senders[2].1.is_finished()).await;
    assert!(!senders[1].1.is_finished() && !senders[3].1.is_finished());
    senders.iter().for_each(|(_, task)| task.abort());
    assert_eq!((east.link.counters().reconnects, west.link.counters().reconnects), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contact_reports_and_requests_go_on_while_streams_are_busy_both_ways() {
    let world = World::new(&["east", "west"]);
    let (mut east, mut west) = pair(&world).await;
    let (mut from_east, mut from_west) =
        (east.link.opener("west", Topic::Changes).unwrap(), west.link.opener("east", Topic::Changes).unwrap());
    let mut ends = Vec::new();
    for (mut sending, mut receiving) in
        [stream(&mut from_east, ("east", &mut west)).await, stream(&mut from_west, ("west", &mut east)).await]
    {
        ends.push(tokio::spawn(async move {
            let piece = frame(0, PIECE);
            while sending.sender.send(&piece).await.is_ok() {}
        }));
        ends.push(tokio::spawn(async move { while next(&mut receiving.receiver).await.is_ok() {} }));
    }
    for round in 0..50 {
        talk(&mut east, &mut west, round).await;
    }
    heartbeats(&east, &west).await;
    assert!(ends.iter().all(|end| !end.is_finished()));
    ends.iter().for_each(tokio::task::JoinHandle::abort);
    assert_eq!((east.link.counters().malformed, west.link.counters().malformed), (0, 0));
}

#[tokio::test]
async fn a_restarted_peer_gets_new_streams_and_the_old_ones_end() {
    let world = World::new(&["east", "west"]);
    // Each of both may be the one that is restarted, and it dials or is dialled.
    for (stays, goes) in [("east", "west"), ("west", "east")] {
        let (mut left, mut gone) = (world.start(stays).await, world.start(goes).await);
        let (mut ours, mut theirs) =
            (left.link.opener(goes, Topic::Changes).unwrap(), gone.link.opener(stays, Topic::Changes).unwrap());
        let (mut own, at_peer) = stream(&mut ours, (stays, &mut gone)).await;
        let (peers_own, mut at_us) = stream(&mut theirs, (goes, &mut left)).await;
        let ((), ()) = tokio::join!(gone.link.close(), async {
            for mut frames in [at_peer, peers_own] {
                assert!(matches!(next(&mut frames.receiver).await, Err(FrameError::Ended(_))));
            }
        });
        for receiver in [&mut own.receiver, &mut at_us.receiver] {
            let ended = next(receiver).await;
            assert!(matches!(&ended, Err(FrameError::Ended(why)) if why.contains("the agent stops")), "{ended:?}");
        }
        assert!(matches!(own.sender.send(b"to nobody").await, Err(FrameError::Ended(_))));
        assert!(timeout(DEADLINE, theirs.open()).await.unwrap().is_none(), "its link is closed");

        let mut returned = world.start(goes).await;
        let (mut here, mut there) = stream(&mut ours, (stays, &mut returned)).await;
        arrive(&mut here.sender, &mut there.receiver, &[10]).await;
        let mut theirs = returned.link.opener(stays, Topic::Changes).unwrap();
        let (mut there, mut here) = stream(&mut theirs, (goes, &mut left)).await;
        arrive(&mut there.sender, &mut here.receiver, &[10]).await;
        returned.link.close().await;
        left.link.close().await;
    }
}

#[tokio::test]
async fn a_newer_stream_of_the_same_peer_replaces_the_older_one() {
    let world = World::new(&["east", "west"]);
    let (east, mut west) = pair(&world).await;
    let mut opener = east.link.opener("west", Topic::Changes).unwrap();
    let (mut old, mut old_there) = stream(&mut opener, ("east", &mut west)).await;
    arrive(&mut old.sender, &mut old_there.receiver, &[10]).await;
    let (mut new, mut new_there) = stream(&mut opener, ("east", &mut west)).await;
    assert_eq!(next(&mut old_there.receiver).await, Err(FrameError::Replaced));
    drop(old_there);
    // Whoever still writes to the old one hears of it.
    while old.sender.send(&frame(0, PIECE)).await.is_ok() {}
    arrive(&mut new.sender, &mut new_there.receiver, &[10]).await;
    assert_eq!(east.link.counters().reconnects, 0);
}

#[tokio::test]
async fn streams_that_nobody_takes_end_and_only_they() {
    let world = World::new(&["east", "west"]);
    let (mut east, mut west) = pair(&world).await;
    // An agent without a use for streams.
    west.opened.close();
    let mut opener = east.link.opener("west", Topic::Changes).unwrap();
    for _ in 0..3 {
        let mut frames = timeout(DEADLINE, opener.open()).await.unwrap().unwrap();
        assert_eq!(next(&mut frames.receiver).await, Ok(None));
        let refused = timeout(DEADLINE, async {
            loop {
                if let Err(error) = frames.sender.send(&[0; 100]).await {
                    return error;
                }
                tokio::task::yield_now().await;
            }
        });
        assert!(matches!(refused.await.unwrap(), FrameError::Ended(_)));
    }
    talk(&mut east, &mut west, 0).await;
    assert_eq!((east.link.counters().reconnects, west.link.counters().malformed), (0, 0));
}

#[tokio::test]
async fn a_peer_that_is_no_longer_configured_is_opened_no_stream() {
    let world = World::new(&["east", "west"]);
    let (mut east, _west) = pair(&world).await;
    let mut opener = east.link.opener("west", Topic::Changes).unwrap();
    let mut frames = timeout(DEADLINE, opener.open()).await.unwrap().unwrap();
    let mut smaller = world.config("east");
    smaller.sites.remove("west");
    east.link.reload(&smaller).unwrap();
    assert!(matches!(next(&mut frames.receiver).await, Err(FrameError::Ended(_))));
    assert!(timeout(DEADLINE, opener.open()).await.unwrap().is_none());
    assert!(east.link.opener("west", Topic::Changes).is_none());
}

/// Connected to `west` with east's key, so authenticated, and heard.
async fn as_east(world: &World, west: &mut Agent) -> (Raw, Connection) {
    let target = world.address("west");
    let raw = Raw::new(target, Some(&world.key("east")));
    let connection = raw.connect(target).await.unwrap();
    reports(&connection, west, 1).await;
    (raw, connection)
}

/// West hears a report on this connection.
async fn reports(connection: &Connection, west: &mut Agent, number: u64) {
    let period = Duration::from_millis(100);
    let report = ReportMessage { site: "east".to_owned(), number, period, report: Report::default() };
    send_stream(connection, &message::encode_report(report).unwrap()).await;
    while !matches!(west.next().await, LinkEvent::Report { .. }) {}
}

async fn open_raw(connection: &Connection, bytes: &[u8]) -> (SendStream, RecvStream) {
    let (mut send, receive) = connection.open_bi().await.unwrap();
    send.write_all(&[&message::encode_frames(Topic::Changes), bytes].concat()).await.unwrap();
    (send, receive)
}

#[tokio::test]
async fn garbage_on_a_stream_ends_that_stream_is_counted_and_harms_nothing_else() {
    let world = World::new(&["east", "west"]);
    let mut west = world.start("west").await;
    let (_raw, connection) = as_east(&world, &mut west).await;
    let too_long = u32::try_from(MAX_FRAME + 1).unwrap().to_be_bytes();
    let garbage: [(&[u8], usize); 3] =
        [(&too_long, MAX_FRAME + 1), (&[0xff; 10_000], u32::MAX as usize), (b"GET / HTTP/1.1\r\n\r\n", 0x4745_5420)];
    for (number, (bytes, claimed)) in (1..).zip(garbage) {
        let (send, _receive) = open_raw(&connection, bytes).await;
        let mut at_west = west.next_stream("east").await;
        assert_eq!(next(&mut at_west.receiver).await, Err(FrameError::TooLong(claimed)));
        assert_eq!(next(&mut at_west.receiver).await, Ok(None), "nothing comes after it");
        let stopped = timeout(DEADLINE, send.stopped()).await.unwrap().unwrap();
        assert_eq!(stopped, Some((Close::Malformed as u32).into()));
        assert_eq!(west.link.counters().malformed, number);
    }

    // Cut anywhere, in the length of a frame and in the frame.
    let whole = [&[0, 0, 0, 5][..], b"hello"].concat();
    for length in 1..whole.len() {
        let (mut send, _receive) = open_raw(&connection, &whole[..length]).await;
        let mut at_west = west.next_stream("east").await;
        send.finish().unwrap();
        assert_eq!(next(&mut at_west.receiver).await, Err(FrameError::Torn), "{length}");
    }

    // A frame that is promised and does not come costs neither memory nor anybody else's turn.
    let (_send, _receive) = open_raw(&connection, &[1, 0, 0, 0]).await;
    let mut at_west = west.next_stream("east").await;
    reports(&connection, &mut west, 2).await;
    tokio::select! {
        biased;
        received = at_west.receiver.receive() => panic!("{received:?}"),
        () = tokio::task::yield_now() => {}
    }
    assert_eq!(west.link.counters().malformed, 3);
}

#[tokio::test]
async fn a_stream_that_does_not_say_what_it_is_for_is_a_malformed_message() {
    let world = World::new(&["east", "west"]);
    let mut west = world.start("west").await;
    let (_raw, connection) = as_east(&world, &mut west).await;
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(&[message::VERSION, 9, 0, 0]).await.unwrap();
    let (code, reason) = said(closed(&connection).await);
    assert_eq!(code, Close::Malformed as u64);
    assert!(reason.contains("not a well-formed opening of a stream"), "{reason}");
    assert!(west.opened.try_recv().is_err());
}
