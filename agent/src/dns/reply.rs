//! Writing a reply. Where the XDP program answers too, these bytes are its bytes.

use std::borrow::Cow;

use hickory_proto::op::ResponseCode;

use super::{
    name::Name,
    query::{Edns, Query, Tsig},
    rtype,
};

/// What this server says about itself in OPT (RFC 6891 §6.2.4): a reply of this size is not fragmented anywhere.
pub(super) const PAYLOAD: u16 = 1232;

/// RFC 8914 §4.23.
pub(super) const NO_REACHABLE_AUTHORITY: u16 = 22;

/// RFC 8945 §5.2.1.
const BADKEY: u16 = 17;

const CLASS_IN: u16 = 1;
const CLASS_ANY: u16 = 255;
const EXTENDED_ERROR: u16 = 15;
/// Offsets above this cannot be pointed to (RFC 1035 §4.1.4).
const LAST_TARGET: usize = 0x3fff;
/// Names are compressed against this many earlier labels, so that a long reply costs linear time.
const MAX_TARGETS: usize = 64;

/// A decided reply, not yet written.
#[derive(Debug)]
pub(super) struct Reply<'z> {
    pub rcode: ResponseCode,
    /// AA.
    pub authoritative: bool,
    pub answer: Vec<RrSet<'z>>,
    pub authority: Vec<RrSet<'z>>,
    pub additional: Vec<RrSet<'z>>,
    /// Info-code of RFC 8914, sent if the query had an OPT record.
    pub extended_error: Option<u16>,
}

/// Records of one owner and type.
#[derive(Clone, Debug)]
pub(super) struct RrSet<'z> {
    pub owner: Cow<'z, Name>,
    pub rtype: u16,
    pub ttl: u32,
    /// Uncompressed.
    pub rdata: Vec<Cow<'z, [u8]>>,
}

impl Reply<'_> {
    /// No records: an error, or the start of something.
    pub(super) fn empty(rcode: ResponseCode, authoritative: bool) -> Self {
        Reply {
            rcode,
            authoritative,
            answer: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
            extended_error: None,
        }
    }

    /// The message, or `None` if it is longer than `limit`.
    pub(super) fn write(&self, query: &Query, limit: usize) -> Option<Vec<u8>> {
        let mut writer = Writer::start(query, self, limit);
        let sections = [&self.answer, &self.authority, &self.additional];
        for (index, section) in sections.into_iter().enumerate() {
            for set in section {
                for rdata in &set.rdata {
                    writer.record(set, rdata)?;
                    writer.count(6 + 2 * index);
                }
            }
        }
        if let Some(edns) = query.edns {
            writer.opt(edns, self.rcode.high(), self.extended_error);
        }
        if let (Some(tsig), ResponseCode::NotAuth) = (&query.tsig, self.rcode) {
            writer.bad_key(tsig);
        }
        writer.fits().then_some(writer.bytes)
    }

    /// The same reply without its records; TC tells the client to come again over TCP (RFC 2181 §9).
    pub(super) fn write_truncated(&self, query: &Query, limit: usize) -> Option<Vec<u8>> {
        let mut bytes = Reply::empty(self.rcode, self.authoritative).write(query, limit)?;
        bytes[2] |= 0x02;
        Some(bytes)
    }
}

struct Writer {
    bytes: Vec<u8>,
    limit: usize,
    /// Offsets of labels written so far, that later names may point to.
    targets: Vec<usize>,
}

