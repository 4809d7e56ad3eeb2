//! Columns to which sites add, and columns of which the smallest or the greatest value stays.

mod sites;

use std::collections::BTreeMap;

use rusqlite::Connection;
use sites::{Dice, Kill, Outside, Sites};
use siteswap_replication::{
    Value,
    capture::{self, Wanted},
    doctor::{self, Finding, Severity},
    store::{ColumnRule, Deletes, Error, Granularity, Position, Rules, Settings, Store},
};

const SCHEMA: &str = "CREATE TABLE item(id INTEGER PRIMARY KEY, stock, low, high, note)";

fn rules() -> Rules {
    let columns = [("stock", ColumnRule::Counter), ("low", ColumnRule::Min), ("high", ColumnRule::Max)];
    Rules { columns: columns.map(|(name, rule)| (name.to_owned(), rule)).into(), ..Rules::default() }
}

/// So many sites that know of one row: 100, 5, 5 and nothing.
fn sites_by(count: usize, rules: Rules) -> (Sites, Dice) {
    let mut sites = Sites::new(SCHEMA, &vec![0; count], &[("item", rules)]);
    let mut dice = Dice::new(1);
    sites.write(0, "INSERT INTO item VALUES(1, 100, 5, 5, NULL)");
    sites.settle(&mut dice);
    (sites, dice)
}

fn sites(count: usize) -> (Sites, Dice) {
    sites_by(count, rules())
}

/// What an application writes, and the agent folds.
fn write(sites: &mut Sites, at: usize, sql: &str) {
    sites.write(at, sql);
    sites.fold(at);
}

/// One site tells another what it has.
fn tell(sites: &mut Sites, from: usize, to: usize, dice: &mut Dice) {
    sites.send_all(from, to);
    sites.drain(dice);
}

/// A column of the row at each site.
fn shown(sites: &Sites, column: &str) -> Vec<Value> {
    let sql = format!("SELECT {column} FROM item WHERE id = 1");
    let read =
        |site: &sites::Site| site.app.query_row(&sql, [], |row| Ok(Value::from(row.get_ref(0)?))).expect("the row");
    sites.all.iter().map(read).collect()
}

/// When all is said, every site shows this, and keeps nothing.
#[track_caller]
fn settles_at(sites: &mut Sites, dice: &mut Dice, column: &str, value: impl Into<Value>) {
    sites.settle(dice);
    let value = value.into();
    assert_eq!(shown(sites, column), vec![value; sites.all.len()]);
    for at in 0..sites.all.len() {
        assert_eq!(sites.kept(at), (0, 0), "site {}", at + 1);
    }
}

/// The conflicts, of which all sites know the same: each one's kind and what lost.
fn conflicts(sites: &Sites) -> Vec<(String, Vec<(String, Value)>)> {
    let known = |site: &sites::Site| {
        let log = site.store.conflicts(u32::MAX).expect("a log").into_iter();
        log.map(|logged| (logged.kind, logged.image)).collect::<Vec<_>>()
    };
    let first = known(&sites.all[0]);
    sites.all.iter().for_each(|site| assert_eq!(known(site), first, "site {}", site.id));
    first
}

const fn integer(number: i64) -> Value {
    Value::Integer(number)
}

#[test]
fn what_two_and_three_sites_add_and_take_at_once_counts_all() {
    for count in [2, 3] {
        let (mut sites, mut dice) = sites(count);
        for (at, sql) in [(0, "stock - 3"), (1, "stock + 10"), (0, "stock - 1"), (count - 1, "stock * 2")] {
            write(&mut sites, at, &format!("UPDATE item SET stock = {sql}"));
        }
        let last = if count == 2 { 110 } else { 100 };
        settles_at(&mut sites, &mut dice, "stock", integer(100 - 3 + 10 - 1 + last));
        assert_eq!(conflicts(&sites), []);
    }
}

#[test]
fn one_interval_of_many_updates_is_one_addition() {
    let (mut sites, mut dice) = sites(2);
    for _ in 0..5 {
        sites.write(0, "UPDATE item SET stock = stock - 1, note = 'sold'");
    }
    sites.write(1, "UPDATE item SET stock = stock + 1");
    sites.fold(0);
    settles_at(&mut sites, &mut dice, "stock", integer(96));
    assert_eq!(conflicts(&sites), []);
}

