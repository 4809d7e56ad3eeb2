//! What is written, in which order, and who keeps which index.

use siteswap_common::maps::ADDRESS_SLOTS;

use super::*;
use crate::{config::Protocol, nexthop::Unresolved};

/// The maps, as the program reads them.
#[derive(Clone, Default)]
struct Maps {
    instances: BTreeMap<u32, InstanceEntry>,
    chunks: BTreeMap<u32, RingChunk>,
    targets: BTreeMap<u32, Target>,
}

impl Maps {
    /// Writes one entry after the other. After each one nothing may refer to what is not there.
    fn apply(&mut self, writes: &Writes) {
        for write in writes.before.iter().chain(&writes.after) {
            self.write_one(write);
            self.instances.values().for_each(|entry| drop(self.backends(entry)));
        }
    }

    fn write(&mut self, writes: &Writes) {
        writes.before.iter().chain(&writes.after).for_each(|write| self.write_one(write));
    }

    fn write_one(&mut self, write: &Write) {
        match *write {
            Write::Instance(index, entry) => drop(self.instances.insert(index, entry)),
            Write::Chunk(index, chunk) => drop(self.chunks.insert(index, chunk)),
            Write::Target(index, target) => drop(self.targets.insert(index, target)),
        }
    }

    /// The backends of an instance's table, by how many of its entries they have.
    fn backends(&self, entry: &InstanceEntry) -> BTreeMap<[u8; 16], u32> {
        let mut shares = BTreeMap::new();
        for position in 0..entry.ring_size {
            let chunk = &self.chunks[&(entry.ring + position / RING_CHUNK)];
            let target = &self.targets[&chunk.targets[(position % RING_CHUNK) as usize].into()];
            assert_eq!((target.kind, target.owner), (TargetKind::Backend as u32, entry.id));
            *shares.entry(target.address).or_default() += 1;
        }
        shares
    }

    fn instance(&self, resource: &str) -> &InstanceEntry {
        self.instances.values().find(|entry| entry.id == tables::id(resource)).expect("an instance")
    }

    fn served_by(&self, resource: &str) -> Vec<[u8; 16]> {
        self.backends(self.instance(resource)).into_keys().collect()
    }

    fn index_of(&self, resource: &str, address: &str) -> u32 {
        let found = self.targets.iter().find(|(_, target)| {
            target.owner == tables::id(resource) && target.address == mapped(address.parse().unwrap())
        });
        *found.expect("a target").0
    }
}

fn backend(address: &str, up: bool) -> Backend {
    Backend { address: address.parse().unwrap(), weight: 1, up }
}

fn resource(arrival: Arrival, backends: &[Backend]) -> Resource {
    Resource {
        addresses: vec!["192.0.2.80".parse().unwrap(), "2001:db8::80".parse().unwrap()],
        ports: vec![Port { protocol: Protocol::Tcp, number: 80 }],
        epoch: 3,
        arrival,
        leaving: None,
        backends: backends.to_vec(),
    }
}

fn requests(resources: &[(&str, Resource)]) -> Requests {
    Requests {
        resources: resources.iter().map(|(name, resource)| ((*name).to_owned(), resource.clone())).collect(),
        own_tunnel: Some("10.255.0.1".parse().unwrap()),
        tunnels: [("west".to_owned(), "10.255.0.2:7401".parse().unwrap())].into(),
    }
}

fn hop(gateway: Option<&str>) -> Result<Hop, Unresolved> {
    Ok(Hop {
        interface: 7,
        name: "lan0".to_owned(),
        source_mac: [2; 6],
        mac: [3; 6],
        mtu: 1500,
        source: "10.1.0.1".parse().unwrap(),
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
    })
}

fn hops() -> Hops {
    ["10.1.0.11", "10.1.0.12", "10.1.0.13", "10.255.0.2"].map(|text| (text.parse().unwrap(), hop(None))).into()
}

