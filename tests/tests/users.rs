//! What users of both regions notice, which should be nothing.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use anyhow::{Context, Result};
use lab::{
    Lab, Options,
    data::Reply,
    plan::{EAST, Public, SITES, Site, WEST},
    steady::Question,
    wait_until,
};

const CLIENTS: [&str; 2] = ["client-e", "client-w"];
const DEADLINE: Duration = Duration::from_secs(15);

/// The database server a client ends up at when it asks for a resource by name.
fn database(lab: &Lab, client: &str, resource: Public, table: &str) -> Result<String> {
    for address in lab.resolve(client, resource.domain())? {
        if let Ok(Reply::Rows { server, .. }) = lab.read_table(client, address, table) {
            return Ok(server);
        }
    }
    anyhow::bail!("{client} reads {table} nowhere")
}

/// The distributor in front is the name servers: requests for `orders` go to one site and requests for `accounts` to
/// the other, from clients of both regions; when a site fails, later requests go to the other.
fn requests_move_when_a_site_fails(failing: Site, surviving: Site) -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    let spread = [(Public::Orders, "orders", EAST), (Public::Accounts, "accounts", WEST)];
    for client in CLIENTS {
        for (resource, table, site) in spread {
            lab.await_answers(client, &SITES, resource, &[site, if site == EAST { WEST } else { EAST }])?;
            assert_eq!(database(&lab, client, resource, table)?, format!("db-{}", site.name));
        }
        let (_, page) = lab.browse(client, &lab.resolve(client, Public::Www.domain())?)?;
        assert!(page.after("page by ").is_some_and(|server| server.starts_with("east")), "{page:?}");
    }

    lab.destroy(failing)?;
    for client in CLIENTS {
        for (resource, table, _) in spread {
            lab.await_answers(client, &[surviving], resource, &[surviving])?;
            let question = Question::tcp(resource, surviving.v4(resource).into());
            lab.await_server(client, question, &format!("db-{}", surviving.name))?;
            assert_eq!(database(&lab, client, resource, table)?, format!("db-{}", surviving.name));
        }
        lab.await_answers(client, &[surviving], Public::Www, &[surviving])?;
        let addresses = lab.resolve(client, Public::Www.domain())?;
        assert_eq!(addresses, [IpAddr::from(surviving.v4(Public::Www))]);
        let (_, page) = lab.browse(client, &addresses)?;
        assert!(page.after("page by ").is_some_and(|server| server.starts_with(surviving.name)), "{page:?}");
    }
    Ok(())
}

#[test]
fn a5_the_first_site_fails_and_later_requests_go_to_the_other() -> Result<()> {
    requests_move_when_a_site_fails(EAST, WEST)
}

#[test]
fn a5_the_second_site_fails_and_later_requests_go_to_the_other() -> Result<()> {
    requests_move_when_a_site_fails(WEST, EAST)
}

/// With an answer in its cache, a client uses the first address until it fails, then the second.
#[test]
fn b9_a_client_uses_the_first_address_until_it_fails_then_the_second() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    let client = "client-w";
    lab.await_answers(client, &SITES, Public::Www, &[EAST, WEST])?;
    let cached = lab.resolve(client, Public::Www.domain())?;
    assert_eq!(cached, SITES.map(|site| IpAddr::from(site.v4(Public::Www))));
    for _ in 0..5 {
        assert_eq!(lab.browse(client, &cached)?.0, cached[0]);
    }

    lab.kill("east-web1")?;
    lab.kill("east-web2")?;
    let (used, page) = lab.browse(client, &cached)?;
    assert_eq!(used, cached[1], "the next request, with the old answer, already goes to the second address");
    assert!(page.body.contains("db-west"), "{page:?}");

    lab.await_answers(client, &SITES, Public::Www, &[WEST])?;
    assert_eq!(lab.browse(client, &lab.resolve(client, Public::Www.domain())?)?.0, cached[1]);
    Ok(())
}

/// Web servers keep nothing between requests: whichever takes the next one, at either site, the page is the same but
/// for the names of the servers that made it.
#[test]
fn b10_any_web_server_at_either_site_can_take_the_next_request() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    let client = "client-e";
    lab.await_answers(client, &SITES, Public::Www, &[EAST, WEST])?;
    let addresses = lab.resolve(client, Public::Www.domain())?;
    let mut servers = BTreeSet::new();
    let mut contents = BTreeSet::new();
    let mut next = addresses.iter().cycle();
    wait_until(DEADLINE, "every web server of both sites has taken a request", || {
        let page = next.next().and_then(|&address| lab.fetch(client, address).ok());
        if let Some(page) = page.filter(|page| page.status == 200) {
            servers.extend(page.after("page by ").map(String::from));
            contents.insert(content(&page).unwrap_or_default());
        }
        servers.len() == 4
    })?;
    assert_eq!(contents.len(), 1, "the rows differ: {contents:?}");

    // One dies; the same client's next requests are taken by the others.
    lab.kill("east-web1")?;
    lab.kill("east-web2")?;
    let (_, page) = lab.browse(client, &addresses)?;
    assert!(contents.contains(&content(&page)?), "{page:?}");
    Ok(())
}

/// The rows on a page, without the servers' names.
fn content(page: &lab::fetch::Page) -> Result<String> {
    let rows = |table: &str| {
        let line = page.after(table).with_context(|| format!("no {table}on {page:?}"))?;
        Ok::<_, anyhow::Error>(line.split_once(": ").context("no rows")?.1.to_owned())
    };
    Ok(format!("{}; {}", rows("orders by ")?, rows("accounts by ")?))
}
