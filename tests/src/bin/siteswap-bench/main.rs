//! Measures siteswap. What each figure means, and what it was on one machine: docs/performance.md.

mod balancing;
mod failover;
mod idle;
mod maglev;
mod program;
mod replication;
mod requests;
mod servers;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};

/// Measure siteswap on this machine. Needs root; every figure is compared within one run.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// What to measure; everything if left out
    name: Option<Benchmark>,
    /// Print JSON, one object for each benchmark
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Benchmark {
    /// The XDP program's time for an answer, beside a bare reflector's
    Program,
    /// The XDP program's time for a request: served, forwarded, taken out of the tunnel; and what a flood does to it
    Requests,
    /// Requests a second that reach the backends over veth, beside nftables DNAT
    Balancing,
    /// Replies a second over veth, beside Knot DNS and gdnsd
    Servers,
    /// From the last failed probe, or the end of the empty period, to the changed map
    Failover,
    /// The agent's CPU time and memory while nothing happens
    Idle,
    /// The flows that change their backend when one of many leaves, beside the least possible
    Maglev,
    /// What capture costs the application, and rows a second of replication's steps
    Replication,
}

/// What a benchmark found.
trait Report {
    /// For machines.
    fn json(&self) -> serde_json::Value;
    /// For people, ending in a newline.
    fn text(&self) -> String;
}

fn main() -> ExitCode {
    let options = Options::parse();
    let chosen: Vec<Benchmark> = match options.name {
        Some(one) => vec![one],
        None => Benchmark::value_variants().to_vec(),
    };
    for benchmark in chosen {
        match run(benchmark) {
            Ok(report) if options.json => println!("{}", report.json()),
            Ok(report) => println!("{}", report.text()),
            Err(error) => {
                eprintln!("error: {error:#}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn run(benchmark: Benchmark) -> Result<Box<dyn Report>> {
    Ok(match benchmark {
        Benchmark::Program => Box::new(program::measure()?),
        Benchmark::Requests => Box::new(requests::measure()?),
        Benchmark::Balancing => Box::new(balancing::measure()?),
        Benchmark::Servers => Box::new(servers::measure()?),
        Benchmark::Failover => Box::new(failover::measure()?),
        Benchmark::Idle => Box::new(idle::measure()?),
        Benchmark::Maglev => Box::new(maglev::measure()),
        Benchmark::Replication => Box::new(replication::measure()?),
    })
}

/// The middle of what was measured.
fn median<T: Copy + PartialOrd>(values: &[T]) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).expect("measurements are numbers"));
    sorted[sorted.len() / 2]
}
