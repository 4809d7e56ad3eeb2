//! Which backend serves a flow: the look-up table of Maglev (Eisenbud et al., NSDI 2016, section 3.4). A flow's hash picks
//! an entry. Each backend has its own order of preference over the entries, and they take turns in choosing; so when one
//! leaves, hardly more flows change their backend than it had, whatever was in the table before, and every agent with the
//! same backends makes the same table.

use std::net::SocketAddr;

/// Entries for each backend, at least: their shares then differ by a hundredth of a share.
const ENTRIES_EACH: usize = 100;

/// Primes, so that every step leads through all entries; each below a power of four.
const SIZES: [usize; 6] = [251, 1_021, 4_093, 16_381, 65_521, 262_139];

/// A backend and its weight: its share of the flows, in proportion to the others'. With weight 0 it gets none.
pub type Weighted = (SocketAddr, u32);

/// Entries in a table for so many backends. To be asked with all that are configured, not with those that are up: a table
/// of another size is another table altogether.
pub fn size(configured: usize) -> usize {
    let wanted = configured.saturating_mul(ENTRIES_EACH);
    let [.., largest] = SIZES;
    SIZES.into_iter().find(|&size| size >= wanted).unwrap_or(largest)
}

/// The table of `size` entries, a prime: for each, the index in `backends`. Empty if none has a weight. The order of
/// `backends` makes no difference.
pub fn table(backends: &[Weighted], size: usize) -> Vec<u32> {
    let mut choosers = choosers(backends, size);
    let Some(most) = choosers.iter().map(|chooser| chooser.weight).max() else {
        return Vec::new();
    };
    let mut entries = vec![None; size];
    let mut free = size;
    loop {
        for chooser in &mut choosers {
            // The heaviest chooses in each round, the others in as many as their weight allows.
            chooser.credit += chooser.weight;
            if chooser.credit < most {
                continue;
            }
            chooser.credit -= most;
            let entry = chooser.choose(&entries);
            entries[entry] = Some(chooser.backend);
            free -= 1;
            if free == 0 {
                return entries.into_iter().flatten().collect();
            }
        }
    }
}

/// A backend at the table.
struct Chooser {
    backend: u32,
    weight: u64,
    credit: u64,
    /// The entry it would like next.
    next: usize,
    /// From there to the one after.
    step: usize,
}

impl Chooser {
    /// The first entry in its order that is free. There must be one.
    fn choose(&mut self, entries: &[Option<u32>]) -> usize {
        loop {
            let entry = self.next;
            self.next = (entry + self.step) % entries.len();
            if entries[entry].is_none() {
                return entry;
            }
        }
    }
}

/// Those with a weight, in an order that depends on nothing but themselves.
fn choosers(backends: &[Weighted], size: usize) -> Vec<Chooser> {
    let mut hashed: Vec<_> =
        (0..).zip(backends).map(|(index, (address, weight))| (hash(address), index, *weight)).collect();
    hashed.retain(|(_, _, weight)| *weight > 0);
    hashed.sort_unstable();
    let below = |hash: u64, limit: usize| usize::try_from(hash % limit as u64).expect("below a usize");
    let one = |(hash, backend, weight): (u64, u32, u32)| Chooser {
        backend,
        weight: weight.into(),
        credit: 0,
        next: below(hash, size),
        step: 1 + below(mix(hash), size - 1),
    };
    hashed.into_iter().map(one).collect()
}

fn hash(address: &SocketAddr) -> u64 {
    let (octets, port) = match address {
        SocketAddr::V4(address) => (address.ip().to_ipv6_mapped().octets(), address.port()),
        SocketAddr::V6(address) => (address.ip().octets(), address.port()),
    };
    let [high, low] = [0, 8].map(|at| u64::from_be_bytes(octets[at..at + 8].try_into().expect("eight octets")));
    [high, low, port.into()].into_iter().fold(0, |hash, part| mix(hash ^ part))
}

/// The output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn backends(count: u32) -> Vec<Weighted> {
        (0..count).map(|index| (SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + index), 80)), 1)).collect()
    }

    fn shares(table: &[u32], backends: usize) -> Vec<usize> {
        let mut shares = vec![0; backends];
        table.iter().for_each(|&backend| shares[backend as usize] += 1);
        shares
    }

    #[test]
    fn every_backend_gets_its_share() {
        for count in [1, 2, 3, 100, 1_000] {
            let table = table(&backends(count), size(count as usize));
            let shares = shares(&table, count as usize);
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(most - least <= 1, "{count}: {least} to {most}");
        }
    }

    #[test]
    fn a_weight_is_a_share() {
        let mut backends = backends(4);
        backends.iter_mut().zip([0, 1, 2, 5]).for_each(|(backend, weight)| backend.1 = weight);
        let table = table(&backends, 4_093);
        let expected = [0, 1, 2, 5].map(|weight| 4_093 * weight / 8);
        for (share, expected) in shares(&table, 4).into_iter().zip(expected) {
            assert!(share.abs_diff(expected) <= 2, "{share} instead of {expected}");
        }
    }

    #[test]
    fn when_one_of_a_hundred_leaves_hardly_any_other_flow_moves() {
        let before = backends(100);
        let table_before = table(&before, size(100));
        for gone in [0, 42, 99] {
            let mut after = before.clone();
            after[gone].1 = 0;
            let table_after = table(&after, size(100));
            let moved = table_before.iter().zip(&table_after).filter(|(b, a)| b != a && **b as usize != gone).count();
            assert!(moved * 50 < size(100), "{moved} of {} entries moved without need", size(100));
        }
    }

    #[test]
    fn without_backends_there_is_no_table() {
        assert!(table(&[], 251).is_empty());
        let idle: Vec<_> = backends(3).into_iter().map(|(address, _)| (address, 0)).collect();
        assert!(table(&idle, 251).is_empty());
    }

    #[test]
    fn a_table_has_a_hundred_entries_for_each_backend_up_to_the_largest() {
        assert_eq!([0, 2, 3, 10, 655, 1_000, 100_000].map(size), [251, 251, 1_021, 1_021, 65_521, 262_139, 262_139]);
    }

    proptest! {
        #[test]
        fn the_order_of_backends_makes_no_difference(
            weights in prop::collection::vec(0_u32..5, 1..20), seed in any::<prop::sample::Index>(),
        ) {
            let one: Vec<_> = backends(20).into_iter().zip(&weights).map(|((address, _), &weight)| (address, weight)).collect();
            let mut other = one.clone();
            other.rotate_left(seed.index(one.len()));
            let names = |backends: &[Weighted]| table(backends, 1_021).into_iter().map(|b| backends[b as usize].0).collect::<Vec<_>>();
            prop_assert_eq!(names(&one), names(&other));
        }
    }
}
