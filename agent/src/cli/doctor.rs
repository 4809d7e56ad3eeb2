//! `siteswap doctor` for people.

use std::fmt::Write;

use crate::doctor::{Finding, Verdict};

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const RESET: &str = "\x1b[0m";

/// A line for each, and a summary.
pub fn findings(findings: &[Finding], colours: bool) -> String {
    let mut out = String::new();
    for finding in findings {
        let Finding { check, about, says, .. } = finding;
        let mend = finding.mend.as_ref().map_or_else(String::new, |command| format!("; mend: {command}"));
        writeln!(out, "{} {check} {about}: {says}{mend}", verdict(finding.verdict, colours))
            .expect("a String takes everything");
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (problems, warnings) = (count(Verdict::Problem), count(Verdict::Warning));
    writeln!(out, "checks: {}, problems: {problems}, warnings: {warnings}", findings.len())
        .expect("a String takes everything");
    out
}

/// All of one width.
fn verdict(verdict: Verdict, colours: bool) -> String {
    let (colour, word) = match verdict {
        Verdict::Ok => (GREEN, "ok     "),
        Verdict::Warning => (YELLOW, "warning"),
        Verdict::Problem => (RED, "problem"),
    };
    if colours { format!("{colour}{word}{RESET}") } else { word.to_owned() }
}
