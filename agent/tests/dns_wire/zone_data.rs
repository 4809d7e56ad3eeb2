//! What a zone says about a name.

use hickory_proto::{
    op::ResponseCode::{NXDomain, NoError, Refused, ServFail},
    rr::RecordType,
};
use siteswap::{
    config::AllDown,
    dns::{Outcome, Zones, respond},
};

use super::support::*;

#[test]
fn rfc1034_4_3_2_a_name_in_no_zone_is_refused() {
    let fixture = fixture();
    for name in ["example", "", "test", "xshop.test", "shop.test.example"] {
        let reply = fixture.ask(name, A);
        assert_eq!(reply.metadata.response_code, Refused, "{name}");
        assert!(!reply.metadata.authoritative);
        assert!(reply.answers.is_empty() && reply.authorities.is_empty());
    }
}

#[test]
fn rfc2308_2_nodata_and_nxdomain_carry_the_soa_for_the_lesser_of_its_ttl_and_minimum() {
    let fixture = fixture();
    for (name, rcode) in [("mail.shop.test", NoError), ("no.shop.test", NXDomain)] {
        let reply = fixture.ask(name, TXT);
        assert_eq!(reply.metadata.response_code, rcode);
        assert!(reply.metadata.authoritative);
        assert!(reply.answers.is_empty());
        let expected = [("shop.test.".to_owned(), RecordType::SOA)];
        assert_eq!(records(&reply.authorities), expected);
        assert_eq!(reply.authorities[0].ttl, 300);
    }
    assert_eq!(fixture.ask("shop.test", SOA).answers[0].ttl, 3600);
    assert_eq!(
        data(&fixture.ask("shop.test", SOA).answers),
        ["ns1.shop.test. hostmaster.shop.test. 2026010101 7200 900 1209600 300"]
    );

    let low = "@ 60 SOA ns h 1 2 3 4 300\n@ 60 NS ns.example.\n";
    let (zones, _directory) = load("shop.test", low.as_bytes(), &[]);
    let transport = siteswap::dns::Transport::Udp;
    let reply = respond(&query("no.shop.test", A), transport, &zones.unwrap(), &fixture.table);
    assert_eq!(decode(&reply.unwrap()).authorities[0].ttl, 60);
}

#[test]
fn every_static_type_is_served() {
    let fixture = fixture();
    for (name, rtype, expected) in [
        ("mail.shop.test", A, "192.0.2.25"),
        ("mail.shop.test", AAAA, "2001:db8:1::25"),
        ("shop.test", MX, "10 mail.shop.test."),
        ("www.shop.test", MX, "10 mail.shop.test."),
        ("alias.shop.test", CNAME, "WWW.shop.test."),
        ("_sip._tcp.shop.test", 33, "5 10 5060 mail.shop.test."),
        ("shop.test", 257, "0 issue \"ca.test\""),
    ] {
        let reply = fixture.ask(name, rtype);
        assert_eq!(data(&reply.answers), [expected]);
        assert!(reply.metadata.authoritative && reply.authorities.is_empty());
        assert!(reply.additionals.is_empty());
    }
    let servers = data(&fixture.ask("shop.test", NS).answers);
    assert_eq!(servers, ["ns1.shop.test.", "ns2.shop.test."]);
}

#[test]
fn rfc4074_4_a_missing_family_or_https_of_a_resource_is_nodata() {
    let fixture = fixture();
    for rtype in [HTTPS, 33, NS, SOA] {
        let query = query("www.shop.test", rtype);
        assert_eq!(fixture.verdict(&query), (NoError, Outcome::NoData));
    }
    let mut v4_only = fixture_with(AllDown::NoData);
    v4_only.table.sets[0] = set("www", &["192.0.2.80"], None);
    assert_eq!(v4_only.verdict(&query("www.shop.test", AAAA)), (NoError, Outcome::NoData));
}

#[test]
fn rfc4592_2_2_2_an_empty_non_terminal_is_nodata() {
    let fixture = fixture();
    for name in ["ent.shop.test", "_tcp.shop.test", "wild.shop.test", "aliases.shop.test"] {
        assert_eq!(fixture.verdict(&query(name, A)), (NoError, Outcome::NoData), "{name}");
    }
}

#[test]
fn rfc8020_2_nothing_exists_below_a_leaf() {
    let fixture = fixture();
    for name in ["x.mail.shop.test", "x.www.shop.test", "y.x.www.shop.test", "x.alias.shop.test"] {
        assert_eq!(fixture.verdict(&query(name, A)), (NXDomain, Outcome::NxDomain), "{name}");
    }
}

#[test]
fn rfc4592_3_3_a_wildcard_stands_for_names_any_number_of_labels_deep() {
    let fixture = fixture();
    for name in ["a.wild.shop.test", "c.b.a.wild.shop.test", "A.Wild.shop.test"] {
        let reply = fixture.ask(name, A);
        assert_eq!(records(&reply.answers), [(format!("{name}."), RecordType::A)]);
        assert_eq!(data(&reply.answers), ["192.0.2.99"]);
    }
    // The wildcard exists, the type does not.
    assert_eq!(fixture.verdict(&query("a.wild.shop.test", TXT)), (NoError, Outcome::NoData));
}

