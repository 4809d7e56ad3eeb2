//! The program's life on a real interface: attached, fed, replaced, left behind, found again, taken away.

mod dataplane_support;

use std::{net::Ipv4Addr, time::Duration};

use dataplane_support::*;
use siteswap::{
    config::{Mode, Port, Protocol},
    dataplane::{
        Attachment, Dataplane,
        requests::{Arrival, Backend, Requests, Resource},
    },
    nexthop::{Hop, Hops},
};
use siteswap_common::{
    name,
    outcome::Outcome,
    placing::{ADDRESSES, NAMES},
    steer::address_hash,
};

/// The maps that are pinned, and a link.
fn pinned(link: &str) -> Vec<String> {
    const MAPS: [&str; 11] = [
        "ADDRESSES",
        "ADDRESS_SEEDS",
        "ANSWERS",
        "CONTROL",
        "COUNTERS",
        "FLOWS",
        "INSTANCES",
        "NAMES",
        "RINGS",
        "SEEDS",
        "TARGETS",
    ];
    MAPS.into_iter().chain([link]).map(str::to_owned).collect()
}

const WWW: &str = "www.shop.test.";
const EAST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
const WEST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 80);

#[test]
fn a_published_table_is_answered_by_the_program() {
    new_namespace();
    let (pins, client) = (Pins::new("published"), Client::start());
    let mut dataplane = started(&pins.config(&[INTERFACE]), EDGE);
    assert_eq!(dataplane.attachments(), [(INTERFACE.to_owned(), Attachment::Native)]);
    assert_eq!(client.ask(EDGE, WWW), None, "nothing is published");
    assert_eq!(counter(&dataplane, Outcome::UnknownName), 1);

    let first = dataplane.publish(&table(&[("www", WWW, EAST)])).unwrap();
    assert!(first.answers.is_some() && first.names.is_some());
    assert_eq!(client.ask(EDGE, "WWW.Shop.Test."), Some(EAST));
    assert_eq!(counter(&dataplane, Outcome::AnsweredA), 1);

    let second = dataplane.publish(&table(&[("www", WWW, WEST)])).unwrap();
    assert!(second.answers.is_some() && second.names.is_none(), "only the answers changed");
    assert_eq!(client.ask(EDGE, WWW), Some(WEST));

    let third = dataplane.publish(&table(&[("www", WWW, WEST)])).unwrap();
    assert!(third.answers.is_none() && third.names.is_none(), "nothing changed");
}

#[test]
fn the_program_stops_answering_when_the_lease_runs_out() {
    new_namespace();
    let (pins, client) = (Pins::new("lease"), Client::start());
    let mut dataplane = started(&pins.config(&[INTERFACE]), EDGE);
    dataplane.publish(&table(&[("www", WWW, EAST)])).unwrap();
    assert_eq!(client.ask(EDGE, WWW), Some(EAST));
    dataplane.renew_lease(Duration::ZERO).unwrap();
    assert_eq!(client.ask(EDGE, WWW), None);
    assert_eq!(counter(&dataplane, Outcome::NoLease), 1);
    dataplane.renew_lease(Duration::from_secs(60)).unwrap();
    assert_eq!(client.ask(EDGE, WWW), Some(EAST));
}

#[test]
fn an_agent_that_is_gone_leaves_the_program_answering_for_the_next() {
    new_namespace();
    let (pins, client) = (Pins::new("restart"), Client::start());
    let config = pins.config(&[INTERFACE]);
    let mut dataplane = started(&config, EDGE);
    dataplane.publish(&table(&[("www", WWW, EAST)])).unwrap();
    drop(dataplane);
    assert_eq!(client.ask(EDGE, WWW), Some(EAST), "nobody but the program");
    assert_eq!(pins.list(), pinned("link-native-42"));

    let before = xdp_on(INTERFACE);
    let mut dataplane = Dataplane::start(&config, &answering(&[EDGE.into()])).unwrap();
    assert_ne!(xdp_on(INTERFACE), before, "it is the new agent's program");
    assert_eq!(pins.list(), pinned("link-native-42"));
    assert_eq!(client.ask(EDGE, WWW), Some(EAST), "from the old table, in the old lease");
    assert_eq!(counter(&dataplane, Outcome::AnsweredA), 2, "the counters go on");

    // The new agent knows neither names nor order of the old one's resources, only their places.
    dataplane.publish(&table(&[("api", "api.shop.test.", WEST), ("www", WWW, EAST)])).unwrap();
    assert_eq!(client.ask(EDGE, WWW), Some(EAST));
    assert_eq!(client.ask(EDGE, "api.shop.test."), Some(WEST));
    assert_eq!(counter(&dataplane, Outcome::TableChanging), 0);
}

