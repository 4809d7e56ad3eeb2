//! Judges an edge host.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr, SocketAddrV4},
};

use siteswap_common::steer::tunnel::OVERHEAD;

use super::{
    Finding,
    echo::Echo,
    facts::{Edge, Host, Interface, Kind, Program},
    set_ipv4,
};
use crate::{
    config::{Mode, Resource},
    dataplane::PROGRAM,
    nexthop::{Hop, Unresolved},
    probe::{confirming, enough},
};

/// The oldest kernel the program was tried on.
const OLDEST: (u32, u32) = (6, 1);

/// What the tunnel adds to a packet, bytes.
#[expect(clippy::cast_possible_truncation, reason = "three headers")]
const TUNNEL: u32 = OVERHEAD as u32;

/// The packets of an ordinary Ethernet path, bytes.
const ORDINARY: u32 = 1500;

/// Every IPv6 path carries packets of this size, bytes (RFC 8200 §5).
const LEAST_V6: u32 = 1280;

/// All checks.
pub fn check(edge: &Edge<'_>) -> Vec<Finding> {
    let mut findings = vec![kernel(&edge.release)];
    if edge.config.dataplane.interfaces.is_empty() {
        let says = "`dataplane.interfaces` is empty: the agent answers queries itself, and nothing is steered";
        findings.push(Finding::warning("program", "this host", says));
    } else {
        findings.push(bpf_file_system(edge));
    }
    findings.extend(forwarding(edge));
    findings.extend(edge.config.dataplane.interfaces.iter().flat_map(|name| interface(edge, name)));
    findings.extend(mixed_modes(edge));
    findings.extend(merged(edge));
    findings.extend(tags(edge));
    findings.extend(sizes(edge));
    findings.extend(reverse_path(edge));
    findings.extend(unattached(edge));
    findings.extend(addresses(edge));
    findings.extend(own_routes(edge));
    findings.extend(peers_routes(edge));
    findings.extend(backends(edge));
    findings.extend(tunnels(edge));
    findings
}

fn kernel(release: &str) -> Finding {
    const CHECK: &str = "kernel";
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (major, minor) = OLDEST;
    match version >= OLDEST {
        true => Finding::ok(CHECK, release, "new enough"),
        false => Finding::problem(CHECK, release, format!("too old: the program needs Linux {major}.{minor} or newer")),
    }
}

fn bpf_file_system(edge: &Edge<'_>) -> Finding {
    const CHECK: &str = "bpf file system";
    let pins = edge.config.dataplane.pins.display();
    match edge.bpf_file_system {
        true => Finding::ok(CHECK, pins, "there"),
        false => {
            Finding::problem(CHECK, pins, "`dataplane.pins` is not on a BPF file system: the program cannot be kept")
                .mended_by("mount -t bpf bpf /sys/fs/bpf")
        }
    }
}

/// The resources of this site that the program steers, and their instance's addresses.
fn steered<'a>(edge: &'a Edge<'_>) -> impl Iterator<Item = (&'a str, &'a Resource)> {
    edge.config
        .resources
        .iter()
        .filter(|(_, resource)| !resource.ports.is_empty())
        .map(|(name, resource)| (name.as_str(), resource))
}

/// The addresses of steered resources, at this and other sites, and the resources.
fn steered_addresses<'a>(edge: &'a Edge<'_>) -> impl Iterator<Item = (&'a str, IpAddr)> {
    steered(edge).flat_map(|(name, resource)| {
        let addresses = resource.instances.values().flat_map(|instance| &instance.addresses);
        addresses.map(move |address| (name, *address))
    })
}

/// The addresses of steered resources at this site.
fn own_addresses<'a>(edge: &'a Edge<'_>) -> impl Iterator<Item = IpAddr> + 'a {
    let instances = steered(edge).filter_map(|(_, resource)| resource.instances.get(&edge.config.site));
    instances.flat_map(|instance| instance.addresses.iter().copied())
}

