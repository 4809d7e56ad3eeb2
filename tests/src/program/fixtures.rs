//! The table of frames: each named by what it shows, with the outcome it must have. Numbers are rows of the wire
//! checklist that the fast path was specified by; the RFC section is given where there is no row.

use std::net::IpAddr;

use siteswap_common::outcome::Outcome;

use super::{
    frames::{A, AAAA, Addresses, CLIENT_V4, CLIENT_V6, Datagram, Opt, Query, SERVER_V4, SERVER_V6, V4, V6},
    table::Table,
};

/// The name most fixtures ask for: 22 bytes on the wire.
pub const NAME: &str = "www-eu1.shop.example";
/// Its TTL.
pub const TTL: u32 = 0x0001_e240;
/// Its A records.
pub const ADDRESSES_V4: [[u8; 4]; 2] = [[192, 0, 2, 80], [198, 51, 100, 80]];
/// Its AAAA records.
pub const ADDRESSES_V6: [[u8; 16]; 2] = [
    [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x80],
    [0x20, 1, 0xd, 0xb8, 0, 2, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x80],
];

/// A frame and what must become of it.
pub struct Fixture {
    /// What it shows.
    pub name: String,
    /// The frame.
    pub frame: Vec<u8>,
    /// What must be counted.
    pub outcome: Outcome,
    /// What the reply must say.
    pub reply: Option<Reply>,
}

/// What a reply says.
pub struct Reply {
    /// The query without padding.
    pub query: Vec<u8>,
    /// Of every record.
    pub ttl: u32,
    /// In this order.
    pub addresses: Vec<IpAddr>,
}

/// A name whose labels and length are the longest that are answered: 128 bytes on the wire.
pub fn longest() -> String {
    format!("{}.{}", "l".repeat(63), "m".repeat(62))
}

/// What every fixture is judged by.
pub fn table() -> Table {
    let mut table = Table::new(&[[192, 0, 2, 1], SERVER_V4], &[[9; 16], SERVER_V6]);
    table.add(NAME, TTL, &ADDRESSES_V4, &ADDRESSES_V6);
    table.add("v4only.example", 0, &ADDRESSES_V4[..1], &[]);
    table.add("v6only.example", u32::MAX, &[], &ADDRESSES_V6[..1]);
    table.add("eight.example", 1, &[[10, 1, 2, 3]; 8], &[[0xfd; 16]; 8]);
    table.add("", 5, &ADDRESSES_V4, &ADDRESSES_V6);
    table.add("x", 5, &ADDRESSES_V4, &ADDRESSES_V6);
    table.add("seven-7", 5, &ADDRESSES_V4, &ADDRESSES_V6);
    table.add("sixbyt", 5, &ADDRESSES_V4, &ADDRESSES_V6);
    table.add("fourteen-bytes", 5, &ADDRESSES_V4, &ADDRESSES_V6);
    table.add("a[b@c]d^e_1.example", 5, &ADDRESSES_V4, &ADDRESSES_V6);
    table.add(&longest(), 5, &ADDRESSES_V4, &ADDRESSES_V6);
    table.add("changing.example", 5, &ADDRESSES_V4, &ADDRESSES_V6);
    table.sets.last_mut().expect("just added").id += 1;
    table.add("gone.example", 5, &ADDRESSES_V4, &ADDRESSES_V6);
    table.sets.pop();
    table
}

/// All of them.
pub fn all() -> Vec<Fixture> {
    let mut all = Collection::default();
    all.answers();
    all.names();
    all.messages();
    all.edns();
    for addresses in [V4, V6] {
        all.transport(addresses);
    }
    all.v4();
    all.v6();
    all.link();
    all.list
}

#[derive(Default)]
struct Collection {
    list: Vec<Fixture>,
}

impl Collection {
    fn add(&mut self, name: impl Into<String>, frame: Vec<u8>, outcome: Outcome) {
        self.list.push(Fixture { name: name.into(), frame, outcome, reply: None });
    }

    /// A query over both IP versions with this outcome.
    fn both(&mut self, name: &str, query: &Query, outcome: Outcome) {
        for (version, addresses) in [("IPv4", V4), ("IPv6", V6)] {
            let frame = Datagram::new(addresses, &query.wire()).frame();
            self.add(format!("{name}, {version}"), frame, outcome);
        }
    }

