//! From records to a tree that can be served: what is refused, what is warned about.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{
    super::{
        name::{Key, Name, ancestor_in},
        rtype,
    },
    Node, Set, Zone, Zones,
    error::{Place, ZoneError, ZoneWarning},
    file::{self, Record},
    rdata::type_name,
};
use crate::config;

/// The largest set of records, octets on the wire: it must fit a message over TCP.
const MAX_SET: usize = 60_000;
/// Type, class, TTL and RDLENGTH, and the owner as a pointer.
const RECORD_OVERHEAD: usize = 12;

pub(super) fn load(zones: &[config::Zone], resources: &BTreeMap<String, config::Resource>) -> Result<Zones, ZoneError> {
    let mut loaded = Zones { zones: BTreeMap::new(), warnings: Vec::new() };
    let mut drafts = BTreeMap::new();
    for zone in zones {
        let draft = Draft::read(zone)?;
        if drafts.insert(draft.apex.key(), draft).is_some() {
            let twice = format!("the zone {} is configured twice", zone.name);
            return Err(ZoneError::configuration(twice));
        }
    }
    for (resource, config) in resources {
        for domain in &config.domains {
            let key = Name::from(domain).key();
            let zone =
                drafts.iter_mut().filter(|(apex, _)| key.is_within(apex)).max_by_key(|(apex, _)| apex.bytes().len());
            let Some((_, zone)) = zone else {
                return Err(ZoneError::configuration(format!(
                    "resource {resource}: its domain {domain} lies in no zone: add a [[dns.zone]] that encloses it"
                )));
            };
            zone.add_domain(resource, domain)?;
        }
    }
    for (apex, mut draft) in drafts {
        draft.check_targets();
        loaded.warnings.append(&mut draft.warnings);
        loaded.zones.insert(apex, draft.finish()?);
    }
    Ok(loaded)
}

/// A zone that is being built: the nodes, and where each set was first written.
struct Draft<'c> {
    config: &'c config::Zone,
    apex: Name,
    nodes: BTreeMap<Key, Node>,
    places: BTreeMap<(Key, u16), Place>,
    /// Which resource each of its domains belongs to.
    resources: BTreeMap<Key, String>,
    cuts: BTreeSet<Key>,
    warnings: Vec<ZoneWarning>,
}

impl<'c> Draft<'c> {
    fn read(config: &'c config::Zone) -> Result<Self, ZoneError> {
        let apex = Name::from(&config.name);
        let records = file::read(&config.file, &apex)?;
        let mut draft = Draft {
            config,
            apex,
            nodes: BTreeMap::new(),
            places: BTreeMap::new(),
            resources: BTreeMap::new(),
            cuts: BTreeSet::new(),
            warnings: Vec::new(),
        };
        for record in records {
            draft.add(record)?;
        }
        draft.check_apex()?;
        draft.check_aliases()?;
        draft.find_cuts();
        Ok(draft)
    }

    fn file(&self) -> &Path {
        &self.config.file
    }

    fn add(&mut self, record: Record) -> Result<(), ZoneError> {
        let Record { owner, rtype, ttl, rdata, place } = record;
        self.check_owner(&owner, rtype, &place)?;
        let key = owner.key();
        let node = self.nodes.entry(key.clone()).or_insert_with(|| Node {
            name: owner.clone(),
            resource: None,
            sets: BTreeMap::new(),
        });
        let set = node.sets.entry(rtype).or_insert_with(|| Set { ttl, rdata: Vec::new() });
        let mut warn = |message| self.warnings.push(ZoneWarning::at(&place, message));
        let what = || format!("{owner} {}", type_name(rtype));
        if set.rdata.iter().any(|other| same_rdata(rtype, other, &rdata)) {
            warn(format!("{}: the same record was written before; it is served once (RFC 2181 §5)", what()));
            return Ok(());
        }
        if matches!(rtype, rtype::SOA | rtype::CNAME) && !set.rdata.is_empty() {
            return Err(ZoneError::at(&place, format!("{}: there is another; a name has at most one", what())));
        }
        if set.ttl != ttl {
            set.ttl = set.ttl.min(ttl);
            warn(format!(
                "{}: TTL {ttl} differs from the set's other records; all are served with {} (RFC 2181 §5.2)",
                what(),
                set.ttl
            ));
        }
        set.rdata.push(rdata);
        let size: usize = set.rdata.iter().map(|rdata| rdata.len() + RECORD_OVERHEAD).sum();
        if size > MAX_SET {
            let message = format!("{}: the set is larger than {MAX_SET} octets, no message can hold it", what());
            return Err(ZoneError::at(&place, message));
        }
        self.places.entry((key, rtype)).or_insert(place);
        Ok(())
    }