#[test]
fn what_is_added_over_a_cut_is_summed_and_little_is_kept_of_it() {
    let (mut sites, mut dice) = sites(3);
    // The third site hears nothing of what the others tell each other.
    for round in 0..400 {
        write(&mut sites, round % 2, "UPDATE item SET stock = stock + 1");
        for (from, to) in [(0, 1), (1, 0)] {
            sites.send_all(from, to);
            sites.report(from, to);
        }
        sites.drain(&mut dice);
        while sites.all[0].store.compact(2).expect("consolidation") {}
    }
    let kept = "SELECT max(length(state)) FROM _ssw_row";
    let kept: i64 = sites.all[0].app.query_row(kept, [], |row| row.get(0)).expect("a row");
    assert!(kept < 2_000, "{kept} bytes");
    write(&mut sites, 2, "UPDATE item SET stock = stock - 50");
    settles_at(&mut sites, &mut dice, "stock", integer(450));
    assert_eq!(conflicts(&sites), []);
}

#[test]
fn what_is_added_after_a_value_was_given_elsewhere_counts_on_top_of_it_and_what_was_before_is_logged() {
    for count in [2, 3] {
        let (mut sites, mut dice) = sites(count);
        write(&mut sites, 0, "UPDATE item SET stock = stock - 1");
        write(&mut sites, 0, "UPDATE item SET stock = stock - 2");
        write(&mut sites, 1, "REPLACE INTO item VALUES(1, 50, 5, 5, 'new')");
        write(&mut sites, 0, "UPDATE item SET stock = stock - 10");
        write(&mut sites, count - 1, "UPDATE item SET stock = stock + 5");
        settles_at(&mut sites, &mut dice, "stock", integer(45));
        let lost = vec![("stock".to_owned(), integer(-3))];
        assert_eq!(conflicts(&sites), [("counter reset".to_owned(), lost)]);
        let id = sites.all[0].store.conflicts(1).expect("a log")[0].id;
        assert!(sites.all[1].store.restore(id, sites.now).expect("to restore it"));
        settles_at(&mut sites, &mut dice, "stock", integer(42));
    }
}

#[test]
fn who_gives_a_value_knowing_what_was_added_loses_nothing() {
    let (mut sites, mut dice) = sites(2);
    write(&mut sites, 0, "UPDATE item SET stock = stock - 1");
    sites.settle(&mut dice);
    write(&mut sites, 1, "REPLACE INTO item VALUES(1, 50, 5, 5, 'new')");
    settles_at(&mut sites, &mut dice, "stock", integer(50));
    assert_eq!(conflicts(&sites), []);
}

#[test]
fn what_is_no_integer_is_given_and_not_added() {
    for value in ["NULL", "'many'", "1.5", "9223372036854775807 + 1"] {
        let (mut sites, mut dice) = sites(2);
        write(&mut sites, 0, &format!("UPDATE item SET stock = {value}"));
        write(&mut sites, 1, "UPDATE item SET stock = stock + 1");
        sites.settle(&mut dice);
        let [one, two] = &shown(&sites, "stock")[..] else { panic!() };
        assert_eq!(one, two);
        assert!(!matches!(one, Value::Integer(_)), "{one:?}: it was given later than what was before");
        write(&mut sites, 1, "UPDATE item SET stock = 7");
        write(&mut sites, 0, "UPDATE item SET note = 'x'");
        settles_at(&mut sites, &mut dice, "stock", integer(7));
    }
    // Also if nobody looked meanwhile.
    let (mut sites, mut dice) = sites(2);
    sites.write(0, "UPDATE item SET stock = stock + 1");
    sites.write(1, "UPDATE item SET stock = NULL");
    write(&mut sites, 1, "UPDATE item SET stock = 30");
    settles_at(&mut sites, &mut dice, "stock", integer(30));
}

#[test]
fn sums_beyond_64_bits_wrap_around_at_every_site() {
    let (mut sites, mut dice) = sites(2);
    write(&mut sites, 0, "UPDATE item SET stock = 9223372036854775807");
    write(&mut sites, 1, "UPDATE item SET stock = stock + 1");
    settles_at(&mut sites, &mut dice, "stock", integer(i64::MIN));
}

