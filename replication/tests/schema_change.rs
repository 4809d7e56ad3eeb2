//! Schema changes that all sites make together, and what goes wrong with them.

mod sites;

use rusqlite::TransactionBehavior;
use sites::{Dice, Site, Sites};
use siteswap_replication::{
    capture::{self, Wanted},
    schema::Table,
    store::{Counted, Doubt, Error, agree, end_fence},
    verify::Policy,
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

fn begin(sites: &mut Sites) {
    let now = sites.now;
    let counted = |site: &mut Site| (site.id.to_string(), site.store.before_fence(now).expect("a count"));
    let agreed = agree(&sites.all.iter_mut().map(counted).collect()).expect("all have ended the last one");
    for site in &mut sites.all {
        site.store.fence(agreed, now).expect("a schema change to begin");
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

/// Two sites that have made a table anew in a schema change, which has taken a write at one of them before its end.
fn rebuilt_and_written() -> (Sites, Dice) {
    let (mut sites, dice) = two();
    begin(&mut sites);
    (0..2).for_each(|at| sites.write(at, REBUILD));
    sites.write(0, "INSERT INTO item VALUES(3, 'recorded by nobody', 0)");
    (0..2).for_each(|at| drop(commit(&mut sites, at).expect("a commit")));
    (sites, dice)
}

/// As the agents do it, the second one first.
fn compare_as_doubted(sites: &mut Sites, dice: &mut Dice) {
    sites.settle(dice);
    for (at, peer) in [(1, 0), (0, 1)] {
        while let Some(doubt) = sites.all[at].store.doubt().expect("a state") {
            let (tables, policy) = match doubt {
                Doubt::Rebuilt(tables) => (tables, Policy::KeepHere),
                Doubt::Unrecorded(tables) => (tables, Policy::Here),
                other => panic!("{other:?}"),
            };
            let outcome = sites.compare_only(at, peer, Some(tables), dice).expect("a comparison");
            if !sites.all[at].store.verified(&outcome).expect("a state") {
                sites.repair(at, &outcome, policy, dice);
            }
        }
    }
    assert_eq!(sites.all[0].rows("item"), sites.all[1].rows("item"));
}

#[test]
fn what_was_written_to_a_table_between_its_rebuilding_and_the_commit_stays_whoever_compares_first() {
    let (mut sites, mut dice) = rebuilt_and_written();
    compare_as_doubted(&mut sites, &mut dice);
    assert_eq!(sites.all[0].rows("item").len(), 3);
}

#[test]
fn what_was_written_to_a_table_that_was_rebuilt_before_the_schema_change_began_stays() {
    let (mut sites, mut dice) = two();
    sites.settle(&mut dice);
    // Another declared type: it is not captured any more, and nobody may guess what it is now.
    let rebuild = REBUILD.replace("a TEXT", "a VARCHAR");
    sites.write(0, &rebuild);
    sites.write(0, "INSERT INTO item VALUES(3, 'recorded by nobody', 0)");
    sites.fold(0);
    begin(&mut sites);
    sites.write(1, &rebuild);
    (0..2).for_each(|at| drop(commit(&mut sites, at).expect("a commit")));
    assert_eq!(unverified(&sites, 0), ["item"]);
    compare_as_doubted(&mut sites, &mut dice);
    assert_eq!(sites.all[0].rows("item").len(), 3);
}

#[test]
fn a_table_that_is_dropped_without_a_schema_change_keeps_no_other_from_being_replicated_and_one_can_begin() {
    let (mut sites, mut dice) = two();
    sites.settle(&mut dice);
    sites.write(0, "UPDATE item SET a = 'last'; DROP TABLE item; INSERT INTO other VALUES(1, 'one')");
    sites.settle(&mut dice);
    assert_eq!(sites.all[1].rows("other").len(), 1);
    begin(&mut sites);
    sites.write(1, "DROP TABLE item");
    (0..2).for_each(|at| drop(commit(&mut sites, at).expect("a commit")));
    sites.write(1, "INSERT INTO other VALUES(2, 'two')");
    sites.settle(&mut dice);
    assert_eq!(sites.all[0].rows("other").len(), 2);
}

#[test]
fn a_column_that_is_renamed_without_a_schema_change_keeps_no_other_table_from_being_replicated_and_one_can_begin() {
    const RENAME: &str = "ALTER TABLE item RENAME COLUMN b TO c";
    let (mut sites, mut dice) = two();
    sites.settle(&mut dice);
    sites.write(0, &format!("UPDATE item SET a = 'last' WHERE id = 1; {RENAME}; INSERT INTO other VALUES(1, 'one')"));
    sites.write(0, "UPDATE item SET c = 'newer' WHERE id = 2");
    sites.write(1, "INSERT INTO other VALUES(2, 'two')");
    sites.settle(&mut dice);
    assert_eq!([0, 1].map(|at| sites.all[at].rows("other").len()), [2, 2]);
    let local = sites.all[0].store.verify_local().expect("a check");
    assert!(local.departures.iter().any(|one| one.difference.to_string() == "column \"b\" is now \"c\""), "{local:?}");
    begin(&mut sites);
    sites.write(1, RENAME);
    (0..2).for_each(|at| drop(commit(&mut sites, at).expect("a commit")));
    compare_as_doubted(&mut sites, &mut dice);
    let there = |at: usize, sql: &str| sites.all[at].app.prepare(sql).expect("a query").exists([]).expect("an answer");
    for at in [0, 1] {
        assert!(there(at, "SELECT 1 FROM item WHERE id = 1 AND a = 'last'"), "at site {at}");
        assert!(there(at, "SELECT 1 FROM item WHERE id = 2 AND c = 'newer'"), "at site {at}");
    }
}

#[test]
fn a_table_that_was_rebuilt_in_a_schema_change_and_took_writes_is_to_be_compared() {
    let (mut sites, mut dice) = rebuilt_and_written();
    for at in 0..2 {
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
    sites.write(0, change);
    commit(&mut sites, 0).expect("a commit");
    assert_eq!(unverified(&sites, 0), ["filled"]);
}

const RENAME: &str = "ALTER TABLE item RENAME COLUMN b TO c";

fn assert_replicating(sites: &mut Sites, dice: &mut Dice) {
    for at in 0..2 {
        sites.write(at, &format!("INSERT INTO item(id, a) VALUES(1{at}, 'new')"));
    }
    sites.settle(dice);
    assert_eq!(sites.all[0].rows("item"), sites.all[1].rows("item"));
    assert!(sites.all[0].rows("item").len() >= 4);
}

#[test]
fn a_schema_change_that_is_taken_back_loses_nothing_that_waits() {
    let (mut sites, mut dice) = two();
    sites.write(0, "UPDATE item SET a = 'waits'");
    begin(&mut sites);
    assert!(sites.all[0].store.status(sites.now).expect("a status").fenced);
    (0..2).for_each(|at| assert!(commit(&mut sites, at).is_ok()));
    assert_replicating(&mut sites, &mut dice);
    assert_eq!(arrived(&sites, "SELECT count(*) FROM item WHERE a = 'waits'"), 2);
    // At one site alone, and begun again: the count is the same as if it had not been.
    begin(&mut sites);
    commit(&mut sites, 0).expect("a commit");
    begin(&mut sites);
    for at in 0..2 {
        sites.write(at, RENAME);
        commit(&mut sites, at).expect("a commit");
    }
    assert_replicating_more(&mut sites, &mut dice);
}

fn assert_replicating_more(sites: &mut Sites, dice: &mut Dice) {
    sites.write(0, "UPDATE item SET c = 'more'");
    sites.settle(dice);
    assert_eq!(arrived(sites, "SELECT count(*) FROM item WHERE c = 'more'"), 4);
}

fn arrived(sites: &Sites, sql: &str) -> u64 {
    sites.all[1].app.query_row(sql, [], |row| row.get(0)).expect("a count")
}

#[test]
fn sites_agree_on_a_count_that_none_of_them_has_and_that_all_come_to() {
    let count = |count, agreed| Counted { count, agreed };
    let agree = |one, two| agree(&[("one".to_owned(), one), ("two".to_owned(), two)].into()).map_err(str::to_owned);
    assert_eq!(agree(count(3, None), count(3, None)), Ok(4));
    assert_eq!(agree(count(3, Some(4)), count(3, None)), Ok(4), "the first was not fenced, or has taken it back");
    assert_eq!(agree(count(3, None), count(0, None)), Ok(5));
    assert_eq!(agree(count(3, Some(5)), count(0, Some(5))), Ok(5));
    assert_eq!(agree(count(4, None), count(3, Some(4))), Err("two".to_owned()), "which one has ended");
}

#[test]
fn sites_whose_counts_differ_agree_again_by_a_schema_change_without_a_change() {
    let (mut sites, mut dice) = two();
    sites.all[0].app.execute("INSERT INTO _ssw_meta(k, v) VALUES('schema', 3)", []).expect("a count");
    sites.all[1].app.execute("INSERT INTO _ssw_meta(k, v) VALUES('schema', 0)", []).expect("a count");
    sites.write(0, "UPDATE item SET a = 'waits'");
    begin(&mut sites);
    (0..2).for_each(|at| assert!(commit(&mut sites, at).is_ok()));
    assert_replicating(&mut sites, &mut dice);
}

#[test]
fn a_database_that_is_attached_anew_counts_as_its_peers() {
    let (mut sites, mut dice) = two();
    begin(&mut sites);
    for at in 0..2 {
        sites.write(at, RENAME);
        commit(&mut sites, at).expect("a commit");
    }
    assert_replicating(&mut sites, &mut dice);
    sites.attach_anew(0, "");
    sites.mend(0, &mut dice);
    sites.mend(1, &mut dice);
    assert_replicating_more(&mut sites, &mut dice);
}

/// Whether an application can write to a table.
fn takes_writes(sites: &Sites, table: &str) -> bool {
    sites.all[0].app.execute(&format!("INSERT INTO {table}(id) SELECT ifnull(max(id), 0) + 1 FROM {table}"), []).is_ok()
}

#[test]
fn a_table_that_another_site_holds_refuses_writes_also_if_it_is_attached_or_made_anew_later() {
    let (mut sites, _) = two();
    let now = sites.now;
    let held = |tables: &[&str]| tables.iter().map(|table| ((*table).to_owned(), Some("west".to_owned()))).collect();
    sites.all[0].store.refuse(&held(&["item", "later"]), now).expect("refusals");
    assert!(!takes_writes(&sites, "item"));
    assert!(takes_writes(&sites, "other"));
    let transaction = sites.all[0].app.transaction().expect("a transaction");
    transaction.execute_batch("CREATE TABLE later(id INTEGER PRIMARY KEY)").expect("a table");
    capture::attach(&transaction, Wanted::All).expect("a table to attach");
    transaction.commit().expect("a commit");
    sites.write(0, "DROP TABLE item; CREATE TABLE item(id INTEGER PRIMARY KEY, a TEXT, b)");
    sites.all[0].store.refresh().expect("a look at the schema");
    assert!(!takes_writes(&sites, "item") && !takes_writes(&sites, "later"));
    sites.all[0].store.refuse(&held(&["later"]), now).expect("refusals");
    assert!(takes_writes(&sites, "item"), "nobody guards it any more");
    assert!(!takes_writes(&sites, "later"));
}
