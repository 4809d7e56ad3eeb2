//! The command line.

mod db;
mod doctor;
mod print;
mod show;

use std::{
    io::IsTerminal,
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    config,
    control::{
        self,
        api::{Drain, Explain, ExplainPacket, SetOverride, Swap},
        client::Client,
    },
    dataplane::Dataplane,
    dns,
    doctor::Verdict,
    link,
    placement::Override,
    run, steering,
};
use print::say;

/// Two or more data centres, one service.
///
/// `run` is the agent of one site. The other commands talk to it over its control socket, or work on files.
#[derive(Debug, Parser)]
#[command(name = "siteswap", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Where the agent listens for the command line.
#[derive(Debug, Args)]
struct Socket {
    /// The agent's control socket, as in its configuration ([agent] control).
    #[arg(long, env = "SITESWAP_CONTROL", default_value = "/run/siteswap/control.sock", value_name = "PATH")]
    control: PathBuf,
}

/// How long to wait for the other sites.
#[derive(Debug, Args)]
struct Wait {
    /// Seconds to wait until the other sites have followed.
    #[arg(long = "wait", default_value_t = 10, value_name = "SECONDS")]
    seconds: u32,
}

impl Wait {
    fn millis(&self) -> u64 {
        u64::from(self.seconds) * 1000
    }
}

