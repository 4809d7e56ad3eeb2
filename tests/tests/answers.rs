//! Multi-site clustering by domain name: what the answers hold, and when they change.

use std::{fs, net::IpAddr, time::Duration};

use anyhow::{Context, Result};
use hickory_proto::{
    op::ResponseCode,
    rr::{RData, RecordType},
};
use lab::{
    Lab, Options,
    plan::{EAST, Public, SITES, Site, WEST},
    wait_until,
};

const DEADLINE: Duration = Duration::from_secs(15);

fn kill_all(lab: &Lab, site: Site) -> Result<()> {
    lab.kill(&site.node("web1"))?;
    lab.kill(&site.node("web2"))
}

fn start_all(lab: &Lab, site: Site) -> Result<()> {
    lab.start(&site.node("web1"))?;
    lab.start(&site.node("web2"))
}

/// What the agent at `site` believes of the backends of `www`, by address.
fn backends(lab: &Lab, site: Site) -> Result<Vec<(String, bool)>> {
    let status = lab.agent(site.name)?.status()?;
    let list = status["backends"].as_array().context("status has no backends")?;
    let of_www = list.iter().filter(|backend| backend["resource"] == "www");
    of_www
        .map(|backend| {
            let address = backend["backend"].as_str().context("a backend without an address")?;
            Ok((address.to_owned(), backend["up"] == true))
        })
        .collect()
}

/// The name server of each site knows the address of each site, behind which are several web servers, and the other
/// site's name server.
#[test]
fn b1_each_name_server_knows_every_site_and_the_other_name_server() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    for site in SITES {
        let server: IpAddr = site.v4(Public::Dns).into();
        for address in lab.ask("client-e", server, "www.shop.test.", RecordType::A)? {
            let mut seen = std::collections::BTreeSet::new();
            wait_until(DEADLINE, &format!("two web servers behind {address}"), || {
                let page = lab.fetch("client-e", address).ok();
                seen.extend(page.and_then(|page| page.after("page by ").map(String::from)));
                seen.len() == 2
            })?;
        }

        let delegation = lab.query("client-e", server, "shop.test.", RecordType::NS)?;
        let mut servers = Vec::new();
        for record in &delegation.answers {
            let RData::NS(name) = &record.data else { continue };
            servers.extend(lab.ask("client-e", server, &name.0.to_utf8(), RecordType::A)?);
            servers.extend(lab.ask("client-e", server, &name.0.to_utf8(), RecordType::AAAA)?);
        }
        servers.sort();
        let mut expected = SITES.map(|site| site.public(Public::Dns)).concat();
        expected.sort();
        assert_eq!(servers, expected);
    }
    Ok(())
}

#[test]
fn b2_both_sites_available_both_addresses_in_order() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    for client in ["client-e", "client-w"] {
        lab.await_answers(client, &SITES, Public::Www, &[EAST, WEST])?;
        lab.await_answers(client, &SITES, Public::Orders, &[EAST, WEST])?;
        lab.await_answers(client, &SITES, Public::Accounts, &[WEST, EAST])?;
    }
    Ok(())
}

#[test]
fn b3_the_first_not_available_the_second_alone_and_back() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    kill_all(&lab, EAST)?;
    lab.await_answers("client-e", &SITES, Public::Www, &[WEST])?;
    start_all(&lab, EAST)?;
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    Ok(())
}

#[test]
fn b3_the_second_not_available_the_first_alone_and_back() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    lab.await_answers("client-w", &SITES, Public::Www, &[EAST, WEST])?;
    kill_all(&lab, WEST)?;
    lab.await_answers("client-w", &SITES, Public::Www, &[EAST])?;
    start_all(&lab, WEST)?;
    lab.await_answers("client-w", &SITES, Public::Www, &[EAST, WEST])?;
    Ok(())
}

