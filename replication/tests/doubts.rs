//! Databases of which something may have been missed or forgotten: what the agent hears of that, and that nothing is lost by
//! what it does then.

mod sites;

use std::collections::BTreeMap;

use rusqlite::{config::DbConfig, functions::FunctionFlags};
use sites::{Dice, Outside, Sites};
use siteswap_replication::{
    capture::{self, Wanted},
    doctor,
    store::{Doubt, Error, Settings, Store},
    verify::Policy,
};

const SCHEMA: &str = "CREATE TABLE item(id INTEGER PRIMARY KEY, a); INSERT INTO item VALUES(1, 'one')";

fn two() -> (Sites, Dice) {
    (Sites::new(SCHEMA, &[0, 0], &[]), Dice::new(1))
}

fn settings(sites: &[u32], site: u32) -> Settings {
    let sites = sites.iter().map(|id| (*id, format!("site{id}"))).collect();
    Settings { site, sites, max_skew: i64::MAX >> 17, rules: BTreeMap::new() }
}

#[test]
fn what_was_written_while_a_database_was_detached_stays_when_it_is_attached_again() {
    let (mut sites, mut dice) = two();
    sites.write(0, "INSERT INTO item VALUES(2, 'told')");
    sites.settle(&mut dice);
    sites.attach_anew(0, "INSERT INTO item VALUES(3, 'while it was detached')");
    sites.settle(&mut dice);
    assert!(matches!(sites.all[0].store.doubt(), Ok(Some(Doubt::Anew(_)))));
    sites.mend(0, &mut dice);
    assert_eq!(sites.all[0].rows("item").len(), 3);
    assert_eq!(sites.all[0].rows("item"), sites.all[1].rows("item"));
}

#[test]
fn a_site_that_is_not_configured_any_more_keeps_a_restored_one_from_nothing() {
    let (mut sites, mut dice) = (Sites::new(SCHEMA, &[0, 0, 0], &[]), Dice::new(1));
    sites.settle(&mut dice);
    let backup = sites.back_up(0);
    sites.write(0, "INSERT INTO item VALUES(2, 'told')");
    sites.settle(&mut dice);
    sites.restore(0, &backup, Outside::Kept);
    sites.all.truncate(2);
    let [told, peers_told] = ["told1", "told2"].map(|name| sites.all[0].file.with_file_name(name));
    for (at, told) in [(0, told), (1, peers_told)] {
        let site = &mut sites.all[at];
        site.store = Store::open(&site.file, settings(&[1, 2], site.id)).expect("a store");
        site.store.remember_outside(&told).expect("a file outside");
    }
    let report = sites.all[1].store.report(1).expect("a report");
    sites.all[0].store.heard(&report).expect("a state");
    assert_eq!(sites.all[0].store.doubt().expect("a state"), Some(Doubt::Restored("site2".to_owned())));
}

#[test]
fn a_comparison_says_nothing_of_what_was_missed_after_it_began() {
    let (mut sites, mut dice) = two();
    sites.settle(&mut dice);
    sites.write(0, "DROP TRIGGER _ssw_i_1");
    sites.all[0].store.refresh().expect("a schema");
    let outcome = sites.compare(0, 1, &mut dice);
    assert!(outcome.is_clean());
    sites.write(0, "DROP TRIGGER _ssw_i_1; INSERT INTO item VALUES(7, 'recorded by nobody')");
    sites.all[0].store.refresh().expect("a schema");
    sites.all[0].store.verified(&outcome).expect("a state");
    let unrecorded = Some(Doubt::Unrecorded(vec!["item".to_owned()]));
    assert_eq!(sites.all[0].store.doubt().expect("a state"), unrecorded);
    let outcome = sites.compare(0, 1, &mut dice);
    assert_eq!(outcome.differing.len(), 1);
}

#[test]
fn a_database_that_is_replaced_while_it_is_open_is_opened_anew() {
    let (mut sites, mut dice) = two();
    sites.settle(&mut dice);
    let site = &mut sites.all[0];
    assert!(site.store.refresh().is_ok());
    std::fs::rename(&site.file, site.file.with_extension("old")).expect("a new name");
    assert!(matches!(site.store.refresh(), Err(Error::Replaced)));
}

#[test]
fn a_database_that_is_detached_and_attached_while_it_is_open_is_opened_anew() {
    let (mut sites, mut dice) = two();
    sites.settle(&mut dice);
    let transaction = sites.all[0].app.transaction().expect("a transaction");
    capture::detach(&transaction, Wanted::All).expect("tables to detach");
    capture::attach(&transaction, Wanted::All).expect("tables to attach");
    transaction.commit().expect("a commit");
    assert!(matches!(sites.all[0].store.refresh(), Err(Error::NotAttached)));
}

