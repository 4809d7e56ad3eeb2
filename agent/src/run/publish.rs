//! From a decision to the two name servers, with a record of what changed and how long it took.

use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;

use super::Agent;
use crate::{
    config::Config,
    control::api::Change,
    dataplane::{Constants, Dataplane},
    decision::Decision,
    dns,
    evidence::Evidence,
    link::{HANDSHAKE_TIMEOUT, LinkEvent},
    probe::ProbeEvent,
    state::Store,
    steering,
};

/// The last changes of answers.
#[derive(Debug, Default)]
pub struct Changes(VecDeque<Change>);

impl Changes {
    const KEPT: usize = 64;

    fn record(&mut self, cause: &str, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.push_back(Change { at: unix_millis(), cause: cause.to_owned(), micros });
        if self.0.len() > Self::KEPT {
            self.0.pop_front();
        }
    }

    /// Oldest first.
    pub fn list(&self) -> Vec<Change> {
        self.0.iter().cloned().collect()
    }
}

impl Agent {
    /// Makes `decision` what is answered, by the program first.
    pub(super) fn publish(&mut self, decision: Decision, cause: &str, at: Instant) -> anyhow::Result<()> {
        let zones = self.pending.take();
        let changed = zones.is_some() || self.decision.as_ref().is_none_or(|last| last.table != decision.table);
        let first = self.decision.is_none();
        if changed {
            let table = Arc::new(decision.table.clone());
            let mut visible = Instant::now();
            if let Some(dataplane) = &mut self.dataplane {
                // The swap waits until no packet uses the old table; other tasks go on meanwhile.
                let published =
                    tokio::task::block_in_place(|| dataplane.publish(&table)).context("publishing answers")?;
                visible = published.answers.max(published.names).unwrap_or(visible);
            }
            let zones = zones.unwrap_or_else(|| Arc::clone(&self.serving.load().zones));
            self.serving.store(Arc::new(dns::State { zones, table: Some(table) }));
            let took = visible.saturating_duration_since(at);
            self.changes.record(cause, took);
            tracing::info!(cause, micros = took.as_micros(), "answers changed");
        }
        self.decision = Some(decision);
        if first {
            tracing::info!("ready");
        }
        Ok(())
    }

    /// Makes the program do with requests what was decided last, by the ways that are known now.
    pub(super) fn steer(&mut self) -> anyhow::Result<()> {
        let (Some(dataplane), Some(decision)) = (&mut self.dataplane, &self.decision) else { return Ok(()) };
        let hops = Arc::clone(&self.hops.found.borrow_and_update());
        // What an earlier agent left, or the last configuration, is better than a table without ways.
        let looked_up = || steering::addresses(&self.knowledge.config).iter().all(|address| hops.contains_key(address));
        if self.steered.is_none() && !looked_up() {
            return Ok(());
        }
        let requests = steering::requests(&self.knowledge, decision);
        let ways = steering::ways(&self.ways, &hops);
        if self.steered.as_ref() != Some(&requests) || self.ways != ways {
            dataplane.steer(&requests, &ways).context("publishing what becomes of requests")?;
            (self.steered, self.ways) = (Some(requests), ways);
            dataplane.renew_lease(self.knowledge.config.dataplane.lease).context("renewing the lease")?;
        }
        dataplane.attach()?;
        Ok(())
    }
}

/// Starts the program, if the configuration names an interface for it.
pub fn start_program(config: &Config, store: &mut Store) -> anyhow::Result<Option<Dataplane>> {
    if config.dataplane.interfaces.is_empty() {
        tracing::info!("no interface is configured: the agent's own server answers everything");
        return Ok(None);
    }
    let known = store.flow_seed()?;
    // Random, as every hasher's state is.
    let flow_seed = known.unwrap_or_else(|| RandomState::new().build_hasher().finish() | 1);
    let dataplane = Dataplane::start(&config.dataplane, &Constants { flow_seed, ..constants(config) })?;
    if known != Some(dataplane.flow_seed())
        && let Err(error) = store.set_flow_seed(dataplane.flow_seed())
    {
        tracing::error!("flows would not survive new maps of the program: {error}");
    }
    Ok(Some(dataplane))
}

