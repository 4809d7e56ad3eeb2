//! Which copy of a site's database a database is, which version of siteswap made what is in it, and what time it is.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Barrier, mpsc},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rusqlite::Connection;
use siteswap_replication::{
    capture::{self, Wanted},
    store::{Age, Error, Settings, Store},
    wire::Incarnation,
};

fn attach(file: &Path) {
    let mut database = Connection::open(file).expect("a database");
    database.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE item(id INTEGER PRIMARY KEY)").expect("a schema");
    let transaction = database.transaction().expect("a transaction");
    capture::attach(&transaction, Wanted::All).expect("triggers");
    transaction.commit().expect("a commit");
}

fn settings(max_skew: i64) -> Settings {
    let sites = BTreeMap::from([(1, "east".to_owned()), (2, "west".to_owned())]);
    Settings { site: 1, sites, max_skew, rules: BTreeMap::new() }
}

fn open(file: &Path) -> Store {
    Store::open(file, settings(10_000)).expect("a store")
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(now.as_millis()).expect("a time")
}

#[test]
fn a_database_that_another_version_of_siteswap_has_attached_is_refused_until_it_is_attached_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("other.db");
    for other in ["UPDATE _ssw_meta SET v = 99 WHERE k = 'layout'", "DELETE FROM _ssw_meta WHERE k = 'layout'"] {
        attach(&file);
        let mut database = Connection::open(&file).expect("a database");
        assert_eq!(database.execute(other, []), Ok(1));
        let refused = Store::open(&file, settings(0)).expect_err("another layout");
        assert!(matches!(refused, Error::Capture(capture::Error::Layout { found: 99 | 0 })), "{refused}");
        let transaction = database.transaction().expect("a transaction");
        let refused = capture::attach(&transaction, Wanted::All).expect_err("another layout");
        assert!(matches!(refused, capture::Error::Layout { .. }), "{refused}");
        capture::detach(&transaction, Wanted::All).expect("tables to detach");
        transaction.execute_batch("DROP TABLE item").expect("no table of ours beside it");
        transaction.commit().expect("a commit");
    }
    attach(&file);
    open(&file);
}

/// The agent looks at the clock, and then waits for the application that has the write lock for longer than clocks may be
/// apart.
#[test]
fn an_application_that_holds_the_lock_for_long_is_not_taken_for_one_whose_clock_is_ahead() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("slow.db");
    attach(&file);
    let mut store = Store::open(&file, settings(50)).expect("a store");
    let (locked, is_locked) = mpsc::channel();
    let folded = thread::scope(|scope| {
        let application = scope.spawn(|| {
            let database = Connection::open(&file).expect("a database");
            database.execute_batch("INSERT INTO item VALUES(1); BEGIN IMMEDIATE").expect("a write");
            locked.send(now()).expect("somebody who waits");
            let since = now();
            while now() < since + 200 {
                thread::sleep(Duration::from_millis(1));
            }
            database.execute_batch("INSERT INTO item VALUES(2); COMMIT").expect("a write");
        });
        let folded = store.fold(is_locked.recv().expect("a locked database")).expect("a fold");
        application.join().expect("an application");
        folded
    });
    assert_eq!((folded.touches, folded.ahead), (2, 0));
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
