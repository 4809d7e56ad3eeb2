//! What replication costs the application, how fast its steps are, and how fast two agents are together.

mod agents;
mod capture;
mod json;
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
    json_steps: Vec<steps::Step>,
    json_wire: Vec<steps::Wire>,
    lag: Vec<agents::Lag>,
    backlog: agents::Backlog,
}

/// Measures on files in directories of its own, and in a lab.
pub fn measure() -> Result<Replication> {
    let capture = capture::measure()?;
    let (steps, steps::Sizes { wire, kept }) = steps::best(steps::measure)?;
    let (json_steps, json_wire) = steps::best(json::measure)?;
    let (lag, backlog) = agents::measure()?;
    Ok(Replication { capture, steps, wire, kept, json_steps, json_wire, lag, backlog })
}

impl Report for Replication {
    fn json(&self) -> serde_json::Value {
        let mut json = serde_json::json!(self);
        json["benchmark"] = "replication".into();
        json
    }

    fn text(&self) -> String {
        [self.costs(), self.speeds(), self.sizes(), self.together()].join("\n")
    }
}

impl Replication {
    fn costs(&self) -> String {
        let mut text =
            "replication: what capture costs the application, microseconds per row (times without triggers)\n"
                .to_owned();
        let heads = ["siteswap", "with counters", "rows as JSON"];
        text += &format!("  {:<38} {:>8} {:>16} {:>16} {:>16}\n", "", "none", heads[0], heads[1], heads[2]);
        for capture::Cost { what, none, touch, counters, json } in &self.capture {
            let [touch, counters, json] = [touch, counters, json].map(|cost| format!("{cost:.2} ({:.2})", cost / none));
            text += &format!("  {what:<38} {none:>8.2} {touch:>16} {counters:>16} {json:>16}\n");
        }
        text
    }

    fn speeds(&self) -> String {
        let mut text =
            "replication: its steps, rows per second on one core (by the clock, disk and other programs included), the best of three\n"
                .to_owned();
        text += &format!("  {:<42} {:>9} {:>22} {:>22}\n", "", "rows", "siteswap", "rows as JSON");
        let both = |step: &steps::Step| format!("{:.0} ({:.0})", step.rows_per_core_second, step.rows_per_second);
        for step in &self.steps {
            let json = self.json_steps.iter().find(|other| other.step == step.step).map_or(String::new(), both);
            text += &format!("  {:<42} {:>9} {:>22} {json:>22}\n", step.step, step.rows, both(step));
        }
        text
    }

    fn sizes(&self) -> String {
        let mut text = "replication: bytes on the wire for each row changed\n".to_owned();
        text += &format!("  {:<42} {:>16} {:>16}\n", "", "siteswap", "rows as JSON");
        for (steps::Wire { what, bytes_per_row }, json) in self.wire.iter().zip(&self.json_wire) {
            text += &format!("  {what:<42} {bytes_per_row:>16.1} {:>16.1}\n", json.bytes_per_row);
        }
        let steps::Kept { rows, pages_before, pages_after, changes, versions } = &self.kept;
        text += &format!(
            "  kept for {rows} rows, all changed and acknowledged: {changes} changes, {versions} versions, {} bytes of the file\n",
            pages_after.saturating_sub(*pages_before)
        );
        text
    }

    fn together(&self) -> String {
        let mut text = "replication: two agents, from a commit until it is visible at the peer, ms\n".to_owned();
        text += &format!("  {:<34} {:>8} {:>8} {:>8} {:>8}\n", "", "reached", "median", "p99", "max");
        for agents::Lag { per_second, reached, median, p99, max } in &self.lag {
            let what = format!("{per_second} transactions a second");
            text += &format!("  {what:<34} {reached:>8.0} {median:>8.1} {p99:>8.1} {max:>8.1}\n");
        }
        let agents::Backlog { rows, rows_per_second, first_seconds, peak_memory_mb: [sender, receiver] } =
            &self.backlog;
        text += &format!(
            "  {rows} rows after a cut: {rows_per_second:.0} rows/s, the first after {first_seconds:.1} s; \
             peak memory of the agents {sender:.0} and {receiver:.0} MB\n"
        );
        text
    }
}
