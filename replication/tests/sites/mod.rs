//! Sites with real databases, and a network between them that loses, repeats and reorders what it is given.

#![allow(dead_code, unused_imports, reason = "each test uses what it needs")]

mod dice;
pub mod history;
mod kill;
pub mod oracle;
mod site;

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
};

use rusqlite::Connection;
use siteswap_replication::{
    Key,
    capture::{self, Wanted},
    change::Change,
    clock::{Seen, SiteId, Stamp},
    store::{Age, Doubt, Error, Limits, Outcome, Peer, Position, Received, Rules, Settings, Step, Store, Verify},
    verify::{Policy, Request},
    wire::{Message, pack, unpack},
};

pub use dice::{Dice, each_seed};
pub use kill::Kill;
pub use site::Site;

/// A change as its origin recorded it: all that an oracle needs.
/// The number is its group's.
pub type Recorded = (SiteId, String, Key, Change, u64);

/// A copy of a site's database, its last group, and the agent's own file beside it.
pub struct Backup {
    copy: PathBuf,
    group: u64,
    outside: Vec<u8>,
}

/// What becomes of the agent's own file when a backup is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// It stays as it is.
    Kept,
    /// It is lost.
    Lost,
    /// It is restored with the database, as with a whole machine.
    Restored,
}

pub struct Sites {
    pub all: Vec<Site>,
    pub recorded: Vec<Recorded>,
    /// What the makers of a group knew: of each other site, the groups up to this one.
    pub knew: BTreeMap<(SiteId, u64), BTreeMap<SiteId, u64>>,
    network: Vec<Letter>,
    /// Everything that was ever on the network.
    posted: Vec<Letter>,
    pub now: i64,
    /// What agents have done until now, counted.
    pub steps: usize,
    /// In which step an agent is killed, and where in it.
    pub kill: Option<(usize, Kill)>,
    /// How often an agent was killed.
    killed: usize,
    _directory: tempfile::TempDir,
}

/// What applications do.
pub trait Workload {
    /// A transaction at this site.
    fn write(&mut self, sites: &mut Sites, at: usize, dice: &mut Dice);

    /// Looks at all sites, after whatever has happened.
    fn look(&mut self, _sites: &Sites) {}
}

/// How far all sites are, and how often one of them has lost what it was about to do.
#[derive(PartialEq)]
struct Standing {
    positions: Vec<(u64, Stamp, Seen)>,
    peers: Vec<BTreeMap<SiteId, Peer>>,
    killed: usize,
}

/// A message's bytes: from where, to where.
type Letter = (SiteId, SiteId, Vec<u8>);

/// What an agent has to say, and to whom.
type Said = Vec<(SiteId, Message)>;

impl Sites {
    /// So many sites with this schema, whose clocks are wrong by these milliseconds.
    pub fn new(schema: &str, skews: &[i64], rules: &[(&str, Rules)]) -> Self {
        Self::some(schema, skews, rules, skews.len())
    }

    /// The first of so many sites; the others have no database yet.
    pub fn some(schema: &str, skews: &[i64], rules: &[(&str, Rules)], count: usize) -> Self {
        // In memory if that is possible: here agents are killed, and never the machine.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
        let names = (1..).take(count).map(|id| (id, format!("site{id}"))).collect::<BTreeMap<SiteId, _>>();
        let all = (1..).zip(skews).map(|(id, skew)| {
            let settings = Settings {
                site: id,
                sites: names.clone(),
                max_skew: i64::MAX >> 17,
                rules: rules.iter().map(|(table, rules)| ((*table).to_owned(), rules.clone())).collect(),
            };
            Site::new(&directory.path().join(format!("site{id}.db")), schema, settings, *skew)
        });
        let all = all.collect();
        Self {
            all,
            recorded: Vec::new(),
            knew: BTreeMap::new(),
            network: Vec::new(),
            posted: Vec::new(),
            now: 1_700_000_000_000,
            steps: 0,
            kill: None,
            killed: 0,
            _directory: directory,
        }
    }