    fn check_owner(&self, owner: &Name, rtype: u16, place: &Place) -> Result<(), ZoneError> {
        let wrong = |why| Err(ZoneError::at(place, why));
        let (key, apex) = (owner.key(), self.apex.key());
        if !key.is_within(&apex) {
            return wrong(format!(
                "{owner} lies outside the zone {}: a name that ends in a dot is taken as it is, others are relative to \
                 the origin",
                self.apex
            ));
        }
        if rtype == rtype::SOA && key != apex {
            return wrong(format!("{owner} SOA: the SOA belongs to the zone's apex, {}", self.apex));
        }
        if rtype == rtype::NS && owner.is_wildcard() {
            return wrong(format!("{owner} NS: a wildcard cannot be delegated (RFC 4592 §4.2)"));
        }
        Ok(())
    }

    fn check_apex(&self) -> Result<(), ZoneError> {
        let apex = self.nodes.get(&self.apex.key());
        for (rtype, why) in [
            (rtype::SOA, "says for how long a name's absence is remembered (RFC 1035 §5.2)"),
            (rtype::NS, "names the zone's servers (RFC 1034 §4.2.1)"),
        ] {
            if !apex.is_some_and(|apex| apex.sets.contains_key(&rtype)) {
                let message = format!("the zone has no {} at {}: it {why}", type_name(rtype), self.apex);
                return Err(ZoneError::in_file(self.file(), message));
            }
        }
        Ok(())
    }

    /// RFC 2181 §10.1: an alias has no other data.
    fn check_aliases(&self) -> Result<(), ZoneError> {
        for (key, node) in &self.nodes {
            let other = node.sets.keys().find(|rtype| **rtype != rtype::CNAME);
            if let (true, Some(other)) = (node.sets.contains_key(&rtype::CNAME), other) {
                let message = format!(
                    "{} is a CNAME and has {} records too ({}): keep the one or the other (RFC 2181 §10.1)",
                    node.name,
                    type_name(*other),
                    self.places[&(key.clone(), *other)]
                );
                let place = &self.places[&(key.clone(), rtype::CNAME)];
                return Err(ZoneError::at(place, message));
            }
        }
        Ok(())
    }

    /// Finds the delegations. What they hide is kept, because it may be glue.
    fn find_cuts(&mut self) {
        let apex = self.apex.key();
        for (key, node) in &self.nodes {
            // The nodes are sorted: the cut that hides this node, if any, is the last one found.
            let hidden = self.cuts.last().is_some_and(|cut| key.is_within(cut));
            let cut = *key != apex && node.sets.contains_key(&rtype::NS);
            if !hidden && cut {
                self.cuts.insert(key.clone());
            }
            for rtype in node.sets.keys() {
                let useful = match (hidden, cut) {
                    (false, false) => true,
                    (false, true) => {
                        matches!(*rtype, rtype::NS | rtype::DS | rtype::A | rtype::AAAA)
                    }
                    (true, _) => matches!(*rtype, rtype::A | rtype::AAAA),
                };
                if !useful {
                    let message = format!(
                        "{} {} is hidden by a delegation and never answered (RFC 1034 §4.2.1)",
                        node.name,
                        type_name(*rtype)
                    );
                    let place = &self.places[&(key.clone(), *rtype)];
                    self.warnings.push(ZoneWarning::at(place, message));
                }
            }
        }
    }

