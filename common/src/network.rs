//! From a frame to a UDP datagram that asks this site's name server, and back again.
#![expect(clippy::cast_possible_truncation, reason = "fields are cut out of wider words")]

use core::marker::PhantomData;

use crate::{
    answer::Tables,
    checksum::Sum,
    outcome::Outcome,
    packet::{Le, Packet, Word},
};

/// Bytes of an IPv4 header without options (RFC 791).
pub(crate) const V4_HEADER: usize = 20;
/// Bytes of an IPv6 header (RFC 8200).
pub(crate) const V6_HEADER: usize = 40;
/// Number of ICMP in an IPv4 header (RFC 792).
pub(crate) const ICMP: u32 = 1;
/// Number of ICMPv6 in an IPv6 header (RFC 4443).
pub(crate) const ICMP_V6: u32 = 58;
/// Bytes of the header of an ICMP error, before the packet it is about.
pub(crate) const ICMP_HEADER: usize = 8;
/// Bytes of a UDP header (RFC 768).
pub const UDP_HEADER: usize = 8;

const DNS_PORT: u32 = 53;
/// Number of UDP in an IP header.
pub(crate) const UDP: u32 = 17;
/// Hop limit of replies, whatever is left of the query's (RFC 1122 section 3.2.1.7).
pub(crate) const HOPS: u32 = 64;

/// EtherType of IPv4 (RFC 894).
pub(crate) const ETHERTYPE_V4: u16 = 0x0800;
/// EtherType of IPv6 (RFC 2464).
pub(crate) const ETHERTYPE_V6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
/// Bytes of an Ethernet header without a tag.
pub(crate) const ETHERNET_HEADER: usize = 14;
const VLAN_TAG: u32 = 4;
/// The same of one with a tag.
pub(crate) const TAGGED_HEADER: usize = ETHERNET_HEADER + VLAN_TAG as usize;
/// Bytes of the headers before a message, at most.
pub const MOST_BEFORE: usize = TAGGED_HEADER + V6::HEADER + UDP_HEADER;

/// Which IP header a frame has, and its offset.
#[derive(Clone, Copy)]
pub enum Link {
    /// IPv4.
    V4(usize),
    /// IPv6.
    V6(usize),
}

impl Link {
    /// Reads the Ethernet header and at most one 802.1Q tag.
    #[inline(always)]
    pub fn parse(packet: &impl Packet) -> Result<Self, Outcome> {
        let outer: u16 = packet.load(ETHERNET_HEADER - 2).ok_or(Outcome::ShortFrame)?;
        // Without a branch, because the verifier would follow each side through the whole program.
        let tag = u32::from(outer ^ ETHERTYPE_VLAN).wrapping_sub(1) >> 29 & VLAN_TAG;
        let network = ETHERNET_HEADER + tag as usize;
        match packet.load::<u16>(network - 2).ok_or(Outcome::ShortFrame)? {
            ETHERTYPE_V4 => Ok(Self::V4(network)),
            ETHERTYPE_V6 => Ok(Self::V6(network)),
            _ => Err(Outcome::NotIp),
        }
    }
}

/// An IP header's facts.
pub trait Network: Copy {
    /// Bytes of the header.
    const HEADER: usize;

    /// Whether UDP must have a checksum (RFC 8200 section 8.1) or may go without one (RFC 768).
    const CHECKSUM_NEEDED: bool;

    /// Offset of both addresses in the header.
    const ADDRESSES: usize;

    /// The source's and the destination's address on the wire.
    type Addresses: Word;

    /// A header on the wire, with the EtherType before it.
    type Header: Word;

    /// Reads the header of a UDP packet to a DNS address.
    fn parse(packet: &impl Packet, offset: usize, tables: &impl Tables) -> Result<Self, Outcome>;

    /// Bytes behind the header, as it says itself.
    fn payload(&self) -> usize;

    /// Whether a reply may go to the packet's source (RFC 1122 section 3.2.1.3).
    fn may_be_answered(&self) -> bool;

    /// The header of a reply with `payload` bytes behind it, from what the query has for addresses.
    fn reply(addresses: Self::Addresses, payload: usize) -> Self::Header;
}

/// IPv4 (RFC 791), without options.
#[derive(Clone, Copy)]
pub struct V4 {
    source: u32,
    destination: u32,
    total: u32,
}

