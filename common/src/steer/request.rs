//! From a packet to a request for a resource.
#![expect(clippy::cast_possible_truncation, reason = "fields are cut out of wider words")]

use super::{
    Tables,
    flows::{Flow, Set},
    tunnel,
};
use crate::{
    answer::Present,
    maps::{AddressEntry, InstanceEntry, MAX_PORTS},
    network::{
        DONT_FRAGMENT, FRAGMENT, ICMP, ICMP_HEADER, ICMP_V6, Link, UDP, UDP_HEADER, V4_HEADER, V6_HEADER, check_macs,
    },
    outcome::Outcome,
    packet::{Packet, Word as _},
    placing::ADDRESSES,
};

const TCP: u32 = 6;
/// Bytes of both ports, with which TCP's and UDP's headers begin.
const PORTS: usize = 4;
/// Extension headers of IPv6 by number (RFC 7045), without the fragment header.
const EXTENSIONS: [u32; 8] = [0, 43, 50, 51, 60, 135, 139, 140];
const FRAGMENT_HEADER: u32 = 44;
/// What an IPv4 address follows in the form of an IPv6 one (RFC 4291 section 2.5.5.2).
const MAPPED: u64 = 0xffff << 32;

/// A request, as far as steering needs to know it.
pub struct Request<'a> {
    /// Offset of its IP header.
    pub start: usize,
    /// Bytes of the packet, IP header included.
    pub length: usize,
    /// Whether it is IPv6.
    pub v6: bool,
    /// Whether it must not be fragmented on its way.
    pub whole: bool,
    /// Its flow.
    pub flow: Flow,
    /// Where that is, if it is known.
    pub set: &'a Set,
    /// Whether it begins a connection (SYN without ACK; RFC 9293 section 3.5).
    pub new: bool,
    /// Whether its flow is to be remembered: not so for an ICMP error.
    pub starts: bool,
}

/// An IP header's facts.
struct Ip {
    /// Offset of the header.
    start: usize,
    /// Offset of what follows.
    next: usize,
    length: usize,
    v6: bool,
    whole: bool,
    protocol: u32,
    source: [u64; 2],
    destination: [u64; 2],
    /// Why its ports cannot be read.
    trouble: Option<Outcome>,
}

impl Ip {
    #[inline(always)]
    fn read(packet: &impl Packet, link: Link) -> Option<Self> {
        match link {
            Link::V4(start) => Self::read_v4(packet, start),
            Link::V6(start) => Self::read_v6(packet, start),
        }
    }

    #[inline(always)]
    fn read_v4(packet: &impl Packet, start: usize) -> Option<Self> {
        let [first, second, third, source, destination]: [u32; 5] = packet.load(start)?;
        let trouble = match () {
            () if first >> 24 != 0x45 => Some(Outcome::Options),
            () if second & FRAGMENT != 0 => Some(Outcome::Fragment),
            () => None,
        };
        (first >> 28 == 4).then_some(Self {
            start,
            next: start + V4_HEADER,
            length: first as usize & 0xffff,
            v6: false,
            whole: second & DONT_FRAGMENT != 0,
            protocol: third >> 16 & 0xff,
            source: [0, MAPPED | u64::from(source)],
            destination: [0, MAPPED | u64::from(destination)],
            trouble,
        })
    }

    #[inline(always)]
    fn read_v6(packet: &impl Packet, start: usize) -> Option<Self> {
        let [first, s0, s1, d0, d1]: [u64; 5] = packet.load(start)?;
        let protocol = (first >> 8) as u32 & 0xff;
        let trouble = match protocol {
            FRAGMENT_HEADER => Some(Outcome::Fragment),
            protocol if EXTENSIONS.contains(&protocol) => Some(Outcome::Options),
            _ => None,
        };
        // A mapped address is none of IPv6's on the wire, and would find the IPv4 resource's entry.
        let is_v6 = first >> 60 == 6 && (d0 != 0 || d1 >> 32 != MAPPED >> 32);
        is_v6.then_some(Self {
            start,
            next: start + V6_HEADER,
            length: V6_HEADER + ((first >> 16) as usize & 0xffff),
            v6: true,
            whole: true,
            protocol,
            source: [s0, s1],
            destination: [d0, d1],
            trouble,
        })
    }

    /// Bytes behind the header that are the packet's. What is behind those is not: Ethernet may pad the frame (RFC 894).
    /// `None`: the packet does not end before `end`, or not even behind its header. IPv6's length is 0 in a jumbogram, but
    /// that has an option (RFC 2675).
    #[inline(always)]
    fn payload(&self, end: usize) -> Option<usize> {
        let payload = self.length.checked_sub(self.next - self.start)?;
        (self.start + self.length <= end).then_some(payload)
    }
}

