//! What the link tells operators about itself.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize};

/// One peer, as the link sees it now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The peer's site.
    pub peer: String,
    /// Every one of the last N periods held a heartbeat.
    pub contact: bool,
    /// Since when `contact` is what it is, seconds since 1970.
    pub since: u64,
    /// The last N ended periods, oldest first; `true`: held a heartbeat.
    pub periods: Vec<bool>,
    /// There is a connection, and the peer has spoken on it; perhaps it is silent now.
    pub connected: bool,
    /// Where the connection comes from or goes to.
    pub remote: Option<SocketAddr>,
    /// Round-trip time of the connection, microseconds.
    pub rtt_us: Option<u64>,
    /// So many milliseconds its clock is ahead of this site's, by the heartbeat of the last period that was the shortest time
    /// under way: half of a round trip is taken for that. Less than nothing: behind.
    pub clock_ahead_ms: Option<i64>,
    /// Heartbeats received since this agent started.
    pub heartbeats: u64,
    /// The newest report that the peer's heartbeats speak of has arrived.
    pub report_current: bool,
    /// The last thing that went wrong with this peer.
    pub last_error: Option<String>,
}

/// Events of the link since this agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkCounters {
    /// Handshakes refused: no key, an unknown key, another peer's key, the wrong protocol.
    pub refused: u64,
    /// Attempts ignored before any handshake because too many came.
    pub ignored: u64,
    /// Messages of authenticated peers that were refused.
    pub malformed: u64,
    /// Connections of peers that had been connected before.
    pub reconnects: u64,
    /// Heartbeats sent.
    pub heartbeats_sent: u64,
    /// Heartbeats received.
    pub heartbeats_received: u64,
    /// Times this agent stood still for longer than the time between two heartbeats.
    pub stalls: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) refused: Counter,
    pub(super) ignored: Counter,
    pub(super) malformed: Counter,
    pub(super) reconnects: Counter,
    pub(super) heartbeats_sent: Counter,
    pub(super) heartbeats_received: Counter,
    pub(super) stalls: Counter,
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(super) fn read(&self) -> LinkCounters {
        LinkCounters {
            refused: self.refused.get(),
            ignored: self.ignored.get(),
            malformed: self.malformed.get(),
            reconnects: self.reconnects.get(),
            heartbeats_sent: self.heartbeats_sent.get(),
            heartbeats_received: self.heartbeats_received.get(),
            stalls: self.stalls.get(),
        }
    }
}