fn forwarding(edge: &Edge<'_>) -> Vec<Finding> {
    let judge = |about: &str, on: bool, setting: &str| match on {
        true => Finding::ok("forwarding", about, "on"),
        false => Finding::problem("forwarding", about, "off: replies that backends send through this host end here")
            .mended_by(format!("sysctl -w {setting}=1")),
    };
    let mut findings = Vec::new();
    if own_addresses(edge).any(|address| address.is_ipv4()) {
        findings.push(judge("IPv4", edge.forwards_v4, "net.ipv4.ip_forward"));
    }
    if own_addresses(edge).any(|address| address.is_ipv6()) {
        findings.push(judge("IPv6", edge.forwards_v6, "net.ipv6.conf.all.forwarding"));
    }
    findings
}

/// One of the program's interfaces.
fn interface(edge: &Edge<'_>, name: &str) -> Vec<Finding> {
    const CHECK: &str = "interface";
    let Some(interface) = edge.host.interface(name) else {
        let existing: Vec<&str> = edge.host.interfaces.iter().map(|interface| interface.name.as_str()).collect();
        let says = format!("`dataplane.interfaces` names it, but this host has only {}", existing.join(", "));
        return vec![Finding::problem(CHECK, name, says)];
    };
    let state = match (interface.up, interface.carrier) {
        (true, true) => Finding::ok(CHECK, name, "up"),
        (true, false) => {
            Finding::problem(CHECK, name, "no carrier: see to its cable, or to the interface at its other end")
        }
        (false, _) => Finding::problem(CHECK, name, "down").mended_by(format!("ip link set {name} up")),
    };
    vec![state, program(edge.config.dataplane.mode, interface), lro(interface)]
        .into_iter()
        .chain(tx_checksums(interface))
        .collect()
}

fn program(mode: Mode, interface: &Interface) -> Finding {
    const CHECK: &str = "program";
    let name = &interface.name;
    let Some(program) = &interface.program else {
        return Finding::warning(CHECK, name, "not attached: the agent does not run, or has given up its interfaces")
            .mended_by("systemctl start siteswap");
    };
    if let Some(other) = program.name.as_ref().filter(|name| *name != PROGRAM) {
        let says = format!("another XDP program, {other:?}, is on it, and the agent's cannot be attached");
        return Finding::problem(CHECK, name, says).mended_by(format!("ip link set dev {name} xdp off"));
    }
    match (program.generic, mode) {
        (false, _) => Finding::ok(CHECK, name, "native"),
        (true, Mode::Generic) => Finding::ok(CHECK, name, "generic, as configured"),
        (true, _) => {
            let says = "generic: slower, because one of the program's interfaces did not take it in the driver; the \
                        agent's log says which and why";
            Finding::warning(CHECK, name, says)
        }
    }
}

/// The agent attaches the program in one mode everywhere; an older one, or one that was killed meanwhile, may not have.
fn mixed_modes(edge: &Edge<'_>) -> Option<Finding> {
    let ours = |interface: &Interface, generic: bool| {
        let of =
            |program: &Program| program.generic == generic && program.name.as_ref().is_none_or(|name| name == PROGRAM);
        interface.program.as_ref().is_some_and(of)
    };
    let running = |generic: bool| {
        let on = edge.config.dataplane.interfaces.iter().filter_map(|name| edge.host.interface(name));
        on.filter(|interface| ours(interface, generic)).map(|interface| interface.name.as_str()).collect::<Vec<_>>()
    };
    let (native, generic) = (running(false).join(", "), running(true).join(", "));
    if native.is_empty() || generic.is_empty() {
        return None;
    }
    let says = format!(
        "native on {native}, but generic on {generic}: what it sends from the former to the latter is dropped where the \
         driver takes no native program; with the `dataplane.mode` `auto` or `generic` it is in one mode on all"
    );
    Some(Finding::problem("program", "modes", says).mended_by("siteswap reload"))
}

