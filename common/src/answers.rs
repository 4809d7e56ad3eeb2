//! Answer sets as the program wants them, for the loader.

use crate::{
    checksum::Sum,
    maps::{AnswerSet, MAX_ADDRESSES},
};

/// The record types that the program answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An IPv4 address (RFC 1035 section 3.4.1).
    A,
    /// An IPv6 address (RFC 3596 section 2.1).
    Aaaa,
}

impl Kind {
    /// The number in a question and a record.
    #[inline(always)]
    pub const fn code(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
        }
    }

    /// Bytes of an address.
    #[inline(always)]
    pub const fn address_bytes(self) -> u16 {
        match self {
            Self::A => 4,
            Self::Aaaa => 16,
        }
    }

    /// Bytes of a record whose owner is a pointer: owner, type, class, TTL, RDLENGTH, address.
    #[inline(always)]
    pub const fn record_bytes(self) -> usize {
        12 + self.address_bytes() as usize
    }
}

/// The owner of every answer: a pointer to the question's name, the first thing after the 12-byte header (RFC 1035
/// section 4.1.4). The answer's case then follows the question's.
pub const OWNER: u16 = 0xc00c;

/// Class IN (RFC 1035 section 3.2.4).
pub const CLASS_IN: u16 = 1;

/// A set for the map behind `ANSWERS[0]`: `ttl` in seconds, addresses in the order clients should try them. `None`:
/// there are more than [`MAX_ADDRESSES`] of a family.
pub fn set(id: u64, ttl: u32, v4: &[[u8; 4]], v6: &[[u8; 16]]) -> Option<AnswerSet> {
    let mut set = AnswerSet {
        id,
        ttl,
        v4_count: u8::try_from(v4.len()).ok()?,
        v6_count: u8::try_from(v6.len()).ok()?,
        v4_sum: sum(Kind::A, ttl, v4),
        v6_sum: sum(Kind::Aaaa, ttl, v6),
        reserved: [0; 6],
        v4: [[0; 4]; MAX_ADDRESSES],
        v6: [[0; 16]; MAX_ADDRESSES],
    };
    set.v4.get_mut(..v4.len())?.copy_from_slice(v4);
    set.v6.get_mut(..v6.len())?.copy_from_slice(v6);
    Some(set)
}

/// [`AnswerSet::v4_sum`] or [`AnswerSet::v6_sum`].
pub fn sum<const N: usize>(kind: Kind, ttl: u32, addresses: &[[u8; N]]) -> u16 {
    let record = Sum::ZERO
        .add(OWNER.into())
        .add(kind.code().into())
        .add(CLASS_IN.into())
        .add(ttl)
        .add(kind.address_bytes().into())
        .fold();
    addresses
        .iter()
        .fold(Sum::ZERO, |sum, address| {
            let words = address.as_chunks::<2>().0.iter();
            words.fold(sum.add(record.into()), |sum, &word| sum.add(u16::from_be_bytes(word).into()))
        })
        .fold()
}
