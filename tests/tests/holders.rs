//! Who holds a resource: takeover and its rule, swaps and drains by an operator, and what of it survives a restart.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use lab::{
    Lab, Options,
    plan::{EAST, Public, SITES, WEST},
    wait_until,
};
use rusqlite::Connection;
use serde_json::Value;

/// Detection takes some seconds with the lab's settings; a busy machine gets a lot more.
const DEADLINE: Duration = Duration::from_secs(30);

/// Runs `siteswap` against a site's agent: its exit code, and what it printed on both outputs.
fn siteswap(lab: &Lab, site: &str, arguments: &[&str]) -> Result<(i32, String)> {
    let output = lab.agent(site)?.command(arguments)?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code().context("ended by a signal")?, String::from_utf8(text)?))
}

/// The same with `--json`, successful.
fn json(lab: &Lab, site: &str, arguments: &[&str]) -> Result<Value> {
    let (code, text) = siteswap(lab, site, &[arguments, &["--json"]].concat())?;
    ensure!(code == 0, "{arguments:?}: {code}, {text}");
    Ok(serde_json::from_str(&text)?)
}

/// What `siteswap instances` at `at` says of a resource at `site`.
fn instance(lab: &Lab, at: &str, resource: &str, site: &str) -> Result<Value> {
    let rows = json(lab, at, &["instances"])?;
    let found =
        rows.as_array().context("a list")?.iter().find(|row| row["resource"] == resource && row["site"] == site);
    found.cloned().with_context(|| format!("no {resource} at {site}"))
}

/// State, holder and epoch of a resource at each site, as each site says itself.
fn holders(lab: &Lab, resource: &str) -> Result<Vec<(String, String, u64)>> {
    let said = SITES.iter().map(|site| {
        let row = instance(lab, site.name, resource, site.name)?;
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        Ok((text(&row["state"]), text(&row["holder"]), row["epoch"].as_u64().context("an epoch")?))
    });
    said.collect()
}

fn held(east: &str, west: &str, holder: &str, epoch: u64) -> Vec<(String, String, u64)> {
    [east, west].map(|state| (state.to_owned(), holder.to_owned(), epoch)).into()
}

fn arrival(lab: &Lab, site: &str, resource: &str) -> Result<Value> {
    let status = lab.agent(site)?.status()?;
    let all = status["resources"].as_array().context("resources")?;
    Ok(all.iter().find(|one| one["name"] == resource).context("the resource")?["arrival"].clone())
}

#[test]
fn a7_each_site_keeps_an_instance_per_resource_that_says_active_or_standby_why_and_since_when() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    lab.await_answers("client-e", &SITES, Public::Orders, &[EAST, WEST])?;
    assert_eq!(holders(&lab, "orders")?, held("active", "standby", "-", 0));
    assert_eq!(holders(&lab, "accounts")?, held("standby", "active", "-", 0));
    assert_eq!(holders(&lab, "www")?, held("active", "active", "-", 0));
    for site in ["east", "west"] {
        let row = instance(&lab, "east", "orders", site)?;
        assert_eq!((&row["why"], &row["available"]), (&"configured".into(), &true.into()), "{row}");
        assert!(row["since"].as_u64().is_some_and(|since| since > 1_700_000_000), "{row}");
    }
    let (code, table) = siteswap(&lab, "west", &["instances"])?;
    assert_eq!(code, 0);
    assert_eq!(table.lines().count(), 1 + 3 * 2, "{table}");
    Ok(())
}

