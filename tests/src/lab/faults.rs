//! What goes wrong in a lab, on purpose.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use super::Lab;
use crate::{
    files, links,
    plan::{self, LAN, SITES, Site},
};

impl Lab {
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
        self.process(name).start(self.command(name)?, self.keep)
    }

    /// Starts the process of a node with a clock that is so much ahead of everybody else's.
    ///
    /// # Errors
    /// Those of `start`.
    pub fn start_ahead(&self, name: &str, by: Duration) -> Result<()> {
        let mut command = self.command(name)?;
        // The dynamic linker knows what $LIB is. Spans of time stay what they are.
        command.env("LD_PRELOAD", "/usr/$LIB/faketime/libfaketimeMT.so.1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.env("FAKETIME", format!("+{}", by.as_secs()));
        self.process(name).start(command, self.keep)
    }

    fn command(&self, name: &str) -> Result<Command> {
        if let Some(site) = Site::named(name) {
            return self.agent_command(site);
        }
        for site in SITES {
            for host in LAN {
                if site.node(host.name) == name {
                    return self.server_command(site, host);
                }
            }
        }
        bail!("no process belongs to {name:?}; they are the nodes of the sites")
    }

    /// Cuts a cable: `link`, or the one named after the client, site, LAN or host it leads to.
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
        links::restore_routes(&self.namespace(&node), &node)
    }

    /// Ends a whole site: its servers, its agent and its cables.
    ///
    /// # Errors
    /// Part of it does not run.
    pub fn destroy(&self, site: Site) -> Result<()> {
        for host in LAN {
            self.kill(&site.node(host.name))?;
        }
        self.kill(site.name)?;
        site_cables(site).iter().try_for_each(|cable| self.cut(cable))
    }

    /// Brings back what `destroy` ended, and waits until its agent is ready.
    ///
    /// # Errors
    /// Part of it runs already, or the agent is not ready in time.
    pub fn revive(&self, site: Site) -> Result<()> {
        site_cables(site).iter().try_for_each(|cable| self.mend(cable))?;
        for host in LAN {
            self.start(&site.node(host.name))?;
        }
        self.start(site.name)?;
        self.agent(site.name)?.await_ready()
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
        self.node(site)?.counted("siteswap-loss")?.first().copied().context("nft shows no counter")
    }
}

/// The cables of a site's edge.
fn site_cables(site: Site) -> [String; 3] {
    [site.name.into(), "link".into(), site.switch()]
}

/// Node and interface where a cable is cut.
fn near_end(cable: &str) -> Result<(String, String)> {
    let mut cables = plan::cables();
    let names: Vec<String> = cables.iter().map(|cable| cable.name.clone()).collect();
    let found = names.iter().position(|name| name == cable);
    let index = found.with_context(|| format!("no cable is called {cable}; there are {}", names.join(", ")))?;
    Ok(cables.swap_remove(index).near)
}
