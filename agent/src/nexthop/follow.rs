//! Keeps the hops as the kernel's routes and neighbours are, and the neighbours known.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    net::IpAddr,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
    time::Duration,
};

use rtnetlink::Error;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Hops, Unresolved,
    netlink::Kernel,
    table::{News, Table},
};

/// News come in bursts: what comes this soon after the first is taken together with it.
const BURST: Duration = Duration::from_millis(10);

/// How often the route and the neighbour of a resolved address are looked after.
///
/// The kernel trusts a neighbour's MAC for half a minute or so. Then the entry is STALE, and the next packet sent to it
/// starts a confirmation. The program's frames pass the kernel's stack by and start none: such an entry would stay
/// STALE, however wrong its MAC has become, or be discarded as unused. So the kernel is told now and then that the
/// entry is used. (It can do that by itself, with NTF_EXT_MANAGED, but those entries outlive the agent.)
const REFRESH: Duration = Duration::from_secs(15);

/// How often one that is not resolved is. The kernel asks three times, a second apart, and then gives up.
const RETRY: Duration = Duration::from_secs(3);

/// Follows until nobody gives addresses any more.
pub async fn follow(
    mut kernel: Kernel,
    mut addresses: watch::Receiver<BTreeSet<IpAddr>>,
    hops: watch::Sender<Arc<Hops>>,
) {
    loop {
        let Err(ended) = run(kernel, &mut addresses, &hops).await;
        let pause = match ended {
            Ended::Unwanted => return,
            Ended::Missed => {
                tracing::debug!("news of routes and neighbours were missed: reading them again");
                Duration::from_millis(100)
            }
            Ended::Broken(error) => {
                tracing::warn!("routes and neighbours cannot be followed, trying again: {error}");
                Duration::from_secs(1)
            }
        };
        kernel = loop {
            sleep(pause).await;
            match Kernel::connect() {
                Ok(kernel) => break kernel,
                Err(error) => tracing::warn!(%error, "no netlink socket for routes and neighbours, trying again"),
            }
        };
    }
}

/// Why following ended.
enum Ended {
    /// Nobody gives addresses any more.
    Unwanted,
    /// The kernel dropped news. What is still in the socket is older than what was dropped, so a new socket is needed
    /// before all is read again.
    Missed,
    /// The kernel cannot be asked, or heard.
    Broken(String),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Broken(error.to_string())
    }
}

async fn run(
    mut kernel: Kernel,
    addresses: &mut watch::Receiver<BTreeSet<IpAddr>>,
    hops: &watch::Sender<Arc<Hops>>,
) -> Result<Infallible, Ended> {
    // The kernel's news are heard already: what changes while it is read is not lost.
    let table = kernel.read().await?;
    let (resolved, unresolved) = sort(&hops.borrow());
    let mut follower = Follower {
        kernel,
        table,
        resolved: Round::new(REFRESH, resolved),
        unresolved: Round::new(RETRY, unresolved),
        hops,
    };
    let wanted = addresses.borrow_and_update().clone();
    follower.watch(wanted).await?;
    loop {
        follower.publish().await;
        follower.step(addresses).await?;
    }
}

struct Follower<'a> {
    kernel: Kernel,
    table: Table,
    resolved: Round,
    unresolved: Round,
    hops: &'a watch::Sender<Arc<Hops>>,
}

