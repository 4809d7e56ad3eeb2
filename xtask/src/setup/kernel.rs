//! What the kernel must have.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sys::{
        statfs::{BPF_FS_MAGIC, statfs},
        utsname::uname,
    },
};

/// Major and minor: the oldest kernel that the program was loaded on. What it uses has been there since 5.11
/// (bpf_ktime_get_coarse_ns), but older verifiers remember less of what they have seen.
const OLDEST: (u32, u32) = (6, 1);

const BPFFS: &str = "/sys/fs/bpf";

/// What is there (`Ok`) and what lacks.
pub fn look() -> Vec<Result<String, String>> {
    vec![version(), syscall(), btf()]
}

fn version() -> Result<String, String> {
    let release = uname().map_err(|error| error.to_string())?.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse().ok());
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= OLDEST {
        return Ok(format!("Linux {release}"));
    }
    Err(format!("Linux {release} is too old: {}.{} or newer is needed (Debian 12 has 6.1)", OLDEST.0, OLDEST.1))
}

fn syscall() -> Result<String, String> {
    if Path::new("/proc/sys/kernel/unprivileged_bpf_disabled").exists() {
        return Ok("the bpf system call".into());
    }
    Err("the bpf system call: a kernel built with CONFIG_BPF_SYSCALL=y is needed".into())
}

fn btf() -> Result<String, String> {
    const FILE: &str = "/sys/kernel/btf/vmlinux";
    match fs::metadata(FILE) {
        Ok(_) => Ok("the kernel's BTF".into()),
        Err(error) => Err(format!("{FILE} ({error}): a kernel built with CONFIG_DEBUG_INFO_BTF=y is needed")),
    }
}

/// Whether pinned maps and links have somewhere to be.
pub fn look_for_bpffs() -> Result<String, String> {
    match statfs(BPFFS) {
        Ok(info) if info.filesystem_type() == BPF_FS_MAGIC => Ok(format!("the BPF file system on {BPFFS}")),
        Ok(_) => Err(format!("a BPF file system on {BPFFS}, for pinned maps and links: mount -t bpf bpf {BPFFS}")),
        Err(error) => Err(format!("{BPFFS} ({error}), for pinned maps and links")),
    }
}

/// Mounts it, until the next boot.
pub fn mount_bpffs() -> Result<()> {
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .with_context(|| format!("cannot mount the BPF file system on {BPFFS}"))
}