fn lro(interface: &Interface) -> Finding {
    const CHECK: &str = "large receive offload";
    let name = &interface.name;
    match interface.lro {
        false => Finding::ok(CHECK, name, "off"),
        true => Finding::problem(CHECK, name, "on: packets are merged into larger ones than can be sent on")
            .mended_by(format!("ethtool -K {name} lro off")),
    }
}

/// Only a veth hands over frames whose checksums nobody has finished.
fn tx_checksums(interface: &Interface) -> Option<Finding> {
    const CHECK: &str = "transmit checksums";
    let name = &interface.name;
    (interface.kind == Kind::Veth).then(|| match interface.tx_checksums {
        false => Finding::ok(CHECK, name, "finished before frames leave; see that they are at the other end too"),
        true => {
            let says = "left to the device, but a veth has none that finishes them: programs at the other end see \
                        wrong ones, and so does this one unless they are off there too";
            Finding::warning(CHECK, name, says).mended_by(format!("ethtool -K {name} tx off"))
        }
    })
}

/// The interfaces that the program is on.
fn on<'a>(edge: &'a Edge<'_>) -> impl Iterator<Item = &'a Interface> {
    edge.config.dataplane.interfaces.iter().filter_map(|name| edge.host.interface(name))
}

/// The kernel merges no packets where a generic program is on the interface itself, but below a bridge, bond or VLAN it
/// does.
fn merged(edge: &Edge<'_>) -> Vec<Finding> {
    const CHECK: &str = "generic receive offload";
    let judge = |interface: &Interface, above: &Interface| {
        let says = format!(
            "on: packets are merged into larger ones than can be sent on before {}'s program sees them, which is generic",
            above.name
        );
        Finding::problem(CHECK, &interface.name, says).mended_by(format!("ethtool -K {} gro off", interface.name))
    };
    let generic = on(edge).filter(|interface| interface.program.as_ref().is_some_and(|program| program.generic));
    let merging = generic.flat_map(|above| {
        let below = all_below(&edge.host, above).into_iter().filter(|interface| interface.gro);
        below.map(move |interface| judge(interface, above))
    });
    merging.collect()
}

/// The interfaces below one, and those below them; each once, whatever is said to be below what.
fn all_below<'a>(host: &'a Host, interface: &'a Interface) -> Vec<&'a Interface> {
    let mut seen = BTreeSet::from([interface.name.as_str()]);
    let (mut found, mut next) = (Vec::new(), vec![interface]);
    while let Some(above) = next.pop() {
        for below in above.below.iter().filter_map(|name| host.interface(name)) {
            if seen.insert(&below.name) {
                found.push(below);
                next.push(below);
            }
        }
    }
    found
}

/// The program answers in frames with the tag that it sees.
fn tags(edge: &Edge<'_>) -> Vec<Finding> {
    const CHECK: &str = "VLAN tags";
    let judge = |interface: &Interface| {
        let name = &interface.name;
        let is_above = |other: &&Interface| other.kind == Kind::Vlan && other.below.contains(name);
        let above: Vec<&str> = edge.host.interfaces.iter().filter(is_above).map(|other| other.name.as_str()).collect();
        (interface.takes_tags && !above.is_empty()).then(|| {
            let says = format!(
                "taken off by the device before the program sees the frames of {}: its answers to them have none",
                above.join(", ")
            );
            Finding::problem(CHECK, name, says).mended_by(format!("ethtool -K {name} rxvlan off"))
        })
    };
    on(edge).filter_map(judge).collect()
}

/// What is longer than the interface to the backends takes is dropped by the kernel. From the tunnel comes nothing that is
/// longer than what the peer's users send; if nobody knows which interface that is, nothing can be said.
fn sizes(edge: &Edge<'_>) -> Vec<Finding> {
    const CHECK: &str = "packet size";
    let Some(users) = interfaces_to_users(edge) else { return Vec::new() };
    let to_backends = interfaces_to_backends(edge);
    let from = on(edge).filter(|other| users.contains(other) || to_backends.contains(other.name.as_str()));
    let longest = from.map(|other| (longest_from(edge, other), &other.name)).max();
    let judge = |interface: &Interface| {
        let Interface { name, mtu, .. } = interface;
        match longest.filter(|(bytes, _)| bytes > mtu) {
            None => Finding::ok(CHECK, name, format!("its MTU of {mtu} takes all that comes from users")),
            Some((bytes, other)) => {
                let says = format!(
                    "its MTU is {mtu}, but {other} takes packets of {bytes}: longer ones from there are dropped on \
                     their way to the backends, and nobody is told"
                );
                Finding::warning(CHECK, name, says).mended_by(format!("ip link set {name} mtu {bytes}"))
            }
        }
    };
    to_backends.iter().filter_map(|name| edge.host.interface(name)).map(judge).collect()
}

