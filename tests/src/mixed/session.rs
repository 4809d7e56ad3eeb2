//! Statements whose effects are remembered.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rusqlite::{Connection, ErrorCode, OptionalExtension, functions::FunctionFlags, params_from_iter, types::Value};

use super::log::{Effect, Table, What};

/// SQLite tells the time as a real number of days, and what triggers make of that can be a millisecond early.
const EARLY: i64 = 1;

/// A writer's connection, and what the open transaction has done so far.
pub(super) struct Session {
    pub(super) database: Connection,
    clock_error: i64,
    pub(super) effects: Vec<Effect>,
}

impl Session {
    pub(super) fn new(database: Connection, clock_error: i64) -> Result<Self> {
        if clock_error != 0 {
            // What triggers ask for the time.
            let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
            database.create_scalar_function("julianday", 0, flags, move |_| Ok(days(now(clock_error))))?;
        }
        Ok(Self { database, clock_error, effects: Vec::new() })
    }

    /// `verb` is INSERT, with or without a conflict clause. Says whether the row is in.
    pub(super) fn insert(&mut self, verb: &str, table: &'static Table, row: Vec<Value>) -> Result<bool> {
        let marks = vec!["?"; row.len()].join(", ");
        let sql = format!("{verb} INTO {} ({}) VALUES ({marks})", table.name, table.columns.join(", "));
        let key = row[..table.key].to_vec();
        let values = row.clone();
        self.execute(&sql, &values, table, key, What::Insert(row))
    }

    /// Sets a column, if it is not so already and nothing forbids it. Says whether it did.
    pub(super) fn set(&mut self, table: &'static Table, key: &[Value], column: usize, value: Value) -> Result<bool> {
        let name = table.columns[column];
        let sql =
            format!("UPDATE OR IGNORE {} SET {name} = ?1 WHERE {} AND {name} IS NOT ?1", table.name, is(table, 2));
        let values = [std::slice::from_ref(&value), key].concat();
        self.execute(&sql, &values, table, key.to_vec(), What::Set(column, value))
    }

    /// Deletes a row, if it is there and nothing forbids it. Says whether it did.
    pub(super) fn delete(&mut self, table: &'static Table, key: &[Value]) -> Result<bool> {
        let sql = format!("DELETE FROM {} WHERE {}", table.name, is(table, 1));
        self.execute(&sql, key, table, key.to_vec(), What::Delete)
    }

    /// Notes rows that the last statement deleted too, by a cascade.
    pub(super) fn cascaded(&mut self, table: &'static Table, keys: Vec<Vec<Value>>) {
        if let Some(&Effect { from, until, .. }) = self.effects.last() {
            self.effects.extend(keys.into_iter().map(|key| Effect { table, key, what: What::Delete, from, until }));
        }
    }

    /// The first column of the first row.
    pub(super) fn one(&self, sql: &str, values: &[Value]) -> Result<Option<Value>> {
        let mut statement = self.database.prepare_cached(sql)?;
        Ok(statement.query_row(params_from_iter(values), |row| row.get(0)).optional()?)
    }

    fn execute(
        &mut self,
        sql: &str,
        values: &[Value],
        table: &'static Table,
        key: Vec<Value>,
        what: What,
    ) -> Result<bool> {
        let from = now(self.clock_error) - EARLY;
        let done = self.database.prepare_cached(sql)?.execute(params_from_iter(values));
        let until = now(self.clock_error);
        match done {
            Ok(1) => self.effects.push(Effect { table, key, what, from, until }),
            Ok(_) => return Ok(false),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => return Ok(false),
            Err(error) => return Err(error).with_context(|| sql.to_owned()),
        }
        Ok(true)
    }
}

/// A condition that the key is that in the parameters from `first` on.
fn is(table: &Table, first: usize) -> String {
    let columns = table.columns[..table.key].iter().zip(first..);
    columns.map(|(column, at)| format!("{column} = ?{at}")).collect::<Vec<_>>().join(" AND ")
}

/// SQLite's days, of milliseconds since 1970.
#[expect(clippy::cast_precision_loss, reason = "a time in milliseconds has fewer digits than a double")]
fn days(ms: i64) -> f64 {
    (ms as f64 + 0.5) / 86_400_000.0 + 2_440_587.5
}

/// A clock with this error, in milliseconds since 1970.
fn now(error: i64) -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX).saturating_add(error)
}
