//! B4, B6, and the flows to a site's web servers: new ones go to those whose probes pass, established ones stay.

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hickory_proto::rr::RecordType;
use lab::{
    Lab, Options,
    plan::{EAST, Public, SITES, Site, WEST},
    steady::{self, Conversation, Question, Request, Steady},
    wait_until,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use siteswap_common::maps::LAYOUT;

const DEADLINE: Duration = Duration::from_secs(15);
const CLIENTS: [&str; 2] = ["client-e", "client-w"];
const WEB_SERVERS: [(&str, &str); 2] = [("10.1.0.11:80", "east-web1"), ("10.1.0.12:80", "east-web2")];

/// Pages of east's, by one address.
fn page(address: IpAddr) -> Question {
    Question::tcp(Public::Www, address)
}

/// The web servers that east's agent believes in, by name.
fn believed(lab: &Lab) -> Result<BTreeSet<&'static str>> {
    let status = lab.agent("east")?.status()?;
    let backends = status["backends"].as_array().context("status has no backends")?;
    let up =
        |address: &str| backends.iter().any(|b| b["resource"] == "www" && b["backend"] == address && b["up"] == true);
    Ok(WEB_SERVERS.into_iter().filter(|(address, _)| up(address)).map(|(_, name)| name).collect())
}

fn await_believed(lab: &Lab, expected: &[&'static str]) -> Result<()> {
    let expected = BTreeSet::from_iter(expected.iter().copied());
    let what = format!("the probes at east find {expected:?}");
    wait_until(DEADLINE, &what, || believed(lab).is_ok_and(|found| found == expected)).map(drop)
}

/// Waits until a client has got pages from these web servers at east's address and from no other for a while, one after
/// the other.
fn await_pages_by(lab: &Lab, expected: &[&str]) -> Result<()> {
    for address in EAST.public(Public::Www) {
        for &server in expected {
            lab.await_server("client-e", page(address), server)?;
        }
        for _ in 0..30 {
            let server = lab.server("client-e", page(address))?;
            ensure!(expected.contains(&server.as_str()), "{server} made a page at {address}");
        }
    }
    Ok(())
}

/// Conversations with east's web servers over IPv4 and IPv6: enough that each server has some.
fn converse(lab: &Lab) -> Result<Vec<Steady<Conversation>>> {
    let mut all = Vec::new();
    for _ in 0..8 {
        for (client, address) in CLIENTS.into_iter().zip(EAST.public(Public::Www)) {
            all.push(lab.converse(client, page(address))?);
        }
    }
    await_more(&all)?;
    Ok(all)
}

/// Waits until each of them has asked twenty times more.
fn await_more<T: Send + 'static>(all: &[Steady<T>]) -> Result<()> {
    let before: Vec<usize> = all.iter().map(Steady::sent).collect();
    wait_until(Duration::from_secs(60), "twenty more requests of each", || {
        all.iter().zip(&before).all(|(steady, before)| steady.sent() >= before + 20)
    })
    .map(drop)
}

/// Requests for east's pages over connections of their own, IPv4 and IPv6.
fn request(lab: &Lab) -> Result<Vec<Steady<Vec<Request>>>> {
    let ask = |(client, address)| lab.request_steadily(client, page(address), 100);
    CLIENTS.into_iter().zip(EAST.public(Public::Www)).map(ask).collect()
}

