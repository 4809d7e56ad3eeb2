//! From the compiled answers to the maps' entries. Pure: nothing here touches the kernel.

use std::collections::{BTreeMap, BTreeSet};

use hickory_proto::{rr::LowerName, serialize::binary::BinEncodable};
use siteswap_common::{
    answers,
    maps::{self, NameEntry},
    name,
    placing::{NAMES, Places},
};

use crate::answers::{AnswerSet, AnswerTable};

/// Which index of the map behind `ANSWERS[0]` each set has, by [`id`]. A resource keeps its index as long as it is
/// configured, so that names published earlier stay right when a new table comes, even from a restarted agent.
pub type Slots = BTreeMap<u64, u32>;

/// What goes into the map behind `ANSWERS[0]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// By index; unused ones are `None`.
    pub sets: Vec<Option<maps::AnswerSet>>,
    /// For the next compilation.
    pub slots: Slots,
    /// Each resource's id and index, in the table's order: what names are compiled from.
    pub owners: Vec<(u64, u32)>,
}

/// What goes into the maps behind `NAMES` and `SEEDS`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// By slot.
    pub entries: Vec<(u32, NameEntry)>,
    /// By bucket: what leads a name to its slot.
    pub seeds: Vec<u32>,
    /// Names that stay with the agent's server, and why.
    pub left: Vec<(LowerName, Left)>,
}

/// Why a name is not in the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Longer than the map's entry.
    TooLong,
    /// Another configured name has its hash, or there are too many names.
    NoSlot,
    /// Its resource is one too many for the map.
    NoSet,
}

/// Compiles the answers of `table`, keeping the indices in `slots` for resources that are still there.
pub fn sets(table: &AnswerTable, slots: &Slots) -> Sets {
    let ids: Vec<_> = table.sets.iter().map(|set| id(&set.resource)).collect();
    let slots = assign(&ids, slots);
    let length = slots.values().max().map_or(0, |&highest| highest as usize + 1).min(maps::SETS as usize);
    let mut sets = vec![None; length];
    for (set, id) in table.sets.iter().zip(&ids) {
        if let Some(slot) = sets.get_mut(slots[id] as usize) {
            *slot = Some(entry(set, *id));
        }
    }
    let owners = ids.iter().map(|id| (*id, slots[id])).collect();
    Sets { sets, slots, owners }
}

/// Compiles the names of `table`; `owners` are those of its sets.
pub fn names(table: &AnswerTable, owners: &[(u64, u32)]) -> Names {
    let (mut entries, mut left) = (Vec::new(), Vec::new());
    for (owner, &index) in table.names.iter() {
        let (id, set) = owners[index];
        match wire(owner).and_then(|wire| name::entry(&wire, set, id)) {
            _ if set >= maps::SETS => left.push((owner.clone(), Left::NoSet)),
            None => left.push((owner.clone(), Left::TooLong)),
            Some((hash, entry)) => entries.push((owner, hash, entry)),
        }
    }
    let hashes: Vec<_> = entries.iter().map(|(_, hash, _)| *hash).collect();
    let Places { seeds, slots } = NAMES.place(&hashes);
    let mut names = Names { entries: Vec::new(), seeds, left };
    for ((owner, _, entry), slot) in entries.into_iter().zip(slots) {
        match slot {
            Some(slot) => names.entries.push((slot, entry)),
            None => names.left.push((owner.clone(), Left::NoSlot)),
        }
    }
    names
}

/// Names a resource: FNV-1a, 64 bits, of the resource's name. The same in every run, and never zero.
pub fn id(resource: &str) -> u64 {
    let hash = resource
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash.max(1)
}

/// Indices for `ids`: the old ones where there are, otherwise the lowest that no set in the new table has.
pub fn assign(ids: &[u64], old: &Slots) -> Slots {
    let mut slots: Slots = ids.iter().filter_map(|id| Some((*id, *old.get(id)?))).collect();
    let taken: BTreeSet<_> = slots.values().copied().collect();
    let mut free = (0..).filter(|slot| !taken.contains(slot));
    for id in ids {
        slots.entry(*id).or_insert_with(|| free.next().expect("more indices than resources"));
    }
    slots
}

