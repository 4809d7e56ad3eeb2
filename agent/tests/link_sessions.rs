//! Two agents find each other, keep each other informed, and notice when the other is gone.

mod link_sites;

use std::{
    net::{Ipv6Addr, UdpSocket},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use link_sites::{Agent, DEADLINE, PERIOD, World, relay::Relay, until};
use siteswap::link::{
    LinkError, LinkEvent,
    message::{Request, Response},
};
use tokio::runtime::{Builder, Runtime};

#[tokio::test]
async fn b7_two_sites_come_into_contact_and_know_each_others_reports() {
    let world = World::new(&["east", "west"]);
    let (mut east, mut west) = (world.start("east").await, world.start("west").await);
    east.reported("west", "west is well").await;
    west.reported("east", "east is well").await;
    let reason = east.contact("west", true).await;
    assert_eq!(reason, "heartbeats in each of the last 3 periods of 100ms");
    west.contact("east", true).await;

    until("the peer's status is complete", || {
        let status = east.peer("west");
        status.connected && status.report_current && status.rtt_us.is_some() && status.heartbeats > 3
    })
    .await;
    assert_eq!(east.peer("west").remote, Some(world.address("west")));
    assert_eq!(west.peer("east").remote, Some(world.address("east")), "the dialler uses the port it listens on");
    let (ours, theirs) = (east.link.counters(), west.link.counters());
    assert!(ours.heartbeats_sent > 0 && theirs.heartbeats_received > 0, "{ours:?} {theirs:?}");
    assert_eq!((ours.refused, ours.malformed, theirs.refused, theirs.malformed), (0, 0, 0, 0));
}

#[tokio::test]
async fn the_link_works_over_ipv6_too() {
    let world = World::on(Ipv6Addr::LOCALHOST.into(), &["east", "west"]);
    let (mut east, mut west) = (world.start("east").await, world.start("west").await);
    east.contact("west", true).await;
    west.contact("east", true).await;
    assert_eq!(east.peer("west").remote, Some(world.address("west")));
}

#[tokio::test]
async fn a_changed_report_is_sent_at_once_and_a_large_one_whole() {
    let world = World::new(&["east", "west"]);
    let (mut east, west) = (world.start("east").await, world.start("west").await);
    east.reported("west", "west is well").await;
    west.say("one backend left");
    east.reported("west", "one backend left").await;

    let large: String = "x".repeat(200);
    west.report.send_modify(|report| {
        let instance = report.instances["www"].clone();
        for i in 0..3000 {
            let instance = siteswap::evidence::InstanceReport { reason: large.clone(), ..instance.clone() };
            report.instances.insert(format!("r{i}"), instance);
        }
    });
    loop {
        if let LinkEvent::Report { report, .. } = east.next().await
            && report.instances.len() == 3001
        {
            assert_eq!(report, *west.report.borrow());
            break;
        }
    }
}

/// `request` arrives at this peer, and its `response` where it came from.
async fn asks(asker: &Agent, (name, asked): (&str, &mut Agent), request: Request, response: Response) {
    let asking = asker.link.ask(name, request.clone());
    let answering = async {
        let heard = asked.asked.recv().await.unwrap();
        assert_eq!(heard.request, request);
        heard.reply.send(response.clone()).unwrap();
        heard.peer
    };
    let (answer, from) = tokio::join!(asking, answering);
    assert_eq!(answer, Ok(response));
    assert_ne!(from, name);
}

#[tokio::test]
async fn either_site_asks_the_other_and_hears_what_came_of_it() {
    let world = World::new(&["east", "west"]);
    let (mut east, mut west) = (world.start("east").await, world.start("west").await);
    east.contact("west", true).await;
    west.contact("east", true).await;
    let take = Request::Take { resource: "orders".to_owned(), epoch: 3, force: false, as_configured: false };
    let taken = Response::Taken {
        epoch: 4,
        stored: Duration::from_millis(2),
        published: Duration::from_micros(70),
        caught_up: Some(Duration::from_millis(9)),
        behind: vec!["north".to_owned()],
    };
    let refused = Response::Refused("west does not take orders: the site is drained".to_owned());
    asks(&east, ("west", &mut west), take.clone(), taken).await;
    asks(&east, ("west", &mut west), take.clone(), refused).await;
    asks(&west, ("east", &mut east), Request::Drain(true), Response::Drained).await;

    // An agent that gives no response, and one that is not there.
    let asking = east.link.ask("west", take.clone());
    let (answer, ()) = tokio::join!(asking, async { drop(west.asked.recv().await) });
    assert!(answer.as_ref().is_err_and(|error| error.contains("west gave no response")), "{answer:?}");
    let name_error = east
        .link
        .ask("west", Request::Take { resource: "Orders!".to_owned(), epoch: 3, force: false, as_configured: false })
        .await;
    assert!(name_error.unwrap_err().contains("cannot name"), "wrong requests are not sent");
    west.link.close().await;
    east.contact("west", false).await;
    assert_eq!(east.link.ask("west", take).await, Err("west is not connected".to_owned()));
}

#[tokio::test]
async fn b7_a_stopped_peer_is_out_of_contact_and_returns_with_its_report() {
    let world = World::new(&["east", "west"]);
    // Each of both may be the one that goes.
    for (stays, goes) in [("east", "west"), ("west", "east")] {
        let (mut left, gone) = (world.start(stays).await, world.start(goes).await);
        left.contact(goes, true).await;
        gone.link.close().await;
        let reason = left.contact(goes, false).await;
        assert!(reason.contains("no heartbeat in the last period of 100ms"), "{reason}");
        assert_eq!(left.peer(goes).periods.last(), Some(&false), "one empty period is enough");

        let returned = world.start(goes).await;
        left.reported(goes, &format!("{goes} is well")).await;
        left.contact(goes, true).await;
        assert_eq!(left.link.counters().reconnects, 1);
        returned.link.close().await;
        left.link.close().await;
    }
}

#[tokio::test]
async fn an_agent_that_gives_no_sign_of_life_falls_silent_until_it_does() {
    let world = World::new(&["east", "west"]);
    let (mut east, mut west) = (world.start("east").await, world.start("west").await);
    east.contact("west", true).await;
    west.contact("east", true).await;
    west.link.alive_until(Instant::now() + PERIOD);
    east.contact("west", false).await;
    assert!(west.peer("east").contact, "it hears");
    west.link.alive_until(Instant::now() + 2 * DEADLINE);
    east.contact("west", true).await;
}

#[tokio::test]
async fn b7_a_cut_path_ends_contact_at_both_ends_and_the_same_connection_resumes() {
    let mut world = World::new(&["east", "west"]);
    let relay = Relay::to(world.address("west")).await;
    let west = world.config("west");
    world.sites.get_mut("west").unwrap().link = relay.address;
    let mut east = world.config("east");
    east.link.listen = world.address("east");
    let (mut east, mut west) = (Agent::start(east).await.unwrap(), Agent::start(west).await.unwrap());
    east.contact("west", true).await;
    west.contact("east", true).await;

    relay.cut(true);
    east.contact("west", false).await;
    west.contact("east", false).await;
    west.say("changed while the path was cut");

    relay.cut(false);
    east.reported("west", "changed while the path was cut").await;
    east.contact("west", true).await;
    west.contact("east", true).await;
    assert_eq!((east.link.counters().reconnects, west.link.counters().reconnects), (0, 0));
}

#[tokio::test]
async fn a_killed_peer_that_restarts_is_connected_again_without_waiting_for_a_timeout() {
    let world = World::new(&["east", "west"]);
    let mut east = world.start("east").await;
    let west = Process::start(&world);
    east.contact("west", true).await;
    drop(west);

    let _west = world.start("west").await;
    east.reported("west", "west is well").await;
    assert_eq!(east.peer("west").last_error.as_deref(), Some("the peer was restarted"));
}

/// `the_peer_that_is_killed`, in a process of its own; killed by SIGKILL, without a last word, when dropped.
struct Process(Child);

impl Process {
    fn start(world: &World) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "the_peer_that_is_killed", "--ignored"]);
        Self(command.env(WORLD, world.describe()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

const WORLD: &str = "SITESWAP_TEST_WORLD";

#[tokio::test]
#[ignore = "a process of the test above"]
async fn the_peer_that_is_killed() {
    let Ok(described) = std::env::var(WORLD) else { return };
    let _west = World::described(&described).start("west").await;
    tokio::time::sleep(DEADLINE * 2).await;
}

fn start_in(runtime: &Runtime, world: &World, name: &str) -> Agent {
    runtime.block_on(world.start(name))
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn an_agent_that_stood_still_hears_what_waited_before_it_judges_its_peers() {
    let world = World::new(&["east", "west"]);
    let (here, there) = (Builder::new_current_thread().enable_all().build().unwrap(), runtime());
    let _west = start_in(&there, &world, "west");
    here.block_on(async {
        let mut east = world.start("east").await;
        east.contact("west", true).await;
        // The only thread of this agent stands still for several periods while the peer goes on.
        thread::sleep(PERIOD * 6);
        until("the stall was noticed", || east.link.counters().stalls > 0).await;
        let heard = east.link.counters().heartbeats_received;
        until("periods have ended since", || east.link.counters().heartbeats_received > heard + 9).await;
        while let Ok(event) = east.events.try_recv() {
            assert!(!matches!(event, LinkEvent::Contact { contact: false, .. }), "{event:?}");
        }
    });
}

#[tokio::test]
async fn reload_adds_and_removes_peers_and_leaves_the_others_connected() {
    let world = World::new(&["east", "north", "west"]);
    let mut smaller = world.config("east");
    smaller.sites.remove("north");
    let mut east = Agent::start(smaller.clone()).await.unwrap();
    let _west = world.start("west").await;
    let _north = world.start("north").await;
    east.contact("west", true).await;

    east.link.reload(&world.config("east")).unwrap();
    east.reported("north", "north is well").await;
    east.contact("north", true).await;

    east.link.reload(&smaller).unwrap();
    assert_eq!(east.contact("north", false).await, "no longer configured");
    assert_eq!(east.link.status().len(), 1);
    assert!(east.peer("west").connected);
    assert_eq!(east.link.counters().reconnects, 0);
}

#[tokio::test]
async fn reload_takes_a_new_period_and_a_peers_new_key() {
    let mut world = World::new(&["east", "west"]);
    let (mut east, mut west) = (world.start("east").await, world.start("west").await);
    east.contact("west", true).await;
    west.contact("east", true).await;

    let slower = |mut config: siteswap::config::Config| {
        config.link.period = Duration::from_millis(150);
        config.link.periods = 5;
        config
    };
    east.link.reload(&slower(world.config("east"))).unwrap();
    west.link.reload(&slower(world.config("west"))).unwrap();
    until("five periods are kept", || east.peer("west").periods.len() == 5).await;
    assert_eq!(east.link.counters().reconnects, 0);

    let fingerprint = siteswap::link::keys::generate(&world.key("west"), true).unwrap();
    world.sites.get_mut("west").unwrap().fingerprint = fingerprint;
    east.link.reload(&world.config("east")).unwrap();
    assert_eq!(east.contact("west", false).await, "no longer configured");
    west.link.close().await;
    let _west = world.start("west").await;
    east.contact("west", true).await;
}

#[tokio::test]
async fn a_reload_that_cannot_be_applied_changes_nothing() {
    let world = World::new(&["east", "west"]);
    let (mut east, _west) = (world.start("east").await, world.start("west").await);
    east.contact("west", true).await;
    let mut moved = world.config("east");
    moved.link.listen.set_port(1);
    moved.sites.remove("west");
    let error = east.link.reload(&moved).unwrap_err();
    assert_eq!(error.to_string(), "link.listen changed; restart the agent to use it");
    assert!(east.peer("west").connected);
}

#[tokio::test]
async fn a_link_that_cannot_start_says_what_to_do() {
    let world = World::new(&["east", "west"]);
    let complaint = async |config| Agent::start(config).await.err().unwrap();

    let taken = UdpSocket::bind(world.address("east")).unwrap();
    let error = complaint(world.config("east")).await;
    assert!(matches!(error, LinkError::InUse(_)) && error.to_string().contains("ss -ulpn"), "{error}");
    drop(taken);

    let mut config = world.config("east");
    config.link.listen = "203.0.113.254:4400".parse().unwrap();
    let error = complaint(config).await;
    assert!(matches!(error, LinkError::NotLocal(_)) && error.to_string().contains("ip address"), "{error}");

    let mut config = world.config("east");
    config.link.key = world.key("west");
    let error = complaint(config).await;
    assert!(error.to_string().contains("sites.east.fingerprint"), "{error}");

    let mut config = world.config("east");
    config.sites.get_mut("west").unwrap().fingerprint = config.sites["east"].fingerprint;
    let error = complaint(config).await;
    assert!(matches!(error, LinkError::SameKey(..)), "{error}");
}

#[test]
fn a_closed_link_gives_its_address_back_and_its_tasks_stop() {
    let world = World::new(&["east", "west"]);
    let runtime = runtime();
    let (done, ended) = mpsc::channel();
    runtime.block_on(async {
        for _ in 0..3 {
            let mut east = world.start("east").await;
            east.link.close().await;
            // The last sender of events goes with the last task.
            while east.events.recv().await.is_some() {}
            done.send(()).unwrap();
        }
    });
    assert_eq!(ended.try_iter().count(), 3);
}