/// What the transport header says.
struct Transport {
    protocol: u32,
    /// The client's and the resource's addresses.
    client: [u64; 2],
    resource: [u64; 2],
    /// The client's in the upper half.
    ports: u32,
    new: bool,
    starts: bool,
}

impl Transport {
    #[inline(always)]
    fn read(packet: &impl Packet, ip: &Ip, from: Option<tunnel::From>) -> Result<Self, Outcome> {
        if let Some(trouble) = ip.trouble {
            return Err(trouble);
        }
        let (end, short) = match from {
            Some(from) => (from.end, Outcome::TunnelInner),
            None => (packet.length(), Outcome::BadLength),
        };
        let payload = ip.payload(end).ok_or(short)?;
        let error = if ip.v6 { ICMP_V6 } else { ICMP };
        match ip.protocol {
            TCP | UDP => Self::read_ports(packet, ip, payload).ok_or(short),
            protocol if protocol == error => Self::read_error(packet, ip, payload, short),
            _ => Err(Outcome::OtherProtocol),
        }
    }

    /// TCP and UDP. `None`: the packet ends inside the header.
    #[inline(always)]
    fn read_ports(packet: &impl Packet, ip: &Ip, payload: usize) -> Option<Self> {
        let ports: u32 = packet.load(ip.next)?;
        let (header, new) = match ip.protocol {
            TCP => Self::read_flags(packet, ip)?,
            _ => (UDP_HEADER, false),
        };
        let (client, resource) = (ip.source, ip.destination);
        let own = Self { protocol: ip.protocol, client, resource, ports, new, starts: true };
        (payload >= header).then_some(own)
    }

    /// Bytes of TCP's header, and whether it begins a connection (RFC 9293 section 3.1).
    #[inline(always)]
    fn read_flags(packet: &impl Packet, ip: &Ip) -> Option<(usize, bool)> {
        const FLAGS: usize = 12;
        const SYN: u16 = 0x02;
        const ACK: u16 = 0x10;
        /// Without options.
        const WORDS: u16 = 5;
        let flags: u16 = packet.load(ip.next + FLAGS)?;
        Some((usize::from((flags >> 12).max(WORDS)) * 4, flags & (SYN | ACK) == SYN))
    }

    /// An ICMP error is about a packet that the resource sent: it belongs to the flow that this one answered.
    #[inline(always)]
    fn read_error(packet: &impl Packet, ip: &Ip, payload: usize, short: Outcome) -> Result<Self, Outcome> {
        if payload < ICMP_HEADER {
            return Err(short);
        }
        // Two bytes, because for one at a place it does not know the verifier takes no comparison with the frame's end.
        let kind: u16 = packet.load(ip.next).ok_or(short)?;
        let kind = kind >> 8;
        // Destination unreachable, time exceeded, parameter problem (RFC 792); RFC 4443 numbers them from 1 to 4.
        let is_error = if ip.v6 { (1..=4).contains(&kind) } else { matches!(kind, 3 | 11 | 12) };
        if !is_error {
            return Err(Outcome::OtherProtocol);
        }
        let start = ip.next + ICMP_HEADER;
        let link = if ip.v6 { Link::V6(start) } else { Link::V4(start) };
        let about = Ip::read(packet, link).ok_or(short)?;
        if let Some(trouble) = about.trouble {
            return Err(trouble);
        }
        if (about.protocol != TCP && about.protocol != UDP) || about.source != ip.destination {
            return Err(Outcome::OtherProtocol);
        }
        let quoted = about.next + PORTS - ip.next;
        let ports: u32 = packet.load(about.next).filter(|_| payload >= quoted).ok_or(short)?;
        Ok(Self {
            protocol: about.protocol,
            client: about.destination,
            resource: about.source,
            ports: ports.rotate_left(16),
            new: false,
            starts: false,
        })
    }

    #[inline(always)]
    fn hash(&self, seed: u64) -> u64 {
        let ports = u64::from(self.ports) << 8 | u64::from(self.protocol);
        let [c0, c1] = self.client;
        let [r0, r1] = self.resource;
        // One word after the other, so that none makes up for what another changes. What becomes of a word's highest bit is
        // known without the seed, and the next word could make up for that: so it is never one of the sender's own too.
        finish([c0, r0, c1, r1, ports].into_iter().fold(seed, mix))
    }
}

