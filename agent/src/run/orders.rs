//! An operator's orders about who holds what: given here, or at a peer whose agent asks this one.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use siteswap_replication::store::{self, Counted};
use tokio::{sync::oneshot, time::timeout_at};

use super::Agent;
use crate::{
    config::StandbyWrites,
    control::{
        api::{Drain, Fenced, Swap},
        server::{Asking, no_database},
    },
    decision::Taking,
    link::{
        Asked, Asker,
        message::{Request, Response},
    },
    placement::{Cause, Change, Changes, State},
    replication::{self, Guarded, Replication},
};

/// A new holder has what the old one has committed after so long, or is refused. Shorter than whoever asked waits.
const CATCH_UP: Duration = Duration::from_secs(4);

/// A resource that could not be taken by a rule because of the database is tried again after this, and then after twice as
/// long each time: its tables refuse writes meanwhile.
const AGAIN: Duration = Duration::from_secs(2);

/// But no later than this.
const AGAIN_AT_LAST: Duration = Duration::from_secs(600);

/// A holder whose oldest change that is not here was made longer ago, in milliseconds, is not asked to yield: its
/// applications could not write for too long.
const CLOSE: u64 = 1_000;

/// Who takes a resource.
enum Taker {
    /// An operator's order.
    Order {
        /// To make roles as configured.
        as_configured: bool,
        /// Where the response goes.
        answer: Box<dyn FnOnce(Response) + Send>,
    },
    /// The agent itself: its holder is drained, or this site fails back.
    Rule,
}

/// A resource that a rule wants taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moving {
    /// Its epoch before.
    epoch: u64,
    /// How far it is.
    step: Step,
    /// How often it was tried in vain.
    failed: u32,
}

/// How far a resource is that a rule wants taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// What its holder has committed is awaited.
    Waits,
    /// It is here.
    Ready,
    /// It did not come. It is tried again then.
    Rests(Instant),
}

/// A resource that is to be taken and waited for the database.
pub(super) struct CaughtUp {
    resource: String,
    /// Its epoch before.
    epoch: u64,
    /// The sites that were asked to let nothing be written.
    asked: Vec<String>,
    /// Or why it must not be taken.
    waited: Result<Waited, String>,
    taker: Taker,
}

/// What there was to wait for.
#[derive(Default)]
pub(super) struct Waited {
    /// How long, if there was somebody to wait for.
    took: Option<Duration>,
    /// Sites that may have committed what is not here; this one itself, if its database may lack what peers count as applied.
    behind: Vec<String>,
}

impl Agent {
    /// Does what a peer asks.
    pub(super) fn asked(&mut self, Asked { peer, request, reply }: Asked) -> anyhow::Result<()> {
        tracing::info!(peer, ?request, "an operator's order, given at a peer");
        // Should the peer have gone, the reports say what was done.
        match request {
            Request::Take { resource, epoch, force, as_configured } => {
                let answer = Box::new(|response| drop(reply.send(response)));
                return self.catch_up(resource, epoch, force, Taker::Order { as_configured, answer });
            }
            Request::Drain(drained) => {
                let response = match self.drain_here(drained)? {
                    Ok(()) => Response::Drained,
                    Err(refusal) => Response::Refused(refusal),
                };
                let _ = reply.send(response);
            }
            Request::Yield { resource } => match &self.replication {
                Some(replication) => {
                    let leaving = replication.leave(resource, peer);
                    tokio::spawn(
                        async move { reply.send(leaving.await.map_or_else(Response::Refused, Response::Yielded)) },
                    );
                }
                None => _ = reply.send(Response::Refused("no database is configured here".to_owned())),
            },
            Request::Resume { resource } => {
                if let Some(replication) = &self.replication {
                    tokio::spawn(replication.stay(resource, peer));
                }
                let _ = reply.send(Response::Resumed);
            }
            Request::BeforeFence => match &self.replication {
                Some(replication) => {
                    let counting = replication.before_fence();
                    let counted = |Counted { count, agreed }| Response::BeforeFence { count, agreed };
                    tokio::spawn(async move { reply.send(counting.await.map_or_else(Response::Refused, counted)) });
                }
                None => _ = reply.send(Response::Refused("no database is configured here".to_owned())),
            },
            Request::Fence(agreed) => match &self.replication {
                Some(replication) => {
                    let fencing = replication.fence(agreed);
                    tokio::spawn(
                        async move { reply.send(fencing.await.map_or_else(Response::Refused, Response::Fenced)) },
                    );
                }
                None => _ = reply.send(Response::Refused("no database is configured here".to_owned())),
            },
        }
        Ok(())
    }

