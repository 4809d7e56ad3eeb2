//! What would become of a packet: the question, as a person writes it, and the answer in words.

use std::net::{IpAddr, SocketAddr};

use etherparse::{NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket, TransportSlice};
use siteswap_common::outcome::Action;

use super::api::{ExplainedPacket, Hex};
use crate::{
    dataplane::{Dataplane, Explained},
    decision::{Decided, Decision, Knowledge},
};

/// The hops left in a packet that is made up.
const HOPS: u8 = 64;
/// MAC addresses of a packet that is made up: locally administered, and no group's.
const MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
/// What `BPF_PROG_TEST_RUN` takes.
const FRAME: std::ops::RangeInclusive<usize> = 14..=3000;

/// Reads a packet: `tcp 203.0.113.10:40000 192.0.2.80:80`, the same with `udp`, or a frame in hexadecimal digits.
pub fn frame(words: &[String]) -> Result<Hex, String> {
    let right =
        "write: tcp SOURCE:PORT DESTINATION:PORT, udp likewise, or a whole Ethernet frame in hexadecimal digits";
    let frame = match words {
        [protocol, source, destination] => {
            let endpoint = |text: &String| {
                text.parse::<SocketAddr>().map_err(|_| format!("\"{text}\" is not an address and a port; {right}"))
            };
            made_up(protocol, endpoint(source)?, endpoint(destination)?).map_err(|wrong| format!("{wrong}; {right}"))?
        }
        [digits] => Hex::parse(digits).ok_or_else(|| format!("\"{digits}\" is not a frame; {right}"))?.0,
        _ => return Err(right.to_owned()),
    };
    if FRAME.contains(&frame.len()) {
        return Ok(Hex(frame));
    }
    Err(format!("a frame of {} bytes; the kernel tries frames of {} to {}", frame.len(), FRAME.start(), FRAME.end()))
}

/// A segment of an established connection, or a datagram: a known flow decides on it if there is one.
fn made_up(protocol: &str, source: SocketAddr, destination: SocketAddr) -> Result<Vec<u8>, String> {
    let ethernet = PacketBuilder::ethernet2(MACS.1, MACS.0);
    let ip: PacketBuilderStep<_> = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), HOPS),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), HOPS),
        _ => return Err(format!("{source} and {destination} are of different IP versions")),
    };
    let mut frame = Vec::new();
    let written = match protocol {
        "tcp" => ip.tcp(source.port(), destination.port(), 1, u16::MAX).ack(1).write(&mut frame, &[]),
        "udp" => ip.udp(source.port(), destination.port()).write(&mut frame, &[]),
        other => return Err(format!("\"{other}\" is neither tcp nor udp")),
    };
    written.map_err(|error| error.to_string())?;
    Ok(frame)
}

/// Runs the frame through the program and says what came of it and why.
pub fn explain(
    frame: &Hex,
    knowledge: &Knowledge,
    decision: Option<&Decision>,
    dataplane: Option<&Dataplane>,
) -> Result<ExplainedPacket, String> {
    if !FRAME.contains(&frame.0.len()) {
        return Err(format!("a frame has {} to {} bytes", FRAME.start(), FRAME.end()));
    }
    let dataplane = dataplane.ok_or("the program is not attached: [dataplane] interfaces is empty")?;
    let explained = dataplane.explain(&frame.0).map_err(|error| error.to_string())?;
    let (packet, destination) = describe(&frame.0);
    let resources = &knowledge.config.resources;
    let resource = destination.and_then(|address| {
        let owns = |(_, resource): &(&String, &crate::config::Resource)| {
            resource.instances.values().any(|instance| instance.addresses.contains(&address))
        };
        resources.iter().find(owns).map(|(name, _)| name.clone())
    });
    let outcome = explained.outcome;
    let mut lines = vec![packet, format!("Outcome {}: {}.", outcome.name(), outcome.describes())];
    if let Some(name) = &resource {
        let decided = decision.and_then(|decision| decision.resources.get(name));
        lines.push(decided.map_or_else(|| format!("{name}: not decided on yet."), |decided| instance(name, decided)));
    }
    lines.push(action(&explained));
    Ok(ExplainedPacket {
        outcome: outcome.name().to_owned(),
        action: verb(outcome.action()).to_owned(),
        resource,
        target: explained.target.as_ref().map(|target| target.address),
        interface: explained.target.map(|target| target.interface),
        established: explained.established,
        lines,
    })
}

