//! Where each name is in the map behind `NAMES`, and each address in the one behind `ADDRESSES`: hash tables without
//! collisions, so that a look-up reads one entry and searches nothing. Hash and displace (R. Pagh, WADS 1999): keys are
//! thrown into buckets by hash, and each bucket has a seed with which all of its keys fall into free slots, the fullest
//! bucket first.

use crate::maps::{ADDRESS_SEEDS, ADDRESS_SLOTS, NAME_SEEDS, NAME_SLOTS};

/// The size of such a table; powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    seeds: u32,
    slots: u32,
}

/// `SEEDS` and `NAMES`.
pub const NAMES: Size = Size { seeds: NAME_SEEDS, slots: NAME_SLOTS };

/// `ADDRESS_SEEDS` and `ADDRESSES`.
pub const ADDRESSES: Size = Size { seeds: ADDRESS_SEEDS, slots: ADDRESS_SLOTS };

impl Size {
    /// The most keys, with slots left so that each finds one.
    pub const fn most(self) -> usize {
        self.slots as usize / 8 * 7
    }

    /// The index in the map of seeds for a key's hash.
    #[inline(always)]
    pub const fn bucket(self, hash: u64) -> u32 {
        (hash >> 32) as u32 % self.seeds
    }

    /// The index in the map of keys for a key's hash and its bucket's seed.
    #[inline(always)]
    pub const fn slot(self, hash: u64, seed: u32) -> u32 {
        let mixed = (hash ^ seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 40) as u32 % self.slots
    }
}

#[cfg(any(test, feature = "user"))]
pub use self::build::Places;

#[cfg(any(test, feature = "user"))]
mod build {
    use alloc::{vec, vec::Vec};
    use core::cmp::Reverse;

    use super::Size;

    /// Seeds tried for a bucket. Of those for a full table's last key, one in eight is right.
    const TRIES: u32 = 1 << 16;

    /// A table's layout.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Places {
        /// What is in the map of seeds.
        pub seeds: Vec<u32>,
        /// For each hash, in the order given, its index in the map of keys. `None`: another one is the same, or there are
        /// more than [`Size::most`].
        pub slots: Vec<Option<u32>>,
    }

    impl Size {
        /// Finds places for keys by their hashes. The same hashes in the same order get the same places.
        pub fn place(self, hashes: &[u64]) -> Places {
            let mut buckets = vec![Vec::new(); self.seeds as usize];
            for (index, &hash) in hashes.iter().enumerate().take(self.most()) {
                let bucket: &mut Vec<usize> = &mut buckets[self.bucket(hash) as usize];
                if bucket.iter().all(|&other| hashes[other] != hash) {
                    bucket.push(index);
                }
            }
            let mut order: Vec<_> = (0..self.seeds as usize).filter(|&bucket| !buckets[bucket].is_empty()).collect();
            order.sort_by_key(|&bucket| Reverse(buckets[bucket].len()));

            let mut taken = vec![false; self.slots as usize];
            let mut places = Places { seeds: vec![0; self.seeds as usize], slots: vec![None; hashes.len()] };
            for bucket in order {
                let keys = &buckets[bucket];
                let Some(seed) = (0..TRIES).find(|&seed| self.fits(keys, hashes, seed, &taken)) else {
                    continue;
                };
                places.seeds[bucket] = seed;
                for &key in keys {
                    let slot = self.slot(hashes[key], seed);
                    taken[slot as usize] = true;
                    places.slots[key] = Some(slot);
                }
            }
            places
        }

        /// Whether the seed gives each of the keys a free slot of its own.
        fn fits(self, keys: &[usize], hashes: &[u64], seed: u32, taken: &[bool]) -> bool {
            keys.iter().enumerate().all(|(position, &key)| {
                let own = self.slot(hashes[key], seed);
                !taken[own as usize] && keys[..position].iter().all(|&other| self.slot(hashes[other], seed) != own)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeSet, vec::Vec};

    use super::*;
    use crate::{maps::NAME_BYTES, name};

    const MAX_NAMES: usize = NAMES.most();

    fn hashes(count: usize) -> Vec<u64> {
        let hash = |index: usize| {
            let mut bytes = [0; NAME_BYTES];
            let label = alloc::format!("\u{7}w{index:06}\u{4}shop\u{7}example");
            bytes[..label.len()].copy_from_slice(label.as_bytes());
            name::hash(&bytes, label.len() + 1)
        };
        (0..count).map(hash).collect()
    }

    #[test]
    fn every_name_has_a_slot_of_its_own_up_to_the_limit() {
        for count in [0, 1, 100, MAX_NAMES] {
            let hashes = hashes(count);
            let places = NAMES.place(&hashes);
            let slots: BTreeSet<_> = places.slots.iter().flatten().collect();
            assert_eq!(slots.len(), count);
            for (hash, place) in hashes.iter().zip(&places.slots) {
                assert_eq!(Some(NAMES.slot(*hash, places.seeds[NAMES.bucket(*hash) as usize])), *place);
            }
        }
    }

    #[test]
    fn names_beyond_the_limit_and_a_hash_that_is_taken_have_no_slot() {
        let mut hashes = hashes(MAX_NAMES + 2);
        hashes[7] = hashes[3];
        let places = NAMES.place(&hashes);
        let left: Vec<_> = (0..hashes.len()).filter(|&index| places.slots[index].is_none()).collect();
        assert_eq!(left, [7, MAX_NAMES, MAX_NAMES + 1]);
    }
}
