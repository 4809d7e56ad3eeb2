//! Claims C1, C4 and C5: sites that write whatever they like, over a network that loses, repeats and reorders, with agents
//! that are killed and clocks that are wrong, end with the same rows; those rows are what the recorded changes say, put
//! together by an oracle that shares no code with the merge.
//!
//! `SITESWAP_SEEDS` sets how many schedules each test runs, `SITESWAP_SEED` runs a single one.

mod sites;

use std::collections::BTreeSet;

use sites::{Dice, Kill, Outside, Site, Sites, Workload, each_seed, oracle};
use siteswap_replication::{
    Key,
    store::{ColumnRule, Deletes, Granularity, OnCollision, Rules},
};

/// Tables, and what applications do to them.
struct Tables {
    schema: &'static str,
    /// Each table's name, the places of its key's columns, and the number of its columns.
    all: &'static [(&'static str, &'static [usize], usize)],
    /// A random statement; a constraint may refuse it.
    statement: fn(&mut Dice) -> String,
}

/// Tables that have nothing to do with each other.
const FREE: Tables = Tables {
    schema: "
CREATE TABLE item(id INTEGER PRIMARY KEY, a, b, c);
CREATE TABLE \"odd \"\"name\"(\"k 1\" TEXT COLLATE NOCASE, k2 BLOB, v REAL, w, PRIMARY KEY(\"k 1\", k2)) WITHOUT ROWID;
",
    all: &[("item", &[0], 4), ("odd \"name", &[0, 1], 4)],
    statement: |dice| {
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
    },
};

/// Tables that refer to each other and have unique columns.
const LINKED: Tables = Tables {
    schema: "
CREATE TABLE parent(id INTEGER PRIMARY KEY, name TEXT, code TEXT NOT NULL UNIQUE);
CREATE TABLE child(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent(id), email TEXT UNIQUE, note);
CREATE INDEX child_parent ON child(parent);
CREATE TABLE leaf(id INTEGER PRIMARY KEY, child INTEGER NOT NULL REFERENCES child(id) ON DELETE CASCADE, v);
CREATE TABLE loose(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent(id) ON DELETE SET NULL, v);
",
    all: &[("parent", &[0], 3), ("child", &[0], 4), ("leaf", &[0], 3), ("loose", &[0], 3)],
    statement: |dice| {
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
    },
};

/// Tables of which each calls back, takes with it or lets go what another refers to, by more than keys.
const CHAINED: Tables = Tables {
    schema: "
CREATE TABLE customer(id INTEGER PRIMARY KEY, address TEXT COLLATE NOCASE NOT NULL UNIQUE ON CONFLICT IGNORE);
CREATE TABLE purchase(id INTEGER PRIMARY KEY, customer INTEGER NOT NULL REFERENCES customer ON DELETE CASCADE, n);
CREATE TABLE item(id INTEGER PRIMARY KEY, purchase INTEGER NOT NULL REFERENCES purchase, n UNIQUE ON CONFLICT REPLACE);
CREATE TABLE letter(id INTEGER PRIMARY KEY, address TEXT REFERENCES customer(address) ON DELETE CASCADE, item REFERENCES item, n);
",
    all: &[("customer", &[0], 2), ("purchase", &[0], 3), ("item", &[0], 3), ("letter", &[0], 4)],
    statement: |dice| {
        let (id, other, n) = (dice.below(4), dice.below(4), dice.below(4));
        // A customer always has the same, however it is spelled.
        let address = |dice: &mut Dice, id| format!("'{}{id}'", dice.pick(&["at", "AT", "At"]));
        match dice.below(12) {
            0 | 1 => format!("INSERT OR IGNORE INTO customer VALUES({id}, {})", address(dice, id)),
            2 => format!("DELETE FROM customer WHERE id = {id}"),
            3 | 4 => format!("INSERT OR IGNORE INTO purchase VALUES({id}, {other}, {n})"),
            5 => format!("DELETE FROM purchase WHERE id = {id}"),
            6 => format!("INSERT INTO item VALUES({id}, {other}, {n})"),
            7 => format!("UPDATE item SET purchase = {other} WHERE id = {id}"),
            8 => format!("DELETE FROM item WHERE id = {id}"),
            9 | 10 => format!("INSERT OR IGNORE INTO letter VALUES({id}, {}, {other}, {n})", address(dice, n)),
            _ => format!("UPDATE purchase SET n = {n} WHERE id = {id}"),
        }
    },
};