/// The longest packets that users send by an interface, bytes. One that a tunnel goes by too may take more for its sake.
fn longest_from(edge: &Edge<'_>, interface: &Interface) -> u32 {
    let shared = interfaces_to_peers(edge).any(|name| name == interface.name);
    if shared { interface.mtu.min(ORDINARY) } else { interface.mtu }
}

/// The interfaces that lead to backends of steered resources, and those the program is on.
fn reverse_path(edge: &Edge<'_>) -> Vec<Finding> {
    const CHECK: &str = "reverse path filter";
    let to_backends = interfaces_to_backends(edge);
    let on = edge.config.dataplane.interfaces.iter().map(String::as_str);
    let names: BTreeSet<&str> = on.chain(to_backends.iter().copied()).collect();
    // Loose, it takes a packet only if one could be sent to where it comes from.
    let replying = steered_addresses(edge).map(|(_, address)| address).filter(IpAddr::is_ipv4);
    let unrouted = replying.filter_map(|address| Some((address, edge.unrouted.get(&address)?))).min_by_key(|of| of.0);
    let judge = |interface: &Interface| {
        let name = &interface.name;
        let replies = to_backends.contains(name.as_str());
        let finding = match (interface.rp_filter, unrouted) {
            (0, _) => return Finding::ok(CHECK, name, "off"),
            (2, Some((address, why))) if replies => {
                Finding::problem(CHECK, name, format!("loose: backends' replies from {address} are dropped: {why}"))
            }
            (2, _) => return Finding::ok(CHECK, name, "loose"),
            _ if replies => Finding::problem(
                CHECK,
                name,
                "strict: backends' replies come from the resources' addresses, which are not routed there: dropped",
            ),
            _ => Finding::warning(CHECK, name, "strict: packets whose way back is another interface are dropped"),
        };
        finding.mended_by(reverse_path_off(&edge.host, name))
    };
    names.into_iter().filter_map(|name| edge.host.interface(name)).map(judge).collect()
}

/// The larger of an interface's setting and that of `all` counts.
fn reverse_path_off(host: &Host, interface: &str) -> String {
    let all = (host.all_rp_filter > 0).then_some("all");
    let commands = all.into_iter().chain([interface]).map(|name| set_ipv4(name, "rp_filter", 0));
    commands.collect::<Vec<_>>().join(" && ")
}

fn interfaces_to_backends<'a>(edge: &'a Edge<'_>) -> BTreeSet<&'a str> {
    let backends = backend_addresses(edge);
    let steered = backends.iter().filter(|(_, backend)| backend.steered);
    steered.filter_map(|(address, _)| leads_by(edge, *address)).collect()
}

fn interfaces_to_peers<'a>(edge: &'a Edge<'_>) -> impl Iterator<Item = &'a str> {
    peers_tunnels(edge).filter_map(|tunnel| leads_by(edge, tunnel))
}

/// The interface that leads to an address, whether or not anybody answers there.
fn leads_by<'a>(edge: &'a Edge<'_>, address: IpAddr) -> Option<&'a str> {
    match edge.hops.get(&address)? {
        Ok(hop) => Some(&hop.name),
        Err(Unresolved::NoNeighbour { interface, .. } | Unresolved::Down { interface }) => Some(interface),
        Err(_) => None,
    }
}

