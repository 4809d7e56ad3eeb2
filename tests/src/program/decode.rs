//! An independent reading of a reply: headers by hand, checksums from scratch, the message by hickory.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{DNSClass, RData},
};

use super::frames::{Addresses, checksum, udp_checksum};

/// A UDP packet taken apart.
pub struct Packet {
    /// Destination and source MAC address, and a VLAN tag.
    pub link: ([u8; 6], [u8; 6], Option<[u8; 4]>),
    /// The IP header.
    pub ip: Vec<u8>,
    /// Source and destination.
    pub addresses: Addresses,
    /// The UDP header and payload.
    pub udp: Vec<u8>,
}

impl Packet {
    /// Takes a frame without padding apart; lengths must agree with it.
    pub fn read(frame: &[u8]) -> Result<Self> {
        let (to, rest) = take(frame)?;
        let (from, rest) = take(rest)?;
        let (ethertype, after) = take::<2>(rest)?;
        let (tag, ethertype, rest) = if ethertype == [0x81, 0] {
            let (tag, rest) = take(rest)?;
            let (ethertype, rest) = take(rest)?;
            (Some(tag), ethertype, rest)
        } else {
            (None, ethertype, after)
        };
        let link = (to, from, tag);
        let (ip, addresses, udp) = match ethertype {
            [0x08, 0x00] => v4(rest)?,
            [0x86, 0xdd] => v6(rest)?,
            other => anyhow::bail!("EtherType {other:02x?}"),
        };
        ensure!(usize::from(word(&udp, 4)?) == udp.len(), "UDP length");
        Ok(Self { link, ip, addresses, udp })
    }

    /// What its UDP checksum should be, and is.
    pub fn checksums(&self) -> Result<(u16, u16)> {
        let mut zeroed = self.udp.clone();
        zeroed[6..8].fill(0);
        Ok((udp_checksum(self.addresses, &zeroed), word(&self.udp, 6)?))
    }

    /// Source and destination port.
    pub fn ports(&self) -> Result<(u16, u16)> {
        Ok((word(&self.udp, 0)?, word(&self.udp, 2)?))
    }

    /// Its message.
    pub fn message(&self) -> Result<Message> {
        let payload = self.udp.get(8..).context("no payload")?;
        Ok(Message::from_vec(payload)?)
    }
}

fn take<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8])> {
    let (head, rest) = bytes.split_first_chunk().context("the frame is too short")?;
    Ok((*head, rest))
}

fn word(bytes: &[u8], offset: usize) -> Result<u16> {
    let (word, _) = take(bytes.get(offset..).context("the frame is too short")?)?;
    Ok(u16::from_be_bytes(word))
}

fn v4(packet: &[u8]) -> Result<(Vec<u8>, Addresses, Vec<u8>)> {
    let (header, udp) = take::<20>(packet)?;
    ensure!(usize::from(word(&header, 2)?) == packet.len(), "IPv4 length");
    ensure!(checksum(&header) == 0, "IPv4 header checksum");
    let (source, rest) = take(&header[12..])?;
    let (destination, _) = take(rest)?;
    Ok((header.to_vec(), Addresses::V4(source, destination), udp.to_vec()))
}

fn v6(packet: &[u8]) -> Result<(Vec<u8>, Addresses, Vec<u8>)> {
    let (header, udp) = take::<40>(packet)?;
    ensure!(usize::from(word(&header, 4)?) == udp.len(), "IPv6 length");
    let (source, rest) = take(&header[8..])?;
    let (destination, _) = take(rest)?;
    Ok((header.to_vec(), Addresses::V6(source, destination), udp.to_vec()))
}

/// Checks a reply against its query, which is without padding, and what it should say.
pub fn check(query: &[u8], reply: &[u8], ttl: u32, addresses: &[IpAddr]) -> Result<()> {
    let query = Packet::read(query).context("the query")?;
    let reply = Packet::read(reply).context("the reply")?;
    check_headers(&query, &reply)?;
    let (should, is) = reply.checksums()?;
    let none = query.checksums()?.1 == 0;
    let should = if none { 0 } else { should };
    ensure!(should == is, "UDP checksum is {is:04x}, should be {should:04x}");
    check_message(&query, &reply, ttl, addresses)
}

fn check_headers(query: &Packet, reply: &Packet) -> Result<()> {
    let (to, from, tag) = query.link;
    ensure!(reply.link == (from, to, tag), "MAC addresses or VLAN tag");
    let (client, server) = query.ports()?;
    ensure!(reply.ports()? == (server, client), "ports");
    match (query.addresses, reply.addresses) {
        (Addresses::V4(a, b), Addresses::V4(c, d)) => {
            ensure!((a, b) == (d, c), "IPv4 addresses");
            ensure!(reply.ip[..2] == [0x45, 0], "version, IHL or type of service");
            ensure!(reply.ip[4..8] == [0, 0, 0x40, 0], "identification or fragment field");
            ensure!(reply.ip[8..10] == [64, 17], "TTL or protocol");
        }
        (Addresses::V6(a, b), Addresses::V6(c, d)) => {
            ensure!((a, b) == (d, c), "IPv6 addresses");
            ensure!(reply.ip[..4] == [0x60, 0, 0, 0], "version, class or flow label");
            ensure!(reply.ip[6..8] == [17, 64], "next header or hop limit");
        }
        _ => anyhow::bail!("another IP version"),
    }
    Ok(())
}

fn check_message(query: &Packet, reply: &Packet, ttl: u32, addresses: &[IpAddr]) -> Result<()> {
    let asked = query.message().context("the query")?;
    let message = reply.message().context("the reply")?;
    let (from, to) = (&asked.metadata, &message.metadata);
    ensure!(to.id == from.id, "identifier");
    ensure!(to.message_type == MessageType::Response, "QR");
    ensure!(to.op_code == OpCode::Query, "opcode");
    ensure!(to.authoritative && !to.truncation, "AA or TC");
    ensure!(to.recursion_desired == from.recursion_desired, "RD");
    ensure!(!to.recursion_available && !to.authentic_data && !to.checking_disabled, "RA, AD or CD");
    ensure!(reply.udp[11] & 0x40 == 0, "Z");
    ensure!(to.response_code == ResponseCode::NoError, "RCODE");
    let question = 20..20 + asked.queries[0].name.len() + 4;
    ensure!(reply.udp[question.clone()] == query.udp[question], "question's bytes");
    let given: Vec<IpAddr> = message
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        })
        .collect();
    ensure!(given == addresses, "answers {given:?} instead of {addresses:?}");
    for record in &message.answers {
        ensure!(record.name.eq_case(&asked.queries[0].name), "an answer's owner");
        ensure!(record.ttl == ttl && record.dns_class == DNSClass::IN, "an answer's TTL or class");
    }
    ensure!(message.authorities.is_empty() && message.additionals.is_empty(), "other records");
    check_edns(&asked, &message)
}

fn check_edns(asked: &Message, message: &Message) -> Result<()> {
    match (&asked.edns, &message.edns) {
        (None, None) => Ok(()),
        (Some(asked), Some(edns)) => {
            ensure!(edns.max_payload() == 1232, "payload size");
            ensure!(edns.version() == 0 && edns.rcode_high() == 0, "version or RCODE");
            ensure!(edns.flags().dnssec_ok == asked.flags().dnssec_ok, "DO");
            ensure!(edns.flags().z == 0, "EDNS flags");
            ensure!(edns.options().as_ref().is_empty(), "options");
            Ok(())
        }
        _ => anyhow::bail!("an OPT record in only one of query and reply"),
    }
}
