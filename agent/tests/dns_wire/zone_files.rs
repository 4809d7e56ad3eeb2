//! Zone files: what is read, what is refused and how that is said, what is warned about.

use std::{fs, path::Path};

use siteswap::{
    answers::AnswerTable,
    dns::{Transport, ZoneError, Zones, respond},
};
use tempfile::TempDir;

use super::support::*;

const HEAD: &str = "$TTL 1h\n@ SOA ns h 7 2 3 4 5\n@ NS ns.example.\n";

fn ask(zones: &Zones, name: &str, rtype: u16) -> Vec<String> {
    let reply = respond(&query(name, rtype), Transport::Tcp, zones, &AnswerTable::default());
    data(&decode(&reply.unwrap()).answers)
}

/// RDATA of the first answer, as on the wire.
fn rdata(zones: &Zones, name: &str, rtype: u16) -> Vec<u8> {
    let query = query(name, rtype);
    let reply = respond(&query, Transport::Tcp, zones, &AnswerTable::default()).unwrap();
    reply.bytes[query.len() + 12..].to_vec()
}

fn good(body: &str) -> Zones {
    let (zones, _directory) = load("shop.test", format!("{HEAD}{body}").as_bytes(), &[]);
    zones.unwrap()
}

fn error_of(text: &[u8]) -> ZoneError {
    load("shop.test", text, &[]).0.expect_err("an error")
}

#[test]
fn rfc1035_5_1_origins_owners_and_comments() {
    let zones = good(
        "a A 192.0.2.1 ; comment\n\
         \tTXT \"semi;colon\" ; comment\n\
         $ORIGIN deep\n\
         b CNAME @\n\
         $ORIGIN other.shop.test.\n\
         c in 5 MX ( 10 ; comment )\n a\n)\n\
         D 5 IN MX 10 mail.example.\n",
    );
    assert_eq!(ask(&zones, "a.shop.test", A), ["192.0.2.1"]);
    assert_eq!(ask(&zones, "a.shop.test", TXT), ["semi;colon"]);
    assert_eq!(ask(&zones, "b.deep.shop.test", CNAME), ["deep.shop.test."]);
    assert_eq!(ask(&zones, "c.other.shop.test", MX), ["10 a.other.shop.test."]);
    assert_eq!(ask(&zones, "d.other.shop.test", MX), ["10 mail.example."]);
    assert_eq!(zones.serial(&lower("shop.test")), Some(7));
    assert_eq!(zones.serials().count(), 1);
}

#[test]
fn rfc1035_5_1_escapes_and_octets_of_character_strings() {
    let text = [HEAD.as_bytes(), b"a TXT \"q\\\"\\065\\000\\255\" ( \"two words\"\n un\\;quoted \xc3\xa9 \"\" )\n"];
    let (zones, _directory) = load("shop.test", &text.concat(), &[]);
    let expected = b"\x05q\"A\0\xff\x09two words\x09un;quoted\x02\xc3\xa9\0";
    assert_eq!(rdata(&zones.unwrap(), "a.shop.test", TXT), expected);
}

#[test]
fn rfc3597_5_unknown_types_are_read_and_served() {
    let zones = good("a TYPE65280 \\# 4 0A0b 0c0D\nb 5 IN type1000 \\# 0\nc TYPE1 192.0.2.3\n");
    assert_eq!(rdata(&zones, "a.shop.test", 65280), [10, 11, 12, 13]);
    assert!(rdata(&zones, "b.shop.test", 1000).is_empty());
    assert_eq!(ask(&zones, "c.shop.test", A), ["192.0.2.3"]);
}

#[test]
fn further_types_are_written_in_their_own_form() {
    let zones = good(
        "a SSHFP 4 2 00ff\n  TLSA 3 1 1 ( 0011\n 2233 )\n  HINFO x \"y z\"\n\
         a NAPTR 10 20 s SIP+D2U \"\" _sip._udp\n  PTR host\n  CAA 128 issuewild \";\"\n",
    );
    assert_eq!(rdata(&zones, "a.shop.test", 44), [4, 2, 0, 255]);
    assert_eq!(rdata(&zones, "a.shop.test", 52), [3, 1, 1, 0, 0x11, 0x22, 0x33]);
    assert_eq!(rdata(&zones, "a.shop.test", 13), b"\x01x\x03y z");
    assert_eq!(rdata(&zones, "a.shop.test", 257), b"\x80\x09issuewild;");
    let naptr = [b"\0\x0a\0\x14\x01s\x07SIP+D2U\0".to_vec(), wire_name("_sip._udp.shop.test")].concat();
    assert_eq!(rdata(&zones, "a.shop.test", 35), naptr);
    assert_eq!(ask(&zones, "a.shop.test", 12), ["host.shop.test."]);
}

