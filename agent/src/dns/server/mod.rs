//! The sockets: UDP and TCP on each configured address, so that every reply leaves from the address that was asked.

mod socket;
mod tcp;
mod udp;

use std::{
    collections::BTreeMap,
    mem,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    net::{TcpListener, UdpSocket},
    task::JoinHandle,
};

pub use socket::BindError;
use tcp::Connections;

use super::{
    outcome::{Counters, Outcome, bump},
    respond::{Transport, respond},
    zone::Zones,
};
use crate::answers::AnswerTable;

/// After the kernel refused to read or accept, for want of descriptors or memory say: rest, do not spin.
const PAUSE: Duration = Duration::from_millis(20);

/// What queries are answered from; replaced as a whole, so that no answer mixes two configurations.
#[derive(Clone, Debug)]
pub struct State {
    /// The zones.
    pub zones: Arc<Zones>,
    /// `None` until the first complete round of probes: until then queries are read and dropped.
    pub table: Option<Arc<AnswerTable>>,
}

/// Bounds on what clients can hold on to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// TCP connections at a time, over all addresses. One more, and the one idle for longest is closed (RFC 7766
    /// §6.2.3).
    pub connections: usize,
    /// A TCP connection is closed when no complete query came, or a reply was not taken, for this long.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { connections: 256, idle: Duration::from_secs(10) }
    }
}

/// The running name server. Dropping it closes its sockets and connections.
#[derive(Debug)]
pub struct Server {
    context: Arc<Context>,
    listeners: BTreeMap<SocketAddr, Listener>,
}

/// Addresses that are to be served, and sockets for those that were not.
#[derive(Debug)]
pub struct Bound {
    wanted: Vec<SocketAddr>,
    new: BTreeMap<SocketAddr, (UdpSocket, TcpListener)>,
}

/// What all tasks share.
#[derive(Debug)]
struct Context {
    state: Arc<ArcSwap<State>>,
    counters: Arc<Counters>,
    limits: Limits,
    connections: Connections,
}

/// The two tasks of one address; they end with it.
#[derive(Debug)]
struct Listener(Vec<JoinHandle<()>>);

impl Server {
    /// Binds and serves at once. Replies come from whatever `state` holds when a query is read.
    ///
    /// # Errors
    ///
    /// If any address cannot be bound, none is served.
    pub async fn bind(
        addresses: &[IpAddr],
        port: u16,
        state: Arc<ArcSwap<State>>,
        limits: Limits,
    ) -> Result<Self, BindError> {
        let mut server = Server {
            context: Arc::new(Context { state, counters: Arc::default(), limits, connections: Connections::default() }),
            listeners: BTreeMap::new(),
        };
        server.rebind(addresses, port).await?;
        Ok(server)
    }

    /// Serves these addresses from now on: new ones are bound before old ones are closed, and those in both sets are
    /// not touched. TCP connections already accepted go on.
    ///
    /// # Errors
    ///
    /// If any new address cannot be bound, everything stays as it was.
    pub async fn rebind(&mut self, addresses: &[IpAddr], port: u16) -> Result<(), BindError> {
        let bound = self.prepare(addresses, port)?;
        self.switch(bound).await;
        Ok(())
    }

    /// Binds what is new among these addresses, to be served after a [`switch`](Self::switch).
    ///
    /// # Errors
    ///
    /// If any of them cannot be bound.
    pub fn prepare(&self, addresses: &[IpAddr], port: u16) -> Result<Bound, BindError> {
        let wanted: Vec<SocketAddr> = addresses.iter().map(|address| SocketAddr::new(*address, port)).collect();
        let mut new = BTreeMap::new();
        for &address in &wanted {
            if !self.listeners.contains_key(&address) && !new.contains_key(&address) {
                new.insert(address, (socket::udp(address)?, socket::tcp(address)?));
            }
        }
        Ok(Bound { wanted, new })
    }

    /// Serves these addresses and no others.
    pub async fn switch(&mut self, Bound { wanted, new }: Bound) {
        for (address, (udp, tcp)) in new {
            let tasks = [
                tokio::spawn(udp::serve(udp, self.context.clone())),
                tokio::spawn(tcp::serve(tcp, self.context.clone())),
            ];
            self.listeners.insert(address, Listener(tasks.into()));
        }
        let gone: Vec<SocketAddr> = self.addresses().filter(|address| !wanted.contains(address)).collect();
        for address in gone {
            if let Some(listener) = self.listeners.remove(&address) {
                listener.close().await;
            }
        }
    }

    /// The addresses being served.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listeners.keys().copied()
    }

    /// Counts of everything since `bind`.
    pub fn counters(&self) -> Arc<Counters> {
        self.context.counters.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.context.connections.close_all();
    }
}

impl Listener {
    /// Returns when the sockets are closed, so that the address can be bound again.
    async fn close(mut self) {
        for task in mem::take(&mut self.0) {
            task.abort();
            // Cancelled, as it was told.
            let _ = task.await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Context {
    /// Answers and counts one query.
    fn answer(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        bump(match transport {
            Transport::Udp => &self.counters.udp,
            Transport::Tcp => &self.counters.tcp,
        });
        let state = self.state.load();
        let Some(table) = &state.table else {
            self.counters.count(Outcome::NotReady);
            return None;
        };
        match respond(query, transport, &state.zones, table) {
            Some(response) => {
                self.counters.count(response.outcome);
                Some(response.bytes)
            }
            None => {
                self.counters.count(Outcome::Silent);
                None
            }
        }
    }
}
