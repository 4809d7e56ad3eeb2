//! The lab itself: built from the plan, taken down completely.

mod agent;
pub(crate) mod build;
mod databases;
mod disk;
mod expect;
mod faults;
mod node;
mod routes;
mod users;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, ensure};

pub use self::{
    agent::Agent,
    databases::{Conflict, Waiting},
    disk::Disk,
    expect::FAMILIES,
    node::Node,
};
use crate::{
    files,
    netns::Netns,
    plan::{self, Site},
    process::Process,
    stale,
};

/// The prefix of the lab made by hand.
pub const BY_HAND: &str = "ssw-";

/// What kind of lab.
#[derive(Clone, Debug)]
pub struct Options {
    /// What its namespaces' names begin with. `None`: a free one.
    pub prefix: Option<String>,
    /// SQL for tables and rows of both databases, besides the shop's.
    pub tables: String,
    /// What both agents' configurations end with, besides the usual.
    pub rules: String,
    /// Whether the agents run. Without, it is the network, the shops and the data tier, and the edges' kernels route
    /// requests to them.
    pub agents: bool,
    /// It stands until it is taken down by hand, longer than this process.
    pub keep: bool,
    /// Told what is being done.
    pub progress: fn(&str),
}

impl Default for Options {
    fn default() -> Self {
        Self { prefix: None, tables: String::new(), rules: String::new(), agents: true, keep: false, progress: |_| {} }
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
        stale::own(&lab.directory)?;
        (options.progress)("network: a WAN with two regions of users, two sites, the inter-centre link");
        lab.build_network()?;
        (options.progress)("databases, data tier and web servers at both sites");
        lab.start_servers(&options.tables)?;
        if options.agents {
            (options.progress)("agents: keys, configuration, XDP program on each edge");
            lab.start_agents(&options.rules)?;
        } else {
            lab.route_requests()?;
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

    /// The file of a site's database.
    pub fn database(&self, site: &str) -> PathBuf {
        files::database(&self.directory, site)
    }

    fn namespace(&self, node: &str) -> Netns {
        Netns::named(&format!("{}{node}", self.prefix))
    }

    fn process(&self, name: &str) -> Process {
        Process::named(&self.directory, name)
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

/// A prefix no other lab has: this process's number and a counter.
fn free_prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("sswt-{}-{}-", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
