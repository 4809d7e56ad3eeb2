//! Replies a second over a veth pair: siteswap, Knot DNS and gdnsd answering the same queries, in turns.
//!
//! The generator is kxdpgun (AF_XDP). It uses one thread for a veth, so there are as many cables as it takes to have one
//! on each CPU; the servers share the same CPUs. What counts is the replies received, not what was sent.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use lab::{
    dns,
    links::{complete_checksums, connect, prepare},
    netns::{Netns, die_with_parent},
    plan::Part,
    wait_until,
};
use serde_json::{Value, json};

use crate::{Report, median};

/// Each server is measured this often, in turns.
const ROUNDS: usize = 3;
/// Of one measurement.
const SECONDS: u32 = 4;
/// Queries a second offered: more than any of them answers here.
const OFFERED: u32 = 2_000_000;
/// The cables: the generator's interface and address, the server's interface and address. One for each CPU is used.
const CABLES: [[&str; 4]; 4] = [
    ["gen0", "192.0.2.1", "srv0", "192.0.2.2"],
    ["gen1", "198.51.100.1", "srv1", "198.51.100.2"],
    ["gen2", "203.0.113.1", "srv2", "203.0.113.2"],
    ["gen3", "198.18.0.1", "srv3", "198.18.0.2"],
];
const NAME: &str = "www.shop.test";

