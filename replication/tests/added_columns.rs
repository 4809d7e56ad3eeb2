//! Columns that applications add while sites replicate: at one site, later at the other, with writes before, between and
//! after.

mod sites;

use sites::{Dice, Sites};
use siteswap_replication::store::{Error, Position, Received};

const SCHEMA: &str = "
CREATE TABLE item(id INTEGER PRIMARY KEY, a TEXT, b);
INSERT INTO item VALUES(1, 'one', 0), (2, 'two', 0), (3, 'three', 0);
CREATE TABLE \"odd \"\"name\"(\"k 1\" TEXT COLLATE NOCASE, k0 BLOB, v, PRIMARY KEY(\"k 1\", k0)) WITHOUT ROWID;
INSERT INTO \"odd \"\"name\" VALUES('p', x'00', 1), ('q', x'', 1);
";
const ADD: &str = "ALTER TABLE item ADD COLUMN c TEXT NOT NULL DEFAULT 'none';";

fn two() -> (Sites, Dice) {
    (Sites::new(SCHEMA, &[0, 0], &[]), Dice::new(1))
}

/// What an application does at a site, later than everything before.
fn write(sites: &mut Sites, at: usize, sql: &str) {
    sites.now += 10;
    let site = &sites.all[at];
    site.set_clock(sites.now);
    site.app.execute_batch(sql).expect("a write");
}

/// The first column of a query's rows, the same at both sites.
fn both(sites: &Sites, query: &str) -> Vec<String> {
    let [one, two] = [0, 1].map(|at| {
        let mut statement = sites.all[at].app.prepare(query).expect("a query");
        let rows = statement.query_map([], |row| row.get(0)).expect("rows");
        rows.collect::<Result<Vec<String>, _>>().expect("text")
    });
    assert_eq!(one, two, "{query}");
    one
}

const ITEMS: &str = "SELECT id || ' ' || a || ' ' || b || ' ' || c FROM item ORDER BY id";

#[test]
fn what_is_written_to_a_new_column_before_the_agent_knows_it_is_not_lost() {
    let (mut sites, mut dice) = two();
    let odd = "ALTER TABLE \"odd \"\"name\" ADD COLUMN \"new\" DEFAULT 1;";
    write(
        &mut sites,
        0,
        &format!(
            "{ADD} {odd} UPDATE item SET c = 'x' WHERE id = 1; INSERT INTO item VALUES(4, 'four', 0, 'y');
             UPDATE item SET c = 'z' WHERE id = 2; DELETE FROM item WHERE id = 2;
             UPDATE \"odd \"\"name\" SET \"new\" = 1.0 WHERE \"k 1\" = 'P'"
        ),
    );
    write(&mut sites, 1, &format!("{ADD} {odd}"));
    sites.settle(&mut dice);
    assert_eq!(both(&sites, ITEMS), ["1 one 0 x", "3 three 0 none", "4 four 0 y"]);
    let odd = "SELECT \"k 1\" || typeof(\"new\") FROM \"odd \"\"name\" ORDER BY 1";
    assert_eq!(both(&sites, odd), ["preal", "qinteger"]);
    // Now the triggers know it.
    write(&mut sites, 0, "UPDATE item SET c = 'w' WHERE id = 1; DELETE FROM item WHERE id = 3");
    sites.settle(&mut dice);
    assert_eq!(both(&sites, ITEMS), ["1 one 0 w", "4 four 0 y"]);
}

