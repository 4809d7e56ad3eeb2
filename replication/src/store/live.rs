//! The application's own tables: reading and writing single rows by key.

use rusqlite::{CachedStatement, Connection, OptionalExtension, Row as SqlRow, Statement, params_from_iter};

use crate::{
    capture::{differs, list},
    merge::Extremes,
    schema::{self, Table, quoted},
    value::Value,
};

use super::{Error, Rules, columns::Ruled, triggers};

/// A replicated table, with the statements it takes.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) table: Table,
    pub(super) rules: Rules,
    /// Other tables refer to it.
    pub(super) is_parent: bool,
    /// Columns of which the smallest or greatest value stays.
    pub(super) extremes: Extremes,
    /// Each column's default, for rows of which a site tells that did not have the column yet.
    pub(super) defaults: Vec<Value>,
    read: String,
    insert: String,
    in_the_way: String,
    delete: String,
    /// The beginning of an UPDATE, what sets each column, and the end.
    update: (String, Vec<String>, String),
    touches: Touches,
}

/// What reads touches and the rows that they are of, piece by piece.
#[derive(Debug)]
struct Touches {
    /// The key's columns.
    key: String,
    touches: String,
    /// Is the row there, and are its values known? Then these.
    row: String,
    rows: String,
    /// The same, and of a row that is gone what was kept with the touch.
    row_or_image: String,
    rows_and_images: String,
}

impl Touches {
    fn new(table: &Table) -> Self {
        let Table { number, columns, key, .. } = table;
        let name = |column: u16| quoted(&columns[usize::from(column)].name);
        let parts = list((0..key.len()).map(|part| format!("k{part}")));
        let counters: String = (0..table.counters.len()).map(|place| format!(", c{place}")).collect();
        let there = format!("x.{} NOT NULL", name(key[0]));
        let columns = list((0..).zip(columns).map(|(at, _)| format!("x.{}", name(at))));
        let or_image =
            (0..).zip(&table.columns).map(|(at, _)| format!("CASE WHEN {there} THEN x.{} ELSE o.c{at} END", name(at)));
        let rows =
            format!("LEFT JOIN {} AS x ON {}", quoted(&table.name), same_key(table, "x.", |part| format!("u.k{part}")));
        Self {
            touches: format!("SELECT seq, what, {parts}{counters} FROM _ssw_touch WHERE seq > ? AND tbl = {number}"),
            key: parts,
            row: format!("{there}, {there}, {columns}"),
            row_or_image: format!("{there}, {there} OR o.seq NOT NULL, {}", list(or_image)),
            rows_and_images: format!("{rows} LEFT JOIN _ssw_old_{number} AS o ON o.seq = u.seq"),
            rows,
        }
    }

    /// A subquery with a limit is not made part of what is around it: only touches are sorted, and the joins keep their order.
    fn sql(&self, sorted: bool, images: bool) -> String {
        let order = if sorted { String::new() } else { format!("{}, ", self.key) };
        let (row, rows) = if images { (&self.row_or_image, &self.rows_and_images) } else { (&self.row, &self.rows) };
        format!("SELECT u.*, {row} FROM ({} ORDER BY {order}seq LIMIT -1) AS u {rows}", self.touches)
    }
}

impl Live {
    pub(super) fn new(database: &Connection, table: Table, rules: Rules, is_parent: bool) -> Result<Self, Error> {
        let name = quoted(&table.name);
        let columns: Vec<String> = table.columns.iter().map(|column| quoted(&column.name)).collect();
        let all = columns.join(",");
        let key: Vec<&str> = table.key.iter().map(|column| columns[usize::from(*column)].as_str()).collect();
        let marks = vec!["?"; columns.len()].join(",");
        let matches = table.key_equals("", |_| "?".to_owned());
        let defaults = table.columns.iter().map(|column| match column.default_value(database) {
            // An application's own function: then it cannot have been added to a table with rows.
            Err(rusqlite::Error::SqlInputError { .. }) => Ok(Value::Null),
            value => value,
        });
        // The statement's own clause would rule in the application's triggers too; without one the table's clauses rule.
        let silent = rules.fire_triggers && !schema::has_conflict_clauses(database, &table.name)?;
        let clause = if silent { "" } else { " OR ABORT" };
        Ok(Self {
            defaults: defaults.collect::<Result<_, rusqlite::Error>>()?,
            read: format!("SELECT {all} FROM {name} WHERE {matches}"),
            insert: format!("INSERT{clause} INTO {name}({all}) VALUES({marks})"),
            in_the_way: format!(
                "INSERT INTO {name}({all}) VALUES({marks}) ON CONFLICT DO UPDATE SET {0} = {0} RETURNING {1}",
                key[0],
                key.join(","),
            ),
            delete: format!("DELETE FROM {name} WHERE {matches}"),
            update: (
                format!("UPDATE{clause} {name} SET "),
                columns.iter().map(|column| format!("{column}=?")).collect(),
                format!(" WHERE {matches}"),
            ),
            touches: Touches::new(&table),
            extremes: Ruled::find(database, &table, &rules)?.extremes,
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
        // The key's index may have found one that only looks the same.
        for (column, value) in self.table.key.iter().zip(key) {
            if !value.is(row.get_ref(usize::from(*column))?) {
                return Ok(None);
            }
        }
        self.values_in(row, 0).map(Some)
    }

    /// All columns' values.
    pub(super) fn values_in(&self, result: &SqlRow<'_>, from: usize) -> Result<Vec<Value>, Error> {
        let mut values = Vec::with_capacity(self.table.columns.len());
        for at in from..from + self.table.columns.len() {
            values.push(result.get_ref(at)?.into());
        }
        Ok(values)
    }

    /// All touches after one, those of one row together and in the order in which they were made: number, what, and
    /// key, what counters were, and for [`touched_row`](Self::touched_row) the row, or with `images` what was kept with the
    /// touch of a row that is gone. They need no sorting if they were made in the `sorted` order of the rows.
    pub(super) fn touches<'a>(
        &self,
        database: &'a Connection,
        sorted: bool,
        images: bool,
    ) -> Result<CachedStatement<'a>, Error> {
        Ok(database.prepare_cached(&self.touches.sql(sorted, images))?)
    }