#[test]
fn what_an_earlier_agent_decided_gets_no_lease_from_the_next() {
    new_namespace();
    let (pins, client) = (Pins::new("stale"), Client::start());
    let config = pins.config(&[INTERFACE]);
    let mut dataplane = started(&config, EDGE);
    dataplane.publish(&table(&[("www", WWW, EAST)])).unwrap();
    dataplane.renew_lease(Duration::ZERO).unwrap();
    drop(dataplane);

    let mut dataplane = Dataplane::start(&config, &answering(&[EDGE.into()])).unwrap();
    dataplane.renew_lease(config.lease).unwrap();
    assert_eq!(client.ask(EDGE, WWW), None, "it has been told nothing");
    dataplane.publish(&table(&[("www", WWW, WEST)])).unwrap();
    dataplane.renew_lease(config.lease).unwrap();
    assert_eq!(client.ask(EDGE, WWW), None, "it does with requests what the earlier agent wanted");
    assert_eq!(counter(&dataplane, Outcome::NoLease), 2);
    dataplane.steer(&Requests::default(), &Hops::default()).unwrap();
    dataplane.renew_lease(config.lease).unwrap();
    assert_eq!(client.ask(EDGE, WWW), Some(WEST));
}

#[test]
fn replacing_the_program_and_its_tables_loses_no_query() {
    new_namespace();
    let (pins, client) = (Pins::new("replace"), Client::start());
    let config = pins.config(&[INTERFACE]);
    let mut dataplane = started(&config, EDGE);
    dataplane.publish(&table(&[("www", WWW, EAST)])).unwrap();
    let other = ("other", "other.shop.test.", WEST);
    let mut dataplane = Some(dataplane);
    let (asked, replies) = client.keep_asking(EDGE, WWW, || {
        for _ in 0..3 {
            drop(dataplane.take());
            let dataplane = dataplane.insert(Dataplane::start(&config, &answering(&[EDGE.into()])).unwrap());
            dataplane.publish(&table(&[other, ("www", WWW, EAST)])).unwrap();
            dataplane.reconfigure(&config, &answering(&[OTHER.into(), EDGE.into()])).unwrap();
            dataplane.publish(&table(&[("www", WWW, EAST)])).unwrap();
        }
    });
    assert_eq!(replies, [Some(EAST)], "of {asked}");
    let answered = counter(&dataplane.unwrap(), Outcome::AnsweredA);
    assert_eq!(answered, asked as u64);
}

#[test]
fn detaching_leaves_nothing() {
    new_namespace();
    let (pins, client) = (Pins::new("detach"), Client::start());
    let mut dataplane = started(&pins.config(&[INTERFACE]), EDGE);
    dataplane.publish(&table(&[("www", WWW, EAST)])).unwrap();
    assert!(!xdp_on(INTERFACE).is_empty());
    dataplane.detach().unwrap();
    assert_eq!(xdp_on(INTERFACE), "");
    assert!(gone(&pins.0));
    assert_eq!(client.ask(EDGE, WWW), None);
    assert!(!Dataplane::detach_pinned(&pins.0).unwrap(), "there is nothing any more");
}

