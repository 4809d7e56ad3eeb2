//! One query in, one reply out, and nothing else: no clock, no I/O.

use hickory_proto::op::ResponseCode;

use super::{
    lookup,
    outcome::Outcome,
    query::Query,
    reply::{PAYLOAD, Reply},
    rtype,
    zone::Zones,
};
use crate::answers::AnswerTable;

/// The largest reply over UDP, octets, whatever the client offers: larger ones may be fragmented (RFC 9715).
pub const UDP_PAYLOAD: u16 = PAYLOAD;

/// The largest reply over UDP to a client that offers nothing (RFC 1035 §4.2.1).
const UDP_PLAIN: u16 = 512;

const CLASS_IN: u16 = 1;

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One datagram: replies are bounded by 512 octets or what the client offers, at most [`UDP_PAYLOAD`].
    Udp,
    /// A message of a stream, without its length field.
    Tcp,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Its kind.
    pub outcome: Outcome,
    /// The message.
    pub bytes: Vec<u8>,
}

/// Answers one query. `None` is silence: the message is shorter than a header or is itself a response.
pub fn respond(query: &[u8], transport: Transport, zones: &Zones, table: &AnswerTable) -> Option<Response> {
    let query = Query::read(query)?;
    let reply = decide(&query, zones, table);
    let limit = limit(&query, transport);
    if let Some(bytes) = reply.write(&query, limit) {
        let outcome = outcome(&reply);
        return Some(Response { outcome, bytes });
    }
    let (outcome, bytes) = match transport {
        Transport::Udp => (Outcome::Truncated, reply.write_truncated(&query, limit)?),
        // There is no larger transport to send the client to.
        Transport::Tcp => {
            let failure = Reply::empty(ResponseCode::ServFail, false);
            (Outcome::ServFail, failure.write(&query, limit)?)
        }
    };
    Some(Response { outcome, bytes })
}

fn limit(query: &Query, transport: Transport) -> usize {
    usize::from(match (transport, query.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, None) => UDP_PLAIN,
        (Transport::Udp, Some(edns)) => edns.payload.clamp(UDP_PLAIN, UDP_PAYLOAD),
    })
}

/// What is refused or wrong before any zone is looked at, in the order in which it is found out.
fn decide<'z>(query: &Query, zones: &'z Zones, table: &'z AnswerTable) -> Reply<'z> {
    let error = |rcode| Reply::empty(rcode, false);
    if query.opcode != 0 {
        return error(ResponseCode::NotImp);
    }
    let Some(question) = query.question.as_ref().filter(|_| !query.malformed) else {
        return error(ResponseCode::FormErr);
    };
    if query.edns.is_some_and(|edns| edns.version > 0) {
        return error(ResponseCode::BADVERS);
    }
    if query.tsig.is_some() {
        return error(ResponseCode::NotAuth);
    }
    if question.qclass != CLASS_IN {
        return error(ResponseCode::Refused);
    }
    match question.qtype {
        0 | rtype::OPT => error(ResponseCode::FormErr),
        rtype::TKEY | rtype::TSIG | rtype::MAILA | rtype::MAILB => error(ResponseCode::NotImp),
        rtype::AXFR | rtype::IXFR => error(ResponseCode::Refused),
        qtype => lookup::resolve(&question.name, qtype, zones, table),
    }
}

fn outcome(reply: &Reply) -> Outcome {
    match reply.rcode {
        ResponseCode::NoError if !reply.answer.is_empty() => Outcome::Answer,
        ResponseCode::NoError if !reply.authoritative => Outcome::Referral,
        ResponseCode::NoError => Outcome::NoData,
        ResponseCode::NXDomain => Outcome::NxDomain,
        ResponseCode::Refused => Outcome::Refused,
        ResponseCode::FormErr => Outcome::FormErr,
        ResponseCode::NotImp => Outcome::NotImp,
        ResponseCode::BADVERS => Outcome::BadVers,
        ResponseCode::NotAuth => Outcome::NotAuth,
        _ => Outcome::ServFail,
    }
}
