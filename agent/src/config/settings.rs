//! `[agent]`, `[sites]`, `[link]`, `[dns]` and `[dataplane]`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    path::PathBuf,
    time::Duration,
};

use hickory_proto::rr::LowerName;
use serde_spanned::Spanned;
use siteswap_common::maps::{FLOW_SETS, FLOW_WAYS};
use toml::de::DeValue;

use super::{
    Dataplane, Dns, Fingerprint, Link, Mode, Site, Zone, below,
    nearest::did_you_mean,
    section::Section,
    values::{address, domain, duration, endpoint, is_name, listener, name_rule, quoted, shown, text, whole, word},
};
use crate::answers::MAX_ADDRESSES;

/// An interface's name has at most this many bytes (IFNAMSIZ without its NUL).
const MAX_INTERFACE: usize = 15;

/// What the sections need to know of each other.
pub(super) struct Context {
    /// Every site's name.
    pub(super) names: Vec<String>,
    /// This site, if it is one of them.
    pub(super) site: Option<String>,
    /// Directory of the file.
    pub(super) base: PathBuf,
}

impl Context {
    /// A path, relative to the file.
    pub(super) fn path(&self) -> impl Fn(&DeValue<'_>) -> Result<PathBuf, String> {
        |value| match text(value)? {
            "" => Err("empty; name a file".to_owned()),
            text if text.contains('\0') => Err(format!("{} holds a NUL", shown(text))),
            text => Ok(below(&self.base, text)),
        }
    }

    /// The name of a site.
    pub(super) fn site_name(&self) -> impl Fn(&DeValue<'_>) -> Result<String, String> {
        |value| self.known(text(value)?)
    }

    /// `name`, if it is a site's.
    pub(super) fn known(&self, name: &str) -> Result<String, String> {
        one_of(name, &self.names)
    }
}

fn one_of(name: &str, names: &[String]) -> Result<String, String> {
    let known = || names.iter().map(String::as_str);
    if known().any(|known| known == name) {
        return Ok(name.to_owned());
    }
    if names.is_empty() {
        return Err(format!("{} is not described; there are no sites", shown(name)));
    }
    Err(format!("{} is none of the sites ({}){}", shown(name), quoted(known()), did_you_mean(name, known())))
}

/// `agent.site`
pub(super) fn own_site(agent: &mut Section<'_>, names: &[String]) -> Option<String> {
    let known = quoted(names.iter().map(String::as_str));
    let hint = format!("name this site, one of {known}");
    let site = agent.need("site", &hint, |value| one_of(text(value)?, names))?;
    Some(site.into_inner())
}

/// `[sites]`. Sites that are wrong are reported and left out.
pub(super) fn sites(section: &mut Section<'_>) -> BTreeMap<String, Site> {
    let mut sites = BTreeMap::new();
    let mut links: BTreeMap<SocketAddr, &str> = BTreeMap::new();
    let mut tunnels: BTreeMap<Ipv4Addr, &str> = BTreeMap::new();
    let mut fingerprints: BTreeMap<Fingerprint, &str> = BTreeMap::new();
    for (name, mut site) in section.named() {
        if !is_name(name.get_ref()) {
            section.report(&name.span(), "", name_rule(name.get_ref()));
        }
        let name = name.into_inner();
        let link = site.need("link", "write link = \"ADDRESS:PORT\" of its agent", endpoint);
        let tunnel = site.get("tunnel", tunnel);
        let fingerprint = site.need(
            "fingerprint",
            "write fingerprint = \"sha256:…\" as siteswap keygen printed it at that site",
            fingerprint,
        );
        site.finish();
        let (Some(link), Some(fingerprint)) = (link, fingerprint) else {
            continue;
        };
        if let Some(other) = links.insert(*link.get_ref(), name) {
            let message = format!("\"{link}\" is the link of {other:?} already; each site has its own");
            site.report(&link.span(), "link", message);
        }
        if let Some(other) = fingerprints.insert(*fingerprint.get_ref(), name) {
            let message = format!("this is the key of {other:?} already; each site has its own");
            site.report(&fingerprint.span(), "fingerprint", message);
        }
        let tunnel = tunnel.map(|tunnel| {
            if let Some(other) = tunnels.insert(*tunnel.get_ref().ip(), name) {
                let message =
                    format!("\"{}\" is the tunnel of {other:?} already; each site has its own", tunnel.get_ref().ip());
                site.report(&tunnel.span(), "tunnel", message);
            }
            if SocketAddr::V4(*tunnel.get_ref()) == *link.get_ref() {
                let message = format!("\"{link}\" is the site's link; give the tunnel a port of its own");
                site.report(&tunnel.span(), "tunnel", message);
            }
            tunnel.into_inner()
        });
        let (link, fingerprint) = (link.into_inner(), fingerprint.into_inner());
        sites.insert(name.to_owned(), Site { link, tunnel, fingerprint });
    }
    sites
}

/// Where a program takes what others send through the tunnel.
fn tunnel(value: &DeValue<'_>) -> Result<SocketAddrV4, String> {
    match endpoint(value)? {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(address) => {
            Err(format!("\"{address}\" is IPv6; the tunnel runs over IPv4, whatever it carries"))
        }
    }
}

fn fingerprint(value: &DeValue<'_>) -> Result<Fingerprint, String> {
    let text = text(value)?;
    text.parse().map_err(|error| format!("{} is {error}", shown(text)))
}