#[test]
fn what_a_dead_agent_left_can_be_detached() {
    new_namespace();
    let (pins, _client) = (Pins::new("dead"), Client::start());
    drop(started(&pins.config(&[INTERFACE]), EDGE));
    assert!(!xdp_on(INTERFACE).is_empty());
    assert!(Dataplane::detach_pinned(&pins.0).unwrap());
    assert_eq!(xdp_on(INTERFACE), "");
    assert!(gone(&pins.0));
}

#[test]
fn reconfiguring_changes_the_addresses_and_the_interfaces() {
    new_namespace();
    let (pins, client) = (Pins::new("reconfigure"), Client::start());
    let mut dataplane = started(&pins.config(&[INTERFACE]), EDGE);
    dataplane.publish(&table(&[("www", WWW, EAST)])).unwrap();
    assert_eq!(client.ask(OTHER, WWW), None);

    let both = pins.config(&[INTERFACE, "lo"]);
    dataplane.reconfigure(&both, &answering(&[OTHER.into()])).unwrap();
    assert_eq!(client.ask(OTHER, WWW), Some(EAST));
    assert_eq!(client.ask(EDGE, WWW), None);

    dataplane.reconfigure(&pins.config(&["lo"]), &answering(&[OTHER.into()])).unwrap();
    assert_eq!(xdp_on(INTERFACE), "");
    assert!(!xdp_on("lo").is_empty());
    assert_eq!(pins.list(), pinned("link-generic-1"));
}

#[test]
fn another_number_of_flows_is_taken_while_the_program_runs() {
    new_namespace();
    let (pins, client) = (Pins::new("flows"), Client::start());
    let config = pins.config(&[INTERFACE]);
    let mut dataplane = started(&config, EDGE);
    dataplane.publish(&table(&[("www", WWW, EAST)])).unwrap();
    let sets = || run("bpftool", &["map", "show", "pinned", pins.file("FLOWS").to_str().unwrap()]);
    assert!(sets().contains("max_entries 16384 "), "{}", sets());

    let (asked, replies) = client.keep_asking(EDGE, WWW, || {
        let mut more = config.clone();
        more.flows = 1 << 18;
        dataplane.reconfigure(&more, &answering(&[EDGE.into()])).unwrap();
    });
    assert_eq!(replies, [Some(EAST)], "of {asked}");
    assert!(sets().contains("max_entries 32768 "), "{}", sets());
}

#[test]
fn an_interface_that_takes_only_generic_mode_has_all_others_use_it_too() {
    new_namespace();
    let (pins, client) = (Pins::new("modes"), Client::start());
    let config = pins.config(&[INTERFACE]);
    drop(started(&config, EDGE));
    assert_eq!(pins.list(), pinned("link-native-42"));
    ip("link add bridge0 type bridge");

    let both = pins.config(&[INTERFACE, "bridge0"]);
    let modes = [INTERFACE, "bridge0"].map(|name| (name.to_owned(), Attachment::Generic));
    let mut dataplane = started(&both, EDGE);
    assert_eq!(dataplane.attachments(), modes);
    assert!(pins.list().contains(&"link-generic-42".to_owned()), "{:?}", pins.list());
    dataplane.publish(&table(&[("www", WWW, EAST)])).unwrap();
    assert_eq!(client.ask(EDGE, WWW), Some(EAST));
    drop(dataplane);

    // The next agent leaves it there, and loses no query.
    let next = || drop(Dataplane::start(&both, &answering(&[EDGE.into()])).unwrap());
    let (_, replies) = client.keep_asking(EDGE, WWW, next);
    assert_eq!(replies, [Some(EAST)]);
    let mut native = config.clone();
    native.mode = Mode::Native;
    assert_eq!(started(&native, EDGE).attachments(), [(INTERFACE.to_owned(), Attachment::Native)]);
    assert_eq!(xdp_on("bridge0"), "");
}

