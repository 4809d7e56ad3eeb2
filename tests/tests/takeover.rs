//! A5 and the takeover rules: who provides a resource when its holder is gone, or seems to be.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use hickory_proto::rr::RecordType;
use lab::{
    Lab, Options,
    plan::{EAST, Public, RESOURCES, SITES, Site, WEST},
    steady::{self, Question},
    wait_until,
};

const CLIENTS: [&str; 2] = ["client-e", "client-w"];

/// The resources that one site holds, and which.
const HELD: [(Public, Site); 2] = [(Public::Orders, EAST), (Public::Accounts, WEST)];

fn database(site: Site) -> String {
    format!("db-{}", site.name)
}

/// What a site holds as configured.
fn held_by(site: Site) -> Public {
    if site == EAST { Public::Orders } else { Public::Accounts }
}

/// Waits until both clients are answered by `holder` for a resource, at the addresses of `at`.
fn await_served(lab: &Lab, resource: Public, at: &[Site], holder: Site) -> Result<()> {
    for client in CLIENTS {
        for question in at.iter().flat_map(|&site| Question::all(resource, site)) {
            lab.await_server(client, question, &database(holder))?;
        }
    }
    Ok(())
}

/// Changes both sites' configurations alike.
fn configure(lab: &Lab, from: &str, to: &str) -> Result<()> {
    for site in SITES {
        let agent = lab.agent(site.name)?;
        agent.edit(from, to)?;
        agent.order(&["reload"])?;
    }
    Ok(())
}

/// The other site provides everything alone; when the first is back it does not take back what it held, and never serves
/// it in between.
fn a_site_dies_and_comes_back(lost: Site) -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    let (left, resource) = (lost.other(), held_by(lost));
    await_served(&lab, resource, &SITES, lost)?;
    lab.destroy(lost)?;
    lab.await_holder(&[left], resource, left, 1)?;
    lab.await_holder(&[left], held_by(left), left, 0)?;
    for resource in RESOURCES {
        lab.await_answers("client-e", &[left], resource, &[left])?;
    }
    for (resource, _) in HELD {
        await_served(&lab, resource, &[left], left)?;
    }
    for (client, address) in CLIENTS.into_iter().zip(left.public(Public::Www)) {
        assert!(lab.server(client, Question::tcp(Public::Www, address))?.starts_with(left.name));
    }

    // The program it left behind goes on for the lease, 3 s: queries, one every 5 ms, tell the time.
    let clock = lab.ask_steadily("client-e", left.v4(Public::Dns).into(), Public::Www.domain(), RecordType::A)?;
    wait_until(Duration::from_secs(60), "the lease at the lost site is over", || clock.sent() > 800)?;
    let meanwhile = lab.request_steadily("client-e", Question::udp(resource, lost.v4(resource).into()), 100)?;
    lab.revive(lost)?;
    lab.await_holder(&SITES, resource, left, 1)?;
    await_served(&lab, resource, &SITES, left)?;
    await_served(&lab, held_by(left), &SITES, left)?;
    lab.await_answers("client-w", &SITES, Public::Www, &SITES)?;
    let servers = steady::servers(&meanwhile.finish()?);
    assert_eq!(servers, BTreeSet::from([database(left)]), "who answered at the address of the one that came back");

    // An operator gives it back.
    lab.agent(left.name)?.order(&["swap", resource.name(), "--to", lost.name])?;
    lab.await_holder(&SITES, resource, lost, 2)?;
    await_served(&lab, resource, &SITES, lost)
}

#[test]
fn a5_the_first_site_dies_the_other_provides_everything_and_keeps_it() -> Result<()> {
    a_site_dies_and_comes_back(EAST)
}

#[test]
fn a5_the_second_site_dies_the_other_provides_everything_and_keeps_it() -> Result<()> {
    a_site_dies_and_comes_back(WEST)
}

