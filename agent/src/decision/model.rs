//! Two and three whole sites, without clock, kernel and network: whatever is lost, delayed, repeated or overtaken between
//! them, they never disagree for longer than they must. The sites decide with what the agent decides with.

use std::{
    fmt::Write,
    path::Path,
    time::{Duration, Instant},
};

use proptest::{prelude::*, test_runner::RngSeed};

use super::{tests, *};
use crate::{
    config,
    link::LinkEvent,
    placement::{Arrival, Changes, Override, State},
};

const SITES: [&str; 3] = ["east", "north", "west"];
const FAILBACK: Duration = Duration::from_secs(60);
const DRAIN: Duration = Duration::from_secs(30);

/// Each rule once, and two resources that are active everywhere. East is the configured holder of the first three.
const RESOURCES: [(&str, &str, &str); 5] = [
    ("orders", "confirmed", "auto"),
    ("files", "silence", "manual"),
    ("mail", "manual", "manual"),
    ("www", "confirmed", "manual"),
    ("pages", "silence", "auto"),
];

fn everywhere(resource: &str) -> bool {
    ["www", "pages"].contains(&resource)
}

fn configuration(site: &str, sites: &[&str]) -> Config {
    let mut file = format!("[agent]\nsite = \"{site}\"\n[link]\nkey = \"site.pem\"\n[dns]\nlisten = [\"192.0.2.2\"]\n");
    for (number, name) in sites.iter().enumerate() {
        write!(file, "[sites.{name}]\nlink = \"10.255.0.{number}:7400\"\nfingerprint = \"sha256:{number:064}\"\n")
            .unwrap();
    }
    for (resource, takeover, failback) in RESOURCES {
        write!(
            file,
            "[resources.{resource}]\ntakeover = \"{takeover}\"\nfailback = \"{failback}\"\nfailback_after = \"60s\"\n\
             drain_time = \"30s\"\nprobe = {{ tcp = true }}\n"
        )
        .unwrap();
        for name in sites {
            let role = if *name == "east" || everywhere(resource) { "active" } else { "standby" };
            let backends = "backends = [\"10.1.0.21:7001\"]";
            write!(file, "[resources.{resource}.sites.{name}]\nrole = \"{role}\"\n{backends}\n").unwrap();
        }
    }
    config::parse(&file, Path::new("/etc/siteswap/test.toml")).unwrap_or_else(|error| panic!("{error}"))
}

/// What is on its way from one site to another.
#[derive(Clone, Debug)]
enum Message {
    Report(Report),
    /// An operator's order to take this resource, given where it was in this epoch, or to make its roles as configured.
    Take(String, u64, bool),
}

struct Site {
    knowledge: Knowledge,
    names: Names,
    decision: Option<Decision>,
    told: Option<Report>,
}

/// What two sites hold at the same time, and in which direction that has been told since.
type Both = ([Tenure; 2], [bool; 2]);