    /// Takes a resource here or makes its roles as configured, or has another site's agent do so.
    pub(super) fn swap(&mut self, order: Swap, reply: oneshot::Sender<Result<Asking, String>>) -> anyhow::Result<()> {
        let (to, holder) = match self.asks(&order) {
            Ok(asked) => asked,
            Err(refusal) => {
                drop(reply.send(Err(refusal)));
                return Ok(());
            }
        };
        let Swap { resource, to: site, force, .. } = order;
        let (epoch, as_configured) = (self.knowledge.tenure(&resource).epoch, site.is_none());
        let (answers, answer) = oneshot::channel();
        drop(reply.send(Ok(Asking { to: to.clone(), holder, answer })));
        if to == self.knowledge.config.site {
            let answer = Box::new(|response| drop(answers.send(Ok(response))));
            return self.catch_up(resource, epoch, force, Taker::Order { as_configured, answer });
        }
        let asking = self.link.ask(&to, Request::Take { resource, epoch, force, as_configured });
        tokio::spawn(async move { answers.send(asking.await) });
        Ok(())
    }

    /// Which site carries out an order to swap, and who holds the resource then.
    fn asks(&self, order: &Swap) -> Result<(String, Option<String>), String> {
        let Swap { resource, to, .. } = order;
        let Some(configured) = self.knowledge.config.resources.get(resource) else {
            return Err(self.knowledge.no_resource(resource));
        };
        match to {
            Some(to) if configured.instances.contains_key(to) => Ok((to.clone(), Some(to.clone()))),
            Some(to) => {
                let known: Vec<&str> = configured.instances.keys().map(String::as_str).collect();
                Err(format!("resource {resource} has no instance at \"{to}\"; it has: {}", known.join(", ")))
            }
            None => {
                // The first that can, or else the first, which says why it cannot.
                let decided = self.decision.as_ref().and_then(|decision| decision.resources.get(resource));
                let views = || decided.into_iter().flat_map(|decided| &decided.instances);
                let can = |site: &&String| views().any(|view| view.site == **site && view.serves() && !view.drained);
                let first = configured.configured_active().find(can).or_else(|| configured.configured_active().next());
                let first = first.ok_or_else(|| format!("no site is configured as active for {resource}"))?;
                Ok((first.clone(), configured.configured_holder().cloned()))
            }
        }
    }

    /// Drains this site, or has another's agent drain it; or takes that back.
    pub(super) fn drain(&mut self, order: Drain, reply: oneshot::Sender<Result<(), String>>) -> anyhow::Result<()> {
        let Drain { site, drained, .. } = order;
        if site == self.knowledge.config.site {
            let done = self.drain_here(drained)?;
            drop(reply.send(done));
        } else if self.knowledge.config.sites.contains_key(&site) {
            let asking = self.link.ask(&site, Request::Drain(drained));
            let understood = |response| match response {
                Response::Drained => Ok(()),
                Response::Refused(reason) => Err(reason),
                other => Err(format!("the answer was to another question: {other:?}")),
            };
            tokio::spawn(async move { reply.send(asking.await.and_then(understood)) });
        } else {
            let known: Vec<&str> = self.knowledge.config.sites.keys().map(String::as_str).collect();
            drop(reply.send(Err(format!("there is no site \"{site}\"; there are: {}", known.join(", ")))));
        }
        Ok(())
    }

