//! Databases that came to differ behind siteswap's back are found and made equal; sites begin, return and change their
//! schema without losing anything.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    net::TcpListener,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lab::{Bare, wait_until};
use rusqlite::{Connection, config::DbConfig};

const DEADLINE: Duration = Duration::from_secs(60);
const SCHEMA: &str = "
CREATE TABLE item(id TEXT PRIMARY KEY NOT NULL, site TEXT, amount INTEGER, note);
CREATE TABLE \"odd \"\"name\"(\"k 1\" TEXT COLLATE NOCASE, k2 BLOB, v REAL, PRIMARY KEY(\"k 1\", k2)) WITHOUT ROWID;
";

fn write(database: &Connection, site: &str, numbers: impl IntoIterator<Item = u64>) -> Result<()> {
    let mut insert = database.prepare_cached("INSERT INTO item VALUES(?1, ?2, ?3, NULL)")?;
    for number in numbers {
        insert.execute((format!("{site}-{number}"), site, number))?;
    }
    Ok(())
}

/// Writes that no trigger sees.
fn quietly(database: &Connection, sql: &str) -> Result<()> {
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    database.execute_batch(sql)?;
    Ok(database.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true).map(drop)?)
}

/// Writes at a site until it is told to stop. Counts what was committed.
fn keep_writing(bare: &Bare, site: &str, from: u64, stop: &AtomicBool, written: &AtomicU64) -> Result<()> {
    let database = bare.application(site)?;
    for number in from.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        write(&database, site, [number])?;
        if number % 3 == 0 {
            database.execute("UPDATE item SET amount = -amount WHERE id = ?1", [format!("{site}-{}", number / 2)])?;
        }
        written.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

#[test]
fn rows_written_behind_the_triggers_are_found_told_and_repaired() -> Result<()> {
    let bare = Bare::up(&["east", "west"], SCHEMA)?;
    let (east, west) = (bare.application("east")?, bare.application("west")?);
    write(&east, "east", 0..3_000)?;
    bare.await_same(&["east", "west"], "item", DEADLINE)?;
    let (code, verified) = bare.json("east", &["db", "verify"])?;
    assert_eq!((code, &verified["west"]["equal"]), (Some(0), &true.into()), "{verified}");
    assert_eq!(verified["west"]["rows"], 3_000);

    quietly(&east, "UPDATE item SET note = x'00' WHERE id = 'east-7'; DELETE FROM item WHERE id = 'east-8'")?;
    quietly(&west, "INSERT INTO \"odd \"\"name\" VALUES('K', x'01', 0.5)")?;
    let (code, verified) = bare.json("west", &["db", "verify", "east"])?;
    let differing: BTreeSet<_> = verified["east"]["differences"]
        .as_array()
        .context("differences")?
        .iter()
        .map(|row| (row["table"].to_string(), row["key"].to_string(), row["here"] == true, row["there"] == true))
        .collect();
    let expected = [
        ("\"item\"".to_owned(), "[\"'east-7'\"]".to_owned(), true, true),
        ("\"item\"".to_owned(), "[\"'east-8'\"]".to_owned(), true, false),
        ("\"odd \\\"name\"".to_owned(), "[\"'K'\",\"x'01'\"]".to_owned(), true, false),
    ];
    assert_eq!((code, differing), (Some(3), expected.into()), "{verified}");

    let (code, repaired) = bare.json("east", &["db", "verify", "west", "--repair", "--keep", "present"])?;
    assert_eq!((code, &repaired["west"]["equal"], &repaired["west"]["repaired"]), (Some(0), &true.into(), &3.into()));
    let items = bare.await_same(&["east", "west"], "item", DEADLINE)?;
    assert_eq!(items.len(), 3_000, "a row that is there stays");
    assert_eq!(bare.await_same(&["east", "west"], "\"odd \"\"name\"", DEADLINE)?.len(), 1);
    Ok(())
}

/// A site that has no peer (yet, or any more) waits for none, and keeps nothing for any.
#[test]
fn a_site_alone_keeps_nothing_for_others() -> Result<()> {
    let bare = Bare::up(&["east"], SCHEMA)?;
    let east = bare.application("east")?;
    write(&east, "east", 0..500)?;
    east.execute("DELETE FROM item WHERE amount % 2 = 0", [])?;
    let kept = "SELECT (SELECT count(*) FROM _ssw_change) + (SELECT count(*) FROM _ssw_row)";
    wait_until(DEADLINE, "nothing is kept", || {
        let folded = bare.json("east", &["db", "status"]).is_ok_and(|(_, status)| status["group"].as_u64() > Some(0));
        folded && east.query_row(kept, [], |row| row.get::<_, u64>(0)).is_ok_and(|kept| kept == 0)
    })?;
    assert_eq!(bare.rows("east", "item")?.len(), 250);
    Ok(())
}

/// What has no peer to be compared with is told, and so is what there is no such peer or table for.
#[test]
fn a_comparison_that_cannot_be_made_says_why() -> Result<()> {
    let bare = Bare::up(&["east", "west"], SCHEMA)?;
    for (arguments, why) in [
        (&["db", "verify", "north"][..], "there is no peer \"north\"; there are: west"),
        (&["db", "verify", "west", "--keep", "here"], "--repair"),
        (&["db", "verify", "west", "--local"], "--local"),
    ] {
        let output = bare.command("east", arguments)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{said}");
    }
    bare.kill("west")?;
    let awaited = wait_until(DEADLINE, "the agent knows that west is gone", || {
        let output = bare.command("east", &["db", "verify", "west"]);
        output.is_ok_and(|output| String::from_utf8_lossy(&output.stderr).contains("west is not connected"))
    });
    awaited.map(drop)
}

/// What is kept for a site that is away comes near `max_backlog`, then above it: the agent says so, forgets, and the sites
/// are equal all the same.
#[test]
fn a_site_that_was_away_for_too_much_is_compared_with() -> Result<()> {
    let bare = Bare::up(&["east", "west"], SCHEMA)?;
    bare.configure("max_backlog = '1 MB'")?;
    bare.order("east", &["reload"])?;
    let east = bare.application("east")?;
    let add = |letter: &str, to: u64| -> Result<()> {
        let sql = "WITH n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?2) \
                   INSERT INTO item SELECT ?1 || n, 'east', n, printf('%.10000c', 'x') FROM n";
        Ok(east.execute(sql, (letter, to)).map(drop)?)
    };
    let said = |site: &str, what: &str| {
        let log = || fs::read_to_string(bare.file(site, "log")).is_ok_and(|log| log.contains(what));
        wait_until(DEADLINE, &format!("{site}'s agent says: {what}"), log).map(drop)
    };
    add("known", 100)?;
    bare.await_same(&["east", "west"], "item", DEADLINE)?;
    bare.kill("west")?;
    add("near", 90)?;
    said("east", "comes near database.max_backlog")?;
    east.execute_batch("DELETE FROM item WHERE id LIKE 'known%'")?;
    add("beyond", 90)?;
    said("east", "than database.max_backlog allows")?;
    let kept = "SELECT (SELECT ifnull(sum(length(body)), 0) FROM _ssw_change) + \
                (SELECT ifnull(sum(length(state)), 0) FROM _ssw_row)";
    wait_until(DEADLINE, "it has forgotten", || {
        east.query_row(kept, [], |row| row.get::<_, u64>(0)).is_ok_and(|kept| kept < 900_000)
    })?;
    let lacks = |site: &str| -> Result<(Option<i32>, serde_json::Value)> {
        let (code, status) = bare.json(site, &["db", "status"])?;
        Ok((code, status["peers"]["west"]["forgotten"].clone()))
    };
    wait_until(DEADLINE, "it says so", || lacks("east").is_ok_and(|found| found == (Some(3), true.into())))?;
    bare.start("west")?;
    assert_eq!(bare.await_same(&["east", "west"], "item", DEADLINE)?.len(), 180);
    wait_until(DEADLINE, "nothing is missing", || lacks("east").is_ok_and(|found| found == (Some(0), false.into())))?;
    said("west", "the database was compared and is equal")
}

#[test]
fn what_contradicts_what_is_known_of_a_row_is_found_without_a_peer() -> Result<()> {
    let bare = Bare::up(&["east", "west"], SCHEMA)?;
    let east = bare.application("east")?;
    bare.kill("west")?;
    write(&east, "east", 0..10)?;
    wait_until(DEADLINE, "the agent knows the rows", || {
        bare.json("east", &["db", "verify", "--local"])
            .is_ok_and(|(code, local)| code == Some(0) && local["rows"] == 10)
    })?;
    quietly(&east, "DELETE FROM item WHERE id = 'east-4'")?;
    let (code, local) = bare.json("east", &["db", "verify", "--local"])?;
    assert_eq!((code, local["contradictions"].as_array().map(Vec::len)), (Some(3), Some(1)), "{local}");
    let (code, local) = bare.json("east", &["db", "verify", "--local", "--repair"])?;
    assert_eq!((code, &local["repaired"]), (Some(0), &1.into()), "{local}");
    bare.start("west")?;
    assert_eq!(bare.await_same(&["east", "west"], "item", DEADLINE)?.len(), 9);
    Ok(())
}

/// The backup is older than what the peer was told; both sites have written since.
#[test]
fn a_restored_backup_takes_back_what_its_peer_knows_and_keeps_what_was_written_since() -> Result<()> {
    let bare = Bare::up(&["east", "west"], SCHEMA)?;
    let sites = ["east", "west"];
    write(&bare.application("east")?, "east", 0..200)?;
    bare.await_same(&sites, "item", DEADLINE)?;
    let backup = bare.file("east", "backup");
    bare.application("east")?.execute("VACUUM INTO ?1", [backup.to_str()])?;
    write(&bare.application("east")?, "east", 200..400)?;
    bare.application("west")?.execute("UPDATE item SET note = 'by west' WHERE amount < 50", [])?;
    bare.await_same(&sites, "item", DEADLINE)?;

    bare.kill("east")?;
    restore(&backup, &bare.database("east"))?;
    // The application writes before the agent has found out.
    write(&bare.application("east")?, "late", 0..50)?;
    write(&bare.application("west")?, "west", 0..50)?;
    bare.start("east")?;
    let rows = bare.await_same(&sites, "item", DEADLINE)?;
    assert_eq!(rows.len(), 500);
    assert_eq!(rows.iter().filter(|row| row.contains("by west")).count(), 50);
    // From now on it is like any other.
    write(&bare.application("east")?, "east", 400..450)?;
    assert_eq!(bare.await_same(&sites, "item", DEADLINE)?.len(), 550);
    let (code, verified) = bare.json("west", &["db", "verify"])?;
    assert_eq!(code, Some(0), "{verified}");
    Ok(())
}

/// What it lacks is not in what it counts as applied, so that to wait for that would not do.
#[test]
fn a7_a_site_whose_backup_was_restored_takes_nothing_before_it_is_as_its_peers() -> Result<()> {
    let bare = Bare::up(&["east", "west", "north"], SCHEMA)?;
    let backend = TcpListener::bind("127.0.0.1:0")?;
    let mut resource = "[resources.items]\nprobe = { tcp = true }\ntables = ['item']\n".to_owned();
    for (site, role) in [("east", "active"), ("west", "standby")] {
        let backend = backend.local_addr()?;
        writeln!(resource, "[resources.items.sites.{site}]\nrole = '{role}'\nbackends = ['{backend}']")?;
    }
    bare.configure(&resource)?;
    for site in ["east", "west", "north"] {
        bare.order(site, &["reload"])?;
    }
    write(&bare.application("east")?, "east", 0..20)?;
    bare.await_same(&["east", "west", "north"], "item", DEADLINE)?;
    let backup = bare.file("east", "backup");
    bare.application("east")?.execute("VACUUM INTO ?1", [backup.to_str()])?;
    write(&bare.application("east")?, "east", 20..40)?;
    bare.await_same(&["east", "west", "north"], "item", DEADLINE)?;
    let swap = |to: &str| -> Result<(Option<i32>, String)> {
        let output = bare.command(to, &["swap", "items", "--to", to])?;
        Ok((output.status.code(), String::from_utf8(output.stderr)?))
    };
    wait_until(DEADLINE, "west takes items", || swap("west").is_ok_and(|(code, _)| code == Some(0)))?;

    // East waits for north, who may know what west does not.
    bare.kill("north")?;
    bare.kill("east")?;
    restore(&backup, &bare.database("east"))?;
    bare.start("east")?;
    let lacks =
        "the database is still to be compared with a peer's: north has not been heard since the database was restored";
    wait_until(DEADLINE, "east says why it does not take items", || {
        swap("east").is_ok_and(|(code, said)| code == Some(1) && said.contains(lacks))
    })?;
    assert_eq!(swap("east")?.0, Some(1));
    // Nor when nobody is left to be waited for.
    bare.kill("west")?;
    wait_until(DEADLINE, "east is alone", || {
        let rows = bare.json("east", &["instances"]).ok();
        rows.is_some_and(|(_, rows)| {
            rows.as_array().is_some_and(|rows| rows.iter().any(|row| row["site"] == "west" && row["contact"] == false))
        })
    })?;
    let (code, said) = swap("east")?;
    assert!(code == Some(1) && said.contains("still to be compared"), "{said}");
    bare.start("west")?;
    let (code, status) = bare.json("east", &["db", "status"])?;
    assert_eq!(
        (code, status["doubt"].as_str().is_some_and(|doubt| lacks.ends_with(doubt))),
        (Some(3), true),
        "{status}"
    );

    bare.start("north")?;
    wait_until(DEADLINE, "east takes items", || swap("east").is_ok_and(|(code, _)| code == Some(0)))?;
    assert_eq!(bare.json("east", &["db", "status"])?.1["doubt"], serde_json::Value::Null);
    let there: u64 = bare.application("east")?.query_row("SELECT count(*) FROM item", [], |row| row.get(0))?;
    assert_eq!(there, 40);
    Ok(())
}

fn restore(backup: &Path, database: &Path) -> Result<()> {
    for kind in ["-wal", "-shm"] {
        let mut name = database.as_os_str().to_owned();
        name.push(kind);
        let _ = fs::remove_file(name);
    }
    fs::rename(backup, database)?;
    // What VACUUM wrote is in no journal mode of its own.
    Connection::open(database)?.execute_batch("PRAGMA journal_mode = WAL").map_err(Into::into)
}

#[test]
fn a_third_site_joins_with_a_snapshot_while_both_others_write() -> Result<()> {
    let mut bare = Bare::up(&["east", "west"], SCHEMA)?;
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    bare.add("north")?;
    bare.configure("")?;
    for site in ["east", "west"] {
        bare.order(site, &["reload"])?;
    }
    let bare = &bare;
    let enough = |more: u64| {
        let from = written.load(Ordering::Relaxed);
        wait_until(DEADLINE, "more is written", || written.load(Ordering::Relaxed) >= from + more).map(drop)
    };
    let joined = thread::scope(|scope| {
        let writers = ["east", "west"].map(|site| {
            let (stop, written) = (&stop, &written);
            scope.spawn(move || keep_writing(bare, site, 0, stop, written))
        });
        let join = || {
            enough(200)?;
            let snapshot = bare.file("west", "snapshot");
            let name = snapshot.to_str().context("a name")?;
            bare.order("west", &["db", "snapshot", name])?;
            enough(100)?;
            bare.order("north", &["db", "join", name])?;
            let again = bare.command("north", &["db", "join", name])?;
            ensure!(!again.status.success(), "a second time there is a database already");
            bare.start("north")?;
            bare.await_ready("north")?;
            enough(200)?;
            write(&bare.application("north")?, "north", 0..100)
        };
        let joined = join();
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().expect("a writer")?;
        }
        joined
    });
    joined?;
    let rows = bare.await_same(&["east", "north", "west"], "item", DEADLINE)?;
    assert_eq!(rows.len() as u64, written.load(Ordering::Relaxed) + 100);
    for site in ["east", "north", "west"] {
        let (code, verified) = bare.json(site, &["db", "verify"])?;
        assert_eq!((code, verified.as_object().map(serde_json::Map::len)), (Some(0), Some(2)), "{verified}");
    }
    Ok(())
}

