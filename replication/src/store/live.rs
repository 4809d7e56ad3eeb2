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
    images: String,
    /// What reads touches, and the key by which it sorts them.
    touches: (String, String),
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
            images: format!("SELECT {} FROM _ssw_old_{} WHERE seq=?", images.join(","), table.number),
            touches: (
                format!("SELECT seq, op, mask, {parts} FROM _ssw_touch WHERE seq > ? AND tbl = {}", table.number),
                format!("{parts},"),
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
    /// They need no sorting if they were made in the `sorted` order of the rows.
    pub(super) fn touches<'a>(&self, database: &'a Connection, sorted: bool) -> Result<CachedStatement<'a>, Error> {
        let (all, parts) = &self.touches;
        let parts = if sorted { "" } else { parts };
        Ok(database.prepare_cached(&format!("{all} ORDER BY {parts} seq"))?)
    }

    /// The statement of `image_by`, for one row after the other.
    pub(super) fn images<'a>(&self, database: &'a Connection) -> Result<CachedStatement<'a>, Error> {
        Ok(database.prepare_cached(&self.images)?)
    }

    /// The values that a trigger kept before the row was deleted.
    pub(super) fn image_by(&self, images: &mut Statement<'_>, seq: i64) -> Result<Option<Vec<Value>>, Error> {
        let count = self.table.columns.len();
        Ok(images.query_row([seq], |row| (0..count).map(|at| Ok(row.get_ref(at)?.into())).collect()).optional()?)
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
        let mut updater = self.updater(database, columns.iter().map(|(column, _)| *column))?;
        let values = columns.iter().map(|(_, value)| *value).chain(key);
        updater.execute(params_from_iter(values)).map(drop)
    }

    /// The statement that sets these columns, for one row after the other: their values, then the key.
    pub(super) fn updater<'a>(
        &self,
        database: &'a Connection,
        columns: impl IntoIterator<Item = u16>,
    ) -> Result<CachedStatement<'a>, rusqlite::Error> {
        let (begin, sets, end) = &self.update;
        let sets: Vec<&str> = columns.into_iter().map(|column| sets[usize::from(column)].as_str()).collect();
        database.prepare_cached(&[begin, &*sets.join(","), end].concat())
    }

    pub(super) fn delete(&self, database: &Connection, key: &[Value]) -> Result<(), rusqlite::Error> {
        database.prepare_cached(&self.delete)?.execute(params_from_iter(key))?;
        Ok(())
    }
}
