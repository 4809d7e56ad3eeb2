//! The application's own tables: reading and writing single rows by key.

use rusqlite::{CachedStatement, Connection, OptionalExtension, Statement, params_from_iter};

use crate::{
    schema::{MAX_KEY, Table, quoted},
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
    /// The beginning of an UPDATE, what sets each column, and the end.
    update: (String, Vec<String>, String),
    old: String,
    touches: String,
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
        let parts: Vec<String> = (0..table.key.len().min(MAX_KEY)).map(|part| format!("k{part}")).collect();
        let parts = parts.join(",");
        let defaults = table.columns.iter().map(|column| column.default_value(database));
        Ok(Self {
            defaults: defaults.collect::<Result<_, _>>()?,
            read: format!("SELECT {all} FROM {name} WHERE {matches}"),
            insert: format!("INSERT INTO {name}({all}) VALUES({marks})"),
            delete: format!("DELETE FROM {name} WHERE {matches}"),
            update: (
                format!("UPDATE {name} SET "),
                columns.iter().map(|column| format!("{column}=?")).collect(),
                format!(" WHERE {matches}"),
            ),
            old: format!("SELECT {} FROM _ssw_old_{} WHERE seq=?", images.join(","), table.number),
            touches: format!(
                "SELECT seq, op, mask, {parts} FROM _ssw_touch WHERE seq > ? AND tbl = {} ORDER BY {parts}, seq",
                table.number
            ),
            table,
            rules,
            is_parent,
        })
    }

    /// The row whose key has exactly these bytes.
    pub(super) fn read(&self, database: &Connection, key: &[Value]) -> Result<Option<Vec<Value>>, Error> {
        let mut reader = self.reader(database)?;
        self.read_by(&mut reader, key)
    }

    /// The statement of `read_by`, for one row after the other.
    pub(super) fn reader<'a>(&self, database: &'a Connection) -> Result<CachedStatement<'a>, Error> {
        Ok(database.prepare_cached(&self.read)?)
    }

    pub(super) fn read_by(&self, reader: &mut Statement<'_>, key: &[Value]) -> Result<Option<Vec<Value>>, Error> {
        let mut rows = reader.query(params_from_iter(key))?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let mut values = Vec::with_capacity(self.table.columns.len());
        for at in 0..self.table.columns.len() {
            values.push(row.get_ref(at)?.into());
        }
        // The column's collation may have found a key that only looks the same.
        let same = self.table.key.iter().zip(key).all(|(column, value)| values[usize::from(*column)] == *value);
        Ok(same.then_some(values))
    }

    /// All touches after one, those of one row together and in the order in which they were made: number, kind, mask, key.
    pub(super) fn touches<'a>(&self, database: &'a Connection) -> Result<CachedStatement<'a>, Error> {
        Ok(database.prepare_cached(&self.touches)?)
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
        self.inserter(database)?.execute(params_from_iter(values)).map(drop)
    }

    /// The statement that inserts all columns' values, for one row after the other.
    pub(super) fn inserter<'a>(&self, database: &'a Connection) -> Result<CachedStatement<'a>, rusqlite::Error> {
        database.prepare_cached(&self.insert)
    }

    /// Sets these columns of the row.
    pub(super) fn update(
        &self,
        database: &Connection,
        key: &[Value],
        columns: &[(u16, &Value)],
    ) -> Result<(), rusqlite::Error> {
        let (begin, sets, end) = &self.update;
        let mut sql = String::with_capacity(128);
        sql += begin;
        for (at, (column, _)) in columns.iter().enumerate() {
            sql += if at == 0 { "" } else { "," };
            sql += &sets[usize::from(*column)];
        }
        sql += end;
        let values = columns.iter().map(|(_, value)| *value).chain(key);
        database.prepare_cached(&sql)?.execute(params_from_iter(values))?;
        Ok(())
    }

    pub(super) fn delete(&self, database: &Connection, key: &[Value]) -> Result<(), rusqlite::Error> {
        database.prepare_cached(&self.delete)?.execute(params_from_iter(key))?;
        Ok(())
    }
}