    /// What may happen to sites: their applications write, their agents do one thing or another, the network loses,
    /// repeats and reorders, and agents are killed.
    pub fn act(&mut self, workload: &mut impl Workload, dice: &mut Dice, times: usize) {
        let count = self.all.len();
        for _ in 0..times {
            let (at, other) = (dice.below(count), dice.below(count));
            match dice.below(20) {
                0..=6 => workload.write(self, at, dice),
                7..=9 => {
                    self.fold(at);
                    if dice.chance(30) {
                        self.step(at, |site, _| site.store.compact(2).map(|_| Vec::new()));
                    }
                }
                10..=12 if at != other => self.send(at, other),
                13 if at != other => self.report(at, other),
                18 => self.kill = Some((self.steps, *dice.pick(&Kill::ALL))),
                19 => self.crash(at),
                _ => self.deliver(dice, true),
            }
            workload.look(self);
        }
    }

    /// An application writes this, later than anything before.
    pub fn write(&mut self, at: usize, sql: &str) {
        self.now += 10;
        let site = &self.all[at];
        site.set_clock(self.now);
        site.app.execute_batch(sql).expect("a write");
    }

    /// An application's transaction, at a new time. Says whether it was committed: the application may be killed before,
    /// or a constraint be in the way.
    pub fn transact(&mut self, at: usize, dice: &mut Dice, act: impl FnOnce(&Connection, &mut Dice)) -> bool {
        self.now += 1 + dice.below(50) as i64;
        let site = &mut self.all[at];
        site.set_clock(self.now);
        site.app.execute_batch("BEGIN IMMEDIATE").expect("the write lock");
        act(&site.app, dice);
        if dice.chance(3) {
            site.app = Site::application(&site.file);
            site.set_clock(self.now);
            return false;
        }
        let committed = site.app.execute_batch("COMMIT").is_ok();
        if !committed {
            site.app.execute_batch("ROLLBACK").expect("a rollback");
        }
        committed
    }

    /// One thing that an agent does. Unless it is killed, what it has to say is on the network then.
    fn step(&mut self, at: usize, act: impl FnOnce(&mut Site, i64) -> Result<Said, Error>) {
        self.now += 1;
        let kill = self.kill.take_if(|(step, _)| *step == self.steps).map(|(_, kill)| kill);
        self.steps += 1;
        let site = &mut self.all[at];
        let (id, now) = (site.id, self.now + site.skew);
        let knew = site.applied.clone();
        let said = match kill {
            Some(Kill::BeforeCommit(commits)) => kill::after_commits(site, commits, |site| act(site, now)),
            _ => act(site, now).expect("an agent's step"),
        };
        self.record(at, &knew);
        for (to, message) in said {
            match kill {
                None => self.post(id, to, &message),
                Some(Kill::AfterSend) => self.take(id, to, &through_network(&message)),
                Some(_) => {}
            }
        }
        if kill.is_some() {
            self.crash(at);
        }
    }

    pub fn fold(&mut self, at: usize) {
        self.step(at, |site, now| site.store.fold(now).map(|_| Vec::new()));
    }

    /// Notes the changes that a site has made since this was last called, knowing so much of the others.
    fn record(&mut self, at: usize, knew: &BTreeMap<SiteId, u64>) {
        let site = &mut self.all[at];
        let sql = "SELECT t.name, c.key, c.body, c.grp FROM _ssw_change c JOIN _ssw_table t ON t.number = c.tbl WHERE c.grp > ?";
        let mut statement = site.app.prepare(sql).expect("a statement");
        let mut rows = statement.query([site.recorded]).expect("changes");
        while let Some(row) = rows.next().expect("a row") {
            let body: Vec<u8> = row.get(2).expect("a body");
            let change = Change::decode(site.id, &mut &body[..]).expect("a change");
            let key = Key(row.get(1).expect("a key"));
            let group = row.get(3).expect("a group");
            self.knew.insert((site.id, group), knew.clone());
            self.recorded.push((site.id, row.get(0).expect("a name"), key, change, group));
            site.recorded = site.recorded.max(group);
        }
    }

