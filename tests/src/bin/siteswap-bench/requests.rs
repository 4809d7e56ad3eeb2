//! How long the program takes for a request, above a program that only sends the frame back.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use lab::program::{
    frames::{Addresses, CLIENT_V4, CLIENT_V6, Datagram},
    requests::{ACK, SYN, Tunnelled, tcp},
    stopwatch::{Stopwatch, Target as Measured},
    table::Table,
};
use serde::Serialize;
use siteswap::maglev;
use siteswap_common::{
    maps::{
        AddressEntry, FLOW_WAYS, InstanceEntry, MAX_PORTS, PortEntry, RING_CHUNK, RingChunk, Steer, Target, TargetKind,
        TunnelPeer,
    },
    steer::tunnel::site,
};

use crate::{
    Report, median,
    program::{least, times},
};

/// Flows that are asked for by turns where a row says many.
const FLOWS: usize = 10_000;
/// Each round measures the program and the reflector once.
const ROUNDS: u16 = 51;
/// Flows that there is room for, beside the usual number.
const ROOMS: [u32; 4] = [1 << 18, 1 << 20, 1 << 22, 1 << 24];
/// Flows of the flood.
const FLOOD: usize = 1_000_000;
/// As many fit into the benchmark's map of frames.
const BATCH: usize = 100_000;
/// Established flows that the flood is to leave alone: few, and a quarter and a half of what there is room for.
const ESTABLISHED: [usize; 3] = [1_000, 32_768, 65_536];

const OWN_TUNNEL: [u8; 4] = [10, 255, 0, 1];
const PEER_TUNNEL: [u8; 4] = [10, 255, 0, 2];
/// Index of the peer's target.
const PEER: u32 = 1;

/// What was measured.
#[derive(Serialize)]
pub struct Requests {
    rows: Vec<Row>,
    rooms: Vec<Room>,
    floods: Vec<Flood>,
}

/// What a new flow takes with a table of another size, as in [`Row`].
#[derive(Serialize)]
struct Room {
    /// Flows that there is room for.
    flows: u32,
    difference: f64,
    least_difference: f64,
}

/// One line of the result; times in nanoseconds per packet, medians over the rounds if not said otherwise.
#[derive(Serialize)]
struct Row {
    request: &'static str,
    resources: usize,
    /// Resources that are asked for by turns.
    asked: usize,
    /// Of each resource.
    backends: usize,
    /// How many flows take turns.
    flows: usize,
    program: f64,
    reflector: f64,
    /// The program's own time.
    difference: f64,
    /// The same in the rounds that were disturbed least.
    least_difference: f64,
}

/// What a flood does to flows that carry traffic.
#[derive(Serialize)]
struct Flood {
    /// New flows in it.
    flows: usize,
    established: usize,
    /// Established flows that went elsewhere afterwards.
    moved: usize,
    /// The program's own time for an established flow, before.
    before: f64,
    /// And between the parts of the flood.
    during: f64,
}

/// A request of the benchmark.
#[derive(Clone, Copy)]
struct Request {
    what: &'static str,
    v6: bool,
    steer: Steer,
    tunnelled: bool,
    new: bool,
}

const REQUESTS: [Request; 6] = [
    Request { what: "served/IPv4", v6: false, steer: Steer::Serve, tunnelled: false, new: false },
    Request { what: "served/IPv6", v6: true, steer: Steer::Serve, tunnelled: false, new: false },
    Request { what: "forwarded/IPv4", v6: false, steer: Steer::Forward, tunnelled: false, new: false },
    Request { what: "forwarded/IPv6", v6: true, steer: Steer::Forward, tunnelled: false, new: false },
    Request { what: "decapsulated/IPv4", v6: false, steer: Steer::Serve, tunnelled: true, new: false },
    NEW_FLOW,
];

const NEW_FLOW: Request =
    Request { what: "new flow/IPv4", v6: false, steer: Steer::Serve, tunnelled: false, new: true };

/// Measures every kind of request with few and many resources and backends, of one flow and of many.
pub fn measure() -> Result<Requests> {
    let mut rows = Vec::new();
    for (resources, backends) in [(10, 2), (10_000, 2), (10, 1_000)] {
        for steer in [Steer::Serve, Steer::Forward] {
            let mut stopwatch = Stopwatch::new(&table(resources, backends, steer))?;
            for request in REQUESTS.into_iter().filter(|request| request.steer == steer) {
                let one = if request.new { FLOWS } else { 1 };
                for (asked, flows) in [(1, one), (resources, FLOWS)] {
                    let frames: Vec<_> = (0..flows).map(|flow| frame(request, flow, asked)).collect();
                    stopwatch.frames(&frames)?;
                    let times =
                        if request.new { new_flows(&mut stopwatch)? } else { times(&mut stopwatch, ROUNDS.into())? };
                    rows.push(row(request, [resources, asked, backends, flows], &times));
                }
            }
        }
    }
    Ok(Requests { rows, rooms: rooms()?, floods: ESTABLISHED.into_iter().map(flood).collect::<Result<_>>()? })
}

