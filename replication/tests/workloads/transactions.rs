//! A site shows its own writes, and of every other's transactions all or nothing.

use std::collections::BTreeMap;

use siteswap_replication::clock::SiteId;

use crate::{
    HOUR, RIGHT, integers, number, play,
    sites::{Dice, Kill, Sites, Workload, each_seed},
};

/// Every site sets its own rows in two tables to one number, larger each time; some transactions are larger than a message.
#[derive(Default)]
struct Together {
    /// In so many of a hundred cases.
    large: usize,
    last: i64,
    written: BTreeMap<SiteId, i64>,
    shown: BTreeMap<(SiteId, SiteId), i64>,
}

const PAIR: &str = "
CREATE TABLE one(id INTEGER PRIMARY KEY, site INTEGER, v INTEGER, load BLOB);
CREATE TABLE two(id INTEGER PRIMARY KEY, site INTEGER, v INTEGER, load BLOB);
";

impl Workload for Together {
    fn write(&mut self, sites: &mut Sites, at: usize, dice: &mut Dice) {
        self.last += 1;
        let (id, v, large) = (sites.all[at].id, self.last, self.large);
        let committed = sites.transact(at, dice, |app, dice| {
            // A part of a group is full at 4 MiB.
            let load = if dice.chance(large) {
                format!("CAST('{v}' || hex(zeroblob(430000)) AS BLOB)")
            } else {
                "load".to_owned()
            };
            for table in ["one", "two"] {
                if dice.chance(20) {
                    app.execute(&format!("DELETE FROM {table} WHERE site = {id}"), []).expect("a deletion");
                }
                let rows = format!("VALUES({id}0), ({id}1), ({id}2)");
                let sql = format!(
                    "INSERT INTO {table}(id, site, v) SELECT column1, {id}, {v} FROM ({rows}) WHERE true
                     ON CONFLICT DO UPDATE SET v = {v}, load = {load}"
                );
                app.execute(&sql, []).expect("a write");
            }
        });
        if committed {
            self.written.insert(id, v);
        }
    }

    fn look(&mut self, sites: &Sites) {
        for site in &sites.all {
            for origin in sites.all.iter().map(|site| site.id) {
                let both = format!(
                    "(SELECT v FROM one WHERE site = {origin} UNION ALL SELECT v FROM two WHERE site = {origin})"
                );
                let values = integers(&site.app, &format!("SELECT v FROM {both}"));
                let count = number(&site.app, &format!("SELECT count(*) FROM {both}"));
                let at = format!("site {} shows {count} rows of site {origin}, with {values:?}", site.id);
                assert!(values.len() <= 1 && [0, 6].contains(&count), "half a transaction: {at}");
                let shown = values.first().copied().unwrap_or(0);
                let before = self.shown.insert((site.id, origin), shown).unwrap_or(0);
                assert!(shown >= before, "back from {before}: {at}");
                if origin == site.id {
                    assert_eq!(shown, self.written.get(&origin).copied().unwrap_or(0), "not its own last write: {at}");
                }
            }
        }
    }
}

#[test]
fn every_site_reads_its_own_writes_and_all_of_a_transaction_or_nothing() {
    each_seed(25, |seed| {
        play(seed, PAIR, &[0, HOUR, -HOUR], &mut Together { large: 4, ..Together::default() });
    });
}

#[test]
fn a_transaction_larger_than_a_message_is_seen_whole_wherever_agents_are_killed_or_parts_lost() {
    let run = |kill, lost| {
        eprintln!("killed at {kill:?}, message {lost:?} lost");
        let mut dice = Dice::new(0);
        let mut sites = Sites::new(PAIR, &RIGHT[..2], &[]);
        let mut workload = Together { large: 100, ..Together::default() };
        for _ in 0..2 {
            workload.write(&mut sites, 0, &mut dice);
        }
        sites.kill = kill;
        sites.fold(0);
        for message in 0..4 {
            sites.send(0, 1);
            if lost == Some(message) {
                sites.lose();
            }
            sites.deliver(&mut dice, false);
            workload.look(&sites);
        }
        let steps = sites.steps;
        sites.settle(&mut dice);
        workload.look(&sites);
        assert_eq!(workload.shown[&(2, 1)], workload.written[&1], "what was committed has not come");
        steps
    };
    let steps = run(None, None);
    for lost in 0..4 {
        run(None, Some(lost));
    }
    for step in 0..steps {
        for kill in Kill::ALL {
            run(Some((step, kill)), None);
        }
    }
}
