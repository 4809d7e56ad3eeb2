//! Where each name is in the map behind `NAMES`: a hash table without collisions, so that a look-up reads one entry
//! and searches nothing. Hash and displace (R. Pagh, WADS 1999): names are thrown into buckets by hash, and each bucket
//! has a seed with which all of its names fall into free slots, the fullest bucket first.

use crate::maps::{NAME_SEEDS, NAME_SLOTS};

/// The index in `SEEDS` for a name's hash.
#[inline(always)]
pub const fn bucket(hash: u64) -> u32 {
    (hash >> 32) as u32 % NAME_SEEDS
}

/// The index in `NAMES` for a name's hash and its bucket's seed.
#[inline(always)]
pub const fn slot(hash: u64, seed: u32) -> u32 {
    let mixed = (hash ^ seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 40) as u32 % NAME_SLOTS
}

#[cfg(any(test, feature = "user"))]
pub use self::build::{Places, place};

#[cfg(any(test, feature = "user"))]
mod build {
    use alloc::{vec, vec::Vec};
    use core::cmp::Reverse;

    use super::{bucket, slot};
    use crate::maps::{MAX_NAMES, NAME_SEEDS, NAME_SLOTS};

    /// Seeds tried for a bucket. Of those for a full table's last name, one in eight is right.
    const TRIES: u32 = 1 << 16;

    /// A table's layout.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Places {
        /// What is in `SEEDS`.
        pub seeds: Vec<u32>,
        /// For each hash, in the order given, its index in `NAMES`. `None`: another one is the same, or there are more
        /// than [`MAX_NAMES`].
        pub slots: Vec<Option<u32>>,
    }

    /// Finds places for names by their hashes. The same hashes in the same order get the same places.
    pub fn place(hashes: &[u64]) -> Places {
        let mut buckets = vec![Vec::new(); NAME_SEEDS as usize];
        for (index, &hash) in hashes.iter().enumerate().take(MAX_NAMES) {
            let bucket: &mut Vec<usize> = &mut buckets[bucket(hash) as usize];
            if bucket.iter().all(|&other| hashes[other] != hash) {
                bucket.push(index);
            }
        }
        let mut order: Vec<_> = (0..NAME_SEEDS as usize).filter(|&bucket| !buckets[bucket].is_empty()).collect();
        order.sort_by_key(|&bucket| Reverse(buckets[bucket].len()));

        let mut taken = vec![false; NAME_SLOTS as usize];
        let mut places = Places { seeds: vec![0; NAME_SEEDS as usize], slots: vec![None; hashes.len()] };
        for bucket in order {
            let names = &buckets[bucket];
            let Some(seed) = (0..TRIES).find(|&seed| fits(names, hashes, seed, &taken)) else {
                continue;
            };
            places.seeds[bucket] = seed;
            for &name in names {
                let slot = slot(hashes[name], seed);
                taken[slot as usize] = true;
                places.slots[name] = Some(slot);
            }
        }
        places
    }

    /// Whether the seed gives each of the names a free slot of its own.
    fn fits(names: &[usize], hashes: &[u64], seed: u32, taken: &[bool]) -> bool {
        names.iter().enumerate().all(|(position, &name)| {
            let own = slot(hashes[name], seed);
            !taken[own as usize] && names[..position].iter().all(|&other| slot(hashes[other], seed) != own)
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeSet, vec::Vec};

    use super::*;
    use crate::{
        maps::{MAX_NAMES, NAME_BYTES},
        name,
    };

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
            let places = place(&hashes);
            let slots: BTreeSet<_> = places.slots.iter().flatten().collect();
            assert_eq!(slots.len(), count);
            for (hash, place) in hashes.iter().zip(&places.slots) {
                assert_eq!(Some(slot(*hash, places.seeds[bucket(*hash) as usize])), *place);
            }
        }
    }

    #[test]
    fn names_beyond_the_limit_and_a_hash_that_is_taken_have_no_slot() {
        let mut hashes = hashes(MAX_NAMES + 2);
        hashes[7] = hashes[3];
        let places = place(&hashes);
        let left: Vec<_> = (0..hashes.len()).filter(|&index| places.slots[index].is_none()).collect();
        assert_eq!(left, [7, MAX_NAMES, MAX_NAMES + 1]);
    }
}
