//! The agent: starts what measures and what acts, and is the one loop in which evidence becomes decisions.

mod commands;
mod orders;
mod publish;

pub use publish::unix_millis;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Interval, MissedTickBehavior, interval},
};

use crate::{
    config::{self, Config},
    control::server::{self, Command},
    dataplane::{Dataplane, requests::Requests},
    decision::{self, Decision, Knowledge, Leaving, Timers},
    dns,
    evidence::{Backlog, Report},
    link::{self, Asked, Link, LinkEvent, Opened},
    nexthop::{Hops, NextHops},
    placement::{Cause, Change, Changes},
    probe::{self, ProbeEvent, Probes, Reach},
    replication::{Backlogs, Replication},
    state::Store,
    steering,
};

/// Events taken in before a decision is made on all of them: a failing site changes many backends at once.
const BATCH: usize = 256;

/// A change of holder that could not be stored is tried again after this.
const STORE_AGAIN: Duration = Duration::from_secs(2);

/// How soon an interface that is made again gets the program.
const LOOK_AFTER_INTERFACES: Duration = Duration::from_secs(1);

/// How the agent stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// SIGTERM: a service manager may start it again at once, so the program stays and answers for the lease.
    Leave,
    /// SIGINT: somebody is done with it, so nothing stays.
    Detach,
}

/// Runs the agent with the configuration in `file` until it is told to stop.
pub async fn run(file: PathBuf) -> anyhow::Result<()> {
    let mut agent = Agent::start(file).await?;
    let stop = agent.work().await?;
    agent.stop(stop).await;
    Ok(())
}

/// Everything the loop owns.
struct Agent {
    knowledge: Knowledge,
    store: Store,
    names: decision::Names,
    decision: Option<Decision>,
    /// Ends when peers that have not been in contact are not waited for any longer; then it is `None`.
    patience: Option<JoinHandle<()>>,
    /// When the last decision was made: what was due until then is done.
    decided: Instant,
    /// As stored.
    leaving: BTreeMap<String, Leaving>,
    /// Counts decisions, for those who wait for what follows from one.
    acted: watch::Sender<u64>,
    started: u64,
    changes: publish::Changes,
    probes: Probes,
    reach: Reach,
    link: Link,
    /// Of this site's database, if there is one.
    replication: Option<Replication>,
    /// What of its changes waits for each peer.
    backlogs: (Backlogs, watch::Receiver<BTreeMap<String, Backlog>>),
    /// Resources that this site takes once it has what their holders have committed.
    moving: BTreeMap<String, orders::Moving>,
    /// When a change of holder that could not be stored is tried again.
    unkept: Option<Instant>,
    /// Resources whose holder is another one, by a peer's word, though that could not be stored.
    unstored: BTreeSet<String>,
    report: watch::Sender<Report>,
    dataplane: Option<Dataplane>,
    hops: Ways,
    /// What the program was last told about requests. `None`: it may be another program.
    steered: Option<Requests>,
    /// And by which ways.
    ways: Hops,
    serving: Arc<ArcSwap<dns::State>>,
    server: dns::Server,
    pending: Option<Arc<dns::Zones>>,
    lease: Interval,
    /// When the program's interfaces are looked after.
    interfaces: Interval,
    /// Where orders go on that wait for the database.
    ready: mpsc::Sender<orders::CaughtUp>,
    inbox: Inbox,
}

/// The ways to backends and peers.
struct Ways {
    wanted: watch::Sender<BTreeSet<IpAddr>>,
    found: watch::Receiver<Arc<Hops>>,
    /// Held for its task, which ends with it.
    _resolver: NextHops,
}

impl Ways {
    fn follow(config: &Config) -> anyhow::Result<Self> {
        let (wanted, addresses) = watch::channel(steering::addresses(config));
        let (resolver, found) = NextHops::start(addresses).context("reading the kernel's routes and neighbours")?;
        Ok(Self { wanted, found, _resolver: resolver })
    }
}

/// Where events come in.
struct Inbox {
    probes: mpsc::Receiver<ProbeEvent>,
    link: mpsc::Receiver<LinkEvent>,
    asked: mpsc::Receiver<Asked>,
    opened: mpsc::Receiver<Opened>,
    caught_up: mpsc::Receiver<orders::CaughtUp>,
    commands: mpsc::Receiver<Command>,
}

