//! What the commands for the database print for machines (`--json`), how they end, and what they show meanwhile.

use std::{
    fs::{self, File},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use lab::{Bare, wait_until};
use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rusqlite::config::DbConfig;
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(60);
const SCHEMA: &str = "
CREATE TABLE item(id TEXT PRIMARY KEY NOT NULL, note);
CREATE TABLE keyless(id TEXT PRIMARY KEY, note);
";

/// What a command prints if it ends well.
fn good(bare: &Bare, site: &str, arguments: &[&str]) -> Result<Value> {
    let (code, said) = bare.json(site, arguments)?;
    assert_eq!(code, Some(0), "{arguments:?}: {said}");
    Ok(said)
}

/// The changes that wait at a site, a line each.
fn tail(bare: &Bare, site: &str) -> Result<Vec<Value>> {
    let lines = bare.order(site, &["db", "tail", "--json"])?;
    lines.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

#[test]
fn a_database_is_attached_looked_at_and_detached() -> Result<()> {
    let bare = Bare::up(&["east", "west"], SCHEMA)?;
    let file = bare.database("east").display().to_string();
    let captured = json!({ "file": file, "tables": ["item", "keyless"] });
    assert_eq!(good(&bare, "east", &["db", "attach"])?, captured);
    let found = good(&bare, "east", &["db", "doctor"])?;
    let found: Vec<_> =
        found.as_array().context("a list")?.iter().map(|one| (&one["severity"], &one["table"])).collect();
    assert_eq!(found, [(&json!("warning"), &json!("keyless"))], "its key may be NULL");
    bare.application("east")?.execute_batch("INSERT INTO keyless VALUES(NULL, 1)")?;
    let (code, found) = bare.json("east", &["db", "doctor"])?;
    assert_eq!((code, &found[0]["severity"], &found[0]["table"]), (Some(1), &json!("error"), &json!("keyless")));
    assert!(found[0]["what"].is_string() && found[0]["advice"].is_string(), "{found}");

    bare.kill("west")?;
    bare.application("east")?.execute_batch("INSERT INTO item VALUES('a', 1.5)")?;
    wait_until(DEADLINE, "the change is recorded", || tail(&bare, "east").is_ok_and(|lines| lines.len() == 1))?;
    let change = tail(&bare, "east")?.remove(0);
    assert_eq!((&change["what"], &change["table"], &change["key"]), (&json!("insert"), &json!("item"), &json!(["a"])));
    assert_eq!(change["columns"], json!({ "note": 1.5 }), "{change}");
    assert!(change["group"].is_u64() && change["ms"].is_i64(), "{change}");

    let refused = bare.command("east", &["db", "detach", "--json"])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && said.contains("1 rows for west"), "{said}");
    bare.kill("east")?;
    assert_eq!(good(&bare, "east", &["db", "detach", "--force"])?, json!({ "file": file, "tables": [] }));
    let left = "SELECT count(*) FROM sqlite_schema WHERE name LIKE '~_ssw~_%' ESCAPE '~'";
    assert_eq!(bare.application("east")?.query_row(left, [], |row| row.get::<_, i64>(0))?, 0);
    Ok(())
}

#[test]
fn what_lost_is_listed_shown_and_brought_back() -> Result<()> {
    let bare = Bare::up(&["east", "west"], SCHEMA)?;
    let sites = ["east", "west"];
    bare.application("east")?.execute_batch("INSERT INTO item VALUES('a', 'old')")?;
    bare.await_same(&sites, "item", DEADLINE)?;
    for site in sites {
        assert_eq!(good(&bare, site, &["db", "pause"])?, json!({ "paused": true }));
    }
    for site in sites {
        wait_until(DEADLINE, "it is paused", || {
            bare.json(site, &["db", "status"]).is_ok_and(|(code, status)| {
                let mut peers = status["peers"].as_object().into_iter().flat_map(|peers| peers.values());
                code == Some(3) && peers.all(|peer| peer["sending"] == false && peer["taking"] == false)
            })
        })?;
        bare.application(site)?.execute("UPDATE item SET note = 'by ' || ?1 WHERE id = 'a'", [site])?;
    }
    for site in sites {
        assert_eq!(good(&bare, site, &["db", "resume"])?, json!({ "paused": false }));
    }
    let listed = || good(&bare, "west", &["db", "conflicts"]);
    wait_until(DEADLINE, "the conflict is found", || listed().is_ok_and(|all| all[0].is_object()))?;
    bare.await_same(&sites, "item", DEADLINE)?;
    let lost = listed()?[0].clone();
    assert_eq!(good(&bare, "west", &["db", "conflicts", "list"])?, listed()?);
    assert_eq!(good(&bare, "west", &["db", "conflicts", "--limit", "0"])?, json!([]));
    assert_eq!((&lost["kind"], &lost["state"]), (&json!("update/update"), &json!("dropped")), "{lost}");
    assert_eq!((&lost["table"], &lost["key"]), (&json!("item"), &json!(["a"])), "{lost}");
    let image = json!({ "note": format!("by {}", lost["lost_site"].as_str().context("a site")?) });
    assert_eq!(lost["image"], image);

    let id = lost["id"].to_string();
    assert_eq!(good(&bare, "east", &["db", "conflicts", "show", &id])?["image"], image);
    assert_eq!(good(&bare, "east", &["db", "conflicts", "restore", &id])?["state"], "restored");
    wait_until(DEADLINE, "west hears of it", || listed().is_ok_and(|all| all[0]["state"] == "restored"))?;
    let rows = bare.await_same(&sites, "item", DEADLINE)?;
    assert!(rows.iter().any(|row| row.contains(image["note"].as_str().unwrap_or("?"))), "{rows:?}");
    assert_eq!(good(&bare, "west", &["db", "conflicts", "purge", "--days", "1"])?, json!({ "purged": 0 }));
    assert_eq!(good(&bare, "west", &["db", "conflicts", "purge", "--days", "0"])?, json!({ "purged": 1 }));
    assert_eq!(listed()?, json!([]));
    assert_eq!(good(&bare, "east", &["db", "conflicts"])?[0]["state"], "restored", "it is the other site's own log");
    let unknown = bare.command("east", &["db", "conflicts", "show", "7", "--json"])?;
    assert_eq!((unknown.status.code(), unknown.stdout.is_empty()), (Some(1), true));
    Ok(())
}

#[test]
fn a_site_joins_and_the_schema_changes() -> Result<()> {
    let mut bare = Bare::up(&["east", "west"], SCHEMA)?;
    bare.application("east")?.execute_batch("INSERT INTO item VALUES('a', 1)")?;
    bare.await_same(&["east", "west"], "item", DEADLINE)?;
    bare.add("north")?;
    bare.configure("")?;
    for site in ["east", "west"] {
        bare.order(site, &["reload"])?;
    }
    let copy = bare.file("east", "snapshot").display().to_string();
    let written = good(&bare, "east", &["db", "snapshot", &copy])?;
    assert_eq!((&written["file"], written["bytes"].as_u64()), (&json!(copy), Some(fs::metadata(&copy)?.len())));
    let file = bare.database("north").display().to_string();
    assert_eq!(good(&bare, "north", &["db", "join", &copy])?, json!({ "file": file, "site": "north" }));
    let again = bare.command("north", &["db", "join", &copy, "--json"])?;
    assert_eq!((again.status.code(), again.stdout.is_empty()), (Some(1), true), "it is there already");
    bare.start("north")?;
    let sites = ["east", "north", "west"];
    bare.await_same(&sites, "item", DEADLINE)?;

    let begun = || bare.json("east", &["db", "schema", "begin"]).is_ok_and(|(code, _)| code == Some(0));
    wait_until(DEADLINE, "all sites refuse writes", begun)?;
    for site in sites {
        bare.application(site)?.execute_batch("ALTER TABLE item RENAME COLUMN note TO remark")?;
        let file = bare.database(site).display().to_string();
        let captured = json!({ "file": file, "tables": ["item", "keyless"] });
        assert_eq!(good(&bare, site, &["db", "schema", "commit"])?, captured);
    }
    bare.application("north")?.execute_batch("UPDATE item SET remark = 'new'")?;
    bare.await_same(&sites, "item", DEADLINE)?;
    Ok(())
}

/// What a command says of why it does nothing: on standard error alone.
fn refused(bare: &Bare, site: &str, arguments: &[&str]) -> Result<String> {
    let output = bare.command(site, &[arguments, &["--json"]].concat())?;
    let (said, printed) = (String::from_utf8(output.stderr)?, String::from_utf8(output.stdout)?);
    assert_eq!((output.status.code(), printed.as_str()), (Some(1), ""), "{arguments:?}: {said}");
    Ok(said)
}

#[test]
fn every_kind_of_change_and_of_value_is_told_while_it_waits() -> Result<()> {
    let bare = Bare::up(&["east", "west"], SCHEMA)?;
    bare.application("east")?.execute_batch("INSERT INTO item VALUES('a', NULL), ('b', NULL)")?;
    bare.await_same(&["east", "west"], "item", DEADLINE)?;
    bare.kill("west")?;
    bare.application("east")?.execute_batch(
        "BEGIN; INSERT INTO item VALUES('c', x'00ff'), ('d', 7), ('e', 'text'), ('f', NULL);
         UPDATE item SET note = 0.5 WHERE id = 'a'; DELETE FROM item WHERE id = 'b'; COMMIT",
    )?;
    wait_until(DEADLINE, "the changes are recorded", || tail(&bare, "east").is_ok_and(|lines| lines.len() == 6))?;
    let told = tail(&bare, "east")?;
    let told: Vec<_> = told.iter().map(|one| json!([one["what"], one["table"], one["key"], one["columns"]])).collect();
    assert_eq!(
        told,
        [
            json!(["update", "item", ["a"], { "note": 0.5 }]),
            json!(["delete", "item", ["b"], {}]),
            json!(["insert", "item", ["c"], { "note": { "blob": "00ff" } }]),
            json!(["insert", "item", ["d"], { "note": 7 }]),
            json!(["insert", "item", ["e"], { "note": "text" }]),
            json!(["insert", "item", ["f"], { "note": null }]),
        ]
    );
    bare.start("west")?;
    bare.await_same(&["east", "west"], "item", DEADLINE)?;
    assert_eq!(tail(&bare, "east")?, Vec::<Value>::new(), "nothing waits");
    Ok(())
}

#[test]
fn what_every_peer_has_may_be_detached_and_what_cannot_be_done_prints_nothing() -> Result<()> {
    let bare = Bare::up(&["east", "west"], SCHEMA)?;
    bare.application("east")?.execute_batch("INSERT INTO item VALUES('a', 1)")?;
    bare.await_same(&["east", "west"], "item", DEADLINE)?;
    let copy = bare.file("east", "snapshot").display().to_string();
    good(&bare, "east", &["db", "snapshot", &copy])?;
    for (arguments, why) in [
        (&["db", "snapshot", &copy][..], "exists already"),
        (&["db", "join", &copy], "exists already"),
        (&["db", "schema", "commit"], "no schema change is under way"),
        (&["db", "conflicts", "restore", "7"], "there is no conflict 7"),
    ] {
        let said = refused(&bare, "east", arguments)?;
        assert!(said.contains(why), "{arguments:?}: {said}");
    }

    let detached = json!({ "file": bare.database("east"), "tables": [] });
    // Its agent may not have heard yet that west has the row.
    wait_until(DEADLINE, "nothing waits", || {
        good(&bare, "east", &["db", "detach"]).is_ok_and(|said| said == detached)
    })?;
    assert_eq!(good(&bare, "east", &["db", "detach"])?, detached, "it may be repeated");
    for order in ["pause", "resume", "snapshot other", "tail", "conflicts"] {
        let arguments: Vec<_> = ["db"].into_iter().chain(order.split(' ')).collect();
        let said = refused(&bare, "east", &arguments)?;
        assert!(said.contains("no table is attached"), "{order}: {said}");
    }
    bare.application("east")?.execute_batch("CREATE TABLE unfit(v)")?;
    let said = refused(&bare, "east", &["db", "attach"])?;
    assert!(said.contains("unfit"), "{said}");
    Ok(())
}

/// What a command prints, which ends with this code, and what a terminal shows.
fn watched(bare: &Bare, site: &str, arguments: &[&str], code: i32) -> Result<(Value, String)> {
    let output = bare.on_terminal(site, &[arguments, &["--json"]].concat())?;
    let shown = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {shown}");
    let printed = if output.stdout.is_empty() { Value::Null } else { serde_json::from_slice(&output.stdout)? };
    Ok((printed, shown))
}

/// Asserts that a line was shown, and nothing but the error is left of it.
fn assert_shown(shown: &str, line: &str) {
    let (before, last) = shown.rsplit_once("\r\x1b[K").unwrap_or_default();
    assert!(before.contains(&format!("\r\x1b[K{line}")), "{line:?} is not in {shown:?}");
    assert!(last.is_empty() || last.starts_with("siteswap: "), "{shown:?}");
}

#[test]
fn long_work_shows_how_far_it_is_on_a_terminal_and_nowhere_else() -> Result<()> {
    let bare = Bare::up(&["east", "west"], SCHEMA)?;
    bare.kill("west")?;
    let east = bare.application("east")?;
    east.execute_batch(
        "WITH n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 100) INSERT INTO item SELECT n, n FROM n",
    )?;
    wait_until(DEADLINE, "the agent knows the rows", || {
        good(&bare, "east", &["db", "verify", "--local"]).is_ok_and(|local| local["rows"] == 100)
    })?;
    east.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    east.execute("DELETE FROM item WHERE note = 4", [])?;
    east.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true)?;
    let (local, shown) = watched(&bare, "east", &["db", "verify", "--local", "--repair"], 0)?;
    assert_eq!((&local["rows"], &local["repaired"]), (&json!(100), &json!(1)), "{local}");
    assert_shown(&shown, "item: 0 rows looked at, 0 of them not as they are known");
    assert_shown(&shown, "item: 0 of 1 rows said again");

    bare.kill("east")?;
    east.execute("UPDATE item SET note = 0 WHERE note <= 11", [])?;
    let (nothing, shown) = watched(&bare, "east", &["db", "detach"], 1)?;
    assert_eq!(nothing, Value::Null);
    assert_shown(&shown, "0 of 10 writes taken up that the agent has not seen");
    assert!(shown.contains("changes wait that would be lost"), "{shown:?}");
    for arguments in [["db", "verify", "--local"], ["db", "detach", "--force"]] {
        assert_eq!(String::from_utf8(bare.command("east", &arguments)?.stderr)?, "");
    }
    Ok(())
}

