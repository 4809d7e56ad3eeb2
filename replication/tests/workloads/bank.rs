//! A bank's total: what last-writer-wins does to it, and what keeps it.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use siteswap_replication::{Value, clock::SiteId};

use crate::{
    HOUR, number, play,
    sites::{Dice, Site, Sites, Workload, each_seed},
};

const ACCOUNTS: usize = 4;
const TOTAL: i64 = 100 * ACCOUNTS as i64;
const BANK: &str = "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)";

/// A bank at so many sites, with all accounts at all of them.
fn bank(skews: &[i64]) -> Sites {
    let mut sites = Sites::new(BANK, skews, &[]);
    let mut dice = Dice::new(0);
    let rows: Vec<String> = (0..ACCOUNTS).map(|id| format!("({id}, 100)")).collect();
    sites.all[0].app.execute_batch(&format!("INSERT INTO account VALUES {}", rows.join(","))).expect("accounts");
    sites.settle(&mut dice);
    sites
}

fn total(site: &Site) -> i64 {
    number(&site.app, "SELECT sum(balance) FROM account")
}

fn transfer(app: &Connection, source: usize, target: usize, amount: i64) -> rusqlite::Result<()> {
    app.execute("UPDATE account SET balance = balance - ? WHERE id = ?", params![amount, source])?;
    app.execute("UPDATE account SET balance = balance + ? WHERE id = ?", params![amount, target])?;
    Ok(())
}

#[test]
fn bank_written_at_two_sites_at_once_does_not_keep_its_total_and_the_log_tells_what_lost() {
    let mut sites = bank(&[0, 0]);
    let mut dice = Dice::new(0);
    for (at, target, amount) in [(0, 1, 10), (1, 2, 20)] {
        sites.now += 1;
        sites.all[at].set_clock(sites.now);
        transfer(&sites.all[at].app, 0, target, amount).expect("a transfer");
    }
    sites.settle(&mut dice);
    for site in &sites.all {
        // Both were paid, and account 0 paid the newer transfer alone.
        let balances = [80, 110, 120, 100].iter().enumerate();
        let balances = balances.map(|(id, balance)| format!("[Integer({id}), Integer({balance})]")).collect();
        assert_eq!(site.rows("account"), balances);
        let log = site.store.conflicts(10).expect("the log");
        let [conflict] = &log[..] else { panic!("one conflict, and not {log:?}") };
        assert_eq!((&*conflict.kind, &conflict.key[..]), ("update/update", &[Value::Integer(0)][..]));
        assert_eq!(conflict.image, [("balance".to_owned(), Value::Integer(90))]);
    }
}

/// One site at a time makes transfers; the others refuse them. A planned swap waits until the next one has everything.
struct Held {
    holder: usize,
    /// The next holder, and how far the one before it was.
    swap: Option<(usize, BTreeMap<SiteId, u64>)>,
    refused: usize,
    made: usize,
}

impl Held {
    fn refuse(sites: &mut Sites, at: usize, holder: Option<usize>) -> BTreeMap<SiteId, u64> {
        let tables = BTreeMap::from([("account".to_owned(), holder.map(|holder| format!("site{}", holder + 1)))]);
        let now = sites.now;
        sites.all[at].store.refuse(&tables, now).expect("triggers")
    }

    fn swap(&mut self, sites: &mut Sites, next: usize) {
        match &self.swap {
            None => self.swap = Some((next, Self::refuse(sites, self.holder, Some(next)))),
            Some((next, reached)) if has_reached(&sites.all[*next], reached) => {
                let next = *next;
                for at in 0..sites.all.len() {
                    Self::refuse(sites, at, (at != next).then_some(next));
                }
                (self.holder, self.swap) = (next, None);
            }
            Some(_) => {}
        }
    }
}

/// Has a site applied everything up to there?
fn has_reached(site: &Site, reached: &BTreeMap<SiteId, u64>) -> bool {
    let peers = site.store.peers().expect("peers");
    reached.iter().all(|(other, group)| *other == site.id || peers[other].applied >= *group)
}

