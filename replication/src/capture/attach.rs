//! Begins and ends the capture of tables.

use rusqlite::{Connection, OptionalExtension, Transaction};

use super::{
    Error,
    inspect::{compare, count, refresh},
    refuse::refuse,
    triggers::{images, list, name, rebuilt, triggers, unverified},
};
use crate::{
    layout,
    schema::{self, MASK_BITS, Table, quoted},
};

/// Tables that somebody asks for.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// All ordinary tables; views, virtual tables and their parts are left out.
    All,
    /// These.
    Named(&'a [String]),
}

impl Wanted<'_> {
    /// Is this table one of them?
    pub fn includes(&self, table: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|name| name.eq_ignore_ascii_case(table)),
        }
    }
}

/// Captures tables from now on, besides those that are captured already; returns all of them. What the tables hold now
/// is not recorded.
///
/// # Errors
/// A table cannot be replicated, or is attached already and has changed since. The transaction should then be rolled
/// back.
pub fn attach(transaction: &Transaction<'_>, wanted: Wanted<'_>) -> Result<Vec<Table>, Error> {
    check_layout(transaction)?;
    layout::create(transaction)?;
    let names = match wanted {
        Wanted::All => schema::names(transaction)?,
        Wanted::Named(names) => names.to_vec(),
    };
    let stored = tables(transaction)?;
    for name in names {
        let found = schema::read(transaction, &name)?.table;
        match stored.iter().find(|table| table.name == found.name) {
            None => capture(transaction, found)?,
            Some(stored) => {
                if let Some(what) = compare(stored, &found).first() {
                    return Err(Error::Changed { table: name, what: what.to_string() });
                }
            }
        }
    }
    tables(transaction)
}

/// Can this version of siteswap read what is kept in the database, if anything is?
///
/// # Errors
/// `Layout`, or whatever SQLite says.
pub fn check_layout(database: &Connection) -> Result<(), Error> {
    if !is_attached(database)? {
        return Ok(());
    }
    match layout::version(database)? {
        layout::VERSION => Ok(()),
        found => Err(Error::Layout { found }),
    }
}

fn capture(transaction: &Transaction<'_>, mut table: Table) -> Result<(), Error> {
    table.number = next_number(transaction)?;
    layout::fit_touches(transaction, table.key.len(), 0)?;
    let values = list((0..table.columns.len()).map(|column| format!("c{column}")));
    transaction
        .execute_batch(&format!("CREATE TABLE {}(seq INTEGER PRIMARY KEY, {values})", quoted(&images(&table))))?;
    for trigger in triggers(&table) {
        transaction.execute_batch(&trigger.sql)?;
    }
    let sql = "INSERT INTO _ssw_table(number, name, schema) VALUES(?1, ?2, ?3)";
    transaction.execute(sql, (table.number, &table.name, serde_json::to_string(&table)?))?;
    Ok(())
}

/// A number that no table here ever had, because changes of a table that is gone may still be known under its own.
fn next_number(transaction: &Transaction<'_>) -> rusqlite::Result<u32> {
    transaction.execute("INSERT OR IGNORE INTO _ssw_meta(k, v) VALUES('tables', 0)", [])?;
    transaction.execute("UPDATE _ssw_meta SET v = v + 1 WHERE k = 'tables'", [])?;
    transaction.query_row("SELECT v FROM _ssw_meta WHERE k = 'tables'", [], |row| row.get(0))
}

/// The tables that are captured, as they were when they were attached or refreshed, in the order of their numbers.
///
/// # Errors
/// Something else than ours is stored, or whatever SQLite says.
pub fn tables(database: &Connection) -> Result<Vec<Table>, Error> {
    if !is_attached(database)? {
        return Ok(Vec::new());
    }
    let mut statement = database.prepare_cached("SELECT schema FROM _ssw_table ORDER BY number")?;
    let mut tables = Vec::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        tables.push(serde_json::from_str(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?);
    }
    Ok(tables)
}

/// Is there anything of ours in the database?
///
/// # Errors
/// Whatever SQLite says.
pub fn is_attached(database: &Connection) -> rusqlite::Result<bool> {
    exists(database, "table", "_ssw_table")
}

/// Is there something of this type and name?
pub(super) fn exists(database: &Connection, kind: &str, name: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM main.sqlite_schema WHERE type = ?1 AND name = ?2";
    Ok(database.query_row(sql, [kind, name], |_| Ok(())).optional()?.is_some())
}