    /// The key of the row that was touched.
    pub(super) fn touched_key(&self, touch: &SqlRow<'_>) -> Result<Vec<Value>, Error> {
        let parts = (2..).take(self.table.key.len());
        Ok(parts.map(|part| touch.get_ref(part).map(Value::from)).collect::<Result<_, _>>()?)
    }

    /// Is the row that was touched there? And its values, as far as the touch tells them.
    pub(super) fn touched_row(&self, touch: &SqlRow<'_>) -> Result<(bool, Option<Vec<Value>>), Error> {
        let at = 2 + self.table.key.len() + self.table.counters.len();
        let values = if touch.get(at + 1)? { Some(self.values_in(touch, at + 2)?) } else { None };
        Ok((touch.get(at)?, values))
    }

    /// What counters were before the update that this touch is of; NULL, if it is not known.
    pub(super) fn counted(&self, touch: &SqlRow<'_>) -> Result<Vec<Value>, Error> {
        let counters = (2 + self.table.key.len()..).take(self.table.counters.len());
        Ok(counters.map(|at| touch.get_ref(at).map(Value::from)).collect::<Result<_, _>>()?)
    }

    pub(super) fn insert<'a>(
        &self,
        database: &Connection,
        values: impl IntoIterator<Item = &'a Value>,
    ) -> Result<(), rusqlite::Error> {
        triggers::fire(database, self.rules.fire_triggers)?;
        self.passed(self.inserter(database)?.execute(params_from_iter(values))?)
    }

    /// The statement that inserts all columns' values, for one row after the other. Whatever the schema says to do ON
    /// CONFLICT, a row in the way is for us to decide about.
    pub(super) fn inserter<'a>(&self, database: &'a Connection) -> Result<CachedStatement<'a>, rusqlite::Error> {
        database.prepare_cached(&self.insert)
    }

    /// The key of a row that is in the way of this one, whatever index says so. That row is updated to what it is, and so
    /// SQLite names it. If none is, this one is inserted, its triggers not fired, and it is its key.
    pub(super) fn in_the_way<'a>(
        &self,
        database: &Connection,
        values: impl IntoIterator<Item = &'a Value>,
    ) -> Result<Option<Vec<Value>>, rusqlite::Error> {
        triggers::fire(database, false)?;
        let read = |found: &SqlRow<'_>| {
            (0..self.table.key.len()).map(|at| Ok(found.get_ref(at)?.into())).collect::<Result<Vec<Value>, _>>()
        };
        database.prepare_cached(&self.in_the_way)?.query_row(params_from_iter(values), read).optional()
    }

    /// Sets these columns of the row.
    pub(super) fn update(
        &self,
        database: &Connection,
        key: &[Value],
        columns: &[(u16, &Value)],
    ) -> Result<(), rusqlite::Error> {
        triggers::fire(database, self.rules.fire_triggers)?;
        let mut updater = self.updater(database, columns.iter().map(|(column, _)| *column))?;
        let values = columns.iter().map(|(_, value)| *value).chain(key);
        self.passed(updater.execute(params_from_iter(values))?)
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

    /// Takes a row out that was put in without its triggers.
    pub(super) fn take_out(&self, database: &Connection, key: &[Value]) -> Result<(), rusqlite::Error> {
        triggers::fire(database, false)?;
        database.prepare_cached(&self.delete)?.execute(params_from_iter(key)).map(drop)
    }

    pub(super) fn delete(&self, database: &Connection, key: &[Value]) -> Result<(), rusqlite::Error> {
        triggers::fire(database, self.rules.fire_triggers)?;
        self.passed(database.prepare_cached(&self.delete)?.execute(params_from_iter(key))?)
    }

    /// Fails unless a row was written: a trigger with RAISE(IGNORE) passes over it as if nothing were amiss.
    pub(super) fn passed(&self, rows: usize) -> Result<(), rusqlite::Error> {
        if rows > 0 || !self.rules.fire_triggers {
            return Ok(());
        }
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CONSTRAINT_TRIGGER);
        let why = format!("a trigger of {} has RAISE(IGNORE) for what a peer has told", self.table.name);
        Err(rusqlite::Error::SqliteFailure(code, Some(why)))
    }
}

/// The condition that the table's key, after `prefix`, has exactly the bytes of these operands.
fn same_key(table: &Table, prefix: &str, operand: impl Fn(usize) -> String) -> String {
    let mut same = table.key_equals(prefix, &operand);
    if table.uniques.iter().any(|unique| unique.primary) {
        for (part, column) in table.key.iter().enumerate() {
            let column = &table.columns[usize::from(*column)];
            let one = format!("{prefix}{}", quoted(&column.name));
            same += &format!(" AND NOT ({})", differs(column, &one, &operand(part)));
        }
    }
    same
}