#[test]
fn changes_to_a_table_with_a_column_that_the_peer_lacks_wait_until_it_has_it() {
    let (mut sites, mut dice) = two();
    write(&mut sites, 0, &format!("{ADD} UPDATE item SET c = 'x' WHERE id = 1"));
    sites.fold(0);
    let (part, _) = sites.all[0].store.next_part(&Position::default()).expect("a part").expect("something to send");
    let now = sites.now;
    let refused = sites.all[1].store.receive(&part, now).expect_err("no such column");
    assert!(matches!(&refused, Error::Unknown(what) if what == "column item.c"), "{refused}");

    // The other way all goes on.
    write(&mut sites, 1, "INSERT INTO item VALUES(4, 'four', 0); UPDATE item SET a = 'zwei' WHERE id = 2");
    sites.fold(1);
    let (back, _) = sites.all[1].store.next_part(&Position::default()).expect("a part").expect("something to send");
    let received = sites.all[0].store.receive(&back, now).expect("it fits");
    assert!(matches!(received, Received::Applied { rows: 2, conflicts: 0 }), "{received:?}");

    write(&mut sites, 1, &format!("{ADD} UPDATE item SET c = 'y' WHERE id = 2"));
    let received = sites.all[1].store.receive(&part, now).expect("the column is there");
    assert!(matches!(received, Received::Applied { rows: 1, conflicts: 0 }), "{received:?}");
    sites.settle(&mut dice);
    assert_eq!(both(&sites, ITEMS), ["1 one 0 x", "2 zwei 0 y", "3 three 0 none", "4 four 0 none"]);
}

#[test]
fn changes_of_other_columns_do_not_take_back_what_the_peer_has_put_into_a_new_one() {
    let (mut sites, mut dice) = two();
    write(&mut sites, 1, &format!("{ADD} UPDATE item SET c = 'theirs'"));
    sites.fold(1);
    // One is known to be newer when the column comes; one is touched by triggers that do not know the column.
    write(&mut sites, 0, "UPDATE item SET a = 'ours' WHERE id = 1");
    sites.fold(0);
    write(&mut sites, 0, &format!("UPDATE item SET a = 'ours' WHERE id = 2; {ADD} UPDATE item SET b = 7 WHERE id = 3"));
    sites.settle(&mut dice);
    assert_eq!(both(&sites, ITEMS), ["1 ours 0 theirs", "2 ours 0 theirs", "3 three 7 theirs"]);
    assert_eq!(sites.all.iter().map(|site| site.store.conflicts(9).expect("a log").len()).sum::<usize>(), 0);
}

#[test]
fn a_row_inserted_before_its_table_had_the_column_arrives_with_the_default() {
    let (mut sites, mut dice) = two();
    write(&mut sites, 0, "INSERT INTO item VALUES(4, 'four', 0)");
    sites.fold(0);
    (0..2).for_each(|at| write(&mut sites, at, ADD));
    sites.settle(&mut dice);
    assert_eq!(both(&sites, ITEMS).last().map(String::as_str), Some("4 four 0 none"));
}

#[test]
fn a_row_deleted_before_its_table_had_the_column_comes_back_whole() {
    let (mut sites, mut dice) = two();
    write(&mut sites, 0, "DELETE FROM item WHERE id = 3");
    sites.fold(0);
    write(&mut sites, 1, "UPDATE item SET a = 'kept' WHERE id = 3");
    sites.fold(1);
    (0..2).for_each(|at| write(&mut sites, at, ADD));
    sites.settle(&mut dice);
    assert_eq!(both(&sites, ITEMS).last().map(String::as_str), Some("3 kept 0 none"));
}

#[test]
fn a_dropped_trigger_is_put_back_and_its_table_named_as_not_compared() {
    let (mut sites, mut dice) = two();
    write(&mut sites, 0, "DROP TRIGGER _ssw_u_1");
    sites.all[0].store.refresh().expect("a look at the schema");
    write(&mut sites, 0, "UPDATE item SET a = 'seen' WHERE id = 1");
    sites.settle(&mut dice);
    assert_eq!(both(&sites, "SELECT a FROM item ORDER BY id"), ["seen", "two", "three"]);
    let local = sites.all[0].store.verify_local().expect("a check");
    assert_eq!((local.departures.len(), local.unverified.len()), (0, 1));
}
