//! How replication stands, for people and for other parts of the agent.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::{database::Database, now};

/// How this site's database stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Why it is not replicated, if it is not.
    pub error: Option<String>,
    /// Nothing is sent or taken, because an operator has said so.
    pub paused: bool,
    /// A schema change is under way: no table takes an application's writes.
    pub fenced: bool,
    /// Why it is still to be compared with a peer's, if it is: something may be missing here, or there.
    #[serde(default)]
    pub doubt: Option<String>,
    /// This site's last group of changes.
    pub group: u64,
    /// Rows whose versions are still kept: not yet known to be the same everywhere.
    pub unsettled: u64,
    /// Conflicts in the log.
    pub conflicts: u64,
    /// Columns that peers have and this site lacks, as `table.column`: what is written to them there waits here.
    pub lacking: Vec<String>,
    /// Each peer by name.
    pub peers: BTreeMap<String, Peer>,
}

/// How a peer stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Changes are sent to it now.
    pub sending: bool,
    /// Why changes are not sent to it, or were not the last time.
    pub why: Option<String>,
    /// Its changes are taken now.
    pub taking: bool,
    /// Why its changes are not taken, or were not the last time.
    pub refused: Option<String>,
    /// Its groups up to this one are applied here.
    pub applied: u64,
    /// Our groups up to this one are applied there.
    pub acknowledged: u64,
    /// Rows that it has not applied yet.
    pub rows: u64,
    /// Bytes that these take here.
    pub bytes: u64,
    /// Milliseconds since the oldest of them was recorded.
    pub lag: u64,
    /// It lacks more, which is not kept here any more: once it is back the databases are compared.
    #[serde(default)]
    pub forgotten: bool,
}

/// What is under way: the streams to and from each peer, and why what applications write is not taken up, if it is not.
#[derive(Clone, Debug, Default)]
pub(super) struct Sessions(Arc<Mutex<UnderWay>>);

#[derive(Clone, Debug, Default)]
struct UnderWay {
    peers: BTreeMap<String, Session>,
    not_folded: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct Session {
    sending: bool,
    why: Option<String>,
    taking: bool,
    refused: Option<String>,
}

impl Sessions {
    pub(super) fn started(&self, peer: &str) {
        self.change(peer, |session| (session.sending, session.why) = (true, None));
    }

    pub(super) fn stopped(&self, peer: &str, why: String) {
        self.change(peer, |session| (session.sending, session.why) = (false, Some(why)));
    }

    pub(super) fn taking(&self, peer: &str) {
        self.change(peer, |session| (session.taking, session.refused) = (true, None));
    }

    pub(super) fn refused(&self, peer: &str, why: String) {
        self.change(peer, |session| (session.taking, session.refused) = (false, Some(why)));
    }

    /// What applications have written is taken up.
    pub(super) fn folded(&self) {
        self.all().not_folded = None;
    }

    pub(super) fn not_folded(&self, why: String) {
        self.all().not_folded = Some(why);
    }

    fn change(&self, peer: &str, change: impl FnOnce(&mut Session)) {
        change(self.all().peers.entry(peer.to_owned()).or_default());
    }

    fn all(&self) -> MutexGuard<'_, UnderWay> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn status(database: Database, sessions: Sessions) -> Status {
    let UnderWay { peers, not_folded } = sessions.all().clone();
    match database.run(|store| Ok((store.status(now())?, store.doubt()?))).await {
        Ok((found, doubt)) => Status {
            error: not_folded.map(|why| format!("changes wait in the database: {why}")),
            paused: found.paused,
            fenced: found.fenced,
            doubt: doubt.map(|doubt| doubt.to_string()),
            group: found.group,
            unsettled: found.unsettled,
            conflicts: found.conflicts,
            lacking: found.lacking,
            peers: found
                .peers
                .into_iter()
                .map(|(name, backlog)| {
                    let session = peers.get(&name).cloned().unwrap_or_default();
                    let peer = Peer {
                        sending: session.sending,
                        why: session.why,
                        taking: session.taking,
                        refused: session.refused,
                        applied: backlog.applied,
                        acknowledged: backlog.acknowledged,
                        rows: backlog.rows,
                        bytes: backlog.bytes,
                        lag: backlog.lag,
                        forgotten: backlog.forgotten,
                    };
                    (name, peer)
                })
                .collect(),
        },
        Err(error) => Status { error: Some(error.to_string()), ..Status::default() },
    }
}
