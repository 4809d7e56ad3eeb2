//! Asks a peer's program, through the tunnel, whether it is there.

use std::{
    io::{self, ErrorKind},
    net::SocketAddrV4,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use nix::{errno::Errno, libc};
use siteswap_common::steer::tunnel::{ECHO, ECHO_REPLY, HEADER, OVERHEAD, header, site};
use tokio::{net::UdpSocket, time::timeout};

/// A datagram may be lost.
const TRIES: usize = 3;

/// More than the round trip between any two places.
const WAIT: Duration = Duration::from_millis(500);

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Echo {
    /// It answered.
    Answered {
        /// After this time.
        after: Duration,
        /// Also a question that fills the largest packet that the way to it is said to take.
        full: bool,
    },
    /// The host answered, but its program did not take the question.
    Refused,
    /// Something answered, but not the program of that site.
    Stranger,
    /// Nothing came back.
    Silent,
    /// The question could not be sent.
    Unsent(String),
}

/// One end of a tunnel: the site's name and the address.
pub type End<'a> = (&'a str, SocketAddrV4);

/// Asks `peer`, as `own`; if it answers, a second time with a packet of `mtu` bytes. The answer is as long as the
/// question, so that the way back is tried too.
pub async fn ask(own: End<'_>, peer: End<'_>, mtu: u32) -> Echo {
    let echo = try_size(own, peer, HEADER).await;
    let Echo::Answered { after, .. } = echo else { return echo };
    let room = (mtu as usize).saturating_sub(OVERHEAD);
    let full = matches!(try_size(own, peer, HEADER + room).await, Echo::Answered { .. });
    Echo::Answered { after, full }
}

async fn try_size(own: End<'_>, peer: End<'_>, size: usize) -> Echo {
    match exchange(own, peer, size).await {
        Ok(echo) => echo,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Echo::Refused,
        Err(error) => Echo::Unsent(error.to_string()),
    }
}

/// The program takes questions from the peer's own tunnel address only, and any port.
async fn exchange((name, address): End<'_>, (peer, to): End<'_>, size: usize) -> io::Result<Echo> {
    let socket = UdpSocket::bind((*address.ip(), 0)).await?;
    never_fragment(&socket)?;
    // Connected, it also learns that nobody listens there.
    socket.connect(to).await?;
    for _ in 0..TRIES {
        let sent = Instant::now();
        socket.send(&message(ECHO, name, size)).await?;
        // One byte more than is expected, so that a longer one is seen to be longer.
        let mut answer = vec![0; size + 1];
        if let Ok(received) = timeout(WAIT, socket.recv(&mut answer)).await {
            let right = answer[..received?] == message(ECHO_REPLY, peer, size);
            return Ok(if right { Echo::Answered { after: sent.elapsed(), full: false } } else { Echo::Stranger });
        }
    }
    Ok(Echo::Silent)
}

/// Packets are sent whole, as the program's own are, or not at all.
fn never_fragment(socket: &UdpSocket) -> io::Result<()> {
    let value = libc::IP_PMTUDISC_DO;
    let length = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
    let pointer = (&raw const value).cast();
    // SAFETY: the option is an int, which the pointer leads to and the length is that of; it outlives the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, pointer, length) };
    Errno::result(result)?;
    Ok(())
}

/// A header, and zeros behind it up to `size`; about no resource, so that the epoch is 0.
fn message(mark: u8, name: &str, size: usize) -> Vec<u8> {
    let [what, who] = header(mark, site(name)).map(u32::to_be_bytes);
    let mut bytes = [what, who].concat();
    bytes.resize(size, 0);
    bytes
}