/// More fragments, and the offset (RFC 791 section 3.1).
pub(crate) const FRAGMENT: u32 = 0x3fff;
/// The flag of that name.
pub(crate) const DONT_FRAGMENT: u32 = 0x4000;

impl Network for V4 {
    const HEADER: usize = V4_HEADER;
    const ADDRESSES: usize = 12;
    type Addresses = Le<u64>;
    type Header = (u16, [u32; 3], Le<u64>);
    const CHECKSUM_NEEDED: bool = false;

    #[inline(always)]
    fn parse(packet: &impl Packet, offset: usize, tables: &impl Tables) -> Result<Self, Outcome> {
        let header: [u32; 5] = packet.load(offset).ok_or(Outcome::ShortFrame)?;
        let [first, second, third, source, destination] = header;
        if first >> 28 != 4 {
            return Err(Outcome::IpHeader);
        }
        if third >> 16 & 0xff != UDP {
            return Err(Outcome::NotUdp);
        }
        if !tables.serves_v4(destination) {
            return Err(Outcome::NotDnsAddress);
        }
        if first >> 24 != 0x45 {
            return Err(Outcome::IpHeader);
        }
        if second & FRAGMENT != 0 {
            return Err(Outcome::IpFragment);
        }
        if sum(header).fold() != 0xffff {
            return Err(Outcome::IpChecksum);
        }
        Ok(Self { source, destination, total: first & 0xffff })
    }

    #[inline(always)]
    fn payload(&self) -> usize {
        (self.total as usize).wrapping_sub(Self::HEADER)
    }

    #[inline(always)]
    fn may_be_answered(&self) -> bool {
        let network = self.source >> 24;
        network != 0 && network != 127 && network < 224 && self.source != self.destination
    }

    #[inline(always)]
    fn reply(Le(addresses): Self::Addresses, payload: usize) -> Self::Header {
        // Type of service and ECN clear; identification 0, which DF allows (RFC 6864 section 4).
        let first = 0x4500_0000 | (Self::HEADER + payload) as u32;
        let third = HOPS << 24 | UDP << 16;
        // The sum is the same whichever way round, if all of it is (RFC 1071 section 2B).
        let sum = Sum::ZERO
            .add(first.swap_bytes())
            .add(DONT_FRAGMENT.swap_bytes())
            .add(third.swap_bytes())
            .add(addresses as u32)
            .add((addresses >> 32) as u32);
        let third = third | u32::from(sum.checksum().swap_bytes());
        (ETHERTYPE_V4, [first, DONT_FRAGMENT, third], Le(addresses.rotate_left(32)))
    }
}

/// Of an IPv4 header without options.
#[inline(always)]
pub(crate) fn sum(header: [u32; 5]) -> Sum {
    header.into_iter().fold(Sum::ZERO, Sum::add)
}

/// IPv6 (RFC 8200), without extension headers.
#[derive(Clone, Copy)]
pub struct V6 {
    source: [u64; 2],
    destination: [u64; 2],
    payload: u32,
}

impl Network for V6 {
    const HEADER: usize = V6_HEADER;
    const ADDRESSES: usize = 8;
    type Addresses = [Le<u64>; 4];
    type Header = (u16, u64, [Le<u64>; 4]);
    const CHECKSUM_NEEDED: bool = true;

    #[inline(always)]
    fn parse(packet: &impl Packet, offset: usize, tables: &impl Tables) -> Result<Self, Outcome> {
        let header: [u64; 5] = packet.load(offset).ok_or(Outcome::ShortFrame)?;
        let [first, s0, s1, d0, d1] = header;
        if first >> 60 != 6 {
            return Err(Outcome::IpHeader);
        }
        if first >> 8 & 0xff != u64::from(UDP) {
            return Err(Outcome::NotUdp);
        }
        if !tables.serves_v6([d0, d1]) {
            return Err(Outcome::NotDnsAddress);
        }
        Ok(Self { source: [s0, s1], destination: [d0, d1], payload: (first >> 16) as u32 & 0xffff })
    }

    #[inline(always)]
    fn payload(&self) -> usize {
        self.payload as usize
    }

    #[inline(always)]
    fn may_be_answered(&self) -> bool {
        // ::/80 holds the unspecified, the loopback and the IPv4-mapped addresses (RFC 4291 section 2.5).
        let [high, low] = self.source;
        high >> 56 != 0xff && (high != 0 || low >> 48 != 0) && self.source != self.destination
    }