impl Agent {
    async fn start(file: PathBuf) -> anyhow::Result<Self> {
        let config = Arc::new(config::load(&file)?);
        if let [first, ..] = &probe::check(&config)[..] {
            anyhow::bail!("{}: {first}", file.display());
        }
        let zones = Arc::new(dns::Zones::load(&config.dns.zones, &config.resources)?);
        let backlogs = watch::channel(BTreeMap::new());
        let backlogs = (Arc::new(backlogs.0), backlogs.1);
        let identity = link::keys::load(&config.link.key)?;
        let mut store = Store::open(&config.state)?;
        let listener = server::bind(&config.control)?;
        let serving = Arc::new(ArcSwap::from_pointee(dns::State { zones, table: None }));
        let server =
            dns::Server::bind(&config.dns.listen, config.dns.port, Arc::clone(&serving), dns::Limits::default())
                .await?;

        let leaving = store.leaving(|resource| config.resources.get(resource).map(|resource| resource.drain_time))?;
        let knowledge = Knowledge {
            overrides: store.overrides()?,
            tenures: store.tenures()?,
            drained: store.drained(&config.site)?,
            instances: store.instances()?,
            timers: Timers::resume(leaving.clone()),
            ..Knowledge::new(Arc::clone(&config))
        };
        let (report, reports) = watch::channel(Report::default());
        let (link_events, link_inbox) = mpsc::channel(BATCH);
        let (probe_events, probe_inbox) = mpsc::channel(BATCH);
        let (asked, asked_inbox) = mpsc::channel(4);
        let (ready, caught_up) = mpsc::channel(4);
        let (commands, command_inbox) = mpsc::channel(16);
        let (acted, acted_watch) = watch::channel(0);
        let (opened, opened_inbox) = mpsc::channel(4);
        let inbox = link::Inbox { events: link_events, asked, opened };
        let link = Link::start(&config, identity, reports, inbox).await?;
        let patience = Some(tokio::spawn(publish::wait_for_peers(publish::patience(&config))));
        let probes = Probes::start(&config, probe_events);
        tokio::spawn(server::serve(listener, server::Loop { commands, acted: acted_watch }));
        // The kernel takes a while to verify the program; this thread is not one of the runtime's workers, so that the
        // peers and the probes go on meanwhile, and a restart is over before the lease is.
        let dataplane = publish::start_program(&config, &mut store)?;
        tracing::info!(site = config.site, resources = config.resources.len(), "measuring before the first answer");
        let mut agent = Self {
            names: decision::names(&config),
            patience,
            decided: Instant::now(),
            leaving,
            acted,
            lease: lease_ticks(&config),
            interfaces: ticks(LOOK_AFTER_INTERFACES),
            knowledge,
            store,
            decision: None,
            started: unix_millis() / 1000,
            changes: publish::Changes::default(),
            probes,
            reach: Reach::default(),
            replication: Replication::start(&config, &link, Arc::clone(&backlogs.0)),
            backlogs,
            moving: BTreeMap::new(),
            unkept: None,
            unstored: BTreeSet::new(),
            link,
            report,
            dataplane,
            hops: Ways::follow(&config)?,
            steered: None,
            ways: Hops::default(),
            serving,
            server,
            pending: None,
            ready,
            inbox: Inbox {
                probes: probe_inbox,
                link: link_inbox,
                asked: asked_inbox,
                opened: opened_inbox,
                caught_up,
                commands: command_inbox,
            },
        };
        agent.reconfigured();
        Ok(agent)
    }

    /// What follows from a configuration besides decisions: this site's instances as configured, and whom to try to reach.
    fn reconfigured(&mut self) {
        let records = self.knowledge.new_records(unix_millis() / 1000);
        if let Err(error) = self.store.set_instances(&records) {
            tracing::error!("since when instances are as they are will not be known after a restart: {error}");
        }
        self.knowledge.instances.extend(records);
        self.hops.wanted.send_replace(steering::addresses(&self.knowledge.config));
        self.watch_silent();
        // Before anything is decided: a peer may ask for the tables of a resource at once.
        self.guard();
    }

    /// Tries to reach the peers that are silent now, and no others.
    fn watch_silent(&mut self) {
        self.reach.watch(&self.knowledge.config, self.knowledge.evidence.silent());
        self.knowledge.evidence.reached(self.reach.lost());
    }