    /// A datagram that is answered with `count` of the usual addresses.
    fn answer_datagram(&mut self, name: impl Into<String>, datagram: &Datagram, reply: Usual) {
        let query = Datagram { padding: Vec::new(), ..datagram.clone() };
        self.list.push(Fixture {
            name: name.into(),
            frame: datagram.frame(),
            outcome: reply.outcome(),
            reply: Some(Reply { query: query.frame(), ttl: reply.ttl, addresses: reply.addresses() }),
        });
    }

    /// A query that is answered over both IP versions.
    fn answer(&mut self, name: &str, query: &Query, ttl: u32) {
        for (version, addresses) in [("IPv4", V4), ("IPv6", V6)] {
            let datagram = Datagram::new(addresses, &query.wire());
            let usual = Usual { kind: query.kind, ttl, count: 2 };
            self.answer_datagram(format!("{name}, {version}"), &datagram, usual);
        }
    }
}

/// The usual addresses of a family.
#[derive(Clone, Copy)]
struct Usual {
    kind: u16,
    ttl: u32,
    count: usize,
}

impl Usual {
    const A: Self = Self { kind: A, ttl: TTL, count: 2 };

    fn outcome(self) -> Outcome {
        if self.kind == A { Outcome::AnsweredA } else { Outcome::AnsweredAaaa }
    }

    fn addresses(self) -> Vec<IpAddr> {
        let v4 = ADDRESSES_V4.iter().map(|&address| address.into());
        let v6 = ADDRESSES_V6.iter().map(|&address| address.into());
        if self.kind == A { v4.take(self.count).collect() } else { v6.take(self.count).collect() }
    }
}

fn usual(kind: u16) -> Query {
    Query::new(NAME, kind)
}

impl Collection {
    fn answers(&mut self) {
        for (kind, text) in [(A, "A"), (AAAA, "AAAA")] {
            self.answer(&format!("{text} without EDNS (63)"), &usual(kind), TTL);
            let edns = usual(kind).edns(&Opt::default());
            self.answer(&format!("{text} with EDNS (64)"), &edns, TTL);
            let rd = usual(kind).flags(0x0100);
            self.answer(&format!("{text} with RD, which is copied (22)"), &rd, TTL);
            let bits = usual(kind).flags(0x06ff);
            let name = format!("{text} with TC, AA, RA, Z, AD, CD and RCODE set, which are cleared (21, 23, 24)");
            self.answer(&name, &bits, TTL);
            for upper in ["WWW-EU1.SHOP.EXAMPLE", "wWw-Eu1.sHoP.eXaMpLe"] {
                let query = Query::new(upper, kind).edns(&Opt::default());
                self.answer(&format!("{text} for {upper}, echoed so (19)"), &query, TTL);
            }
        }
        self.eight();
        self.both("a name without AAAA (41)", &Query::new("v4only.example", AAAA), Outcome::NoAddress);
        self.both("a name without A (41)", &Query::new("v6only.example", A), Outcome::NoAddress);
        for (name, kind, ttl) in [("v4only.example", A, 0), ("v6only.example", AAAA, u32::MAX)] {
            let one = Usual { kind, ttl, count: 1 };
            let datagram = Datagram::new(V6, &Query::new(name, kind).wire());
            self.answer_datagram(format!("one address and TTL {ttl} (59)"), &datagram, one);
        }
    }

    /// Eight addresses, the most an answer has.
    fn eight(&mut self) {
        for (kind, address, outcome) in [
            (A, IpAddr::from([10, 1, 2, 3]), Outcome::AnsweredA),
            (AAAA, IpAddr::from([0xfd; 16]), Outcome::AnsweredAaaa),
        ] {
            let query = Query::new("eight.example", kind).edns(&Opt::default());
            let frame = Datagram::new(V4, &query.wire()).frame();
            self.list.push(Fixture {
                name: format!("eight addresses of type {kind}"),
                frame: frame.clone(),
                outcome,
                reply: Some(Reply { query: frame, ttl: 1, addresses: vec![address; 8] }),
            });
        }
    }

