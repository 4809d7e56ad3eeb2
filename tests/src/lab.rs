//! The lab itself: built from the plan, taken down completely.

use std::{
    fs,
    io::Write,
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use hickory_proto::rr::RecordType;

use crate::{
    dns,
    fetch::{self, Page},
    files, links,
    netns::Netns,
    plan::{self, DATA_PORT, LAN, Public, SITES, Site},
    process::Process,
    stale,
    steady::Steady,
    stub,
    wait::wait_until,
};

/// The prefix of the lab made by hand.
pub const BY_HAND: &str = "ssw-";

/// How long a process may take to be ready.
const STARTING: Duration = Duration::from_secs(20);

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What kind of lab.
#[derive(Clone, Debug)]
pub struct Options {
    /// What its namespaces' names begin with. `None`: a free one.
    pub prefix: Option<String>,
    /// Whether the agents run. Without, it is the network, the shops and the data tier.
    pub agents: bool,
    /// It stands until it is taken down by hand, longer than this process.
    pub keep: bool,
    /// Told what is being done.
    pub progress: fn(&str),
}

impl Default for Options {
    fn default() -> Self {
        Self { prefix: None, agents: true, keep: false, progress: |_| {} }
    }
}

/// A whole lab. Dropping it takes it down, unless it was made to be kept.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    directory: PathBuf,
    keep: bool,
    /// Dropping this value removes the lab.
    owned: bool,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    name: String,
    namespace: Netns,
}

/// The agent of one site.
#[derive(Debug)]
pub struct Agent<'a> {
    lab: &'a Lab,
    process: Process,
    site: Site,
}

impl Lab {
    /// Builds one and waits until it works: the shops answer, and the agents are ready.
    ///
    /// # Errors
    /// Something cannot be made; what was made is gone again.
    pub fn up(options: &Options) -> Result<Self> {
        stale::sweep();
        let prefix = options.prefix.clone().unwrap_or_else(free_prefix);
        let directory = stale::directory(&prefix);
        ensure!(
            !directory.exists() && !plan::nodes().iter().any(|node| Netns::named(&format!("{prefix}{node}")).exists()),
            "the lab is up already, or half of it; `siteswap-lab down` takes it down"
        );
        let mut lab = Self { prefix, directory, keep: options.keep, owned: true };
        fs::create_dir_all(&lab.directory).with_context(|| lab.directory.display().to_string())?;
        stale::own(&lab.directory)?;
        (options.progress)("network: a WAN with two regions of users, two sites, the inter-centre link");
        lab.build_network()?;
        (options.progress)("databases, data tier and web servers at both sites");
        lab.start_servers()?;
        if options.agents {
            (options.progress)("agents: keys, configuration, XDP program on each edge");
            lab.start_agents()?;
        }
        if options.keep {
            fs::remove_file(lab.directory.join("owner"))?;
            lab.owned = false;
        }
        Ok(lab)
    }

    /// The lab made by hand, which somebody else put up.
    ///
    /// # Errors
    /// It is not up.
    pub fn attach(prefix: &str) -> Result<Self> {
        let directory = stale::directory(prefix);
        ensure!(directory.exists(), "the lab is not up; `siteswap-lab up` puts it up");
        Ok(Self { prefix: prefix.into(), directory, keep: true, owned: false })
    }

    /// Takes a lab down, whoever put it up and however far that got. Says whether there was anything to take down.
    ///
    /// # Errors
    /// Something stays; the rest is gone.
    pub fn remove(prefix: &str) -> Result<bool> {
        stale::sweep();
        stale::remove(prefix)
    }

    /// Where its files are: configurations, logs, databases, control sockets.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where its agents' maps and links are pinned.
    pub fn pins(&self) -> PathBuf {
        stale::pins(&self.prefix)
    }