/// The request in `link`, with this site's instance; `otherwise` if it is not for a resource.
#[inline(always)]
pub fn find<'a, P: Packet, T: Tables>(
    packet: &P,
    link: Link,
    from: Option<tunnel::From>,
    otherwise: Outcome,
    present: Present,
    tables: &'a T,
) -> Result<(Request<'a>, &'a InstanceEntry), Outcome> {
    let ip = Ip::read(packet, link).ok_or(otherwise)?;
    let address = || admitted(packet, &ip, from.is_some(), otherwise, present, tables);
    let transport = match Transport::read(packet, &ip, from) {
        Ok(transport) => transport,
        Err(outcome) => return address().and(Err(outcome)),
    };
    let flow = Flow::new(transport.hash(present.flow_seed), present.now);
    let set = tables.flows(flow.hash).ok_or(Outcome::Fault)?;
    // It comes from farther away than what is looked up next: it can be on its way meanwhile.
    set[0].load();
    let address = address()?;
    if !names(address, transport.protocol, transport.ports & 0xffff) {
        return Err(Outcome::OtherPort);
    }
    let instance = tables.instance(address.instance).filter(|instance| instance.id == address.instance_id);
    let request = Request {
        start: ip.start,
        length: ip.length,
        v6: ip.v6,
        whole: ip.whole,
        flow,
        set,
        new: transport.new,
        starts: transport.starts,
    };
    Ok((request, instance.ok_or(Outcome::TableChanging)?))
}

/// The resource's address that a packet is for, if requests are taken now.
#[inline(always)]
fn admitted<'a, P: Packet, T: Tables>(
    packet: &P,
    ip: &Ip,
    forwarded: bool,
    otherwise: Outcome,
    present: Present,
    tables: &'a T,
) -> Result<&'a AddressEntry, Outcome> {
    let address = address(ip.destination, present.addresses, tables).ok_or(otherwise)?;
    if !forwarded {
        check_macs(packet)?;
    }
    if present.leased { Ok(address) } else { Err(Outcome::NoLease) }
}

/// The resource's address that a packet is for.
#[inline(always)]
fn address<T: Tables>(address: [u64; 2], table: u32, tables: &T) -> Option<&AddressEntry> {
    let hash = address_hash(address);
    let seed = tables.address_seed(table, ADDRESSES.bucket(hash))?;
    let entry = tables.address(table, ADDRESSES.slot(hash, seed))?;
    // SAFETY: sixteen bytes.
    let own = unsafe { <[u64; 2]>::read(entry.address.as_ptr()) };
    (own == address && entry.instance_id != 0).then_some(entry)
}

/// Whether the address has the port.
#[inline(always)]
fn names(address: &AddressEntry, protocol: u32, port: u32) -> bool {
    let mut index = 0;
    while index < MAX_PORTS {
        let entry = address.ports[index];
        if entry.protocol == 0 {
            return false;
        }
        if u32::from(entry.protocol) == protocol && (entry.port == 0 || u32::from(entry.port) == port) {
            return true;
        }
        index += 1;
    }
    false
}

/// The hash of an address, IPv4 as `::ffff:a.b.c.d`, for the map behind `ADDRESSES`.
#[inline(always)]
pub const fn address_hash([high, low]: [u64; 2]) -> u64 {
    finish(mix(mix(0, high), low))
}

impl AddressEntry {
    /// The hash of its address.
    pub fn hash(&self) -> u64 {
        let number = u128::from_be_bytes(self.address);
        address_hash([(number >> 64) as u64, number as u64])
    }
}

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Takes a word into a hash. Multiplying carries upwards only, so the upper half is brought down.
#[inline(always)]
const fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(MULTIPLIER);
    product ^ product >> 32
}

#[inline(always)]
const fn finish(hash: u64) -> u64 {
    let product = hash.wrapping_mul(MULTIPLIER);
    product ^ product >> 29
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 0x5eed;

    /// The client's address, the resource's, and the ports.
    type Words = [u64; 5];
    const WORDS: Words = [0x2001_0db8_00c1_0000, 0x10, 0x2001_0db8_0001_0080, 0x80, 0x9c40_0050];

    fn hash([c0, c1, r0, r1, ports]: Words) -> u64 {
        let (client, resource, ports) = ([c0, c1], [r0, r1], ports as u32);
        Transport { protocol: TCP, client, resource, ports, new: false, starts: true }.hash(SEED)
    }

    fn flip(mut words: Words, bit: usize) -> Words {
        words[bit / 64] ^= 1 << (bit % 64);
        words
    }

    #[test]
    fn a_flow_that_differs_in_one_bit_or_two_has_another_hash() {
        const BITS: usize = 4 * 64 + 32;
        for one in 0..BITS {
            assert_ne!(hash(flip(WORDS, one)), hash(WORDS), "bit {one}");
            for other in 0..one {
                assert_ne!(hash(flip(flip(WORDS, one), other)), hash(WORDS), "bits {one} and {other}");
            }
        }
    }

    /// A multiplication leaves a word's highest bit where it is, whatever the seed.
    #[test]
    fn what_a_clients_highest_bit_changes_cannot_be_made_up_for_in_the_rest_of_its_address() {
        let [c0, c1, r0, r1, ports] = WORDS;
        let other = [c0 ^ 1 << 63, c1 ^ 1 << 63 ^ 1 << 31, r0, r1, ports];
        assert_ne!(hash(WORDS), hash(other));
    }
}