fn two_up() -> Resource {
    resource(Arrival::Serve, &[backend("10.1.0.11", true), backend("10.1.0.12", true)])
}

fn first_down() -> Resource {
    resource(Arrival::Serve, &[backend("10.1.0.11", false), backend("10.1.0.12", true)])
}

#[test]
fn backends_share_the_table_and_what_did_not_change_is_not_written() {
    let (mut register, mut maps) = (Register::default(), Maps::default());
    let requests = requests(&[("www", two_up())]);
    maps.apply(&register.compile(&requests, &hops()));
    let shares = maps.backends(maps.instance("www"));
    assert_eq!(shares.len(), 2);
    assert!(shares.values().all(|share| share.abs_diff(maps.instance("www").ring_size / 2) <= 2), "{shares:?}");
    assert_eq!(register.compile(&requests, &hops()), Writes::default());
}

#[test]
fn a_backend_that_fails_leaves_the_table_before_it_is_closed_and_keeps_its_index() {
    let (mut register, mut maps) = (Register::default(), Maps::default());
    maps.apply(&register.compile(&requests(&[("www", two_up())]), &hops()));
    let index = maps.index_of("www", "10.1.0.11");
    let writes = register.compile(&requests(&[("www", first_down())]), &hops());
    assert!(matches!(writes.after[..], [Write::Target(closed, Target { kind: 0, .. })] if closed == index));
    maps.apply(&writes);
    assert_eq!(maps.served_by("www"), [mapped("10.1.0.12".parse().unwrap())]);
    maps.apply(&register.compile(&requests(&[("www", two_up())]), &hops()));
    assert_eq!(maps.index_of("www", "10.1.0.11"), index);
    assert_eq!(maps.targets[&index].generation, 1, "its flows are still its own");
}

#[test]
fn weights_are_shares() {
    let (mut register, mut maps) = (Register::default(), Maps::default());
    let mut www = two_up();
    www.backends[1].weight = 3;
    maps.apply(&register.compile(&requests(&[("www", www)]), &hops()));
    let shares: Vec<u32> = maps.backends(maps.instance("www")).into_values().collect();
    assert!(shares[1].abs_diff(3 * shares[0]) <= 4, "{shares:?}");
}

#[test]
fn a_backend_that_cannot_be_reached_directly_is_not_used() {
    let (mut register, mut maps) = (Register::default(), Maps::default());
    let mut hops = hops();
    hops.insert("10.1.0.11".parse().unwrap(), Err(Unresolved::NoRoute));
    hops.insert("10.1.0.12".parse().unwrap(), hop(Some("10.1.0.254")));
    maps.apply(&register.compile(&requests(&[("www", two_up())]), &hops));
    assert_eq!(maps.instance("www").ring_size, 0);
}

#[test]
fn an_index_that_is_given_away_again_has_another_generation() {
    let (mut register, mut maps) = (Register::default(), Maps::default());
    maps.apply(&register.compile(&requests(&[("www", two_up())]), &hops()));
    let old = maps.index_of("www", "10.1.0.11");
    let other = resource(Arrival::Serve, &[backend("10.1.0.12", true), backend("10.1.0.13", true)]);
    maps.apply(&register.compile(&requests(&[("www", other)]), &hops()));
    assert_ne!(maps.index_of("www", "10.1.0.13"), old, "not soon");
    register.next = old;
    maps.apply(&register.compile(&requests(&[("www", two_up())]), &hops()));
    assert_eq!(maps.index_of("www", "10.1.0.11"), old);
    assert_eq!(maps.targets[&old].generation, 2);
}

#[test]
fn an_index_that_is_free_since_this_very_change_is_given_away_with_the_next() {
    let (mut register, mut maps) = (Register::default(), Maps::default());
    maps.apply(&register.compile(&requests(&[("www", two_up())]), &hops()));
    register.next = maps.index_of("www", "10.1.0.11");
    let other = resource(Arrival::Serve, &[backend("10.1.0.12", true), backend("10.1.0.13", true)]);
    maps.apply(&register.compile(&requests(&[("www", other)]), &hops()));
    assert_eq!(maps.served_by("www").len(), 2);
}

