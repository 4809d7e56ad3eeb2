//! RDATA from text to wire format: each type is a list of fields.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::serialize::txt::parse_ttl;

use super::{
    super::{
        name::{Name, unescape},
        rtype,
    },
    lexer::Token,
};

/// The longest character string, octets (RFC 1035 §3.3).
const MAX_STRING: usize = 255;

#[derive(Clone, Copy)]
enum Field {
    Ipv4,
    Ipv6,
    Name,
    U8,
    U16,
    U32,
    /// Seconds, or with units as in `1h30m`.
    Time,
    /// One character string (RFC 1035 §3.3).
    String,
    /// All the rest: one or more character strings.
    Strings,
    /// A CAA property's tag (RFC 8659 §4.1).
    Tag,
    /// Octets without a length (RFC 8659 §4.1.1).
    Octets,
    /// All the rest: hexadecimal digits, blanks between them allowed.
    Hex,
}

use Field::{Hex, Ipv4, Ipv6, Octets, String as Text, Strings, Tag, Time, U8, U16, U32};

/// Mnemonic, number, fields in order, how the RDATA is written.
type Type = (&'static str, u16, &'static [Field], &'static str);

const TYPES: &[Type] = &[
    ("A", rtype::A, &[Ipv4], "an IPv4 address"),
    ("AAAA", rtype::AAAA, &[Ipv6], "an IPv6 address"),
    ("NS", rtype::NS, &[Field::Name], "a name"),
    ("CNAME", rtype::CNAME, &[Field::Name], "a name"),
    ("PTR", rtype::PTR, &[Field::Name], "a name"),
    ("MX", rtype::MX, &[U16, Field::Name], "preference and name"),
    ("TXT", rtype::TXT, &[Strings], "one or more strings"),
    ("SRV", rtype::SRV, &[U16, U16, U16, Field::Name], "priority, weight, port and name"),
    ("CAA", rtype::CAA, &[U8, Tag, Octets], "flags, tag and value"),
    (
        "SOA",
        rtype::SOA,
        &[Field::Name, Field::Name, U32, Time, Time, Time, Time],
        "primary server, mailbox, serial, refresh, retry, expire and minimum",
    ),
    ("HINFO", rtype::HINFO, &[Text, Text], "CPU and OS"),
    (
        "NAPTR",
        rtype::NAPTR,
        &[U16, U16, Text, Text, Text, Field::Name],
        "order, preference, flags, service, regular expression and name",
    ),
    ("DS", rtype::DS, &[U16, U8, U8, Hex], "key tag, algorithm, digest type and digest"),
    ("SSHFP", rtype::SSHFP, &[U8, U8, Hex], "algorithm, type and fingerprint"),
    ("TLSA", rtype::TLSA, &[U8, U8, U8, Hex], "usage, selector, matching type and data"),
    ("SMIMEA", rtype::SMIMEA, &[U8, U8, U8, Hex], "usage, selector, matching type and data"),
];

/// A type's number from its mnemonic or `TYPE` and digits (RFC 3597 §5).
pub(super) fn type_number(text: &[u8]) -> Result<u16, String> {
    let shown = String::from_utf8_lossy(text).to_ascii_uppercase();
    if let Some((_, number, _, _)) = TYPES.iter().find(|(name, ..)| *name == shown) {
        return Ok(*number);
    }
    let number = match shown.as_str() {
        "DNAME" => rtype::DNAME,
        "RRSIG" | "NSEC" | "DNSKEY" | "NSEC3" | "NSEC3PARAM" | "CDS" | "CDNSKEY" => {
            return Err(format!("{shown}: signed zones are not supported; serve the unsigned zone"));
        }
        _ => shown.strip_prefix("TYPE").and_then(|digits| digits.parse().ok()).ok_or_else(|| {
            let known: Vec<&str> = TYPES.iter().map(|(name, ..)| *name).collect();
            format!(
                "`{shown}` is not a record type this server reads: {} or, for any other, TYPE with its number and \
                     RDATA as `\\# length hexadecimal` (RFC 3597)",
                known.join(", ")
            )
        })?,
    };
    match number {
        rtype::DNAME => Err("DNAME is not supported: the records it would synthesise have no place in the answer \
                             table; write a CNAME for each name, or delegate the subtree"
            .into()),
        0 | rtype::OPT | 128..=255 => Err(format!("{shown} is for messages, not for zones (RFC 6895 §3.1)")),
        _ => Ok(number),
    }
}

/// A type's mnemonic.
pub(super) fn type_name(number: u16) -> String {
    TYPES
        .iter()
        .find(|(_, known, ..)| *known == number)
        .map_or_else(|| format!("TYPE{number}"), |(name, ..)| (*name).to_owned())
}

/// RDATA in uncompressed wire format.
pub(super) fn parse(rtype: u16, tokens: &[Token], origin: &Name) -> Result<Vec<u8>, String> {
    let known = TYPES.iter().find(|(_, number, ..)| *number == rtype);
    let generic = tokens.first().is_some_and(|first| !first.quoted && first.text == b"\\#");
    let rdata = match (known, generic) {
        (Some((name, _, _, form)), true) => {
            return Err(format!("{name} is written in its own form: {form}"));
        }
        (Some((name, _, fields, form)), false) => {
            fields_to_wire(fields, tokens, origin).map_err(|why| format!("{name}: {why}; {name} takes {form}"))?
        }
        (None, true) => parse_generic(&tokens[1..])?,
        (None, false) => {
            return Err(format!("the RDATA of TYPE{rtype} is written as `\\# length hexadecimal` (RFC 3597 §5)"));
        }
    };
    match u16::try_from(rdata.len()) {
        Ok(_) => Ok(rdata),
        Err(_) => Err(format!("the RDATA has {} octets, at most 65535 are allowed", rdata.len())),
    }
}

fn fields_to_wire(fields: &[Field], tokens: &[Token], origin: &Name) -> Result<Vec<u8>, String> {
    let mut wire = Vec::new();
    let mut rest = tokens;
    for field in fields {
        let Some((token, tail)) = rest.split_first() else {
            return Err("something is missing".into());
        };
        match field {
            Strings => {
                for token in rest {
                    push_string(&mut wire, token)?;
                }
                rest = &[];
            }
            Hex => {
                wire.extend(hexadecimal(rest)?);
                rest = &[];
            }
            _ => {
                push_field(&mut wire, *field, token, origin)?;
                rest = tail;
            }
        }
    }
    match rest.first() {
        Some(extra) => Err(format!("`{}` is too much", extra.show())),
        None => Ok(wire),
    }
}

fn push_field(wire: &mut Vec<u8>, field: Field, token: &Token, origin: &Name) -> Result<(), String> {
    let shown = token.show();
    let wrong = |what: &str| format!("`{shown}` is not {what}");
    match field {
        Ipv4 => {
            let address: Ipv4Addr = shown.parse().map_err(|_| wrong("an IPv4 address"))?;
            wire.extend_from_slice(&address.octets());
        }
        Ipv6 => {
            let address: Ipv6Addr = shown.parse().map_err(|_| wrong("an IPv6 address"))?;
            wire.extend_from_slice(&address.octets());
        }
        Field::Name => wire.extend_from_slice(Name::parse(&token.text, origin)?.wire()),
        U8 => wire.push(shown.parse().map_err(|_| wrong("a number from 0 to 255"))?),
        U16 => {
            let value: u16 = shown.parse().map_err(|_| wrong("a number from 0 to 65535"))?;
            wire.extend_from_slice(&value.to_be_bytes());
        }
        U32 => {
            let value: u32 = shown.parse().map_err(|_| wrong("a number from 0 to 4294967295"))?;
            wire.extend_from_slice(&value.to_be_bytes());
        }
        Time => wire.extend_from_slice(&seconds(token)?.to_be_bytes()),
        Tag => {
            if !(1..=15).contains(&shown.len()) || !shown.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Err(wrong("a tag of 1 to 15 letters and digits"));
            }
            push_string(wire, token)?;
        }
        Octets => wire.extend(octets(token)?),
        Text | Strings => push_string(wire, token)?,
        Hex => {}
    }
    Ok(())
}

