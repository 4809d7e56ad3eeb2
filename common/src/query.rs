//! A DNS query (RFC 1035 section 4) of the plain kind that the program answers.
#![expect(clippy::cast_possible_truncation, reason = "fields are cut out of wider words")]

use crate::{
    answers::{CLASS_IN, Kind},
    checksum::Sum,
    maps::NAME_BYTES,
    name::Name,
    network::MOST_BEFORE,
    outcome::Outcome,
    packet::{Le, MOST_FORGOTTEN, Packet},
};

/// Bytes of a DNS header.
pub const HEADER: usize = 12;
/// Bytes of an OPT record without options.
pub const OPT: usize = 11;
/// The type of an OPT record (RFC 6891 section 6.1.1).
pub const TYPE_OPT: u16 = 41;

/// What replies say about how much the agent's server takes (RFC 9715 appendix A).
pub const PAYLOAD_SIZE: u16 = 1232;

/// DNSSEC OK, the only flag of an OPT record that is copied (RFC 3225 section 3).
const DO: u16 = 0x8000;
const QR: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const ONE_QUESTION: u64 = 1 << 48;
const ONE_QUESTION_ONE_ADDITIONAL: u64 = 1 << 48 | 1;
/// One COOKIE option of a client that has no server cookie yet (RFC 7873 section 4): code 10, length 8.
const CLIENT_COOKIE: u32 = 10 << 16 | 8;
/// Bytes of that option.
const COOKIE: usize = 12;
/// Bytes of a question's type and class.
const QUESTION: usize = 4;
/// Bytes before a name's end that are read with it.
const TAIL: usize = 8;
/// Bytes of the shortest query: for the root.
const SHORTEST: usize = HEADER + 1 + QUESTION;
/// Bytes of the longest one that is answered. The verifier needs a limit, too, to follow offsets into the packet.
const LONGEST: usize = HEADER + NAME_BYTES + QUESTION + OPT + COOKIE;
const _: () = assert!(MOST_BEFORE + LONGEST <= MOST_FORGOTTEN);

/// A query for addresses.
pub struct Query {
    /// Offset of the DNS header.
    pub start: usize,
    /// The question's name.
    pub name: Name,
    /// The question's type.
    pub kind: Kind,
    /// Its OPT record.
    pub opt: Opt,
}

/// The OPT record of a query (RFC 6891 section 6.1), and of the reply to it.
#[derive(Clone, Copy)]
pub struct Opt {
    /// Bytes in the query; none, if there is none.
    pub length: usize,
    /// The reply's flags.
    pub flags: u16,
    /// The reply's fields and options behind the owner minus the query's, as if starting at an even offset.
    pub change: Sum,
}

impl Query {
    /// Reads the message in `start..end`, which must be all of it.
    ///
    /// From its end: an OPT record, type and class have known sizes there, so what is left before them is the name.
    #[inline(always)]
    pub fn parse(packet: &mut impl Packet, start: usize, end: usize) -> Result<Self, Outcome> {
        if end < start + SHORTEST {
            return Err(Outcome::ShortQuery);
        }
        if end > start + LONGEST {
            return Err(Outcome::NameLong);
        }
        let header = packet.load(start).ok_or(Outcome::ShortQuery)?;
        let opt = match check_header(header)? {
            false => Opt::NONE,
            true => Opt::parse(packet, start, end)?,
        };
        // Not negative: the header is longer.
        let tail_start = packet.forget(end - opt.length - QUESTION - TAIL);
        let (Le(tail), question) = packet.load(tail_start).ok_or(Outcome::ShortQuery)?;
        let kind = kind(question)?;
        let name = start + HEADER;
        let length = (tail_start + TAIL).wrapping_sub(name);
        if length == 0 || length > NAME_BYTES {
            return Err(Outcome::NameLong);
        }
        Ok(Self { start, name: Name::new(name, length, tail), kind, opt })
    }

    /// Offset behind the question.
    #[inline(always)]
    pub fn question_end(&self) -> usize {
        self.name.end() + QUESTION
    }
}

/// Whether an additional record follows the question.
#[inline(always)]
fn check_header((first, counts): (u32, u64)) -> Result<bool, Outcome> {
    let flags = first as u16;
    if flags & (QR | OPCODE) != 0 {
        return Err(if flags & QR != 0 { Outcome::Response } else { Outcome::Opcode });
    }
    match counts {
        ONE_QUESTION => Ok(false),
        ONE_QUESTION_ONE_ADDITIONAL => Ok(true),
        _ => Err(Outcome::Counts),
    }
}

#[inline(always)]
fn kind(question: u32) -> Result<Kind, Outcome> {
    const A: u32 = 1 << 16 | CLASS_IN as u32;
    const AAAA: u32 = 28 << 16 | CLASS_IN as u32;
    match question {
        A => Ok(Kind::A),
        AAAA => Ok(Kind::Aaaa),
        _ if question as u16 != CLASS_IN => Err(Outcome::Class),
        _ => Err(Outcome::Type),
    }
}

impl Opt {
    const NONE: Self = Self { length: 0, flags: 0, change: Sum::ZERO };

    /// Reads the record that the message in `start..end` ends with.
    #[inline(always)]
    fn parse(packet: &mut impl Packet, start: usize, end: usize) -> Result<Self, Outcome> {
        let offset = packet.forget(end - OPT);
        let words = Self::load(packet, offset)?;
        if is_opt(words, 0) {
            return Self::new(words, OPT, Sum::ZERO);
        }
        let length = OPT + COOKIE;
        if end < start + SHORTEST + length {
            return Err(Outcome::Additional);
        }
        let offset = packet.forget(end - length);
        let words = Self::load(packet, offset)?;
        let (option, first, second) = packet.load(offset + OPT).ok_or(Outcome::ShortQuery)?;
        if !is_opt(words, COOKIE as u32) || option != CLIENT_COOKIE {
            return Err(Outcome::Additional);
        }
        let removal = Sum::ZERO.subtract(COOKIE as u16).subtract_two(option).subtract_two(first).subtract_two(second);
        Self::new(words, length, removal)
    }

    /// Owner, type, payload size, extended RCODE, version, upper flags; then both bytes of flags, and RDLENGTH.
    #[inline(always)]
    fn load(packet: &impl Packet, offset: usize) -> Result<(u64, u32), Outcome> {
        let tail = packet.load(offset + OPT - 4).ok_or(Outcome::ShortQuery)?;
        let head = packet.load(offset).ok_or(Outcome::ShortQuery)?;
        Ok((head, tail))
    }

    #[inline(always)]
    fn new((head, tail): (u64, u32), length: usize, removal: Sum) -> Result<Self, Outcome> {
        if head >> 8 & 0xff != 0 {
            return Err(Outcome::EdnsVersion);
        }
        let (payload, rcode, flags) = ((head >> 24) as u16, (head >> 8) as u16, (tail >> 16) as u16);
        let change = removal.subtract(payload).subtract(rcode).subtract(flags);
        let flags = flags & DO;
        Ok(Self { length, flags, change: change.add(PAYLOAD_SIZE.into()).add(flags.into()) })
    }
}

/// Whether it is an OPT record of the root with that many bytes of options.
#[inline(always)]
fn is_opt((head, tail): (u64, u32), options: u32) -> bool {
    head >> 40 == u64::from(TYPE_OPT) && tail & 0xffff == options
}