/// A table in which rows drive out others by a unique value.
const EVICTING: Tables = Tables {
    schema: "CREATE TABLE seat(id INTEGER PRIMARY KEY, number INTEGER UNIQUE, name, note);",
    all: &[("seat", &[0], 4)],
    statement: |dice| {
        let (id, number, value) = (dice.below(6), dice.below(6), dice.below(1_000));
        match dice.below(8) {
            0 | 1 => format!("INSERT OR IGNORE INTO seat VALUES({id}, {number}, {value}, 0)"),
            2 | 3 => format!("REPLACE INTO seat VALUES({id}, {number}, {value}, 0)"),
            4 => format!("UPDATE OR REPLACE seat SET number = {number} WHERE id = {id}"),
            5 => format!("UPDATE OR IGNORE seat SET number = {number}, note = {value} WHERE id = {id}"),
            6 => format!("UPDATE seat SET note = {value} WHERE id = {id}"),
            _ => format!("DELETE FROM seat WHERE id = {id}"),
        }
    },
};

/// A table with values that are unique by an expression, or in some rows only.
const PARTLY: Tables = Tables {
    schema: "
CREATE TABLE account(id INTEGER PRIMARY KEY, email TEXT, gone INTEGER NOT NULL, name TEXT, note);
CREATE UNIQUE INDEX present ON account(email) WHERE gone = 0;
CREATE UNIQUE INDEX called ON account(lower(name));
",
    all: &[("account", &[0], 5)],
    statement: |dice| {
        let (id, value, gone) = (dice.below(6), dice.below(1_000), dice.below(2));
        let email = dice.pick(&["'a@x'", "'b@x'", "'c@x'", "NULL"]);
        let name = dice.pick(&["'ann'", "'ANN'", "'Bob'", "'bob'", "'c'", "NULL"]);
        match dice.below(8) {
            0 | 1 => format!("INSERT OR IGNORE INTO account VALUES({id}, {email}, {gone}, {name}, 0)"),
            2 => format!("UPDATE OR IGNORE account SET email = {email} WHERE id = {id}"),
            3 => format!("UPDATE OR IGNORE account SET gone = {gone} WHERE id = {id}"),
            4 => format!("UPDATE OR IGNORE account SET name = {name}, note = {value} WHERE id = {id}"),
            5 => format!("UPDATE account SET note = {value} WHERE id = {id}"),
            6 => format!("UPDATE OR IGNORE account SET id = {id} WHERE id = {}", dice.below(6)),
            _ => format!("DELETE FROM account WHERE id = {id}"),
        }
    },
};

/// A table with columns that are not decided by what is newest.
const COUNTED: Tables = Tables {
    schema: "CREATE TABLE stock(id INTEGER PRIMARY KEY, n, low, high, note);",
    all: &[("stock", &[0], 5)],
    statement: |dice| {
        let (id, value, by) = (dice.below(4), dice.below(1_000), dice.below(9));
        let any = dice.pick(&["NULL", "'a'", "'B'", "x'00'", "-0.5", "7", "1e9"]);
        match dice.below(16) {
            0 | 1 => format!("INSERT OR IGNORE INTO stock VALUES({id}, {value}, {value}, {value}, 0)"),
            2 => format!("REPLACE INTO stock VALUES({id}, {by}, {by}, {by}, 1)"),
            3..=6 => format!("UPDATE stock SET n = n + {by} WHERE id = {id}"),
            7 => format!("UPDATE stock SET n = n - {value}, note = {by} WHERE id = {id}"),
            8 => format!("UPDATE stock SET n = {any} WHERE id = {id}"),
            9 | 10 => format!("UPDATE stock SET low = {value}, high = {value} WHERE id = {id}"),
            11 => format!("UPDATE stock SET low = {any} WHERE id = {id}"),
            12 => format!("UPDATE stock SET high = {any}, n = n + 1 WHERE id = {id}"),
            13 => format!("UPDATE stock SET note = {value} WHERE id = {id}"),
            14 => format!("UPDATE OR REPLACE stock SET id = {id} WHERE id = {}", dice.below(4)),
            _ => format!("DELETE FROM stock WHERE id = {id}"),
        }
    },
};

