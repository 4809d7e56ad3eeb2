//! Decisions on a configuration of two sites, as the loop makes them.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    config,
    link::LinkEvent,
    placement::{Arrival, Cause, Changes, Override, State},
    probe::ProbeEvent,
};

const FILE: &str = r#"
[agent]
site = "SITE"
[sites.east]
link = "10.255.0.1:7400"
fingerprint = "sha256:0000000000000000000000000000000000000000000000000000000000000001"
[sites.west]
link = "10.255.0.2:7400"
fingerprint = "sha256:0000000000000000000000000000000000000000000000000000000000000002"
[link]
key = "site.pem"
[dns]
listen = ["192.0.2.2"]
[[dns.zone]]
name = "shop.test"
file = "shop.test.zone"
[resources.www]
domains = ["www.shop.test"]
ttl = 5
order = ["east", "west"]
all_down = "servfail"
probe = { tcp = true }
[resources.www.sites.east]
role = "active"
addresses = ["192.0.2.80", "2001:db8:1:80::80"]
backends = ["10.1.0.11:80", "10.1.0.12:80"]
[resources.www.sites.west]
role = "active"
addresses = ["198.51.100.80"]
backends = ["10.2.0.11:80", "10.2.0.12:80"]
[resources.orders]
domains = ["orders.shop.test"]
takeover = "silence"
probe = { tcp = true }
[resources.orders.sites.east]
role = "active"
addresses = ["192.0.2.81"]
backends = ["10.1.0.21:7001"]
[resources.orders.sites.west]
role = "standby"
addresses = ["198.51.100.81"]
backends = ["10.2.0.21:7001"]
"#;

/// What `site` knows at first: nothing.
pub fn knowledge(site: &str) -> Knowledge {
    let config = config::parse(&FILE.replace("SITE", site), Path::new("/etc/siteswap/test.toml")).expect("a good file");
    Knowledge::new(Arc::new(config))
}

/// One backend's verdict.
pub fn probe(knowledge: &mut Knowledge, resource: &str, backend: &str, up: bool) {
    let backend: SocketAddr = backend.parse().expect("an address");
    let detail = if up { "connected" } else { "connection refused" }.to_owned();
    knowledge.evidence.probed(&ProbeEvent { resource: resource.into(), backend, up, detail, at: Instant::now() });
}

/// Everything that `knowledge`'s site probes passes.
pub fn all_up(knowledge: &mut Knowledge) {
    let backends: Vec<(String, SocketAddr)> = knowledge
        .config
        .own_instances()
        .flat_map(|(name, instance)| instance.backends.iter().map(move |b| (name.to_owned(), *b)))
        .collect();
    for (resource, backend) in backends {
        probe(knowledge, &resource, &backend.to_string(), true);
    }
}

/// The link found or lost the peer.
pub fn contact(knowledge: &mut Knowledge, peer: &str, contact: bool) {
    let event = LinkEvent::Contact { peer: peer.into(), contact, at: Instant::now(), reason: String::new() };
    knowledge.evidence.heard(event);
}

/// What the loop does with changes once they are stored.
fn enter(knowledge: &mut Knowledge, changes: Changes) {
    for (resource, change) in changes {
        let record = knowledge.record(&resource, &change, 0);
        knowledge.enter(resource, change, record);
    }
}

/// `from` tells `to` what it decided.
fn tell(from: &Knowledge, to: &mut Knowledge) {
    let report = from.report(&from.decide(&names(&from.config)));
    to.evidence.heard(LinkEvent::Report { peer: from.config.site.clone(), report });
    let adopted = to.adopt();
    enter(to, adopted);
}

/// Two sites with everything up, in contact.
fn both() -> (Knowledge, Knowledge) {
    let (mut east, mut west) = (knowledge("east"), knowledge("west"));
    for (one, other) in [(&mut east, "west"), (&mut west, "east")] {
        all_up(one);
        contact(one, other, true);
    }
    tell(&east, &mut west);
    tell(&west, &mut east);
    (east, west)
}