    fn names(&mut self) {
        for name in ["", "x", "seven-7", "sixbyt", "fourteen-bytes", &longest()] {
            for edns in [false, true] {
                let query = Query::new(name, A);
                let query = if edns { query.edns(&Opt::default()) } else { query };
                let length = query.name.len();
                self.answer(&format!("a name of {length} bytes, EDNS: {edns}"), &query, 5);
            }
        }
        self.answer("bytes that are no letters (18)", &Query::new("A[B@c]D^e_1.example", A), 5);
        for other in
            ["a{b@c]d^e_1.example", "a[b`c]d^e_1.example", "a[b@c]d~e\u{7f}1.example", "a[b@c]d^e_\u{11}.example"]
        {
            self.both(
                &format!("{other:?}, bytes that only look like the other case (RFC 4343 section 3)"),
                &Query::new(other, A),
                Outcome::UnknownName,
            );
        }
        for (name, wire) in [
            ("one of no resource (40)", "other.example".to_owned()),
            ("one below a resource's", format!("a.{NAME}")),
            ("the end of a resource's", "shop.example".to_owned()),
            ("a resource's but for the last letter", NAME.replace("example", "examplf")),
            ("a resource's but for the first letter", NAME.replacen('w', "v", 1)),
        ] {
            self.both(&format!("a name: {name}"), &Query::new(&wire, A), Outcome::UnknownName);
        }
        let long = format!("{}.{}", "l".repeat(63), "m".repeat(63));
        self.both("a name of 129 bytes (16)", &Query::new(&long, A), Outcome::NameLong);
        let longest = [[63; 64], [63; 64], [63; 64]].concat();
        let longest = [&longest[..], &[61; 62], &[0]].concat();
        self.both_named("a name of 255 bytes (16)", longest, Outcome::NameLong);
        let labels = [&[1, b'a'].repeat(127)[..], &[0]].concat();
        self.both_named("127 labels (16)", labels, Outcome::NameLong);
        self.both_named("a name of more than 255 bytes (17)", vec![9; 300], Outcome::NameLong);
        self.both_named("a name that points to itself (13)", vec![0xc0, 12], Outcome::UnknownName);
        self.both_named("a name with a pointer (13)", vec![1, b'a', 0xc0, 12], Outcome::UnknownName);
        self.both_named("label type 0x40 (14)", vec![0x41, b'a', 0], Outcome::UnknownName);
        self.both_named("label type 0x80 (14)", vec![0x81, b'a', 0], Outcome::UnknownName);
        let query = Query::new("changing.example", A);
        self.both("a set of another age than its name", &query, Outcome::TableChanging);
        let query = Query::new("gone.example", A);
        self.both("a set that is not there", &query, Outcome::TableChanging);
    }

    fn both_named(&mut self, name: &str, wire: Vec<u8>, outcome: Outcome) {
        let query = Query { name: wire, ..usual(A) };
        self.both(name, &query, outcome);
    }

    fn messages(&mut self) {
        self.both("QR set (2)", &usual(A).flags(0x8000), Outcome::Response);
        for opcode in 1..16 {
            let query = usual(A).flags(opcode << 11);
            self.both(&format!("opcode {opcode} (4 to 8)"), &query, Outcome::Opcode);
        }
        for (name, counts) in [
            ("no question (9)", [0, 0, 0, 0]),
            ("two questions (11)", [2, 0, 0, 0]),
            ("an answer (26)", [1, 1, 0, 0]),
            ("an authority record (26)", [1, 0, 1, 0]),
            ("two additional records (71)", [1, 0, 0, 2]),
            ("256 additional records (27)", [1, 0, 0, 256]),
        ] {
            let query = Query { counts, ..usual(A) };
            self.both(name, &query, Outcome::Counts);
        }
        let header = Query { name: vec![], counts: [0; 4], ..usual(A) };
        let header = &header.wire()[..12];
        self.add("a header alone (6)", Datagram::new(V4, header).frame(), Outcome::ShortQuery);
        for class in [0, 3, 4, 254, 255] {
            let query = Query { class, ..usual(A) };
            self.both(&format!("class {class} (29 to 31)"), &query, Outcome::Class);
        }
        for kind in [0, 2, 5, 6, 15, 16, 33, 41, 64, 65, 249, 250, 251, 252, 255, 257, 65280] {
            self.both(&format!("type {kind} (32 to 38)"), &usual(kind), Outcome::Type);
        }
        let trailing = Query { rest: vec![0], ..usual(A) };
        self.both("a byte behind the message (28)", &trailing, Outcome::Class);
        let mut trailing = usual(A).edns(&Opt::default());
        trailing.rest.push(0);
        self.both("a byte behind the OPT record (28)", &trailing, Outcome::Additional);
        let counts = [1, 0, 0, 1];
        self.both("a count without its record (27)", &Query { counts, ..usual(A) }, Outcome::Additional);
        let mut uncounted = usual(A).edns(&Opt::default());
        uncounted.counts[3] = 0;
        self.both("a record that is not counted (28)", &uncounted, Outcome::Class);
    }

