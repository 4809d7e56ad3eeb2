//! The table of the one decision, and every combination of two and three sites.

use super::*;
use crate::{config::Takeover, evidence::InstanceReport};

fn instance(site: &str, state: State, available: bool) -> InstanceView {
    let why = if site == "here" { Why::Probes(String::new()) } else { Why::Reported(String::new()) };
    InstanceView { site: site.to_owned(), state, measured: available, forced: None, why }
}

fn two(here: (State, bool), peer: (State, bool)) -> Placement {
    place("here", &[instance("here", here.0, here.1), instance("peer", peer.0, peer.1)])
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
    assert_eq!(place("here", &turned), decided(&["peer", "here"], Arrival::Serve));
}

#[test]
fn active_here_comes_before_the_peer_standby_even_if_the_policy_prefers_the_peer() {
    let turned = [instance("peer", Standby, true), instance("here", Active, true)];
    assert_eq!(place("here", &turned), decided(&["here", "peer"], Arrival::Serve));
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
    assert_eq!(two((Standby, true), (Active, false)), decided(&["here"], Arrival::TakeOver));
}

#[test]
fn nothing_available_is_refused() {
    assert_eq!(two((Active, false), (Standby, false)), decided(&[], Arrival::Refuse));
    assert_eq!(two((Disabled, true), (Disabled, true)), decided(&[], Arrival::Refuse));
}

/// Every combination of state and availability of `sites`, each as the list of instances in policy order.
fn combinations(sites: &[&str]) -> Vec<Vec<InstanceView>> {
    let mut all = vec![Vec::new()];
    for site in sites {
        let mut longer = Vec::new();
        for combination in &all {
            for state in [Active, Standby, Disabled] {
                for available in [true, false] {
                    let mut next = combination.clone();
                    next.push(instance(site, state, available));
                    longer.push(next);
                }
            }
        }
        all = longer;
    }
    all
}

#[test]
fn every_combination_of_two_and_three_sites_keeps_the_invariants() {
    let mut count = 0;
    for sites in [&["here", "peer"][..], &["here", "peer", "third"], &["peer", "here", "third"]] {
        for instances in combinations(sites) {
            for site in sites {
                invariants(site, &instances);
                count += 1;
            }
        }
    }
    assert_eq!(count, 36 * 2 + 216 * 3 * 2);
}

fn invariants(site: &str, instances: &[InstanceView]) {
    let placement = place(site, instances);
    let find = |name: &str| instances.iter().find(|i| i.site == name).expect("an instance");
    let says = format!("{site}: {instances:?} -> {placement:?}");

    let serving: Vec<&InstanceView> = instances.iter().filter(|i| i.serves()).collect();
    assert_eq!(placement.answer.len(), serving.len(), "exactly the available sites are answered: {says}");
    assert!(placement.answer.iter().all(|s| find(s).serves()), "{says}");
    let states: Vec<State> = placement.answer.iter().map(|s| find(s).state).collect();
    assert!(states.is_sorted_by_key(|s| *s != Active), "active before standby: {says}");
    for state in [Active, Standby] {
        let of = |list: Vec<&str>| list.into_iter().filter(|s| find(s).state == state).collect::<Vec<_>>().join(" ");
        let answered = of(placement.answer.iter().map(String::as_str).collect());
        let policy = of(serving.iter().map(|i| i.site.as_str()).collect());
        assert_eq!(answered, policy, "policy order among equals: {says}");
    }

    let own = find(site);
    match &placement.arrival {
        Arrival::Serve => assert!(own.serves() && own.state == Active, "{says}"),
        Arrival::TakeOver => {
            assert!(own.serves() && own.state == Standby, "{says}");
            assert!(serving.iter().all(|i| i.state == Standby), "only where no active instance can: {says}");
        }
        Arrival::Forward(to) => {
            assert!(to != site && find(to).serves(), "{says}");
            let there = place(to, instances).arrival;
            assert!(matches!(there, Arrival::Serve | Arrival::TakeOver), "never forwarded twice: {says}");
        }
        Arrival::Refuse => assert!(serving.is_empty(), "{says}"),
    }
}

#[test]
fn at_most_one_site_takes_over_where_all_have_the_same_evidence() {
    for instances in combinations(&["here", "peer", "third"]) {
        let takers = ["here", "peer", "third"].iter().filter(|s| place(s, &instances).arrival == Arrival::TakeOver);
        assert!(takers.count() <= 1, "{instances:?}");
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

fn silent(mut instance: InstanceView) -> InstanceView {
    instance.why = Why::Silence;
    instance
}

fn taken(rule: Takeover, peer: InstanceView) -> Option<Tenure> {
    let instances = [instance("here", Standby, true), peer];
    take_over("here", rule, &place("here", &instances), &instances, &Tenure { epoch: 4, holder: Some("peer".into()) })
}

#[test]
fn the_takeover_rule_decides_and_the_epoch_rises_by_one() {
    let ours = Some(Tenure { epoch: 5, holder: Some("here".into()) });
    let failing = instance("peer", Active, false);
    assert_eq!(taken(Takeover::Silence, failing.clone()), ours);
    assert_eq!(taken(Takeover::Confirmed, failing.clone()), ours, "the holder itself says it cannot");
    assert_eq!(taken(Takeover::Manual, failing.clone()), None);
    assert_eq!(taken(Takeover::Silence, silent(failing.clone())), ours);
    assert_eq!(taken(Takeover::Confirmed, silent(failing)), None, "silence alone proves nothing");
    assert_eq!(taken(Takeover::Silence, instance("peer", Active, true)), None, "the holder serves");
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
    let heard = |epoch, holder: &str| InstanceReport {
        available: true,
        epoch,
        holder: Some(holder.to_owned()),
        reason: String::new(),
    };
    let now = Tenure { epoch: 2, holder: Some("west".into()) };
    assert_eq!(adopt(&order, &now, &heard(3, "east")), Some(Tenure { epoch: 3, holder: Some("east".into()) }));
    assert_eq!(adopt(&order, &now, &heard(1, "east")), None);
    assert_eq!(adopt(&order, &now, &heard(2, "west")), None);
    assert_eq!(adopt(&order, &now, &heard(2, "east")).map(|t| t.epoch), Some(2), "a tie goes by the order");
    assert_eq!(adopt(&order, &now, &heard(u64::MAX, "east")), None, "no room for the next");
    assert_eq!(adopt(&order, &now, &heard(9, "nowhere")), None, "an unknown holder would serve nothing");
}

use crate::config::Role;