#[test]
fn of_a_deleted_row_what_was_added_later_brings_it_back_with_all_that_counts() {
    let (mut sites, mut dice) = sites(3);
    write(&mut sites, 2, "UPDATE item SET stock = stock - 1");
    write(&mut sites, 0, "UPDATE item SET stock = stock - 10; DELETE FROM item");
    write(&mut sites, 1, "UPDATE item SET stock = stock + 5");
    settles_at(&mut sites, &mut dice, "stock", integer(94));
    // And is gone with it, if that was later.
    write(&mut sites, 1, "UPDATE item SET stock = stock + 5");
    write(&mut sites, 0, "DELETE FROM item");
    sites.settle(&mut dice);
    assert!(sites.all.iter().all(|site| site.rows("item").is_empty()));
    let kinds: Vec<_> = conflicts(&sites).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["delete/update", "update/delete", "delete/update"]);
}

#[test]
fn a_row_under_a_new_key_begins_with_what_it_had() {
    let (mut sites, mut dice) = sites(2);
    write(&mut sites, 0, "UPDATE item SET stock = stock - 1");
    write(&mut sites, 0, "UPDATE item SET id = 2");
    write(&mut sites, 0, "UPDATE item SET id = 1, stock = stock - 1");
    settles_at(&mut sites, &mut dice, "stock", integer(98));
}

#[test]
fn one_that_is_inserted_and_added_to_is_the_same_everywhere_whatever_comes_first() {
    let (mut sites, mut dice) = sites(3);
    write(&mut sites, 0, "INSERT INTO item VALUES(2, 10, 1, 1, NULL)");
    tell(&mut sites, 0, 1, &mut dice);
    write(&mut sites, 1, "UPDATE item SET stock = stock + 1 WHERE id = 2");
    tell(&mut sites, 1, 2, &mut dice);
    write(&mut sites, 0, "UPDATE item SET stock = stock + 2 WHERE id = 2");
    sites.settle(&mut dice);
    let row = "[Integer(2), Integer(13), Integer(1), Integer(1), Null]";
    assert!(sites.all.iter().all(|site| site.rows("item").contains(row)));
}

#[test]
fn where_rows_are_decided_as_a_whole_counters_still_count() {
    for deletes in [Deletes::Latest, Deletes::Win, Deletes::Lose] {
        let (mut sites, mut dice) = sites_by(2, Rules { granularity: Granularity::Row, deletes, ..rules() });
        write(&mut sites, 0, "UPDATE item SET stock = stock + 1, note = 'a'");
        write(&mut sites, 1, "UPDATE item SET stock = stock + 2, note = 'b'");
        write(&mut sites, 0, "UPDATE item SET high = 9, note = 'c'");
        settles_at(&mut sites, &mut dice, "stock", integer(103));
    }
}

#[test]
fn a_new_site_counts_what_its_source_had_not_looked_at_once() {
    let mut dice = Dice::new(1);
    let mut sites = Sites::some(SCHEMA, &[0, 0], &[("item", rules())], 3);
    sites.write(0, "INSERT INTO item VALUES(1, 100, 5, 5, NULL)");
    sites.settle(&mut dice);
    write(&mut sites, 0, "UPDATE item SET stock = stock - 1");
    write(&mut sites, 1, "UPDATE item SET stock = stock - 2");
    sites.write(0, "UPDATE item SET stock = stock - 10");
    sites.write(0, "UPDATE item SET stock = stock - 20");
    sites.join(0);
    assert_eq!(shown(&sites, "stock")[2], integer(99), "what was not looked at is still to come");
    settles_at(&mut sites, &mut dice, "stock", integer(67));
}

#[test]
fn a_restored_backup_counts_again_from_what_its_peer_has() {
    let (mut sites, mut dice) = sites(2);
    write(&mut sites, 0, "UPDATE item SET stock = stock - 1");
    sites.settle(&mut dice);
    let backup = sites.back_up(0);
    write(&mut sites, 0, "UPDATE item SET stock = stock - 10");
    write(&mut sites, 1, "UPDATE item SET stock = stock - 20");
    sites.settle(&mut dice);
    sites.restore(0, &backup, Outside::Kept);
    sites.settle(&mut dice);
    sites.mend(0, &mut dice);
    settles_at(&mut sites, &mut dice, "stock", integer(69));
    write(&mut sites, 0, "UPDATE item SET stock = stock - 1");
    write(&mut sites, 1, "UPDATE item SET stock = stock - 1");
    settles_at(&mut sites, &mut dice, "stock", integer(67));
}

