//! Attempts to reach a peer that this site dials.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn::{Connection, ConnectionError, Endpoint};
use tokio::time::{sleep_until, timeout};

use crate::config::Fingerprint;

use super::{
    backoff::Backoff,
    close,
    keys::Identity,
    status::Counters,
    transport::{self, HANDSHAKE_TIMEOUT},
    trust::{Pins, Shown},
};

/// An attempt that began longer ago led to a connection that lasted: no attempt and no wait takes as long.
const WORKED: Duration = Duration::from_secs(5);

/// One attempt; its error is for people.
pub(super) type Dial = Pin<Box<dyn Future<Output = Result<Connection, String>> + Send>>;

/// Reaches one peer.
pub(super) struct Dialler {
    endpoint: Endpoint,
    identity: Identity,
    address: SocketAddr,
    expected: Fingerprint,
    pins: Arc<Pins>,
    counters: Arc<Counters>,
    backoff: Backoff,
    last: Option<Instant>,
}

impl Dialler {
    pub(super) fn new(
        endpoint: Endpoint,
        identity: Identity,
        (name, address, expected): (String, SocketAddr, Fingerprint),
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            endpoint,
            identity,
            address,
            expected,
            pins: Arc::new([(expected, name)].into()),
            counters,
            backoff: Backoff::new(),
            last: None,
        }
    }

    /// The next attempt, after the wait that is due: waits count from the beginning of the attempt before.
    pub(super) fn dial(&mut self, period: Duration) -> Dial {
        let now = Instant::now();
        let begin = match self.last {
            None => now,
            Some(last) => {
                if now.saturating_duration_since(last) > WORKED {
                    self.backoff.reset();
                }
                now.max(last + self.backoff.wait())
            }
        };
        self.last = Some(begin);
        let shown = Shown::default();
        let config = transport::client(&self.identity, Arc::clone(&self.pins), &shown, period);
        let (endpoint, address, expected) = (self.endpoint.clone(), self.address, self.expected);
        let counters = Arc::clone(&self.counters);
        Box::pin(async move {
            sleep_until(begin.into()).await;
            let failed = |error: &dyn std::fmt::Display| format!("cannot connect to {address}: {error}");
            let config = config.map_err(|error| failed(&error))?;
            // The server's name means nothing and is not sent.
            let connecting = endpoint.connect_with(config, address, "siteswap").map_err(|error| failed(&error))?;
            let result = match timeout(HANDSHAKE_TIMEOUT, connecting).await {
                Ok(result) => result,
                Err(_) => return Err(format!("no answer from {address}")),
            };
            result.map_err(|error| match (&error, shown.get()) {
                (ConnectionError::TransportError(_), Some(found)) if *found != expected => {
                    counters.refused.add();
                    format!("{address} has the key {found}, configured is {expected}")
                }
                _ => failed(&close::describe(&error)),
            })
        })
    }
}