    /// Sends what `to` has not been told by `from`, one part.
    pub fn send(&mut self, from: usize, to: usize) {
        let to = self.all[to].id;
        self.step(from, |site, _| {
            let acknowledged = site.acknowledged(to);
            let position = site.told.entry(to).or_insert_with(|| Position::after(acknowledged)).clone();
            match site.store.next_part(to, &position) {
                Ok(None) => Ok(Vec::new()),
                Ok(Some((part, next))) => {
                    site.told.insert(to, next);
                    Ok(vec![(to, Message::Part(part))])
                }
                // The connection ends, and on the next one the peer hears of it.
                Err(Error::Gone { .. }) => {
                    site.told.remove(&to);
                    Ok(Vec::new())
                }
                Err(error) => Err(error),
            }
        });
    }

    /// Without faults, a site tells all others what it has to say.
    pub fn tell(&mut self, from: usize, dice: &mut Dice) {
        self.fold(from);
        for to in (0..self.all.len()).filter(|to| *to != from) {
            self.send_all(from, to);
        }
        self.drain(dice);
    }

    pub fn send_all(&mut self, from: usize, to: usize) {
        loop {
            let under_way = self.network.len();
            self.send(from, to);
            if self.network.len() <= under_way {
                return;
            }
        }
    }

    fn post(&mut self, from: SiteId, to: SiteId, message: &Message) {
        let letter = (from, to, message.encode().expect("a message"));
        self.posted.push(letter.clone());
        self.network.push(letter);
    }

    /// Whatever was posted last does not arrive.
    pub fn lose(&mut self) {
        self.network.pop();
    }

    /// Everything that was ever posted arrives once more.
    pub fn repeat_all(&mut self) {
        for (from, to, bytes) in self.posted.clone() {
            self.take(from, to, &Message::decode(&bytes).expect("a message"));
        }
    }

    pub fn report(&mut self, from: usize, to: usize) {
        let peer = self.all[to].id;
        self.step(from, |site, _| Ok(vec![(peer, Message::Report(site.store.report(peer)?))]));
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
        let at = self.all.iter().position(|site| site.id == to).expect("a site");
        self.step(at, |site, now| match message {
            Message::Part(part) => match site.store.receive(part, now)? {
                Received::Kept => Ok(Vec::new()),
                received => {
                    if let Received::Applied { .. } = received {
                        site.applied.insert(from, part.hi);
                    }
                    Ok(vec![(from, Message::Report(site.store.report(from)?))])
                }
            },
            Message::Report(report) | Message::Hello(report) => {
                site.store.heard(report)?;
                // Whatever else is under way: what it has not applied is told again.
                site.told.insert(from, Position::after(site.acknowledged(from)));
                Ok(Vec::new())
            }
        });
    }

    /// All agents start again with these rules.
    pub fn set_rules(&mut self, rules: &[(&str, Rules)]) {
        (0..self.all.len()).for_each(|at| self.set_rules_at(at, rules));
    }

    /// One does.
    pub fn set_rules_at(&mut self, at: usize, rules: &[(&str, Rules)]) {
        let rules = rules.iter().map(|(table, rules)| ((*table).to_owned(), rules.clone()));
        self.all[at].settings.rules = rules.collect();
        self.crash(at);
    }

    /// The agent is killed, with what it had in memory and on the network; it starts again.
    pub fn crash(&mut self, at: usize) {
        self.killed += 1;
        let site = &mut self.all[at];
        let id = site.id;
        self.network.retain(|(from, to, _)| *from != id && *to != id);
        site.told.clear();
        site.store = Store::open(&site.file, site.settings.clone()).expect("a store");
        let age = site.store.remember_outside(&site.outside()).expect("a file outside");
        assert_ne!(age, Age::Restored, "nothing was restored");
        self.meet(at);
    }

