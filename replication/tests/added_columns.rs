//! Columns that applications add while sites replicate: at one site, later at the other, with writes before, between and
//! after.

mod sites;

use std::collections::BTreeMap;

use sites::{Dice, Outside, Sites, each_seed};
use siteswap_replication::store::{Error, Position};

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

fn lacking(sites: &Sites, at: usize) -> Vec<String> {
    sites.all[at].store.status(sites.now).expect("a status").lacking
}

const ITEMS: &str = "SELECT id || ' ' || a || ' ' || b || ' ' || c FROM item ORDER BY id";

#[test]
fn what_is_written_to_a_new_column_before_the_agent_knows_it_is_not_lost() {
    let (mut sites, mut dice) = two();
    let odd = "ALTER TABLE \"odd \"\"name\" ADD COLUMN \"new\" DEFAULT 1;";
    sites.write(
        0,
        &format!(
            "{ADD} {odd} UPDATE item SET c = 'x' WHERE id = 1; INSERT INTO item VALUES(4, 'four', 0, 'y');
             UPDATE item SET c = 'z' WHERE id = 2; DELETE FROM item WHERE id = 2;
             UPDATE \"odd \"\"name\" SET \"new\" = 1.0 WHERE \"k 1\" = 'P'"
        ),
    );
    sites.write(1, &format!("{ADD} {odd}"));
    sites.settle(&mut dice);
    assert_eq!(both(&sites, ITEMS), ["1 one 0 x", "3 three 0 none", "4 four 0 y"]);
    let odd = "SELECT \"k 1\" || typeof(\"new\") FROM \"odd \"\"name\" ORDER BY 1";
    assert_eq!(both(&sites, odd), ["preal", "qinteger"]);
    // Now the triggers know it.
    sites.write(0, "UPDATE item SET c = 'w' WHERE id = 1; DELETE FROM item WHERE id = 3");
    sites.settle(&mut dice);
    assert_eq!(both(&sites, ITEMS), ["1 one 0 w", "4 four 0 y"]);
}

#[test]
fn values_of_a_column_that_a_site_lacks_wait_there_until_it_has_it_and_nothing_else_does() {
    let (mut sites, mut dice) = two();
    sites.write(
        0,
        &format!(
            "{ADD} UPDATE item SET c = 'x' WHERE id = 1; INSERT INTO item VALUES(4, 'four', 0, 'y');
             UPDATE item SET a = 'zwei', c = 'z' WHERE id = 2; UPDATE item SET c = 'gone' WHERE id = 3"
        ),
    );
    sites.settle(&mut dice);
    let without = "SELECT id || ' ' || a || ' ' || b FROM item ORDER BY id";
    assert_eq!(both(&sites, without), ["1 one 0", "2 zwei 0", "3 three 0", "4 four 0"]);
    assert_eq!(lacking(&sites, 1), ["item.c"]);
    assert!(matches!(sites.all[1].store.fence(1, sites.now), Err(Error::Lacking(what)) if what == "item.c"));
    // Also what the site itself changes or deletes meanwhile keeps what is parked for it; only what it writes later to the
    // column itself is newer.
    sites.write(1, "UPDATE item SET b = 7 WHERE id = 1; DELETE FROM item WHERE id = 3");
    sites.settle(&mut dice);
    sites.write(1, &format!("{ADD} UPDATE item SET c = 'newer' WHERE id = 4"));
    sites.settle(&mut dice);
    assert_eq!(both(&sites, ITEMS), ["1 one 7 x", "2 zwei 0 z", "4 four 0 newer"]);
    assert_eq!(lacking(&sites, 1), [""; 0]);
    assert_eq!([0, 1].map(|at| sites.kept(at)), [(0, 0); 2], "nothing is parked any more");
}

#[test]
fn parked_values_appear_with_their_column_also_if_nothing_else_happens() {
    let (mut sites, mut dice) = two();
    sites.write(0, &format!("{ADD} UPDATE item SET c = 'x'"));
    sites.settle(&mut dice);
    sites.all[1].app.execute_batch(ADD).expect("a column");
    sites.fold(1);
    assert_eq!(both(&sites, ITEMS), ["1 one 0 x", "2 two 0 x", "3 three 0 x"]);
}

