//! The table of the one decision, and every combination of two and three sites.

use super::*;
use crate::{
    config::{Failback, Takeover},
    evidence::InstanceReport,
};

fn instance(site: &str, state: State, available: bool) -> InstanceView {
    let why = if site == "here" { Why::Probes(String::new()) } else { Why::Reported(String::new()) };
    InstanceView { site: site.to_owned(), state, measured: available, forced: None, why, drained: false }
}

fn two(here: (State, bool), peer: (State, bool)) -> Placement {
    place("here", &[instance("here", here.0, here.1), instance("peer", peer.0, peer.1)], Takeover::Confirmed)
}

fn decided(answer: &[&str], arrival: Arrival) -> Placement {
    Placement { answer: answer.iter().map(|s| (*s).to_owned()).collect(), arrival }
}

fn forward() -> Arrival {
    Arrival::Forward("peer".to_owned())
}

use State::{Active, Disabled, Standby};

#[test]
fn both_active_and_available_are_answered_in_policy_order_and_served_here() {
    assert_eq!(two((Active, true), (Active, true)), decided(&["here", "peer"], Arrival::Serve));
    let turned = [instance("peer", Active, true), instance("here", Active, true)];
    assert_eq!(place("here", &turned, Takeover::Confirmed), decided(&["peer", "here"], Arrival::Serve));
}

#[test]
fn active_here_comes_before_the_peer_standby_even_if_the_policy_prefers_the_peer() {
    let turned = [instance("peer", Standby, true), instance("here", Active, true)];
    assert_eq!(place("here", &turned, Takeover::Confirmed), decided(&["here", "peer"], Arrival::Serve));
}

#[test]
fn standby_here_is_forwarded_to_the_active_peer() {
    assert_eq!(two((Standby, true), (Active, true)), decided(&["peer", "here"], forward()));
}

#[test]
fn an_unavailable_peer_leaves_the_answer() {
    assert_eq!(two((Active, true), (Active, false)), decided(&["here"], Arrival::Serve));
}

#[test]
fn disabled_or_failing_here_is_forwarded_to_the_peer_active_or_standby() {
    for here in [(Disabled, true), (Disabled, false), (Active, false), (Standby, false)] {
        for peer in [Active, Standby] {
            assert_eq!(two(here, (peer, true)), decided(&["peer"], forward()), "{here:?} {peer:?}");
        }
    }
}

#[test]
fn standby_here_takes_over_from_an_unavailable_peer() {
    assert_eq!(two((Standby, true), (Active, false)), decided(&["here"], Arrival::TakeOver(None)));
}

#[test]
fn nothing_available_is_refused() {
    assert_eq!(two((Active, false), (Standby, false)), decided(&[], Arrival::Refuse));
    assert_eq!(two((Disabled, true), (Disabled, true)), decided(&[], Arrival::Refuse));
}

/// What can be known of one instance besides its state.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    Available,
    Failing,
    Silent,
    Lost,
    Vouched,
    Returning,
    Unreported,
}

use Known::{Available, Failing, Lost, Returning, Silent, Unreported, Vouched};

fn known(site: &str, state: State, known: Known, drained: bool) -> InstanceView {
    let why = match known {
        Available | Failing => Why::Reported(String::new()),
        Silent => Why::Silence,
        Lost => Why::Lost("nothing answers".to_owned()),
        Vouched => Why::Vouched("third".to_owned()),
        Returning => Why::Returning,
        Unreported => Why::Unreported,
    };
    InstanceView { site: site.to_owned(), state, measured: known == Available, forced: None, why, drained }
}

