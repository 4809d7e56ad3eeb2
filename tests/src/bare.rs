//! Agents with a link and a database and nothing else, on this host's loopback: as many sites as a test wants. What has to
//! do with names, requests and networks needs a [`Lab`](crate::Lab).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::{self, File},
    io::{ErrorKind, Read as _},
    net::{Ipv4Addr, UdpSocket},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    pty::{grantpt, posix_openpt, ptsname_r, unlockpt},
};
use rusqlite::{Connection, types::Value};
use tempfile::TempDir;

use crate::{lab::build::program, process::Process, wait::wait_until};

/// How long a process may take to be ready.
const STARTING: Duration = Duration::from_secs(20);

/// What is bound to hold an address.
const HOLD: u16 = 7399;

/// Sites on loopback. Dropped, they are gone.
#[derive(Debug)]
pub struct Bare {
    directory: TempDir,
    sites: BTreeMap<String, Keyed>,
}

/// What the others must know of a site.
#[derive(Debug)]
struct Keyed {
    address: Address,
    fingerprint: String,
}

/// A loopback address that is this site's alone for as long as this lives, so that its ports are nobody else's: a port that
/// is free now may be another process's a moment later.
#[derive(Debug)]
struct Address {
    ip: Ipv4Addr,
    _held: UdpSocket,
}

impl Address {
    /// The first of 127.77.0.0/16 that nobody holds.
    fn free() -> Result<Self> {
        for last in 1..=u16::MAX {
            let [high, low] = last.to_be_bytes();
            let ip = Ipv4Addr::new(127, 77, high, low);
            match UdpSocket::bind((ip, HOLD)) {
                Ok(_held) => return Ok(Self { ip, _held }),
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                Err(error) => return Err(error).with_context(|| format!("{ip}:{HOLD} cannot be held")),
            }
        }
        bail!("every address of 127.77.0.0/16 is held")
    }
}

impl Bare {
    /// Sites of these names with the same empty database, whose agents run.
    ///
    /// # Errors
    /// The schema is none, or an agent does not start.
    pub fn up(names: &[&str], schema: &str) -> Result<Self> {
        let mut bare =
            Self { directory: tempfile::Builder::new().prefix("siteswap-bare-").tempdir()?, sites: BTreeMap::new() };
        for name in names {
            bare.add(name)?;
            let database = Connection::open(bare.database(name))?;
            database.execute_batch("PRAGMA journal_mode = WAL")?;
            database.execute_batch(schema)?;
        }
        bare.configure("")?;
        for name in names {
            bare.order(name, &["db", "attach"])?;
            bare.start(name)?;
        }
        for name in names {
            bare.await_ready(name)?;
        }
        Ok(bare)
    }

    /// Gives a site a key and an address. The others hear of it by [`configure`](Self::configure).
    ///
    /// # Errors
    /// The key cannot be made.
    pub fn add(&mut self, name: &str) -> Result<()> {
        let output =
            Command::new(program("siteswap")?).args(["keygen", "--out"]).arg(self.file(name, "pem")).output()?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let fingerprint = printed.split_whitespace().find(|word| word.starts_with("sha256:"));
        let fingerprint = fingerprint.context("siteswap keygen printed no fingerprint")?.to_owned();
        self.sites.insert(name.to_owned(), Keyed { address: Address::free()?, fingerprint });
        Ok(())
    }

