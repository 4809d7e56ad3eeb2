//! Claims C1, C4 and C5: sites that write whatever they like, over a network that loses, repeats and reorders, with agents
//! that are killed and clocks that are wrong, end with the same rows; those rows are what the recorded changes say, put
//! together by an oracle that shares no code with the merge.
//!
//! `SITESWAP_SEEDS` sets how many schedules each test runs, `SITESWAP_SEED` runs a single one.

mod sites;

use std::collections::{BTreeMap, BTreeSet};

use sites::{Dice, Outside, Recorded, Sites};
use siteswap_replication::{
    Value,
    clock::SiteId,
    store::{Deletes, Granularity, OnCollision, Rules},
};

const SCHEMA: &str = "
CREATE TABLE item(id INTEGER PRIMARY KEY, a, b, c);
CREATE TABLE \"odd \"\"name\"(\"k 1\" TEXT COLLATE NOCASE, k2 BLOB, v REAL, w, PRIMARY KEY(\"k 1\", k2)) WITHOUT ROWID;
";

const LINKED: &str = "
CREATE TABLE parent(id INTEGER PRIMARY KEY, name TEXT, code TEXT NOT NULL UNIQUE);
CREATE TABLE child(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent(id), email TEXT UNIQUE, note);
CREATE INDEX child_parent ON child(parent);
CREATE TABLE leaf(id INTEGER PRIMARY KEY, child INTEGER NOT NULL REFERENCES child(id) ON DELETE CASCADE, v);
CREATE TABLE loose(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent(id) ON DELETE SET NULL, v);
";

fn seeds(usual: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("SITESWAP_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("SITESWAP_SEEDS").unwrap_or(usual)).collect(),
    }
}

/// One random statement of an application.
fn statement(dice: &mut Dice) -> String {
    let id = dice.below(6);
    let value = dice.pick(&["NULL", "1", "1.0", "'x'", "'X'", "x'00ff'", "-7", "0.1"]);
    let column = dice.pick(&["a", "b", "c"]);
    let name = dice.pick(&["'p'", "'P'", "'q'", "''"]);
    let blob = dice.pick(&["x''", "x'01'"]);
    match dice.below(12) {
        0 | 1 => format!("INSERT OR IGNORE INTO item VALUES({id}, {value}, 0, NULL)"),
        2 => format!("REPLACE INTO item(id, a, c) VALUES({id}, {value}, {value})"),
        3..=5 => format!("UPDATE item SET {column} = {value} WHERE id = {id}"),
        6 => format!("DELETE FROM item WHERE id = {id}"),
        7 => format!("UPDATE OR REPLACE item SET id = {id} WHERE id = {}", dice.below(6)),
        8 => format!("REPLACE INTO \"odd \"\"name\" VALUES({name}, {blob}, 0.5, {value})"),
        9 => format!("UPDATE \"odd \"\"name\" SET w = {value} WHERE \"k 1\" = {name}"),
        10 => format!("UPDATE OR IGNORE \"odd \"\"name\" SET \"k 1\" = {name} WHERE k2 = {blob}"),
        _ => format!("DELETE FROM \"odd \"\"name\" WHERE \"k 1\" = {name}"),
    }
}

/// One random statement on tables that refer to each other and have unique columns.
fn linked_statement(dice: &mut Dice) -> String {
    let (id, other) = (dice.below(5), dice.below(5));
    let email = dice.pick(&["'a@x'", "'b@x'", "'c@x'", "NULL"]);
    match dice.below(11) {
        0 | 1 => format!("INSERT OR IGNORE INTO parent VALUES({id}, 'n{other}', 'c{other}')"),
        2 => format!("DELETE FROM parent WHERE id = {id}"),
        3 | 4 => format!("INSERT OR IGNORE INTO child VALUES({id}, {other}, {email}, 0)"),
        5 => format!("UPDATE OR IGNORE child SET email = {email}, note = {other} WHERE id = {id}"),
        6 => format!("DELETE FROM child WHERE id = {id}"),
        7 => format!("INSERT OR IGNORE INTO leaf VALUES({id}, {other}, 0)"),
        8 => format!("UPDATE parent SET name = 'm{other}' WHERE id = {id}"),
        9 => format!("INSERT OR IGNORE INTO loose VALUES({id}, {other}, 1)"),
        _ => format!("UPDATE child SET parent = {other} WHERE id = {id}"),
    }
}

/// A schedule of writes, folds, messages and crashes.
fn run(
    seed: u64,
    schema: &str,
    count: usize,
    rules: &[(&str, Rules)],
    statement: fn(&mut Dice) -> String,
) -> (Sites, Dice) {
    let mut dice = Dice::new(seed);
    let skews: Vec<i64> = (0..count).map(|_| *dice.pick(&[0, 0, 3_600_000, -3_600_000, 5])).collect();
    let mut sites = Sites::new(schema, &skews, rules);
    act(&mut sites, &mut dice, 150, statement);
    sites.settle(&mut dice);
    (sites, dice)
}