fn answer(knowledge: &Knowledge, name: &str) -> Vec<String> {
    let decision = knowledge.decide(&names(&knowledge.config));
    let set = decision.table.get(&name.parse().expect("a name")).expect("a resource's name");
    set.addresses.iter().map(ToString::to_string).collect()
}

const EAST: [&str; 2] = ["192.0.2.80", "2001:db8:1:80::80"];
const WEST: [&str; 1] = ["198.51.100.80"];

#[test]
fn b2_both_sites_available_both_addresses_in_order_at_both() {
    let (east, west) = both();
    let expected = [&EAST[..], &WEST].concat();
    assert_eq!(answer(&east, "www.shop.test."), expected);
    assert_eq!(answer(&west, "www.shop.test."), expected);
}

#[test]
fn b4_one_working_backend_keeps_the_site_and_none_takes_it_out() {
    let (mut east, mut west) = both();
    probe(&mut east, "www", "10.1.0.11:80", false);
    tell(&east, &mut west);
    assert_eq!(answer(&west, "www.shop.test."), [&EAST[..], &WEST].concat());
    probe(&mut east, "www", "10.1.0.12:80", false);
    tell(&east, &mut west);
    assert_eq!(answer(&east, "www.shop.test."), WEST);
    assert_eq!(answer(&west, "www.shop.test."), WEST);
}

#[test]
fn b7_out_of_contact_each_side_answers_with_itself_alone() {
    let (mut east, mut west) = both();
    contact(&mut east, "west", false);
    contact(&mut west, "east", false);
    assert_eq!(answer(&east, "www.shop.test."), EAST);
    assert_eq!(answer(&west, "www.shop.test."), WEST);
}

#[test]
fn nothing_available_leaves_the_all_down_policy_to_the_server() {
    let mut east = knowledge("east");
    for backend in ["10.1.0.11:80", "10.1.0.12:80"] {
        probe(&mut east, "www", backend, false);
    }
    let decision = east.decide(&names(&east.config));
    let set = decision.table.get(&"www.shop.test.".parse().unwrap()).unwrap();
    assert!(set.addresses.is_empty());
    assert_eq!(set.all_down, Some(AllDown::ServFail));
    // The peer is silent, and perhaps serves.
    assert_eq!(decision.resources["www"].placement.arrival, Arrival::ForwardSilent("west".to_owned()));
    contact(&mut east, "west", true);
    let west = Report { instances: BTreeMap::from([("www".to_owned(), unavailable())]), ..Report::default() };
    east.evidence.heard(LinkEvent::Report { peer: "west".to_owned(), report: west });
    assert_eq!(east.decide(&names(&east.config)).resources["www"].placement.arrival, Arrival::Refuse);
}

fn unavailable() -> InstanceReport {
    InstanceReport {
        available: false,
        epoch: 0,
        holder: None,
        state: State::Active,
        why: String::new(),
        since: 0,
        reason: "nothing passes".to_owned(),
    }
}

#[test]
fn a_peer_that_was_just_started_and_has_not_reported_is_forwarded_to() {
    let (mut east, mut west) = both();
    west.evidence.heard(LinkEvent::Report { peer: "east".to_owned(), report: Report::default() });
    let orders = |knowledge: &Knowledge| knowledge.decide(&names(&knowledge.config)).resources["orders"].clone();
    assert_eq!(orders(&west).placement.arrival, Arrival::ForwardSilent("east".to_owned()));
    tell(&east, &mut west);
    assert_eq!(orders(&west).placement.arrival, Arrival::Forward("east".to_owned()));
    probe(&mut east, "orders", "10.1.0.21:7001", false);
    tell(&east, &mut west);
    assert_eq!(orders(&west).placement.arrival, Arrival::TakeOver(None));
}

#[test]
fn an_override_at_its_own_site_reaches_the_peers_and_one_for_a_peer_stays_here() {
    let (mut east, mut west) = both();
    east.overrides.insert(("www".into(), "east".into()), Override::Down);
    tell(&east, &mut west);
    assert_eq!(answer(&west, "www.shop.test."), WEST);
    assert_eq!(west.evidence.peers["east"].report.as_ref().unwrap().instances["www"].reason, "an operator set it down");

    let (mut east, mut west) = both();
    east.overrides.insert(("www".into(), "west".into()), Override::Down);
    tell(&east, &mut west);
    assert_eq!(answer(&east, "www.shop.test."), EAST);
    assert_eq!(answer(&west, "www.shop.test."), [&EAST[..], &WEST].concat());
}

