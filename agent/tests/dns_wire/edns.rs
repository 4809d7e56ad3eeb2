//! EDNS(0), RFC 6891.

use hickory_proto::op::ResponseCode::{FormErr, NXDomain, NoError, NotImp, Refused};
use siteswap::dns::Outcome;

use super::support::*;

#[test]
fn rfc6891_7_no_opt_in_the_query_none_in_the_reply() {
    let fixture = fixture();
    for (name, rtype) in [("www.shop.test", A), ("no.shop.test", A), ("example", A)] {
        assert!(fixture.ask(name, rtype).edns.is_none());
        assert_eq!(fixture.udp(&query(name, rtype)).bytes[10..12], [0, 0]);
    }
}

#[test]
fn rfc6891_6_1_1_opt_in_the_query_one_opt_in_every_reply() {
    let fixture = fixture();
    let any_class = query_bytes(&wire_name("www.shop.test"), A, 255);
    for (query, rcode) in [
        (query("www.shop.test", A), NoError),
        (query("mail.shop.test", MX), NoError),
        (query("no.shop.test", A), NXDomain),
        (query("elsewhere.example", A), Refused),
        (query("www.shop.test", 250), NotImp),
        (query("www.shop.test", 0), FormErr),
        (any_class, Refused),
    ] {
        let query = add_opt(query, 1232, 0, &[]);
        let reply = fixture.udp(&query).bytes;
        assert_eq!(fixture.verdict(&query).0, rcode);
        assert_eq!(reply[10..12], [0, 1]);
        assert!(reply.ends_with(&OPT_REPLY), "{rcode}");
    }
}

#[test]
fn rfc6891_6_1_3_another_version_is_badvers_whatever_else_it_holds() {
    let fixture = fixture();
    for options in [&b""[..], b"\0\x03\0\0", b"\x01"] {
        let query = add_opt(query("www.shop.test", A), 1232, 0x0001_8000, options);
        let reply = fixture.udp(&query);
        assert_eq!(reply.outcome, Outcome::BadVers);
        assert_eq!(reply.bytes[2..12], [0x81, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        // Extended RCODE 1, version 0, DO copied.
        assert!(reply.bytes.ends_with(&[0, 0, 41, 4, 0xd0, 1, 0, 0x80, 0, 0, 0]));
    }
}

#[test]
fn rfc6891_6_1_2_unknown_options_are_ignored_and_not_echoed() {
    let fixture = fixture();
    let plain = fixture.udp(&add_opt(query("www.shop.test", A), 1232, 0, &[]));
    for options in [&b"\xfd\xe9\0\x02ab"[..], b"\0\x03\0\0", b"\xff\xff\0\0\0\x0a\0\x08cookies!"] {
        let query = add_opt(query("www.shop.test", A), 1232, 0, options);
        assert_eq!(fixture.udp(&query), plain);
    }
}

#[test]
fn rfc3225_3_do_is_copied_and_rfc6891_6_1_4_z_is_zero() {
    let fixture = fixture();
    let reply = fixture.udp(&add_opt(query("www.shop.test", A), 1232, 0xffff, &[]));
    assert!(reply.bytes.ends_with(&[0, 0, 41, 4, 0xd0, 0, 0, 0x80, 0, 0, 0]));
    let reply = fixture.udp(&add_opt(query("www.shop.test", A), 1232, 0x7fff, &[]));
    assert!(reply.bytes.ends_with(&OPT_REPLY));
}

#[test]
fn rfc6891_6_1_3_an_extended_rcode_in_a_query_is_ignored() {
    let fixture = fixture();
    let reply = fixture.udp(&add_opt(query("www.shop.test", A), 1232, 0xff00_0000, &[]));
    assert_eq!(reply.outcome, Outcome::Answer);
    assert!(reply.bytes.ends_with(&OPT_REPLY));
}

#[test]
fn rfc6891_6_1_1_two_opt_records_are_formerr() {
    let fixture = fixture();
    let query = add_opt(add_opt(query("www.shop.test", A), 1232, 0, &[]), 1232, 0, &[]);
    assert_eq!(fixture.verdict(&query), (FormErr, Outcome::FormErr));
    assert_eq!(fixture.udp(&query).bytes[10..12], [0, 1]);
}

#[test]
fn rfc6891_6_1_1_opt_outside_the_additional_section_is_formerr() {
    let fixture = fixture();
    for count in [7, 9] {
        let mut query = add_opt(query("www.shop.test", A), 1232, 0, &[]);
        query.swap(count, 11);
        assert_eq!(fixture.verdict(&query), (FormErr, Outcome::FormErr));
        assert_eq!(fixture.udp(&query).bytes[10..12], [0, 0]);
    }
}

#[test]
fn rfc6891_6_1_2_opt_is_owned_by_the_root() {
    let fixture = fixture();
    for owner in [&b"\x01a\0"[..], b"\xc0\x0c"] {
        let query = add_record(query("www.shop.test", A), owner, 41, 1232, 0, &[]);
        assert_eq!(fixture.verdict(&query), (FormErr, Outcome::FormErr));
    }
}

#[test]
fn rfc6891_6_1_1_opt_stands_anywhere_in_the_additional_section() {
    let fixture = fixture();
    let plain = fixture.udp(&add_opt(query("www.shop.test", A), 1232, 0, &[]));
    let other = |query| add_record(query, b"\xc0\x0c", TXT, 1, 0, b"\x01a");
    let before = other(add_opt(query("www.shop.test", A), 1232, 0, &[]));
    let after = add_opt(other(query("www.shop.test", A)), 1232, 0, &[]);
    assert_eq!(fixture.udp(&before), plain);
    assert_eq!(fixture.udp(&after), plain);
}

#[test]
fn rfc6891_6_1_2_options_that_do_not_fill_rdata_are_formerr_with_opt() {
    let fixture = fixture();
    for options in [&b"\0"[..], b"\0\x0a", b"\0\x0a\0", b"\0\x0a\0\x01", b"\0\x0a\0\x02a", b"\0\x0a\0\x01a\0"] {
        let query = add_opt(query("www.shop.test", A), 1232, 0, options);
        assert_eq!(fixture.verdict(&query), (FormErr, Outcome::FormErr), "{options:?}");
        assert!(fixture.udp(&query).bytes.ends_with(&OPT_REPLY));
    }
    // RDLENGTH beyond the message.
    let mut query = add_opt(query("www.shop.test", A), 1232, 0, b"\0\x0a\0\x01a");
    query.pop();
    assert_eq!(fixture.verdict(&query), (FormErr, Outcome::FormErr));
}
