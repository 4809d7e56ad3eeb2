//! How a lab is put up.

use std::{
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::Lab;
use crate::{
    files, links,
    plan::{self, Cable, DATA_PORT, DB, Host, LAN, Part, Programs, Public, SITES, Site},
    stub,
    wait::wait_until,
};

/// How long a process may take to be ready.
pub(super) const STARTING: Duration = Duration::from_secs(20);

impl Lab {
    pub(super) fn build_network(&self) -> Result<()> {
        stub::prepare(&self.pins())?;
        for name in plan::nodes() {
            let node = self.namespace(&name);
            node.create()?;
            links::prepare(&node, Part::of(&name))?;
        }
        for cable in plan::cables() {
            self.lay(&cable)?;
        }
        for site in SITES {
            links::bridge(&self.namespace(&site.switch()), "br0", &plan::ports())?;
        }
        for name in plan::nodes() {
            links::address(&self.namespace(&name), &name)?;
        }
        Ok(())
    }

    fn lay(&self, cable: &Cable) -> Result<()> {
        let ends = [&cable.near, &cable.far].map(|(node, interface)| (self.namespace(node), interface.as_str()));
        let [(near, near_interface), (far, far_interface)] = &ends;
        links::connect(near, near_interface, far, far_interface)?;
        if cable.programs != Programs::Neither {
            for (node, interface) in &ends {
                links::complete_checksums(node, interface)?;
            }
        }
        if cable.programs == Programs::Far {
            stub::attach(near, near_interface, &self.pins(), &cable.name)?;
        }
        Ok(())
    }

    pub(super) fn start_servers(&self, tables: &str) -> Result<()> {
        for site in SITES {
            files::create_database(&self.database(site.name), tables)?;
            for host in LAN {
                self.start(&site.node(host.name))?;
            }
        }
        for site in SITES {
            for host in LAN {
                self.await_start(&site.node(host.name), SocketAddr::new(site.lan(host.number)[0], host.port()))?;
            }
        }
        Ok(())
    }

    pub(super) fn server_command(&self, site: Site, host: Host) -> Result<Command> {
        let name = site.node(host.name);
        let mut command = self.namespace(&name).command(program("siteswap-lab")?)?;
        if host == DB {
            command.args(["data", "--site", site.name, "--name", &format!("db-{}", site.name)]);
            command.arg("--db").arg(self.database(site.name));
        } else {
            command.args(["shop", "--site", site.name, "--name", &name]);
            for (option, address) in [
                ("--orders", site.v4(Public::Orders).into()),
                ("--accounts", site.v4(Public::Accounts).into()),
                ("--database", site.lan(DB.number)[0]),
            ] {
                command.args([option, &SocketAddr::new(address, DATA_PORT).to_string()]);
            }
        }
        // One socket for each address, so that every reply leaves from the address asked.
        for address in site.lan(host.number).into_iter().chain(host.resources()) {
            command.args(["--listen", &SocketAddr::new(address, host.port()).to_string()]);
        }
        Ok(command)
    }

    /// Waits until a site's data tier can be told something.
    ///
    /// # Errors
    /// It ends, or does not accept connections in time.
    pub fn await_data_tier(&self, site: Site) -> Result<()> {
        self.await_start(&site.node(DB.name), SocketAddr::new(site.lan(DB.number)[0], DATA_PORT))
    }

    fn await_start(&self, name: &str, address: SocketAddr) -> Result<()> {
        let process = self.process(name);
        let answers = || self.namespace(name).enter(|| Ok(TcpStream::connect(address)?)).is_ok();
        let ready =
            wait_until(STARTING, &format!("{name} accepts connections"), || process.running().is_none() || answers());
        ensure!(process.running().is_some(), "{name} has ended; {}", process.last_words());
        ready.with_context(|| process.last_words()).map(drop)
    }

    pub(super) fn start_agents(&self, rules: &str) -> Result<()> {
        let fingerprints = [self.keygen(SITES[0])?, self.keygen(SITES[1])?];
        let (directory, pins) = (&self.directory, &self.pins());
        files::write_configurations(&files::Agents { directory, pins, rules, fingerprints })?;
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

    pub(super) fn agent_command(&self, site: Site) -> Result<Command> {
        let mut command = self.namespace(site.name).command(program("siteswap")?)?;
        command.args(["run", "--config"]).arg(self.directory.join(format!("{}.toml", site.name)));
        Ok(command)
    }
}

/// One of the workspace's programs, from where this one was built.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    // Tests are one directory deeper than programs.
    let mut places = own.ancestors().skip(1).take(2).map(|directory| directory.join(name));
    places
        .find(|path| path.is_file())
        .with_context(|| format!("{name} is not built beside {}; `cargo build --workspace` builds it", own.display()))
}
