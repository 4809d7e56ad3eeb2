//! Opens this site's stream of frames about something to a peer, once per connection, and again if it ended before.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use quinn::Connection;
use tokio::{sync::watch, time::sleep_until};

use super::{
    backoff::Backoff,
    frames::{Frames, Topic},
    status::Counters,
};

/// A stream that began longer ago did something.
const WORKED: Duration = Duration::from_secs(5);

/// Opens streams of frames about one thing to one peer. They end with their connection.
#[derive(Debug)]
pub struct Opener {
    topic: Topic,
    connected: watch::Receiver<Option<Connection>>,
    counters: Arc<Counters>,
    last: Option<Last>,
    backoff: Backoff,
}

/// The last stream that was opened.
#[derive(Debug)]
struct Last {
    connection: usize,
    at: Instant,
    wait: Duration,
}

impl Opener {
    pub(super) fn new(topic: Topic, connected: watch::Receiver<Option<Connection>>, counters: Arc<Counters>) -> Self {
        Self { topic, connected, counters, last: None, backoff: Backoff::new() }
    }

    /// Opens a stream as soon as the peer is connected; it replaces the one before at the peer. `None` when the peer is
    /// no longer configured as it was, or the link is closed.
    ///
    /// The first stream of a connection is opened at once; others after a wait that grows up to two seconds while they
    /// end soon: a peer that has no use for streams is not flooded with them. Safe to cancel.
    pub async fn open(&mut self) -> Option<Frames> {
        loop {
            let connection = self.connected.wait_for(Option::is_some).await.ok()?.clone()?;
            let due = self.last.as_ref().filter(|last| last.connection == connection.stable_id());
            let due = due.map_or_else(Instant::now, |last| last.at + last.wait);
            tokio::select! {
                changed = self.connected.changed() => changed.ok()?,
                opened = async {
                    sleep_until(due.into()).await;
                    Frames::open(&connection, self.topic, &self.counters).await
                } => match opened {
                    Ok(frames) => {
                        self.opened(&connection);
                        return Some(frames);
                    }
                    // It has ended; the next one follows.
                    Err(_) => self.connected.changed().await.ok()?,
                },
            }
        }
    }

    fn opened(&mut self, connection: &Connection) {
        let (connection, at) = (connection.stable_id(), Instant::now());
        if self.last.as_ref().is_none_or(|last| last.connection != connection || at - last.at > last.wait + WORKED) {
            self.backoff.reset();
        }
        self.last = Some(Last { connection, at, wait: self.backoff.wait() });
    }
}
