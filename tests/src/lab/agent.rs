//! The agent of one site of a lab.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use super::{
    Lab,
    build::{STARTING, program},
};
use crate::{plan::Site, process::Process, wait::wait_until};

/// The agent of one site.
#[derive(Debug)]
pub struct Agent<'a> {
    pub(super) lab: &'a Lab,
    pub(super) process: Process,
    pub(super) site: Site,
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
