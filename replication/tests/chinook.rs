//! A schema as applications have it: capture of the music shop.

#[path = "support/chinook.rs"]
mod chinook;
mod sites;

use rusqlite::Connection;
use sites::{Dice, Sites};
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
    let findings = doctor::check(&database, Wanted::All, &[]).unwrap();
    // And that it is in memory, without a log.
    let (errors, others): (Vec<_>, Vec<_>) = findings.iter().partition(|finding| finding.severity == Severity::Error);
    assert_eq!((errors.len(), others.len()), (1, 10));
    assert!(others.iter().all(|finding| finding.what.contains("integer that SQLite chooses")));
}

/// Every table is written to at both sites before either hears of the other, and then they are the same.
#[test]
fn two_shops_that_sell_at_once_come_to_be_the_same() {
    let (mut sites, mut dice) = (Sites::new(chinook::SCHEMA, &[0, 0], &[]), Dice::new(1));
    for site in &sites.all {
        site.app.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    }
    chinook::fill(&sites.all[0].app, 1).unwrap();
    sites.settle(&mut dice);
    assert_eq!(count(&sites.all[1].app, "SELECT count(*) FROM PlaylistTrack"), 8715);

    sites.write(
        0,
        "INSERT INTO Invoice VALUES(1001, 1, '2026-01-01', NULL, NULL, NULL, NULL, NULL, 1.98);
         INSERT INTO InvoiceLine VALUES(10001, 1001, 1, 0.99, 1), (10002, 1001, 2, 0.99, 1);
         UPDATE Track SET UnitPrice = 1.29 WHERE AlbumId % 3 = 0; UPDATE Customer SET Email = 'new@shop.test' WHERE CustomerId = 7;
         DELETE FROM PlaylistTrack WHERE PlaylistId = 1 AND TrackId % 2 = 0;
         INSERT INTO Artist VALUES(1001, 'New'); INSERT INTO Album VALUES(1001, 'First', 1001);
         UPDATE PlaylistTrack SET PlaylistId = 18 WHERE PlaylistId = 2 AND TrackId NOT IN
           (SELECT TrackId FROM PlaylistTrack WHERE PlaylistId = 18);
         DELETE FROM InvoiceLine WHERE InvoiceId = 5; DELETE FROM Invoice WHERE InvoiceId = 5",
    );
    sites.write(
        1,
        "INSERT INTO Invoice VALUES(2001, 2, '2026-01-01', NULL, NULL, NULL, NULL, NULL, 0.99);
         INSERT INTO InvoiceLine VALUES(20001, 2001, 1, 0.99, 1), (20002, 5, 7, 0.99, 1);
         UPDATE Track SET Composer = 'Somebody' WHERE TrackId % 5 = 0; UPDATE Customer SET Phone = '1' WHERE CustomerId = 7;
         UPDATE Employee SET ReportsTo = 2 WHERE EmployeeId = 8; DELETE FROM PlaylistTrack WHERE PlaylistId = 1 AND TrackId % 3 = 0;
         INSERT OR IGNORE INTO PlaylistTrack SELECT 17, TrackId FROM Track WHERE TrackId < 50;
         DELETE FROM Genre WHERE GenreId NOT IN (SELECT GenreId FROM Track)",
    );
    sites.settle(&mut dice);
    let tables: Vec<String> = sites.all[0].store.tables().map(str::to_owned).collect();
    for table in &tables {
        assert_eq!(sites.all[0].rows(table), sites.all[1].rows(table), "{table}");
    }
    for site in &sites.all {
        let one = |sql: &str| assert_eq!(count(&site.app, sql), 1, "{sql}");
        assert_eq!(count(&site.app, "SELECT count(*) FROM pragma_foreign_key_check"), 0);
        one("SELECT count(*) FROM Customer WHERE CustomerId = 7 AND Email = 'new@shop.test' AND Phone = '1'");
        one(
            "SELECT count(*) FROM Invoice JOIN InvoiceLine USING(InvoiceId) WHERE InvoiceId = 5 AND InvoiceLineId = 20002",
        );
        one("SELECT count(*) > 0 FROM Track WHERE UnitPrice = 1.29 AND Composer = 'Somebody'");
        one("SELECT count(*) FROM Employee WHERE EmployeeId = 8 AND ReportsTo = 2");
    }
    let outcome = sites.compare(1, 0, &mut dice);
    assert!(outcome.is_clean() && outcome.tables.len() == 11, "{outcome:?}");
    assert_eq!([sites.kept(0), sites.kept(1)], [(0, 0); 2]);
}

