//! What is shown, and in which order. The rows are those of the project's list of features.

use std::{fs, net::IpAddr, time::Instant};

use anyhow::{Result, ensure};
use hickory_proto::rr::RecordType;

use super::{DEADLINE, Stage, note, seconds, title};
use crate::{
    plan::{EAST, Public, SITES, WEST},
    wait::wait_until,
};

/// Tells all of it.
pub fn tell(stage: &Stage) -> Result<()> {
    both_available(stage)?;
    web_servers_die(stage)?;
    database_goes(stage)?;
    agent_dies(stage)?;
    site_dies(stage)?;
    link_is_cut(stage)
}

fn both_available(stage: &Stage) -> Result<()> {
    title("B1, B2: each site's name server knows both sites, and answers with both addresses, in order");
    for client in ["client-e", "client-w"] {
        for server in SITES {
            stage.ask(client, server, Public::Www, &SITES)?;
        }
    }
    for site in SITES {
        stage.browse("client-e", &[site.v4(Public::Www).into()], site)?;
        stage.browse("client-w", &[site.v6(Public::Www).into()], site)?;
    }
    Ok(())
}

fn web_servers_die(stage: &Stage) -> Result<()> {
    let lab = stage.lab;
    title("B4: one of east's two web servers is killed: nothing changes");
    lab.kill("east-web1")?;
    stage.until_backends(EAST, 1)?;
    stage.ask("client-e", EAST, Public::Www, &SITES)?;

    title("B3, B4: the other one too: east leaves the answers, at both name servers");
    let since = Instant::now();
    lab.kill("east-web2")?;
    stage.until(since, &SITES, Public::Www, &[WEST])?;
    stage.ask("client-w", WEST, Public::Www, &[WEST])?;

    title(
        "B9, B10: a client that still has the old answer uses the second address, and any web server takes its request",
    );
    stage.browse("client-e", &stage.cached(), WEST)?;

    title("B3: both start again: east is back");
    let since = Instant::now();
    lab.start("east-web1")?;
    lab.start("east-web2")?;
    stage.until(since, &SITES, Public::Www, &SITES)?;
    stage.until_backends(EAST, 2)?;
    stage.browse("client-e", &stage.cached(), EAST)
}

fn database_goes(stage: &Stage) -> Result<()> {
    let lab = stage.lab;
    title("B5, B6: west's database is gone; its web servers still answer 200, but without the database server's name");
    let away = lab.database("west").with_extension("away");
    let since = Instant::now();
    fs::rename(lab.database("west"), &away)?;
    stage.until(since, &SITES, Public::Www, &[EAST])?;
    let page = lab.fetch("client-w", WEST.v4(Public::Www).into())?;
    note(format_args!("west still says {} with `{}`", page.status, page.body.lines().last().unwrap_or_default()));
    ensure!(page.status == 200, "west's web servers should still answer");
    let since = Instant::now();
    fs::rename(&away, lab.database("west"))?;
    stage.until(since, &SITES, Public::Www, &SITES)
}

fn link_is_cut(stage: &Stage) -> Result<()> {
    let lab = stage.lab;
    title("B7: the link between the sites is cut: each answers with itself alone");
    let since = Instant::now();
    lab.cut("link")?;
    stage.until(since, &[EAST], Public::Www, &[EAST])?;
    stage.until(since, &[WEST], Public::Www, &[WEST])?;
    let since = Instant::now();
    lab.mend("link")?;
    stage.until(since, &SITES, Public::Www, &SITES)
}

fn agent_dies(stage: &Stage) -> Result<()> {
    let lab = stage.lab;
    title("east's agent is killed and started again; the program in the kernel goes on answering");
    let name = Public::Www.domain();
    let steady = lab.ask_steadily("client-e", EAST.v4(Public::Dns).into(), name, RecordType::A)?;
    let agent = lab.agent("east")?;
    let since = Instant::now();
    agent.kill()?;
    agent.start()?;
    agent.await_ready()?;
    let away = since.elapsed();
    wait_until(DEADLINE, "more queries", || steady.sent() > 400)?;
    let asked = steady.finish()?;
    let lost = asked.iter().filter(|asked| asked.answer.is_none()).count();
    note(format_args!(
        "the agent was away for {}; {} queries, one every 5 ms, {lost} lost",
        seconds(away),
        asked.len()
    ));
    ensure!(lost == 0, "queries were lost");
    let both: Vec<IpAddr> = stage.cached();
    let complete = asked.iter().all(|asked| asked.answer.as_ref().is_some_and(|(_, answer)| *answer == both));
    ensure!(complete, "an answer had other addresses");
    Ok(())
}

fn site_dies(stage: &Stage) -> Result<()> {
    let lab = stage.lab;
    title("A5: the whole of east fails: agent, web servers, data tier, cables; what it served goes to west");
    stage.ask("client-w", WEST, Public::Orders, &[EAST, WEST])?;
    stage.ask("client-w", WEST, Public::Accounts, &[WEST, EAST])?;
    let since = Instant::now();
    lab.destroy(EAST)?;
    for resource in [Public::Www, Public::Orders, Public::Accounts] {
        stage.until(since, &[WEST], resource, &[WEST])?;
    }
    stage.ask("client-e", WEST, Public::Orders, &[WEST])?;
    stage.browse("client-e", &stage.cached(), WEST)?;

    title("A5: east comes back, and has its place in the answers again");
    let since = Instant::now();
    lab.revive(EAST)?;
    stage.until(since, &SITES, Public::Www, &SITES)?;
    stage.until(since, &SITES, Public::Orders, &[EAST, WEST])?;
    stage.browse("client-w", &stage.cached(), EAST)
}
