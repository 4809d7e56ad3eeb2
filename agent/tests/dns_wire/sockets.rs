//! The server's sockets, through loopback.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use siteswap::dns::{BindError, Counters, Limits, Outcome, Server, State};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    time::{sleep, timeout},
};

use super::support::*;

/// Long enough for a slow machine; nothing waits for it unless a test fails.
const DEADLINE: Duration = Duration::from_secs(20);

const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const LOCAL2: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
const LOCAL6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

struct Running {
    server: Server,
    port: u16,
    state: Arc<ArcSwap<State>>,
    counters: Arc<Counters>,
    fixture: Fixture,
}

fn state(table: bool) -> (State, Fixture) {
    let fixture = fixture();
    let again = fixture_with(siteswap::config::AllDown::NoData);
    let state = State { zones: Arc::new(again.zones), table: table.then(|| Arc::new(again.table)) };
    (state, fixture)
}

/// A port that is free for both protocols, found by taking it.
async fn start_with(addresses: &[IpAddr], limits: Limits, table: bool) -> Running {
    let (state, fixture) = state(table);
    let state = Arc::new(ArcSwap::from_pointee(state));
    for _ in 0..100 {
        let probe = UdpSocket::bind((LOCAL, 0)).await.unwrap();
        let port = probe.local_addr().unwrap().port();
        drop(probe);
        match Server::bind(addresses, port, state.clone(), limits).await {
            Ok(server) => {
                return Running { counters: server.counters(), server, port, state, fixture };
            }
            Err(BindError::Taken { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no free port")
}

async fn start() -> Running {
    start_with(&[LOCAL, LOCAL2, LOCAL6], Limits::default(), true).await
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Sends and receives; the reply must come from the address the query went to.
async fn udp(server: SocketAddr, query: &[u8]) -> Vec<u8> {
    let local: SocketAddr = if server.is_ipv6() { "[::1]:0" } else { "127.0.0.1:0" }.parse().unwrap();
    let socket = UdpSocket::bind(local).await.unwrap();
    socket.send_to(query, server).await.unwrap();
    let mut buffer = [0; 2048];
    let (length, from) = timeout(DEADLINE, socket.recv_from(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(from, server);
    buffer[..length].to_vec()
}

fn framed(query: &[u8]) -> Vec<u8> {
    [&u16::try_from(query.len()).unwrap().to_be_bytes(), query].concat()
}

async fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let read = async {
        let length = stream.read_u16().await?;
        let mut message = vec![0; usize::from(length)];
        stream.read_exact(&mut message).await?;
        Ok::<_, std::io::Error>(message)
    };
    timeout(DEADLINE, read).await.unwrap().unwrap()
}

/// Waits until the server has closed the connection.
async fn closed(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 1];
    matches!(timeout(DEADLINE, stream.read(&mut buffer)).await.unwrap(), Ok(0) | Err(_))
}

#[tokio::test]
async fn rfc2181_4_1_replies_leave_from_the_address_that_was_asked() {
    let running = start().await;
    let query = query("www.shop.test", A);
    let expected = running.fixture.udp(&query).bytes;
    for address in [LOCAL, LOCAL2, LOCAL6] {
        let server = SocketAddr::new(address, running.port);
        assert_eq!(udp(server, &query).await, expected);
        let mut stream = TcpStream::connect(server).await.unwrap();
        stream.write_all(&framed(&query)).await.unwrap();
        assert_eq!(read_framed(&mut stream).await, expected);
    }
    assert_eq!(running.counters.get(Outcome::Answer), 6);
}

#[tokio::test]
async fn every_datagram_is_counted_once_and_some_are_met_with_silence() {
    let running = start().await;
    let server = SocketAddr::new(LOCAL, running.port);
    let socket = UdpSocket::bind((LOCAL, 0)).await.unwrap();
    let mut response = query("www.shop.test", A);
    response[2] |= 0x80;
    for datagram in [&response[..], b"short", b""] {
        socket.send_to(datagram, server).await.unwrap();
    }
    let good = query("elsewhere.example", A);
    socket.send_to(&good, server).await.unwrap();
    let mut buffer = [0; 512];
    let length = timeout(DEADLINE, socket.recv(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(buffer[..length], running.fixture.udp(&good).bytes);
    let nonzero: Vec<_> = running.counters.snapshot().into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(nonzero, [("refused", 1), ("silent", 3), ("udp_queries", 4)]);
}

#[tokio::test]
async fn before_the_first_round_of_probes_queries_are_dropped_and_counted() {
    let running = start_with(&[LOCAL], Limits::default(), false).await;
    let server = SocketAddr::new(LOCAL, running.port);
    let socket = UdpSocket::bind((LOCAL, 0)).await.unwrap();
    let early = query("www.shop.test", A);
    socket.send_to(&early, server).await.unwrap();
    eventually("dropped", || running.counters.get(Outcome::NotReady) == 1).await;

    let (ready, _) = state(true);
    running.state.store(Arc::new(ready));
    let later = query("mail.shop.test", A);
    socket.send_to(&later, server).await.unwrap();
    let mut buffer = [0; 512];
    let length = timeout(DEADLINE, socket.recv(&mut buffer)).await.unwrap().unwrap();
    // The first reply is to the later query.
    assert_eq!(buffer[..length], running.fixture.udp(&later).bytes);
}

#[tokio::test]
async fn rfc7766_8_a_query_may_arrive_octet_by_octet() {
    let running = start().await;
    let mut stream = TcpStream::connect((LOCAL, running.port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let query = query("www.shop.test", A);
    for octet in framed(&query) {
        stream.write_all(&[octet]).await.unwrap();
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(read_framed(&mut stream).await, running.fixture.tcp(&query).bytes);
}

#[tokio::test]
async fn rfc7766_6_2_1_1_pipelined_queries_are_all_answered() {
    let running = start().await;
    let mut stream = TcpStream::connect((LOCAL, running.port)).await.unwrap();
    let mut sent = Vec::new();
    let mut expected = Vec::new();
    for id in 0..200u16 {
        let name = ["www.shop.test", "no.shop.test", "elsewhere.example"][usize::from(id % 3)];
        let mut query = query(name, A);
        query[..2].copy_from_slice(&id.to_be_bytes());
        sent.extend(framed(&query));
        expected.push(running.fixture.tcp(&query).bytes);
    }
    stream.write_all(&sent).await.unwrap();
    for expected in expected {
        assert_eq!(read_framed(&mut stream).await, expected);
    }
    assert_eq!(running.counters.get(Outcome::Answer), 67);
}

#[tokio::test]
async fn rfc7766_8_a_length_too_short_for_a_header_closes_the_connection() {
    let running = start().await;
    for length in [0u8, 1, 11] {
        let mut stream = TcpStream::connect((LOCAL, running.port)).await.unwrap();
        let message = [&[0, length][..], &[0; 11][..usize::from(length)]].concat();
        stream.write_all(&message).await.unwrap();
        assert!(closed(&mut stream).await);
    }
}

#[tokio::test]
async fn rfc7766_6_2_3_an_idle_or_slow_connection_is_closed() {
    let limits = Limits { idle: Duration::from_millis(50), ..Limits::default() };
    let running = start_with(&[LOCAL], limits, true).await;
    let mut idle = TcpStream::connect((LOCAL, running.port)).await.unwrap();
    let mut slow = TcpStream::connect((LOCAL, running.port)).await.unwrap();
    slow.write_all(&framed(&query("www.shop.test", A))[..20]).await.unwrap();
    assert!(closed(&mut idle).await);
    assert!(closed(&mut slow).await);
    eventually("counted", || running.counters.snapshot().contains(&("tcp_idle_closed", 2))).await;
}

#[tokio::test]
async fn rfc7766_6_2_3_past_the_limit_the_connection_idle_for_longest_is_closed() {
    let limits = Limits { connections: 2, ..Limits::default() };
    let running = start_with(&[LOCAL], limits, true).await;
    let query = query("www.shop.test", A);
    let expected = running.fixture.tcp(&query).bytes;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect((LOCAL, running.port)).await.unwrap();
        stream.write_all(&framed(&query)).await.unwrap();
        assert_eq!(read_framed(&mut stream).await, expected);
        streams.push(stream);
    }
    // The first is used again, so the second has been idle for longer.
    streams[0].write_all(&framed(&query)).await.unwrap();
    assert_eq!(read_framed(&mut streams[0]).await, expected);
    let mut third = TcpStream::connect((LOCAL, running.port)).await.unwrap();
    third.write_all(&framed(&query)).await.unwrap();
    assert_eq!(read_framed(&mut third).await, expected);
    assert!(closed(&mut streams[1]).await);
    streams[0].write_all(&framed(&query)).await.unwrap();
    assert_eq!(read_framed(&mut streams[0]).await, expected);
}

#[tokio::test]
async fn a_new_state_answers_the_next_query_on_the_same_sockets() {
    let running = start().await;
    let server = SocketAddr::new(LOCAL, running.port);
    let mut stream = TcpStream::connect(server).await.unwrap();
    let query = query("www.shop.test", A);
    assert_eq!(udp(server, &query).await, running.fixture.udp(&query).bytes);

    let (mut next, _) = state(true);
    let mut table = running.fixture.table.clone();
    table.sets[0] = set("www", &["192.0.2.80"], None);
    next.table = Some(Arc::new(table.clone()));
    let expected = siteswap::dns::respond(&query, siteswap::dns::Transport::Udp, &next.zones, &table);
    let expected = expected.unwrap().bytes;
    running.state.store(Arc::new(next));
    assert_eq!(udp(server, &query).await, expected);
    stream.write_all(&framed(&query)).await.unwrap();
    assert_eq!(read_framed(&mut stream).await, expected);
}

#[tokio::test]
async fn rebinding_keeps_common_addresses_opens_new_ones_and_closes_old_ones() {
    let mut running = start_with(&[LOCAL, LOCAL6], Limits::default(), true).await;
    let query = query("www.shop.test", A);
    let expected = running.fixture.udp(&query).bytes;
    let mut stream = TcpStream::connect((LOCAL6, running.port)).await.unwrap();
    stream.write_all(&framed(&query)).await.unwrap();
    assert_eq!(read_framed(&mut stream).await, expected);
    running.server.rebind(&[LOCAL, LOCAL2], running.port).await.unwrap();
    for address in [LOCAL, LOCAL2] {
        assert_eq!(udp(SocketAddr::new(address, running.port), &query).await, expected);
    }
    // The address is free again, and a connection made before goes on.
    drop(UdpSocket::bind((LOCAL6, running.port)).await.expect("the old address is closed"));
    stream.write_all(&framed(&query)).await.unwrap();
    assert_eq!(read_framed(&mut stream).await, expected);

    // A set that cannot be bound changes nothing.
    let elsewhere = "203.0.113.77".parse().unwrap();
    assert!(running.server.rebind(&[LOCAL6, elsewhere], running.port).await.is_err());
    assert_eq!(running.server.addresses().count(), 2);
    assert_eq!(udp(SocketAddr::new(LOCAL2, running.port), &query).await, expected);
}

#[tokio::test]
async fn dropping_the_server_closes_its_connections() {
    let running = start().await;
    let mut stream = TcpStream::connect((LOCAL, running.port)).await.unwrap();
    let query = query("www.shop.test", A);
    stream.write_all(&framed(&query)).await.unwrap();
    read_framed(&mut stream).await;
    drop(running.server);
    assert!(closed(&mut stream).await);
}

#[tokio::test]
async fn an_address_that_cannot_be_bound_is_an_error_that_says_what_to_do() {
    let udp_holder = UdpSocket::bind((LOCAL, 0)).await.unwrap();
    let tcp_holder = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let (state, _) = state(true);
    let state = Arc::new(ArcSwap::from_pointee(state));
    let bind = async |address: &str, port| {
        let address = address.parse().unwrap();
        let server = Server::bind(&[address], port, state.clone(), Limits::default()).await;
        server.expect_err("an error").to_string()
    };
    for (port, protocol) in
        [(udp_holder.local_addr().unwrap().port(), "udp"), (tcp_holder.local_addr().unwrap().port(), "tcp")]
    {
        let error = bind("127.0.0.1", port).await;
        for part in [&format!("holds {protocol} 127.0.0.1:{port}"), "named", "ss --", "dns.listen"] {
            assert!(error.contains(part), "{error}");
        }
    }
    assert!(bind("203.0.113.77", 5300).await.contains("203.0.113.77 is not an address of this host"));
    assert!(bind("0.0.0.0", 5300).await.contains("list the addresses themselves"));
    assert!(bind("::", 5300).await.contains("list the addresses themselves"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_a_query_is_lost_while_states_and_addresses_are_replaced() {
    let mut running = start().await;
    let server = SocketAddr::new(LOCAL, running.port);
    let query = query("www.shop.test", A);
    let expected = running.fixture.udp(&query).bytes;
    let client = tokio::spawn(async move {
        let mut stream = TcpStream::connect(server).await.unwrap();
        for _ in 0..300 {
            assert_eq!(udp(server, &query).await, expected);
            stream.write_all(&framed(&query)).await.unwrap();
            assert_eq!(read_framed(&mut stream).await, expected);
        }
    });
    let sets = [&[LOCAL, LOCAL6][..], &[LOCAL, LOCAL2]];
    for round in 0.. {
        if client.is_finished() {
            break;
        }
        running.state.store(Arc::new(state(true).0));
        running.server.rebind(sets[round % 2], running.port).await.unwrap();
    }
    client.await.unwrap();
    assert_eq!(running.counters.get(Outcome::Answer), 600);
}

#[tokio::test]
async fn rfc7766_6_2_3_a_client_that_takes_no_replies_is_closed() {
    let limits = Limits { idle: Duration::from_millis(50), ..Limits::default() };
    let running = start_with(&[LOCAL], limits, true).await;
    let mut stream = TcpStream::connect((LOCAL, running.port)).await.unwrap();
    let queries = framed(&query("www.shop.test", A)).repeat(1000);
    // Both sides' buffers fill, then neither moves until the server gives up.
    let send = async { while stream.write_all(&queries).await.is_ok() {} };
    timeout(DEADLINE, send).await.expect("the connection is closed");
    eventually("counted", || running.counters.snapshot().contains(&("tcp_idle_closed", 1))).await;
}
