//! What crosses the link, byte by byte: a version, then the message in postcard's encoding.
//!
//! A heartbeat is a datagram; a report is a stream of its own; a bi-directional stream says first what it is for: one
//! request, whose response comes back on it, or frames ([`super::frames`]). Nothing a peer sends is believed before it is
//! checked here.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{evidence::Report, placement::MAX_EPOCH};

use super::frames::Topic;

/// The first byte of every message. Agents of different versions do not talk to each other.
pub const VERSION: u8 = 9;
/// A message is at most this long, in bytes.
pub const MAX_MESSAGE: usize = 1 << 20;
/// A report has at most this many instances; as many as always fit into a message.
pub const MAX_INSTANCES: usize = 10_000;
/// Names of sites and resources are at most this long; the configuration's rule.
pub const MAX_NAME: usize = 32;
/// A reason is at most this long, in bytes; longer ones are cut before they are sent.
pub const MAX_REASON: usize = 256;
/// A report names at most this many sites, of each kind.
pub const MAX_SITES: usize = 255;
/// A bi-directional stream says in this many bytes what it is for.
pub const OPENING: usize = 2;
/// A request is at most this long, in bytes.
pub const MAX_REQUEST: usize = 64;
/// A response is at most this long, in bytes.
pub const MAX_RESPONSE: usize = MAX_REASON + 64 + MAX_SITES * (1 + MAX_NAME);

/// An encoded instance without names and reasons: two lengths, two flags and a state, two numbers of up to ten bytes, and
/// two reasons' lengths.
const INSTANCE_OVERHEAD: usize = 2 + 2 + 1 + 2 * 10 + 2 * 2;
/// Version, site, the message's own numbers, the drain, and the sites in contact and those that changes wait for, with their
/// number.
const MESSAGE_OVERHEAD: usize =
    1 + 1 + MAX_NAME + 10 + 10 + 3 + 1 + 2 * 2 + MAX_SITES * (1 + MAX_NAME) + MAX_SITES * (1 + MAX_NAME + 2 * 10);

const _: () = assert!(MESSAGE_OVERHEAD + MAX_INSTANCES * (2 * MAX_NAME + INSTANCE_OVERHEAD) <= MAX_MESSAGE);

/// "I am alive."
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Counts heartbeats on this connection.
    pub sequence: u64,
    /// Number of the newest report sent on this connection; 0 before the first.
    pub report: u64,
    /// The sender's clock, milliseconds since 1970.
    pub clock: i64,
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

/// What a bi-directional stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// One request and its response.
    Request,
    /// Frames both ways about this, for as long as the stream lives.
    Changes,
    /// The same.
    Comparison,
}

/// What one site's agent asks another's to do, because an operator has ordered it there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Take this resource, or make its roles as configured, if its epoch is still this one.
    Take {
        /// The resource.
        resource: String,
        /// Its epoch where the order was given.
        epoch: u64,
        /// Also if it cannot be known that everything is there that its holders have committed.
        force: bool,
        /// Roles shall be as configured; the site need not be the holder then, where several are configured as active.
        as_configured: bool,
    },
    /// Drain your site, or take that back.
    Drain(bool),
    /// This resource is about to be taken by the sender: let no more be written to its tables, and say what was.
    Yield {
        /// The resource.
        resource: String,
    },
    /// This resource is not taken after all: its tables take writes again.
    Resume {
        /// The resource.
        resource: String,
    },
    /// Could a schema change begin at your site?
    BeforeFence,
    /// A schema change is about to be made, after which sites count so many: let no more be written to any table, and say
    /// whether all is applied everywhere.
    Fence(u32),
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// The resource is taken.
    Taken {
        /// In this epoch.
        epoch: u64,
        /// How long that took, from the request's arrival until it was stored.
        stored: Duration,
        /// How long until it was in the site's own answers, from then on.
        published: Duration,
        /// How long it waited before for what the old holder had committed. `None`: there was nobody to wait for.
        caught_up: Option<Duration>,
        /// Old holders that may have committed what is not there yet.
        behind: Vec<String>,
    },
    /// The site held the resource already, in this epoch.
    Holds(u64),
    /// It is drained, or is not any more.
    Drained,
    /// How far the sender's database is, by the sites' numbers: up to which group of each site's changes it has everything.
    /// Nothing is written to the resource's tables after that.
    Yielded(BTreeMap<u32, u64>),
    /// They take writes.
    Resumed,
    /// A schema change could begin.
    BeforeFence {
        /// How often the schema was changed there.
        count: u32,
        /// The count that was agreed on for the schema change that is under way, if one is.
        agreed: Option<u32>,
    },
    /// No more is written to the tables; whether every peer has applied what was.
    Fenced(bool),
    /// It was not done, and why.
    Refused(String),
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
    /// Too many sites.
    #[error("{0} sites, at most {MAX_SITES} may be reported")]
    Sites(usize),
    /// An epoch that no resource reaches.
    #[error("epoch {0}, at most {MAX_EPOCH} is believed")]
    Epoch(u64),
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
        tidy(&mut instance.why, (room / 2).min(MAX_REASON));
        tidy(&mut instance.reason, (room - instance.why.len()).min(MAX_REASON));
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