/// The program's interfaces that lead neither to backends nor to peers; where there is none, those by which the tunnel
/// goes too. `None`: nobody knows which lead to peers.
fn interfaces_to_users<'a>(edge: &'a Edge<'_>) -> Option<Vec<&'a Interface>> {
    let tunnels: BTreeSet<&str> = interfaces_to_peers(edge).collect();
    let to_backends = interfaces_to_backends(edge);
    let outside: Vec<_> = on(edge).filter(|interface| !to_backends.contains(interface.name.as_str())).collect();
    let (shared, users): (Vec<_>, Vec<_>) =
        outside.into_iter().partition(|interface| tunnels.contains(interface.name.as_str()));
    let known = peers_tunnels(edge).all(|tunnel| leads_by(edge, tunnel).is_some());
    known.then_some(if users.is_empty() { shared } else { users })
}

fn peers_tunnels<'a>(edge: &'a Edge<'_>) -> impl Iterator<Item = IpAddr> + 'a {
    edge.config.peers().filter_map(|peer| Some(IpAddr::from(*edge.config.sites[peer].tunnel?.ip())))
}

/// Interfaces that requests leave by, but that have no program.
fn unattached(edge: &Edge<'_>) -> Vec<Finding> {
    let on = &edge.config.dataplane.interfaces;
    let used: BTreeSet<&str> = interfaces_to_backends(edge).into_iter().chain(interfaces_to_peers(edge)).collect();
    used.into_iter()
        .filter(|name| !on.is_empty() && !on.iter().any(|on| on == name))
        .map(|name| {
            let says = "leads to backends or peers, but is not in `dataplane.interfaces`; add it: requests from there \
                        are not steered, and some drivers send the program's frames only where one is attached";
            Finding::warning("program", name, says)
        })
        .collect()
}

/// What the program steers must not end at this host.
fn addresses(edge: &Edge<'_>) -> Vec<Finding> {
    const CHECK: &str = "address";
    let judge = |(resource, address)| match edge.host.places(address).next() {
        None => Finding::ok(CHECK, address, format!("{resource}: not an address of this host, as it should be")),
        Some(place) => {
            let says = format!(
                "{resource}: on {} of this host, which therefore drops replies that come from it as forged (martians)",
                place.interface
            );
            let command = format!("ip addr del {address}/{} dev {}", place.prefix, place.interface);
            Finding::problem(CHECK, address, says).mended_by(command)
        }
    };
    steered_addresses(edge).map(judge).collect()
}

/// What the program passes up of this site's addresses should end here, and the backends must be told what fits.
fn own_routes(edge: &Edge<'_>) -> Vec<Finding> {
    const CHECK: &str = "route";
    let Some(narrow) = way_out_is_narrow(edge).filter(|_| !edge.config.dataplane.interfaces.is_empty()) else {
        return Vec::new();
    };
    let judge = |address: IpAddr| match (edge.unrouted.get(&address), narrow) {
        (Some(_), false) => Finding::ok(CHECK, address, "what is for none of its ports ends here, as it should"),
        (None, true) => Finding::ok(CHECK, address, "backends are told by it what fits the way out"),
        (None, false) => {
            let says = "none that makes it unreachable: what is for none of its ports goes back to the router, and round \
                        again";
            Finding::warning(CHECK, address, says).mended_by(make_unreachable(edge, address))
        }
        (Some(why), true) => {
            let says = format!(
                "the way out takes less than the interface to the backends, and they cannot be told so at their \
                 address: {why}"
            );
            Finding::warning(CHECK, address, says)
        }
    };
    // While the host has an address itself, its routes do not matter.
    own_addresses(edge).filter(|address| edge.host.places(*address).next().is_none()).map(judge).collect()
}

/// Even a loose filter would drop the replies from an unreachable address.
fn make_unreachable(edge: &Edge<'_>, address: IpAddr) -> String {
    let to_backends = interfaces_to_backends(edge).into_iter().filter_map(|name| edge.host.interface(name));
    let filters = to_backends.filter(|interface| address.is_ipv4() && interface.rp_filter > 0);
    let off = filters.map(|interface| reverse_path_off(&edge.host, &interface.name));
    off.chain([format!("ip route add unreachable {address}")]).collect::<Vec<_>>().join(" && ")
}