#[test]
fn a_deleted_row_that_an_edit_brings_back_has_what_was_parked_for_it() {
    let (mut sites, mut dice) = two();
    sites.write(0, &format!("{ADD} UPDATE item SET c = 'x' WHERE id = 1"));
    sites.settle(&mut dice);
    sites.write(1, "DELETE FROM item WHERE id = 1");
    sites.fold(1);
    sites.write(1, ADD);
    sites.fold(1);
    sites.write(0, "UPDATE item SET b = 'newer' WHERE id = 1");
    sites.settle(&mut dice);
    assert_eq!(both(&sites, ITEMS), ["1 one newer x", "2 two 0 none", "3 three 0 none"]);
    assert_eq!([0, 1].map(|at| sites.kept(at)), [(0, 0); 2]);
}

#[test]
fn a_unique_index_on_an_added_column_is_kept_when_parked_values_collide_in_it() {
    let (mut sites, mut dice) = two();
    sites.write(0, "ALTER TABLE item ADD COLUMN c; UPDATE item SET c = 'same' WHERE id = 1");
    sites.settle(&mut dice);
    let index = "CREATE UNIQUE INDEX one ON item(c)";
    sites.write(1, &format!("ALTER TABLE item ADD COLUMN c; {index}; UPDATE item SET c = 'same' WHERE id = 2"));
    sites.write(0, index);
    sites.settle(&mut dice);
    assert_eq!(both(&sites, "SELECT id || ifnull(c, '') FROM item ORDER BY id"), ["1", "2same", "3"]);
    assert!(sites.all.iter().any(|site| !site.store.conflicts(9).expect("a log").is_empty()));
}

#[test]
fn during_a_schema_change_changes_of_a_column_that_a_site_lacks_wait_at_the_peer() {
    let (mut sites, _) = two();
    sites.write(0, &format!("{ADD} UPDATE item SET c = 'x' WHERE id = 1"));
    sites.fold(0);
    sites.all[1].store.fence(1, sites.now).expect("a schema change to begin");
    let (part, _) = sites.all[0].store.next_part(2, &Position::default()).expect("a part").expect("something to send");
    let refused = sites.all[1].store.receive(&part, sites.now).expect_err("no such column");
    assert!(matches!(&refused, Error::Unknown(what) if what == "column item.c"), "{refused}");
}

#[test]
fn a_comparison_says_nothing_of_a_table_while_one_site_lacks_a_column_and_ends_no_doubt() {
    type Doubted = fn(&mut Sites, &mut Dice);
    let restored: Doubted = |sites, dice| {
        let backup = sites.back_up(1);
        sites.write(0, &format!("{ADD} UPDATE item SET c = 'x'"));
        sites.settle(dice);
        sites.restore(1, &backup, Outside::Kept);
    };
    let forgotten: Doubted = |sites, _| {
        sites.write(0, &format!("{ADD} UPDATE item SET c = 'x'"));
        sites.fold(0);
        while sites.all[0].store.forget_beyond(0).expect("less").forgot {}
    };
    for doubted in [restored, forgotten] {
        let (mut sites, mut dice) = two();
        sites.settle(&mut dice);
        doubted(&mut sites, &mut dice);
        sites.settle(&mut dice);
        for (at, peer) in [(0, 1), (1, 0)] {
            let outcome = sites.compare(at, peer, &mut dice);
            assert_eq!(outcome.lacking, ["item.c"]);
            assert!(outcome.differing.is_empty(), "{outcome:?}");
            assert!(!sites.all[at].store.verified(&outcome).expect("a state"));
        }
        assert!(sites.all[1].store.doubt().expect("a state").is_some());
        sites.write(1, ADD);
        sites.all[1].store.refresh().expect("a look at the schema");
        sites.mend(1, &mut dice);
        assert_eq!(both(&sites, ITEMS), ["1 one 0 x", "2 two 0 x", "3 three 0 x"]);
    }
}

