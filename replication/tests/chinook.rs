//! A schema as applications have it: capture of the music shop.

#[path = "support/chinook.rs"]
mod chinook;

use rusqlite::Connection;
use siteswap_replication::{
    capture::{self, Wanted},
    doctor::{self, Severity},
    schema::Table,
};

fn shop() -> (Connection, Vec<Table>) {
    let mut database = Connection::open_in_memory().unwrap();
    database.execute_batch(chinook::SCHEMA).unwrap();
    let transaction = database.transaction().unwrap();
    let tables = capture::attach(&transaction, Wanted::All).unwrap();
    transaction.commit().unwrap();
    (database, tables)
}

fn count(database: &Connection, sql: &str) -> i64 {
    database.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn every_row_that_is_put_into_the_shop_is_recorded_once() {
    let (database, tables) = shop();
    chinook::fill(&database, 2).unwrap();
    assert_eq!(tables.len(), 11);
    for table in &tables {
        let rows = count(&database, &format!("SELECT count(*) FROM {}", table.name));
        let touches = format!("SELECT count(*) FROM _ssw_touch WHERE tbl = {} AND what = -1", table.number);
        assert_eq!((rows > 0, count(&database, &touches)), (true, rows), "{}", table.name);
    }
    assert_eq!(count(&database, "SELECT count(*) FROM pragma_foreign_key_check"), 0);
    assert_eq!(count(&database, "SELECT ReportsTo FROM Employee WHERE EmployeeId = 8"), 3);
}

#[test]
fn the_shops_keys_and_references_are_read() {
    let (_, tables) = shop();
    let table = |name: &str| tables.iter().find(|table| table.name == name).unwrap();
    assert_eq!(table("PlaylistTrack").key, [0, 1]);
    assert_eq!(table("Employee").references[0].parent, "Employee");
    assert_eq!(table("Track").references.len(), 3);
    assert!(tables.iter().all(|table| table.together.is_empty() && table.uniques.is_empty()));
}

#[test]
fn the_doctor_has_only_the_shops_integer_keys_to_say() {
    let (database, _) = shop();
    let findings = doctor::check(&database, Wanted::All).unwrap();
    // And that it is in memory, without a log.
    let (errors, others): (Vec<_>, Vec<_>) = findings.iter().partition(|finding| finding.severity == Severity::Error);
    assert_eq!((errors.len(), others.len()), (1, 10));
    assert!(others.iter().all(|finding| finding.what.contains("integer that SQLite chooses")));
}
