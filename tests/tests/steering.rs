//! A1–A4, A6–A9: a request is provided by the site where the resource is active, wherever it arrives.

use std::{
    collections::BTreeMap,
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result};
use lab::{
    Lab, Options,
    data::Reply,
    plan::{self, EAST, LAN, Public, SITES, Site, WEST},
    steady::{self, Question, Steady},
    wait_until,
};
use rusqlite::Connection;
use serde_json::Value;
use siteswap_common::steer::tunnel;

const CLIENTS: [&str; 2] = ["client-e", "client-w"];
const DEADLINE: Duration = Duration::from_secs(15);

/// The resources that one site holds, and which.
const HELD: [(Public, Site); 2] = [(Public::Orders, EAST), (Public::Accounts, WEST)];

fn database(site: Site) -> String {
    format!("db-{}", site.name)
}

/// The site of the web server that makes the page at an address.
fn made_at(lab: &Lab, client: &str, address: IpAddr) -> Result<Site> {
    let server = lab.server(client, Question::tcp(Public::Www, address))?;
    let site = server.split('-').next().and_then(Site::named);
    site.with_context(|| format!("{server} is at no site"))
}

#[test]
fn a1_what_is_active_at_one_site_is_standby_at_the_other() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    for agent in SITES {
        for (resource, holder) in HELD {
            lab.await_holder(&[agent], resource, holder, 0)?;
            let status = lab.agent(agent.name)?.resource(resource)?;
            let instances = status["instances"].as_array().context("no instances")?;
            let states: BTreeMap<_, _> = instances.iter().map(|i| (i["site"].as_str(), i["state"].as_str())).collect();
            let expected = [(Some(holder.name), Some("active")), (Some(holder.peer), Some("standby"))];
            assert_eq!(states, BTreeMap::from(expected), "{} at {}", resource.name(), agent.name);
        }
    }
    Ok(())
}

#[test]
fn a2_a_request_for_a_resource_active_here_is_served_here() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    for client in CLIENTS {
        for (resource, here) in HELD {
            for question in Question::all(resource, here) {
                lab.await_server(client, question, &database(here))?;
            }
        }
        for here in SITES {
            for address in here.public(Public::Www) {
                assert_eq!(made_at(&lab, client, address)?, here);
            }
        }
    }
    Ok(())
}

#[test]
fn a3_a_request_for_a_resource_standby_here_is_provided_from_the_peer() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    for client in CLIENTS {
        for (resource, peer) in HELD {
            for question in Question::all(resource, peer.other()) {
                lab.await_server(client, question, &database(peer))?;
            }
        }
    }
    Ok(())
}

/// The peer's server sees the client's own address, and its reply goes to the client by the peer's own way, from the
/// address that was asked.
#[test]
fn a3_the_client_keeps_its_address_and_the_reply_does_not_come_back_through_the_first_site() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    let wan = lab.node("wan")?;
    let mut rules = String::new();
    for address in EAST.public(Public::Accounts) {
        let family = if address.is_ipv4() { "ip" } else { "ip6" };
        for site in SITES {
            rules += &format!("iifname {} {family} saddr {address} counter\n", site.name);
        }
    }
    wan.rules(&format!(
        "table inet replies {{ chain from {{ type filter hook prerouting priority raw; policy accept;\n{rules}}}\n}}"
    ))?;
    for client in CLIENTS {
        let own: Vec<IpAddr> = plan::addresses(client).into_iter().map(|own| own.address).collect();
        for address in EAST.public(Public::Accounts) {
            lab.await_server(client, Question::tcp(Public::Accounts, address), "db-west")?;
            let family = usize::from(address.is_ipv6());
            for reply in
                [lab.read_table(client, address, "accounts")?, lab.read_table_udp(client, address, "accounts")?]
            {
                let Reply::Rows { server, client, .. } = reply else { anyhow::bail!("{reply:?}") };
                assert_eq!((server.as_str(), client), ("db-west", own[family]));
            }
        }
    }
    let counted = wan.counted("replies")?;
    let [v4_east, v4_west, v6_east, v6_west] = counted[..] else { anyhow::bail!("{counted:?}") };
    assert_eq!((v4_east, v6_east), (0, 0), "replies came out of east");
    assert!(v4_west > 0 && v6_west > 0, "no reply came out of west");
    Ok(())
}

/// What an application server asks for is steered exactly as what users ask for.
#[test]
fn a3_requests_from_a_sites_own_lan_are_steered_like_those_from_the_wan() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    for site in SITES {
        for (resource, holder) in HELD {
            // At its own site's addresses, active there or not, and at the other's.
            for at in SITES {
                for question in Question::all(resource, at) {
                    lab.await_server(&site.node("web1"), question, &database(holder))?;
                }
            }
        }
        for address in site.public(Public::Www) {
            assert_eq!(made_at(&lab, &site.node("db"), address)?, site);
        }
    }
    // So every page of either site shows east's orders and west's accounts.
    for site in SITES {
        for address in site.public(Public::Www) {
            let page = lab.fetch("client-e", address)?;
            for (resource, holder) in HELD {
                let found = page.after(&format!("{} by ", resource.name())).unwrap_or_default();
                assert!(found.starts_with(&database(holder)), "{page:?}");
            }
        }
    }
    Ok(())
}

