//! Whether the public addresses of a peer that is not in contact still answer this site: what `takeover = "confirmed"`
//! asks before it believes the silence.
//!
//! A peer that lives must not be taken for dead because this host cannot send: only what was sent in vain counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{self, SocketAddr},
    os::fd::AsRawFd,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket},
};
use tokio::{
    net::TcpStream,
    sync::{Notify, Semaphore},
    task::{AbortHandle, JoinSet},
    time,
};

use super::{lock, next_start};
use crate::{
    config::{Config, Instance, Protocol, Resource, Role, Takeover},
    evidence::Lost,
};

/// A connection across the wide area may take this long, however impatient the probes on the LAN are.
const PATIENCE: Duration = Duration::from_secs(1);

/// Connections tried at the same time, over all peers and resources.
const AT_ONCE: usize = 256;

/// Tries the addresses of the peers it is told are silent. It stops when this is dropped.
pub struct Reach {
    tasks: BTreeMap<(String, String), Task>,
    changed: Arc<Notify>,
    permits: Arc<Semaphore>,
}

/// What is tried for one resource of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    addresses: Vec<SocketAddr>,
    interval: Duration,
    timeout: Duration,
    fall: u32,
}

/// Rounds in a row without one connection.
#[derive(Clone, Debug)]
struct Rounds {
    needed: u32,
    failed: u32,
    /// What the last of them tried.
    tried: Vec<SocketAddr>,
}

/// What one round tells of the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    /// It is there.
    Answered,
    /// Nothing answers at these addresses, and they are [`enough`].
    InVain(Vec<SocketAddr>),
    /// This host could not send, and why.
    Nothing(String),
}

struct Task {
    target: Target,
    rounds: Arc<Mutex<Rounds>>,
    handle: AbortHandle,
}

impl Default for Reach {
    fn default() -> Self {
        Self { tasks: BTreeMap::new(), changed: Arc::default(), permits: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Reach {
    /// Tries the addresses of these peers from now on, and of no others. What is being tried already goes on; what is
    /// not tried any more is forgotten.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn watch<'a>(&mut self, config: &Config, silent: impl Iterator<Item = &'a str>) {
        let mut before = std::mem::take(&mut self.tasks);
        for peer in silent {
            for (resource, target) in targets(config, peer) {
                let key = (peer.to_owned(), resource.to_owned());
                let same = before.remove(&key).filter(|task| task.target == target);
                let task = same.unwrap_or_else(|| self.start(target));
                self.tasks.insert(key, task);
            }
        }
    }

    /// Ends when what [`lost`](Self::lost) gives has changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// By peer, the resources whose addresses did not answer in enough rounds in a row, and what was tried.
    pub fn lost(&self) -> BTreeMap<String, Lost> {
        let mut lost = BTreeMap::<String, Lost>::new();
        for ((peer, resource), task) in &self.tasks {
            let rounds = lock(&task.rounds);
            if rounds.lost() {
                lost.entry(peer.clone()).or_default().insert(resource.clone(), in_vain(&rounds.tried));
            }
        }
        lost
    }

    fn start(&self, target: Target) -> Task {
        let rounds = Arc::new(Mutex::new(Rounds { needed: target.fall, failed: 0, tried: Vec::new() }));
        let work = run(target.clone(), Arc::clone(&rounds), Arc::clone(&self.changed), Arc::clone(&self.permits));
        Task { target, rounds, handle: tokio::spawn(work).abort_handle() }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// For people.
fn in_vain(tried: &[SocketAddr]) -> String {
    let shown: Vec<String> = tried.iter().take(4).map(ToString::to_string).collect();
    let more = tried.len() - shown.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("nothing answers at {}{more}", shown.join(", "))
}

impl Rounds {
    /// Takes the next round's result in. Says whether that changed what is believed.
    fn observe(&mut self, told: Told) -> bool {
        let before = self.lost();
        match told {
            Told::InVain(tried) => {
                self.failed = self.failed.saturating_add(1);
                self.tried = tried;
            }
            // What was believed is too old once nothing can be learnt any more.
            Told::Answered | Told::Nothing(_) => self.failed = 0,
        }
        before != self.lost()
    }

    fn lost(&self) -> bool {
        self.failed >= self.needed
    }
}

/// The addresses of `peer` that are tried while it is silent, by resource.
pub fn confirming<'a>(config: &'a Config, peer: &str) -> BTreeMap<&'a str, Vec<SocketAddr>> {
    targets(config, peer).into_iter().map(|(resource, target)| (resource, target.addresses)).collect()
}

/// What of `peer` is tried, by resource: where this site may take over from it once it is known to be lost.
fn targets<'a>(config: &'a Config, peer: &str) -> BTreeMap<&'a str, Target> {
    let target = |(name, resource): (&'a String, &'a Resource)| {
        let serves = |site: &str| resource.instances.get(site).filter(|instance| instance.role != Role::Disabled);
        let (own, theirs) = (serves(&config.site)?, serves(peer)?);
        let ports = ports(resource, own, theirs);
        let endpoints = |address| ports.iter().map(move |port| SocketAddr::new(address, *port));
        let addresses: Vec<SocketAddr> = theirs.addresses.iter().copied().flat_map(endpoints).collect();
        let probe = &resource.probe;
        let timeout = probe.timeout.max(PATIENCE);
        let target = Target { addresses, interval: probe.interval, timeout, fall: probe.fall };
        (resource.takeover == Takeover::Confirmed && !target.addresses.is_empty()).then_some((name.as_str(), target))
    };
    config.resources.iter().filter_map(target).collect()
}

