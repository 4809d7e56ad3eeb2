//! Reads what a table looks like from the database that holds it.

use std::collections::{BTreeMap, HashSet};

use rusqlite::{Connection, OptionalExtension, Params, Row};

use super::{
    Column, MAX_COLUMNS, MAX_KEY, Table,
    bases::{Base, Bases},
    constraints::{can_collide, computed_defaults, disjoint, foreign_keys, unique_indexes},
    sql::{self, Expressions},
};
use crate::layout::PREFIX;

/// Why a table cannot be replicated, or could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is called so.
    #[error("there is no table {0:?} in this database")]
    Missing(String),
    /// A view, a virtual table, a shadow of one, or one of SQLite's or ours.
    #[error("{name:?} is {kind}: only ordinary tables can be replicated")]
    NotOrdinary {
        /// What was asked for.
        name: String,
        /// What it is.
        kind: &'static str,
    },
    /// No primary key.
    #[error("table {0:?} has no primary key, so its rows cannot be told apart at another site: give it one")]
    NoKey(String),
    /// Too many columns in the primary key.
    #[error("table {name:?} has {columns} columns in its primary key, and at most {MAX_KEY} can be replicated")]
    LongKey {
        /// The table.
        name: String,
        /// Columns in its key.
        columns: usize,
    },
    /// Too many columns.
    #[error("table {name:?} has {columns} columns, and at most {MAX_COLUMNS} can be replicated")]
    Wide {
        /// The table.
        name: String,
        /// Its columns.
        columns: usize,
    },
    /// SQLite's word.
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
}

/// What was read of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The table. Its number is 0: nobody has given it one.
    pub table: Table,
    /// What of the schema is not in it.
    pub left_out: Vec<LeftOut>,
}

/// Something that neither triggers nor merge can take into account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// A UNIQUE index that is partial, or over an expression or a generated column.
    Unique {
        /// The index.
        index: String,
        /// What it is.
        kind: &'static str,
    },
    /// A foreign key of a generated column, or to a parent that is not there or has no primary key to refer to.
    Reference {
        /// The table referred to.
        parent: String,
        /// What is the matter.
        why: &'static str,
    },
    /// The default of a unique NOT NULL column that is computed: a NULL becomes this under OR REPLACE, after BEFORE
    /// triggers have seen it.
    Default {
        /// The column.
        column: String,
    },
}

/// The ordinary tables of this database that are neither SQLite's nor ours, in the order of their names.
///
/// # Errors
/// Whatever SQLite says.
pub fn names(database: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' ORDER BY name";
    let mut names = query(database, sql, [], |row| row.get::<_, String>(0))?;
    names.retain(|name| !is_internal(name));
    Ok(names)
}

fn is_internal(name: &str) -> bool {
    let begins = |prefix: &str| name.get(..prefix.len()).is_some_and(|front| front.eq_ignore_ascii_case(prefix));
    begins("sqlite_") || begins(PREFIX)
}

/// Reads a table of the main database.
///
/// # Errors
/// It cannot be replicated, or whatever SQLite says.
pub fn read(database: &Connection, name: &str) -> Result<Found, Error> {
    let (name, without_rowid) = ordinary(database, name)?;
    let Shape { columns, key, bases, checks } = Shape::read(database, &name)?;
    if key.is_empty() {
        return Err(Error::NoKey(name));
    } else if key.len() > MAX_KEY {
        return Err(Error::LongKey { name, columns: key.len() });
    } else if columns.len() > MAX_COLUMNS {
        return Err(Error::Wide { name, columns: columns.len() });
    }
    let (uniques, otherwise_unique, references, together) = (Vec::new(), None, Vec::new(), Vec::new());
    let counters = Vec::new();
    let key = key.into_values().collect();
    let mut table = Table {
        number: 0,
        name,
        columns,
        key,
        uniques,
        otherwise_unique,
        references,
        together,
        without_rowid,
        counters,
    };
    let mut left_out = Vec::new();
    let mut sets = Vec::new();

    let indexes = unique_indexes(database, &table.name)?;
    if let [only] = table.key[..]
        && !without_rowid
        && !indexes.iter().any(|index| index.primary)
    {
        // The rowid under another name is never NULL.
        table.columns[usize::from(only)].not_null = true;
    }
    for index in indexes {
        sets.push(index.places.iter().flat_map(|place| bases.of(*place)).collect());
        let named = index.named(database, &bases)?;
        match index.unique(&bases) {
            Ok(unique) if !unique.primary || can_collide(&table, &unique) => table.uniques.push(unique),
            Ok(_) => {}
            Err(left) => {
                table.otherwise_unique.get_or_insert_default().extend(named);
                left_out.push(left);
            }
        }
    }
    for foreign in foreign_keys(database, &table.name)? {
        sets.push(foreign.children().flat_map(|child| bases.named(child)).collect());
        match foreign.reference(database, &table)? {
            Ok(reference) => table.references.push(reference),
            Err(left) => left_out.push(left),
        }
    }
    sets.extend(checks.iter().map(|names| names.iter().flat_map(|name| bases.named(name)).collect()));
    table.together = disjoint(sets, &table.key);
    left_out.extend(computed_defaults(&table));
    Ok(Found { table, left_out })
}

