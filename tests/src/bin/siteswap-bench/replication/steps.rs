//! The agent's side, without a network: fold, consolidate, apply, acknowledge.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Error, Result, bail, ensure};
use nix::time::{ClockId, clock_gettime};
use rusqlite::Connection;
use serde::Serialize;
use siteswap_replication::{
    capture::{self, Wanted},
    store::{self, Limits, Position, Settings, Store, Verify},
    wire::Message,
};

use super::capture::{INSERT, SCHEMA};

/// Of each step the fastest of so many rounds counts.
const ROUNDS: usize = 3;
pub const ROWS: u32 = 200_000;
/// How often each row is updated before anything is sent.
pub const UPDATES: u32 = 5;
/// Rows updated in one transaction.
const SOME: u32 = 4_000;

/// How fast a step is.
#[derive(Serialize)]
pub struct Step {
    pub step: String,
    pub rows: u64,
    pub rows_per_second: f64,
    /// The same by the time that the thread had a core for itself, without that in which it waited for the disk or for others.
    pub rows_per_core_second: f64,
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

/// What is sent and what is kept.
pub struct Sizes {
    pub wire: Vec<Wire>,
    pub kept: Kept,
}

/// What was measured so far.
#[derive(Default)]
pub struct Steps {
    pub all: Vec<Step>,
    pub wire: Vec<Wire>,
}

/// Measures several times; of each step the round counts that needed the least time on a core.
pub fn best<T>(measure: impl Fn() -> Result<(Vec<Step>, T)>) -> Result<(Vec<Step>, T)> {
    let (mut best, rest) = measure()?;
    for _ in 1..ROUNDS {
        for (best, step) in best.iter_mut().zip(measure()?.0) {
            if step.rows_per_core_second > best.rows_per_core_second {
                *best = step;
            }
        }
    }
    Ok((best, rest))
}

/// When a step began.
pub struct Start(Instant, Duration);

impl Start {
    pub fn now() -> Self {
        Self(Instant::now(), on_a_core())
    }
}

/// How long this thread has had a core.
fn on_a_core() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

impl Steps {
    /// A step that began at `start` is done.
    pub fn end(&mut self, step: String, rows: u64, Start(start, core): Start) {
        let per_second = |time: Duration| rows as f64 / time.as_secs_f64();
        self.all.push(Step {
            step,
            rows,
            rows_per_second: per_second(start.elapsed()),
            rows_per_core_second: per_second(on_a_core().saturating_sub(core)),
        });
    }
}

/// Two sites' databases in one process.
struct Pair {
    app: Connection,
    here: Store,
    there: Store,
    position: Position,
    steps: Steps,
}

/// Inserts, updates and deletes go from one database to the other.
pub fn measure() -> Result<(Vec<Step>, Sizes)> {
    let directory = tempfile::tempdir()?;
    let (here, there) = (directory.path().join("here.db"), directory.path().join("there.db"));
    create(&here)?;
    create(&there)?;
    let mut pair = Pair {
        app: open(&here)?,
        here: Store::open(&here, settings(1))?,
        there: Store::open(&there, settings(2))?,
        position: Position::default(),
        steps: Steps::default(),
    };
    pair.app.execute(INSERT, [1, ROWS])?;
    pair.tell("insert")?;
    // In as many groups as go into one batch, so that there is something to combine.
    for first in (1..=ROWS).step_by(SOME as usize) {
        for _ in 0..UPDATES {
            let last = first + SOME - 1;
            pair.app.execute("UPDATE item SET stock = stock + 1 WHERE id BETWEEN ? AND ?", [first, last])?;
            pair.here.fold(now())?;
        }
    }
    pair.send("5 updates of each row", u64::from(UPDATES) * u64::from(ROWS))?;
    pair.app.execute("UPDATE item SET stock = stock + 1", [])?;
    pair.tell("update of one column")?;
    let kept = pair.kept()?;
    pair.verify()?;
    pair.app.execute("DELETE FROM item WHERE id > 0", [])?;
    pair.tell("delete")?;
    Ok((pair.steps.all, Sizes { wire: pair.steps.wire, kept }))
}

impl Pair {
    fn tell(&mut self, what: &'static str) -> Result<()> {
        let start = Start::now();
        let folded = self.here.fold(now())?;
        self.steps.end(format!("fold: {what}"), folded.rows, start);
        self.send(what, ROWS.into())
    }

    /// Everything the other has not seen, which are so many changes, measured at both ends.
    fn send(&mut self, what: &'static str, changes: u64) -> Result<()> {
        let (mut messages, mut rows) = (Vec::new(), 0);
        let start = Start::now();
        while let Some((part, next)) = self.here.next_part(2, &self.position)? {
            rows += u64::from(part.rows);
            self.position = next;
            messages.push(Message::Part(part).encode().map_err(Error::msg)?);
        }
        self.steps.end(format!("read and compress: {what}"), changes, start);
        let bytes: usize = messages.iter().map(Vec::len).sum();
        self.steps.wire.push(Wire { what, bytes_per_row: bytes as f64 / f64::from(ROWS) });
        let start = Start::now();
        for message in messages {
            if let Message::Part(part) = Message::decode(&message).map_err(Error::msg)? {
                self.there.receive(&part, now())?;
            }
        }
        self.steps.end(format!("apply: {what}"), rows, start);
        let start = Start::now();
        // An acknowledgement, an answer to it, and the answer to that: then both know that both have it.
        for _ in 0..2 {
            let report = self.there.report(1)?;
            self.here.heard(&report)?;
            let report = self.here.report(2)?;
            self.there.heard(&report)?;
        }
        self.steps.end(format!("acknowledge: {what}"), rows, start);
        Ok(())
    }

    /// Both sites read their rows, here one after the other, so that is twice as many.
    fn verify(&mut self) -> Result<()> {
        let start = Start::now();
        let mut verify = Verify::new(&self.here, 2, None, Limits::default())?;
        let mut answers = VecDeque::new();
        loop {
            match verify.step(&self.here)? {
                store::Step::Send(request) => answers.push_back(self.there.answer(1, &request, now())?),
                store::Step::Receive => verify.take(answers.pop_front().context("no answer to wait for")?)?,
                store::Step::Settle => bail!("the databases differ"),
                store::Step::Done => break,
            }
        }
        let outcome = verify.outcome();
        ensure!(outcome.is_clean() && outcome.rows == u64::from(ROWS), "{outcome:?}");
        self.steps.end("verify, a site's rows".to_owned(), 2 * outcome.rows, start);
        Ok(())
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

/// A database with the table, captured.
pub fn create(file: &Path) -> Result<()> {
    let mut database = open(file)?;
    database.execute_batch(SCHEMA)?;
    let transaction = database.transaction()?;
    capture::attach(&transaction, Wanted::All)?;
    transaction.commit()?;
    Ok(())
}

pub fn open(file: &Path) -> Result<Connection> {
    let database = Connection::open(file)?;
    database.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;")?;
    Ok(database)
}

/// Of one of two sites.
pub fn settings(site: u32) -> Settings {
    let sites = BTreeMap::from([(1, "here".to_owned()), (2, "there".to_owned())]);
    Settings { site, sites, max_skew: 10_000, rules: BTreeMap::new() }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
