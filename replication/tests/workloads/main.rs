//! Claims C1, C4 and C5, by the workloads that Jepsen tests databases with. All of them run over a network that loses,
//! repeats and reorders, with agents that are killed around any commit and applications that are killed in transactions.
//!
//! What holds at a site at every moment: it shows its own committed writes, and of every other site's transactions a prefix,
//! each transaction whole. What was written at two sites at once is decided row by row and column by column, so a
//! transaction of which another site has changed a row may win in one row and lose in another. An invariant over several
//! rows, as a bank's total, is kept if one site writes at a time, or if what is written is never changed; otherwise what
//! lost is in the log.
//!
//! `SITESWAP_SEEDS` sets how many schedules each test runs, `SITESWAP_SEED` runs a single one.

#[path = "../sites/mod.rs"]
mod sites;

mod bank;
mod lists;
mod registers;
mod transactions;

use std::collections::BTreeSet;

use rusqlite::Connection;
use sites::{Dice, Sites, Workload};

const RIGHT: [i64; 3] = [0; 3];
const HOUR: i64 = 3_600_000;

/// A schedule of the workload, after which everybody has been told everything.
fn play(seed: u64, schema: &str, skews: &[i64], workload: &mut impl Workload) -> Sites {
    let mut dice = Dice::new(seed);
    let mut sites = Sites::new(schema, skews, &[]);
    sites.act(workload, &mut dice, 150);
    sites.settle(&mut dice);
    workload.look(&sites);
    sites
}

fn number(app: &Connection, sql: &str) -> i64 {
    app.query_row(sql, [], |row| row.get(0)).expect("a number")
}

fn integers(app: &Connection, sql: &str) -> BTreeSet<i64> {
    let mut statement = app.prepare(sql).expect("a query");
    let rows = statement.query_map([], |row| row.get(0)).expect("rows");
    rows.collect::<Result<_, _>>().expect("integers")
}