    /// Lets no more be written to the database's tables here and at every peer. At none, if one of them is not connected (what
    /// it has not sent yet would be lost in the schema change) or could not begin.
    pub(super) fn fence(&self, reply: oneshot::Sender<Result<Fenced, String>>) {
        let Some(replication) = &self.replication else { return drop(reply.send(Err(no_database()))) };
        let config = &self.knowledge.config;
        if let Some(away) = config.peers().find(|peer| !self.link.connected(peer)) {
            return drop(reply.send(Err(format!("{away} is not connected: all sites change their schema together"))));
        }
        let (own, replication) = (config.site.clone(), replication.clone());
        let peers: Vec<_> = config.peers().map(|peer| (peer.to_owned(), self.link.asker(peer))).collect();
        tokio::spawn(async move {
            let fenced = match agree(&own, &replication, &peers).await {
                Ok(agreed) => Ok(fence_all(own, &replication, &peers, agreed).await),
                Err(why) => Err(why),
            };
            drop(reply.send(fenced));
        });
    }

    /// Takes a resource whose epoch was `epoch` where the order was given: if it has tables, not before everything is
    /// applied here that its holders have committed. A holder that is not connected is not waited for, for this order is how
    /// people take from a dead one; with `force` neither is one that cannot say what it has committed, or is too slow.
    fn catch_up(&mut self, resource: String, epoch: u64, force: bool, taker: Taker) -> anyhow::Result<()> {
        let (sources, behind) = self.sources_and_others(&resource);
        let taker = match taker {
            // Nobody is kept from writing for an order that is refused anyway.
            Taker::Order { as_configured, answer } => match self.takes(&resource, epoch, as_configured) {
                Err(refusal) => {
                    answer(refusal);
                    return Ok(());
                }
                Ok(_) => Taker::Order { as_configured, answer },
            },
            Taker::Rule => Taker::Rule,
        };
        let Some(replication) = self.replication.clone().filter(|_| self.has_tables(&resource)) else {
            let waited = Ok(Waited { took: None, behind });
            return self.caught_up(CaughtUp { resource, epoch, asked: Vec::new(), waited, taker });
        };
        let yielding =
            |site: &String| (site.clone(), self.link.ask(site, Request::Yield { resource: resource.clone() }));
        let yields: Vec<_> = sources.iter().map(yielding).collect();
        let away = self.knowledge.config.peers().filter(|peer| !self.link.connected(peer));
        let away: BTreeMap<u32, String> = away.map(|peer| (replication::number(peer), peer.to_owned())).collect();
        let (own, ready) = (self.knowledge.config.site.clone(), self.ready.clone());
        tokio::spawn(async move {
            let waited = catch_up_with(&own, yields, &replication, (&away, behind), force).await;
            // The agent stops.
            let _ = ready.send(CaughtUp { resource, epoch, asked: sources, waited, taker }).await;
        });
        Ok(())
    }

    /// Now it may be taken, or not.
    pub(super) fn caught_up(&mut self, caught_up: CaughtUp) -> anyhow::Result<()> {
        let CaughtUp { resource, epoch, asked, waited, taker } = caught_up;
        match (taker, waited) {
            (Taker::Order { answer, .. }, Err(refusal)) => {
                self.resume(&resource, &asked);
                answer(Response::Refused(refusal));
            }
            (Taker::Order { as_configured, answer }, Ok(waited)) => {
                let response = match self.take(&resource, epoch, as_configured)? {
                    Response::Taken { epoch, stored, published, .. } => {
                        Response::Taken { epoch, stored, published, caught_up: waited.took, behind: waited.behind }
                    }
                    other => {
                        self.resume(&resource, &asked);
                        other
                    }
                };
                answer(response);
            }
            (Taker::Rule, Err(why)) => {
                self.resume(&resource, &asked);
                let failed = self.moving.get(&resource).map_or(0, |moving| moving.failed) + 1;
                let rest = AGAIN.saturating_mul(1 << failed.min(16)).min(AGAIN_AT_LAST);
                tracing::warn!(resource, "not taken yet: {why}; it is tried again in {} seconds", rest.as_secs());
                self.moving.insert(resource, Moving { epoch, step: Step::Rests(Instant::now() + rest), failed });
                self.act("a resource was not taken", Instant::now())?;
            }
            (Taker::Rule, Ok(Waited { behind, .. })) => {
                if !behind.is_empty() {
                    tracing::warn!(resource, "taken without what may be missing of {}", behind.join(", "));
                }
                self.moving.insert(resource.clone(), Moving { epoch, step: Step::Ready, failed: 0 });
                self.act("what the holder has committed is here", Instant::now())?;
                self.moving.remove(&resource);
            }
        }
        Ok(())
    }

