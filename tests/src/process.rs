//! Processes in the lab: started in a node, logged to a file, remembered on disk so that `down` ends exactly those.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{LazyLock, Mutex, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::{netns, wait::wait_until};

/// A process as remembered on disk. The start time tells it from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pid: i32,
    started: u64,
}

impl Identity {
    /// The process of this number, if there is one and it has not ended.
    pub fn of(pid: i32) -> Option<Self> {
        // proc_pid_stat(5): the name, in parentheses, may hold anything; the state is field 3, the number of threads 20,
        // the start time 22. A killed process's first thread is a zombie while others, in an fsync say, still hold its
        // sockets and files.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let state = *fields.first()?;
        let threads: u32 = fields.get(17)?.parse().ok()?;
        let started = fields.get(19)?.parse().ok()?;
        ((state != "Z" && state != "X") || threads > 1).then_some(Self { pid, started })
    }

    /// This very process.
    pub fn own() -> Result<Self> {
        Self::of(i32::try_from(std::process::id())?).context("cannot read /proc/self/stat; is /proc mounted?")
    }

    /// Whether it still runs.
    pub fn runs(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }
}

/// One process of a lab, by name, running or not.
#[derive(Clone, Debug)]
pub struct Process {
    name: String,
    state: PathBuf,
    log: PathBuf,
}

impl Process {
    /// The process called `name` of the lab whose directory is `directory`.
    pub fn named(directory: &Path, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: directory.join(format!("{name}.process")),
            log: directory.join(format!("{name}.log")),
        }
    }

    /// Every process a lab has started.
    pub fn all(directory: &Path) -> Vec<Self> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let name = |path: PathBuf| Some(path.file_name()?.to_str()?.strip_suffix(".process")?.to_owned());
        entries.filter_map(|entry| name(entry.path())).map(|name| Self::named(directory, &name)).collect()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What runs under the name now.
    pub fn running(&self) -> Option<Identity> {
        let state = fs::read(&self.state).ok()?;
        serde_json::from_slice::<Identity>(&state).ok().filter(Identity::runs)
    }

    /// Starts it. Unless `keep`, it dies with this process.
    ///
    /// # Errors
    /// It runs already, or cannot be started.
    pub fn start(&self, mut command: Command, keep: bool) -> Result<()> {
        ensure!(self.running().is_none(), "{} runs already", self.name);
        let log = File::options().append(true).create(true).open(&self.log).context("log")?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        if !keep {
            netns::die_with_parent(&mut command);
        }
        let program = command.get_program().to_string_lossy().into_owned();
        let pid = spawn(command).with_context(|| format!("{}: cannot start {program}", self.name))?;
        let Some(identity) = Identity::of(pid) else {
            bail!("{} ended at once: {}", self.name, self.last_words());
        };
        fs::write(&self.state, serde_json::to_vec(&identity)?).context("process state")
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// It does not run, or does not go.
    pub fn kill(&self) -> Result<()> {
        let identity = self.running().with_context(|| format!("{} does not run", self.name))?;
        kill(Pid::from_raw(identity.pid), Signal::SIGKILL).with_context(|| format!("killing {}", self.name))?;
        wait_until(Duration::from_secs(5), &format!("{} is gone", self.name), || {
            // Collects it if it is this process's child; someone else's is collected by them.
            let _ = waitpid(Pid::from_raw(identity.pid), Some(WaitPidFlag::WNOHANG));
            !identity.runs()
        })?;
        for left in ["faketime_shm", "sem.faketime_sem"] {
            // libfaketime, if it had a wrong clock, removes these only when it is not killed.
            let _ = fs::remove_file(format!("/dev/shm/{left}_{}", identity.pid));
        }
        match fs::remove_file(&self.state) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The end of its log, for error messages.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(12)..].join("\n");
        format!("{} ends with:\n{end}", self.log.display())
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Starts the command from a thread that lives as long as this process: a child's death signal is tied to the *thread*
/// that started it, and tests come and go on threads of their own.
fn spawn(mut command: Command) -> io::Result<i32> {
    static STARTER: LazyLock<Mutex<mpsc::Sender<Job>>> = LazyLock::new(|| {
        let (jobs, inbox) = mpsc::channel::<Job>();
        thread::spawn(move || inbox.into_iter().for_each(|job| job()));
        Mutex::new(jobs)
    });
    let (result, outcome) = mpsc::channel();
    let job = Box::new(move || {
        // The child is collected by `kill`, by its number.
        let started = command.spawn().and_then(|child| i32::try_from(child.id()).map_err(io::Error::other));
        let _ = result.send(started);
    });
    let starter = STARTER.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    starter.send(job).map_err(|_| io::Error::other("the starting thread has ended"))?;
    drop(starter);
    outcome.recv().map_err(io::Error::other)?
}
