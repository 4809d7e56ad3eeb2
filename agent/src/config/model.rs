//! The validated configuration. Nothing here can be inconsistent: `load` refuses what is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr, SocketAddrV4},
    path::PathBuf,
    time::Duration,
};

use hickory_proto::rr::LowerName;

use super::TableName;

/// A whole configuration file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file it was read from, absolute. Relative paths in it are relative to its directory and are absolute here.
    pub file: PathBuf,
    /// This agent's own site: a key of `sites`.
    pub site: String,
    /// Directory of the state database.
    pub state: PathBuf,
    /// Path of the control socket.
    pub control: PathBuf,
    /// All sites, this one too, by name.
    pub sites: BTreeMap<String, Site>,
    /// The link to the peers.
    pub link: Link,
    /// The name server.
    pub dns: Dns,
    /// The XDP program.
    pub dataplane: Dataplane,
    /// This site's database. `None`: there is none to be kept the same as the peers'.
    pub database: Option<Database>,
    /// The resources by name.
    pub resources: BTreeMap<String, Resource>,
}

/// One data centre.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    /// Where its agent's link listens.
    pub link: SocketAddr,
    /// Where its program takes tunnelled requests: UDP, IPv4. `None`: nothing can be forwarded to it.
    pub tunnel: Option<SocketAddrV4>,
    /// SHA-256 of its certificate (DER), as `siteswap keygen` prints it.
    pub fingerprint: Fingerprint,
}

/// SHA-256 of a certificate in DER. Written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// `[link]`
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// UDP address the link listens on.
    pub listen: SocketAddr,
    /// The file `siteswap keygen` wrote: certificate and private key, PEM.
    pub key: PathBuf,
    /// Length of a heartbeat period; several heartbeats are sent in each.
    pub period: Duration,
    /// A peer is in contact while every one of this many last periods held at least one heartbeat.
    pub periods: u32,
}

/// `[dns]`
#[derive(Clone, Debug, PartialEq)]
pub struct Dns {
    /// Addresses queries are answered on, by the program and by the agent's server.
    pub listen: Vec<IpAddr>,
    /// The port, 53 unless told otherwise. The program answers port 53 only.
    pub port: u16,
    /// Zones this server is authoritative for.
    pub zones: Vec<Zone>,
}

/// `[[dns.zone]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    /// The zone's apex, fully qualified.
    pub name: LowerName,
    /// An RFC 1035 zone file.
    pub file: PathBuf,
}

/// `[dataplane]`
#[derive(Clone, Debug, PartialEq)]
pub struct Dataplane {
    /// Interfaces the program is attached to. Empty: no program, the agent's server answers everything.
    pub interfaces: Vec<String>,
    /// How to attach.
    pub mode: Mode,
    /// Directory under a BPF file system for the pinned maps and links; a layout version is added below it.
    pub pins: PathBuf,
    /// The program answers for this long after the agent's last sign of life.
    pub lease: Duration,
    /// Flows that the program knows at once, a power of two.
    pub flows: u32,
}

/// How the program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Native where the driver can, otherwise generic, and say which.
    Auto,
    /// Native, or an error.
    Native,
    /// Generic (the kernel's own, slower path).
    Generic,
}

/// `[database]`: the application's database at this site, which is kept the same as the other sites'.
#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    /// The SQLite file.
    pub file: PathBuf,
    /// What is kept the same.
    pub tables: Tables,
    /// The rules of tables that have some of their own. Each is one of `tables`.
    pub rules: BTreeMap<TableName, TableRules>,
    /// Bytes of changes that may wait on disk for a peer's acknowledgement.
    pub max_backlog: u64,
    /// How far a change's time stamp may be ahead of this agent's clock; one that is more is set back to that.
    pub max_skew: Duration,
}

/// The tables that are kept the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tables {
    /// All that are not SQLite's or siteswap's own.
    All,
    /// These, at least one.
    Listed(BTreeSet<TableName>),
}

