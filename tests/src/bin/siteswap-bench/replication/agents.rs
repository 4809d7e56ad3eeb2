//! Two agents over the lab's inter-centre link: how long after its commit a change is visible at the peer, and how fast
//! what has collected while the link was cut goes over it afterwards.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lab::{
    Lab, Options,
    plan::{EAST, SITES, Site, WEST},
    wait_until,
};
use rusqlite::{Connection, TransactionBehavior};
use serde::Serialize;
use siteswap_replication::capture::{self, Wanted};

use super::capture::{INSERT, SCHEMA};

/// Transactions a second.
const RATES: [u32; 3] = [200, 2_000, 10_000];
const SPAN: Duration = Duration::from_secs(8);
/// Between two looks at the peer's table.
const LOOK: Duration = Duration::from_micros(200);
/// Rows of the backlog, in transactions of so many.
const BACKLOG: u32 = 1_000_000;
const TRANSACTION: u32 = 1_000;
const DEADLINE: Duration = Duration::from_secs(120);

/// From a commit at one site until a reader at the other sees it, milliseconds.
#[derive(Serialize)]
pub struct Lag {
    pub per_second: u32,
    /// What the application came to, waiting for the write lock now and then.
    pub reached: f64,
    pub median: f64,
    pub p99: f64,
    pub max: f64,
}

/// What collected while the link was cut.
#[derive(Serialize)]
pub struct Backlog {
    pub rows: u32,
    /// From the first row's arrival to the last one's.
    pub rows_per_second: f64,
    /// From the mended link to the first row's arrival.
    pub first_seconds: f64,
    /// The agents' resident memory at its highest, MB: the one that sent, the one that applied.
    pub peak_memory_mb: [f64; 2],
}

/// Both, in a lab of their own.
pub fn measure() -> Result<(Vec<Lag>, Backlog)> {
    let lab = Lab::up(&Options { progress: |what| eprintln!("  {what}"), ..Options::default() })?;
    lab.await_contact(true)?;
    for site in SITES {
        let mut database = lab.application(site)?;
        database.execute_batch(SCHEMA)?;
        // The agent writes meanwhile: a lock that is asked for late is refused at once.
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        capture::attach(&transaction, Wanted::All)?;
        transaction.commit()?;
    }
    let mut first = 1;
    let mut lags = Vec::new();
    for rate in RATES {
        eprintln!("  {rate} transactions a second for {SPAN:?}");
        lags.push(lag(&lab, rate, first)?);
        first += count(rate);
    }
    eprintln!("  {BACKLOG} rows while the link is cut");
    Ok((lags, backlog(&lab, first)?))
}

fn count(rate: u32) -> u32 {
    rate * u32::try_from(SPAN.as_secs()).unwrap_or(u32::MAX)
}

/// One application inserts at east, one row in a transaction; another reads at west.
fn lag(lab: &Lab, rate: u32, first: u32) -> Result<Lag> {
    let (writer, reader) = (lab.application(EAST)?, lab.application(WEST)?);
    let last = first + count(rate) - 1;
    let gave_up = AtomicBool::new(false);
    let (committed, seen) = thread::scope(|scope| {
        let stop = &gave_up;
        let seen = scope.spawn(move || watch(&reader, first, last, stop));
        let committed = write(&writer, rate, first, last);
        gave_up.store(committed.is_err(), Ordering::Relaxed);
        let seen = seen.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the reader panicked")));
        committed.and_then(|committed| Ok((committed, seen?)))
    })?;
    let mut lags: Vec<f64> = committed
        .iter()
        .zip(&seen)
        .map(|(committed, seen)| seen.saturating_duration_since(*committed).as_secs_f64() * 1e3)
        .collect();
    lags.sort_by(f64::total_cmp);
    let span = committed.last().zip(committed.first()).map_or(0.0, |(last, first)| (*last - *first).as_secs_f64());
    let at = |share: usize| lags[(lags.len() * share / 100).min(lags.len() - 1)];
    Ok(Lag {
        per_second: rate,
        reached: (committed.len() - 1) as f64 / span,
        median: at(50),
        p99: at(99),
        max: at(100),
    })
}

/// When each commit returned.
fn write(database: &Connection, rate: u32, first: u32, last: u32) -> Result<Vec<Instant>> {
    let mut statement = database.prepare(INSERT)?;
    let start = Instant::now();
    let mut committed = Vec::new();
    for id in first..=last {
        let due = start + Duration::from_secs(1) * (id - first) / rate;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        statement.execute([id, id])?;
        committed.push(Instant::now());
    }
    Ok(committed)
}

/// When each row was first seen.
fn watch(database: &Connection, first: u32, last: u32, gave_up: &AtomicBool) -> Result<Vec<Instant>> {
    let mut statement = database.prepare("SELECT ifnull(max(id), 0) FROM item")?;
    let mut seen = Vec::new();
    let deadline = Instant::now() + SPAN + DEADLINE;
    while seen.len() <= (last - first) as usize {
        anyhow::ensure!(Instant::now() < deadline && !gave_up.load(Ordering::Relaxed), "changes do not arrive");
        let newest: u32 = statement.query_row([], |row| row.get(0))?;
        let now = Instant::now();
        seen.resize((newest + 1).saturating_sub(first).max(u32::try_from(seen.len())?) as usize, now);
        thread::sleep(LOOK);
    }
    Ok(seen)
}

fn backlog(lab: &Lab, first: u32) -> Result<Backlog> {
    lab.cut("link")?;
    lab.await_contact(false)?;
    let last = first + BACKLOG - 1;
    let writer = lab.application(EAST)?;
    for begin in (first..=last).step_by(TRANSACTION as usize) {
        writer.execute(INSERT, [begin, (begin + TRANSACTION - 1).min(last)])?;
    }
    wait_until(DEADLINE, "east's agent has seen what was written", || lab.is_folded(EAST))?;
    let reader = lab.application(WEST)?;
    let newest = || reader.query_row("SELECT max(id) FROM item", [], |row| row.get::<_, u32>(0)).unwrap_or(0);
    lab.mend("link")?;
    let mended = Instant::now();
    wait_until(DEADLINE, "the first of them arrive", || newest() >= first)?;
    let (begun, before) = (Instant::now(), newest() - first + 1);
    wait_until(DEADLINE, "the last of them arrive", || newest() == last)?;
    let rows_per_second = f64::from(BACKLOG - before) / begun.elapsed().as_secs_f64();
    lab.await_same_databases(DEADLINE)?;
    let [east, west] = SITES.map(|site| peak_memory(lab, site));
    Ok(Backlog {
        rows: BACKLOG,
        rows_per_second,
        first_seconds: (begun - mended).as_secs_f64(),
        peak_memory_mb: [east?, west?],
    })
}

/// What an agent's memory came to, MB.
fn peak_memory(lab: &Lab, site: Site) -> Result<f64> {
    let process = lab.processes().into_iter().find(|process| process.name() == site.name).context("no agent")?;
    let pid = process.running().context("the agent does not run")?.pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes / 1000.0)
}
