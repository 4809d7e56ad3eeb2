//! What a file means. What is said about a wrong one is in `errors` and `resource_errors`, and what bad input cannot do in `hostile`.

mod database;
mod errors;
mod hostile;
mod resource_errors;

use std::{fs, path::Path, time::Duration};

use super::*;

/// Two sites, everything else at its default.
const EXAMPLE: &str = include_str!("example.toml");

/// `EXAMPLE` with `from`, which stands in it once, replaced by `to`.
fn with(from: &str, to: &str) -> String {
    assert_eq!(EXAMPLE.matches(from).count(), 1, "{from:?}");
    EXAMPLE.replace(from, to)
}

fn read(text: &str) -> Config {
    parse(text, Path::new("/etc/siteswap/east.toml")).unwrap_or_else(|error| panic!("{error}"))
}

fn name(text: &str) -> hickory_proto::rr::LowerName {
    hickory_proto::rr::Name::from_ascii(text).unwrap().into()
}

#[test]
fn what_is_not_given_has_its_default() {
    let config = read(EXAMPLE);
    assert_eq!(config.file, Path::new("/etc/siteswap/east.toml"));
    assert_eq!(config.site, "east");
    assert_eq!(config.state, Path::new("/var/lib/siteswap"));
    assert_eq!(config.control, Path::new("/run/siteswap/control.sock"));
    assert_eq!(
        config.link,
        Link {
            listen: "10.255.0.1:7400".parse().unwrap(),
            key: "/etc/siteswap/east.pem".into(),
            period: Duration::from_millis(500),
            periods: 3,
        }
    );
    assert_eq!(config.dns.port, 53);
    assert_eq!(config.dns.zones[0].name, name("shop.test."));
    assert_eq!(config.dns.zones[0].file, Path::new("/etc/siteswap/shop.test.zone"));
    assert_eq!(
        config.dataplane,
        Dataplane {
            interfaces: vec!["wan0".to_owned()],
            mode: Mode::Auto,
            pins: "/sys/fs/bpf/siteswap".into(),
            lease: Duration::from_secs(5),
            flows: 131_072,
        }
    );
    assert_eq!(config.database, None);
    let orders = &config.resources["orders"];
    assert_eq!((&orders.tables[..], orders.standby_writes), (&[][..], StandbyWrites::Allow));
    assert_eq!(orders.domains, [name("orders.shop.test.")]);
    assert_eq!(orders.ttl, 5);
    assert_eq!(orders.order, ["east", "west"]);
    assert_eq!(orders.all_down, AllDown::All);
    assert_eq!(orders.takeover, Takeover::Confirmed);
    assert_eq!((orders.failback, orders.failback_after), (Failback::Manual, Duration::from_secs(60)));
    assert_eq!(orders.drain_time, Duration::from_secs(60));
    assert_eq!(
        orders.probe,
        Probe {
            check: Check::Tcp,
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            rise: 2,
            fall: 3,
        }
    );
    assert_eq!(orders.instances["west"].role, Role::Standby);
    assert!(orders.instances["west"].backends.is_empty());
}

#[test]
fn a_page_is_expected_with_status_200_and_this_sites_keyword() {
    let config = read(EXAMPLE);
    let page = HttpCheck {
        tls: None,
        host: "www.shop.test".to_owned(),
        path: "/".to_owned(),
        status: vec![200],
        keyword: Some("db-east".to_owned()),
    };
    assert_eq!(config.resources["www"].probe.check, Check::Http(page));
}

#[test]
fn a_url_gives_the_host_header_and_the_path() {
    for (url, host, path) in [
        ("http://www.shop.test", "www.shop.test", "/"),
        ("http://www.shop.test:8080/a/b?c=d", "www.shop.test:8080", "/a/b?c=d"),
        ("http://www.shop.test?c=d", "www.shop.test", "/?c=d"),
        ("https://[2001:db8::1]/", "[2001:db8::1]", "/"),
    ] {
        let config = read(&with("http://www.shop.test/", url));
        let Check::Http(page) = &config.resources["www"].probe.check else {
            panic!("no page");
        };
        assert_eq!((&*page.host, &*page.path), (host, path), "{url}");
    }
}