    #[inline(always)]
    fn reply([s0, s1, d0, d1]: Self::Addresses, payload: usize) -> Self::Header {
        // Traffic class and flow label clear.
        let first = 6 << 60 | (payload as u64) << 16 | u64::from(UDP << 8 | HOPS);
        (ETHERTYPE_V6, first, [d0, d1, s0, s1])
    }
}

/// A UDP datagram to port 53 of a DNS address.
#[derive(Clone, Copy)]
pub struct Datagram<N> {
    /// Offset of the UDP header.
    pub start: usize,
    /// Bytes, the header's included.
    pub length: usize,
    network: PhantomData<N>,
}

impl<N: Network> Datagram<N> {
    /// Reads the headers from the IP header at `network` on, and refuses what must not be answered.
    #[inline(always)]
    pub fn parse(packet: &impl Packet, network: usize, tables: &impl Tables) -> Result<Self, Outcome> {
        let ip = N::parse(packet, network, tables)?;
        let start = network + N::HEADER;
        let (ports, rest): (u32, u32) = packet.load(start).ok_or(Outcome::ShortFrame)?;
        if ports & 0xffff != DNS_PORT {
            return Err(Outcome::NotDnsPort);
        }
        let length = (rest >> 16) as usize;
        // Ethernet may pad the frame (RFC 894), but nothing may be missing, and UDP must fill its packet.
        if ip.payload() != length || start + length > packet.length() {
            return Err(Outcome::IpLength);
        }
        check_macs(packet)?;
        if !ip.may_be_answered() {
            return Err(Outcome::SourceAddress);
        }
        let client = ports >> 16;
        if client == 0 || client == DNS_PORT {
            return Err(Outcome::SourcePort);
        }
        if N::CHECKSUM_NEEDED && rest & 0xffff == 0 {
            return Err(Outcome::ZeroChecksum);
        }
        Ok(Self { start, length, network: PhantomData })
    }

    /// What a reply takes over from the query's headers, in a reshaped frame.
    #[inline(always)]
    pub fn heard<P: Packet>(&self, packet: &P, old: P::Place) -> Option<Heard<N>> {
        let [a, b, c, tag] = packet.get(old, 0)?;
        let (addresses, ports, rest, dns): (_, _, u32, _) = packet.get(old, self.start - N::HEADER + N::ADDRESSES)?;
        Some(Heard { macs: [a, b, c], tag, addresses, ports, checksum: rest as u16, dns })
    }

    /// Writes the headers of the reply with `length` bytes of UDP, its own header included, and behind them the DNS
    /// header. Addresses and ports change places.
    #[inline(always)]
    pub fn reply(
        &self,
        packet: &mut impl Packet,
        heard: Heard<N>,
        length: usize,
        checksum: u16,
        dns: (u32, u64),
    ) -> Option<()> {
        let [Le(a), Le(b), Le(c)] = heard.macs;
        let macs = [Le(b >> 16 | c << 16), Le(c >> 16 | a << 16), Le(a >> 16 | b << 16)];
        // The first four bytes of a tag, or else of what is written next.
        packet.store(0, (macs, heard.tag))?;
        let header = N::reply(heard.addresses, length);
        let ports = Le(heard.ports.0.rotate_left(16));
        let rest = (length as u32) << 16 | u32::from(checksum);
        packet.store(self.start - N::HEADER - 2, (header, ports, rest, dns))
    }
}

/// See [`Datagram::heard`].
pub struct Heard<N: Network> {
    macs: [Le<u32>; 3],
    tag: Le<u32>,
    addresses: N::Addresses,
    ports: Le<u32>,
    /// Of UDP.
    pub checksum: u16,
    /// Identification and flags of the DNS header.
    pub dns: u32,
}

/// The group bit is in the first byte of an address (IEEE 802).
#[inline(always)]
pub(crate) fn check_macs(packet: &impl Packet) -> Result<(), Outcome> {
    let to: u8 = packet.load(0).ok_or(Outcome::ShortFrame)?;
    let from: u8 = packet.load(6).ok_or(Outcome::ShortFrame)?;
    if (to | from) & 1 != 0 {
        return Err(Outcome::GroupMac);
    }
    Ok(())
}
