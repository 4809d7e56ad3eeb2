//! From a frame to a UDP datagram that asks this site's name server, and back again.
#![expect(clippy::cast_possible_truncation, reason = "fields are cut out of wider words")]

use core::marker::PhantomData;

use crate::{answer::Tables, checksum::Sum, outcome::Outcome, packet::Packet};

/// Bytes of a UDP header (RFC 768).
pub const UDP_HEADER: usize = 8;

const DNS_PORT: u32 = 53;
const UDP: u32 = 17;
/// Hop limit of replies, whatever is left of the query's (RFC 1122 section 3.2.1.7).
const HOPS: u32 = 64;

const ETHERTYPE_V4: u16 = 0x0800;
const ETHERTYPE_V6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERNET_HEADER: usize = 14;
const VLAN_TAG: usize = 4;

/// Which IP header a frame has, and its offset.
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
        let mut network = ETHERNET_HEADER;
        let mut ethertype: u16 = packet.load(network - 2).ok_or(Outcome::ShortFrame)?;
        if ethertype == ETHERTYPE_VLAN {
            network += VLAN_TAG;
            ethertype = packet.load(network - 2).ok_or(Outcome::ShortFrame)?;
        }
        match ethertype {
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

    /// Reads the header of a UDP packet to a DNS address.
    fn parse(packet: &impl Packet, offset: usize, tables: &impl Tables) -> Result<Self, Outcome>;

    /// Bytes behind the header, as it says itself.
    fn payload(&self) -> usize;

    /// Whether a reply may go to the packet's source (RFC 1122 section 3.2.1.3).
    fn may_be_answered(&self) -> bool;

    /// Writes the header at `offset` for a reply with `payload` bytes behind it.
    fn reply<P: Packet>(packet: &mut P, old: P::Old, offset: usize, payload: usize) -> Option<()>;
}

/// IPv4 (RFC 791), without options.
#[derive(Clone, Copy)]
pub struct V4 {
    source: u32,
    destination: u32,
    total: u32,
}

const FRAGMENT: u32 = 0x3fff;
const DONT_FRAGMENT: u32 = 0x4000;

impl Network for V4 {
    const HEADER: usize = 20;
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
    fn reply<P: Packet>(packet: &mut P, old: P::Old, offset: usize, payload: usize) -> Option<()> {
        let [source, destination]: [u32; 2] = packet.load_old(old, offset + 12)?;
        // Type of service and ECN clear; identification 0, which DF allows (RFC 6864 section 4).
        let first = 0x4500_0000 | (Self::HEADER + payload) as u32;
        let third = HOPS << 24 | UDP << 16;
        let mut header = [first, DONT_FRAGMENT, third, destination, source];
        header[2] |= u32::from(sum(header).checksum());
        packet.store(offset, header)
    }
}

#[inline(always)]
fn sum(header: [u32; 5]) -> Sum {
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
    const HEADER: usize = 40;
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
    fn reply<P: Packet>(packet: &mut P, old: P::Old, offset: usize, payload: usize) -> Option<()> {
        let [s0, s1, d0, d1]: [u64; 4] = packet.load_old(old, offset + 8)?;
        // Traffic class and flow label clear.
        let first = 6 << 60 | (payload as u64) << 16 | u64::from(UDP << 8 | HOPS);
        packet.store(offset, [first, d0, d1, s0, s1])
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
        let [ports, rest]: [u32; 2] = packet.load(start).ok_or(Outcome::ShortFrame)?;
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

    /// Its checksum field, in a reshaped frame.
    #[inline(always)]
    pub fn checksum<P: Packet>(&self, packet: &P, old: P::Old) -> Option<u16> {
        packet.load_old(old, self.start + 6)
    }

    /// Writes the headers of the reply with `length` bytes of UDP, its own header included; addresses and ports change
    /// places. Each header of the query is read before it is written over.
    #[inline(always)]
    pub fn reply<P: Packet>(&self, packet: &mut P, old: P::Old, length: usize, checksum: u16) -> Option<()> {
        let network = self.start - N::HEADER;
        reply_ethernet(packet, old, network)?;
        N::reply(packet, old, network, length)?;
        let ports: u32 = packet.load_old(old, self.start)?;
        let rest = (length as u32) << 16 | u32::from(checksum);
        packet.store(self.start, [ports.rotate_left(16), rest])
    }
}

/// The Ethernet header before the IP header at `network`, with its tag if there is one.
#[inline(always)]
fn reply_ethernet<P: Packet>(packet: &mut P, old: P::Old, network: usize) -> Option<()> {
    let [a, b, c, d, e, f, ethertype]: [u16; 7] = packet.load_old(old, 0)?;
    let header = [d, e, f, a, b, c, ethertype];
    if network == ETHERNET_HEADER {
        return packet.store(0, header);
    }
    let tag: u32 = packet.load_old(old, ETHERNET_HEADER)?;
    packet.store(0, header)?;
    packet.store(ETHERNET_HEADER, tag)
}

/// The group bit is in the first byte of an address (IEEE 802).
#[inline(always)]
fn check_macs(packet: &impl Packet) -> Result<(), Outcome> {
    let to: u8 = packet.load(0).ok_or(Outcome::ShortFrame)?;
    let from: u8 = packet.load(6).ok_or(Outcome::ShortFrame)?;
    if (to | from) & 1 != 0 {
        return Err(Outcome::GroupMac);
    }
    Ok(())
}