#[test]
fn a_configuration_that_fails_changes_nothing() {
    new_namespace();
    let (pins, client) = (Pins::new("refused"), Client::start());
    let mut dataplane = started(&pins.config(&[INTERFACE]), EDGE);
    dataplane.publish(&table(&[("www", WWW, EAST)])).unwrap();
    // The loopback takes no native program, which shows only after the first interface has the new one.
    let mut config = pins.config(&[INTERFACE, "lo"]);
    config.mode = Mode::Native;
    config.flows = 8_192;
    let flows = || run("bpftool", &["map", "show", "pinned", pins.file("FLOWS").to_str().unwrap()]);
    let before = flows();
    dataplane.reconfigure(&config, &answering(&[OTHER.into()])).unwrap_err();
    assert_eq!(flows(), before, "the map that the program uses");
    assert_eq!(client.ask(EDGE, WWW), Some(EAST));
    assert_eq!(client.ask(OTHER, WWW), None);
    assert_eq!(pins.list(), pinned("link-native-42"));
    dataplane.publish(&table(&[("www", WWW, WEST)])).unwrap();
    assert_eq!(client.ask(EDGE, WWW), Some(WEST));
}

#[test]
fn a_link_of_an_interface_that_is_gone_is_replaced() {
    new_namespace();
    let pins = Pins::new("stale");
    let config = pins.config(&[INTERFACE]);
    {
        let _client = Client::start();
        drop(started(&config, EDGE));
        ip(&format!("link delete {INTERFACE}"));
    }
    let client = Client::start();
    assert_eq!(xdp_on(INTERFACE), "");
    let mut dataplane = started(&config, EDGE);
    dataplane.publish(&table(&[("www", WWW, EAST)])).unwrap();
    assert_eq!(client.ask(EDGE, WWW), Some(EAST));
}

#[test]
fn an_interface_that_is_made_again_gets_the_program_again() {
    new_namespace();
    let pins = Pins::new("again");
    ip("link add other0 type veth peer name other1");
    let native = |name: &str| (name.to_owned(), Attachment::Native);
    let mut dataplane = {
        let _client = Client::start();
        let dataplane = started(&pins.config(&[INTERFACE, "other0"]), EDGE);
        ip(&format!("link delete {INTERFACE}"));
        dataplane
    };
    dataplane.publish(&table(&[("www", WWW, EAST)])).unwrap();
    let other = xdp_on("other0");
    dataplane.follow_interfaces().unwrap();
    assert_eq!(dataplane.attachments(), [native("other0")]);
    let status = [(INTERFACE, "missing"), ("other0", "native")].map(|(name, is)| (name.to_owned(), is.to_owned()));
    assert_eq!(dataplane.interfaces(), status);

    let client = Client::start();
    dataplane.follow_interfaces().unwrap();
    assert_eq!(client.ask(EDGE, WWW), Some(EAST));
    assert_eq!(dataplane.attachments(), [native(INTERFACE), native("other0")]);
    assert_eq!(xdp_on("other0"), other, "it was left alone");
}

/// The edge's interface is made after the program was started, on these others.
fn is_taken_when_it_appears(test: &str, others: &[&str]) {
    new_namespace();
    let pins = Pins::new(test);
    others.iter().for_each(|name| drop(ip(&format!("link add {name} type veth"))));
    let mut dataplane = started(&pins.config(&[others, &[INTERFACE]].concat()), EDGE);
    dataplane.publish(&table(&[("www", WWW, EAST)])).unwrap();
    let says = |name: &str, is: &str| (name.to_owned(), is.to_owned());
    let others = || others.iter().map(|name| says(name, "native"));
    assert_eq!(dataplane.interfaces(), others().chain([says(INTERFACE, "missing")]).collect::<Vec<_>>());

    let client = Client::start();
    dataplane.follow_interfaces().unwrap();
    assert_eq!(dataplane.interfaces(), others().chain([says(INTERFACE, "native")]).collect::<Vec<_>>());
    assert_eq!(client.ask(EDGE, WWW), Some(EAST));
}

#[test]
fn an_interface_that_is_missing_at_the_start_gets_the_program_when_it_appears() {
    is_taken_when_it_appears("late", &["other0"]);
}

#[test]
fn the_program_is_started_without_any_of_its_interfaces() {
    is_taken_when_it_appears("nowhere", &[]);
}

