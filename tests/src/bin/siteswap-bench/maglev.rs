//! How many flows change their backend when one of them leaves.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Instant,
};

use serde::Serialize;
use siteswap::maglev::{Weighted, size, table};

use crate::{Report, median};

/// One row for each number of backends.
pub struct Maglev(Vec<Row>);

#[derive(Serialize)]
struct Row {
    backends: u32,
    /// In the table.
    entries: usize,
    /// Per cent of them that must change when one backend leaves: its own. The mean over all backends.
    least_possible: f64,
    /// Per cent of them that do change, likewise.
    changed: f64,
    /// Milliseconds for a table, median.
    built_in: f64,
}

/// Takes away each of the backends in turn.
pub fn measure() -> Maglev {
    Maglev([10, 100, 1_000].map(row).into())
}

fn row(count: u32) -> Row {
    let mut backends: Vec<Weighted> =
        (0..count).map(|index| (SocketAddr::from((Ipv4Addr::from(0x0a01_0000 + index), 80)), 1)).collect();
    let entries = size(backends.len());
    let before = table(&backends, entries);
    let (mut own, mut changed, mut times) = (0, 0, Vec::new());
    for gone in 0..backends.len() {
        backends[gone].1 = 0;
        let start = Instant::now();
        let after = table(&backends, entries);
        times.push(start.elapsed().as_secs_f64() * 1e3);
        backends[gone].1 = 1;
        own += before.iter().filter(|&&backend| backend as usize == gone).count();
        changed += before.iter().zip(&after).filter(|(before, after)| before != after).count();
    }
    let share = |sum: usize| 100.0 * sum as f64 / (backends.len() * entries) as f64;
    Row { backends: count, entries, least_possible: share(own), changed: share(changed), built_in: median(&times) }
}

impl Report for Maglev {
    fn json(&self) -> serde_json::Value {
        serde_json::json!({ "benchmark": "maglev", "rows": self.0 })
    }

    fn text(&self) -> String {
        let mut text =
            "maglev: entries that change when one backend leaves, per cent, mean over all backends\n".to_owned();
        text += "  backends  entries  least possible  changed  table built in, ms\n";
        for Row { backends, entries, least_possible, changed, built_in } in &self.0 {
            text += &format!("  {backends:>8} {entries:>8} {least_possible:>15.2} {changed:>8.2} {built_in:>19.2}\n");
        }
        text
    }
}
