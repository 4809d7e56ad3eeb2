//! Which rule put which address where, in words.

use std::net::IpAddr;

use hickory_proto::rr::LowerName;

use super::api::{Explain, Explanation};
use crate::{
    config::AllDown,
    decision::{Decided, Decision, Knowledge},
    placement::{InstanceView, Override, State},
};

/// Explains the answer for a name. An error says what is wrong with the question.
pub fn explain(question: &Explain, knowledge: &Knowledge, decision: Option<&Decision>) -> Result<Explanation, String> {
    let name: LowerName =
        question.name.parse().map_err(|error| format!("\"{}\" is not a domain name: {error}", question.name))?;
    let name = if name.is_fqdn() { name } else { absolute(&name) };
    let mut explanation =
        Explanation { name: name.to_string(), resource: None, addresses: Vec::new(), lines: Vec::new() };
    let say = |explanation: &mut Explanation, line: String| explanation.lines.push(line);

    let owner = knowledge.config.resources.iter().find(|(_, resource)| resource.domains.contains(&name));
    let Some((resource, configured)) = owner else {
        say(&mut explanation, elsewhere(&name, knowledge));
        return Ok(explanation);
    };
    explanation.resource = Some(resource.clone());
    say(&mut explanation, format!("{name} is a domain of resource {resource}, TTL {} s.", configured.ttl));
    let Some((decision, decided)) = decision.and_then(|d| Some((d, d.resources.get(resource)?))) else {
        let line = "No answer yet: the first complete round of probes is not over.".to_owned();
        say(&mut explanation, line);
        return Ok(explanation);
    };
    explanation.addresses = decision.table.get(&name).map(|set| set.addresses.clone()).unwrap_or_default();
    explanation.lines.extend(sites(decided, configured));
    if decided.placement.answer.is_empty() {
        say(&mut explanation, all_down(&configured.all_down));
    }
    if let Some(client) = question.client {
        say(&mut explanation, locality(client));
    }
    say(&mut explanation, format!("A request for it that arrives here: {}.", decided.placement.arrival));
    if let Some(site) = &decided.leaving {
        say(&mut explanation, format!("Flows established at {site} finish there."));
    }
    Ok(explanation)
}

fn absolute(name: &LowerName) -> LowerName {
    let mut absolute = hickory_proto::rr::Name::from(name.clone());
    absolute.set_fqdn(true);
    absolute.into()
}

fn elsewhere(name: &LowerName, knowledge: &Knowledge) -> String {
    match knowledge.config.dns.zones.iter().find(|zone| zone.name.zone_of(name)) {
        Some(zone) => format!(
            "{name} belongs to no resource: the agent's server answers it from the records of zone {} ({}).",
            zone.name,
            zone.file.display()
        ),
        None => format!("{name} is in none of this server's zones: the answer is REFUSED."),
    }
}

/// One line for each site in the answer, in its order, then one for each that is left out.
fn sites(decided: &Decided, configured: &crate::config::Resource) -> Vec<String> {
    let order = configured.order.join(", ");
    let find = |site: &str| decided.instances.iter().find(|instance| instance.site == site);
    let answered = || decided.placement.answer.iter().filter_map(|site| find(site));
    let actives = answered().filter(|instance| instance.state == State::Active).count();
    let mut lines = Vec::new();
    for (place, instance) in answered().enumerate() {
        // What was decided last may be of an older configuration.
        let addresses = configured.instances.get(&instance.site).map(|configured| &configured.addresses);
        let addresses: Vec<String> = addresses.into_iter().flatten().map(IpAddr::to_string).collect();
        let rule = match instance.state {
            State::Active if actives > 1 => format!("policy fixed, order {order}"),
            State::Active => "the only available active instance".to_owned(),
            _ if actives > 0 => "standby instances come after active ones".to_owned(),
            _ => format!("no active instance is available; standby ones by policy fixed, order {order}"),
        };
        let (site, addresses) = (&instance.site, addresses.join(", "));
        lines.push(format!("{}. {site}: {addresses}; {}. Place: {rule}.", place + 1, standing(instance)));
    }
    for instance in decided.instances.iter().filter(|i| !decided.placement.answer.contains(&i.site)) {
        lines.push(format!("Left out: {}; {}.", instance.site, standing(instance)));
    }
    lines
}

