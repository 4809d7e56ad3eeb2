//! Rows that everybody changes: the last writer wins, by each of the rules.

use rusqlite::Connection;
use siteswap_replication::store::{Deletes, Granularity, Rules};

use crate::{
    HOUR, RIGHT, play,
    sites::{
        Dice, Sites, Workload, each_seed,
        history::{COLUMNS, History, Rows, What},
    },
};

/// Every site inserts, changes and deletes the same few rows.
#[derive(Default)]
struct Registers {
    rules: Rules,
    history: History,
    next: i64,
}

const REGISTERS: &str = "CREATE TABLE register(id INTEGER PRIMARY KEY, a INTEGER, b INTEGER, c INTEGER)";

fn registers(app: &Connection) -> Rows {
    let mut statement = app.prepare("SELECT * FROM register").expect("a query");
    let values = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, [row.get(1)?, row.get(2)?, row.get(3)?]));
    let rows = statement.query_map([], values).expect("rows");
    rows.collect::<Result<_, _>>().expect("integers")
}

impl Registers {
    /// A value that nobody had before.
    fn value(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    /// Does something to a row that can be done to it.
    fn change(&mut self, app: &Connection, dice: &mut Dice) -> (i64, What) {
        let row = dice.below(4) as i64;
        let (sql, what) = match registers(app).remove(&row) {
            None => {
                let values = [self.value(), self.value(), self.value()];
                let [a, b, c] = values;
                (format!("INSERT INTO register VALUES({row}, {a}, {b}, {c})"), What::Insert(values))
            }
            Some(_) if dice.chance(30) => (format!("DELETE FROM register WHERE id = {row}"), What::Delete),
            Some(mut values) => {
                let column = dice.below(COLUMNS);
                values[column] = self.value();
                let (name, value) = (["a", "b", "c"][column], values[column]);
                (format!("UPDATE register SET {name} = {value} WHERE id = {row}"), What::Set(column, values))
            }
        };
        assert_eq!(app.execute(&sql, []).expect("a write"), 1);
        (row, what)
    }
}

impl Workload for Registers {
    fn write(&mut self, sites: &mut Sites, at: usize, dice: &mut Dice) {
        let mut done = Vec::new();
        let committed = sites.transact(at, dice, |app, dice| {
            for _ in 0..=dice.below(3) {
                done.push(self.change(app, dice));
            }
        });
        if committed {
            self.history.add(&sites.all[at], &done);
        }
    }

    fn look(&mut self, sites: &Sites) {
        if self.rules == Rules::default() {
            sites.all.iter().for_each(|site| self.history.assert_shown(site, &registers(&site.app)));
        }
    }
}

/// With right clocks, every site shows what was done last.
fn last_writer_wins(sites: usize, rules: Rules) {
    each_seed(25, |seed| {
        let mut workload = Registers { rules: rules.clone(), ..Registers::default() };
        let mut dice = Dice::new(seed);
        let mut sites = Sites::new(REGISTERS, &RIGHT[..sites], &[("register", rules.clone())]);
        sites.act(&mut workload, &mut dice, 150);
        sites.settle(&mut dice);
        workload.look(&sites);
        for site in &sites.all {
            assert_eq!(registers(&site.app), workload.history.last(&rules), "site {}", site.id);
        }
    });
}

#[test]
fn register_the_last_writer_wins_each_column_and_the_rows_life() {
    last_writer_wins(3, Rules::default());
}

#[test]
fn register_decided_as_a_whole_the_last_writer_wins_the_row() {
    last_writer_wins(3, Rules { granularity: Granularity::Row, ..Rules::default() });
}

#[test]
fn register_where_deletions_win_only_an_insert_brings_a_row_back() {
    last_writer_wins(3, Rules { deletes: Deletes::Win, ..Rules::default() });
}

#[test]
fn register_where_edits_win_a_deletion_ends_what_its_maker_knew() {
    last_writer_wins(2, Rules { deletes: Deletes::Lose, ..Rules::default() });
}

#[test]
fn register_with_wrong_clocks_no_site_shows_what_it_knows_to_be_overwritten() {
    each_seed(40, |seed| {
        let clocks = if seed % 2 == 0 { &[0, HOUR][..] } else { &[0, HOUR, -HOUR] };
        let sites = play(seed, REGISTERS, clocks, &mut Registers::default());
        for site in &sites.all {
            assert_eq!(registers(&site.app), registers(&sites.all[0].app), "site {}", site.id);
        }
    });
}

#[test]
fn register_written_at_one_site_after_the_other_is_never_in_conflict() {
    each_seed(15, |seed| {
        let mut dice = Dice::new(seed);
        let mut sites = Sites::new(REGISTERS, &[0, HOUR, -HOUR], &[]);
        let mut workload = Registers::default();
        for _ in 0..20 {
            let at = dice.below(3);
            workload.write(&mut sites, at, &mut dice);
            sites.tell(at, &mut dice);
        }
        for site in &sites.all {
            let last = workload.history.last(&Rules::default());
            assert_eq!(registers(&site.app), last, "site {}", site.id);
            assert_eq!(site.store.conflicts(1).expect("the log"), [], "site {}", site.id);
        }
    });
}