    /// On a new connection each site first says what it has applied.
    fn meet(&mut self, at: usize) {
        let id = self.all[at].id;
        for other in (0..self.all.len()).filter(|other| *other != at) {
            self.all[other].told.remove(&id);
            self.report(at, other);
            self.report(other, at);
        }
    }

    pub fn back_up(&mut self, at: usize) -> Backup {
        self.fold(at);
        let site = &self.all[at];
        let group = site.store.position().expect("a position").0;
        let copy = site.file.with_extension(format!("backup{group}"));
        if !copy.exists() {
            site.app.execute("VACUUM INTO ?", [copy.to_str().expect("a path")]).expect("a copy");
        }
        Backup { copy, group, outside: std::fs::read(site.outside()).expect("the file outside") }
    }

    /// The site goes on with an older copy. What it had recorded since and told nobody is forgotten.
    pub fn restore(&mut self, at: usize, backup: &Backup, outside: Outside) {
        let Backup { copy, group, outside: older } = backup;
        let id = self.all[at].id;
        self.network.retain(|(from, to, _)| *from != id && *to != id);
        let applied =
            |site: &Site| if site.id == id { *group } else { site.store.peers().expect("peers")[&id].applied };
        let told = self.all.iter().map(applied).max().unwrap_or(0);
        self.recorded.retain(|(site, .., group)| *site != id || *group <= told);
        let site = &mut self.all[at];
        site.file = copy.clone();
        site.app = Site::application(copy);
        site.set_clock(self.now);
        site.told.clear();
        site.store = Store::open(copy, site.settings.clone()).expect("a store");
        match outside {
            Outside::Kept => {}
            Outside::Lost => std::fs::remove_file(site.outside()).expect("a file to remove"),
            Outside::Restored => std::fs::write(site.outside(), older).expect("a file to write"),
        }
        site.store.remember_outside(&site.outside()).expect("a file outside");
        site.recorded = site.store.position().expect("a position").0;
        self.meet(at);
    }

    /// A site that has no database yet gets a copy of another's.
    pub fn join(&mut self, source: usize) {
        let copy = self.snapshot(source);
        self.adopt(copy, self.all.len());
    }

    /// A copy of a site's database for another.
    pub fn snapshot(&self, source: usize) -> PathBuf {
        let site = &self.all[source];
        let file = site.file.with_extension("copy");
        site.store.snapshot(&file).expect("a snapshot");
        file
    }

    /// A site that has no database, or has lost it for good, begins with a copy of another's.
    pub fn adopt(&mut self, file: PathBuf, at: usize) {
        let id = SiteId::try_from(at + 1).expect("few sites");
        let settings = Settings { site: id, ..self.all[0].settings.clone() };
        self.all.truncate(at);
        self.network.retain(|(from, to, _)| *from != id && *to != id);
        let store = Store::adopt(&file, settings.clone()).expect("a copy to adopt");
        let app = Site::application(&file);
        let told = BTreeMap::new();
        let peers = store.peers().expect("peers").into_iter();
        let applied = peers.map(|(peer, known)| (peer, known.applied)).collect();
        let mut site = Site { id, file, store, app, settings, skew: 0, told, recorded: 0, applied };
        site.set_clock(self.now);
        let _ = std::fs::remove_file(site.outside());
        site.store.remember_outside(&site.outside()).expect("a file outside");
        self.all.push(site);
        self.meet(at);
    }

