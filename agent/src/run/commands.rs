//! What the control socket and signals order.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Instant};

use super::{Agent, lease_ticks, publish};
use crate::{
    config::{self, Config},
    control::{
        self,
        api::{BackendStatus, InstanceStatus, ProgramStatus, Replicated, ResourceStatus, SetOverride, Status},
        server::Command,
    },
    dataplane,
    decision::{self, Decided},
    dns,
    evidence::Backlog,
    probe,
    replication::Replication,
};

impl Agent {
    pub(super) async fn obey(&mut self, command: Command) -> anyhow::Result<()> {
        // A reply nobody waits for any more is no error.
        match command {
            Command::Status(reply) => drop(reply.send(Box::new(self.status()))),
            Command::Instances(reply) => {
                let decision = self.knowledge.decide(&self.names);
                drop(reply.send(control::instances(&self.knowledge, &decision)));
            }
            Command::Swap(order, reply) => self.swap(order, reply)?,
            Command::Drain(order, reply) => self.drain(order, reply)?,
            Command::Explain(question, reply) => {
                drop(reply.send(control::explain(&question, &self.knowledge, self.decision.as_ref())));
            }
            Command::ExplainPacket(question, reply) => {
                // The kernel verifies a second program for it.
                let explained = tokio::task::block_in_place(|| {
                    control::packet::explain(
                        &question.frame,
                        &self.knowledge,
                        self.decision.as_ref(),
                        self.dataplane.as_ref(),
                    )
                });
                drop(reply.send(explained));
            }
            Command::Set(order, reply) => {
                let outcome = self.set(&order);
                let changed = outcome.is_ok();
                drop(reply.send(outcome));
                if changed {
                    self.act("an operator's order", Instant::now())?;
                }
            }
            Command::Database(reply) => match &self.replication {
                // The database may be busy for a while; the loop is not.
                Some(replication) => {
                    let status = replication.status();
                    tokio::spawn(async move { drop(reply.send(Some(status.await))) });
                }
                None => drop(reply.send(None)),
            },
            Command::Compare(order, reply) => {
                drop(reply.send(self.replication.as_ref().map(|replication| replication.compare(order))));
            }
            Command::Fence(reply) => self.fence(reply),
            Command::Reload(reply) => drop(reply.send(self.reload().await)),
        }
        Ok(())
    }

    pub(super) async fn hangup(&mut self) {
        if let Err(error) = self.reload().await {
            tracing::error!("the configuration stays as it was: {error}");
        }
    }

    /// Stores an override; the caller acts on it.
    fn set(&mut self, order: &SetOverride) -> Result<(), String> {
        let config = &self.knowledge.config;
        let Some(resource) = config.resources.get(&order.resource) else {
            return Err(self.knowledge.no_resource(&order.resource));
        };
        let site = order.site.as_ref().unwrap_or(&config.site);
        if !resource.instances.contains_key(site) {
            let known: Vec<&str> = resource.instances.keys().map(String::as_str).collect();
            return Err(format!(
                "resource {} has no instance at \"{site}\"; it has: {}",
                order.resource,
                known.join(", ")
            ));
        }
        self.store.set_override(&order.resource, site, order.state).map_err(|error| error.to_string())?;
        let key = (order.resource.clone(), site.clone());
        let state = order.state.map_or("auto".to_owned(), |state| state.to_string());
        tracing::info!(resource = order.resource, site, state, "an operator's override");
        match order.state {
            Some(state) => self.knowledge.overrides.insert(key, state),
            None => self.knowledge.overrides.remove(&key),
        };
        Ok(())
    }

    /// Takes a new configuration, or refuses it and changes nothing.
    async fn reload(&mut self) -> Result<(), String> {
        let old = Arc::clone(&self.knowledge.config);
        let new = config::load(&old.file).map_err(|error| error.to_string())?;
        unchangeable(&old, &new)?;
        if let [first, ..] = &probe::check(&new)[..] {
            return Err(first.clone());
        }
        let zones = dns::Zones::load(&new.dns.zones, &new.resources).map_err(|error| error.to_string())?;
        let said = |error: &dyn std::error::Error| error.to_string();
        self.link.check(&new).map_err(|error| said(&error))?;
        // A name that is new is more likely wrong than that of an interface to come.
        let named = new.dataplane.interfaces.iter().filter(|name| !old.dataplane.interfaces.contains(name));
        dataplane::must_exist(named).map_err(|error| said(&error))?;
        let sockets = self.server.prepare(&new.dns.listen, new.dns.port).map_err(|error| said(&error))?;
        // The last that can refuse.
        match (&mut self.dataplane, new.dataplane.interfaces.is_empty()) {
            (Some(dataplane), false) => {
                dataplane.reconfigure(&new.dataplane, &publish::constants(&new)).map_err(|error| said(&error))?;
            }
            (None, true) => {}
            (None, false) => {
                self.dataplane = publish::start_program(&new, &mut self.store).map_err(|error| format!("{error:#}"))?;
            }
            (Some(_), true) => {
                let dataplane = self.dataplane.take().expect("matched above");
                dataplane.detach().map_err(|error| said(&error))?;
            }
        }
        self.server.switch(sockets).await;
        self.link.reload(&new).map_err(|error| said(&error))?;
        // It holds promises to peers, and streams: not for a reload that is none of its business.
        if (&new.database, &new.sites) != (&old.database, &old.sites) {
            self.replication = Replication::start(&new, &self.link, Arc::clone(&self.backlogs.0));
        }
        self.probes.reload(&new);
        let config = Arc::new(new);
        self.knowledge.evidence.reshape(&config);
        self.names = decision::names(&config);
        self.lease = lease_ticks(&config);
        self.pending = Some(Arc::new(zones));
        // The program may be another.
        self.steered = None;
        self.knowledge.config = config;
        self.reconfigured();
        tracing::info!("a new configuration is taken");
        self.act("a new configuration", Instant::now()).map_err(|error| format!("{error:#}"))
    }