    /// Sites that let nothing be written for a resource that was to be taken here may do so again.
    fn resume(&self, resource: &str, asked: &[String]) {
        for site in asked {
            tokio::spawn(self.link.ask(site, Request::Resume { resource: resource.to_owned() }));
        }
    }

    /// When a resource that was not taken by a rule is tried again.
    pub(super) fn tries_again(&self) -> Option<Instant> {
        let rests = self.moving.values().filter_map(|moving| match moving.step {
            Step::Rests(until) => Some(until),
            Step::Waits | Step::Ready => None,
        });
        rests.filter(|until| *until > self.decided).min()
    }

    /// Holds back, of what is to be taken by a rule, what has tables and a holder that is there: that is taken once
    /// everything is applied here that the holder has committed.
    pub(super) fn without_missing(&mut self, mut taken: Changes) -> anyhow::Result<Changes> {
        let planned = |change: &Change| matches!(change.cause, Some(Cause::FailBack | Cause::Drain(_)));
        let held: Vec<(String, u64)> = taken
            .iter()
            .filter(|(resource, change)| planned(change) && !self.sources(resource).is_empty())
            .map(|(resource, change)| (resource.clone(), change.tenure.epoch - 1))
            .filter(|(resource, epoch)| self.step(resource, *epoch) != Some(Step::Ready))
            .collect();
        for (resource, epoch) in held {
            taken.remove(&resource);
            let waits = match self.step(&resource, epoch) {
                Some(Step::Rests(until)) => until > self.decided,
                Some(Step::Waits) => true,
                Some(Step::Ready) | None => false,
            };
            if !waits && self.is_close(&resource) {
                let failed =
                    self.moving.get(&resource).filter(|known| known.epoch == epoch).map_or(0, |known| known.failed);
                self.moving.insert(resource.clone(), Moving { epoch, step: Step::Waits, failed });
                // It has sources: what is done at once is to ask them.
                self.catch_up(resource, epoch, false, Taker::Rule)?;
            }
        }
        Ok(taken)
    }

    fn step(&self, resource: &str, epoch: u64) -> Option<Step> {
        self.moving.get(resource).filter(|moving| moving.epoch == epoch).map(|moving| moving.step)
    }

    /// The sites that may have committed what must be here before this site takes a resource.
    fn sources(&self, resource: &str) -> Vec<String> {
        self.sources_and_others(resource).0
    }

    /// The same, and those that cannot be asked.
    fn sources_and_others(&self, resource: &str) -> (Vec<String>, Vec<String>) {
        let tables = self.has_tables(resource) && self.replication.is_some();
        let holders = if tables { self.holders(resource) } else { Vec::new() };
        holders.into_iter().partition(|site| self.link.connected(site))
    }

    fn has_tables(&self, resource: &str) -> bool {
        self.knowledge.config.resources.get(resource).is_some_and(|resource| !resource.tables.is_empty())
    }

    /// A resource was taken over from a holder that cannot be waited for. Nobody else can serve it, so that this site's
    /// database may lack more than the holder's last changes is no reason to refuse, but one to say so.
    pub(super) fn warn_of_doubt(&self, resource: &str) {
        let Some(replication) = self.replication.as_ref().filter(|_| self.has_tables(resource)) else { return };
        let (whole, resource) = (replication.is_whole(), resource.to_owned());
        tokio::spawn(async move {
            if let Err(why) = whole.await {
                tracing::warn!(resource, "taken over although {why}");
            }
        });
    }

