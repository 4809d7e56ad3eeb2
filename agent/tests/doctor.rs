//! `siteswap doctor` on real hosts: interfaces, settings, neighbours and programs in network namespaces. Needs root.

mod dataplane_support;
mod hosts;

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Output},
};

use dataplane_support::{Pins, started, stub};
use hosts::{Host, enter_new, ip, run, set};
use serde_json::Value;
use siteswap::config::Mode;

/// An edge, with what it is connected to.
struct Edge {
    /// At 10.1.0.11 on `lan0`.
    backend: Host,
    /// At 10.255.0.2 on `link0`.
    _peer: Host,
    /// On `wan0`.
    _router: Host,
    directory: tempfile::TempDir,
}

impl Edge {
    /// Makes this thread an edge host, with all as it should be but the program, which is not attached.
    fn new() -> Self {
        enter_new();
        let (backend, peer, router) = (Host::new(), Host::new(), Host::new());
        for (host, interface) in [(&backend, "lan0"), (&peer, "link0"), (&router, "wan0")] {
            host.connect(interface, "eth0");
            run("ethtool", &["-K", interface, "tx", "off"]);
            set(&format!("net/ipv4/conf/{interface}/rp_filter"), "2");
        }
        for (interface, address) in [("lan0", "10.1.0.1/24"), ("link0", "10.255.0.1/30"), ("wan0", "192.0.2.2/24")] {
            ip(&format!("addr add {address} dev {interface}"));
        }
        backend.ip("addr add 10.1.0.11/24 dev eth0");
        peer.ip("addr add 10.255.0.2/30 dev eth0");
        peer.ip("link set eth0 mtu 1600");
        ip("link set link0 mtu 1600");
        set("net/ipv4/ip_forward", "1");
        set("net/ipv6/conf/all/forwarding", "1");
        let edge = Self { backend, _peer: peer, _router: router, directory: tempfile::tempdir().unwrap() };
        edge.configure("10.1.0.11", "/sys/fs/bpf/siteswap-doctor-test");
        edge
    }

    /// Writes the configuration, with this backend and these pins.
    fn configure(&self, backend: &str, pins: &str) {
        let text = format!(
            r#"
            agent = {{ site = "east" }}
            link = {{ key = "east.pem" }}
            dns = {{ listen = ["192.0.2.2"] }}
            dataplane = {{ interfaces = ["wan0", "lan0"], pins = "{pins}" }}
            [sites.east]
            link = "10.255.0.1:7400"
            tunnel = "10.255.0.1:7401"
            fingerprint = "sha256:{:064}"
            [sites.west]
            link = "10.255.0.2:7400"
            tunnel = "10.255.0.2:7401"
            fingerprint = "sha256:{:064}"
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
            "#,
            1, 2
        );
        fs::write(self.file(), text).unwrap();
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("east.toml")
    }

    fn doctor(&self) -> Report {
        report(&["--config", self.file().to_str().unwrap(), "--json"])
    }
}

/// Runs `siteswap doctor` in this thread's namespace.
fn doctor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_siteswap")).arg("doctor").args(arguments).output().unwrap()
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
        let line =
            |finding| format!("{} {} {}", text(finding, "verdict"), text(finding, "check"), text(finding, "about"));
        self.findings.iter().map(line).filter(|line| !line.starts_with("ok ")).collect()
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

const NOT_RUNNING: [&str; 2] = ["warning program wan0", "warning program lan0"];

#[test]
fn a_good_edge_has_no_problem() {
    let edge = Edge::new();
    let report = edge.doctor();
    assert_eq!(report.wrong(), NOT_RUNNING);
    assert_eq!(report.code, Some(0));
    assert!(report.says("backend", "10.1.0.11").contains("www: on lan0 at "), "{:#?}", report.findings);
}

#[test]
fn the_commands_it_gives_mend_the_edge() {
    let edge = Edge::new();
    set("net/ipv4/ip_forward", "0");
    set("net/ipv6/conf/all/forwarding", "0");
    // The larger of both counts.
    set("net/ipv4/conf/lan0/rp_filter", "0");
    set("net/ipv4/conf/all/rp_filter", "1");
    ip("addr add 192.0.2.80/32 dev wan0");
    ip("addr add 2001:db8::80/128 dev lo");
    ip("link set link0 mtu 1500");
    run("ethtool", &["-K", "lan0", "tx", "on"]);
    ip("link set wan0 down");
    let report = edge.doctor();
    let expected = [
        "problem forwarding IPv4",
        "problem forwarding IPv6",
        "problem interface wan0",
        NOT_RUNNING[0],
        NOT_RUNNING[1],
        "warning transmit checksums lan0",
        "problem reverse path filter lan0",
        "problem address 192.0.2.80",
        "problem address 2001:db8::80",
        "warning tunnel west",
    ];
    assert_eq!(report.wrong(), expected);
    assert_eq!(report.code, Some(1));
    assert!(report.says("tunnel", "west").contains("leaves 1456 bytes"));
    report.mend();
    let report = edge.doctor();
    assert_eq!(report.wrong(), NOT_RUNNING);
    assert_eq!(report.code, Some(0));
}