#[test]
fn rfc1035_5_1_ttls_are_explicit_the_default_or_the_last_stated() {
    let text = "@ 1m30s SOA ns h 7 2 3 4 5\n@ NS ns.example.\n$TTL 1w\na A 192.0.2.1\nb 0 A 192.0.2.1\n";
    let (zones, _directory) = load("shop.test", text.as_bytes(), &[]);
    let zones = zones.unwrap();
    let ttl = |name, rtype| {
        let reply = respond(&query(name, rtype), Transport::Udp, &zones, &AnswerTable::default());
        decode(&reply.unwrap()).answers[0].ttl
    };
    assert_eq!(ttl("shop.test", NS), 90);
    assert_eq!(ttl("a.shop.test", A), 604_800);
    assert_eq!(ttl("b.shop.test", A), 0);
}

fn write(directory: &Path, name: &str, text: &str) {
    fs::write(directory.join(name), text).unwrap();
}

fn load_in(directory: &Path, file: &str) -> Result<Zones, ZoneError> {
    Zones::load(&[zone("shop.test", &directory.join(file))], &Default::default())
}

#[test]
fn rfc1035_5_1_include_is_relative_to_the_including_file_and_keeps_the_origin() {
    let directory = TempDir::new().unwrap();
    fs::create_dir(directory.path().join("parts")).unwrap();
    let main = format!("{HEAD}x A 192.0.2.1\n$INCLUDE parts/a in\n TXT \"x's\"\n$INCLUDE parts/b\n");
    write(directory.path(), "zone", &main);
    write(directory.path(), "parts/a", "$INCLUDE b\n$ORIGIN elsewhere.shop.test.\ny A 192.0.2.2\n");
    write(directory.path(), "parts/b", "z A 192.0.2.3\n");
    let zones = load_in(directory.path(), "zone").unwrap();
    assert_eq!(ask(&zones, "x.shop.test", TXT), ["x's"]);
    assert_eq!(ask(&zones, "y.elsewhere.shop.test", A), ["192.0.2.2"]);
    assert_eq!(ask(&zones, "z.in.shop.test", A), ["192.0.2.3"]);
    assert_eq!(ask(&zones, "z.shop.test", A), ["192.0.2.3"]);
}

#[test]
fn include_reads_nothing_outside_the_zone_files_directory_and_never_loops() {
    let directory = TempDir::new().unwrap();
    fs::create_dir(directory.path().join("zones")).unwrap();
    write(directory.path(), "secret", "s A 192.0.2.1\n");
    let zones = directory.path().join("zones");
    std::os::unix::fs::symlink(directory.path().join("secret"), zones.join("link")).unwrap();
    let absolute = directory.path().join("secret");
    for (include, why) in [
        ("../secret", "lies outside"),
        (absolute.to_str().unwrap(), "lies outside"),
        ("/dev/zero", "lies outside"),
        ("link", "lies outside"),
        ("zone", "includes itself"),
        ("nothing", "No such file"),
        (".", "not a regular file"),
    ] {
        write(&zones, "zone", &format!("{HEAD}\n$INCLUDE {include}\n"));
        let error = load_in(&zones, "zone").unwrap_err();
        assert!(error.to_string().contains(why), "{include}: {error}");
    }
    write(&zones, "zone", &format!("{HEAD}$INCLUDE empty\n").repeat(101));
    write(&zones, "empty", "");
    assert!(load_in(&zones, "zone").unwrap_err().to_string().contains("more than 100"));
}

#[test]
fn an_error_in_an_included_file_names_that_file() {
    let directory = TempDir::new().unwrap();
    write(directory.path(), "zone", &format!("{HEAD}$INCLUDE part\n"));
    write(directory.path(), "part", "\n\na A 192.0.2.256\n");
    let error = load_in(directory.path(), "zone").unwrap_err();
    assert_eq!(error.file, Some(directory.path().join("part")));
    assert_eq!(error.line, Some(3));
}

