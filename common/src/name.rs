//! Domain names in wire format: their extent in a query, their hash, and comparing them without regard to case.
//!
//! Names are taken eight bytes at a time, the last word filled up with zeros.

use crate::{
    maps::{NAME_BYTES, NameEntry},
    packet::{Le, Packet, Word, opaque},
};

const WORD: usize = size_of::<u64>();

/// `word` with the letters in lower case (RFC 4343 section 3) that are letters in `expected`, a word of an entry. There
/// only letters have both of the bits 0x40 and 0x20 ([`entry`] takes no others), and a label's length, at most 63, does
/// not have the first.
#[inline(always)]
const fn fold(Le(word): Le<u64>, Le(expected): Le<u64>) -> Le<u64> {
    Le(word | expected & expected >> 1 & CASE)
}

/// What [`fold`] would take for a letter, in a lower-case name: what differs in case from something else, or has the
/// highest bit.
const fn is_like_a_letter(byte: u8) -> bool {
    byte & 0x60 == 0x60 && !byte.is_ascii_lowercase()
}

/// Case, taken out coarsely for one instruction a word: other characters that differ in the same bit collide, and the
/// comparison after the look-up tells them apart.
const CASE: u64 = 0x2020_2020_2020_2020;
/// The factors of a name's words: odd, and powers of one that are far from each other.
const FACTORS: [u64; NAME_BYTES / WORD] = {
    let mut factors = [0x9e37_79b9_7f4a_7c15_u64; NAME_BYTES / WORD];
    let mut index = 1;
    while index < factors.len() {
        factors[index] = factors[index - 1].wrapping_mul(0xd134_2543_de82_ef95);
        index += 1;
    }
    factors
};
/// That of its last word, and of its length.
const LAST: u64 = 0xbf58_476d_1ce4_e5b9;
const LENGTH: u64 = 0x94d0_49bb_1331_11eb;

/// A name's hash is a sum of products, which the machine works out side by side.
#[inline(always)]
const fn term(word: Le<u64>, factor: u64) -> u64 {
    (word.0 | CASE).wrapping_mul(factor)
}

/// Brings every bit of the sum into the hash's upper half.
#[inline(always)]
const fn finish(sum: u64) -> u64 {
    (sum ^ sum >> 32).wrapping_mul(LENGTH)
}

/// What decides where `NAMES` has a name in lower-case wire format, filled up with zeros.
pub fn hash(name: &[u8; NAME_BYTES], length: usize) -> u64 {
    let (last, whole) = (length.saturating_sub(1) / WORD, words(name).zip(FACTORS));
    let sum = whole.take(last).fold(0_u64, |sum, (word, factor)| sum.wrapping_add(term(word, factor)));
    let last = words(name).nth(last).map_or(0, |word| term(word, LAST));
    finish(sum.wrapping_add(last).wrapping_add((length as u64).wrapping_mul(LENGTH)))
}

/// The hash and entry for `wire`, a whole name in wire format and any case. `None`: the program cannot find it, because
/// it is too long, not a name, or has characters that the program would take for letters; the agent's server answers it
/// alone.
pub fn entry(wire: &[u8], set: u32, set_id: u64) -> Option<(u64, NameEntry)> {
    let mut name = [0; NAME_BYTES];
    name.get_mut(..wire.len())?.copy_from_slice(wire);
    name.make_ascii_lowercase();
    let mut end = 0;
    loop {
        let label = usize::from(*wire.get(end)?);
        if label > 63 || name.get(end + 1..=end + label)?.iter().any(|&byte| is_like_a_letter(byte)) {
            return None;
        }
        end += 1 + label;
        if label == 0 {
            let length = u32::try_from(end).ok()?;
            let entry = NameEntry { set_id, set, length, name };
            return (end == wire.len()).then(|| (hash(&name, end), entry));
        }
    }
}

#[inline(always)]
fn words(name: &[u8; NAME_BYTES]) -> impl Iterator<Item = Le<u64>> {
    let chunks = name.as_chunks::<WORD>().0;
    // SAFETY: each has the size of a word.
    chunks.iter().map(|chunk| unsafe { Le::<u64>::read(chunk.as_ptr()) })
}