/// The client uses the same address before and after, and nothing it asks fails.
#[test]
fn a4_requests_for_a_resource_disabled_here_go_to_the_peer() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    for (resource, holder) in HELD {
        let address = holder.v4(resource).into();
        lab.await_server("client-e", Question::tcp(resource, address), &database(holder))?;
        let requests = lab.request_steadily("client-e", Question::tcp(resource, address), 50)?;
        lab.agent(holder.name)?.order(&["set", resource.name(), "down"])?;
        for client in CLIENTS {
            for question in Question::all(resource, holder) {
                lab.await_server(client, question, &database(holder.other()))?;
            }
        }
        steady::all_answered(&requests.finish()?, &["db-east", "db-west"])?;
        // Once taken over, it stays there until somebody says otherwise.
        lab.await_holder(&SITES, resource, holder.other(), 1)?;
        lab.agent(holder.name)?.order(&["set", resource.name(), "auto"])?;
        lab.await_holder(&SITES, resource, holder.other(), 1)?;
    }
    Ok(())
}

/// The same when nobody says so, but the backend is gone.
#[test]
fn a4_requests_for_a_resource_failing_here_go_to_the_peer() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    lab.kill("east-db")?;
    for client in CLIENTS {
        for question in Question::all(Public::Orders, EAST) {
            lab.await_server(client, question, "db-west")?;
        }
    }
    lab.await_holder(&SITES, Public::Orders, WEST, 1)?;
    for server in ["east-web1", "east-web2"] {
        lab.kill(server)?;
    }
    wait_until(DEADLINE, "pages from west at east's address", || {
        made_at(&lab, "client-e", EAST.v4(Public::Www).into()).is_ok_and(|site| site == WEST)
    })?;
    assert_eq!(made_at(&lab, "client-w", EAST.v6(Public::Www).into())?, WEST);
    Ok(())
}

/// The edge, a web server, the data tier and a database: a row written into a site's database file is on the pages.
#[test]
fn a6_each_site_has_an_access_tier_an_application_tier_a_data_tier_and_a_database() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    let [orders, accounts] = SITES.map(|site| Connection::open(lab.database(site.name)));
    orders?.execute_batch(
        "BEGIN; INSERT INTO articles (id, title) VALUES ('samovar', 'A samovar');
         INSERT INTO orders (id, site) VALUES ('a', 'east');
         INSERT INTO order_items (order_id, line, article, quantity) VALUES ('a', 1, 'samovar', 2); COMMIT",
    )?;
    accounts?.execute("INSERT INTO accounts (id, owner, balance) VALUES ('a', 'barbara', 70)", ())?;
    for site in SITES {
        for address in site.public(Public::Www) {
            let page = lab.fetch("client-w", address)?;
            let has = |words, row: &str| page.after(words).is_some_and(|line| line.contains(row));
            assert!(page.after("page by ").is_some_and(|server| server.starts_with(site.name)), "{page:?}");
            assert!(has("orders by db-east: ", "samovar 2"), "{page:?}");
            assert!(has("accounts by db-west: ", "barbara 70"), "{page:?}");
        }
    }
    Ok(())
}

/// The resources are what the databases hold; which site's is used follows from the instances' states.
#[test]
fn a7_each_site_keeps_an_instance_of_each_resource_and_its_state_says_which_content_is_used() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    let states = |agent: Site| -> Result<BTreeMap<(String, String), String>> {
        let rows: Vec<Value> = serde_json::from_str(&lab.agent(agent.name)?.order(&["instances", "--json"])?)?;
        let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
        Ok(rows.iter().map(|row| ((text(row, "resource"), text(row, "site")), text(row, "state"))).collect())
    };
    let used = |client: &str, at: Site| -> Result<String> {
        match lab.read_table(client, at.v4(Public::Orders).into(), "orders")? {
            Reply::Rows { server, rows, .. } if rows.len() == 3 => Ok(server),
            other => anyhow::bail!("{other:?}"),
        }
    };
    for (epoch, holder) in [(0, EAST), (1, WEST), (2, EAST)] {
        if epoch > 0 {
            lab.agent("east")?.order(&["swap", "orders", "--to", holder.name])?;
        }
        lab.await_holder(&SITES, Public::Orders, holder, epoch)?;
        for site in SITES {
            let found = states(site)?;
            assert_eq!(found.len(), 6, "three resources at two sites: {found:?}");
            let state = |site: Site| found[&("orders".to_owned(), site.name.to_owned())].as_str();
            assert_eq!((state(holder), state(holder.other())), ("active", "standby"), "at {}", site.name);
            for client in CLIENTS {
                assert_eq!(used(client, site)?, database(holder));
            }
        }
    }
    Ok(())
}