#[test]
fn errors_name_the_line_what_is_wrong_and_what_would_be_right() {
    for (body, line, parts) in [
        ("a A 192.0.2.256", 4, &["192.0.2.256", "an IPv4 address"][..]),
        ("a AAAA ::g", 4, &["::g", "an IPv6 address"]),
        ("a A", 4, &["missing", "an IPv4 address"]),
        ("a A 192.0.2.1 192.0.2.2", 4, &["`192.0.2.2` is too much"]),
        ("a MX mail", 4, &["`mail`", "preference and name"]),
        ("a MX 65536 mail", 4, &["0 to 65535"]),
        ("\n\na SRV 1 2 mail", 6, &["`mail`", "priority, weight, port and name"]),
        ("a CAA 0 is-sue x", 4, &["is-sue", "letters and digits"]),
        ("a TXT", 4, &["missing", "one or more strings"]),
        ("a TXT (\n \"x\"\n", 4, &["never closed", "`)`"]),
        ("a TXT \"x\n", 4, &["not closed on its line"]),
        ("a TXT \\256", 4, &["\\000 to \\255"]),
        ("a SPF x", 4, &["`SPF`", "TYPE", "\\# length"]),
        ("a", 4, &["no type"]),
        ("a 5 IN", 4, &["no type"]),
        ("a CH A 192.0.2.1", 4, &["class CH", "class IN"]),
        ("a 2147483648 A 192.0.2.1", 4, &["2147483647", "RFC 2181"]),
        ("a TYPE65280 abc", 4, &["\\# length hexadecimal"]),
        ("a TYPE65280 \\# 2 00", 4, &["`\\# 2`", "1 octets"]),
        ("a TYPE65280 \\# 1 0", 4, &["pairs of hexadecimal"]),
        ("a A \\# 4 00000000", 4, &["its own form", "an IPv4 address"]),
        ("a DNAME b", 4, &["DNAME", "CNAME for each name"]),
        ("a TYPE39 \\# 0", 4, &["DNAME"]),
        ("a RRSIG A", 4, &["signed zones are not supported"]),
        ("a TYPE250 \\# 0", 4, &["for messages"]),
        ("a.. A 192.0.2.1", 4, &["empty label"]),
        ("m\u{fc}nchen A 192.0.2.1", 4, &["outside ASCII", "xn--"]),
        ("a.example. A 192.0.2.1", 4, &["outside the zone", "shop.test."]),
        ("a SOA ns h 1 2 3 4 5", 4, &["the zone's apex"]),
        ("@ SOA ns h 2 2 3 4 5", 4, &["there is another"]),
        ("*.a NS ns", 4, &["wildcard cannot be delegated"]),
        ("a CNAME b\na CNAME c", 5, &["there is another"]),
        ("a CNAME b\n\na TXT x", 4, &["zone:6", "TXT", "RFC 2181 §10.1"]),
        ("$GENERATE 1-9 a A 192.0.2.1", 4, &["$GENERATE", "$ORIGIN, $TTL and $INCLUDE"]),
        ("$TTL", 4, &["takes one value"]),
        ("$TTL never", 4, &["`never`", "1h30m"]),
        ("a A \0", 4, &["0x00", "not text"]),
    ] {
        let error = error_of(format!("{HEAD}{body}\n").as_bytes());
        assert_eq!(error.line, Some(line), "{body}: {error}");
        for part in parts {
            assert!(error.to_string().contains(part), "{body}: {error}");
        }
    }
}

#[test]
fn a_zone_has_an_soa_name_servers_and_ttls() {
    for (text, part) in [
        ("", "no SOA at shop.test."),
        ("@ 5 NS ns.example.\n", "no SOA"),
        ("@ 5 SOA ns h 1 2 3 4 5\n", "no NS at shop.test."),
        (" 5 NS ns.example.\n", "no owner"),
        ("@ SOA ns h 1 2 3 4 5\n", "no TTL"),
    ] {
        let error = error_of(text.as_bytes());
        assert!(error.to_string().contains(part), "{error}");
    }
    let missing = Zones::load(&[zone("shop.test", Path::new("/nonexistent/zone"))], &Default::default());
    let message = missing.unwrap_err().to_string();
    assert!(message.starts_with("/nonexistent/zone: the zone file cannot be read"), "{message}");
}