/// New flows of one of ten resources, with each size of the table of flows.
fn rooms() -> Result<Vec<Room>> {
    let room = |flows: u32| {
        let table = Table { flow_sets: flows / FLOW_WAYS, ..table(10, 2, Steer::Serve) };
        let mut stopwatch = Stopwatch::new(&table)?;
        stopwatch.frames(&(0..FLOWS).map(|flow| frame(NEW_FLOW, flow, 1)).collect::<Vec<_>>())?;
        let [programs, reflectors] = new_flows(&mut stopwatch)?;
        let (difference, least_difference) =
            (median(&programs) - median(&reflectors), least(&programs) - least(&reflectors));
        Ok(Room { flows, difference, least_difference })
    };
    ROOMS.into_iter().map(room).collect()
}

fn row(
    request: Request,
    [resources, asked, backends, flows]: [usize; 4],
    [programs, reflectors]: &[Vec<f64>; 2],
) -> Row {
    let (program, reflector) = (median(programs), median(reflectors));
    Row {
        request: request.what,
        resources,
        asked,
        backends,
        flows,
        program,
        reflector,
        difference: program - reflector,
        least_difference: least(programs) - least(reflectors),
    }
}

/// As [`times`], but every flow is new in every round.
fn new_flows(stopwatch: &mut Stopwatch) -> Result<[Vec<f64>; 2]> {
    let repeat = u32::try_from(FLOWS)?;
    let (mut program, mut reflector) = (Vec::new(), Vec::new());
    for round in 1..=u64::from(ROUNDS) {
        stopwatch.kernel().forget_flows(round << 32 | 1)?;
        program.push(stopwatch.run(Measured::Program, repeat)?.as_secs_f64() * 1e9);
        reflector.push(stopwatch.run(Measured::Reflector, repeat)?.as_secs_f64() * 1e9);
    }
    Ok([program, reflector])
}

/// Established flows on one backend, while Maglev's table would give every one to another.
fn flood(established: usize) -> Result<Flood> {
    let mut table = table(1, 2, Steer::Serve);
    let mut stopwatch = Stopwatch::new(&table)?;
    let established = (0..established).map(|flow| client(10, flow, ACK)).collect::<Vec<_>>();
    let mut homes = Vec::new();
    for frame in &established {
        homes.push(stopwatch.kernel().run(frame)?.frame[..6].to_vec());
    }
    // As TCP follows its SYN by an ACK and the request. Of flows that begin in one set before any has sent more, only the
    // last two are remembered.
    for frame in established.iter().flat_map(|frame| [frame, frame]) {
        stopwatch.kernel().run(frame)?;
    }
    // The other backend, for whoever has none yet.
    let rings = table.rings.clone();
    for chunk in &mut table.rings {
        chunk.targets.iter_mut().for_each(|target| *target = if *target == 2 { 3 } else { 2 });
    }
    ensure!(rings != table.rings, "one backend only");
    stopwatch.kernel().publish_requests(&table)?;
    let own_time = |stopwatch: &mut Stopwatch| -> Result<f64> {
        stopwatch.frames(&established)?;
        let [programs, reflectors] = times(stopwatch, ROUNDS.into())?;
        Ok(median(&programs) - median(&reflectors))
    };
    let before = own_time(&mut stopwatch)?;
    let mut during = Vec::new();
    for batch in 0..FLOOD / BATCH {
        let strangers = (0..BATCH).map(|index| client(100, batch * BATCH + index, SYN));
        stopwatch.frames(&strangers.collect::<Vec<_>>())?;
        stopwatch.run(Measured::Program, u32::try_from(BATCH)?)?;
        during.push(own_time(&mut stopwatch)?);
    }
    let mut moved = 0;
    for (frame, home) in established.iter().zip(&homes) {
        moved += usize::from(stopwatch.kernel().run(frame)?.frame[..6] != home[..]);
    }
    Ok(Flood { flows: FLOOD, established: established.len(), moved, before, during: median(&during) })
}

/// A packet of one of many clients in this network, for the first resource.
fn client(network: u8, index: usize, flags: u8) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(index).expect("below a million").to_be_bytes();
    segment(resource_v4(0), [network, a, b, c], 7, flags)
}

fn frame(request: Request, flow: usize, asked: usize) -> Vec<u8> {
    let resource = flow % asked;
    let source = u16::try_from(1024 + flow % 60_000).expect("a port");
    let flags = if request.new { SYN } else { ACK };
    let frame = if request.v6 {
        let addresses = Addresses::V6(CLIENT_V6, resource_v6(resource));
        packet(addresses, source, flags)
    } else {
        segment(resource_v4(resource), CLIENT_V4, source, flags)
    };
    match request.tunnelled {
        true => Tunnelled::new(0, &frame[14..]).frame(),
        false => frame,
    }
}

