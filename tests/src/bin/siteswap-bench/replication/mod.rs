//! What replication costs the application, and how fast its steps are.

mod capture;
mod steps;

use anyhow::Result;
use serde::Serialize;

use crate::Report;

/// What was measured.
#[derive(Serialize)]
pub struct Replication {
    capture: Vec<capture::Cost>,
    steps: Vec<steps::Step>,
    wire: Vec<steps::Wire>,
    kept: steps::Kept,
}

/// Measures on files in a directory of its own.
pub fn measure() -> Result<Replication> {
    let (steps, wire, kept) = steps::measure()?;
    Ok(Replication { capture: capture::measure()?, steps, wire, kept })
}

impl Report for Replication {
    fn json(&self) -> serde_json::Value {
        serde_json::json!({ "benchmark": "replication", "capture": self.capture, "steps": self.steps, "wire": self.wire, "kept": self.kept })
    }

    fn text(&self) -> String {
        let mut text =
            "replication: what capture costs the application, microseconds per row (times without triggers)\n"
                .to_owned();
        text += &format!("  {:<34} {:>8} {:>16} {:>16}\n", "", "none", "siteswap", "rows as JSON");
        for capture::Cost { what, none, touch, json } in &self.capture {
            let beside = |cost: f64| format!("{cost:.2} ({:.2})", cost / none);
            text += &format!("  {what:<34} {none:>8.2} {:>16} {:>16}\n", beside(*touch), beside(*json));
        }
        text += "\nreplication: its steps on one core\n";
        for steps::Step { step, rows, rows_per_second } in &self.steps {
            text += &format!("  {step:<34} {rows:>9} rows {rows_per_second:>11.0} rows/s\n");
        }
        text += "\nreplication: bytes on the wire for each row changed\n";
        for steps::Wire { what, bytes_per_row } in &self.wire {
            text += &format!("  {what:<34} {bytes_per_row:>9.1}\n");
        }
        let steps::Kept { rows, pages_before, pages_after, changes, versions } = &self.kept;
        text += &format!(
            "\nreplication: kept for {rows} rows, all changed and acknowledged: {changes} changes, {versions} versions, \
             {} bytes of the file\n",
            pages_after.saturating_sub(*pages_before)
        );
        text
    }
}