#[test]
fn a_resources_domain_has_no_addresses_or_alias_in_the_zone_file() {
    for record in ["A 192.0.2.1", "AAAA 2001:db8::1", "CNAME mail"] {
        let text = format!("{HEAD}\nWWW {record}\n");
        let error = load("shop.test", text.as_bytes(), &[("web", resource(&["www.shop.test"]))]);
        let error = error.0.unwrap_err();
        assert_eq!(error.line, Some(5));
        for part in ["www.shop.test.", "resource web", record.split(' ').next().unwrap()] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}

#[test]
fn a_resources_domain_lies_in_a_zone_once_and_not_below_a_delegation() {
    let text = format!("{HEAD}sub NS ns.example.\n");
    for (domains, part) in [
        (&["www.other.test"][..], "resource one: its domain www.other.test. lies in no zone"),
        (&["*.shop.test"], "is a wildcard"),
        (&["a.sub.shop.test"], "sub.shop.test. is delegated"),
        (&["sub.shop.test"], "sub.shop.test. is delegated"),
        (&["a.shop.test", "A.shop.test"], "resource one and to resource one"),
    ] {
        let (zones, _directory) = load("shop.test", text.as_bytes(), &[("one", resource(domains))]);
        let error = zones.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let both = [("one", resource(&["a.shop.test"])), ("two", resource(&["a.shop.test"]))];
    let error = load("shop.test", text.as_bytes(), &both).0.unwrap_err().to_string();
    assert!(error.contains("resource one and to resource two"), "{error}");
}

#[test]
fn a_zone_is_configured_once() {
    let directory = TempDir::new().unwrap();
    write(directory.path(), "zone", HEAD);
    let file = directory.path().join("zone");
    let twice = [zone("shop.test", &file), zone("SHOP.test", &file)];
    let error = Zones::load(&twice, &Default::default()).unwrap_err();
    assert!(error.to_string().contains("configured twice"));
}

#[test]
fn suspicious_records_are_warned_about_and_served_as_the_rfcs_say() {
    let body = "a 60 A 192.0.2.1\na 30 A 192.0.2.2\na A 192.0.2.1\n\
                @ MX 10 Mail\n@ MX 10 mail\nmail CNAME a\n\
                b SRV 1 2 3 nowhere\nb SRV 1 2 3 .\n\
                sub NS ns.sub\nsub TXT x\nx.sub TXT y\nx.sub NS ns\nns.sub A 192.0.2.3\n";
    let zones = good(body);
    let warnings: Vec<String> =
        zones.warnings().iter().map(|warning| format!("{}: {}", warning.line, warning.message)).collect();
    let expected = [
        ("5: ", "TTL 30", "RFC 2181 §5.2"),
        ("6: ", "written before", "RFC 2181 §5"),
        ("8: ", "written before", "RFC 2181 §5"),
        ("13: ", "sub.shop.test. TXT", "hidden by a delegation"),
        ("15: ", "x.sub.shop.test. NS", "hidden by a delegation"),
        ("14: ", "x.sub.shop.test. TXT", "hidden by a delegation"),
        ("7: ", "Mail.shop.test. is a CNAME", "§10.3"),
        ("10: ", "nowhere.shop.test.", "has no address"),
    ];
    for (line, what, why) in expected {
        assert!(
            warnings.iter().any(|text| text.starts_with(line) && text.contains(what) && text.contains(why)),
            "{line}{what}: {warnings:#?}"
        );
    }
    assert_eq!(ask(&zones, "a.shop.test", A), ["192.0.2.1", "192.0.2.2"]);
    let reply = respond(&query("a.shop.test", A), Transport::Udp, &zones, &AnswerTable::default());
    assert!(decode(&reply.unwrap()).answers.iter().all(|record| record.ttl == 30));
    assert_eq!(ask(&zones, "shop.test", MX), ["10 Mail.shop.test."]);
}

#[test]
fn the_tests_own_zone_is_free_of_warnings_but_for_what_it_hides() {
    let fixture = fixture();
    let warnings: Vec<&str> = fixture.zones.warnings().iter().map(|warning| &*warning.message).collect();
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].starts_with("hidden.sub.shop.test. TXT"));
}
