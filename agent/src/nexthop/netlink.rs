//! Asking the kernel (rtnetlink), and hearing from it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::{
    FutureExt, Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use nix::errno::Errno;
use rtnetlink::{
    Error, Handle, MulticastGroup, RouteMessageBuilder,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
    },
};
use tokio::task::JoinSet;

use super::{
    Unresolved,
    table::{Link, Neighbour, NeighbourKey, News, Prefix, Route, Table},
};

/// What is listened to. Nexthop objects are not: rtnetlink cannot read their messages. The kernel tells of a replaced
/// one as a change of its routes (unless `net.ipv4.nexthop_compat_mode` is 0); for the rest every address is looked up
/// now and then.
const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// Two connections to the kernel: one listens, one asks, so that a flood of news cannot push out an answer.
pub struct Kernel {
    handle: Handle,
    news: BoxStream<'static, News>,
    /// The connections' tasks, which end with it.
    _tasks: JoinSet<()>,
}

impl Kernel {
    /// Connects, in the network namespace of the calling thread.
    pub fn connect() -> io::Result<Self> {
        let (listening, _, messages) = rtnetlink::new_multicast_connection(&GROUPS)?;
        let (asking, handle, _) = rtnetlink::new_connection()?;
        let tasks = [listening, asking].into_iter().collect();
        let news = messages.flat_map(|(message, _)| stream::iter(news(message))).boxed();
        Ok(Self { handle, news, _tasks: tasks })
    }

    /// Waits for news. `None`: the connection is broken.
    pub async fn next(&mut self) -> Option<News> {
        self.news.next().await
    }

    /// News that have come already.
    pub fn pending(&mut self) -> impl Iterator<Item = News> {
        std::iter::from_fn(|| self.news.next().now_or_never().flatten())
    }

    /// All interfaces and neighbours, and no routes.
    pub async fn read(&mut self) -> Result<Table, Error> {
        let mut table = Table::default();
        each(self.handle.link().get().execute(), |message| table.links.extend(link(&message))).await?;
        each(self.handle.neighbours().get().execute(), |message| {
            if let (Some(key), Some(neighbour)) = (neighbour_key(&message), neighbour(&message)) {
                table.neighbours.insert(key, neighbour);
            }
        })
        .await?;
        Ok(table)
    }

    /// How the kernel would send to `address` now. It decides, with its rules, tables and metrics and what it has
    /// learned of the path's MTU.
    ///
    /// Errors: it cannot be asked.
    pub async fn route(&mut self, address: IpAddr) -> Result<Result<Route, Unresolved>, Error> {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let question = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(address, length)
            .expect("the length is that of the address")
            .build();
        let mut answers = std::pin::pin!(self.handle.route().get(question).execute());
        match answers.try_next().await {
            Ok(Some(message)) => Ok(route(&message)),
            Ok(None) => Err(Error::RequestFailed),
            Err(Error::NetlinkError(error)) => {
                let error = error.to_io();
                // The errors by which the kernel tells of such routes (its fib_props).
                let why = match error.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::ENETUNREACH) => return Ok(Err(Unresolved::NoRoute)),
                    Some(Errno::EINVAL) => "blackhole".to_owned(),
                    Some(Errno::EACCES) => "prohibit".to_owned(),
                    Some(Errno::EHOSTUNREACH) => "unreachable".to_owned(),
                    _ => error.to_string(),
                };
                Ok(Err(Unresolved::Refused { why }))
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the kernel find out, or confirm, a neighbour's MAC, as if something had been sent to it; it says when it
    /// knows.
    pub async fn ask(&mut self, (interface, address): NeighbourKey) -> Result<(), Error> {
        let entry = self.handle.neighbours().add(interface, address).replace();
        entry.state(NeighbourState::None).flags(NeighbourFlags::Use).execute().await
    }
}

async fn each<T>(messages: impl Stream<Item = Result<T, Error>>, mut take: impl FnMut(T)) -> Result<(), Error> {
    let mut messages = std::pin::pin!(messages);
    while let Some(message) = messages.try_next().await? {
        take(message);
    }
    Ok(())
}

/// What a notification says.
fn news(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<News> {
    use RouteNetlinkMessage as Message;
    let message = match message.payload {
        NetlinkPayload::InnerMessage(message) => message,
        NetlinkPayload::Overrun(_) => return Some(News::Missed),
        _ => return None,
    };
    match message {
        Message::NewLink(message) => link(&message).map(|(index, link)| News::Link(index, Some(link))),
        Message::DelLink(message) => is_link(&message).then_some(News::Link(message.header.index, None)),
        Message::NewNeighbour(message) => Some(News::Neighbour(neighbour_key(&message)?, neighbour(&message))),
        Message::DelNeighbour(message) => Some(News::Neighbour(neighbour_key(&message)?, None)),
        Message::NewRoute(message) | Message::DelRoute(message) => Some(News::Routes(prefix(&message))),
        Message::NewAddress(_) | Message::DelAddress(_) | Message::NewRule(_) | Message::DelRule(_) => {
            Some(News::Routes(None))
        }
        _ => None,
    }
}

/// Messages of the same type, but of another family, tell of bridge ports: a port that left its bridge is not gone.
fn is_link(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

fn link(message: &LinkMessage) -> Option<(u32, Link)> {
    if !is_link(message) {
        return None;
    }
    let header = &message.header;
    let (mut name, mut mtu, mut mac) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value.clone()),
            LinkAttribute::Mtu(value) => mtu = Some(*value),
            LinkAttribute::Address(value) => mac = value[..].try_into().ok(),
            _ => {}
        }
    }
    let link = Link {
        name: name?,
        mac: mac.filter(|_| header.link_layer_type == LinkLayerType::Ether),
        mtu: mtu?,
        up: header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
    };
    Some((header.index, link))
}

fn neighbour_key(message: &NeighbourMessage) -> Option<NeighbourKey> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some((*address).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some((*address).into()),
            _ => None,
        })
        .map(|address| (message.header.ifindex, address))
}

/// A neighbour that can be sent to (the kernel's NUD_VALID).
fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let fixed = match message.header.state {
        NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe => false,
        NeighbourState::Permanent | NeighbourState::Noarp => true,
        _ => return None,
    };
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => mac[..].try_into().ok(),
        _ => None,
    })?;
    Some(Neighbour { mac, fixed })
}

fn route(message: &RouteMessage) -> Result<Route, Unresolved> {
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Err(Unresolved::Local),
        RouteType::Broadcast | RouteType::Multicast | RouteType::Anycast => return Err(Unresolved::NotUnicast),
        other => return Err(Unresolved::Refused { why: format!("{other:?}").to_lowercase() }),
    }
    let (mut interface, mut gateway, mut source, mut mtu) = (None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some((*address).into()),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Ok(Route { interface: interface.ok_or(Unresolved::NoRoute)?, gateway, source, mtu })
}

/// `None`: of all addresses, or of something that is neither IPv4 nor IPv6.
fn prefix(message: &RouteMessage) -> Option<Prefix> {
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    });
    // Default routes name no destination.
    let address = destination.or(match message.header.address_family {
        AddressFamily::Inet => Some(Ipv4Addr::UNSPECIFIED.into()),
        AddressFamily::Inet6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    })?;
    Some(Prefix { address, length: message.header.destination_prefix_length })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
