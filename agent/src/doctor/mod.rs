//! What commonly breaks such a set-up on a real host, and what mends it.
//!
//! `gather` asks the kernel for facts, and `echo` the peers; `edge` and `backend` judge them, without I/O.

mod backend;
mod echo;
mod edge;
mod facts;
mod gather;
mod offload;

use std::net::IpAddr;

use anyhow::ensure;
use serde::Serialize;

use crate::config::Config;

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked: `kernel`, `forwarding`, …
    pub check: &'static str,
    /// Of what: an interface, an address, a site.
    pub about: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found, and what follows from it.
    pub says: String,
    /// The command that mends it, where there is one.
    pub mend: Option<String>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but worse than it could, or not for everybody.
    Warning,
    /// It does not work.
    Problem,
}

impl Finding {
    fn new(check: &'static str, about: impl ToString, verdict: Verdict, says: impl Into<String>) -> Self {
        Self { check, about: about.to_string(), verdict, says: says.into(), mend: None }
    }

    fn ok(check: &'static str, about: impl ToString, says: impl Into<String>) -> Self {
        Self::new(check, about, Verdict::Ok, says)
    }

    fn warning(check: &'static str, about: impl ToString, says: impl Into<String>) -> Self {
        Self::new(check, about, Verdict::Warning, says)
    }

    fn problem(check: &'static str, about: impl ToString, says: impl Into<String>) -> Self {
        Self::new(check, about, Verdict::Problem, says)
    }

    fn mended_by(self, command: impl Into<String>) -> Self {
        Self { mend: Some(command.into()), ..self }
    }
}

/// Examines the edge host it runs on, as root, within a tokio runtime. Takes seconds where a neighbour does not answer.
///
/// Errors: it is not root, or the kernel does not say what there is.
pub async fn edge(config: &Config) -> anyhow::Result<Vec<Finding>> {
    root()?;
    Ok(edge::check(&gather::edge(config).await?))
}

/// Examines the backend host it runs on, which is to serve `addresses`. Otherwise as [`edge`].
pub async fn backend(addresses: &[IpAddr]) -> anyhow::Result<Vec<Finding>> {
    root()?;
    Ok(backend::check(&gather::host().await?, addresses))
}

fn root() -> anyhow::Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "run it as root: others may not see or ask for everything that is checked"
    );
    Ok(())
}

/// The command that sets a sysctl of an interface (or of `all`) for IPv4.
fn set_ipv4(interface: &str, setting: &str, value: u32) -> String {
    // Slashes also separate, and an interface's name may hold dots.
    let separator = if interface.contains('.') { '/' } else { '.' };
    let name = ["net", "ipv4", "conf", interface, setting].join(&separator.to_string());
    format!("sysctl -w {name}={value}")
}