fn act(sites: &mut Sites, dice: &mut Dice, times: usize, statement: fn(&mut Dice) -> String) {
    let count = sites.all.len();
    for _ in 0..times {
        let (at, other) = (dice.below(count), dice.below(count));
        match dice.below(20) {
            0..=6 => write(sites, at, dice, statement),
            7..=9 => sites.fold(at),
            10..=12 if at != other => sites.send(at, other),
            13 if at != other => sites.report(at, other),
            19 => sites.crash(at),
            _ => sites.deliver(dice, true),
        }
    }
}

/// One transaction of a few statements; those that a constraint refuses change nothing.
fn write(sites: &mut Sites, at: usize, dice: &mut Dice, statement: fn(&mut Dice) -> String) {
    sites.now += dice.below(50) as i64;
    let site = &sites.all[at];
    site.set_clock(sites.now);
    site.app.execute_batch("BEGIN IMMEDIATE").expect("the write lock");
    for _ in 0..=dice.below(3) {
        let _ = site.app.execute(&statement(dice), []);
    }
    if site.app.execute_batch("COMMIT").is_err() {
        site.app.execute_batch("ROLLBACK").expect("a rollback");
    }
}

fn equal(sites: &Sites, tables: &[&str], seed: u64) {
    for table in tables {
        let first = sites.all[0].rows(table);
        for site in &sites.all[1..] {
            assert_eq!(first, site.rows(table), "{table} at site 1 and at site {}, seed {seed}", site.id);
        }
    }
}

/// The oracle: a row's state is, for each of its registers, the change with the greatest (stamp, site).
fn expected(recorded: &[Recorded], table: &str, key: &[usize], columns: usize) -> BTreeSet<String> {
    type Cells = BTreeMap<u16, ((i64, SiteId), Value)>;
    type Row = ((i64, SiteId), (i64, SiteId), Cells, Vec<Value>);
    let mut rows: BTreeMap<Vec<u8>, Row> = BTreeMap::new();
    for (site, _, row_key, change, _) in recorded.iter().filter(|recorded| recorded.1 == table) {
        let entry = rows.entry(row_key.0.clone()).or_default();
        entry.3 = row_key.columns().expect("a key");
        if let Some(alive) = change.alive {
            entry.0 = entry.0.max((alive, *site));
        }
        if let Some(deleted) = change.deleted {
            entry.1 = entry.1.max((deleted.ends.stamp, deleted.ends.site));
        }
        for cell in &change.cells {
            let new = ((cell.stamp, *site), cell.value.clone());
            let old = entry.2.entry(cell.column).or_insert_with(|| new.clone());
            if new.0 > old.0 {
                *old = new;
            }
        }
    }
    let visible = rows.into_values().filter(|(alive, dead, ..)| alive > dead);
    visible
        .map(|(_, _, cells, key_values)| {
            let value = |column: usize| match key.iter().position(|at| *at == column) {
                Some(at) => key_values[at].clone(),
                None => cells[&u16::try_from(column).expect("few columns")].1.clone(),
            };
            format!("{:?}", (0..columns).map(value).collect::<Vec<_>>())
        })
        .collect()
}

fn check_free_tables(seed: u64, count: usize, rules: Rules) {
    let all = [("item", rules), ("odd \"name", rules)];
    let (sites, _) = run(seed, SCHEMA, count, &all, statement);
    equal(&sites, &["item", "\"odd \"\"name\""], seed);
    assert_eq!(sites.all[0].rows("item"), expected(&sites.recorded, "item", &[0], 4), "item, seed {seed}");
    let odd = expected(&sites.recorded, "odd \"name", &[0, 1], 4);
    assert_eq!(sites.all[0].rows("\"odd \"\"name\""), odd, "odd name, seed {seed}");
    for at in 0..count {
        assert_eq!(sites.kept(at), (0, 0), "changes and rows kept at site {} when all is said, seed {seed}", at + 1);
    }
}

#[test]
fn c4_two_sites_converge_to_the_newest_change_of_each_column() {
    seeds(60).into_iter().for_each(|seed| check_free_tables(seed, 2, Rules::default()));
}

#[test]
fn c4_three_sites_converge_to_the_newest_change_of_each_column() {
    seeds(40).into_iter().for_each(|seed| check_free_tables(seed, 3, Rules::default()));
}

#[test]
fn c4_rows_decided_as_a_whole_converge() {
    let rules = Rules { granularity: Granularity::Row, ..Rules::default() };
    seeds(25).into_iter().for_each(|seed| check_free_tables(seed, 3, rules));
}

#[test]
fn c4_where_deletions_win_sites_converge() {
    let rules = Rules { deletes: Deletes::Win, ..Rules::default() };
    seeds(25).into_iter().for_each(|seed| check_free_tables(seed, 3, rules));
}

#[test]
fn c4_where_edits_win_sites_converge() {
    let rules = Rules { deletes: Deletes::Lose, ..Rules::default() };
    seeds(25).into_iter().for_each(|seed| check_free_tables(seed, 3, rules));
}