    /// All that is ours is removed from a site's database, an application writes to it, and it is attached once more.
    pub fn attach_anew(&mut self, at: usize, meanwhile: &str) {
        let site = &mut self.all[at];
        let id = site.id;
        self.network.retain(|(from, to, _)| *from != id && *to != id);
        let transaction = site.app.transaction().expect("a transaction");
        capture::detach(&transaction, Wanted::All).expect("tables to detach");
        transaction.execute_batch(meanwhile).expect("a write");
        capture::attach(&transaction, Wanted::All).expect("tables to attach");
        transaction.commit().expect("a commit");
        site.told.clear();
        site.store = Store::open(&site.file, site.settings.clone()).expect("a store");
        site.store.remember_outside(&site.outside()).expect("a file outside");
        site.recorded = site.store.position().expect("a position").0;
        self.meet(at);
    }

    /// Compares a site that was restored, or has missed changes, with its peers as it should be, until it is as they are.
    pub fn mend(&mut self, at: usize, dice: &mut Dice) {
        self.settle(dice);
        while let Some(doubt) = self.all[at].store.doubt().expect("a state") {
            let (peer, policy) = match doubt {
                Doubt::Restored(peer) => (peer, Policy::Ruled),
                Doubt::Anew(peer) => (peer, Policy::Keep),
                Doubt::Missed(peer) => (peer, Policy::Behind),
                other => panic!("{other:?}"),
            };
            let peer = self.all.iter().position(|site| site.settings.sites[&site.id] == peer).expect("a site");
            let outcome = self.compare(at, peer, dice);
            if !self.all[at].store.verified(&outcome).expect("a state") {
                assert!(!outcome.differing.is_empty(), "{outcome:?}");
                self.repair(at, &outcome, policy, dice);
            }
        }
    }

    /// Without faults, until nobody has anything new to say.
    pub fn settle(&mut self, dice: &mut Dice) {
        let count = self.all.len();
        for _ in 0..200 {
            let before = self.standing();
            for at in 0..count {
                self.fold(at);
                for to in (0..count).filter(|to| *to != at) {
                    self.report(at, to);
                }
            }
            self.drain(dice);
            for from in 0..count {
                for to in (0..count).filter(|to| *to != from) {
                    self.send_all(from, to);
                }
            }
            self.drain(dice);
            if before == self.standing() {
                return;
            }
        }
        panic!("the sites never stop telling each other something new");
    }

    fn standing(&self) -> Standing {
        Standing {
            positions: self.all.iter().map(|site| site.store.position().expect("a position")).collect(),
            peers: self.all.iter().map(|site| site.store.peers().expect("peers")).collect(),
            killed: self.killed,
        }
    }

    /// Delivers everything that is under way.
    pub fn drain(&mut self, dice: &mut Dice) {
        while !self.network.is_empty() {
            self.deliver(dice, false);
        }
    }

    /// Compares two sites' tables, and lets replication catch up where that is asked for.
    pub fn compare(&mut self, at: usize, peer: usize, dice: &mut Dice) -> Outcome {
        self.compare_only(at, peer, None, dice).expect("a comparison")
    }

    /// The same with `only` these tables.
    pub fn compare_only(
        &mut self,
        at: usize,
        peer: usize,
        only: Option<Vec<String>>,
        dice: &mut Dice,
    ) -> Result<Outcome, Error> {
        let (id, peer_id) = (self.all[at].id, self.all[peer].id);
        let mut verify = Verify::new(&self.all[at].store, peer_id, only, Limits::default())?;
        let mut answers = VecDeque::new();
        loop {
            match verify.step(&self.all[at].store)? {
                Step::Send(request) => {
                    let request: Request = unpack(&pack(&request).expect("bytes")).expect("a request");
                    let now = self.now;
                    answers.push_back(self.all[peer].store.answer(id, &request, now).expect("an answer"));
                }
                Step::Receive => verify.take(answers.pop_front().expect("an answer")).expect("an answer to something"),
                Step::Settle => self.settle(dice),
                Step::Done => return Ok(verify.outcome()),
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

/// The message as the other end reads it.
fn through_network(message: &Message) -> Message {
    Message::decode(&message.encode().expect("a message")).expect("a message")
}
