//! What an agent costs while nothing happens: the lab's configuration, probes and heartbeats going on.

use std::{fs, thread, time::Duration};

use anyhow::{Context, Result};
use lab::{Lab, Options};
use serde_json::{Value, json};

use crate::Report;

/// Long enough that a scheduler tick more or less is no matter.
const SPAN: Duration = Duration::from_secs(30);

/// One agent.
pub struct Idle {
    /// Per cent of one core.
    cpu: f64,
    /// Resident memory, MB.
    memory: f64,
}

/// Watches the agent of one site.
pub fn measure() -> Result<Idle> {
    let lab = Lab::up(&Options { progress: |what| eprintln!("  {what}"), ..Options::default() })?;
    let process = lab.processes().into_iter().find(|process| process.name() == "east").context("east's agent")?;
    let pid = process.running().context("east's agent does not run")?.pid();
    eprintln!("  watching east's agent for {SPAN:?}");
    let before = cpu_time(pid)?;
    thread::sleep(SPAN);
    let used = cpu_time(pid)?.saturating_sub(before);
    Ok(Idle { cpu: used.as_secs_f64() / SPAN.as_secs_f64() * 100.0, memory: resident(pid)? })
}

/// Time on a CPU, all threads.
fn cpu_time(pid: i32) -> Result<Duration> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let schedule = fs::read_to_string(task?.path().join("schedstat"))?;
        let nanoseconds = schedule.split(' ').next().context("schedstat is empty")?;
        total += nanoseconds.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total))
}

fn resident(pid: i32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes / 1000.0)
}

impl Report for Idle {
    fn json(&self) -> Value {
        json!({ "benchmark": "idle", "cpu_percent": self.cpu, "memory_mb": self.memory })
    }

    fn text(&self) -> String {
        format!("idle agent: {:.2} % of a core, {:.1} MB resident\n", self.cpu, self.memory)
    }
}