/// The first bytes of a stream of frames.
pub fn encode_frames(topic: Topic) -> Vec<u8> {
    encode(&match topic {
        Topic::Changes => Purpose::Changes,
        Topic::Comparison => Purpose::Comparison,
    })
}

/// Reads what a stream is for.
///
/// # Errors
/// `Version`, `Malformed`.
pub fn decode_opening(bytes: &[u8]) -> Result<Purpose, MessageError> {
    decode(bytes, "opening of a stream")
}

/// A request's bytes, all that goes on its stream.
///
/// # Errors
/// `Name`, `Epoch`: the peer would refuse it.
pub fn encode_request(request: &Request) -> Result<Vec<u8>, MessageError> {
    check_request(request)?;
    Ok(encode(&(Purpose::Request, request)))
}

/// Reads and checks a request.
///
/// # Errors
/// `TooLong`, `Version`, `Malformed`, `Name`, `Epoch`.
pub fn decode_request(bytes: &[u8]) -> Result<Request, MessageError> {
    if bytes.len() > MAX_REQUEST {
        return Err(MessageError::TooLong);
    }
    match decode(bytes, "request")? {
        (Purpose::Request, request) => check_request(&request).map(|()| request),
        (Purpose::Changes | Purpose::Comparison, _) => Err(MessageError::Malformed("request")),
    }
}

/// A response's bytes. Its reason is cut and cleaned, so that it will be accepted.
pub fn encode_response(mut response: Response) -> Vec<u8> {
    if let Response::Refused(reason) = &mut response {
        tidy(reason, MAX_REASON);
    }
    encode(&response)
}

/// Reads and checks a response.
///
/// # Errors
/// `TooLong`, `Version`, `Malformed`, `Name`, `Epoch`, `Reason`.
pub fn decode_response(bytes: &[u8]) -> Result<Response, MessageError> {
    if bytes.len() > MAX_RESPONSE {
        return Err(MessageError::TooLong);
    }
    let response = decode(bytes, "response")?;
    match &response {
        Response::Taken { behind, .. } if behind.len() > MAX_SITES => return Err(MessageError::Sites(behind.len())),
        Response::Taken { epoch, behind, .. } => {
            check_epoch(*epoch)?;
            behind.iter().try_for_each(|site| check_name(site))?;
        }
        Response::Holds(epoch) => check_epoch(*epoch)?,
        Response::Refused(reason) => check_reason("its refusal", reason)?,
        Response::Yielded(reached) if reached.len() > MAX_SITES => return Err(MessageError::Sites(reached.len())),
        Response::Drained
        | Response::Yielded(_)
        | Response::Resumed
        | Response::BeforeFence { .. }
        | Response::Fenced(_) => {}
    }
    Ok(response)
}

fn check_request(request: &Request) -> Result<(), MessageError> {
    match request {
        Request::Take { resource, epoch, .. } => check_name(resource).and_then(|()| check_epoch(*epoch)),
        Request::Drain(_) | Request::BeforeFence | Request::Fence(_) => Ok(()),
        Request::Yield { resource } | Request::Resume { resource } => check_name(resource),
    }
}

fn check_epoch(epoch: u64) -> Result<(), MessageError> {
    if epoch <= MAX_EPOCH { Ok(()) } else { Err(MessageError::Epoch(epoch)) }
}

fn check_reason(about: &str, reason: &str) -> Result<(), MessageError> {
    let good = reason.len() <= MAX_REASON && !reason.contains(char::is_control);
    if good { Ok(()) } else { Err(MessageError::Reason(about.to_owned())) }
}

/// Bytes that an instance's two reasons may take together.
fn room_for_reasons(instances: usize) -> Result<usize, MessageError> {
    if instances > MAX_INSTANCES {
        return Err(MessageError::Instances(instances));
    }
    let each = (MAX_MESSAGE - MESSAGE_OVERHEAD) / instances.max(1);
    Ok(each - 2 * MAX_NAME - INSTANCE_OVERHEAD)
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
    let Report { contacts, backlogs, instances, .. } = &message.report;
    for sites in [contacts.len(), backlogs.len()] {
        if sites > MAX_SITES {
            return Err(MessageError::Sites(sites));
        }
    }
    contacts.iter().chain(backlogs.keys()).try_for_each(|site| check_name(site))?;
    if instances.len() > MAX_INSTANCES {
        return Err(MessageError::Instances(instances.len()));
    }
    for (resource, instance) in instances {
        check_name(resource)?;
        instance.holder.as_deref().map_or(Ok(()), check_name)?;
        check_reason(resource, &instance.reason)?;
        check_reason(resource, &instance.why)?;
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
