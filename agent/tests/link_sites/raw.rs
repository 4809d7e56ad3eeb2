//! Something that speaks QUIC to a site and says what it likes: a stranger, or a peer out of its mind.

use std::{net::SocketAddr, path::Path, sync::Arc};

use quinn::{
    ApplicationClose, Connection, ConnectionError, Endpoint,
    crypto::rustls::QuicClientConfig,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
        version::TLS13,
    },
};
use tokio::time::timeout;

use super::DEADLINE;

/// Believes everybody.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        unreachable!("QUIC has no TLS 1.2")
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// What to show in the handshake.
pub struct Raw {
    endpoint: Endpoint,
    config: ClientConfig,
}

impl Raw {
    /// With the key in this file, or with none.
    pub fn new(target: SocketAddr, key: Option<&Path>) -> Self {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Gullible));
        let mut config = match key {
            Some(file) => {
                let certificate = CertificateDer::from_pem_file(file).unwrap();
                let key = PrivateKeyDer::from_pem_file(file).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"siteswap/1".to_vec()];
        let endpoint = Endpoint::client(SocketAddr::new(target.ip(), 0)).unwrap();
        Self { endpoint, config }
    }

    pub fn speaking(mut self, protocol: &str) -> Self {
        self.config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        self
    }

    pub async fn connect(&self, target: SocketAddr) -> Result<Connection, ConnectionError> {
        let tls = QuicClientConfig::try_from(self.config.clone()).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(tls));
        let connecting = self.endpoint.connect_with(config, target, "anyone").unwrap();
        timeout(DEADLINE, connecting).await.expect("the handshake ends")
    }

    /// Connects and waits until the other end ends it.
    pub async fn refusal(&self, target: SocketAddr) -> ConnectionError {
        match self.connect(target).await {
            // In TLS 1.3 the one that dials is done before the other has judged its key.
            Ok(connection) => closed(&connection).await,
            Err(error) => error,
        }
    }
}

pub async fn closed(connection: &Connection) -> ConnectionError {
    timeout(DEADLINE, connection.closed()).await.expect("the connection is closed")
}

/// The code and reason a connection was closed with.
pub fn said(error: ConnectionError) -> (u64, String) {
    match error {
        ConnectionError::ApplicationClosed(ApplicationClose { error_code, reason }) => {
            (error_code.into_inner(), String::from_utf8(reason.to_vec()).unwrap())
        }
        other => panic!("not closed by the application: {other}"),
    }
}

pub async fn send_stream(connection: &Connection, bytes: &[u8]) {
    let mut stream = connection.open_uni().await.unwrap();
    // The other end may refuse before all of it is sent.
    let _ = stream.write_all(bytes).await;
    let _ = stream.finish();
}

/// The response to a request; `None` if there is none.
pub async fn ask(connection: &Connection, bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut send, mut receive) = connection.open_bi().await.ok()?;
    let _ = send.write_all(bytes).await;
    let _ = send.finish();
    timeout(DEADLINE, receive.read_to_end(1 << 16)).await.expect("it ends").ok()
}
