//! The words of the errors about resources: their domains, addresses, roles and probes.

use super::errors::check;

#[test]
fn an_address_is_one_that_a_host_can_have() {
    check(&[
        (
            r#""192.0.2.81""#,
            r#""192.0.2.81/24""#,
            r#"east.toml:49:14: resources.orders.sites.east.addresses: "192.0.2.81/24" is not an IP address; write it like "192.0.2.80" or "2001:db8::80", without port or prefix length"#,
        ),
        (
            r#""192.0.2.81""#,
            r#""0.0.0.0""#,
            r#"east.toml:49:14: resources.orders.sites.east.addresses: "0.0.0.0" cannot be used: it stands for any address; name the one that is meant"#,
        ),
        (
            r#""192.0.2.81""#,
            r#""::ffff:192.0.2.81""#,
            r#"east.toml:49:14: resources.orders.sites.east.addresses: "::ffff:192.0.2.81" cannot be used: it is an IPv4 address mapped to IPv6; write the IPv4 address"#,
        ),
        (
            r#""192.0.2.81""#,
            r#""224.0.0.1""#,
            r#"east.toml:49:14: resources.orders.sites.east.addresses: "224.0.0.1" cannot be used: it is a multicast address"#,
        ),
        (
            r#""10.1.0.21:7001""#,
            r#""10.1.0.21""#,
            r#"east.toml:50:13: resources.orders.sites.east.backends: "10.1.0.21" is not an address and a port; write it like "192.0.2.1:80" or "[2001:db8::1]:80""#,
        ),
        (
            r#""10.1.0.21:7001""#,
            r#""10.1.0.21:0""#,
            r#"east.toml:50:13: resources.orders.sites.east.backends: "10.1.0.21:0" has port 0; give the real port"#,
        ),
        (
            r#""10.1.0.21:7001""#,
            r#""10.1.0.21:7001", "10.1.0.21:7001""#,
            r#"east.toml:50:31: resources.orders.sites.east.backends: "10.1.0.21:7001" is given twice; keep one of them"#,
        ),
        (
            r#""10.255.0.2:7400""#,
            r#""0.0.0.0:7400""#,
            r#"east.toml:9:8: sites.west.link: "0.0.0.0:7400" cannot be connected to: it stands for any address; name the one that is meant"#,
        ),
    ]);
}

#[test]
fn domains_lie_in_a_zone_and_belong_to_one_resource() {
    check(&[
        (
            r#""orders.shop.test""#,
            r#""orders.shop.example""#,
            r#"east.toml:42:12: resources.orders.domains: "orders.shop.example" lies in none of the zones ("shop.test"); add a [[dns.zone]] that holds it"#,
        ),
        (
            r#""orders.shop.test""#,
            r#""WWW.shop.test""#,
            r#"east.toml:42:12: resources.orders.domains: "www.shop.test" belongs to the resource "www" already"#,
        ),
        (
            r#""orders.shop.test""#,
            r#""orders.shop.test", "orders.shop.test.""#,
            r#"east.toml:42:32: resources.orders.domains: "orders.shop.test" is given twice; keep one of them"#,
        ),
        (
            r#""orders.shop.test""#,
            r#""*.shop.test""#,
            r#"east.toml:42:12: resources.orders.domains: "*.shop.test" is a wildcard; name each domain"#,
        ),
        (
            r#""orders.shop.test""#,
            r#""orders..test""#,
            r#"east.toml:42:12: resources.orders.domains: "orders..test" is not a domain name; each part between dots has 1 to 63 letters, digits, "-" or "_""#,
        ),
        (
            r#""orders.shop.test""#,
            r#""börse.test""#,
            r#"east.toml:42:12: resources.orders.domains: "börse.test" is not ASCII; write the name in its "xn--" form"#,
        ),
        (
            "[dataplane]",
            "[[dns.zone]]\nname = \"shop.test.\"\nfile = \"b\"\n[dataplane]",
            "east.toml:23:8: dns.zone.name: this zone is given already; keep one of them",
        ),
    ]);
}

