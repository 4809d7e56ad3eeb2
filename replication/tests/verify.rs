//! Comparing sites: differences that no trigger has seen are found and repaired, and what is on its way is none.

mod sites;

use std::collections::BTreeSet;

use sites::{Dice, Sites};
use siteswap_replication::{
    Key, Value,
    capture::{self, Wanted},
    store::Rules,
    verify::Policy,
};

const SCHEMA: &str = "
CREATE TABLE item(id INTEGER PRIMARY KEY, a, b);
CREATE TABLE \"odd \"\"name\"(\"k 1\" TEXT COLLATE NOCASE, k2, v REAL, PRIMARY KEY(\"k 1\", k2)) WITHOUT ROWID;
CREATE TABLE loose(k TEXT PRIMARY KEY, v);
";
const TABLES: [&str; 3] = ["item", "loose", "\"odd \"\"name\""];

/// Two sites with the same rows, none of which is on its way.
fn sites(rows: usize) -> (Sites, Dice) {
    let mut sites = Sites::new(SCHEMA, &[0, 0], &[]);
    for site in &mut sites.all {
        quietly(
            site,
            &format!(
                "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows})
                 INSERT INTO item SELECT n * 7 - 3000, hex(n * n), CASE WHEN n % 3 THEN n END FROM n;
                 WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows} / 2)
                 INSERT INTO \"odd \"\"name\" SELECT CASE n % 3 WHEN 0 THEN 'Name' ELSE 'other' END, n / 2.0, n FROM n;
                 INSERT INTO loose VALUES(NULL, 'no key'), (NULL, 'none either'), ('k', x'00')"
            ),
        );
    }
    (sites, Dice::new(1))
}

/// Writes behind the triggers.
fn quietly(site: &sites::Site, sql: &str) {
    let config = rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER;
    site.app.set_db_config(config, false).expect("no triggers");
    site.app.execute_batch(sql).expect("a write");
    site.app.set_db_config(config, true).expect("triggers");
}

fn assert_equal(sites: &Sites) {
    for table in TABLES {
        let rows: Vec<BTreeSet<String>> = sites.all.iter().map(|site| site.rows(table)).collect();
        assert!(rows.windows(2).all(|pair| pair[0] == pair[1]), "{table}");
    }
}

#[test]
fn equal_tables_are_compared_once_and_found_equal() {
    let (mut sites, mut dice) = sites(40_000);
    let outcome = sites.compare(0, 1, &mut dice);
    assert!(outcome.is_clean(), "{outcome:?}");
    assert_eq!(outcome.rows, 40_000 + 20_000 + 1);
}

#[test]
fn rows_changed_behind_the_triggers_are_found_one_by_one_and_repaired() {
    let (mut sites, mut dice) = sites(40_000);
    quietly(&sites.all[0], "UPDATE item SET a = 'other' WHERE id = 3; DELETE FROM item WHERE id BETWEEN 10 AND 24");
    quietly(&sites.all[1], "INSERT INTO item VALUES(1 << 60, 'only', 'here'), (-(1 << 60), 'and', 'here')");
    quietly(
        &sites.all[1],
        "UPDATE \"odd \"\"name\" SET \"k 1\" = 'OTHER' WHERE k2 = 200.5; UPDATE loose SET v = 1 WHERE k = 'k'",
    );
    let outcome = sites.compare(0, 1, &mut dice);
    let mut found: Vec<(usize, Key, bool, bool)> = Vec::new();
    for row in &outcome.differing {
        found.push((row.table, row.key.clone(), row.here.hash.is_some(), row.there.hash.is_some()));
    }
    let integer = |id: i64| Key::new([&Value::Integer(id)]);
    let text = |text: &str| Value::Text(text.as_bytes().to_vec());
    let odd = |name: &str| Key::new([&text(name), &Value::Real(200.5)]);
    assert_eq!(
        found,
        [
            (0, integer(-(1 << 60)), false, true),
            (0, integer(3), true, true),
            (0, integer(10), false, true),
            (0, integer(17), false, true),
            (0, integer(24), false, true),
            (0, integer(1 << 60), false, true),
            (1, Key::new([&text("k")]), true, true),
            (2, odd("OTHER"), false, true),
            (2, odd("other"), true, false),
        ]
    );
    sites.repair(0, &outcome, Policy::Ruled, &mut dice);
    assert!(sites.compare(1, 0, &mut dice).is_clean());
    assert_equal(&sites);
    // Site 2 has the greater number, and nobody knows anything newer.
    let kept = |sql: &str| sites.all[0].app.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a count");
    assert_eq!(kept("SELECT count(*) FROM item WHERE a = 'other'"), 0);
    assert_eq!(kept("SELECT count(*) FROM item WHERE id BETWEEN 10 AND 24"), 3);
}