    /// Little is missing of what the holders have committed, as far as is known.
    fn is_close(&self, resource: &str) -> bool {
        let (evidence, site) = (&self.knowledge.evidence, &self.knowledge.config.site);
        self.sources(resource).iter().all(|holder| {
            evidence.backlog(holder, site).is_none_or(|backlog| backlog.lag < CLOSE && !backlog.forgotten)
        })
    }

    /// The other sites whose instances of a resource are active.
    fn holders(&self, resource: &str) -> Vec<String> {
        let tenure = self.knowledge.tenure(resource);
        let config = &self.knowledge.config;
        let instances = config.resources.get(resource).map(|resource| &resource.instances);
        let active = |(site, instance): &(&String, &crate::config::Instance)| {
            **site != config.site && tenure.state(site, instance.role) == State::Active
        };
        instances.into_iter().flatten().filter(active).map(|(site, _)| site.clone()).collect()
    }

    /// Tells the database who holds the resources that have tables.
    pub(super) fn guard(&self) {
        let Some(replication) = &self.replication else { return };
        let resources = self.knowledge.config.resources.iter().filter(|(_, resource)| !resource.tables.is_empty());
        replication.guard(
            resources
                .map(|(name, resource)| {
                    let own = resource.instances.get(&self.knowledge.config.site);
                    let active = own.is_some_and(|own| {
                        self.knowledge.tenure(name).state(&self.knowledge.config.site, own.role) == State::Active
                    });
                    let guarded = Guarded {
                        tables: resource.tables.iter().map(|table| table.as_str().to_owned()).collect(),
                        epoch: self.knowledge.tenure(name).epoch,
                        holder: self.holders(name).into_iter().next().filter(|_| !active),
                        refuse: resource.standby_writes == StandbyWrites::Refuse,
                    };
                    (name.clone(), guarded)
                })
                .collect(),
        );
    }

    /// What an order about a resource whose epoch was `epoch` where it was given would change, or the answer if nothing.
    fn takes(&self, resource: &str, epoch: u64, as_configured: bool) -> Result<Change, Response> {
        if self.decision.is_none() {
            let site = &self.knowledge.config.site;
            return Err(Response::Refused(format!("{site} is still measuring; try again when it is ready")));
        }
        let decision = self.knowledge.decide(&self.names);
        match self.knowledge.swap(&decision, resource, epoch, as_configured) {
            Err(refusal) => Err(Response::Refused(refusal)),
            Ok(Taking::Holds(epoch)) => Err(Response::Holds(epoch)),
            Ok(Taking::Take(change)) => Ok(change),
        }
    }

    /// Carries out an order about a resource whose epoch was `epoch` where it was given. An error is fatal.
    fn take(&mut self, resource: &str, epoch: u64, as_configured: bool) -> anyhow::Result<Response> {
        let began = Instant::now();
        let change = match self.takes(resource, epoch, as_configured) {
            Ok(change) => change,
            Err(response) => return Ok(response),
        };
        let epoch = change.tenure.epoch;
        if !self.keep([(resource.to_owned(), change)].into()) {
            return Ok(Response::Refused("the new epoch cannot be stored; the agent's log says why".to_owned()));
        }
        let stored = began.elapsed();
        self.act("a swap by an operator", began)?;
        let published = began.elapsed().saturating_sub(stored);
        Ok(Response::Taken { epoch, stored, published, caught_up: None, behind: Vec::new() })
    }

    /// The inner error says why it is not stored; an outer one is fatal.
    fn drain_here(&mut self, drained: bool) -> anyhow::Result<Result<(), String>> {
        let site = self.knowledge.config.site.clone();
        if let Err(error) = self.store.set_drained(&site, drained) {
            return Ok(Err(error.to_string()));
        }
        self.knowledge.drained = drained;
        let order = if drained { "an operator drains this site" } else { "an operator ends this site's drain" };
        tracing::info!("{order}");
        self.act(order, Instant::now())?;
        Ok(Ok(()))
    }
}

