//! Sites with real databases, and a network between them that loses, repeats and reorders what it is given.

#![allow(dead_code, reason = "each test uses what it needs")]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::{Path, PathBuf},
};

use proptest::test_runner::{RngAlgorithm, TestRng};
use rusqlite::{Connection, functions::FunctionFlags};
use siteswap_replication::{
    Key, Value,
    capture::{self, Wanted},
    change::Change,
    clock::SiteId,
    store::{Limits, Outcome, Position, Received, Rules, Settings, Step, Store, Verify},
    verify::{Policy, Request},
    wire::{Message, pack, unpack},
};

/// Random numbers from a seed, the same on every machine.
pub struct Dice(TestRng);

impl Dice {
    pub fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
    }

    /// Below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        use proptest::prelude::Rng as _;
        usize::try_from(self.0.next_u64() % end as u64).expect("below a usize")
    }

    /// In so many of a hundred cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// A change as its origin recorded it: all that an oracle needs.
pub type Recorded = (SiteId, String, Key, Change);

pub struct Site {
    pub id: SiteId,
    pub file: PathBuf,
    pub store: Store,
    /// The application.
    pub app: Connection,
    settings: Settings,
    /// Its clock's error, in milliseconds.
    skew: i64,
    told: BTreeMap<SiteId, Position>,
    recorded: u64,
}

pub struct Sites {
    pub all: Vec<Site>,
    pub recorded: Vec<Recorded>,
    network: Vec<(SiteId, SiteId, Vec<u8>)>,
    pub now: i64,
    _directory: tempfile::TempDir,
}