impl Workload for Held {
    fn write(&mut self, sites: &mut Sites, at: usize, dice: &mut Dice) {
        if self.swap.is_some() || at != self.holder && dice.chance(20) {
            return self.swap(sites, at);
        }
        let (source, target, amount) = (dice.below(ACCOUNTS), dice.below(ACCOUNTS), 1 + dice.below(50) as i64);
        let mut result = Ok(());
        let committed = sites.transact(at, dice, |app, _| result = transfer(app, source, target, amount));
        if let Err(error) = result {
            assert!(error.to_string().contains(&format!("site{}", self.holder + 1)), "{error}");
            self.refused += 1;
        } else {
            assert_eq!(at, self.holder, "a site that does not hold the accounts has changed them");
            self.made += usize::from(committed);
        }
    }

    /// A third site may hear of the new holder's transfers before it has all of the old one's.
    fn look(&mut self, sites: &Sites) {
        for (at, site) in sites.all.iter().enumerate() {
            if sites.all.len() == 2 || at == self.holder {
                assert_eq!(total(site), TOTAL, "at site {}", site.id);
            }
        }
    }
}

/// So many sites, the first of which holds the accounts at the beginning.
fn held(clocks: &[i64]) {
    let (mut made, mut refused) = (0, 0);
    each_seed(25, |seed| {
        let mut dice = Dice::new(seed);
        let mut sites = bank(clocks);
        let mut workload = Held { holder: 0, swap: None, refused: 0, made: 0 };
        for at in 1..clocks.len() {
            Held::refuse(&mut sites, at, Some(0));
        }
        sites.act(&mut workload, &mut dice, 200);
        sites.settle(&mut dice);
        for site in &sites.all {
            assert_eq!(total(site), TOTAL, "at site {}", site.id);
            assert_eq!(site.rows("account"), sites.all[0].rows("account"), "site {}", site.id);
            if sites.all.len() == 2 {
                assert_eq!(site.store.conflicts(1).expect("the log"), [], "site {}", site.id);
            }
        }
        made += workload.made;
        refused += workload.refused;
    });
    assert!(made > 0 && refused > 0, "{made} transfers made, {refused} refused");
}

#[test]
fn bank_written_by_its_holder_alone_keeps_its_total_at_both_sites_at_every_moment() {
    held(&[0, -HOUR]);
}

#[test]
fn bank_written_by_its_holder_alone_keeps_its_total_at_each_holder_and_in_the_end_everywhere() {
    held(&[0, HOUR, -HOUR]);
}

/// Every site books transfers, each as two rows that are never changed.
#[derive(Default)]
struct Ledger {
    next: i64,
    booked: i64,
}

impl Workload for Ledger {
    fn write(&mut self, sites: &mut Sites, at: usize, dice: &mut Dice) {
        self.next += 1;
        let transfer = self.next;
        let (source, target, amount) = (dice.below(ACCOUNTS), dice.below(ACCOUNTS), 1 + dice.below(50) as i64);
        let committed = sites.transact(at, dice, |app, _| {
            let sql = "INSERT INTO booking VALUES(?1, 'from', ?2, -?4), (?1, 'to', ?3, ?4)";
            app.execute(sql, params![transfer, source, target, amount]).expect("a booking");
        });
        self.booked += i64::from(committed);
    }

    fn look(&mut self, sites: &Sites) {
        for site in &sites.all {
            assert_eq!(number(&site.app, "SELECT ifnull(sum(amount), 0) FROM booking"), 0, "at site {}", site.id);
        }
    }
}

#[test]
fn bank_that_books_and_never_changes_keeps_its_total_wherever_it_is_written() {
    let schema =
        "CREATE TABLE booking(transfer INTEGER, side TEXT, account, amount INTEGER, PRIMARY KEY(transfer, side))";
    each_seed(25, |seed| {
        let mut ledger = Ledger::default();
        let sites = play(seed, schema, &[0, HOUR, -HOUR], &mut ledger);
        for site in &sites.all {
            let bookings = number(&site.app, "SELECT count(*) FROM booking");
            assert_eq!(bookings, 2 * ledger.booked, "at site {}", site.id);
        }
    });
}