fn check_linked_tables(seed: u64, count: usize, rules: Rules) {
    let all = [("parent", rules), ("child", rules), ("leaf", rules), ("loose", rules)];
    let (sites, _) = run(seed, LINKED, count, &all, linked_statement);
    equal(&sites, &["parent", "child", "leaf", "loose"], seed);
    for (table, columns) in [("parent", 3), ("child", 4), ("leaf", 3), ("loose", 3)] {
        let expected = expected(&sites.recorded, table, &[0], columns);
        assert_eq!(sites.all[0].rows(table), expected, "{table}, seed {seed}");
    }
    for site in &sites.all {
        let dangling: i64 = site
            .app
            .query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0))
            .expect("a check of foreign keys");
        assert_eq!(dangling, 0, "rows without their parents at site {}, seed {seed}", site.id);
    }
}

#[test]
fn c4_unique_columns_and_foreign_keys_hold_at_both_sites() {
    seeds(60).into_iter().for_each(|seed| check_linked_tables(seed, 2, Rules::default()));
}

#[test]
fn c4_unique_columns_and_foreign_keys_hold_at_three_sites() {
    let rules = Rules { unique: OnCollision::Delete, ..Rules::default() };
    seeds(40).into_iter().for_each(|seed| check_linked_tables(seed, 3, rules));
}

const PLAIN: &str = "CREATE TABLE item(id INTEGER PRIMARY KEY, a, b, c);";

/// A statement on a table without unique columns: no site ever has to mend anything by changes of its own.
fn plain_statement(dice: &mut Dice) -> String {
    let (id, value) = (dice.below(12), dice.below(1_000));
    let column = dice.pick(&["a", "b", "c"]);
    match dice.below(6) {
        0 | 1 => format!("INSERT OR IGNORE INTO item VALUES({id}, {value}, 0, NULL)"),
        2 => format!("DELETE FROM item WHERE id = {id}"),
        3 => format!("UPDATE OR REPLACE item SET id = {id} WHERE id = {}", dice.below(12)),
        _ => format!("UPDATE item SET {column} = {value} WHERE id = {id}"),
    }
}

/// A site goes back to a backup; the others had applied more of it.
fn check_restore(seed: u64, count: usize, outside: Outside) {
    let mut dice = Dice::new(seed);
    let skews: Vec<i64> = (0..count).map(|_| *dice.pick(&[0, 3_600_000, -3_600_000])).collect();
    let mut sites = Sites::new(PLAIN, &skews, &[]);
    let at = dice.below(count);
    act(&mut sites, &mut dice, 75, plain_statement);
    let backup = sites.back_up(at);
    act(&mut sites, &mut dice, 75, plain_statement);
    sites.restore(at, &backup, outside);
    if outside != Outside::Restored {
        act(&mut sites, &mut dice, 20, plain_statement);
    }
    sites.settle(&mut dice);
    // What any site still has is known now; what comes after only says it again.
    let expected = expected(&sites.recorded, "item", &[0], 4);
    sites.mend(at, &mut dice);
    equal(&sites, &["item"], seed);
    assert_eq!(sites.all[0].rows("item"), expected, "seed {seed}");
    // And it goes on as ever.
    act(&mut sites, &mut dice, 40, plain_statement);
    sites.settle(&mut dice);
    equal(&sites, &["item"], seed);
    for at in 0..count {
        assert_eq!(sites.kept(at), (0, 0), "changes and rows kept at site {} when all is said, seed {seed}", at + 1);
    }
}

#[test]
fn a_restored_backup_takes_back_from_its_peer_what_it_had_told() {
    seeds(30).into_iter().for_each(|seed| check_restore(seed, 2, Outside::Kept));
}

#[test]
fn a_restored_backup_takes_back_from_two_peers_what_it_had_told() {
    seeds(30).into_iter().for_each(|seed| check_restore(seed, 3, Outside::Kept));
}

#[test]
fn a_backup_restored_without_the_agents_own_file_is_found_out_too() {
    seeds(20).into_iter().for_each(|seed| check_restore(seed, 3, Outside::Lost));
}

#[test]
fn a_backup_restored_with_the_agents_own_file_is_found_out_by_the_peers() {
    seeds(20).into_iter().for_each(|seed| check_restore(seed, 3, Outside::Restored));
}

#[test]
fn a_third_site_joins_while_two_write() {
    for seed in seeds(30) {
        let mut dice = Dice::new(seed);
        let mut sites = Sites::some(SCHEMA, &[0, *dice.pick(&[0, 3_600_000, -3_600_000])], &[], 3);
        act(&mut sites, &mut dice, 75, statement);
        sites.join(dice.below(2));
        act(&mut sites, &mut dice, 100, statement);
        sites.settle(&mut dice);
        equal(&sites, &["item", "\"odd \"\"name\""], seed);
        assert_eq!(sites.all[2].rows("item"), expected(&sites.recorded, "item", &[0], 4), "item, seed {seed}");
        assert!(sites.compare(2, 0, &mut dice).is_clean());
        for at in 0..3 {
            assert_eq!(
                sites.kept(at),
                (0, 0),
                "changes and rows kept at site {} when all is said, seed {seed}",
                at + 1
            );
        }
    }
}