/// The resource's TCP ports; where none is named, those of the peer's backends, or of this site's if they are not known. None,
/// if it has no TCP: nobody can tell then whether it is served there.
fn ports(resource: &Resource, own: &Instance, theirs: &Instance) -> BTreeSet<u16> {
    let named = resource.ports.iter().filter(|port| port.protocol == Protocol::Tcp && port.number != 0);
    let named: BTreeSet<u16> = named.map(|port| port.number).collect();
    let tcp = resource.ports.is_empty() || resource.ports.iter().any(|port| port.protocol == Protocol::Tcp);
    if !named.is_empty() || !tcp {
        return named;
    }
    let backends = if theirs.backends.is_empty() { &own.backends } else { &theirs.backends };
    backends.iter().map(SocketAddr::port).collect()
}

async fn run(target: Target, rounds: Arc<Mutex<Rounds>>, changed: Arc<Notify>, permits: Arc<Semaphore>) {
    let mut able = true;
    loop {
        let start = Instant::now();
        let told = round(&target, &permits).await;
        if let Told::Nothing(why) = &told
            && able
        {
            tracing::warn!("a silent peer cannot be tried, and nothing is taken over for its silence: {why}");
        }
        able = !matches!(told, Told::Nothing(_));
        if lock(&rounds).observe(told) {
            changed.notify_one();
        }
        time::sleep_until(next_start(start, target.interval, Instant::now()).into()).await;
    }
}

/// Tries all addresses once; the first connection is enough.
async fn round(target: &Target, permits: &Arc<Semaphore>) -> Told {
    let mut tries = JoinSet::new();
    for address in target.addresses.iter().copied() {
        let (permits, patience) = (Arc::clone(permits), target.timeout);
        tries.spawn(async move {
            let _permit = permits.acquire().await;
            (address, answers(address, patience).await)
        });
    }
    let mut untried = BTreeMap::new();
    while let Some(done) = tries.join_next().await {
        match done {
            Ok((_, Ok(true))) => return Told::Answered,
            Ok((address, Err(error))) => drop(untried.insert(address, error)),
            Ok((_, Ok(false))) | Err(_) => {}
        }
    }
    unanswered(&target.addresses, &untried)
}

/// What a round tells in which none of the addresses answered.
fn unanswered(addresses: &[SocketAddr], untried: &BTreeMap<SocketAddr, io::Error>) -> Told {
    let (left, tried): (Vec<_>, Vec<_>) = addresses.iter().partition(|address| untried.contains_key(address));
    if enough(&tried, &left) {
        return Told::InVain(tried);
    }
    let why = untried.iter().map(|(address, error)| format!("{address}: {error}"));
    Told::Nothing(why.collect::<Vec<_>>().join(", "))
}

/// Whether a peer is lost if none of `tried` answers, though this host cannot send to `untried`: it may live at any of
/// those. But a site may have no IPv6 at all. That it has no IPv4 would be a failure: tunnels need it.
pub fn enough(tried: &[SocketAddr], untried: &[SocketAddr]) -> bool {
    let without_v6 = untried.iter().all(SocketAddr::is_ipv6) && !tried.iter().any(SocketAddr::is_ipv6);
    !tried.is_empty() && (untried.is_empty() || without_v6)
}

/// Whether a connection is accepted in time.
///
/// Errors: this host cannot send there, so that nothing is learnt.
async fn answers(address: SocketAddr, patience: Duration) -> io::Result<bool> {
    let stream = TcpStream::from_std(begin(address)?)?;
    let ended = time::timeout(patience, stream.writable()).await;
    Ok(matches!(ended, Ok(Ok(()))) && matches!(stream.take_error(), Ok(None)))
}

/// Sends the first packet, and does not wait.
///
/// The kernel looks up the route first, and it is here that it says itself that there is none, or one that forbids it.
/// An EHOSTUNREACH or ENETUNREACH after that is a router's word that it cannot reach the peer, which counts. So does a
/// gateway of this site's that does not answer ARP: the kernel says so after three seconds only, and until then it looks
/// like a peer that is silent.
fn begin(address: SocketAddr) -> io::Result<net::TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::net::TcpListener;

    use super::*;
    use crate::config;

    const FILE: &str = r#"
