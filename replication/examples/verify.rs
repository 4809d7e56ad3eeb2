//! Measures how many rows a second two equal databases are compared at, on one core: `cargo run --release -p
//! siteswap-replication --example verify -- [ROWS]`. Each row is read and hashed twice, once at each site.

use std::{collections::BTreeMap, path::Path, time::Instant};

use rusqlite::Connection;
use siteswap_replication::{
    capture::{self, Wanted},
    store::{Limits, Settings, Step, Store, Verify},
};

const SCHEMA: &str = "
PRAGMA journal_mode=WAL;
CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INTEGER, placed TEXT, status TEXT, total REAL, items INTEGER, note TEXT,
  token BLOB, changed INTEGER);";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rows: u64 = std::env::args().nth(1).map_or(Ok(1_000_000), |rows| rows.parse())?;
    let directory = tempfile::tempdir()?;
    let mut stores = Vec::new();
    for site in [1, 2] {
        stores.push(site_with(&directory.path().join(format!("{site}.db")), site, rows)?);
    }
    let (mut peer, store) = (stores.remove(1), stores.remove(0));
    let start = Instant::now();
    let mut verify = Verify::new(&store, 2, None, Limits::default())?;
    let mut answers = std::collections::VecDeque::new();
    loop {
        match verify.step(&store)? {
            Step::Send(request) => answers.push_back(peer.answer(1, &request, 0)?),
            Step::Receive => verify.take(answers.pop_front().ok_or("no answer")?)?,
            Step::Settle => {}
            Step::Done => break,
        }
    }
    let (outcome, seconds) = (verify.outcome(), start.elapsed().as_secs_f64());
    println!("{} rows compared in {seconds:.2} s, equal: {}", outcome.rows, outcome.is_clean());
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = 2.0 * rows as f64 / seconds;
    println!("{rate:.0} rows read and hashed a second");
    Ok(())
}

fn site_with(file: &Path, site: u32, rows: u64) -> Result<Store, Box<dyn std::error::Error>> {
    let mut database = Connection::open(file)?;
    database.execute_batch(SCHEMA)?;
    let sql = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?)
      INSERT INTO orders SELECT n, n * 7919 % 10007, '2025-01-01 00:00:00', 'paid', n / 8.0, n % 5, 'note ' || n,
        CAST(n * 31 AS BLOB), n FROM n";
    database.execute(sql, [rows])?;
    let transaction = database.transaction()?;
    capture::attach(&transaction, Wanted::All)?;
    transaction.commit()?;
    let sites = BTreeMap::from([(1, "one".to_owned()), (2, "two".to_owned())]);
    Ok(Store::open(file, Settings { site, sites, max_skew: 10_000, rules: BTreeMap::new() })?)
}
