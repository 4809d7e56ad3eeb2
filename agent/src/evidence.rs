//! What is known: this site's probes and what the peers report. Measured, never wished for; operators' overrides are
//! kept apart (`placement`).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use serde::{Deserialize, Serialize};

use crate::{config::Config, link::LinkEvent, placement::State, probe::ProbeEvent};

/// What a site's agent says about its own instances. It crosses the link, so it is bounded and checked there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The site is drained: its instances serve only where no other can.
    pub drained: bool,
    /// The sites it is in contact with.
    pub contacts: BTreeSet<String>,
    /// By site: what of the database's changes made at the sender waits for it. Empty without a database.
    pub backlogs: BTreeMap<String, Backlog>,
    /// By resource.
    pub instances: BTreeMap<String, InstanceReport>,
}

/// Changes to the database that a site has not applied yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backlog {
    /// How many rows were changed.
    pub rows: u64,
    /// Milliseconds since the oldest of the changes was recorded. 0 without any.
    pub lag: u64,
    /// It lacks more, which is not kept any more: the databases are to be compared.
    pub forgotten: bool,
}

/// One instance, as its own site sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceReport {
    /// It can serve: its probes pass and no operator has taken it out.
    pub available: bool,
    /// The resource's epoch as this site knows it.
    pub epoch: u64,
    /// The site that holds it in that epoch, as this site knows it. `None`: every active instance serves.
    pub holder: Option<String>,
    /// Its state.
    pub state: State,
    /// Why it has this state, for people.
    pub why: String,
    /// Since when it has this state, seconds since 1970.
    pub since: u64,
    /// Why it is available or not, for people.
    pub reason: String,
}

/// Everything measured so far.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// This site's instances, by resource.
    pub own: BTreeMap<String, OwnInstance>,
    /// The other sites, by name.
    pub peers: BTreeMap<String, Peer>,
}

/// Verdicts on one of this site's instances.
#[derive(Clone, Debug, Default)]
pub struct OwnInstance {
    /// By backend; `None` until its first try has ended.
    pub backends: BTreeMap<SocketAddr, Option<Verdict>>,
    /// What was believed before all of its backends were replaced by others. `Some(false)` too if one of them stays, which
    /// speaks for the instance; `None` if it is new.
    pub before: Option<bool>,
}

/// What the probes of one backend say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// It passes.
    pub up: bool,
    /// The deciding try, for people.
    pub detail: String,
}

/// What is known of a peer.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Every one of the last N periods held at least one heartbeat.
    pub contact: bool,
    /// Out of contact, but it has reported since: it returns, and is not silent.
    pub speaks: bool,
    /// Its last report. It outlives the contact, for people to see; it counts only in contact.
    pub report: Option<Report>,
    /// Resources whose public addresses at this peer do not answer while it is not in contact, and what was tried.
    pub lost: Lost,
}

/// What was tried in vain, by resource.
pub type Lost = BTreeMap<String, String>;

impl OwnInstance {
    /// Every backend has been tried, or something was known before some of them were configured.
    pub fn measured(&self) -> bool {
        self.before.is_some() || self.tried()
    }

    /// One backend that works is enough (claim B4).
    pub fn available(&self) -> bool {
        self.passes() || self.carried()
    }

    /// It was available, all its backends are new, none passes yet, and not all have been tried: what was believed before
    /// stands for them.
    pub fn carried(&self) -> bool {
        self.before == Some(true) && !self.tried() && !self.passes()
    }

    fn tried(&self) -> bool {
        self.backends.values().all(Option::is_some)
    }

    fn passes(&self) -> bool {
        self.backends.values().flatten().any(|verdict| verdict.up)
    }

