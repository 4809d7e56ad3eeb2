//! What would become of a packet: the question, as a person writes it, and the answer in words.

use std::net::{IpAddr, SocketAddr};

use etherparse::{NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket, TransportSlice};
use nix::net::if_::if_indextoname;
use siteswap_common::{
    outcome::Action,
    steer::{Knew, tunnel},
};

use super::api::{ExplainedPacket, Hex};
use crate::{
    config::Config,
    dataplane::{Dataplane, Explained, SentTo},
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
    let (mut lines, destination) = describe(&frame.0, &knowledge.config);
    let resource = destination.and_then(|address| resource(address, &knowledge.config));
    let outcome = explained.outcome;
    lines.push(format!("Outcome {}: {}.", outcome.name(), outcome.describes()));
    if let Some(name) = &resource {
        let decided = decision.and_then(|decision| decision.resources.get(name));
        lines.push(decided.map_or_else(|| format!("{name}: not decided on yet."), |decided| instance(name, decided)));
    }
    lines.push(action(&explained));
    let target = explained.target;
    Ok(ExplainedPacket {
        outcome: outcome.name().to_owned(),
        action: verb(outcome.action()).to_owned(),
        resource,
        target: target.as_ref().map(|target| target.address),
        interface: target.as_ref().map(|target| target.interface),
        interface_name: target.as_ref().and_then(interface_name),
        established: explained.knew == Knew::Target,
        moved: explained.knew == Knew::Former,
        lines,
    })
}

/// The resource with this address.
fn resource(address: IpAddr, config: &Config) -> Option<String> {
    let mut resources = config.resources.iter();
    let owner = resources
        .find(|(_, resource)| resource.instances.values().any(|instance| instance.addresses.contains(&address)));
    owner.map(|(name, _)| name.clone())
}

/// What the frame is, and the address it is for: that of the packet inside if it came through the tunnel.
fn describe(frame: &[u8], config: &Config) -> (Vec<String>, Option<IpAddr>) {
    let Ok(packet) = SlicedPacket::from_ethernet(frame) else {
        return (vec![format!("{} bytes that are no whole packet.", frame.len())], None);
    };
    let (said, destination) = describe_packet(&packet, frame.len());
    let Some(Forwarded { by, epoch, inner }) = forwarded(&packet, config) else {
        return (vec![said], destination);
    };
    let (inside, destination) = match SlicedPacket::from_ip(inner) {
        Ok(packet) => describe_packet(&packet, inner.len()),
        Err(_) => (format!("{} bytes that are no whole packet.", inner.len()), None),
    };
    (vec![said, format!("Inside, forwarded by {by} in epoch {epoch}: {inside}")], destination)
}

/// What a packet of so many bytes is, and the address it is for.
fn describe_packet(packet: &SlicedPacket<'_>, length: usize) -> (String, Option<IpAddr>) {
    let Some((source, destination)) = addresses(packet) else {
        return (format!("{length} bytes that are no IP packet."), None);
    };
    let ports = |protocol, from, to| {
        format!("{protocol} from {} to {}.", SocketAddr::new(source, from), SocketAddr::new(destination, to))
    };
    let said = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => ports("TCP", tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => ports("UDP", udp.source_port(), udp.destination_port()),
        Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_)) => {
            format!("ICMP from {source} to {destination}.")
        }
        _ => format!("An IP packet from {source} to {destination}."),
    };
    (said, Some(destination))
}

/// Source and destination of an IP packet.
fn addresses(packet: &SlicedPacket<'_>) -> Option<(IpAddr, IpAddr)> {
    match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => Some((ip.header().source_addr().into(), ip.header().destination_addr().into())),
        NetSlice::Ipv6(ip) => Some((ip.header().source_addr().into(), ip.header().destination_addr().into())),
        NetSlice::Arp(_) => None,
    }
}

/// A packet that came through the tunnel.
struct Forwarded<'a> {
    /// The site that its header names.
    by: &'a str,
    epoch: u64,
    inner: &'a [u8],
}

/// The packet that a peer sends in this one, whether or not the program believes that.
fn forwarded<'a>(packet: &SlicedPacket<'a>, config: &'a Config) -> Option<Forwarded<'a>> {
    let own = config.sites.get(&config.site)?.tunnel?;
    let Some(TransportSlice::Udp(udp)) = &packet.transport else { return None };
    let (_, destination) = addresses(packet)?;
    let (header, inner) = udp.payload().split_first_chunk::<{ tunnel::HEADER }>()?;
    let [what, site, high, low] = words(header);
    let is_forwarded = what == tunnel::header(tunnel::FORWARDED, site)[0];
    if SocketAddr::new(destination, udp.destination_port()) != own.into() || !is_forwarded {
        return None;
    }
    let by = config.sites.keys().find(|name| tunnel::site(name) == site).map_or("an unknown site", String::as_str);
    Some(Forwarded { by, epoch: u64::from(high) << 32 | u64::from(low), inner })
}