#[test]
fn interfaces_that_are_made_again_together_all_get_the_program_again() {
    new_namespace();
    let pins = Pins::new("together");
    let both = ["edge0", "other0"];
    let make = || both.map(|name| ip(&format!("link add {name} type veth")));
    make();
    let mut dataplane = started(&pins.config(&both), EDGE);
    both.iter().for_each(|name| drop(ip(&format!("link delete {name}"))));
    make();
    assert_eq!(both.map(xdp_on), ["", ""]);
    dataplane.follow_interfaces().unwrap();
    assert!(both.iter().all(|name| !xdp_on(name).is_empty()), "{:?}", dataplane.interfaces());
    assert_eq!(pins.list().iter().filter(|pin| pin.starts_with("link-")).count(), 2, "the old ones are gone");
}

#[test]
fn an_interface_that_comes_back_with_another_program_is_left_alone_and_named() {
    new_namespace();
    let pins = Pins::new("refusing");
    ip("link add edge0 type veth peer name edge1");
    ip("link add other0 type veth peer name other1");
    let mut dataplane = started(&pins.config(&["edge0", "other0"]), EDGE);
    ip("link delete edge0");
    ip("link add edge0 type veth peer name edge1");
    let _theirs = stub("edge0");
    let theirs = xdp_on("edge0");
    dataplane.follow_interfaces().unwrap();
    assert_eq!(xdp_on("edge0"), theirs);
    assert!(dataplane.interfaces()[0].1.starts_with("none: cannot attach to `edge0`"), "{:?}", dataplane.interfaces());
    assert_eq!(dataplane.attachments(), [("other0".to_owned(), Attachment::Native)]);
}

#[test]
fn a_program_with_another_layout_answers_until_the_maps_are_filled() {
    new_namespace();
    let (pins, client) = (Pins::new("layout"), Client::start());
    let config = pins.config(&[INTERFACE]);
    started(&config, EDGE).publish(&table(&[("www", WWW, EAST)])).unwrap();
    let before = xdp_on(INTERFACE);
    // As an older release would have left it.
    std::fs::rename(pins.file(""), pins.0.join("v0")).unwrap();

    let (_, replies) = client.keep_asking(EDGE, WWW, || {
        let mut dataplane = started(&config, EDGE);
        assert!(dataplane.interfaces()[0].1.starts_with("none: "), "{:?}", dataplane.interfaces());
        dataplane.follow_interfaces().unwrap();
        let too_many: Vec<_> = (1..=9).map(|last| [192, 0, 2, last].into()).collect();
        dataplane.reconfigure(&config, &answering(&too_many)).unwrap_err();
        dataplane.reconfigure(&config, &answering(&[EDGE.into()])).unwrap();
        dataplane.publish(&table(&[("www", WWW, WEST)])).unwrap();
        assert_eq!(xdp_on(INTERFACE), before);
        dataplane.attach().unwrap();
        assert_eq!(dataplane.attachments(), [(INTERFACE.to_owned(), Attachment::Native)]);
    });
    assert!(!replies.contains(&None), "{replies:?}");
    assert!(!xdp_on(INTERFACE).is_empty() && xdp_on(INTERFACE) != before);
    assert_eq!(client.ask(EDGE, WWW), Some(WEST));
    assert!(gone(&pins.0.join("v0")));
    assert_eq!(pins.list(), pinned("link-native-42"));
}

