//! What resources promise each other and the zones: nothing is claimed twice, and every name has a zone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use hickory_proto::rr::LowerName;
use serde_spanned::Spanned;

use super::{
    Site,
    database::DatabaseDraft,
    error::Problems,
    resource::Draft,
    values::{quoted, shown},
};

/// Reports every domain outside the zones, and every domain and address that is claimed twice. `zones`: their names, if
/// they could all be read.
pub(super) fn check(zones: Option<&BTreeSet<&LowerName>>, resources: &[Draft], problems: &Problems) {
    let mut domains = Vec::new();
    let mut addresses = Vec::new();
    for resource in resources {
        let key = format!("resources.{}.domains", resource.name);
        for domain in &resource.domains {
            if let Some(zones) = zones.filter(|zones| !in_zones(domain.get_ref(), zones)) {
                let message = format!("{key}: {}", homeless(domain.get_ref(), zones));
                problems.report(&domain.span(), message);
            }
            domains.push((domain, resource.name.as_str(), key.clone()));
        }
        for (site, instance) in &resource.instances {
            let key = format!("resources.{}.sites.{site}.addresses", resource.name);
            for address in &instance.addresses {
                addresses.push((address, resource.name.as_str(), key.clone()));
            }
        }
    }
    once(domains, |domain| format!("{:?}", plain(domain)), problems);
    once(addresses, |address| format!("\"{address}\""), problems);
}

/// Reports every table of a resource that is not kept the same at the sites, and every one that belongs to two.
pub(super) fn tables(database: Option<&DatabaseDraft>, resources: &[Draft], problems: &Problems) {
    let mut claims = Vec::new();
    for resource in resources {
        let key = format!("resources.{}.tables", resource.name);
        if let (None, [first, ..]) = (database, &resource.tables[..]) {
            let message = "there is no database; add a section [database] with file = \"FILE.db\"";
            problems.report(&first.span(), format!("{key}: {message}"));
        }
        let kept = database.and_then(|database| database.tables.as_ref());
        for table in &resource.tables {
            if kept.is_some_and(|kept| !kept.contain(table.get_ref())) {
                let table_shown = shown(table.get_ref().as_str());
                let message = format!("{key}: {table_shown} is not among database.tables; list it there too");
                problems.report(&table.span(), message);
            }
            claims.push((table, resource.name.as_str(), key.clone()));
        }
    }
    once(claims, |table| shown(table.as_str()), problems);
}

/// Reports every instance that others could have to forward requests to, at a site without a tunnel.
pub(super) fn tunnels(sites: &BTreeMap<String, Site>, resources: &[Draft], problems: &Problems) {
    for resource in resources.iter().filter(|resource| !resource.ports.is_empty() && resource.instances.len() > 1) {
        for (site, instance) in &resource.instances {
            if sites.get(site).is_some_and(|site| site.tunnel.is_none()) {
                let message = format!(
                    "resources.{}.sites.{site}: its requests are forwarded between sites, but [sites.{site}] has no tunnel; \
                     give it tunnel = \"ADDRESS:PORT\"",
                    resource.name
                );
                problems.report(&instance.span, message);
            }
        }
    }
}

fn in_zones(domain: &LowerName, zones: &BTreeSet<&LowerName>) -> bool {
    let mut name = domain.clone();
    while !name.is_root() {
        if zones.contains(&name) {
            return true;
        }
        name = name.base_name();
    }
    false
}

fn homeless(domain: &LowerName, zones: &BTreeSet<&LowerName>) -> String {
    let domain = plain(domain);
    if zones.is_empty() {
        return format!("{domain:?} lies in no zone; add a [[dns.zone]] that holds it");
    }
    let names: Vec<String> = zones.iter().map(plain).collect();
    let names = quoted(names.iter().map(String::as_str));
    format!("{domain:?} lies in none of the zones ({names}); add a [[dns.zone]] that holds it")
}

/// Reports what is claimed after somebody else has. A claim: what, by which resource, under which key. `quoted`: as people
/// are shown it.
fn once<T: Ord>(mut claims: Vec<(&Spanned<T>, &str, String)>, quoted: impl Fn(&T) -> String, problems: &Problems) {
    claims.sort_by_key(|(what, ..)| what.span().start);
    let mut claimed = BTreeMap::new();
    for (what, resource, key) in claims {
        let Some(first) = claimed.insert(what.get_ref(), resource) else {
            continue;
        };
        let (span, what) = (what.span(), quoted(what.get_ref()));
        let message = if first == resource {
            format!("{key}: {what} is given twice; keep one of them")
        } else {
            format!("{key}: {what} belongs to the resource {first:?} already")
        };
        problems.report(&span, message);
    }
}

/// As it is usually written: a domain name without its last dot.
fn plain(what: impl Display) -> String {
    let mut text = what.to_string();
    if text.ends_with('.') {
        text.pop();
    }
    text
}