#[test]
fn one_web_server_of_two_dies_under_load_and_only_its_own_flows_notice() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    await_pages_by(&lab, &["east-web1", "east-web2"])?;
    let conversations = converse(&lab)?;
    let requests = request(&lab)?;
    await_more(&requests)?;

    lab.kill("east-web1")?;
    await_believed(&lab, &["east-web2"])?;
    let decided = Instant::now();
    await_more(&requests)?;
    for requests in steady::finish(requests)? {
        let after: Vec<Request> = requests.into_iter().filter(|request| request.sent > decided).collect();
        steady::all_answered(&after, &["east-web2"])?;
    }

    // It comes back, and gets new flows; the established ones of the other stay.
    lab.start("east-web1")?;
    await_believed(&lab, &["east-web1", "east-web2"])?;
    await_pages_by(&lab, &["east-web1", "east-web2"])?;
    let (mut dead, mut alive) = (0, 0);
    for said in steady::finish(conversations)? {
        match Vec::from_iter(&said.servers)[..] {
            [server] if server == "east-web1" => dead += 1,
            [server] if server == "east-web2" && said.broken.is_none() => alive += 1,
            _ => anyhow::bail!("a flow to the web server that lived: {said:?}"),
        }
    }
    assert!(dead > 0 && alive > 0, "{dead} conversations with the one that died, {alive} with the other");
    Ok(())
}

#[test]
fn b4_a_site_serves_with_one_web_server_and_forwards_without_any() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    await_pages_by(&lab, &["east-web1", "east-web2"])?;
    lab.kill("east-web2")?;
    await_believed(&lab, &["east-web1"])?;
    await_pages_by(&lab, &["east-web1"])?;
    lab.kill("east-web1")?;
    await_believed(&lab, &[])?;
    await_pages_by(&lab, &["west-web1", "west-web2"])?;
    lab.start("east-web2")?;
    await_believed(&lab, &["east-web2"])?;
    await_pages_by(&lab, &["east-web2"])
}

/// The web servers accept connections all the time; what the probes find on their page decides.
#[test]
fn b6_the_load_balancers_own_view_decides_where_requests_go() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    await_pages_by(&lab, &["east-web1", "east-web2"])?;
    let away = lab.database("east").with_extension("away");
    fs::rename(lab.database("east"), &away)?;
    await_believed(&lab, &[])?;
    await_pages_by(&lab, &["west-web1", "west-web2"])?;
    lab.await_answers("client-e", &SITES, Public::Www, &[WEST])?;
    fs::rename(&away, lab.database("east"))?;
    await_believed(&lab, &["east-web1", "east-web2"])?;
    await_pages_by(&lab, &["east-web1", "east-web2"])?;
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    Ok(())
}

/// A web server leaves the configuration and returns: flows to the other do not notice, and nothing that is asked fails.
#[test]
fn a_reload_with_other_backends_keeps_established_flows() -> Result<()> {
    const BOTH: &str = r#"backends = ["10.1.0.11:80", "10.1.0.12:80"]"#;
    const ONE: &str = r#"backends = ["10.1.0.12:80"]"#;
    let lab = Lab::up(&Options::default())?;
    await_pages_by(&lab, &["east-web1", "east-web2"])?;
    let conversations = converse(&lab)?;
    let east = lab.agent("east")?;
    east.edit(BOTH, ONE)?;
    east.order(&["reload"])?;
    await_pages_by(&lab, &["east-web2"])?;
    east.edit(ONE, BOTH)?;
    east.order(&["reload"])?;
    await_pages_by(&lab, &["east-web1", "east-web2"])?;
    for said in steady::finish(conversations)? {
        let stayed = said.servers.len() == 1 && (said.broken.is_none() || said.servers.contains("east-web1"));
        assert!(stayed, "{said:?}");
    }
    Ok(())
}

/// Of many connections, one after the other: a share that is off by a fifth of all is seven standard deviations.
#[test]
fn new_flows_are_shared_by_weight_and_none_goes_to_a_backend_of_weight_0() -> Result<()> {
    const FLOWS: u32 = 300;
    let lab = Lab::up(&Options::default())?;
    await_believed(&lab, &["east-web1", "east-web2"])?;
    let agent = lab.agent("east")?;
    let share = || -> Result<f64> {
        let mut first = 0_u32;
        for _ in 0..FLOWS {
            let server = lab.server("client-e", page(EAST.v4(Public::Www).into()))?;
            first += u32::from(server == "east-web1");
        }
        Ok(f64::from(first) / f64::from(FLOWS))
    };
    let mut written = "\"10.1.0.11:80\"".to_owned();
    for (weight, expected) in [(1, 0.5), (4, 0.8), (0, 0.0)] {
        let weighed = format!("{{ address = \"10.1.0.11:80\", weight = {weight} }}");
        agent.edit(&written, &weighed)?;
        agent.order(&["reload"])?;
        let found = share()?;
        let near = if expected == 0.0 { found == 0.0 } else { (found - expected).abs() < 0.2 };
        ensure!(near, "weight {weight}: {found} of all, {expected} expected");
        written = weighed;
    }
    Ok(())
}

