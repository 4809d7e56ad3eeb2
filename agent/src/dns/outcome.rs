//! What became of each query: one name for every way out, and a counter for each name.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! outcomes {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// What became of a query. Every query that arrives is counted under exactly one of these.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Outcome { $($(#[$doc])* $name,)* }

        impl Outcome {
            /// All of them, in the order of [`Counters::snapshot`].
            pub const ALL: &'static [Outcome] = &[$(Outcome::$name,)*];

            /// The counter's name.
            pub fn name(self) -> &'static str {
                match self { $(Outcome::$name => $text,)* }
            }
        }
    };
}

outcomes! {
    /// NOERROR with records in the answer section.
    Answer => "answer",
    /// NOERROR, no such data: the SOA says for how long (RFC 2308 §2.2).
    NoData => "nodata",
    /// NOERROR, not ours to say: name servers of a delegated zone (RFC 1034 §4.2.1).
    Referral => "referral",
    /// No such name (RFC 2308 §2.1).
    NxDomain => "nxdomain",
    /// The answer did not fit and the client was told to use TCP.
    Truncated => "truncated",
    /// Not a zone, class or operation this server offers to the client.
    Refused => "refused",
    /// The query does not parse.
    FormErr => "formerr",
    /// An opcode or type this server does not know.
    NotImp => "notimp",
    /// A resource's `all_down` policy, or an answer that does not fit even TCP.
    ServFail => "servfail",
    /// An EDNS version other than 0 (RFC 6891 §6.1.3).
    BadVers => "badvers",
    /// Signed with a key this server does not have (RFC 8945 §5.2.1).
    NotAuth => "notauth",
    /// Not a query: too short, or itself a response. Nothing was sent.
    Silent => "silent",
    /// It came before the first complete round of probes. Nothing was sent.
    NotReady => "not_ready",
}

/// Counts of everything the server did; shared by all its tasks.
#[derive(Debug, Default)]
pub struct Counters {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    /// Queries that came over UDP.
    pub udp: AtomicU64,
    /// Queries that came over TCP.
    pub tcp: AtomicU64,
    /// Replies the kernel did not take.
    pub send_errors: AtomicU64,
    /// TCP connections accepted.
    pub connections: AtomicU64,
    /// TCP connections closed because nothing complete came, or went, for too long.
    pub idle_closed: AtomicU64,
    /// TCP connections closed to make room: each was the one idle for longest.
    pub crowded_out: AtomicU64,
}

impl Counters {
    /// Counts one query.
    pub(super) fn count(&self, outcome: Outcome) {
        bump(&self.outcomes[outcome as usize]);
    }

    /// How many queries ended so.
    pub fn get(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].load(Ordering::Relaxed)
    }

    /// Every counter with its name, for people and machines.
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        let others = [
            ("udp_queries", &self.udp),
            ("tcp_queries", &self.tcp),
            ("send_errors", &self.send_errors),
            ("tcp_connections", &self.connections),
            ("tcp_idle_closed", &self.idle_closed),
            ("tcp_crowded_out", &self.crowded_out),
        ];
        Outcome::ALL
            .iter()
            .map(|outcome| (outcome.name(), self.get(*outcome)))
            .chain(others.iter().map(|(name, count)| (*name, count.load(Ordering::Relaxed))))
            .collect()
    }
}

/// Adds one.
pub(super) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
