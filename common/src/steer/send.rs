//! Frames on their way: to a backend, through the tunnel, or back to a sender whose packet is too big for it.
#![expect(clippy::cast_possible_truncation, reason = "fields are cut out of wider words")]

use super::{Tables, request::Request, tunnel};
use crate::{
    checksum::Sum,
    maps::Target,
    network::{
        ETHERNET_HEADER, ETHERTYPE_V4, ETHERTYPE_V6, HOPS, ICMP, ICMP_HEADER, ICMP_V6, TAGGED_HEADER, V4_HEADER,
        V6_HEADER, sum,
    },
    outcome::Outcome,
    packet::Packet,
};

/// Bytes that an ICMP error quotes: the IP header and eight more (RFC 792).
const QUOTED_V4: usize = V4_HEADER + 8;
/// As many as fit into the least MTU of IPv6 (RFC 4443 section 2.4).
const QUOTED_V6: usize = 1280 - V6_HEADER - ICMP_HEADER;

/// Direct mode: sends the packet as it is in a frame to the backend, which has the resource's address too and answers the
/// client itself. What was before the packet, a tag or the tunnel's headers, goes away.
#[inline(always)]
pub fn serve<P: Packet>(packet: &mut P, request: &Request<'_>, target: &Target, served: Outcome) -> Outcome {
    let ethertype = if request.v6 { ETHERTYPE_V6 } else { ETHERTYPE_V4 };
    let superfluous = request.start - ETHERNET_HEADER;
    let pulled = if superfluous == 0 { Some(()) } else { packet.pull(superfluous) };
    let written = pulled.and_then(|()| packet.store(0, (tunnel::macs(target), ethertype)));
    written.map_or(Outcome::Fault, |()| served)
}

/// Sends the packet through the tunnel.
#[inline(always)]
pub fn forward<P: Packet, T: Tables>(
    packet: &mut P,
    request: &Request<'_>,
    target: &Target,
    epoch: u64,
    now: u64,
    tables: &T,
) -> Outcome {
    if request.length > target.mtu as usize {
        return too_big(packet, request, target.mtu, now, tables);
    }
    let missing = ETHERNET_HEADER + tunnel::OVERHEAD - request.start;
    if packet.push(missing).is_none() {
        return Outcome::NoTunnel;
    }
    let written = tunnel::write(packet, target, request.length, (tables.site(), epoch), request.flow.hash);
    written.map_or(Outcome::Fault, |()| Outcome::Forwarded)
}

/// Tells the sender which size fits (RFC 1191, RFC 8201), if the packet may not be fragmented. Not about ICMP errors
/// (RFC 1122 section 3.2.2), and at a bounded rate (RFC 4443 section 2.4).
#[inline(always)]
fn too_big<P: Packet, T: Tables>(packet: &mut P, request: &Request<'_>, mtu: u32, now: u64, tables: &T) -> Outcome {
    let quoted = if request.v6 { QUOTED_V6 } else { QUOTED_V4 };
    let can_tell = request.whole && request.starts && request.start <= TAGGED_HEADER && request.length >= quoted;
    if !can_tell {
        return Outcome::TooLong;
    }
    if !tables.may_tell(now) {
        return Outcome::TooBigLimit;
    }
    // The verifier follows offsets only if they are constant.
    let told = match request.start {
        ETHERNET_HEADER if request.v6 => tell_v6(packet, ETHERNET_HEADER, mtu),
        ETHERNET_HEADER => tell_v4(packet, ETHERNET_HEADER, mtu),
        _ if request.v6 => tell_v6(packet, TAGGED_HEADER, mtu),
        _ => tell_v4(packet, TAGGED_HEADER, mtu),
    };
    told.map_or(Outcome::Fault, |()| Outcome::TooBig)
}

#[inline(always)]
fn tell_v4<P: Packet>(packet: &mut P, start: usize, mtu: u32) -> Option<()> {
    const NEW: usize = V4_HEADER + ICMP_HEADER;
    make_room(packet, start, NEW, QUOTED_V4)?;
    let quoted: [u32; QUOTED_V4 / 4] = packet.load(start + NEW)?;
    let (source, destination) = (quoted[3], quoted[4]);
    // Destination unreachable, fragmentation needed and DF set.
    let what = 3 << 24 | 4 << 16;
    let icmp = quoted.into_iter().fold(Sum::ZERO.add(what).add(mtu), Sum::add);
    let total = (NEW + QUOTED_V4) as u32;
    let header = [0x4500_0000 | total, 0, HOPS << 24 | ICMP << 16, destination, source];
    let third = header[2] | u32::from(sum(header).checksum());
    let header = ([header[0], header[1], third], [destination, source], what | u32::from(icmp.checksum()), mtu);
    packet.store(start, header)
}

#[inline(always)]
fn tell_v6<P: Packet>(packet: &mut P, start: usize, mtu: u32) -> Option<()> {
    const NEW: usize = V6_HEADER + ICMP_HEADER;
    make_room(packet, start, NEW, QUOTED_V6)?;
    let addresses: [u32; 8] = packet.load(start + NEW + 8)?;
    let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
    let payload = (ICMP_HEADER + QUOTED_V6) as u32;
    // Packet too big.
    let what = 2 << 24;
    let pseudo = Sum::ZERO.add(payload).add(ICMP_V6).add(what).add(mtu);
    let mut icmp = addresses.into_iter().fold(pseudo, Sum::add);
    // The farthest first: LLVM would make one check of all those in the loop, in a form that the verifier does not follow.
    packet.load::<u16>(start + NEW + QUOTED_V6 - 2)?;
    let mut at = start + NEW;
    while at < start + NEW + QUOTED_V6 {
        let words: [u32; 4] = packet.load(at)?;
        icmp = words.into_iter().fold(icmp, Sum::add);
        at += 16;
    }
    let first = [6 << 28, payload << 16 | ICMP_V6 << 8 | HOPS];
    let back = [d0, d1, d2, d3, s0, s1, s2, s3];
    packet.store(start, (first, back, what | u32::from(icmp.checksum()), mtu))
}

/// Makes room for `new` bytes of headers before the packet at `start`, of which `quoted` bytes stay, and turns the frame
/// around, with the tag if it has one.
#[inline(always)]
fn make_room<P: Packet>(packet: &mut P, start: usize, new: usize, quoted: usize) -> Option<()> {
    packet.push(new)?;
    packet.truncate(start + new + quoted)?;
    // Tag and EtherType; or the EtherType alone, and what the new headers are written over.
    let (to, from, rest): ([u16; 3], [u16; 3], [u16; 3]) = packet.load(new)?;
    packet.store(0, (from, to, rest))
}