/// Whether what backends send may be too long for the way to users. `None`: nobody knows which that is.
fn way_out_is_narrow(edge: &Edge<'_>) -> Option<bool> {
    let out = interfaces_to_users(edge)?.iter().map(|interface| interface.mtu).min();
    let to_backends = interfaces_to_backends(edge).into_iter().filter_map(|name| edge.host.interface(name));
    let lan = to_backends.map(|interface| interface.mtu).max();
    Some(out.zip(lan).is_some_and(|(out, lan)| out < lan))
}

/// A silent peer must be tried before something is taken over from it.
fn peers_routes(edge: &Edge<'_>) -> Vec<Finding> {
    let of = |peer| confirming(edge.config, peer).into_iter();
    edge.config.peers().flat_map(of).flat_map(|(resource, tried)| peer_routes(edge, resource, tried)).collect()
}

fn peer_routes(edge: &Edge<'_>, resource: &str, tried: Vec<SocketAddr>) -> Vec<Finding> {
    const CHECK: &str = "route";
    let addresses: BTreeSet<IpAddr> = tried.iter().map(SocketAddr::ip).collect();
    let (untried, tried): (Vec<_>, Vec<_>) =
        tried.into_iter().partition(|address| edge.unrouted.contains_key(&address.ip()));
    let judge = |address| match edge.unrouted.get(&address) {
        None => Finding::ok(CHECK, address, format!("{resource}: it can be tried when its site is silent")),
        Some(why) if enough(&tried, &untried) => {
            let says = format!("{resource}: it is not tried when its site is silent, only its others are: {why}");
            Finding::warning(CHECK, address, says)
        }
        Some(why) => {
            let says = format!(
                "{resource}: with `takeover = \"confirmed\"` it must be tried when its site is silent, or nothing is \
                 taken over: {why}"
            );
            Finding::problem(CHECK, address, says)
        }
    };
    addresses.into_iter().map(judge).collect()
}

/// What a backend's address is for.
#[derive(Default)]
struct Backend<'a> {
    resources: BTreeSet<&'a str>,
    /// The program sends requests to it.
    steered: bool,
}

fn backend_addresses<'a>(edge: &'a Edge<'_>) -> BTreeMap<IpAddr, Backend<'a>> {
    let mut backends: BTreeMap<IpAddr, Backend<'a>> = BTreeMap::new();
    for (name, instance) in edge.config.own_instances() {
        for endpoint in &instance.backends {
            let backend = backends.entry(endpoint.ip()).or_default();
            backend.resources.insert(name);
            backend.steered |= !edge.config.resources[name].ports.is_empty();
        }
    }
    backends
}

fn backends(edge: &Edge<'_>) -> Vec<Finding> {
    backend_addresses(edge)
        .into_iter()
        .filter_map(|(address, backend)| Some(judge_backend(address, &backend, edge.hops.get(&address)?)))
        .collect()
}

