//! An operator's orders about who holds what: given here, or at a peer whose agent asks this one.

use std::time::Instant;

use tokio::sync::oneshot;

use super::Agent;
use crate::{
    control::api::{Drain, Swap},
    decision::Taking,
    link::{
        Asked,
        message::{Request, Response},
    },
};

impl Agent {
    /// Does what a peer asks.
    pub(super) fn asked(&mut self, Asked { peer, request, reply }: Asked) -> anyhow::Result<()> {
        tracing::info!(peer, ?request, "an operator's order, given at a peer");
        let response = match request {
            Request::Take { resource, epoch } => self.take(&resource, epoch)?,
            Request::Drain(drained) => match self.drain_here(drained)? {
                Ok(()) => Response::Drained,
                Err(refusal) => Response::Refused(refusal),
            },
        };
        // The peer has gone; the reports say what was done.
        let _ = reply.send(response);
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
            let response = self.take(&resource, epoch)?;
            drop(reply.send(Ok(response)));
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
        Ok(Response::Taken { epoch, stored, published: began.elapsed().saturating_sub(stored) })
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