#[test]
fn a_default_that_only_the_application_can_compute_is_no_hindrance() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("app.db");
    let mut app = rusqlite::Connection::open(&file).expect("a database");
    app.create_scalar_function("uuid7", 0, FunctionFlags::SQLITE_UTF8, |_| Ok("u".to_owned())).expect("a function");
    app.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL DEFAULT (uuid7()), a)")
        .expect("a schema");
    let transaction = app.transaction().expect("a transaction");
    capture::attach(&transaction, Wanted::All).expect("tables to attach");
    transaction.execute_batch("INSERT INTO t(a) VALUES(1)").expect("a write");
    transaction.commit().expect("a commit");
    let mut store = Store::open(&file, settings(&[1, 2], 1)).expect("a store");
    assert_eq!(store.fold(1_700_000_000_000).expect("a fold").rows, 1);
    assert!(doctor::check(store.database(), Wanted::All, &[]).expect("findings").is_empty());
}

/// Its values are not made up from defaults, which might not even be allowed.
#[test]
fn a_row_that_vanished_behind_the_triggers_comes_back_by_a_comparison() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, b TEXT NOT NULL, gone INT);
                  CREATE UNIQUE INDEX one ON t(b) WHERE gone = 0";
    // A REPLACE evicts by a partial index, of which no trigger tells.
    for vanish in ["DELETE FROM t", "REPLACE INTO t VALUES(2, 'newer', 0)"] {
        let (mut sites, mut dice) = (Sites::new(schema, &[0, 0], &[]), Dice::new(1));
        sites.write(0, "INSERT INTO t VALUES(1, 'older', 0)");
        sites.write(1, "INSERT INTO t VALUES(1, 'newer', 0)");
        sites.fold(1);
        let triggers = DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER;
        sites.all[1].app.set_db_config(triggers, vanish.starts_with("REPLACE")).expect("a setting");
        sites.write(1, vanish);
        sites.all[1].app.set_db_config(triggers, true).expect("a setting");
        sites.settle(&mut dice);
        for at in [0, 1] {
            if sites.all[at].store.doubt().expect("a state").is_some() {
                sites.mend(at, &mut dice);
            }
        }
        sites.settle(&mut dice);
        assert_eq!(sites.all[0].rows("t"), sites.all[1].rows("t"), "{vanish}");
    }
}

#[test]
fn what_was_folded_of_a_table_that_is_dropped_or_renamed_since_keeps_nothing_else_back() {
    let schema = "CREATE TABLE item(id INTEGER PRIMARY KEY, a); INSERT INTO item VALUES(1, 1);
                  CREATE TABLE other(id INTEGER PRIMARY KEY, a)";
    for change in ["DROP TABLE item", "ALTER TABLE item RENAME TO thing"] {
        let (mut sites, mut dice) = (Sites::new(schema, &[0, 0], &[]), Dice::new(1));
        sites.settle(&mut dice);
        sites.write(0, "UPDATE item SET a = 'last'");
        sites.fold(0);
        sites.write(0, &format!("{change}; INSERT INTO other VALUES(1, 'one')"));
        sites.settle(&mut dice);
        assert_eq!(sites.all[1].rows("other").len(), 1, "{change}");
        assert!(
            sites.all[1].rows("item").iter().any(|row| row.contains("108")),
            "{change}: {:?}",
            sites.all[1].rows("item")
        );
    }
}

#[test]
fn a_table_that_had_another_name_for_a_while_is_in_doubt_if_it_was_written_to() {
    let (mut sites, mut dice) = (Sites::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", &[0, 0], &[]), Dice::new(1));
    sites.write(0, "INSERT INTO t VALUES(1, 1)");
    sites.settle(&mut dice);
    sites.write(0, "ALTER TABLE t RENAME TO other");
    sites.fold(0);
    sites.write(0, "UPDATE other SET a = 2; INSERT INTO other VALUES(2, 2)");
    sites.fold(0);
    sites.write(0, "ALTER TABLE other RENAME TO t");
    sites.settle(&mut dice);
    let tables = vec!["t".to_owned()];
    assert_eq!(sites.all[0].store.doubt().expect("a state"), Some(Doubt::Unrecorded(tables.clone())));
    let outcome = sites.compare_only(0, 1, Some(tables), &mut dice).expect("a comparison");
    sites.repair(0, &outcome, Policy::Here, &mut dice);
    assert_eq!(sites.all[0].rows("t"), sites.all[1].rows("t"));
    assert_eq!(sites.all[0].rows("t").len(), 2);
}
