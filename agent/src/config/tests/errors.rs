//! The words of the errors: how they are found, and those about the file, its sites and the agent's own settings.

use std::{fs, path::Path};

use super::{EXAMPLE, load, parse, with};

/// What is said about `text` in the file `east.toml`.
fn complaint(text: &str) -> String {
    match parse(text, Path::new("east.toml")) {
        Ok(_) => "nothing".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// In the example, replacing the first by the second is answered with the third.
#[track_caller]
pub(super) fn check(table: &[(&str, &str, &str)]) {
    for (from, to, expected) in table {
        assert_eq!(complaint(&with(from, to)), *expected, "{from:?} -> {to:?}");
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let text = with("interfaces", "interface").replace("\"standby\"", "\"passive\"").replace("key =", "kee =");
    assert_eq!(
        complaint(&text),
        r#"east.toml:12:1: link.key: missing; write key = "FILE.pem", the file that siteswap keygen wrote
east.toml:13:1: link.kee: no such key; did you mean "key"?
east.toml:23:1: dataplane.interface: no such key; did you mean "interfaces"?
east.toml:53:8: resources.orders.sites.west.role: "passive" is none of "active", "standby", "disabled""#
    );
}

#[test]
fn a_file_wrong_everywhere_is_cut_short() {
    let complaint = complaint(&"[x]\n".repeat(100));
    assert_eq!(complaint.lines().count(), 26);
    assert!(complaint.ends_with("\neast.toml: and 74 more"), "{complaint}");
}

#[test]
fn an_empty_file_is_told_what_belongs_into_it() {
    assert_eq!(
        complaint(""),
        r#"east.toml:1:1: no section [agent]; say which of the sites this is: site = "east"
east.toml:1:1: no section [sites]; describe each site in a section [sites.NAME]
east.toml:1:1: no section [link]; name the key of this site: key = "east.pem"
east.toml:1:1: no section [dns]; say where to answer: listen = ["192.0.2.2"]"#
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = load(Path::new("/nowhere/east.toml")).unwrap_err();
    assert_eq!(error.to_string(), "/nowhere/east.toml: cannot be read: No such file or directory (os error 2)");
    let error = load(Path::new("/dev/zero")).unwrap_err();
    assert_eq!(error.to_string(), "/dev/zero: cannot be read: it is larger than 64 MiB; is it the right file?");
}

#[test]
fn a_file_that_is_not_text_is_told_where() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("east.toml");
    fs::write(&file, [EXAMPLE.as_bytes(), b"# \xc3\xa4\xff"].concat()).unwrap();
    let error = load(&file).unwrap_err();
    let line = EXAMPLE.lines().count() + 1;
    let message = "byte 0xff is not UTF-8; save the file as UTF-8 text";
    assert_eq!(error.to_string(), format!("{}:{line}:4: {message}", file.display()));
}

#[test]
fn a_mistyped_key_is_recognised() {
    check(&[
        (
            r#"site = "east""#,
            "site = \"east\"\nstat = \"/var\"",
            r#"east.toml:3:1: agent.stat: no such key; did you mean "state"?"#,
        ),
        (
            "tcp = true",
            "tcp = true\nintervall = \"1s\"",
            r#"east.toml:46:1: resources.orders.probe.intervall: no such key; did you mean "interval"?"#,
        ),
        ("interfaces", "interface", r#"east.toml:23:1: dataplane.interface: no such key; did you mean "interfaces"?"#),
        (
            "[resources.orders.probe]",
            "[resources.orders.prob]",
            "east.toml:41:1: resources.orders: no section [resources.orders.probe]; say what to try: tcp = true, or url = \"http://HOST/PATH\"\neast.toml:44:19: resources.orders.prob: no such key; did you mean \"probe\"?",
        ),
        ("[dataplane]", "[dataplan]", r#"east.toml:22:2: dataplan: no such key; did you mean "dataplane"?"#),
        (
            "tcp = true",
            "tcp = true\nzebra = 1",
            "east.toml:46:1: resources.orders.probe.zebra: no such key; known here: tcp, url, status, keyword, verify, interval, timeout, rise, fall",
        ),
    ]);
}

#[test]
fn what_must_be_said_is_asked_for() {
    check(&[
        (r#"site = "east""#, "", r#"east.toml:1:1: agent.site: missing; name this site, one of "east", "west""#),
        (
            r#"key = "east.pem""#,
            "",
            r#"east.toml:12:1: link.key: missing; write key = "FILE.pem", the file that siteswap keygen wrote"#,
        ),
        (
            "[link]\nkey = \"east.pem\"\n",
            "",
            r#"east.toml:1:1: no section [link]; name the key of this site: key = "east.pem""#,
        ),
        (
            "[resources.orders.probe]\ntcp = true\n",
            "",
            r#"east.toml:41:1: resources.orders: no section [resources.orders.probe]; say what to try: tcp = true, or url = "http://HOST/PATH""#,
        ),
        (
            "tcp = true",
            "rise = 2",
            r#"east.toml:44:1: resources.orders.probe: does not say what to try; write tcp = true or url = "http://HOST/PATH""#,
        ),
        (
            "tcp = true",
            "tcp = false",
            r#"east.toml:44:1: resources.orders.probe: does not say what to try; write tcp = true or url = "http://HOST/PATH""#,
        ),
        (
            "link = \"10.255.0.2:7400\"\n",
            "",
            r#"east.toml:8:1: sites.west.link: missing; write link = "ADDRESS:PORT" of its agent"#,
        ),
        (
            r#"listen = ["192.0.2.2", "2001:db8:1::2"]"#,
            "listen = []",
            r#"east.toml:16:10: dns.listen: empty; write listen = ["ADDRESS"] with the addresses queries arrive at"#,
        ),
        (
            "role = \"standby\"\n",
            "",
            r#"east.toml:52:1: resources.orders.sites.west.role: missing; write role = "active", "standby" or "disabled""#,
        ),
        (
            "backends = [\"10.1.0.21:7001\"]\n",
            "",
            r#"east.toml:47:1: resources.orders.sites.east.backends: missing; write backends = ["ADDRESS:PORT"], what serves it at this site"#,
        ),
        (
            "addresses = [\"192.0.2.81\"]\n",
            "",
            r#"east.toml:47:1: resources.orders.sites.east.addresses: missing; write addresses = ["ADDRESS"], what its domains are answered with and its ports are at"#,
        ),
    ]);
}

#[test]
fn a_value_of_another_kind_or_out_of_bounds_is_refused() {
    check(&[
        (r#"site = "east""#, "site = 7", "east.toml:2:8: agent.site: found the number 7, expected a string"),
        (
            "[agent]\nsite = \"east\"",
            r#"agent = "east""#,
            r#"east.toml:1:9: agent: found the string "east", expected a section [agent]"#,
        ),
        (
            r#"key = "east.pem""#,
            "key = \"east.pem\"\nperiod = \"500\"",
            r#"east.toml:14:10: link.period: "500" is not a duration; write a whole number and its unit, like "500ms", "2s" or "1m""#,
        ),
        (
            r#"key = "east.pem""#,
            "key = \"east.pem\"\nperiod = 500",
            r#"east.toml:14:10: link.period: found the number 500; write a whole number and its unit, like "500ms", "2s" or "1m""#,
        ),
        (
            r#"key = "east.pem""#,
            "key = \"east.pem\"\nperiod = \"5m\"",
            r#"east.toml:14:10: link.period: "5m" is out of bounds; at least 10ms and at most 1m"#,
        ),
        (
            r#"key = "east.pem""#,
            "key = \"east.pem\"\nperiods = 0",
            "east.toml:14:11: link.periods: found the number 0, expected a whole number from 1 to 100",
        ),
        (
            r#"interfaces = ["wan0"]"#,
            r#"lease = "500ms""#,
            r#"east.toml:23:9: dataplane.lease: "500ms" is out of bounds; at least 1s and at most 1h"#,
        ),
        (
            r#"interfaces = ["wan0"]"#,
            "flows = 100",
            "east.toml:23:9: dataplane.flows: found the number 100, expected a whole number from 8192 to 16777216",
        ),
        (
            r#"interfaces = ["wan0"]"#,
            r#"mode = "navite""#,
            r#"east.toml:23:8: dataplane.mode: "navite" is none of "auto", "native", "generic"; did you mean "native"?"#,
        ),
        (
            r#"interfaces = ["wan0"]"#,
            r#"interfaces = "wan0""#,
            r#"east.toml:23:14: dataplane.interfaces: found the string "wan0", expected a list, in [ ]"#,
        ),
        (
            r#"interfaces = ["wan0"]"#,
            r#"interfaces = ["averyveryverylongname"]"#,
            r#"east.toml:23:15: dataplane.interfaces: "averyveryverylongname" is longer than 15 bytes, which no interface's name is"#,
        ),
        (
            r#"interfaces = ["wan0"]"#,
            r#"interfaces = ["wan0", "wan0"]"#,
            r#"east.toml:23:23: dataplane.interfaces: "wan0" is given twice; keep one of them"#,
        ),
        (
            r#"domains = ["orders.shop.test"]"#,
            "ttl = 2147483648",
            "east.toml:42:7: resources.orders.ttl: found the number 2147483648, expected a whole number from 0 to 2147483647",
        ),
        (
            "tcp = true",
            "tcp = true\nrise = 0",
            "east.toml:46:8: resources.orders.probe.rise: found the number 0, expected a whole number from 1 to 100",
        ),
        (
            "tcp = true",
            "tcp = true\nfall = -1",
            "east.toml:46:8: resources.orders.probe.fall: found the number -1, expected a whole number from 1 to 100",
        ),
        (
            "tcp = true",
            "tcp = true\ninterval = \"1s\"\ntimeout = \"2s\"",
            "east.toml:47:11: resources.orders.probe.timeout: longer than the interval; a try must end before the next begins",
        ),
        (r#"file = "shop.test.zone""#, r#"file = """#, "east.toml:20:8: dns.zone.file: empty; name a file"),
        ("[[dns.zone]]", "[dns.zone]", "east.toml:18:1: dns.zone: found a table, expected sections [[dns.zone]]"),
    ]);
}

#[test]
fn sites_differ_and_exist() {
    check(&[
        (
            r#"site = "east""#,
            r#"site = "eest""#,
            r#"east.toml:2:8: agent.site: "eest" is none of the sites ("east", "west"); did you mean "east"?"#,
        ),
        (
            r#""10.255.0.2:7400""#,
            r#""10.255.0.1:7400""#,
            r#"east.toml:9:8: sites.west.link: "10.255.0.1:7400" is the link of "east" already; each site has its own"#,
        ),
        (
            "link = \"10.255.0.2:7400\"",
            "link = \"10.255.0.2:7400\"\ntunnel = \"10.255.0.2:7400\"",
            r#"east.toml:10:10: sites.west.tunnel: "10.255.0.2:7400" is the site's link; give the tunnel a port of its own"#,
        ),
        (
            r#""sha256:2222222222222222222222222222222222222222222222222222222222222222""#,
            r#""sha256:1111111111111111111111111111111111111111111111111111111111111111""#,
            r#"east.toml:10:15: sites.west.fingerprint: this is the key of "east" already; each site has its own"#,
        ),
        (
            r#""sha256:2222222222222222222222222222222222222222222222222222222222222222""#,
            r#""sha256:22""#,
            r#"east.toml:10:15: sites.west.fingerprint: "sha256:22" is not a fingerprint; write "sha256:" and 64 hexadecimal digits, as siteswap keygen prints them"#,
        ),
        (
            "[resources.orders.sites.west]",
            "[resources.orders.sites.wets]",
            r#"east.toml:52:25: resources.orders.sites: "wets" is none of the sites ("east", "west"); did you mean "west"?"#,
        ),
        (
            "[resources.orders]",
            "[resources.Orders]",
            "east.toml:41:1: resources.Orders: no section [resources.Orders.probe]; say what to try: tcp = true, or url = \"http://HOST/PATH\"\neast.toml:41:1: resources.Orders: no section [resources.Orders.sites]; describe each instance in a section of its own\neast.toml:41:12: resources: \"Orders\" cannot be a name; use 1 to 32 of a-z, 0-9 and \"-\", not starting with \"-\"",
        ),
        (
            "[resources.orders]\n",
            "[resources.orders]\norder = [\"east\"]\n",
            r#"east.toml:42:9: resources.orders.order: must hold each site of the resource's instances once: "east", "west""#,
        ),
        (
            "[resources.orders]\n",
            "[resources.orders]\norder = [\"east\", \"east\"]\n",
            r#"east.toml:42:9: resources.orders.order: must hold each site of the resource's instances once: "east", "west""#,
        ),
        (
            "[resources.orders]\n",
            "[resources.orders]\norder = [\"east\", \"wesst\"]\n",
            r#"east.toml:42:9: resources.orders.order: "wesst" is none of the sites ("east", "west"); did you mean "west"?"#,
        ),
    ]);
}

#[test]
fn what_is_not_toml_is_shown_where() {
    check(&[
        (r#"site = "east""#, r#"site = "east"#, r#"east.toml:2:13: not TOML: invalid basic string, expected `"`"#),
        (
            r#"site = "east""#,
            "site = \"east\"\nsite = \"west\"",
            "east.toml:3:1: site is already given above; keep one of them",
        ),
        (
            r#"site = "east""#,
            "site = east",
            "east.toml:2:8: not TOML: string values must be quoted, expected literal string",
        ),
        ("[link]", "[link", "east.toml:12:6: not TOML: unclosed table, expected `]`"),
        ("[link]", "[agent]", "east.toml:12:2: agent is already given above; keep one of them"),
    ]);
}
