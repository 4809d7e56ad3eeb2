//! How large a reply may be, and what happens when it is not enough.

use std::fmt::Write;

use siteswap::{
    answers::AnswerTable,
    dns::{Outcome, Response, Transport, Zones, respond},
};

use super::support::*;

/// `t1`, `t2`, … : a TXT record whose reply to a plain query has the stated size.
fn zones() -> Zones {
    let mut text = String::from("$TTL 60\n@ SOA ns h 1 2 3 4 5\n@ NS ns.example.\n");
    for size in [512, 513, 1232] {
        // Header, question, the record's fixed part.
        let mut left = size - 12 - (wire_name("t0000.shop.test").len() + 4) - 12;
        write!(text, "t{size:04} TXT").unwrap();
        while left > 0 {
            let string = (left - 1).min(255);
            // No string may be left without a byte for its length.
            let string = if left - 1 - string == 0 { string } else { string.min(left - 3) };
            write!(text, " \"{}\"", "x".repeat(string)).unwrap();
            left -= 1 + string;
        }
        text.push('\n');
    }
    text.push_str("sub NS ns1.sub\n");
    for host in 1..=40 {
        writeln!(text, "ns1.sub A 192.0.2.{host}").unwrap();
    }
    let (zones, _directory) = load("shop.test", text.as_bytes(), &[]);
    zones.unwrap()
}

fn ask(zones: &Zones, query: &[u8], transport: Transport) -> Response {
    respond(query, transport, zones, &AnswerTable::default()).unwrap()
}

#[test]
fn rfc1035_4_2_1_without_edns_512_octets_and_rfc2181_9_tc_with_empty_sections() {
    let zones = zones();
    let fits = ask(&zones, &query("t0512.shop.test", TXT), Transport::Udp);
    assert_eq!((fits.bytes.len(), fits.outcome), (512, Outcome::Answer));

    let query = query("t0513.shop.test", TXT);
    let cut = ask(&zones, &query, Transport::Udp);
    assert_eq!(cut.outcome, Outcome::Truncated);
    let expected = [&[0xab, 0xcd, 0x87, 0, 0, 1, 0, 0, 0, 0, 0, 0], &query[12..]].concat();
    assert_eq!(cut.bytes, expected);
    assert_eq!(ask(&zones, &query, Transport::Tcp).bytes.len(), 513);
}

#[test]
fn rfc6891_6_2_3_a_payload_size_below_512_means_512() {
    let zones = zones();
    let plain = query("t0512.shop.test", TXT);
    for payload in [0, 1, 511, 512] {
        let reply = ask(&zones, &add_opt(plain.clone(), payload, 0, &[]), Transport::Udp);
        // OPT needs eleven octets more.
        assert_eq!(reply.outcome, Outcome::Truncated);
        assert!(reply.bytes.ends_with(&OPT_REPLY));
    }
    let reply = ask(&zones, &add_opt(plain, 523, 0, &[]), Transport::Udp);
    assert_eq!((reply.bytes.len(), reply.outcome), (523, Outcome::Answer));
}

#[test]
fn rfc9715_no_reply_over_udp_exceeds_1232_octets() {
    let zones = zones();
    for payload in [1232, 4096, 65535] {
        for (name, outcome) in [("t1232.shop.test", Outcome::Truncated), ("t0513.shop.test", Outcome::Answer)] {
            let query = add_opt(query(name, TXT), payload, 0, &[]);
            let reply = ask(&zones, &query, Transport::Udp);
            assert_eq!(reply.outcome, outcome);
            assert!(reply.bytes.len() <= 1232);
            assert!(reply.bytes.ends_with(&OPT_REPLY));
            assert_eq!(ask(&zones, &query, Transport::Tcp).outcome, Outcome::Answer);
        }
    }
}

#[test]
fn rfc9471_3_glue_that_does_not_fit_sets_tc() {
    let zones = zones();
    let query = query("host.sub.shop.test", A);
    let reply = ask(&zones, &query, Transport::Udp);
    assert_eq!(reply.outcome, Outcome::Truncated);
    let whole = decode(&ask(&zones, &query, Transport::Tcp));
    assert_eq!(whole.additionals.len(), 40);
    assert!(!whole.metadata.truncation);
}

#[test]
fn rfc1035_4_1_4_a_long_reply_is_compressed_and_parses() {
    let mut text = String::from("$TTL 60\n@ SOA ns h 1 2 3 4 5\n");
    for host in 0..1100 {
        writeln!(text, "@ NS ns{host}.a-rather-long-label.SHOP.test.").unwrap();
    }
    let (zones, _directory) = load("shop.test", text.as_bytes(), &[]);
    let reply = ask(&zones.unwrap(), &query("shop.test", NS), Transport::Tcp);
    assert_eq!(reply.outcome, Outcome::Answer);
    let message = decode(&reply);
    assert_eq!(message.answers.len(), 1100);
    assert_eq!(data(&message.answers)[1099], "ns1099.a-rather-long-label.shop.test.");
    assert!(reply.bytes.len() < 1100 * 24);
}
