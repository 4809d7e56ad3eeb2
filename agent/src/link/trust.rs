//! Who is let in: whoever holds the private key of a certificate whose fingerprint is configured. Nothing else about a
//! certificate counts, and the site's name follows from the fingerprint, never from a claim.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};

use crate::config::Fingerprint;

use super::keys::{self, Identity};

/// Offered and required by both ends, so that another protocol on the port is refused in the handshake.
pub(super) const ALPN: &[u8] = b"siteswap/1";

/// Names of sites by the fingerprints of their certificates.
pub(super) type Pins = BTreeMap<Fingerprint, String>;

/// The other end's fingerprint, once it has shown a certificate, trusted or not.
pub(super) type Shown = Arc<OnceLock<Fingerprint>>;

/// Judges one handshake.
#[derive(Debug)]
struct Verifier {
    pins: Arc<Pins>,
    shown: Shown,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn judge(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let fingerprint = keys::fingerprint(certificate);
        // A handshake shows one certificate; were there a second, the first would stay the one that is reported.
        let _ = self.shown.set(fingerprint);
        if self.pins.contains_key(&fingerprint) {
            return Ok(());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS 1.2 is never negotiated; its verification must not be a way round TLS 1.3's.
fn tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(certificate).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(certificate).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

fn verifier(pins: Arc<Pins>, shown: &Shown) -> Arc<Verifier> {
    Arc::new(Verifier { pins, shown: Arc::clone(shown), provider: Arc::new(ring::default_provider()) })
}

// Sessions are never resumed, by either end: a resumed one would skip the judgement above.

/// TLS for one attempt to reach a peer.
pub(super) fn client(identity: &Identity, pins: Arc<Pins>, shown: &Shown) -> Result<ClientConfig, Error> {
    let verifier = verifier(pins, shown);
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&verifier.provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(identity.certified.clone());
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// TLS for one incoming attempt.
pub(super) fn server(identity: &Identity, pins: Arc<Pins>, shown: &Shown) -> Result<ServerConfig, Error> {
    let verifier = verifier(pins, shown);
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&verifier.provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(identity.certified.clone());
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