#[test]
fn backends_and_peers_that_cannot_be_reached_are_named_with_the_reason() {
    let edge = Edge::new();
    edge.backend.ip("addr del 10.1.0.11/24 dev eth0");
    ip("addr del 10.255.0.1/30 dev link0");
    let report = edge.doctor();
    let expected = ["problem backend 10.1.0.11", "warning tunnel this site", "problem tunnel west"];
    assert_eq!(report.wrong()[2..], expected);
    assert!(report.says("backend", "10.1.0.11").contains("does not answer on lan0"));
    assert!(report.says("tunnel", "west").contains("no route to it"));
}

#[test]
fn a_backend_behind_a_gateway_is_a_problem() {
    let edge = Edge::new();
    ip("route add 10.9.0.0/24 via 10.1.0.11");
    edge.configure("10.9.0.11", "/sys/fs/bpf/siteswap-doctor-test");
    let report = edge.doctor();
    assert_eq!(report.wrong()[2..], ["problem backend 10.9.0.11"]);
    assert!(report.says("backend", "10.9.0.11").contains("behind the gateway 10.1.0.11 on lan0"));
}

#[test]
fn interfaces_that_are_missing_or_not_connected_are_problems() {
    let edge = Edge::new();
    ip("link del wan0");
    edge.backend.ip("link set eth0 down");
    let report = edge.doctor();
    let expected = ["problem interface wan0", "problem interface lan0", NOT_RUNNING[1], "problem backend 10.1.0.11"];
    assert_eq!(report.wrong(), expected);
    assert!(report.says("interface", "wan0").contains("this host has only"));
    assert!(report.says("interface", "lan0").contains("no carrier"));
}

#[test]
fn pins_elsewhere_than_on_a_bpf_file_system_are_a_problem() {
    let edge = Edge::new();
    let pins = edge.directory.path().join("pins");
    edge.configure("10.1.0.11", pins.to_str().unwrap());
    let wrong = edge.doctor().wrong();
    assert_eq!(wrong[0], format!("problem bpf file system {}", pins.display()));
}

#[test]
fn the_kernel_is_asked_which_program_is_on_an_interface_and_how() {
    let edge = Edge::new();
    let pins = Pins::new("doctor");
    let dns = Ipv4Addr::new(192, 0, 2, 2);
    let mut config = pins.config(&["wan0", "lan0"]);
    let native = started(&config, dns);
    let report = edge.doctor();
    assert_eq!(report.wrong(), [] as [&str; 0]);
    assert_eq!(report.says("program", "wan0"), "native");
    native.detach().unwrap();
    config.mode = Mode::Generic;
    let generic = started(&config, dns);
    let report = edge.doctor();
    assert_eq!(report.wrong(), NOT_RUNNING);
    assert!(report.says("program", "lan0").starts_with("generic: slower"));
    generic.detach().unwrap();
    let _other = stub("wan0");
    let report = edge.doctor();
    assert_eq!(report.wrong(), ["problem program wan0", NOT_RUNNING[1]]);
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
    let report = report(&arguments);
    let expected = [
        "problem loopback 192.0.2.80",
        "problem loopback 192.0.2.81",
        "problem loopback 192.0.2.82",
        "problem loopback 2001:db8::80",
        "problem arp_ignore eth0",
        "problem arp_announce eth0",
    ];
    assert_eq!(report.wrong(), expected);
    assert_eq!(report.code, Some(1));
    report.mend();
    let report = self::report(&arguments);
    assert_eq!(report.wrong(), [] as [&str; 0]);
    assert_eq!(report.code, Some(0));
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
    let program = Path::new(env!("CARGO_BIN_EXE_siteswap"));
    // Others may not read the build's directories.
    let copy = tempfile::Builder::new().prefix("siteswap-doctor").tempdir_in("/tmp").unwrap();
    let there = copy.path().join("siteswap");
    fs::copy(program, &there).unwrap();
    run("chmod", &["755", copy.path().to_str().unwrap(), there.to_str().unwrap()]);
    let output =
        Command::new(&there).args(["doctor", "--backend", "192.0.2.80"]).uid(65534).gid(65534).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("run it as root"));
}
