//! Builds the XDP program (`ebpf/`) into `$OUT_DIR/siteswap-ebpf`, so that a plain `cargo build` gives a whole agent.

use std::{
    env,
    path::Path,
    process::{Command, ExitCode, Output},
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya_build::{Package, Toolchain};

// It serves `xtask` too, which uses more of it.
#[allow(dead_code)]
#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

/// Set for the second process of this script, the one that compiles.
const INNER: &str = "SITESWAP_EBPF_BUILD";

fn main() -> ExitCode {
    let result = if env::var_os(INNER).is_some() { compile() } else { outer() };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the agent is a member of the workspace")
}

/// Chooses the route and runs this script again in its environment: aya-build takes its compiler from the process's.
fn outer() -> Result<()> {
    for path in ["ebpf/src", "ebpf/Cargo.toml", "common/src", "common/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root().join(path).display());
    }
    println!("cargo::rerun-if-env-changed={}", toolchain::FORCE);

    let help = "run `cargo xtask setup`, which installs what is missing or says how to";
    let routes = toolchain::routes().map_err(|error| anyhow!(error))?;
    let compiler = toolchain::compiler(root(), &routes).map_err(|error| anyhow!("{error}\n{help}"))?;
    toolchain::linker(root()).map_err(|error| anyhow!("the XDP program cannot be linked: {error}\n{help}"))?;

    let mut command = Command::new(env::current_exe()?);
    compiler.prepare(&mut command);
    let output = command.env(INNER, "1").output().context("this build script cannot run itself")?;
    report(&output);
    if !output.status.success() {
        bail!("the XDP program does not build (route {}, {}): see the lines above", compiler.route, compiler.name());
    }
    Ok(())
}

/// Passes on what the compiler said. When all went well, without cargo's progress, which aya-build makes warnings of.
fn report(output: &Output) {
    let progress = [
        "Blocking ",
        "Compiling ",
        "Downloaded ",
        "Downloading ",
        "Finished ",
        "Locking ",
        "Updating ",
        "Adding ",
        "which(rustup)",
    ];
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        match line.strip_prefix("cargo:warning=") {
            Some(text) if output.status.success() => {
                let text = text.trim_start();
                if !text.is_empty() && !progress.iter().any(|word| text.starts_with(word)) {
                    println!("{line}");
                }
            }
            Some(text) => eprintln!("{text}"),
            // aya-build would watch the whole of ebpf/; `outer` says what is worth watching.
            None if line.starts_with("cargo:rerun-if-changed=") => {}
            None => println!("{line}"),
        }
    }
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
}

/// Compiles and links, in the environment `outer` made.
fn compile() -> Result<()> {
    let ebpf = root().join("ebpf");
    let package = Package {
        name: toolchain::PACKAGE,
        root_dir: ebpf.to_str().context("the workspace's path is not UTF-8")?,
        ..Package::default()
    };
    aya_build::build_ebpf([package], Toolchain::default())
}
