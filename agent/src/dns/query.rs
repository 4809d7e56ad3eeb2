//! Reading a query, strictly and within bounds: it keeps what hickory's decoder hides, such as the question's exact
//! bytes and where an OPT record stood.

use super::{name::Name, rtype};

const HEADER: usize = 12;
const CLASS_ANY: u16 = 255;

/// A message that deserves a reply.
#[derive(Debug, Default)]
pub(super) struct Query<'a> {
    pub id: [u8; 2],
    pub opcode: u8,
    /// Recursion desired; copied to the reply.
    pub rd: bool,
    /// The one question, if there is exactly one and it parses.
    pub question: Option<Question<'a>>,
    /// The OPT record, if one stood where it may before anything was found wrong.
    pub edns: Option<Edns>,
    /// The message is signed.
    pub tsig: Option<Tsig>,
    /// It does not parse, or breaks a rule whose answer is FORMERR; the fields above were read before that was found.
    pub malformed: bool,
}

#[derive(Debug)]
pub(super) struct Question<'a> {
    /// Name, type and class exactly as received.
    pub bytes: &'a [u8],
    pub name: Name,
    pub qtype: u16,
    pub qclass: u16,
}

/// The query's OPT record (RFC 6891 §6.1.2).
#[derive(Clone, Copy, Debug)]
pub(super) struct Edns {
    pub payload: u16,
    pub version: u8,
    pub dnssec_ok: bool,
}

/// What a reply to a query signed with an unknown key repeats (RFC 8945 §5.2.1, §5.3.2).
#[derive(Debug)]
pub(super) struct Tsig {
    /// The key's name, if it was not compressed.
    pub key: Option<Name>,
    /// The algorithm's name, uncompressed.
    pub algorithm: Name,
    /// Time signed and fudge.
    pub time: [u8; 8],
    pub original_id: [u8; 2],
}

#[derive(Clone, Copy, PartialEq)]
enum Section {
    Answer,
    Authority,
    Additional,
}

impl<'a> Query<'a> {
    /// `None`: shorter than a header, or a response; neither is ever answered, so that no two servers can talk in a
    /// loop.
    pub(super) fn read(message: &'a [u8]) -> Option<Self> {
        let (header, _) = message.split_first_chunk::<HEADER>()?;
        if header[2] & 0x80 != 0 {
            return None;
        }
        let mut query = Query {
            id: [header[0], header[1]],
            opcode: (header[2] >> 3) & 0x0f,
            rd: header[2] & 1 != 0,
            ..Query::default()
        };
        let questions = u16::from_be_bytes([header[4], header[5]]);
        // RFC 9619: a query has exactly one question.
        query.malformed = query.read_body(message, questions).is_none() || questions != 1;
        Some(query)
    }

    fn read_body(&mut self, message: &'a [u8], questions: u16) -> Option<()> {
        let mut at = HEADER;
        for _ in 0..questions {
            let question = Question::read(message, at)?;
            at += question.bytes.len();
            self.question = (questions == 1).then_some(question);
        }
        for (section, count) in [
            (Section::Answer, u16_at(message, 6)?),
            (Section::Authority, u16_at(message, 8)?),
            (Section::Additional, u16_at(message, 10)?),
        ] {
            for left in (0..count).rev() {
                at = self.read_record(message, at, section, left == 0)?;
            }
        }
        // Whatever follows the last record is not part of the message.
        Some(())
    }

    /// Reads one record and gives the offset after it.
    fn read_record(&mut self, message: &[u8], at: usize, section: Section, last: bool) -> Option<usize> {
        let fixed = skip_name(message, at)?;
        let rtype = u16_at(message, fixed)?;
        let class = u16_at(message, fixed + 2)?;
        let ttl = message.get(fixed + 4..fixed + 8)?;
        let start = fixed + 10;
        let end = start + usize::from(u16_at(message, fixed + 8)?);
        let rdata = message.get(start..end)?;
        match rtype {
            rtype::OPT => {
                // RFC 6891 §6.1.1: at most one, in the additional section, owned by the root.
                if section != Section::Additional || message[at] != 0 || self.edns.is_some() {
                    return None;
                }
                let edns = Edns { payload: class, version: ttl[1], dnssec_ok: ttl[2] & 0x80 != 0 };
                self.edns = Some(edns);
                // Another version may frame its options in another way.
                if edns.version == 0 && !options_parse(rdata) {
                    return None;
                }
            }
            rtype::TSIG => {
                // RFC 8945 §5.1: the last record of the additional section.
                if section != Section::Additional || !last || class != CLASS_ANY {
                    return None;
                }
                let key = Name::read(message, at).map(|(key, _)| key);
                self.tsig = Some(Tsig::read(key, rdata)?);
            }
            _ => {}
        }
        Some(end)
    }
}

impl<'a> Question<'a> {
    fn read(message: &'a [u8], at: usize) -> Option<Self> {
        // RFC 9619, RFC 1035 §4.1.4: there is nothing before the question that a pointer could mean.
        let (name, end) = Name::read(message, at)?;
        Some(Question {
            bytes: message.get(at..end + 4)?,
            qtype: u16_at(message, end)?,
            qclass: u16_at(message, end + 2)?,
            name,
        })
    }
}

impl Tsig {
    /// RFC 8945 §4.2.
    fn read(key: Option<Name>, rdata: &[u8]) -> Option<Self> {
        let (algorithm, at) = Name::read(rdata, 0)?;
        let time = *rdata.get(at..)?.first_chunk::<8>()?;
        let after_mac = at + 10 + usize::from(u16_at(rdata, at + 8)?);
        let original_id = *rdata.get(after_mac..)?.first_chunk::<2>()?;
        let other = usize::from(u16_at(rdata, after_mac + 4)?);
        (rdata.len() == after_mac + 6 + other).then_some(Tsig { key, algorithm, time, original_id })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk::<2>().map(|two| u16::from_be_bytes(*two))
}

/// The offset after a name that may end in a compression pointer, which is not followed.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    let start = at;
    loop {
        let length = *message.get(at)?;
        match length {
            0 => return Some(at + 1),
            1..=63 => at += 1 + usize::from(length),
            // RFC 1035 §4.1.4: a prior occurrence.
            0xc0.. => {
                let target = usize::from(u16_at(message, at)? & 0x3fff);
                return (HEADER..start).contains(&target).then_some(at + 2);
            }
            _ => return None,
        }
        if at - start > 254 {
            return None;
        }
    }
}

/// Whether the options fill RDATA exactly (RFC 6891 §6.1.2).
fn options_parse(mut rdata: &[u8]) -> bool {
    while !rdata.is_empty() {
        let Some(length) = u16_at(rdata, 2) else {
            return false;
        };
        let Some(rest) = rdata.get(4 + usize::from(length)..) else {
            return false;
        };
        rdata = rest;
    }
    true
}