/// A TTL or another span: seconds, or with units as in `1h30m`. At most 2^31 - 1 (RFC 2181 §8).
pub(super) fn seconds(token: &Token) -> Result<u32, String> {
    let value = parse_ttl(&token.show())
        .map_err(|_| format!("`{}` is not a time: seconds, or units as in 1h30m", token.show()))?;
    if value > i32::MAX.unsigned_abs() {
        return Err(format!("{value} seconds are more than 2147483647, the most that RFC 2181 §8 allows"));
    }
    Ok(value)
}

fn octets(token: &Token) -> Result<Vec<u8>, String> {
    let mut octets = Vec::with_capacity(token.text.len());
    let mut at = 0;
    while at < token.text.len() {
        let (octet, used) = unescape(&token.text[at..])?;
        octets.push(octet);
        at += used;
    }
    Ok(octets)
}

fn push_string(wire: &mut Vec<u8>, token: &Token) -> Result<(), String> {
    let octets = octets(token)?;
    match u8::try_from(octets.len()) {
        Ok(length) => {
            wire.push(length);
            wire.extend(octets);
            Ok(())
        }
        Err(_) => Err(format!(
            "a string of {} octets, at most {MAX_STRING} are allowed: split it into several strings",
            octets.len()
        )),
    }
}

/// RFC 3597 §5: the length, then that many octets.
fn parse_generic(tokens: &[Token]) -> Result<Vec<u8>, String> {
    let (length, digits) = tokens.split_first().ok_or("`\\#` is followed by the RDATA's length")?;
    let octets = hexadecimal(digits)?;
    match length.show().parse::<usize>() {
        Ok(length) if length == octets.len() => Ok(octets),
        _ => Err(format!("`\\# {}` is followed by {} octets", length.show(), octets.len())),
    }
}

fn hexadecimal(tokens: &[Token]) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = tokens.iter().flat_map(|token| token.text.iter().copied()).collect();
    let pair = |pair: &[u8]| match pair {
        [high, low] => {
            let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16)?).ok();
            Some(digit(*high)? << 4 | digit(*low)?)
        }
        _ => None,
    };
    digits
        .chunks(2)
        .map(|digits| pair(digits).ok_or_else(|| "the octets are written as pairs of hexadecimal digits".to_owned()))
        .collect()
}
