//! Asks the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use futures_util::TryStreamExt;
use nix::sys::{
    statfs::{BPF_FS_MAGIC, statfs},
    utsname::uname,
};
use rtnetlink::packet_route::{
    address::{AddressAttribute, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached},
};
use tokio::{sync::watch, time::timeout};

use super::{
    echo::{self, Echo},
    facts::{Address, Edge, Host, Interface, Kind, Program},
    offload,
};
use crate::{
    config::Config,
    nexthop::{self, Hops, NextHops, Unresolved},
    probe::confirming,
};

/// The kernel asks for a neighbour three times, a second apart.
const NEIGHBOURS_ANSWER_WITHIN: Duration = Duration::from_secs(4);

/// This host's interfaces and addresses.
pub async fn host() -> anyhow::Result<Host> {
    let (connection, handle, _) = rtnetlink::new_connection().context("asking the kernel for interfaces")?;
    let connection = tokio::spawn(connection);
    let links: Vec<_> = handle.link().get().execute().try_collect().await.context("the kernel's interfaces")?;
    let addresses: Vec<_> = handle.address().get().execute().try_collect().await.context("the kernel's addresses")?;
    connection.abort();
    let names: BTreeMap<u32, String> = links.iter().filter_map(|link| Some((link.header.index, name(link)?))).collect();
    Ok(Host {
        interfaces: links.iter().filter_map(|link| interface(link, &links, &names)).collect(),
        addresses: addresses.iter().filter_map(|message| address(message, &names)).collect(),
        all_rp_filter: sysctl("net/ipv4/conf/all/rp_filter"),
    })
}

/// This host, and what matters at an edge.
pub async fn edge(config: &Config) -> anyhow::Result<Edge<'_>> {
    let hops = hops(config).await?;
    Ok(Edge {
        config,
        host: host().await?,
        release: uname().context("uname")?.release().to_string_lossy().into_owned(),
        bpf_file_system: on_bpf_file_system(&config.dataplane.pins),
        forwards_v4: sysctl("net/ipv4/ip_forward") == 1,
        forwards_v6: sysctl("net/ipv6/conf/all/forwarding") == 1,
        unrouted: unrouted(config).await?,
        echoes: echoes(config, &hops).await,
        hops,
    })
}

/// The way to every backend of this site and to every peer's tunnel, once all have answered or had time to.
async fn hops(config: &Config) -> anyhow::Result<Arc<Hops>> {
    let backends =
        config.own_instances().flat_map(|(_, instance)| instance.backends.iter().map(|backend| backend.ip()));
    let tunnels = config.peers().filter_map(|peer| Some(IpAddr::from(*config.sites[peer].tunnel?.ip())));
    let addresses: BTreeSet<IpAddr> = backends.chain(tunnels).collect();
    let wanted = addresses.len();
    let (_sender, addresses) = watch::channel(addresses);
    let (_running, mut hops) = NextHops::start(addresses).context("following routes and neighbours")?;
    let settled = |hops: &Arc<Hops>| {
        hops.len() == wanted && !hops.values().any(|hop| matches!(hop, Err(Unresolved::NoNeighbour { .. })))
    };
    // Those that have not answered in time are findings, not errors.
    let _ = timeout(NEIGHBOURS_ANSWER_WITHIN, hops.wait_for(settled)).await;
    Ok(Arc::clone(&hops.borrow()))
}

/// The addresses that backends reply from, or that are tried while a peer is silent, and that the kernel would not send
/// to.
async fn unrouted(config: &Config) -> anyhow::Result<BTreeMap<IpAddr, Unresolved>> {
    let steered = config.resources.values().filter(|resource| !resource.ports.is_empty());
    let replies = steered.flat_map(|resource| resource.instances.values()).flat_map(|instance| &instance.addresses);
    let tried = config.peers().flat_map(|peer| confirming(config, peer).into_values().flatten());
    let addresses: BTreeSet<IpAddr> = replies.copied().chain(tried.map(|address| address.ip())).collect();
    nexthop::unrouted(addresses).await.context("asking the kernel for routes")
}

/// Asks every peer that can be reached.
async fn echoes(config: &Config, hops: &Hops) -> BTreeMap<String, Echo> {
    let mut echoes = BTreeMap::new();
    let Some(own) = config.sites[&config.site].tunnel else { return echoes };
    for peer in config.peers() {
        if let Some(tunnel) = config.sites[peer].tunnel
            && let Some(Ok(hop)) = hops.get(&IpAddr::from(*tunnel.ip()))
        {
            echoes.insert(peer.to_owned(), echo::ask((&config.site, own), (peer, tunnel), hop.mtu).await);
        }
    }
    echoes
}

fn name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