/// Users come over the WAN and sites meet over their own network: each works without the other.
#[test]
fn a8_users_come_over_the_wide_area_network_and_sites_meet_over_their_own() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    let lan_requests = || -> Result<()> {
        for (resource, holder) in HELD {
            for question in Question::all(resource, holder.other()) {
                lab.await_server(&holder.other().node("web2"), question, &database(holder))?;
            }
        }
        Ok(())
    };
    lan_requests()?;
    for site in SITES {
        lab.cut(site.name)?;
    }
    lan_requests()?;
    lab.await_contact(true)?;
    for site in SITES {
        lab.mend(site.name)?;
    }

    lab.cut("link")?;
    lab.await_contact(false)?;
    for client in CLIENTS {
        for (resource, here) in HELD {
            for question in Question::all(resource, here) {
                lab.await_server(client, question, &database(here))?;
            }
        }
    }
    lab.mend("link")?;
    lab.await_contact(true)?;
    lan_requests()
}

/// Each site provides what is active there to the users of the other, from the WAN and from the LANs, all at once.
#[test]
fn a9_in_both_directions_at_the_same_time() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    for (resource, holder) in HELD {
        lab.await_server("client-e", Question::tcp(resource, holder.other().v4(resource).into()), &database(holder))?;
    }
    let mut asked: Vec<(Steady<_>, String)> = Vec::new();
    for (resource, holder) in HELD {
        let here = holder.other();
        for question in Question::all(resource, here) {
            for node in ["client-e", "client-w", &here.node("web1")] {
                asked.push((lab.request_steadily(node, question, 10)?, database(holder)));
            }
        }
    }
    wait_until(Duration::from_secs(60), "50 requests of each kind", || {
        asked.iter().all(|(asked, _)| asked.sent() >= 50)
    })?;
    let (asked, servers): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
    for (requests, server) in steady::finish(asked)?.iter().zip(servers) {
        steady::all_answered(requests, &[&server])?;
    }
    Ok(())
}

/// The tunnel carries less than the WAN: the client is told, sends smaller packets, and its request arrives.
#[test]
fn a_request_larger_than_the_tunnel_carries_arrives_in_smaller_packets() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    lab.agent("east")?.order(&["set", "www", "down"])?;
    for address in EAST.public(Public::Www) {
        wait_until(DEADLINE, "pages from west at east's address", || {
            made_at(&lab, "client-e", address).is_ok_and(|site| site == WEST)
        })?;
        let path = format!("/health?{}", "x".repeat(8000));
        let page = lab.fetch_path("client-e", address, &path)?;
        assert!(page.after("page by ").is_some_and(|server| server.starts_with("west")), "{page:?}");
    }
    Ok(())
}

/// A router on the client's way carries less than the servers think: what it tells them reaches the one whose flow it is
/// about, also where another site serves it.
#[test]
fn what_routers_say_about_a_flow_reaches_the_server_that_owns_it() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    for (node, interface) in [("wan", "client-e"), ("wan", "client-w")] {
        let set = ["ip", "link", "set", interface, "mtu", "1300"];
        assert!(lab.node(node)?.exec(&set)?.status.success());
    }
    for here in [true, false] {
        if !here {
            lab.agent("east")?.order(&["set", "www", "down"])?;
        }
        let site = if here { EAST } else { WEST };
        for (client, address) in CLIENTS.into_iter().zip(EAST.public(Public::Www)) {
            wait_until(DEADLINE, &format!("pages from {} at east's address", site.name), || {
                made_at(&lab, client, address).is_ok_and(|found| found == site)
            })?;
            // From each of the web servers, which know nothing of each other's flows.
            for host in &LAN[..2] {
                let server = site.node(host.name);
                wait_until(DEADLINE, &format!("the whole catalogue from {server}"), || {
                    lab.fetch_path(client, address, "/catalogue")
                        .is_ok_and(|page| page.after("page by ") == Some(&server))
                })?;
            }
        }
    }
    Ok(())
}

/// What a stranger sends to the tunnel, and what a peer's host sends that its program never would.
#[test]
fn what_is_forged_in_the_tunnel_is_dropped_and_counted() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    let header = |mark: u8, site: &str| [&[1, mark, 0, 0][..], &tunnel::site(site).to_be_bytes(), &[0; 8]].concat();
    // The first half of an IPv4 packet that says it has 40 bytes, for an address of orders.
    let [a, b, c, d] = EAST.v4(Public::Orders).octets();
    let truncated = [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 203, 0, 113, 10, a, b, c, d];
    for (from, what, counter) in [
        ("east-web1", header(1, "west"), "tunnel_stranger"),
        ("west", header(3, "west"), "tunnel_header"),
        ("west", header(1, "east"), "tunnel_header"),
        ("west", [header(1, "west"), truncated.to_vec()].concat(), "tunnel_inner"),
    ] {
        let counted = || -> Result<u64> {
            let status = lab.agent("east")?.status()?;
            status["program"]["counters"][counter].as_u64().with_context(|| format!("no counter {counter}"))
        };
        let before = counted()?;
        lab.node(from)?.enter(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.send_to(&what, "10.255.0.1:7401")?;
            Ok(())
        })?;
        wait_until(DEADLINE, &format!("a packet from {from} counted as {counter}"), || {
            counted().is_ok_and(|now| now == before + 1)
        })?;
    }
    Ok(())
}
