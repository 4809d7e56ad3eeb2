//! The agent's side, without a network: fold, consolidate, apply, acknowledge.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use rusqlite::Connection;
use serde::Serialize;
use siteswap_replication::{
    capture::{self, Wanted},
    store::{Position, Settings, Store},
    wire::Message,
};

use super::capture::{INSERT, SCHEMA};

const ROWS: u32 = 200_000;

/// How fast a step is.
#[derive(Serialize)]
pub struct Step {
    pub step: String,
    pub rows: u64,
    pub rows_per_second: f64,
}

/// What a change takes on the wire.
#[derive(Serialize)]
pub struct Wire {
    pub what: &'static str,
    pub bytes_per_row: f64,
}

/// What is left when everything is acknowledged.
#[derive(Serialize)]
pub struct Kept {
    pub rows: u32,
    pub pages_before: u64,
    pub pages_after: u64,
    pub changes: u64,
    pub versions: u64,
}

/// Two sites' databases in one process.
struct Pair {
    app: Connection,
    here: Store,
    there: Store,
    position: Position,
    steps: Vec<Step>,
    wire: Vec<Wire>,
}

/// Inserts, updates and deletes go from one database to the other.
pub fn measure() -> Result<(Vec<Step>, Vec<Wire>, Kept)> {
    let directory = tempfile::tempdir()?;
    let (here, there) = (directory.path().join("here.db"), directory.path().join("there.db"));
    create(&here)?;
    create(&there)?;
    let mut pair = Pair {
        app: open(&here)?,
        here: Store::open(&here, settings(1))?,
        there: Store::open(&there, settings(2))?,
        position: Position::default(),
        steps: Vec::new(),
        wire: Vec::new(),
    };
    pair.app.execute(INSERT, [1, ROWS])?;
    pair.tell("insert")?;
    for _ in 0..5 {
        pair.app.execute("UPDATE item SET stock = stock + 1", [])?;
        pair.here.fold(now())?;
    }
    pair.send("5 updates of each row")?;
    pair.app.execute("UPDATE item SET stock = stock + 1", [])?;
    pair.tell("update of one column")?;
    let kept = pair.kept()?;
    pair.app.execute("DELETE FROM item WHERE id > 0", [])?;
    pair.tell("delete")?;
    Ok((pair.steps, pair.wire, kept))
}

impl Pair {
    fn tell(&mut self, what: &'static str) -> Result<()> {
        let start = Instant::now();
        let folded = self.here.fold(now())?;
        self.step(format!("fold: {what}"), folded.rows, start);
        self.send(what)
    }

    /// Everything the other has not seen, measured at both ends.
    fn send(&mut self, what: &'static str) -> Result<()> {
        let (mut messages, mut rows) = (Vec::new(), 0);
        let start = Instant::now();
        while let Some((part, next)) = self.here.next_part(&self.position)? {
            rows += u64::from(part.rows);
            self.position = next;
            messages.push(Message::Part(part).encode().map_err(anyhow::Error::msg)?);
        }
        self.step(format!("read and compress: {what}"), rows, start);
        let bytes: usize = messages.iter().map(Vec::len).sum();
        self.wire.push(Wire { what, bytes_per_row: bytes as f64 / rows as f64 });
        let start = Instant::now();
        for message in messages {
            if let Message::Part(part) = Message::decode(&message).map_err(anyhow::Error::msg)? {
                self.there.receive(&part, now())?;
            }
        }
        self.step(format!("apply: {what}"), rows, start);
        let start = Instant::now();
        // An acknowledgement, an answer to it, and the answer to that: then both know that both have it.
        for _ in 0..2 {
            let report = self.there.report(1)?;
            self.here.heard(&report)?;
            let report = self.here.report(2)?;
            self.there.heard(&report)?;
        }
        self.step(format!("acknowledge: {what}"), rows, start);
        Ok(())
    }

    fn step(&mut self, step: String, rows: u64, start: Instant) {
        self.steps.push(Step { step, rows, rows_per_second: rows as f64 / start.elapsed().as_secs_f64() });
    }

    fn kept(&self) -> Result<Kept> {
        let count = |sql: &str| -> Result<u64> { Ok(self.app.query_row(sql, [], |row| row.get(0))?) };
        let bare = tempfile::NamedTempFile::new()?;
        let used = |pragma: &str| count(&format!("PRAGMA {pragma}"));
        let free = used("freelist_count")?;
        let pages_after = (used("page_count")? - free) * used("page_size")?;
        self.app.execute("ATTACH ? AS bare", [bare.path().to_string_lossy()])?;
        self.app.execute_batch(&SCHEMA.replace("item", "bare.item"))?;
        self.app.execute_batch("INSERT INTO bare.item SELECT * FROM main.item")?;
        let pages_before = count("PRAGMA bare.page_count")? * used("page_size")?;
        self.app.execute_batch("DETACH bare")?;
        Ok(Kept {
            rows: ROWS,
            pages_before,
            pages_after,
            changes: count("SELECT count(*) FROM _ssw_change")?,
            versions: count("SELECT count(*) FROM _ssw_row")?,
        })
    }
}

fn create(file: &Path) -> Result<()> {
    let mut database = open(file)?;
    database.execute_batch(SCHEMA)?;
    let transaction = database.transaction()?;
    capture::attach(&transaction, Wanted::All)?;
    transaction.commit()?;
    Ok(())
}

fn open(file: &Path) -> Result<Connection> {
    let database = Connection::open(file)?;
    database.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;")?;
    Ok(database)
}

fn settings(site: u32) -> Settings {
    let sites = BTreeMap::from([(1, "here".to_owned()), (2, "there".to_owned())]);
    Settings { site, sites, max_skew: 10_000, rules: BTreeMap::new() }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