#[test]
fn an_agent_killed_at_any_commit_counts_nothing_twice() {
    for kill in Kill::ALL {
        for step in 0..12 {
            let (mut sites, mut dice) = sites(2);
            sites.kill = Some((sites.steps + step, kill));
            for at in [0, 1, 0] {
                write(&mut sites, at, "UPDATE item SET stock = stock - 1");
                sites.send(at, 1 - at);
                sites.deliver(&mut dice, false);
                sites.report(1 - at, at);
            }
            settles_at(&mut sites, &mut dice, "stock", integer(97));
        }
    }
}

#[test]
fn of_values_given_at_once_the_smallest_or_greatest_stays() {
    for (first, second) in [("low = 3, high = 7", "low = 4, high = 6"), ("low = 4, high = 6", "low = 3, high = 7")] {
        let (mut sites, mut dice) = sites(2);
        write(&mut sites, 0, &format!("UPDATE item SET {first}"));
        write(&mut sites, 1, &format!("UPDATE item SET {second}"));
        settles_at(&mut sites, &mut dice, "low", integer(3));
        settles_at(&mut sites, &mut dice, "high", integer(7));
        assert_eq!(conflicts(&sites), []);
    }
}

#[test]
fn values_are_compared_as_sqlite_does_and_null_loses() {
    for (one, two, low, high) in [
        ("NULL", "3", integer(3), integer(3)),
        ("'a'", "3", integer(3), Value::Text(b"a".into())),
        ("x'00'", "'z'", Value::Text(b"z".into()), Value::Blob(vec![0])),
        ("2.5", "3", Value::Real(2.5), integer(3)),
    ] {
        let (mut sites, mut dice) = sites(2);
        write(&mut sites, 0, &format!("UPDATE item SET low = {one}, high = {one}"));
        write(&mut sites, 1, &format!("UPDATE item SET low = {two}, high = {two}"));
        settles_at(&mut sites, &mut dice, "low", low);
        settles_at(&mut sites, &mut dice, "high", high);
    }
}

#[test]
fn who_knows_the_greatest_may_lower_it() {
    let (mut sites, mut dice) = sites(3);
    write(&mut sites, 0, "UPDATE item SET high = 20");
    write(&mut sites, 1, "UPDATE item SET high = 30");
    sites.settle(&mut dice);
    write(&mut sites, 2, "UPDATE item SET high = 8");
    settles_at(&mut sites, &mut dice, "high", integer(8));
    // Lowered at one site, raised at another, which did not know: the greater again.
    write(&mut sites, 2, "UPDATE item SET high = 2");
    write(&mut sites, 1, "UPDATE item SET high = 6");
    settles_at(&mut sites, &mut dice, "high", integer(6));
}

#[test]
fn what_somebody_replaced_stays_replaced_in_whatever_order_it_comes() {
    let (mut sites, mut dice) = sites(3);
    write(&mut sites, 0, "UPDATE item SET high = 50");
    tell(&mut sites, 0, 1, &mut dice);
    write(&mut sites, 1, "UPDATE item SET high = 9");
    tell(&mut sites, 1, 2, &mut dice);
    assert_eq!(shown(&sites, "high")[2], integer(9));
    // It knows the 9, and nothing of the 50 that the 9 was in place of.
    write(&mut sites, 2, "UPDATE item SET high = 7");
    settles_at(&mut sites, &mut dice, "high", integer(7));
}

#[test]
fn rows_inserted_at_once_have_the_extremes_of_both() {
    let (mut sites, mut dice) = sites(2);
    write(&mut sites, 0, "INSERT INTO item VALUES(2, 0, 3, 3, 'a')");
    write(&mut sites, 1, "INSERT INTO item VALUES(2, 0, 4, 4, 'b')");
    sites.settle(&mut dice);
    let row = "[Integer(2), Integer(0), Integer(3), Integer(4), Text([98])]";
    assert!(sites.all.iter().all(|site| site.rows("item").contains(row)), "{:?}", sites.all[0].rows("item"));
}

