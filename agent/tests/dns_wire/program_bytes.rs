//! A and AAAA of a resource's name: the XDP program must give these bytes, and so must this server.

use std::sync::Arc;

use siteswap::dns::Outcome;

use super::support::*;

fn records(rtype: u16, rdata: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for rdata in rdata {
        bytes.extend_from_slice(&[0xc0, 0x0c]);
        bytes.extend_from_slice(&rtype.to_be_bytes());
        bytes.extend_from_slice(&[0, 1, 0, 0, 0, 20]);
        bytes.extend_from_slice(&u16::try_from(rdata.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(rdata);
    }
    bytes
}

const V4: [&[u8]; 2] = [&[198, 51, 100, 80], &[192, 0, 2, 80]];
const V6: [&[u8]; 2] = [
    &[0x20, 1, 0xd, 0xb8, 0, 2, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x80],
    &[0x20, 1, 0xd, 0xb8, 0, 1, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x80],
];

#[test]
fn a_reply_is_header_question_and_the_tables_records_in_its_order() {
    let fixture = fixture();
    for (rtype, rdata) in [(A, V4), (AAAA, V6)] {
        let query = query("www.SHOP.test", rtype);
        let expected = [&[0xab, 0xcd, 0x85, 0, 0, 1, 0, 2, 0, 0, 0, 0], &query[12..], &records(rtype, &rdata)].concat();
        let reply = fixture.udp(&query);
        assert_eq!(reply.outcome, Outcome::Answer);
        assert_eq!(reply.bytes, expected);
        assert_eq!(fixture.tcp(&query).bytes, expected);
    }
}

#[test]
fn with_edns_opt_follows_the_records() {
    let fixture = fixture();
    for (rtype, rdata) in [(A, V4), (AAAA, V6)] {
        for (flags, opt_flags) in [(0, 0), (0x8000, 0x80)] {
            let plain = query("www.shop.test", rtype);
            let expected = [
                &[0xab, 0xcd, 0x85, 0, 0, 1, 0, 2, 0, 0, 0, 1],
                &plain[12..],
                &records(rtype, &rdata),
                &[0, 0, 41, 0x04, 0xd0, 0, 0, opt_flags, 0, 0, 0],
            ]
            .concat();
            let reply = fixture.udp(&add_opt(plain, 4096, flags, &[]));
            assert_eq!(reply.bytes, expected);
        }
    }
}

#[test]
fn eight_addresses_fit_the_smallest_reply_under_the_longest_name() {
    let label = "a".repeat(63);
    let name = format!("{label}.{label}.{label}.{}.shop.test", "a".repeat(51));
    let text = "@ 60 SOA ns h 1 2 3 4 5\n@ 60 NS ns.example.\n";
    let resources = [("www", resource(&[&name]))];
    let (zones, _directory) = load("shop.test", text.as_bytes(), &resources);
    let addresses: Vec<String> = (1..=9).map(|host| format!("2001:db8::{host}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mut table = fixture().table;
    table.names = Arc::new([(lower(&name), 0)].into());
    table.sets = vec![set("www", &addresses, None)];
    let query = query(&name, AAAA);
    assert_eq!(query.len(), 12 + 255 + 4);
    let transport = siteswap::dns::Transport::Udp;
    let reply = siteswap::dns::respond(&query, transport, &zones.unwrap(), &table).unwrap();
    assert_eq!(reply.outcome, Outcome::Answer);
    assert_eq!(reply.bytes[6..8], [0, 8]);
}
