//! The Internet checksum (RFC 1071) and its update (RFC 1624).
#![expect(clippy::cast_possible_truncation, reason = "fields are cut out of wider words")]

/// A ones'-complement sum of 16-bit words in the making: congruent modulo 0xffff, and unless nothing but zeros was
/// added, not zero. It has room for a thousand 32-bit words, folded only at the end.
#[derive(Clone, Copy, Debug)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// The sum behind a checksum field, to be updated by what changes: RFC 1624 equation 3.
    #[inline(always)]
    pub const fn behind(checksum: u16) -> Self {
        Self(!checksum as u64)
    }

    /// Adds a 16-bit word, or the two of a 32-bit one.
    #[inline(always)]
    pub const fn add(self, words: u32) -> Self {
        Self(self.0 + words as u64)
    }

    /// Takes a 16-bit word away.
    #[inline(always)]
    pub const fn subtract(self, word: u16) -> Self {
        Self(self.0 + !word as u64)
    }

    /// Takes away the two words of a 32-bit one.
    #[inline(always)]
    pub const fn subtract_two(self, words: u32) -> Self {
        self.subtract((words >> 16) as u16).subtract(words as u16)
    }

    /// Adds a part that was summed apart from an even offset on and is at `offset` of the whole: at an odd one, every
    /// byte is in the other half of its word (RFC 1071 section 2B). Parts of at most a hundred words.
    #[inline(always)]
    pub const fn add_part(self, part: Self, offset: usize) -> Self {
        Self(self.0 + (part.0 << (8 * (offset & 1))))
    }

    /// The sum in 16 bits.
    #[inline(always)]
    pub const fn fold(self) -> u16 {
        let sum = (self.0 >> 16) + (self.0 & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        sum as u16
    }

    /// The same of a sum below 2³², for fewer instructions.
    #[inline(always)]
    pub const fn fold_small(self) -> u16 {
        let sum = (self.0 >> 16) + (self.0 & 0xffff);
        (sum + (sum >> 16)) as u16
    }

    /// The header checksum of IPv4.
    #[inline(always)]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// The checksum of UDP, where 0 would mean none (RFC 768), of a sum below 2³².
    #[inline(always)]
    pub const fn udp_checksum(self) -> u16 {
        match !self.fold_small() {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(bytes: &[u8]) -> Sum {
        bytes
            .chunks(2)
            .fold(Sum::ZERO, |sum, pair| sum.add(u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))))
    }

    #[test]
    fn rfc_1071_section_3_example() {
        let sum = of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
    }

    #[test]
    fn a_computed_udp_checksum_of_zero_is_sent_as_ones() {
        assert_eq!(Sum::ZERO.add(0xffff).checksum(), 0);
        assert_eq!(Sum::ZERO.add(0xffff).udp_checksum(), 0xffff);
    }

    proptest! {
        #[test]
        fn an_updated_checksum_is_the_one_computed_anew(
            mut words in prop::collection::vec(1u16.., 2..40), new in 1u16.., at in any::<prop::sample::Index>(),
        ) {
            let total = |words: &[u16]| words.iter().fold(Sum::ZERO, |sum, &word| sum.add(word.into()));
            let before = total(&words).checksum();
            let at = at.index(words.len());
            let old = core::mem::replace(&mut words[at], new);
            let updated = Sum::behind(before).subtract(old).add(new.into());
            prop_assert_eq!(updated.udp_checksum(), total(&words).udp_checksum());
        }

        #[test]
        fn a_difference_of_words_is_taken_back(words in prop::collection::vec(any::<u32>(), 1..16), other in any::<u32>()) {
            let sum = words.iter().fold(Sum::ZERO.add(1), |sum, &word| sum.add(word));
            prop_assert_eq!(sum.add(other).subtract_two(other).udp_checksum(), sum.udp_checksum());
        }

        #[test]
        fn a_part_summed_apart_counts_where_it_is_placed(
            head in prop::collection::vec(any::<u8>(), 0..20), part in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let placed = of(&head).add_part(of(&part), head.len());
            let whole = of(&[head, part].concat());
            prop_assert_eq!(placed.fold() % 0xffff, whole.fold() % 0xffff);
        }
    }
}