#[test]
fn a_swap_ordered_anywhere_moves_the_holder_once_says_how_long_each_step_took_and_survives_a_restart() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    lab.await_answers("client-e", &SITES, Public::Orders, &[EAST, WEST])?;
    // Ordered at the old holder, so that the new one is asked over the link.
    let swapped = json(&lab, "east", &["swap", "orders", "--to", "west"])?;
    assert_eq!((&swapped["epoch"], &swapped["already"]), (&1.into(), &false.into()), "{swapped}");
    let steps = swapped["steps"].as_array().context("steps")?;
    let said: Vec<_> = steps.iter().map(|step| (step["step"].as_str(), step["site"].as_str())).collect();
    let expected =
        [("asked", "west"), ("caught up", "west"), ("taken", "west"), ("published", "west"), ("adopted", "east")];
    assert_eq!(said, expected.map(|(step, site)| (Some(step), Some(site))));
    assert!(steps.iter().all(|step| step["micros"].is_u64()));
    assert_eq!(holders(&lab, "orders")?, held("standby", "active", "west", 1), "once the command is done, all know");
    lab.await_answers("client-e", &SITES, Public::Orders, &[WEST, EAST])?;

    let (code, again) = siteswap(&lab, "east", &["swap", "orders", "--to", "west"])?;
    assert_eq!((code, again.trim()), (0, "west holds orders already, epoch 1"));

    let before = instance(&lab, "west", "orders", "west")?;
    assert_eq!(before["why"], "swap by an operator");
    let agent = lab.agent("west")?;
    agent.kill()?;
    agent.start()?;
    agent.await_ready()?;
    let after = instance(&lab, "west", "orders", "west")?;
    for key in ["state", "holder", "epoch", "why", "since"] {
        assert_eq!(after[key], before[key], "{key}");
    }

    // Back, ordered at the site that shall hold it.
    let (code, text) = siteswap(&lab, "east", &["swap", "orders", "--to", "east"])?;
    assert!(code == 0 && text.contains("adopted    west"), "{text}");
    assert_eq!(holders(&lab, "orders")?, held("active", "standby", "east", 2));
    Ok(())
}

#[test]
fn a_resource_that_several_sites_serve_has_one_holder_after_a_swap_and_all_of_them_again_as_configured() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    json(&lab, "east", &["swap", "www", "--to", "west"])?;
    assert_eq!(holders(&lab, "www")?, held("standby", "active", "west", 1));
    lab.await_answers("client-e", &SITES, Public::Www, &[WEST, EAST])?;
    assert_eq!(arrival(&lab, "east", "www")?, serde_json::json!({ "do": "forward", "site": "west" }));

    // Ordered at the other site than the one that begins the epoch.
    let back = json(&lab, "west", &["swap", "www", "--as-configured"])?;
    assert_eq!((&back["to"], &back["holder"], &back["epoch"]), (&"east".into(), &Value::Null, &2.into()), "{back}");
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    let agent = lab.agent("east")?;
    agent.kill()?;
    agent.start()?;
    agent.await_ready()?;
    assert_eq!(holders(&lab, "www")?, held("active", "active", "-", 2), "also after a restart");
    for site in ["east", "west"] {
        assert_eq!(arrival(&lab, site, "www")?, serde_json::json!({ "do": "serve" }));
    }
    let (code, again) = siteswap(&lab, "east", &["swap", "www", "--as-configured"])?;
    assert_eq!((code, again.trim()), (0, "the roles of www are already as configured, epoch 2"));

    // Where one site is configured as active, it is the holder.
    json(&lab, "west", &["swap", "orders", "--to", "west"])?;
    let (code, text) = siteswap(&lab, "west", &["swap", "orders", "--as-configured"])?;
    assert!(code == 0 && text.starts_with("east holds orders, epoch 2"), "{code}: {text}");
    assert_eq!(holders(&lab, "orders")?, held("active", "standby", "east", 2));
    for wrong in [&["swap", "orders"][..], &["swap", "orders", "--to", "east", "--as-configured"]] {
        assert_eq!(siteswap(&lab, "east", wrong)?.0, 2, "{wrong:?}");
    }
    Ok(())
}

