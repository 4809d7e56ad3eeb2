//! Compares what is captured with what is there.

use std::{collections::HashMap, fmt};

use rusqlite::{Connection, Transaction};

use super::{
    Error,
    attach::{exists, tables},
    triggers::{differs, images, list, name, triggers, unverified},
};
use crate::{
    layout,
    schema::{self, MASK_BITS, Table, quoted},
};

/// A table that is not as it was when it was attached or refreshed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// The table's name when it was attached.
    pub table: String,
    /// What is different.
    pub difference: Difference,
}

/// How a table departs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A trigger or table of ours is not there.
    Missing(String),
    /// A trigger of ours is another than it should be.
    Altered(String),
    /// A column was added.
    Added(String),
    /// UNIQUE indexes were made or dropped.
    Uniques,
    /// It is no longer the same in a way that needs both sites' agreement.
    Schema(String),
    /// There is no such table any more.
    Gone,
    /// It is not captured, though all tables are to be.
    New,
}

impl Difference {
    /// Can [`refresh`] mend it?
    pub fn is_mended_by_refresh(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::Altered(_) | Self::Added(_) | Self::Uniques)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "{name} is missing"),
            Self::Altered(name) => write!(f, "{name} is not as it was made"),
            Self::Added(column) => write!(f, "column {column:?} was added"),
            Self::Uniques => write!(f, "its UNIQUE indexes changed"),
            Self::Schema(what) => write!(f, "{what}"),
            Self::Gone => write!(f, "it is gone"),
            Self::New => write!(f, "it is not attached"),
        }
    }
}

/// What is not as it was. With `all`, tables that are not captured are named too.
///
/// # Errors
/// Whatever SQLite says, or what is stored is not ours.
pub fn inspect(database: &Connection, all: bool) -> Result<Vec<Departure>, Error> {
    let tables = tables(database)?;
    let mut departures = Vec::new();
    for table in &tables {
        let differences = differences(database, table)?.into_iter();
        departures.extend(differences.map(|difference| Departure { table: table.name.clone(), difference }));
    }
    if all {
        let mut names = schema::names(database)?;
        names.retain(|name| !tables.iter().any(|table| table.name == *name));
        departures.extend(names.into_iter().map(|table| Departure { table, difference: Difference::New }));
    }
    Ok(departures)
}

fn differences(database: &Connection, table: &Table) -> Result<Vec<Difference>, Error> {
    let mut differences = match schema::read(database, &table.name) {
        Ok(found) => compare(table, &found.table),
        Err(schema::Error::Missing(_)) => vec![Difference::Gone],
        Err(schema::Error::Sql(error)) => return Err(error.into()),
        Err(unfit) => vec![Difference::Schema(unfit.to_string())],
    };
    let sql = "SELECT name, sql FROM main.sqlite_schema WHERE type = 'trigger' AND substr(name, 1, 5) = '_ssw_'";
    let mut statement = database.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let present = rows.collect::<rusqlite::Result<HashMap<String, String>>>()?;
    for trigger in triggers(table) {
        match present.get(&trigger.name) {
            None => differences.push(Difference::Missing(trigger.name)),
            Some(sql) if *sql != trigger.sql => differences.push(Difference::Altered(trigger.name)),
            Some(_) => {}
        }
    }
    if !exists(database, "table", &images(table))? {
        differences.push(Difference::Missing(images(table)));
    }
    Ok(differences)
}

/// How a table's shape departs from the one stored.
pub(super) fn compare(stored: &Table, found: &Table) -> Vec<Difference> {
    let mut differences = Vec::new();
    for (at, column) in stored.columns.iter().enumerate() {
        match found.columns.get(at) {
            None => differences.push(Difference::Schema(format!("column {:?} is gone", column.name))),
            Some(now) if now.name != column.name => {
                differences.push(Difference::Schema(format!("column {:?} is now {:?}", column.name, now.name)));
            }
            Some(now) if now != column => {
                differences.push(Difference::Schema(format!("column {:?} is declared otherwise", column.name)));
            }
            Some(_) => {}
        }
    }
    let old = |column: &u16| usize::from(*column) < stored.columns.len();
    let references = found.references.iter().filter(|reference| reference.columns.iter().any(old));
    let added = found.columns.len() > stored.columns.len();
    let schema = |what: &str| Difference::Schema(what.to_owned());
    if (&stored.key, stored.without_rowid) != (&found.key, found.without_rowid) {
        differences.push(schema("its primary key changed"));
    }
    if !references.eq(&stored.references) {
        differences.push(schema("its foreign keys changed"));
    }
    if (&stored.uniques, &stored.otherwise_unique) != (&found.uniques, &found.otherwise_unique) {
        differences.push(Difference::Uniques);
    } else if stored.together != found.together && !added {
        differences.push(schema("its CHECK constraints changed"));
    }
    differences
        .extend(found.columns.iter().skip(stored.columns.len()).map(|column| Difference::Added(column.name.clone())));
    differences
}

/// Installs triggers that are missing or altered, and takes up added columns and changed UNIQUE indexes. Tables that
/// depart in another way are left as they are. Returns the tables that must be compared with a peer's, because something
/// may have been missed; they are marked until that is done.
///
/// A column that was added needs no comparison if this comes before the next fold.
///
/// # Errors
/// Whatever SQLite says, or what is stored is not ours.
pub fn refresh(transaction: &Transaction<'_>) -> Result<Vec<String>, Error> {
    let mut scan = Vec::new();
    for table in tables(transaction)? {
        let differences = differences(transaction, &table)?;
        if differences.is_empty() || !differences.iter().all(Difference::is_mended_by_refresh) {
            continue;
        }
        let found = Table {
            number: table.number,
            counters: table.counters.clone(),
            ..schema::read(transaction, &table.name)?.table
        };
        reinstall(transaction, &table, &found)?;
        if differences.iter().any(|difference| !matches!(difference, Difference::Added(_))) {
            doubt(transaction, &table)?;
            scan.push(table.name);
        }
    }
    Ok(scan)
}

