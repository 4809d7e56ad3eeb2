//! Why connections end, in numbers for the other end and in words for people.

use quinn::{ApplicationClose, Connection, ConnectionClose, ConnectionError, TransportErrorCode, VarInt};

/// Application error codes of QUIC's CONNECTION_CLOSE (RFC 9000 §19.19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Close {
    /// The agent stops.
    Stopping = 1,
    /// A newer connection from the same peer took over.
    Replaced = 2,
    /// A message was refused; the reason says why.
    Malformed = 3,
    /// The key is known, but its site must not dial this one.
    WrongDirection = 4,
    /// The configuration changed.
    Reconfigured = 5,
}

impl Close {
    /// Closes `connection`; `reason` is what the other end's operator reads.
    pub(super) fn apply(self, connection: &Connection, reason: &str) {
        let reason = reason.as_bytes();
        // What fits into a packet.
        connection.close(VarInt::from_u32(self as u32), &reason[..reason.len().min(800)]);
    }
}

/// TLS's `access_denied` alert (RFC 8446 §6.2), which our verifier refuses keys with.
const ACCESS_DENIED: u8 = 49;

/// What happened to a connection, for people.
pub(super) fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(ApplicationClose { error_code, reason }) => {
            let reason = String::from_utf8_lossy(reason).replace(char::is_control, " ");
            format!("closed by the peer, code {error_code}: {reason}")
        }
        ConnectionError::ConnectionClosed(ConnectionClose { error_code, .. })
            if *error_code == TransportErrorCode::crypto(ACCESS_DENIED) =>
        {
            "the peer refused this site's key: its configuration must have this site's fingerprint".to_owned()
        }
        ConnectionError::ConnectionClosed(close) => {
            format!("refused or closed by the peer: {close}").replace(char::is_control, " ")
        }
        ConnectionError::TimedOut => "nothing heard from the peer".to_owned(),
        ConnectionError::Reset => "the peer was restarted".to_owned(),
        other => other.to_string(),
    }
}