#[test]
fn addresses_belong_to_one_instance_and_fit_an_answer() {
    check(&[
        (
            r#""198.51.100.81""#,
            r#""198.51.100.80""#,
            r#"east.toml:54:14: resources.orders.sites.west.addresses: "198.51.100.80" belongs to the resource "www" already"#,
        ),
        (
            r#""198.51.100.81""#,
            r#""192.0.2.81""#,
            r#"east.toml:54:14: resources.orders.sites.west.addresses: "192.0.2.81" is given twice; keep one of them"#,
        ),
        (
            r#""198.51.100.81""#,
            r#""198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4", "198.51.100.5", "198.51.100.6", "198.51.100.7", "198.51.100.8""#,
            "east.toml:54:126: resources.orders.sites: 9 IPv4 addresses; at most 8 are possible",
        ),
        (
            r#""2001:db8:1::2""#,
            r#""192.0.2.101", "192.0.2.102", "192.0.2.103", "192.0.2.104", "192.0.2.105", "192.0.2.106", "192.0.2.107", "192.0.2.108""#,
            "east.toml:16:10: dns.listen: 9 IPv4 addresses; at most 8 are possible",
        ),
        (
            "[resources.orders]\n",
            "[resources.orders]\nall_down = { fallback = [] }\n",
            r#"east.toml:42:25: resources.orders.all_down.fallback: empty; list the addresses to give: fallback = ["192.0.2.99"]"#,
        ),
        (
            "[resources.orders]\n",
            "[resources.orders]\nall_down = { fallbak = [\"192.0.2.9\"] }\n",
            "east.toml:42:12: resources.orders.all_down.fallback: missing; list the addresses to give: fallback = [\"192.0.2.99\"]\neast.toml:42:14: resources.orders.all_down.fallbak: no such key; did you mean \"fallback\"?",
        ),
        (
            "[resources.orders]\n",
            "[resources.orders]\nall_down = \"none\"\n",
            r#"east.toml:42:12: resources.orders.all_down: "none" is none of "all", "nodata", "servfail"; or { fallback = ["ADDRESS"] }"#,
        ),
        (
            "[resources.orders]\n",
            "[resources.orders]\nall_down = false\n",
            r#"east.toml:42:12: resources.orders.all_down: found false, expected a string; or { fallback = ["ADDRESS"] }"#,
        ),
    ]);
}

#[test]
fn roles_make_sense_together() {
    check(&[
        (
            "role = \"active\"\naddresses = [\"192.0.2.81\"]",
            "role = \"standby\"\naddresses = [\"192.0.2.81\"]",
            "east.toml:47:1: resources.orders.sites.east: standby, but no instance of the resource is active; make one active\neast.toml:52:1: resources.orders.sites.west: standby, but no instance of the resource is active; make one active",
        ),
        (
            r#""standby""#,
            r#""passive""#,
            r#"east.toml:53:8: resources.orders.sites.west.role: "passive" is none of "active", "standby", "disabled""#,
        ),
    ]);
}

#[test]
fn a_probe_tries_one_thing() {
    check(&[
        (
            "tcp = true",
            "tcp = true\nurl = \"http://a/\"",
            "east.toml:45:7: resources.orders.probe.tcp: tcp and url exclude each other; keep one of them",
        ),
        (
            "tcp = true",
            "tcp = true\nkeyword = \"a\"",
            "east.toml:46:11: resources.orders.probe.keyword: a TCP probe fetches no page; remove it, or write url instead of tcp",
        ),
        (
            r#""http://www.shop.test/""#,
            r#""www.shop.test""#,
            r#"east.toml:29:7: resources.www.probe.url: "www.shop.test" is not a URL; write it like "http://www.shop.test/page""#,
        ),
        (
            r#""http://www.shop.test/""#,
            r#""ftp://www.shop.test""#,
            r#"east.toml:29:7: resources.www.probe.url: "ftp://www.shop.test" is neither http nor https"#,
        ),
        (
            r#""http://www.shop.test/""#,
            r#""http://u:p@www.shop.test/""#,
            r#"east.toml:29:7: resources.www.probe.url: "http://u:p@www.shop.test/" holds a user's name, which probes do not send; remove it"#,
        ),
        (
            r#""http://www.shop.test/""#,
            r#""http://www.shop.test/#a""#,
            r#"east.toml:29:7: resources.www.probe.url: "http://www.shop.test/#a" holds a fragment, which is never sent; remove it"#,
        ),
        (
            r#""http://www.shop.test/""#,
            r#""http://www.shop.test:99999/""#,
            r#"east.toml:29:7: resources.www.probe.url: "http://www.shop.test:99999/" is not a URL; write it like "http://www.shop.test/page""#,
        ),
        (
            r#""http://www.shop.test/""#,
            r#""http:///a""#,
            r#"east.toml:29:7: resources.www.probe.url: "http:///a" is not a URL; write it like "http://www.shop.test/page""#,
        ),
        (
            r#""http://www.shop.test/""#,
            r#""http://a b/""#,
            r#"east.toml:29:7: resources.www.probe.url: "http://a b/" is not a URL; write it like "http://www.shop.test/page""#,
        ),
        (
            r#""http://www.shop.test/""#,
            r#""https://-/""#,
            r#"east.toml:29:7: resources.www.probe.url: "https://-/" names no host that a certificate could be for"#,
        ),
        (
            r#"keyword = "db-{site}""#,
            r#"verify = "none""#,
            r#"east.toml:30:10: resources.www.probe.verify: only a https page has a certificate; remove it, or write url = "https://…""#,
        ),
        (
            r#"keyword = "db-{site}""#,
            r#"keyword = """#,
            "east.toml:30:11: resources.www.probe.keyword: empty, which every page contains; write a word of the page",
        ),
        (
            r#"keyword = "db-{site}""#,
            "status = 99",
            "east.toml:30:10: resources.www.probe.status: found the number 99, expected a whole number from 200 to 599",
        ),
        (
            r#"keyword = "db-{site}""#,
            "status = []",
            "east.toml:30:10: resources.www.probe.status: empty; write the status codes that are right, like [200, 204]",
        ),
        (
            r#"keyword = "db-{site}""#,
            r#"status = "200""#,
            r#"east.toml:30:10: resources.www.probe.status: found the string "200", expected a status code like 200, or a list of them"#,
        ),
    ]);
}