/// From now on updates of these columns record what they were, and those of others do not.
///
/// Of the triggers that one statement fires SQLite runs the youngest first. What one of the application's that is younger
/// than ours does to a counter comes to be recorded before what the statement did itself, and nobody can tell from that what
/// the counter was. So ours are made anew then, and what was recorded meanwhile counts as given, not as added.
///
/// # Errors
/// Whatever SQLite says, or what is stored is not ours.
pub fn count(transaction: &Transaction<'_>, table: &Table, counters: Vec<u16>) -> Result<(), Error> {
    let overtaken = !table.counters.is_empty() && is_overtaken(transaction, table)?;
    if (table.counters == counters && !overtaken) || !is_as_stored(transaction, table)? {
        return Ok(());
    }
    layout::fit_touches(transaction, table.key.len(), counters.len())?;
    let before = |column| table.counters.iter().position(|before| before == column && !overtaken);
    let moves = (0..).zip(&counters).map(|(place, column)| match before(column) {
        Some(before) => format!("c{place} = c{before}"),
        None => format!("c{place} = NULL"),
    });
    if !counters.is_empty() {
        let sql = format!("UPDATE _ssw_touch SET {} WHERE tbl = ? AND what >= 0", list(moves));
        transaction.execute(&sql, [table.number])?;
    }
    reinstall(transaction, table, &Table { counters, ..table.clone() })
}

/// Has it the columns that our triggers name? If not, made anew they would make every write of an application's fail.
fn is_as_stored(database: &Connection, table: &Table) -> Result<bool, Error> {
    match schema::read(database, &table.name) {
        Ok(found) => Ok(compare(table, &found.table).iter().all(Difference::is_mended_by_refresh)),
        Err(schema::Error::Sql(error)) => Err(error.into()),
        Err(_) => Ok(false),
    }
}

/// Is a trigger of the application's younger than the one of ours that records counters?
fn is_overtaken(database: &Connection, table: &Table) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE
               AND substr(name, 1, 5) <> '_ssw_'
               AND rowid > (SELECT rowid FROM main.sqlite_schema WHERE type = 'trigger' AND name = ?2)";
    database.prepare_cached(sql)?.exists([&table.name, &name("u", table)])
}

/// Tables that are there without all of our triggers.
///
/// # Errors
/// Whatever SQLite says, or what is stored is not ours.
pub fn unarmed(database: &Connection) -> Result<Vec<Table>, Error> {
    let mut all = Vec::new();
    for table in tables(database)? {
        let missing = |difference: &Difference| matches!(difference, Difference::Missing(_) | Difference::Altered(_));
        let differences = differences(database, &table)?;
        if !differences.contains(&Difference::Gone) && differences.iter().any(missing) {
            all.push(table);
        }
    }
    Ok(all)
}

/// Marks a table: something may have been missed, until it is compared with a peer's.
///
/// # Errors
/// Whatever SQLite says.
pub fn doubt(transaction: &Transaction<'_>, table: &Table) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO _ssw_meta(k, v) VALUES(?1, 1) ON CONFLICT(k) DO UPDATE SET v = v + 1",
        [unverified(table)],
    )?;
    Ok(())
}

fn reinstall(transaction: &Transaction<'_>, stored: &Table, found: &Table) -> Result<(), Error> {
    for trigger in triggers(stored) {
        transaction.execute_batch(&format!("DROP TRIGGER IF EXISTS {}", quoted(&trigger.name)))?;
    }
    let images = images(found);
    transaction.execute_batch(&format!("CREATE TABLE IF NOT EXISTS {}(seq INTEGER PRIMARY KEY)", quoted(&images)))?;
    let columns = "SELECT count(*) FROM pragma_table_info(?1, 'main') WHERE name <> 'seq'";
    let have: u32 = transaction.query_row(columns, [&images], |row| row.get(0))?;
    for column in (0..found.columns.len()).skip(have as usize) {
        transaction.execute_batch(&format!("ALTER TABLE {} ADD COLUMN c{column}", quoted(&images)))?;
    }
    for trigger in triggers(found) {
        transaction.execute_batch(&trigger.sql)?;
    }
    for column in stored.columns.len()..found.columns.len() {
        take_up(transaction, found, column)?;
    }
    let sql = "UPDATE _ssw_table SET schema = ?2 WHERE number = ?1";
    transaction.execute(sql, (found.number, serde_json::to_string(found)?))?;
    Ok(())
}

/// What was recorded since a column was added, by triggers that did not know it: an updated row in which it is not the
/// default has been given that value since. The others must not count as changes of it: at another site, which had the
/// column earlier, somebody may have given it a value by now. A deleted row had the default, as far as anybody knows.
fn take_up(transaction: &Transaction<'_>, table: &Table, at: usize) -> Result<(), Error> {
    let column = &table.columns[at];
    let default = column.default_value(transaction)?;
    let sql = format!(
        "UPDATE _ssw_touch SET what = what | ?2 WHERE tbl = ?1 AND what >= 0 AND EXISTS(
           SELECT 1 FROM {} AS x WHERE {} AND ({}))",
        quoted(&table.name),
        table.key_equals("x.", |part| format!("_ssw_touch.k{part}")),
        differs(column, &format!("x.{}", quoted(&column.name)), "?3"),
    );
    transaction.execute(&sql, (table.number, 1_i64 << at.min(MASK_BITS), &default))?;
    transaction.execute(&format!("UPDATE {} SET c{at} = ?1", quoted(&images(table))), [default])?;
    Ok(())
}
