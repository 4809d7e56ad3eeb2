//! The reply to a query: its size and checksum, and writing it.
#![expect(clippy::cast_possible_truncation, reason = "fields are cut out of wider words")]

use core::marker::PhantomData;

use crate::{
    answers::{CLASS_IN, Kind, OWNER},
    checksum::Sum,
    maps::{AnswerSet, MAX_ADDRESSES},
    network::{Datagram, Network},
    outcome::Outcome,
    packet::{Le, Packet, Word},
    query::{OPT, PAYLOAD_SIZE, Query, TYPE_OPT},
};

const QR_AA: u16 = 0x8400;
const RD: u16 = 0x0100;

/// The records of an answer: addresses of one family.
pub trait Records {
    const KIND: Kind;
    const ANSWERED: Outcome;

    /// An address on the wire.
    type Address: Word;

    /// How many there are.
    fn count(set: &AnswerSet) -> u8;

    /// Their sum, see [`AnswerSet::v4_sum`].
    fn sum(set: &AnswerSet) -> u16;

    fn address(set: &AnswerSet, index: usize) -> Self::Address;
}

/// IPv4 addresses.
pub struct A;

/// IPv6 addresses.
pub struct Aaaa;

impl Records for A {
    const KIND: Kind = Kind::A;
    const ANSWERED: Outcome = Outcome::AnsweredA;
    type Address = Le<u32>;

    #[inline(always)]
    fn count(set: &AnswerSet) -> u8 {
        set.v4_count
    }

    #[inline(always)]
    fn sum(set: &AnswerSet) -> u16 {
        set.v4_sum
    }

    #[inline(always)]
    fn address(set: &AnswerSet, index: usize) -> Le<u32> {
        // SAFETY: four bytes.
        unsafe { Le::<u32>::read(set.v4[index].as_ptr()) }
    }
}

impl Records for Aaaa {
    const KIND: Kind = Kind::Aaaa;
    const ANSWERED: Outcome = Outcome::AnsweredAaaa;
    type Address = [Le<u64>; 2];

    #[inline(always)]
    fn count(set: &AnswerSet) -> u8 {
        set.v6_count
    }

    #[inline(always)]
    fn sum(set: &AnswerSet) -> u16 {
        set.v6_sum
    }

    #[inline(always)]
    fn address(set: &AnswerSet, index: usize) -> [Le<u64>; 2] {
        // SAFETY: sixteen bytes.
        unsafe { <[Le<u64>; 2]>::read(set.v6[index].as_ptr()) }
    }
}

/// A reply, ready to be written.
pub struct Reply<'a, N, R> {
    datagram: Datagram<N>,
    query: Query,
    set: &'a AnswerSet,
    end: usize,
    records: PhantomData<R>,
}

impl<'a, N: Network, R: Records> Reply<'a, N, R> {
    /// The reply to a query for the set's addresses.
    #[inline(always)]
    pub fn new(datagram: Datagram<N>, query: Query, set: &'a AnswerSet) -> Self {
        let opt = if query.opt.length == 0 { 0 } else { OPT };
        let end = query.question_end() + usize::from(R::count(set)) * R::KIND.record_bytes() + opt;
        Self { datagram, query, set, end, records: PhantomData }
    }

    /// Makes the query's frame the reply's. Once it has its size, nothing can fail.
    #[inline(always)]
    pub fn write(&self, packet: &mut impl Packet) -> Outcome {
        let query_end = self.datagram.start + self.datagram.length;
        let Some(old) = packet.reshape(query_end, self.end) else {
            return Outcome::NoRoom;
        };
        match self.write_headers(packet, old).and_then(|()| self.write_records(packet)) {
            None => Outcome::Fault,
            Some(()) => R::ANSWERED,
        }
    }

    /// The query's checksum, updated by every word that differs in the reply (RFC 1624). Never computed anew: so a
    /// query that was damaged on its way, which nobody has checked yet, gets a reply whose checksum is wrong by the
    /// same amount, and the client discards it.
    #[inline(always)]
    fn checksum(&self, query: u16, old_flags: u16, new_flags: u16) -> u16 {
        let longer = self.end - self.datagram.start - self.datagram.length;
        let answers = Sum::ZERO.add(R::sum(self.set).into());
        let answers_start = self.query.question_end() - self.datagram.start;
        // The length counts twice: in the UDP header and in the pseudo header (RFC 768, RFC 8200 section 8.1). Answers
        // have even lengths, so the OPT record's fields stay in the halves of the words that they were in.
        Sum::behind(query)
            .add(2 * longer as u32)
            .subtract(old_flags)
            .add(new_flags.into())
            .add(R::count(self.set).into())
            .add_part(answers, answers_start)
            .add_part(self.query.opt.change, answers_start + 1)
            .udp_checksum()
    }

    /// Everything before the question. What the query left is read before it is written over.
    #[inline(always)]
    fn write_headers<P: Packet>(&self, packet: &mut P, old: P::Place) -> Option<()> {
        let name = &self.query.name;
        let heard = self.datagram.heard(packet, old)?;
        let old_flags = heard.dns as u16;
        // RD is copied, AA and QR are set, all else is clear (RFC 1035 section 4.1.1, RFC 6840 section 5.7).
        let flags = QR_AA | old_flags & RD;
        let checksum = match heard.checksum {
            // A client that sends none gets none: nobody has checked what a new one would vouch for (RFC 768).
            0 => 0,
            checksum => self.checksum(checksum, old_flags, flags),
        };
        let first = heard.dns & 0xffff_0000 | u32::from(flags);
        let counts = 1 << 48 | u64::from(R::count(self.set)) << 32 | u64::from(self.query.opt.length != 0);
        name.copy(packet, old)?;
        // Last, because a short name is written with some bytes before it.
        self.datagram.reply(packet, heard, self.end - self.datagram.start, checksum, (first, counts))
    }

    /// The question's end and what follows.
    #[inline(always)]
    fn write_records(&self, packet: &mut impl Packet) -> Option<()> {
        let (code, ttl) = (R::KIND.code(), u64::from(self.set.ttl));
        let mut place = packet.place(self.query.name.end());
        packet.put(&mut place, u32::from(code) << 16 | u32::from(CLASS_IN))?;
        let first = u64::from(OWNER) << 48 | u64::from(code) << 32 | u64::from(CLASS_IN) << 16 | ttl >> 16;
        let second = (ttl << 16) as u32 | u32::from(R::KIND.address_bytes());
        for index in 0..MAX_ADDRESSES {
            if index >= usize::from(R::count(self.set)) {
                break;
            }
            packet.put(&mut place, (first, second, R::address(self.set, index)))?;
        }
        if self.query.opt.length != 0 {
            // Owner, type, payload size, and zeros but for the flags.
            let flags = self.query.opt.flags;
            let head = u64::from(TYPE_OPT) << 40 | u64::from(PAYLOAD_SIZE) << 24 | u64::from(flags >> 8);
            packet.put(&mut place, (head, flags as u8, 0_u16))?;
        }
        Some(())
    }
}
