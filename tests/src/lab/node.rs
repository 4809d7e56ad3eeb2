//! One node of a lab.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::netns::Netns;

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    pub(super) name: String,
    pub(super) namespace: Netns,
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
    ///
    /// # Errors
    /// nft refuses them.
    pub fn rules(&self, rules: &str) -> Result<()> {
        let mut nft = self.command("nft")?;
        nft.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut nft = nft.spawn().context("cannot run nft; it is in the package nftables")?;
        nft.stdin.take().context("nft's input")?.write_all(rules.as_bytes())?;
        let output = nft.wait_with_output()?;
        ensure!(output.status.success(), "{}: nft: {}", self.name, String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    /// What the rules of a table have counted, in packets, in the order of the rules that count.
    ///
    /// # Errors
    /// There is no such table.
    pub fn counted(&self, table: &str) -> Result<Vec<u64>> {
        let listing = self.exec(&["nft", "--json", "list", "table", "inet", table])?;
        ensure!(listing.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&listing.stderr).trim());
        let listing: serde_json::Value = serde_json::from_slice(&listing.stdout)?;
        let rules = listing["nftables"].as_array().into_iter().flatten();
        let parts = rules.filter_map(|object| object["rule"]["expr"].as_array()).flatten();
        Ok(parts.filter_map(|part| part["counter"]["packets"].as_u64()).collect())
    }
}
