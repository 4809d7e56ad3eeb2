//! The kernel's threads for the queues of interfaces: with one, frames are received on its CPU, and not on that of whoever
//! sent them.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity, unshare},
    unistd::Pid,
};

use crate::netns::Netns;

/// Threads of queues of interfaces with this name, in whatever namespace.
#[derive(Debug)]
pub struct Threads {
    interface: String,
    pids: BTreeSet<i32>,
}

impl Threads {
    /// Those that are there now.
    pub fn of(interface: &str) -> Result<Self> {
        let name = format!("napi/{interface}-");
        let mut pids = BTreeSet::new();
        for entry in fs::read_dir("/proc").context("/proc")? {
            let path = entry?.path();
            // It may have ended meanwhile.
            let is_one = fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.starts_with(&name));
            if is_one && let Some(pid) = number(&path) {
                pids.insert(pid);
            }
        }
        Ok(Self { interface: interface.to_owned(), pids })
    }

    /// Gives the interface of `node`, which has one queue since these were all, a thread on a CPU of its own.
    pub fn add(&self, node: &Netns, cpu: usize) -> Result<()> {
        let Self { interface, pids } = self;
        node.enter(|| {
            // The tree of /sys shows the interfaces of the namespace it is mounted in.
            unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace needs root (CAP_SYS_ADMIN)")?;
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("keeping mounts private")?;
            mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).context("mounting /sys")?;
            let setting = format!("/sys/class/net/{interface}/threaded");
            fs::write(&setting, "1").context(setting)
        })?;
        let now = Self::of(interface)?;
        let added: Vec<_> = now.pids.difference(pids).collect();
        ensure!(added.len() == 1, "{interface} got {} threads", added.len());
        pin(Pid::from_raw(*added[0]), cpu)
    }
}

fn number(path: &Path) -> Option<i32> {
    path.file_name()?.to_str()?.parse().ok()
}

/// Keeps this thread on the CPU where it is, and says which other one there is.
pub fn stay_here() -> Result<usize> {
    let here = sched_getcpu()?;
    let usable = sched_getaffinity(Pid::from_raw(0))?;
    let other = (0..CpuSet::count()).find(|cpu| *cpu != here && usable.is_set(*cpu).unwrap_or(false));
    pin(Pid::from_raw(0), here)?;
    other.context("two CPUs are needed")
}

fn pin(thread: Pid, cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu)?;
    Ok(sched_setaffinity(thread, &only)?)
}
