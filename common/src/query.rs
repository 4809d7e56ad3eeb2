//! A DNS query (RFC 1035 section 4) of the plain kind that the program answers.
#![expect(clippy::cast_possible_truncation, reason = "fields are cut out of wider words")]

use core::hint::black_box;

use crate::{
    answers::{CLASS_IN, Kind},
    checksum::Sum,
    maps::NAME_BYTES,
    name::Name,
    outcome::Outcome,
    packet::Packet,
};

/// Bytes of a DNS header.
pub const HEADER: usize = 12;
/// Bytes of an OPT record without options.
pub const OPT: usize = 11;
/// The type of an OPT record (RFC 6891 section 6.1.1).
pub const TYPE_OPT: u16 = 41;

const QR: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const ONE_QUESTION: u32 = 1 << 16;
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

/// A query for addresses.
///
/// Its type, and whether it has an OPT record, are not in here but read again when they are needed: the verifier follows
/// every value that has been compared with a constant apart, through all that comes after.
pub struct Query {
    /// Offset of the DNS header.
    pub start: usize,
    /// Offset behind the question.
    pub question_end: usize,
    /// The question's name.
    pub name: Name,
    /// Its OPT record; zeros if there is none.
    pub opt: Opt,
}

/// The OPT record of a query (RFC 6891 section 6.1).
#[derive(Clone, Copy)]
pub struct Opt {
    /// Its flags, DO in the highest bit.
    pub flags: u16,
    /// What takes its fields and options behind the owner away from a sum, as if starting at an even offset.
    pub removal: Sum,
}

impl Query {
    /// Reads the message in `start..end`, which must be all of it.
    ///
    /// From its end: an OPT record, type and class have known sizes there, so what is left before them is the name.
    #[inline(always)]
    pub fn parse(packet: &impl Packet, start: usize, end: usize) -> Result<Self, Outcome> {
        if end < start + SHORTEST {
            return Err(Outcome::ShortQuery);
        }
        if end > start + LONGEST {
            return Err(Outcome::NameLong);
        }
        let header: [u32; 3] = packet.load(start).ok_or(Outcome::ShortQuery)?;
        let (ending, opt) = match check_header(header)? {
            false => (Ending::parse(packet, end, QUESTION)?, Opt::NONE),
            true => Opt::parse(packet, end)?,
        };
        kind(ending.question)?;
        let name = start + HEADER;
        // Not negative: an ending is at least as long as it says, and there is room for it behind the header.
        let length = ending.name_end.wrapping_sub(name);
        if length == 0 || length > NAME_BYTES {
            return Err(Outcome::NameLong);
        }
        Ok(Self { start, question_end: ending.name_end + QUESTION, name: Name::new(name, length, ending.tail), opt })
    }

    /// The question's type.
    #[inline(always)]
    pub fn kind(&self, packet: &impl Packet) -> Result<Kind, Outcome> {
        let question = packet.load(self.question_end - QUESTION);
        kind(question.ok_or(Outcome::ShortQuery)?)
    }

    /// Whether it has an OPT record.
    #[inline(always)]
    pub fn has_opt(&self, packet: &impl Packet) -> Result<bool, Outcome> {
        let additional: u8 = packet.load(self.start + HEADER - 1).ok_or(Outcome::ShortQuery)?;
        Ok(additional != 0)
    }
}

/// How a question ends.
struct Ending {
    /// Offset behind its name.
    name_end: usize,
    /// The eight bytes before that.
    tail: u64,
    /// Type and class.
    question: u32,
}

impl Ending {
    /// Reads the end of the question whose type and class are in the first of the message's last `length` bytes.
    #[inline(always)]
    fn parse(packet: &impl Packet, end: usize, length: usize) -> Result<Self, Outcome> {
        let name_end = end - length;
        // In a black box, because the verifier refuses the negative offsets from `end` that LLVM would make of it.
        let offset = black_box(name_end - TAIL);
        let tail = packet.load(offset).ok_or(Outcome::ShortQuery)?;
        let question = packet.load(offset + TAIL).ok_or(Outcome::ShortQuery)?;
        Ok(Self { name_end: offset + TAIL, tail, question })
    }

    /// Offset behind the question.
    #[inline(always)]
    fn question_end(&self) -> usize {
        self.name_end + QUESTION
    }
}

/// Whether an additional record follows the question.
#[inline(always)]
fn check_header([first, counts, more_counts]: [u32; 3]) -> Result<bool, Outcome> {
    let flags = first as u16;
    if flags & QR != 0 {
        return Err(Outcome::Response);
    }
    if flags & OPCODE != 0 {
        return Err(Outcome::Opcode);
    }
    match (counts, more_counts) {
        (ONE_QUESTION, 0) => Ok(false),
        (ONE_QUESTION, 1) => Ok(true),
        _ => Err(Outcome::Counts),
    }
}

#[inline(always)]
fn kind(question: u32) -> Result<Kind, Outcome> {
    if question & 0xffff != u32::from(CLASS_IN) {
        return Err(Outcome::Class);
    }
    match question >> 16 {
        1 => Ok(Kind::A),
        28 => Ok(Kind::Aaaa),
        _ => Err(Outcome::Type),
    }
}

impl Opt {
    const NONE: Self = Self { flags: 0, removal: Sum::ZERO };

    /// Reads the record that the message ends with, and the end of the question before it.
    #[inline(always)]
    fn parse(packet: &impl Packet, end: usize) -> Result<(Ending, Self), Outcome> {
        let ending = Ending::parse(packet, end, QUESTION + OPT)?;
        let words = Self::load(packet, ending.question_end())?;
        if let Some(removal) = Self::removal(words, 0) {
            return Ok((ending, Self::checked(words, removal)?));
        }
        let ending = Ending::parse(packet, end, QUESTION + OPT + COOKIE)?;
        let offset = ending.question_end();
        let words = Self::load(packet, offset)?;
        let removal = Self::removal(words, COOKIE as u32).ok_or(Outcome::Additional)?;
        let [option, first, second]: [u32; 3] = packet.load(offset + OPT).ok_or(Outcome::ShortQuery)?;
        if option != CLIENT_COOKIE {
            return Err(Outcome::Additional);
        }
        let removal = removal.subtract(option).subtract(first).subtract(second);
        Ok((ending, Self::checked(words, removal)?))
    }

    /// Owner, type, payload size, extended RCODE, version, upper flags; then both bytes of flags, and RDLENGTH.
    #[inline(always)]
    fn load(packet: &impl Packet, offset: usize) -> Result<(u64, u32), Outcome> {
        let head = packet.load(offset).ok_or(Outcome::ShortQuery)?;
        let tail = packet.load(offset + 7).ok_or(Outcome::ShortQuery)?;
        Ok((head, tail))
    }

    /// What takes the fields away, if it is an OPT record of the root with that many bytes of options.
    #[inline(always)]
    fn removal((head, tail): (u64, u32), options: u32) -> Option<Sum> {
        (head >> 40 == u64::from(TYPE_OPT) && tail & 0xffff == options)
            .then(|| Sum::ZERO.subtract(TYPE_OPT.into()).subtract((head >> 8) as u32).subtract(tail))
    }

    #[inline(always)]
    fn checked((head, tail): (u64, u32), removal: Sum) -> Result<Self, Outcome> {
        if head >> 8 & 0xff != 0 {
            return Err(Outcome::EdnsVersion);
        }
        Ok(Self { flags: (tail >> 16) as u16, removal })
    }
}
