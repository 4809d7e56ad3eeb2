//! How long the program takes for an answer, above a program that only sends the frame back.

use anyhow::Result;
use lab::program::{
    frames::{A, AAAA, Addresses, Datagram, Opt, Query, SERVER_V4, SERVER_V6, V4, V6},
    stopwatch::{Stopwatch, Target},
    table::Table,
};
use serde::Serialize;

use crate::{Report, median};

/// Each round measures the program and the reflector once.
const ROUNDS: usize = 201;
/// Packets in each measurement: few milliseconds, so that some rounds find the machine quiet.
const REPEAT: u32 = 20_000;

/// Names beyond these share their answers.
const RESOURCES: usize = 1_000;

/// One row for each query and size of the table.
pub struct Program(Vec<Row>);

/// One line of the result; times in nanoseconds per packet, medians over the rounds if not said otherwise.
#[derive(Serialize)]
struct Row {
    query: &'static str,
    /// Names in the table.
    names: usize,
    /// How many of them are asked for, one after the other.
    asked: usize,
    program: f64,
    reflector: f64,
    /// The program's own time.
    difference: f64,
    ratio: f64,
    /// The program's own time in the rounds that were disturbed least: the least of its times less the reflector's.
    least_difference: f64,
}

/// Measures both queries on tables of three sizes, asking for one name or for all of them in turn.
pub fn measure() -> Result<Program> {
    let mut rows = Vec::new();
    for names in [10, 1_000, 100_000] {
        for (query, addresses, kind) in [("A/IPv4", V4, A), ("AAAA/IPv6", V6, AAAA)] {
            let mut stopwatch = Stopwatch::new(&table(names))?;
            for asked in [1, names] {
                let frames: Vec<_> = (0..asked).map(|index| frame(index, addresses, kind)).collect();
                stopwatch.frames(&frames)?;
                let [programs, reflectors] = times(&mut stopwatch, ROUNDS)?;
                let (program, reflector) = (median(&programs), median(&reflectors));
                let (difference, ratio) = (program - reflector, program / reflector);
                let least_difference = least(&programs) - least(&reflectors);
                rows.push(Row { query, names, asked, program, reflector, difference, ratio, least_difference });
            }
        }
    }
    Ok(Program(rows))
}

/// Names of 22 bytes on the wire, each with two addresses of each family; at most a thousand resources share them.
fn table(names: usize) -> Table {
    let mut table = Table::new(&[SERVER_V4], &[SERVER_V6]);
    for index in 0..names {
        match u32::try_from(index % RESOURCES) {
            Ok(set) if index >= RESOURCES => table.name(&name(index), set),
            _ => table.add(&name(index), 30, &[[192, 0, 2, 80], [198, 51, 100, 80]], &[SERVER_V6, [0x20; 16]]),
        }
    }
    table
}

fn name(index: usize) -> String {
    format!("w{index:06}.shop.example")
}

/// A query with EDNS and a client's mixed case.
fn frame(index: usize, addresses: Addresses, kind: u16) -> Vec<u8> {
    let query = Query::new(&name(index).replace("shop", "ShoP"), kind).edns(&Opt::default());
    Datagram::new(addresses, &query.wire()).frame()
}

/// Times of the program and of the reflector, by turns, nanoseconds a packet.
pub fn times(stopwatch: &mut Stopwatch, rounds: usize) -> Result<[Vec<f64>; 2]> {
    stopwatch.run(Target::Program, REPEAT)?;
    let (mut program, mut reflector) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        program.push(stopwatch.run(Target::Program, REPEAT)?.as_secs_f64() * 1e9);
        reflector.push(stopwatch.run(Target::Reflector, REPEAT)?.as_secs_f64() * 1e9);
    }
    Ok([program, reflector])
}

pub fn least(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}

impl Report for Program {
    fn json(&self) -> serde_json::Value {
        serde_json::json!({ "benchmark": "program", "unit": "nanoseconds", "rows": self.0 })
    }

    fn text(&self) -> String {
        let mut text = "program: time for an answer, ns, medians; least: of the least disturbed rounds\n".to_owned();
        text += "  query      names  asked for  program  reflector  difference  ratio  least\n";
        for row in &self.0 {
            text += &format!(
                "  {:<9} {:>6} {:>10} {:>8.0} {:>10.0} {:>11.0} {:>6.2} {:>6.0}\n",
                row.query,
                row.names,
                row.asked,
                row.program,
                row.reflector,
                row.difference,
                row.ratio,
                row.least_difference
            );
        }
        text
    }
}