/// How an agent ends before its successor starts.
type End = fn(&Lab, Site) -> Result<()>;

fn crash(lab: &Lab, site: Site) -> Result<()> {
    lab.agent(site.name)?.kill()
}

fn terminate(lab: &Lab, site: Site) -> Result<()> {
    let process = lab.processes().into_iter().find(|process| process.name() == site.name).context("its agent")?;
    kill(Pid::from_raw(process.running().context("it does not run")?.pid()), Signal::SIGTERM)?;
    wait_until(DEADLINE, "the agent ends", || process.running().is_none()).map(drop)
}

/// It leaves the program on maps of another layout than its successor's, as one of another release does.
fn crash_of_another_layout(lab: &Lab, site: Site) -> Result<()> {
    crash(lab, site)?;
    Ok(fs::rename(lab.pins().join(site.name).join(format!("v{LAYOUT}")), other_layout(lab, site))?)
}

fn other_layout(lab: &Lab, site: Site) -> PathBuf {
    lab.pins().join(site.name).join("v0")
}

/// The agent ends and another starts, with a program of its own on the same interfaces: no request, datagram, query or
/// connection is lost, of those served here and of those forwarded.
fn a_restart_loses_nothing(end: End) -> Result<()> {
    // Two of these loads at once leave two processors no time to answer.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::up(&Options::default())?;
    // The load slows the new agent down too.
    let east = lab.agent("east")?;
    east.edit("lease = \"3s\"", "lease = \"10s\"")?;
    east.order(&["reload"])?;
    await_pages_by(&lab, &["east-web1", "east-web2"])?;
    let forwarded = Question::all(Public::Accounts, EAST);
    let served = Question::all(Public::Orders, EAST);
    for &question in &forwarded {
        lab.await_server("client-e", question, "db-west")?;
    }
    let mut requests = request(&lab)?;
    let mut conversations = converse(&lab)?;
    for &question in forwarded.iter().chain(&served) {
        requests.push(lab.request_steadily("client-w", question, 25)?);
        conversations.push(lab.converse("client-w", question)?);
    }
    let queries = lab.ask_steadily("client-e", EAST.v4(Public::Dns).into(), "www.shop.test.", RecordType::A)?;
    await_more(&requests)?;

    end(&lab, EAST)?;
    lab.start("east")?;
    east.await_ready()?;
    wait_until(DEADLINE, "the earlier program is replaced", || !other_layout(&lab, EAST).exists())?;
    await_more(&requests)?;

    let asked = queries.finish()?;
    assert_eq!(asked.iter().filter(|asked| asked.answer.is_none()).count(), 0, "of {} queries", asked.len());
    for requests in steady::finish(requests)? {
        steady::all_answered(&requests, &["east-web1", "east-web2", "db-east", "db-west"])?;
    }
    for said in steady::finish(conversations)? {
        assert!(said.broken.is_none() && said.servers.len() == 1, "{said:?}");
    }
    Ok(())
}

#[test]
fn the_program_is_replaced_under_load_after_the_agent_was_killed_and_nothing_is_lost() -> Result<()> {
    a_restart_loses_nothing(crash)
}

#[test]
fn the_program_is_replaced_under_load_after_the_agent_was_told_to_end_and_nothing_is_lost() -> Result<()> {
    a_restart_loses_nothing(terminate)
}

#[test]
fn the_program_is_replaced_under_load_by_one_with_other_maps_and_nothing_is_lost() -> Result<()> {
    a_restart_loses_nothing(crash_of_another_layout)
}
