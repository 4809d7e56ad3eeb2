//! The reply to a query: its size and checksum, and writing it.
#![expect(clippy::cast_possible_truncation, reason = "fields are cut out of wider words")]

use crate::{
    answers::{CLASS_IN, Kind, OWNER},
    checksum::Sum,
    maps::{AnswerSet, MAX_ADDRESSES},
    network::{Datagram, Network},
    outcome::Outcome,
    packet::{Packet, Word},
    query::{OPT, Query, TYPE_OPT},
};

/// What replies say about how much the agent's server takes (RFC 9715 appendix A).
const PAYLOAD_SIZE: u16 = 1232;
/// DNSSEC OK, the only flag of an OPT record that is copied (RFC 3225 section 3).
const DO: u16 = 0x8000;
const QR_AA: u16 = 0x8400;
const RD: u16 = 0x0100;

/// A reply, ready to be written.
pub struct Reply<'a, N> {
    datagram: Datagram<N>,
    query: Query,
    set: &'a AnswerSet,
    kind: Kind,
    has_opt: bool,
    count: usize,
    end: usize,
}

impl<'a, N: Network> Reply<'a, N> {
    /// The reply to the query in `packet`: the set's addresses of the family asked for.
    #[inline(always)]
    pub fn new(packet: &impl Packet, datagram: Datagram<N>, query: Query, set: &'a AnswerSet) -> Result<Self, Outcome> {
        let kind = query.kind(packet)?;
        let has_opt = query.has_opt(packet)?;
        let count = match kind {
            Kind::A => set.v4_count,
            Kind::Aaaa => set.v6_count,
        };
        let count = usize::from(count).min(MAX_ADDRESSES);
        if count == 0 {
            return Err(Outcome::NoAddress);
        }
        let opt = if has_opt { OPT } else { 0 };
        let end = query.question_end + count * kind.record_bytes() + opt;
        Ok(Self { datagram, query, set, kind, has_opt, count, end })
    }

    /// Makes the query's frame the reply's. Once it has its size, nothing can fail.
    #[inline(always)]
    pub fn write(&self, packet: &mut impl Packet) -> Outcome {
        let query_end = self.datagram.start + self.datagram.length;
        let Some(old) = packet.reshape(query_end, self.end) else {
            return Outcome::NoRoom;
        };
        let written = self.write_headers(packet, old).and_then(|()| self.write_records(packet));
        match (written, self.kind) {
            (None, _) => Outcome::Fault,
            (Some(()), Kind::A) => Outcome::AnsweredA,
            (Some(()), Kind::Aaaa) => Outcome::AnsweredAaaa,
        }
    }

    /// The query's checksum, updated by every word that differs in the reply (RFC 1624). Never computed anew: so a
    /// query that was damaged on its way, which nobody has checked yet, gets a reply whose checksum is wrong by the
    /// same amount, and the client discards it.
    #[inline(always)]
    fn checksum(&self, query: u16, old_flags: u16, new_flags: u16) -> u16 {
        let old_length = self.datagram.length as u32;
        let new_length = self.length() as u32;
        let answers = match self.kind {
            Kind::A => self.set.v4_sum,
            Kind::Aaaa => self.set.v6_sum,
        };
        let answers = Sum::ZERO.add(answers.into());
        let answers_start = self.query.question_end - self.datagram.start;
        // The length counts twice: in the UDP header and in the pseudo header (RFC 768, RFC 8200 section 8.1).
        let sum = Sum::behind(query)
            .subtract(2 * old_length)
            .add(2 * new_length)
            .subtract(old_flags.into())
            .add(new_flags.into())
            .add(self.count as u32)
            .add_part(answers, answers_start);
        if !self.has_opt {
            return sum.udp_checksum();
        }
        // Answers have even lengths, so the OPT record's fields stay in the halves of the words that they were in.
        let new = u32::from(TYPE_OPT) + u32::from(PAYLOAD_SIZE) + u32::from(self.opt_flags());
        sum.add_part(self.query.opt.removal.add(new), answers_start + 1).udp_checksum()
    }

    #[inline(always)]
    fn opt_flags(&self) -> u16 {
        self.query.opt.flags & DO
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.end - self.datagram.start
    }

    /// Everything up to the question, from the front, so that what the query left is read before it is written over.
    #[inline(always)]
    fn write_headers<P: Packet>(&self, packet: &mut P, old: P::Old) -> Option<()> {
        let query = &self.query;
        let first: u32 = packet.load_old(old, query.start)?;
        let old_flags = first as u16;
        // RD is copied, AA and QR are set, all else is clear (RFC 1035 section 4.1.1, RFC 6840 section 5.7).
        let flags = QR_AA | old_flags & RD;
        let checksum = match self.datagram.checksum(packet, old)? {
            // A client that sends none gets none: nobody has checked what a new one would vouch for (RFC 768).
            0 => 0,
            checksum => self.checksum(checksum, old_flags, flags),
        };
        self.datagram.reply(packet, old, self.length(), checksum)?;
        query.name.copy(packet, old)?;
        let question = u32::from(self.kind.code()) << 16 | u32::from(CLASS_IN);
        packet.store(query.name.start + query.name.length, question)?;
        let first = first & 0xffff_0000 | u32::from(flags);
        let counts = 1 << 16 | self.count as u32;
        packet.store(query.start, [first, counts, u32::from(self.has_opt)])
    }

    #[inline(always)]
    fn write_records(&self, packet: &mut impl Packet) -> Option<()> {
        let kind = self.kind;
        let ttl = self.set.ttl;
        let a = u32::from(OWNER) << 16 | u32::from(kind.code());
        let b = u32::from(CLASS_IN) << 16 | ttl >> 16;
        let c = ttl << 16 | u32::from(kind.address_bytes());
        let mut offset = self.query.question_end;
        for index in 0..MAX_ADDRESSES {
            if index >= self.count {
                break;
            }
            match kind {
                Kind::A => {
                    // SAFETY: four bytes.
                    let address = unsafe { u32::read(self.set.v4[index].as_ptr()) };
                    packet.store(offset, [a, b, c, address])?;
                }
                Kind::Aaaa => {
                    // SAFETY: sixteen bytes.
                    let [d, e, f, g] = unsafe { <[u32; 4]>::read(self.set.v6[index].as_ptr()) };
                    packet.store(offset, [a, b, c, d, e, f, g])?;
                }
            }
            offset += kind.record_bytes();
        }
        if self.has_opt {
            self.write_opt(packet, offset)?;
        }
        Some(())
    }

    /// Owner, type, payload size, then zeros but for the flags, the upper byte of which is written twice.
    #[inline(always)]
    fn write_opt(&self, packet: &mut impl Packet, offset: usize) -> Option<()> {
        let flags = self.opt_flags();
        let head = u64::from(TYPE_OPT) << 40 | u64::from(PAYLOAD_SIZE) << 24 | u64::from(flags >> 8);
        packet.store(offset, head)?;
        packet.store(offset + 7, u32::from(flags) << 16)
    }
}
