//! Schema changes that all sites make together, and what goes wrong with them.

mod sites;

use rusqlite::TransactionBehavior;
use sites::{Dice, Sites};
use siteswap_replication::{
    capture::Wanted,
    schema::Table,
    store::{Error, end_fence},
};

const SCHEMA: &str = "
CREATE TABLE item(id INTEGER PRIMARY KEY, a TEXT, b);
INSERT INTO item VALUES(1, 'one', 0), (2, 'two', 0);
CREATE TABLE other(id INTEGER PRIMARY KEY, a);
";

/// SQLite's way to change what ALTER TABLE cannot.
const REBUILD: &str = "
CREATE TABLE rebuilt(id INTEGER PRIMARY KEY, a TEXT CHECK(a <> ''), b);
INSERT INTO rebuilt SELECT * FROM item; DROP TABLE item; ALTER TABLE rebuilt RENAME TO item;
";

fn two() -> (Sites, Dice) {
    (Sites::new(SCHEMA, &[0, 0], &[]), Dice::new(1))
}

fn write(sites: &mut Sites, at: usize, sql: &str) {
    sites.now += 10;
    let site = &sites.all[at];
    site.set_clock(sites.now);
    site.app.execute_batch(sql).expect("a write");
}

fn begin(sites: &mut Sites) {
    for site in &mut sites.all {
        assert!(site.store.fence(sites.now).expect("a schema change to begin"), "nothing waits");
    }
}

fn commit(sites: &mut Sites, at: usize) -> Result<Vec<Table>, Error> {
    let app = &mut sites.all[at].app;
    let transaction = app.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let tables = end_fence(&transaction, Wanted::All, false)?;
    transaction.commit()?;
    sites.all[at].store.refresh()?;
    Ok(tables)
}

fn unverified(sites: &Sites, at: usize) -> Vec<String> {
    sites.all[at].store.verify_local().expect("a check").unverified
}

#[test]
fn a_table_that_was_rebuilt_in_a_schema_change_and_took_writes_is_to_be_compared() {
    let (mut sites, mut dice) = two();
    begin(&mut sites);
    (0..2).for_each(|at| write(&mut sites, at, REBUILD));
    write(&mut sites, 0, "INSERT INTO item VALUES(3, 'recorded by nobody', 0)");
    for at in 0..2 {
        commit(&mut sites, at).expect("a commit");
        assert_eq!(unverified(&sites, at), ["item"]);
    }
    sites.settle(&mut dice);
    let outcome = sites.compare(0, 1, &mut dice);
    assert_eq!(outcome.differing.len(), 1);
}

#[test]
fn tables_that_refused_writes_until_the_end_of_a_schema_change_are_in_no_doubt() {
    let (mut sites, _) = two();
    begin(&mut sites);
    let change = "ALTER TABLE item RENAME COLUMN b TO c; ALTER TABLE other RENAME TO another;
                  CREATE TABLE filled(id INTEGER PRIMARY KEY); CREATE TABLE empty(id INTEGER PRIMARY KEY);
                  INSERT INTO filled VALUES(1)";
    write(&mut sites, 0, change);
    commit(&mut sites, 0).expect("a commit");
    assert_eq!(unverified(&sites, 0), ["filled"]);
}
