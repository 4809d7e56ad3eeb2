//! Incoming attempts. A stranger costs a stateless Retry, then at most one of a few handshakes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use quinn::{Connection, ConnectionError, Endpoint, Incoming, ServerConfig};
use rustls::pki_types::CertificateDer;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use super::{
    close::Close,
    keys::{self, Identity},
    status::Counters,
    transport::{self, HANDSHAKE_TIMEOUT},
    trust::{Pins, Shown},
};

/// What reload changes.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    /// Every peer by its fingerprint.
    pub(super) pins: Arc<Pins>,
    /// Where those that dial this site are handed their connections.
    pub(super) diallers: BTreeMap<String, mpsc::Sender<Connection>>,
    /// Addresses configured for peers; attempts from elsewhere cannot use up their share of handshakes.
    pub(super) addresses: BTreeSet<IpAddr>,
}

/// Accepts until the endpoint closes.
pub(super) struct Acceptor {
    pub(super) endpoint: Endpoint,
    pub(super) identity: Identity,
    pub(super) server: ServerConfig,
    pub(super) admitted: Arc<ArcSwap<Admitted>>,
    pub(super) counters: Arc<Counters>,
}

impl Acceptor {
    pub(super) async fn run(self) {
        let this = Arc::new(self);
        let (mut peers, mut strangers) = (Bucket::new(Instant::now()), Bucket::new(Instant::now()));
        let mut complaints = Complaints::default();
        let mut handshakes: JoinSet<Option<String>> = JoinSet::new();
        loop {
            tokio::select! {
                incoming = this.endpoint.accept() => {
                    let Some(incoming) = incoming else { return };
                    // The address is proven before anything is spent on it (RFC 9000 §8.1.2).
                    if !incoming.remote_address_validated() {
                        let _ = incoming.retry();
                        continue;
                    }
                    let ip = incoming.remote_address().ip().to_canonical();
                    let known = this.admitted.load().addresses.contains(&ip);
                    let bucket = if known { &mut peers } else { &mut strangers };
                    if bucket.take(Instant::now()) {
                        handshakes.spawn(Arc::clone(&this).handshake(incoming));
                    } else {
                        this.counters.ignored.add();
                        incoming.ignore();
                    }
                }
                Some(Ok(Some(complaint))) = handshakes.join_next() => complaints.log(&complaint, Instant::now()),
            }
        }
    }

    /// Returns what there is to complain about.
    async fn handshake(self: Arc<Self>, incoming: Incoming) -> Option<String> {
        let remote = canonical(incoming.remote_address());
        let shown = Shown::default();
        let pins = Arc::clone(&self.admitted.load().pins);
        let config = transport::server(&self.server, &self.identity, pins, &shown);
        let connecting = match config {
            Ok(config) => incoming.accept_with(Arc::new(config)),
            Err(error) => return Some(format!("{remote}, because its handshake cannot be prepared: {error}")),
        };
        let connecting = match connecting {
            Ok(connecting) => connecting,
            Err(error) => return self.failed(remote, &shown, &error),
        };
        match timeout(HANDSHAKE_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => self.hand_over(connection, remote),
            Ok(Err(error)) => self.failed(remote, &shown, &error),
            Err(_) => {
                self.counters.refused.add();
                Some(format!("{remote} did not finish its handshake in time"))
            }
        }
    }

    /// Whose connection is it? Asked again after the handshake: the configuration may have changed in between.
    fn hand_over(&self, connection: Connection, remote: SocketAddr) -> Option<String> {
        let admitted = self.admitted.load_full();
        let fingerprint = shown_by(&connection)?;
        let site = admitted.pins.get(&fingerprint);
        let Some((site, dialler)) = site.and_then(|site| Some((site, admitted.diallers.get(site)?))) else {
            self.counters.refused.add();
            let reason = "of two sites, the one whose name sorts first dials the other: are both named alike in both configurations?";
            Close::WrongDirection.apply(&connection, reason);
            return Some(format!("{remote} with key {fingerprint} must not dial this site; {reason}"));
        };
        tracing::debug!(peer = site, %remote, "connection accepted");
        // Fails while the peer's task ends or has connections waiting; then this one closes.
        let _ = dialler.try_send(connection);
        None
    }

    fn failed(&self, remote: SocketAddr, shown: &Shown, error: &ConnectionError) -> Option<String> {
        // Everything else means that the other end went away or did not like us.
        let ConnectionError::TransportError(error) = error else {
            return None;
        };
        self.counters.refused.add();
        let key = match shown.get() {
            Some(fingerprint) => format!("key {fingerprint}, which is no configured peer's"),
            None => format!("no key: {error}"),
        };
        Some(format!("{remote} with {key}"))
    }
}

/// The fingerprint of the key the other end has proven to hold.
fn shown_by(connection: &Connection) -> Option<crate::config::Fingerprint> {
    let certificates = connection.peer_identity()?;
    let certificates = certificates.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    certificates.first().map(keys::fingerprint)
}

/// An IPv4 address as such, also on a socket for both families.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Handshakes allowed: a burst, then some per second. With the handshake's timeout this also bounds how many run.
#[derive(Debug)]
struct Bucket {
    left: u32,
    at: Instant,
}

impl Bucket {
    const BURST: u32 = 16;
    const EACH: Duration = Duration::from_millis(100);

    fn new(now: Instant) -> Self {
        Self { left: Self::BURST, at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        while self.left < Self::BURST && now.saturating_duration_since(self.at) >= Self::EACH {
            self.left += 1;
            self.at += Self::EACH;
        }
        if self.left == Self::BURST {
            self.at = now;
        }
        let allowed = self.left > 0;
        self.left -= u32::from(allowed);
        allowed
    }
}

/// One line in ten seconds, however many strangers knock.
#[derive(Debug, Default)]
struct Complaints {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    const EVERY: Duration = Duration::from_secs(10);

    fn log(&mut self, complaint: &str, now: Instant) {
        if let Some(unsaid) = self.due(now) {
            tracing::warn!(unsaid, "refused {complaint}");
        }
    }

    /// How many went unsaid before this one, if this one is said.
    fn due(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < Self::EVERY) {
            self.unsaid += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_get_a_burst_of_handshakes_then_ten_a_second() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        let allowed =
            |bucket: &mut Bucket, ms: u64| (0..100).filter(|_| bucket.take(start + Duration::from_millis(ms))).count();
        assert_eq!(allowed(&mut bucket, 0), 16);
        assert_eq!(allowed(&mut bucket, 99), 0);
        assert_eq!(allowed(&mut bucket, 1000), 10);
        assert_eq!(allowed(&mut bucket, 3_600_000), 16);
    }

    #[test]
    fn complaints_are_said_once_in_ten_seconds_and_the_others_counted() {
        let start = Instant::now();
        let mut complaints = Complaints::default();
        let said: Vec<_> = [0, 1, 9, 10, 11, 30].map(|s| complaints.due(start + Duration::from_secs(s))).into();
        assert_eq!(said, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