fn standing(instance: &InstanceView) -> String {
    let measured = if instance.measured { "available" } else { "not available" };
    let drained = if instance.drained { "drained, " } else { "" };
    let measured = format!("{drained}{} and {measured} ({})", instance.state, instance.why);
    match instance.forced {
        Some(Override::Up) => format!("set up by an operator; measured: {measured}"),
        Some(Override::Down) => format!("set down by an operator; measured: {measured}"),
        None => measured,
    }
}

fn all_down(policy: &AllDown) -> String {
    let what = match policy {
        AllDown::All => "all configured addresses are answered",
        AllDown::NoData => "no addresses are answered (NOERROR with the zone's SOA)",
        AllDown::ServFail => "SERVFAIL is answered, so that resolvers ask the other server",
        AllDown::Fallback(_) => "the fallback list is answered",
    };
    format!("No site is available: by the policy all_down, {what}.")
}

fn locality(client: IpAddr) -> String {
    format!("Client {client}: no view is configured, so every client gets the same order.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{names, tests};

    fn ask(knowledge: &Knowledge, name: &str, decided: bool) -> Explanation {
        let decision = decided.then(|| knowledge.decide(&names(&knowledge.config)));
        let question = Explain { name: name.to_owned(), client: Some("203.0.113.10".parse().unwrap()) };
        explain(&question, knowledge, decision.as_ref()).unwrap()
    }

    #[test]
    fn every_address_has_its_place_and_every_site_its_reason() {
        let mut east = tests::knowledge("east");
        tests::all_up(&mut east);
        tests::probe(&mut east, "www", "10.1.0.12:80", false);
        let explanation = ask(&east, "WWW.shop.test", true);
        assert_eq!(explanation.resource.as_deref(), Some("www"));
        assert_eq!(
            explanation.lines,
            [
                "www.shop.test. is a domain of resource www, TTL 5 s.",
                "1. east: 192.0.2.80, 2001:db8:1:80::80; active and available (this site's probes: 1 of 2 backends \
                 pass; 10.1.0.12:80: connection refused). Place: the only available active instance.",
                "Left out: west; active and not available (the peer is not in contact).",
                "Client 203.0.113.10: no view is configured, so every client gets the same order.",
                "A request for it that arrives here: serve here.",
            ]
        );
    }

    #[test]
    fn an_override_is_named_beside_what_is_measured() {
        let mut east = tests::knowledge("east");
        tests::all_up(&mut east);
        east.overrides.insert(("www".into(), "east".into()), Override::Down);
        let lines = ask(&east, "www.shop.test.", true).lines.join("\n");
        assert!(lines.contains("Left out: east; set down by an operator; measured: active and available"), "{lines}");
        assert!(lines.contains("No site is available: by the policy all_down, SERVFAIL is answered"), "{lines}");
    }

    #[test]
    fn names_of_no_resource_and_answers_not_yet_given_are_said_so() {
        let east = tests::knowledge("east");
        assert!(ask(&east, "mail.shop.test", false).lines[0].contains("from the records of zone shop.test."));
        assert!(ask(&east, "example.net", false).lines[0].contains("the answer is REFUSED"));
        assert!(ask(&east, "www.shop.test", false).lines[1].contains("the first complete round of probes is not over"));
    }

    #[test]
    fn what_is_no_name_is_an_error() {
        let question = Explain { name: "a..b".to_owned(), client: None };
        assert!(
            explain(&question, &tests::knowledge("east"), None).unwrap_err().contains("\"a..b\" is not a domain name")
        );
    }
}