/// The lab's policy for a name that is available nowhere: SERVFAIL, so that resolvers ask elsewhere.
#[test]
fn b3_neither_available_the_policy_of_the_resource() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    kill_all(&lab, EAST)?;
    kill_all(&lab, WEST)?;
    for server in SITES.map(|site| site.public(Public::Dns)).concat() {
        wait_until(DEADLINE, &format!("{server} answers SERVFAIL"), || {
            let answer = lab.query("client-e", server, "www.shop.test.", RecordType::A);
            answer.is_ok_and(|answer| {
                answer.metadata.response_code == ResponseCode::ServFail && answer.answers.is_empty()
            })
        })?;
    }
    start_all(&lab, WEST)?;
    lab.await_answers("client-e", &SITES, Public::Www, &[WEST])?;
    Ok(())
}

#[test]
fn b4_one_web_server_of_two_killed_nothing_changes_both_killed_the_site_leaves() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    let steady =
        SITES.map(|site| lab.ask_steadily("client-e", site.v4(Public::Dns).into(), "www.shop.test.", RecordType::A));

    lab.kill("east-web1")?;
    wait_until(DEADLINE, "east has noticed that one web server is gone", || {
        backends(&lab, EAST).is_ok_and(|all| all.iter().filter(|(_, up)| *up).count() == 1 && all.len() == 2)
    })?;
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    let both = SITES.map(|site| IpAddr::from(site.v4(Public::Www)));
    for steady in steady {
        for asked in steady?.finish()? {
            assert_eq!(asked.answer.map(|(_, addresses)| addresses), Some(both.to_vec()));
        }
    }

    lab.kill("east-web2")?;
    lab.await_answers("client-e", &SITES, Public::Www, &[WEST])?;
    lab.start("east-web1")?;
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    Ok(())
}

#[test]
fn b5_the_database_gone_while_the_web_servers_answer_200_the_site_leaves() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    for (site, peer) in [(EAST, WEST), (WEST, EAST)] {
        lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
        let away = lab.database(site.name).with_extension("away");
        fs::rename(lab.database(site.name), &away)?;
        let page = lab.fetch("client-e", site.v4(Public::Www).into())?;
        assert_eq!(page.status, 200, "the web servers go on answering");
        assert!(!page.body.contains(&format!("db-{}", site.name)), "without the keyword: {page:?}");
        lab.await_answers("client-e", &SITES, Public::Www, &[peer])?;

        fs::rename(&away, lab.database(site.name))?;
        lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    }
    Ok(())
}

/// What the probes believe, as status shows it, is what the answers are made from, at every step of a failure.
#[test]
fn b6_the_load_balancers_own_view_decides_the_answers() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    let follows = |web1: bool, web2: bool| -> Result<()> {
        let expected = [("10.1.0.11:80".to_owned(), web1), ("10.1.0.12:80".to_owned(), web2)];
        wait_until(DEADLINE, &format!("the probes at east find {expected:?}"), || {
            backends(&lab, EAST).is_ok_and(|mut view| {
                view.sort();
                view == expected
            })
        })?;
        let sites = if web1 || web2 { &SITES[..] } else { &[WEST] };
        lab.await_answers("client-e", &SITES, Public::Www, sites)?;
        for agent in SITES {
            let status = lab.agent(agent.name)?.status()?;
            let resources = status["resources"].as_array().context("status has no resources")?;
            let www = resources.iter().find(|resource| resource["name"] == "www").context("no www in status")?;
            let answered: Vec<&str> = sites.iter().map(|site| site.name).collect();
            assert_eq!(www["answer"], serde_json::json!(answered), "status at {}", agent.name);
        }
        Ok(())
    };
    follows(true, true)?;
    lab.kill("east-web2")?;
    follows(true, false)?;
    let away = lab.database("east").with_extension("away");
    fs::rename(lab.database("east"), &away)?;
    follows(false, false)?;
    fs::rename(&away, lab.database("east"))?;
    follows(true, false)?;
    lab.start("east-web2")?;
    follows(true, true)
}