#[test]
fn rfc4592_3_3_1_only_a_wildcard_at_the_closest_encloser_counts() {
    let fixture = fixture();
    for (name, expected) in [
        // The name exists.
        ("host.wild.shop.test", NoError),
        ("ent-in.wild.shop.test", NoError),
        // The closest encloser is below the wildcard's parent, be it the wildcard itself (RFC 4592 §2.2.1).
        ("c.*.wild.shop.test", NXDomain),
        ("a.host.wild.shop.test", NXDomain),
        ("a.ent-in.wild.shop.test", NXDomain),
    ] {
        let reply = fixture.ask(name, A);
        assert_eq!(reply.metadata.response_code, expected, "{name}");
        assert!(reply.answers.is_empty());
    }
    // A wildcard that is itself an empty non-terminal.
    assert_eq!(fixture.verdict(&query("a.half.shop.test", A)), (NoError, Outcome::NoData));
}

#[test]
fn rfc4592_2_1_1_an_asterisk_that_is_asked_for_is_a_name() {
    let fixture = fixture();
    let reply = fixture.ask("*.wild.shop.test", A);
    assert_eq!(records(&reply.answers), [("*.wild.shop.test.".to_owned(), RecordType::A)]);
}

#[test]
fn rfc1034_3_6_2_an_alias_of_a_resource_leads_to_the_tables_addresses() {
    let fixture = fixture();
    let reply = fixture.ask("alias.shop.test", A);
    assert_eq!(data(&reply.answers), ["WWW.shop.test.", "198.51.100.80", "192.0.2.80"]);
    assert_eq!(reply.answers[1].ttl, 20);
    assert!(reply.metadata.authoritative);
    let reply = fixture.ask("chain.shop.test", AAAA);
    assert_eq!(reply.answers.len(), 4);
    let reply = fixture.ask("x.aliases.shop.test", A);
    assert_eq!(reply.answers[0].name.to_string(), "x.aliases.shop.test.");
    assert_eq!(data(&reply.answers)[1..], ["198.51.100.80", "192.0.2.80"]);
    assert_eq!(data(&fixture.ask("alias.shop.test", CNAME).answers).len(), 1);
}

#[test]
fn rfc6604_3_the_rcode_after_an_alias_is_that_of_the_last_name() {
    let fixture = fixture();
    let reply = fixture.ask("gone.shop.test", A);
    assert_eq!(reply.metadata.response_code, NXDomain);
    assert_eq!(data(&reply.answers), ["nowhere.shop.test."]);
    assert_eq!(reply.authorities[0].record_type(), RecordType::SOA);
    let reply = fixture.ask("empty-alias.shop.test", A);
    assert_eq!(reply.metadata.response_code, NoError);
    assert_eq!((reply.answers.len(), reply.authorities.len()), (1, 1));
}

#[test]
fn rfc1034_4_3_2_an_alias_that_leaves_the_zone_is_the_whole_answer() {
    let reply = fixture().ask("away.shop.test", A);
    assert_eq!(data(&reply.answers), ["www.elsewhere.example."]);
    assert_eq!(reply.metadata.response_code, NoError);
    assert!(reply.authorities.is_empty());
}

#[test]
fn rfc1034_3_6_2_loops_and_long_chains_of_aliases_are_bounded() {
    let fixture = fixture();
    let reply = fixture.ask("loop1.shop.test", A);
    assert_eq!(data(&reply.answers), ["loop2.shop.test.", "loop1.shop.test."]);
    let reply = fixture.ask("long0.shop.test", A);
    assert_eq!(reply.metadata.response_code, NoError);
    assert_eq!(reply.answers.len(), 9);
    assert_eq!(data(&fixture.ask("long2.shop.test", A).answers)[8], "192.0.2.10");
}

#[test]
fn rfc1034_4_2_1_a_delegation_is_answered_with_its_servers_and_glue() {
    let fixture = fixture();
    for (name, rtype) in [
        ("sub.shop.test", A),
        ("sub.shop.test", NS),
        ("hidden.sub.shop.test", TXT),
        ("ns.sub.shop.test", A),
        ("b.a.sub.shop.test", ANY),
        ("a.sub.shop.test", DS),
    ] {
        let reply = fixture.ask(name, rtype);
        assert_eq!(fixture.verdict(&query(name, rtype)), (NoError, Outcome::Referral), "{name}");
        assert!(!reply.metadata.authoritative);
        assert!(reply.answers.is_empty());
        assert_eq!(data(&reply.authorities), ["ns.sub.shop.test.", "ns.elsewhere.example."]);
        assert_eq!(reply.authorities[0].name.to_string(), "sub.shop.test.");
        assert_eq!(data(&reply.additionals), ["192.0.2.53", "2001:db8:1::53"]);
    }
    // RFC 9471: a sibling's glue.
    let reply = fixture.ask("other.shop.test", A);
    assert_eq!(data(&reply.additionals), ["192.0.2.53", "2001:db8:1::53"]);
}

