//! Whether what is attached is what the configuration lists.

use rusqlite::Connection;

use super::{Finding, Severity, finding};
use crate::schema::{self, Table};

/// Tables that are listed and not attached, if others are, and the reverse. Those that cannot be attached have a finding of
/// their own.
pub(super) fn differing(
    database: &Connection,
    listed: &[String],
    captured: &[Table],
) -> Result<Vec<Finding>, schema::Error> {
    let is = |name: &str, table: &Table| table.name.eq_ignore_ascii_case(name);
    let mut findings = Vec::new();
    for name in listed.iter().filter(|name| !captured.iter().any(|table| is(name, table))) {
        match schema::read(database, name) {
            Ok(_) => {
                let what = "it is listed in database.tables and not attached: its changes are not recorded";
                findings.push(finding(Severity::Error, Some(name), what, "siteswap db attach"));
            }
            Err(error @ schema::Error::Sql(_)) => return Err(error),
            Err(_) => {}
        }
    }
    for table in captured.iter().filter(|table| !listed.iter().any(|name| is(name, table))) {
        let what = "it is attached and not listed in database.tables: it is replicated all the same";
        let advice = "list it; or take it off: siteswap db schema begin at one site, siteswap db schema commit at each";
        findings.push(finding(Severity::Warning, Some(&table.name), what, advice));
    }
    Ok(findings)
}

/// A table that cannot be replicated, and what to do about it if it is one of those `listed`, or all are wanted.
pub(super) fn unfit(name: &str, why: &schema::Error, listed: bool) -> Finding {
    let advice = match (why, listed) {
        (schema::Error::Missing(_), _) => "create it, or take it out of database.tables",
        (schema::Error::NotOrdinary { .. }, _) => "take it out of database.tables",
        (_, true) => "give it a primary key of at most 8 columns, or take it out of database.tables",
        (_, false) => "give it a primary key of at most 8 columns, or list the other tables in database.tables",
    };
    finding(Severity::Error, Some(name), why.to_string(), advice)
}
