//! One peer: connects to it or waits to be dialled, sends heartbeats, judges contact, passes on its reports.

use std::{
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use quinn::{Connection, ConnectionError};
use tokio::sync::{mpsc, watch};

use crate::evidence::Report;

use super::{
    Asked, LinkEvent, Opened,
    accept::canonical,
    close::{self, Close},
    contact::{Change, Contact},
    dial::{Dial, Dialler},
    message::{self, MessageError, ReportMessage},
    schedule::{Schedule, Tick},
    session::{self, Heard, Session},
    skew::Skew,
    status::{Counters, PeerStatus},
    streams::{Asking, Taker},
};

/// What reload changes while the connection stays up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rhythm {
    pub(super) period: Duration,
    pub(super) periods: u32,
}

/// What `Link::status` reads.
#[derive(Debug)]
pub(super) struct State {
    contact: bool,
    since: SystemTime,
    periods: Vec<bool>,
    /// There is a connection.
    connected: bool,
    /// It, once the peer has spoken on it, so both ends accept each other's keys: the one that dials knows only then.
    confirmed: watch::Sender<Option<Connection>>,
    heartbeats: u64,
    clock_ahead: Option<i64>,
    /// Number of the newest report the peer has spoken of, and of the newest that came, on this connection.
    announced: u64,
    newest: u64,
    last_error: Option<String>,
}

impl State {
    pub(super) fn new() -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            contact: false,
            since: SystemTime::now(),
            periods: Vec::new(),
            connected: false,
            confirmed: watch::Sender::new(None),
            heartbeats: 0,
            clock_ahead: None,
            announced: 0,
            newest: 0,
            last_error: None,
        }))
    }

    pub(super) fn status(&self, peer: &str) -> PeerStatus {
        let connection = self.confirmed();
        PeerStatus {
            peer: peer.to_owned(),
            contact: self.contact,
            since: self.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            periods: self.periods.clone(),
            connected: connection.is_some(),
            remote: connection.as_ref().map(|connection| canonical(connection.remote_address())),
            rtt_us: connection
                .as_ref()
                .map(|connection| u64::try_from(connection.rtt().as_micros()).unwrap_or(u64::MAX)),
            clock_ahead_ms: self.clock_ahead,
            heartbeats: self.heartbeats,
            report_current: self.newest > 0 && self.newest >= self.announced,
            last_error: self.last_error.clone(),
        }
    }

    /// The connection that the peer has spoken on.
    pub(super) fn confirmed(&self) -> Option<Connection> {
        self.confirmed.borrow().clone()
    }

    /// Follows the connection that the peer has spoken on.
    pub(super) fn follow(&self) -> watch::Receiver<Option<Connection>> {
        self.confirmed.subscribe()
    }

    /// Nothing goes over the connection any more; those that follow hold it no longer.
    pub(super) fn disconnect(&mut self) {
        self.connected = false;
        self.clock_ahead = None;
        self.confirmed.send_replace(None);
    }
}

/// The state, also when a thread that held it panicked: every write leaves it whole.
pub(super) fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The task of one peer. It ends when the sender of `rhythm` is gone.
///
/// Events are delivered before anything else happens, so an agent that takes no more events falls silent, and its peers
/// see that it is not well; so does one that gives no more signs of life ([`Link::alive_until`](super::Link::alive_until)).
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) own_site: String,
    pub(super) rhythm: watch::Receiver<Rhythm>,
    pub(super) report: watch::Receiver<Report>,
    pub(super) alive: watch::Receiver<Option<Instant>>,
    pub(super) accepted: mpsc::Receiver<Connection>,
    pub(super) dialler: Option<Dialler>,
    pub(super) events: mpsc::Sender<LinkEvent>,
    pub(super) asked: mpsc::Sender<Asked>,
    pub(super) opened: mpsc::Sender<Opened>,
    pub(super) counters: Arc<Counters>,
    pub(super) state: Arc<Mutex<State>>,
}

impl Peer {
    pub(super) async fn run(self) {
        let rhythm = *self.rhythm.borrow();
        Running {
            contact: Contact::new(rhythm.periods),
            skew: Skew::default(),
            schedule: Schedule::new(rhythm.period, Instant::now()),
            current: rhythm,
            session: None,
            dial: None,
            connected_before: false,
            spoke: false,
            peer: self,
        }
        .run()
        .await;
    }
}

struct Running {
    peer: Peer,
    current: Rhythm,
    contact: Contact,
    skew: Skew,
    schedule: Schedule,
    session: Option<Session>,
    dial: Option<Dial>,
    connected_before: bool,
    /// It has reported since it fell out of contact, and its silence since has not been told.
    spoke: bool,
}

