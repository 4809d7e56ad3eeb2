//! The application's cost: the same statements without triggers, with ours, with ours where the updated columns are
//! counters, and with what people write themselves, a trigger that logs the whole row as JSON.

use std::{path::Path, time::Instant};

use anyhow::Result;
use rusqlite::Connection;
use serde::Serialize;
use siteswap_replication::{
    capture::{self, Wanted},
    store::{ColumnRule, Rules, Settings, Store},
};

use super::steps::settings;

/// Each figure is the least of so many rounds; in each round the four take turns.
const ROUNDS: usize = 5;
const BULK: u32 = 100_000;
const SINGLE: u32 = 2_000;
const DURABLE: u32 = 300;

/// Microseconds for each row.
#[derive(Serialize)]
pub struct Cost {
    pub what: &'static str,
    pub none: f64,
    pub touch: f64,
    pub counters: f64,
    pub json: f64,
}

pub const SCHEMA: &str = "CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, price REAL, stock INTEGER, sold INTEGER, \
     note TEXT, made TEXT, tag BLOB, state INTEGER);";

/// Whole rows as JSON.
pub const LOG: &str = "
CREATE TABLE log(seq INTEGER PRIMARY KEY, op TEXT, row TEXT);
CREATE TRIGGER log_i AFTER INSERT ON item BEGIN INSERT INTO log(op, row) VALUES('I', json_array(NEW.id, NEW.name,
  NEW.price, NEW.stock, NEW.sold, NEW.note, NEW.made, hex(NEW.tag), NEW.state, julianday('now'))); END;
CREATE TRIGGER log_u AFTER UPDATE ON item BEGIN INSERT INTO log(op, row) VALUES('U', json_array(NEW.id, NEW.name,
  NEW.price, NEW.stock, NEW.sold, NEW.note, NEW.made, hex(NEW.tag), NEW.state, julianday('now'))); END;
CREATE TRIGGER log_d AFTER DELETE ON item BEGIN INSERT INTO log(op, row) VALUES('D', json_array(OLD.id, OLD.name,
  OLD.price, OLD.stock, OLD.sold, OLD.note, OLD.made, hex(OLD.tag), OLD.state, julianday('now'))); END;";

/// One statement for many rows: rows `first` to `last`.
pub const INSERT: &str = "WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2) \
     INSERT INTO item SELECT i, 'name of item ' || i, i * 0.25, i % 100, 0, 'a note that says something ' || (i * 7919), \
     '2026-01-01T00:00:00', randomblob(16), 1 FROM n";

#[derive(Clone, Copy)]
enum With {
    Nothing,
    Touch,
    Counters,
    Json,
}

/// All figures.
pub fn measure() -> Result<Vec<Cost>> {
    let mut least = [[f64::MAX; 4]; 5];
    for _ in 0..ROUNDS {
        for (at, with) in [With::Nothing, With::Touch, With::Counters, With::Json].into_iter().enumerate() {
            let directory = tempfile::tempdir()?;
            for (row, cost) in round(&directory.path().join("app.db"), with)?.into_iter().enumerate() {
                least[row][at] = least[row][at].min(cost);
            }
        }
    }
    let what = [
        "insert, one transaction",
        "update of one column, one transaction",
        "update, a transaction each, NORMAL",
        "update, a transaction each, FULL",
        "delete, one transaction",
    ];
    let costs = what.into_iter().zip(least);
    Ok(costs.map(|(what, [none, touch, counters, json])| Cost { what, none, touch, counters, json }).collect())
}

fn round(file: &Path, with: With) -> Result<[f64; 5]> {
    let mut database = Connection::open(file)?;
    database.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;")?;
    database.execute_batch(SCHEMA)?;
    match with {
        With::Nothing => {}
        With::Json => database.execute_batch(LOG)?,
        With::Touch | With::Counters => {
            let transaction = database.transaction()?;
            capture::attach(&transaction, Wanted::All)?;
            transaction.commit()?;
        }
    }
    if let With::Counters = with {
        count(file)?;
    }
    let insert = timed(BULK, || Ok(database.execute(INSERT, [1, BULK])?))?;
    let update = timed(BULK, || Ok(database.execute("UPDATE item SET stock = stock + 1", [])?))?;
    let single = timed(SINGLE, || singles(&database, SINGLE))?;
    database.execute_batch("PRAGMA synchronous=FULL")?;
    let durable = timed(DURABLE, || singles(&database, DURABLE))?;
    database.execute_batch("PRAGMA synchronous=NORMAL")?;
    let delete = timed(BULK, || Ok(database.execute("DELETE FROM item WHERE id > 0", [])?))?;
    Ok([insert, update, single, durable, delete])
}

/// Makes the columns that are updated counters.
fn count(file: &Path) -> Result<()> {
    let columns = ["stock", "sold"].map(|column| (column.to_owned(), ColumnRule::Counter)).into();
    let rules = [("item".to_owned(), Rules { columns, ..Rules::default() })].into();
    Store::open(file, Settings { rules, ..settings(1) })?.refresh()?;
    Ok(())
}

fn singles(database: &Connection, count: u32) -> Result<usize> {
    let mut statement = database.prepare("UPDATE item SET sold = sold + 1 WHERE id = ?")?;
    (0..count).try_fold(0, |done, at| Ok(done + statement.execute([1 + at * 37 % BULK])?))
}

/// Microseconds for each of so many rows.
fn timed(rows: u32, act: impl FnOnce() -> Result<usize>) -> Result<f64> {
    let start = Instant::now();
    let done = act()?;
    anyhow::ensure!(done == rows as usize, "{done} rows instead of {rows}");
    Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(rows))
}