#[test]
fn a_swap_that_cannot_be_done_is_refused_with_its_reason_and_changes_nothing() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    lab.await_answers("client-e", &SITES, Public::Orders, &[EAST, WEST])?;
    let refused = |arguments: &[&str]| -> Result<String> {
        let (code, text) = siteswap(&lab, "east", arguments)?;
        ensure!(code == 1, "{code}: {text}");
        Ok(text)
    };
    assert!(refused(&["swap", "order", "--to", "west"])?.contains("it has: accounts, orders, www"));
    assert!(refused(&["swap", "orders", "--to", "north"])?.contains("it has: east, west"));
    assert!(refused(&["drain", "north"])?.contains("there are: east, west"));
    siteswap(&lab, "west", &["set", "orders", "down"])?;
    assert!(refused(&["swap", "orders", "--to", "west"])?.contains("`siteswap set orders auto` first"));
    siteswap(&lab, "west", &["set", "orders", "auto"])?;
    lab.cut("link")?;
    lab.await_answers("client-e", &[EAST], Public::Www, &[EAST])?;
    assert!(refused(&["swap", "orders", "--to", "west"])?.contains("west"));
    assert_eq!(holders(&lab, "orders")?, held("active", "standby", "-", 0));
    Ok(())
}

#[test]
fn a_drained_site_leaves_all_answers_gives_up_what_it_holds_and_counts_again_after_undrain() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    // Ordered at the other site.
    let drained = json(&lab, "west", &["drain", "east"])?;
    assert_eq!(drained["moved"], serde_json::json!({ "orders": "west" }), "{drained}");
    assert_eq!((&drained["stays"], &drained["waiting"]), (&serde_json::json!({}), &serde_json::json!([])));
    for resource in [Public::Www, Public::Orders, Public::Accounts] {
        lab.await_answers("client-e", &SITES, resource, &[WEST])?;
    }
    assert_eq!(holders(&lab, "orders")?, held("standby", "active", "west", 1));
    assert_eq!(instance(&lab, "west", "orders", "west")?["why"], "east is drained");
    assert_eq!(arrival(&lab, "east", "www")?, serde_json::json!({ "do": "forward", "site": "west" }));

    let agent = lab.agent("east")?;
    agent.kill()?;
    agent.start()?;
    agent.await_ready()?;
    assert_eq!(agent.status()?["drained"], true);
    assert_eq!(instance(&lab, "east", "www", "east")?["drained"], true);
    lab.await_answers("client-e", &SITES, Public::Www, &[WEST])?;

    // The last site: what cannot move stays, and is said.
    let (code, text) = siteswap(&lab, "west", &["drain", "west"])?;
    assert!(code == 3 && text.contains("stays    orders: no other site is available"), "{code}: {text}");
    lab.await_answers("client-e", &SITES, Public::Orders, &[WEST, EAST])?;
    assert_eq!(siteswap(&lab, "west", &["undrain", "west"])?.0, 0);

    assert_eq!(siteswap(&lab, "east", &["undrain", "east"])?.0, 0);
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    lab.await_answers("client-e", &SITES, Public::Orders, &[WEST, EAST])?;
    assert_eq!(holders(&lab, "orders")?, held("standby", "active", "west", 1), "it returns by order only");
    Ok(())
}

/// To forget in a restart that another has taken it is no worse than to serve beside that one.
#[test]
fn a_holder_whose_state_disk_is_full_gives_up_what_another_takes_and_stores_that_when_there_is_room() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    let disk = lab.small_state_disk(EAST, 4 << 20)?;
    lab.await_contact(true)?;
    lab.await_answers("client-e", &SITES, Public::Orders, &[EAST, WEST])?;
    disk.fill()?;
    let (code, said) = siteswap(&lab, "east", &["swap", "accounts", "--to", "east"])?;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("cannot be stored"), "what it cannot store it does not take: {said}");

    let (code, said) = siteswap(&lab, "west", &["swap", "orders", "--to", "west"])?;
    assert_eq!(code, 0, "{said}");
    let gave_up = held("standby", "active", "west", 1);
    wait_until(DEADLINE, "east gives up orders", || holders(&lab, "orders").is_ok_and(|found| found == gave_up))?;
    lab.kill("east")?;
    lab.start("east")?;
    lab.await_contact(true)?;
    wait_until(DEADLINE, "east gives it up again", || holders(&lab, "orders").is_ok_and(|found| found == gave_up))?;

    disk.free()?;
    let stored = || -> Result<String> {
        let state = Connection::open(disk.directory.join("state.db"))?;
        Ok(state.query_row("SELECT epoch || holder FROM tenure WHERE resource = 'orders'", [], |row| row.get(0))?)
    };
    wait_until(DEADLINE, "east stores who holds orders", || stored().is_ok_and(|found| found == "1west")).map(drop)
}

