//! This site's key: a self-signed certificate and its private key in one PEM file.
//!
//! Peers know the certificate by its fingerprint only; names and dates in it mean nothing.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ED25519};
use ring::{digest, hkdf};
use rustls::{
    crypto::ring::sign::any_supported_type,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    sign::{CertifiedKey, SingleCertAndKey},
};

use crate::config::Fingerprint;

/// What a key file must not exceed; ours have about 700 bytes.
const MAX_BYTES: u64 = 64 << 10;

/// Why a key file cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no such file.
    #[error("{0}: no such key file; make one with: siteswap keygen --out {0}")]
    Missing(PathBuf),
    /// The file exists and must not be lost.
    #[error("{0} exists; its fingerprint may be known to the peers. Name another file, or pass --force to replace it")]
    Exists(PathBuf),
    /// The file, or the directory it should be in, cannot be used.
    #[error("{file}: {error}")]
    Io {
        /// The key file.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Others could read the private key.
    #[error("{file} has mode {mode:03o}, so that others can use the private key in it; run: chmod 600 {file}")]
    Exposed {
        /// The key file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not text with PEM sections.
    #[error("{file} is not a key file: {problem}; expected PEM as siteswap keygen writes it")]
    NotPem {
        /// The key file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// No `PRIVATE KEY` section.
    #[error("{0} holds no private key; expected a section -----BEGIN PRIVATE KEY----- as siteswap keygen writes it")]
    NoKey(PathBuf),
    /// No `CERTIFICATE` section.
    #[error("{0} holds no certificate; expected a section -----BEGIN CERTIFICATE----- as siteswap keygen writes it")]
    NoCertificate(PathBuf),
    /// Key or certificate cannot be used for TLS 1.3.
    #[error("{file}: {problem}; make a usable key with: siteswap keygen")]
    Unusable {
        /// The key file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// They do not belong together.
    #[error(
        "{0}: the private key does not belong to the certificate; restore the file, or make a new one with: siteswap keygen"
    )]
    Mismatch(PathBuf),
}

/// A site's own certificate and private key, checked.
#[derive(Clone)]
pub struct Identity {
    pub(super) certified: Arc<SingleCertAndKey>,
    /// For secrets that must outlive a restart.
    pub(super) secret: Arc<hkdf::Prk>,
    fingerprint: Fingerprint,
}

impl Identity {
    /// What the peers' configurations must say about this site.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint)
    }
}

/// SHA-256 of a certificate in DER.
pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
    Fingerprint(bytes)
}

/// Makes a new Ed25519 key with a self-signed certificate and writes both to `file`, readable by its owner only.
///
/// # Errors
/// `Exists` unless `force`; `Io` if the file cannot be written. A file that existed is replaced whole or not at all.
pub fn generate(file: &Path, force: bool) -> Result<Fingerprint, KeyError> {
    let failed = |error| KeyError::Io { file: file.to_owned(), error };
    let key = KeyPair::generate_for(&PKCS_ED25519).map_err(|e| failed(io::Error::other(e)))?;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, "siteswap");
    let certificate = parameters.self_signed(&key).map_err(|e| failed(io::Error::other(e)))?;
    let text = certificate.pem() + &key.serialize_pem();
    if force {
        replace(file, text.as_bytes()).map_err(failed)?;
    } else {
        match create(file, text.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(KeyError::Exists(file.to_owned()));
            }
            result => result.map_err(failed)?,
        }
    }
    Ok(fingerprint(certificate.der()))
}

fn create(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    let written = new.write_all(bytes).and_then(|()| new.sync_all());
    if written.is_err() {
        // What is left of it would be in the way of the next attempt.
        let _ = fs::remove_file(file);
    }
    written
}

fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    create(&beside, bytes)?;
    fs::rename(&beside, file).inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })
}

/// Reads and checks a key file.
///
/// # Errors
/// Each way in which the file can be wrong is a variant of its own.
pub fn load(file: &Path) -> Result<Identity, KeyError> {
    let text = read(file)?;
    let not_pem = |error| KeyError::NotPem { file: file.to_owned(), problem: problem(&error) };
    let certificates = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::pem_slice_iter(&text).next().transpose();
    let (certificates, key) = (certificates.map_err(not_pem)?, key.map_err(not_pem)?);
    let first = match (certificates.into_iter().next(), &key) {
        (None, None) => {
            return Err(KeyError::NotPem {
                file: file.to_owned(),
                problem: "neither certificate nor private key found".to_owned(),
            });
        }
        (None, Some(_)) => return Err(KeyError::NoCertificate(file.to_owned())),
        (Some(first), _) => first,
    };
    check(file, first, key.ok_or_else(|| KeyError::NoKey(file.to_owned()))?)
}

/// What is wrong with a PEM text; the library prints markers as lists of numbers.
fn problem(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("no line -----END {}-----", String::from_utf8_lossy(end_marker))
        }
        pem::Error::IllegalSectionStart { line } => {
            format!("this line begins no section: {}", String::from_utf8_lossy(line).escape_debug())
        }
        other => other.to_string(),
    }
}

fn check(file: &Path, certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> Result<Identity, KeyError> {
    let unusable = |error: rustls::Error| KeyError::Unusable { file: file.to_owned(), problem: error.to_string() };
    let fingerprint = fingerprint(&certificate);
    let signing = any_supported_type(&key).map_err(unusable)?;
    let certified = CertifiedKey::new(vec![certificate], signing);
    match certified.keys_match() {
        Ok(()) => {}
        Err(rustls::Error::InconsistentKeys(_)) => return Err(KeyError::Mismatch(file.to_owned())),
        Err(error) => return Err(unusable(error)),
    }
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"siteswap link");
    Ok(Identity {
        certified: Arc::new(SingleCertAndKey::from(certified)),
        secret: Arc::new(salt.extract(key.secret_der())),
        fingerprint,
    })
}

fn read(file: &Path) -> Result<Vec<u8>, KeyError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => KeyError::Missing(file.to_owned()),
        _ => KeyError::Io { file: file.to_owned(), error },
    };
    let mut open = File::open(file).map_err(failed)?;
    let facts = open.metadata().map_err(failed)?;
    let mode = facts.permissions().mode() & 0o777;
    // A group that may read it is somebody's decision; everybody is a mistake.
    if mode & 0o027 != 0 {
        return Err(KeyError::Exposed { file: file.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(&mut open, MAX_BYTES), &mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
