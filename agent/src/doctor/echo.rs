//! Asks a peer's program, through the tunnel, whether it is there.

use std::{
    io::{self, ErrorKind},
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use siteswap_common::steer::tunnel::{ECHO, ECHO_REPLY, HEADER, header, site};
use tokio::{net::UdpSocket, time::timeout};

/// A datagram may be lost.
const TRIES: usize = 3;

/// More than the round trip between any two places.
const WAIT: Duration = Duration::from_millis(500);

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Echo {
    /// It answered, after this time.
    Answered(Duration),
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

/// Asks `peer`, as `own`. The program takes questions from the peer's own tunnel address only, and any port.
pub async fn ask(own: End<'_>, peer: End<'_>) -> Echo {
    match exchange(own, peer).await {
        Ok(echo) => echo,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Echo::Refused,
        Err(error) => Echo::Unsent(error.to_string()),
    }
}

async fn exchange((name, address): End<'_>, (peer, to): End<'_>) -> io::Result<Echo> {
    let socket = UdpSocket::bind((*address.ip(), 0)).await?;
    // Connected, it also learns that nobody listens there.
    socket.connect(to).await?;
    for _ in 0..TRIES {
        let sent = Instant::now();
        socket.send(&message(ECHO, name)).await?;
        // One byte more than is expected, so that a longer one is seen to be longer.
        let mut answer = [0; HEADER + 1];
        if let Ok(received) = timeout(WAIT, socket.recv(&mut answer)).await {
            let right = answer[..received?] == message(ECHO_REPLY, peer);
            return Ok(if right { Echo::Answered(sent.elapsed()) } else { Echo::Stranger });
        }
    }
    Ok(Echo::Silent)
}

/// A header and nothing behind it; about no resource, so that the epoch is 0.
fn message(mark: u8, name: &str) -> [u8; HEADER] {
    let [what, who] = header(mark, site(name)).map(u32::to_be_bytes);
    let mut bytes = [0; HEADER];
    bytes[..4].copy_from_slice(&what);
    bytes[4..8].copy_from_slice(&who);
    bytes
}
