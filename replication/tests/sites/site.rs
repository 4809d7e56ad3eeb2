//! A site: its database, its agent and an application.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, functions::FunctionFlags};
use siteswap_replication::{
    Value,
    capture::{self, Wanted},
    clock::SiteId,
    store::{Age, Position, Settings, Store},
};

pub struct Site {
    pub id: SiteId,
    pub file: PathBuf,
    pub store: Store,
    /// The application.
    pub app: Connection,
    pub(super) settings: Settings,
    /// Its clock's error, in milliseconds.
    pub(super) skew: i64,
    pub(super) told: BTreeMap<SiteId, Position>,
    pub(super) recorded: u64,
    /// The last group of each other site that it has applied.
    pub applied: BTreeMap<SiteId, u64>,
}

impl Site {
    pub(super) fn new(file: &Path, schema: &str, settings: Settings, skew: i64) -> Self {
        let mut app = Self::application(file);
        app.execute_batch(schema).expect("the schema");
        let transaction = app.transaction().expect("a transaction");
        capture::attach(&transaction, Wanted::All).expect("tables to attach");
        transaction.commit().expect("a commit");
        let store = Store::open(file, settings.clone()).expect("a store");
        let mut site = Self {
            id: settings.site,
            file: file.to_owned(),
            store,
            app,
            settings,
            skew,
            told: BTreeMap::new(),
            recorded: 0,
            applied: BTreeMap::new(),
        };
        site.set_clock(1_700_000_000_000);
        assert_eq!(site.store.remember_outside(&site.outside()).expect("a file outside"), Age::New);
        site
    }

    /// Another process that looks at the database.
    pub fn reader(&self) -> Store {
        Store::open(&self.file, self.settings.clone()).expect("a store")
    }

    pub(super) fn application(file: &Path) -> Connection {
        let app = Connection::open(file).expect("a database");
        app.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA foreign_keys=ON;").expect("pragmas");
        app
    }

    /// What the agent keeps outside the database.
    pub(super) fn outside(&self) -> PathBuf {
        self.file.with_file_name(format!("told{}", self.id))
    }

    pub fn acknowledged(&self, peer: SiteId) -> u64 {
        self.store.peers().expect("peers")[&peer].acknowledged
    }

    /// The application's clock: triggers ask SQLite for the time by `julianday()`.
    pub fn set_clock(&self, now: i64) {
        #[expect(clippy::cast_precision_loss, reason = "a day has fewer milliseconds than a double has digits")]
        let days = (now + self.skew) as f64 / 86_400_000.0 + 2_440_587.5;
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
        self.app.create_scalar_function("julianday", 0, flags, move |_| Ok(days)).expect("a clock");
    }

    /// All rows of a table, as text that shows every bit.
    pub fn rows(&self, table: &str) -> BTreeSet<String> {
        let mut statement = self.app.prepare(&format!("SELECT * FROM {table}")).expect("a table");
        let columns = statement.column_count();
        let mut rows = statement.query([]).expect("rows");
        let mut all = BTreeSet::new();
        while let Some(row) = rows.next().expect("a row") {
            let values: Vec<Value> = (0..columns).map(|at| row.get_ref(at).expect("a value").into()).collect();
            all.insert(format!("{values:?}"));
        }
        all
    }
}
