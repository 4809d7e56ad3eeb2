//! The application's own tables: reading and writing single rows by key.

use std::fmt::Write as _;

use rusqlite::{Connection, OptionalExtension, params_from_iter};

use crate::{
    schema::{Table, quoted},
    value::Value,
};

use super::{Error, Rules};

/// A replicated table, with the statements it takes.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) table: Table,
    pub(super) rules: Rules,
    /// Other tables refer to it.
    pub(super) is_parent: bool,
    /// Each column's default, for rows of which a site tells that did not have the column yet.
    pub(super) defaults: Vec<Value>,
    read: String,
    insert: String,
    delete: String,
    matches: String,
    old: String,
}

impl Live {
    pub(super) fn new(database: &Connection, table: Table, rules: Rules, is_parent: bool) -> Result<Self, Error> {
        let name = quoted(&table.name);
        let columns: Vec<String> = table.columns.iter().map(|column| quoted(&column.name)).collect();
        let all = columns.join(",");
        let marks = vec!["?"; columns.len()].join(",");
        let matches: Vec<String> =
            table.key.iter().map(|column| format!("{}=?", columns[usize::from(*column)])).collect();
        let matches = matches.join(" AND ");
        let images: Vec<String> = (0..columns.len()).map(|column| format!("c{column}")).collect();
        let defaults = table.columns.iter().map(|column| column.default_value(database));
        Ok(Self {
            defaults: defaults.collect::<Result<_, _>>()?,
            read: format!("SELECT {all} FROM {name} WHERE {matches}"),
            insert: format!("INSERT INTO {name}({all}) VALUES({marks})"),
            delete: format!("DELETE FROM {name} WHERE {matches}"),
            old: format!("SELECT {} FROM _ssw_old_{} WHERE seq=?", images.join(","), table.number),
            matches,
            table,
            rules,
            is_parent,
        })
    }

    /// The row whose key has exactly these bytes.
    pub(super) fn read(&self, database: &Connection, key: &[Value]) -> Result<Option<Vec<Value>>, Error> {
        let mut statement = database.prepare_cached(&self.read)?;
        let count = self.table.columns.len();
        let found = statement
            .query_row(params_from_iter(key), |row| (0..count).map(|at| Ok(row.get_ref(at)?.into())).collect())
            .optional()?;
        // The column's collation may have found a key that only looks the same.
        Ok(found.filter(|row: &Vec<Value>| {
            self.table.key.iter().zip(key).all(|(column, value)| row[usize::from(*column)] == *value)
        }))
    }

    /// The values that a trigger kept before the row was deleted.
    pub(super) fn old(&self, database: &Connection, seq: i64) -> Result<Option<Vec<Value>>, Error> {
        let count = self.table.columns.len();
        let mut statement = database.prepare_cached(&self.old)?;
        Ok(statement.query_row([seq], |row| (0..count).map(|at| Ok(row.get_ref(at)?.into())).collect()).optional()?)
    }

    pub(super) fn insert<'a>(
        &self,
        database: &Connection,
        values: impl IntoIterator<Item = &'a Value>,
    ) -> Result<(), rusqlite::Error> {
        database.prepare_cached(&self.insert)?.execute(params_from_iter(values))?;
        Ok(())
    }

    /// Sets these columns of the row.
    pub(super) fn update(
        &self,
        database: &Connection,
        key: &[Value],
        columns: &[(u16, &Value)],
    ) -> Result<(), rusqlite::Error> {
        let mut sql = format!("UPDATE {} SET ", quoted(&self.table.name));
        for (at, (column, _)) in columns.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            // A string takes everything.
            let _ = write!(sql, "{comma}{}=?", quoted(&self.table.columns[usize::from(*column)].name));
        }
        let _ = write!(sql, " WHERE {}", self.matches);
        let values = columns.iter().map(|(_, value)| *value).chain(key);
        database.prepare_cached(&sql)?.execute(params_from_iter(values))?;
        Ok(())
    }

    pub(super) fn delete(&self, database: &Connection, key: &[Value]) -> Result<(), rusqlite::Error> {
        database.prepare_cached(&self.delete)?.execute(params_from_iter(key))?;
        Ok(())
    }
}
