//! `siteswap db` for people.

use std::fmt::Write;

use siteswap_replication::doctor::{Finding, Severity};

use crate::replication::{Peer, Status};

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const RESET: &str = "\x1b[0m";

/// How the database stands: a line for it, and one for each peer.
pub fn status(status: &Status, colours: bool) -> String {
    let mut out = String::new();
    let state = match (&status.error, status.paused) {
        (Some(error), _) => painted(&format!("not replicated: {error}"), RED, colours),
        (None, true) => painted("paused", YELLOW, colours),
        (None, false) => painted("replicated", GREEN, colours),
    };
    writeln!(
        out,
        "{state}, group {}, unsettled rows: {}, conflicts: {}",
        status.group, status.unsettled, status.conflicts
    )
    .expect("a String takes everything");
    if status.fenced {
        let fenced = painted("a schema change is under way", YELLOW, colours);
        writeln!(out, "  {fenced}: writes are refused until siteswap db schema commit")
            .expect("a String takes everything");
    }
    if let Some(doubt) = &status.doubt {
        let doubt = painted(doubt, YELLOW, colours);
        writeln!(out, "  to be compared with a peer's: {doubt}").expect("a String takes everything");
    }
    for column in &status.lacking {
        let lacks = painted(&format!("lacks column {column}"), YELLOW, colours);
        writeln!(out, "  {lacks}: what peers write to it waits here until it is added")
            .expect("a String takes everything");
    }
    for (name, peer) in &status.peers {
        writeln!(out, "  {}", line(name, peer, colours)).expect("a String takes everything");
    }
    out
}

fn line(name: &str, peer: &Peer, colours: bool) -> String {
    let sending =
        if peer.sending { painted("connected", GREEN, colours) } else { painted("not connected", RED, colours) };
    let waiting = match peer.rows {
        0 if peer.forgotten => "nothing waits for it".to_owned(),
        0 => "has everything".to_owned(),
        rows => format!("{rows} rows wait for it ({} bytes, the oldest {} ms old)", peer.bytes, peer.lag),
    };
    let forgotten = if peer.forgotten {
        painted(
            ", what it lacks besides is not kept any more: once it is back the databases are compared",
            YELLOW,
            colours,
        )
    } else {
        String::new()
    };
    let why: Vec<String> = [("not sent", !peer.sending, &peer.why), ("not taken", !peer.taking, &peer.refused)]
        .into_iter()
        .filter_map(|(what, is, why)| Some(format!("; {what}: {}", why.as_ref().filter(|_| is)?)))
        .collect();
    format!("{name}: {sending}, {waiting}{forgotten}, {} of its groups are applied here{}", peer.applied, why.concat())
}

/// A line for each finding with what would be right below it, and a summary.
pub fn findings(findings: &[Finding], colours: bool) -> String {
    let mut out = String::new();
    for Finding { severity, table, what, advice } in findings {
        let table = table.as_ref().map_or_else(String::new, |table| format!(" {table}:"));
        writeln!(out, "{}{table} {what}\n         {advice}", severity_word(*severity, colours))
            .expect("a String takes everything");
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    writeln!(out, "errors: {errors}, warnings: {warnings}").expect("a String takes everything");
    out
}

/// All of one width.
fn severity_word(severity: Severity, colours: bool) -> String {
    match severity {
        Severity::Note => painted("note   ", GREEN, colours),
        Severity::Warning => painted("warning", YELLOW, colours),
        Severity::Error => painted("error  ", RED, colours),
    }
}

fn painted(text: &str, colour: &str, colours: bool) -> String {
    if colours { format!("{colour}{text}{RESET}") } else { text.to_owned() }
}