    /// Writes the configuration of every site, with this in section `[database]`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn configure(&self, database: &str) -> Result<()> {
        let mut sites = String::new();
        for (name, Keyed { address, fingerprint }) in &self.sites {
            writeln!(sites, "[sites.{name}]\nlink = '{}:7400'\nfingerprint = '{fingerprint}'", address.ip)?;
        }
        for (name, Keyed { address: Address { ip, .. }, .. }) in &self.sites {
            let directory = self.directory.path().display();
            let text = format!(
                "[agent]\nsite = '{name}'\nstate = '{directory}/{name}'\ncontrol = '{directory}/{name}.sock'\n{sites}\
                 [link]\nkey = '{name}.pem'\nlisten = '{ip}:7400'\nperiod = '500ms'\nperiods = 3\n\
                 [dns]\nlisten = ['{ip}']\nport = 7453\n\
                 [database]\nfile = '{directory}/{name}.db'\n{database}\n"
            );
            fs::write(self.file(name, "toml"), text)?;
        }
        Ok(())
    }

    /// Starts a site's agent.
    ///
    /// # Errors
    /// It runs already, or cannot be started.
    pub fn start(&self, name: &str) -> Result<()> {
        let mut command = Command::new(program("siteswap")?);
        command.args(["run", "--config"]).arg(self.file(name, "toml"));
        self.process(name).start(command, false)
    }

    /// SIGKILL to a site's agent.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&self, name: &str) -> Result<()> {
        self.process(name).kill()
    }

    /// Waits until a site's agent answers on its control socket.
    ///
    /// # Errors
    /// It ends, or does not answer in time.
    pub fn await_ready(&self, name: &str) -> Result<()> {
        let process = self.process(name);
        let answers = || self.command(name, &["status"]).is_ok_and(|output| output.status.success());
        let ready =
            wait_until(STARTING, &format!("the agent at {name} is ready"), || process.running().is_none() || answers());
        ensure!(process.running().is_some(), "the agent at {name} has ended; {}", process.last_words());
        ready.with_context(|| process.last_words()).map(drop)
    }

    /// Runs `siteswap` with these arguments at a site.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn command(&self, name: &str, arguments: &[&str]) -> Result<Output> {
        self.siteswap(name, arguments)?.output().context("siteswap cannot be run")
    }

    /// The same, with a terminal for standard error: what that shows is in `stderr`.
    ///
    /// # Errors
    /// It cannot be run, or there is no terminal for it.
    pub fn on_terminal(&self, name: &str, arguments: &[&str]) -> Result<Output> {
        // Another test's process that held an end would keep the other from being read to its end.
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let mut ours = posix_openpt(flags)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let its = File::options().write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(ptsname_r(&ours)?)?;
        let mut command = self.siteswap(name, arguments)?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(its).spawn()?;
        drop(command);
        let mut shown = Vec::new();
        match ours.read_to_end(&mut shown) {
            // Nobody has the other end any more.
            Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) => {}
            read => drop(read?),
        }
        let output = child.wait_with_output()?;
        Ok(Output { stderr: shown, ..output })
    }

    /// `siteswap` with these arguments at a site, to be run.
    ///
    /// # Errors
    /// It is not built.
    pub fn siteswap(&self, name: &str, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(program("siteswap")?);
        command.args(arguments);
        command.env("SITESWAP_CONFIG", self.file(name, "toml")).env("SITESWAP_CONTROL", self.file(name, "sock"));
        Ok(command)
    }

    /// The same; gives what it printed.
    ///
    /// # Errors
    /// It fails; the error is what it says.
    pub fn order(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let output = self.command(name, arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "siteswap {} at {name}: {}", arguments.join(" "), said.trim());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The same with `--json`; gives its exit code and what it printed.
    ///
    /// # Errors
    /// It prints no JSON; the error is what it says.
    pub fn json(&self, name: &str, arguments: &[&str]) -> Result<(Option<i32>, serde_json::Value)> {
        let output = self.command(name, &[arguments, &["--json"]].concat())?;
        let said = String::from_utf8_lossy(&output.stderr);
        let json = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("siteswap {} at {name}: {}", arguments.join(" "), said.trim()))?;
        Ok((output.status.code(), json))
    }

    /// A site's database.
    pub fn database(&self, name: &str) -> PathBuf {
        self.file(name, "db")
    }

    /// A connection to it, as applications have them.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn application(&self, name: &str) -> Result<Connection> {
        let database = Connection::open(self.database(name))?;
        database.busy_timeout(Duration::from_secs(10))?;
        database.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON")?;
        Ok(database)
    }

    /// A table's rows at a site.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn rows(&self, name: &str, table: &str) -> Result<BTreeSet<String>> {
        let database = self.application(name)?;
        let mut statement = database.prepare(&format!("SELECT * FROM {table}"))?;
        let columns = statement.column_count();
        let row = statement.query_map([], |row| {
            let values = (0..columns).map(|column| row.get::<_, Value>(column)).collect::<Result<Vec<_>, _>>()?;
            Ok(format!("{values:?}"))
        })?;
        Ok(row.collect::<Result<_, _>>()?)
    }

    /// Waits until nothing waits for a peer at any of these sites and a table is the same at all of them. Gives its rows.
    ///
    /// # Errors
    /// Not in time; the error says what the agents say.
    pub fn await_same(&self, names: &[&str], table: &str, deadline: Duration) -> Result<BTreeSet<String>> {
        let mut rows = Vec::new();
        let same = wait_until(deadline, &format!("{table} is the same everywhere"), || {
            let all: Result<Vec<_>> = names.iter().map(|name| self.rows(name, table)).collect();
            let waiting = names.iter().any(|name| !self.has_sent_all(name).unwrap_or(false));
            rows = all.unwrap_or_default();
            !waiting && !rows.is_empty() && rows.windows(2).all(|pair| pair[0] == pair[1])
        });
        same.with_context(|| self.said(names))?;
        Ok(rows.remove(0))
    }

    fn has_sent_all(&self, name: &str) -> Result<bool> {
        let database = self.application(name)?;
        // The agent leaves the newest touch where it is.
        let count =
            |table: &str| database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, u64>(0));
        Ok(count("_ssw_touch")? <= 1 && count("_ssw_change")? == 0)
    }

    fn said(&self, names: &[&str]) -> String {
        let of = |name: &&str| {
            let status = self.order(name, &["db", "status"]).unwrap_or_else(|error| format!("{error:#}"));
            format!("{name}: {status}\n{}", self.process(name).last_words())
        };
        names.iter().map(of).collect::<Vec<_>>().join("\n")
    }

    fn process(&self, name: &str) -> Process {
        Process::named(self.directory.path(), name)
    }

    /// A site's file.
    pub fn file(&self, name: &str, kind: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.{kind}"))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        for process in Process::all(self.directory.path()) {
            // One that does not run is as good.
            let _ = process.kill();
        }
    }
}
