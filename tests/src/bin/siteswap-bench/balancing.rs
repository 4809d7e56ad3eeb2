//! Packets a second from a client through an edge to two backends, over veth: siteswap's program on the edge, and
//! nftables with destination NAT in its place, by turns.
//!
//! The edge has a CPU of its own, with the sink; the generator has another. The third contender is a program that only sends
//! on what comes: the most that cables and sink can do. Each is offered several loads, and what counts is the most that the
//! sink receives of any (RFC 2285 section 3.6.3, maximum forwarding rate): with more than it can carry, an edge that
//! drops late carries less than it could.

use std::{
    fs::File,
    io::Write,
    net::Ipv4Addr,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use aya::{
    EbpfLoader,
    programs::{Xdp, XdpMode},
};
use lab::{
    links::{complete_checksums, connect, prepare},
    netns::Netns,
    plan::Part,
    program::{
        frames::{Addresses, CLIENT_V4, Datagram},
        generator::{Arrival, Generator, KINDS},
        kernel::Kernel,
        queue::{Threads, stay_here},
        requests::ring,
        table::Table,
    },
};
use nix::net::if_::if_nametoindex;
use serde::Serialize;
use serde_json::{Value, json};
use siteswap::dataplane::{OBJECT, verify};
use siteswap_common::{
    maps::{AddressEntry, InstanceEntry, MAX_PORTS, PortEntry, RING_CHUNK, Steer, Target, TargetKind},
    steer::tunnel::site,
};

use crate::{Report, median};

/// Each contender is measured this often, in turns.
const ROUNDS: usize = 9;
/// No round begins later than this.
const LONGEST: Duration = Duration::from_secs(60);
/// Packets of a load: a third of a second, and more if they are paced. They are sent by one system call, since each call takes
/// milliseconds to begin and to end.
const PACKETS: u32 = 1_000_000;
/// The same for nftables, which takes longer for each.
const NFTABLES_PACKETS: u32 = 300_000;
/// Offered loads after the first, which is as fast as the generator can: times what arrived of that.
const LOADS: [f64; 4] = [2.0, 1.6, 1.3, 1.1];
/// Packets before the clock starts: after them every flow is established.
const WARM_UP: u32 = 50_000;
/// Source ports that take turns.
const FLOWS: u16 = 1_000;

const RESOURCE: [u8; 4] = [198, 18, 0, 1];
const PORT: u16 = 7001;
const BACKENDS: [[u8; 4]; 2] = [[10, 0, 0, 1], [10, 0, 0, 2]];

/// The edge's MAC address, where the client sends.
const EDGE: [u8; 6] = mac(4);

/// What may arrive: from siteswap, for the resource's address at either backend; from nftables, for a backend's address;
/// and what was only sent on.
const ARRIVALS: [Arrival; KINDS] = [
    Arrival { to: mac(0), address: RESOURCE, port: PORT },
    Arrival { to: mac(1), address: RESOURCE, port: PORT },
    Arrival { to: mac(2), address: BACKENDS[0], port: PORT },
    Arrival { to: mac(3), address: BACKENDS[1], port: PORT },
    Arrival { to: EDGE, address: RESOURCE, port: PORT },
];

/// A backend's, which `kind` of frames is addressed to.
const fn mac(kind: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0xbe, kind]
}

/// What was measured.
#[derive(Serialize)]
pub struct Balancing {
    siteswap: Vec<Round>,
    nftables: Vec<Round>,
    bare: Vec<Round>,
}

/// Of one contender, with the load of which most arrived.
#[derive(Serialize)]
struct Round {
    /// Nanoseconds between two packets, at least; 0: the generator did not wait.
    gap: u32,
    sent: u32,
    /// By backend; in one sum, if the edge does not choose.
    received: Vec<u64>,
    /// Received packets a second.
    rate: f64,
}

/// Three namespaces in a row; they end with the bed.
struct Bed {
    client: Netns,
    edge: Netns,
    backend: Netns,
    _handles: [File; 3],
}

