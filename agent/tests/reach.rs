//! What counts as a peer's public address not answering: real routes, routers and firewalls in network namespaces. Needs
//! root.

mod hosts;

use std::{net::TcpListener, path::Path, time::Duration};

use hosts::{Host, enter_new, ip, run};
use siteswap::{
    config::{self, Config},
    probe::Reach,
};
use tokio::time::{sleep, timeout};

/// Longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(40);

/// Many more rounds than are needed.
const ROUNDS: Duration = Duration::from_millis(500);

const CONFIG: &str = r#"
[agent]
site = "west"
[sites.east]
link = "10.255.0.1:7400"
tunnel = "10.255.0.1:7401"
fingerprint = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
[sites.west]
link = "10.255.0.2:7400"
tunnel = "10.255.0.2:7401"
fingerprint = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
[link]
key = "west.pem"
[dns]
listen = ["198.51.100.2"]
[resources.orders]
ports = ["tcp/7001"]
probe = { tcp = true, interval = "10ms", fall = 3 }
[resources.orders.sites.east]
role = "active"
addresses = ["192.0.2.81", "2001:db8::81"]
[resources.orders.sites.west]
role = "standby"
addresses = ["198.51.100.81"]
backends = ["10.2.0.21:7001"]
"#;

/// This thread's namespace is the site west, whose way out is `wan0` to a router. The site east, as far as there is one, is behind that.
struct West {
    router: Host,
    config: Config,
    reach: Reach,
}

impl West {
    fn new() -> Self {
        enter_new();
        let router = Host::new();
        router.connect("wan0", "eth0");
        ip("addr add 198.51.100.2/24 dev wan0");
        router.ip("addr add 198.51.100.1/24 dev eth0");
        router.set("net/ipv4/ip_forward", "1");
        let config = config::parse(CONFIG, Path::new("/etc/siteswap/west.toml")).unwrap();
        let mut reach = Reach::default();
        reach.watch(&config, ["east"].into_iter());
        Self { router, config, reach }
    }

    /// Waits until what is believed changes: what was tried in vain.
    async fn change(&self) -> Option<String> {
        timeout(DEADLINE, self.reach.changed()).await.expect("something changes");
        self.lost()
    }

    fn lost(&self) -> Option<String> {
        self.reach.lost().remove("east")?.remove("orders")
    }
}

fn lost() -> Option<String> {
    Some("nothing answers at 192.0.2.81:7001".to_owned())
}

#[tokio::test]
async fn a_peer_is_not_lost_because_this_host_has_no_route_or_one_that_forbids_it() {
    let west = West::new();
    sleep(ROUNDS).await;
    assert_eq!(west.lost(), None, "no route");
    for forbids in ["unreachable", "blackhole", "prohibit"] {
        ip(&format!("route replace {forbids} 192.0.2.81"));
        sleep(ROUNDS).await;
        assert_eq!(west.lost(), None, "{forbids}");
    }
    // There is no IPv6 here at all.
    west.router.ip("addr add 192.0.2.81/32 dev lo");
    ip("route replace 192.0.2.81 via 198.51.100.1");
    assert_eq!(west.change().await, lost(), "it refuses");
    ip("route replace unreachable 192.0.2.81");
    assert_eq!(west.change().await, None, "what was believed is old");
}

#[tokio::test]
async fn a_router_that_says_a_peer_is_unreachable_and_silence_count() {
    let mut west = West::new();
    west.router.ip("route add unreachable 192.0.2.81");
    ip("route add default via 198.51.100.1");
    assert_eq!(west.change().await, lost());
    west.router.ip("route del unreachable 192.0.2.81");
    west.router.ip("addr add 192.0.2.81/32 dev lo");
    let _east = west.router.run(|| TcpListener::bind("192.0.2.81:7001").unwrap());
    assert_eq!(west.change().await, None);
    west.router.run(|| {
        run("nft", &["add table ip t; add chain ip t in { type filter hook input priority 0; }"]);
        run("nft", &["add rule ip t in tcp dport 7001 drop"]);
    });
    assert_eq!(west.change().await, lost());
    west.reach.watch(&west.config, std::iter::empty());
    assert_eq!(west.lost(), None);
}
