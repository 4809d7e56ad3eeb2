//! From what should become of requests to the maps' entries. Pure: nothing here touches the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
};

use siteswap_common::{
    maps::{
        AddressEntry, InstanceEntry, MAX_PORTS, PortEntry, RING_CHUNK, RING_CHUNKS, RingChunk, SETS, Steer, TARGETS,
        Target, TargetKind,
    },
    placing::{ADDRESSES, Places},
    steer::tunnel::OVERHEAD,
};

use super::tables::{self, Slots};
use crate::{
    config::Port,
    maglev,
    nexthop::{Hop, Hops},
};

/// Bytes that the tunnel adds to a packet.
#[expect(clippy::cast_possible_truncation, reason = "a few")]
const TUNNEL: u32 = OVERHEAD as u32;

/// What should become of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// The resources that have ports, by name.
    pub resources: BTreeMap<String, Resource>,
    /// This site's end of the tunnel.
    pub own_tunnel: Option<Ipv4Addr>,
    /// The peers' ends, by site.
    pub tunnels: BTreeMap<String, SocketAddrV4>,
}

/// What should become of requests for one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// What its requests are sent to, at every site.
    pub addresses: Vec<IpAddr>,
    /// And where there.
    pub ports: Vec<Port>,
    /// The resource's.
    pub epoch: u64,
    /// What becomes of a request that belongs to no established flow.
    pub arrival: Arrival,
    /// The site whose established flows go on there, if it is another than `arrival` says.
    pub leaving: Option<Leaving>,
    /// All backends of this site with their weights, and whether they pass their probes.
    pub backends: Vec<Backend>,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A backend serves it.
    Serve,
    /// It goes to this site.
    Forward(String),
    /// It is dropped.
    Refuse,
}

/// Where established flows go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// At this site's backends.
    Here,
    /// At this peer's.
    Peer(String),
}

/// A backend of this site's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// Its address on the LAN.
    pub address: IpAddr,
    /// Its share of new flows, in proportion to the others'.
    pub weight: u32,
    /// It passes its probes.
    pub up: bool,
}

/// What the maps hold, and whose it is. It is kept from one compilation to the next, and read from the maps by an agent that
/// is started anew: established flows know their targets by index.
#[derive(Clone, Debug, Default)]
pub struct Register {
    instances: Slots,
    held: BTreeMap<u32, InstanceEntry>,
    owners: BTreeMap<Owner, u32>,
    /// By index. Those of nobody keep their generation.
    targets: BTreeMap<u32, Target>,
    /// From here on an index for a new target is looked for, so that none is given away again soon.
    next: u32,
    rings: BTreeMap<u64, Ring>,
    /// Where no table was when this compilation began: first part, and the one after the last. One that goes away is not
    /// written over by another's at once, because a packet may be looking into it.
    gaps: Vec<(u32, u32)>,
}

/// The place and the size of no table.
const NOWHERE: (u32, u32) = (RING_CHUNKS, 0);

/// A resource's id, or 0 for a peer, and an address.
type Owner = (u64, [u8; 16]);

/// Where an instance's table of backends is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ring {
    /// Index of its first part.
    first: u32,
    /// Its parts. It has as many while no backend is up.
    chunks: u32,
    /// Entries; 0 if no backend is up.
    size: u32,
    /// The targets and weights it was made from; `None`: another agent made it.
    made_from: Option<Vec<(u32, maglev::Weighted)>>,
}

/// A change of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// In `INSTANCES`.
    Instance(u32, InstanceEntry),
    /// In `RINGS`.
    Chunk(u32, RingChunk),
    /// In `TARGETS`.
    Target(u32, Target),
}

/// Changes in an order in which nothing refers to what is not there: `before` the table of addresses is exchanged, and
/// `after` that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// What comes.
    pub before: Vec<Write>,
    /// What goes.
    pub after: Vec<Write>,
}

/// What goes into the maps behind `ADDRESSES` and `ADDRESS_SEEDS`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// By slot.
    pub entries: Vec<(u32, AddressEntry)>,
    /// By bucket.
    pub seeds: Vec<u32>,
    /// One address too many, and those after it.
    pub left: Vec<IpAddr>,
}

/// An address and what its entry says, before it has a slot.
pub type Claim = (IpAddr, AddressEntry);