/// Measures all three.
pub fn measure() -> Result<Balancing> {
    let bed = Bed::new()?;
    let mut generator = Generator::new(&frames(), &ARRIVALS)?;
    bed.backend.enter(|| generator.attach_sink("lan"))?;
    bed.client.enter(|| generator.aim("up"))?;
    let mut kernel = Kernel::new(&table(bed.edge.enter(|| Ok(if_nametoindex("back")?))?))?;
    // A veth takes no frames from XDP without a program at its other end: what nftables is to see is passed to it.
    let mut passing = EbpfLoader::new().load(OBJECT)?;
    let stub: &mut Xdp = passing.program_mut("stub").context("the object has no program `stub`")?.try_into()?;
    verify(stub)?;
    let mut sender = bed.edge.enter(|| Generator::sender("back"))?;
    let send: &mut Xdp = sender.program_mut("send").context("the object has no program `send`")?.try_into()?;
    let mut found = Balancing { siteswap: Vec::new(), nftables: Vec::new(), bare: Vec::new() };
    let begun = Instant::now();
    for round in (1..=ROUNDS).take_while(|round| *round == 1 || begun.elapsed() < LONGEST) {
        let siteswap = bed.round(kernel.program_mut("siteswap")?, &mut generator, PACKETS, &[0, 1])?;
        let nftables = bed.round(stub, &mut generator, NFTABLES_PACKETS, &[2, 3])?;
        let bare = bed.round(send, &mut generator, PACKETS, &[4])?;
        let [one, other, most] = [siteswap.rate, nftables.rate, bare.rate];
        eprintln!("  round {round} of {ROUNDS}: siteswap {one:.0}, nftables {other:.0}, bare {most:.0} packets/s");
        found.siteswap.push(siteswap);
        found.nftables.push(nftables);
        found.bare.push(bare);
    }
    Ok(found)
}

impl Bed {
    fn new() -> Result<Self> {
        let [(client, first), (edge, second), (backend, third)] =
            [Netns::unnamed()?, Netns::unnamed()?, Netns::unnamed()?];
        let bed = Self { client, edge, backend, _handles: [first, second, third] };
        for (node, part) in [(&bed.client, Part::Host), (&bed.edge, Part::Router), (&bed.backend, Part::Host)] {
            prepare(node, part)?;
        }
        connect(&bed.client, "up", &bed.edge, "front")?;
        connect(&bed.edge, "back", &bed.backend, "lan")?;
        for (node, interface) in [(&bed.client, "up"), (&bed.edge, "front"), (&bed.edge, "back")] {
            complete_checksums(node, interface)?;
        }
        bed.on_edge("ip", &["-batch", "-"], &addresses())?;
        bed.on_edge("nft", &["-f", "-"], &rules())?;
        Ok(bed)
    }

    /// Runs a program on the edge with this input.
    fn on_edge(&self, program: &str, arguments: &[&str], input: &str) -> Result<()> {
        let mut child =
            self.edge.command(program)?.args(arguments).stdin(Stdio::piped()).spawn().context("starting")?;
        child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
        let status = child.wait()?;
        ensure!(status.success(), "{program} {}: {status}, given:\n{input}", arguments.join(" "));
        Ok(())
    }

    /// Measures with this program where the edge receives; frames of these kinds are to arrive.
    fn round(&self, program: &mut Xdp, generator: &mut Generator, packets: u32, kinds: &[usize]) -> Result<Round> {
        // With a program, the interface has a queue.
        let others = Threads::of("front")?;
        let link = self.edge.enter(|| Ok(program.attach("front", XdpMode::Driver)?))?;
        let round = self.client.enter(|| {
            others.add(&self.edge, stay_here()?)?;
            most(generator, packets, kinds)
        });
        program.detach(link)?;
        round
    }
}

/// The round with the load of which most arrives.
fn most(generator: &mut Generator, packets: u32, kinds: &[usize]) -> Result<Round> {
    generator.send(WARM_UP, 0)?;
    let mut best = run(generator, packets, 0, kinds)?;
    let unpaced = best.rate;
    for load in LOADS {
        let round = run(generator, packets, gap(unpaced * load), kinds)?;
        if round.rate > best.rate {
            best = round;
        }
    }
    Ok(best)
}

/// Nanoseconds between packets at this rate a second.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is positive, and above one")]
fn gap(rate: f64) -> u32 {
    (1e9 / rate) as u32
}