    /// A node by name, such as `client-e` or `east-web1`.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn node(&self, name: &str) -> Result<Node> {
        let nodes = plan::nodes();
        ensure!(nodes.iter().any(|node| node == name), "no node is called {name}; there are {}", nodes.join(", "));
        Ok(Node { name: name.into(), namespace: self.namespace(name) })
    }

    /// The agent of a site.
    ///
    /// # Errors
    /// There is no such site.
    pub fn agent(&self, site: &str) -> Result<Agent<'_>> {
        let site = Site::named(site).with_context(|| format!("no site is called {site}; there are east and west"))?;
        Ok(Agent { lab: self, process: self.process(site.name), site })
    }

    /// The processes that have been started, running or not.
    pub fn processes(&self) -> Vec<Process> {
        let nodes = plan::nodes().into_iter();
        let started: Vec<String> = Process::all(&self.directory).iter().map(|p| p.name().to_owned()).collect();
        nodes.filter(|node| started.contains(node)).map(|node| self.process(&node)).collect()
    }

    /// SIGKILLs the process of a node: a web server, a data tier, or an edge's agent.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&self, name: &str) -> Result<()> {
        self.process(name).kill()
    }

    /// Starts the process of a node.
    ///
    /// # Errors
    /// It runs already, there is none, or it ends at once.
    pub fn start(&self, name: &str) -> Result<()> {
        if let Some(site) = Site::named(name) {
            return self.process(name).start(self.agent_command(site)?, self.keep);
        }
        for site in SITES {
            for (host, number) in LAN {
                if site.node(host) == name {
                    return self.start_server(site, host, number);
                }
            }
        }
        bail!("no process belongs to {name:?}; they are the nodes of the sites")
    }

    /// Cuts a cable: `link`, or the one named after the client, site or host it leads to.
    ///
    /// # Errors
    /// There is no such cable.
    pub fn cut(&self, cable: &str) -> Result<()> {
        let (node, interface) = near_end(cable)?;
        links::set_state(&self.namespace(&node), &interface, false)
    }

    /// Mends what `cut` cut.
    ///
    /// # Errors
    /// There is no such cable.
    pub fn mend(&self, cable: &str) -> Result<()> {
        let (node, interface) = near_end(cable)?;
        links::set_state(&self.namespace(&node), &interface, true)?;
        // The kernel forgot the routes when the interface went down.
        links::address(&self.namespace(&node), &node)
    }

    /// Loses the next datagram that arrives at `site` over the inter-centre link, and no other.
    ///
    /// # Errors
    /// The rule cannot be made.
    pub fn lose_one_heartbeat(&self, site: &str) -> Result<()> {
        self.node(site)?.rules(files::LOSE_ONE)
    }

    /// How many datagrams `lose_one_heartbeat` has lost so far: none or one.
    ///
    /// # Errors
    /// There is no such rule.
    pub fn heartbeats_lost(&self, site: &str) -> Result<u64> {
        let listing = self.node(site)?.exec(&["nft", "--json", "list", "table", "inet", "siteswap-loss"])?;
        let listing: serde_json::Value = serde_json::from_slice(&listing.stdout)?;
        let rules = listing["nftables"].as_array().into_iter().flatten();
        let mut parts = rules.filter_map(|object| object["rule"]["expr"].as_array()).flatten();
        parts.find_map(|part| part["counter"]["packets"].as_u64()).context("nft shows no counter")
    }

    /// The file of a site's database.
    pub fn database(&self, site: &str) -> PathBuf {
        files::database(&self.directory, site)
    }

    /// What a client gets for `name` from `server`, over UDP.
    ///
    /// # Errors
    /// No answer within a second.
    pub fn ask(&self, client: &str, server: IpAddr, name: &str, kind: RecordType) -> Result<Vec<IpAddr>> {
        let query = dns::query(name, kind)?;
        self.namespace(client).enter(|| Ok(dns::addresses(&dns::ask(server, &query, PATIENCE)?)))
    }

    /// What `dig` prints for it on a client.
    ///
    /// # Errors
    /// dig has no answer, or prints something else than addresses.
    pub fn dig(&self, client: &str, server: IpAddr, name: &str, kind: RecordType) -> Result<Vec<IpAddr>> {
        let server = format!("@{server}");
        let dig = ["dig", "+short", "+tries=1", "+time=1", &server, name, &kind.to_string()];
        let output = self.node(client)?.exec(&dig)?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "dig: {}", text.trim());
        text.lines().map(|line| line.parse().with_context(|| format!("dig printed {line}"))).collect()
    }

    /// Queries sent from a client again and again.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub fn ask_steadily(&self, client: &str, server: IpAddr, name: &str, kind: RecordType) -> Result<Steady> {
        Steady::start(&self.namespace(client), server, name, kind, Duration::from_millis(5))
    }

    /// The shop's page, fetched by a client from this address.
    ///
    /// # Errors
    /// There is no page within a second.
    pub fn fetch(&self, client: &str, address: IpAddr) -> Result<Page> {
        self.namespace(client).enter(|| fetch::fetch(address, "www.shop.test", "/", PATIENCE))
    }

    fn namespace(&self, node: &str) -> Netns {
        Netns::named(&format!("{}{node}", self.prefix))
    }

    fn process(&self, name: &str) -> Process {
        Process::named(&self.directory, name)
    }

    fn build_network(&self) -> Result<()> {
        for name in plan::nodes() {
            let node = self.namespace(&name);
            node.create()?;
            links::prepare(&node, name == "wan" || Site::named(&name).is_some())?;
        }
        for plan::Cable { near, far, xdp, .. } in plan::cables() {
            let ends = [(self.namespace(&near.0), near.1), (self.namespace(&far.0), far.1)];
            links::connect(&ends[0].0, &ends[0].1, &ends[1].0, &ends[1].1)?;
            if xdp {
                for (node, interface) in &ends {
                    links::complete_checksums(node, interface)?;
                }
                stub::attach(&ends[0].0, &ends[0].1, &self.pins())?;
            }
        }
        for site in SITES {
            links::bridge(&self.namespace(site.name), "lan0", &LAN.map(|(host, _)| host))?;
            self.node(site.name)?.rules(&files::edge_rules(site)?)?;
        }
        for name in plan::nodes() {
            links::address(&self.namespace(&name), &name)?;
        }
        Ok(())
    }

    fn start_servers(&self) -> Result<()> {
        for site in SITES {
            files::create_database(&self.database(site.name))?;
            for (host, number) in LAN {
                self.start_server(site, host, number)?;
            }
        }
        for site in SITES {
            for (host, number) in LAN {
                self.await_server(&site.node(host), &listen(site, host, number))?;
            }
        }
        Ok(())
    }

    fn start_server(&self, site: Site, host: &str, number: u8) -> Result<()> {
        let name = site.node(host);
        let mut command = self.namespace(&name).command(program("siteswap-lab")?)?;
        if host == "db" {
            command.args(["data", "--name", &format!("db-{}", site.name), "--db"]).arg(self.database(site.name));
        } else {
            let data = SocketAddr::new(site.lan(LAN[2].1)[0], DATA_PORT).to_string();
            command.args(["shop", "--site", site.name, "--name", &name, "--orders", &data, "--accounts", &data]);
        }
        for address in listen(site, host, number) {
            command.args(["--listen", &address.to_string()]);
        }
        self.process(&name).start(command, self.keep)
    }

    fn await_server(&self, name: &str, addresses: &[SocketAddr]) -> Result<()> {
        let process = self.process(name);
        let answers =
            || self.namespace(name).enter(|| Ok(TcpStream::connect_timeout(&addresses[0], PATIENCE)?)).is_ok();
        let ready =
            wait_until(STARTING, &format!("{name} accepts connections"), || process.running().is_none() || answers());
        ensure!(process.running().is_some(), "{name} has ended; {}", process.last_words());
        ready.with_context(|| process.last_words()).map(drop)
    }

    fn start_agents(&self) -> Result<()> {
        let fingerprints = [self.keygen(SITES[0])?, self.keygen(SITES[1])?];
        files::write_configurations(&files::Agents { directory: &self.directory, pins: &self.pins(), fingerprints })?;
        for site in SITES {
            self.start(site.name)?;
        }
        for site in SITES {
            self.agent(site.name)?.await_ready()?;
        }
        Ok(())
    }

    /// Makes a site's key; gives its fingerprint.
    fn keygen(&self, site: Site) -> Result<String> {
        let key = self.directory.join(format!("{}.pem", site.name));
        let output = Command::new(program("siteswap")?).args(["keygen", "--out"]).arg(&key).output()?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let fingerprint = printed.split_whitespace().find(|word| word.starts_with("sha256:"));
        let error = String::from_utf8_lossy(&output.stderr);
        fingerprint
            .map(String::from)
            .with_context(|| format!("siteswap keygen printed no fingerprint: {printed}{error}"))
    }

    fn agent_command(&self, site: Site) -> Result<Command> {
        let mut command = self.namespace(site.name).command(program("siteswap")?)?;
        command.args(["run", "--config"]).arg(self.directory.join(format!("{}.toml", site.name)));
        Ok(command)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = stale::remove(&self.prefix)
        {
            eprintln!("taking the lab down: {error:#}");
        }
    }
}