fn segment(to: [u8; 4], from: [u8; 4], source: u16, flags: u8) -> Vec<u8> {
    packet(Addresses::V4(from, to), source, flags)
}

fn packet(addresses: Addresses, source: u16, flags: u8) -> Vec<u8> {
    let transport = Some(tcp(source, 80, flags, 0));
    Datagram { protocol: 6, fragment: [0, 0, 0x40, 0], transport, ..Datagram::new(addresses, &[]) }.frame()
}

fn resource_v4(index: usize) -> [u8; 4] {
    let [_, _, high, low] = u32::try_from(index).expect("few").to_be_bytes();
    [198, 18, high, low]
}

fn resource_v6(index: usize) -> [u8; 16] {
    let mut address = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0];
    address[14..].copy_from_slice(&resource_v4(index)[2..]);
    address
}

/// Resources with one port, an address of each family and as many backends each; the ten thousand first backends are
/// different ones.
fn table(resources: usize, backends: usize, steer: Steer) -> Table {
    let mut table = Table::new(&[[192, 0, 2, 2]], &[]);
    table.tunnel = [u32::from_be_bytes(OWN_TUNNEL), 7401, site("east")];
    table.peers[0] = TunnelPeer { address: PEER_TUNNEL, site: site("west") };
    table.targets.push(Target {
        kind: TargetKind::Peer as u32,
        interface: 8,
        mtu: 1456,
        source: OWN_TUNNEL,
        destination: PEER_TUNNEL,
        port: 7401,
        to: [2, 0, 0, 0, 0, 1],
        from: [2, 0, 0, 0, 0, 2],
        ..Target::NONE
    });
    let size = maglev::size(backends);
    let weighted: Vec<_> = (0..backends).map(|index| (SocketAddr::new(lan(index), 0), 1)).collect();
    let choices = maglev::table(&weighted, size);
    let mut ports = [PortEntry::default(); MAX_PORTS];
    ports[0] = PortEntry { protocol: 6, reserved: 0, port: 80 };
    for index in 0..resources {
        let (id, first) = (index as u64 + 1, table.targets.len());
        for backend in 0..backends {
            let mut to = [2, 0, 0, 0, 0, 0];
            to[2..].copy_from_slice(&u32::try_from(first + backend).expect("few").to_be_bytes());
            let kind = TargetKind::Backend as u32;
            table.targets.push(Target { owner: id, kind, interface: 7, to, from: [2; 6], ..Target::NONE });
        }
        let ring = u32::try_from(table.rings.len()).expect("few");
        for part in choices.chunks(RING_CHUNK as usize) {
            let mut chunk = RingChunk { targets: [0; RING_CHUNK as usize] };
            for (entry, choice) in chunk.targets.iter_mut().zip(part) {
                *entry = u16::try_from(first + *choice as usize).expect("fewer than 65,536 backends");
            }
            table.rings.push(chunk);
        }
        let ring_size = u32::try_from(size).expect("small");
        let entry = InstanceEntry { id, ring, ring_size, steer: steer as u32, peer: PEER, ..InstanceEntry::NONE };
        table.instances.push(entry);
        let instance = u32::try_from(index).expect("few");
        let v4 = Ipv4Addr::from(resource_v4(index)).to_ipv6_mapped().octets();
        for address in [v4, resource_v6(index)] {
            table.addresses.push(AddressEntry { address, instance_id: id, instance, port_count: 1, ports });
        }
    }
    table
}

fn lan(index: usize) -> IpAddr {
    let [_, a, b, c] = u32::try_from(index).expect("few").to_be_bytes();
    IpAddr::from([10, a, b, c])
}

impl Report for Requests {
    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "benchmark": "requests", "unit": "nanoseconds", "rows": self.rows, "rooms": self.rooms, "floods": self.floods,
        })
    }

    fn text(&self) -> String {
        let mut text = "requests: time for a packet, ns, medians; least: of the least disturbed rounds\n".to_owned();
        text += "  request            resources  asked  backends   flows  program  reflector  difference  least\n";
        for row in &self.rows {
            text += &format!(
                "  {:<18} {:>9} {:>6} {:>9} {:>7} {:>8.0} {:>10.0} {:>11.0} {:>6.0}\n",
                row.request,
                row.resources,
                row.asked,
                row.backends,
                row.flows,
                row.program,
                row.reflector,
                row.difference,
                row.least_difference
            );
        }
        for Room { flows, difference, least_difference } in &self.rooms {
            text += &format!(
                "  new flow with room for {flows:>8} flows: difference {difference:.0}, least {least_difference:.0}\n"
            );
        }
        for Flood { flows, established, moved, before, during } in &self.floods {
            text += &format!(
                "  flood of {flows} new flows: of {established} established ones {moved} moved; their own time is \
                 {before:.0} before and {during:.0} in between\n"
            );
        }
        text
    }
}
