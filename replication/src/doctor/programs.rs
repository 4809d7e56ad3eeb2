//! What SQLite would run to write a row: whether this program can, and what triggers write besides.

use std::collections::BTreeSet;

use rusqlite::{Connection, config::DbConfig};

use super::{Finding, Severity, finding};
use crate::{
    capture,
    schema::{self, Table, quoted},
};

/// What stands in the way of writing to the table of this name as the agent does, its triggers fired or not. `names` are all
/// replicated tables.
pub(super) fn findings(
    database: &Connection,
    name: &str,
    fires: bool,
    names: &[String],
) -> Result<Vec<Finding>, capture::Error> {
    // What else may be wrong with it is told elsewhere.
    let Ok(found) = schema::read(database, name) else { return Ok(Vec::new()) };
    let settings = [(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, fires), (DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)];
    let before = settings.map(|(setting, _)| database.db_config(setting));
    for (setting, value) in settings {
        database.set_db_config(setting, value)?;
    }
    let statements = statements(&found.table);
    let failed = statements.iter().find_map(|sql| database.prepare(sql).err());
    let written =
        if fires && failed.is_none() { written_by_triggers(database, &statements) } else { Ok(BTreeSet::new()) };
    for ((setting, _), before) in settings.into_iter().zip(before) {
        database.set_db_config(setting, before?)?;
    }
    let mut findings: Vec<Finding> = failed.map(|error| foreign_code(name, fires, &error)).into_iter().collect();
    let replicated = |written: &String| names.iter().any(|name| name.eq_ignore_ascii_case(written));
    findings.extend(written?.iter().filter(|written| replicated(written)).map(|written| doubled(name, written)));
    Ok(findings)
}

/// A table is written by these.
fn statements(table: &Table) -> [String; 3] {
    let columns: Vec<_> = table.columns.iter().map(|column| quoted(&column.name)).collect();
    let (name, list) = (quoted(&table.name), columns.join(", "));
    let same = columns.iter().map(|column| format!("{column} = {column}")).collect::<Vec<_>>().join(", ");
    let key = table.key.iter().map(|column| columns[usize::from(*column)].as_str()).collect::<Vec<_>>().join(", ");
    [
        format!("INSERT INTO main.{name}({list}) SELECT {list} FROM main.{name} ORDER BY {key}"),
        format!("UPDATE main.{name} SET {same}"),
        format!("DELETE FROM main.{name}"),
    ]
}

/// The tables that these statements' triggers open to write. SQLite lists the programs of triggers after the statement's
/// own, each from address 0.
fn written_by_triggers(database: &Connection, statements: &[String]) -> rusqlite::Result<BTreeSet<String>> {
    let mut written = BTreeSet::new();
    for sql in statements {
        let mut explained = database.prepare(&format!("EXPLAIN {sql}"))?;
        let mut steps = explained.query([])?;
        let mut programs = 0;
        while let Some(step) = steps.next()? {
            programs += i32::from(step.get::<_, i64>("addr")? == 0);
            // Of the database main, which is number 0.
            if programs > 1 && step.get_ref("opcode")?.as_str()? == "OpenWrite" && step.get::<_, i64>("p3")? == 0 {
                let of = "SELECT tbl_name FROM main.sqlite_schema WHERE rootpage = ?";
                written.insert(database.query_row(of, [step.get::<_, i64>("p2")?], |row| row.get(0))?);
            }
        }
    }
    Ok(written)
}

/// Functions and collations that only the application knows.
fn foreign_code(table: &str, fires: bool, error: &rusqlite::Error) -> Finding {
    let what = format!("it cannot be written by this program: {error}");
    let columns = "use nothing but SQLite's own functions and collations in its columns, indexes and constraints";
    let advice =
        if fires { format!("{columns}, and in its triggers, which fire here too") } else { columns.to_owned() };
    finding(Severity::Error, Some(table), what, advice)
}

fn doubled(table: &str, written: &str) -> Finding {
    let what =
        format!("its triggers, which fire for what peers have told, write to {written}, which is replicated too");
    let advice = "the peer's own write comes as well, and of the two no site knows which is right: have triggers that fire \
                  write only to tables that each site keeps for itself, or leave fire_triggers off";
    finding(Severity::Error, Some(table), what, advice)
}
