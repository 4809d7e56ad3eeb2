//! The tunnel between two sites' programs: whole IP packets in UDP over IPv4, behind a header of sixteen bytes.
//!
//! | bytes | |
//! |---|---|
//! | 0 | version, 1 |
//! | 1 | mark: 1 forwarded, 2 echo request, 4 echo reply |
//! | 2–3 | zero |
//! | 4–7 | sending site: FNV-1a of its name, 32 bits |
//! | 8–15 | the resource's epoch as the sender knows it |
//!
//! Numbers are in network order. UDP has no checksum: what is inside has its own (RFC 768; compare RFC 6935).
#![expect(clippy::cast_possible_truncation, reason = "fields are cut out of wider words")]

use super::Tables;
use crate::{
    maps::Target,
    network::{DONT_FRAGMENT, ETHERNET_HEADER, ETHERTYPE_V4, FRAGMENT, HOPS, Link, UDP, UDP_HEADER, V4_HEADER, sum},
    outcome::Outcome,
    packet::{Le, Packet},
};

const VERSION: u32 = 1;
/// The mark of a forwarded packet.
pub const FORWARDED: u8 = 1;
/// The mark of a question whether this end answers.
pub const ECHO: u8 = 2;
/// The mark of the answer.
pub const ECHO_REPLY: u8 = 4;

/// Bytes of the header.
pub const HEADER: usize = 16;
/// Bytes that the tunnel adds to a packet.
pub const OVERHEAD: usize = V4_HEADER + UDP_HEADER + HEADER;
/// Source ports begin here (RFC 6335 section 6); a flow keeps its own, so that it keeps its path and order.
const FIRST_PORT: u32 = 0xc000;

/// Who forwarded a packet.
#[derive(Clone, Copy, Debug)]
pub struct From {
    /// Where what it forwarded ends at the latest.
    pub end: usize,
    /// The epoch that the sender knows of the resource.
    pub epoch: u64,
}

/// What a site calls itself in the header: FNV-1a, 32 bits, of its name.
pub const fn site(name: &str) -> u32 {
    let (bytes, mut hash, mut index) = (name.as_bytes(), 0x811c_9dc5_u32, 0);
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u32).wrapping_mul(0x0100_0193);
        index += 1;
    }
    hash
}

/// The first words of a header.
pub const fn header(mark: u8, site: u32) -> [u32; 2] {
    [VERSION << 24 | (mark as u32) << 16, site]
}

/// Opens a packet that came through the tunnel: where the one inside begins, and who forwarded it. One that did not is as
/// it was, and nobody did.
#[inline(always)]
pub fn open<P: Packet, T: Tables>(
    packet: &mut P,
    link: Link,
    leased: bool,
    tables: &T,
) -> Result<(Link, Option<From>), Outcome> {
    match outer(packet, link, tables) {
        Some((start, header, length)) if leased => inner(packet, start, header, length, tables),
        _ => Ok((link, None)),
    }
}

/// The offset of the outer header, the header, and UDP's length, if the packet came through the tunnel.
#[inline(always)]
fn outer<P: Packet, T: Tables>(packet: &P, link: Link, tables: &T) -> Option<(usize, [u32; 5], usize)> {
    let Link::V4(start) = link else { return None };
    let (address, port) = tables.tunnel();
    let header: [u32; 5] = packet.load(start)?;
    let [first, second, third, _, destination] = header;
    if address == 0 || destination != address {
        return None;
    }
    if first >> 24 != 0x45 || second & FRAGMENT != 0 || third >> 16 & 0xff != UDP {
        return None;
    }
    let (ports, udp): (u32, u32) = packet.load(start + V4_HEADER)?;
    (ports & 0xffff == port).then_some((start, header, (udp >> 16) as usize))
}

#[inline(always)]
fn inner<P: Packet, T: Tables>(
    packet: &mut P,
    start: usize,
    outer: [u32; 5],
    length: usize,
    tables: &T,
) -> Result<(Link, Option<From>), Outcome> {
    let [first, _, _, source, _] = outer;
    let peer = tables.peer(source).ok_or(Outcome::TunnelStranger)?;
    let ([what, site], epoch): ([u32; 2], u64) =
        packet.load(start + V4_HEADER + UDP_HEADER).ok_or(Outcome::TunnelHeader)?;
    if site != peer || length < UDP_HEADER + HEADER || sum(outer).fold() != 0xffff {
        return Err(Outcome::TunnelHeader);
    }
    let ([forwarded, _], [echo, _]) = (header(FORWARDED, 0), header(ECHO, 0));
    if what == echo {
        return Err(answer(packet, start, tables));
    }
    if what != forwarded {
        return Err(Outcome::TunnelHeader);
    }
    let end = start + V4_HEADER + length;
    if first as usize & 0xffff != V4_HEADER + length || end > packet.length() {
        return Err(Outcome::TunnelInner);
    }
    let inner = start + OVERHEAD;
    let version: u16 = packet.load(inner).ok_or(Outcome::TunnelInner)?;
    match version >> 12 {
        4 => Ok((Link::V4(inner), Some(From { end, epoch }))),
        6 => Ok((Link::V6(inner), Some(From { end, epoch }))),
        _ => Err(Outcome::TunnelInner),
    }
}

/// Sends an echo request back.
#[inline(always)]
fn answer<P: Packet, T: Tables>(packet: &mut P, start: usize, tables: &T) -> Outcome {
    let start = packet.forget(start);
    let done = (|| {
        let (to, from): ([u16; 3], [u16; 3]) = packet.load(0)?;
        packet.store(0, (from, to))?;
        let header = packet.place(start);
        let [source, destination]: [u32; 2] = packet.get(header, 12)?;
        packet.set(header, 12, [destination, source])?;
        let [client, server]: [u16; 2] = packet.get(header, V4_HEADER)?;
        packet.set(header, V4_HEADER, [server, client])?;
        // None, which IPv4 allows, instead of one over the changed mark.
        packet.set(header, V4_HEADER + 6, 0u16)?;
        packet.set(header, V4_HEADER + UDP_HEADER, self::header(ECHO_REPLY, tables.site()))
    })();
    done.map_or(Outcome::TunnelHeader, |()| Outcome::TunnelEcho)
}

/// Writes all headers before a packet of `length` bytes.
#[inline(always)]
pub fn write<P: Packet>(
    packet: &mut P,
    target: &Target,
    length: usize,
    (site, epoch): (u32, u64),
    hash: u64,
) -> Option<()> {
    let total = (OVERHEAD + length) as u32;
    let (source, destination) = (u32::from_be_bytes(target.source), u32::from_be_bytes(target.destination));
    let header = [0x4500_0000 | total, DONT_FRAGMENT, HOPS << 24 | UDP << 16, source, destination];
    let checksum = sum(header).checksum();
    let [first, second, third, ..] = header;
    let ip = [first, second, third | u32::from(checksum), source, destination];
    let ports = (FIRST_PORT | (hash >> 48) as u32 & 0x3fff) << 16 | target.port & 0xffff;
    let udp = [ports, (total - V4_HEADER as u32) << 16];
    packet.store(0, (macs(target), ETHERTYPE_V4))?;
    packet.store(ETHERNET_HEADER, (ip, udp, self::header(FORWARDED, site), epoch))
}

/// Both MAC addresses of a frame to the target.
#[inline(always)]
pub fn macs(target: &Target) -> [Le<u32>; 3] {
    let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (target.to, target.from);
    [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(|bytes| Le(u32::from_le_bytes(bytes)))
}