struct World {
    sites: Vec<Site>,
    /// By sender and receiver.
    wires: BTreeMap<(usize, usize), Vec<Message>>,
    now: Instant,
    /// Pairs that both hold a resource, each with its tenure then, and in which direction that has been told since.
    both: BTreeMap<(usize, usize, &'static str), Both>,
}

#[derive(Clone, Debug)]
enum Event {
    Probe {
        site: usize,
        up: bool,
    },
    Contact {
        site: usize,
        of: usize,
        contact: bool,
    },
    /// A silent peer's addresses were tried.
    Reach {
        site: usize,
        of: usize,
        lost: bool,
    },
    Deliver {
        from: usize,
        to: usize,
        which: prop::sample::Index,
        again: bool,
    },
    Lose {
        from: usize,
        to: usize,
        which: prop::sample::Index,
    },
    Swap {
        at: usize,
        to: usize,
        resource: usize,
        as_configured: bool,
    },
    Drain {
        site: usize,
        drained: bool,
    },
    Override {
        site: usize,
        of: usize,
        resource: usize,
        word: Option<Override>,
    },
    Pass {
        seconds: u64,
    },
    Restart {
        site: usize,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let (site, resource, index) = (0..3_usize, 0..RESOURCES.len(), any::<prop::sample::Index>());
    let pair = (0..3_usize, 1..3_usize).prop_map(|(one, step)| (one, (one + step) % 3));
    let word = prop::sample::select(vec![None, Some(Override::Up), Some(Override::Down)]);
    prop_oneof![
        2 => (site.clone(), any::<bool>()).prop_map(|(site, up)| Event::Probe { site, up }),
        3 => (pair.clone(), any::<bool>()).prop_map(|((site, of), contact)| Event::Contact { site, of, contact }),
        2 => (pair.clone(), any::<bool>()).prop_map(|((site, of), lost)| Event::Reach { site, of, lost }),
        12 => (pair.clone(), index.clone(), prop::bool::weighted(0.1))
            .prop_map(|((from, to), which, again)| Event::Deliver { from, to, which, again }),
        2 => (pair.clone(), index).prop_map(|((from, to), which)| Event::Lose { from, to, which }),
        2 => (site.clone(), site.clone(), resource.clone(), prop::bool::weighted(0.3))
            .prop_map(|(at, to, resource, as_configured)| Event::Swap { at, to, resource, as_configured }),
        1 => (site.clone(), any::<bool>()).prop_map(|(site, drained)| Event::Drain { site, drained }),
        1 => (site.clone(), site.clone(), resource, word)
            .prop_map(|(site, of, resource, word)| Event::Override { site, of, resource, word }),
        2 => (1..90_u64).prop_map(|seconds| Event::Pass { seconds }),
        1 => site.prop_map(|site| Event::Restart { site }),
    ]
}

impl Site {
    fn new(name: &str, sites: &[&str]) -> Self {
        let config = configuration(name, sites);
        let mut knowledge = Knowledge::new(Arc::new(config));
        let records = knowledge.new_records(0);
        knowledge.instances.extend(records);
        tests::all_up(&mut knowledge);
        Self { names: names(&knowledge.config), knowledge, decision: None, told: None }
    }

    fn enter(&mut self, changes: Changes) {
        for (resource, change) in changes {
            let record = self.knowledge.record(&resource, &change, 0);
            self.knowledge.enter(resource, change, record);
        }
    }

    /// As the agent's loop does; gives the reports to send.
    fn act(&mut self, now: Instant) -> Vec<Report> {
        let decision = self.knowledge.settle(self.decision.as_ref(), &self.names, now);
        let mut reports = vec![self.knowledge.report(&decision)];
        let taken = self.knowledge.take(&decision, now);
        self.decision = Some(decision);
        if !taken.is_empty() {
            self.enter(taken);
            let decision = self.knowledge.settle(self.decision.as_ref(), &self.names, now);
            reports.push(self.knowledge.report(&decision));
            self.decision = Some(decision);
        }
        reports.retain(|report| self.told.replace(report.clone()).as_ref() != Some(report));
        reports
    }

    fn state(&self, resource: &str) -> State {
        self.knowledge.instance(resource, &self.knowledge.tenure(resource)).state
    }

    fn restart(&mut self) {
        let fresh = Knowledge::new(Arc::clone(&self.knowledge.config));
        let old = std::mem::replace(&mut self.knowledge, fresh);
        self.knowledge.overrides = old.overrides;
        self.knowledge.tenures = old.tenures;
        self.knowledge.drained = old.drained;
        self.knowledge.instances = old.instances;
        self.knowledge.timers = Timers::resume(old.timers.all_leaving().clone());
        tests::all_up(&mut self.knowledge);
        (self.decision, self.told) = (None, None);
    }
}

impl World {
    /// All in contact, and everybody knows everything.
    fn new(count: usize) -> Self {
        let sites: Vec<Site> = SITES[..count].iter().map(|name| Site::new(name, &SITES[..count])).collect();
        let pairs = (0..count).flat_map(|one| (0..count).map(move |other| (one, other)));
        let wires = pairs.filter(|(one, other)| one != other).map(|pair| (pair, Vec::new())).collect();
        let mut world = Self { sites, wires, now: Instant::now(), both: BTreeMap::new() };
        world.heal();
        world
    }

