//! A resource moves by itself, and its tables with it: nothing that was acknowledged at the old holder is missing when the
//! new one takes its first write.

use std::{
    net::{SocketAddr, TcpListener},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lab::{Bare, wait_until};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(60);
const SCHEMA: &str = "CREATE TABLE orders(id TEXT PRIMARY KEY NOT NULL, site TEXT, number INTEGER)";

/// West takes the orders when east is silent, and east takes them back when it returns.
const BY_ITSELF: &str = "takeover = 'silence'\nfailback = 'auto'\nfailback_after = '1s'";
/// Only operators move the orders.
const BY_ORDER: &str = "takeover = 'manual'";

/// A backend that takes connections for as long as the test runs: many are made by probes.
fn backend() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || listener.incoming().for_each(drop));
    Ok(address)
}

/// East holds the orders, which move by these rules; only the holder writes them.
fn up(rules: &str) -> Result<Bare> {
    up_with_west("standby", rules)
}

/// The same, with this role of west's.
fn up_with_west(role: &str, rules: &str) -> Result<Bare> {
    let bare = Bare::up(&["east", "west"], SCHEMA)?;
    let backend = backend()?;
    bare.configure(&format!(
        "[resources.orders]\ntables = ['orders']\nstandby_writes = 'refuse'\n{rules}\n\
         probe = {{ tcp = true, interval = '200ms' }}\n\
         [resources.orders.sites.east]\nrole = 'active'\nbackends = ['{backend}']\n\
         [resources.orders.sites.west]\nrole = '{role}'\nbackends = ['{backend}']"
    ))?;
    for site in ["east", "west"] {
        bare.order(site, &["reload"])?;
    }
    await_holder(&bare, "west", "east")?;
    await_writable(&bare, "east")?;
    Ok(bare)
}

/// Waits until a site's agent knows who holds the orders.
fn await_holder(bare: &Bare, at: &str, holder: &str) -> Result<()> {
    let awaited = wait_until(DEADLINE, &format!("{at} knows that {holder} holds the orders"), || {
        bare.json(at, &["instances"]).is_ok_and(|(_, rows)| {
            rows.as_array().is_some_and(|rows| {
                rows.iter().any(|row| row["site"] == holder && row["state"] == "active" && row["contact"] == true)
            })
        })
    });
    awaited.map(drop)
}

fn insert(bare: &Bare, site: &str, number: u64) -> Result<()> {
    let id = format!("{site}-{number}");
    bare.application(site)?.execute("INSERT INTO orders VALUES(?1, ?2, ?3)", (id, site, number))?;
    Ok(())
}

fn await_writable(bare: &Bare, site: &str) -> Result<()> {
    let mut number = 1 << 40;
    wait_until(DEADLINE, &format!("{site} takes writes"), || {
        number += 1;
        insert(bare, site, number).is_ok()
    })
    .map(drop)
}

/// Waits until east sends its changes to west, or does not.
fn await_sending(bare: &Bare, sends: bool) -> Result<()> {
    wait_until(DEADLINE, &format!("east sends its changes to west: {sends}"), || {
        bare.json("east", &["db", "status"]).is_ok_and(|(_, status)| status["peers"]["west"]["sending"] == sends)
    })
    .map(drop)
}

/// Writes at a site from 0 on until it refuses. Returns how many orders it took.
fn write_until_refused(bare: &Bare, site: &str) -> Result<u64> {
    let database = bare.application(site)?;
    for number in 0.. {
        let order = (format!("{site}-{number}"), site, number);
        if let Err(error) = database.execute("INSERT INTO orders VALUES(?1, ?2, ?3)", order) {
            ensure!(error.to_string().contains("holds table orders"), "{error}");
            return Ok(number);
        }
        thread::sleep(Duration::from_millis(1));
    }
    unreachable!("the numbers do not end")
}

/// While `from` is written to, the orders move to `to`: all that `from` took is there before `to` takes the first of its own.
fn nothing_is_missing(bare: &Bare, from: &str, to: &str, start: impl FnOnce() -> Result<()>) -> Result<()> {
    thread::scope(|scope| {
        let writer = scope.spawn(|| write_until_refused(bare, from));
        wait_until(DEADLINE, "some orders are written", || {
            bare.rows(from, "orders").is_ok_and(|rows| rows.iter().filter(|row| row.contains(from)).count() > 100)
        })?;
        start()?;
        await_writable(bare, to)?;
        let there = bare.application(to)?.query_row(
            "SELECT count(*) FROM orders WHERE site = ?1 AND number < 1 << 40",
            [from],
            |row| row.get::<_, u64>(0),
        )?;
        let written = writer.join().expect("a writer")?;
        assert_eq!(there, written, "{to} lacks orders that {from} took");
        Ok(())
    })
}

#[test]
fn a_failback_waits_for_what_the_holder_has_committed() -> Result<()> {
    let bare = up(BY_ITSELF)?;
    bare.kill("east")?;
    await_writable(&bare, "west")?;
    nothing_is_missing(&bare, "west", "east", || {
        bare.start("east")?;
        // It held them when it died, and has to hear that it does not any more.
        let mut number = 1 << 41;
        let refuses = || {
            number += 1;
            insert(&bare, "east", number).is_err()
        };
        wait_until(DEADLINE, "east knows that west holds the orders", refuses).map(drop)
    })?;
    await_holder(&bare, "west", "east")?;
    bare.await_same(&["east", "west"], "orders", DEADLINE).map(drop)
}

