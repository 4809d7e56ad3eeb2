//! Databases that stay the same: what is written at one site is found at the other, whatever fails in between.
//!
//! The load is small unless `SITESWAP_LOAD_RATE` (transactions a second at each site), `SITESWAP_LOAD_SECONDS` and
//! `SITESWAP_LOAD_KILLS` say otherwise; `SITESWAP_SEED` repeats a run's random choices.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use lab::{
    Lab, Options, Process, Waiting,
    mixed::{Application, Clocks, Dice, Expected, Log},
    plan::{EAST, Public, SITES, Site, WEST},
    steady::{self, Steady},
    wait_until,
};
use rusqlite::ErrorCode;
use siteswap_common::steer::tunnel;
use siteswap_replication::{Value, clock::millis, store::Position};

const DEADLINE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

/// Milliseconds since 1970.
fn now() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

fn text(words: &str) -> Value {
    Value::Text(words.as_bytes().to_vec())
}

/// Cut, and both agents know it.
fn cut(lab: &Lab) -> Result<()> {
    lab.await_contact(true)?;
    lab.cut("link")?;
    lab.await_contact(false)
}

/// Waits until the newest orders of a site's own database include this, or not.
fn await_order(lab: &Lab, site: Site, order: &str, there: bool) -> Result<()> {
    let what = format!("{order:?} is {}in db-{}", if there { "" } else { "not " }, site.name);
    let found = || lab.tell(site, "orders").is_ok_and(|orders| orders.iter().any(|found| found == order) == there);
    wait_until(DEADLINE, &what, found).map(drop)
}

fn await_folded(lab: &Lab, site: Site) -> Result<()> {
    wait_until(DEADLINE, &format!("{}'s agent has seen what was written", site.name), || lab.is_folded(site)).map(drop)
}

#[test]
fn c1_insertions_changes_and_deletions_at_each_site_reach_the_other() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    for site in SITES {
        let key = lab.order("client-e", site.v4(Public::Www).into(), "teapot", 2)?;
        await_order(&lab, site.other(), &format!("{key} {} teapot 2", site.name), true)?;
        lab.tell(site, &format!("change {key} 5"))?;
        await_order(&lab, site.other(), &format!("{key} {} teapot 5", site.name), true)?;
        // The other site changes it in turn, and cancels it.
        lab.tell(site.other(), &format!("change {key} 7"))?;
        await_order(&lab, site, &format!("{key} {} teapot 7", site.name), true)?;
        lab.tell(site.other(), &format!("cancel {key}"))?;
        await_order(&lab, site, &format!("{key} {} teapot 7", site.name), false)?;
    }
    lab.await_same_databases(DEADLINE).map(drop)
}

/// The shop's page at either site shows the orders made at both.
#[test]
fn c1_the_page_of_each_site_shows_orders_made_at_the_other() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    let mut keys = Vec::new();
    for (site, client) in SITES.into_iter().zip(["client-w", "client-e"]) {
        keys.push((site, lab.order(client, site.v6(Public::Www).into(), "cups", 6)?));
    }
    for site in SITES {
        for (made, key) in &keys {
            let what = format!("the page of {} shows what was ordered at {}", site.name, made.name);
            wait_until(DEADLINE, &what, || {
                let page = lab.fetch("client-e", site.v4(Public::Www).into());
                let line = page.ok().and_then(|page| page.after("newest orders in ").map(String::from));
                line.is_some_and(|line| line.contains(&format!("{key} {} cups 6", made.name)))
            })?;
        }
    }
    Ok(())
}