impl Sites {
    /// So many sites with this schema, whose clocks are wrong by these milliseconds.
    pub fn new(schema: &str, skews: &[i64], rules: &[(&str, Rules)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let names = (1..).zip(skews).map(|(id, _)| (id, format!("site{id}"))).collect::<BTreeMap<SiteId, _>>();
        let all = (1..).zip(skews).map(|(id, skew)| {
            let settings = Settings {
                site: id,
                sites: names.clone(),
                max_skew: i64::MAX >> 17,
                rules: rules.iter().map(|(table, rules)| ((*table).to_owned(), *rules)).collect(),
            };
            Site::new(&directory.path().join(format!("site{id}.db")), schema, settings, *skew)
        });
        let all = all.collect();
        Self { all, recorded: Vec::new(), network: Vec::new(), now: 1_700_000_000_000, _directory: directory }
    }

    pub fn fold(&mut self, at: usize) {
        self.now += 1;
        let site = &mut self.all[at];
        site.store.fold(self.now + site.skew).expect("a fold");
        self.record(at);
    }

    /// Notes the changes that a site has made since this was last called.
    fn record(&mut self, at: usize) {
        let site = &mut self.all[at];
        let sql = "SELECT t.name, c.key, c.body, c.grp FROM _ssw_change c JOIN _ssw_table t ON t.number = c.tbl WHERE c.grp > ?";
        let mut statement = site.app.prepare(sql).expect("a statement");
        let mut rows = statement.query([site.recorded]).expect("changes");
        while let Some(row) = rows.next().expect("a row") {
            let body: Vec<u8> = row.get(2).expect("a body");
            let change = Change::decode(site.id, &mut &body[..]).expect("a change");
            let key = Key(row.get(1).expect("a key"));
            self.recorded.push((site.id, row.get(0).expect("a name"), key, change));
            site.recorded = site.recorded.max(row.get(3).expect("a group"));
        }
    }

    /// Sends what `to` has not been told by `from`, one part.
    pub fn send(&mut self, from: usize, to: usize) {
        let to = self.all[to].id;
        let site = &mut self.all[from];
        let acknowledged = site.acknowledged(to);
        let position = site.told.entry(to).or_insert_with(|| Position::after(acknowledged)).clone();
        if let Some((part, next)) = site.store.next_part(&position).expect("a part") {
            site.told.insert(to, next);
            let id = site.id;
            self.post(id, to, &Message::Part(part));
        }
    }

    fn post(&mut self, from: SiteId, to: SiteId, message: &Message) {
        self.network.push((from, to, message.encode().expect("a message")));
    }

    pub fn report(&mut self, from: usize, to: usize) {
        let (id, peer) = (self.all[from].id, self.all[to].id);
        let report = self.all[from].store.report(peer).expect("a report");
        self.post(id, peer, &Message::Report(report));
    }

    /// Delivers a message: any of those under way, or the oldest.
    pub fn deliver(&mut self, dice: &mut Dice, faults: bool) {
        if self.network.is_empty() {
            return;
        }
        let at = if faults { dice.below(self.network.len()) } else { 0 };
        let (from, to, bytes) =
            if faults && dice.chance(10) { self.network[at].clone() } else { self.network.remove(at) };
        if faults && dice.chance(10) {
            return;
        }
        self.take(from, to, &Message::decode(&bytes).expect("a message"));
    }

    fn take(&mut self, from: SiteId, to: SiteId, message: &Message) {
        self.now += 1;
        let at = self.all.iter().position(|site| site.id == to).expect("a site");
        let site = &mut self.all[at];
        match message {
            Message::Part(part) => {
                let received = site.store.receive(part, self.now + site.skew).expect("a batch to be applied");
                self.record(at);
                if received != Received::Kept {
                    let report = self.all[at].store.report(from).expect("a report");
                    self.post(to, from, &Message::Report(report));
                }
            }
            Message::Report(report) | Message::Hello(report) => {
                site.store.heard(report).expect("a report to be heard");
                // Whatever else is under way: what it has not applied is told again.
                site.told.insert(from, Position::after(site.acknowledged(from)));
            }
        }
    }

    /// The agent is killed, with what it had in memory and on the network; it starts again.
    pub fn crash(&mut self, at: usize) {
        let site = &mut self.all[at];
        let id = site.id;
        self.network.retain(|(from, to, _)| *from != id && *to != id);
        site.told.clear();
        site.store = Store::open(&site.file, site.settings.clone()).expect("a store");
        // On the new connection each site first says what it has applied.
        for other in 0..self.all.len() {
            if other != at {
                self.all[other].told.remove(&id);
                self.report(at, other);
                self.report(other, at);
            }
        }
    }

    /// Without faults, until nobody has anything new to say.
    pub fn settle(&mut self, dice: &mut Dice) {
        let count = self.all.len();
        for _ in 0..200 {
            let before: Vec<_> = self.all.iter().map(|site| site.store.position().expect("a position")).collect();
            let peers: Vec<_> = self.all.iter().map(|site| site.store.peers().expect("peers")).collect();
            for at in 0..count {
                self.fold(at);
                for to in (0..count).filter(|to| *to != at) {
                    self.report(at, to);
                }
            }
            self.drain(dice);
            for from in 0..count {
                for to in (0..count).filter(|to| *to != from) {
                    self.send(from, to);
                }
            }
            self.drain(dice);
            let after: Vec<_> = self.all.iter().map(|site| site.store.position().expect("a position")).collect();
            if before == after
                && peers == self.all.iter().map(|site| site.store.peers().expect("peers")).collect::<Vec<_>>()
            {
                return;
            }
        }
        panic!("the sites never stop telling each other something new");
    }

    fn drain(&mut self, dice: &mut Dice) {
        while !self.network.is_empty() {
            self.deliver(dice, false);
        }
    }

    /// Compares two sites' tables, and lets replication catch up where that is asked for.
    pub fn compare(&mut self, at: usize, peer: usize, dice: &mut Dice) -> Outcome {
        let (id, peer_id) = (self.all[at].id, self.all[peer].id);
        let mut verify = Verify::new(&self.all[at].store, peer_id, None, Limits::default()).expect("a comparison");
        let mut answers = VecDeque::new();
        loop {
            match verify.step(&self.all[at].store).expect("a step") {
                Step::Send(request) => {
                    let request: Request = unpack(&pack(&request).expect("bytes")).expect("a request");
                    let now = self.now;
                    answers.push_back(self.all[peer].store.answer(id, &request, now).expect("an answer"));
                }
                Step::Receive => verify.take(answers.pop_front().expect("an answer")).expect("an answer to something"),
                Step::Settle => self.settle(dice),
                Step::Done => return verify.outcome(),
            }
        }
    }

    /// Lets the right site say each differing row again, and replication do the rest.
    pub fn repair(&mut self, at: usize, outcome: &Outcome, policy: Policy, dice: &mut Dice) {
        let now = self.now;
        let repairs = outcome.repairs(policy);
        for assertions in &repairs.here {
            self.all[at].store.assert_told(assertions, now).expect("an assertion");
        }
        let peer = self.all.iter().position(|site| site.id == outcome.peer).expect("a site");
        let id = self.all[at].id;
        for request in &repairs.there {
            self.all[peer].store.answer(id, request, now).expect("an assertion");
        }
        self.settle(dice);
    }

    /// What is kept of changes and rows at a site.
    pub fn kept(&self, at: usize) -> (u64, u64) {
        let count = |table: &str| {
            let sql = format!("SELECT count(*) FROM {table}");
            self.all[at].app.query_row(&sql, [], |row| row.get(0)).expect("a count")
        };
        (count("_ssw_change"), count("_ssw_row"))
    }
}

impl Site {
    fn new(file: &Path, schema: &str, settings: Settings, skew: i64) -> Self {
        let app = Connection::open(file).expect("a database");
        app.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA foreign_keys=ON;").expect("pragmas");
        app.execute_batch(schema).expect("the schema");
        let mut app = app;
        let transaction = app.transaction().expect("a transaction");
        capture::attach(&transaction, Wanted::All).expect("tables to attach");
        transaction.commit().expect("a commit");
        let store = Store::open(file, settings.clone()).expect("a store");
        let site = Self {
            id: settings.site,
            file: file.to_owned(),
            store,
            app,
            settings,
            skew,
            told: BTreeMap::new(),
            recorded: 0,
        };
        site.set_clock(1_700_000_000_000);
        site
    }

    fn acknowledged(&self, peer: SiteId) -> u64 {
        self.store.peers().expect("peers")[&peer].acknowledged
    }

    /// The application's clock: triggers ask SQLite for the time by `julianday('now')`.
    pub fn set_clock(&self, now: i64) {
        #[expect(clippy::cast_precision_loss, reason = "a day has fewer milliseconds than a double has digits")]
        let days = (now + self.skew) as f64 / 86_400_000.0 + 2_440_587.5;
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
        self.app.create_scalar_function("julianday", 1, flags, move |_| Ok(days)).expect("a clock");
    }

    /// All rows of a table, as text that shows every bit.
    pub fn rows(&self, table: &str) -> BTreeSet<String> {
        let mut statement = self.app.prepare(&format!("SELECT * FROM {table}")).expect("a table");
        let columns = statement.column_count();
        let mut rows = statement.query([]).expect("rows");
        let mut all = BTreeSet::new();
        while let Some(row) = rows.next().expect("a row") {
            let values: Vec<Value> = (0..columns).map(|at| row.get_ref(at).expect("a value").into()).collect();
            all.insert(format!("{values:?}"));
        }
        all
    }
}
