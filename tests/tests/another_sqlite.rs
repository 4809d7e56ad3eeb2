//! Applications with an SQLite of their own: that of the command-line shell, which `cargo xtask setup` installs, obeys the
//! schema's constraints, fires the application's triggers and ours, and reads what the agent's SQLite has written.

use std::{
    collections::BTreeSet,
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lab::Bare;

const DEADLINE: Duration = Duration::from_secs(60);
const SITES: [&str; 2] = ["east", "west"];
const SCHEMA: &str = "
CREATE TABLE customer(id TEXT PRIMARY KEY NOT NULL, email TEXT COLLATE NOCASE UNIQUE, note);
CREATE TABLE purchase(customer TEXT NOT NULL REFERENCES customer ON DELETE CASCADE ON UPDATE CASCADE, n INTEGER NOT NULL,
  price REAL, twice REAL AS (price * 2) STORED, PRIMARY KEY(customer, n)) WITHOUT ROWID;
CREATE TABLE log(id INTEGER PRIMARY KEY, what TEXT);
CREATE TRIGGER bought AFTER INSERT ON purchase BEGIN
  INSERT INTO log(what) VALUES(NEW.customer || ' ' || NEW.n);
END;
";
const TABLES: [&str; 3] = ["customer", "purchase", "log"];

/// Each way to write that the triggers must see.
const WRITES: &str = "
BEGIN;
INSERT INTO customer VALUES('a', 'a@shop.test', x'00ff'), ('b', 'b@shop.test', NULL), ('c', NULL, 0.5), ('d', 'd@shop.test', 1 << 62);
INSERT INTO purchase(customer, n, price) VALUES('a', 1, 0.1), ('a', 2, 1e300), ('b', 1, -0.5), ('c', 1, NULL), ('d', 1, 2);
COMMIT;
UPDATE customer SET note = 'x' || char(0) || 'y' WHERE id = 'b';
INSERT INTO customer VALUES('c', 'new', 1) ON CONFLICT(id) DO UPDATE SET email = 'C@shop.test', note = note + 1;
INSERT INTO customer(id, note) VALUES('a', 9) ON CONFLICT DO NOTHING;
REPLACE INTO customer VALUES('e', 'B@SHOP.TEST', 'takes the address and the place of b');
UPDATE customer SET id = 'f' WHERE id = 'c';
UPDATE OR REPLACE customer SET email = 'A@shop.test' WHERE id = 'f';
UPDATE OR IGNORE customer SET email = 'a@shop.test' WHERE id = 'd';
DELETE FROM customer WHERE id = 'd';
BEGIN; INSERT INTO log(what) VALUES('kept' || char(0) || 'whole'); SAVEPOINT s; INSERT INTO log(what) VALUES('not kept'); ROLLBACK TO s; COMMIT;
BEGIN; DELETE FROM purchase; DELETE FROM customer; ROLLBACK;
";

/// What SQLite's shell prints when it does this at a site.
fn shell(bare: &Bare, site: &str, sql: &str) -> Result<String> {
    let mut command = Command::new("sqlite3");
    command.args(["-batch", "-bail", "-init", "/dev/null"]).arg(bare.database(site));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut shell = command.spawn().context("sqlite3 cannot be run; cargo xtask setup installs it")?;
    let mut input = shell.stdin.take().context("standard input")?;
    write!(input, ".timeout 10000\nPRAGMA foreign_keys = ON;\n{sql}")?;
    drop(input);
    let output = shell.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "sqlite3 at {site}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// A table's rows at a site as the shell reads them.
fn read(bare: &Bare, site: &str, table: &str) -> Result<BTreeSet<String>> {
    Ok(shell(bare, site, &format!(".mode quote\nSELECT * FROM {table};\n"))?.lines().map(str::to_owned).collect())
}

#[test]
fn c1_what_constraints_and_triggers_do_in_another_sqlite_arrives() -> Result<()> {
    let bare = Bare::up(&SITES, SCHEMA)?;
    shell(&bare, "east", WRITES)?;
    let rows = TABLES.map(|table| bare.await_same(&SITES, table, DEADLINE).map(|rows| rows.len()));
    let [customers, purchases, logged] = rows;
    assert_eq!((customers?, purchases?, logged?), (2, 1, 6));
    for table in TABLES {
        assert_eq!(read(&bare, "east", table)?, read(&bare, "west", table)?, "{table}");
    }
    assert_eq!(
        read(&bare, "west", "customer")?,
        ["'e','B@SHOP.TEST','takes the address and the place of b'", "'f','A@shop.test',1.5"].map(str::to_owned).into()
    );

    // It goes on with what the agent has written, and the agent with that.
    shell(
        &bare,
        "west",
        "UPDATE customer SET note = 'by west' WHERE id = 'e'; DELETE FROM customer WHERE id = 'f'; DELETE FROM log;",
    )?;
    shell(&bare, "east", "INSERT INTO log VALUES(1000, 'later');")?;
    assert_eq!(bare.await_same(&SITES, "log", DEADLINE)?.len(), 1);
    assert_eq!(bare.await_same(&SITES, "customer", DEADLINE)?.len(), 1);
    assert!(bare.rows("east", "customer")?.iter().all(|row| row.contains("by west")));
    assert_eq!(bare.rows("east", "purchase")?.len(), 0);
    let (code, verified) = bare.json("east", &["db", "verify"])?;
    assert_eq!(code, Some(0), "{verified}");
    for site in SITES {
        assert_eq!(shell(&bare, site, "PRAGMA integrity_check;")?.trim(), "ok", "{site}");
    }
    Ok(())
}