impl Requests {
    /// What the program has no room for, and what becomes of that.
    pub fn crowded(&self) -> Vec<String> {
        let resources = || self.resources.values();
        let parts = |resource: &Resource| parts(resource.backends.len(), maglev::size(resource.backends.len()));
        let entries = resources().map(parts).map(u64::from).sum::<u64>() * u64::from(RING_CHUNK);
        let addresses = resources().map(|resource| resource.addresses.len() as u64).sum();
        let room = |what, wanted: u64, there_are: u64, then| {
            (wanted > there_are)
                .then(|| format!("{what} need {wanted} entries, but the program has {there_are}: {then}"))
        };
        let targets = targets(self, &Hops::new()).len() as u64;
        [
            room(
                "the backends' tables",
                entries,
                u64::from(RING_CHUNKS * RING_CHUNK),
                "those of some resources are made smaller, with less even shares, or not at all",
            ),
            // The first is nothing.
            room("backends and peers", targets, u64::from(TARGETS - 1), "it does not use all of them"),
            room("the resources' addresses", addresses, ADDRESSES.most() as u64, "the last are left to the host"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl Register {
    /// From what is in the maps.
    pub fn found(
        instances: impl IntoIterator<Item = (u32, InstanceEntry)>,
        targets: impl IntoIterator<Item = (u32, Target)>,
    ) -> Self {
        let mut register = Self::default();
        for (index, entry) in instances.into_iter().filter(|(_, entry)| entry.id != 0) {
            register.instances.insert(entry.id, index);
            register.held.insert(index, entry);
            let chunks = entry.ring_size.div_ceil(RING_CHUNK);
            let ring = Ring { first: entry.ring, chunks, size: entry.ring_size, made_from: None };
            register.rings.insert(entry.id, ring);
        }
        for (index, target) in targets.into_iter().filter(|(_, target)| *target != Target::NONE) {
            if target.address != [0; 16] {
                register.owners.insert((target.owner, target.address), index);
            }
            register.targets.insert(index, target);
            register.next = index + 1;
        }
        register
    }

    /// What must be written so that the maps say what `requests` does, with `hops` for the ways to backends and peers.
    pub fn compile(&mut self, requests: &Requests, hops: &Hops) -> Writes {
        let ids: Vec<u64> = requests.resources.keys().map(|name| tables::id(name)).collect();
        self.instances = tables::assign(&ids, &self.instances);
        let mut writes = Writes::default();
        let closed = self.place_targets(requests, hops, &mut writes);
        self.gaps = gaps(self.rings.values());
        self.rings.retain(|id, _| self.instances.contains_key(id));
        let mut instances = BTreeMap::new();
        for (resource, id) in requests.resources.values().zip(ids) {
            let index = self.instances[&id];
            if index < SETS {
                instances.insert(index, self.instance(id, resource, requests, &mut writes));
            }
        }
        for (index, entry) in &instances {
            if self.held.get(index) != Some(entry) {
                writes.before.push(Write::Instance(*index, *entry));
            }
        }
        let gone = self.held.keys().filter(|index| !instances.contains_key(index));
        writes.after.extend(gone.map(|index| Write::Instance(*index, InstanceEntry::NONE)));
        writes.after.extend(closed);
        self.held = instances;
        writes
    }

    /// All addresses of all resources, with their entries.
    pub fn claims(&self, requests: &Requests) -> Vec<Claim> {
        let mut claims = Vec::new();
        for (name, resource) in &requests.resources {
            let id = tables::id(name);
            let Some(&instance) = self.instances.get(&id).filter(|index| **index < SETS) else { continue };
            let mut ports = [PortEntry::default(); MAX_PORTS];
            for (entry, port) in ports.iter_mut().zip(&resource.ports) {
                *entry = PortEntry { protocol: port.protocol.number(), reserved: 0, port: port.number };
            }
            let port_count = u32::try_from(resource.ports.len().min(MAX_PORTS)).expect("a few");
            for address in &resource.addresses {
                let entry = AddressEntry { address: mapped(*address), instance_id: id, instance, port_count, ports };
                claims.push((*address, entry));
            }
        }
        claims
    }

    /// Gives every backend and every peer an index, and says what is there. Gives back what is closed when nothing refers
    /// to it any more.
    fn place_targets(&mut self, requests: &Requests, hops: &Hops, writes: &mut Writes) -> Vec<Write> {
        let (wanted, mut closed) = (targets(requests, hops), Vec::new());
        let gone: Vec<_> = self.owners.keys().filter(|owner| !wanted.contains_key(*owner)).copied().collect();
        // With those that go now: they are closed when all else is written.
        let mut taken: BTreeSet<u32> = self.owners.values().copied().collect();
        for owner in gone {
            let index = self.owners.remove(&owner).expect("just listed");
            let generation = self.targets[&index].generation;
            closed.extend(self.target(index, Target { generation, ..Target::NONE }));
        }
        for (owner, target) in wanted {
            let Some(index) = self.owners.get(&owner).copied().or_else(|| self.free_target(&mut taken)) else {
                tracing::error!("more than {TARGETS} backends and peers: the program does not use all of them");
                break;
            };
            let last = self.targets.get(&index);
            let generation = match (self.owners.insert(owner, index), last) {
                (Some(_), Some(last)) => last.generation,
                (None, Some(last)) => last.generation % 255 + 1,
                // Not 0, which a closed one would be taken for after a restart.
                (_, None) => 1,
            };
            let reachable = target.kind != TargetKind::None as u32;
            let list = if reachable { &mut writes.before } else { &mut closed };
            list.extend(self.target(index, Target { generation, ..target }));
        }
        closed
    }

    /// What must be written so that this target is there.
    fn target(&mut self, index: u32, target: Target) -> Option<Write> {
        let changed = self.targets.insert(index, target) != Some(target);
        changed.then_some(Write::Target(index, target))
    }

    /// An index that nobody has.
    fn free_target(&mut self, taken: &mut BTreeSet<u32>) -> Option<u32> {
        let next = self.next.max(1);
        let index = (next..TARGETS).chain(1..next).find(|index| !taken.contains(index))?;
        taken.insert(index);
        self.next = index + 1;
        Some(index)
    }

    fn instance(&mut self, id: u64, resource: &Resource, requests: &Requests, writes: &mut Writes) -> InstanceEntry {
        let peer = |site: &String| {
            let tunnel = requests.tunnels.get(site)?;
            self.owners.get(&(0, mapped((*tunnel.ip()).into()))).copied()
        };
        let (steer, peer_index) = match &resource.arrival {
            Arrival::Serve => (Steer::Serve, 0),
            Arrival::Forward(site) if requests.tunnels.contains_key(site) => (Steer::Forward, peer(site).unwrap_or(0)),
            // Of a resource at one site only, which needs no tunnel: the host's routes lead there.
            Arrival::Forward(_) => (Steer::Pass, 0),
            Arrival::Refuse => (Steer::Refuse, 0),
        };
        let (stay, leaving) = match &resource.leaving {
            None => (0, 0),
            Some(Leaving::Here) => (1, 0),
            Some(Leaving::Peer(site)) => (0, peer(site).unwrap_or(0)),
        };
        let (first, size) = self.ring(id, resource, writes);
        InstanceEntry {
            id,
            epoch: resource.epoch,
            ring: first,
            ring_size: size,
            steer: steer as u32,
            peer: peer_index,
            leaving,
            stay,
        }
    }

    /// The instance's table of backends: its first part and its size. If its backends have changed it is made anew, in the
    /// same place if that is large enough: a packet that looks into it meanwhile finds an old backend or a new one, and
    /// those that go are closed later.
    fn ring(&mut self, id: u64, resource: &Resource, writes: &mut Writes) -> (u32, u32) {
        let backends = self.reachable(id, resource);
        if let Some(ring) = self.rings.get(&id).filter(|ring| ring.made_from.as_ref() == Some(&backends)) {
            return ring.place();
        }
        let Some((first, chunks, size)) = self.place_of_ring(id, resource.backends.len()) else {
            tracing::error!("no room for one more table of backends: its resource is not served by the program");
            return NOWHERE;
        };
        let weighted: Vec<_> = backends.iter().map(|(_, weighted)| *weighted).collect();
        let table = maglev::table(&weighted, size);
        let target = |&backend: &u32| u16::try_from(backends[backend as usize].0).expect("fewer than 65,536 targets");
        let targets: Vec<u16> = table.iter().map(target).collect();
        for (chunk, part) in (first..).zip(targets.chunks(RING_CHUNK as usize)) {
            let mut entry = RingChunk { targets: [0; RING_CHUNK as usize] };
            entry.targets[..part.len()].copy_from_slice(part);
            writes.before.push(Write::Chunk(chunk, entry));
        }
        let size = u32::try_from(table.len()).expect("a table of bounded size");
        let ring = Ring { first, chunks, size, made_from: Some(backends) };
        let place = ring.place();
        self.rings.insert(id, ring);
        place
    }

    /// Where the instance's table of so many backends goes, in how many parts, and how many entries it has: fewer than it
    /// should, for less even shares, rather than none.
    fn place_of_ring(&mut self, id: u64, backends: usize) -> Option<(u32, u32, usize)> {
        let old = self.rings.remove(&id);
        [maglev::size(backends), maglev::size(1)].into_iter().find_map(|size| {
            let chunks = parts(backends, size);
            let same = old.as_ref().filter(|ring| ring.chunks == chunks).map(|ring| ring.first);
            same.or_else(|| self.room(chunks)).map(|first| (first, chunks, size))
        })
    }

    /// The resource's backends that requests can be sent to: their targets and weights.
    fn reachable(&self, id: u64, resource: &Resource) -> Vec<(u32, maglev::Weighted)> {
        let target = |backend: &Backend| {
            let index = *self.owners.get(&(id, mapped(backend.address)))?;
            let is_there = self.targets.get(&index)?.kind == TargetKind::Backend as u32;
            is_there.then_some((index, ((backend.address, 0).into(), backend.weight)))
        };
        resource.backends.iter().filter_map(target).collect()
    }

    /// The first place for so many parts of a table.
    fn room(&mut self, chunks: u32) -> Option<u32> {
        let (first, _) = self.gaps.iter_mut().find(|(first, end)| end - *first >= chunks)?;
        *first += chunks;
        Some(*first - chunks)
    }
}

impl Ring {
    /// Where the program looks: nowhere if there is nothing.
    fn place(&self) -> (u32, u32) {
        if self.size == 0 { NOWHERE } else { (self.first, self.size) }
    }
}

/// The parts of a table of this size for so many backends.
fn parts(backends: usize, size: usize) -> u32 {
    let chunks = if backends == 0 { 0 } else { size.div_ceil(RING_CHUNK as usize) };
    u32::try_from(chunks).expect("a table of bounded size")
}

/// What lies between the tables.
fn gaps<'a>(rings: impl Iterator<Item = &'a Ring>) -> Vec<(u32, u32)> {
    let mut taken: Vec<_> = rings.map(|ring| (ring.first, ring.first + ring.chunks)).collect();
    taken.sort_unstable();
    taken.push((RING_CHUNKS, RING_CHUNKS));
    let (mut gaps, mut free) = (Vec::new(), 0);
    for (first, end) in taken {
        if first > free {
            gaps.push((free, first));
        }
        free = free.max(end);
    }
    gaps
}

/// Slots for the addresses of `claims`.
pub fn addresses(claims: &[Claim]) -> Addresses {
    let hashes: Vec<u64> = claims.iter().map(|(_, entry)| entry.hash()).collect();
    let Places { seeds, slots } = ADDRESSES.place(&hashes);
    let mut addresses = Addresses { seeds, ..Addresses::default() };
    for ((address, entry), slot) in claims.iter().zip(slots) {
        match slot {
            Some(slot) => addresses.entries.push((slot, *entry)),
            None => addresses.left.push(*address),
        }
    }
    addresses
}

/// Every backend and every peer, without generations.
fn targets(requests: &Requests, hops: &Hops) -> BTreeMap<Owner, Target> {
    let mut targets = BTreeMap::new();
    for tunnel in requests.tunnels.values() {
        let address = mapped((*tunnel.ip()).into());
        let hop = hops.get(&IpAddr::V4(*tunnel.ip())).and_then(|hop| hop.as_ref().ok());
        let nothing = Target { address, ..Target::NONE };
        let target = match (hop, requests.own_tunnel) {
            (Some(hop), Some(own)) => Target {
                kind: TargetKind::Peer as u32,
                mtu: hop.mtu.saturating_sub(TUNNEL),
                source: own.octets(),
                destination: tunnel.ip().octets(),
                port: tunnel.port().into(),
                ..through(hop, nothing)
            },
            _ => nothing,
        };
        targets.insert((0, address), target);
    }
    for (name, resource) in &requests.resources {
        let owner = tables::id(name);
        for backend in &resource.backends {
            let address = mapped(backend.address);
            let hop = hops.get(&backend.address).and_then(|hop| hop.as_ref().ok());
            let nothing = Target { address, owner, ..Target::NONE };
            let target = match hop {
                // Behind a gateway, the gateway would get the frames: they have the resource's address.
                Some(hop) if backend.up && hop.gateway.is_none() => {
                    Target { kind: TargetKind::Backend as u32, ..through(hop, nothing) }
                }
                _ => nothing,
            };
            targets.insert((owner, address), target);
        }
    }
    targets
}

fn through(hop: &Hop, target: Target) -> Target {
    Target { interface: hop.interface, to: hop.mac, from: hop.source_mac, ..target }
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests;
