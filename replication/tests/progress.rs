//! What long work tells of how far it is.

mod sites;

use rusqlite::config::DbConfig;
use sites::Sites;
use siteswap_replication::store::Progress;

const SCHEMA: &str = "CREATE TABLE a(id INTEGER PRIMARY KEY, v); CREATE TABLE b(id INTEGER PRIMARY KEY, v)";
const ROWS: u64 = 10_000;

/// A site whose application has filled both tables.
fn filled() -> Sites {
    let mut sites = Sites::new(SCHEMA, &[0], &[]);
    for table in ["a", "b"] {
        let rows = format!("WITH n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {ROWS} / 2)");
        sites.write(0, &format!("{rows} INSERT INTO {table} SELECT n, 0 FROM n"));
    }
    sites
}

#[test]
fn who_detaches_is_told_how_many_of_the_touches_are_folded() {
    let mut sites = filled();
    let now = sites.now;
    let mut told = Vec::new();
    let waiting = sites.all[0].store.detach_telling(now, |done, of| told.push((done, of))).expect("the end");
    assert!(waiting.is_empty(), "{waiting:?}");
    assert_eq!(told, [(0, ROWS), (4_096, ROWS), (8_192, ROWS)]);
}

#[test]
fn a_check_without_a_peer_tells_the_table_and_the_rows_it_has_looked_at() {
    let mut sites = filled();
    sites.fold(0);
    let site = &sites.all[0];
    site.app.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).expect("no triggers");
    site.app.execute_batch("DELETE FROM a WHERE id = 3").expect("a write");
    let mut told = Vec::new();
    let local = site.store.verify_local_telling(|progress| told.push(progress)).expect("a check");
    assert_eq!((local.rows, local.contradictions.len()), (ROWS, 1));
    let expected = [("a", 0, 0), ("a", 4_096, 1), ("b", 5_000, 1), ("b", 8_192, 1)];
    assert_eq!(told, expected.map(|(table, rows, suspects)| Progress { table: table.to_owned(), rows, suspects }));
}