/// The table's name as it is spelled, and whether it has no rowid.
fn ordinary(database: &Connection, name: &str) -> Result<(String, bool), Error> {
    let sql = "SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE";
    let found = database
        .query_row(sql, [name], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get(2)?)))
        .optional()?;
    let Some((spelled, kind, without_rowid)) = found else {
        return Err(Error::Missing(name.to_owned()));
    };
    let kind = match kind.as_str() {
        "table" if !is_internal(&spelled) => return Ok((spelled, without_rowid)),
        "table" => "internal",
        "view" => "a view",
        "virtual" => "a virtual table",
        _ => "part of a virtual table",
    };
    Err(Error::NotOrdinary { name: spelled, kind })
}

/// Is there an ordinary table of this name?
///
/// # Errors
/// Whatever SQLite says.
fn exists(database: &Connection, name: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name = ?1 COLLATE NOCASE";
    database.prepare_cached(sql)?.exists([name])
}

/// Is there a table of this name that has these columns, whatever else it has?
pub fn has_columns(database: &Connection, table: &Table) -> rusqlite::Result<bool> {
    let sql = "SELECT name FROM pragma_table_xinfo(?1, 'main')";
    let mut columns = database.prepare_cached(sql)?;
    let names = columns.query_map([&table.name], |row| row.get(0))?.collect::<rusqlite::Result<HashSet<String>>>()?;
    Ok(exists(database, &table.name)? && table.columns.iter().all(|column| names.contains(&column.name)))
}

/// A table's columns and the names in its expressions.
struct Shape {
    columns: Vec<Column>,
    /// Place in the primary key, from 1, and place among `columns`.
    key: BTreeMap<i64, u16>,
    bases: Bases,
    checks: Vec<sql::Names>,
}

impl Shape {
    fn read(database: &Connection, name: &str) -> Result<Self, Error> {
        let text = "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?1";
        let text: String = database.query_row(text, [name], |row| row.get(0))?;
        let Expressions { checks, generated } = sql::expressions(&text);
        let mut shape = Self { columns: Vec::new(), key: BTreeMap::new(), bases: Bases::default(), checks };
        let mut needed = Vec::new();
        let sql =
            "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1, 'main') ORDER BY cid";
        query(database, sql, [name], |row| {
            let column = Column {
                name: row.get(0)?,
                declared: row.get(1)?,
                not_null: row.get(2)?,
                default: row.get(3)?,
                needed: false,
            };
            if row.get::<_, i64>(5)? == 0 {
                // SQLite allows 32767 columns at most.
                let place = u16::try_from(shape.columns.len()).unwrap_or(u16::MAX);
                if let key @ 1.. = row.get(4)? {
                    shape.key.insert(key, place);
                }
                shape.bases.push(&column.name, Base::Column(place));
                shape.columns.push(column);
            } else {
                let own = generated.iter().find(|(of, _)| of.eq_ignore_ascii_case(&column.name));
                let from = own.map(|(_, from)| from.clone()).unwrap_or_default();
                if column.not_null {
                    // As a CHECK, but one that is not left to applications.
                    needed.extend(from.iter().cloned());
                    shape.checks.push(from.clone());
                }
                shape.bases.push(&column.name, Base::Generated(from));
            }
            Ok(())
        })?;
        for column in needed.iter().flat_map(|name| shape.bases.named(name)).collect::<Vec<_>>() {
            shape.columns[usize::from(column)].needed = true;
        }
        Ok(shape)
    }
}

/// The table's triggers, but ours, that are fired AFTER a row was changed and may say `RAISE(IGNORE)`, by name.
///
/// # Errors
/// Whatever SQLite says.
pub fn ignoring_triggers(database: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT name, sql FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE ORDER BY name";
    let mut found = query(database, sql, [table], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    found.retain(|(name, text)| !is_internal(name) && sql::ignores_afterwards(text));
    Ok(found.into_iter().map(|(name, _)| name).collect())
}

/// Does the table say of some constraint what to do ON CONFLICT?
///
/// # Errors
/// Whatever SQLite says.
pub fn has_conflict_clauses(database: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
    let text: Option<String> = database.query_row(sql, [table], |row| row.get(0)).optional()?;
    Ok(text.is_some_and(|text| sql::has_conflict_clauses(&text)))
}

/// All rows of a query.
pub(super) fn query<T>(
    database: &Connection,
    sql: &str,
    parameters: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    database.prepare_cached(sql)?.query_map(parameters, read)?.collect()
}
