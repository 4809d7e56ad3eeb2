//! `siteswap doctor` on real hosts: interfaces, settings, neighbours, programs and agents in network namespaces. Needs
//! root.

mod hosts;

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    programs::{Xdp, XdpMode},
};
use hosts::{Host, enter_new, ip, run, set};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, gettid},
};
use serde_json::Value;
use siteswap::dataplane::OBJECT;

const SITESWAP: &str = env!("CARGO_BIN_EXE_siteswap");

/// The way to the public addresses of the site west.
const TO_WEST: &str = "route add 198.51.100.0/24 via 192.0.2.1";

/// An edge of the site east, with what it is connected to.
struct Edge {
    /// At 10.1.0.11 on `lan0`.
    backend: Host,
    /// The edge of the site west, at 10.255.0.2 on `link0`.
    peer: Host,
    /// On `wan0`.
    router: Host,
    directory: tempfile::TempDir,
    /// Of both sites' keys.
    fingerprints: [String; 2],
}

impl Edge {
    /// Makes this thread an edge host, with all as it should be but the agents, which do not run.
    fn new() -> Self {
        enter_new();
        let (backend, peer, router) = (Host::new(), Host::new(), Host::new());
        for (host, interface) in [(&backend, "lan0"), (&peer, "link0"), (&router, "wan0")] {
            host.connect(interface, "eth0");
            run("ethtool", &["-K", interface, "tx", "off"]);
            host.run(|| run("ethtool", &["-K", "eth0", "tx", "off"]));
            set(&format!("net/ipv4/conf/{interface}/rp_filter"), if interface == "lan0" { "0" } else { "2" });
        }
        for (interface, address) in [("lan0", "10.1.0.1/24"), ("link0", "10.255.0.1/30"), ("wan0", "192.0.2.2/24")] {
            ip(&format!("addr add {address} dev {interface}"));
        }
        ip("route add unreachable 192.0.2.80");
        ip(TO_WEST);
        backend.ip("addr add 10.1.0.11/24 dev eth0");
        peer.ip("addr add 10.255.0.2/30 dev eth0");
        peer.ip("link set eth0 mtu 1600");
        ip("link set link0 mtu 1600");
        set("net/ipv4/conf/all/rp_filter", "0");
        set("net/ipv4/ip_forward", "1");
        set("net/ipv6/conf/all/forwarding", "1");
        let directory = tempfile::tempdir().unwrap();
        let fingerprints = ["east", "west"].map(|site| key(&directory.path().join(site)));
        let edge = Self { backend, peer, router, directory, fingerprints };
        edge.configure("10.1.0.11");
        edge
    }