#[test]
fn c2_a_change_waits_with_key_values_and_time_until_the_peer_has_acknowledged_it() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    let kept = lab.order("client-e", EAST.v4(Public::Www).into(), "teapot", 2)?;
    let doomed = lab.order("client-e", EAST.v4(Public::Www).into(), "cups", 3)?;
    lab.await_same_databases(DEADLINE)?;
    cut(&lab)?;

    let before = now()?;
    lab.tell(EAST, &format!("change {kept} 9"))?;
    lab.tell(EAST, &format!("cancel {doomed}"))?;
    let new = lab.tell(EAST, "order kettle 1")?.remove(0);
    let after = now()?;
    await_folded(&lab, EAST)?;
    let waiting = lab.waiting(EAST)?;
    let of = |table: &str, key: &[Value]| -> Result<Waiting> {
        let found = waiting.iter().find(|waiting| waiting.table == table && waiting.key == key);
        found.cloned().with_context(|| format!("no change of {table} {key:?} in {waiting:?}"))
    };
    let changed = of("order_items", &[text(&kept), Value::Integer(1)])?.change;
    let cells: Vec<_> = changed.cells.iter().map(|cell| (cell.column, &cell.value)).collect();
    assert_eq!(cells, [(3, &Value::Integer(9))], "only the quantity");
    assert!(!changed.whole && changed.deleted.is_none());
    let deleted = of("orders", &[text(&doomed)])?.change;
    assert!(deleted.deleted.is_some(), "{deleted:?}");
    assert!(of("order_items", &[text(&doomed), Value::Integer(1)])?.change.deleted.is_some(), "by the cascade");
    let inserted = of("orders", &[text(&new)])?.change;
    assert!(inserted.whole && inserted.cells.iter().any(|cell| cell.value == text("east")), "{inserted:?}");
    for waiting in &waiting {
        let made = millis(waiting.change.newest());
        assert!((before - 1..=after).contains(&made), "{made} is not between {before} and {after}: {waiting:?}");
    }

    // They stay as long as the peer has not said that it has them: also over the agent's death.
    lab.kill("east")?;
    lab.start("east")?;
    lab.agent("east")?.await_ready()?;
    assert_eq!(lab.waiting(EAST)?, waiting);
    lab.mend("link")?;
    await_order(&lab, WEST, &format!("{kept} east teapot 9"), true)?;
    wait_until(DEADLINE, "nothing waits", || lab.waiting(EAST).is_ok_and(|waiting| waiting.is_empty()))?;
    lab.await_same_databases(DEADLINE).map(drop)
}

#[test]
fn c3_many_changes_to_one_row_are_sent_as_one() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    cut(&lab)?;
    let east = lab.application(EAST)?;
    for stock in 1..=200 {
        east.execute("UPDATE articles SET stock = ?1 WHERE id = 'teapot'", [stock])?;
        if stock % 10 == 0 {
            east.execute("UPDATE articles SET price = ?1 WHERE id = 'teapot'", [f64::from(stock) / 8.0])?;
            await_folded(&lab, EAST)?;
        }
    }
    assert!(lab.waiting(EAST)?.len() > 1, "it was seen again and again");
    let store = lab.store(EAST)?;
    let next = |position: &Position| store.next_part(tunnel::site(WEST.name), position);
    let (part, rest) = next(&Position::after(lab.acknowledged(EAST)?))?.context("nothing is due to be sent")?;
    assert_eq!(part.rows().count(), 1, "one row");
    assert!(next(&rest)?.is_none(), "and nothing else");

    lab.mend("link")?;
    lab.await_same_databases(DEADLINE)?;
    let row = "SELECT title, price, stock FROM articles WHERE id = 'teapot'";
    let found: (String, f64, i64) =
        lab.application(WEST)?.query_row(row, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    assert_eq!(found, ("A teapot".to_owned(), 25.0, 200));
    Ok(())
}

#[test]
fn c5_a_write_made_while_the_agent_is_stopped_arrives_after_it_starts() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    for site in SITES {
        lab.kill(site.name)?;
        let key = lab.tell(site, "order kettle 2")?.remove(0);
        let other = lab.tell(site.other(), "order cups 4")?.remove(0);
        lab.start(site.name)?;
        await_order(&lab, site.other(), &format!("{key} {} kettle 2", site.name), true)?;
        await_order(&lab, site, &format!("{other} {} cups 4", site.other().name), true)?;
    }
    lab.await_same_databases(DEADLINE).map(drop)
}

