//! `[resources.NAME]` and its instances.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_proto::rr::LowerName;
use serde_spanned::Spanned;
use siteswap_common::maps::MAX_PORTS;
use toml::de::DeValue;

use super::{
    AllDown, Failback, Instance, Port, Probe, Resource, Role, StandbyWrites, TableName, Takeover,
    error::Span,
    probe::probe,
    section::Section,
    settings::{Context, distinct, too_many},
    values::{address, backend, describe, domain, duration, is_name, name_rule, port, quoted, table, whole, word},
};

/// `all_down` where it is a word.
#[derive(Clone, Copy)]
enum AllDownWord {
    All,
    NoData,
    ServFail,
}

/// RFC 2181 §8.
const MAX_TTL: u32 = (1 << 31) - 1;

/// Longer is no waiting any more.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

/// A resource as it stands in the file, with the places of what it shares with others.
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) domains: Vec<Spanned<LowerName>>,
    pub(super) instances: BTreeMap<String, DraftInstance>,
    pub(super) ports: Vec<Spanned<Port>>,
    pub(super) tables: Vec<Spanned<TableName>>,
    standby_writes: StandbyWrites,
    ttl: u32,
    order: Vec<String>,
    all_down: AllDown,
    takeover: Takeover,
    failback: Failback,
    failback_after: Duration,
    drain_time: Duration,
    /// `None`: wrong, and reported.
    probe: Option<Probe>,
}

/// `[resources.NAME.sites.SITE]`
pub(super) struct DraftInstance {
    pub(super) addresses: Vec<Spanned<IpAddr>>,
    /// `None`: wrong, and reported.
    role: Option<Role>,
    backends: Vec<(SocketAddr, u32)>,
    pub(super) span: Span,
}

impl Draft {
    /// `None`: something is wrong and has been reported.
    pub(super) fn finish(self) -> Option<Resource> {
        let instances = self.instances.into_iter().map(|(site, draft)| {
            let instance = Instance {
                role: draft.role?,
                addresses: draft.addresses.into_iter().map(Spanned::into_inner).collect(),
                backends: draft.backends.iter().map(|(address, _)| *address).collect(),
                weights: draft.backends.into_iter().filter(|(_, weight)| *weight != 1).collect(),
            };
            Some((site, instance))
        });
        Some(Resource {
            ports: self.ports.into_iter().map(Spanned::into_inner).collect(),
            domains: self.domains.into_iter().map(Spanned::into_inner).collect(),
            tables: self.tables.into_iter().map(Spanned::into_inner).collect(),
            standby_writes: self.standby_writes,
            ttl: self.ttl,
            order: self.order,
            all_down: self.all_down,
            takeover: self.takeover,
            failback: self.failback,
            failback_after: self.failback_after,
            drain_time: self.drain_time,
            probe: self.probe?,
            instances: instances.collect::<Option<_>>()?,
        })
    }
}

/// `[resources]`
pub(super) fn all(section: &mut Section<'_>, context: &Context) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (name, mut resource) in section.named() {
        if !is_name(name.get_ref()) {
            section.report(&name.span(), "", name_rule(name.get_ref()));
        }
        drafts.push(draft(name.get_ref(), &mut resource, context));
    }
    drafts
}

fn draft(name: &str, section: &mut Section<'_>, context: &Context) -> Draft {
    let domains = section.list("domains", domain);
    let ports = ports(section);
    let (tables, standby_writes) = tables(section);
    let ttl = section.or("ttl", 5, whole(0..=MAX_TTL));
    let takeovers = [("confirmed", Takeover::Confirmed), ("silence", Takeover::Silence), ("manual", Takeover::Manual)];
    let takeover = section.or("takeover", Takeover::Confirmed, word(&takeovers));
    let failbacks = [("manual", Failback::Manual), ("auto", Failback::Auto)];
    let failback = section.or("failback", Failback::Manual, word(&failbacks));
    let minute = Duration::from_secs(60);
    let failback_after = section.or("failback_after", minute, duration(Duration::ZERO..=MAX_WAIT));
    let drain_time = section.or("drain_time", minute, duration(Duration::ZERO..=MAX_WAIT));
    let all_down = all_down(section);
    let try_hint = "say what to try: tcp = true, or url = \"http://HOST/PATH\"";
    let probe = probe(&mut section.need_section("probe", try_hint), context);
    let sites = section.need_section("sites", "describe each instance in a section of its own");
    let instances = instances(&sites, !domains.is_empty() || !ports.is_empty(), context);
    let order = order(section, &instances, context);
    section.finish();
    Draft {
        name: name.to_owned(),
        domains,
        ports,
        tables,
        standby_writes,
        instances,
        ttl,
        order,
        all_down,
        takeover,
        failback,
        failback_after,
        drain_time,
        probe,
    }
}

fn ports(section: &mut Section<'_>) -> Vec<Spanned<Port>> {
    let ports = section.list("ports", port);
    distinct(section, "ports", &ports);
    if ports.len() > MAX_PORTS {
        let message =
            format!("{} ports; at most {MAX_PORTS} are possible, and \"tcp/any\" stands for all", ports.len());
        section.report(&section.span_of("ports"), "ports", message);
    }
    ports
}

/// `tables` and what is said about writes to them.
fn tables(section: &mut Section<'_>) -> (Vec<Spanned<TableName>>, StandbyWrites) {
    let tables = section.list("tables", table);
    let words = [("allow", StandbyWrites::Allow), ("refuse", StandbyWrites::Refuse)];
    let writes = section.or("standby_writes", StandbyWrites::Allow, word(&words));
    if section.has("standby_writes") && !section.has("tables") {
        let message = "the resource has no tables to write to; list them: tables = [\"TABLE\"]";
        section.report(&section.span_of("standby_writes"), "standby_writes", message);
    }
    (tables, writes)
}