    /// The same instance with these backends.
    fn with(mut self, backends: &[SocketAddr]) -> Self {
        let stays = backends.iter().any(|backend| self.backends.get(backend).is_some_and(Option::is_some));
        let known = self.measured() && !self.backends.is_empty();
        let before = known.then(|| !stays && self.available());
        let backends = backends.iter().map(|backend| (*backend, self.backends.remove(backend).flatten())).collect();
        Self { backends, before }
    }

    /// Why it is available or not: how many backends pass, and what the first failing one says.
    pub fn reason(&self) -> String {
        let up = self.backends.values().flatten().filter(|v| v.up).count();
        let mut reason = format!("{up} of {} backends pass", self.backends.len());
        let failing = self.backends.iter().find(|(_, verdict)| verdict.as_ref().is_some_and(|v| !v.up));
        if let Some((backend, Some(verdict))) = failing {
            reason += &format!("; {backend}: {}", verdict.detail);
        }
        reason
    }
}

impl Evidence {
    /// Nothing measured, for every instance and peer of `config`.
    pub fn new(config: &Config) -> Self {
        let mut evidence = Self::default();
        evidence.reshape(config);
        evidence
    }

    /// Keeps what is known of the instances, backends and peers `config` still has, and makes room for its new ones.
    pub fn reshape(&mut self, config: &Config) {
        let mut known = std::mem::take(&mut self.own);
        for (name, instance) in config.own_instances() {
            let old = known.remove(name).unwrap_or_default();
            self.own.insert(name.to_owned(), old.with(&instance.backends));
        }
        let mut peers = std::mem::take(&mut self.peers);
        for peer in config.peers() {
            self.peers.insert(peer.to_owned(), peers.remove(peer).unwrap_or_default());
        }
    }

    /// The first complete round of probes is over, of every instance.
    pub fn measured(&self) -> bool {
        self.own.values().all(OwnInstance::measured)
    }

    /// Takes in what a probe found. Verdicts on backends no longer configured are ignored.
    pub fn probed(&mut self, event: &ProbeEvent) {
        let backends = self.own.get_mut(&event.resource).map(|own| &mut own.backends);
        if let Some(verdict) = backends.and_then(|backends| backends.get_mut(&event.backend)) {
            *verdict = Some(Verdict { up: event.up, detail: event.detail.clone() });
        }
    }

    /// Takes in which peers' public addresses do not answer; those not named here do, or were not tried.
    pub fn reached(&mut self, mut lost: BTreeMap<String, Lost>) {
        for (name, peer) in &mut self.peers {
            peer.lost = lost.remove(name).unwrap_or_default();
        }
    }

    /// The peer is in contact and says that it is drained.
    pub fn drained(&self, site: &str) -> bool {
        let peer = self.peers.get(site).filter(|peer| peer.contact);
        peer.and_then(|peer| peer.report.as_ref()).is_some_and(|report| report.drained)
    }

    /// What a peer in contact says that waits there for `site`.
    pub fn backlog(&self, peer: &str, site: &str) -> Option<Backlog> {
        let peer = self.peers.get(peer).filter(|peer| peer.contact)?;
        peer.report.as_ref()?.backlogs.get(site).copied()
    }

    /// The sites that are not in contact.
    pub fn silent(&self) -> impl Iterator<Item = &str> {
        self.peers.iter().filter(|(_, peer)| !peer.contact).map(|(name, _)| name.as_str())
    }

    /// A peer in contact that is in contact with `site`.
    pub fn voucher(&self, site: &str) -> Option<&str> {
        let vouches =
            |peer: &Peer| peer.contact && peer.report.as_ref().is_some_and(|report| report.contacts.contains(site));
        self.peers.iter().find(|(_, peer)| vouches(peer)).map(|(name, _)| name.as_str())
    }

    /// Takes in what the link found.
    pub fn heard(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Contact { peer, contact, .. } => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.contact = contact;
                    peer.speaks = false;
                }
            }
            LinkEvent::Report { peer, report } => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.report = Some(report);
                    peer.speaks = !peer.contact;
                }
            }
        }
    }
}