/// A database with this schema, attached, opened with this rule.
fn opened(schema: &str, column: &str, rule: ColumnRule) -> (Result<Store, Error>, Vec<Finding>) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("db");
    let mut database = Connection::open(&file).expect("a database");
    database.execute_batch(&format!("PRAGMA journal_mode=WAL; {schema}")).expect("a schema");
    let transaction = database.transaction().expect("a transaction");
    capture::attach(&transaction, Wanted::All).expect("tables to attach");
    transaction.commit().expect("a commit");
    let rules = Rules { columns: [(column.to_owned(), rule)].into(), ..Rules::default() };
    let rules = BTreeMap::from([("t".to_owned(), rules)]);
    let findings = doctor::columns(&database, &rules).expect("findings");
    let sites = BTreeMap::from([(1, "one".to_owned())]);
    (Store::open(&file, Settings { site: 1, sites, max_skew: 0, rules }), findings)
}

#[test]
fn columns_that_cannot_be_joined_by_themselves_are_refused_and_said_why() {
    let schema = "CREATE TABLE u(k NOT NULL PRIMARY KEY);
        CREATE TABLE t(k NOT NULL, l NOT NULL, a UNIQUE, b REFERENCES u, c AS (a + 1), d, e, PRIMARY KEY(k, l));
        CREATE UNIQUE INDEX partial ON t(d) WHERE k > 1";
    for (column, why) in [
        ("l", "part of the primary key"),
        ("a", "part of a UNIQUE index"),
        ("d", "part of a UNIQUE index"),
        ("b", "part of a foreign key"),
        ("c", "generated from others"),
        ("nothing", "no such column"),
    ] {
        for rule in [ColumnRule::Counter, ColumnRule::Min, ColumnRule::Max] {
            let (store, findings) = opened(schema, column, rule);
            let said = store.expect_err("a refusal").to_string();
            assert!(said.starts_with(&format!("column {column:?} of table \"t\" cannot have a rule")), "{said}");
            assert!(said.contains(why), "{said}");
            let [found] = &findings[..] else { panic!("{findings:?}") };
            assert_eq!((found.severity, &found.what), (Severity::Error, &said));
        }
    }
    let (store, findings) = opened(schema, "e", ColumnRule::Counter);
    assert!(store.is_ok() && findings.is_empty(), "{findings:?}");
    let wide: String = (0..70).map(|column| format!(", c{column}")).collect();
    let wide = format!("CREATE TABLE t(k NOT NULL PRIMARY KEY{wide})");
    for rule in [ColumnRule::Counter, ColumnRule::Min, ColumnRule::Max] {
        assert!(opened(&wide, "c60", rule).0.is_ok());
        let said = opened(&wide, "c61", rule).0.expect_err("a refusal").to_string();
        assert!(said.contains("first 62"), "{said}");
    }
}

#[test]
fn the_doctor_says_of_counters_that_hold_no_integers() {
    for (declared, found) in [("INTEGER", 0), ("", 0), ("NUMERIC", 0), ("REAL", 1), ("TEXT", 1)] {
        let schema = format!("CREATE TABLE t(k NOT NULL PRIMARY KEY, n {declared})");
        assert_eq!(opened(&schema, "n", ColumnRule::Counter).1.len(), found, "{declared}");
    }
}

#[test]
fn a_column_becomes_a_counter_and_stops_being_one_with_the_settings() {
    let (mut sites, mut dice) = sites_by(2, Rules::default());
    write(&mut sites, 0, "UPDATE item SET stock = stock - 1");
    sites.settle(&mut dice);
    // What was not folded yet was recorded without what it was before: it is given.
    sites.write(0, "UPDATE item SET stock = stock - 1");
    sites.set_rules(&[("item", rules())]);
    write(&mut sites, 0, "UPDATE item SET stock = stock - 1");
    settles_at(&mut sites, &mut dice, "stock", integer(97));
    write(&mut sites, 0, "UPDATE item SET stock = stock - 1");
    write(&mut sites, 1, "UPDATE item SET stock = stock - 1");
    settles_at(&mut sites, &mut dice, "stock", integer(95));
    sites.set_rules(&[]);
    write(&mut sites, 0, "UPDATE item SET note = 1");
    write(&mut sites, 1, "UPDATE item SET note = 1");
    write(&mut sites, 0, "UPDATE item SET stock = stock - 1");
    write(&mut sites, 1, "UPDATE item SET stock = stock - 1");
    settles_at(&mut sites, &mut dice, "stock", integer(94));
}