/// The rules of its columns.
fn counted() -> Rules {
    let columns = [("n", ColumnRule::Counter), ("low", ColumnRule::Min), ("high", ColumnRule::Max)];
    Rules { columns: columns.map(|(name, rule)| (name.to_owned(), rule)).into(), ..Rules::default() }
}

/// A table without unique columns: no site ever has to mend anything by changes of its own.
const PLAIN: Tables = Tables {
    schema: "CREATE TABLE item(id INTEGER PRIMARY KEY, a, b, c);",
    all: &[("item", &[0], 4)],
    statement: |dice| {
        let (id, value) = (dice.below(12), dice.below(1_000));
        let column = dice.pick(&["a", "b", "c"]);
        match dice.below(6) {
            0 | 1 => format!("INSERT OR IGNORE INTO item VALUES({id}, {value}, 0, NULL)"),
            2 => format!("DELETE FROM item WHERE id = {id}"),
            3 => format!("UPDATE OR REPLACE item SET id = {id} WHERE id = {}", dice.below(12)),
            _ => format!("UPDATE item SET {column} = {value} WHERE id = {id}"),
        }
    },
};

impl Workload for &Tables {
    /// A few statements; those that a constraint refuses change nothing.
    fn write(&mut self, sites: &mut Sites, at: usize, dice: &mut Dice) {
        sites.transact(at, dice, |app, dice| {
            for _ in 0..=dice.below(3) {
                let _ = app.execute(&(self.statement)(dice), []);
            }
        });
    }
}

impl Tables {
    /// So many sites with clocks that may be wrong, and the dice for what happens to them.
    fn sites(&self, seed: u64, count: usize, rules: Rules) -> (Sites, Dice) {
        let mut dice = Dice::new(seed);
        let skews: Vec<i64> = (0..count).map(|_| *dice.pick(&[0, 0, 3_600_000, -3_600_000, 5])).collect();
        let rules: Vec<_> = self.all.iter().map(|(table, ..)| (*table, rules.clone())).collect();
        (Sites::new(self.schema, &skews, &rules), dice)
    }

    /// All sites show the same rows, none of them without its parent.
    fn assert_equal(&self, sites: &Sites) {
        for (table, ..) in self.all {
            let first = sites.all[0].rows(&quoted(table));
            for site in &sites.all[1..] {
                assert_eq!(first, site.rows(&quoted(table)), "{table} at site 1 and at site {}", site.id);
            }
        }
        for site in &sites.all {
            let sql = "SELECT count(*) FROM pragma_foreign_key_check";
            let dangling: i64 = site.app.query_row(sql, [], |row| row.get(0)).expect("a check of foreign keys");
            assert_eq!(dangling, 0, "rows without their parents at site {}", site.id);
        }
    }