#[test]
fn columns_added_at_any_time_at_each_site_lose_nothing_that_is_written_to_them() {
    each_seed(40, |seed| {
        let schema = format!("{SCHEMA} INSERT INTO item SELECT id + 3, a, b FROM item");
        let (mut sites, mut dice) = (Sites::new(&schema, &[0, 0, 0], &[]), Dice::new(seed));
        // The newest value of `a` and `c` in each row that nobody deletes: every write is later than all before it.
        let mut newest: BTreeMap<(u64, &str), String> = BTreeMap::new();
        let mut has = [false; 3];
        for step in 0..60 {
            let at = dice.below(3);
            let (id, value) = (1 + dice.below(6) as u64, format!("v{step}"));
            match dice.below(9) {
                0 if !has[at] => {
                    has[at] = true;
                    sites.write(at, ADD);
                    // What is written before the triggers know the column gets the stamp of the row's next change.
                    sites.all[at].store.refresh().expect("a look at the schema");
                }
                0..=3 => {
                    let column = if has[at] && dice.chance(60) { "c" } else { "a" };
                    sites.write(at, &format!("UPDATE item SET {column} = '{value}' WHERE id = {id}"));
                    if id <= 3 {
                        newest.insert((id, column), value);
                    }
                }
                4 => sites.fold(at),
                5 => sites.write(at, &format!("DELETE FROM item WHERE id = {id} AND id > 3")),
                6 => (0..3).filter(|to| *to != at).for_each(|to| sites.send(at, to)),
                7 => (0..3).filter(|to| *to != at).for_each(|to| sites.report(at, to)),
                _ => (0..5).for_each(|_| sites.deliver(&mut dice, true)),
            }
        }
        (0..3).filter(|at| !has[*at]).for_each(|at| sites.write(at, ADD));
        sites.settle(&mut dice);
        let rows = sites.all.iter().map(|site| site.rows("item")).collect::<Vec<_>>();
        assert!(rows[0] == rows[1] && rows[1] == rows[2], "{rows:?}");
        for ((id, column), value) in newest {
            let sql = format!("SELECT {column} FROM item WHERE id = {id}");
            assert_eq!(both(&sites, &sql), [value], "{column} of row {id}");
        }
        assert_eq!([0, 1, 2].map(|at| sites.kept(at)), [(0, 0); 3]);
    });
}

#[test]
fn changes_of_other_columns_do_not_take_back_what_the_peer_has_put_into_a_new_one() {
    let (mut sites, mut dice) = two();
    sites.write(1, &format!("{ADD} UPDATE item SET c = 'theirs'"));
    sites.fold(1);
    // One is known to be newer when the column comes; one is touched by triggers that do not know the column.
    sites.write(0, "UPDATE item SET a = 'ours' WHERE id = 1");
    sites.fold(0);
    sites.write(0, &format!("UPDATE item SET a = 'ours' WHERE id = 2; {ADD} UPDATE item SET b = 7 WHERE id = 3"));
    sites.settle(&mut dice);
    assert_eq!(both(&sites, ITEMS), ["1 ours 0 theirs", "2 ours 0 theirs", "3 three 7 theirs"]);
    assert_eq!(sites.all.iter().map(|site| site.store.conflicts(9).expect("a log").len()).sum::<usize>(), 0);
}

#[test]
fn a_row_inserted_before_its_table_had_the_column_arrives_with_the_default() {
    let (mut sites, mut dice) = two();
    sites.write(0, "INSERT INTO item VALUES(4, 'four', 0)");
    sites.fold(0);
    (0..2).for_each(|at| sites.write(at, ADD));
    sites.settle(&mut dice);
    assert_eq!(both(&sites, ITEMS).last().map(String::as_str), Some("4 four 0 none"));
}

#[test]
fn a_row_deleted_before_its_table_had_the_column_comes_back_whole() {
    let (mut sites, mut dice) = two();
    sites.write(0, "DELETE FROM item WHERE id = 3");
    sites.fold(0);
    sites.write(1, "UPDATE item SET a = 'kept' WHERE id = 3");
    sites.fold(1);
    (0..2).for_each(|at| sites.write(at, ADD));
    sites.settle(&mut dice);
    assert_eq!(both(&sites, ITEMS).last().map(String::as_str), Some("3 kept 0 none"));
}

#[test]
fn a_dropped_trigger_is_put_back_and_its_table_named_as_not_compared() {
    let (mut sites, mut dice) = two();
    sites.write(0, "DROP TRIGGER _ssw_u_1");
    sites.all[0].store.refresh().expect("a look at the schema");
    sites.write(0, "UPDATE item SET a = 'seen' WHERE id = 1");
    sites.settle(&mut dice);
    assert_eq!(both(&sites, "SELECT a FROM item ORDER BY id"), ["seen", "two", "three"]);
    let local = sites.all[0].store.verify_local().expect("a check");
    assert_eq!((local.departures.len(), local.unverified.len()), (0, 1));
}