/// The tunnel's header as numbers.
fn words(header: &[u8; tunnel::HEADER]) -> [u32; 4] {
    let (words, _) = header.as_chunks::<4>();
    std::array::from_fn(|index| u32::from_be_bytes(words[index]))
}

fn instance(name: &str, decided: &Decided) -> String {
    let holder = decided.tenure.holder.as_ref().map_or_else(String::new, |holder| format!(", held by {holder}"));
    let leaving =
        decided.leaving.as_ref().map_or_else(String::new, |site| format!("; established flows finish at {site}"));
    let epoch = decided.tenure.epoch;
    format!("It is for {name}, epoch {epoch}{holder}: {}{leaving}.", decided.placement.arrival)
}

fn action(explained: &Explained) -> String {
    let why = match explained.knew {
        Knew::Target => "its flow is established there",
        Knew::Former => "its flow is known, but cannot stay where it was",
        Knew::Nothing => "no flow is known",
    };
    match (explained.outcome.action(), &explained.target) {
        (Action::Send, Some(target)) => {
            let number = target.interface;
            let interface =
                interface_name(target).map_or_else(|| number.to_string(), |name| format!("{name} ({number})"));
            format!("It goes to {} through interface {interface}: {why}.", target.address)
        }
        (action, _) => format!("The frame is {}.", verb(action)),
    }
}

/// The name of the interface that leads to a target.
fn interface_name(target: &SentTo) -> Option<String> {
    if_indextoname(target.interface).ok()?.into_string().ok()
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
    use std::{net::SocketAddrV4, sync::Arc};

    use super::*;
    use crate::decision::tests;

    /// East's, with a tunnel.
    fn config() -> Arc<Config> {
        let mut config = tests::knowledge("east").config;
        let east = Arc::make_mut(&mut config).sites.get_mut("east").unwrap();
        east.tunnel = Some("10.255.0.1:7401".parse().unwrap());
        config
    }

    /// What is said of a frame and of what is inside, and the resource that it is for.
    fn said(frame: &[u8]) -> (String, Option<String>) {
        let config = config();
        let (lines, destination) = describe(frame, &config);
        (lines.join(" "), destination.and_then(|address| resource(address, &config)))
    }

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_packet_is_made_up_from_its_endpoints() {
        let Hex(tcp) = frame(&words("tcp 203.0.113.10:40000 192.0.2.80:80")).unwrap();
        assert_eq!(said(&tcp).0, "TCP from 203.0.113.10:40000 to 192.0.2.80:80.");
        let Hex(udp) = frame(&words("udp [2001:db8:c1::10]:53 [2001:db8:1:80::81]:7001")).unwrap();
        assert_eq!(said(&udp).0, "UDP from [2001:db8:c1::10]:53 to [2001:db8:1:80::81]:7001.");
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

    /// With this header before the packet inside.
    fn tunnelled(to: &str, header: &[u8], inner: &[u8]) -> Vec<u8> {
        let (to, mut frame): (SocketAddrV4, _) = (to.parse().unwrap(), Vec::new());
        let ip = PacketBuilder::ethernet2(MACS.1, MACS.0).ipv4([10, 255, 0, 2], to.ip().octets(), HOPS);
        ip.udp(49_443, to.port()).write(&mut frame, &[header, inner].concat()).unwrap();
        frame
    }

    #[test]
    fn a_frame_that_came_through_the_tunnel_is_described_with_the_packet_inside() {
        const TO: &str = "10.255.0.1:7401";
        let outer = |to| format!("UDP from 10.255.0.2:49443 to {to}.");
        let Hex(tcp) = frame(&words("tcp 203.0.113.10:40000 192.0.2.81:7001")).unwrap();
        let inner = &tcp[14..];
        let header = |mark, site: &str| {
            let [what, site] = tunnel::header(mark, tunnel::site(site)).map(u32::to_be_bytes);
            [&what[..], &site, &3_u64.to_be_bytes()].concat()
        };
        let west = header(tunnel::FORWARDED, "west");
        for (frame, inside, is_for) in [
            (
                tunnelled(TO, &west, inner),
                " Inside, forwarded by west in epoch 3: TCP from 203.0.113.10:40000 to 192.0.2.81:7001.",
                Some("orders"),
            ),
            (
                tunnelled(TO, &header(tunnel::FORWARDED, "south"), &inner[..30]),
                " Inside, forwarded by an unknown site in epoch 3: 30 bytes that are no whole packet.",
                None,
            ),
            (tunnelled(TO, &header(tunnel::ECHO, "west"), inner), "", None),
            (tunnelled(TO, &west[..15], &[]), "", None),
        ] {
            assert_eq!(said(&frame), (outer(TO) + inside, is_for.map(str::to_owned)));
        }
        for elsewhere in ["10.255.0.1:7400", "10.255.0.3:7401"] {
            assert_eq!(said(&tunnelled(elsewhere, &west, inner)), (outer(elsewhere), None));
        }
    }
}
