//! Network namespaces: made, entered, left to programs, removed.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context, Result, anyhow};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::{prctl, signal::Signal},
};

/// Where `ip netns` looks for names.
const DIRECTORY: &str = "/run/netns";

/// A network namespace with a name, as `ip netns` knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    path: PathBuf,
}

impl Netns {
    /// The namespace called `name`, whether it exists or not.
    pub fn named(name: &str) -> Self {
        Self { path: Path::new(DIRECTORY).join(name) }
    }

    /// Makes it.
    ///
    /// # Errors
    /// The name is taken, or this process may not make namespaces.
    pub fn create(&self) -> Result<()> {
        fs::create_dir_all(DIRECTORY).context(DIRECTORY)?;
        File::create_new(&self.path).with_context(|| format!("namespace {}: cannot be made", self.path.display()))?;
        let made = on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("a network namespace needs root (CAP_SYS_ADMIN)")?;
            let none = None::<&str>;
            mount(Some("/proc/thread-self/ns/net"), &self.path, none, MsFlags::MS_BIND, none)
                .with_context(|| format!("mounting a namespace on {}", self.path.display()))
        });
        if made.is_err() {
            let _ = fs::remove_file(&self.path);
        }
        made
    }

    /// Makes one without a name. It ends with the handle, and so cannot outlive this process.
    ///
    /// # Errors
    /// This process may not make namespaces.
    pub fn unnamed() -> Result<(Self, File)> {
        let handle = on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("a network namespace needs root (CAP_SYS_ADMIN)")?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        })?;
        Ok((Self { path: format!("/proc/self/fd/{}", handle.as_raw_fd()).into() }, handle))
    }

    /// Whether something of this name is there, be it half-made.
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Removes it if it is there. The kernel ends it when no process is left in it.
    ///
    /// # Errors
    /// The name stays.
    pub fn remove(&self) -> Result<()> {
        // A half-made one is a plain file: not mounted.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing namespace {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }

    /// A handle that keeps it alive.
    ///
    /// # Errors
    /// It does not exist.
    pub fn open(&self) -> Result<File> {
        File::open(&self.path).with_context(|| format!("there is no namespace {}; is the lab up?", self.path.display()))
    }

    /// Runs `work` inside, on a thread of its own: sockets it opens stay in the namespace.
    ///
    /// # Errors
    /// The namespace does not exist, or `work` failed.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let namespace = self.open()?;
        on_own_thread(move || {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).context("entering a namespace needs root")?;
            work()
        })
    }

    /// A command whose process will run inside.
    ///
    /// # Errors
    /// The namespace does not exist.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let namespace = self.open()?;
        let mut command = Command::new(program);
        // SAFETY: between fork and exec only a system call is made, on a descriptor the closure owns.
        unsafe {
            command.pre_exec(move || Ok(setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?));
        }
        Ok(command)
    }
}

/// Makes the command's process die with the thread that starts it.
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only a system call is made.
    unsafe {
        command.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGKILL)?));
    }
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let panicked = |_| anyhow!("the thread inside the namespace panicked; its message is above");
        scope.spawn(work).join().map_err(panicked)?
    })
}