    /// Makes a resource's domain a name of this zone.
    fn add_domain(&mut self, resource: &str, domain: &hickory_proto::rr::LowerName) -> Result<(), ZoneError> {
        let name = Name::from(domain);
        let key = name.key();
        let refuse = |message: String| Err(ZoneError::configuration(message));
        if name.is_wildcard() {
            return refuse(format!(
                "resource {resource}: its domain {name} is a wildcard; list the names, or let a wildcard CNAME in {} \
                 lead to one of them",
                self.file().display()
            ));
        }
        if let Some(cut) = ancestor_in(&self.cuts, &key) {
            let message = format!(
                "{} is delegated, but the domain {name} of resource {resource} lies in it: remove the NS records, or \
                 the domain",
                self.nodes[cut].name
            );
            return Err(ZoneError::at(&self.places[&(cut.clone(), rtype::NS)], message));
        }
        for rtype in [rtype::A, rtype::AAAA, rtype::CNAME] {
            if let Some(place) = self.places.get(&(key.clone(), rtype)) {
                let message = format!(
                    "{name} {}: the name is a domain of resource {resource}, whose addresses are answered instead: \
                     remove the record, or the domain",
                    type_name(rtype)
                );
                return Err(ZoneError::at(place, message));
            }
        }
        if let Some(other) = self.resources.insert(key.clone(), resource.to_owned()) {
            return refuse(format!(
                "the domain {name} belongs to resource {other} and to resource {resource}: give it to one of them"
            ));
        }
        let node = self.nodes.entry(key).or_insert_with(|| Node { name, resource: None, sets: BTreeMap::new() });
        node.resource = Some(domain.clone());
        Ok(())
    }

    /// Warns about targets in this zone that lead nowhere (RFC 2181 §10.3).
    fn check_targets(&mut self) {
        let mut warnings = Vec::new();
        // A target under a wildcard may have an address; which one is not worth finding out.
        let wildcards = self.nodes.values().any(|node| node.name.is_wildcard());
        for (key, node) in &self.nodes {
            for (rtype, skip) in [(rtype::NS, 0), (rtype::MX, 2), (rtype::SRV, 6)] {
                let Some(set) = node.sets.get(&rtype) else {
                    continue;
                };
                for rdata in &set.rdata {
                    let target = Name::read(rdata, skip).map(|(name, _)| name);
                    let why = target.as_ref().and_then(|target| self.target_fault(target, wildcards));
                    if let (Some(target), Some(why)) = (target, why) {
                        let message = format!("{} {}: the target {target} {why}", node.name, type_name(rtype));
                        let place = &self.places[&(key.clone(), rtype)];
                        warnings.push(ZoneWarning::at(place, message));
                    }
                }
            }
        }
        self.warnings.append(&mut warnings);
    }

    fn target_fault(&self, target: &Name, wildcards: bool) -> Option<&'static str> {
        let key = target.key();
        // The root as target means that there is no such service (RFC 2782, RFC 7505).
        if !key.is_within(&self.apex.key()) || key.bytes().is_empty() {
            return None;
        }
        match self.nodes.get(&key) {
            Some(node) if node.sets.contains_key(&rtype::CNAME) => {
                Some("is a CNAME; name the canonical name (RFC 2181 §10.3)")
            }
            Some(node) if node.resource.is_some() => None,
            Some(node) if [rtype::A, rtype::AAAA].iter().any(|rtype| node.sets.contains_key(rtype)) => None,
            None if wildcards || ancestor_in(&self.cuts, &key).is_some() => None,
            _ => Some("has no address"),
        }
    }

    fn finish(self) -> Result<Zone, ZoneError> {
        let set = &self.nodes[&self.apex.key()].sets[&rtype::SOA];
        let soa = set.rdata[0].clone();
        // RFC 1035 §3.3.13: two names and five numbers, the serial first, the minimum last.
        let number = |from_end: usize| {
            let at = soa.len().checked_sub(4 * from_end)?;
            soa.get(at..)?.first_chunk::<4>().map(|four| u32::from_be_bytes(*four))
        };
        let (Some(serial), Some(minimum)) = (number(5), number(1)) else {
            return Err(ZoneError::in_file(self.file(), "the SOA is too short"));
        };
        Ok(Zone {
            name: self.config.name.clone(),
            serial,
            negative_ttl: set.ttl.min(minimum),
            soa,
            apex: self.apex,
            nodes: self.nodes,
            cuts: self.cuts,
        })
    }
}

/// Whether two records of a type say the same: names in RDATA compare case-blind (RFC 4343 §3).
fn same_rdata(rtype: u16, a: &[u8], b: &[u8]) -> bool {
    let exact = match rtype {
        rtype::NS | rtype::CNAME | rtype::PTR => 0,
        rtype::MX => 2,
        rtype::SRV => 6,
        _ => return a == b,
    };
    let exact = exact.min(a.len()).min(b.len());
    a[..exact] == b[..exact] && a[exact..].eq_ignore_ascii_case(&b[exact..])
}