#[test]
fn under_automatic_fail_back_a_site_takes_back_what_it_held_once_it_is_well() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    const CONFIRMED: &str = "takeover = \"confirmed\"";
    configure(&lab, CONFIRMED, &format!("{CONFIRMED}\nfailback = \"auto\"\nfailback_after = \"1s\""))?;
    await_served(&lab, Public::Orders, &SITES, EAST)?;
    lab.destroy(EAST)?;
    lab.await_holder(&[WEST], Public::Orders, WEST, 1)?;
    await_served(&lab, Public::Orders, &[WEST], WEST)?;
    lab.revive(EAST)?;
    lab.await_holder(&SITES, Public::Orders, EAST, 2)?;
    await_served(&lab, Public::Orders, &SITES, EAST)?;
    lab.await_holder(&SITES, Public::Accounts, WEST, 0)
}

/// The peer's public addresses still answer, so it lives, and what it holds stays with it.
#[test]
fn the_link_cut_under_confirmed_nothing_is_taken_over() -> Result<()> {
    // Several times the periods and rounds of probes that decide: 1000 queries, one every 5 ms.
    const QUERIES: usize = 1000;
    let lab = Lab::up(&Options::default())?;
    for (resource, holder) in HELD {
        await_served(&lab, resource, &SITES, holder)?;
    }
    let (mut requests, mut servers) = (Vec::new(), Vec::new());
    for (resource, holder) in HELD {
        for question in Question::all(resource, holder) {
            requests.push(lab.request_steadily("client-w", question, 20)?);
            servers.push(database(holder));
        }
    }
    lab.cut("link")?;
    lab.await_contact(false)?;
    let clock = lab.ask_steadily("client-e", EAST.v4(Public::Dns).into(), Public::Www.domain(), RecordType::A)?;
    wait_until(Duration::from_secs(60), "whoever would take over has had the time", || clock.sent() > QUERIES)?;
    for (resource, holder) in HELD {
        lab.await_holder(&SITES, resource, holder, 0)?;
    }
    // What is active here is served as if nothing had happened.
    for (requests, server) in steady::finish(requests)?.iter().zip(servers) {
        steady::all_answered(requests, &[&server])?;
    }
    lab.mend("link")?;
    lab.await_contact(true)?;
    for (resource, holder) in HELD {
        await_served(&lab, resource, &SITES, holder)?;
        lab.await_holder(&SITES, resource, holder, 0)?;
    }
    Ok(())
}

/// Each site takes over what the silent peer holds; when the link returns, the higher epochs win and the former holders
/// stand by.
#[test]
fn the_link_cut_under_silence_both_take_over_and_the_epochs_settle_it() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    configure(&lab, "takeover = \"confirmed\"", "takeover = \"silence\"")?;
    for (resource, holder) in HELD {
        await_served(&lab, resource, &SITES, holder)?;
    }
    lab.cut("link")?;
    for (resource, holder) in HELD {
        let other = holder.other();
        lab.await_holder(&[other], resource, other, 1)?;
        lab.await_holder(&[holder], resource, holder, 0)?;
        // Each serves at its own addresses, for as long as they cannot meet.
        for site in SITES {
            await_served(&lab, resource, &[site], site)?;
        }
    }
    lab.mend("link")?;
    for (resource, holder) in HELD {
        lab.await_holder(&SITES, resource, holder.other(), 1)?;
        await_served(&lab, resource, &SITES, holder.other())?;
    }
    Ok(())
}

/// Its agent lives, but nobody reaches it: the other takes over what it held. What it takes over itself, nobody sees, and
/// when it is back both agree on who holds what.
#[test]
fn a_site_cut_off_from_everybody_loses_what_it_held() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    await_served(&lab, Public::Orders, &SITES, EAST)?;
    for cable in ["east", "link"] {
        lab.cut(cable)?;
    }
    lab.await_holder(&[WEST], Public::Orders, WEST, 1)?;
    for (resource, _) in HELD {
        await_served(&lab, resource, &[WEST], WEST)?;
    }
    for cable in ["east", "link"] {
        lab.mend(cable)?;
    }
    lab.await_holder(&SITES, Public::Orders, WEST, 1)?;
    await_served(&lab, Public::Orders, &SITES, WEST)?;
    lab.await_answers("client-e", &SITES, Public::Www, &SITES)?;
    let holder =
        |agent: Site| Ok::<_, anyhow::Error>(lab.agent(agent.name)?.resource(Public::Accounts)?["holder"].take());
    assert_eq!(holder(EAST)?, holder(WEST)?);
    Ok(())
}