    /// They are the rows that the recorded changes say.
    fn assert_expected(&self, sites: &Sites) {
        for (table, key, columns) in self.all {
            let expected = oracle::joined(sites, table, key, *columns);
            assert_eq!(sites.all[0].rows(&quoted(table)), expected, "{table}");
        }
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// All sites know of the same conflicts.
fn assert_same_conflicts(sites: &Sites) {
    let known = |site: &Site| -> BTreeSet<_> {
        let log = site.store.conflicts(u32::MAX).expect("a log").into_iter();
        log.map(|lost| (lost.id, lost.table, lost.lost_ms, format!("{:?}", lost.image), lost.state)).collect()
    };
    let first = known(&sites.all[0]);
    for site in &sites.all[1..] {
        assert_eq!(first, known(site), "conflicts at site 1 and at site {}", site.id);
    }
}

/// Nothing is kept of changes and rows when all is said.
fn assert_nothing_kept(sites: &Sites) {
    for at in 0..sites.all.len() {
        assert_eq!(sites.kept(at), (0, 0), "changes and rows kept at site {} when all is said", at + 1);
    }
}

/// Sites that do as they like for a while agree when they have told each other everything. To be told it again changes
/// nothing.
fn converge(mut tables: &Tables, schedules: u64, count: usize, rules: Rules) {
    each_seed(schedules, |seed| {
        let (mut sites, mut dice) = tables.sites(seed, count, rules.clone());
        sites.act(&mut tables, &mut dice, 150);
        sites.settle(&mut dice);
        for again in [false, true] {
            if again {
                sites.repeat_all();
                sites.settle(&mut dice);
            }
            tables.assert_equal(&sites);
            tables.assert_expected(&sites);
            assert_same_conflicts(&sites);
            assert_nothing_kept(&sites);
        }
    });
}

#[test]
fn c4_two_sites_converge_to_the_newest_change_of_each_column() {
    converge(&FREE, 60, 2, Rules::default());
}

#[test]
fn c4_three_sites_converge_to_the_newest_change_of_each_column() {
    converge(&FREE, 40, 3, Rules::default());
}

#[test]
fn c4_rows_decided_as_a_whole_converge() {
    converge(&FREE, 25, 3, Rules { granularity: Granularity::Row, ..Rules::default() });
}

#[test]
fn c4_where_deletions_win_sites_converge() {
    converge(&FREE, 25, 3, Rules { deletes: Deletes::Win, ..Rules::default() });
}

#[test]
fn c4_where_edits_win_sites_converge() {
    converge(&FREE, 25, 3, Rules { deletes: Deletes::Lose, ..Rules::default() });
}

#[test]
fn c4_unique_columns_and_foreign_keys_hold_at_both_sites() {
    converge(&LINKED, 60, 2, Rules::default());
}

#[test]
fn c4_unique_columns_and_foreign_keys_hold_at_three_sites() {
    converge(&LINKED, 40, 3, Rules { unique: OnCollision::Delete, ..Rules::default() });
}

#[test]
fn c4_where_losers_of_unique_values_get_a_suffix_sites_converge() {
    converge(&LINKED, 40, 2, Rules { unique: OnCollision::Suffix, ..Rules::default() });
    converge(&LINKED, 30, 3, Rules { unique: OnCollision::Suffix, ..Rules::default() });
}

#[test]
fn c4_where_triggers_fire_sites_converge() {
    converge(&LINKED, 40, 2, Rules { fire_triggers: true, ..Rules::default() });
    converge(&EVICTING, 20, 3, Rules { fire_triggers: true, ..Rules::default() });
}

#[test]
fn c4_values_that_are_unique_by_an_expression_or_in_some_rows_only_are_so_at_every_site() {
    converge(&PARTLY, 60, 2, Rules::default());
    converge(&PARTLY, 40, 3, Rules::default());
}

#[test]
fn c4_rows_that_call_back_and_take_with_them_what_others_refer_to_converge() {
    converge(&CHAINED, 40, 2, Rules::default());
    converge(&CHAINED, 20, 3, Rules::default());
}

#[test]
fn c4_rows_driven_out_by_others_converge() {
    converge(&EVICTING, 40, 2, Rules::default());
}

#[test]
fn c4_what_two_sites_add_counts_and_the_smallest_and_greatest_values_stay() {
    converge(&COUNTED, 60, 2, counted());
}

#[test]
fn c4_what_three_sites_add_counts_and_the_smallest_and_greatest_values_stay() {
    converge(&COUNTED, 40, 3, counted());
    converge(&COUNTED, 20, 4, counted());
}

#[test]
fn c4_what_sites_add_counts_whatever_else_is_decided_by() {
    for deletes in [Deletes::Win, Deletes::Lose] {
        converge(&COUNTED, 20, 3, Rules { deletes, ..counted() });
    }
    converge(&COUNTED, 20, 3, Rules { granularity: Granularity::Row, ..counted() });
}

#[test]
fn a_site_that_joins_while_two_add_counts_everything_once() {
    each_seed(20, |seed| {
        let mut dice = Dice::new(seed);
        let mut sites = Sites::some(COUNTED.schema, &[0, 0], &[("stock", counted())], 3);
        sites.act(&mut &COUNTED, &mut dice, 75);
        sites.join(dice.below(2));
        sites.act(&mut &COUNTED, &mut dice, 100);
        sites.settle(&mut dice);
        COUNTED.assert_equal(&sites);
        COUNTED.assert_expected(&sites);
        assert_nothing_kept(&sites);
    });
}

#[test]
fn a_restored_backup_counts_as_its_peers_do() {
    each_seed(30, |seed| {
        let (mut sites, mut dice) = COUNTED.sites(seed, 3, counted());
        sites.act(&mut &COUNTED, &mut dice, 75);
        let backup = sites.back_up(1);
        sites.act(&mut &COUNTED, &mut dice, 75);
        sites.restore(1, &backup, Outside::Kept);
        sites.act(&mut &COUNTED, &mut dice, 20);
        sites.mend(1, &mut dice);
        COUNTED.assert_equal(&sites);
        sites.act(&mut &COUNTED, &mut dice, 40);
        sites.settle(&mut dice);
        COUNTED.assert_equal(&sites);
        assert_nothing_kept(&sites);
    });
}

#[test]
fn c5_an_agent_killed_at_any_commit_or_message_of_a_schedule_loses_nothing() {
    each_seed(2, |seed| {
        let run = |kill| {
            eprintln!("killed at {kill:?}");
            let (mut sites, mut dice) = FREE.sites(seed, 2, Rules::default());
            sites.kill = kill;
            for round in 0..3 {
                for at in [0, 1] {
                    (&FREE).write(&mut sites, at, &mut dice);
                    sites.fold(at);
                }
                sites.send(round % 2, 1 - round % 2);
                (&FREE).write(&mut sites, 0, &mut dice);
                sites.deliver(&mut dice, false);
                sites.report(0, 1);
                sites.deliver(&mut dice, false);
            }
            sites.settle(&mut dice);
            FREE.assert_equal(&sites);
            FREE.assert_expected(&sites);
            assert_nothing_kept(&sites);
            assert!(sites.kill.is_none(), "there is no such step");
            sites.steps
        };
        let steps = run(None);
        for step in 0..steps {
            for kill in Kill::ALL {
                run(Some((step, kill)));
            }
        }
    });
}

/// A site goes back to a backup; the others had applied more of it.
fn restore(schedules: u64, count: usize, outside: Outside) {
    each_seed(schedules, |seed| {
        let (mut sites, mut dice) = PLAIN.sites(seed, count, Rules::default());
        let at = dice.below(count);
        sites.act(&mut &PLAIN, &mut dice, 75);
        let backup = sites.back_up(at);
        sites.act(&mut &PLAIN, &mut dice, 75);
        sites.restore(at, &backup, outside);
        let (own, then) = (sites.all[at].id, sites.recorded.len());
        if outside != Outside::Restored {
            sites.act(&mut &PLAIN, &mut dice, 20);
        }
        sites.settle(&mut dice);
        // What any site still has is known now; what comes after only says it again.
        let mut expected = oracle::joined(&sites, "item", &[0], 4);
        // A row that all sites had deleted, and that was changed where the backup still had it: nobody else knows it.
        let id = |row: &str| row.split(',').next().map(str::to_owned);
        let others = sites.all.iter().enumerate().filter(|(other, _)| *other != at);
        let shown: Vec<_> = others.flat_map(|(_, site)| site.rows("item")).map(|row| id(&row)).collect();
        let unknown = expected.iter().map(|row| id(row)).filter(|id| !shown.contains(id));
        // Or whose deletion somebody still knows of: its other columns may be what the backup has, or what they were then.
        let changed = sites.recorded[then..].iter().filter(|(site, ..)| *site == own);
        let deleted = |wanted: &Key| {
            let mut others = sites.recorded.iter().filter(|(site, ..)| *site != own);
            others.any(|(_, _, key, change, _)| key == wanted && change.deleted.is_some())
        };
        let called_back = changed.filter(|(_, _, key, ..)| deleted(key)).filter_map(|(_, _, key, ..)| key.columns());
        let revived: Vec<_> = unknown.chain(called_back.map(|key| Some(format!("[{:?}", key[0])))).collect();
        sites.mend(at, &mut dice);
        PLAIN.assert_equal(&sites);
        let mut rows = sites.all[at].rows("item");
        for rows in [&mut rows, &mut expected] {
            rows.retain(|row| !revived.contains(&id(row)));
        }
        assert_eq!(rows, expected);
        // And it goes on as ever.
        sites.act(&mut &PLAIN, &mut dice, 40);
        sites.settle(&mut dice);
        PLAIN.assert_equal(&sites);
        assert_nothing_kept(&sites);
    });
}

#[test]
fn a_restored_backup_takes_back_from_its_peer_what_it_had_told() {
    restore(30, 2, Outside::Kept);
}

#[test]
fn a_restored_backup_takes_back_from_two_peers_what_it_had_told() {
    restore(30, 3, Outside::Kept);
}

#[test]
fn a_backup_restored_without_the_agents_own_file_is_found_out_too() {
    restore(20, 3, Outside::Lost);
}

#[test]
fn a_backup_restored_with_the_agents_own_file_is_found_out_by_the_peers() {
    restore(20, 3, Outside::Restored);
}

/// It makes as many changes again as a peer had applied before anybody can tell it that.
#[test]
fn a_backup_of_a_site_without_changes_of_its_own_is_found_out_without_the_agents_own_file() {
    let mut dice = Dice::new(0);
    let mut sites = Sites::new(PLAIN.schema, &[0, 0], &[]);
    sites.write(0, "INSERT INTO item VALUES(1, 1, 1, 1)");
    sites.settle(&mut dice);
    let backup = sites.back_up(1);
    sites.write(1, "INSERT INTO item VALUES(2, 2, 2, 2)");
    sites.settle(&mut dice);
    sites.restore(1, &backup, Outside::Lost);
    // What they say on the new connection is lost.
    (0..2).for_each(|_| sites.lose());
    sites.write(1, "INSERT INTO item VALUES(3, 3, 3, 3)");
    sites.fold(1);
    sites.settle(&mut dice);
    assert!(sites.all[1].store.doubt().expect("a state").is_some(), "it was restored");
    sites.mend(1, &mut dice);
    assert_eq!(sites.all[0].rows("item").len(), 3);
    PLAIN.assert_equal(&sites);
}

#[test]
fn a_restored_backup_hears_from_its_peer_that_it_had_deleted_a_row() {
    let mut dice = Dice::new(0);
    let mut sites = Sites::new(PLAIN.schema, &[0, 0], &[]);
    let write = |sites: &mut Sites, at: usize, sql: &str| {
        sites.now += 1;
        sites.all[at].set_clock(sites.now);
        sites.all[at].app.execute(sql, []).expect("a write");
    };
    let backup = sites.back_up(1);
    write(&mut sites, 0, "INSERT INTO item VALUES(1, 1, 1, 1)");
    sites.settle(&mut dice);
    // Of this change the other site will hear only when it has forgotten the row, and that it was deleted.
    write(&mut sites, 0, "UPDATE item SET b = 2 WHERE id = 1");
    sites.fold(0);
    write(&mut sites, 1, "DELETE FROM item WHERE id = 1");
    sites.tell(1, &mut dice);
    sites.restore(1, &backup, Outside::Kept);
    sites.settle(&mut dice);
    assert_eq!(sites.kept(1), (0, 1), "a row of which only one column is known");
    sites.mend(1, &mut dice);
    sites.settle(&mut dice);
    assert!(sites.all[0].rows("item").is_empty());
    PLAIN.assert_equal(&sites);
    assert_nothing_kept(&sites);
}

#[test]
fn a_row_that_was_deleted_just_before_a_site_joined_comes_back_there_too_for_an_edit_elsewhere() {
    let (mut sites, mut dice) = (Sites::some(PLAIN.schema, &[0, 0], &[], 3), Dice::new(0));
    let write = |sites: &mut Sites, at: usize, sql: &str| {
        sites.now += 1;
        sites.all[at].set_clock(sites.now);
        sites.all[at].app.execute(sql, []).expect("a write");
    };
    write(&mut sites, 0, "INSERT INTO item VALUES(1, 1, 1, 1)");
    sites.settle(&mut dice);
    write(&mut sites, 0, "DELETE FROM item");
    write(&mut sites, 1, "UPDATE item SET b = 2");
    sites.join(0);
    sites.settle(&mut dice);
    PLAIN.assert_equal(&sites);
    assert_eq!(sites.all[2].rows("item").len(), 1);
    assert_nothing_kept(&sites);
}

/// The key that the row had is the same as its new one to the table, so only one of them is in a copy.
#[test]
fn a_row_that_got_another_key_just_before_a_site_joined_comes_back_there_too_for_an_edit_elsewhere() {
    let schema = "CREATE TABLE item(name TEXT NOT NULL COLLATE NOCASE PRIMARY KEY, a, b)";
    let (mut sites, mut dice) = (Sites::some(schema, &[0, 0], &[], 3), Dice::new(0));
    let write = |sites: &mut Sites, at: usize, sql: &str| {
        sites.now += 1;
        sites.all[at].set_clock(sites.now);
        sites.all[at].app.execute(sql, []).expect("a write");
    };
    write(&mut sites, 0, "INSERT INTO item VALUES('p', 1, 1)");
    sites.settle(&mut dice);
    write(&mut sites, 0, "UPDATE item SET name = 'P'");
    write(&mut sites, 0, "DELETE FROM item");
    write(&mut sites, 0, "INSERT INTO item VALUES('P', 3, 3)");
    write(&mut sites, 0, "UPDATE item SET name = 'q'");
    write(&mut sites, 0, "INSERT INTO item VALUES('P', 4, 4)");
    write(&mut sites, 1, "UPDATE item SET b = 2");
    sites.join(0);
    assert_eq!(sites.all[2].rows("item").len(), 2);
    sites.settle(&mut dice);
    let rows = sites.all[0].rows("item");
    assert!(sites.all.iter().all(|site| site.rows("item") == rows));
    assert_nothing_kept(&sites);
}

#[test]
fn a_third_site_joins_while_two_write() {
    each_seed(30, |seed| {
        let mut dice = Dice::new(seed);
        let mut sites = Sites::some(FREE.schema, &[0, *dice.pick(&[0, 3_600_000, -3_600_000])], &[], 3);
        sites.act(&mut &FREE, &mut dice, 75);
        sites.join(dice.below(2));
        sites.act(&mut &FREE, &mut dice, 100);
        sites.settle(&mut dice);
        FREE.assert_equal(&sites);
        FREE.assert_expected(&sites);
        assert!(sites.compare(2, 0, &mut dice).is_clean());
        assert_nothing_kept(&sites);
    });
}