impl Node {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` inside, on a thread of its own.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.namespace.enter(work)
    }

    /// A command to be run inside.
    ///
    /// # Errors
    /// The lab is not up.
    pub fn command(&self, program: &str) -> Result<Command> {
        self.namespace.command(program)
    }

    /// Runs a command inside and waits for its end, successful or not.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn exec(&self, command: &[&str]) -> Result<Output> {
        let [program, arguments @ ..] = command else { bail!("no command to run on {}", self.name) };
        let run = self.command(program)?.args(arguments).stdin(Stdio::null()).output();
        run.with_context(|| format!("{}: cannot run {program}; is it installed?", self.name))
    }

    /// Adds firewall rules.
    fn rules(&self, rules: &str) -> Result<()> {
        let mut nft = self.command("nft")?;
        nft.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut nft = nft.spawn().context("cannot run nft; it is in the package nftables")?;
        nft.stdin.take().context("nft's input")?.write_all(rules.as_bytes())?;
        let output = nft.wait_with_output()?;
        ensure!(output.status.success(), "{}: nft: {}", self.name, String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }
}

impl Agent<'_> {
    /// SIGKILL.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again.
    ///
    /// # Errors
    /// It runs already.
    pub fn start(&self) -> Result<()> {
        self.lab.start(self.site.name)
    }

    /// What `siteswap status --json` says.
    ///
    /// # Errors
    /// It does not run, or says something else.
    pub fn status(&self) -> Result<serde_json::Value> {
        let output = self.command(&["status", "--json"])?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "siteswap status: {}", error.trim());
        serde_json::from_slice(&output.stdout).context("siteswap status --json printed no JSON")
    }

    /// Runs `siteswap` with these arguments against this agent.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn command(&self, arguments: &[&str]) -> Result<Output> {
        let control = self.lab.directory.join(format!("{}.sock", self.site.name));
        let mut command = Command::new(program("siteswap")?);
        command.args(arguments).arg("--control").arg(control);
        command.output().context("siteswap cannot be run")
    }

    /// Waits until it has measured everything once and answers.
    ///
    /// # Errors
    /// It ends, or is not ready in time; the error has the end of its log.
    pub fn await_ready(&self) -> Result<()> {
        let name = self.site.name;
        let is_ready = || self.status().is_ok_and(|status| status["ready"] == true);
        let ready = wait_until(STARTING, &format!("the agent at {name} is ready"), || {
            self.process.running().is_none() || is_ready()
        });
        ensure!(self.process.running().is_some(), "the agent at {name} has ended; {}", self.process.last_words());
        ready.with_context(|| self.process.last_words()).map(drop)
    }
}

/// What a LAN host's server listens on.
fn listen(site: Site, host: &str, number: u8) -> Vec<SocketAddr> {
    let port = if host == "db" { DATA_PORT } else { 80 };
    site.lan(number).map(|address| SocketAddr::new(address, port)).to_vec()
}

/// Node and interface where a cable is cut.
fn near_end(cable: &str) -> Result<(String, String)> {
    let mut cables = plan::cables();
    let names: Vec<String> = cables.iter().map(|cable| cable.name.clone()).collect();
    let found = names.iter().position(|name| name == cable);
    let index = found.with_context(|| format!("no cable is called {cable}; there are {}", names.join(", ")))?;
    Ok(cables.swap_remove(index).near)
}

/// A prefix no other lab has: this process's number and a counter.
fn free_prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("sswt-{}-{}-", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// One of the workspace's programs, from where this one was built.
fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    // Tests are one directory deeper than programs.
    let mut places = own.ancestors().skip(1).take(2).map(|directory| directory.join(name));
    places
        .find(|path| path.is_file())
        .with_context(|| format!("{name} is not built beside {}; `cargo build --workspace` builds it", own.display()))
}

/// The first public address of a site's name server.
pub fn name_server(site: Site) -> IpAddr {
    site.v4(Public::Dns).into()
}