#[test]
fn a_restarted_agent_finds_every_index_where_it_was() {
    let (mut register, mut maps) = (Register::default(), Maps::default());
    let requests = requests(&[("orders", resource(Arrival::Forward("west".into()), &[])), ("www", two_up())]);
    maps.apply(&register.compile(&requests, &hops()));
    let before = maps.clone();
    let mut found = Register::found(maps.instances.clone(), maps.targets.clone());
    maps.apply(&found.compile(&requests, &hops()));
    assert_eq!(maps.targets, before.targets);
    assert_eq!(maps.instances.keys().collect::<Vec<_>>(), before.instances.keys().collect::<Vec<_>>());
    assert_eq!(maps.instance("www").ring, before.instance("www").ring);
    assert_eq!(maps.backends(maps.instance("www")), before.backends(before.instance("www")));
}

#[test]
fn forwarding_and_leaving_name_the_peers_target() {
    let (mut register, mut maps) = (Register::default(), Maps::default());
    let swapped = Resource { leaving: Some(Leaving::Peer("west".into())), ..two_up() };
    let leaving = Resource { leaving: Some(Leaving::Here), ..resource(Arrival::Forward("west".into()), &[]) };
    let requests = requests(&[("orders", leaving), ("www", swapped)]);
    maps.apply(&register.compile(&requests, &hops()));
    let (orders, www) = (maps.instance("orders"), maps.instance("www"));
    assert_eq!((orders.steer, orders.stay, orders.leaving, orders.epoch), (Steer::Forward as u32, 1, 0, 3));
    assert_eq!((www.steer, www.stay, www.peer), (Steer::Serve as u32, 0, 0));
    assert_eq!(orders.peer, www.leaving);
    let west = maps.targets[&orders.peer];
    assert_eq!((west.kind, west.mtu, west.port), (TargetKind::Peer as u32, 1456, 7401));
    assert_eq!((west.source, west.destination), ([10, 255, 0, 1], [10, 255, 0, 2]));
}

#[test]
fn a_request_for_another_site_is_left_to_the_host_where_no_tunnel_leads_there() {
    let (mut register, mut maps) = (Register::default(), Maps::default());
    let mut requests = requests(&[("reports", resource(Arrival::Forward("west".into()), &[]))]);
    requests.tunnels.clear();
    maps.apply(&register.compile(&requests, &hops()));
    assert_eq!(maps.instance("reports").steer, Steer::Pass as u32);
}

#[test]
fn a_resource_that_is_gone_leaves_nothing() {
    let (mut register, mut maps) = (Register::default(), Maps::default());
    maps.apply(&register.compile(&requests(&[("api", two_up()), ("www", two_up())]), &hops()));
    maps.apply(&register.compile(&requests(&[("www", two_up())]), &hops()));
    assert_eq!(maps.instances.values().filter(|entry| entry.id != 0).count(), 1);
    let used = |target: &&Target| target.kind == TargetKind::Backend as u32;
    assert_eq!(maps.targets.values().filter(used).count(), 2);
}

#[test]
fn tables_of_many_resources_do_not_overlap() {
    let (mut register, mut maps) = (Register::default(), Maps::default());
    let names: Vec<String> = (0..200).map(|index| format!("r{index}")).collect();
    for up in [true, false, true] {
        let www = if up { two_up() } else { first_down() };
        let resources: Vec<(&str, Resource)> = names.iter().map(|name| (name.as_str(), www.clone())).collect();
        maps.apply(&register.compile(&requests(&resources), &hops()));
        for name in &names {
            assert_eq!(maps.served_by(name).len(), if up { 2 } else { 1 });
        }
    }
}

