//! Whatever arrives: no panic, and no reply that is not a proper one.

use std::sync::LazyLock;

use hickory_proto::op::Message;
use proptest::{collection::vec, prelude::*, sample::Index};
use siteswap::{
    config::AllDown,
    dns::{Outcome, Response, Transport, respond},
};

use super::support::*;

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| fixture_with(AllDown::ServFail));

/// Names of the zone and beside it, as they may be asked for.
fn names() -> impl Strategy<Value = Vec<u8>> {
    let label = prop_oneof![
        prop::sample::select(vec![
            "www", "WwW", "big", "down", "alias", "chain", "loop1", "long0", "wild", "*", "ent", "sub", "ns", "shop",
            "test", "mail", "host", "half", "gone",
        ])
        .prop_map(|label| label.as_bytes().to_vec()),
        vec(any::<u8>(), 1..=63),
    ];
    let any_name = (vec(label, 0..6), prop::bool::weighted(0.8)).prop_map(|(labels, inside)| {
        let mut name = Vec::new();
        for label in labels {
            name.push(u8::try_from(label.len()).unwrap());
            name.extend(label);
        }
        name.extend(wire_name(if inside { "shop.test" } else { "" }));
        name
    });
    let existing = prop::sample::select(vec!["", "www.", "down.", "alias.", "big.", "sub.", "x.wild.", "chain."]);
    prop_oneof![any_name, existing.prop_map(|name| wire_name(&format!("{name}shop.test")))]
}

fn types() -> impl Strategy<Value = u16> {
    let known = vec![A, AAAA, NS, CNAME, SOA, MX, TXT, DS, ANY, HTTPS, 0, 41, 249, 250, 251, 252];
    prop_oneof![4 => prop::sample::select(known), 1 => any::<u16>()]
}

fn queries() -> impl Strategy<Value = Vec<u8>> {
    let opt = prop::option::of((any::<u16>(), any::<u32>(), vec(any::<u8>(), 0..40)));
    (names(), types(), prop::bool::weighted(0.9), opt).prop_map(|(name, rtype, internet, opt)| {
        let query = query_bytes(&name, rtype, if internet { 1 } else { 3 });
        match opt {
            Some((payload, ttl, options)) => add_opt(query, payload, ttl, &options),
            None => query,
        }
    })
}

/// What every reply must be, whatever it answers.
fn check(query: &[u8], transport: Transport) -> Result<(), TestCaseError> {
    let Some(Response { bytes, outcome }) = respond(query, transport, &FIXTURE.zones, &FIXTURE.table) else {
        prop_assert!(query.len() < 12 || query[2] & 0x80 != 0, "silence without a reason");
        return Ok(());
    };
    prop_assert!(query.len() >= 12 && query[2] & 0x80 == 0);
    prop_assert_eq!(&bytes[..2], &query[..2]);
    // QR set, opcode and RD copied, RA, Z, AD and CD clear.
    prop_assert_eq!(bytes[2] & 0xf9, 0x80 | (query[2] & 0x79));
    prop_assert_eq!(bytes[3] & 0xf0, 0);
    let limit = match transport {
        Transport::Udp => 1232,
        Transport::Tcp => 65535,
    };
    prop_assert!(bytes.len() <= limit);
    let reply = Message::from_vec(&bytes);
    prop_assert!(reply.is_ok(), "{:?} of {:02x?}", reply, bytes);
    let reply = reply.unwrap();
    if reply.edns.is_none() && transport == Transport::Udp {
        prop_assert!(bytes.len() <= 512);
    }
    prop_assert_eq!(reply.metadata.truncation, outcome == Outcome::Truncated);
    if outcome == Outcome::Truncated {
        prop_assert!(reply.answers.is_empty() && reply.authorities.is_empty() && reply.additionals.is_empty());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_octets(message in vec(any::<u8>(), 0..700)) {
        check(&message, Transport::Udp)?;
        check(&message, Transport::Tcp)?;
    }

    #[test]
    fn any_octets_after_a_querys_header(counts in any::<[u8; 4]>(), body in vec(any::<u8>(), 0..300)) {
        let header = [0xab, 0xcd, 1, 0, 0, counts[0] % 3, 0, counts[1] % 3, 0, counts[2] % 3, 0, counts[3] % 3];
        check(&[&header[..], &body].concat(), Transport::Udp)?;
    }

    #[test]
    fn any_question(query in queries()) {
        check(&query, Transport::Udp)?;
        check(&query, Transport::Tcp)?;
    }

    #[test]
    fn a_question_with_any_octet_changed_inserted_or_cut(
        query in queries(),
        changes in vec((any::<Index>(), any::<u8>(), 0..3), 1..5),
    ) {
        let mut query = query;
        for (at, octet, change) in changes {
            if query.is_empty() {
                break;
            }
            let at = at.index(query.len());
            match change {
                0 => query[at] = octet,
                1 => query.insert(at, octet),
                _ => query.truncate(at),
            }
        }
        check(&query, Transport::Udp)?;
    }

    #[test]
    fn any_text_as_a_zone_file(text in "[ -~\n\t]{0,200}") {
        let (zones, _directory) = load("shop.test", text.as_bytes(), &[]);
        if let Err(error) = zones {
            prop_assert!(error.file.is_some());
        }
    }

    #[test]
    fn a_zone_file_with_any_octet_changed_or_cut(changes in vec((any::<Index>(), any::<u8>(), any::<bool>()), 1..4)) {
        let mut text = ZONE.as_bytes().to_vec();
        for (at, octet, cut) in changes {
            let at = at.index(text.len().max(1));
            if cut {
                text.truncate(at.max(1));
            } else {
                text[at] = octet;
            }
        }
        let (zones, _directory) = load("shop.test", &text, &[("www", resource(&["www.shop.test"]))]);
        if let Ok(zones) = zones {
            let query = query("alias.shop.test", A);
            prop_assert!(respond(&query, Transport::Udp, &zones, &FIXTURE.table).is_some());
        }
    }
}