/// What was recorded of one counter before another came to stand before it, is known by its column still.
#[test]
fn with_another_counter_what_was_added_to_the_first_before_counts_still() {
    let (mut sites, mut dice) = (Sites::new(SCHEMA, &[0, 0], &[]), Dice::new(1));
    let counters = |names: &[&str]| {
        let columns = names.iter().map(|name| ((*name).to_owned(), ColumnRule::Counter)).collect();
        [("item", Rules { columns, ..Rules::default() })]
    };
    sites.set_rules(&counters(&["high"]));
    write(&mut sites, 0, "INSERT INTO item VALUES(1, 100, 5, 7, NULL)");
    sites.settle(&mut dice);
    for at in [0, 1] {
        sites.write(at, "UPDATE item SET stock = stock - 1, high = high + 10");
    }
    for names in [&["low", "stock", "high"][..], &["stock", "high"], &["high", "low"]] {
        sites.set_rules(&counters(names));
        sites.all[0].store.refresh().expect("a store");
    }
    settles_at(&mut sites, &mut dice, "high", integer(27));
    assert_eq!(shown(&sites, "stock"), [integer(99), integer(99)]);
}

#[test]
fn what_is_added_to_a_column_that_a_site_lacks_waits_for_it() {
    let mut dice = Dice::new(1);
    let mut sites = Sites::new("CREATE TABLE item(id INTEGER PRIMARY KEY, v)", &[0, 0], &[]);
    sites.write(0, "INSERT INTO item VALUES(1, 0)");
    sites.settle(&mut dice);
    sites.write(0, "ALTER TABLE item ADD COLUMN stock DEFAULT 10");
    let only = Rules { columns: [("stock".to_owned(), ColumnRule::Counter)].into(), ..Rules::default() };
    sites.set_rules_at(0, &[("item", only.clone())]);
    sites.all[0].store.refresh().expect("triggers that know the column");
    write(&mut sites, 0, "UPDATE item SET stock = stock + 1");
    let told = Position::after(sites.all[0].store.peers().expect("peers")[&2].acknowledged);
    let (part, _) = sites.all[0].store.next_part(2, &told).expect("a part").expect("a part");
    let error = sites.all[1].store.receive(&part, sites.now).expect_err("no such column");
    assert!(error.to_string().contains("column item.stock"), "{error}");
    sites.write(1, "ALTER TABLE item ADD COLUMN stock DEFAULT 10");
    sites.set_rules_at(1, &[("item", only)]);
    sites.all[1].store.refresh().expect("triggers that know the column");
    write(&mut sites, 1, "UPDATE item SET stock = stock + 5");
    settles_at(&mut sites, &mut dice, "stock", integer(16));
}

#[test]
fn a_counter_is_one_still_after_a_schema_change() {
    let (mut sites, mut dice) = sites(2);
    for at in [0, 1] {
        let transaction = sites.all[at].app.transaction().expect("a transaction");
        capture::anew(&transaction, Wanted::All).expect("tables to attach");
        transaction.commit().expect("a commit");
    }
    write(&mut sites, 0, "UPDATE item SET stock = stock - 1");
    write(&mut sites, 1, "UPDATE item SET stock = stock - 1");
    settles_at(&mut sites, &mut dice, "stock", integer(98));
}

/// Each site adds the column; then the first adds to it, in the same batch as it tells of the row.
#[test]
fn what_is_added_to_a_default_counts_on_top_of_it() {
    let (mut sites, mut dice) =
        (Sites::new("CREATE TABLE item(id INTEGER PRIMARY KEY, v)", &[0, 0], &[]), Dice::new(1));
    write(&mut sites, 0, "INSERT INTO item VALUES(1, 0)");
    for at in [0, 1] {
        sites.write(at, "ALTER TABLE item ADD COLUMN stock DEFAULT 10");
        sites.all[at].store.refresh().expect("a store");
    }
    let columns = [("stock".to_owned(), ColumnRule::Counter)].into();
    sites.set_rules(&[("item", Rules { columns, ..Rules::default() })]);
    for at in [0, 1] {
        sites.all[at].store.refresh().expect("a store");
    }
    write(&mut sites, 0, "UPDATE item SET stock = stock + 1");
    settles_at(&mut sites, &mut dice, "stock", integer(11));
}