/// Where a name is in a packet.
///
/// Its labels are not walked. Whoever wrote the question says how long the name must be for the message to end where it
/// does; if those bytes are the name of an entry, which is well formed, then so is the question.
#[derive(Clone, Copy)]
pub struct Name {
    /// Offset of its first label.
    pub start: usize,
    /// Bytes, the root label's included: 1 to [`NAME_BYTES`].
    pub length: usize,
    /// The eight bytes of the frame that end where it ends, as in [`Le`]. They may begin before the name.
    tail: u64,
}

impl Name {
    /// A name of `length` bytes at `start`, with the eight bytes of the frame that end where it ends.
    #[inline(always)]
    pub fn new(start: usize, length: usize, tail: u64) -> Self {
        Self { start, length, tail }
    }

    /// Offset behind it.
    #[inline(always)]
    pub fn end(&self) -> usize {
        self.start + self.length
    }

    /// Its last word, filled up with zeros.
    #[inline(always)]
    fn last(&self) -> Le<u64> {
        Le(self.tail >> (8 * (self.length.wrapping_neg() % WORD)))
    }

    /// Words before its last one.
    #[inline(always)]
    fn whole(&self) -> usize {
        (self.length - 1) / WORD
    }

    /// What decides where `NAMES` has it. `None` if the packet is not the one it was parsed from.
    #[inline(always)]
    pub fn hash(&mut self, packet: &mut impl Packet) -> Option<u64> {
        let mut sum = (self.length as u64).wrapping_mul(LENGTH).wrapping_add(term(self.last(), LAST));
        let whole = self.whole();
        for (index, factor) in FACTORS.into_iter().enumerate() {
            if index >= whole {
                break;
            }
            let word = packet.load(self.start + index * WORD)?;
            sum = sum.wrapping_add(term(word, factor));
        }
        self.length = packet.forget(self.length);
        Some(finish(sum))
    }

    /// Whether it is the entry's name, in whatever case.
    #[inline(always)]
    pub fn is(&self, packet: &impl Packet, entry: &NameEntry) -> bool {
        let whole = self.whole();
        if entry.length as usize != self.length {
            return false;
        }
        for (index, expected) in words(&entry.name).enumerate() {
            if index >= whole {
                return fold(self.last(), expected) == expected;
            }
            match packet.load(self.start + index * WORD) {
                Some(word) if fold(word, expected) == expected => {}
                _ => return false,
            }
        }
        false
    }

    /// Copies the name of a reshaped frame to its old offset. It may write over up to seven bytes before it.
    #[inline(always)]
    pub fn copy<P: Packet>(&self, packet: &mut P, old: P::Place) -> Option<()> {
        let whole = self.whole();
        for index in 0..NAME_BYTES / WORD {
            let offset = index * WORD;
            if index >= whole {
                break;
            }
            let word: Le<u64> = packet.get(old, self.start + offset)?;
            packet.store(self.start + offset, word)?;
        }
        packet.store(opaque(self.end() - WORD), Le(self.tail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_characters_that_differ_in_case_from_something_else_are_left_to_the_server() {
        for wire in [b"\x03a{b\0", b"\x03a`b\0", b"\x03a~b\0", b"\x03a\x7fb\0", b"\x03a\xe9b\0"] {
            assert_eq!(entry(wire, 0, 1), None, "{wire:?}");
        }
        for wire in [b"\x03a[b\0", b"\x03a@b\0", b"\x03a^b\0", b"\x03A-Z\0", b"\x03a_9\0", b"\x03a\x11b\0"] {
            assert!(entry(wire, 0, 1).is_some(), "{wire:?}");
        }
    }

    #[test]
    fn a_name_has_one_hash_whatever_its_case() {
        let hash = |wire: &[u8]| entry(wire, 0, 1).map(|(hash, _)| hash);
        assert_eq!(hash(b"\x03WwW\x04shOp\0"), hash(b"\x03www\x04shop\0"));
        assert_ne!(hash(b"\x03www\x04shop\0"), hash(b"\x03www\x04shoq\0"));
    }
}