/// Rows are deleted to which the other site refers meanwhile, by foreign keys and with keys of two columns.
#[test]
fn what_one_shop_deletes_and_the_other_needs_is_back_until_nobody_does() {
    let (mut sites, mut dice) = (Sites::new(chinook::SCHEMA, &[0, 0], &[]), Dice::new(1));
    chinook::fill(&sites.all[0].app, 1).unwrap();
    sites.settle(&mut dice);
    sites.write(
        0,
        "BEGIN; UPDATE Track SET GenreId = NULL WHERE GenreId = 25; DELETE FROM Genre WHERE GenreId = 25; COMMIT;
         BEGIN; DELETE FROM PlaylistTrack WHERE TrackId = 4; DELETE FROM InvoiceLine WHERE TrackId = 4;
         DELETE FROM Track WHERE TrackId = 4; COMMIT;
         BEGIN; UPDATE Employee SET ReportsTo = 1 WHERE ReportsTo = 2; DELETE FROM Employee WHERE EmployeeId = 2; COMMIT;
         DELETE FROM PlaylistTrack WHERE PlaylistId = 5",
    );
    sites.write(
        1,
        "UPDATE Track SET GenreId = 25 WHERE TrackId = 18;
         REPLACE INTO PlaylistTrack VALUES(6, 4); INSERT INTO PlaylistTrack VALUES(5, 3500);
         DELETE FROM PlaylistTrack WHERE PlaylistId IN (5, 8) AND TrackId < 100;
         INSERT INTO Employee(EmployeeId, LastName, FirstName, ReportsTo) VALUES(9, 'New', 'West', 2)",
    );
    sites.settle(&mut dice);
    assert_same(&mut sites, &mut dice);
    let expect = |sites: &Sites, what: &str, rows: i64| {
        assert_eq!(count(&sites.all[0].app, &format!("SELECT count(*) FROM {what}")), rows, "{what}");
    };
    expect(&sites, "Genre JOIN Track USING(GenreId) WHERE GenreId = 25 AND TrackId = 18", 1);
    expect(&sites, "Track WHERE GenreId = 25", 1);
    expect(&sites, "Track JOIN PlaylistTrack USING(TrackId) WHERE TrackId = 4 AND PlaylistId = 6", 1);
    expect(&sites, "PlaylistTrack WHERE TrackId = 4", 1);
    expect(&sites, "InvoiceLine WHERE TrackId = 4", 0);
    expect(&sites, "Employee a JOIN Employee b ON b.ReportsTo = a.EmployeeId WHERE a.EmployeeId = 2", 1);
    expect(&sites, "PlaylistTrack WHERE PlaylistId = 5", 1);

    sites.write(1, "DELETE FROM PlaylistTrack WHERE TrackId = 4; DELETE FROM Track WHERE TrackId = 4");
    sites.write(0, "DELETE FROM Employee WHERE EmployeeId = 9; DELETE FROM Employee WHERE EmployeeId = 2");
    sites.settle(&mut dice);
    assert_same(&mut sites, &mut dice);
    expect(&sites, "Track WHERE TrackId = 4", 0);
    expect(&sites, "Employee WHERE EmployeeId IN (2, 9)", 0);
    assert_eq!([sites.kept(0), sites.kept(1)], [(0, 0); 2]);
}

fn assert_same(sites: &mut Sites, dice: &mut Dice) {
    let tables: Vec<String> = sites.all[0].store.tables().map(str::to_owned).collect();
    let mut rows = 0;
    for table in &tables {
        let [one, two] = [0, 1].map(|at| sites.all[at].rows(table));
        assert_eq!(one, two, "{table}");
        rows += one.len() as u64;
    }
    for at in [0, 1] {
        assert_eq!(count(&sites.all[at].app, "SELECT count(*) FROM pragma_foreign_key_check"), 0, "site {}", at + 1);
        let outcome = sites.compare(at, 1 - at, dice);
        assert!(outcome.is_clean() && outcome.tables.len() == 11 && outcome.rows == rows, "{outcome:?}");
    }
}
