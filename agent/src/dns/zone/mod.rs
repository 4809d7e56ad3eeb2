//! Zones as they are served: trees of names, read from zone files, checked before anything is answered from them.

mod build;
mod error;
mod file;
mod lexer;
mod rdata;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Included, Unbounded},
};

use hickory_proto::rr::LowerName;

pub use error::{ZoneError, ZoneWarning};

use super::{
    name::{Key, Name, ancestor_in, common, parent},
    reply::RrSet,
    rtype,
};
use crate::config;

/// Every zone this server is authoritative for, with the resources' names in them. Immutable.
#[derive(Debug)]
pub struct Zones {
    zones: BTreeMap<Key, Zone>,
    warnings: Vec<ZoneWarning>,
}

/// One zone.
#[derive(Debug)]
pub(super) struct Zone {
    name: LowerName,
    apex: Name,
    serial: u32,
    soa: Vec<u8>,
    /// TTL of the SOA in negative answers (RFC 2308 §3).
    negative_ttl: u32,
    nodes: BTreeMap<Key, Node>,
    /// Delegations; none lies below another.
    cuts: BTreeSet<Key>,
}

/// A name that owns something.
#[derive(Debug)]
pub(super) struct Node {
    /// As first written in the zone file.
    pub name: Name,
    /// The resource's domain, exactly as the configuration has it: A and AAAA come from the answer table.
    pub resource: Option<LowerName>,
    sets: BTreeMap<u16, Set>,
}

/// Records of one type.
#[derive(Debug)]
struct Set {
    ttl: u32,
    /// Uncompressed; never empty.
    rdata: Vec<Vec<u8>>,
}

/// What a zone has at a name.
pub(super) enum Found<'z> {
    /// A node of that name, or the wildcard that stands for it.
    Node(&'z Node),
    /// The delegation at or above the name.
    Cut(&'z Key, &'z Node),
    /// Nothing at the name, but something below it (RFC 4592 §2.2.2).
    EmptyNonTerminal,
    /// The name does not exist.
    Nothing,
}

impl Zones {
    /// Reads and checks every zone file. The resources' domains become names of the zones they lie in. Blocks on
    /// files.
    ///
    /// # Errors
    ///
    /// The first thing that cannot be served as it is written: file, line, what is wrong and what would be right.
    pub fn load(zones: &[config::Zone], resources: &BTreeMap<String, config::Resource>) -> Result<Self, ZoneError> {
        build::load(zones, resources)
    }

    /// What is suspicious but served, in the order of the configuration and the files.
    pub fn warnings(&self) -> &[ZoneWarning] {
        &self.warnings
    }

    /// Each zone's name and the serial number of its SOA.
    pub fn serials(&self) -> impl Iterator<Item = (&LowerName, u32)> {
        self.zones.values().map(|zone| (&zone.name, zone.serial))
    }

    /// The zone's serial number.
    pub fn serial(&self, zone: &LowerName) -> Option<u32> {
        let zone = self.zones.get(&Name::from(zone).key())?;
        Some(zone.serial)
    }

    /// The zone that answers for a name and type.
    pub(super) fn find(&self, name: &Key, qtype: u16) -> Option<&Zone> {
        let (apex, zone) = self.closest(name.bytes())?;
        if qtype == rtype::DS && apex == name {
            // RFC 4035 §3.1.4.1: DS belongs to the zone above, if that is served here and delegates this one.
            let above = parent(name.bytes())
                .and_then(|parent| self.closest(parent))
                .map(|(_, above)| above)
                .filter(|above| above.cuts.contains(name));
            return Some(above.unwrap_or(zone));
        }
        Some(zone)
    }

    /// The closest enclosing zone. Whatever zone encloses `name` sorts at or before it, and so does everything that
    /// zone shares with the name's predecessor: each step strips what they do not share.
    fn closest(&self, mut name: &[u8]) -> Option<(&Key, &Zone)> {
        loop {
            let range = (Unbounded, Included(name));
            let (apex, zone) = self.zones.range::<[u8], _>(range).next_back()?;
            if name.starts_with(apex.bytes()) {
                return Some((apex, zone));
            }
            name = &name[..common(name, apex.bytes())];
        }
    }
}

impl Zone {
    /// Whether the name lies in this zone's part of the tree.
    pub(super) fn holds(&self, name: &Key) -> bool {
        name.is_within(&self.apex.key())
    }

    /// What is at `name`, which must lie in this zone. Two or three searches, however many labels the name has.
    pub(super) fn find<'z>(&'z self, name: &Key) -> Found<'z> {
        if let Some(cut) = self.cut(name)
            && let Some(node) = self.nodes.get(cut)
        {
            return Found::Cut(cut, node);
        }
        if let Some(node) = self.nodes.get(name) {
            return Found::Node(node);
        }
        if self.has_descendants(name) {
            return Found::EmptyNonTerminal;
        }
        // RFC 4592 §3.3.1: the wildcard must stand directly below the closest encloser.
        let wildcard = Key::wildcard(self.closest_encloser(name));
        match self.nodes.get(&wildcard) {
            Some(node) => Found::Node(node),
            None if self.has_descendants(&wildcard) => Found::EmptyNonTerminal,
            None => Found::Nothing,
        }
    }

    /// The delegation at or above the name.
    fn cut(&self, name: &Key) -> Option<&Key> {
        ancestor_in(&self.cuts, name)
    }

    fn has_descendants(&self, name: &Key) -> bool {
        self.nodes.range::<Key, _>((Excluded(name), Unbounded)).next().is_some_and(|(next, _)| next.is_within(name))
    }

    /// The longest existing ancestor of a name that does not exist: what it shares with a neighbour.
    fn closest_encloser<'k>(&self, name: &'k Key) -> &'k [u8] {
        let before = self.nodes.range::<Key, _>(..name).next_back();
        let after = self.nodes.range::<Key, _>(name..).next();
        let shared = before
            .into_iter()
            .chain(after)
            .map(|(neighbour, _)| common(name.bytes(), neighbour.bytes()))
            .max()
            .unwrap_or(0);
        &name.bytes()[..shared]
    }

    /// Addresses of a name server at or below a delegation.
    pub(super) fn glue(&self, server: &Key) -> Option<&Node> {
        self.cut(server)?;
        self.nodes.get(server)
    }

    /// The SOA record of NODATA and NXDOMAIN.
    pub(super) fn negative_soa(&self) -> RrSet<'_> {
        RrSet {
            owner: Cow::Borrowed(&self.apex),
            rtype: rtype::SOA,
            ttl: self.negative_ttl,
            rdata: vec![Cow::Borrowed(&self.soa)],
        }
    }
}

impl Node {
    /// The records of a type, owned by `owner`: a wildcard's are owned by the name that was asked for.
    pub(super) fn set<'z>(&'z self, owner: Cow<'z, Name>, rtype: u16) -> Option<RrSet<'z>> {
        let set = self.sets.get(&rtype)?;
        Some(RrSet {
            owner,
            rtype,
            ttl: set.ttl,
            rdata: set.rdata.iter().map(|rdata| Cow::Borrowed(&rdata[..])).collect(),
        })
    }
}