    fn act(&mut self, site: usize) {
        for report in self.sites[site].act(self.now) {
            for (_, wire) in self.wires.iter_mut().filter(|((from, _), _)| *from == site) {
                wire.push(Message::Report(report.clone()));
            }
        }
    }

    fn happen(&mut self, event: &Event) {
        let count = self.sites.len();
        match event.clone() {
            Event::Probe { site, up } if site < count => {
                for (resource, ..) in RESOURCES {
                    tests::probe(&mut self.sites[site].knowledge, resource, "10.1.0.21:7001", up);
                }
                self.act(site);
            }
            Event::Contact { site, of, contact } if site.max(of) < count => self.contact(site, of, contact),
            Event::Reach { site, of, lost } if site.max(of) < count => {
                let evidence = &mut self.sites[site].knowledge.evidence;
                if evidence.silent().any(|silent| silent == SITES[of]) {
                    let mut all: BTreeMap<_, _> =
                        evidence.peers.iter().map(|(name, peer)| (name.clone(), peer.lost.clone())).collect();
                    let tried = RESOURCES.map(|(resource, ..)| (resource.to_owned(), "nothing answers".to_owned()));
                    all.insert(SITES[of].to_owned(), if lost { tried.into() } else { BTreeMap::new() });
                    evidence.reached(all);
                    self.act(site);
                }
            }
            Event::Deliver { from, to, which, again } if from.max(to) < count => {
                let wire = self.wires.get_mut(&(from, to)).unwrap();
                if !wire.is_empty() {
                    let place = which.index(wire.len());
                    let message = if again { wire[place].clone() } else { wire.remove(place) };
                    self.deliver(from, to, message);
                }
            }
            Event::Lose { from, to, which } if from.max(to) < count => {
                let wire = self.wires.get_mut(&(from, to)).unwrap();
                if !wire.is_empty() {
                    wire.remove(which.index(wire.len()));
                }
            }
            Event::Swap { at, to, resource, as_configured } if at.max(to) < count => {
                let resource = RESOURCES[resource].0.to_owned();
                let epoch = self.sites[at].knowledge.tenure(&resource).epoch;
                if at == to {
                    self.take(to, &resource, epoch, as_configured);
                } else {
                    self.wires.get_mut(&(at, to)).unwrap().push(Message::Take(resource, epoch, as_configured));
                }
            }
            Event::Drain { site, drained } if site < count => {
                self.sites[site].knowledge.drained = drained;
                self.act(site);
            }
            Event::Override { site, of, resource, word } if site.max(of) < count => {
                let key = (RESOURCES[resource].0.to_owned(), SITES[of].to_owned());
                let overrides = &mut self.sites[site].knowledge.overrides;
                match word {
                    Some(word) => drop(overrides.insert(key, word)),
                    None => drop(overrides.remove(&key)),
                }
                self.act(site);
            }
            Event::Pass { seconds } => self.pass(Duration::from_secs(seconds)),
            Event::Restart { site } if site < count => {
                self.sites[site].restart();
                self.act(site);
            }
            _ => {}
        }
    }

    fn contact(&mut self, site: usize, of: usize, contact: bool) {
        let knowledge = &mut self.sites[site].knowledge;
        tests::contact(knowledge, SITES[of], contact);
        if contact {
            // What the loop does when nobody is tried any more.
            let mut lost: BTreeMap<_, _> =
                knowledge.evidence.peers.iter().map(|(name, peer)| (name.clone(), peer.lost.clone())).collect();
            lost.remove(SITES[of]);
            knowledge.evidence.reached(lost);
        }
        self.act(site);
    }

