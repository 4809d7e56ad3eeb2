//! Where the compiled programs are.

use std::{env, path::PathBuf};

use anyhow::{Context as _, Result};

/// The data plane's object file.
pub fn program() -> Result<Vec<u8>> {
    read("siteswap-ebpf")
}

/// The benchmark's own programs.
pub fn bench() -> Result<Vec<u8>> {
    read("siteswap-ebpf-bench")
}

fn read(name: &str) -> Result<Vec<u8>> {
    let directory = env::var_os("SITESWAP_EBPF_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/ebpf/bpfel-unknown-none/release")),
        PathBuf::from,
    );
    let path = directory.join(name);
    std::fs::read(&path).with_context(|| format!("the XDP object {} is not built", path.display()))
}