#[test]
fn everything_can_be_said() {
    let text = with("site = \"east\"", "site = \"east\"\nstate = \"s\"\ncontrol = \"/c\"")
        .replace("key = \"east.pem\"", "key = \"/k\"\nlisten = \"[::]:7400\"\nperiod = \"1s\"\nperiods = 5")
        .replace("[[dns.zone]]", "port = 5353\n[[dns.zone]]")
        .replace("[\"wan0\"]", "[]\nmode = \"generic\"\npins = \"/p\"\nlease = \"1m\"\nflows = 1_000_000")
        .replace(
            "\"www.shop.test\"]",
            "\"WWW.shop.test.\", \"shop.test\"]\nttl = 2147483647\norder = [\"west\", \"east\"]\nall_down = \"servfail\"\ntakeover = \"silence\"\nfailback = \"auto\"\nfailback_after = \"0s\"\ndrain_time = \"5m\"",
        )
        .replace(
            "\"http://www.shop.test/\"",
            "\"https://www.shop.test:8443/a?b=c\"\nverify = \"ca.pem\"\nstatus = [200, 204]\ninterval = \"2s\"\ntimeout = \"2s\"\nrise = 1\nfall = 1",
        )
        .replace("\"orders.shop.test\"]", "]\nall_down = { fallback = [\"192.0.2.99\"] }");
    let config = read(&text);
    assert_eq!(config.state, Path::new("/etc/siteswap/s"));
    assert_eq!(config.control, Path::new("/c"));
    assert_eq!(config.link.listen, "[::]:7400".parse().unwrap());
    assert_eq!((config.link.period, config.link.periods), (Duration::from_secs(1), 5));
    assert_eq!(config.dns.port, 5353);
    assert_eq!(config.dataplane.mode, Mode::Generic);
    assert_eq!(config.dataplane.lease, Duration::from_secs(60));
    assert_eq!(config.dataplane.flows, 1 << 20);
    let www = &config.resources["www"];
    assert_eq!(www.domains, [name("www.shop.test."), name("shop.test.")]);
    assert_eq!(www.ttl, (1 << 31) - 1);
    assert_eq!(www.order, ["west", "east"]);
    assert_eq!((&www.all_down, www.takeover), (&AllDown::ServFail, Takeover::Silence));
    assert_eq!((www.failback, www.failback_after), (Failback::Auto, Duration::ZERO));
    assert_eq!(www.drain_time, Duration::from_secs(300));
    let Check::Http(page) = &www.probe.check else {
        panic!("{:?}", www.probe.check);
    };
    assert_eq!(page.tls, Some(Tls::Roots("/etc/siteswap/ca.pem".into())));
    assert_eq!((&*page.host, &*page.path), ("www.shop.test:8443", "/a?b=c"));
    assert_eq!(page.status, [200, 204]);
    let fallback = vec!["192.0.2.99".parse().unwrap()];
    assert_eq!(config.resources["orders"].all_down, AllDown::Fallback(fallback));
}

#[test]
fn a_short_interval_shortens_the_default_timeout() {
    let config = read(&with("tcp = true", "tcp = true\ninterval = \"100ms\""));
    assert_eq!(config.resources["orders"].probe.timeout, Duration::from_millis(100));
}

#[test]
fn certificates_are_judged_by_the_systems_roots_unless_told_otherwise() {
    for (verify, tls) in
        [("", Tls::System), ("verify = \"system\"", Tls::System), ("verify = \"none\"", Tls::Unverified)]
    {
        let url = format!("url = \"https://www.shop.test/\"\n{verify}");
        let config = read(&with("url = \"http://www.shop.test/\"", &url));
        let Check::Http(page) = &config.resources["www"].probe.check else {
            panic!("no page");
        };
        assert_eq!(page.tls, Some(tls));
    }
}

#[test]
fn one_site_alone_and_a_disabled_instance_without_backends_are_fine() {
    let config = read(
        "agent = { site = 'a' }\nlink.key = 'k'\ndns.listen = ['127.0.0.1']\n\
         sites.a = { link = '127.0.0.1:1', fingerprint = 'sha256:1111111111111111111111111111111111111111111111111111111111111111' }\n\
         resources.r = { probe.tcp = true, sites.a.role = 'disabled' }",
    );
    assert_eq!(config.resources["r"].instances["a"].role, Role::Disabled);
    assert_eq!(config.dataplane.interfaces, [""; 0]);
}

#[test]
fn a_file_is_loaded_relative_to_its_own_directory() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("east.toml");
    fs::write(&file, EXAMPLE).unwrap();
    let config = load(&file).unwrap();
    assert_eq!(config.link.key, directory.path().join("east.pem"));
    assert_eq!(config, parse(EXAMPLE, &file).unwrap());
}

#[test]
fn the_references_example_shows_the_defaults() {
    let reference = include_str!("../../../../docs/configuration.md");
    let example = reference.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let shown = example.lines().map(|line| match line.strip_prefix("# ") {
        Some(default) => default,
        None => line,
    });
    let spelled_out: Vec<&str> = shown.collect();
    let spelled_out = spelled_out.join("\n");
    assert_ne!(spelled_out, example);
    assert_eq!(read(&spelled_out), read(example));
}

#[test]
fn the_references_errors_are_what_is_said() {
    let reference = include_str!("../../../../docs/configuration.md");
    let errors = reference.split("```text\n").nth(1).unwrap().split("\n```").next().unwrap();
    let text =
        with("key =", "kee =").replace("\"www.shop.test\"", "\"www.shop.tset\"").replace("\"standby\"", "\"passive\"");
    let said = parse(&text, Path::new("east.toml")).unwrap_err();
    assert_eq!(said.to_string(), errors);
}
