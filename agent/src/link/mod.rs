//! The link: authenticated QUIC sessions between the sites' agents.
//!
//! Of two sites, the one whose name sorts first dials the other. Each end proves that it holds the key whose fingerprint
//! the other has configured (`trust`). Heartbeats go as datagrams, three in each period, and decide contact
//! ([`contact`]); reports go whole, each on a stream of its own, when they change and on every new connection
//! ([`message`]). An operator's order for another site goes as a request, on a stream that its response comes back on.
//! For what lasts longer each site opens streams of frames to each peer ([`Opener`]), and hears of the peer's ([`Opened`]).

mod accept;
mod backoff;
mod close;
pub mod contact;
mod dial;
pub mod frames;
pub mod keys;
pub mod message;
mod opener;
mod peer;
mod schedule;
mod session;
mod skew;
mod status;
mod streams;
mod transport;
mod trust;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use quinn::{AsyncUdpSocket, Connection, Endpoint, VarInt};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};

use crate::{
    config::{Config, Fingerprint, Site},
    evidence::Report,
};

use accept::{Acceptor, Admitted};
use dial::Dialler;
use frames::{Frames, Topic};
use keys::Identity;
use message::{Request, Response};
use peer::{Peer, Rhythm, State, locked};
use status::Counters;

pub use close::Close;
pub use opener::Opener;
pub use schedule::HEARTBEATS_PER_PERIOD;
pub use skew::is_wrong;
pub use status::{LinkCounters, PeerStatus};
pub use transport::HANDSHAKE_TIMEOUT;

/// What the link has found out.
#[derive(Clone, Debug)]
pub enum LinkEvent {
    /// A peer came into contact or fell out of it. Every peer begins out of contact, without an event. One that reports
    /// out of contact, and then falls silent before it is in contact, is said to be out of contact once more.
    Contact {
        /// The peer's site.
        peer: String,
        /// In contact now.
        contact: bool,
        /// When that was decided.
        at: Instant,
        /// Why, for people.
        reason: String,
    },
    /// What a peer says about its instances. It replaces what it said before, also when it says the same again.
    Report {
        /// The peer's site.
        peer: String,
        /// All of its instances.
        report: Report,
    },
}

/// A peer's agent asks this one to do something, because an operator has ordered it there.
#[derive(Debug)]
pub struct Asked {
    /// The peer's site.
    pub peer: String,
    /// What it asks.
    pub request: Request,
    /// Where the response goes. Dropped, the peer hears that there is none.
    pub reply: oneshot::Sender<Response>,
}

/// A peer's agent has opened a stream of frames. It opens one at a time about each topic; a newer one replaces it.
#[derive(Debug)]
pub struct Opened {
    /// The peer's site.
    pub peer: String,
    /// What it is about.
    pub topic: Topic,
    /// Both directions of the stream.
    pub frames: Frames,
}

/// What the link tells the agent.
#[derive(Clone, Debug)]
pub struct Inbox {
    /// What it has found out.
    pub events: mpsc::Sender<LinkEvent>,
    /// What peers ask.
    pub asked: mpsc::Sender<Asked>,
    /// Streams that peers have opened. One that finds no room here is closed, and its peer opens another later.
    pub opened: mpsc::Sender<Opened>,
}

/// Why the link does not start, or does not take a new configuration, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Another program has the port.
    #[error("link.listen {0}: another program uses this UDP address; find it with: ss -ulpn 'sport = :{port}', or choose another port", port = .0.port())]
    InUse(SocketAddr),
    /// The host does not have the address.
    #[error("link.listen {0}: this host has no such address; compare with: ip address")]
    NotLocal(SocketAddr),
    /// The port is reserved.
    #[error("link.listen {0}: not allowed; use a port above 1023, or grant CAP_NET_BIND_SERVICE")]
    NotAllowed(SocketAddr),
    /// Anything else the system says.
    #[error("link.listen {0}: {1}")]
    Io(SocketAddr, io::Error),
    /// The configuration gives this site another key.
    #[error(
        "the key in {key} has the fingerprint {found}, but sites.{site}.fingerprint is {configured}: name the right key file in link.key, or correct the fingerprint at all sites"
    )]
    OtherKey {
        /// `link.key`
        key: PathBuf,
        /// The key's.
        found: Fingerprint,
        /// This site.
        site: String,
        /// The site's, as configured.
        configured: Fingerprint,
    },
    /// A key stands for one site.
    #[error("sites {0} and {1} have the same fingerprint; give each site a key of its own with: siteswap keygen")]
    SameKey(String, String),
    /// This agent's site is not among the sites.
    #[error("site {0:?} has no section [sites.{0}]")]
    NoSite(String),
    /// The TLS library refused our settings.
    #[error("cannot prepare TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// Reload cannot change this.
    #[error("{0} changed; restart the agent to use it")]
    NeedsRestart(&'static str),
}

