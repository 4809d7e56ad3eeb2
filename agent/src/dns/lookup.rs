//! The answer to a question that parses: RFC 1034 §4.3.2 with the resources' names in the zones' trees.

use std::{
    borrow::Cow,
    net::{Ipv4Addr, Ipv6Addr},
};

use hickory_proto::op::ResponseCode;

use super::{
    name::{Key, Name},
    reply::{NO_REACHABLE_AUTHORITY, Reply, RrSet},
    rtype,
    zone::{Found, Node, Zone, Zones},
};
use crate::{
    answers::{AnswerSet, AnswerTable, MAX_ADDRESSES},
    config::AllDown,
};

/// CNAME records followed for one query; the client goes on from the last.
const MAX_CHAIN: usize = 8;

/// TTL of the HINFO record that answers QTYPE ANY (RFC 8482 §4.2), seconds.
const ANY_TTL: u32 = 3600;

/// Answers `name` and `qtype` in class IN.
pub(super) fn resolve<'z>(name: &Name, qtype: u16, zones: &'z Zones, table: &'z AnswerTable) -> Reply<'z> {
    let key = name.key();
    let Some(zone) = zones.find(&key, qtype) else {
        return Reply::empty(ResponseCode::Refused, false);
    };
    let mut lookup = Lookup { zone, table, qtype, reply: Reply::empty(ResponseCode::NoError, true) };
    let mut owner = Cow::Owned(name.clone());
    let mut seen = vec![key];
    while let Some(target) = lookup.step(owner, &seen[seen.len() - 1]) {
        let key = target.key();
        if !zone.holds(&key) || seen.contains(&key) || seen.len() > MAX_CHAIN {
            break;
        }
        seen.push(key);
        owner = Cow::Owned(target);
    }
    lookup.reply
}

struct Lookup<'z> {
    zone: &'z Zone,
    table: &'z AnswerTable,
    qtype: u16,
    reply: Reply<'z>,
}

impl<'z> Lookup<'z> {
    /// Adds what the zone says about one name. Gives the next name if that was an alias.
    fn step(&mut self, owner: Cow<'z, Name>, key: &Key) -> Option<Name> {
        match self.zone.find(key) {
            // RFC 4035 §3.1.4.1: DS belongs to the parent.
            Found::Cut(cut, node) if self.qtype != rtype::DS || cut != key => {
                self.refer(node);
                None
            }
            Found::Cut(_, node) | Found::Node(node) => self.answer(owner, node),
            Found::EmptyNonTerminal => self.negative(ResponseCode::NoError),
            Found::Nothing => self.negative(ResponseCode::NXDomain),
        }
    }

    fn answer(&mut self, owner: Cow<'z, Name>, node: &'z Node) -> Option<Name> {
        if let Some(cname) = node.set(owner.clone(), rtype::CNAME) {
            let follow = !matches!(self.qtype, rtype::CNAME | rtype::ANY);
            let target = Name::read(&cname.rdata[0], 0).map(|(name, _)| name);
            self.reply.answer.push(cname);
            return target.filter(|_| follow);
        }
        match (self.qtype, &node.resource) {
            (rtype::ANY, _) => {
                self.reply.answer.push(minimal_any(owner));
                return None;
            }
            (rtype::A | rtype::AAAA, Some(resource)) => {
                return match self.table.get(resource) {
                    Some(set) => self.addresses(owner, set),
                    None => self.fail(),
                };
            }
            _ => {}
        }
        match node.set(owner, self.qtype) {
            Some(set) => {
                self.reply.answer.push(set);
                None
            }
            None => self.negative(ResponseCode::NoError),
        }
    }

    /// A resource's addresses in the table's order, or its `all_down` policy.
    fn addresses(&mut self, owner: Cow<'z, Name>, set: &AnswerSet) -> Option<Name> {
        if set.all_down == Some(AllDown::ServFail) {
            return self.fail();
        }
        let rdata: Vec<Cow<[u8]>> = if self.qtype == rtype::A {
            let octets = |address: Ipv4Addr| address.octets().to_vec().into();
            set.v4().take(MAX_ADDRESSES).map(octets).collect()
        } else {
            let octets = |address: Ipv6Addr| address.octets().to_vec().into();
            set.v6().take(MAX_ADDRESSES).map(octets).collect()
        };
        if rdata.is_empty() {
            return self.negative(ResponseCode::NoError);
        }
        self.reply.answer.push(RrSet { owner, rtype: self.qtype, ttl: set.ttl, rdata });
        None
    }

    /// RFC 2308 §2: the SOA says for how long there is nothing. After an alias the RCODE is that of the last name
    /// (RFC 6604 §3).
    fn negative(&mut self, rcode: ResponseCode) -> Option<Name> {
        self.reply.rcode = rcode;
        self.reply.authority.push(self.zone.negative_soa());
        None
    }

    /// SERVFAIL, so that resolvers ask another server, and why (RFC 8914 §4.23).
    fn fail(&mut self) -> Option<Name> {
        self.reply = Reply::empty(ResponseCode::ServFail, false);
        self.reply.extended_error = Some(NO_REACHABLE_AUTHORITY);
        None
    }

    /// RFC 1034 §4.3.2 step 3b: the delegation's name servers and their glue.
    fn refer(&mut self, cut: &'z Node) {
        // AA is about the first owner name in the answer section (RFC 1035 §4.1.1).
        self.reply.authoritative = !self.reply.answer.is_empty();
        let Some(servers) = cut.set(Cow::Borrowed(&cut.name), rtype::NS) else {
            return;
        };
        for rdata in &servers.rdata {
            let Some((server, _)) = Name::read(rdata, 0) else {
                continue;
            };
            let Some(glue) = self.zone.glue(&server.key()) else {
                continue;
            };
            for rtype in [rtype::A, rtype::AAAA] {
                let owner = Cow::Owned(server.clone());
                self.reply.additional.extend(glue.set(owner, rtype));
            }
        }
        self.reply.authority.push(servers);
    }
}

fn minimal_any(owner: Cow<Name>) -> RrSet {
    RrSet { owner, rtype: rtype::HINFO, ttl: ANY_TTL, rdata: vec![Cow::Borrowed(b"\x07RFC8482\0")] }
}