#[test]
fn rfc1034_4_3_2_an_alias_into_a_delegation_is_answered_with_both() {
    let reply = fixture().ask("cut-alias.shop.test", A);
    assert!(reply.metadata.authoritative);
    assert_eq!(data(&reply.answers), ["host.sub.shop.test."]);
    assert_eq!(reply.authorities.len(), 2);
}

#[test]
fn rfc4035_3_1_4_1_ds_at_a_delegation_is_answered_by_the_parent() {
    let fixture = fixture();
    let reply = fixture.ask("sub.shop.test", DS);
    assert_eq!(fixture.verdict(&query("sub.shop.test", DS)), (NoError, Outcome::NoData));
    assert!(reply.metadata.authoritative);
    assert_eq!(reply.authorities[0].name.to_string(), "shop.test.");
    // At the apex of the uppermost zone there is no parent to answer.
    assert_eq!(fixture.verdict(&query("shop.test", DS)), (NoError, Outcome::NoData));
}

#[test]
fn rfc1034_4_3_2_the_closest_zone_answers_and_ds_is_still_the_parents() {
    let directory = tempfile::TempDir::new().unwrap();
    let write = |name: &str, text: &str| {
        let file = directory.path().join(name.replace('.', "_"));
        std::fs::write(&file, text).unwrap();
        zone(name, &file)
    };
    let soa = "$TTL 60\n@ SOA ns h 1 2 3 4 5\n@ NS ns.example.\n";
    let zones = [
        write("test", &format!("{soa}eu.shop NS ns.example.\neu.shop DS 1 8 2 00ff\nafter A 192.0.2.1\n")),
        write("eu.shop.test", &format!("{soa}www A 192.0.2.2\n")),
        write("q.eu.shop.test", soa),
    ];
    let zones = Zones::load(&zones, &Default::default()).unwrap();
    let table = Default::default();
    let ask = |name, rtype| {
        let transport = siteswap::dns::Transport::Udp;
        decode(&respond(&query(name, rtype), transport, &zones, &table).unwrap())
    };
    assert_eq!(data(&ask("www.eu.shop.test", A).answers), ["192.0.2.2"]);
    assert_eq!(data(&ask("after.test", A).answers), ["192.0.2.1"]);
    assert_eq!(ask("r.eu.shop.test", A).authorities[0].name.to_string(), "eu.shop.test.");
    assert_eq!(ask("r.q.eu.shop.test", A).authorities[0].name.to_string(), "q.eu.shop.test.");
    assert_eq!(ask("us.shop.test", A).authorities[0].name.to_string(), "test.");
    let ds = ask("eu.shop.test", DS);
    assert_eq!(records(&ds.answers), [("eu.shop.test.".to_owned(), RecordType::DS)]);
    // Not delegated by its parent: the zone itself says that there is none.
    assert_eq!(ask("q.eu.shop.test", DS).authorities[0].name.to_string(), "q.eu.shop.test.");
}

#[test]
fn rfc1035_3_2_1_ttl_zero_is_served() {
    let reply = fixture().ask("zero.shop.test", A);
    assert_eq!(reply.answers[0].ttl, 0);
}

#[test]
fn no_site_available_and_nodata_is_configured() {
    let fixture = fixture_with(AllDown::NoData);
    for rtype in [A, AAAA] {
        let reply = fixture.ask("down.shop.test", rtype);
        assert_eq!(reply.metadata.response_code, NoError);
        assert_eq!(reply.authorities[0].record_type(), RecordType::SOA);
        assert!(reply.metadata.authoritative);
    }
    let reply = fixture.ask("down-alias.shop.test", A);
    assert_eq!((reply.answers.len(), reply.authorities.len()), (1, 1));
}

#[test]
fn rfc8914_4_23_no_site_available_and_servfail_is_configured() {
    let fixture = fixture_with(AllDown::ServFail);
    for name in ["down.shop.test", "down-alias.shop.test"] {
        let query = query(name, A);
        let reply = fixture.udp(&query);
        assert_eq!(fixture.verdict(&query), (ServFail, Outcome::ServFail));
        assert_eq!(reply.bytes[6..12], [0; 6]);
        let reply = fixture.udp(&add_opt(query, 1232, 0, &[]));
        // Extended error 22, No Reachable Authority.
        let opt = [0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 6, 0, 15, 0, 2, 0, 22];
        assert!(reply.bytes.ends_with(&opt));
    }
    // The policy is about addresses only.
    assert_eq!(fixture.verdict(&query("down.shop.test", MX)), (NoError, Outcome::NoData));
}

#[test]
fn no_site_available_and_addresses_are_configured() {
    let mut fixture = fixture_with(AllDown::All);
    fixture.table.sets[1] = set("down", &["192.0.2.7"], Some(AllDown::All));
    assert_eq!(data(&fixture.ask("down.shop.test", A).answers), ["192.0.2.7"]);
}
