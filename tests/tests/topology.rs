//! The lab itself, without agents: what the scenarios stand on.

use std::{collections::BTreeSet, fs, net::IpAddr, time::Duration};

use anyhow::{Context, Result};
use lab::{
    Identity, Lab, Options,
    data::Reply,
    netns::Netns,
    plan::{self, DB, EAST, Public, SITES, WEST},
    steady::{self, Question, Steady},
    wait_until,
};

const CLIENTS: [&str; 2] = ["client-e", "client-w"];

fn without_agents() -> Result<Lab> {
    Lab::up(&Options { agents: false, ..Options::default() })
}

fn server(reply: &Reply) -> Option<&str> {
    match reply {
        Reply::Rows { server, rows, .. } if !rows.is_empty() => Some(server),
        _ => None,
    }
}

/// A6, A8: users reach each site's web servers, and through them its databases, over the WAN, IPv4 and IPv6.
#[test]
fn every_client_gets_the_page_of_every_site() -> Result<()> {
    let lab = without_agents()?;
    for client in CLIENTS {
        for site in SITES {
            for address in site.public(Public::Www) {
                let page = lab.fetch(client, address)?;
                assert_eq!(page.status, 200);
                assert!(page.after("page by ").is_some_and(|server| server.starts_with(site.name)), "{page:?}");
                let database = format!("db-{}", site.name);
                for table in ["orders by ", "accounts by "] {
                    assert!(page.after(table).is_some_and(|found| found.starts_with(&database)), "{page:?}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn both_web_servers_of_a_site_get_requests() -> Result<()> {
    let lab = without_agents()?;
    for address in EAST.public(Public::Www) {
        for web_server in ["east-web1", "east-web2"] {
            wait_until(Duration::from_secs(10), web_server, || {
                lab.fetch("client-e", address).is_ok_and(|page| page.after("page by ") == Some(web_server))
            })?;
        }
    }
    Ok(())
}

#[test]
fn the_data_tier_is_reached_over_tcp_and_udp() -> Result<()> {
    let lab = without_agents()?;
    for site in SITES {
        let database = format!("db-{}", site.name);
        for (resource, table) in [(Public::Orders, "orders"), (Public::Accounts, "accounts")] {
            for address in site.public(resource) {
                let reply = lab.read_table("client-w", address, table)?;
                assert_eq!(server(&reply), Some(database.as_str()), "{reply:?}");
                assert_eq!(lab.read_table_udp("client-w", address, table)?, reply);
            }
        }
    }
    Ok(())
}

/// What steering does, done by routes: requests for resource `accounts` that arrive at east are passed to west's data
/// tier, whose replies carry the address asked, east's, and go to the client by west's own way.
#[test]
fn a_backend_answers_the_client_itself_from_the_other_sites_address() -> Result<()> {
    let lab = without_agents()?;
    for (family, address) in EAST.public(Public::Accounts).into_iter().enumerate() {
        let to = |gateway: IpAddr| {
            ["ip", "route", "replace", &address.to_string(), "via", &gateway.to_string()].map(String::from)
        };
        for (edge, gateway) in [("east", WEST.link()[family]), ("west", WEST.lan(DB.number)[family])] {
            let route = to(gateway);
            let output = lab.node(edge)?.exec(&route.each_ref().map(String::as_str))?;
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        // From the WAN, and from the LAN of the site that passes it on.
        for client in ["client-e", "client-w", "east-web1", "west-web1"] {
            let reply = lab.read_table(client, address, "accounts")?;
            assert_eq!(server(&reply), Some("db-west"), "{client}: {reply:?}");
            assert_eq!(lab.read_table_udp(client, address, "accounts")?, reply);
        }
    }
    // So that a page of east's has east's orders and west's accounts.
    let page = lab.fetch("client-w", EAST.v4(Public::Www).into())?;
    assert!(page.after("orders by ").is_some_and(|found| found.starts_with("db-east")), "{page:?}");
    assert!(page.after("accounts by ").is_some_and(|found| found.starts_with("db-west")), "{page:?}");
    Ok(())
}

/// B5 stands on this: the web servers still answer 200, but the database's name is not on the page.
#[test]
fn a_page_without_its_database_says_so() -> Result<()> {
    let lab = without_agents()?;
    let without = |path: &str| -> Result<()> {
        let page = lab.fetch_path("client-e", EAST.v4(Public::Www).into(), path)?;
        assert_eq!(page.status, 200);
        assert!(!page.body.contains("db-east"), "{page:?}");
        Ok(())
    };
    let away = lab.database("east").with_extension("away");
    for path in ["/", "/health"] {
        fs::rename(lab.database("east"), &away)?;
        without(path)?;
        fs::rename(&away, lab.database("east"))?;
        let page = lab.fetch_path("client-e", EAST.v4(Public::Www).into(), path)?;
        assert!(page.body.contains("db-east"), "{page:?}");
    }
    lab.kill("east-db")?;
    without("/")?;
    without("/health")
}

/// A8: the sites reach each other over a network of their own, and not over the WAN when that is cut.
#[test]
fn the_link_can_be_cut_and_mended() -> Result<()> {
    let lab = without_agents()?;
    let hears = |node: &str, address: IpAddr| {
        // A closed port refuses at once; a cut cable does not.
        let node = lab.node(node).ok()?;
        let tried = node.enter(|| {
            let refused = std::net::TcpStream::connect_timeout(&(address, 9).into(), Duration::from_millis(500));
            Ok(refused.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused))
        });
        tried.ok()
    };
    let both_hear = |expected| {
        let east = WEST.link().map(|address| hears("east", address));
        let west = EAST.link().map(|address| hears("west", address));
        [east, west].concat() == [Some(expected); 4]
    };
    assert!(both_hear(true));
    lab.cut("link")?;
    assert!(both_hear(false));
    lab.mend("link")?;
    wait_until(Duration::from_secs(10), "the link works again", || both_hear(true)).map(drop)
}

#[test]
fn a_site_cut_off_the_wan_comes_back() -> Result<()> {
    let lab = without_agents()?;
    let addresses = EAST.public(Public::Www);
    lab.cut("east")?;
    assert!(addresses.iter().all(|&address| lab.fetch("client-w", address).is_err()));
    lab.mend("east")?;
    wait_until(Duration::from_secs(10), "pages from east again", || {
        addresses.iter().all(|&address| lab.fetch("client-w", address).is_ok())
    })
    .map(drop)
}

#[test]
fn a_killed_server_starts_again() -> Result<()> {
    let lab = without_agents()?;
    for web_server in ["west-web1", "west-web2"] {
        lab.kill(web_server)?;
    }
    let address = WEST.v6(Public::Www).into();
    assert!(lab.fetch("client-e", address).is_err());
    assert!(lab.kill("west-web1").is_err(), "it is dead already");
    for web_server in ["west-web1", "west-web2"] {
        lab.start(web_server)?;
    }
    wait_until(Duration::from_secs(10), "pages from west again", || lab.fetch("client-e", address).is_ok()).map(drop)
}

/// What the scenarios under load stand on: nothing fails while all is well, and what fails is recorded.
#[test]
fn steady_users_record_every_failure() -> Result<()> {
    let lab = without_agents()?;
    let mut requests = Vec::new();
    let mut conversations = Vec::new();
    for address in EAST.public(Public::Orders) {
        for question in [Question::tcp(Public::Orders, address), Question::udp(Public::Orders, address)] {
            requests.push(lab.request_steadily("client-e", question, 50)?);
            conversations.push(lab.converse("client-w", question)?);
        }
    }
    let page = lab.converse("client-w", Question::tcp(Public::Www, EAST.v4(Public::Www).into()))?;
    wait_until(Duration::from_secs(30), "20 requests of each", || {
        requests.iter().all(|requests| requests.sent() > 20)
            && conversations.iter().chain([&page]).all(|conversation| conversation.sent() > 20)
    })?;
    let good = requests.iter().map(Steady::sent).collect::<Vec<_>>();
    lab.kill("east-db")?;
    wait_until(Duration::from_secs(30), "20 more", || {
        requests.iter().zip(&good).all(|(requests, good)| requests.sent() > good + 20)
    })?;
    for (requests, good) in steady::finish(requests)?.into_iter().zip(good) {
        assert!(steady::failed(&requests[..good / 2]).is_empty(), "{:?}", steady::failed(&requests[..good / 2]));
        assert!(steady::failed(&requests).len() > 10, "of {}", requests.len());
        assert_eq!(steady::servers(&requests), BTreeSet::from(["db-east".to_owned()]));
    }
    for said in steady::finish(conversations)? {
        assert!(said.answers > 15 && said.broken.is_some(), "{said:?}");
        assert_eq!(said.servers, BTreeSet::from(["db-east".to_owned()]));
    }
    let said = page.finish()?;
    assert!(said.broken.is_none() && said.servers.len() == 1, "one web server, through all of it: {said:?}");
    Ok(())
}

#[test]
fn a_dropped_lab_leaves_nothing_and_its_neighbour_alone() -> Result<()> {
    let neighbour = without_agents()?;
    let lab = without_agents()?;
    let (directory, pins) = (lab.directory().to_owned(), lab.pins());
    let processes = lab.processes();
    let identities: Vec<_> = processes.iter().filter_map(|process| process.running()).collect();
    assert_eq!(identities.len(), 6, "two web servers and a data tier at each site");
    let prefix = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    assert!(plan::nodes().iter().all(|node| Netns::named(&format!("{prefix}-{node}")).exists()));

    drop(lab);
    assert!(!directory.exists() && !pins.exists());
    assert!(plan::nodes().iter().all(|node| !Netns::named(&format!("{prefix}-{node}")).exists()));
    assert!(identities.iter().all(|process| !process.runs()));
    neighbour.fetch("client-e", EAST.v4(Public::Www).into()).map(drop)
}

/// A test run that was killed leaves a lab behind; the next one removes it.
#[test]
fn a_lab_whose_owner_died_is_removed_by_the_next() -> Result<()> {
    let mut owner = std::process::Command::new("sleep").arg("60").spawn()?;
    let identity = Identity::of(owner.id().try_into()?).context("it runs")?;
    let name = format!("sswt-orphan-{}", std::process::id());
    let directory = std::path::Path::new("/run/siteswap-lab").join(&name);
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("owner"), serde_json::to_vec(&identity)?)?;
    let namespace = Netns::named(&format!("{name}-wan"));
    namespace.create()?;

    let _first = without_agents()?;
    assert!(namespace.exists(), "its owner lives");
    owner.kill()?;
    owner.wait()?;
    let _second = without_agents()?;
    assert!(!namespace.exists() && !directory.exists());
    Ok(())
}

#[test]
fn an_unknown_name_is_answered_with_the_known_ones() -> Result<()> {
    let lab = without_agents()?;
    let error = |result: Result<()>| result.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error(lab.node("client-x").map(drop)).contains("client-e"));
    assert!(error(lab.cut("cable")).contains("link"));
    assert!(error(lab.start("client-e")).contains("nodes of the sites"));
    Ok(())
}

#[test]
fn an_order_is_made_changed_and_cancelled_in_the_sites_own_database() -> Result<()> {
    let lab = without_agents()?;
    for site in SITES {
        let key = lab.order("client-e", site.v4(Public::Www).into(), "teapot", 3)?;
        let has = |words: &str| Ok::<_, anyhow::Error>(lab.tell(site, "orders")?.contains(&format!("{key} {words}")));
        assert!(has(&format!("{} teapot 3", site.name))?);
        let page = lab.fetch("client-w", site.v6(Public::Www).into())?;
        assert!(page.after("newest orders in ").is_some_and(|line| line.contains(&key)), "{page:?}");
        assert_eq!(lab.tell(site, &format!("change {key} 4"))?, std::slice::from_ref(&key));
        assert!(has(&format!("{} teapot 4", site.name))?);
        lab.tell(site, &format!("cancel {key}"))?;
        assert_eq!(lab.tell(site, "orders")?.len(), 3, "those that were there before");
    }
    Ok(())
}

#[test]
fn what_cannot_be_ordered_is_refused_with_the_reason() -> Result<()> {
    let lab = without_agents()?;
    let refused = |request: &str| lab.tell(EAST, request).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refused("order samovar 1").contains("there is no article samovar"));
    assert!(refused("order cups 0").contains("nobody orders none of cups"));
    assert!(refused("cancel 17").contains("there is no order 17"));
    assert!(lab.order("client-e", EAST.v4(Public::Www).into(), "samovar", 1).is_err());
    let reply = lab.read_table_udp("client-e", EAST.v4(Public::Orders).into(), "order cups 1")?;
    assert!(matches!(&reply, Reply::Error(error) if error.contains("TCP")), "{reply:?}");
    assert_eq!(lab.tell(EAST, "orders")?.len(), 3);
    Ok(())
}
