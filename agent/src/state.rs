//! What must survive a restart: operators' overrides and tenures, in SQLite.

use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, OptionalExtension, params};

use crate::placement::{Override, Overrides, Tenure, Tenures};

/// Raised when the tables change; `open` refuses a database of another version.
const VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE override(resource TEXT NOT NULL, site TEXT NOT NULL, state TEXT NOT NULL CHECK(state IN ('up','down')),
  since INTEGER NOT NULL, PRIMARY KEY(resource, site)) STRICT, WITHOUT ROWID;
CREATE TABLE tenure(resource TEXT PRIMARY KEY, epoch INTEGER NOT NULL, holder TEXT) STRICT, WITHOUT ROWID;
";

/// The open state database.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
}

/// Why the state database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory cannot be made.
    #[error("cannot make the state directory {path}: {source}; make it writable or set [agent] state to another one")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A later or foreign version.
    #[error(
        "{path} is a state database of version {found}, this siteswap knows version {VERSION}: use the siteswap that wrote it, or move the file away (overrides and epochs are lost then)"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its `user_version`.
        found: i64,
    },
    /// SQLite refused.
    #[error("state database {path}: {source}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A write failed; what it was about did not happen.
    #[error("the state database cannot be written: {0}")]
    Write(#[from] rusqlite::Error),
}

impl Store {
    /// Opens `directory`/state.db, and makes it if it is not there.
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        std::fs::create_dir_all(directory)
            .map_err(|source| StateError::Directory { path: directory.to_owned(), source })?;
        let path = directory.join("state.db");
        let found = Self::prepare(&path).map_err(|source| StateError::Sqlite { path: path.clone(), source })?;
        found.map_err(|found| StateError::Version { path, found })
    }

    /// The outer result is SQLite's, the inner one says which unknown version was found.
    fn prepare(path: &Path) -> rusqlite::Result<Result<Self, i64>> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(std::time::Duration::from_secs(2))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let transaction = connection.transaction()?;
        match transaction.query_row("PRAGMA user_version", [], |row| row.get(0))? {
            0 => {
                transaction.execute_batch(SCHEMA)?;
                transaction.pragma_update(None, "user_version", VERSION)?;
            }
            VERSION => {}
            found => return Ok(Err(found)),
        }
        transaction.commit()?;
        Ok(Ok(Self { connection }))
    }

    /// All overrides.
    pub fn overrides(&self) -> Result<Overrides, StateError> {
        let mut statement = self.connection.prepare("SELECT resource, site, state FROM override")?;
        let rows = statement.query_map([], |row| {
            let state = if row.get::<_, String>(2)? == "up" { Override::Up } else { Override::Down };
            Ok(((row.get(0)?, row.get(1)?), state))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Stores an override, or with `None` takes it back. Durable when this returns.
    pub fn set_override(&mut self, resource: &str, site: &str, state: Option<Override>) -> Result<(), StateError> {
        match state {
            Some(state) => self.connection.execute(
                "INSERT OR REPLACE INTO override VALUES (?, ?, ?, ?)",
                params![resource, site, state.to_string(), unix_seconds()],
            )?,
            None => self
                .connection
                .execute("DELETE FROM override WHERE resource = ? AND site = ?", params![resource, site])?,
        };
        Ok(())
    }

    /// All tenures.
    pub fn tenures(&self) -> Result<Tenures, StateError> {
        let mut statement = self.connection.prepare("SELECT resource, epoch, holder FROM tenure")?;
        let rows = statement.query_map([], |row| {
            let epoch: i64 = row.get(1)?;
            Ok((row.get(0)?, Tenure { epoch: epoch.cast_unsigned(), holder: row.get(2)? }))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Stores a tenure; one with a lower epoch than the stored one is not written. Durable when this returns.
    pub fn set_tenure(&mut self, resource: &str, tenure: &Tenure) -> Result<(), StateError> {
        let epoch = tenure.epoch.cast_signed();
        let stored: Option<i64> = self
            .connection
            .query_row("SELECT epoch FROM tenure WHERE resource = ?", [resource], |row| row.get(0))
            .optional()?;
        if stored.is_none_or(|stored| stored <= epoch) {
            self.connection
                .execute("INSERT OR REPLACE INTO tenure VALUES (?, ?, ?)", params![resource, epoch, tenure.holder])?;
        }
        Ok(())
    }
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_and_tenures_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let held = Tenure { epoch: 3, holder: Some("west".into()) };
        let mut store = Store::open(directory.path()).unwrap();
        store.set_override("www", "east", Some(Override::Down)).unwrap();
        store.set_override("www", "west", Some(Override::Up)).unwrap();
        store.set_override("www", "west", None).unwrap();
        store.set_tenure("orders", &held).unwrap();
        drop(store);

        let store = Store::open(directory.path()).unwrap();
        let key = ("www".to_owned(), "east".to_owned());
        assert_eq!(store.overrides().unwrap(), Overrides::from([(key, Override::Down)]));
        assert_eq!(store.tenures().unwrap(), Tenures::from([("orders".to_owned(), held)]));
    }

    #[test]
    fn a_stored_epoch_never_goes_back() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        let later = Tenure { epoch: 2, holder: Some("west".into()) };
        store.set_tenure("orders", &later).unwrap();
        store.set_tenure("orders", &Tenure { epoch: 1, holder: Some("east".into()) }).unwrap();
        assert_eq!(store.tenures().unwrap()["orders"], later);
    }

    #[test]
    fn a_database_of_another_version_or_kind_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        drop(Store::open(directory.path()).unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let error = Store::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("version 99") && error.contains("state.db"), "{error}");

        std::fs::write(&path, "this is not a database, whatever its name says; it is longer than a header").unwrap();
        let error = Store::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("not a database"), "{error}");
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("this is not"));
    }
}