fn judge_backend(address: IpAddr, backend: &Backend<'_>, hop: &Result<Hop, Unresolved>) -> Finding {
    const CHECK: &str = "backend";
    let resources = backend.resources.iter().copied().collect::<Vec<_>>().join(", ");
    match hop {
        Ok(Hop { gateway: Some(gateway), name, .. }) if backend.steered => {
            let says = format!(
                "{resources}: behind the gateway {gateway} on {name}, but requests go to a backend's own MAC; it must \
                 be on a network of this host's"
            );
            Finding::problem(CHECK, address, says)
        }
        Ok(hop) => Finding::ok(CHECK, address, format!("{resources}: on {} at {}", hop.name, mac(hop.mac))),
        Err(Unresolved::Local) if !backend.steered => {
            Finding::ok(CHECK, address, format!("{resources}: this host itself"))
        }
        Err(why) => Finding::problem(CHECK, address, format!("{resources}: {why}")),
    }
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

fn tunnels(edge: &Edge<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = own_tunnel(edge).into_iter().collect();
    for peer in edge.config.peers() {
        let Some(tunnel) = edge.config.sites[peer].tunnel else { continue };
        let Some(hop) = edge.hops.get(&IpAddr::from(*tunnel.ip())) else { continue };
        findings.push(match hop {
            Ok(hop) => path(edge, peer, hop),
            Err(why) => Finding::problem("tunnel", peer, format!("{}: {why}", tunnel.ip())),
        });
        findings.extend(edge.echoes.get(peer).map(|echo| self::peer(peer, tunnel, echo)));
    }
    findings
}

fn own_tunnel(edge: &Edge<'_>) -> Option<Finding> {
    let own = edge.config.sites[&edge.config.site].tunnel?;
    let address = IpAddr::from(*own.ip());
    Some(match edge.host.places(address).next() {
        Some(place) => Finding::ok("tunnel", "this site", format!("{address} is on {}", place.interface)),
        None => {
            let says = format!("{address} is not an address of this host: peers reach it only if it is routed here");
            Finding::warning("tunnel", "this site", says)
        }
    })
}

/// Whether a peer's program answers through the tunnel.
fn peer(name: &str, tunnel: SocketAddrV4, echo: &Echo) -> Finding {
    const CHECK: &str = "peer";
    let says = match echo {
        Echo::Answered { after, .. } => {
            return Finding::ok(CHECK, name, format!("answers at {tunnel} after {:.1} ms", after.as_secs_f64() * 1e3));
        }
        Echo::Refused => {
            "its host answers, but no program: see that the agent runs there, is ready, and has the interface in \
             `dataplane.interfaces`"
        }
        Echo::Stranger => "what answers is not the program of that site: compare `sites` in both configurations",
        Echo::Silent => {
            "does not answer: see that the agent runs there, that `sites` says the same there, and that no firewall is \
             between"
        }
        Echo::Unsent(why) => return Finding::problem(CHECK, name, format!("{tunnel} cannot be asked: {why}")),
    };
    Finding::problem(CHECK, name, format!("{tunnel}: {says}"))
}

/// How large a packet may be that goes to a peer.
fn path(edge: &Edge<'_>, peer: &str, hop: &Hop) -> Finding {
    const CHECK: &str = "tunnel";
    let users = interfaces_to_users(edge).unwrap_or_default();
    let longest = users.into_iter().map(|interface| longest_from(edge, interface)).max();
    let needed = longest.unwrap_or(ORDINARY).max(ORDINARY) + TUNNEL;
    let via = hop.gateway.map_or_else(String::new, |gateway| format!(" by {gateway}"));
    if let Some(Echo::Answered { full: false, .. }) = edge.echoes.get(peer) {
        let says = format!(
            "on {}{via}; small packets get there and back, but none of {} bytes, which is its MTU: have the whole path \
             take them, or give the routes at both sites the MTU that it takes (`ip route change … mtu BYTES`)",
            hop.name, hop.mtu
        );
        return Finding::problem(CHECK, peer, says);
    }
    if hop.mtu >= needed {
        return Finding::ok(CHECK, peer, format!("on {}{via}; its MTU of {} takes whole packets", hop.name, hop.mtu));
    }
    let inner = hop.mtu.saturating_sub(TUNNEL);
    let says = format!(
        "on {}{via}; its MTU of {} leaves {inner} bytes for a packet: senders of larger ones are told by ICMP",
        hop.name, hop.mtu
    );
    let mend = format!("ip link set {} mtu {needed}", hop.name);
    if inner < LEAST_V6 && own_addresses(edge).any(|address| address.is_ipv6()) {
        let says = format!("{says}, and IPv6 needs {LEAST_V6}");
        return Finding::problem(CHECK, peer, says).mended_by(mend);
    }
    Finding::warning(CHECK, peer, format!("{says}; if the whole path takes {needed}, raise it")).mended_by(mend)
}

#[cfg(test)]
mod tests;