/// The program has room for one table of each size that this many resources need, and no more.
#[test]
fn many_tables_are_made_anew_together_where_there_is_no_room_for_both() {
    let names: Vec<String> = (0..10_000).map(|index| format!("r{index}")).collect();
    let all = |www: &Resource| requests(&names.iter().map(|name| (name.as_str(), www.clone())).collect::<Vec<_>>());
    let none_up = resource(Arrival::Serve, &[backend("10.1.0.11", false), backend("10.1.0.12", false)]);
    let (mut register, mut maps) = (Register::default(), Maps::default());
    for (www, up) in [(two_up(), 2), (first_down(), 1), (none_up, 0), (two_up(), 2)] {
        maps.write(&register.compile(&all(&www), &hops()));
        let served = maps.instances.values().map(|entry| maps.backends(entry).len());
        assert_eq!(served.filter(|backends| *backends == up).count(), 10_000, "{up} of two are up");
    }
    let mut found = Register::found(maps.instances.clone(), maps.targets.clone());
    maps.write(&found.compile(&all(&first_down()), &hops()));
    assert!(maps.instances.values().all(|entry| maps.backends(entry).len() == 1), "and after a restart");
}

#[test]
fn where_there_is_no_room_for_a_table_of_the_right_size_a_smaller_one_serves() {
    let three = [backend("10.1.0.11", true), backend("10.1.0.12", true), backend("10.1.0.13", true)];
    let names: Vec<String> = (0..4_200).map(|index| format!("r{index}")).collect();
    let all = |www: &Resource| requests(&names.iter().map(|name| (name.as_str(), www.clone())).collect::<Vec<_>>());
    let (mut register, mut maps) = (Register::default(), Maps::default());
    maps.write(&register.compile(&all(&two_up()), &hops()));
    maps.write(&register.compile(&all(&resource(Arrival::Serve, &three)), &hops()));
    assert!(maps.instances.values().all(|entry| maps.backends(entry).len() == 3));
}

#[test]
fn every_address_is_found_by_its_hash() {
    let mut register = Register::default();
    let requests = requests(&[("www", two_up())]);
    register.compile(&requests, &hops());
    let Addresses { entries, seeds, left } = addresses(&register.claims(&requests));
    assert_eq!((entries.len(), left), (2, Vec::new()));
    for (slot, entry) in entries {
        assert!(slot < ADDRESS_SLOTS);
        let hash = entry.hash();
        assert_eq!(ADDRESSES.slot(hash, seeds[ADDRESSES.bucket(hash) as usize]), slot);
        assert_eq!((entry.port_count, entry.ports[0].port, entry.ports[0].protocol), (1, 80, 6));
        assert_eq!(entry.instance_id, tables::id("www"));
    }
}

#[test]
fn what_there_is_no_room_for_is_told_with_how_much_there_is() {
    let many = |count: u32| -> Vec<_> { (0..count).map(|n| Ipv4Addr::from(0x0a01_0000 + n).into()).collect() };
    let resource = |addresses: u32, backends: u32| Resource {
        addresses: many(addresses),
        backends: many(backends).into_iter().map(|address| Backend { address, weight: 1, up: true }).collect(),
        ..two_up()
    };
    // 656 backends are the fewest with the largest table: 4,096 of the 65,536 parts.
    for (count, addresses, backends, told) in [
        (16, 3_584, 656, vec![]),
        (17, 1, 656, vec!["the backends' tables need 4456448 entries, but the program has 4194304"]),
        // And the peer.
        (5, 1, 13_107, vec!["backends and peers need 65536 entries, but the program has 65535"]),
        (2, 28_673, 1, vec!["the resources' addresses need 57346 entries, but the program has 57344"]),
    ] {
        let names: Vec<_> = (0..count).map(|n| n.to_string()).collect();
        let all: Vec<_> = names.iter().map(|name| (name.as_str(), resource(addresses, backends))).collect();
        let crowded = requests(&all).crowded();
        assert_eq!(crowded.len(), told.len(), "{crowded:?}");
        assert!(crowded.iter().zip(told).all(|(says, told)| says.starts_with(told)), "{crowded:?}");
    }
}