    fn deliver(&mut self, from: usize, to: usize, message: Message) {
        match message {
            Message::Take(resource, epoch, as_configured) => self.take(to, &resource, epoch, as_configured),
            Message::Report(report) => {
                let sender = &self.sites[from].knowledge;
                for (resource, ..) in RESOURCES {
                    let said = &report.instances[resource];
                    let current = sender.tenure(resource) == Tenure { epoch: said.epoch, holder: said.holder.clone() };
                    let (pair, direction) = if from < to { ((from, to), 0) } else { ((to, from), 1) };
                    if let Some((_, told)) = self.both.get_mut(&(pair.0, pair.1, resource)).filter(|_| current) {
                        told[direction] = true;
                    }
                }
                let receiver = &mut self.sites[to];
                receiver.knowledge.evidence.heard(LinkEvent::Report { peer: SITES[from].to_owned(), report });
                let adopted = receiver.knowledge.adopt();
                receiver.enter(adopted);
                self.watch_holders();
                self.act(to);
            }
        }
    }

    /// An operator's order arrives at the site that shall take it.
    fn take(&mut self, site: usize, resource: &str, epoch: u64, as_configured: bool) {
        let taker = &mut self.sites[site];
        let before = taker.knowledge.tenure(resource).epoch;
        let decision = taker.knowledge.decide(&taker.names);
        if let Ok(Taking::Take(change)) = taker.knowledge.swap(&decision, resource, epoch, as_configured) {
            assert_eq!(change.tenure.epoch, before + 1, "the epoch rises by one");
            assert_eq!(before, epoch, "an order is obeyed once, however often it arrives");
            taker.enter([(resource.to_owned(), change)].into());
            self.act(site);
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = self.sites.iter().filter_map(|site| site.knowledge.timers.next(&site.knowledge, self.now)).min();
            self.now = due.map_or(end, |due| due.min(end));
            (0..self.sites.len()).for_each(|site| self.act(site));
            if self.now == end {
                return;
            }
        }
    }

    /// Every link works, every message arrives, nothing is wrong any more at any site.
    fn heal(&mut self) {
        let count = self.sites.len();
        for site in 0..count {
            self.sites[site].knowledge.overrides.clear();
            self.sites[site].knowledge.drained = false;
            tests::all_up(&mut self.sites[site].knowledge);
            for of in (0..count).filter(|of| *of != site) {
                self.contact(site, of, true);
            }
            self.act(site);
        }
        self.exchange();
    }

    /// Delivers everything, in order and with each site's last word once more, until nobody has anything to say.
    fn exchange(&mut self) {
        let pairs: Vec<_> = self.wires.keys().copied().collect();
        for (from, to) in &pairs {
            let last = self.sites[*from].told.clone().map(Message::Report);
            self.wires.get_mut(&(*from, *to)).unwrap().extend(last);
        }
        for _ in 0..10 {
            for (from, to) in &pairs {
                for message in std::mem::take(self.wires.get_mut(&(*from, *to)).unwrap()) {
                    self.deliver(*from, *to, message);
                }
            }
        }
        assert!(self.wires.values().all(Vec::is_empty), "they talk for ever: {:?}", self.wires);
    }

    /// Two sites that both hold a resource have not yet told each other.
    fn watch_holders(&mut self) {
        for one in 0..self.sites.len() {
            for other in one + 1..self.sites.len() {
                for (resource, ..) in RESOURCES {
                    let tenures = [one, other].map(|site| self.sites[site].knowledge.tenure(resource));
                    let hold = |(site, tenure): (usize, &Tenure)| {
                        let alone = tenure.holder.is_some() || !everywhere(resource);
                        alone && self.sites[site].state(resource) == State::Active
                    };
                    let key = (one, other, resource);
                    if ![(one, &tenures[0]), (other, &tenures[1])].into_iter().all(hold) {
                        self.both.remove(&key);
                        continue;
                    }
                    let (known, told) = self.both.entry(key).or_insert((tenures.clone(), [false; 2]));
                    if *known != tenures {
                        (*known, *told) = (tenures, [false; 2]);
                    }
                    assert!(*told != [true; 2], "both hold {resource} after one exchange: {known:?}");
                }
            }
        }
    }