#[test]
fn a_table_that_neither_site_has_is_not_equal_but_an_error() {
    let (mut sites, mut dice) = sites(20);
    let mut compare = |only: &[&str]| {
        let only = only.iter().map(|&name| name.to_owned()).collect();
        sites.compare_only(0, 1, Some(only), &mut dice)
    };
    let error = compare(&["typo", "Item", "itme"]).expect_err("two that are nowhere");
    assert_eq!(error.to_string(), "neither site replicates typo, itme: look at the name, or run siteswap db attach");
    let outcome = compare(&["LOOSE", "item"]).expect("a comparison");
    assert!(outcome.is_clean());
    assert_eq!((outcome.tables.len(), outcome.rows), (2, 21));
}

#[test]
fn a_table_that_one_site_has_is_named_as_alone() {
    let (mut sites, mut dice) = sites(20);
    let transaction = sites.all[1].app.transaction().expect("a transaction");
    capture::detach(&transaction, Wanted::Named(&["item".to_owned()])).expect("one table less");
    transaction.commit().expect("a commit");
    sites.all[1].store.refresh().expect("the tables");
    for (asker, peer) in [(0, 1), (1, 0)] {
        let only = Some(vec!["item".to_owned()]);
        let outcome = sites.compare_only(asker, peer, only, &mut dice).expect("a comparison");
        assert_eq!((outcome.alone.as_slice(), outcome.is_clean()), (["item".to_owned()].as_slice(), false));
    }
}

#[test]
fn a_table_that_is_empty_at_either_site_is_repaired_by_the_policy() {
    for (asker, policy, left) in [(0, Policy::Keep, 3_000), (1, Policy::Keep, 3_000), (0, Policy::Here, 0)] {
        let (mut sites, mut dice) = sites(3_000);
        quietly(&sites.all[0], "DELETE FROM item; DELETE FROM loose WHERE k = 'k'");
        let outcome = sites.compare(asker, 1 - asker, &mut dice);
        assert_eq!((outcome.differing.len(), outcome.truncated), (3_001, false));
        sites.repair(asker, &outcome, policy, &mut dice);
        assert_equal(&sites);
        assert_eq!(sites.all[0].rows("item").len(), left);
    }
}

#[test]
fn rows_whose_changes_are_on_their_way_do_not_differ() {
    let (mut sites, mut dice) = sites(2_000);
    for (at, sql) in [(0, "UPDATE item SET b = 'new' WHERE id % 2"), (1, "DELETE FROM item WHERE id % 5 = 0")] {
        sites.all[at].set_clock(sites.now);
        sites.all[at].app.execute_batch(sql).expect("a write");
    }
    sites.fold(1);
    let outcome = sites.compare(0, 1, &mut dice);
    assert!(outcome.is_clean(), "{} differ", outcome.differing.len());
    assert_equal(&sites);
}

