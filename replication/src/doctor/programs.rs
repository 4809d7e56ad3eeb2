//! What SQLite would run to write a row: whether this program can, and what triggers write besides.

use std::collections::BTreeSet;

use rusqlite::{Connection, Row, config::DbConfig, ffi::SQLITE_CONSTRAINT_TRIGGER};

use super::{Finding, Severity, finding};
use crate::{
    capture,
    layout::PREFIX,
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
    let fired = if fires && failed.is_none() { Fired::by(database, &statements) } else { Ok(Fired::default()) };
    for ((setting, _), before) in settings.into_iter().zip(before) {
        database.set_db_config(setting, before?)?;
    }
    let mut findings: Vec<Finding> = failed.map(|error| foreign_code(name, fires, &error)).into_iter().collect();
    let fired = fired?;
    let replicated = |written: &String| names.iter().any(|name| name.eq_ignore_ascii_case(written));
    findings.extend(fired.written.iter().filter(|written| replicated(written)).map(|written| doubled(name, written)));
    findings.extend(fired.raising.iter().map(|trigger| raising(name, trigger)));
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

/// What the application's triggers would do.
#[derive(Default)]
struct Fired {
    /// The tables that they open to write.
    written: BTreeSet<String>,
    /// Those that may end a statement with RAISE, by name.
    raising: BTreeSet<String>,
}

impl Fired {
    /// What those that these statements fire would do. SQLite lists the programs of triggers after the statement's own, each
    /// from address 0, where it is named.
    fn by(database: &Connection, statements: &[String]) -> rusqlite::Result<Self> {
        let mut fired = Self::default();
        for sql in statements {
            let mut explained = database.prepare(&format!("EXPLAIN {sql}"))?;
            let mut steps = explained.query([])?;
            let mut trigger = None;
            let mut programs = 0;
            while let Some(step) = steps.next()? {
                if step.get::<_, i64>("addr")? == 0 {
                    programs += 1;
                    let name: Option<String> = step.get("p4")?;
                    trigger = name.and_then(|name| name.strip_prefix("-- TRIGGER ").map(str::to_owned));
                }
                if programs > 1 && !trigger.as_deref().is_some_and(is_ours) {
                    fired.step(database, step, trigger.as_deref())?;
                }
            }
        }
        Ok(fired)
    }

    /// Takes in a step of a program. `trigger`: whose it is; a foreign key's action has no name.
    fn step(&mut self, database: &Connection, step: &Row<'_>, trigger: Option<&str>) -> rusqlite::Result<()> {
        let [p1, p2, p3] = [step.get("p1")?, step.get("p2")?, step.get::<_, i64>("p3")?];
        match step.get_ref("opcode")?.as_str()? {
            // Of the database main, which is number 0.
            "OpenWrite" if p3 == 0 => {
                let of = "SELECT tbl_name FROM main.sqlite_schema WHERE rootpage = ?";
                self.written.insert(database.query_row(of, [p2], |row| row.get(0))?);
            }
            // RAISE(ABORT), FAIL and ROLLBACK end with this code, and RAISE(IGNORE) without one.
            "Halt" if p1 == i64::from(SQLITE_CONSTRAINT_TRIGGER) || (p1 == 0 && p2 == OE_IGNORE) => {
                self.raising.extend(trigger.map(str::to_owned));
            }
            _ => {}
        }
        Ok(())
    }
}

/// RAISE(IGNORE), as SQLite numbers it.
const OE_IGNORE: i64 = 4;

fn is_ours(trigger: &str) -> bool {
    trigger.starts_with(PREFIX)
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

fn raising(table: &str, trigger: &str) -> Finding {
    let what = format!("trigger {trigger:?}, which fires for what peers have told, may refuse that with RAISE");
    let advice = "what comes of two sites' changes no site could check; where it is refused, nothing more is taken from that \
                  peer until it is not: make it a CHECK constraint, which binds applications alone, or leave fire_triggers off";
    finding(Severity::Warning, Some(table), what, advice)
}
