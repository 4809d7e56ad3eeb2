//! Domain names, in the two forms this server needs: as on the wire, and as a key that sorts a zone into a tree.

use std::{borrow::Borrow, collections::BTreeSet, fmt};

use hickory_proto::rr::LowerName;

/// The longest label, octets (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;
/// The longest name on the wire, octets, root label included (RFC 1035 §2.3.4).
const MAX_NAME: usize = 255;

/// An absolute domain name: uncompressed wire format, root label included, case kept. Compares byte by byte; names that
/// must compare as RFC 4343 says are compared by [`Name::key`].
#[derive(Clone, PartialEq, Eq)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Reads an uncompressed name at `at`; also gives the offset after it. `None`: cut short, too long, or a label that
    /// is not an ordinary one (compression pointers too).
    pub(super) fn read(message: &[u8], at: usize) -> Option<(Self, usize)> {
        let mut end = at;
        loop {
            let length = usize::from(*message.get(end)?);
            if length > MAX_LABEL {
                return None;
            }
            end += 1 + length;
            if end - at > MAX_NAME {
                return None;
            }
            if length == 0 {
                return Some((Self(message.get(at..end)?.into()), end));
            }
        }
    }

    /// Reads a zone file's name (RFC 1035 §5.1): `@` is the origin, a name without a final dot is relative to it.
    pub(super) fn parse(text: &[u8], origin: &Name) -> Result<Self, String> {
        match text {
            b"@" => return Ok(origin.clone()),
            b"." => return Ok(Self(Box::new([0]))),
            _ => {}
        }
        let (mut wire, absolute) = parse_labels(text)?;
        wire.extend_from_slice(if absolute { &[0] } else { &origin.0 });
        if wire.len() > MAX_NAME {
            return Err(format!(
                "the name `{}` has {} octets on the wire, at most {MAX_NAME} are allowed",
                String::from_utf8_lossy(text),
                wire.len()
            ));
        }
        Ok(Self(wire.into()))
    }

    /// The wire format, root label included.
    pub(super) fn wire(&self) -> &[u8] {
        &self.0
    }

    /// The labels from the leftmost to the one below the root.
    pub(super) fn labels(&self) -> impl Iterator<Item = &[u8]> {
        labels(&self.0)
    }

    /// The form that is looked up.
    pub(super) fn key(&self) -> Key {
        let labels: Vec<&[u8]> = self.labels().collect();
        let mut key = Vec::with_capacity(self.0.len());
        for label in labels.iter().rev() {
            // `Name::read` and `parse_labels` bound a label to 63 octets.
            key.push(u8::try_from(label.len()).unwrap_or(0));
            key.extend(label.iter().map(u8::to_ascii_lowercase));
        }
        Key(key)
    }

    /// Whether the leftmost label is `*` (RFC 4592 §2.1.1).
    pub(super) fn is_wildcard(&self) -> bool {
        self.0.starts_with(b"\x01*")
    }
}

/// The labels of a name or key: everything up to the root label or the end.
fn labels(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (&length, tail) = rest.split_first()?;
        if length == 0 {
            return None;
        }
        let (label, tail) = tail.split_at_checked(usize::from(length))?;
        rest = tail;
        Some(label)
    })
}

/// Labels of a textual name in wire format without a root label, and whether it ended in a dot.
fn parse_labels(text: &[u8]) -> Result<(Vec<u8>, bool), String> {
    let shown = || String::from_utf8_lossy(text);
    let mut wire = Vec::with_capacity(text.len() + 1);
    let mut label = Vec::new();
    let mut at = 0;
    let mut absolute = false;
    while at < text.len() {
        absolute = text[at] == b'.';
        if absolute {
            push_label(&mut wire, &label).map_err(|why| format!("the name `{}` {why}", shown()))?;
            label.clear();
            at += 1;
        } else if text[at].is_ascii() {
            let (octet, used) = unescape(&text[at..])?;
            label.push(octet);
            at += used;
        } else {
            return Err(format!(
                "the name `{}` holds a byte outside ASCII: write it as \\{:03} or use the name's xn-- form",
                shown(),
                text[at]
            ));
        }
    }
    if !absolute {
        push_label(&mut wire, &label).map_err(|why| format!("the name `{}` {why}", shown()))?;
    }
    Ok((wire, absolute))
}

fn push_label(wire: &mut Vec<u8>, label: &[u8]) -> Result<(), String> {
    match u8::try_from(label.len()) {
        Ok(0) => Err("has an empty label".into()),
        Ok(length) if label.len() <= MAX_LABEL => {
            wire.push(length);
            wire.extend_from_slice(label);
            Ok(())
        }
        _ => Err(format!("has a label of {} octets, at most {MAX_LABEL} are allowed", label.len())),
    }
}