#[test]
fn a_standby_takes_over_from_a_failed_holder_which_steps_down_when_it_returns() {
    let (mut east, mut west) = both();
    let placed =
        |knowledge: &Knowledge| knowledge.decide(&names(&knowledge.config)).resources["orders"].placement.clone();
    assert_eq!(placed(&east).arrival, Arrival::Serve);
    assert_eq!(placed(&west).arrival, Arrival::Forward("east".into()));

    probe(&mut east, "orders", "10.1.0.21:7001", false);
    tell(&east, &mut west);
    let decision = west.decide(&names(&west.config));
    let taken = west.take(&decision, Instant::now());
    assert_eq!(taken["orders"].tenure, Tenure { epoch: 1, holder: Some("west".into()) });
    enter(&mut west, taken);
    assert_eq!(placed(&west).arrival, Arrival::Serve);

    tell(&west, &mut east);
    probe(&mut east, "orders", "10.1.0.21:7001", true);
    tell(&east, &mut west);
    assert_eq!(placed(&east).arrival, Arrival::Forward("west".into()), "it returns as standby");
    assert_eq!(placed(&west).arrival, Arrival::Serve);
    let decision = west.decide(&names(&west.config));
    assert!(west.take(&decision, Instant::now()).is_empty(), "once");
    let record = |knowledge: &Knowledge| knowledge.instances["orders"].clone();
    let why = "took over from east: the peer reports: 0 of 1 backends pass; 10.1.0.21:7001: connection refused";
    assert_eq!((record(&west).state, record(&west).why.as_str()), (State::Active, why));
    assert_eq!((record(&east).state, record(&east).why.as_str()), (State::Standby, "west holds it since epoch 1"));
}

/// `west` takes orders from `east` by an operator's order, and tells it.
fn swapped(east: &mut Knowledge, west: &mut Knowledge) {
    ordered(west, east, "orders", false);
}

/// `site` takes a resource by an operator's order or makes its roles as configured, and tells `other`.
fn ordered(site: &mut Knowledge, other: &mut Knowledge, resource: &str, as_configured: bool) {
    let decision = site.decide(&names(&site.config));
    let epoch = site.tenure(resource).epoch;
    let taking = site.swap(&decision, resource, epoch, as_configured);
    let Ok(Taking::Take(change)) = taking else { panic!("{taking:?}") };
    enter(site, [(resource.to_owned(), change)].into());
    tell(site, other);
    tell(other, site);
}

#[test]
fn after_a_swap_all_that_are_configured_as_active_are_so_again_by_order() {
    let (mut east, mut west) = both();
    let arrival = |site: &Knowledge, resource: &str| {
        let decision = site.decide(&names(&site.config));
        decision.resources[resource].placement.arrival.clone()
    };
    let ask = |site: &Knowledge, resource: &str| {
        let decision = site.decide(&names(&site.config));
        site.swap(&decision, resource, site.tenure(resource).epoch, true)
    };
    assert_eq!(ask(&east, "www"), Ok(Taking::Holds(0)));
    assert_eq!(ask(&east, "orders"), Ok(Taking::Holds(0)));
    assert!(ask(&west, "orders").unwrap_err().contains("not configured as active"));

    ordered(&mut west, &mut east, "www", false);
    assert_eq!(arrival(&east, "www"), Arrival::Forward("west".to_owned()));
    east.drained = true;
    assert!(ask(&east, "www").unwrap_err().contains("drained"));
    east.drained = false;
    ordered(&mut east, &mut west, "www", true);
    for site in [&east, &west] {
        assert_eq!(site.tenure("www"), Tenure { epoch: 2, holder: None });
        assert_eq!((site.instances["www"].state, arrival(site, "www")), (State::Active, Arrival::Serve));
        assert_eq!(ask(site, "www"), Ok(Taking::Holds(2)));
    }

    // Where one is configured as active, it holds the resource.
    swapped(&mut east, &mut west);
    ordered(&mut east, &mut west, "orders", true);
    assert_eq!(west.tenure("orders"), Tenure { epoch: 2, holder: Some("east".to_owned()) });
}