/// Waits until everything is applied here, at `own`, that the holders have committed, as each says when its turn comes.
/// Sites that are `away` are not waited for.
async fn catch_up_with(
    own: &str,
    yields: Vec<(String, impl Future<Output = Result<Response, String>>)>,
    replication: &Replication,
    (away, mut behind): (&BTreeMap<u32, String>, Vec<String>),
    force: bool,
) -> Result<Waited, String> {
    let began = Instant::now();
    // If this site's own database cannot be asked, or is to be compared first, nobody is kept from writing for that.
    match replication.is_whole().await {
        Err(why) if force => {
            tracing::warn!("taken by force: {why}");
            behind.push(own.to_owned());
        }
        whole => whole?,
    }
    let took = (!yields.is_empty()).then_some(began);
    for (site, asking) in yields {
        let late = |_| Err(format!("what {site} has committed did not arrive in time; see: siteswap db status"));
        let arriving = arrive(&site, asking, replication, away);
        match timeout_at((began + CATCH_UP).into(), arriving).await.unwrap_or_else(late) {
            Err(why) if force => {
                tracing::warn!("taken by force: {why}");
                behind.push(site);
            }
            Err(why) => return Err(why),
            Ok(others) => behind.extend(others),
        }
    }
    Ok(Waited { took: took.map(|began| began.elapsed()), behind })
}

/// Waits until everything is applied here that a holder has, which it is being asked for, but for what sites have made that
/// are `away`. Returns those of which something is missing.
async fn arrive(
    site: &str,
    asking: impl Future<Output = Result<Response, String>>,
    replication: &Replication,
    away: &BTreeMap<u32, String>,
) -> Result<Vec<String>, String> {
    match asking.await? {
        Response::Yielded(reached) => {
            let (absent, reached): (BTreeMap<_, _>, _) =
                reached.into_iter().partition(|(site, _)| away.contains_key(site));
            let absent = replication.lacks(absent).await?;
            replication.reaches(reached).await?;
            // Something may have been forgotten while it was waited for.
            replication.is_whole().await?;
            Ok(absent.iter().filter_map(|site| away.get(site).cloned()).collect())
        }
        Response::Refused(why) => Err(format!("{site} cannot say what it has committed: {why}")),
        other => Err(format!("{site} answered another question: {other:?}")),
    }
}

/// Which count the sites have after the schema change, if it could begin at all of them.
async fn agree(own: &str, replication: &Replication, peers: &[(String, Asker)]) -> Result<u32, String> {
    let here = replication.before_fence().await.map_err(|why| format!("{own}: {why}"))?;
    let mut sites = BTreeMap::from([(own.to_owned(), here)]);
    for (peer, asker) in peers {
        let counted = match asker.ask(Request::BeforeFence).await {
            Ok(Response::BeforeFence { count, agreed }) => Counted { count, agreed },
            Ok(Response::Refused(why)) | Err(why) => return Err(format!("{peer}: {why}")),
            Ok(other) => return Err(format!("{peer} answered another question: {other:?}")),
        };
        sites.insert(peer.clone(), counted);
    }
    store::agree(&sites).map_err(|site| {
        format!(
            "{site} has not ended the schema change that others have; end it there first: siteswap db schema commit"
        )
    })
}

async fn fence_all(own: String, replication: &Replication, peers: &[(String, Asker)], agreed: u32) -> Fenced {
    let here = replication.fence(agreed);
    let asking: Vec<_> = peers.iter().map(|(peer, asker)| (peer.clone(), asker.ask(Request::Fence(agreed)))).collect();
    let mut fenced = Fenced::default();
    for (peer, asking) in asking {
        let level = match asking.await {
            Ok(Response::Fenced(level)) => Ok(level),
            Ok(Response::Refused(why)) | Err(why) => Err(why),
            Ok(other) => Err(format!("it answered another question: {other:?}")),
        };
        fenced.sites.insert(peer, level);
    }
    fenced.sites.insert(own, here.await);
    fenced
}