#[test]
fn a_row_is_said_again_only_as_it_was_told() {
    let (mut sites, mut dice) = sites(100);
    quietly(&sites.all[1], "UPDATE item SET a = 1");
    let outcome = sites.compare(0, 1, &mut dice);
    assert_eq!(outcome.differing.len(), 100);
    quietly(&sites.all[1], "UPDATE item SET a = 2");
    sites.repair(0, &outcome, Policy::Ruled, &mut dice);
    assert_eq!(sites.compare(0, 1, &mut dice).differing.len(), 100, "nothing has moved");
}

#[test]
fn what_is_said_again_passes_on_to_every_site() {
    let mut sites = Sites::new(SCHEMA, &[0, 3_600_000, -3_600_000], &[("item", Rules::default())]);
    let mut dice = Dice::new(2);
    quietly(&sites.all[0], "INSERT INTO item VALUES(1, 'a', 'b'), (2, 'c', 'd')");
    sites.settle(&mut dice);
    let outcome = sites.compare(1, 0, &mut dice);
    sites.repair(1, &outcome, Policy::Keep, &mut dice);
    assert_equal(&sites);
    assert_eq!(sites.all[2].rows("item").len(), 2);
}

#[test]
fn what_is_kept_of_a_row_tells_of_a_change_behind_the_triggers() {
    let (mut sites, mut dice) = sites(20);
    sites.all[0].set_clock(sites.now);
    sites.all[0]
        .app
        .execute_batch("UPDATE loose SET v = 2 WHERE k = 'k'; INSERT INTO loose VALUES('l', 1)")
        .expect("a write");
    sites.all[0]
        .app
        .execute_batch("INSERT INTO loose VALUES('m', 1); DELETE FROM loose WHERE k = 'm'")
        .expect("a write");
    sites.fold(0);
    assert_eq!(sites.all[0].store.verify_local().expect("a check").contradictions, []);
    quietly(&sites.all[0], "DELETE FROM loose WHERE k = 'l'; INSERT INTO loose VALUES('m', 2)");
    let local = sites.all[0].store.verify_local().expect("a check");
    let found =
        local.contradictions.iter().map(|row| (row.key.columns().expect("a key"), row.there)).collect::<Vec<_>>();
    let text = |text: &str| vec![Value::Text(text.as_bytes().to_vec())];
    assert_eq!((local.rows, found), (3, vec![(text("l"), false), (text("m"), true)]));
    let keys: Vec<Key> = local.contradictions.into_iter().map(|row| row.key).collect();
    let now = sites.now;
    sites.all[0].store.assert_rows("loose", &keys, now).expect("an assertion");
    sites.settle(&mut dice);
    assert_equal(&sites);
    assert_eq!(sites.all[1].rows("loose").len(), 4);
}

#[test]
fn a_table_that_was_without_a_trigger_is_named_until_it_was_compared() {
    let (mut sites, mut dice) = sites(20);
    sites.all[0].app.execute_batch("DROP TRIGGER _ssw_u_1; UPDATE item SET b = 'unseen'").expect("a write");
    let local = sites.all[0].store.verify_local().expect("a check");
    assert_eq!((local.departures.len(), local.unverified.len()), (1, 0));
    let transaction = sites.all[0].app.transaction().expect("a transaction");
    assert_eq!(capture::refresh(&transaction).expect("new triggers"), ["item"]);
    transaction.commit().expect("a commit");
    let unverified = |sites: &Sites| sites.all[0].store.verify_local().expect("a check").unverified;
    assert_eq!(unverified(&sites), ["item"]);
    let outcome = sites.compare(0, 1, &mut dice);
    assert!(!sites.all[0].store.verified(&outcome).expect("an answer"), "20 rows differ");
    sites.repair(0, &outcome, Policy::Here, &mut dice);
    let outcome = sites.compare(0, 1, &mut dice);
    assert!(sites.all[0].store.verified(&outcome).expect("an answer"));
    assert!(unverified(&sites).is_empty());
    assert_equal(&sites);
}