#[test]
fn a_swap_is_refused_with_its_reason_and_doing_it_twice_is_no_error() {
    let (mut east, mut west) = both();
    let ask =
        |site: &Knowledge, resource: &str, epoch| site.swap(&site.decide(&names(&site.config)), resource, epoch, false);
    let refusal = |site: &Knowledge, resource: &str, epoch| ask(site, resource, epoch).unwrap_err();
    assert_eq!(ask(&east, "orders", 0), Ok(Taking::Holds(0)), "as configured");
    assert!(matches!(ask(&east, "www", 0), Ok(Taking::Take(_))), "of two active instances one becomes the holder");
    assert!(refusal(&west, "order", 0).contains("it has: orders, www"));
    assert!(refusal(&west, "orders", 3).contains("its epoch has moved: 0 at west, 3 where"));
    west.drained = true;
    assert!(refusal(&west, "orders", 0).contains("`siteswap undrain west` first"));
    west.drained = false;
    west.overrides.insert(("orders".into(), "west".into()), Override::Down);
    assert!(refusal(&west, "orders", 0).contains("`siteswap set orders auto` first"));
    west.overrides.clear();
    probe(&mut west, "orders", "10.2.0.21:7001", false);
    assert!(refusal(&west, "orders", 0).contains("0 of 1 backends pass"));
    probe(&mut west, "orders", "10.2.0.21:7001", true);

    swapped(&mut east, &mut west);
    assert_eq!(ask(&west, "orders", 0), Ok(Taking::Holds(1)));
    assert_eq!(west.instances["orders"].why, "swap by an operator");
    assert_eq!(east.instances["orders"].why, "west holds it since epoch 1");
}

#[test]
fn after_a_swap_flows_finish_at_the_old_holder_for_the_drain_time_at_every_site() {
    let (mut east, mut west) = both();
    let start = Instant::now();
    let mut last = [&mut east, &mut west].map(|site| site.settle(None, &names(&site.config), start));
    swapped(&mut east, &mut west);
    for (site, last) in [&mut east, &mut west].into_iter().zip(&mut last) {
        *last = site.settle(Some(last), &names(&site.config), start);
        assert_eq!(last.resources["orders"].leaving.as_deref(), Some("east"));
        assert_eq!(last.resources["www"].leaving, None);
        let end = site.timers.next(site, start).unwrap();
        assert_eq!(end - start, Duration::from_secs(60));
        let before = site.settle(Some(last), &names(&site.config), end - Duration::from_millis(1));
        assert_eq!(before.resources["orders"].leaving.as_deref(), Some("east"));
        assert_eq!(site.settle(Some(&before), &names(&site.config), end).resources["orders"].leaving, None);
    }

    // Not where they cannot: the old holder fails meanwhile.
    let (mut east, mut west) = both();
    let last = west.settle(None, &names(&west.config), start);
    swapped(&mut east, &mut west);
    west.settle(Some(&last), &names(&west.config), start);
    contact(&mut west, "east", false);
    assert_eq!(west.decide(&names(&west.config)).resources["orders"].leaving, None);
}

