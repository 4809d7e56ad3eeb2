//! Debian packages: installed only when they lack, and without starting any daemon that comes in them.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::{
    tasks::{need_root, succeed},
    terminal, toolchain,
};

/// Packages that start a daemon on port 53 when they are installed, and at each boot.
const DAEMONS: [&str; 2] = ["knot", "gdnsd"];

/// Whether this machine has apt.
pub fn available() -> bool {
    toolchain::find("apt-get").is_some() && toolchain::find("dpkg-query").is_some()
}

/// Whether `package` is installed.
pub fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

/// Installs `wanted`: packages, each with the reason it is wanted for.
pub fn install(wanted: &[(String, &'static str)]) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = wanted.iter().map(|(package, _)| package.as_str()).collect();
    terminal::step("installing packages");
    for (package, why) in wanted {
        terminal::lack(&format!("{package}: {why}"));
    }
    if !available() {
        bail!("there is no apt-get here: install what Debian calls {}", names.join(", "));
    }
    need_root("installing packages")?;

    let daemons: Vec<_> = names.iter().copied().filter(|name| DAEMONS.contains(name)).collect();
    let guard = if daemons.is_empty() { None } else { Some(NoStart::place(Path::new("/usr/sbin/policy-rc.d"))?) };
    succeed(apt().arg("update").arg("-qq")).context("the package lists could not be refreshed")?;
    succeed(apt().args(["install", "-qq", "--no-install-recommends", "--no-remove", "--yes"]).args(&names))
        .with_context(|| format!("not installed: {}", names.join(", ")))?;
    disable(&daemons);
    drop(guard);
    Ok(())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    // Standard output is the task's own.
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(std::io::stderr());
    command
}

/// Keeps daemons that set-up brought in from starting at the next boot. Where there is no systemd nothing would.
fn disable(daemons: &[&str]) {
    if daemons.is_empty() || toolchain::find("systemctl").is_none() {
        return;
    }
    let mut command = Command::new("systemctl");
    command.args(["disable", "--quiet"]).args(daemons).stdout(Stdio::null());
    if !command.status().is_ok_and(|status| status.success()) {
        eprintln!("  could not disable {}: they may start at the next boot", daemons.join(" and "));
    }
}

/// While it lives, packages that are installed start nothing (`policy-rc.d` answers 101: forbidden).
struct NoStart {
    policy: Option<Policy>,
}

struct Policy {
    file: PathBuf,
    /// The one that was there before.
    saved: Option<PathBuf>,
}

impl NoStart {
    fn place(file: &Path) -> Result<Self> {
        let saved = file.with_extension("d.siteswap-saved");
        if saved.exists() {
            // An earlier set-up was killed outright.
            fs::rename(&saved, file)?;
        }
        if Command::new(file).args(["knot", "start"]).status().is_ok_and(|status| status.code() == Some(101)) {
            return Ok(Self { policy: None });
        }
        outlive_signals()?;
        let saved = if file.exists() {
            fs::rename(file, &saved)?;
            Some(saved)
        } else {
            None
        };
        let policy = Policy { file: file.to_owned(), saved };
        fs::write(file, "#!/bin/sh\n# Placed by siteswap's set-up for the time of an installation.\nexit 101\n")
            .and_then(|()| fs::set_permissions(file, Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self { policy: Some(policy) })
    }
}

impl Drop for NoStart {
    fn drop(&mut self) {
        let Some(Policy { file, saved }) = self.policy.take() else {
            return;
        };
        let restored = match saved {
            Some(saved) => fs::rename(saved, &file),
            None => fs::remove_file(&file),
        };
        if let Err(error) = restored {
            eprintln!("  could not restore {}: {error}", file.display());
        }
    }
}

/// Lets Ctrl-C end apt, and this process go on to clean up. A handler, unlike ignoring, is not inherited by apt.
fn outlive_signals() -> Result<()> {
    extern "C" fn nothing(_: i32) {}
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler does nothing, so it is safe at any moment.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}