#[test]
fn a_drained_holder_serves_what_arrives_anywhere_until_its_successor_can_store_that_it_has_taken_over() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    let disk = lab.small_state_disk(WEST, 4 << 20)?;
    lab.await_contact(true)?;
    lab.await_answers("client-e", &SITES, Public::Orders, &[EAST, WEST])?;
    disk.fill()?;
    let (code, said) = siteswap(&lab, "east", &["drain", "east"])?;
    assert_eq!(code, 3, "{said}");
    let meanwhile = serde_json::json!({ "do": "take_over", "site": "east" });
    wait_until(DEADLINE, "west forwards until it can take over", || {
        arrival(&lab, "west", "orders").is_ok_and(|arrival| arrival == meanwhile)
    })?;
    assert_eq!(holders(&lab, "orders")?, held("active", "standby", "-", 0));
    for site in SITES {
        lab.read_table("client-w", IpAddr::from(site.v4(Public::Orders)), "orders")
            .with_context(|| format!("a request that arrives at {}", site.name))?;
    }
    disk.free()?;
    let taken = held("standby", "active", "west", 1);
    wait_until(DEADLINE, "west takes orders", || holders(&lab, "orders").is_ok_and(|found| found == taken)).map(drop)
}

#[test]
fn under_confirmed_a_cut_link_moves_nothing_and_a_lost_site_is_taken_over_from_and_steps_down_when_it_returns()
-> Result<()> {
    let lab = Lab::up(&Options::default())?;
    lab.await_answers("client-e", &SITES, Public::Orders, &[EAST, WEST])?;
    let reaches =
        |site: &str| lab.read_table(&format!("client-{}", &site[..1]), IpAddr::from(EAST.v4(Public::Orders)), "orders");
    wait_until(DEADLINE, "east's public address serves", || reaches("east").is_ok())?;
    lab.cut("link")?;
    lab.await_answers("client-e", &[WEST], Public::Orders, &[WEST])?;
    let silent = serde_json::json!({ "do": "forward_silent", "site": "east" });
    wait_until(DEADLINE, "west forwards to the silent holder", || {
        arrival(&lab, "west", "orders").is_ok_and(|arrival| arrival == silent)
    })?;
    assert_eq!(holders(&lab, "orders")?, held("active", "standby", "-", 0), "its public address answers");

    lab.cut("east")?;
    wait_until(DEADLINE, "west takes over", || {
        instance(&lab, "west", "orders", "west").is_ok_and(|row| row["state"] == "active")
    })?;
    let why = instance(&lab, "west", "orders", "west")?["why"].clone();
    let why = why.as_str().context("a reason")?;
    assert!(why.starts_with("took over from east: the peer is not in contact, and nothing answers at"), "{why}");
    assert_eq!(holders(&lab, "orders")?[0], ("active".to_owned(), "-".to_owned(), 0), "east cannot know");

    lab.mend("east")?;
    lab.mend("link")?;
    let stands_by = held("standby", "active", "west", 1);
    wait_until(DEADLINE, "east stands by", || holders(&lab, "orders").is_ok_and(|found| found == stands_by))?;
    lab.await_answers("client-e", &SITES, Public::Orders, &[WEST, EAST])?;
    Ok(())
}