/// `[link]`
pub(super) fn link(section: &mut Section<'_>, context: &Context, own: Option<SocketAddr>) -> Option<Link> {
    let listen = section.get("listen", listener).map(Spanned::into_inner);
    let key = section.need("key", "write key = \"FILE.pem\", the file that siteswap keygen wrote", context.path());
    let period =
        section.or("period", Duration::from_millis(500), duration(Duration::from_millis(10)..=Duration::from_secs(60)));
    let periods = section.or("periods", 3, whole(1..=100));
    section.finish();
    Some(Link { listen: listen.or(own)?, key: key?.into_inner(), period, periods })
}

/// `[dns]`
pub(super) struct DnsDraft {
    listen: Vec<IpAddr>,
    port: u16,
    zones: Vec<Zone>,
    /// Whether `zones` is all that stands in the file; some may be wrong.
    complete: bool,
}

impl DnsDraft {
    /// The zones' names, if they are all known.
    pub(super) fn apexes(&self) -> Option<BTreeSet<&LowerName>> {
        let names = self.zones.iter().map(|zone| &zone.name);
        self.complete.then(|| names.collect())
    }

    pub(super) fn finish(self) -> Dns {
        Dns { listen: self.listen, port: self.port, zones: self.zones }
    }
}

/// `[dns]`
pub(super) fn dns(section: &mut Section<'_>, context: &Context) -> DnsDraft {
    let hint = "write listen = [\"ADDRESS\"] with the addresses queries arrive at";
    let listen = section.need_list("listen", hint, address);
    distinct(section, "listen", &listen);
    let addresses: Vec<IpAddr> = listen.into_iter().map(Spanned::into_inner).collect();
    if let Some(message) = too_many(&addresses) {
        section.report(&section.span_of("listen"), "listen", message);
    }
    let port = section.or("port", 53, whole(1..=u16::MAX));
    let sections = section.sections("zone");
    let (mut zones, given) = (Vec::new(), sections.len());
    let complete = !section.has("zone") || given > 0;
    for mut zone in sections {
        zones.extend(self::zone(&mut zone, context, &zones));
    }
    section.finish();
    DnsDraft { listen: addresses, port, complete: complete && zones.len() == given, zones }
}

/// `[[dns.zone]]`, after the zones `before`.
fn zone(section: &mut Section<'_>, context: &Context, before: &[Zone]) -> Option<Zone> {
    let name = section.need("name", "write name = \"shop.test\"", domain);
    let file = section.need("file", "write file = \"shop.test.zone\"", context.path());
    section.finish();
    let (name, file) = (name?, file?);
    if before.iter().any(|other| other.name == *name.get_ref()) {
        let message = "this zone is given already; keep one of them";
        section.report(&name.span(), "name", message);
    }
    Some(Zone { name: name.into_inner(), file: file.into_inner() })
}

/// `[dataplane]`
pub(super) fn dataplane(section: &mut Section<'_>, context: &Context) -> Dataplane {
    let interfaces = section.list("interfaces", interface);
    distinct(section, "interfaces", &interfaces);
    let modes = [("auto", Mode::Auto), ("native", Mode::Native), ("generic", Mode::Generic)];
    let dataplane = Dataplane {
        interfaces: interfaces.into_iter().map(Spanned::into_inner).collect(),
        mode: section.or("mode", Mode::Auto, word(&modes)),
        pins: section.or("pins", "/sys/fs/bpf/siteswap".into(), context.path()),
        lease: section.or(
            "lease",
            Duration::from_secs(5),
            duration(Duration::from_secs(1)..=Duration::from_secs(3600)),
        ),
        flows: section.or("flows", FLOW_SETS * FLOW_WAYS, whole(8_192..=1 << 24)).next_power_of_two(),
    };
    section.finish();
    dataplane
}

/// As the kernel's `dev_valid_name`.
fn interface(value: &DeValue<'_>) -> Result<String, String> {
    let name = text(value)?;
    let bad = |c: u8| c.is_ascii_whitespace() || c == b'/' || c == b':' || c == 0;
    if name.is_empty() || name == "." || name == ".." || name.bytes().any(bad) {
        return Err(format!("{} cannot be an interface's name", shown(name)));
    }
    if name.len() > MAX_INTERFACE {
        return Err(format!("{} is longer than {MAX_INTERFACE} bytes, which no interface's name is", shown(name)));
    }
    Ok(name.to_owned())
}

/// Reports what is in a list more than once.
pub(super) fn distinct<T: Ord + std::fmt::Display>(section: &Section<'_>, key: &str, list: &[Spanned<T>]) {
    let mut seen = BTreeSet::new();
    for item in list {
        if !seen.insert(item.get_ref()) {
            let message = format!("{} is given twice; keep one of them", shown(&item.get_ref().to_string()));
            section.report(&item.span(), key, message);
        }
    }
}

/// What is wrong if there are more addresses of a family than an answer or the program's maps hold.
pub(super) fn too_many(addresses: &[IpAddr]) -> Option<String> {
    let v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
    let v6 = addresses.len() - v4;
    [("IPv4", v4), ("IPv6", v6)]
        .into_iter()
        .find(|(_, count)| *count > MAX_ADDRESSES)
        .map(|(family, count)| format!("{count} {family} addresses; at most {MAX_ADDRESSES} are possible"))
}
