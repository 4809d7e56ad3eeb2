//! Sets and lists: what was added at any site is everywhere in the end, or in a log.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::params;
use siteswap_replication::{Value, clock::SiteId};

use crate::{
    HOUR, integers, number, play,
    sites::{Dice, Sites, Workload, each_seed},
};

/// Every site adds elements of its own to a set.
#[derive(Default)]
struct Set {
    next: i64,
    acknowledged: BTreeMap<SiteId, BTreeSet<i64>>,
}

impl Workload for Set {
    fn write(&mut self, sites: &mut Sites, at: usize, dice: &mut Dice) {
        let added: Vec<i64> = (self.next..).take(1 + dice.below(3)).collect();
        self.next += 3;
        let committed = sites.transact(at, dice, |app, _| {
            for element in &added {
                app.execute("INSERT INTO element VALUES(?)", [element]).expect("an insert");
            }
        });
        if committed {
            self.acknowledged.entry(sites.all[at].id).or_default().extend(added);
        }
    }

    fn look(&mut self, sites: &Sites) {
        let all = self.all();
        for site in &sites.all {
            let there = integers(&site.app, "SELECT * FROM element");
            assert!(there.is_subset(&all), "site {} shows what nobody has committed", site.id);
            let own = self.acknowledged.get(&site.id);
            assert!(own.is_none_or(|own| own.is_subset(&there)), "site {} lacks what it has committed", site.id);
        }
    }
}

impl Set {
    fn all(&self) -> BTreeSet<i64> {
        self.acknowledged.values().flatten().copied().collect()
    }
}

#[test]
fn set_no_acknowledged_insert_is_lost_and_no_other_appears() {
    each_seed(25, |seed| {
        let mut set = Set::default();
        let sites = play(seed, "CREATE TABLE element(v INTEGER PRIMARY KEY)", &[0, HOUR, -HOUR], &mut set);
        for site in &sites.all {
            assert_eq!(integers(&site.app, "SELECT * FROM element"), set.all(), "site {}", site.id);
        }
    });
}

/// Every site appends rows of its own, counted from 1, to a list.
#[derive(Default)]
struct Append(BTreeMap<SiteId, i64>);

impl Workload for Append {
    fn write(&mut self, sites: &mut Sites, at: usize, dice: &mut Dice) {
        let id = sites.all[at].id;
        let n = self.0.entry(id).or_default();
        let committed = sites.transact(at, dice, |app, _| {
            app.execute("INSERT INTO entry VALUES(?, ?)", params![id, *n + 1]).expect("an insert");
        });
        *n += i64::from(committed);
    }

    /// A prefix of what each site has appended; all of its own.
    fn look(&mut self, sites: &Sites) {
        for site in &sites.all {
            for (origin, written) in &self.0 {
                let from = format!("FROM entry WHERE site = {origin}");
                let there = number(&site.app, &format!("SELECT count(*) {from}"));
                let last = number(&site.app, &format!("SELECT ifnull(max(n), 0) {from}"));
                let least = if *origin == site.id { *written } else { 0 };
                assert!(
                    there == last && (least..=*written).contains(&last),
                    "site {} has {there} entries of site {origin}, the last is {last} of {written}",
                    site.id
                );
            }
        }
    }
}

#[test]
fn append_every_site_shows_a_prefix_of_what_each_has_appended_and_in_the_end_all() {
    let schema = "CREATE TABLE entry(site INTEGER, n INTEGER, PRIMARY KEY(site, n)) WITHOUT ROWID";
    each_seed(25, |seed| {
        let mut append = Append::default();
        let sites = play(seed, schema, &[0, HOUR, -HOUR], &mut append);
        for site in &sites.all {
            let there = number(&site.app, "SELECT count(*) FROM entry");
            assert_eq!(there, append.0.values().sum::<i64>(), "site {}", site.id);
        }
    });
}

/// Every site appends to lists that are each one text: a read and a write of the same value.
#[derive(Default)]
struct Concatenate {
    next: i64,
    acknowledged: BTreeSet<i64>,
}

impl Workload for Concatenate {
    fn write(&mut self, sites: &mut Sites, at: usize, dice: &mut Dice) {
        self.next += 1;
        let (list, element) = (dice.below(2), self.next);
        let sql = "INSERT INTO list VALUES(?1, ?2 || ',') ON CONFLICT DO UPDATE SET elements = elements || ?2 || ','";
        let committed = sites.transact(at, dice, |app, _| {
            app.execute(sql, params![list, element]).expect("a write");
        });
        if committed {
            self.acknowledged.insert(element);
        }
    }
}

/// The elements of a list.
fn elements(text: &str) -> Vec<i64> {
    text.split_terminator(',').map(|element| element.parse().expect("an element")).collect()
}

#[test]
fn append_to_one_value_at_both_sites_what_is_not_in_the_value_is_in_a_log() {
    let mut lost = 0;
    each_seed(25, |seed| {
        let mut workload = Concatenate::default();
        let schema = "CREATE TABLE list(id INTEGER PRIMARY KEY, elements TEXT)";
        let sites = play(seed, schema, &[0, 0], &mut workload);
        let values = sites.all[0].rows("list");
        assert_eq!(values, sites.all[1].rows("list"));
        let mut statement = sites.all[0].app.prepare("SELECT elements FROM list").expect("a query");
        let texts = statement.query_map([], |row| row.get::<_, String>(0)).expect("rows");
        let kept: BTreeSet<i64> = texts.flat_map(|text| elements(&text.expect("a text"))).collect();
        // What a site has lost and then written over itself, the other never hears of.
        let logs = sites.all.iter().flat_map(|site| site.store.conflicts(u32::MAX).expect("the log"));
        let images = logs.flat_map(|conflict| conflict.image).flat_map(|(_, value)| match value {
            Value::Text(text) => elements(std::str::from_utf8(&text).expect("a text")),
            other => panic!("no text: {other:?}"),
        });
        let found: BTreeSet<i64> = images.chain(kept.iter().copied()).collect();
        assert_eq!(found, workload.acknowledged, "in the lists and in the sites' logs");
        lost += workload.acknowledged.len() - kept.len();
    });
    assert!(lost > 0, "no two sites ever appended at once");
}