/// What the frame is, and the address it is for.
fn describe(frame: &[u8]) -> (String, Option<IpAddr>) {
    let Ok(packet) = SlicedPacket::from_ethernet(frame) else {
        return (format!("{} bytes that are no whole packet.", frame.len()), None);
    };
    let (source, destination): (IpAddr, IpAddr) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        Some(NetSlice::Ipv6(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        _ => return (format!("{} bytes that are no IP packet.", frame.len()), None),
    };
    let said = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => format!(
            "TCP from {} to {}.",
            SocketAddr::new(source, tcp.source_port()),
            SocketAddr::new(destination, tcp.destination_port())
        ),
        Some(TransportSlice::Udp(udp)) => format!(
            "UDP from {} to {}.",
            SocketAddr::new(source, udp.source_port()),
            SocketAddr::new(destination, udp.destination_port())
        ),
        Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_)) => {
            format!("ICMP from {source} to {destination}.")
        }
        _ => format!("An IP packet from {source} to {destination}."),
    };
    (said, Some(destination))
}

fn instance(name: &str, decided: &Decided) -> String {
    let holder = decided.tenure.holder.as_ref().map_or_else(String::new, |holder| format!(", held by {holder}"));
    let leaving =
        decided.leaving.as_ref().map_or_else(String::new, |site| format!("; established flows finish at {site}"));
    let epoch = decided.tenure.epoch;
    format!("It is for {name}, epoch {epoch}{holder}: {}{leaving}.", decided.placement.arrival)
}

fn action(explained: &Explained) -> String {
    let why = if explained.established { "its flow is established there" } else { "no flow is known" };
    match (explained.outcome.action(), &explained.target) {
        (Action::Send, Some(target)) => {
            format!("It goes to {} through interface {}: {why}.", target.address, target.interface)
        }
        (action, _) => format!("The frame is {}.", verb(action)),
    }
}

const fn verb(action: Action) -> &'static str {
    match action {
        Action::Pass => "left to the host",
        Action::Transmit => "answered out of the interface it came from",
        Action::Send => "sent on",
        Action::Drop => "dropped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_packet_is_made_up_from_its_endpoints() {
        let Hex(tcp) = frame(&words("tcp 203.0.113.10:40000 192.0.2.80:80")).unwrap();
        assert_eq!(describe(&tcp).0, "TCP from 203.0.113.10:40000 to 192.0.2.80:80.");
        let Hex(udp) = frame(&words("udp [2001:db8:c1::10]:53 [2001:db8:1:80::81]:7001")).unwrap();
        assert_eq!(describe(&udp).0, "UDP from [2001:db8:c1::10]:53 to [2001:db8:1:80::81]:7001.");
        let digits = Hex(tcp.clone()).to_string();
        assert_eq!(frame(&[digits]).unwrap().0, tcp);
    }

    #[test]
    fn what_is_no_packet_is_an_error_that_says_how_to_write_one() {
        for (text, said) in [
            ("tcp 203.0.113.10 192.0.2.80:80", "\"203.0.113.10\" is not an address and a port; write: tcp"),
            ("tcp 203.0.113.10:1 [::1]:80", "are of different IP versions; write: tcp"),
            ("sctp 203.0.113.10:1 192.0.2.80:80", "\"sctp\" is neither tcp nor udp; write: tcp"),
            ("hello", "\"hello\" is not a frame; write: tcp"),
            ("0a", "a frame of 1 bytes; the kernel tries frames of 14 to 3000"),
            ("tcp udp", "write: tcp SOURCE:PORT"),
        ] {
            let error = frame(&words(text)).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
