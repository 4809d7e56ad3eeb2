//! Which copy of a site's database a database is.

use std::{collections::BTreeMap, path::Path, sync::Barrier, thread};

use rusqlite::Connection;
use siteswap_replication::{
    capture::{self, Wanted},
    store::{Age, Settings, Store},
    wire::Incarnation,
};

fn attach(file: &Path) {
    let mut database = Connection::open(file).expect("a database");
    database.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE item(id INTEGER PRIMARY KEY)").expect("a schema");
    let transaction = database.transaction().expect("a transaction");
    capture::attach(&transaction, Wanted::All).expect("triggers");
    transaction.commit().expect("a commit");
}

fn open(file: &Path) -> Store {
    let sites = BTreeMap::from([(1, "east".to_owned()), (2, "west".to_owned())]);
    Store::open(file, Settings { site: 1, sites, max_skew: 10_000, rules: BTreeMap::new() }).expect("a store")
}

/// As the agent does it: one thread folds and applies, another compares.
#[test]
fn connections_that_open_a_new_database_at_once_agree_which_one_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    for round in 0..20 {
        let (file, told) =
            (directory.path().join(format!("{round}.db")), directory.path().join(format!("{round}.told")));
        attach(&file);
        let barrier = Barrier::new(4);
        let first = |_| {
            barrier.wait();
            open(&file).incarnation().expect("an identity")
        };
        let seen: Vec<Incarnation> = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || first(thread))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
        });
        assert!(seen.iter().all(|incarnation| *incarnation == seen[0]), "{seen:?}");
        assert_eq!(open(&file).remember_outside(&told).expect("a file outside"), Age::New);
        assert_eq!(open(&file).remember_outside(&told).expect("a file outside"), Age::Continues);
    }
}
