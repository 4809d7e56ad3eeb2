//! Domain names in wire format: their extent in a query, their hash, and comparing them without regard to case.
//!
//! Names are taken eight bytes at a time, the last word filled up with zeros, in lower case.

use core::hint::black_box;

use crate::{
    maps::{NAME_BYTES, NameEntry},
    packet::{Packet, Word},
};

const WORD: usize = size_of::<u64>();

/// Lower-cases the ASCII letters among a word's bytes and leaves every other byte alone (RFC 4343 section 3). A label's
/// length is at most 63, so it never looks like a letter.
#[inline(always)]
pub const fn fold(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * EACH;
    let low = word & !HIGH;
    let from_a = low + (0x80 - b'A' as u64) * EACH;
    let above_z = low + (0x7f - b'Z' as u64) * EACH;
    let upper = from_a & !above_z & !word & HIGH;
    word | upper >> 2
}

/// Continues a name's hash with its next word, in any case. The case is taken out coarsely, for one instruction: other
/// characters that differ in the same bit collide, and the comparison after the look-up tells them apart. Otherwise it is
/// one-to-one in the word.
#[inline(always)]
const fn mix(hash: u64, word: u64) -> u64 {
    const CASE: u64 = 0x2020_2020_2020_2020;
    let mixed = (hash ^ (word | CASE)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32
}

/// The key in `NAMES[0]` of a name in lower-case wire format, filled up with zeros.
pub fn hash(name: &[u8; NAME_BYTES], length: usize) -> u64 {
    words(name).take(length.div_ceil(WORD)).fold(length as u64, mix)
}

/// The key and entry for `wire`, a whole name in wire format and any case. `None`: the program cannot find it, because
/// it is too long or not a name; the agent's server answers it alone.
pub fn entry(wire: &[u8], set: u32, set_id: u64) -> Option<(u64, NameEntry)> {
    let mut name = [0; NAME_BYTES];
    name.get_mut(..wire.len())?.copy_from_slice(wire);
    name.make_ascii_lowercase();
    let mut end = 0;
    loop {
        let label = usize::from(*wire.get(end)?);
        if label > 63 {
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
fn words(name: &[u8; NAME_BYTES]) -> impl Iterator<Item = u64> {
    let chunks = name.as_chunks::<WORD>().0;
    // SAFETY: each has the size of a word.
    chunks.iter().map(|chunk| unsafe { u64::read(chunk.as_ptr()) })
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
    /// The eight bytes of the frame that end where it ends.
    tail: u64,
    /// Its last word, filled up with zeros.
    last: u64,
}

impl Name {
    /// A name of `length` bytes at `start`, with the eight bytes of the frame that end where it ends. They may begin
    /// before the name: that part is shifted out.
    #[inline(always)]
    pub fn new(start: usize, length: usize, tail: u64) -> Self {
        let last = tail << (8 * (length.wrapping_neg() % WORD));
        Self { start, length, tail, last }
    }

    /// Copies the name of a reshaped frame to its old offset. It may write over up to seven bytes before it.
    #[inline(always)]
    pub fn copy<P: Packet>(&self, packet: &mut P, old: P::Old) -> Option<()> {
        let whole = self.whole();
        for index in 0..NAME_BYTES / WORD {
            let offset = index * WORD;
            if index >= whole {
                break;
            }
            let word: u64 = packet.load_old(old, self.start + offset)?;
            packet.store(self.start + offset, word)?;
        }
        packet.store(black_box(self.start + self.length - WORD), self.tail)
    }

    /// The key to look for in `NAMES[0]`. `None` if the packet is not the one it was parsed from.
    #[inline(always)]
    pub fn hash(&self, packet: &impl Packet) -> Option<u64> {
        let mut hash = self.length as u64;
        let whole = self.whole();
        for index in 0..NAME_BYTES / WORD {
            if index >= whole {
                break;
            }
            let word = packet.load(self.start + index * WORD)?;
            hash = mix(hash, word);
        }
        Some(mix(hash, self.last))
    }

    /// Words before its last one.
    #[inline(always)]
    fn whole(&self) -> usize {
        (self.length - 1) / WORD
    }

    /// Whether it is the entry's name, in whatever case.
    #[inline(always)]
    pub fn is(&self, packet: &impl Packet, entry: &NameEntry) -> bool {
        if entry.length as usize != self.length {
            return false;
        }
        let whole = self.whole();
        for (index, expected) in words(&entry.name).enumerate() {
            if index >= whole {
                return expected == fold(self.last);
            }
            match packet.load(self.start + index * WORD) {
                Some(word) if word == expected || fold(word) == expected => {}
                _ => return false,
            }
        }
        false
    }
}
