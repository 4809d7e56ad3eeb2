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
    plan::{self, DATA_PORT, LAN, SITES, Site},
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

    pub(super) fn start_servers(&self) -> Result<()> {
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

    pub(super) fn start_server(&self, site: Site, host: &str, number: u8) -> Result<()> {
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
        let answers = || self.namespace(name).enter(|| Ok(TcpStream::connect(addresses[0])?)).is_ok();
        let ready =
            wait_until(STARTING, &format!("{name} accepts connections"), || process.running().is_none() || answers());
        ensure!(process.running().is_some(), "{name} has ended; {}", process.last_words());
        ready.with_context(|| process.last_words()).map(drop)
    }

    pub(super) fn start_agents(&self) -> Result<()> {
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

    pub(super) fn agent_command(&self, site: Site) -> Result<Command> {
        let mut command = self.namespace(site.name).command(program("siteswap")?)?;
        command.args(["run", "--config"]).arg(self.directory.join(format!("{}.toml", site.name)));
        Ok(command)
    }
}

/// What a LAN host's server listens on.
fn listen(site: Site, host: &str, number: u8) -> Vec<SocketAddr> {
    let port = if host == "db" { DATA_PORT } else { 80 };
    site.lan(number).map(|address| SocketAddr::new(address, port)).to_vec()
}

/// One of the workspace's programs, from where this one was built.
pub(super) fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    // Tests are one directory deeper than programs.
    let mut places = own.ancestors().skip(1).take(2).map(|directory| directory.join(name));
    places
        .find(|path| path.is_file())
        .with_context(|| format!("{name} is not built beside {}; `cargo build --workspace` builds it", own.display()))
}