    fn edns(&mut self) {
        let with = |opt: &Opt| usual(A).edns(opt);
        for size in [0, 511, 512, 1232, 4096, 65535] {
            let opt = Opt { size, ..Opt::default() };
            self.answer(&format!("payload size {size} (65, 66)"), &with(&opt), TTL);
        }
        for flags in [0x8000, 0x7fff, 0xffff, 0x00ff] {
            let opt = Opt { flags, ..Opt::default() };
            self.answer(&format!("EDNS flags {flags:04x} (69)"), &with(&opt), TTL);
        }
        let rcode = Opt { rcode: 0xab, ..Opt::default() };
        self.answer("an extended RCODE in the query (70)", &with(&rcode), TTL);
        let cookie = Opt::default().option(10, &[0, 0, 41, 0x10, 0xff, 0xfe, 0x80, 0x55]);
        self.answer("a client cookie (77)", &with(&cookie), TTL);
        self.answer("AAAA with a client cookie (77)", &usual(AAAA).edns(&cookie), TTL);
        let wire = Query::new("x", A).edns(&cookie);
        self.answer("a short name with a client cookie", &wire, 5);
        for version in [1, 255] {
            let opt = Opt { version, ..Opt::default() };
            self.both(&format!("EDNS version {version} (67)"), &with(&opt), Outcome::EdnsVersion);
            let opt = Opt { version, ..cookie.clone() };
            self.both(&format!("EDNS version {version}, cookie (67)"), &with(&opt), Outcome::EdnsVersion);
        }
        for (name, opt) in [
            ("an unknown option (68)", Opt::default().option(65001, &[1, 2, 3, 4, 5, 6, 7, 8])),
            ("an option of no data (68)", Opt::default().option(65001, &[])),
            ("NSID (76)", Opt::default().option(3, &[])),
            ("a client subnet (81)", Opt::default().option(8, &[0, 1, 24, 0, 203, 0, 113])),
            ("TCP keepalive (90)", Opt::default().option(11, &[])),
            ("a cookie of 7 bytes (78)", Opt::default().option(10, &[1; 7])),
            ("a cookie with the server's (79)", Opt::default().option(10, &[1; 24])),
            ("two options as long as a cookie", Opt::default().option(3, &[]).option(65001, &[1; 4])),
            ("two cookies (80)", cookie.clone().option(10, &[1; 8])),
            ("padding (RFC 7830)", Opt::default().option(12, &[0; 40])),
            ("a TSIG in its place (39)", Opt { kind: 250, ..Opt::default() }),
            ("RDLENGTH past the end (75)", Opt { length: Some(12), ..Opt::default() }),
            ("RDLENGTH before the end (75)", Opt { length: Some(8), ..cookie.clone() }),
            ("half an option (75)", Opt { options: vec![0, 10], ..Opt::default() }),
        ] {
            self.both(name, &with(&opt), Outcome::Additional);
        }
        let owner = Opt { owner: vec![1, b'a', 0], ..Opt::default() };
        self.both("an owner that is not the root (73)", &with(&owner), Outcome::Class);
        let two = with(&Opt::default()).edns(&Opt::default());
        self.both("two OPT records (71)", &two, Outcome::Counts);
        let mut two = two;
        two.counts[3] = 1;
        self.both("two OPT records, one counted (71)", &two, Outcome::Class);
        let wrong = Query { counts: [1, 1, 0, 0], ..with(&Opt::default()) };
        self.both("an OPT record counted as an answer (72)", &wrong, Outcome::Counts);
    }
}

mod transport;
