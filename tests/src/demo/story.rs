//! What is shown, and in which order. The rows are those of the project's list of features.

use std::{fs, net::IpAddr, time::Instant};

use anyhow::{Result, ensure};
use hickory_proto::rr::RecordType;

use super::{DEADLINE, Stage, note, seconds, title};
use crate::{
    plan::{EAST, LAN, Public, SITES, WEST},
    steady::{self, Question, Request, Steady},
    wait::wait_until,
};

/// Tells all of it.
pub fn tell(stage: &Stage) -> Result<()> {
    both_available(stage)?;
    requests_find_the_holder(stage)?;
    orders_reach_both_sites(stage)?;
    holder_changes(stage)?;
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

fn requests_find_the_holder(stage: &Stage) -> Result<()> {
    title("A1, A2: orders are active at east, accounts at west: each is served where it is active");
    stage.request("client-e", Question::tcp(Public::Orders, EAST.v4(Public::Orders).into()), "db-east")?;
    stage.request("client-w", Question::udp(Public::Accounts, WEST.v6(Public::Accounts).into()), "db-west")?;
    title("A3, A9: what is standby at a site is provided from the other, in both directions");
    stage.request("client-e", Question::udp(Public::Orders, WEST.v4(Public::Orders).into()), "db-east")?;
    stage.request("client-w", Question::tcp(Public::Accounts, EAST.v6(Public::Accounts).into()), "db-west")
}

fn orders_reach_both_sites(stage: &Stage) -> Result<()> {
    let lab = stage.lab;
    title("C1: an order made at each site goes into that site's own database, and from there into the other's");
    for (client, site, article) in [("client-e", EAST, "teapot"), ("client-w", WEST, "cups")] {
        let since = Instant::now();
        let key = lab.order(client, site.v4(Public::Www).into(), article, 2)?;
        note(format_args!("{client} orders 2 {article} at {}: {key}", site.name));
        let other = site.other();
        let what = format!("the page of {} shows it", other.name);
        wait_until(DEADLINE, &what, || {
            let page = lab.fetch(client, other.v4(Public::Www).into());
            let line = page.ok().and_then(|page| page.after("newest orders in ").map(String::from));
            line.is_some_and(|line| line.contains(&format!("{key} {} {article} 2", site.name)))
        })?;
        note(format_args!("after {}  {what}", seconds(since.elapsed())));
    }
    Ok(())
}

fn holder_changes(stage: &Stage) -> Result<()> {
    let lab = stage.lab;
    title("A7: the holder of orders is changed on purpose, under 200 requests a second");
    let mut requests = Vec::new();
    for question in SITES.into_iter().flat_map(|site| Question::all(Public::Orders, site)) {
        requests.push(lab.request_steadily("client-e", question, 25)?);
    }
    for (at, to) in [("east", "west"), ("west", "east")] {
        let sent = requests.iter().map(Steady::sent).sum::<usize>();
        wait_until(DEADLINE, "more requests", || requests.iter().map(Steady::sent).sum::<usize>() > sent + 200)?;
        note(format_args!("{at}$ siteswap swap orders --to {to}"));
        for line in lab.agent(at)?.order(&["swap", "orders", "--to", to])?.lines() {
            note(format_args!("  {line}"));
        }
        let of_orders = Question::tcp(Public::Orders, EAST.v4(Public::Orders).into());
        stage.request("client-w", of_orders, &format!("db-{to}"))?;
    }
    let requests: Vec<Request> = steady::finish(requests)?.into_iter().flatten().collect();
    let failed = steady::failed(&requests).len();
    let servers = Vec::from_iter(steady::servers(&requests)).join(" and ");
    note(format_args!("{} requests, answered by {servers}; {failed} failed", requests.len()));
    ensure!(failed == 0, "requests failed");
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

    title("A4, B10: a client that still has the old answer asks east's address, and any web server takes its request");
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
    let page = lab.fetch_path("west", WEST.lan(LAN[0].number)[0], "/health")?;
    let said = page.body.lines().last().unwrap_or_default();
    note(format_args!("west-web1 still says {} with `{said}`", page.status));
    ensure!(page.status == 200, "west's web servers should still answer");
    let since = Instant::now();
    fs::rename(&away, lab.database("west"))?;
    stage.until(since, &SITES, Public::Www, &SITES)
}

fn link_is_cut(stage: &Stage) -> Result<()> {
    let lab = stage.lab;
    title(
        "B7: the link between the sites is cut: each answers with itself alone, and takes nothing from a site that lives",
    );
    let since = Instant::now();
    lab.cut("link")?;
    stage.until(since, &[EAST], Public::Www, &[EAST])?;
    stage.until(since, &[WEST], Public::Www, &[WEST])?;
    stage.request("client-w", Question::tcp(Public::Orders, EAST.v4(Public::Orders).into()), "db-east")?;
    stage.request("client-e", Question::tcp(Public::Accounts, WEST.v6(Public::Accounts).into()), "db-west")?;
    let since = Instant::now();
    lab.mend("link")?;
    stage.until(since, &SITES, Public::Www, &SITES)
}

fn agent_dies(stage: &Stage) -> Result<()> {
    let lab = stage.lab;
    title("east's agent is killed and started again; the program in the kernel goes on");
    let name = Public::Www.domain();
    let steady = lab.ask_steadily("client-e", EAST.v4(Public::Dns).into(), name, RecordType::A)?;
    let pages = lab.request_steadily("client-w", Question::tcp(Public::Www, EAST.v4(Public::Www).into()), 100)?;
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
    let pages = pages.finish()?;
    let failed = steady::failed(&pages).len();
    note(format_args!("and {} pages, one every 10 ms, {failed} failed", pages.len()));
    ensure!(failed == 0, "pages failed");
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
    let of_orders = Question::tcp(Public::Orders, WEST.v4(Public::Orders).into());
    stage.until_answered(since, of_orders, "db-west")?;
    title("B9: a client that still has the old answer tries the first address, then uses the second");
    stage.browse("client-e", &stage.cached(), WEST)?;

    title(
        "A5: east comes back, and has its place in the answers again; the orders stay with west until told otherwise",
    );
    let since = Instant::now();
    lab.revive(EAST)?;
    stage.until(since, &SITES, Public::Www, &SITES)?;
    stage.until(since, &SITES, Public::Orders, &[WEST, EAST])?;
    stage.browse("client-w", &stage.cached(), EAST)?;
    note(format_args!("east$ siteswap swap orders --to east"));
    lab.agent("east")?.order(&["swap", "orders", "--to", "east"])?;
    stage.until(Instant::now(), &SITES, Public::Orders, &[EAST, WEST])
}
