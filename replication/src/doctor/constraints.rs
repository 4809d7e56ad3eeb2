//! Constraints that two sites can break together though each keeps to them.

use std::collections::HashSet;

use rusqlite::Connection;

use super::{Finding, Severity, finding};
use crate::{
    capture,
    schema::{self, Affinity, Column, LeftOut, OnDelete, Reference, Table},
};

/// What neither triggers nor merge take into account.
pub(super) fn left_out(table: &str, left: &LeftOut) -> Finding {
    let (what, advice) = match left {
        LeftOut::Unique { index, kind } => (
            format!("UNIQUE index {index:?} is {kind}: rows that a REPLACE evicts by it are missed"),
            "use no REPLACE on this table, and run siteswap db verify now and then; or make the index over whole columns",
        ),
        LeftOut::Reference { parent, why } => (
            format!("the foreign key to {parent:?} is not looked after: {why}"),
            "correct it, or drop it from the schema",
        ),
        LeftOut::Default { column } => (
            format!(
                "column {column:?} is UNIQUE and NOT NULL with a computed default: a row that OR REPLACE evicts for it is missed"
            ),
            "put no NULL into it, or make the default constant",
        ),
    };
    finding(Severity::Warning, Some(table), what, advice)
}

/// SQLite fires the newest of a table's triggers first, and none after one that says `RAISE(IGNORE)`.
pub(super) fn ignoring(table: &str, trigger: &str) -> Finding {
    let what = format!(
        "trigger {trigger:?} says RAISE(IGNORE) after a row was changed: if it is fired first, nobody is told of that"
    );
    let advice = "have it say so BEFORE, or with RAISE(ABORT); or detach the table and attach it again: then siteswap's come first";
    finding(Severity::Warning, Some(table), what, advice)
}

/// A foreign key to columns that, unlike a key's, may change, or that have another type.
fn reference(database: &Connection, table: &Table, reference: &Reference) -> Result<Vec<Finding>, capture::Error> {
    let parent = match schema::read(database, &reference.parent) {
        Ok(found) => found.table,
        Err(schema::Error::Sql(error)) => return Err(error.into()),
        // It has a finding of its own.
        Err(_) => return Ok(Vec::new()),
    };
    let Some(columns) = parent.referred_to(reference) else { return Ok(Vec::new()) };
    let (mut findings, to) = (Vec::new(), reference.parent_columns.join(", "));
    if columns.iter().any(|(column, _)| !parent.in_key(*column)) {
        let what = format!(
            "it refers to {:?} by {to}, not by the primary key: of rows that refer to a value which another site changes meanwhile, nobody takes care",
            parent.name
        );
        let advice = "refer to the primary key, or change these columns at one site only";
        findings.push(finding(Severity::Warning, Some(&table.name), what, advice));
    }
    let types = |own: u16, theirs: u16| {
        [&table.columns[usize::from(own)], &parent.columns[usize::from(theirs)]].map(Column::affinity)
    };
    let differ = |[own, theirs]: [Affinity; 2]| {
        own != Affinity::Blob && theirs != Affinity::Blob && (own == Affinity::Text) != (theirs == Affinity::Text)
    };
    if reference.columns.iter().zip(&columns).any(|(own, (theirs, _))| differ(types(*own, *theirs))) {
        let what = format!(
            "it refers to {:?} by {to} with values of another type: they are not found when the row that they refer to is deleted at another site",
            parent.name
        );
        let advice = "declare the columns alike";
        findings.push(finding(Severity::Warning, Some(&table.name), what, advice));
    }
    Ok(findings)
}

/// Foreign keys to what is not replicated or not a key, and circles of them that no action breaks.
pub(super) fn references(database: &Connection, table: &Table) -> Result<Vec<Finding>, capture::Error> {
    let captured = capture::tables(database)?;
    let mut findings = Vec::new();
    for reference in &table.references {
        let parent = &reference.parent;
        if !captured.is_empty() && !captured.iter().any(|table| table.name == *parent) {
            let what = format!("it refers to {parent:?}, which is not replicated");
            findings.push(finding(Severity::Warning, Some(&table.name), what, "attach that table too"));
        }
        findings.extend(self::reference(database, table, reference)?);
    }
    if let Some(circle) = circle(database, table)? {
        let what = format!("foreign keys without an action go round in a circle: {}", circle.join(" → "));
        let advice =
            "say ON DELETE CASCADE or SET NULL for one of them, so that a parent deleted elsewhere has an outcome";
        findings.push(finding(Severity::Warning, Some(&table.name), what, advice));
    }
    Ok(findings)
}

/// A way from the table back to itself through others, along foreign keys that keep their parents.
fn circle(database: &Connection, table: &Table) -> rusqlite::Result<Option<Vec<String>>> {
    let kept = |references: &[Reference]| {
        let kept = references.iter().filter(|reference| reference.on_delete == OnDelete::Keep);
        kept.map(|reference| reference.parent.clone()).collect::<Vec<_>>()
    };
    let mut seen = HashSet::new();
    let mut ways: Vec<Vec<String>> =
        kept(&table.references).into_iter().map(|parent| vec![table.name.clone(), parent]).collect();
    while let Some(way) = ways.pop() {
        let Some(last) = way.last().cloned() else { continue };
        // A row that refers to another of its own table is common, and ends somewhere.
        if last == table.name && way.len() > 2 {
            return Ok(Some(way));
        }
        if last == table.name || !seen.insert(last.clone()) {
            continue;
        }
        match schema::read(database, &last) {
            Ok(found) => ways
                .extend(kept(&found.table.references).into_iter().map(|parent| [way.clone(), vec![parent]].concat())),
            Err(schema::Error::Sql(error)) => return Err(error),
            // It has a finding of its own.
            Err(_) => {}
        }
    }
    Ok(None)
}
