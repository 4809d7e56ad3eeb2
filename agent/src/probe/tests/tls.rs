//! HTTPS, and whom it trusts.

use std::{path::Path, sync::Arc};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::{Server, attempt, page, probe};
use crate::config::{Check, HttpCheck, Probe, Tls};

/// A server of one page, with a certificate for `www.shop.test` that nobody but itself has signed; and that, as PEM.
async fn server() -> (Server, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["www.shop.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = Server::start(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\ndb-east";
            stream.write_all(reply).await.unwrap();
            let _ = stream.shutdown().await;
        }
    });
    (server.await, cert.pem())
}

fn over(tls: Tls, host: &str) -> Probe {
    probe(Check::Http(HttpCheck { tls: Some(tls), host: host.to_owned(), ..page(Some("db-east")) }))
}

#[tokio::test]
async fn a_certificate_by_the_given_roots_is_trusted_for_its_name_only() {
    let (server, pem) = server().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pem).unwrap();
    let roots = || Tls::Roots(file.path().to_owned());
    for host in ["www.shop.test", "www.shop.test:8443"] {
        let result = attempt(&over(roots(), host), server.address).await;
        assert_eq!(result, Ok("status 200, keyword \"db-east\"".to_owned()));
    }
    let error = attempt(&over(roots(), "orders.shop.test"), server.address).await.unwrap_err();
    assert!(error.starts_with("TLS: invalid peer certificate: certificate not valid for name"), "{error}");
}

#[tokio::test]
async fn a_stranger_is_trusted_only_without_verification() {
    let (server, _) = server().await;
    let result = attempt(&over(Tls::Unverified, "www.shop.test"), server.address).await;
    assert_eq!(result, Ok("status 200, keyword \"db-east\"".to_owned()));
    let (_, other) = self::server().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), other).unwrap();
    let roots = Tls::Roots(file.path().to_owned());
    let error = attempt(&over(roots, "www.shop.test"), server.address).await.unwrap_err();
    assert!(error.starts_with("TLS: invalid peer certificate: "), "{error}");
    let error = attempt(&over(Tls::System, "www.shop.test"), server.address).await.unwrap_err();
    // A machine may have no roots at all; that is said instead.
    assert!(error.starts_with("TLS: invalid peer certificate: ") || error.contains("ca-certificates"), "{error}");
}

#[tokio::test]
async fn plain_http_and_https_do_not_mix() {
    let (tls, _) = server().await;
    attempt(&probe(Check::Http(page(None))), tls.address).await.unwrap_err();
    let greeting = Server::start(|mut stream| async move {
        let _ = stream.write_all(b"220 mail.shop.test ESMTP\r\n").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let error = attempt(&over(Tls::Unverified, "www.shop.test"), greeting.address).await.unwrap_err();
    assert!(error.starts_with("TLS: "), "{error}");
}

#[tokio::test]
async fn roots_that_cannot_be_read_fail_every_try_and_are_named() {
    let (server, _) = server().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (path, content, expected) in [
        (Path::new("/nowhere/ca.pem"), None, "cannot be read: No such file or directory (os error 2)"),
        (directory.path(), None, "cannot be read: it is no file of certificates"),
        (file.path(), Some(""), "holds no certificate; it needs a block \"BEGIN CERTIFICATE\""),
        (file.path(), Some(bad), "holds a certificate that is none: "),
        (file.path(), Some("-----BEGIN CERTIFICATE-----\n?"), "is not PEM: "),
    ] {
        if let Some(content) = content {
            std::fs::write(path, content).unwrap();
        }
        let probe = over(Tls::Roots(path.to_owned()), "www.shop.test");
        let error = attempt(&probe, server.address).await.unwrap_err();
        let expected = format!("{}: {expected}", path.display());
        assert!(error.starts_with(&expected), "{error}");
    }
}
