//! The agent of one site of a lab.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};

use super::{
    Lab,
    build::{STARTING, program},
};
use crate::{
    plan::{Public, Site},
    process::Process,
    wait::wait_until,
};

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

    /// What `siteswap db status --json` says, good or bad.
    ///
    /// # Errors
    /// It does not run, or says something else.
    pub fn database_status(&self) -> Result<serde_json::Value> {
        let output = self.command(&["db", "status", "--json"])?;
        serde_json::from_slice(&output.stdout).context("siteswap db status --json printed no JSON")
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

    /// Runs `siteswap` with these arguments against this agent, and gives what it printed.
    ///
    /// # Errors
    /// It fails; the error is what it says.
    pub fn order(&self, arguments: &[&str]) -> Result<String> {
        printed(&self.command(arguments)?)
    }

    /// Runs `siteswap db` with these arguments on the site's database, and gives what it printed.
    ///
    /// # Errors
    /// It fails; the error is what it says.
    pub fn database(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program("siteswap")?);
        command.arg("db").args(arguments).arg("--config").arg(self.configuration());
        printed(&command.output().context("siteswap cannot be run")?)
    }

    /// Replaces `from` by `to`, wherever it is in its configuration file. It reads the file again when told to.
    ///
    /// # Errors
    /// The file does not contain `from`.
    pub fn edit(&self, from: &str, to: &str) -> Result<()> {
        let file = self.configuration();
        let text = fs::read_to_string(&file)?;
        ensure!(text.contains(from), "{} does not contain {from:?}", file.display());
        fs::write(&file, text.replace(from, to)).with_context(|| file.display().to_string())
    }

    fn configuration(&self) -> PathBuf {
        self.lab.directory.join(format!("{}.toml", self.site.name))
    }

    /// What `status` says about a resource.
    ///
    /// # Errors
    /// Those of `status`.
    pub fn resource(&self, resource: Public) -> Result<serde_json::Value> {
        let mut status = self.status()?;
        let mut all = status["resources"].as_array_mut().into_iter().flatten();
        let found = all.find(|found| found["name"] == resource.name());
        found.map(serde_json::Value::take).with_context(|| format!("status has no resource {}", resource.name()))
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

/// What a program printed; what it complained of, if it failed.
fn printed(output: &Output) -> Result<String> {
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout.clone())?)
}