/// A number from the environment, or another.
fn setting(name: &str, usual: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// What is random in a run.
fn dice(scenario: &str) -> Dice {
    let seed = setting("SITESWAP_SEED", std::process::id());
    println!("{scenario}: SITESWAP_SEED={seed}");
    Dice::new(seed.into())
}

/// Applications at both sites, whose clocks have these errors.
fn applications(lab: &Lab, rate: u32, dice: &mut Dice, clock_errors: [i64; 2]) -> Vec<Steady<Log>> {
    let write = |(site, clock_error): (Site, i64)| {
        let file = lab.database(site.name);
        Application { site: site.name, file, seed: dice.any(), rate, clock_error }.write()
    };
    SITES.into_iter().zip(clock_errors).map(write).collect()
}

fn written(applications: &[Steady<Log>]) -> usize {
    applications.iter().map(Steady::sent).sum()
}

/// Waits until so many transactions more are written, or an application has given up.
fn await_writes(applications: &[Steady<Log>], more: usize) -> Result<()> {
    let enough = written(applications) + more;
    wait_until(Duration::from_secs(120), &format!("{more} more transactions"), || {
        written(applications) >= enough || applications.iter().any(Steady::ended)
    })
    .map(drop)
}

/// Waits until one site has acknowledged more of the other's changes.
fn await_progress(lab: &Lab) -> Result<()> {
    let acknowledged = || SITES.map(|site| lab.acknowledged(site).unwrap_or(0));
    let before = acknowledged();
    let progress = wait_until(DEADLINE, "one site takes the other's changes", || acknowledged() != before);
    progress.map(drop).with_context(|| lab.backlog())
}

/// Transactions a second at each site, and how many at both together.
fn load() -> (u32, usize) {
    let rate = setting("SITESWAP_LOAD_RATE", 60);
    (rate, 2 * rate as usize * setting("SITESWAP_LOAD_SECONDS", 10) as usize)
}

#[test]
fn c5_what_both_sites_write_while_the_link_is_cut_is_merged_when_it_is_back() -> Result<()> {
    let (rate, total) = load();
    let mut dice = dice("cut");
    let lab = Lab::up(&Options::default())?;
    let before = lab.await_same_databases(DEADLINE)?;
    cut(&lab)?;
    let applications = applications(&lab, rate, &mut dice, [0, 0]);
    await_writes(&applications, total)?;
    let logs = steady::finish(applications)?;
    lab.mend("link")?;
    check(&lab, &before, &logs, Clocks::Same)
}

#[test]
fn c5_under_load_while_the_link_is_cut_and_agents_are_killed_nothing_is_lost() -> Result<()> {
    let ((rate, total), kills) = (load(), setting("SITESWAP_LOAD_KILLS", 20));
    let mut dice = dice("kills");
    let lab = Lab::up(&Options::default())?;
    let before = lab.await_same_databases(DEADLINE)?;
    let applications = applications(&lab, rate, &mut dice, [0, 0]);
    for kill in 0..kills {
        let share = u32::try_from(total)? / kills.max(1);
        let is_cut = kill % 5 == 3;
        if is_cut {
            lab.cut("link")?;
        } else {
            await_progress(&lab)?;
        }
        await_writes(&applications, dice.below(share.max(1)) as usize)?;
        let site = *dice.pick(&SITES);
        lab.kill(site.name)?;
        if dice.chance(30) {
            await_writes(&applications, dice.below(share.max(1)) as usize)?;
        }
        lab.start(site.name)?;
        if is_cut {
            lab.mend("link")?;
        }
    }
    await_writes(&applications, total.saturating_sub(written(&applications)))?;
    let logs = steady::finish(applications)?;
    check(&lab, &before, &logs, Clocks::Same)
}

/// Waits until something waits at a site; the newest stamp of that, in milliseconds since 1970.
fn newest(lab: &Lab, site: Site) -> Result<i64> {
    let newest = || lab.waiting(site).ok()?.iter().map(|waiting| waiting.change.newest()).max();
    wait_until(DEADLINE, &format!("{}'s agent has seen what was written", site.name), || newest().is_some())?;
    Ok(millis(newest().context("nothing waits any more")?))
}

/// An application whose clock is ahead of its own agent's is set back to `max_skew`. A site whose agent is ahead too wins
/// conflicts, and that is all: who has applied its changes stamps later than they are.
#[test]
fn c5_clocks_an_hour_apart_lose_nothing() -> Result<()> {
    const MAX_SKEW: i64 = 10_000;
    const ORDER: &str = "00000000000100000000000000000000";
    let mut dice = dice("clocks");
    let lab = Lab::up(&Options::default())?;
    cut(&lab)?;
    lab.kill("west-db")?;
    lab.start_ahead("west-db", HOUR)?;
    lab.await_data_tier(WEST)?;
    let before = now()?;
    lab.tell(WEST, "order kettle 1")?;
    let stamp = newest(&lab, WEST)?;
    assert!((before..=now()?).contains(&(stamp - MAX_SKEW)), "{stamp} is not {MAX_SKEW} ms after {before}");
    lab.kill("west-db")?;
    lab.start("west-db")?;

    for node in ["east", "east-db"] {
        lab.kill(node)?;
        lab.start_ahead(node, HOUR)?;
    }
    lab.await_data_tier(EAST)?;
    lab.await_data_tier(WEST)?;
    lab.agent("east")?.await_ready()?;
    let before = now()?;
    lab.tell(EAST, &format!("change {ORDER} 5"))?;
    let ahead = newest(&lab, EAST)? - before;
    assert!(ahead > 3_599_000, "{ahead} ms");
    lab.tell(WEST, &format!("change {ORDER} 6"))?;
    lab.mend("link")?;
    await_order(&lab, WEST, &format!("{ORDER} east teapot 5"), true)?;
    lab.await_same_databases(DEADLINE)?;
    for (site, apart) in [("west", HOUR.as_secs_f64()), ("east", -HOUR.as_secs_f64())] {
        wait_until(DEADLINE, &format!("{site} knows that the peer's clock is {apart} s ahead"), || {
            let status = lab.agent(site).and_then(|agent| agent.status());
            let ahead = status.ok().and_then(|status| status["peers"][0]["clock_ahead_ms"].as_f64());
            ahead.is_some_and(|ahead| (ahead / 1e3 - apart).abs() < 60.0)
        })?;
    }
    let said = lab.agent("west")?.order(&["status"])?;
    assert!(said.contains("its clock is 3") && said.contains(" s ahead"), "{said}");
    for (site, quantity) in [(WEST, 7), (EAST, 8), (WEST, 9)] {
        lab.tell(site, &format!("change {ORDER} {quantity}"))?;
        await_order(&lab, site.other(), &format!("{ORDER} east teapot {quantity}"), true)?;
    }
    let before = lab.await_same_databases(DEADLINE)?;
    for site in SITES {
        let conflicts = lab.conflicts(site)?;
        let lost: Vec<_> = conflicts.iter().map(|lost| (lost.lost_site.as_str(), &lost.image)).collect();
        assert_eq!(lost, [("west", &BTreeMap::from([("quantity".to_owned(), 6.into())]))], "at {}", site.name);
    }

    let applications = applications(&lab, 60, &mut dice, [i64::try_from(HOUR.as_millis())?, 0]);
    await_writes(&applications, 200)?;
    lab.cut("link")?;
    await_writes(&applications, 200)?;
    lab.mend("link")?;
    await_progress(&lab)?;
    await_writes(&applications, 100)?;
    let logs = steady::finish(applications)?;
    check(&lab, &before, &logs, Clocks::Apart)
}

/// The first columns of a query's rows at a site.
fn rows(lab: &Lab, site: Site, query: &str) -> Result<Vec<String>> {
    let database = lab.application(site)?;
    let mut statement = database.prepare(query)?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// While both sites write, one has columns more than the other, which says what it lacks and takes everything else.
#[test]
fn c5_a_column_added_at_one_site_then_at_the_other_loses_nothing() -> Result<()> {
    let mut dice = dice("columns");
    let lab = Lab::up(&Options::default())?;
    let before = lab.await_same_databases(DEADLINE)?;
    let applications = applications(&lab, 60, &mut dice, [0, 0]);
    await_writes(&applications, 100)?;
    // What is written next is recorded by triggers that do not know the columns.
    let add = |site: Site, article: &str| -> Result<()> {
        let sql = "ALTER TABLE orders ADD COLUMN channel TEXT NOT NULL DEFAULT 'shop';
            ALTER TABLE articles ADD COLUMN shelf TEXT DEFAULT 'store'";
        let database = lab.application(site)?;
        database.execute_batch(sql)?;
        database.execute("UPDATE articles SET shelf = ?1 WHERE id = ?2", [site.name, article])?;
        Ok(())
    };
    add(EAST, "teapot")?;
    wait_until(DEADLINE, "west says which columns it lacks", || {
        let status = lab.agent("west").and_then(|agent| agent.database_status()).unwrap_or_default();
        status["lacking"] == serde_json::json!(["articles.shelf", "orders.channel"])
    })?;
    let taken = || lab.acknowledged(EAST).unwrap_or(0);
    let so_far = taken();
    wait_until(DEADLINE, "west takes everything else", || taken() > so_far)?;
    await_writes(&applications, 100)?;
    add(WEST, "kettle")?;
    await_writes(&applications, 100)?;
    await_progress(&lab)?;
    for (site, order, channel) in [(EAST, 1, "phone"), (WEST, 2, "post")] {
        let order = format!("0000000000{order:02}00000000000000000000");
        lab.application(site)?.execute("UPDATE orders SET channel = ?1 WHERE id = ?2", [channel, &order])?;
    }
    let logs = steady::finish(applications)?;
    check(&lab, &before, &logs, Clocks::Same)?;
    let shelves = "SELECT id || ' ' || shelf FROM articles WHERE id IN ('cups', 'kettle', 'teapot') ORDER BY id";
    let channels = "SELECT channel FROM orders WHERE channel <> 'shop' ORDER BY id";
    for site in SITES {
        assert_eq!(rows(&lab, site, shelves)?, ["cups store", "kettle west", "teapot east"], "at {}", site.name);
        assert_eq!(rows(&lab, site, channels)?, ["phone", "post"], "at {}", site.name);
    }
    for query in
        ["SELECT id || ifnull(shelf, 0) FROM articles ORDER BY 1", "SELECT id || channel FROM orders ORDER BY 1"]
    {
        assert_eq!(rows(&lab, EAST, query)?, rows(&lab, WEST, query)?, "{query}");
    }
    Ok(())
}

/// Applications are refused what has no room; the agent says so, and goes on when there is some.
#[test]
fn c5_a_full_disk_loses_nothing_that_was_written() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    let disk = lab.small_disk(EAST, 16 << 20)?;
    lab.await_contact(true)?;
    let agent = || lab.processes().iter().find(|process| process.name() == "east").and_then(Process::running);
    let before = agent();
    let mut orders = Orders::default();
    disk.fill()?;
    let mut status = serde_json::Value::Null;
    let awaited = wait_until(Duration::from_secs(60), "the disk is full, and east's agent says so", || {
        let tried = SITES.into_iter().try_for_each(|site| orders.make(&lab, site));
        status = lab.agent("east").and_then(|agent| agent.database_status()).unwrap_or_default();
        tried.is_ok() && !orders.refused.is_empty() && status.to_string().contains("disk is full")
    });
    awaited.with_context(|| format!("it says {status:#}"))?;
    ensure!(orders.refused.iter().all(is_full), "{:?}", orders.refused);
    assert_eq!((before, agent().is_some()), (agent(), true), "the agent runs");

    // Nobody has to write for what is there to be sent.
    disk.free()?;
    lab.await_same_databases(DEADLINE)?;
    orders.made.sort();
    for site in SITES {
        let there = rows(&lab, site, "SELECT id FROM orders WHERE id LIKE '% %' ORDER BY id")?;
        assert_eq!(there, orders.made, "at {}", site.name);
    }
    wait_until(DEADLINE, "east's agent has nothing to complain of", || {
        lab.agent("east").and_then(|agent| agent.database_status()).is_ok_and(|status| status["error"].is_null())
    })
    .map(drop)
}

/// Orders that were made, and why others were not.
#[derive(Default)]
struct Orders {
    made: Vec<String>,
    refused: Vec<rusqlite::Error>,
}

impl Orders {
    fn make(&mut self, lab: &Lab, site: Site) -> Result<()> {
        let order = format!("{} {}", site.name, self.made.len() + self.refused.len());
        let sql = "INSERT INTO orders (id, site, note) VALUES (?1, ?2, hex(zeroblob(1000)))";
        match lab.application(site)?.execute(sql, [&order, site.name]) {
            Ok(_) => self.made.push(order),
            Err(error) => self.refused.push(error),
        }
        Ok(())
    }
}

/// What SQLite says when there is no room for the row, or for the index of its log.
fn is_full(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure))
}

/// Holds both databases to what the applications have committed.
fn check(lab: &Lab, before: &lab::mixed::Contents, logs: &[Log], clocks: Clocks) -> Result<()> {
    let after = lab.await_same_databases(Duration::from_secs(120))?;
    Expected::new(before, logs, clocks).check(&after)?;
    for site in SITES {
        let sql = "SELECT count(*) FROM pragma_foreign_key_check";
        let dangling: i64 = lab.application(site)?.query_row(sql, [], |row| row.get(0))?;
        assert_eq!(dangling, 0, "rows without their parents at {}", site.name);
    }
    let transactions: Vec<usize> = logs.iter().map(|log| log.transactions).collect();
    println!("{transactions:?} transactions, {} rows", after.rows());
    Ok(())
}