#[test]
fn bpftool_prints_the_tables_with_field_names() {
    new_namespace();
    let (pins, _client) = (Pins::new("bpftool"), Client::start());
    let mut dataplane = Dataplane::start(&pins.config(&[INTERFACE]), &answering(&[EDGE.into()])).unwrap();
    dataplane.publish(&table(&[("www", WWW, EAST)])).unwrap();
    let dump = |map: &str| run("bpftool", &["map", "dump", "pinned", pins.file(map).to_str().unwrap()]);
    let (hash, _) = name::entry(b"\x03www\x04shop\x04test\0", 0, 0).unwrap();
    for (map, index, field) in [
        ("ANSWERS", 0, "\"v4_count\": 1"),
        ("SEEDS", NAMES.bucket(hash), "\"value\": 0"),
        ("NAMES", NAMES.slot(hash, 0), "\"length\": 15"),
    ] {
        // An outer map's value is shown as the inner map's number.
        let id = inner_id(&dump(map));
        let [a, b, c, d] = index.to_ne_bytes().map(|byte| byte.to_string());
        let entry = run("bpftool", &["map", "lookup", "id", &id, "key", &a, &b, &c, &d]);
        assert!(entry.contains(field), "{map}: {entry}");
    }
    let control = dump("CONTROL");
    assert!(control.contains("\"lease_until\": ") && control.contains("\"names\": 1"), "{control}");
}

#[test]
fn bpftool_prints_what_becomes_of_requests_with_field_names() {
    new_namespace();
    let (pins, _client) = (Pins::new("bpftool"), Client::start());
    let mut dataplane = Dataplane::start(&pins.config(&[INTERFACE]), &answering(&[EDGE.into()])).unwrap();
    let www = Resource {
        addresses: vec![EAST.into()],
        ports: vec![Port { protocol: Protocol::Tcp, number: 80 }],
        epoch: 7,
        arrival: Arrival::Serve,
        leaving: None,
        backends: vec![Backend { address: "10.1.0.11".parse().unwrap(), weight: 1, up: true }],
    };
    let requests = Requests { resources: [("www".to_owned(), www)].into(), ..Requests::default() };
    let hop = Hop {
        interface: 42,
        name: INTERFACE.to_owned(),
        source_mac: [2, 0, 0, 0, 0, 1],
        mac: [2, 0, 0, 0, 0, 2],
        mtu: 1500,
        source: "10.1.0.1".parse().unwrap(),
        gateway: None,
    };
    dataplane.steer(&requests, &[("10.1.0.11".parse().unwrap(), Ok(hop))].into()).unwrap();
    let lookup = |map: &[&str], index: u32| {
        let [a, b, c, d] = index.to_ne_bytes().map(|byte| byte.to_string());
        run("bpftool", &[&["map", "lookup"], map, &["key", &a, &b, &c, &d]].concat())
    };
    for (map, index, fields) in [
        ("INSTANCES", 0, ["\"epoch\": 7", "\"ring_size\": 251", "\"steer\": 1"]),
        ("RINGS", 0, ["\"targets\": [1,1", "1,1", "1"]),
        ("TARGETS", 1, ["\"kind\": 1", "\"interface\": 42", "\"generation\": 1"]),
        ("FLOWS", 0, ["\"flows\": [{", "\"target\": 0", "\"generation\": 0"]),
        ("COUNTERS", 0, ["\"cpu\": 0", "\"packets\": 0", "\"packets\": 0"]),
    ] {
        let entry = lookup(&["pinned", pins.file(map).to_str().unwrap()], index);
        assert!(fields.iter().all(|field| entry.contains(field)), "{map}: {entry}");
    }
    let hash = address_hash([0, 0xffff_0000_0000 | u64::from(EAST.to_bits())]);
    let outer = run("bpftool", &["map", "dump", "pinned", pins.file("ADDRESSES").to_str().unwrap()]);
    let entry = lookup(&["id", &inner_id(&outer)], ADDRESSES.slot(hash, 0));
    assert!(entry.contains("\"port_count\": 1") && entry.contains("\"port\": 80"), "{entry}");
}

/// From `key: 00 00 00 00  value: fc 01 00 00`: the last inner map's number, in the host's order.
fn inner_id(dump: &str) -> String {
    let value = dump.rsplit_once("value:").unwrap_or_else(|| panic!("{dump}")).1;
    let bytes: Vec<_> = value.split_whitespace().take(4).map(|hex| u8::from_str_radix(hex, 16).unwrap()).collect();
    u32::from_ne_bytes(bytes.try_into().unwrap()).to_string()
}
