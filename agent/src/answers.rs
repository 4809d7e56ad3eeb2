//! The compiled answer table: what placement decided, in the form that both name servers answer from.
//!
//! The agent's server reads it directly and `dataplane` copies it into the program's maps, so that a query gets the
//! same bytes from either.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use hickory_proto::rr::LowerName;

use crate::config::AllDown;

/// At most this many addresses of one family are given in an answer (and fit the map's entry).
pub const MAX_ADDRESSES: usize = 8;

/// Every domain name that belongs to a resource, and the answers they share. Immutable once built; each decision makes
/// a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerTable {
    /// Name to index into `sets`. Shared: only a new configuration changes it.
    pub names: Arc<BTreeMap<LowerName, usize>>,
    /// One per resource, in the configuration's order.
    pub sets: Vec<AnswerSet>,
}

/// The answer for one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerSet {
    /// The resource's name.
    pub resource: String,
    /// Seconds.
    pub ttl: u32,
    /// Ordered: the address a client should try first comes first. At most [`MAX_ADDRESSES`] of each family.
    pub addresses: Vec<IpAddr>,
    /// Which policy applies, when placement found no available site. With [`AllDown::All`] or a fallback list
    /// `addresses` already holds what that policy gives; the other policies leave `addresses` empty and are carried
    /// out by the agent's server.
    pub all_down: Option<AllDown>,
}

impl AnswerTable {
    /// The answers for `name`, if it belongs to a resource.
    pub fn get(&self, name: &LowerName) -> Option<&AnswerSet> {
        self.names.get(name).map(|&index| &self.sets[index])
    }
}

impl AnswerSet {
    /// The A records' addresses, in order.
    pub fn v4(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.addresses.iter().filter_map(|address| match address {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        })
    }

    /// The AAAA records' addresses, in order.
    pub fn v6(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.addresses.iter().filter_map(|address| match address {
            IpAddr::V6(v6) => Some(*v6),
            IpAddr::V4(_) => None,
        })
    }
}
