//! Columns with a rule of their own: counters, and those of which the smallest or greatest value stays.

use rusqlite::{Connection, OptionalExtension};

use crate::{
    merge::{Extreme, Extremes},
    schema::{MASK_BITS, Table},
};

use super::{ColumnRule, Error, Rules};

/// A table's columns that have a rule of their own.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ruled {
    /// In ascending order.
    pub(crate) counters: Vec<u16>,
    pub(crate) extremes: Extremes,
}

impl Ruled {
    /// Finds them in the table.
    ///
    /// # Errors
    /// `Column`: one is not there, or cannot have such a rule. `Sqlite`.
    pub(crate) fn find(database: &Connection, table: &Table, rules: &Rules) -> Result<Self, Error> {
        let mut ruled = Self::default();
        for (name, rule) in &rules.columns {
            let Some(column) = table.column(name) else {
                match missing(database, table, name)? {
                    Some(why) => return Err(refused(table, name, why)),
                    None => continue,
                }
            };
            if let Some(why) = unfit(table, column) {
                return Err(refused(table, name, why));
            }
            match rule {
                ColumnRule::Counter => ruled.counters.push(column),
                ColumnRule::Min => drop(ruled.extremes.insert(column, Extreme::Min)),
                ColumnRule::Max => drop(ruled.extremes.insert(column, Extreme::Max)),
            }
        }
        ruled.counters.sort_unstable();
        Ok(ruled)
    }
}

fn refused(table: &Table, column: &str, why: &'static str) -> Error {
    Error::Column { table: table.name.clone(), column: column.to_owned(), why }
}

/// Why a column is not captured. `None`: it was added a moment ago, and will be.
fn missing(database: &Connection, table: &Table, name: &str) -> Result<Option<&'static str>, Error> {
    let sql = "SELECT hidden FROM pragma_table_xinfo(?1, 'main') WHERE name = ?2 COLLATE NOCASE";
    let hidden = database.prepare_cached(sql)?.query_row([&table.name, name], |row| row.get(0)).optional()?;
    Ok(match hidden {
        Some(0) => None,
        Some(_) => Some("it is generated from others, and follows them"),
        None => Some("there is no such column; add it to the table first"),
    })
}

/// Why a column cannot have such a rule: two sites must be able to join what they gave it without looking at another.
fn unfit(table: &Table, column: u16) -> Option<&'static str> {
    let unique = table.uniques.iter().flat_map(|unique| &unique.columns).map(|(column, _)| column);
    let otherwise = table.otherwise_unique.iter().flatten();
    let refers = table.references.iter().flat_map(|reference| &reference.columns);
    if table.in_key(column) {
        Some("it is part of the primary key, by which rows are told apart")
    } else if unique.chain(otherwise).any(|other| *other == column) {
        Some("it is part of a UNIQUE index: of two rows with one value the newer must be known")
    } else if refers.into_iter().any(|other| *other == column) {
        Some("it is part of a foreign key: what two sites wrote might come to a row that is not there")
    } else if usize::from(column) >= MASK_BITS {
        Some("the columns behind the first 62 are not told apart; have it come first")
    } else {
        None
    }
}