    /// Takes in events and acts on them until a signal says to stop.
    async fn work(&mut self) -> anyhow::Result<Stop> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let (mut probed, mut heard) = (Vec::new(), Vec::new());
        // With nothing to measure and nobody to wait for, nothing would happen that asks for a decision.
        if self.knowledge.evidence.measured() {
            self.act("there is nothing to measure", Instant::now())?;
        }
        loop {
            let timers = self.knowledge.timers.next(&self.knowledge, self.decided);
            let due = [timers, self.tries_again(), self.unkept].into_iter().flatten().min();
            tokio::select! {
                _ = terminate.recv() => return Ok(Stop::Leave),
                _ = interrupt.recv() => return Ok(Stop::Detach),
                _ = hangup.recv() => self.hangup().await,
                _ = self.lease.tick() => self.renew()?,
                _ = self.interfaces.tick() => if let Some(dataplane) = &mut self.dataplane {
                    dataplane.follow_interfaces().context("looking after the interfaces")?;
                },
                _ = self.inbox.probes.recv_many(&mut probed, BATCH) => self.probed(&mut probed)?,
                _ = self.inbox.link.recv_many(&mut heard, BATCH) => self.heard(&mut heard)?,
                () = self.reach.changed() => self.reached()?,
                Ok(()) = self.hops.found.changed() => self.steer()?,
                Some(asked) = self.inbox.asked.recv() => self.asked(asked)?,
                // Without a database it ends at once.
                Some(opened) = self.inbox.opened.recv() => if let Some(replication) = &self.replication {
                    replication.opened(opened);
                },
                () = ended(self.patience.as_mut()) => self.waited()?,
                Ok(()) = self.backlogs.1.changed() => {
                    self.knowledge.backlogs = self.backlogs.1.borrow_and_update().clone();
                    self.decision.iter().for_each(|decision| self.tell(decision));
                }
                () = until(due) => self.time_is_over()?,
                Some(caught_up) = self.inbox.caught_up.recv() => self.caught_up(caught_up)?,
                Some(command) = self.inbox.commands.recv() => self.obey(command).await?,
            }
        }
    }

    fn time_is_over(&mut self) -> anyhow::Result<()> {
        if self.unkept.take_if(|again| *again <= Instant::now()).is_some() {
            let mut again = self.knowledge.adopt();
            for resource in std::mem::take(&mut self.unstored) {
                let tenure = self.knowledge.tenure(&resource);
                again.entry(resource).or_insert(Change { tenure, cause: None });
            }
            self.keep(again);
        }
        self.act("a set time is over", Instant::now())
    }

    fn probed(&mut self, events: &mut Vec<ProbeEvent>) -> anyhow::Result<()> {
        let Some(at) = events.iter().map(|event| event.at).max() else { return Ok(()) };
        let cause = publish::probed(events);
        for event in events.drain(..) {
            self.knowledge.evidence.probed(&event);
        }
        self.act(&cause, at)
    }

    /// The peers had their time to appear. Those that did come first, however long this loop was held up: the kernel may
    /// have taken longer to verify the program than the peers to speak.
    fn waited(&mut self) -> anyhow::Result<()> {
        self.patience = None;
        let mut events: Vec<_> = std::iter::from_fn(|| self.inbox.link.try_recv().ok()).collect();
        self.heard(&mut events)?;
        self.act("the peers had their time to appear", Instant::now())
    }

    fn heard(&mut self, events: &mut Vec<LinkEvent>) -> anyhow::Result<()> {
        let Some((cause, at)) = publish::heard(events) else { return Ok(()) };
        for event in events.drain(..) {
            self.knowledge.evidence.heard(event);
        }
        self.watch_silent();
        let adopted = self.knowledge.adopt();
        self.keep(adopted);
        self.act(&cause, at)
    }

    fn reached(&mut self) -> anyhow::Result<()> {
        self.knowledge.evidence.reached(self.reach.lost());
        self.act("a silent peer's public addresses were tried", Instant::now())
    }

    /// Decides, takes over what it should, and publishes what changed. `cause` was found at `at`.
    fn act(&mut self, cause: &str, at: Instant) -> anyhow::Result<()> {
        let decision = self.settle();
        let waited = self.patience.is_none();
        let measured = self.knowledge.evidence.measured();
        if self.decision.is_some() || measured && (waited || publish::peers_known(&self.knowledge.evidence)) {
            // Answers first: they do not depend on what this site takes, and storing that takes a while.
            let taken = self.knowledge.take(&decision, self.decided);
            let taken = self.without_missing(taken)?;
            self.publish(decision, cause, at)?;
            if self.keep(taken) {
                let decision = self.settle();
                self.publish(decision, cause, at)?;
            }
            // Before the peers hear of it: what they forward must be served when it comes.
            self.steer()?;
            self.keep_leaving();
            self.guard();
            self.decision.iter().for_each(|decision| self.tell(decision));
        } else if measured {
            // Peers hear what is measured as soon as it is.
            self.tell(&decision);
        }
        self.acted.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Decides on what is known now.
    fn settle(&mut self) -> Decision {
        self.decided = Instant::now();
        self.knowledge.settle(self.decision.as_ref(), &self.names, self.decided)
    }

    /// Reports to the peers, if there is anything new.
    fn tell(&self, decision: &Decision) {
        let report = self.knowledge.report(decision);
        self.report.send_if_modified(|last| {
            let changed = *last != report;
            *last = report;
            changed
        });
    }

    /// Stores changes of holder, and only then lets anything depend on them. Says whether there was one. What this site
    /// cannot store it does not take: after a restart it would not know of it. What another has taken it gives up in any
    /// case: to forget that in a restart is no worse than to serve beside the new holder.
    fn keep(&mut self, changes: Changes) -> bool {
        let mut kept = false;
        for (resource, change) in changes {
            let record = self.knowledge.record(&resource, &change, unix_millis() / 1000);
            let epoch = change.tenure.epoch;
            let holder = change.tenure.holder.as_deref().unwrap_or("as configured");
            let why = change.cause.as_ref().map_or_else(|| "a peer's higher epoch".to_owned(), ToString::to_string);
            match self.store.set_tenure(&resource, &change.tenure, record.as_ref()) {
                Ok(()) => {
                    tracing::info!(resource, epoch, holder, "the holder changes: {why}");
                    self.unstored.remove(&resource);
                    if matches!(change.cause, Some(Cause::TakeOver { .. })) {
                        self.warn_of_doubt(&resource);
                    }
                    self.knowledge.enter(resource, change, record);
                    kept = true;
                }
                Err(error) => {
                    self.unkept = Some(Instant::now() + STORE_AGAIN);
                    if change.cause.is_none() {
                        tracing::error!(
                            resource,
                            epoch,
                            holder,
                            "the holder changes ({why}), but not for good: {error}"
                        );
                        self.unstored.insert(resource.clone());
                        self.knowledge.enter(resource, change, record);
                        kept = true;
                    } else {
                        tracing::error!(resource, epoch, holder, "the holder does not change yet ({why}): {error}");
                    }
                }
            }
        }
        kept
    }

    /// Stores where flows finish, if that has changed. Without it a restart would only end them sooner.
    fn keep_leaving(&mut self) {
        let leaving = self.knowledge.timers.all_leaving();
        if *leaving != self.leaving {
            self.leaving.clone_from(leaving);
            if let Err(error) = self.store.set_leaving(leaving) {
                tracing::error!("flows that are under way would not survive a restart of the agent: {error}");
            }
        }
    }

    /// The sign of life that lets the heartbeats go on, and the program.
    fn renew(&mut self) -> anyhow::Result<()> {
        let lease = self.knowledge.config.dataplane.lease;
        self.link.alive_until(Instant::now() + lease);
        if let Some(dataplane) = &mut self.dataplane {
            dataplane.renew_lease(lease).context("renewing the lease")?;
        }
        Ok(())
    }

    async fn stop(self, how: Stop) {
        // Its streams would keep the link open for a while.
        drop(self.replication);
        self.link.close().await;
        if let Err(error) = std::fs::remove_file(&self.knowledge.config.control) {
            tracing::warn!(%error, "the control socket stays");
        }
        match (how, self.dataplane) {
            (Stop::Detach, Some(dataplane)) => match dataplane.detach() {
                Ok(()) => tracing::info!("stopped; the program is detached"),
                Err(error) => tracing::error!(%error, "stopped, but the program could not be detached"),
            },
            (Stop::Leave, Some(_)) => tracing::info!("stopped; the program answers until the lease ends"),
            (_, None) => tracing::info!("stopped"),
        }
    }
}

/// Six signs of life in a lease: losing one or two to a busy machine changes nothing.
fn lease_ticks(config: &Config) -> Interval {
    ticks(config.dataplane.lease / 6)
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Ends with `task`, or never if there is none.
async fn ended(task: Option<&mut JoinHandle<()>>) {
    match task {
        Some(task) => drop(task.await),
        None => std::future::pending().await,
    }
}

/// Ends at `moment`, or never if there is none.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
