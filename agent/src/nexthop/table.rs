//! The decision: from what the kernel said of links, neighbours and routes to next hops. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Hop, Hops, Unresolved};

/// What the kernel said, as far as it matters here.
#[derive(Debug, Default)]
pub struct Table {
    /// The interfaces by their indices.
    pub links: BTreeMap<u32, Link>,
    /// The neighbours whose MAC is known, and only those.
    pub neighbours: BTreeMap<NeighbourKey, Neighbour>,
    /// How the kernel would send to each watched address.
    pub routes: BTreeMap<IpAddr, Result<Route, Unresolved>>,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// `None`: it is not Ethernet.
    pub mac: Option<[u8; 6]>,
    /// In bytes, without the Ethernet header.
    pub mtu: u32,
    /// Set up, and with a carrier.
    pub up: bool,
}

/// Index of the interface, and an address on its network.
pub type NeighbourKey = (u32, IpAddr);

/// A neighbour that can be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Where frames go.
    pub mac: [u8; 6],
    /// Written by an administrator (PERMANENT) or implied by the interface (NOARP): the kernel never asks for it.
    pub fixed: bool,
}

/// The kernel's answer for one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Index of the outgoing interface.
    pub interface: u32,
    /// The router in between, if any.
    pub gateway: Option<IpAddr>,
    /// The address the kernel would send from.
    pub source: Option<IpAddr>,
    /// The route's own MTU.
    pub mtu: Option<u32>,
}

impl Route {
    /// Whose MAC is needed to send to `address` this way.
    pub fn neighbour(&self, address: IpAddr) -> NeighbourKey {
        (self.interface, self.gateway.unwrap_or(address))
    }
}

/// Something changed, so the kernel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// An interface is like this now, or is gone.
    Link(u32, Option<Link>),
    /// A neighbour has this MAC now, or none that is known.
    Neighbour(NeighbourKey, Option<Neighbour>),
    /// Routes may lead elsewhere now, for the addresses of this prefix or for all.
    Routes(Option<Prefix>),
    /// There was more than the socket could hold.
    Missed,
}

/// An address block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Its first address.
    pub address: IpAddr,
    /// Leading bits that count.
    pub length: u8,
}

impl Prefix {
    fn contains(self, address: IpAddr) -> bool {
        let differs = match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => u128::from(a.to_bits() ^ b.to_bits()) << 96,
            (IpAddr::V6(a), IpAddr::V6(b)) => a.to_bits() ^ b.to_bits(),
            _ => return false,
        };
        u32::from(self.length) <= differs.leading_zeros()
    }
}

impl Table {
    /// Takes a piece of news in. Returns the addresses whose route must be looked up again.
    pub fn learn(&mut self, news: News) -> BTreeSet<IpAddr> {
        match news {
            News::Link(index, link) => {
                // The kernel tells much of a link that is not new here. What is may have changed any route: those of an
                // interface that went down disappear without a word of their own.
                if self.links.get(&index) == link.as_ref() {
                    return BTreeSet::new();
                }
                put(&mut self.links, index, link);
                self.addresses(|_, _| true)
            }
            News::Neighbour(key, neighbour) => {
                put(&mut self.neighbours, key, neighbour);
                // A neighbour is lost when its interface goes down, and that may come after the news of the interface
                // itself but with the loss of its routes.
                self.addresses(|address, route| {
                    neighbour.is_none() && route.as_ref().is_ok_and(|route| route.neighbour(address) == key)
                })
            }
            News::Routes(prefix) => self.addresses(|address, _| prefix.is_none_or(|prefix| prefix.contains(address))),
            News::Missed => BTreeSet::new(),
        }
    }

    fn addresses(&self, affected: impl Fn(IpAddr, &Result<Route, Unresolved>) -> bool) -> BTreeSet<IpAddr> {
        self.routes.iter().filter(|(address, route)| affected(**address, route)).map(|(address, _)| *address).collect()
    }

    /// The next hop of every address that has been looked up.
    pub fn hops(&self) -> Hops {
        self.routes
            .iter()
            .map(|(&address, route)| (address, route.clone().and_then(|route| self.hop(address, &route))))
            .collect()
    }

    fn hop(&self, address: IpAddr, route: &Route) -> Result<Hop, Unresolved> {
        // A link nobody knows has just gone, and its routes with it.
        let link = self.links.get(&route.interface).ok_or(Unresolved::NoRoute)?;
        let interface = link.name.clone();
        if !link.up {
            return Err(Unresolved::Down { interface });
        }
        let Some(source_mac) = link.mac else {
            return Err(Unresolved::NotEthernet { interface });
        };
        let Some(source) = route.source else {
            return Err(Unresolved::NoSource { interface });
        };
        let Some(neighbour) = self.neighbours.get(&route.neighbour(address)) else {
            return Err(Unresolved::NoNeighbour { gateway: route.gateway, interface });
        };
        Ok(Hop {
            interface: route.interface,
            name: interface,
            source_mac,
            mac: neighbour.mac,
            mtu: route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
            source,
            gateway: route.gateway,
        })
    }

    /// The neighbour the kernel should be made to ask for, so that `address` is resolved or stays so.
    pub fn asks(&self, address: IpAddr) -> Option<NeighbourKey> {
        let route = self.routes.get(&address)?.as_ref().ok()?;
        let key = route.neighbour(address);
        match self.hop(address, route) {
            // Asked for, a permanent entry would lose its permanence.
            Ok(_) => (!self.neighbours[&key].fixed).then_some(key),
            Err(Unresolved::NoNeighbour { .. }) => Some(key),
            Err(_) => None,
        }
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

#[cfg(test)]
mod tests;