#[test]
fn a_drained_holder_is_followed_when_what_it_has_committed_is_there() -> Result<()> {
    let bare = up(BY_ITSELF)?;
    nothing_is_missing(&bare, "east", "west", || bare.order("west", &["drain", "east"]).map(drop))?;
    await_holder(&bare, "east", "west")?;
    bare.await_same(&["east", "west"], "orders", DEADLINE).map(drop)
}

#[test]
fn where_all_are_active_again_by_order_all_write_and_nothing_is_missing() -> Result<()> {
    let bare = up_with_west("active", BY_ORDER)?;
    bare.order("west", &["swap", "orders", "--to", "west"])?;
    write_until_refused(&bare, "east")?;
    insert(&bare, "west", 1)?;
    bare.order("west", &["swap", "orders", "--as-configured"])?;
    assert!(bare.rows("east", "orders")?.iter().any(|row| row.contains("\"west-1\"")), "it was waited for");
    await_writable(&bare, "east")?;
    await_writable(&bare, "west")?;
    bare.await_same(&["east", "west"], "orders", DEADLINE).map(drop)
}

#[test]
fn where_all_are_to_be_active_a_failback_makes_them_so() -> Result<()> {
    let bare = up_with_west("active", BY_ITSELF)?;
    bare.order("east", &["swap", "orders", "--to", "west"])?;
    wait_until(DEADLINE, "nobody alone holds the orders", || {
        bare.json("west", &["instances"]).is_ok_and(|(_, rows)| {
            let free = |row: &Value| row["epoch"] == 2 && row["holder"].is_null() && row["state"] == "active";
            rows.as_array().is_some_and(|rows| rows.len() == 2 && rows.iter().all(free))
        })
    })?;
    await_writable(&bare, "east")?;
    await_writable(&bare, "west")?;
    bare.await_same(&["east", "west"], "orders", DEADLINE).map(drop)
}

#[test]
fn a_swap_that_is_forced_does_not_wait_for_what_does_not_arrive_and_says_so() -> Result<()> {
    let bare = up(BY_ORDER)?;
    await_sending(&bare, true)?;
    bare.order("west", &["db", "pause"])?;
    await_sending(&bare, false)?;
    insert(&bare, "east", 1)?;
    let refused = bare.order("east", &["swap", "orders", "--to", "west"]).expect_err("a refusal").to_string();
    assert!(refused.contains("what east has committed did not arrive in time"), "{refused}");
    await_writable(&bare, "east")?;

    let (code, swapped) = bare.json("east", &["swap", "orders", "--to", "west", "--force"])?;
    assert_eq!((code, &swapped["behind"]), (Some(0), &serde_json::json!(["east"])), "{swapped}");
    await_writable(&bare, "west")?;
    bare.order("west", &["db", "resume"])?;
    bare.await_same(&["east", "west"], "orders", DEADLINE).map(drop)
}

#[test]
fn a_swap_that_is_refused_in_any_case_keeps_nobody_from_writing() -> Result<()> {
    let bare = up(BY_ORDER)?;
    bare.order("west", &["drain", "west"])?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0.. {
                insert(&bare, "east", number)?;
                // Once after the refusal too.
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
            Ok::<_, anyhow::Error>(())
        });
        let refused = bare.order("east", &["swap", "orders", "--to", "west"]);
        done.store(true, Ordering::Relaxed);
        writer.join().expect("a writer").context("every write is taken")?;
        let refused = refused.expect_err("a refusal").to_string();
        assert!(refused.contains("`siteswap undrain west` first"), "{refused}");
        Ok(())
    })
}

#[test]
fn a_swap_does_not_wait_for_a_holder_that_is_away_and_says_so() -> Result<()> {
    let bare = up(BY_ORDER)?;
    bare.kill("east")?;
    insert(&bare, "east", 1)?;
    let mut swapped = Value::Null;
    wait_until(DEADLINE, "west takes the orders", || match bare.json("west", &["swap", "orders", "--to", "west"]) {
        Ok((code, told)) => {
            swapped = told;
            code == Some(0)
        }
        Err(_) => false,
    })?;
    assert_eq!(swapped["behind"], serde_json::json!(["east"]), "{swapped}");
    await_writable(&bare, "west")?;
    bare.start("east")?;
    bare.await_same(&["east", "west"], "orders", DEADLINE)?;
    assert!(bare.rows("west", "orders")?.iter().any(|row| row.contains("east-1")), "what east had not sent");
    Ok(())
}

/// How far the sites are apart is in `status` at both, from what each knows and says.
#[test]
fn status_tells_what_waits_for_a_peer_and_what_waits_there() -> Result<()> {
    let bare = Bare::up(&["east", "west"], SCHEMA)?;
    await_sending(&bare, true)?;
    bare.order("west", &["db", "pause"])?;
    await_sending(&bare, false)?;
    for number in 0..20 {
        insert(&bare, "east", number)?;
    }
    let told = |at: &str, peer: &str, which: &str, rows: u64| {
        wait_until(DEADLINE, &format!("{at} says that {rows} rows wait"), || {
            bare.json(at, &["status"]).is_ok_and(|(_, status)| status["replication"][peer][which]["rows"] == rows)
        })
    };
    told("east", "west", "waits", 20)?;
    told("west", "east", "missing", 20)?;
    let said = bare.order("west", &["status"]).context("for people")?;
    assert!(said.contains("this site has all but 20 rows, the oldest changed"), "{said}");
    bare.order("west", &["db", "resume"])?;
    told("east", "west", "waits", 0)?;
    told("west", "east", "missing", 0)?;
    Ok(())
}