/// Asks a peer's agent, on the connection that there was.
#[derive(Clone, Debug)]
pub struct Asker {
    peer: String,
    connection: Option<Connection>,
}

impl Asker {
    /// As [`Link::ask`].
    pub fn ask(&self, request: Request) -> impl Future<Output = Result<Response, String>> + Send + use<> {
        let Self { peer, connection } = self.clone();
        async move {
            let connection = connection.ok_or_else(|| format!("{peer} is not connected"))?;
            streams::ask(connection, request).await.map_err(|error| format!("{peer} gave no response: {error}"))
        }
    }
}

/// The running link. Its tasks stop when it is closed or dropped.
#[derive(Debug)]
pub struct Link {
    endpoint: Endpoint,
    socket: Weak<dyn AsyncUdpSocket>,
    identity: Identity,
    own_site: String,
    listen: SocketAddr,
    key: PathBuf,
    peers: BTreeMap<String, Handle>,
    admitted: Arc<ArcSwap<Admitted>>,
    counters: Arc<Counters>,
    report: watch::Receiver<Report>,
    /// Until when heartbeats are sent; without end if nothing is said.
    alive: watch::Sender<Option<Instant>>,
    inbox: Inbox,
    acceptor: AbortHandle,
}

/// A peer's task; it ends when `rhythm` is dropped.
#[derive(Debug)]
struct Handle {
    site: Site,
    rhythm: watch::Sender<Rhythm>,
    accepted: mpsc::Sender<Connection>,
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

impl Link {
    /// Listens, and connects to the peers. `report` is what this site's peers are told; its value now is sent first.
    ///
    /// Must be called within a tokio runtime. What comes into `inbox` must be read: a peer whose events wait is not heard.
    ///
    /// # Errors
    /// The address cannot be listened on, or keys and configuration do not fit together.
    pub async fn start(
        config: &Config,
        identity: Identity,
        report: watch::Receiver<Report>,
        inbox: Inbox,
    ) -> Result<Self, LinkError> {
        check(config, &identity)?;
        let listen = config.link.listen;
        let server = transport::base_server(&identity, Arc::default(), config.link.period)?;
        let (endpoint, socket) =
            transport::open(listen, &identity, server.clone()).map_err(|error| bind_error(listen, error))?;
        let (admitted, counters) = (Arc::<ArcSwap<Admitted>>::default(), Arc::<Counters>::default());
        let acceptor = Acceptor {
            endpoint: endpoint.clone(),
            identity: identity.clone(),
            server,
            admitted: Arc::clone(&admitted),
            counters: Arc::clone(&counters),
        };
        let mut link = Self {
            endpoint,
            socket,
            identity,
            own_site: config.site.clone(),
            listen,
            key: config.link.key.clone(),
            peers: BTreeMap::new(),
            admitted,
            counters,
            report,
            alive: watch::Sender::new(None),
            inbox,
            acceptor: tokio::spawn(acceptor.run()).abort_handle(),
        };
        link.apply(config);
        Ok(link)
    }

    /// Heartbeats are sent until then, or until this is said again: an agent that stands still is not to be taken for one
    /// that is well.
    pub fn alive_until(&self, moment: Instant) {
        self.alive.send_replace(Some(moment));
    }

    /// The peers by name.
    pub fn status(&self) -> Vec<PeerStatus> {
        let status = |(name, handle): (&String, &Handle)| locked(&handle.state).status(name);
        self.peers.iter().map(status).collect()
    }

    /// What was counted since the start.
    pub fn counters(&self) -> LinkCounters {
        self.counters.read()
    }

    /// Asks a peer's agent; what it gives can be awaited without this link. The error says why there is no response, after
    /// some seconds at most. What was asked may have been done nevertheless.
    pub fn ask(&self, peer: &str, request: Request) -> impl Future<Output = Result<Response, String>> + Send + use<> {
        self.asker(peer).ask(request)
    }

    /// For requests of which it is known later what they are.
    pub fn asker(&self, peer: &str) -> Asker {
        let connection = self.peers.get(peer).and_then(|handle| locked(&handle.state).confirmed());
        Asker { peer: peer.to_owned(), connection }
    }

    /// Can this peer be asked now?
    pub fn connected(&self, peer: &str) -> bool {
        self.peers.get(peer).is_some_and(|handle| locked(&handle.state).confirmed().is_some())
    }

    /// Opens streams of frames about this to this peer, for as long as it is configured as it is now. `None`: there is no
    /// such peer.
    pub fn opener(&self, peer: &str, topic: Topic) -> Option<Opener> {
        let connected = locked(&self.peers.get(peer)?.state).follow();
        Some(Opener::new(topic, connected, Arc::clone(&self.counters)))
    }

    /// Where the link listens, with the port the system chose if port 0 was configured.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Takes a new configuration: new and changed peers, the period and the number of periods. Connections of peers
    /// that stay as they were stay up.
    ///
    /// # Errors
    /// It does not fit this site's key, or changes what only a restart can. Then nothing has changed.
    pub fn reload(&mut self, config: &Config) -> Result<(), LinkError> {
        self.check(config)?;
        self.apply(config);
        Ok(())
    }