    /// Writes the configuration, with this backend.
    fn configure(&self, backend: &str) {
        self.write("east", r#""wan0", "lan0", "link0""#, &pins("east"), backend);
    }

    /// Writes the configuration of `site`.
    fn write(&self, site: &str, interfaces: &str, pins: &Path, backend: &str) {
        let [east, west] = &self.fingerprints;
        let dns = if site == "east" { "192.0.2.2" } else { "198.51.100.2" };
        let pins = pins.display();
        let text = format!(
            r#"
            agent = {{ site = "{site}", state = "{site}", control = "{site}/control" }}
            link = {{ key = "{site}/key.pem" }}
            dns = {{ listen = ["{dns}"] }}
            dataplane = {{ interfaces = [{interfaces}], mode = "auto", pins = "{pins}" }}
            [sites.east]
            link = "10.255.0.1:7400"
            tunnel = "10.255.0.1:7401"
            fingerprint = "{east}"
            [sites.west]
            link = "10.255.0.2:7400"
            tunnel = "10.255.0.2:7401"
            fingerprint = "{west}"
            [resources.www]
            ports = ["tcp/80"]
            probe = {{ tcp = true }}
            [resources.www.sites.east]
            role = "active"
            addresses = ["192.0.2.80", "2001:db8::80"]
            backends = ["{backend}:80"]
            [resources.www.sites.west]
            role = "active"
            addresses = ["198.51.100.80"]
            backends = ["10.2.0.11:80"]
            "#
        );
        fs::write(self.file(site), text).unwrap();
    }

    fn file(&self, site: &str) -> PathBuf {
        self.directory.path().join(format!("{site}.toml"))
    }

    fn doctor(&self) -> Report {
        report(&["--config", self.file("east").to_str().unwrap(), "--json"])
    }

    /// Asks until the doctor says so.
    fn until(&self, so: impl Fn(&Report) -> bool) -> Report {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let report = self.doctor();
            if so(&report) {
                return report;
            }
            assert!(Instant::now() < deadline, "{:#?}", report.findings);
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// A directory of this test's own in the BPF file system.
fn pins(site: &str) -> PathBuf {
    PathBuf::from(format!("/sys/fs/bpf/siteswap-doctor-{site}-{}", gettid()))
}

/// Makes a site's key in a new directory; its fingerprint.
fn key(directory: &Path) -> String {
    fs::create_dir(directory).unwrap();
    run(SITESWAP, &["keygen", "--out", directory.join("key.pem").to_str().unwrap()]).trim().to_owned()
}

/// A running agent; when dropped it takes its program away and ends.
struct Agent(Child);

impl Agent {
    /// In this thread's namespace.
    fn start(file: &Path) -> Self {
        Self(Command::new(SITESWAP).args(["run", "--config"]).arg(file).env("SITESWAP_LOG", "error").spawn().unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id().try_into().unwrap()), Signal::SIGINT);
        let _ = self.0.wait();
    }
}

/// Runs `siteswap doctor` in this thread's namespace.
fn doctor(arguments: &[&str]) -> Output {
    Command::new(SITESWAP).arg("doctor").args(arguments).output().unwrap()
}

/// What it found.
struct Report {
    code: Option<i32>,
    findings: Vec<Value>,
}

fn report(arguments: &[&str]) -> Report {
    let output = doctor(arguments);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    Report { code: output.status.code(), findings: serde_json::from_slice(&output.stdout).unwrap() }
}

impl Report {
    /// What is not as it should be: verdict, check and of what.
    fn wrong(&self) -> Vec<String> {
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
        let line = |finding| ["verdict", "check", "about"].map(|key| text(finding, key)).join(" ");
        self.findings.iter().map(line).filter(|line| !line.starts_with("ok ")).collect()
    }

    /// The same without what follows from there being no agents.
    fn wrong_on_the_host(&self) -> Vec<String> {
        let agents = ["warning program", "problem peer"];
        self.wrong().into_iter().filter(|line| !agents.iter().any(|agent| line.starts_with(agent))).collect()
    }

    /// What is said about one thing.
    fn says(&self, check: &str, about: &str) -> &str {
        let found = self.findings.iter().find(|finding| finding["check"] == check && finding["about"] == about);
        found.unwrap_or_else(|| panic!("{:#?}", self.findings))["says"].as_str().unwrap()
    }

    /// Runs the commands that mend it.
    fn mend(&self) {
        for command in self.findings.iter().filter_map(|finding| finding["mend"].as_str()) {
            if !command.starts_with("systemctl") {
                run("sh", &["-c", command]);
            }
        }
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn without_agents_a_good_edge_lacks_only_programs() {
    let edge = Edge::new();
    let report = edge.doctor();
    let expected = ["warning program wan0", "warning program lan0", "warning program link0", "problem peer west"];
    assert_eq!(report.wrong(), expected);
    assert_eq!(report.code, Some(1));
    assert!(report.says("backend", "10.1.0.11").contains("www: on lan0 at "), "{:#?}", report.findings);
    assert!(report.says("peer", "west").contains("its host answers, but no program"));
}

#[test]
fn with_agents_at_both_ends_a_good_edge_has_nothing_wrong() {
    let edge = Edge::new();
    edge.peer.ip("addr add 198.51.100.2/32 dev lo");
    edge.write("west", r#""eth0""#, &pins("west"), "10.1.0.11");
    let file = edge.file("west");
    let _west = edge.peer.run(move || Agent::start(&file));
    let east = Agent::start(&edge.file("east"));
    let report = edge.until(|report| report.wrong() == NOTHING);
    assert_eq!(report.code, Some(0));
    assert_eq!(report.says("program", "wan0"), "native");
    assert!(report.says("peer", "west").starts_with("answers at 10.255.0.2:7401"));
    drop(east);
    // The agent is told to use the generic mode, which the doctor does not know of.
    let generic = edge.file("generic");
    fs::write(&generic, fs::read_to_string(edge.file("east")).unwrap().replace("auto", "generic")).unwrap();
    let _east = Agent::start(&generic);
    let report = edge.until(|report| report.says("program", "link0").starts_with("generic: slower"));
    assert_eq!(report.wrong()[..3], ["warning program wan0", "warning program lan0", "warning program link0"]);
}

#[test]
fn a_path_that_takes_less_than_the_first_interface_is_a_problem() {
    let edge = Edge::new();
    edge.peer.ip("addr add 198.51.100.2/32 dev lo");
    edge.write("west", r#""eth0""#, &pins("west"), "10.1.0.11");
    let file = edge.file("west");
    let _west = edge.peer.run(move || Agent::start(&file));
    let _east = Agent::start(&edge.file("east"));
    edge.until(|report| report.wrong() == NOTHING);
    edge.peer.ip("link set eth0 mtu 1500");
    let report = edge.doctor();
    assert_eq!(report.wrong(), ["problem tunnel west"]);
    assert!(report.says("tunnel", "west").contains("none of 1600 bytes"));
    assert!(report.says("peer", "west").starts_with("answers at 10.255.0.2:7401"));
    // Told the size, the program sends no larger ones.
    ip("route add 10.255.0.2/32 dev link0 mtu 1500");
    let report = edge.doctor();
    assert_eq!(report.wrong(), ["warning tunnel west"]);
    assert!(report.says("tunnel", "west").contains("leaves 1456 bytes"));
}

#[test]
fn packets_merged_below_a_bridge_with_a_generic_program_are_a_problem() {
    const MERGED: &str = "problem generic receive offload wan0";
    let edge = Edge::new();
    ip("link add br0 type bridge");
    ip("link set br0 up");
    ip("link set wan0 master br0");
    run("ethtool", &["-K", "wan0", "gro", "on"]);
    edge.write("east", r#""br0", "lan0", "link0""#, &pins("east"), "10.1.0.11");
    let generic = edge.file("generic");
    fs::write(&generic, fs::read_to_string(edge.file("east")).unwrap().replace("auto", "generic")).unwrap();
    let _east = Agent::start(&generic);
    edge.until(|report| report.wrong().iter().any(|wrong| wrong == MERGED));
    run("ethtool", &["-K", "wan0", "gro", "off"]);
    assert!(edge.doctor().wrong().iter().all(|wrong| wrong != MERGED));
}

#[test]
fn an_interface_that_is_made_again_gets_the_program_from_the_agent_that_runs() {
    let edge = Edge::new();
    let _east = Agent::start(&edge.file("east"));
    edge.until(|report| report.says("program", "wan0") == "native");
    ip("link del wan0");
    edge.until(|report| report.wrong().contains(&"problem interface wan0".to_owned()));
    edge.router.connect("wan0", "eth0");
    let report = edge.until(|report| report.says("program", "wan0") == "native");
    assert_eq!(report.says("program", "lan0"), "native");
}

#[test]
fn a_peer_behind_a_firewall_is_a_problem() {
    let edge = Edge::new();
    edge.peer.run(|| {
        run("nft", &["add table ip t; add chain ip t in { type filter hook input priority 0; }"]);
        run("nft", &["add rule ip t in udp dport 7401 drop"]);
    });
    let report = edge.doctor();
    assert_eq!(report.wrong().last().unwrap(), "problem peer west");
    assert!(report.says("peer", "west").contains("does not answer"));
}

#[test]
fn the_commands_it_gives_mend_the_edge() {
    let edge = Edge::new();
    set("net/ipv4/ip_forward", "0");
    set("net/ipv6/conf/all/forwarding", "0");
    // The larger of both counts.
    set("net/ipv4/conf/all/rp_filter", "1");
    ip("addr add 192.0.2.80/32 dev wan0");
    ip("addr add 2001:db8::80/128 dev lo");
    ip("link set link0 mtu 1500");
    run("ethtool", &["-K", "lan0", "tx", "on"]);
    ip("link set lan0 mtu 1400");
    ip("link set wan0 down");
    let report = edge.doctor();
    let expected = [
        "problem forwarding IPv4",
        "problem forwarding IPv6",
        "problem interface wan0",
        "warning transmit checksums lan0",
        "warning packet size lan0",
        "problem reverse path filter lan0",
        "problem address 192.0.2.80",
        "problem address 2001:db8::80",
        "problem route 198.51.100.80",
        "warning tunnel west",
    ];
    assert_eq!(report.wrong_on_the_host(), expected);
    assert!(report.says("tunnel", "west").contains("leaves 1456 bytes"));
    report.mend();
    // It went with the interface, and where it leads to is not for the doctor to know.
    ip(TO_WEST);
    assert_eq!(edge.doctor().wrong_on_the_host(), NOTHING);
}

#[test]
fn a_loose_reverse_path_filter_is_a_problem_where_a_route_forbids_a_resources_address() {
    let edge = Edge::new();
    set("net/ipv4/conf/lan0/rp_filter", "2");
    for forbids in ["unreachable", "blackhole", "prohibit"] {
        ip(&format!("route replace {forbids} 192.0.2.80"));
        let report = edge.doctor();
        assert_eq!(report.wrong_on_the_host(), ["problem reverse path filter lan0"]);
        let says = report.says("reverse path filter", "lan0");
        assert!(says.contains("from 192.0.2.80") && says.contains(forbids), "{says}");
    }
    ip("route del prohibit 192.0.2.80");
    let report = edge.doctor();
    assert_eq!(report.wrong_on_the_host(), ["warning route 192.0.2.80"]);
    report.mend();
    assert_eq!(edge.doctor().wrong_on_the_host(), NOTHING);
    set("net/ipv4/conf/lan0/rp_filter", "2");
    edge.doctor().mend();
    assert_eq!(edge.doctor().wrong_on_the_host(), NOTHING);
}

#[test]
fn peers_public_addresses_that_cannot_be_tried_are_a_problem() {
    let edge = Edge::new();
    for forbids in ["unreachable", "blackhole", "prohibit"] {
        ip(&format!("route add {forbids} 198.51.100.80"));
        let report = edge.doctor();
        assert_eq!(report.wrong_on_the_host(), ["problem route 198.51.100.80"]);
        let says = report.says("route", "198.51.100.80");
        assert!(says.contains("www: ") && says.contains(forbids), "{says}");
        ip(&format!("route del {forbids} 198.51.100.80"));
    }
    ip("route del 198.51.100.0/24");
    let report = edge.doctor();
    assert_eq!(report.wrong_on_the_host(), ["problem route 198.51.100.80"]);
    assert!(report.says("route", "198.51.100.80").contains("no route to it"));
}

#[test]
fn where_the_way_out_takes_less_backends_must_be_told_at_their_address() {
    let edge = Edge::new();
    ip("link set wan0 mtu 1400");
    ip("route add unreachable 2001:db8::80");
    let report = edge.doctor();
    assert_eq!(report.wrong_on_the_host(), ["warning route 192.0.2.80", "warning route 2001:db8::80"]);
    assert!(report.says("route", "192.0.2.80").contains("the way out takes less"));
    ip("route del unreachable 192.0.2.80");
    ip("route del unreachable 2001:db8::80");
    ip("addr add 2001:db8::2/64 dev wan0");
    assert_eq!(edge.doctor().wrong_on_the_host(), NOTHING);
}

#[test]
fn backends_and_peers_that_cannot_be_reached_are_named_with_the_reason() {
    let edge = Edge::new();
    edge.backend.ip("addr del 10.1.0.11/24 dev eth0");
    ip("addr del 10.255.0.1/30 dev link0");
    let report = edge.doctor();
    let expected = ["problem backend 10.1.0.11", "warning tunnel this site", "problem tunnel west"];
    assert_eq!(report.wrong_on_the_host(), expected);
    assert!(report.says("backend", "10.1.0.11").contains("does not answer on lan0"));
    assert!(report.says("tunnel", "west").contains("no route to it"));
}

#[test]
fn a_backend_behind_a_gateway_is_a_problem() {
    let edge = Edge::new();
    ip("route add 10.9.0.0/24 via 10.1.0.11");
    edge.configure("10.9.0.11");
    let report = edge.doctor();
    assert_eq!(report.wrong_on_the_host(), ["problem backend 10.9.0.11"]);
    assert!(report.says("backend", "10.9.0.11").contains("behind the gateway 10.1.0.11 on lan0"));
}

#[test]
fn interfaces_that_are_missing_or_not_connected_are_problems() {
    let edge = Edge::new();
    ip("link del wan0");
    edge.backend.ip("link set eth0 down");
    let report = edge.doctor();
    let expected = [
        "problem interface wan0",
        "problem interface lan0",
        "problem route 198.51.100.80",
        "problem backend 10.1.0.11",
    ];
    assert_eq!(report.wrong_on_the_host(), expected);
    assert!(report.says("interface", "wan0").contains("this host has only"));
    assert!(report.says("interface", "lan0").contains("no carrier"));
}

#[test]
fn pins_elsewhere_than_on_a_bpf_file_system_are_a_problem() {
    let edge = Edge::new();
    let pins = edge.directory.path().join("pins");
    edge.write("east", r#""lan0""#, &pins, "10.1.0.11");
    let wrong = edge.doctor().wrong_on_the_host();
    assert_eq!(wrong, [format!("problem bpf file system {}", pins.display())]);
}

#[test]
fn another_program_on_an_interface_is_named() {
    let edge = Edge::new();
    let mut ebpf = Ebpf::load(OBJECT).unwrap();
    let other: &mut Xdp = ebpf.program_mut("stub").unwrap().try_into().unwrap();
    other.load().unwrap();
    other.attach("wan0", XdpMode::Driver).unwrap();
    let report = edge.doctor();
    assert_eq!(report.wrong_on_the_host(), ["problem program wan0"]);
    assert!(report.says("program", "wan0").contains("another XDP program, \"stub\""));
}

#[test]
fn the_commands_it_gives_mend_a_backend() {
    enter_new();
    let lan = Host::new();
    lan.connect("eth0", "lan0");
    ip("addr add 10.1.0.11/24 dev eth0");
    ip("addr add 192.0.2.81/24 dev lo");
    ip("addr add 192.0.2.82/32 dev eth0");
    let arguments = ["--json", "--backend", "192.0.2.80", "192.0.2.81", "192.0.2.82", "2001:db8::80"];
    let before = report(&arguments);
    let expected = [
        "problem loopback 192.0.2.80",
        "problem loopback 192.0.2.81",
        "problem loopback 192.0.2.82",
        "problem loopback 2001:db8::80",
        "problem arp_ignore eth0",
        "problem arp_announce eth0",
    ];
    assert_eq!(before.wrong(), expected);
    assert_eq!(before.code, Some(1));
    before.mend();
    let after = report(&arguments);
    assert_eq!(after.wrong(), NOTHING);
    assert_eq!(after.code, Some(0));
}

#[test]
fn people_get_a_line_for_each_check_without_colours_in_a_pipe() {
    enter_new();
    let output = doctor(&["--backend", "192.0.2.80"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "problem loopback 192.0.2.80: missing: requests for it are not taken; \
                    mend: ip addr add 192.0.2.80/32 dev lo\nchecks: 1, problems: 1, warnings: 0\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn wrong_usage_has_a_code_of_its_own() {
    assert_eq!(doctor(&["--backend", "192.0.2.80/32"]).status.code(), Some(2));
    assert_eq!(doctor(&["--fast"]).status.code(), Some(2));
}

#[test]
fn it_says_when_it_lacks_the_right_to_look() {
    // Others may not read the build's directories.
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("siteswap");
    fs::copy(SITESWAP, &copy).unwrap();
    run("chmod", &["755", directory.path().to_str().unwrap(), copy.to_str().unwrap()]);
    let output = Command::new(&copy).args(["doctor", "--backend", "192.0.2.80"]).uid(65534).gid(65534).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("run it as root"));
}