/// How a table's conflicts are decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableRules {
    /// What two sites must both have changed.
    pub granularity: Granularity,
    /// Which change wins.
    pub conflicts: Conflicts,
    /// What becomes of rows that cannot both be.
    pub unique: Unique,
    /// Whether the application's triggers fire for what peers have told.
    pub fire_triggers: bool,
    /// Columns that have a rule of their own, by name in lower case.
    pub columns: BTreeMap<String, ColumnRule>,
}

/// What becomes of values that sites give a column without knowledge of each other, if it is not decided by `conflicts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnRule {
    /// What is added and taken counts all.
    Counter,
    /// The smallest stays.
    Min,
    /// The greatest stays.
    Max,
}

/// What two sites must both have changed for a conflict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Granularity {
    /// The same column of a row; changes to different ones are combined.
    #[default]
    Column,
    /// The same row.
    Row,
}

/// Which of two changes that were made without knowledge of each other wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conflicts {
    /// The one with the later time stamp.
    #[default]
    Latest,
    /// The deletion of a row; between others the later.
    Delete,
    /// The change of a row that the other deletes; between others the later.
    Update,
}

/// What becomes of the row that loses when two have the same value in a UNIQUE column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unique {
    /// Its value becomes NULL; where NULL is not allowed, it is deleted.
    #[default]
    Null,
    /// Its text gets a suffix made of its key; where it is no text, as with `Null`.
    Suffix,
    /// It is deleted.
    Delete,
}

/// `[resources.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// What the program serves or forwards at its addresses. Empty: it leaves them to the host.
    pub ports: Vec<Port>,
    /// Domain names answered with its addresses, fully qualified. Each lies in one of the zones.
    pub domains: Vec<LowerName>,
    /// Tables of the database that belong to it; no other resource has them, and all are kept the same.
    pub tables: Vec<TableName>,
    /// Whether sites that do not hold it may write to its tables.
    pub standby_writes: StandbyWrites,
    /// TTL of these answers, seconds.
    pub ttl: u32,
    /// The `fixed` policy: the sites in the order in which equally good ones are answered. Holds each instance's site
    /// once.
    pub order: Vec<String>,
    /// What is answered when no site is available.
    pub all_down: AllDown,
    /// When a standby instance may become active by itself.
    pub takeover: Takeover,
    /// Whether the first site configured as active makes roles as configured again by itself.
    pub failback: Failback,
    /// How long that site must have been available and in contact with the holder before.
    pub failback_after: Duration,
    /// How long established flows may finish at a site that gave it up.
    pub drain_time: Duration,
    /// How its backends are probed.
    pub probe: Probe,
    /// Its instances, by site. At least one.
    pub instances: BTreeMap<String, Instance>,
}

impl Resource {
    /// The sites whose instances are configured as active, in the resource's order.
    pub fn configured_active(&self) -> impl Iterator<Item = &String> {
        self.order.iter().filter(|site| self.instances[*site].role == Role::Active)
    }

    /// The holder with which roles are as configured: the one site configured as active. `None` where several are: then
    /// it is nobody alone.
    pub fn configured_holder(&self) -> Option<&String> {
        let mut active = self.configured_active();
        active.next().filter(|_| active.next().is_none())
    }
}

/// What becomes of a write to a resource's tables at a site that does not hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandbyWrites {
    /// It is done, and goes to the other sites.
    Allow,
    /// It fails, and the error names the holder.
    Refuse,
}

/// A transport protocol and its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// The protocol.
    pub protocol: Protocol,
    /// The port; 0 stands for any.
    pub number: u16,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl Protocol {
    /// Its number in an IP header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        match self.number {
            0 => write!(f, "{protocol}/any"),
            number => write!(f, "{protocol}/{number}"),
        }
    }
}