/// Replies a second in each round, by server.
pub struct Servers(Vec<(&'static str, Vec<f64>)>);

/// Two namespaces, a cable, and a directory; all gone when dropped.
struct Bed {
    generator: Netns,
    server: Netns,
    directory: tempfile::TempDir,
    pins: PathBuf,
}

/// A server that ends when dropped.
struct Running(Child);

/// How one server is set up in the bed.
type Start = fn(&Bed) -> Result<Running>;

const CONTENDERS: [(&str, Start); 3] = [("siteswap", siteswap), ("knot", knot), ("gdnsd", gdnsd)];

/// Measures all of them.
pub fn measure() -> Result<Servers> {
    let bed = Bed::new()?;
    let mut found: Vec<(&str, Vec<f64>)> = CONTENDERS.iter().map(|(name, _)| (*name, Vec::new())).collect();
    for round in 1..=ROUNDS {
        for ((name, start), (_, rates)) in CONTENDERS.iter().zip(&mut found) {
            let running = start(&bed).with_context(|| format!("starting {name}"))?;
            let rate = bed.load().with_context(|| format!("loading {name}"))?;
            eprintln!("  round {round} of {ROUNDS}: {name} {rate:.0} replies/s");
            rates.push(rate);
            drop(running);
        }
    }
    Ok(Servers(found))
}

impl Bed {
    fn new() -> Result<Self> {
        let prefix = format!("sswb-{}-", std::process::id());
        let bed = Self {
            generator: Netns::named(&format!("{prefix}generator")),
            server: Netns::named(&format!("{prefix}server")),
            directory: tempfile::Builder::new().prefix("siteswap-bench-").tempdir()?,
            pins: PathBuf::from(format!("/sys/fs/bpf/siteswap-{prefix}pins")),
        };
        for node in [&bed.generator, &bed.server] {
            node.create()?;
            prepare(node, Part::Host)?;
        }
        for [near, near_address, far, far_address] in cables()? {
            connect(&bed.generator, near, &bed.server, far)?;
            for (node, interface, address) in [(&bed.generator, near, near_address), (&bed.server, far, far_address)] {
                complete_checksums(node, interface)?;
                let address = format!("{address}/24");
                succeed(node.command("ip")?.args(["address", "add", &address, "dev", interface]))?;
            }
        }
        fs::write(bed.path("shop.test.zone"), ZONE)?;
        fs::write(bed.path("queries"), format!("{NAME} A\n"))?;
        Ok(bed)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Replies a second under more queries than the server can answer.
    fn load(&self) -> Result<f64> {
        let mut generators = Vec::new();
        for (cpu, [near, _, _, server]) in cables()?.iter().enumerate() {
            let mut command = self.generator.command("kxdpgun")?;
            command.args(["-t", &SECONDS.to_string(), "-Q", &OFFERED.to_string(), "-b", "64", "-I", near]);
            command.args(["-F", &format!("{cpu}s1"), "-i"]).arg(self.path("queries")).arg(server);
            die_with_parent(&mut command);
            generators.push(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("kxdpgun")?);
        }
        let mut replies = 0;
        for generator in generators {
            let output = generator.wait_with_output()?;
            let text = String::from_utf8_lossy(&output.stdout);
            ensure!(output.status.success(), "kxdpgun: {text} {}", String::from_utf8_lossy(&output.stderr));
            let line = text.lines().find_map(|line| line.strip_prefix("total replies:"));
            let count = line.and_then(|rest| rest.split_whitespace().next());
            replies += count.with_context(|| format!("no replies in: {text}"))?.parse::<u32>()?;
        }
        Ok(f64::from(replies) / f64::from(SECONDS))
    }

    /// Waits until the server gives the right answer. Asked on its own host: until the generator's program is there,
    /// nobody takes at the other end of the cable what XDP sends.
    fn await_answer(&self, running: Running) -> Result<Running> {
        let right = || {
            let query = dns::query(NAME, hickory_proto::rr::RecordType::A)?;
            let ask = |server: &str| dns::ask(server.parse()?, &query, Duration::from_millis(200));
            self.server.enter(|| Ok(dns::addresses(&ask(CABLES[0][3])?)))
        };
        wait_until(Duration::from_secs(20), "two addresses are answered", || {
            right().is_ok_and(|answer| answer.len() == 2)
        })?;
        Ok(running)
    }

    fn start(&self, name: &str, mut command: Command) -> Result<Running> {
        let log = fs::File::create(self.path(&format!("{name}.log")))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        die_with_parent(&mut command);
        self.await_answer(Running(command.spawn()?))
            .with_context(|| fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for node in [&self.generator, &self.server] {
            if let Err(error) = node.remove() {
                eprintln!("{error:#}");
            }
        }
        // The pins are gone with the agent, which detaches; what a failure left goes here.
        let _ = fs::remove_dir_all(&self.pins);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
        let _ = self.0.wait();
    }
}

const ZONE: &str = "$ORIGIN shop.test.
$TTL 60
@ IN SOA ns1 hostmaster 1 3600 600 604800 60
@ IN NS ns1
ns1 IN A 192.0.2.2
";

fn siteswap(bed: &Bed) -> Result<Running> {
    let binary = sibling("siteswap")?;
    let key = bed.path("key.pem");
    let keygen = Command::new(&binary).args(["keygen", "--force", "--out"]).arg(&key).output()?;
    let fingerprint = String::from_utf8(keygen.stdout)?;
    // A backend for the probe: a socket that accepts, in the server's namespace, for as long as this process lives.
    let backend = bed.server.enter(|| Ok(TcpListener::bind("127.0.0.1:0")?))?;
    let quoted =
        |column: usize| Ok::<_, anyhow::Error>(join(cables()?.iter().map(|cable| format!("{:?}", cable[column]))));
    let (interfaces, listen) = (quoted(2)?, quoted(3)?);
    let config = format!(
        r#"
[agent]
site = "only"
state = "state"
control = "control.sock"
[sites.only]
link = "127.0.0.1:7400"
fingerprint = "{}"
[link]
key = "key.pem"
[dns]
listen = [{listen}]
[[dns.zone]]
name = "shop.test"
file = "shop.test.zone"
[dataplane]
interfaces = [{interfaces}]
mode = "native"
pins = "{}"
[resources.www]
domains = ["{NAME}"]
ttl = 60
probe = {{ tcp = true }}
[resources.www.sites.only]
role = "active"
addresses = ["192.0.2.80", "192.0.2.81"]
backends = ["{}"]
"#,
        fingerprint.trim(),
        bed.pins.display(),
        backend.local_addr()?,
    );
    fs::write(bed.path("siteswap.toml"), config)?;
    thread::spawn(move || backend.incoming().for_each(drop));
    let mut command = bed.server.command(binary)?;
    command.args(["run", "--config"]).arg(bed.path("siteswap.toml"));
    bed.start("siteswap", command)
}

/// The zone with the addresses that siteswap keeps in its table.
fn static_zone(directory: &Path) -> Result<()> {
    let zone = format!("{ZONE}www IN A 192.0.2.80\nwww IN A 192.0.2.81\n");
    Ok(fs::write(directory.join("shop.test"), zone)?)
}

fn knot(bed: &Bed) -> Result<Running> {
    let directory = bed.path("knot");
    fs::create_dir_all(&directory)?;
    static_zone(&directory)?;
    let shown = directory.display();
    let listen = join(cables()?.iter().map(|cable| format!("{}@53", cable[3])));
    let config = format!(
        "server:\n  rundir: {shown}\n  listen: [ {listen} ]\ndatabase:\n  storage: {shown}\n\
         zone:\n  - domain: shop.test\n    storage: {shown}\n    file: shop.test\n"
    );
    fs::write(directory.join("knot.conf"), config)?;
    let mut command = bed.server.command("knotd")?;
    command.arg("-c").arg(directory.join("knot.conf"));
    bed.start("knot", command)
}

fn gdnsd(bed: &Bed) -> Result<Running> {
    let directory = bed.path("gdnsd");
    fs::create_dir_all(directory.join("zones"))?;
    static_zone(&directory.join("zones"))?;
    let shown = directory.display();
    let threads = thread::available_parallelism()?;
    let listen = join(cables()?.iter().map(|cable| cable[3].to_owned()));
    let config = format!(
        "options => {{ listen => [ {listen} ], run_dir => {shown}/run, state_dir => {shown}/state, udp_threads => {threads} }}\n"
    );
    fs::write(directory.join("config"), config)?;
    let mut command = bed.server.command("gdnsd")?;
    command.arg("-c").arg(&directory).arg("start");
    bed.start("gdnsd", command)
}

/// One cable for each CPU.
fn cables() -> Result<&'static [[&'static str; 4]]> {
    Ok(&CABLES[..thread::available_parallelism()?.get().min(CABLES.len())])
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// A program built beside this one.
fn sibling(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(path.exists(), "{} is not built: `cargo xtask bench` builds it", path.display());
    Ok(path)
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

impl Servers {
    fn medians(&self) -> Vec<(&'static str, f64)> {
        self.0.iter().map(|(name, rates)| (*name, median(rates))).collect()
    }
}

impl Report for Servers {
    fn json(&self) -> Value {
        let rates: serde_json::Map<String, Value> =
            self.0.iter().map(|(name, rates)| ((*name).to_owned(), json!(rates))).collect();
        json!({ "benchmark": "servers", "unit": "replies per second", "rounds": rates })
    }

    fn text(&self) -> String {
        let medians = self.medians();
        let siteswap = medians[0].1;
        let mut text = "servers: replies per second over veth, median\n".to_owned();
        for (name, rate) in medians {
            text += &format!("  {name:<10} {rate:>10.0}   siteswap gives {:.2} times as many\n", siteswap / rate);
        }
        text
    }
}