/// Which configuration.
#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(long, env = "SITESWAP_CONFIG", default_value = "/etc/siteswap/siteswap.toml", value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run this site's agent until it is told to stop.
    ///
    /// SIGTERM leaves the XDP program in place for the lease, so that a restart loses no query; Ctrl-C takes it away.
    /// SIGHUP reads the configuration again. What is logged: SITESWAP_LOG (`info` if unset; `siteswap=debug`).
    Run(ConfigFile),
    /// Check a configuration, its zone files and its key, without touching anything that runs.
    Check {
        #[command(flatten)]
        file: ConfigFile,
        /// Print the summary as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make this site's key, and print the fingerprint that goes into every site's configuration.
    Keygen {
        /// Where certificate and private key go, as PEM, readable by the owner only.
        #[arg(long, default_value = "siteswap.pem", value_name = "FILE")]
        out: PathBuf,
        /// Replace an existing file: peers refuse this site until they have the new fingerprint.
        #[arg(long)]
        force: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show resources, backends, peers, the program and its counters.
    ///
    /// Exit code 0: ready. 3: the agent runs but its first round of probes is not over. 1: no agent answers.
    Status {
        #[command(flatten)]
        socket: Socket,
        /// Print all of it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take an instance out of service, force it in, or give it back to the probes.
    ///
    /// `siteswap set www down` takes this site's instance out at every site. `siteswap set www@west down` leaves west out
    /// of the answers of this site only. What is measured stays visible in `status`, and `auto` believes it again.
    Set {
        #[command(flatten)]
        socket: Socket,
        /// The resource, and the site of the instance if it is not this one.
        #[arg(value_name = "RESOURCE[@SITE]")]
        instance: String,
        /// What to believe.
        state: Believe,
    },
    /// List every resource at every site: its state, who holds it in which epoch, why, and since when.
    Instances {
        #[command(flatten)]
        socket: Socket,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a site the holder of a resource: new requests go there, established flows finish where they are.
    ///
    /// Run it at any site. The new holder raises the epoch once and stores it; the others adopt it from its report, and the
    /// command waits for them. Flows have the resource's `drain_time` to finish. A resource with several active
    /// instances has one holder afterwards, and the others stand by, until `--as-configured` makes all of them active
    /// again.
    ///
    /// Exit code 0: it is so, and all sites in contact know. 3: it is so, but one of them had not adopted that in time. 1: nothing was changed, or it is not known; the message says which. Interrupting the command undoes
    /// nothing: the swap is done or not, never half.
    Swap {
        #[command(flatten)]
        socket: Socket,
        /// The resource.
        resource: String,
        /// The site that shall hold it.
        #[arg(long, value_name = "SITE", required_unless_present = "as_configured")]
        to: Option<String>,
        /// Make roles as configured: the site configured as active holds it, or all of them are active again. The first
        /// of them that is available begins the epoch.
        #[arg(long, conflicts_with = "to")]
        as_configured: bool,
        /// Take it also if the old holder cannot say what it has committed to the database, or that does not arrive in
        /// time. What is missing comes later, and may be in conflict with what was written by then.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        wait: Wait,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Empty a site: its instances leave all answers, what it holds goes to other sites, established flows finish.
    ///
    /// Run it at any site. It is stored at the drained site and survives restarts. Each resource it holds is taken by the
    /// first available other site of the resource's order. Where there is none, the drained site goes on serving until
    /// there is.
    ///
    /// Exit code 0: nothing is left there. 3: drained, but something stays, and the command says what.
    Drain {
        #[command(flatten)]
        socket: Socket,
        /// The site.
        site: String,
        #[command(flatten)]
        wait: Wait,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Let a drained site's instances count again. What it held returns by `failback = "auto"`, or by `swap`.
    Undrain {
        #[command(flatten)]
        socket: Socket,
        /// The site.
        site: String,
    },
    /// Say which rule put which address where in the answer for a name, or what would become of a packet.
    ///
    /// A packet goes through the program as it is attached, on its maps, but changes nothing in them and is not sent:
    /// flows go on and nothing is counted. `siteswap explain --packet tcp 203.0.113.10:40000 192.0.2.80:80`
    Explain {
        #[command(flatten)]
        socket: Socket,
        /// A domain name.
        #[arg(required_unless_present = "packet", conflicts_with = "packet")]
        name: Option<String>,
        /// Explain it for this client.
        #[arg(long, value_name = "ADDR", conflicts_with = "packet")]
        client: Option<IpAddr>,
        /// A packet: `tcp` or `udp`, its source and its destination with their ports; or a whole Ethernet frame in
        /// hexadecimal digits.
        #[arg(long, num_args = 1..=3, value_names = ["PROTOCOL", "SOURCE", "DESTINATION"])]
        packet: Option<Vec<String>>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Examine this host: what commonly breaks such a set-up, and the commands that mend it. Changes nothing.
    ///
    /// On the edge host, as root, with the agent running or not. On a backend host: `siteswap doctor --backend ADDRESS…`
    /// with the addresses of the resources it serves; that needs no configuration.
    ///
    /// Exit code 0: no problem, though perhaps warnings. 1: a problem. 2: wrong usage.
    Doctor {
        #[command(flatten)]
        file: ConfigFile,
        /// Examine a backend that is to serve these addresses.
        #[arg(long, value_name = "ADDRESS", num_args = 1..)]
        backend: Vec<IpAddr>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Work on the database that is kept the same at all sites.
    Db {
        #[command(subcommand)]
        command: db::Db,
    },
    /// Have the agent read its configuration again; a bad one is refused and the old one stays.
    Reload(Socket),
    /// Take the XDP program off its interfaces and remove its pinned maps. Not while the agent runs: Ctrl-C does it then.
    Detach(ConfigFile),
}

/// What `set` sets.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Believe {
    /// Available, whatever the probes say.
    Up,
    /// Not available, whatever the probes say.
    Down,
    /// What the probes say.
    Auto,
}

/// Runs a command line; errors go to standard error.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match execute(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("siteswap: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(file) => {
            log();
            runtime(1)?.block_on(run::run(absolute(&file.config)?))?;
        }
        Command::Check { file, json } => return check(&file.config, json),
        Command::Keygen { out, force, json } => {
            let fingerprint = link::keys::generate(&out, force)?;
            let fingerprint = fingerprint.to_string();
            say(json, &serde_json::json!({ "file": out, "fingerprint": fingerprint }), &fingerprint)?;
            if !json {
                eprintln!("key written to {}; put the fingerprint under [sites.NAME] at every site", out.display());
            }
        }
        Command::Status { socket, json } => {
            let status = runtime(1)?.block_on(Client::new(&socket.control).status())?;
            say(json, &status, &show::status(&status, colours()))?;
            return Ok(if status.ready { ExitCode::SUCCESS } else { ExitCode::from(3) });
        }
        Command::Set { socket, instance, state } => {
            runtime(1)?.block_on(Client::new(&socket.control).set(&order(&instance, state)))?;
        }
        Command::Instances { socket, json } => {
            let rows = runtime(1)?.block_on(Client::new(&socket.control).instances())?;
            say(json, &rows, &show::instances(&rows, run::unix_millis() / 1000, colours()))?;
        }
        Command::Swap { socket, resource, to, force, wait, json, .. } => {
            let order = Swap { resource, to, force, wait_ms: wait.millis() };
            let swapped = runtime(1)?.block_on(Client::new(&socket.control).swap(&order))?;
            say(json, &swapped, &show::swapped(&swapped))?;
            return Ok(if swapped.waiting.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(3) });
        }
        Command::Drain { socket, site, wait, json } => {
            let order = Drain { site, drained: true, wait_ms: wait.millis() };
            let drained = runtime(1)?.block_on(Client::new(&socket.control).drain(&order))?;
            say(json, &drained, &show::drained(&order.site, &drained))?;
            let empty = drained.stays.is_empty() && drained.waiting.is_empty();
            return Ok(if empty { ExitCode::SUCCESS } else { ExitCode::from(3) });
        }
        Command::Undrain { socket, site } => {
            let order = Drain { site, drained: false, wait_ms: 0 };
            runtime(1)?.block_on(Client::new(&socket.control).drain(&order))?;
        }
        Command::Explain { socket, packet: Some(packet), json, .. } => {
            let question = ExplainPacket { frame: control::packet::frame(&packet).map_err(anyhow::Error::msg)? };
            let explained = runtime(1)?.block_on(Client::new(&socket.control).explain_packet(&question))?;
            say(json, &explained, &explained.lines.join("\n"))?;
        }
        Command::Explain { socket, name, client, json, .. } => {
            let question = Explain { name: name.unwrap_or_default(), client };
            let explanation = runtime(1)?.block_on(Client::new(&socket.control).explain(&question))?;
            say(json, &explanation, &explanation.lines.join("\n"))?;
        }
        Command::Doctor { file, backend, json } => {
            let findings = match &backend[..] {
                [] => runtime(1)?.block_on(crate::doctor::edge(&config::load(&file.config)?))?,
                addresses => runtime(1)?.block_on(crate::doctor::backend(addresses))?,
            };
            say(json, &findings, &doctor::findings(&findings, colours()))?;
            if findings.iter().any(|finding| finding.verdict == Verdict::Problem) {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Db { command } => return db::execute(command),
        Command::Reload(socket) => runtime(1)?.block_on(Client::new(&socket.control).reload())?,
        Command::Detach(file) => return detach(&file.config),
    }
    Ok(ExitCode::SUCCESS)
}

fn order(instance: &str, state: Believe) -> SetOverride {
    let (resource, site) = match instance.split_once('@') {
        Some((resource, site)) => (resource, Some(site.to_owned())),
        None => (instance, None),
    };
    let state = match state {
        Believe::Up => Some(Override::Up),
        Believe::Down => Some(Override::Down),
        Believe::Auto => None,
    };
    SetOverride { resource: resource.to_owned(), site, state }
}

fn check(file: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let config = Arc::new(config::load(file)?);
    let zones = dns::Zones::load(&config.dns.zones, &config.resources)?;
    let identity = link::keys::load(&config.link.key)?;
    let (own, configured) = (identity.fingerprint(), config.sites[&config.site].fingerprint);
    anyhow::ensure!(
        own == configured,
        "{}: the key in {} has the fingerprint {own}, but [sites.{}] says {configured}: peers would refuse this site",
        file.display(),
        config.link.key.display(),
        config.site
    );
    if let [first, ..] = &crate::probe::check(&config)[..] {
        anyhow::bail!("{}: {first}", file.display());
    }
    let warnings = zones.warnings().iter().map(ToString::to_string);
    let warnings: Vec<String> = warnings.chain(steering::crowded(&config)).collect();
    if !json {
        warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    }
    let (sites, resources, zones) = (config.sites.len(), config.resources.len(), config.dns.zones.len());
    let object = serde_json::json!({
        "site": config.site, "sites": sites, "resources": resources, "zones": zones, "warnings": warnings,
    });
    let (file, site) = (file.display(), &config.site);
    say(json, &object, &format!("{file}: good. Site {site} of {sites}, {resources} resources, {zones} zones."))
}

fn detach(file: &Path) -> anyhow::Result<ExitCode> {
    let config = config::load(file)?;
    if std::os::unix::net::UnixStream::connect(&config.control).is_ok() {
        anyhow::bail!("the agent runs: stop it first (Ctrl-C, or SIGINT, detaches the program too)");
    }
    let found = Dataplane::detach_pinned(&config.dataplane.pins)?;
    say(false, &found, if found { "the program is detached" } else { "there was no program" })
}

/// Relative paths in the configuration are relative to the file, so its own must not depend on the working directory.
fn absolute(file: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(file).with_context(|| format!("the path {}", file.display()))
}

fn runtime(threads: usize) -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .context("starting the runtime")
}

fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SITESWAP_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .init();
}