/// What the program is loaded with.
pub fn constants(config: &Config) -> Constants {
    let peers = config.peers().filter_map(|site| Some((*config.sites[site].tunnel?.ip(), site.to_owned())));
    Constants {
        // It knows port 53 only.
        dns: if config.dns.port == 53 { config.dns.listen.clone() } else { Vec::new() },
        site: config.site.clone(),
        tunnel: config.sites[&config.site].tunnel,
        peers: peers.collect(),
        flow_seed: 0,
    }
}

/// How long the first answer waits for peers to appear: as long as an attempt to connect takes at most (a peer that dials
/// may be in the middle of one that began when this site was not there), the periods that contact needs, and one that has
/// begun already. Whoever answers earlier may serve what another holds.
pub fn patience(config: &Config) -> Duration {
    if config.sites.len() < 2 {
        Duration::ZERO
    } else {
        HANDSHAKE_TIMEOUT + config.link.period * (config.link.periods + 1)
    }
}

/// Waits for so long, in steps: time in which this process did not run, because the host was short of it or stood still,
/// counts as one of them, for nothing could be heard in it.
pub async fn wait_for_peers(time: Duration) {
    const STEP: Duration = Duration::from_millis(100);
    for _ in 0..time.as_millis().div_ceil(STEP.as_millis()) {
        tokio::time::sleep(STEP).await;
    }
}

/// Every peer is in contact and has reported.
pub fn peers_known(evidence: &Evidence) -> bool {
    evidence.peers.values().all(|peer| peer.contact && peer.report.is_some())
}

/// What a batch of probe events says, in words.
pub fn probed(events: &[ProbeEvent]) -> String {
    let one = |event: &ProbeEvent| {
        let state = if event.up { "up" } else { "down" };
        format!("{} backend {} is {state}: {}", event.resource, event.backend, event.detail)
    };
    summary(events.iter().map(one).collect())
}

/// What a batch of link events says in words, and when the last of it was found. `None` for an empty batch.
pub fn heard(events: &[LinkEvent]) -> Option<(String, Instant)> {
    let now = Instant::now();
    let one = |event: &LinkEvent| match event {
        LinkEvent::Contact { peer, contact: true, at, .. } => (format!("{peer} is in contact"), *at),
        LinkEvent::Contact { peer, reason, at, .. } => (format!("{peer} is not in contact: {reason}"), *at),
        LinkEvent::Report { peer, .. } => (format!("{peer} reports a change"), now),
    };
    let (causes, moments): (Vec<_>, Vec<_>) = events.iter().map(one).unzip();
    Some((summary(causes), moments.into_iter().max()?))
}

fn summary(mut causes: Vec<String>) -> String {
    let more = causes.len().saturating_sub(1);
    match (causes.pop(), more) {
        (None, _) => String::new(),
        (Some(last), 0) => last,
        (Some(last), more) => format!("{last} (and {more} more)"),
    }
}

/// The wall clock, for people only.
pub fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, advance};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_process_that_stood_still_waits_for_its_peers_all_the_same() {
        const TIME: Duration = Duration::from_secs(4);
        let started = Instant::now();
        let waiting = tokio::spawn(wait_for_peers(TIME));
        tokio::task::yield_now().await;
        advance(TIME * 10).await;
        assert!(!waiting.is_finished());
        waiting.await.unwrap();
        let stopped = TIME * 10 - Duration::from_millis(100);
        let waited = started.elapsed() - stopped;
        assert!(waited >= TIME && waited < TIME + Duration::from_secs(1), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_peers_there_is_no_wait() {
        let started = Instant::now();
        wait_for_peers(Duration::ZERO).await;
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
