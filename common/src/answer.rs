//! The DNS fast path: one pure function from a frame and the tables to an outcome.

use crate::{
    answers::Kind,
    maps::{AnswerSet, MAX_ADDRESSES, NameEntry},
    network::{Datagram, Link, Network, UDP_HEADER, V4, V6},
    outcome::Outcome,
    packet::Packet,
    placing::NAMES,
    query::Query,
    reply::{A, Aaaa, Reply},
};

/// What the agent tells the fast path.
pub trait Tables {
    /// Whether queries to this IPv4 address are answered.
    fn serves_v4(&self, address: u32) -> bool;

    /// Whether queries to this IPv6 address, its upper half first, are answered.
    fn serves_v6(&self, address: [u64; 2]) -> bool;

    /// What holds for every packet now.
    fn present(&self) -> Present;

    /// The seed in that table for a bucket of names ([`NAMES`]).
    fn seed(&self, names: u32, bucket: u32) -> Option<u32>;

    /// The entry in a slot of that table ([`NAMES`]).
    fn name(&self, names: u32, slot: u32) -> Option<&NameEntry>;

    /// The set with this index.
    fn set(&self, index: u32) -> Option<&AnswerSet>;
}

/// What holds for every packet, and is asked for once.
#[derive(Clone, Copy, Debug)]
pub struct Present {
    /// Whether the agent's lease runs.
    pub leased: bool,
    /// The current table of names.
    pub names: u32,
    /// The current table of addresses.
    pub addresses: u32,
    /// What flow hashes begin with: [`Control::flow_seed`](crate::maps::Control::flow_seed).
    pub flow_seed: u64,
    /// Nanoseconds since the kernel started, to a few milliseconds.
    pub now: u64,
}

/// Answers `packet` in place if it is a plain query for a name in `tables`. **Decides before it writes**: whenever the
/// outcome's action is to pass, the frame is exactly as it came.
#[inline(always)]
pub fn respond<P: Packet, T: Tables>(packet: &mut P, link: Link, tables: &T) -> Outcome {
    match link {
        Link::V4(offset) => answer::<V4, P, T>(packet, offset, tables),
        Link::V6(offset) => answer::<V6, P, T>(packet, offset, tables),
    }
}

#[inline(always)]
fn answer<N: Network, P: Packet, T: Tables>(packet: &mut P, network: usize, tables: &T) -> Outcome {
    match decide::<N, P, T>(packet, network, tables) {
        Ok((datagram, query, set)) => match query.kind {
            Kind::A => Reply::<N, A>::new(datagram, query, set).write(packet),
            Kind::Aaaa => Reply::<N, Aaaa>::new(datagram, query, set).write(packet),
        },
        Err(outcome) => outcome,
    }
}

#[inline(always)]
fn decide<'a, N: Network, P: Packet, T: Tables>(
    packet: &mut P,
    network: usize,
    tables: &'a T,
) -> Result<(Datagram<N>, Query, &'a AnswerSet), Outcome> {
    let datagram = Datagram::<N>::parse(packet, network, tables)?;
    let Present { leased: true, names, .. } = tables.present() else { return Err(Outcome::NoLease) };
    let start = datagram.start + UDP_HEADER;
    let mut query = Query::parse(packet, start, datagram.start + datagram.length)?;
    let hash = query.name.hash(packet).ok_or(Outcome::ShortQuery)?;
    let seed = tables.seed(names, NAMES.bucket(hash)).ok_or(Outcome::UnknownName)?;
    let entry = tables.name(names, NAMES.slot(hash, seed)).ok_or(Outcome::UnknownName)?;
    if !query.name.is(packet, entry) {
        return Err(Outcome::UnknownName);
    }
    let set = tables.set(entry.set).filter(|set| set.id == entry.set_id).ok_or(Outcome::TableChanging)?;
    let count = match query.kind {
        Kind::A => set.v4_count,
        Kind::Aaaa => set.v6_count,
    };
    if count == 0 || usize::from(count) > MAX_ADDRESSES {
        return Err(Outcome::NoAddress);
    }
    Ok((datagram, query, set))
}
