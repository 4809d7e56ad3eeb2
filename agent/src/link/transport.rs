//! QUIC settings, small on purpose: a heartbeat takes some fifty bytes, a report rarely more than a few kilobytes, and who
//! sends frames waits for who reads them.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Weak},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, ClientConfig, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout,
    NoneTokenStore, Runtime, ServerConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use ring::{
    hkdf, hmac,
    rand::{SecureRandom, SystemRandom},
};

use super::{
    keys::Identity,
    trust::{self, Pins, Shown},
};

/// A handshake, or an attempt to begin one, that takes longer has failed.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// Length of connection identifiers, bytes; QUIC's usual choice.
const CID_LENGTH: usize = 8;

/// Bi-directional streams that a peer may have open: one of frames for each topic, one that replaces each, and two requests.
const BIDI_STREAMS: u32 = 6;

/// Bytes of a stream that may be under way or unread. At a round trip of 20 ms this lets 50 MB/s through.
const STREAM_WINDOW: u32 = 1 << 20;

/// The same for all streams of a connection together, and what is kept until the other end has it. The streams of frames
/// (about each of two topics the peer's, the one that replaces it, and this site's) cannot use all of it if nobody reads
/// them, so that reports and requests, which are read at once, always have a share.
const CONNECTION_WINDOW: u32 = 7 * STREAM_WINDOW;

/// How long a connection outlives silence: long enough that a short cut of the path ends with the next heartbeat and
/// without a new handshake. But with changes under way the congestion window is full, and heartbeats wait for a probe of
/// the loss recovery (RFC 9002 section 6.2), which comes after twice as long a time each: after a longer cut a handshake is
/// sooner there. Ends in a whole number of milliseconds.
pub(super) fn idle_timeout(period: Duration) -> Duration {
    (period * 6).max(Duration::from_secs(3))
}

/// Opens the endpoint that both dials and accepts. The socket is in use until the reference to it dangles.
pub(super) fn open(
    listen: SocketAddr,
    identity: &Identity,
    server: ServerConfig,
) -> io::Result<(Endpoint, Weak<dyn AsyncUdpSocket>)> {
    // The key outlives a restart, so that packets of a connection from before it are answered with a reset that the
    // peer believes (RFC 9000 §10.3), and the peer connects anew at once.
    let reset = hmac::Key::new(hmac::HMAC_SHA256, &derive(identity, b"stateless reset"));
    let mut config = EndpointConfig::new(Arc::new(reset));
    config.cid_generator(|| Box::new(RandomIds(SystemRandom::new())));
    let socket = TokioRuntime.wrap_udp_socket(UdpSocket::bind(listen)?)?;
    let reference = Arc::downgrade(&socket);
    let endpoint = Endpoint::new_with_abstract_socket(config, Some(server), socket, Arc::new(TokioRuntime))?;
    Ok((endpoint, reference))
}

/// Bounds what strangers can make this endpoint hold; each incoming attempt brings its own TLS (`server`).
pub(super) fn base_server(
    identity: &Identity,
    pins: Arc<Pins>,
    period: Duration,
) -> Result<ServerConfig, rustls::Error> {
    let token = hkdf::Salt::new(hkdf::HKDF_SHA256, b"retry token").extract(&derive(identity, b"retry token"));
    let mut config = ServerConfig::new(quic_server(identity, pins, &Shown::default())?, Arc::new(token));
    config.transport_config(Arc::new(transport(period)));
    config.max_incoming(64);
    config.incoming_buffer_size(16 << 10);
    config.incoming_buffer_size_total(128 << 10);
    config.validation_token.sent(0);
    Ok(config)
}

/// The settings for one incoming attempt, whose certificate will be in `shown`.
pub(super) fn server(
    base: &ServerConfig,
    identity: &Identity,
    pins: Arc<Pins>,
    shown: &Shown,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = base.clone();
    config.crypto = quic_server(identity, pins, shown)?;
    Ok(config)
}

/// The settings for one attempt to reach the peer in `pins`, whose certificate will be in `shown`.
pub(super) fn client(
    identity: &Identity,
    pins: Arc<Pins>,
    shown: &Shown,
    period: Duration,
) -> Result<ClientConfig, rustls::Error> {
    let tls = QuicClientConfig::try_from(trust::client(identity, pins, shown)?).map_err(no_initial_suite)?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport(period)));
    config.token_store(Arc::new(NoneTokenStore));
    Ok(config)
}

fn quic_server(identity: &Identity, pins: Arc<Pins>, shown: &Shown) -> Result<Arc<QuicServerConfig>, rustls::Error> {
    let tls = trust::server(identity, pins, shown)?;
    QuicServerConfig::try_from(tls).map(Arc::new).map_err(no_initial_suite)
}

fn no_initial_suite(error: quinn::crypto::rustls::NoInitialCipherSuite) -> rustls::Error {
    rustls::Error::General(error.to_string())
}

fn transport(period: Duration) -> TransportConfig {
    let idle = IdleTimeout::try_from(idle_timeout(period)).expect("a few minutes fit");
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(idle))
        // The first packet is repeated after three times this.
        .initial_rtt(Duration::from_millis(100))
        .mtu_discovery_config(None)
        .enable_segmentation_offload(false)
        .max_concurrent_bidi_streams(VarInt::from_u32(BIDI_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(4))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(CONNECTION_WINDOW.into())
        .datagram_receive_buffer_size(Some(4 << 10))
        .datagram_send_buffer_size(4 << 10);
    config
}

/// 32 secret bytes that depend on the private key and `purpose` only.
fn derive(identity: &Identity, purpose: &'static [u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    identity
        .secret
        .expand(&[purpose], hkdf::HKDF_SHA256)
        .and_then(|output| output.fill(&mut bytes))
        .expect("HKDF-SHA256 gives 32 bytes");
    bytes
}

/// Random connection identifiers, none of which is invalid: quinn's own generators recognise those of an earlier run as
/// foreign and then send no reset.
struct RandomIds(SystemRandom);

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; CID_LENGTH];
        self.0.fill(&mut bytes).expect("the system has randomness");
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        CID_LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