impl Writer {
    /// Header and question.
    fn start(query: &Query, reply: &Reply, limit: usize) -> Self {
        let question = query.question.as_ref();
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&query.id);
        let aa = u8::from(reply.authoritative) << 2;
        bytes.push(0x80 | (query.opcode << 3) | aa | u8::from(query.rd));
        bytes.push(reply.rcode.low());
        bytes.extend_from_slice(&[0, u8::from(question.is_some()), 0, 0, 0, 0, 0, 0]);
        let mut writer = Writer { bytes, limit, targets: Vec::new() };
        if let Some(question) = question {
            writer.add_targets(question.name.wire());
            writer.bytes.extend_from_slice(question.bytes);
        }
        writer
    }

    fn fits(&self) -> bool {
        self.bytes.len() <= self.limit
    }

    /// Adds one to the section count at `offset`.
    fn count(&mut self, offset: usize) {
        let count = u16::from_be_bytes([self.bytes[offset], self.bytes[offset + 1]]);
        self.put(offset, count.saturating_add(1));
    }

    fn put(&mut self, offset: usize, value: u16) {
        self.bytes[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
    }

    fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    fn record(&mut self, set: &RrSet, rdata: &[u8]) -> Option<()> {
        self.name(set.owner.wire());
        self.u16(set.rtype);
        self.u16(CLASS_IN);
        self.bytes.extend_from_slice(&set.ttl.to_be_bytes());
        let length_at = self.bytes.len();
        self.u16(0);
        self.rdata(set.rtype, rdata);
        let length = u16::try_from(self.bytes.len() - length_at - 2).ok()?;
        self.put(length_at, length);
        self.fits().then_some(())
    }

    /// RDATA, names compressed in the types of RFC 1035 only (RFC 3597 §4).
    fn rdata(&mut self, rtype: u16, rdata: &[u8]) {
        let (before, names) = match rtype {
            rtype::NS | rtype::CNAME | rtype::PTR => (0, 1),
            rtype::MX => (2, 1),
            rtype::SOA => (0, 2),
            _ => (rdata.len(), 0),
        };
        self.bytes.extend_from_slice(&rdata[..before]);
        let mut at = before;
        for _ in 0..names {
            let Some((name, end)) = Name::read(rdata, at) else {
                break;
            };
            self.name(name.wire());
            at = end;
        }
        self.bytes.extend_from_slice(&rdata[at..]);
    }

    /// A name, its longest known suffix replaced by a pointer (RFC 1035 §4.1.4).
    fn name(&mut self, name: &[u8]) {
        let mut at = 0;
        while name[at] != 0 {
            if let Some(target) = self.find(&name[at..]) {
                self.add_labels(&name[..at]);
                // Targets are at most `LAST_TARGET`.
                self.u16(0xc000 | u16::try_from(target).unwrap_or(0));
                return;
            }
            at += 1 + usize::from(name[at]);
        }
        self.add_labels(&name[..at]);
        self.bytes.push(0);
    }

    fn add_labels(&mut self, labels: &[u8]) {
        self.add_targets(labels);
        self.bytes.extend_from_slice(labels);
    }

    /// Remembers the labels that are about to be written at the end.
    fn add_targets(&mut self, labels: &[u8]) {
        let mut at = 0;
        while labels.get(at).is_some_and(|length| *length != 0) {
            let target = self.bytes.len() + at;
            if target <= LAST_TARGET && self.targets.len() < MAX_TARGETS {
                self.targets.push(target);
            }
            at += 1 + usize::from(labels[at]);
        }
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        let target = self.targets.iter().find(|at| self.stands_at(name, **at))?;
        Some(*target)
    }

    /// Whether `name` can be read at `at` in what was written, case ignored (RFC 4343 §4.1).
    fn stands_at(&self, name: &[u8], mut at: usize) -> bool {
        let mut rest = name;
        loop {
            while self.bytes[at] >= 0xc0 {
                at = usize::from(u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]) & 0x3fff);
            }
            let size = 1 + usize::from(self.bytes[at]);
            let written = &self.bytes[at..at + size];
            if rest.len() < size || !rest[..size].eq_ignore_ascii_case(written) {
                return false;
            }
            if size == 1 {
                return true;
            }
            rest = &rest[size..];
            at += size;
        }
    }

    /// The OPT record (RFC 6891 §6.1.2): version 0, DO as in the query (RFC 3225 §3), Z zero.
    fn opt(&mut self, edns: Edns, extended_rcode: u8, extended_error: Option<u16>) {
        self.bytes.push(0);
        self.u16(rtype::OPT);
        self.u16(PAYLOAD);
        let dnssec_ok = u8::from(edns.dnssec_ok) << 7;
        self.bytes.extend_from_slice(&[extended_rcode, 0, dnssec_ok, 0]);
        match extended_error {
            None => self.u16(0),
            Some(code) => [6, EXTENDED_ERROR, 2, code].into_iter().for_each(|field| self.u16(field)),
        }
        self.count(10);
    }

    /// The unsigned TSIG record that says the key is unknown (RFC 8945 §5.3.2). Left out if it does not fit: NOTAUTH
    /// alone still is no success.
    fn bad_key(&mut self, tsig: &Tsig) {
        let Some(key) = &tsig.key else { return };
        let rdata = tsig.algorithm.wire().len() + 16;
        if self.bytes.len() + key.wire().len() + 10 + rdata > self.limit {
            return;
        }
        self.bytes.extend_from_slice(key.wire());
        self.u16(rtype::TSIG);
        self.u16(CLASS_ANY);
        self.bytes.extend_from_slice(&[0; 4]);
        // Two names of at most 255 octets: it cannot overflow.
        self.u16(u16::try_from(rdata).unwrap_or(0));
        self.bytes.extend_from_slice(tsig.algorithm.wire());
        self.bytes.extend_from_slice(&tsig.time);
        self.u16(0);
        self.bytes.extend_from_slice(&tsig.original_id);
        self.u16(BADKEY);
        self.u16(0);
        self.count(10);
    }
}