/// What is answered for a resource that is available nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllDown {
    /// All configured addresses, in the configured order: perhaps only the probes are wrong.
    All,
    /// No addresses: NOERROR with the zone's SOA.
    NoData,
    /// SERVFAIL with extended error 22 (RFC 8914 §4.23), so that resolvers ask the other server.
    ServFail,
    /// This list.
    Fallback(Vec<IpAddr>),
}

/// When a standby instance may take over from a holder that is not available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// The holder's own site says that it cannot serve; or its heartbeats are lost, and its public addresses do not
    /// answer this site either.
    Confirmed,
    /// The holder's own site says so, or its heartbeats are lost.
    Silence,
    /// Never by itself.
    Manual,
}

/// Whether a resource returns to the site configured as active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failback {
    /// By an operator's order only.
    Manual,
    /// By itself.
    Auto,
}

/// An instance's role as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Serves.
    Active,
    /// Holds the same content; serves only if no active instance can.
    Standby,
    /// Does not serve.
    Disabled,
}

/// `[resources.NAME.sites.SITE]`
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its role until an operator or a takeover changes it.
    pub role: Role,
    /// Public addresses, given in answers in this order.
    pub addresses: Vec<IpAddr>,
    /// What serves it on this site's LAN, probed by this site's agent. May be empty for other sites' instances.
    pub backends: Vec<SocketAddr>,
    /// The weights of those backends that have another than 1: their share of new flows.
    pub weights: BTreeMap<SocketAddr, u32>,
}

impl Instance {
    /// A backend's share of new flows, in proportion to the others'. With 0 it gets none.
    pub fn weight(&self, backend: &SocketAddr) -> u32 {
        self.weights.get(backend).copied().unwrap_or(1)
    }
}

/// `[resources.NAME.probe]`
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// What is tried.
    pub check: Check,
    /// From the start of one try to the start of the next.
    pub interval: Duration,
    /// A try that takes longer has failed.
    pub timeout: Duration,
    /// This many successes in a row make a failed backend good.
    pub rise: u32,
    /// This many failures in a row make a good backend failed.
    pub fall: u32,
}

/// What a probe tries on each backend.
#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    /// A TCP connection is accepted.
    Tcp,
    /// A page is as expected.
    Http(HttpCheck),
}

/// An HTTP(S) page, fetched from a backend's address.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpCheck {
    /// Whether the page is fetched over TLS.
    pub tls: Option<Tls>,
    /// The `Host` header, with the port if the URL names one. Over TLS the part before the port is the server name.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Acceptable status codes.
    pub status: Vec<u16>,
    /// The body must contain this. `{site}` in the file has been replaced by this site's name.
    pub keyword: Option<String>,
}

/// How a backend's certificate is judged.
#[derive(Clone, Debug, PartialEq)]
pub enum Tls {
    /// By the system's roots.
    System,
    /// By the roots in this PEM file.
    Roots(PathBuf),
    /// Not at all: the probe asks whether the service works, not who it is.
    Unverified,
}

impl Tables {
    /// Whether this table is kept the same.
    pub fn contain(&self, table: &TableName) -> bool {
        match self {
            Self::All => true,
            Self::Listed(tables) => tables.contains(table),
        }
    }
}

impl Database {
    /// The rules of a table, its own or the default ones.
    pub fn rules_of(&self, table: &TableName) -> TableRules {
        self.rules.get(table).cloned().unwrap_or_default()
    }
}

impl Config {
    /// The other sites' names.
    pub fn peers(&self) -> impl Iterator<Item = &str> {
        self.sites.keys().map(String::as_str).filter(|site| *site != self.site)
    }

    /// This site's instances that may serve, with their resource's name.
    pub fn own_instances(&self) -> impl Iterator<Item = (&str, &Instance)> {
        self.resources.iter().filter_map(|(name, resource)| {
            let instance = resource.instances.get(&self.site)?;
            (instance.role != Role::Disabled).then_some((name.as_str(), instance))
        })
    }
}