/// Sends from this thread's namespace and CPU.
fn run(generator: &mut Generator, packets: u32, gap: u32, kinds: &[usize]) -> Result<Round> {
    let before = generator.arrived()?;
    let start = Instant::now();
    generator.send(packets, gap)?;
    let seconds = start.elapsed().as_secs_f64();
    let after = generator.arrived()?;
    let received: Vec<_> = kinds.iter().map(|kind| after[*kind] - before[*kind]).collect();
    ensure!(received.iter().all(|count| *count > 0), "of {packets} packets the backends received {received:?}");
    let rate = u32::try_from(received.iter().sum::<u64>()).map(f64::from)? / seconds;
    Ok(Round { gap, sent: packets, received, rate })
}

/// A packet of 60 bytes from each flow. Without a UDP checksum, as IPv4 allows (RFC 768).
fn frames() -> Vec<Vec<u8>> {
    let datagram = Datagram {
        to: EDGE,
        destination: PORT,
        udp_checksum: Some(0),
        ..Datagram::new(Addresses::V4(CLIENT_V4, RESOURCE), &[0; 18])
    };
    (0..FLOWS).map(|flow| Datagram { source: 10_000 + flow, ..datagram.clone() }.frame()).collect()
}

/// One resource with two backends behind an interface of the edge.
fn table(interface: u32) -> Table {
    const ID: u64 = 1;
    let mut table = Table::new(&[[192, 0, 2, 2]], &[]);
    table.tunnel = [u32::from_be_bytes([10, 255, 0, 1]), 7401, site("east")];
    table.targets.extend([0, 1].map(|kind| Target {
        owner: ID,
        kind: TargetKind::Backend as u32,
        interface,
        to: mac(kind),
        from: EDGE,
        ..Target::NONE
    }));
    table.rings = vec![ring(&[1, 2])];
    table.instances =
        vec![InstanceEntry { id: ID, ring_size: RING_CHUNK, steer: Steer::Serve as u32, ..InstanceEntry::NONE }];
    let mut ports = [PortEntry::default(); MAX_PORTS];
    ports[0] = PortEntry { protocol: 17, reserved: 0, port: PORT };
    let address = Ipv4Addr::from(RESOURCE).to_ipv6_mapped().octets();
    table.addresses = vec![AddressEntry { address, instance_id: ID, instance: 0, port_count: 1, ports }];
    table
}

/// What the edge's host needs to forward: for `ip -batch`.
fn addresses() -> String {
    let mut lines = format!("link set front address {}\n", colons(EDGE));
    lines += "address add 203.0.113.1/24 dev front\naddress add 10.0.0.254/24 dev back\n";
    for Arrival { to, address, .. } in &ARRIVALS[2..4] {
        lines += &format!("neighbour add {} lladdr {} dev back\n", Ipv4Addr::from(*address), colons(*to));
    }
    lines
}

fn colons(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The same balancing in nftables' words.
fn rules() -> String {
    let [resource, one, two] = [RESOURCE, BACKENDS[0], BACKENDS[1]].map(Ipv4Addr::from);
    format!(
        "table ip balancing {{
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr {resource} udp dport {PORT} dnat to jhash ip saddr . udp sport mod 2 map {{ 0 : {one}, 1 : {two} }}
  }}
}}
"
    )
}

fn rate(rounds: &[Round]) -> f64 {
    median(&rounds.iter().map(|round| round.rate).collect::<Vec<_>>())
}

impl Report for Balancing {
    fn json(&self) -> Value {
        let [siteswap, nftables, bare] = [&self.siteswap, &self.nftables, &self.bare].map(|rounds| rate(rounds));
        json!({
            "benchmark": "balancing",
            "unit": "packets per second",
            "rounds": self,
            "medians": { "siteswap": siteswap, "nftables": nftables, "bare": bare },
            "ratio": siteswap / nftables,
        })
    }

    fn text(&self) -> String {
        let siteswap = rate(&self.siteswap);
        let mut text = "balancing: packets per second received over veth, the most of any load, medians\n".to_owned();
        for (name, rounds) in [("siteswap", &self.siteswap), ("nftables", &self.nftables), ("bare", &self.bare)] {
            let sent: u64 = rounds.iter().map(|round| u64::from(round.sent)).sum();
            let received: u64 = rounds.iter().flat_map(|round| &round.received).sum();
            let (rate, ratio) = (rate(rounds), siteswap / rate(rounds));
            text += &format!(
                "  {name:<10} {rate:>10.0}   {received} of {sent} received; siteswap passes {ratio:.2} times as many\n"
            );
        }
        text
    }
}