fn all_down(section: &mut Section<'_>) -> AllDown {
    if section.is_section("all_down") {
        let mut table = section.section("all_down");
        let hint = "list the addresses to give: fallback = [\"192.0.2.99\"]";
        let fallback = table.need_list("fallback", hint, address);
        table.finish();
        return AllDown::Fallback(addresses(&table, "fallback", fallback.iter()));
    }
    let words = [("all", AllDownWord::All), ("nodata", AllDownWord::NoData), ("servfail", AllDownWord::ServFail)];
    let word = section.or("all_down", AllDownWord::All, |value| {
        word(&words)(value).map_err(|wrong| format!("{wrong}; or {{ fallback = [\"ADDRESS\"] }}"))
    });
    match word {
        AllDownWord::All => AllDown::All,
        AllDownWord::NoData => AllDown::NoData,
        AllDownWord::ServFail => AllDown::ServFail,
    }
}

/// `order`: by default the sites by name.
fn order(section: &mut Section<'_>, instances: &BTreeMap<String, DraftInstance>, context: &Context) -> Vec<String> {
    let by_name: Vec<String> = instances.keys().cloned().collect();
    let Some(order) = section.get("order", |value| names(value, context)) else {
        return by_name;
    };
    let mut sorted = order.get_ref().clone();
    sorted.sort();
    if sorted != by_name {
        let sites = quoted(by_name.iter().map(String::as_str));
        let message = format!("must hold each site of the resource's instances once: {sites}");
        section.report(&order.span(), "order", message);
    }
    order.into_inner()
}

fn names(value: &DeValue<'_>, context: &Context) -> Result<Vec<String>, String> {
    let DeValue::Array(items) = value else {
        return Err(format!("found {}, expected a list of sites", describe(value)));
    };
    let name = context.site_name();
    items.iter().map(|item| name(item.get_ref())).collect()
}

/// The instances at sites that exist; the others are reported.
fn instances(sites: &Section<'_>, answered: bool, context: &Context) -> BTreeMap<String, DraftInstance> {
    let mut instances = BTreeMap::new();
    for (site, mut section) in sites.named() {
        let instance = instance(&mut section, answered, context.site.as_deref() == Some(site.get_ref()));
        match context.known(site.get_ref()) {
            Ok(site) => {
                instances.insert(site, instance);
            }
            Err(message) => sites.report(&site.span(), "", message),
        }
    }
    if sites.is_empty() {
        sites.report(sites.span(), "", "no instance; describe one in a section named after its site");
    }
    standbys(sites, &instances);
    let all = instances.values().flat_map(|instance| &instance.addresses);
    addresses(sites, "", all);
    instances
}

/// `answered`: the resource has domains or ports, and so needs addresses. `own`: it is this site's, and so needs backends.
fn instance(section: &mut Section<'_>, answered: bool, own: bool) -> DraftInstance {
    let roles = [("active", Role::Active), ("standby", Role::Standby), ("disabled", Role::Disabled)];
    let hint = "write role = \"active\", \"standby\" or \"disabled\"";
    let role = section.need("role", hint, word(&roles)).map(Spanned::into_inner);
    let serves = role.is_some_and(|role| role != Role::Disabled);
    let addresses = if serves && answered {
        let hint = "write addresses = [\"ADDRESS\"], what its domains are answered with and its ports are at";
        section.need_list("addresses", hint, address)
    } else {
        section.list("addresses", address)
    };
    let backends = if serves && own {
        let hint = "write backends = [\"ADDRESS:PORT\"], what serves it at this site";
        section.need_list("backends", hint, backend)
    } else {
        section.list("backends", backend)
    };
    let endpoints: Vec<_> = backends.iter().map(|item| Spanned::new(item.span(), item.get_ref().0)).collect();
    distinct(section, "backends", &endpoints);
    if !backends.is_empty() && backends.iter().all(|backend| backend.get_ref().1 == 0) {
        section.report(&section.span_of("backends"), "backends", "every weight is 0; give one backend a weight");
    }
    section.finish();
    DraftInstance {
        addresses,
        role,
        backends: backends.into_iter().map(Spanned::into_inner).collect(),
        span: section.span().clone(),
    }
}

/// A standby instance takes over from an active one: there must be one.
fn standbys(sites: &Section<'_>, instances: &BTreeMap<String, DraftInstance>) {
    let mut roles = instances.values().map(|instance| instance.role);
    if roles.any(|role| role.is_none_or(|role| role == Role::Active)) {
        return;
    }
    for (site, instance) in instances {
        if instance.role == Some(Role::Standby) {
            let message = "standby, but no instance of the resource is active; make one active";
            sites.report(&instance.span, site, message);
        }
    }
}

/// The addresses of `list`; reports it if there are more than fit an answer.
fn addresses<'a>(section: &Section<'_>, key: &str, list: impl Iterator<Item = &'a Spanned<IpAddr>>) -> Vec<IpAddr> {
    let (spans, addresses): (Vec<Span>, Vec<IpAddr>) = list.map(|address| (address.span(), *address.get_ref())).unzip();
    if let Some(message) = too_many(&addresses) {
        let last = spans.iter().max_by_key(|span| span.start);
        section.report(last.unwrap_or(section.span()), key, message);
    }
    addresses
}