/// Two sites have added before a third gives a value: what each of them lost is logged once, by itself.
#[test]
fn what_several_sites_lose_is_logged_for_each() {
    for (from, to, then) in [(1, 0, (2, 1)), (0, 1, (2, 0))] {
        let (mut sites, mut dice) = sites(3);
        write(&mut sites, 0, "UPDATE item SET stock = stock - 1");
        write(&mut sites, 1, "UPDATE item SET stock = stock - 2");
        write(&mut sites, 2, "REPLACE INTO item VALUES(1, 50, 5, 5, 'new')");
        tell(&mut sites, from, to, &mut dice);
        tell(&mut sites, then.0, then.1, &mut dice);
        settles_at(&mut sites, &mut dice, "stock", integer(50));
        let mut lost: Vec<_> = conflicts(&sites).into_iter().flat_map(|(_, image)| image).collect();
        lost.sort_by_key(|(_, value)| *value == integer(-1));
        assert_eq!(lost, [-2, -1].map(|sum| ("stock".to_owned(), integer(sum))));
    }
}

/// A trigger of the application's keeps a counter from falling below zero, whether it is older than ours or younger, and
/// whether the agent has seen it or not when it fires first.
#[test]
fn what_a_trigger_of_the_applications_does_to_a_counter_is_part_of_what_the_statement_did() {
    let clamp = "CREATE TRIGGER clamp AFTER UPDATE OF stock ON item WHEN NEW.stock < 0 BEGIN
                   UPDATE item SET stock = 0 WHERE id = NEW.id; END";
    let older = Sites::new(&format!("{SCHEMA}; {clamp}"), &[0, 0], &[("item", rules())]);
    for (mut sites, seen) in [(older, true), (sites(2).0, true), (sites(2).0, false)] {
        let mut dice = Dice::new(1);
        sites.write(0, "REPLACE INTO item VALUES(1, 100, 5, 5, NULL)");
        sites.settle(&mut dice);
        for at in [0, 1] {
            sites.write(at, &clamp.replace("TRIGGER", "TRIGGER IF NOT EXISTS"));
            if seen {
                sites.all[at].store.refresh().expect("a store");
            }
        }
        write(&mut sites, 0, "UPDATE item SET stock = stock - 130");
        settles_at(&mut sites, &mut dice, "stock", integer(0));
        write(&mut sites, 0, "UPDATE item SET stock = stock + 10");
        write(&mut sites, 1, "UPDATE item SET stock = stock + 20");
        settles_at(&mut sites, &mut dice, "stock", integer(30));
    }
}

#[test]
fn what_was_lost_of_a_counter_is_added_again_once_and_only_to_an_integer() {
    let (mut sites, mut dice) = sites(2);
    write(&mut sites, 0, "UPDATE item SET stock = stock - 1");
    write(&mut sites, 1, "REPLACE INTO item VALUES(1, NULL, 5, 5, 'new')");
    sites.settle(&mut dice);
    let (id, now) = (sites.all[0].store.conflicts(1).expect("a log")[0].id, sites.now);
    let refused = sites.all[0].store.restore(id, now).expect_err("nothing to add to").to_string();
    assert!(refused.contains("item.stock holds no integer"), "{refused}");
    assert_eq!(sites.all[0].store.conflict(id).expect("a log").expect("a conflict").state, "dropped");
    write(&mut sites, 0, "UPDATE item SET stock = 50");
    sites.settle(&mut dice);
    assert!(sites.all[0].store.restore(id, now).expect("it is back"));
    settles_at(&mut sites, &mut dice, "stock", integer(49));
    for at in [0, 1] {
        let refused = sites.all[at].store.restore(id, now).expect_err("twice").to_string();
        assert!(refused.contains("was restored before"), "{refused}");
    }
    settles_at(&mut sites, &mut dice, "stock", integer(49));
}

/// Somebody renames a column without `schema begin`: SQLite has our triggers follow, and the agent must not put the old ones back.
#[test]
fn triggers_that_count_are_not_made_anew_with_a_column_that_has_another_name() {
    for order in ["CREATE TRIGGER young AFTER UPDATE ON item BEGIN SELECT 1; END", "SELECT 1"] {
        let (mut sites, _) = sites(2);
        sites.write(0, &format!("ALTER TABLE item RENAME COLUMN note TO memo; {order}"));
        sites.set_rules(&[("item", Rules::default())]);
        sites.write(0, "UPDATE item SET memo = 'a write that succeeds'");
    }
}
