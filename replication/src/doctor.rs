//! Says what about a database stands in the way of replication, and what to do about it.

mod constraints;
mod listed;
mod programs;

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde::Serialize;

use crate::{
    capture::{self, Difference, Wanted, nullable_key, unverified},
    schema::{self, Affinity, MASK_BITS, Table, quoted},
    store::{self, Ruled, Rules},
};

/// Something that a person should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The table concerned, if it is one.
    pub table: Option<String>,
    /// What is the matter.
    pub what: String,
    /// What would be right.
    pub advice: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Some writes could be missed, or collide.
    Warning,
    /// It is not replicated, or could not be.
    Error,
}

/// Looks at a database, whether its tables are attached or not: at those that are meant to be replicated. Those in `firing`
/// are meant to have their triggers fire for what peers have told.
///
/// What it cannot see are the applications' own settings: their SQLite should be 3.8.2 or newer, and wait for locks
/// (`busy_timeout`).
///
/// # Errors
/// What is stored of the replicated tables is not ours, or whatever SQLite says.
pub fn check(database: &Connection, wanted: Wanted<'_>, firing: &[String]) -> Result<Vec<Finding>, capture::Error> {
    let mut findings = Vec::new();
    findings.extend(journal(database)?);
    findings.extend(library(rusqlite::version_number()));
    let (names, listed) = match wanted {
        Wanted::All => (schema::names(database)?, None),
        Wanted::Named(names) => (names.to_vec(), Some(names)),
    };
    if listed.is_none() {
        findings.extend(virtual_tables(database)?);
    }
    for name in &names {
        findings.extend(table(database, name, listed.is_some())?);
        let fires = firing.iter().any(|firing| firing.eq_ignore_ascii_case(name));
        findings.extend(programs::findings(database, name, fires, &names)?);
    }
    let captured = capture::tables(database)?;
    for table in &captured {
        findings.extend(keyless_rows(database, table)?);
        findings.extend(unverified_rows(database, table)?);
    }
    if !captured.is_empty() {
        findings.extend(departures(database, listed, &captured)?);
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(findings)
}

/// What is attached otherwise than it should be, once something is.
fn departures(
    database: &Connection,
    listed: Option<&[String]>,
    captured: &[Table],
) -> Result<Vec<Finding>, capture::Error> {
    if store::fenced(database)? {
        let (what, advice) = ("a schema change is under way: no table takes writes", "siteswap db schema commit");
        return Ok(vec![finding(Severity::Warning, None, what, advice)]);
    }
    let departures = capture::inspect(database, listed.is_none())?.into_iter();
    let mut findings: Vec<_> = departures.map(|departure| departed(departure.table, &departure.difference)).collect();
    if let Some(listed) = listed {
        findings.extend(listed::differing(database, listed, captured)?);
    }
    Ok(findings)
}

fn finding(severity: Severity, table: Option<&str>, what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { severity, table: table.map(str::to_owned), what: what.into(), advice: advice.into() }
}

fn journal(database: &Connection) -> rusqlite::Result<Option<Finding>> {
    let mode: String = database.query_row("PRAGMA main.journal_mode", [], |row| row.get(0))?;
    let what = format!("the journal mode is {mode}; what is sent to peers would not be known to be on disk");
    Ok((mode != "wal").then(|| finding(Severity::Error, None, what, "PRAGMA journal_mode = WAL, once for this file")))
}

/// The oldest SQLite whose write-ahead log can be trusted when several connections write and checkpoint at the same time.
const SOUND_WAL: i32 = 3_051_003;

fn library(version: i32) -> Option<Finding> {
    let what = format!(
        "this program's SQLite is {version}, older than {SOUND_WAL}; a log restarted by two connections at once could lose commits"
    );
    (version < SOUND_WAL).then(|| finding(Severity::Warning, None, what, "build siteswap with its bundled SQLite"))
}

fn virtual_tables(database: &Connection) -> rusqlite::Result<Vec<Finding>> {
    let sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'virtual' ORDER BY name";
    let mut statement = database.prepare(sql)?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    names
        .map(|name| {
            let what = "is a virtual table and is not replicated";
            Ok(finding(
                Severity::Note,
                Some(&name?),
                what,
                "rebuild it at each site from the tables that it is made of, or have their triggers keep it (fire_triggers = true)",
            ))
        })
        .collect()
}

fn table(database: &Connection, name: &str, listed: bool) -> Result<Vec<Finding>, capture::Error> {
    let found = match schema::read(database, name) {
        Ok(found) => found,
        Err(schema::Error::Sql(error)) => return Err(error.into()),
        Err(why) => return Ok(vec![listed::unfit(name, &why, listed)]),
    };
    let mut findings = key(&found.table);
    findings.extend(found.left_out.iter().map(|left| constraints::left_out(name, left)));
    findings.extend(constraints::references(database, &found.table)?);
    let triggers = schema::ignoring_triggers(database, &found.table.name)?;
    findings.extend(triggers.iter().map(|trigger| constraints::ignoring(&found.table.name, trigger)));
    if found.table.columns.len() > MASK_BITS + 1 {
        let what =
            format!("has {} columns: those from column {} on count as one", found.table.columns.len(), MASK_BITS + 1);
        let advice = "have those that are written at several sites come first";
        findings.push(finding(Severity::Note, Some(name), what, advice));
    }
    Ok(findings)
}

fn key(table: &Table) -> Vec<Finding> {
    let mut findings = Vec::new();
    let column = |at: u16| &table.columns[usize::from(at)];
    if nullable_key(table) {
        let names = table.key.iter().map(|at| column(*at)).filter(|column| !column.not_null);
        let names = names.map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
        let what = format!("its primary key may be NULL ({names}), and such rows are not replicated");
        findings.push(finding(Severity::Warning, Some(&table.name), what, "declare the key's columns NOT NULL"));
    }
    if let [only] = table.key[..]
        && !table.without_rowid
        && column(only).declared.eq_ignore_ascii_case("INTEGER")
        && !table.references.iter().any(|reference| reference.columns == [only])
    {
        let what = "its key is an integer that SQLite chooses: two sites will choose the same for different rows";
        let advice = "write it at one site only (standby_writes = \"refuse\"), or use keys that are unique everywhere, such as UUIDv7";
        findings.push(finding(Severity::Warning, Some(&table.name), what, advice));
    }
    findings
}

fn keyless_rows(database: &Connection, table: &Table) -> rusqlite::Result<Option<Finding>> {
    if !nullable_key(table) {
        return Ok(None);
    }
    let columns = table.key.iter().map(|column| quoted(&table.columns[usize::from(*column)].name));
    let without = columns.map(|column| format!("{column} IS NULL")).collect::<Vec<_>>().join(" OR ");
    let sql = format!("SELECT count(*) FROM main.{} WHERE {without}", quoted(&table.name));
    // A table that is gone, or another by now, is told of by its departure.
    let Ok(count) = database.query_row(&sql, [], |row| row.get::<_, i64>(0)) else { return Ok(None) };
    let what = format!("{count} rows with NULL in the primary key are not replicated");
    let advice = "give them a key; declare the key's columns NOT NULL";
    Ok((count > 0).then(|| finding(Severity::Error, Some(&table.name), what, advice)))
}

fn unverified_rows(database: &Connection, table: &Table) -> rusqlite::Result<Option<Finding>> {
    let marked = database.prepare_cached("SELECT 1 FROM _ssw_meta WHERE k = ?1")?.exists([unverified(table)])?;
    let what = "it was without its triggers for a while, and was not compared with a peer's since";
    let advice = "the agent compares it as soon as it can; why it cannot: siteswap db status";
    Ok(marked.then(|| finding(Severity::Warning, Some(&table.name), what, advice)))
}

fn departed(table: String, difference: &Difference) -> Finding {
    let (severity, advice) = match difference {
        Difference::Missing(_) | Difference::Altered(_) => {
            (Severity::Error, "the agent mends it and scans the table; drop or alter nothing called _ssw_")
        }
        Difference::Added(_) => (Severity::Note, "the agent takes it up; add it at the other sites too"),
        Difference::Uniques => {
            (Severity::Warning, "make the same index at every site, between schema begin and schema commit")
        }
        Difference::Schema(_) | Difference::Gone => {
            (Severity::Error, "make the same change at every site, then siteswap db schema commit")
        }
        Difference::New => (Severity::Warning, "siteswap db attach"),
    };
    finding(severity, Some(&table), difference.to_string(), advice)
}

/// Looks at the columns that these rules, by tables' names in lower case, treat in a way of their own.
///
/// # Errors
/// Whatever SQLite says.
pub fn columns(database: &Connection, rules: &BTreeMap<String, Rules>) -> Result<Vec<Finding>, store::Error> {
    let mut findings = Vec::new();
    for (name, rules) in rules.iter().filter(|(_, rules)| !rules.columns.is_empty()) {
        // One that cannot be replicated has a finding of its own.
        let Ok(found) = schema::read(database, name) else { continue };
        match Ruled::find(database, &found.table, rules) {
            Ok(ruled) => findings.extend(ruled.counters.iter().filter_map(|column| no_integers(&found.table, *column))),
            Err(error @ store::Error::Column { .. }) => {
                let advice = "take it out of the lists counters, min and max of [database.table.NAME]";
                findings.push(finding(Severity::Error, Some(&found.table.name), error.to_string(), advice));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(findings)
}

/// A counter in which SQLite keeps no integers, so that nothing is ever added to it.
fn no_integers(table: &Table, column: u16) -> Option<Finding> {
    let column = &table.columns[usize::from(column)];
    let what = match column.affinity() {
        Affinity::Real => format!(
            "counter {:?} is declared so that SQLite keeps reals in it: its updates are not added up",
            column.name
        ),
        Affinity::Text => format!(
            "counter {:?} is declared so that SQLite keeps text in it: its updates are not added up",
            column.name
        ),
        Affinity::Integer | Affinity::Numeric | Affinity::Blob => return None,
    };
    Some(finding(Severity::Warning, Some(&table.name), what, "declare it INTEGER"))
}