#[test]
fn ports_weights_and_tunnels() {
    check(&[
        (
            r#"domains = ["orders.shop.test"]"#,
            r#"ports = ["tcp/0"]"#,
            r#"east.toml:42:10: resources.orders.ports: "tcp/0" is not a port; write it like "tcp/443", "udp/53" or, for every port, "tcp/any""#,
        ),
        (
            r#"domains = ["orders.shop.test"]"#,
            r#"ports = ["sctp/80"]"#,
            r#"east.toml:42:10: resources.orders.ports: "sctp/80" is not a port; write it like "tcp/443", "udp/53" or, for every port, "tcp/any""#,
        ),
        (
            r#""10.1.0.21:7001""#,
            r#"{ address = "10.1.0.21:7001", weight = 0 }"#,
            r#"east.toml:50:12: resources.orders.sites.east.backends: every weight is 0; give one backend a weight"#,
        ),
        (
            r#""10.1.0.21:7001""#,
            r#"{ adress = "10.1.0.21:7001" }"#,
            r#"east.toml:50:13: resources.orders.sites.east.backends: no such key "adress"; write it like { address = "192.0.2.1:80", weight = 2 }"#,
        ),
        (
            r#"link = "10.255.0.2:7400""#,
            "link = \"10.255.0.2:7400\"\ntunnel = \"[fd00::2]:7401\"",
            r#"east.toml:10:10: sites.west.tunnel: "[fd00::2]:7401" is IPv6; the tunnel runs over IPv4, whatever it carries"#,
        ),
        (
            "[link]",
            "[sites.a]\nlink = \"10.255.0.3:7400\"\ntunnel = \"10.255.0.2:1\"\nfingerprint = \"sha256:3333333333333333333333333333333333333333333333333333333333333333\"\n[sites.b]\nlink = \"10.255.0.4:7400\"\ntunnel = \"10.255.0.2:2\"\nfingerprint = \"sha256:4444444444444444444444444444444444444444444444444444444444444444\"\n[link]",
            r#"east.toml:18:10: sites.b.tunnel: "10.255.0.2" is the tunnel of "a" already; each site has its own"#,
        ),
    ]);
}

#[test]
fn a_resource_that_is_forwarded_needs_tunnels() {
    check(&[(
        r#"domains = ["orders.shop.test"]"#,
        r#"ports = ["tcp/7001"]"#,
        "east.toml:47:1: resources.orders.sites.east: its requests are forwarded between sites, but [sites.east] has no tunnel; give it tunnel = \"ADDRESS:PORT\"\n\
         east.toml:52:1: resources.orders.sites.west: its requests are forwarded between sites, but [sites.west] has no tunnel; give it tunnel = \"ADDRESS:PORT\"",
    )]);
}
