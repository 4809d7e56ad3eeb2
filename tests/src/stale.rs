//! Removing labs: one's own, and those whose owner died without doing it.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};

use crate::{
    files,
    netns::Netns,
    plan::{self, SITES},
    process::{Identity, Process},
};

/// Where labs keep their files, each in a directory of its own.
const ROOT: &str = "/run/siteswap-lab";

/// A lab's directory. `prefix` is that of its nodes' namespaces.
pub fn directory(prefix: &str) -> PathBuf {
    Path::new(ROOT).join(prefix.trim_end_matches('-'))
}

/// Where its agents pin their maps and links.
pub fn pins(prefix: &str) -> PathBuf {
    Path::new("/sys/fs/bpf").join(format!("siteswap-{}", prefix.trim_end_matches('-')))
}

/// Makes the lab's directory and notes that this process owns the lab: should it die, the next lab removes what is
/// left.
pub fn own(directory: &Path) -> Result<()> {
    while let Err(error) = fs::create_dir_all(directory) {
        // Between the two directories, whoever took the last other lab down has removed the one of all.
        if error.kind() != ErrorKind::NotFound {
            return Err(error).with_context(|| directory.display().to_string());
        }
    }
    fs::write(directory.join("owner"), serde_json::to_vec(&Identity::own()?)?).context("the lab's owner")
}

/// Takes everything of a lab away, as far as it got. Says whether there was anything.
///
/// # Errors
/// Something stays; the rest is gone.
pub fn remove(prefix: &str) -> Result<bool> {
    let directory = directory(prefix);
    let mut found = directory.exists();
    let mut result = Ok(());
    for process in Process::all(&directory) {
        if process.running().is_some() {
            result = result.and(process.kill());
        }
    }
    for node in plan::nodes() {
        let namespace = Netns::named(&format!("{prefix}{node}"));
        found |= namespace.exists();
        result = result.and(namespace.remove());
    }
    for site in SITES {
        // There is one only if somebody wanted it.
        let _ = umount2(&files::disk(&directory, site.name), MntFlags::MNT_DETACH);
    }
    for path in [pins(prefix), directory] {
        result = result.and(match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", path.display()))
            }
            _ => Ok(()),
        });
    }
    // Only the last lab can remove the directory of all.
    let _ = fs::remove_dir(ROOT);
    result.map(|()| found)
}

/// Removes the labs whose owner is gone.
pub fn sweep() {
    for prefix in owned(|owner| !owner.runs()) {
        // Whoever sweeps at the same time removes the same things.
        let _ = remove(&prefix);
    }
}

/// Removes this process's labs, however much of them is being built at the moment.
pub fn remove_own() {
    let mine = |owner: Identity| Identity::own().is_ok_and(|own| own == owner);
    for prefix in owned(mine) {
        // Until nothing new appears: the thread that builds has by then failed.
        while let Ok(true) = remove(&prefix) {}
    }
}

/// The prefixes of labs that have an owner for whom `which` holds.
fn owned(which: impl Fn(Identity) -> bool) -> Vec<String> {
    let entries = fs::read_dir(ROOT).into_iter().flatten().flatten();
    let lab = |entry: fs::DirEntry| {
        let owner = serde_json::from_slice(&fs::read(entry.path().join("owner")).ok()?).ok()?;
        which(owner).then(|| Some(format!("{}-", entry.file_name().to_str()?)))?
    };
    entries.filter_map(lab).collect()
}
