//! A zone with something of everything, two resources in it, and queries made byte by byte.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{LowerName, Name, RecordType},
};
use siteswap::{
    answers::{AnswerSet, AnswerTable},
    config::{self, AllDown, Check, Failback, Probe, Resource, StandbyWrites, Takeover},
    dns::{Outcome, Response, Transport, ZoneError, Zones, respond},
};
use tempfile::TempDir;

pub const A: u16 = 1;
pub const NS: u16 = 2;
pub const CNAME: u16 = 5;
pub const SOA: u16 = 6;
pub const MX: u16 = 15;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;
pub const DS: u16 = 43;
pub const HTTPS: u16 = 65;
pub const ANY: u16 = 255;

pub const ZONE: &str = r#"
$ORIGIN shop.test.
$TTL 3600
@       SOA ns1 hostmaster ( 2026010101 2h 15m 2w 300 )
        NS  ns1
        NS  ns2.Shop.Test.
        MX  10 mail
        CAA 0 issue "ca.test"
ns1     A   192.0.2.2
ns2     A   198.51.100.2
mail    A   192.0.2.25
        AAAA 2001:db8:1::25
www     MX  10 mail
        TXT "a resource's name may own other types"
alias   CNAME WWW
chain   CNAME alias
down-alias CNAME down
gone    CNAME nowhere
empty-alias CNAME ent
away    CNAME www.elsewhere.example.
cut-alias CNAME host.sub
loop1   CNAME loop2
loop2   CNAME loop1
long0   CNAME long1
long1   CNAME long2
long2   CNAME long3
long3   CNAME long4
long4   CNAME long5
long5   CNAME long6
long6   CNAME long7
long7   CNAME long8
long8   CNAME long9
long9   CNAME long10
long10  A   192.0.2.10
*.wild  A   192.0.2.99
        MX  10 mail
host.wild TXT "exists, so the wildcard does not stand for it"
x.ent-in.wild TXT "makes ent-in.wild an empty non-terminal"
*.aliases CNAME www
host.ent A  192.0.2.40
y.*.half TXT "makes *.half an empty non-terminal"
zero 0  A   192.0.2.41
odd\000\255\.\032 TXT "any octet"
_sip._tcp SRV 5 10 5060 mail
sub     NS  ns.sub
sub     NS  ns.elsewhere.example.
ns.sub  A   192.0.2.53
        AAAA 2001:db8:1::53
hidden.sub TXT "never answered"
other   NS  ns.sub
"#;

/// Zones, the table, and the directory the zone file lies in.
pub struct Fixture {
    pub zones: Zones,
    pub table: AnswerTable,
    _directory: TempDir,
}

pub fn lower(name: &str) -> LowerName {
    LowerName::from(Name::from_str(&format!("{name}.")).unwrap())
}

pub fn resource(domains: &[&str]) -> Resource {
    Resource {
        ports: Vec::new(),
        domains: domains.iter().map(|name| lower(name)).collect(),
        tables: Vec::new(),
        standby_writes: StandbyWrites::Allow,
        ttl: 20,
        order: Vec::new(),
        all_down: AllDown::All,
        takeover: Takeover::Confirmed,
        failback: Failback::Manual,
        failback_after: Duration::ZERO,
        drain_time: Duration::ZERO,
        probe: Probe {
            check: Check::Tcp,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: 1,
            fall: 1,
        },
        instances: BTreeMap::new(),
    }
}

/// Writes the text into a file of its own and loads it as the zone `name`.
pub fn load(name: &str, text: &[u8], resources: &[(&str, Resource)]) -> (Result<Zones, ZoneError>, TempDir) {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("zone");
    fs::write(&file, text).unwrap();
    let zones = [zone(name, &file)];
    let resources = resources.iter().map(|(name, resource)| ((*name).to_owned(), resource.clone())).collect();
    (Zones::load(&zones, &resources), directory)
}

pub fn zone(name: &str, file: &Path) -> config::Zone {
    config::Zone { name: lower(name), file: PathBuf::from(file) }
}

