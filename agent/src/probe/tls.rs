//! How a probe judges a backend's certificate.

use std::{
    fs, io,
    path::Path,
    sync::{Arc, LazyLock},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use crate::config::Tls;

/// A file of roots larger than this many bytes is something else.
const MAX_ROOTS: u64 = 16 << 20;

/// The certificates that a probe's PEM file holds, as text, or what is wrong with the file.
pub(super) type Roots = Result<Vec<u8>, String>;

/// Reads the file that `tls` names, if it names one.
pub(super) fn read_roots(tls: &Tls) -> Option<Roots> {
    let Tls::Roots(file) = tls else {
        return None;
    };
    let wrong = |why: String| format!("{}: {why}", file.display());
    let bytes = read(file).map_err(|error| wrong(format!("cannot be read: {error}")));
    Some(bytes.and_then(|bytes| {
        store(&bytes).map_err(wrong)?;
        Ok(bytes)
    }))
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let size = fs::metadata(file)?;
    if !size.is_file() || size.len() > MAX_ROOTS {
        return Err(io::Error::other("it is no file of certificates"));
    }
    fs::read(file)
}

fn store(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("is not PEM: {error}"))?;
        let added = store.add(certificate);
        added.map_err(|error| format!("holds a certificate that is none: {error}"))?;
    }
    if store.is_empty() {
        return Err("holds no certificate; it needs a block \"BEGIN CERTIFICATE\"".to_owned());
    }
    Ok(store)
}

/// What a TLS client needs to judge by `tls`; `roots` is what [`read_roots`] found.
pub(super) fn client(tls: &Tls, roots: Option<&Roots>) -> Result<Arc<ClientConfig>, String> {
    match (tls, roots) {
        (Tls::System, _) => SYSTEM.clone(),
        (Tls::Unverified, _) => Ok(finish(Arc::new(Unverified(provider())))),
        (Tls::Roots(_), Some(Ok(pem))) => by(store(pem)?),
        (Tls::Roots(_), Some(Err(error))) => Err(error.clone()),
        (Tls::Roots(file), None) => Err(format!("{}: was not read", file.display())),
    }
}

/// Read once: some hundred kilobytes that every probe can share.
static SYSTEM: LazyLock<Result<Arc<ClientConfig>, String>> = LazyLock::new(|| {
    let mut store = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    store.add_parsable_certificates(found.certs);
    if store.is_empty() {
        return Err("this system has no root certificates; install ca-certificates".to_owned());
    }
    by(store)
});

fn by(store: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(store.into(), provider());
    Ok(finish(verifier.build().map_err(|error| error.to_string())?))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn finish(verifier: Arc<dyn ServerCertVerifier>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default versions of TLS")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Every try judges the certificate anew.
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Accepts every certificate whose owner is at the other end.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