/// The entry for one set. With more addresses than fit it has none, and the agent's server answers.
fn entry(set: &AnswerSet, id: u64) -> maps::AnswerSet {
    let v4: Vec<_> = set.v4().map(|address| address.octets()).collect();
    let v6: Vec<_> = set.v6().map(|address| address.octets()).collect();
    answers::set(id, set.ttl, &v4, &v6)
        .or_else(|| answers::set(id, set.ttl, &[], &[]))
        .expect("no addresses always fit")
}

fn wire(name: &LowerName) -> Option<Vec<u8>> {
    name.to_bytes().ok()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn table(resources: &[(&str, &[&str])]) -> AnswerTable {
        let mut table = AnswerTable::default();
        for (index, (resource, names)) in resources.iter().enumerate() {
            table.sets.push(AnswerSet {
                resource: (*resource).to_owned(),
                ttl: 30,
                addresses: vec!["192.0.2.80".parse::<IpAddr>().unwrap(), "2001:db8::80".parse().unwrap()],
                all_down: None,
            });
            for name in *names {
                std::sync::Arc::make_mut(&mut table.names).insert(LowerName::new(&name.parse().unwrap()), index);
            }
        }
        table
    }

    fn compile(table: &AnswerTable, slots: &Slots) -> (Sets, Names) {
        let sets = sets(table, slots);
        let names = names(table, &sets.owners);
        (sets, names)
    }

    fn sets_of(names: &Names, resource: &str) -> Vec<u32> {
        names.entries.iter().filter(|(_, entry)| entry.set_id == id(resource)).map(|(_, entry)| entry.set).collect()
    }

    #[test]
    fn each_name_points_at_its_resources_set() {
        let table = table(&[("www", &["www.shop.test."]), ("orders", &["orders.shop.test.", "o.shop.test."])]);
        let (Sets { sets, .. }, names) = compile(&table, &Slots::new());
        assert_eq!(names.left, []);
        assert_eq!(names.entries.len(), 3);
        for (_, entry) in names.entries {
            let set = sets[entry.set as usize].unwrap();
            assert_eq!(set.id, entry.set_id);
            assert_eq!((set.v4_count, set.v6_count, set.ttl), (1, 1, 30));
            assert_eq!(set.v4[0], [192, 0, 2, 80]);
        }
    }

    #[test]
    fn a_resource_keeps_its_index_when_others_come_and_go() {
        let before = compile(&table(&[("a", &["a.test."]), ("b", &["b.test."]), ("c", &["c.test."])]), &Slots::new());
        let after = compile(&table(&[("d", &["d.test."]), ("c", &["c.test."]), ("e", &["e.test."])]), &before.0.slots);
        assert_eq!(sets_of(&before.1, "c"), [2]);
        assert_eq!(sets_of(&after.1, "c"), [2]);
        // The freed indices are used again, for sets with other ids: the names that pointed there match nothing.
        assert_eq!(sets_of(&after.1, "d"), [0]);
        assert_eq!(sets_of(&after.1, "e"), [1]);
        for (_, entry) in before.1.entries {
            let now = after.0.sets[entry.set as usize].unwrap();
            assert!(now.id != entry.set_id || entry.set == 2);
        }
    }

    #[test]
    fn a_restarted_agent_with_the_same_configuration_makes_the_same_maps() {
        let table = table(&[("www", &["www.shop.test."]), ("orders", &["orders.shop.test."])]);
        assert_eq!(compile(&table, &Slots::new()), compile(&table, &Slots::new()));
    }

    #[test]
    fn a_set_without_addresses_goes_up() {
        let mut table = table(&[("www", &["www.shop.test."])]);
        table.sets[0].addresses.clear();
        let set = sets(&table, &Slots::new()).sets[0].unwrap();
        assert_eq!((set.v4_count, set.v6_count), (0, 0));
    }

    #[test]
    fn names_too_long_for_the_map_stay_with_the_server() {
        let label = "a".repeat(60);
        let long = format!("{label}.{label}.{label}.test.");
        let (_, names) = compile(&table(&[("www", &[&long, "www.shop.test."])]), &Slots::new());
        assert_eq!(names.entries.len(), 1);
        assert_eq!(names.left, [(LowerName::new(&long.parse().unwrap()), Left::TooLong)]);
    }
}
