//! What crosses the link, byte by byte: a version, then the message in postcard's encoding.
//!
//! A heartbeat is a datagram; a report is a stream of its own. Nothing a peer sends is believed before it is checked
//! here.

use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::evidence::Report;

/// The first byte of every message. Agents of different versions do not talk to each other.
pub const VERSION: u8 = 1;
/// A message is at most this long, in bytes.
pub const MAX_MESSAGE: usize = 1 << 20;
/// A report has at most this many instances; as many as always fit into a message.
pub const MAX_INSTANCES: usize = 10_000;
/// Names of sites and resources are at most this long; the configuration's rule.
pub const MAX_NAME: usize = 32;
/// A reason is at most this long, in bytes; longer ones are cut before they are sent.
pub const MAX_REASON: usize = 256;

/// Version and numbers of an encoded instance without names and reason: two lengths, two flags, a number of up to ten
/// bytes, and the reason's length.
const INSTANCE_OVERHEAD: usize = 2 + 2 + 10 + 2;
/// Version, site and the message's own numbers.
const MESSAGE_OVERHEAD: usize = 1 + 1 + MAX_NAME + 10 + 10 + 3;

const _: () = assert!(MESSAGE_OVERHEAD + MAX_INSTANCES * (2 * MAX_NAME + INSTANCE_OVERHEAD) <= MAX_MESSAGE);

/// "I am alive."
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Counts heartbeats on this connection.
    pub sequence: u64,
    /// Number of the newest report sent on this connection; 0 before the first.
    pub report: u64,
}

/// A report with what is needed to place it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportMessage {
    /// Who the sender thinks it is. Never believed, only compared with whom the key belongs to.
    pub site: String,
    /// Counts reports on this connection from 1; the higher is the newer.
    pub number: u64,
    /// The sender's heartbeat period.
    pub period: Duration,
    /// The report.
    pub report: Report,
}

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Another version of the agent.
    #[error("link version {0}, this agent speaks version {VERSION}: run the same release of siteswap at all sites")]
    Version(u8),
    /// Longer than a message may be.
    #[error("longer than {MAX_MESSAGE} bytes")]
    TooLong,
    /// Not an encoded message, or more than one.
    #[error("not a well-formed {0}")]
    Malformed(&'static str),
    /// Too many instances.
    #[error("{0} instances, at most {MAX_INSTANCES} may be reported")]
    Instances(usize),
    /// A name that names nothing.
    #[error("{0:?} cannot name a site or resource")]
    Name(String),
    /// A reason that is too long or would garble a terminal.
    #[error("the reason for {0} is longer than {MAX_REASON} bytes or holds control characters")]
    Reason(String),
    /// Its own name is not the one its key belongs to.
    #[error(
        "calls itself {claimed:?}, but its key is configured for {expected:?}: give the site one name in all configurations"
    )]
    Site {
        /// Who it says it is.
        claimed: String,
        /// Whose key it has.
        expected: String,
    },
}

/// A heartbeat's bytes.
pub fn encode_heartbeat(heartbeat: &Heartbeat) -> Vec<u8> {
    encode(heartbeat)
}

/// Reads a heartbeat.
///
/// # Errors
/// `Version`, `Malformed`.
pub fn decode_heartbeat(bytes: &[u8]) -> Result<Heartbeat, MessageError> {
    decode(bytes, "heartbeat")
}

/// A report's bytes. Reasons are cut, and control characters in them replaced, so that it fits and will be accepted.
///
/// # Errors
/// `Instances`, `Name`: the peers would refuse it.
pub fn encode_report(mut message: ReportMessage) -> Result<Vec<u8>, MessageError> {
    let room = room_for_reasons(message.report.instances.len())?;
    for instance in message.report.instances.values_mut() {
        tidy(&mut instance.reason, room);
    }
    check(&message)?;
    Ok(encode(&message))
}

/// Reads and checks a report.
///
/// # Errors
/// All but `Site`, which is the caller's to compare.
pub fn decode_report(bytes: &[u8]) -> Result<ReportMessage, MessageError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(MessageError::TooLong);
    }
    let message = decode(bytes, "report")?;
    check(&message)?;
    Ok(message)
}

/// Bytes that each instance's reason may take.
fn room_for_reasons(instances: usize) -> Result<usize, MessageError> {
    if instances > MAX_INSTANCES {
        return Err(MessageError::Instances(instances));
    }
    let each = (MAX_MESSAGE - MESSAGE_OVERHEAD) / instances.max(1);
    Ok((each - 2 * MAX_NAME - INSTANCE_OVERHEAD).min(MAX_REASON))
}

fn tidy(reason: &mut String, room: usize) {
    if reason.contains(char::is_control) {
        // One space takes no more bytes than any control character.
        *reason = reason.replace(char::is_control, " ");
    }
    let end = (0..=room.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
    reason.truncate(end.unwrap_or(0));
}

fn check(message: &ReportMessage) -> Result<(), MessageError> {
    check_name(&message.site)?;
    let instances = &message.report.instances;
    if instances.len() > MAX_INSTANCES {
        return Err(MessageError::Instances(instances.len()));
    }
    for (resource, instance) in instances {
        check_name(resource)?;
        instance.holder.as_deref().map_or(Ok(()), check_name)?;
        if instance.reason.len() > MAX_REASON || instance.reason.contains(char::is_control) {
            return Err(MessageError::Reason(resource.clone()));
        }
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), MessageError> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good =
        name.len() <= MAX_NAME && name.bytes().next().is_some_and(plain) && name.bytes().all(|c| plain(c) || c == b'-');
    if good {
        return Ok(());
    }
    // As much as tells what it is; it may be a megabyte.
    Err(MessageError::Name(name.chars().take(MAX_NAME).collect()))
}

fn encode(message: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(message, vec![VERSION]).expect("a growing buffer takes any message")
}

fn decode<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, MessageError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => match postcard::take_from_bytes(rest) {
            Ok((message, [])) => Ok(message),
            _ => Err(MessageError::Malformed(what)),
        },
        Some((other, _)) => Err(MessageError::Version(*other)),
        None => Err(MessageError::Malformed(what)),
    }
}

#[cfg(test)]
mod tests;