/// Keeps SQLite from reading a database: a lock on the bytes that it locks (<https://sqlite.org/lockingv3.html>).
fn lock(file: &File) -> Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "small constants")]
    let (l_type, l_whence) = (libc::F_WRLCK as i16, libc::SEEK_SET as i16);
    let bytes = libc::flock { l_type, l_whence, l_start: 0x4000_0000, l_len: 512, l_pid: 0 };
    fcntl(file, FcntlArg::F_OFD_SETLK(&bytes)).map(drop).context("a lock")
}

/// Does the process do something of its own at Ctrl-C?
fn minds_interrupts(process: &Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|caught| u64::from_str_radix(caught.trim(), 16).ok());
    caught.is_some_and(|caught| caught & (1 << (Signal::SIGINT as u32 - 1)) != 0)
}

#[test]
fn a_join_that_is_interrupted_after_the_copying_leaves_nothing() -> Result<()> {
    let mut bare = Bare::up(&["east", "west"], SCHEMA)?;
    bare.add("north")?;
    bare.configure("")?;
    let copy = bare.file("east", "snapshot").display().to_string();
    let bytes = good(&bare, "east", &["db", "snapshot", &copy])?["bytes"].as_u64().context("a length")?;
    // As an earlier one that was killed has left it; nobody can read it.
    let partial = bare.file("north", "db-joining");
    let file = File::create(&partial)?;
    lock(&file)?;
    let mut join =
        bare.siteswap("north", &["db", "join", &copy])?.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let copied = || minds_interrupts(&join) && file.metadata().is_ok_and(|metadata| metadata.len() == bytes);
    let copied = wait_until(DEADLINE, "it is copied", copied);
    kill(Pid::from_raw(i32::try_from(join.id())?), Signal::SIGINT)?;
    assert_eq!(join.wait()?.code(), Some(130));
    copied?;
    for rest in ["db", "db-joining", "db-joining-wal", "db-joining-shm"] {
        assert!(!bare.file("north", rest).exists(), "{rest} is left");
    }
    Ok(())
}