#[test]
fn a_drained_site_leaves_the_answers_gives_up_what_it_holds_and_finishes_its_flows() {
    let (mut east, mut west) = both();
    let now = Instant::now();
    let decide = |site: &mut Knowledge, last: &mut Option<Decision>| {
        let decision = site.settle(last.as_ref(), &names(&site.config), now);
        last.insert(decision).clone()
    };
    let (mut at_east, mut at_west) = (None, None);
    decide(&mut east, &mut at_east);
    decide(&mut west, &mut at_west);
    east.drained = true;
    let decision = decide(&mut east, &mut at_east);
    assert_eq!(decision.resources["www"].placement.arrival, Arrival::Forward("west".into()));
    assert_eq!(decision.resources["www"].leaving.as_deref(), Some("east"));
    assert_eq!(decision.resources["orders"].placement.arrival, Arrival::Serve, "until west has taken it");

    tell(&east, &mut west);
    let decision = decide(&mut west, &mut at_west);
    assert_eq!(decision.resources["orders"].placement.arrival, Arrival::TakeOver(Some("east".into())));
    assert_eq!(decision.resources["orders"].leaving, None, "east still serves it");
    let taken = west.take(&decision, now);
    assert_eq!(taken["orders"].cause, Some(Cause::Drain("east".into())));
    enter(&mut west, taken);
    let decision = decide(&mut west, &mut at_west);
    for (resource, leaving) in [("orders", Some("east")), ("www", None)] {
        assert_eq!(decision.resources[resource].placement.answer, ["west"]);
        assert_eq!(decision.resources[resource].leaving.as_deref(), leaving, "{resource}, as it arrived at west");
    }

    tell(&west, &mut east);
    let decision = decide(&mut east, &mut at_east);
    assert_eq!(decision.resources["orders"].placement.arrival, Arrival::Forward("west".into()));
    assert_eq!(decision.resources["orders"].leaving.as_deref(), Some("east"));

    // Its instances count again; what it held stays where it is.
    east.drained = false;
    tell(&east, &mut west);
    let decision = decide(&mut west, &mut at_west);
    assert_eq!(decision.resources["www"].placement.answer, ["east", "west"]);
    assert_eq!(decision.resources["orders"].placement.arrival, Arrival::Serve);

    // What east has sent to west meanwhile finishes there.
    tell(&west, &mut east);
    let decision = decide(&mut east, &mut at_east);
    assert_eq!(decision.resources["www"].placement.arrival, Arrival::Serve);
    assert_eq!(decision.resources["www"].leaving.as_deref(), Some("west"));
    contact(&mut east, "west", false);
    assert_eq!(decide(&mut east, &mut at_east).resources["www"].leaving, None);
}

#[test]
fn the_configured_site_takes_its_resource_back_after_a_time_without_a_break() {
    let (mut east, mut west) = both();
    let file = FILE
        .replace("SITE", "east")
        .replace("takeover = \"silence\"", "takeover = \"silence\"\nfailback = \"auto\"\nfailback_after = \"10s\"");
    east.config = Arc::new(config::parse(&file, Path::new("/etc/siteswap/test.toml")).unwrap());
    swapped(&mut east, &mut west);
    let start = Instant::now();
    let takes = |site: &mut Knowledge, seconds| {
        let now = start + Duration::from_secs(seconds);
        let decision = site.settle(None, &names(&site.config), now);
        site.take(&decision, now)
    };
    assert!(takes(&mut east, 0).is_empty());
    assert_eq!(east.timers.next(&east, start), Some(start + Duration::from_secs(10)));
    assert!(takes(&mut east, 9).is_empty());
    // A break in the contact with the holder, and one in its own instance: each time anew.
    contact(&mut east, "west", false);
    probe(&mut east, "orders", "10.1.0.21:7001", false);
    assert!(takes(&mut east, 9).is_empty());
    contact(&mut east, "west", true);
    assert!(takes(&mut east, 11).is_empty());
    probe(&mut east, "orders", "10.1.0.21:7001", true);
    assert!(takes(&mut east, 12).is_empty());
    assert!(takes(&mut east, 21).is_empty());
    let taken = takes(&mut east, 22);
    assert_eq!(taken["orders"].tenure, Tenure { epoch: 2, holder: Some("east".into()) });
    enter(&mut east, taken);
    assert_eq!(east.instances["orders"].why, "fail-back");
    tell(&east, &mut west);
    assert_eq!(west.tenure("orders").holder.as_deref(), Some("east"));
    assert!(takes(&mut west, 1000).is_empty(), "nobody else takes it back");
}

#[test]
fn a_report_says_whom_its_sender_hears_and_that_it_is_drained() {
    let (mut east, _) = both();
    east.drained = true;
    let report = east.report(&east.decide(&names(&east.config)));
    assert_eq!((report.drained, report.contacts), (true, ["west".to_owned()].into()));
    contact(&mut east, "west", false);
    assert!(east.report(&east.decide(&names(&east.config))).contacts.is_empty());
}