pub fn set(resource: &str, addresses: &[&str], all_down: Option<AllDown>) -> AnswerSet {
    AnswerSet {
        resource: resource.into(),
        ttl: 20,
        addresses: addresses.iter().map(|address| address.parse::<IpAddr>().unwrap()).collect(),
        all_down,
    }
}

/// `www.shop.test` with addresses at both sites, `down.shop.test` without any.
pub fn fixture_with(down: AllDown) -> Fixture {
    let resources = [("www", resource(&["www.shop.test"])), ("down", resource(&["down.shop.test"]))];
    // Replies for these fit some limits and not others.
    let large: String = (1..=100).map(|host| format!("big A 192.0.2.{host}\n")).collect();
    let text = format!("{ZONE}{large}");
    let (zones, directory) = load("shop.test", text.as_bytes(), &resources);
    let both = ["198.51.100.80", "2001:db8:2:80::80", "192.0.2.80", "2001:db8:1:80::80"];
    Fixture {
        zones: zones.unwrap(),
        table: AnswerTable {
            names: Arc::new([(lower("www.shop.test"), 0), (lower("down.shop.test"), 1)].into()),
            sets: vec![set("www", &both, None), set("down", &[], Some(down))],
        },
        _directory: directory,
    }
}

pub fn fixture() -> Fixture {
    fixture_with(AllDown::NoData)
}

impl Fixture {
    pub fn udp(&self, query: &[u8]) -> Response {
        respond(query, Transport::Udp, &self.zones, &self.table).expect("a reply")
    }

    pub fn tcp(&self, query: &[u8]) -> Response {
        respond(query, Transport::Tcp, &self.zones, &self.table).expect("a reply")
    }

    pub fn silent(&self, query: &[u8]) -> bool {
        respond(query, Transport::Udp, &self.zones, &self.table).is_none()
    }

    /// The reply to a plain question over UDP, decoded.
    pub fn ask(&self, name: &str, rtype: u16) -> Message {
        decode(&self.udp(&query(name, rtype)))
    }

    /// The RCODE, and how the query was counted.
    pub fn verdict(&self, query: &[u8]) -> (ResponseCode, Outcome) {
        let response = self.udp(query);
        (decode(&response).metadata.response_code, response.outcome)
    }
}

pub fn decode(response: &Response) -> Message {
    Message::from_vec(&response.bytes).expect("a reply that parses")
}

pub fn wire_name(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        wire.push(u8::try_from(label.len()).unwrap());
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}

/// ID 0xABCD, RD, one question of class IN.
pub fn query(name: &str, rtype: u16) -> Vec<u8> {
    query_bytes(&wire_name(name), rtype, 1)
}

pub fn query_bytes(name: &[u8], rtype: u16, class: u16) -> Vec<u8> {
    let header = [0xab, 0xcd, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    [&header[..], name, &rtype.to_be_bytes(), &class.to_be_bytes()].concat()
}

/// Appends a record to the additional section.
pub fn add_record(mut message: Vec<u8>, owner: &[u8], rtype: u16, class: u16, ttl: u32, rdata: &[u8]) -> Vec<u8> {
    message[11] += 1;
    message.extend_from_slice(owner);
    message.extend_from_slice(&rtype.to_be_bytes());
    message.extend_from_slice(&class.to_be_bytes());
    message.extend_from_slice(&ttl.to_be_bytes());
    message.extend_from_slice(&u16::try_from(rdata.len()).unwrap().to_be_bytes());
    message.extend_from_slice(rdata);
    message
}

/// Appends OPT: payload size; extended RCODE, version and flags as one number; options.
pub fn add_opt(message: Vec<u8>, payload: u16, ttl: u32, options: &[u8]) -> Vec<u8> {
    add_record(message, &[0], 41, payload, ttl, options)
}

/// The OPT record that ends a reply, as the program writes it.
pub const OPT_REPLY: [u8; 11] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];

/// Owner and type of each record.
pub fn records(records: &[hickory_proto::rr::Record]) -> Vec<(String, RecordType)> {
    records.iter().map(|record| (record.name.to_string(), record.record_type())).collect()
}

/// The RDATA of each record, as text.
pub fn data(records: &[hickory_proto::rr::Record]) -> Vec<String> {
    records.iter().map(|record| record.data.to_string()).collect()
}