impl Follower<'_> {
    /// Waits for whatever comes first, and deals with it.
    async fn step(&mut self, addresses: &mut watch::Receiver<BTreeSet<IpAddr>>) -> Result<(), Ended> {
        tokio::select! {
            changed = addresses.changed() => {
                changed.map_err(|_| Ended::Unwanted)?;
                let wanted = addresses.borrow_and_update().clone();
                self.watch(wanted).await?;
            }
            news = self.kernel.next() => {
                let first = news.ok_or_else(|| Ended::Broken("the connection is closed".to_owned()))?;
                self.learn(first).await?;
            }
            () = self.resolved.turn() => {
                let address = self.resolved.next();
                self.look_after(address).await?;
            }
            () = self.unresolved.turn() => {
                let address = self.unresolved.next();
                self.look_after(address).await?;
            }
        }
        Ok(())
    }

    async fn watch(&mut self, wanted: BTreeSet<IpAddr>) -> Result<(), Error> {
        self.table.routes.retain(|address, _| wanted.contains(address));
        let new = wanted.into_iter().filter(|address| !self.table.routes.contains_key(address)).collect();
        self.look_up(new).await
    }

    async fn learn(&mut self, first: News) -> Result<(), Ended> {
        sleep(BURST).await;
        let mut affected = BTreeSet::new();
        let news: Vec<News> = std::iter::once(first).chain(self.kernel.pending()).collect();
        for news in news {
            if news == News::Missed {
                return Err(Ended::Missed);
            }
            affected.append(&mut self.table.learn(news));
        }
        Ok(self.look_up(affected).await?)
    }

    async fn look_after(&mut self, address: IpAddr) -> Result<(), Error> {
        self.look_up([address].into()).await?;
        self.ask(address).await;
        Ok(())
    }

    async fn look_up(&mut self, addresses: BTreeSet<IpAddr>) -> Result<(), Error> {
        for address in addresses {
            let route = self.kernel.route(address).await?;
            self.table.routes.insert(address, route);
        }
        Ok(())
    }

    /// Makes the kernel ask for the neighbour that leads to `address`, if that makes sense.
    async fn ask(&mut self, address: IpAddr) {
        if let Some(key) = self.table.asks(address)
            && let Err(error) = self.kernel.ask(key).await
        {
            // The interface may have gone meanwhile. What matters shows in the hops, and the next turn comes.
            tracing::debug!(%address, "the kernel does not ask for the neighbour: {error}");
        }
    }

    /// Shows what changed, and has new gaps filled.
    async fn publish(&mut self) {
        let new = self.table.hops();
        let old = Arc::clone(&self.hops.borrow());
        if *old == new {
            return;
        }
        let gaps: Vec<IpAddr> = new
            .iter()
            .filter(|(address, hop)| {
                matches!(hop, Err(Unresolved::NoNeighbour { .. })) && old.get(*address) != Some(hop)
            })
            .map(|(address, _)| *address)
            .collect();
        let (resolved, unresolved) = sort(&new);
        self.resolved.set(resolved);
        self.unresolved.set(unresolved);
        self.hops.send_replace(Arc::new(new));
        for address in gaps {
            self.ask(address).await;
        }
    }
}

/// The addresses that are resolved, and those that are not.
fn sort(hops: &Hops) -> (BTreeSet<IpAddr>, BTreeSet<IpAddr>) {
    hops.keys().partition(|address| hops[address].is_ok())
}

/// Gives each address of a set its turn once in a period, evenly spread.
struct Round {
    period: Duration,
    addresses: BTreeSet<IpAddr>,
    last: Option<IpAddr>,
    turned: Instant,
}

impl Round {
    fn new(period: Duration, addresses: BTreeSet<IpAddr>) -> Self {
        Self { period, addresses, last: None, turned: Instant::now() }
    }

    fn set(&mut self, addresses: BTreeSet<IpAddr>) {
        if self.addresses.is_empty() {
            self.turned = Instant::now();
        }
        self.addresses = addresses;
    }

    /// Waits until a turn is due.
    async fn turn(&self) {
        match u32::try_from(self.addresses.len()) {
            Ok(0) | Err(_) => std::future::pending().await,
            Ok(count) => sleep_until(self.turned + self.period / count).await,
        }
    }

    /// Whose turn it is. There must be one.
    fn next(&mut self) -> IpAddr {
        self.turned = Instant::now();
        let after = self.last.map_or(Unbounded, Excluded);
        let next = self.addresses.range((after, Unbounded)).next().or(self.addresses.first());
        self.last = next.copied();
        self.last.expect("a turn is due only where there is an address")
    }
}
