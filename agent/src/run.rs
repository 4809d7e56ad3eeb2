//! The agent: starts what measures and what acts, and is the one loop in which evidence becomes decisions.

mod commands;
mod publish;

use std::{path::PathBuf, sync::Arc, time::Instant};

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::{Interval, MissedTickBehavior, interval},
};

use crate::{
    config::{self, Config},
    control::server::{self, Command},
    dataplane::Dataplane,
    decision::{self, Decision, Knowledge},
    dns,
    evidence::{Evidence, Report},
    link::{self, Link, LinkEvent},
    placement::Tenures,
    probe::{self, ProbeEvent, Probes},
    state::Store,
};

/// Events taken in before a decision is made on all of them: a failing site changes many backends at once.
const BATCH: usize = 256;

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
    /// Peers that have not been in contact are not waited for after this.
    patience: Instant,
    started: u64,
    changes: publish::Changes,
    probes: Probes,
    link: Link,
    report: watch::Sender<Report>,
    dataplane: Option<Dataplane>,
    serving: Arc<ArcSwap<dns::State>>,
    server: dns::Server,
    pending: Option<Arc<dns::Zones>>,
    lease: Interval,
    inbox: Inbox,
}

/// Where events come in.
struct Inbox {
    probes: mpsc::Receiver<ProbeEvent>,
    link: mpsc::Receiver<LinkEvent>,
    commands: mpsc::Receiver<Command>,
}

impl Agent {
    async fn start(file: PathBuf) -> anyhow::Result<Self> {
        let config = Arc::new(config::load(&file)?);
        if let [first, ..] = &probe::check(&config)[..] {
            anyhow::bail!("{}: {first}", file.display());
        }
        let zones = Arc::new(dns::Zones::load(&config.dns.zones, &config.resources)?);
        let identity = link::keys::load(&config.link.key)?;
        let store = Store::open(&config.state)?;
        let listener = server::bind(&config.control)?;
        let serving = Arc::new(ArcSwap::from_pointee(dns::State { zones, table: None }));
        let server =
            dns::Server::bind(&config.dns.listen, config.dns.port, Arc::clone(&serving), dns::Limits::default())
                .await?;

        let knowledge = Knowledge {
            evidence: Evidence::new(&config),
            overrides: store.overrides()?,
            tenures: store.tenures()?,
            config: Arc::clone(&config),
        };
        let (report, reports) = watch::channel(Report::default());
        let (link_events, link_inbox) = mpsc::channel(BATCH);
        let (probe_events, probe_inbox) = mpsc::channel(BATCH);
        let (commands, command_inbox) = mpsc::channel(16);
        let link = Link::start(&config, identity, reports, link_events).await?;
        let patience = Instant::now() + publish::patience(&config);
        let probes = Probes::start(&config, probe_events);
        tokio::spawn(server::serve(listener, commands));
        // The kernel takes a while to verify the program; this thread is not one of the runtime's workers, so that the
        // peers and the probes go on meanwhile, and a restart is over before the lease is.
        let dataplane = publish::attach(&config)?;
        tracing::info!(site = config.site, resources = config.resources.len(), "measuring before the first answer");
        Ok(Self {
            names: decision::names(&config),
            patience,
            lease: lease_ticks(&config),
            knowledge,
            store,
            decision: None,
            started: publish::unix_millis() / 1000,
            changes: publish::Changes::default(),
            probes,
            link,
            report,
            dataplane,
            serving,
            server,
            pending: None,
            inbox: Inbox { probes: probe_inbox, link: link_inbox, commands: command_inbox },
        })
    }

    /// Takes in events and acts on them until a signal says to stop.
    async fn work(&mut self) -> anyhow::Result<Stop> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let (mut probed, mut heard) = (Vec::new(), Vec::new());
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(Stop::Leave),
                _ = interrupt.recv() => return Ok(Stop::Detach),
                _ = hangup.recv() => self.hangup().await,
                _ = self.lease.tick() => self.renew()?,
                _ = self.inbox.probes.recv_many(&mut probed, BATCH) => self.probed(&mut probed)?,
                _ = self.inbox.link.recv_many(&mut heard, BATCH) => self.heard(&mut heard)?,
                () = wait(self.patience) => self.act("the peers had their time to appear", self.patience)?,
                Some(command) = self.inbox.commands.recv() => self.obey(command).await?,
            }
        }
    }

    fn probed(&mut self, events: &mut Vec<ProbeEvent>) -> anyhow::Result<()> {
        let Some(at) = events.iter().map(|event| event.at).max() else { return Ok(()) };
        let cause = publish::probed(events);
        for event in events.drain(..) {
            self.knowledge.evidence.probed(&event);
        }
        self.act(&cause, at)
    }

    fn heard(&mut self, events: &mut Vec<LinkEvent>) -> anyhow::Result<()> {
        let Some((cause, at)) = publish::heard(events) else { return Ok(()) };
        for event in events.drain(..) {
            self.knowledge.evidence.heard(event);
        }
        let adopted = self.knowledge.adopt();
        self.keep(adopted, "adopting a peer's higher epoch");
        self.act(&cause, at)
    }

    /// Decides, takes over what it should, and publishes what changed. `cause` was found at `at`.
    fn act(&mut self, cause: &str, at: Instant) -> anyhow::Result<()> {
        let complete = self.knowledge.evidence.measured()
            && (self.decision.is_some() || publish::peers_known(&self.knowledge.evidence, self.patience));
        let decision = self.knowledge.decide(&self.names);
        // Peers hear what is measured as soon as it is, and never of an instance that is not.
        if self.knowledge.evidence.measured() {
            self.tell(&decision);
        }
        if !complete {
            return Ok(());
        }
        // Answers first: they do not depend on what this site takes over, and storing that takes a while.
        let taken = self.knowledge.take_over(&decision);
        self.publish(decision, cause, at)?;
        if self.keep(taken, "taking over") {
            let decision = self.knowledge.decide(&self.names);
            self.tell(&decision);
            self.publish(decision, cause, at)?;
        }
        Ok(())
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

    /// Stores tenures, and only then lets anything depend on them. Says whether there was one. One that cannot be stored
    /// is left as it was: after a restart this site would not know of it.
    fn keep(&mut self, tenures: Tenures, why: &str) -> bool {
        let mut kept = false;
        for (resource, tenure) in tenures {
            let holder = tenure.holder.as_deref().unwrap_or("as configured");
            match self.store.set_tenure(&resource, &tenure) {
                Ok(()) => {
                    tracing::info!(resource, epoch = tenure.epoch, holder, "{why}");
                    self.knowledge.tenures.insert(resource, tenure);
                    kept = true;
                }
                Err(error) => tracing::error!(resource, epoch = tenure.epoch, holder, "not {why}: {error}"),
            }
        }
        kept
    }

    /// The sign of life that lets the program go on. None is given before the first answer: a program left by an earlier
    /// agent goes on from its own lease, with what that agent measured.
    fn renew(&mut self) -> anyhow::Result<()> {
        if self.decision.is_some()
            && let Some(dataplane) = &mut self.dataplane
        {
            dataplane.renew_lease(self.knowledge.config.dataplane.lease).context("renewing the lease")?;
        }
        Ok(())
    }

    async fn stop(self, how: Stop) {
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
    let mut ticks = interval(config.dataplane.lease / 6);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Ends at `moment`, or never if that has passed.
async fn wait(moment: Instant) {
    if Instant::now() < moment {
        tokio::time::sleep_until(moment.into()).await;
    } else {
        std::future::pending::<()>().await;
    }
}