    /// Could it take this configuration?
    ///
    /// # Errors
    /// As of [`reload`](Self::reload).
    pub fn check(&self, config: &Config) -> Result<(), LinkError> {
        check(config, &self.identity)?;
        if config.site != self.own_site {
            return Err(LinkError::NeedsRestart("site"));
        }
        if config.link.listen != self.listen {
            return Err(LinkError::NeedsRestart("link.listen"));
        }
        if config.link.key != self.key {
            return Err(LinkError::NeedsRestart("link.key"));
        }
        Ok(())
    }

    /// Says goodbye to the peers and stops. The address is free afterwards, if those who hold streams drop them when they
    /// end, as they do now.
    pub async fn close(self) {
        let socket = self.socket.clone();
        drop(self);
        let released = async {
            while socket.strong_count() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        // Long enough to send what is to be sent; a peer that does not hear it notices soon.
        let _ = tokio::time::timeout(Duration::from_secs(1), released).await;
    }

    fn apply(&mut self, config: &Config) {
        let rhythm = Rhythm { period: config.link.period, periods: config.link.periods };
        // What else is said of a site is none of the link's business.
        let same = |new: &Site, old: &Site| (new.link, new.fingerprint) == (old.link, old.fingerprint);
        self.peers.retain(|name, handle| config.sites.get(name).is_some_and(|site| same(site, &handle.site)));
        for (name, site) in config.sites.iter().filter(|(name, _)| **name != self.own_site) {
            match self.peers.get(name) {
                Some(handle) => {
                    handle.rhythm.send_if_modified(|old| std::mem::replace(old, rhythm) != rhythm);
                }
                None => {
                    let handle = self.start_peer(name, site, rhythm);
                    self.peers.insert(name.clone(), handle);
                }
            }
        }
        let dials_us = |(name, _): &(&String, &Handle)| **name < self.own_site;
        let diallers = self.peers.iter().filter(dials_us);
        self.admitted.store(Arc::new(Admitted {
            pins: Arc::new(self.peers.iter().map(|(name, handle)| (handle.site.fingerprint, name.clone())).collect()),
            diallers: diallers.map(|(name, handle)| (name.clone(), handle.accepted.clone())).collect(),
            addresses: self.peers.values().map(|handle| handle.site.link.ip().to_canonical()).collect(),
        }));
    }

    fn start_peer(&self, name: &str, site: &Site, rhythm: Rhythm) -> Handle {
        let (rhythm, rhythm_receiver) = watch::channel(rhythm);
        let (accepted, accepted_receiver) = mpsc::channel(2);
        let state = State::new();
        let target = (name.to_owned(), site.link, site.fingerprint);
        let dialler = (*self.own_site < *name)
            .then(|| Dialler::new(self.endpoint.clone(), self.identity.clone(), target, Arc::clone(&self.counters)));
        let peer = Peer {
            name: name.to_owned(),
            own_site: self.own_site.clone(),
            rhythm: rhythm_receiver,
            report: self.report.clone(),
            alive: self.alive.subscribe(),
            accepted: accepted_receiver,
            dialler,
            events: self.inbox.events.clone(),
            asked: self.inbox.asked.clone(),
            opened: self.inbox.opened.clone(),
            counters: Arc::clone(&self.counters),
            state: Arc::clone(&state),
        };
        Handle { site: site.clone(), rhythm, accepted, state, task: tokio::spawn(peer.run()).abort_handle() }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.endpoint.close(VarInt::from_u32(Close::Stopping as u32), b"the agent stops");
        self.acceptor.abort();
        for handle in self.peers.values() {
            handle.task.abort();
            locked(&handle.state).disconnect();
        }
    }
}

fn check(config: &Config, identity: &Identity) -> Result<(), LinkError> {
    let site = &config.site;
    let own = config.sites.get(site).ok_or_else(|| LinkError::NoSite(site.clone()))?;
    if own.fingerprint != identity.fingerprint() {
        return Err(LinkError::OtherKey {
            key: config.link.key.clone(),
            found: identity.fingerprint(),
            site: site.clone(),
            configured: own.fingerprint,
        });
    }
    let mut seen = BTreeMap::new();
    for (name, site) in &config.sites {
        if let Some(other) = seen.insert(site.fingerprint, name) {
            return Err(LinkError::SameKey(other.clone(), name.clone()));
        }
    }
    Ok(())
}

fn bind_error(listen: SocketAddr, error: io::Error) -> LinkError {
    match error.kind() {
        io::ErrorKind::AddrInUse => LinkError::InUse(listen),
        io::ErrorKind::AddrNotAvailable => LinkError::NotLocal(listen),
        io::ErrorKind::PermissionDenied => LinkError::NotAllowed(listen),
        _ => LinkError::Io(listen, error),
    }
}
