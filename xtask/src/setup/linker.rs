//! `bpf-linker`, built into `target/tools` against the LLVM that the compiler needs.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::packages;
use crate::{
    tasks::{cargo, need_root, root, succeed},
    terminal,
    toolchain::{self, Compiler},
};

const VERSION: &str = "0.13.0";

/// LLVM major versions that this version of the linker has features for.
const LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// Sees to it that there is a linker that runs.
pub fn install(compiler: &Compiler) -> Result<()> {
    let Err(lack) = toolchain::linker(root()) else {
        return Ok(());
    };
    terminal::lack(&format!("{lack}: links the XDP program"));
    let llvm = compiler.llvm().unwrap_or(*LLVM.start()).max(*LLVM.start());
    if !LLVM.contains(&llvm) {
        bail!(
            "bpf-linker {VERSION} knows LLVM {} to {}, but {} has LLVM {llvm}: put a bpf-linker for it on PATH",
            LLVM.start(),
            LLVM.end(),
            compiler.name()
        );
    }
    let prefix = llvm_prefix(llvm)?;
    let (version, features) = (format!("--version={VERSION}"), format!("--features=llvm-{llvm}"));
    let mut command = cargo();
    // Nearly all its work is done in LLVM's library, so what counts is how long it takes to build.
    for (key, value) in [("DEBUG", "false"), ("LTO", "off"), ("OPT_LEVEL", "1"), ("CODEGEN_UNITS", "16")] {
        command.env(format!("CARGO_PROFILE_RELEASE_{key}"), value);
    }
    command
        .env("LLVM_PREFIX", &prefix)
        .args(["install", "bpf-linker", &version, "--no-default-features", &features, "--locked", "--force", "--root"])
        .arg(toolchain::tools(root()));
    terminal::step(&format!("building bpf-linker {VERSION} into target/tools with LLVM {llvm}"));
    succeed(&mut command)?;
    toolchain::linker(root()).map_err(anyhow::Error::msg).context("bpf-linker was built, but")?;
    Ok(())
}

/// Where LLVM's development files are, installed if they lack.
fn llvm_prefix(llvm: u32) -> Result<PathBuf> {
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    let wanted = [
        (format!("llvm-{llvm}-dev"), "bpf-linker compiles with it"),
        ("zlib1g-dev".to_owned(), "LLVM is linked with it"),
        ("libzstd-dev".to_owned(), "LLVM is linked with it"),
    ];
    if !packages::available() {
        if prefix.join("bin/llvm-config").exists() {
            return Ok(prefix);
        }
        bail!(
            "bpf-linker needs LLVM {llvm}'s development files in {}, and there is no apt-get to install them. \
             Install them, or put bpf-linker {VERSION} on PATH",
            prefix.display()
        );
    }
    let wanted: Vec<_> = wanted.into_iter().filter(|(package, _)| !packages::installed(package)).collect();
    if !wanted.is_empty() {
        need_root("installing packages")?;
        packages::install(&wanted)?;
    }
    Ok(prefix)
}
