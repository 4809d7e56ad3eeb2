//! Header and question.

use hickory_proto::op::ResponseCode::{FormErr, NXDomain, NoError, NotAuth, NotImp, Refused};
use siteswap::dns::Outcome;

use super::support::*;

const HEADER: [u8; 12] = [0xab, 0xcd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn rfc1035_4_1_1_less_than_a_header_is_met_with_silence() {
    let query = query("www.shop.test", A);
    for length in 0..12 {
        assert!(fixture().silent(&query[..length]));
    }
}

#[test]
fn rfc1035_4_1_1_a_response_is_met_with_silence() {
    let fixture = fixture();
    let mut query = query("www.shop.test", A);
    query[2] |= 0x80;
    assert!(fixture.silent(&query));
}

#[test]
fn rfc8906_8_1_4_other_opcodes_are_notimp_and_echoed() {
    let fixture = fixture();
    for opcode in 1..16 {
        let mut full = add_opt(query("www.shop.test", A), 1232, 0, &[]);
        full[2] = opcode << 3 | 1;
        let reply = fixture.udp(&full);
        assert_eq!(reply.bytes[2], 0x80 | opcode << 3 | 1);
        assert_eq!(reply.bytes[3], 4);
        assert_eq!(reply.outcome, Outcome::NotImp);
        assert!(reply.bytes.ends_with(&OPT_REPLY));

        let mut header = HEADER;
        header[2] = opcode << 3;
        let reply = fixture.udp(&header);
        assert_eq!(reply.bytes, [0xab, 0xcd, 0x80 | opcode << 3, 4, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}

#[test]
fn rfc9619_a_query_has_exactly_one_question() {
    let fixture = fixture();
    let none = fixture.udp(&HEADER);
    assert_eq!(none.bytes, [0xab, 0xcd, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(none.outcome, Outcome::FormErr);
    let with_opt = fixture.udp(&add_opt(HEADER.to_vec(), 1232, 0, &[]));
    assert_eq!(with_opt.bytes[12..], OPT_REPLY);

    let mut two = query("www.shop.test", A);
    let question = two[12..].to_vec();
    two.extend(question);
    two[5] = 2;
    let reply = fixture.udp(&add_opt(two, 1232, 0, &[]));
    assert_eq!(reply.bytes[..12], [0xab, 0xcd, 0x81, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(reply.bytes[12..], OPT_REPLY);
}

#[test]
fn rfc1035_4_1_2_a_truncated_question_is_formerr_with_a_bare_header() {
    let fixture = fixture();
    let query = query("www.shop.test", A);
    for length in 12..query.len() {
        let reply = fixture.udp(&query[..length]);
        assert_eq!(reply.bytes, [0xab, 0xcd, 0x81, 1, 0, 0, 0, 0, 0, 0, 0, 0], "{length}");
        assert_eq!(reply.outcome, Outcome::FormErr);
    }
}

#[test]
fn rfc1035_4_1_4_a_pointer_or_unknown_label_type_in_the_question_is_formerr() {
    let fixture = fixture();
    for name in [&b"\xc0\x0c"[..], b"\x03www\xc0\x0c", b"\xc0\x00", b"\x40aa\0", b"\x80aa\0", b"\x41\x01\0"] {
        let query = query_bytes(name, A, 1);
        assert_eq!(fixture.verdict(&query), (FormErr, Outcome::FormErr), "{name:?}");
    }
}

#[test]
fn rfc1035_2_3_4_names_of_255_octets_are_valid_and_longer_ones_formerr() {
    let fixture = fixture();
    let suffix = wire_name("shop.test");
    let mut longest = Vec::new();
    while longest.len() + 2 + suffix.len() <= 255 {
        longest.extend_from_slice(b"\x01a");
    }
    if longest.len() + suffix.len() < 255 {
        longest.splice(..2, *b"\x02aa");
    }
    let name = [longest, suffix].concat();
    assert_eq!(name.len(), 255);
    assert_eq!(fixture.verdict(&query_bytes(&name, A, 1)), (NXDomain, Outcome::NxDomain));

    let labels_127 = [b"\x01a".repeat(127), vec![0]].concat();
    assert_eq!(labels_127.len(), 255);
    assert_eq!(fixture.verdict(&query_bytes(&labels_127, A, 1)), (Refused, Outcome::Refused));

    let too_long = [b"\x01a".repeat(125), b"\x02aa\x01a\0".to_vec()].concat();
    assert_eq!(too_long.len(), 256);
    assert_eq!(fixture.verdict(&query_bytes(&too_long, A, 1)), (FormErr, Outcome::FormErr));
}

#[test]
fn rfc2181_11_any_octet_is_valid_in_a_label() {
    let fixture = fixture();
    let name = [b"\x07odd\0\xff. ".to_vec(), wire_name("shop.test")].concat();
    assert_eq!(fixture.verdict(&query_bytes(&name, TXT, 1)), (NoError, Outcome::Answer));
    let name = [b"\x02\0\xff".to_vec(), wire_name("shop.test")].concat();
    assert_eq!(fixture.verdict(&query_bytes(&name, TXT, 1)), (NXDomain, Outcome::NxDomain));
}

#[test]
fn rfc4343_names_match_case_blind_and_the_question_is_echoed_exactly() {
    let fixture = fixture();
    for name in ["wWw.ShOp.TeSt", "MAIL.shop.TEST"] {
        let query = query(name, A);
        let reply = fixture.udp(&query);
        assert_eq!(reply.outcome, Outcome::Answer);
        assert_eq!(reply.bytes[12..query.len()], query[12..]);
        assert_eq!(reply.bytes[query.len()..query.len() + 2], [0xc0, 0x0c]);
    }
    // Only ASCII letters fold.
    let name = [b"\x04m\xc1il".to_vec(), wire_name("shop.test")].concat();
    assert_eq!(fixture.verdict(&query_bytes(&name, A, 1)).0, NXDomain);
}

#[test]
fn rfc8906_8_1_3_flags_of_the_query_are_ignored_and_cleared() {
    let fixture = fixture();
    let plain = fixture.udp(&query("www.shop.test", A));
    let mut query = query("www.shop.test", A);
    query[2] = 0x07;
    query[3] = 0xff;
    assert_eq!(fixture.udp(&query), plain);
    assert_eq!(plain.bytes[2..4], [0x85, 0]);
}

#[test]
fn rfc1035_4_1_1_rd_and_the_id_are_copied() {
    let fixture = fixture();
    let mut query = query("www.shop.test", A);
    query[2] = 0;
    let reply = fixture.udp(&query);
    assert_eq!(reply.bytes[..4], [0xab, 0xcd, 0x84, 0]);
}

#[test]
fn rfc1035_4_1_records_that_parse_are_ignored_and_missing_ones_are_formerr() {
    let fixture = fixture();
    let plain = fixture.udp(&query("www.shop.test", A));
    for count in [7, 9, 11] {
        let mut query = add_record(query("www.shop.test", A), b"\xc0\x0c", TXT, 1, 0, b"\x01a");
        query[11] = 0;
        query[count] = 1;
        assert_eq!(fixture.udp(&query), plain);
        query[count] = 2;
        assert_eq!(fixture.verdict(&query), (FormErr, Outcome::FormErr));
        query[count] = 1;
        query.pop();
        assert_eq!(fixture.verdict(&query), (FormErr, Outcome::FormErr));
    }
}

#[test]
fn octets_after_the_message_are_ignored() {
    let fixture = fixture();
    let plain = fixture.udp(&query("www.shop.test", A));
    let mut query = query("www.shop.test", A);
    query.extend_from_slice(b"\xc0\x0cgarbage");
    assert_eq!(fixture.udp(&query), plain);
}

#[test]
fn rfc1035_3_2_4_classes_other_than_in_are_refused() {
    let fixture = fixture();
    for class in [0, 2, 3, 4, 254, 255, 4096] {
        let query = query_bytes(&wire_name("www.shop.test"), A, class);
        assert_eq!(fixture.verdict(&query), (Refused, Outcome::Refused));
    }
    for name in ["version.bind", "hostname.bind", "id.server"] {
        let query = query_bytes(&wire_name(name), TXT, 3);
        assert_eq!(fixture.verdict(&query), (Refused, Outcome::Refused));
    }
}

#[test]
fn rfc8482_4_2_any_is_answered_with_one_small_record() {
    let fixture = fixture();
    for name in ["shop.test", "www.shop.test", "q.wild.shop.test"] {
        let reply = fixture.ask(name, ANY);
        assert_eq!(data(&reply.answers), ["RFC8482 "], "{name}");
        assert!(reply.metadata.authoritative);
    }
    let alias = fixture.ask("alias.shop.test", ANY);
    assert_eq!(data(&alias.answers), ["WWW.shop.test."]);
    assert_eq!(fixture.verdict(&query("ent.shop.test", ANY)).1, Outcome::NoData);
    assert_eq!(fixture.verdict(&query("no.shop.test", ANY)).1, Outcome::NxDomain);
}

#[test]
fn rfc5936_zone_transfers_are_refused_over_both_transports() {
    let fixture = fixture();
    for rtype in [251, 252] {
        let query = query("shop.test", rtype);
        assert_eq!(fixture.verdict(&query), (Refused, Outcome::Refused));
        assert_eq!(fixture.tcp(&query).outcome, Outcome::Refused);
    }
}

#[test]
fn rfc6895_3_1_types_for_messages_are_not_looked_up() {
    let fixture = fixture();
    for rtype in [249, 250, 253, 254] {
        assert_eq!(fixture.verdict(&query("shop.test", rtype)), (NotImp, Outcome::NotImp));
    }
    for rtype in [0, 41] {
        assert_eq!(fixture.verdict(&query("shop.test", rtype)), (FormErr, Outcome::FormErr));
    }
}

#[test]
fn rfc3597_unknown_types_are_nodata() {
    let fixture = fixture();
    for rtype in [65280, 1000, HTTPS, 64] {
        for name in ["www.shop.test", "mail.shop.test"] {
            let reply = fixture.ask(name, rtype);
            assert_eq!(reply.metadata.response_code, NoError);
            assert!(reply.answers.is_empty());
            assert_eq!(data(&reply.authorities).len(), 1);
        }
    }
}

/// TSIG RDATA (RFC 8945 §4.2): HMAC-SHA256, a MAC of four octets.
fn tsig() -> Vec<u8> {
    [&wire_name("hmac-sha256")[..], &[0, 0, 1, 2, 3, 4, 1, 44], &[0, 4, 9, 9, 9, 9], &[0x12, 0x34, 0, 0, 0, 0]].concat()
}

#[test]
fn rfc8945_5_2_1_a_signature_with_an_unknown_key_is_notauth_badkey() {
    let fixture = fixture();
    let key = wire_name("key.example");
    let query = add_opt(query("www.shop.test", A), 1232, 0, &[]);
    let signed = add_record(query, &key, 250, 255, 0, &tsig());
    assert_eq!(fixture.verdict(&signed), (NotAuth, Outcome::NotAuth));
    let reply = fixture.udp(&signed).bytes;
    assert_eq!(reply[6..12], [0, 0, 0, 0, 0, 2]);
    let expected = [
        &OPT_REPLY[..],
        &key,
        &[0, 250, 0, 255, 0, 0, 0, 0, 0, 29],
        &wire_name("hmac-sha256"),
        &[0, 0, 1, 2, 3, 4, 1, 44],
        &[0, 0],
        &[0x12, 0x34, 0, 17, 0, 0],
    ]
    .concat();
    assert!(reply.ends_with(&expected));
}

#[test]
fn rfc8945_5_2_a_misplaced_or_broken_signature_is_formerr() {
    let fixture = fixture();
    let key = wire_name("key.example");
    let signed = add_record(query("www.shop.test", A), &key, 250, 255, 0, &tsig());
    let not_last = add_opt(signed, 1232, 0, &[]);
    assert_eq!(fixture.verdict(&not_last), (FormErr, Outcome::FormErr));
    let short = &tsig()[..20];
    let broken = add_record(query("www.shop.test", A), &key, 250, 255, 0, short);
    assert_eq!(fixture.verdict(&broken), (FormErr, Outcome::FormErr));
}