[agent]
site = "west"
[sites.east]
link = "10.255.0.1:7400"
tunnel = "10.255.0.1:7401"
fingerprint = "sha256:0000000000000000000000000000000000000000000000000000000000000001"
[sites.west]
link = "10.255.0.2:7400"
tunnel = "10.255.0.2:7401"
fingerprint = "sha256:0000000000000000000000000000000000000000000000000000000000000002"
[link]
key = "site.pem"
[dns]
listen = ["192.0.2.2"]
[resources.orders]
PORTS
probe = { tcp = true, interval = "10ms", fall = 3 }
[resources.orders.sites.east]
role = "active"
addresses = ["127.0.0.1", "::1"]
[resources.orders.sites.west]
role = "standby"
addresses = ["198.51.100.81"]
backends = ["10.2.0.21:7001", "10.2.0.22:7001"]
"#;

    fn config(ports: &str) -> Config {
        config::parse(&FILE.replace("PORTS", ports), Path::new("/etc/siteswap/test.toml")).unwrap()
    }

    fn tried(ports: &str) -> Vec<String> {
        let config = config(ports);
        let targets = targets(&config, "east");
        targets.get("orders").map(|t| t.addresses.iter().map(ToString::to_string).collect()).unwrap_or_default()
    }

    #[test]
    fn the_tcp_ports_are_tried_and_where_none_is_named_those_of_the_backends() {
        let named = ["127.0.0.1:80", "127.0.0.1:443", "[::1]:80", "[::1]:443"];
        assert_eq!(tried(r#"ports = ["tcp/443", "udp/53", "tcp/80"]"#), named);
        let backends = ["127.0.0.1:7001", "[::1]:7001"];
        for ports in ["", r#"ports = ["tcp/any"]"#] {
            assert_eq!(tried(ports), backends, "{ports}");
        }
        let other = r#"ports = ["tcp/80"]
takeover = "silence""#;
        assert!(tried(other).is_empty(), "only what has to be confirmed");
        assert!(tried(r#"ports = ["udp/53"]"#).is_empty(), "nothing that does not answer if it is there");
    }

    #[test]
    fn rounds_in_a_row_are_believed_and_one_that_answers_or_cannot_be_made_takes_it_back() {
        let cases = [
            ("---", "..L"),
            ("--+---", ".....L"),
            ("----+", "..L.A"),
            ("+", "."),
            ("????", "...."),
            ("--?--", "....."),
            ("---?", "..LA"),
        ];
        for (results, expected) in cases {
            let mut rounds = Rounds { needed: 3, failed: 0, tried: Vec::new() };
            let told = |result| match result {
                '+' => Told::Answered,
                '-' => Told::InVain(Vec::new()),
                _ => Told::Nothing(String::new()),
            };
            let observe = |result| match (rounds.observe(told(result)), rounds.lost()) {
                (false, _) => '.',
                (true, true) => 'L',
                (true, false) => 'A',
            };
            assert_eq!(results.chars().map(observe).collect::<String>(), expected, "{results}");
        }
    }

    #[test]
    fn a_round_tells_nothing_if_an_address_cannot_be_tried_unless_this_site_has_no_ipv6() {
        let all = ["192.0.2.80:80", "192.0.2.81:80", "[2001:db8::80]:80", "[2001:db8::81]:80"];
        let [a, b, six, seven] = all.map(|text| text.parse().unwrap());
        let told = |untried: &[SocketAddr]| {
            let error = || io::Error::from(io::ErrorKind::NetworkUnreachable);
            unanswered(&[a, b, six, seven], &untried.iter().map(|address| (*address, error())).collect())
        };
        assert_eq!(told(&[]), Told::InVain(vec![a, b, six, seven]));
        assert_eq!(told(&[six, seven]), Told::InVain(vec![a, b]));
        assert_eq!(told(&[b]), Told::Nothing("192.0.2.81:80: network unreachable".to_owned()));
        for untried in [vec![six], vec![a, b], vec![b, six, seven], vec![a, b, six, seven]] {
            assert!(matches!(told(&untried), Told::Nothing(_)), "{untried:?}");
        }
    }

    #[tokio::test]
    async fn a_silent_peers_addresses_are_lost_after_some_rounds_answer_again_and_are_forgotten_in_contact() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let config = config(&format!("ports = [\"tcp/{}\"]", address.port()));
        let mut reach = Reach::default();
        let change = async |reach: &Reach| time::timeout(Duration::from_secs(30), reach.changed()).await.unwrap();

        reach.watch(&config, ["east"].into_iter());
        assert!(reach.lost().is_empty(), "nothing before the rounds are over");
        change(&reach).await;
        let tried = format!("nothing answers at {address}, [::1]:{}", address.port());
        assert_eq!(reach.lost()["east"]["orders"], tried);

        let _listener = TcpListener::bind(address).await.unwrap();
        change(&reach).await;
        assert!(reach.lost().is_empty(), "one answer of one address is enough");
        reach.watch(&config, std::iter::empty());
        assert!(reach.tasks.is_empty());
    }
}