    fn status(&self) -> Status {
        let config = &self.knowledge.config;
        let decision = self.knowledge.decide(&self.names);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            site: config.site.clone(),
            ready: self.decision.is_some(),
            drained: self.knowledge.drained,
            started: self.started,
            config: config.file.display().to_string(),
            resources: decision.resources.iter().map(|(name, decided)| self.resource(name, decided)).collect(),
            backends: self.probes.status().into_iter().map(backend).collect(),
            peers: self.link.status(),
            replication: self.replicated(),
            program: self.dataplane.as_ref().map(|_| self.program()),
            server: self.server.counters().snapshot().into_iter().map(|(name, n)| (name.to_owned(), n)).collect(),
            link: self.link.counters(),
            changes: self.changes.list(),
        }
    }

    /// How far each peer's database and this one are apart, if there is one.
    fn replicated(&self) -> BTreeMap<String, Replicated> {
        let site = &self.knowledge.config.site;
        let backlogs = self.knowledge.backlogs.iter();
        let peer = |(peer, waits): (&String, &Backlog)| {
            (peer.clone(), Replicated { waits: *waits, missing: self.knowledge.evidence.backlog(peer, site) })
        };
        backlogs.map(peer).collect()
    }

    /// One resource from what is known now; what is answered is what was last published.
    fn resource(&self, name: &str, decided: &Decided) -> ResourceStatus {
        let published = self.decision.as_ref().and_then(|d| d.table.sets.iter().find(|set| set.resource == name));
        let instances =
            decided.instances.iter().map(|view| InstanceStatus { available: view.serves(), view: view.clone() });
        ResourceStatus {
            name: name.to_owned(),
            domains: self.knowledge.config.resources[name].domains.iter().map(ToString::to_string).collect(),
            epoch: decided.tenure.epoch,
            holder: decided.tenure.holder.clone(),
            instances: instances.collect(),
            answer: decided.placement.answer.clone(),
            addresses: published.map(|set| set.addresses.clone()).unwrap_or_default(),
            all_down: decided.placement.answer.is_empty(),
            arrival: decided.placement.arrival.clone(),
            leaving: decided.leaving.clone(),
        }
    }

    fn program(&self) -> ProgramStatus {
        let dataplane = self.dataplane.as_ref().expect("asked only where there is one");
        let counters = dataplane.counters().unwrap_or_default();
        ProgramStatus {
            interfaces: dataplane.interfaces().into_iter().collect(),
            lease: self.knowledge.config.dataplane.lease.as_secs_f64(),
            counters: counters.into_iter().map(|(outcome, count)| (outcome.name().to_owned(), count)).collect(),
        }
    }
}

/// A running agent cannot become another site, or move its state, key, socket or database.
fn unchangeable(old: &Config, new: &Config) -> Result<(), String> {
    let changed = [
        ("[agent] site", old.site != new.site),
        ("[agent] state", old.state != new.state),
        ("[agent] control", old.control != new.control),
        ("[link] listen", old.link.listen != new.link.listen),
        ("[link] key", old.link.key != new.link.key),
        ("[database] file", database_file(old) != database_file(new)),
        ("[dataplane] pins", old.dataplane.pins != new.dataplane.pins),
    ];
    match changed.iter().find(|(_, changed)| *changed) {
        Some((what, _)) => Err(format!("{what} cannot change while the agent runs: restart it for that")),
        None => Ok(()),
    }
}

fn database_file(config: &Config) -> Option<&Path> {
    config.database.as_ref().map(|database| database.file.as_path())
}

fn backend(status: probe::BackendStatus) -> BackendStatus {
    let last = status.last;
    BackendStatus {
        resource: status.resource,
        backend: status.backend,
        up: status.up,
        since: status.since.map(|since| since.elapsed().as_secs_f64()),
        latency: last.as_ref().map(|attempt| attempt.latency.as_secs_f64() * 1e3),
        last: last.map_or_else(|| "none yet".to_owned(), |attempt| attempt.detail),
        streak: status.streak,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// One site, with this besides.
    fn configuration(more: &str) -> Config {
        let fingerprint = format!("sha256:{}", "1".repeat(64));
        let text = format!(
            "agent.site = 'a'\nlink.key = 'k'\ndns.listen = ['127.0.0.1']\n{more}\n\
             [sites.a]\nlink = '127.0.0.1:1'\nfingerprint = '{fingerprint}'"
        );
        config::parse(&text, Path::new("/a.toml")).unwrap()
    }

    #[test]
    fn a_reload_can_change_what_is_said_about_the_database_but_not_which_it_is() {
        let old = configuration("[database]\nfile = 'shop.db'");
        let rules = "tables = ['orders']\nmax_backlog = '1 GB'\n[database.table.orders]\nconflicts = 'delete'";
        let others = configuration(&format!("[database]\nfile = 'shop.db'\n{rules}"));
        assert_eq!(unchangeable(&old, &others), Ok(()));
        let error = "[database] file cannot change while the agent runs: restart it for that".to_owned();
        for other in ["[database]\nfile = 'other.db'", ""] {
            assert_eq!(unchangeable(&old, &configuration(other)), Err(error.clone()), "{other}");
        }
    }
}