impl Running {
    async fn run(mut self) {
        loop {
            if self.session.is_none() && self.dial.is_none() {
                self.dial = self.peer.dialler.as_mut().map(|dialler| dialler.dial(self.current.period));
            }
            tokio::select! {
                biased;
                changed = self.peer.rhythm.changed() => match changed {
                    Ok(()) => self.change_rhythm(),
                    Err(_) => return self.leave().await,
                },
                () = tokio::time::sleep_until(self.schedule.next().into()) => self.tick().await,
                Some(connection) = self.peer.accepted.recv() => self.adopt(connection),
                dialled = finished(&mut self.dial) => {
                    self.dial = None;
                    match dialled {
                        Ok(connection) => self.adopt(connection),
                        Err(error) => self.note(error),
                    }
                }
                heard = hear(&mut self.session) => match heard {
                    Heard::Datagram(datagram) => self.heartbeat(&datagram),
                    Heard::Report(report) => self.report(report).await,
                    Heard::Request(request) => self.request(request).await,
                    Heard::Closed(error) => self.closed(&error),
                },
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.peer.state)
    }

    /// Keeps what went wrong, and logs it unless it is what went wrong before.
    fn note(&self, error: String) {
        let mut state = self.state();
        if state.last_error.as_ref() != Some(&error) {
            tracing::warn!(peer = self.peer.name, "{error}");
            state.last_error = Some(error);
        }
    }

    /// The newest authenticated connection is the one that counts: the peer has none older.
    fn adopt(&mut self, connection: Connection) {
        if let Some(old) = &self.session {
            Close::Replaced.apply(&old.connection, "a newer connection took over");
        }
        {
            let mut state = self.state();
            state.disconnect();
            state.connected = true;
            state.announced = 0;
            state.newest = 0;
        }
        self.skew = Skew::default();
        let Peer { name, own_site, report, opened, counters, .. } = &self.peer;
        let taker = Taker { peer: name.clone(), opened: opened.clone(), counters: Arc::clone(counters) };
        let speaker = (own_site.clone(), self.current.period);
        self.session = Some(Session::start(connection, speaker, report.clone(), taker));
        self.send_heartbeat();
    }

    /// The peer said something right on the session's connection.
    fn confirm(&mut self) {
        let Some(session) = &self.session else { return };
        {
            let state = self.state();
            if state.confirmed.borrow().is_some() {
                return;
            }
            state.confirmed.send_replace(Some(session.connection.clone()));
        }
        let remote = canonical(session.connection.remote_address());
        tracing::info!(peer = self.peer.name, %remote, "connected");
        if std::mem::replace(&mut self.connected_before, true) {
            self.peer.counters.reconnects.add();
        }
    }

    fn closed(&mut self, error: &ConnectionError) {
        let error = close::describe(error);
        if self.state().confirmed.borrow().is_some() {
            tracing::info!(peer = self.peer.name, "disconnected: {error}");
        }
        self.note(error);
        self.drop_session();
    }

    fn drop_session(&mut self) {
        self.session = None;
        self.skew = Skew::default();
        self.state().disconnect();
    }

    fn refuse(&mut self, error: &MessageError) {
        self.peer.counters.malformed.add();
        let error = format!("message refused: {error}");
        if let Some(session) = &self.session {
            Close::Malformed.apply(&session.connection, &error);
        }
        self.note(error);
        self.drop_session();
    }

    async fn tick(&mut self) {
        let tick = self.schedule.tick(Instant::now());
        self.send_heartbeat();
        match tick {
            Tick::Within => {}
            Tick::Stalled(length) => {
                self.skew.forget();
                self.peer.counters.stalls.add();
                tracing::warn!(peer = self.peer.name, "this agent stood still for {length:?}; contact is judged later");
            }
            Tick::PeriodEnds => {
                while let Some(datagram) = self.session.as_ref().and_then(Session::waiting_datagram) {
                    self.heartbeat(&datagram);
                }
                self.compare_clocks();
                let change = self.contact.end_period();
                self.state().periods = self.contact.periods().collect();
                let silent = self.contact.periods().last() == Some(false);
                // What it said out of contact stops to count as soon as it falls silent again.
                let change = change.or((silent && self.spoke).then_some(Change::Lost));
                if let Some(change) = change {
                    self.spoke = false;
                    self.tell_contact(change).await;
                }
            }
        }
    }

    fn send_heartbeat(&mut self) {
        if self.peer.alive.borrow().is_some_and(|until| until < Instant::now()) {
            return;
        }
        // An error means that the connection is closing, which is heard of elsewhere.
        if let Some(session) = &mut self.session
            && session.send_heartbeat().is_ok()
        {
            self.peer.counters.heartbeats_sent.add();
        }
    }

    fn heartbeat(&mut self, datagram: &Bytes) {
        match message::decode_heartbeat(datagram) {
            Ok(heartbeat) => {
                self.confirm();
                self.contact.heartbeat();
                self.peer.counters.heartbeats_received.add();
                self.skew.heartbeat(self.ahead(heartbeat.clock));
                let mut state = self.state();
                state.heartbeats += 1;
                // Datagrams may overtake each other.
                state.announced = state.announced.max(heartbeat.report);
            }
            Err(error) => self.refuse(&error),
        }
    }

    fn compare_clocks(&mut self) {
        let Some((ahead, turns_wrong)) = self.skew.end_period() else { return };
        self.state().clock_ahead = Some(ahead);
        if turns_wrong {
            tracing::warn!(
                peer = self.peer.name,
                ahead_ms = ahead,
                "the sites' clocks differ: of two changes of one row the later one is to win"
            );
        }
    }

    /// So many milliseconds the peer's clock is ahead of this site's, if it was this a moment ago.
    fn ahead(&self, clock: i64) -> i64 {
        let rtt = self.session.as_ref().map_or(Duration::ZERO, |session| session.connection.rtt());
        let half = i64::try_from((rtt / 2).as_millis()).unwrap_or(0);
        clock.saturating_add(half).saturating_sub(session::clock())
    }

    async fn report(&mut self, report: Result<ReportMessage, MessageError>) {
        let message = match report {
            Ok(message) if message.site == self.peer.name => message,
            Ok(message) => {
                let (claimed, expected) = (message.site, self.peer.name.clone());
                return self.refuse(&MessageError::Site { claimed, expected });
            }
            Err(error) => return self.refuse(&error),
        };
        self.confirm();
        {
            let mut state = self.state();
            if message.number <= state.newest {
                return;
            }
            state.newest = message.number;
        }
        if message.period != self.current.period {
            let (theirs, ours) = (message.period, self.current.period);
            self.note(format!("its heartbeat period is {theirs:?}, this site's {ours:?}: set the same at all sites"));
        }
        self.spoke = !self.contact.in_contact();
        let peer = self.peer.name.clone();
        self.tell(LinkEvent::Report { peer, report: message.report }).await;
    }

    async fn request(&mut self, request: Result<Asking, MessageError>) {
        match request {
            Ok((request, reply)) => {
                self.confirm();
                let peer = self.peer.name.clone();
                // As with events; the peer hears that there is no response.
                let _ = self.peer.asked.send(Asked { peer, request, reply }).await;
            }
            Err(error) => self.refuse(&error),
        }
    }

    async fn tell_contact(&mut self, change: Change) {
        let Rhythm { period, periods } = self.current;
        let reason = match change {
            Change::Gained => format!("heartbeats in each of the last {periods} periods of {period:?}"),
            Change::Lost => {
                let state = self.state();
                let why = state.last_error.as_ref().filter(|_| !state.connected);
                let why = why.map(|error| format!("; {error}")).unwrap_or_default();
                format!("no heartbeat in the last period of {period:?}{why}")
            }
        };
        self.set_contact(change == Change::Gained, reason).await;
    }

    async fn set_contact(&mut self, contact: bool, reason: String) {
        let words = if contact { "in contact" } else { "out of contact" };
        tracing::info!(peer = self.peer.name, "{words}: {reason}");
        {
            let mut state = self.state();
            if std::mem::replace(&mut state.contact, contact) != contact {
                state.since = SystemTime::now();
            }
        }
        self.tell(LinkEvent::Contact { peer: self.peer.name.clone(), contact, at: Instant::now(), reason }).await;
    }

    async fn tell(&mut self, event: LinkEvent) {
        // Nobody listens any more only when the agent stops.
        let _ = self.peer.events.send(event).await;
    }

    fn change_rhythm(&mut self) {
        let new = *self.peer.rhythm.borrow_and_update();
        let old = std::mem::replace(&mut self.current, new);
        self.contact.set_needed(new.periods);
        if old.period != new.period {
            self.schedule = Schedule::new(new.period, Instant::now());
        }
        if super::transport::idle_timeout(old.period) != super::transport::idle_timeout(new.period) {
            // A connection's idle timeout is fixed when it is made.
            self.close_session("the heartbeat period changed");
        }
    }

    fn close_session(&mut self, reason: &str) {
        if let Some(session) = &self.session {
            Close::Reconfigured.apply(&session.connection, reason);
        }
        self.drop_session();
    }

    /// This peer, as it was, is no longer configured.
    async fn leave(mut self) {
        self.close_session("no longer configured here");
        if self.contact.in_contact() || self.spoke {
            self.set_contact(false, "no longer configured".to_owned()).await;
        }
    }
}

async fn finished(dial: &mut Option<Dial>) -> Result<Connection, String> {
    match dial {
        Some(dial) => dial.await,
        None => pending().await,
    }
}

async fn hear(session: &mut Option<Session>) -> Heard {
    match session {
        Some(session) => session.hear().await,
        None => pending().await,
    }
}