#[test]
fn an_instance_is_measured_when_each_of_its_backends_was_tried() {
    let mut east = knowledge("east");
    assert!(!east.evidence.measured());
    probe(&mut east, "www", "10.1.0.11:80", true);
    probe(&mut east, "www", "10.1.0.12:80", false);
    assert!(!east.evidence.measured(), "orders was not tried yet");
    probe(&mut east, "orders", "10.1.0.21:7001", true);
    assert!(east.evidence.measured());
}

#[test]
fn a_new_configuration_keeps_what_is_known_of_unchanged_backends() {
    let (mut east, _) = both();
    let more = FILE.replace("SITE", "east").replace("\"10.1.0.12:80\"", "\"10.1.0.13:80\"");
    let config = config::parse(&more, Path::new("/etc/siteswap/test.toml")).unwrap();
    east.evidence.reshape(&config);
    let backends = &east.evidence.own["www"].backends;
    assert!(backends[&"10.1.0.11:80".parse().unwrap()].is_some());
    assert!(backends[&"10.1.0.13:80".parse().unwrap()].is_none());
    assert!(east.evidence.peers["west"].contact);
}

/// What the site's configuration becomes when this is replaced in it.
fn reload(knowledge: &mut Knowledge, old: &str, new: &str) {
    let file = FILE.replace("SITE", &knowledge.config.site).replace(old, new);
    knowledge.config = Arc::new(config::parse(&file, Path::new("/etc/siteswap/test.toml")).expect("a good file"));
    knowledge.evidence.reshape(&knowledge.config);
}

#[test]
fn an_instance_with_new_backends_only_is_as_it_was_until_they_are_tried() {
    let (mut east, _) = both();
    reload(&mut east, "\"10.1.0.11:80\", \"10.1.0.12:80\"", "\"10.1.0.13:80\", \"10.1.0.14:80\"");
    let www = |east: &Knowledge| {
        let www = &east.evidence.own["www"];
        (www.measured(), www.available(), www.carried())
    };
    assert_eq!(www(&east), (true, true, true));
    assert_eq!(answer(&east, "www.shop.test."), [&EAST[..], &WEST].concat());
    probe(&mut east, "www", "10.1.0.13:80", false);
    assert_eq!(www(&east), (true, true, true));
    let mut passing = east.clone();
    probe(&mut passing, "www", "10.1.0.14:80", true);
    assert_eq!(www(&passing), (true, true, false));
    probe(&mut east, "www", "10.1.0.14:80", false);
    assert_eq!(www(&east), (true, false, false));
}

#[test]
fn a_backend_that_stays_speaks_for_the_instance_until_others_are_tried() {
    let (mut east, _) = both();
    probe(&mut east, "www", "10.1.0.11:80", false);
    reload(&mut east, "\"10.1.0.12:80\"", "\"10.1.0.13:80\"");
    let www = &east.evidence.own["www"];
    assert_eq!((www.measured(), www.available(), www.carried()), (true, false, false));
}

#[test]
fn nothing_is_said_of_a_resource_that_is_new_here_before_it_is_measured() {
    let mut east = knowledge("east");
    probe(&mut east, "orders", "10.1.0.21:7001", true);
    let decision = east.decide(&names(&east.config));
    let www = decision.table.get(&"www.shop.test.".parse().unwrap()).unwrap();
    assert_eq!((&www.addresses[..], &www.all_down), (&[][..], &Some(AllDown::ServFail)));
    assert_eq!(east.report(&decision).instances.keys().collect::<Vec<_>>(), ["orders"]);
}

#[test]
fn at_most_eight_addresses_of_a_family_each_once() {
    let addresses = (0..20).map(|n| IpAddr::from([192, 0, 2, n % 10])).chain([IpAddr::from([0u16; 8])]);
    let bounded = bounded(addresses.collect());
    assert_eq!(bounded.iter().filter(|a| a.is_ipv4()).count(), 8);
    assert_eq!(bounded.len(), 9);
}
