//! Questions to a name server, over real sockets of the thread's own namespace.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RData, RecordType},
};

/// A query as a stub resolver sends it, without EDNS.
///
/// # Errors
/// `name` is no domain name.
pub fn query(name: &str, kind: RecordType) -> Result<Message> {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name)?, kind));
    Ok(query)
}

/// Asks once over UDP.
///
/// # Errors
/// There is no answer to this very query within `patience`.
pub fn ask(server: IpAddr, query: &Message, patience: Duration) -> Result<Message> {
    let deadline = Instant::now() + patience;
    let socket = connected(server)?;
    socket.send(&query.to_vec()?)?;
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let length = socket.recv(&mut buffer).with_context(|| format!("no answer from {server}"))?;
        let answer = Message::from_vec(&buffer[..length])?;
        if answer.metadata.id == query.metadata.id {
            return Ok(answer);
        }
    }
}

/// Asks once over TCP (RFC 1035 §4.2.2: two bytes of length first).
///
/// # Errors
/// There is no answer within `patience`.
pub fn ask_tcp(server: IpAddr, query: &Message, patience: Duration) -> Result<Message> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(server, 53), patience)?;
    stream.set_read_timeout(Some(patience))?;
    let query = query.to_vec()?;
    stream.write_all(&[&u16::try_from(query.len())?.to_be_bytes(), &query[..]].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer)?;
    Ok(Message::from_vec(&answer)?)
}

/// The addresses of an answer, in its order.
pub fn addresses(answer: &Message) -> Vec<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(v4) => Some(v4.0.into()),
        RData::AAAA(v6) => Some(v6.0.into()),
        _ => None,
    };
    answer.answers.iter().filter_map(|record| address(&record.data)).collect()
}

/// A UDP socket that hears only from this server.
pub(crate) fn connected(server: IpAddr) -> Result<UdpSocket> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((server, 53)).with_context(|| format!("no route to {server}"))?;
    Ok(socket)
}
