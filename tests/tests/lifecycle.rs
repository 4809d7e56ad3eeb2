//! The agent dies: the program in the kernel goes on for the lease, and no longer.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use hickory_proto::rr::RecordType;
use lab::{
    Lab, Options,
    plan::{EAST, Public, SITES, WEST},
    wait_until,
};

const NAME: &str = "www.shop.test.";

#[test]
fn the_agent_killed_and_restarted_within_the_lease_not_one_query_lost() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    let mut streams = Vec::new();
    for (kind, family) in lab::FAMILIES {
        let server = EAST.public(Public::Dns)[family];
        let expected = SITES.map(|site| site.public(Public::Www)[family]).to_vec();
        streams.push((lab.ask_steadily("client-e", server, NAME, kind)?, expected));
    }
    let agent = lab.agent("east")?;
    agent.kill()?;
    agent.start()?;
    agent.await_ready()?;
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    // As many again from the new agent as passed while it was away.
    let during = streams.iter().map(|(stream, _)| stream.sent()).max().unwrap_or(0);
    wait_until(Duration::from_secs(60), "queries after the restart", || {
        streams.iter().all(|(stream, _)| stream.sent() >= 2 * during)
    })?;
    for (stream, expected) in streams {
        let asked = stream.finish()?;
        let lost = asked.iter().filter(|asked| asked.answer.is_none()).count();
        assert_eq!(lost, 0, "of {} queries", asked.len());
        for asked in asked {
            assert_eq!(asked.answer.map(|(_, addresses)| addresses), Some(expected.clone()));
        }
    }
    Ok(())
}

#[test]
fn the_agent_killed_and_not_restarted_after_the_lease_the_program_stops_answering() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    let server: IpAddr = EAST.v4(Public::Dns).into();
    let agent = lab.agent("east")?;
    agent.kill()?;
    let first = lab.ask("client-e", server, NAME, RecordType::A)?;
    ensure!(first.len() == 2, "the program goes on without its agent: {first:?}");
    for server in EAST.public(Public::Dns) {
        wait_until(Duration::from_secs(15), &format!("{server} is silent"), || {
            lab.ask("client-e", server, NAME, RecordType::A).is_err()
        })?;
    }
    // Resolvers go to the other site's server, which has noticed too.
    lab.await_answers("client-e", &[WEST], Public::Www, &[WEST])?;
    assert_eq!(lab.resolve("client-e", NAME)?, [IpAddr::from(WEST.v4(Public::Www))]);

    agent.start()?;
    agent.await_ready()?;
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    Ok(())
}
