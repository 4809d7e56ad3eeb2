//! Claims C1, C4 and C5, by the workloads that Jepsen tests databases with. All of them run over a network that loses,
//! repeats and reorders, with agents that are killed around any commit and applications that are killed in transactions.
//!
//! What holds at a site at every moment: it shows its own committed writes, and of every other site's transactions a prefix,
//! each transaction whole. What was written at two sites at once is decided row by row and column by column, so a
//! transaction of which another site has changed a row may win in one row and lose in another. An invariant over several
//! rows, as a bank's total, is kept if one site writes at a time, or if what is written is never changed; otherwise what
//! lost is in the log.
//!
//! `SITESWAP_SEEDS` sets how many schedules each test runs, `SITESWAP_SEED` runs a single one.

mod sites;

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};
use sites::{
    Dice, Kill, Site, Sites, Workload, each_seed,
    history::{COLUMNS, History, Rows, What},
};
use siteswap_replication::{
    Value,
    clock::SiteId,
    store::{Deletes, Granularity, Rules},
};

const RIGHT: [i64; 3] = [0; 3];
const HOUR: i64 = 3_600_000;

/// A schedule of the workload, after which everybody has been told everything.
fn play(seed: u64, schema: &str, skews: &[i64], workload: &mut impl Workload) -> Sites {
    let mut dice = Dice::new(seed);
    let mut sites = Sites::new(schema, skews, &[]);
    sites.act(workload, &mut dice, 150);
    sites.settle(&mut dice);
    workload.look(&sites);
    sites
}

fn number(app: &Connection, sql: &str) -> i64 {
    app.query_row(sql, [], |row| row.get(0)).expect("a number")
}

fn integers(app: &Connection, sql: &str) -> BTreeSet<i64> {
    let mut statement = app.prepare(sql).expect("a query");
    let rows = statement.query_map([], |row| row.get(0)).expect("rows");
    rows.collect::<Result<_, _>>().expect("integers")
}

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
        let mut workload = Registers { rules, ..Registers::default() };
        let mut dice = Dice::new(seed);
        let mut sites = Sites::new(REGISTERS, &RIGHT[..sites], &[("register", rules)]);
        sites.act(&mut workload, &mut dice, 150);
        sites.settle(&mut dice);
        workload.look(&sites);
        for site in &sites.all {
            assert_eq!(registers(&site.app), workload.history.last(rules), "site {}", site.id);
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
            let last = workload.history.last(Rules::default());
            assert_eq!(registers(&site.app), last, "site {}", site.id);
            assert_eq!(site.store.conflicts(1).expect("the log"), [], "site {}", site.id);
        }
    });
}

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
