//! An operator's orders about who holds what: given here, or at a peer whose agent asks this one.

use std::time::{Duration, Instant};

use tokio::{sync::oneshot, time::timeout};

use super::Agent;
use crate::{
    config::StandbyWrites,
    control::{
        api::{Drain, Fenced, Swap},
        server::no_database,
    },
    decision::Taking,
    link::{
        Asked,
        message::{Request, Response},
    },
    placement::State,
    replication::Guarded,
};

/// A new holder has what the old one has committed after so long, or is refused. Shorter than whoever asked waits.
const CATCH_UP: Duration = Duration::from_secs(4);

/// Where the response to an order goes.
type Answer = Box<dyn FnOnce(Response) + Send>;

/// An order to take a resource that waited for the database.
pub(super) struct CaughtUp {
    resource: String,
    epoch: u64,
    /// How long, if there was somebody to wait for; or why it must not be taken.
    waited: Result<Option<Duration>, String>,
    answer: Answer,
}

impl Agent {
    /// Does what a peer asks.
    pub(super) fn asked(&mut self, Asked { peer, request, reply }: Asked) -> anyhow::Result<()> {
        tracing::info!(peer, ?request, "an operator's order, given at a peer");
        // Should the peer have gone, the reports say what was done.
        match request {
            Request::Take { resource, epoch } => {
                return self.catch_up(resource, epoch, Box::new(|response| drop(reply.send(response))));
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
            Request::Fence => match &self.replication {
                Some(replication) => {
                    let fencing = replication.fence();
                    tokio::spawn(
                        async move { reply.send(fencing.await.map_or_else(Response::Refused, Response::Fenced)) },
                    );
                }
                None => _ = reply.send(Response::Refused("no database is configured here".to_owned())),
            },
        }
        Ok(())
    }

    /// Takes a resource here, or has its new holder's agent take it.
    pub(super) fn swap(&mut self, order: Swap, reply: oneshot::Sender<Result<Response, String>>) -> anyhow::Result<()> {
        let Swap { resource, to, .. } = order;
        let refusal = match self.knowledge.config.resources.get(&resource) {
            None => Some(self.knowledge.no_resource(&resource)),
            Some(configured) if !configured.instances.contains_key(&to) => {
                let known: Vec<&str> = configured.instances.keys().map(String::as_str).collect();
                Some(format!("resource {resource} has no instance at \"{to}\"; it has: {}", known.join(", ")))
            }
            Some(_) => None,
        };
        let epoch = self.knowledge.tenure(&resource).epoch;
        if let Some(refusal) = refusal {
            drop(reply.send(Err(refusal)));
        } else if to == self.knowledge.config.site {
            return self.catch_up(resource, epoch, Box::new(|response| drop(reply.send(Ok(response)))));
        } else {
            let asking = self.link.ask(&to, Request::Take { resource, epoch });
            tokio::spawn(async move { reply.send(asking.await) });
        }
        Ok(())
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

    /// Lets no more be written to the database's tables here and at every peer. At none, if one of them is not connected:
    /// what it has not sent yet would be lost in the schema change.
    pub(super) fn fence(&self, reply: oneshot::Sender<Result<Fenced, String>>) {
        let Some(replication) = &self.replication else { return drop(reply.send(Err(no_database()))) };
        let config = &self.knowledge.config;
        if let Some(away) = config.peers().find(|peer| !self.link.connected(peer)) {
            return drop(reply.send(Err(format!("{away} is not connected: all sites change their schema together"))));
        }
        let (own, here) = (config.site.clone(), replication.fence());
        let peers: Vec<_> = config.peers().map(|peer| (peer.to_owned(), self.link.ask(peer, Request::Fence))).collect();
        tokio::spawn(async move {
            let mut fenced = Fenced::default();
            for (peer, asking) in peers {
                let level = match asking.await {
                    Ok(Response::Fenced(level)) => Ok(level),
                    Ok(Response::Refused(why)) | Err(why) => Err(why),
                    Ok(other) => Err(format!("it answered another question: {other:?}")),
                };
                fenced.sites.insert(peer, level);
            }
            fenced.sites.insert(own, here.await);
            drop(reply.send(Ok(fenced)));
        });
    }

    /// Takes a resource whose epoch was `epoch` where the order was given: if it has tables, not before everything is
    /// applied here that its holders have committed. A holder that is not connected is not waited for: this order is how
    /// people take from a dead one.
    fn catch_up(&mut self, resource: String, epoch: u64, answer: Answer) -> anyhow::Result<()> {
        let Some(replication) = self.replication.as_ref().filter(|_| self.has_tables(&resource)) else {
            return self.caught_up(CaughtUp { resource, epoch, waited: Ok(None), answer });
        };
        let sources: Vec<_> = self
            .holders(&resource)
            .into_iter()
            .filter(|site| self.link.connected(site))
            .map(|site| (self.link.ask(&site, Request::Yield { resource: resource.clone() }), site))
            .collect();
        if sources.is_empty() {
            return self.caught_up(CaughtUp { resource, epoch, waited: Ok(None), answer });
        }
        let (replication, ready) = (replication.clone(), self.ready.clone());
        tokio::spawn(async move {
            let began = Instant::now();
            let waiting = async {
                for (asking, site) in sources {
                    match asking.await? {
                        Response::Yielded(group) => replication.applied(&site, group).await?,
                        Response::Refused(why) => {
                            return Err(format!("{site} cannot say what it has committed: {why}"));
                        }
                        other => return Err(format!("{site} answered another question: {other:?}")),
                    }
                }
                Ok(())
            };
            let late =
                || "what the old holder has committed did not arrive in time; see: siteswap db status".to_owned();
            let waited = timeout(CATCH_UP, waiting).await.unwrap_or_else(|_| Err(late()));
            let waited = waited.map(|()| Some(began.elapsed()));
            // The agent stops.
            let _ = ready.send(CaughtUp { resource, epoch, waited, answer }).await;
        });
        Ok(())
    }

    /// Now it may be taken, or not.
    pub(super) fn caught_up(&mut self, CaughtUp { resource, epoch, waited, answer }: CaughtUp) -> anyhow::Result<()> {
        answer(match waited {
            Err(refusal) => Response::Refused(refusal),
            Ok(waited) => match self.take(&resource, epoch)? {
                Response::Taken { epoch, stored, published, .. } => {
                    Response::Taken { epoch, stored, published, caught_up: waited }
                }
                other => other,
            },
        });
        Ok(())
    }

    fn has_tables(&self, resource: &str) -> bool {
        self.knowledge.config.resources.get(resource).is_some_and(|resource| !resource.tables.is_empty())
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
                        holder: self.holders(name).into_iter().next().filter(|_| !active),
                        refuse: resource.standby_writes == StandbyWrites::Refuse,
                    };
                    (name.clone(), guarded)
                })
                .collect(),
        );
    }

    /// Takes a resource whose epoch was `epoch` where the order was given. An error is fatal.
    fn take(&mut self, resource: &str, epoch: u64) -> anyhow::Result<Response> {
        let began = Instant::now();
        if self.decision.is_none() {
            let site = &self.knowledge.config.site;
            return Ok(Response::Refused(format!("{site} is still measuring; try again when it is ready")));
        }
        let decision = self.knowledge.decide(&self.names);
        let change = match self.knowledge.swap(&decision, resource, epoch) {
            Err(refusal) => return Ok(Response::Refused(refusal)),
            Ok(Taking::Holds(epoch)) => return Ok(Response::Holds(epoch)),
            Ok(Taking::Take(change)) => change,
        };
        let epoch = change.tenure.epoch;
        if !self.keep([(resource.to_owned(), change)].into()) {
            return Ok(Response::Refused("the new epoch cannot be stored; the agent's log says why".to_owned()));
        }
        let stored = began.elapsed();
        self.act("a swap by an operator", began)?;
        let published = began.elapsed().saturating_sub(stored);
        Ok(Response::Taken { epoch, stored, published, caught_up: None })
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
