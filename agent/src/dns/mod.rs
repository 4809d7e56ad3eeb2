//! The agent's authoritative name server: zones from RFC 1035 zone files, and everything the XDP program passes up.
//!
//! A query goes one way: `query` reads it, `lookup` decides from [`Zones`] and the
//! [`AnswerTable`](crate::answers::AnswerTable), `reply` writes the answer. [`respond`] is all three and pure; [`Server`]
//! puts sockets around it.

mod lookup;
mod name;
mod outcome;
mod query;
mod reply;
mod respond;
mod server;
mod zone;

pub use name::Name;
pub use outcome::{Counters, Outcome};
pub use respond::{Response, Transport, UDP_PAYLOAD, respond};
pub use server::{BindError, Limits, Server, State};
pub use zone::{ZoneError, ZoneWarning, Zones};

/// Numbers of the record types and pseudo-types that are treated specially (RFC 1035 §3.2.2 and IANA's registry).
mod rtype {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const HINFO: u16 = 13;
    pub const MX: u16 = 15;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const NAPTR: u16 = 35;
    pub const DNAME: u16 = 39;
    pub const OPT: u16 = 41;
    pub const DS: u16 = 43;
    pub const SSHFP: u16 = 44;
    pub const TLSA: u16 = 52;
    pub const SMIMEA: u16 = 53;
    pub const TKEY: u16 = 249;
    pub const TSIG: u16 = 250;
    pub const IXFR: u16 = 251;
    pub const AXFR: u16 = 252;
    pub const MAILB: u16 = 253;
    pub const MAILA: u16 = 254;
    pub const ANY: u16 = 255;
    pub const CAA: u16 = 257;
}
