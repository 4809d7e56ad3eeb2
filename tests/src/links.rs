//! Makes the plan's interfaces, addresses and routes through rtnetlink, directly in the nodes' namespaces: nothing
//! passes through the root namespace, so labs cannot meet there.

use std::{
    fs,
    io::{self, ErrorKind},
    net::IpAddr,
    os::fd::AsRawFd,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;
use rtnetlink::{
    Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        link::{InfoData, InfoVeth},
        route::RouteType,
    },
};

use crate::{
    netns::Netns,
    plan::{self, Part},
};

/// Runs `work` inside `node` with a connection to the kernel's routing tables.
fn configure(node: &Netns, work: impl AsyncFnOnce(Handle) -> Result<()> + Send) -> Result<()> {
    node.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().context("rtnetlink")?;
            tokio::spawn(connection);
            work(handle).await
        })
    })
}

/// Settings a node needs before its interfaces appear: addresses usable at once (no duplicate detection) and kept when
/// a cable is cut; packets accepted whatever way they come, since a reply leaves by another than its request came;
/// forwarding where packets pass through, and ARP for no address of the loopback where that has resources' addresses.
pub fn prepare(node: &Netns, part: Part) -> Result<()> {
    const ALWAYS: [(&str, &str); 6] = [
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_ra", "0"),
        ("net/ipv6/conf/all/keep_addr_on_down", "1"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
    ];
    const ROUTER: [(&str, &str); 2] = [("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")];
    const BACKEND: [(&str, &str); 2] = [("net/ipv4/conf/all/arp_ignore", "1"), ("net/ipv4/conf/all/arp_announce", "2")];
    node.enter(|| {
        let special = match part {
            Part::Host => &[],
            Part::Router => &ROUTER[..],
            Part::Backend => &BACKEND[..],
        };
        for (setting, value) in ALWAYS.iter().chain(special) {
            fs::write(format!("/proc/sys/{setting}"), value).with_context(|| format!("sysctl {setting}={value}"))?;
        }
        Ok(())
    })?;
    configure(node, async |handle| set_up(&handle, "lo", true).await)
}

/// Connects two nodes.
///
/// The two interfaces get different numbers: to the kernel, one with the number of its opposite is no pair, and it may take
/// a second to bring it up.
pub fn connect(near: &Netns, near_interface: &str, far: &Netns, far_interface: &str) -> Result<()> {
    static NUMBERS: AtomicU32 = AtomicU32::new(100);
    let number = NUMBERS.fetch_add(2, Ordering::Relaxed);
    let far_namespace = far.open()?;
    configure(near, async |handle| {
        let peer = LinkUnspec::new_with_index(number + 1).name(far_interface);
        let peer = peer.setns_by_fd(far_namespace.as_raw_fd()).build();
        let pair = LinkVeth::new(near_interface, far_interface)
            .index(number)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .up()
            .build();
        let made = handle.link().add(pair).execute().await;
        made.with_context(|| format!("cable {near_interface} to {far_interface}"))
    })?;
    configure(far, async |handle| set_up(&handle, far_interface, true).await)
}

/// Makes a bridge of a node's interfaces.
pub fn bridge(node: &Netns, name: &str, ports: &[&str]) -> Result<()> {
    configure(node, async |handle| {
        let bridge = LinkBridge::new(name).mcast_snooping(false).up().build();
        handle.link().add(bridge).execute().await.with_context(|| format!("bridge {name}"))?;
        let controller = if_nametoindex(name)?;
        for port in ports {
            let message = LinkUnspec::new_with_index(if_nametoindex(*port)?).controller(controller).build();
            handle.link().set(message).execute().await.with_context(|| format!("bridge port {port}"))?;
        }
        Ok(())
    })
}

/// The least preferred of several routes to one destination.
const LAST: u32 = u32::MAX;

/// Gives a node its addresses and routes; those it has already stay.
pub fn address(node: &Netns, name: &str) -> Result<()> {
    configure(node, async |handle| {
        for plan::Address { interface, address, prefix } in plan::addresses(name) {
            let index = if_nametoindex(interface.as_str()).with_context(|| format!("{name}: interface {interface}"))?;
            let added = handle.address().add(index, address, prefix).replace().execute().await;
            added.with_context(|| format!("{name}: address {address}/{prefix} on {interface}"))?;
        }
        for route in plan::routes(name) {
            let added = add_route(&handle, &route).await?;
            added.with_context(|| format!("{name}: {route:?}"))?;
        }
        Ok(())
    })
}

/// Gives a node back the routes that the kernel forgot when an interface went down. Those by another interface that is
/// still down come back with that.
pub fn restore_routes(node: &Netns, name: &str) -> Result<()> {
    configure(node, async |handle| {
        for route in plan::routes(name) {
            match add_route(&handle, &route).await? {
                Err(rtnetlink::Error::NetlinkError(error)) if is_unreachable(&error.to_io()) => {}
                added => added.with_context(|| format!("{name}: {route:?}"))?,
            }
        }
        Ok(())
    })
}

async fn add_route(handle: &Handle, route: &plan::Route) -> Result<Result<(), rtnetlink::Error>> {
    let message = RouteMessageBuilder::<IpAddr>::new().destination_prefix(route.destination, route.prefix)?;
    let message = match route.gateway {
        Some(gateway) => message.gateway(gateway)?,
        None => message.kind(RouteType::Unreachable).priority(LAST),
    };
    Ok(handle.route().add(message.build()).replace().execute().await)
}

/// What the kernel says to a route whose gateway no interface reaches, by IPv4 and IPv6.
fn is_unreachable(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable)
}

/// Takes an interface up or down.
pub fn set_state(node: &Netns, interface: &str, up: bool) -> Result<()> {
    configure(node, async |handle| set_up(&handle, interface, up).await)
}

async fn set_up(handle: &Handle, interface: &str, up: bool) -> Result<()> {
    let link = LinkUnspec::new_with_index(if_nametoindex(interface).with_context(|| interface.to_owned())?);
    let message = if up { link.up() } else { link.down() }.build();
    let set = handle.link().set(message).execute().await;
    set.with_context(|| format!("interface {interface} {}", if up { "up" } else { "down" }))
}

/// Makes the node complete its checksums before frames reach this interface: XDP reads the frame as it is.
pub fn complete_checksums(node: &Netns, interface: &str) -> Result<()> {
    let output = node
        .command("ethtool")?
        .args(["-K", interface, "tx", "off"])
        .output()
        .context("cannot run ethtool; it is in the package of the same name")?;
    ensure!(
        output.status.success(),
        "ethtool -K {interface} tx off: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