    fn check(&mut self, epochs: &mut BTreeMap<(usize, &'static str), u64>) {
        self.watch_holders();
        for (number, site) in self.sites.iter().enumerate() {
            for (resource, ..) in RESOURCES {
                let Tenure { epoch, holder } = site.knowledge.tenure(resource);
                let before = epochs.insert((number, resource), epoch).unwrap_or(0);
                assert!(epoch >= before, "{resource} at {}: {epoch} after {before}", SITES[number]);
                assert!(if epoch == 0 { holder.is_none() } else { holder.is_some() || everywhere(resource) });
                let record = &site.knowledge.instances[resource];
                let name = SITES[number];
                assert_eq!(
                    record.state == State::Active,
                    holder.map_or(name == "east" || everywhere(resource), |h| h == name)
                );
                let decided = site.decision.as_ref().map(|decision| &decision.resources[resource]);
                if let Some(leaving) = decided.and_then(|decided| decided.leaving.as_ref()) {
                    let view = decided.and_then(|d| d.instances.iter().find(|i| i.site == *leaving)).unwrap();
                    assert!(view.available(), "flows finish only where they can");
                }
            }
        }
    }

    /// All agree on who holds what, and on what to do with a request.
    fn agree(&self) {
        for (resource, ..) in RESOURCES {
            let tenure = self.sites[0].knowledge.tenure(resource);
            for site in &self.sites {
                assert_eq!(site.knowledge.tenure(resource), tenure, "{resource}");
                let arrival = &site.decision.as_ref().unwrap().resources[resource].placement.arrival;
                let expected = match &tenure.holder {
                    None if everywhere(resource) => Arrival::Serve,
                    holder => match holder.as_deref().unwrap_or("east") {
                        holder if holder == site.knowledge.config.site => Arrival::Serve,
                        holder => Arrival::Forward(holder.to_owned()),
                    },
                };
                assert_eq!(*arrival, expected, "{resource} at {}", site.knowledge.config.site);
            }
        }
    }
}

fn run(count: usize, events: &[Event]) {
    let mut world = World::new(count);
    let mut epochs = BTreeMap::new();
    for event in events {
        world.happen(event);
        world.check(&mut epochs);
    }
    // Whoever is in contact with whom: what arrives is an answer to nothing, and ends.
    world.exchange();
    world.check(&mut epochs);
    world.heal();
    world.check(&mut epochs);
    world.agree();

    // Time passes, and only what should return by itself does.
    let held = |world: &World, resource| world.sites[0].knowledge.tenure(resource).holder;
    let stays = ["files", "mail", "www"].map(|resource| held(&world, resource));
    world.pass(FAILBACK);
    world.exchange();
    world.check(&mut epochs);
    world.agree();
    assert!(held(&world, "orders").is_none_or(|holder| holder == "east"), "{:?}", held(&world, "orders"));
    assert_eq!(held(&world, "pages"), None, "all are active again");
    assert_eq!(["files", "mail", "www"].map(|resource| held(&world, resource)), stays);
    world.pass(DRAIN);
    assert!(world.sites.iter().all(|site| site.knowledge.timers.all_leaving().is_empty()));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        rng_seed: RngSeed::Fixed(0x5173_5a40),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn two_sites_agree_after_whatever_happened(events in prop::collection::vec(event(), 0..120)) {
        run(2, &events);
    }

    #[test]
    fn three_sites_agree_after_whatever_happened(events in prop::collection::vec(event(), 0..120)) {
        run(3, &events);
    }
}
