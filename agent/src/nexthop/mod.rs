//! Next hops: where the program must send a frame so that it reaches an address.
//!
//! An XDP program sends past the kernel's stack, so it needs what the stack would have found out: the interface, the
//! MACs, the MTU, the source address. The kernel's own routes and neighbours say all of that; this module looks them up
//! for a set of addresses and follows their changes. `table` decides, from what the kernel said; `netlink` asks the
//! kernel; `follow` joins the two.

mod follow;
mod netlink;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::IpAddr,
    sync::Arc,
};

use tokio::{sync::watch, task::JoinHandle};

/// How frames for one address leave this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Index of the outgoing interface.
    pub interface: u32,
    /// Its name.
    pub name: String,
    /// Its own MAC: the frame's source.
    pub source_mac: [u8; 6],
    /// The frame's destination: the MAC of the address itself, or of the gateway.
    pub mac: [u8; 6],
    /// The largest IP packet that fits the path, in bytes: the route's MTU if it has one (set by hand, or learned from
    /// the path), but never more than the interface's.
    pub mtu: u32,
    /// The address the kernel would send from.
    pub source: IpAddr,
    /// The router in between. `None`: the address is on the interface's own network.
    pub gateway: Option<IpAddr>,
}

/// Why frames for an address cannot be sent now, and what would mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// No route, not even a default one.
    #[error("this host has no route to it; add one with `ip route add`")]
    NoRoute,
    /// A route that forbids it: blackhole, unreachable, prohibit.
    #[error("this host's routes forbid it ({why}); `ip route get` shows the route, `ip route del` removes it")]
    Refused {
        /// What the kernel said.
        why: String,
    },
    /// The address is this host's own.
    #[error(
        "it is an address of this host itself; take it away with `ip addr del`, or name the host that should have it"
    )]
    Local,
    /// Multicast or broadcast.
    #[error("it is a multicast or broadcast address; name a host's own")]
    NotUnicast,
    /// The interface is down, or nothing is at the cable's other end.
    #[error(
        "the way to it is {interface}, which is down or has no carrier; \
         `ip link set {interface} up`, or see to its cable"
    )]
    Down {
        /// Its name.
        interface: String,
    },
    /// The program makes Ethernet frames only.
    #[error("the way to it is {interface}, which is not Ethernet; route it through an Ethernet interface")]
    NotEthernet {
        /// Its name.
        interface: String,
    },
    /// The kernel has no address to send from.
    #[error("this host has no address to send from; `ip addr add ADDRESS/PREFIX dev {interface}`")]
    NoSource {
        /// The outgoing interface's name.
        interface: String,
    },
    /// Nobody has told a MAC, by ARP or neighbour discovery.
    #[error(
        "{} does not answer on {interface} (no MAC is known); is that host up and on this network? \
         `ip neigh show dev {interface}` shows who is",
        Asked(gateway)
    )]
    NoNeighbour {
        /// The router that should have answered; `None`: the address itself.
        gateway: Option<IpAddr>,
        /// The interface's name.
        interface: String,
    },
}

struct Asked<'a>(&'a Option<IpAddr>);

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(gateway) => write!(f, "its gateway {gateway}"),
            None => f.write_str("it"),
        }
    }
}

/// The next hop of every watched address.
pub type Hops = BTreeMap<IpAddr, Result<Hop, Unresolved>>;

/// Those of `addresses` that the kernel has no route to, or one that forbids it, and which. No neighbour is asked.
///
/// Errors: the kernel gives no netlink socket, or no answer.
pub async fn unrouted(addresses: impl IntoIterator<Item = IpAddr>) -> io::Result<BTreeMap<IpAddr, Unresolved>> {
    let mut kernel = netlink::Kernel::connect()?;
    let mut unrouted = BTreeMap::new();
    for address in addresses {
        let route = kernel.route(address).await.map_err(io::Error::other)?;
        if let Err(why @ (Unresolved::NoRoute | Unresolved::Refused { .. })) = route {
            unrouted.insert(address, why);
        }
    }
    Ok(unrouted)
}

/// Follows the next hops of a set of addresses, until dropped.
#[derive(Debug)]
pub struct NextHops(JoinHandle<()>);

impl NextHops {
    /// Starts following, within a tokio runtime, in the network namespace of the calling thread. Ends, too, when the
    /// sender of `addresses` is dropped.
    ///
    /// The hops are empty until the kernel was read for the first time, and change only when a hop does. An address
    /// whose neighbour is not known yet is [`Unresolved::NoNeighbour`] at first, while the kernel asks for it.
    ///
    /// Errors: the kernel gives no netlink socket.
    pub fn start(addresses: watch::Receiver<BTreeSet<IpAddr>>) -> io::Result<(Self, watch::Receiver<Arc<Hops>>)> {
        let (sender, receiver) = watch::channel(Arc::default());
        let kernel = netlink::Kernel::connect()?;
        Ok((Self(tokio::spawn(follow::follow(kernel, addresses, sender))), receiver))
    }
}

impl Drop for NextHops {
    fn drop(&mut self) {
        self.0.abort();
    }
}
