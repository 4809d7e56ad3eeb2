//! Binding, and what to say when it fails.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
    },
};
use tokio::net::{TcpListener, UdpSocket};

/// Why an address cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Someone else has the port.
    #[error(
        "another name server, often systemd-resolved or named, holds {protocol} {address}: \
         `ss --{protocol} --listening --processes 'sport = :{port}'` names it; stop it, or change dns.listen",
        port = .address.port()
    )]
    Taken {
        /// `udp` or `tcp`.
        protocol: &'static str,
        /// Address and port.
        address: SocketAddr,
    },
    /// No interface has the address.
    #[error(
        "{} is not an address of this host (`ip address` lists them): add it to an interface, or correct dns.listen",
        .0.ip()
    )]
    NotHere(SocketAddr),
    /// Not allowed.
    #[error("binding {0} is not permitted: run the agent as root or with CAP_NET_BIND_SERVICE")]
    NotPermitted(SocketAddr),
    /// A reply must leave from the address that was asked, so each is bound by itself.
    #[error("{} stands for every address: list the addresses themselves in dns.listen", .0.ip())]
    Unspecified(SocketAddr),
    /// Anything else.
    #[error("cannot serve {protocol} {address}: {source}")]
    Other {
        /// `udp` or `tcp`.
        protocol: &'static str,
        /// Address and port.
        address: SocketAddr,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// A UDP socket bound to `address` alone.
pub(super) fn udp(address: SocketAddr) -> Result<UdpSocket, BindError> {
    let explain = |error| explain("udp", address, error);
    let socket = bound(SockType::Datagram, address).map_err(explain)?;
    UdpSocket::from_std(socket.into()).map_err(explain)
}

/// A TCP listener bound to `address` alone.
pub(super) fn tcp(address: SocketAddr) -> Result<TcpListener, BindError> {
    let explain = |error| explain("tcp", address, error);
    let socket = bound(SockType::Stream, address).map_err(explain)?;
    listen(&socket, Backlog::MAXCONN).map_err(|error| explain(error.into()))?;
    TcpListener::from_std(socket.into()).map_err(explain)
}

fn bound(kind: SockType, address: SocketAddr) -> io::Result<OwnedFd> {
    if address.ip().is_unspecified() {
        return Err(Errno::EDESTADDRREQ.into());
    }
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, kind, flags, None)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    // For TCP this allows a restart while old connections linger; for UDP it would let two servers share the port.
    if kind == SockType::Stream {
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

fn explain(protocol: &'static str, address: SocketAddr, source: io::Error) -> BindError {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRINUSE) => BindError::Taken { protocol, address },
        Some(Errno::EADDRNOTAVAIL) => BindError::NotHere(address),
        Some(Errno::EACCES) => BindError::NotPermitted(address),
        Some(Errno::EDESTADDRREQ) => BindError::Unspecified(address),
        _ => BindError::Other { protocol, address, source },
    }
}