fn interface(link: &LinkMessage, links: &[LinkMessage], names: &BTreeMap<u32, String>) -> Option<Interface> {
    let name = name(link)?;
    let flags = link.header.flags;
    let larger = |setting: &str| {
        let of = |interface: &str| sysctl(&format!("net/ipv4/conf/{interface}/{setting}"));
        of("all").max(of(&name))
    };
    Some(Interface {
        kind: kind(link),
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        mtu: link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(bytes) => Some(*bytes),
            _ => None,
        })?,
        below: below(link, links).filter_map(|index| names.get(&index).cloned()).collect(),
        program: program(link),
        // Interfaces that cannot tell have neither.
        lro: offload::lro(&name).unwrap_or(false),
        gro: offload::gro(&name).unwrap_or(false),
        takes_tags: offload::takes_tags(&name).unwrap_or(false),
        tx_checksums: offload::tx_checksums(&name).unwrap_or(false),
        rp_filter: larger("rp_filter"),
        arp_ignore: larger("arp_ignore"),
        arp_announce: larger("arp_announce"),
        name,
    })
}

/// Indices of the interfaces whose frames are `link`'s.
fn below<'a>(link: &'a LinkMessage, links: &'a [LinkMessage]) -> impl Iterator<Item = u32> + 'a {
    // An index in another namespace is another interface's here.
    let elsewhere = link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::LinkNetNsId(_)));
    // A veth says in the same way which its other end is.
    let under = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::Link(index) => Some(*index),
        _ => None,
    });
    let of = |port: &&LinkMessage| port.attributes.contains(&LinkAttribute::Controller(link.header.index));
    let ports = links.iter().filter(move |port| of(port)).map(|port| port.header.index);
    under.filter(move |_| kind(link) == Kind::Vlan && !elsewhere).chain(ports)
}

fn kind(link: &LinkMessage) -> Kind {
    let info = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
            LinkInfo::Kind(kind) => Some(kind),
            _ => None,
        }),
        _ => None,
    });
    match (link.header.link_layer_type, info) {
        (LinkLayerType::Loopback, _) => Kind::Loopback,
        (LinkLayerType::Ether, Some(InfoKind::Dummy)) => Kind::Dummy,
        (LinkLayerType::Ether, Some(InfoKind::Veth)) => Kind::Veth,
        (LinkLayerType::Ether, Some(InfoKind::Vlan)) => Kind::Vlan,
        (LinkLayerType::Ether, _) => Kind::Ethernet,
        _ => Kind::Other,
    }
}

fn program(link: &LinkMessage) -> Option<Program> {
    let attributes = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(attributes) => Some(attributes),
        _ => None,
    })?;
    let attached = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(attached) => Some(attached),
        _ => None,
    })?;
    let generic = match attached {
        XdpAttached::None => return None,
        XdpAttached::SocketBuffer => true,
        // Of several, that in the driver sees frames first.
        _ => false,
    };
    let id = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) if *id != 0 => Some(*id),
        LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) => Some(*id),
        _ => None,
    });
    let known = aya::programs::loaded_programs().flatten().find(|program| Some(program.id()) == id);
    Some(Program { name: known.and_then(|program| program.name_as_str().map(str::to_owned)), generic })
}

fn address(message: &AddressMessage, names: &BTreeMap<u32, String>) -> Option<Address> {
    // On a point-to-point interface `Address` is the other end's.
    let own = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = own.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    let interface = names.get(&message.header.index)?.clone();
    Some(Address { address, prefix: message.header.prefix_len, interface })
}

/// A setting's value. What is not there does nothing, like 0.
fn sysctl(setting: &str) -> u32 {
    let text = fs::read_to_string(Path::new("/proc/sys").join(setting));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Whether `path`, or the first directory above it that exists, is on a BPF file system.
fn on_bpf_file_system(path: &Path) -> bool {
    let existing = path.ancestors().find(|path| path.exists());
    existing.is_some_and(|path| statfs(path).is_ok_and(|info| info.filesystem_type() == BPF_FS_MAGIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, kind: Option<InfoKind>, attributes: &[LinkAttribute]) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.link_layer_type = LinkLayerType::Ether;
        link.attributes = attributes.to_vec();
        link.attributes.extend(kind.map(|kind| LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])));
        link
    }

    fn below(link: &LinkMessage, others: &[LinkMessage]) -> Vec<u32> {
        super::below(link, others).collect()
    }

    #[test]
    fn a_vlan_is_above_no_interface_here_if_its_own_is_in_another_namespace() {
        let on = LinkAttribute::Link(4);
        assert_eq!(below(&link(9, Some(InfoKind::Vlan), std::slice::from_ref(&on)), &[]), [4]);
        let elsewhere = [on.clone(), LinkAttribute::LinkNetNsId(0)];
        assert!(below(&link(9, Some(InfoKind::Vlan), &elsewhere), &[]).is_empty());
        assert!(below(&link(9, Some(InfoKind::Veth), &[on]), &[]).is_empty(), "a veth's other end");
    }

    #[test]
    fn a_bridge_is_above_its_ports() {
        let ports = [link(4, None, &[LinkAttribute::Controller(9)]), link(5, None, &[LinkAttribute::Controller(8)])];
        assert_eq!(below(&link(9, Some(InfoKind::Bridge), &[]), &ports), [4]);
    }
}