/// Ends the capture of tables, and forgets what is recorded of them. With [`Wanted::All`] nothing of ours is left in the
/// database; what is not ours stays as it is, byte for byte.
///
/// # Errors
/// A named table is not captured, or whatever SQLite says.
pub fn detach(transaction: &Transaction<'_>, wanted: Wanted<'_>) -> Result<(), Error> {
    let Wanted::Named(names) = wanted else { return Ok(drop_ours(transaction)?) };
    let tables = tables(transaction)?;
    if let Some(name) = names.iter().find(|name| !tables.iter().any(|table| table.name.eq_ignore_ascii_case(name))) {
        return Err(Error::NotAttached(name.clone()));
    }
    for table in tables.iter().filter(|table| wanted.includes(&table.name)) {
        release(transaction, table)?;
    }
    Ok(())
}

/// Forgets all tables and what is known of their rows, and captures them as they are now, under new numbers. Returns them.
///
/// # Errors
/// As [`attach`].
pub fn anew(transaction: &Transaction<'_>, wanted: Wanted<'_>) -> Result<Vec<Table>, Error> {
    let before = tables(transaction)?;
    for table in &before {
        release(transaction, table)?;
    }
    attach(transaction, wanted)?;
    for table in tables(transaction)? {
        // Counters go on as such, as far as they are there; or what is written before an agent looks were given.
        if let Some(old) = before.iter().find(|old| old.name == table.name) {
            let name = |column: &u16| old.columns.get(usize::from(*column)).map(|column| &column.name);
            let mut counters: Vec<u16> =
                old.counters.iter().filter_map(name).filter_map(|name| table.column(name)).collect();
            counters.retain(|column| usize::from(*column) < MASK_BITS && !table.in_key(*column));
            counters.sort_unstable();
            count(transaction, &table, counters)?;
        }
    }
    tables(transaction)
}

/// Goes on capturing all tables after they were [`disarm`]ed and writes to them refused, and captures those that are wanted
/// besides. What is known of rows stays. Returns them all.
///
/// # Errors
/// As [`attach`].
pub fn resume(transaction: &Transaction<'_>, wanted: Wanted<'_>) -> Result<Vec<Table>, Error> {
    for table in tables(transaction)? {
        disarm(transaction, &table)?;
        refuse(transaction, &table, None)?;
        for trigger in triggers(&table) {
            transaction.execute_batch(&trigger.sql)?;
        }
    }
    refresh(transaction)?;
    attach(transaction, wanted)
}

/// Takes the triggers that record off a table.
///
/// # Errors
/// Whatever SQLite says.
pub fn disarm(transaction: &Transaction<'_>, table: &Table) -> rusqlite::Result<()> {
    drop_triggers(transaction, table, &["i", "u", "k", "d", "vi", "vu"])
}

fn drop_triggers(transaction: &Transaction<'_>, table: &Table, kinds: &[&str]) -> rusqlite::Result<()> {
    kinds.iter().try_for_each(|kind| {
        transaction.execute_batch(&format!("DROP TRIGGER IF EXISTS {}", quoted(&name(kind, table))))
    })
}

fn release(transaction: &Transaction<'_>, table: &Table) -> rusqlite::Result<()> {
    disarm(transaction, table)?;
    drop_triggers(transaction, table, &["ri", "ru", "rd"])?;
    transaction.execute_batch(&format!("DROP TABLE IF EXISTS {}", quoted(&images(table))))?;
    let marks = [unverified(table), rebuilt(table)];
    transaction.execute("DELETE FROM _ssw_meta WHERE k IN (?1, ?2)", marks)?;
    // The newest touch stays, so that the next one's number is higher.
    let touches = "DELETE FROM _ssw_touch WHERE tbl = ?1 AND seq < (SELECT max(seq) FROM _ssw_touch)";
    for sql in [
        touches,
        "DELETE FROM _ssw_change WHERE tbl = ?1",
        "DELETE FROM _ssw_row WHERE tbl = ?1",
        "DELETE FROM _ssw_table WHERE number = ?1",
    ] {
        transaction.execute(sql, [table.number])?;
    }
    Ok(())
}

/// Drops every trigger and table of ours.
fn drop_ours(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let sql =
        "SELECT type, name FROM main.sqlite_schema WHERE type IN ('table', 'trigger') AND substr(name, 1, 5) = '_ssw_'
               ORDER BY type DESC";
    let mut statement = transaction.prepare(sql)?;
    let ours = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    for (kind, name) in ours.collect::<rusqlite::Result<Vec<(String, String)>>>()? {
        transaction.execute_batch(&format!("DROP {kind} {}", quoted(&name)))?;
    }
    Ok(())
}
