//! What resources promise each other and the zones: nothing is claimed twice, and every name has a zone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hickory_proto::rr::LowerName;
use serde_spanned::Spanned;

use super::{
    Zone,
    error::{Problems, Span},
    resource::Draft,
    values::quoted,
};

/// Reports every domain outside the zones, and every domain and address that is claimed twice.
pub(super) fn check(zones: &[(Span, Zone)], resources: &[Draft], problems: &Problems) {
    let names: BTreeSet<&LowerName> = zones.iter().map(|(_, zone)| &zone.name).collect();
    let mut domains = Claims::default();
    let mut addresses: Claims<'_, IpAddr> = Claims::default();
    for resource in resources {
        let key = format!("resources.{}.domains", resource.name);
        for domain in &resource.domains {
            if !in_zones(domain.get_ref(), &names) {
                let apexes: Vec<String> = names.iter().map(plain).collect();
                let known = quoted(apexes.iter().map(String::as_str));
                let message = format!(
                    "{key}: {:?} lies in none of the zones ({known}); add a [[dns.zone]] that holds it",
                    plain(domain)
                );
                problems.report(&domain.span(), message);
            }
            domains.claim(&resource.name, &key, domain, problems);
        }
        for (site, instance) in &resource.instances {
            let key = format!("resources.{}.sites.{site}.addresses", resource.name);
            for address in &instance.addresses {
                addresses.claim(&resource.name, &key, address, problems);
            }
        }
    }
}

fn in_zones(domain: &LowerName, zones: &BTreeSet<&LowerName>) -> bool {
    let mut name = domain.clone();
    loop {
        if zones.contains(&name) {
            return true;
        }
        if name.is_root() {
            return false;
        }
        name = name.base_name();
    }
}

/// As it is usually written: a domain name without its last dot.
fn plain(what: impl std::fmt::Display) -> String {
    let text = what.to_string();
    text.strip_suffix('.').map_or(text.clone(), str::to_owned)
}

/// Who claimed what.
struct Claims<'a, T>(BTreeMap<&'a T, &'a str>);

impl<T> Default for Claims<'_, T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'a, T: Ord + std::fmt::Display> Claims<'a, T> {
    fn claim(&mut self, resource: &'a str, key: &str, what: &'a Spanned<T>, problems: &Problems) {
        if let Some(first) = self.0.insert(what.get_ref(), resource) {
            let (span, what) = (what.span(), plain(what));
            let message = if first == resource {
                format!("{key}: {what:?} is given twice; keep one of them")
            } else {
                format!("{key}: {what:?} belongs to the resource {first:?} already")
            };
            problems.report(&span, message);
        }
    }
}