/// The octet at the start of `text`, `\X` and `\DDD` decoded (RFC 1035 §5.1), and how many bytes it took.
pub(super) fn unescape(text: &[u8]) -> Result<(u8, usize), String> {
    match text {
        [b'\\', a, b, c, ..] if a.is_ascii_digit() && b.is_ascii_digit() && c.is_ascii_digit() => {
            let value = [a, b, c].iter().fold(0u16, |value, digit| value * 10 + u16::from(**digit - b'0'));
            let octet = u8::try_from(value).map_err(|_| format!("`\\{value}` is not an octet: \\000 to \\255 are"))?;
            Ok((octet, 4))
        }
        [b'\\', digit, ..] if digit.is_ascii_digit() => {
            Err("after `\\` come three digits or one other character".into())
        }
        [b'\\', other, ..] => Ok((*other, 2)),
        [b'\\'] | [] => Err("`\\` has nothing after it".into()),
        [octet, ..] => Ok((*octet, 1)),
    }
}

impl From<&LowerName> for Name {
    /// Takes the labels and makes the name absolute.
    fn from(name: &LowerName) -> Self {
        let mut wire = Vec::new();
        for label in name.iter() {
            // hickory's names hold nothing but valid labels.
            let _ = push_label(&mut wire, label);
        }
        wire.push(0);
        Self(wire.into())
    }
}

impl fmt::Display for Name {
    /// Presentation format (RFC 1035 §5.1) with the final dot.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() <= 1 {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &octet in label {
                match octet {
                    b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => {
                        write!(f, "\\{}", char::from(octet))?;
                    }
                    b'!'..=b'~' => write!(f, "{}", char::from(octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A name as it is looked up: labels in lower case (ASCII only, RFC 4343 §3) from the root downwards, each after its
/// length. An ancestor's key is a prefix of its descendants' keys, so in a sorted map it comes directly before them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(Vec<u8>);

impl Key {
    /// The wildcard directly below `encloser` (RFC 4592 §3.3.1).
    pub(super) fn wildcard(encloser: &[u8]) -> Self {
        Self([encloser, b"\x01*"].concat())
    }

    /// The bytes; a prefix that ends between labels is an ancestor.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is `ancestor` or lies below it.
    pub(super) fn is_within(&self, ancestor: &Key) -> bool {
        self.0.starts_with(&ancestor.0)
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// The key one label up; `None` at the root.
pub(super) fn parent(key: &[u8]) -> Option<&[u8]> {
    let last = labels(key).last()?;
    key.get(..key.len() - 1 - last.len())
}

/// The greatest of `ancestors` at or above `name`, where none of them lies below another: then only the name's
/// predecessor among them can be it.
pub(super) fn ancestor_in<'s>(ancestors: &'s BTreeSet<Key>, name: &Key) -> Option<&'s Key> {
    ancestors.range::<Key, _>(..=name).next_back().filter(|ancestor| name.is_within(ancestor))
}

/// Length of the closest common ancestor of two keys.
pub(super) fn common(a: &[u8], b: &[u8]) -> usize {
    labels(a).zip(labels(b)).take_while(|(a, b)| a == b).map(|(label, _)| 1 + label.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text.as_bytes(), &Name(Box::new([0]))).unwrap()
    }

    #[test]
    fn an_ancestor_sorts_directly_before_its_subtree() {
        let mut keys: Vec<Key> =
            ["b.x.", "x.", "a-.x.", "y.", "a.x.", "z.a.x."].iter().map(|text| name(text).key()).collect();
        keys.sort();
        let at = keys.iter().position(|key| *key == name("a.x.").key()).unwrap();
        assert_eq!(keys[at + 1], name("z.a.x.").key());
        assert_eq!(common(name("q.a.x.").key().bytes(), name("z.a.x.").key().bytes()), 4);
    }

    #[test]
    fn rfc1035_5_1_escapes_are_octets_not_separators() {
        assert_eq!(name(r"a\.b\000\\.x.").wire(), b"\x05a.b\0\\\x01x\0");
        assert_eq!(name(r"a\.b\000\\.x.").to_string(), r"a\.b\000\\.x.");
        assert!(Name::parse(br"a\256", &name(".")).is_err());
        assert!(Name::parse(br"a\25", &name(".")).is_err());
        assert!(Name::parse(b"a..b", &name(".")).is_err());
        assert!(Name::parse(b".a", &name(".")).is_err());
    }

    #[test]
    fn rfc1035_2_3_4_lengths_are_bounded() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}.", "a".repeat(61));
        assert_eq!(name(&longest).wire().len(), 255);
        assert_eq!(Name::read(name(&longest).wire(), 0).unwrap().1, 255);
        assert!(Name::parse(format!("a{longest}").as_bytes(), &name(".")).is_err());
        assert!(Name::parse("a".repeat(64).as_bytes(), &name(".")).is_err());
        assert!(Name::read(b"\x3fabc\0", 0).is_none());
        assert!(Name::read(b"\xc0\x00", 0).is_none());
    }
}