/// A column is renamed, another dropped, and a table rebuilt; what both sites wrote before and write afterwards is at both.
#[test]
fn a_schema_change_waits_for_what_was_written_and_lets_nothing_be_written_meanwhile() -> Result<()> {
    let bare = Bare::up(&["east", "west"], SCHEMA)?;
    let sites = ["east", "west"];
    for site in sites {
        write(&bare.application(site)?, site, 0..500)?;
    }
    let (code, fenced) = bare.json("east", &["db", "schema", "begin"])?;
    assert_eq!(code, Some(0), "{fenced}");
    let said = bare.order("west", &["db", "doctor"])?;
    assert!(said.contains("a schema change is under way"), "{said}");
    for site in sites {
        let refused = write(&bare.application(site)?, site, [900]).unwrap_err().to_string();
        assert!(refused.contains("a schema change is under way; siteswap db schema commit ends it"), "{refused}");
        assert_eq!(bare.rows(site, "item")?.len(), 1_000, "{site} has everything");
    }
    for site in sites {
        bare.application(site)?.execute_batch(
            "PRAGMA foreign_keys = OFF; ALTER TABLE item RENAME COLUMN note TO remark; ALTER TABLE item DROP COLUMN site;
             CREATE TABLE rebuilt(\"k 1\" TEXT, k2 INTEGER NOT NULL, v REAL CHECK(v > 0), PRIMARY KEY(\"k 1\", k2));
             DROP TABLE \"odd \"\"name\"; ALTER TABLE rebuilt RENAME TO \"odd \"\"name\";
             CREATE TABLE another(id INTEGER PRIMARY KEY, v)",
        )?;
    }
    bare.order("east", &["db", "schema", "commit"])?;
    // What east writes now waits until west has committed too.
    bare.application("east")?.execute_batch(
        "UPDATE item SET remark = 'new' WHERE id = 'west-1'; INSERT INTO another VALUES(1, 2);
         INSERT INTO \"odd \"\"name\" VALUES('a', 1, 2.0)",
    )?;
    wait_until(DEADLINE, "west says what it waits for", || {
        bare.json("west", &["db", "status"]).is_ok_and(|(_, status)| {
            status["peers"]["east"]["refused"].as_str().is_some_and(|why| why.contains("siteswap db schema commit"))
        })
    })?;
    bare.order("west", &["db", "schema", "commit"])?;
    bare.application("west")?.execute("UPDATE item SET remark = 'newer' WHERE id = 'east-1'", [])?;
    for (table, rows) in [("item", 1_000), ("another", 1), ("\"odd \"\"name\"", 1)] {
        assert_eq!(bare.await_same(&sites, table, DEADLINE)?.len(), rows, "{table}");
    }
    let changed = bare.rows("west", "item")?;
    assert_eq!(changed.iter().filter(|row| row.contains("new")).count(), 2);
    // The agents compare the table that was rebuilt by themselves: it did not refuse writes all the time.
    wait_until(DEADLINE, "a comparison finds everything equal", || {
        bare.json("east", &["db", "verify"]).is_ok_and(|(code, _)| code == Some(0))
    })?;
    let nothing = bare.command("east", &["db", "schema", "commit"])?;
    assert!(!nothing.status.success(), "no schema change is under way");
    Ok(())
}
