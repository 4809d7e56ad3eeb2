//! The tasks other than set-up. Those that end in another program become it, so that signals and the exit code are its.

use std::{
    env,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use nix::unistd::Uid;

use crate::{setup, terminal, toolchain};

/// The package of the lab, its programs and the scenarios.
const TESTS: &str = "siteswap-tests";

/// The workspace's directory.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a member of the workspace")
}

/// Refuses to go on without root.
pub fn need_root(what: &str) -> Result<()> {
    if !Uid::effective().is_root() {
        bail!(
            "{what} needs root (network namespaces, BPF, mounts, apt). \
             Try: sudo --preserve-env=HOME env PATH=\"$PATH\" cargo xtask …"
        );
    }
    Ok(())
}

/// The cargo that started this, without what it set for this process alone: build scripts watch some of those
/// variables, and would run again with every change between a plain `cargo build` and this.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let own = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
        if own.iter().any(|prefix| name.starts_with(prefix)) || name == "CARGO_PRIMARY_PACKAGE" || name == "OUT_DIR" {
            command.env_remove(&*name);
        }
    }
    command.env_remove("CARGO");
    command
}

/// Runs `command` to its end; its failure is an error.
pub fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// A command as one would type it.
pub fn shown(command: &Command) -> String {
    let words: Vec<_> =
        [command.get_program()].into_iter().chain(command.get_args()).map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// Becomes `command`. Returns only if it cannot be started.
fn become_command(command: &mut Command) -> Result<ExitCode> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", shown(command)))
}

/// Where cargo leaves what it builds.
fn artefact(profile: &str, name: &str) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join(profile).join(name)
}

/// `cargo xtask build`
pub fn build(release: bool) -> Result<ExitCode> {
    terminal::step("building the agent, its XDP program and the lab");
    let mut command = cargo();
    command.args(["build", "--package", "siteswap", "--package", TESTS, "--bins"]);
    if release {
        command.arg("--release");
    }
    succeed(&mut command)?;
    Ok(ExitCode::SUCCESS)
}

/// `cargo xtask run`
pub fn run(arguments: Vec<String>) -> Result<ExitCode> {
    need_root("running siteswap")?;
    setup::install(false)?;
    build(false)?;
    if arguments.is_empty() {
        return become_command(Command::new(artefact("debug", "siteswap-lab")).arg("demo"));
    }
    become_command(Command::new(artefact("debug", "siteswap")).arg("run").args(arguments))
}

/// `cargo xtask lab`
pub fn lab(arguments: Vec<String>) -> Result<ExitCode> {
    need_root("the lab")?;
    // Whatever the command prints is the lab's alone, so the build speaks up only if it fails.
    succeed(cargo().args(["build", "--quiet", "--package", "siteswap", "--package", TESTS, "--bins"]))?;
    become_command(Command::new(artefact("debug", "siteswap-lab")).args(arguments))
}

/// `cargo xtask test`
pub fn test(filter: Option<String>) -> Result<ExitCode> {
    need_root("testing")?;
    setup::install(false)?;
    // The agent and the lab are built with the tests, before the first of them runs: both packages have tests of their
    // own that run them. Built alone, with other features of their dependencies, they would take as long again.
    terminal::step("building and testing");
    become_command(cargo().args(["test", "--workspace", "--exclude", toolchain::PACKAGE]).args(filter))
}

/// `cargo xtask bench`
pub fn bench(name: Option<String>, json: bool) -> Result<ExitCode> {
    need_root("measuring")?;
    setup::install(true)?;
    build(true)?;
    let mut command = Command::new(artefact("release", "siteswap-bench"));
    command.args(name);
    if json {
        command.arg("--json");
    }
    become_command(&mut command)
}

/// `cargo xtask lint`
pub fn lint() -> Result<ExitCode> {
    terminal::step("checking the formatting");
    succeed(cargo().args(["fmt", "--all", "--check"]))
        .context("`cargo fmt --all` mends it; if cargo has no fmt: rustup component add rustfmt")?;

    terminal::step("clippy on the host's packages");
    let host = ["clippy", "--workspace", "--exclude", toolchain::PACKAGE, "--all-targets", "--", "-Dwarnings"];
    succeed(cargo().args(host)).context("if cargo has no clippy: rustup component add clippy")?;

    let routes = toolchain::routes().map_err(anyhow::Error::msg)?;
    let compiler =
        toolchain::compiler(root(), &routes).map_err(|error| anyhow::anyhow!("{error}\nrun `cargo xtask setup`"))?;
    terminal::step(&format!("clippy on the XDP program for {} ({})", toolchain::TARGET, compiler.route));
    let mut clippy = compiler.clippy().map_err(|lack| {
        anyhow::anyhow!("clippy cannot check the XDP program, it lacks {lack}\nor run `cargo xtask setup`")
    })?;
    clippy.current_dir(root()).arg("--target-dir").arg(root().join("target/ebpf-clippy"));
    succeed(clippy.args(["--", "-Dwarnings"]))?;
    Ok(ExitCode::SUCCESS)
}
