//! What must survive a restart: operators' orders, tenures, this site's instances, and what flows may still finish, in
//! SQLite.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::{
    decision::Leaving,
    placement::{Instance, Instances, Override, Overrides, State, Tenure, Tenures},
};

/// What each version adds to the one before it; the first adds to an empty database. A later version than these is
/// refused.
const SCHEMAS: [&str; 3] = [
    "
CREATE TABLE override(resource TEXT NOT NULL, site TEXT NOT NULL, state TEXT NOT NULL CHECK(state IN ('up','down')),
  since INTEGER NOT NULL, PRIMARY KEY(resource, site)) STRICT, WITHOUT ROWID;
CREATE TABLE tenure(resource TEXT PRIMARY KEY, epoch INTEGER NOT NULL, holder TEXT) STRICT, WITHOUT ROWID;
",
    "
CREATE TABLE instance(resource TEXT PRIMARY KEY, state TEXT NOT NULL CHECK(state IN ('active','standby','disabled')),
  why TEXT NOT NULL, since INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE drain(site TEXT PRIMARY KEY, since INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE leaving(resource TEXT PRIMARY KEY, site TEXT NOT NULL, until_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
",
    "
CREATE TABLE flow_seed(seed INTEGER NOT NULL) STRICT;
",
];
const VERSION: i64 = SCHEMAS.len() as i64;

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
        connection.busy_timeout(Duration::from_secs(2))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let transaction = connection.transaction()?;
        let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let Some(missing) = usize::try_from(found).ok().and_then(|found| SCHEMAS.get(found..)) else {
            return Ok(Err(found));
        };
        // Where nothing changes nothing is written: a full disk may have no room for it.
        if !missing.is_empty() {
            missing.iter().try_for_each(|schema| transaction.execute_batch(schema))?;
            transaction.pragma_update(None, "user_version", VERSION)?;
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

    /// Stores a tenure, and with it this site's instance if it has one. A tenure with a lower epoch than the stored one is
    /// not written. Durable when this returns.
    pub fn set_tenure(
        &mut self,
        resource: &str,
        tenure: &Tenure,
        instance: Option<&Instance>,
    ) -> Result<(), StateError> {
        let epoch = tenure.epoch.cast_signed();
        let transaction = self.connection.transaction()?;
        let stored: Option<i64> = transaction
            .query_row("SELECT epoch FROM tenure WHERE resource = ?", [resource], |row| row.get(0))
            .optional()?;
        if stored.is_none_or(|stored| stored <= epoch) {
            transaction
                .execute("INSERT OR REPLACE INTO tenure VALUES (?, ?, ?)", params![resource, epoch, tenure.holder])?;
            instance.map_or(Ok(()), |instance| put_instance(&transaction, resource, instance))?;
        }
        Ok(transaction.commit()?)
    }

    /// This site's instances.
    pub fn instances(&self) -> Result<Instances, StateError> {
        let mut statement = self.connection.prepare("SELECT resource, state, why, since FROM instance")?;
        let rows = statement.query_map([], |row| {
            let state = match row.get::<_, String>(1)?.as_str() {
                "active" => State::Active,
                "standby" => State::Standby,
                _ => State::Disabled,
            };
            Ok((row.get(0)?, Instance { state, why: row.get(2)?, since: row.get::<_, i64>(3)?.cast_unsigned() }))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Stores instances, all or none. Durable when this returns.
    pub fn set_instances(&mut self, instances: &Instances) -> Result<(), StateError> {
        let transaction = self.connection.transaction()?;
        instances.iter().try_for_each(|(resource, instance)| put_instance(&transaction, resource, instance))?;
        Ok(transaction.commit()?)
    }

    /// Whether an operator has drained `site`.
    pub fn drained(&self, site: &str) -> Result<bool, StateError> {
        Ok(self.connection.prepare("SELECT 1 FROM drain WHERE site = ?")?.exists([site])?)
    }

    /// Drains `site`, or takes that back. Durable when this returns.
    pub fn set_drained(&mut self, site: &str, drained: bool) -> Result<(), StateError> {
        if drained {
            self.connection.execute("INSERT OR IGNORE INTO drain VALUES (?, ?)", params![site, unix_seconds()])?;
        } else {
            self.connection.execute("DELETE FROM drain WHERE site = ?", [site])?;
        }
        Ok(())
    }

    /// The secret by which the program tells flows apart, if one was stored.
    pub fn flow_seed(&self) -> Result<Option<u64>, StateError> {
        let seed = self.connection.query_row("SELECT seed FROM flow_seed", [], |row| row.get(0)).optional()?;
        Ok(seed.map(i64::cast_unsigned))
    }

    /// Keeps the secret: with another one, most flows would go elsewhere when the program's maps are made anew. Durable
    /// when this returns.
    pub fn set_flow_seed(&mut self, seed: u64) -> Result<(), StateError> {
        let transaction = self.connection.transaction()?;
        transaction.execute("DELETE FROM flow_seed", [])?;
        transaction.execute("INSERT INTO flow_seed VALUES (?)", [seed.cast_signed()])?;
        Ok(transaction.commit()?)
    }

    /// The sites that flows may still finish at, by resource; those whose time is over are left out. `longest` says how
    /// long a resource's flows may take at most: the clock may have been set back since.
    pub fn leaving(&self, longest: impl Fn(&str) -> Option<Duration>) -> Result<BTreeMap<String, Leaving>, StateError> {
        let (now, now_ms) = (Instant::now(), unix_millis());
        let mut statement = self.connection.prepare("SELECT resource, site, until_ms FROM leaving")?;
        let read = |row: &Row<'_>| {
            let (resource, site, until): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let left = u64::try_from(until.saturating_sub(now_ms)).ok().filter(|left| *left > 0);
            let left = left.map(Duration::from_millis).zip(longest(&resource)).map(|(left, longest)| left.min(longest));
            Ok(left.map(|left| (resource, Leaving { site, until: now + left })))
        };
        let rows = statement.query_map([], read)?;
        Ok(rows.filter_map(Result::transpose).collect::<Result<_, _>>()?)
    }

    /// Stores what flows may still finish, in place of what was stored. Durable when this returns.
    pub fn set_leaving(&mut self, leaving: &BTreeMap<String, Leaving>) -> Result<(), StateError> {
        let (now, now_ms) = (Instant::now(), unix_millis());
        let transaction = self.connection.transaction()?;
        transaction.execute("DELETE FROM leaving", [])?;
        for (resource, Leaving { site, until }) in leaving {
            let left = i64::try_from(until.saturating_duration_since(now).as_millis()).unwrap_or(i64::MAX);
            let until = now_ms.saturating_add(left);
            transaction.execute("INSERT INTO leaving VALUES (?, ?, ?)", params![resource, site, until])?;
        }
        Ok(transaction.commit()?)
    }
}

fn put_instance(transaction: &Transaction<'_>, resource: &str, instance: &Instance) -> rusqlite::Result<()> {
    let Instance { state, why, since } = instance;
    let row = params![resource, state.to_string(), why, since.cast_signed()];
    transaction.execute("INSERT OR REPLACE INTO instance VALUES (?, ?, ?, ?)", row).map(drop)
}

fn unix_seconds() -> i64 {
    unix_millis() / 1000
}

fn unix_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
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
        store.set_tenure("orders", &held, None).unwrap();
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
        let instance = |why: &str| Instance { state: State::Standby, why: why.to_owned(), since: 7 };
        store.set_tenure("orders", &later, Some(&instance("later"))).unwrap();
        let earlier = Tenure { epoch: 1, holder: Some("east".into()) };
        store.set_tenure("orders", &earlier, Some(&instance("earlier"))).unwrap();
        assert_eq!(store.tenures().unwrap()["orders"], later);
        assert_eq!(store.instances().unwrap()["orders"], instance("later"));
    }

    #[test]
    fn instances_the_drain_and_what_flows_may_finish_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        let instance =
            Instance { state: State::Active, why: "took over from east: silent".into(), since: 1_800_000_000 };
        let instances = Instances::from([("orders".to_owned(), instance)]);
        store.set_instances(&instances).unwrap();
        store.set_drained("west", true).unwrap();
        let hour = Duration::from_secs(3600);
        let leaving = |until| Leaving { site: "east".into(), until };
        let (now, over) = (Instant::now(), Instant::now());
        let began = [("over", leaving(over)), ("orders", leaving(now + hour)), ("gone", leaving(now + hour))];
        store.set_leaving(&began.map(|(resource, leaving)| (resource.to_owned(), leaving)).into()).unwrap();
        drop(store);

        let mut store = Store::open(directory.path()).unwrap();
        assert_eq!(store.instances().unwrap(), instances);
        assert!(store.drained("west").unwrap() && !store.drained("east").unwrap());
        let minute = Duration::from_secs(60);
        let left = store.leaving(|resource| (resource != "gone").then_some(minute)).unwrap();
        assert_eq!(left.keys().collect::<Vec<_>>(), ["orders"], "neither what is over nor what is not configured");
        assert!(left["orders"].until <= Instant::now() + minute, "never longer than the drain time");
        store.set_drained("west", false).unwrap();
        assert!(!store.drained("west").unwrap());
    }

    #[test]
    fn a_database_of_the_first_version_is_taken_over_with_all_it_holds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let first = Connection::open(&path).unwrap();
        first.execute_batch(SCHEMAS[0]).unwrap();
        first.pragma_update(None, "user_version", 1).unwrap();
        first
            .execute_batch(
                "INSERT INTO override VALUES ('www', 'east', 'down', 1); INSERT INTO tenure VALUES ('orders', 3, 'west')",
            )
            .unwrap();
        drop(first);

        for _ in 0..2 {
            let mut store = Store::open(directory.path()).unwrap();
            let key = ("www".to_owned(), "east".to_owned());
            assert_eq!(store.overrides().unwrap(), Overrides::from([(key, Override::Down)]));
            let held = Tenure { epoch: 3, holder: Some("west".into()) };
            assert_eq!(store.tenures().unwrap(), Tenures::from([("orders".to_owned(), held)]));
            store.set_drained("east", true).unwrap();
        }
        let version: i64 =
            Connection::open(&path).unwrap().query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(version, VERSION);
    }

    #[test]
    fn a_migration_that_fails_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let first = Connection::open(&path).unwrap();
        // The second of the new tables is in the way.
        first.execute_batch(&format!("{} CREATE TABLE drain(x);", SCHEMAS[0])).unwrap();
        first.pragma_update(None, "user_version", 1).unwrap();
        let error = Store::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("drain"), "{error}");
        let version: i64 = first.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'instance'";
        let made: i64 = first.query_row(tables, [], |row| row.get(0)).unwrap();
        assert_eq!((version, made), (1, 0));
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