/// Every combination of what can be known of each of `sites`, each as the list of instances in policy order.
fn combinations(sites: &[&str]) -> Vec<Vec<InstanceView>> {
    let mut all = vec![Vec::new()];
    for site in sites {
        let mut one = Vec::new();
        for state in [Active, Standby, Disabled] {
            for what in [Available, Failing, Silent, Lost, Vouched, Returning, Unreported] {
                one.extend([true, false].map(|drained| known(site, state, what, drained)));
            }
        }
        let longer = |combination: &Vec<InstanceView>| -> Vec<Vec<InstanceView>> {
            one.iter().map(|instance| [&combination[..], std::slice::from_ref(instance)].concat()).collect()
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

const RULES: [Takeover; 3] = [Takeover::Confirmed, Takeover::Silence, Takeover::Manual];

#[test]
fn every_combination_of_two_and_three_sites_keeps_the_invariants() {
    let mut count = 0;
    for sites in [&["here", "peer"][..], &["here", "peer", "third"]] {
        for instances in combinations(sites) {
            for rule in RULES {
                // No site is silent to itself.
                let seeing = instances.iter().filter(|i| matches!(i.why, Why::Reported(_))).map(|i| i.site.as_str());
                let placements: Vec<_> = seeing.map(|site| (site, place(site, &instances, rule))).collect();
                for (site, placement) in &placements {
                    answers(&instances, placement);
                    arrivals(site, &instances, rule, placement);
                    count += 1;
                }
                let takers =
                    placements.iter().filter(|(_, placement)| matches!(placement.arrival, Arrival::TakeOver(_)));
                assert!(takers.count() <= 1, "at most one takes over where all have the same evidence: {instances:?}");
            }
        }
    }
    assert_eq!(count, 12 * 42 * 3 * 2 + 12 * 42 * 42 * 3 * 3);
}

fn answers(instances: &[InstanceView], placement: &Placement) {
    let find = |name: &str| instances.iter().find(|i| i.site == name).expect("an instance");
    let says = || format!("{instances:?} -> {placement:?}");
    let serving: Vec<&InstanceView> = instances.iter().filter(|i| i.serves()).collect();
    let spared = serving.iter().any(|i| !i.drained);
    let expected: Vec<&&InstanceView> = serving.iter().filter(|i| !spared || !i.drained).collect();
    assert_eq!(
        placement.answer.len(),
        expected.len(),
        "the available sites, drained ones rather than nobody: {}",
        says()
    );
    assert!(placement.answer.iter().all(|s| find(s).serves() && !(spared && find(s).drained)), "{}", says());
    let states: Vec<State> = placement.answer.iter().map(|s| find(s).state).collect();
    assert!(states.is_sorted_by_key(|s| *s != Active), "active before standby: {}", says());
    for state in [Active, Standby] {
        let of = |list: Vec<&str>| list.into_iter().filter(|s| find(s).state == state).collect::<Vec<_>>().join(" ");
        let answered = of(placement.answer.iter().map(String::as_str).collect());
        let policy = of(expected.iter().map(|i| i.site.as_str()).collect());
        assert_eq!(answered, policy, "policy order among equals: {}", says());
    }
}

fn arrivals(site: &str, instances: &[InstanceView], rule: Takeover, placement: &Placement) {
    let find = |name: &str| instances.iter().find(|i| i.site == name).expect("an instance");
    let says = || format!("{site}, {rule:?}: {instances:?} -> {placement:?}");
    let serving = || instances.iter().filter(|i| i.serves());
    let own = find(site);
    match &placement.arrival {
        Arrival::Serve => assert!(own.serves() && own.state == Active, "{}", says()),
        Arrival::TakeOver(meanwhile) => {
            let expected = instances.iter().find(|i| i.state == Active && i.serves()).map(|i| &i.site);
            assert_eq!(meanwhile.as_ref(), expected, "the drained holder serves until then: {}", says());
            assert!(own.serves() && own.state == Standby, "{}", says());
            assert!(serving().all(|i| i.state == Standby || i.drained), "only where no active one can: {}", says());
            assert!(may_take_over(instances, rule), "{}", says());
        }
        Arrival::Forward(to) => {
            assert!(to != site && find(to).serves(), "{}", says());
            let there = place(to, instances, rule).arrival;
            assert!(matches!(there, Arrival::Serve | Arrival::TakeOver(None)), "never forwarded twice: {}", says());
        }
        Arrival::ForwardSilent(to) => {
            assert!(to != site && find(to).may_still_serve() && !find(to).serves(), "{}", says());
            assert!(serving().all(|i| i.state == Standby) && !may_take_over(instances, rule), "{}", says());
        }
        Arrival::Refuse => {
            let refused = serving().count() == 0 || !may_take_over(instances, rule);
            assert!(refused && serving().all(|i| i.state == Standby), "{}", says());
        }
    }
}

#[test]
fn the_rule_by_everything_that_can_be_known_of_the_only_active_instance() {
    for (what, drained, confirmed, silence, manual) in [
        (Available, false, false, false, false),
        (Failing, false, true, true, false),
        (Silent, false, false, true, false),
        (Lost, false, true, true, false),
        (Vouched, false, false, false, false),
        (Returning, false, false, false, false),
        (Available, true, true, true, true),
        (Failing, true, true, true, true),
    ] {
        let instances = [known("here", Standby, Available, false), known("peer", Active, what, drained)];
        let allowed = RULES.map(|rule| may_take_over(&instances, rule));
        assert_eq!(allowed, [confirmed, silence, manual], "{what:?}, drained: {drained}");
    }
}

#[test]
fn every_active_instance_must_be_lost_before_one_is_taken_over_from() {
    let sites = ["peer", "third"];
    let one = |what| {
        let active = sites.iter().zip(what).map(|(site, what)| known(site, Active, what, false));
        active.chain([known("here", Standby, Available, false)]).collect::<Vec<_>>()
    };
    assert_eq!(place("here", &one([Lost, Lost]), Takeover::Confirmed).arrival, Arrival::TakeOver(None));
    let first = Arrival::ForwardSilent("peer".to_owned());
    assert_eq!(place("here", &one([Lost, Silent]), Takeover::Confirmed).arrival, first, "perhaps the other serves");
    assert_eq!(place("here", &one([Lost, Vouched]), Takeover::Silence).arrival, first);
}

#[test]
fn where_the_rule_does_not_allow_a_takeover_requests_go_to_the_silent_holder_and_without_one_are_refused() {
    let placed = |what, rule| {
        let instances = [known("here", Standby, Available, false), known("peer", Active, what, false)];
        let placement = place("here", &instances, rule);
        assert_eq!(placement.answer, ["here"]);
        placement.arrival
    };
    let silent = Arrival::ForwardSilent("peer".to_owned());
    assert_eq!(placed(Silent, Takeover::Confirmed), silent);
    assert_eq!(placed(Vouched, Takeover::Silence), silent);
    assert_eq!(placed(Lost, Takeover::Manual), silent, "an operator decides; perhaps the tunnel works");
    assert_eq!(placed(Failing, Takeover::Manual), Arrival::Refuse, "it said itself that it cannot");
    let mut down = [known("here", Standby, Available, false), known("peer", Active, Silent, false)];
    down[1].forced = Some(Override::Down);
    assert_eq!(place("here", &down, Takeover::Manual).arrival, Arrival::Refuse, "an operator said that it cannot");
    assert_eq!(
        place("here", &down, Takeover::Confirmed).arrival,
        Arrival::TakeOver(None),
        "an operator confirms the silence"
    );
    for rule in RULES {
        let mut left_out = [known("here", Standby, Available, false), known("peer", Active, Available, false)];
        left_out[1].forced = Some(Override::Down);
        let expected = decided(&["here"], Arrival::ForwardSilent("peer".to_owned()));
        assert_eq!(place("here", &left_out, rule), expected, "down in this site's answers alone");
    }
}

#[test]
fn a_drained_holder_serves_until_another_has_taken_over_and_where_none_can() {
    let drained = known("peer", Active, Available, true);
    let until_then = Arrival::TakeOver(Some("peer".to_owned()));
    for rule in RULES {
        let instances = [drained.clone(), known("here", Standby, Available, false)];
        assert_eq!(place("here", &instances, rule), decided(&["here"], until_then.clone()), "{rule:?}");
        assert_eq!(place("peer", &instances, rule), decided(&["here"], Arrival::Serve), "{rule:?}");
        let taken = [known("peer", Standby, Available, true), known("here", Active, Available, false)];
        assert_eq!(place("peer", &taken, rule), decided(&["here"], Arrival::Forward("here".to_owned())), "{rule:?}");
        let alone = [drained.clone(), known("here", Standby, Failing, false)];
        assert_eq!(place("peer", &alone, rule), decided(&["peer"], Arrival::Serve), "{rule:?}");
        assert_eq!(place("here", &alone, rule), decided(&["peer"], forward()), "{rule:?}");
        let both = [drained.clone(), known("here", Active, Available, false)];
        assert_eq!(place("peer", &both, rule), decided(&["here"], Arrival::Forward("here".to_owned())), "{rule:?}");
    }
}

#[test]
fn an_override_is_believed_before_the_measurement_and_does_not_hide_it() {
    let mut up = instance("here", Active, false);
    up.forced = Some(Override::Up);
    assert!(up.serves() && !up.measured);
    let mut down = instance("here", Active, true);
    down.forced = Some(Override::Down);
    assert!(!down.serves() && down.measured);
    let mut disabled = instance("here", Disabled, false);
    disabled.forced = Some(Override::Up);
    assert!(!disabled.serves(), "disabled stays disabled");
}

fn taken(rule: Takeover, peer: InstanceView) -> Option<Change> {
    let instances = [instance("here", Standby, true), peer];
    let now = Tenure { epoch: 4, holder: Some("peer".into()) };
    let placement = place("here", &instances, rule);
    (matches!(placement.arrival, Arrival::TakeOver(_)))
        .then(|| now.taken("here", takeover_cause(&instances)).expect("an epoch"))
}

#[test]
fn the_takeover_rule_decides_and_the_epoch_rises_by_one() {
    let ours = |because: &str| {
        let cause = Cause::TakeOver { from: vec!["peer".to_owned()], because: because.to_owned() };
        Some(Change { tenure: Tenure { epoch: 5, holder: Some("here".into()) }, cause: Some(cause) })
    };
    let failing = || instance("peer", Active, false);
    let reported = "the peer reports: ";
    assert_eq!(taken(Takeover::Silence, failing()), ours(reported));
    assert_eq!(taken(Takeover::Confirmed, failing()), ours(reported), "the holder itself says it cannot");
    assert_eq!(taken(Takeover::Manual, failing()), None);
    let silent = |what| known("peer", Active, what, false);
    assert_eq!(taken(Takeover::Silence, silent(Silent)), ours("the peer is not in contact"));
    assert_eq!(taken(Takeover::Confirmed, silent(Silent)), None, "silence alone proves nothing");
    let lost = "the peer is not in contact, and nothing answers";
    assert_eq!(taken(Takeover::Confirmed, silent(Lost)), ours(lost));
    assert_eq!(taken(Takeover::Silence, silent(Vouched)), None, "another site is in contact with it");
    assert_eq!(taken(Takeover::Silence, instance("peer", Active, true)), None, "the holder serves");
    let drained = known("peer", Active, Available, true);
    assert_eq!(taken(Takeover::Manual, drained).and_then(|change| change.cause), Some(Cause::Drain("peer".to_owned())));
    // One that fails too is no planned change any more.
    let failing = known("peer", Active, Failing, true);
    let cause = taken(Takeover::Confirmed, failing).and_then(|change| change.cause);
    assert!(matches!(cause, Some(Cause::TakeOver { .. })), "{cause:?}");
    assert_eq!(Tenure { epoch: MAX_EPOCH, holder: None }.taken("here", Cause::Swap), None, "no epoch is left");
}

/// Each site's operator has set the other's instance down there.
#[test]
fn drained_sites_do_not_take_a_resource_from_each_other() {
    let mut peer = known("peer", Active, Available, true);
    peer.forced = Some(Override::Down);
    let mut instances = vec![known("here", Standby, Available, true), peer];
    for rule in [Takeover::Silence, Takeover::Confirmed, Takeover::Manual] {
        assert_eq!(place("here", &instances, rule).arrival, Arrival::ForwardSilent("peer".to_owned()));
    }
    instances.push(known("third", Standby, Available, false));
    for rule in [Takeover::Silence, Takeover::Confirmed, Takeover::Manual] {
        assert!(matches!(place("third", &instances, rule).arrival, Arrival::TakeOver(_)), "it is not drained");
    }
}

#[test]
fn a_change_of_holder_makes_the_others_stand_by() {
    let tenure = Tenure { epoch: 1, holder: Some("west".into()) };
    assert_eq!(tenure.state("west", Role::Standby), Active);
    assert_eq!(tenure.state("east", Role::Active), Standby);
    assert_eq!(tenure.state("north", Role::Disabled), Disabled);
    assert_eq!(Tenure::default().state("east", Role::Active), Active);
}

#[test]
fn the_higher_epoch_wins_and_never_goes_back() {
    let order = ["east".to_owned(), "west".to_owned()];
    let heard = |epoch, holder| reported(epoch, Some(holder));
    let now = Tenure { epoch: 2, holder: Some("west".into()) };
    assert_eq!(adopt(&order, &now, &heard(3, "east")), Some(Tenure { epoch: 3, holder: Some("east".into()) }));
    assert_eq!(adopt(&order, &now, &heard(1, "east")), None);
    assert_eq!(adopt(&order, &now, &heard(2, "west")), None);
    assert_eq!(adopt(&order, &now, &heard(2, "east")).map(|t| t.epoch), Some(2), "a tie goes by the order");
    assert_eq!(adopt(&order, &now, &heard(u64::MAX, "east")), None, "no room for the next");
    assert_eq!(adopt(&order, &now, &heard(9, "nowhere")), None, "an unknown holder would serve nothing");
    let as_configured = Some(Tenure { epoch: 2, holder: None });
    assert_eq!(adopt(&order, &now, &reported(2, None)), as_configured, "roles as configured come before all");
}

fn reported(epoch: u64, holder: Option<&str>) -> InstanceReport {
    InstanceReport {
        available: true,
        epoch,
        holder: holder.map(str::to_owned),
        state: Standby,
        why: String::new(),
        since: 0,
        reason: String::new(),
    }
}

/// Three sites that have heard each other agree, in whatever order they heard; nobody's epoch goes back.
#[test]
fn any_three_tenures_come_to_one_whoever_is_heard_first() {
    let order = ["east", "north", "west"].map(str::to_owned);
    let holders = [None, Some("east"), Some("north"), Some("west")];
    let all: Vec<(u64, Option<&str>)> = [1, 2, MAX_EPOCH]
        .into_iter()
        .flat_map(|epoch| holders.into_iter().map(move |holder| (epoch, holder)))
        .chain([(0, None)])
        .collect();
    let hear = |now: Tenure, (epoch, holder): (u64, Option<&str>)| {
        let heard = adopt(&order, &now, &reported(epoch, holder));
        assert!(heard.as_ref().is_none_or(|heard| heard.epoch >= now.epoch && *heard != now), "{now:?} -> {heard:?}");
        heard.unwrap_or(now)
    };
    let tenure = |(epoch, holder): (u64, Option<&str>)| Tenure { epoch, holder: holder.map(str::to_owned) };
    for one in &all {
        for two in &all {
            for three in &all {
                let [first, second, third] = [[one, two, three], [two, three, one], [three, two, one]]
                    .map(|[own, next, last]| hear(hear(tenure(*own), *next), *last));
                assert_eq!((&first, &first), (&second, &third), "{one:?}, {two:?}, {three:?}");
            }
        }
    }
}

/// Whatever is known of two and three sites, and whoever holds the resource.
#[test]
fn a_site_fails_back_only_as_the_first_configured_that_serves_from_a_holder_it_hears_and_once() {
    let mut taken_back = 0;
    for sites in [&["here", "peer"][..], &["here", "peer", "third"]] {
        let resources =
            [(1, "auto"), (1, "manual"), (2, "auto")].map(|(active, failback)| resource(sites, active, failback));
        for instances in combinations(sites) {
            for (holder, resource) in sites.iter().flat_map(|holder| resources.iter().map(move |one| (holder, one))) {
                let now = Tenure { epoch: 3, holder: Some((*holder).to_owned()) };
                let find = |site: &str| instances.iter().find(|instance| instance.site == site).unwrap();
                let back = sites.iter().filter(|site| may_fail_back(site, resource, &instances, &now));
                let back: Vec<&&str> = back.collect();
                let several = resource.instances["peer"].role == Role::Active;
                let allowed = resource.failback == Failback::Auto
                    && if *holder == "here" { several } else { matches!(find(holder).why, Why::Reported(_)) }
                    && find("here").serves()
                    && !find("here").drained;
                assert_eq!(back, if allowed { vec![&"here"] } else { vec![] }, "{holder} holds it: {instances:?}");
                if allowed {
                    let then =
                        now.next(resource.configured_holder().cloned(), Cause::FailBack).expect("an epoch").tenure;
                    assert_eq!(then.holder.as_deref(), (!several).then_some("here"));
                    assert!(!may_fail_back("here", resource, &instances, &then), "once");
                    taken_back += 1;
                }
            }
        }
    }
    assert!(taken_back > 0);
}

/// Active at so many of these sites.
fn resource(sites: &[&str], active: usize, failback: &str) -> Resource {
    let mut file = "agent.site = 'here'\nlink.key = 'key.pem'\ndns.listen = ['192.0.2.2']\n".to_owned();
    for (number, site) in sites.iter().enumerate() {
        let role = if number < active { "active" } else { "standby" };
        file += &format!(
            "[sites.{site}]\nlink = '10.255.0.{number}:7400'\nfingerprint = 'sha256:{number:064}'\n\
             [resources.orders.sites.{site}]\nrole = '{role}'\nbackends = ['10.1.0.21:7001']\n"
        );
    }
    file += &format!("[resources.orders]\nfailback = '{failback}'\nprobe = {{ tcp = true }}\n");
    let config = crate::config::parse(&file, std::path::Path::new("/etc/siteswap/test.toml"));
    config.unwrap_or_else(|error| panic!("{error}")).resources.remove("orders").expect("it is there")
}

use crate::config::Role;
