//! The DNS fast path: one pure function from a frame and the tables to an outcome.

use crate::{
    maps::{AnswerSet, NameEntry},
    network::{Datagram, Link, Network, UDP_HEADER, V4, V6},
    outcome::Outcome,
    packet::Packet,
    query::Query,
    reply::Reply,
};

/// What the agent tells the fast path.
pub trait Tables {
    /// Whether queries to this IPv4 address are answered.
    fn serves_v4(&self, address: u32) -> bool;

    /// Whether queries to this IPv6 address, its upper half first, are answered.
    fn serves_v6(&self, address: [u64; 2]) -> bool;

    /// Whether the agent's lease still runs.
    fn leased(&self) -> bool;

    /// The entry under a name's hash.
    fn name(&self, hash: u64) -> Option<&NameEntry>;

    /// The set with this index.
    fn set(&self, index: u32) -> Option<&AnswerSet>;
}

/// Answers `packet` in place if it is a plain query for a name in `tables`. **Decides before it writes**: whenever the
/// outcome's action is to pass, the frame is exactly as it came.
#[inline(always)]
pub fn respond<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Outcome {
    match Link::parse(packet) {
        Ok(Link::V4(offset)) => answer::<V4, P, T>(packet, offset, tables),
        Ok(Link::V6(offset)) => answer::<V6, P, T>(packet, offset, tables),
        Err(outcome) => outcome,
    }
}

#[inline(always)]
fn answer<N: Network, P: Packet, T: Tables>(packet: &mut P, network: usize, tables: &T) -> Outcome {
    match decide::<N, P, T>(packet, network, tables) {
        Ok(reply) => reply.write(packet),
        Err(outcome) => outcome,
    }
}

#[inline(always)]
fn decide<'a, N: Network, P: Packet, T: Tables>(
    packet: &P,
    network: usize,
    tables: &'a T,
) -> Result<Reply<'a, N>, Outcome> {
    let datagram = Datagram::<N>::parse(packet, network, tables)?;
    if !tables.leased() {
        return Err(Outcome::NoLease);
    }
    let start = datagram.start + UDP_HEADER;
    let query = Query::parse(packet, start, datagram.start + datagram.length)?;
    let hash = query.name.hash(packet).ok_or(Outcome::ShortQuery)?;
    let entry = tables.name(hash).filter(|entry| query.name.is(packet, entry)).ok_or(Outcome::UnknownName)?;
    let set = tables.set(entry.set).filter(|set| set.id == entry.set_id).ok_or(Outcome::TableChanging)?;
    Reply::new(packet, datagram, query, set)
}
