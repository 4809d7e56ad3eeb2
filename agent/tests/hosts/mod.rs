//! Hosts in network namespaces of their own: the one under test is the test's thread, others have threads. The
//! namespaces go with their threads, however the test ends.

// Each test binary uses its part.
#![allow(dead_code)]

use std::{fs, process::Command, sync::mpsc, thread};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::{Pid, gettid},
};

type Job = Box<dyn FnOnce() + Send>;

/// Another host.
pub struct Host {
    id: Pid,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Host {
    /// With nothing but a loopback interface.
    pub fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, is_ready) = mpsc::channel();
        let thread = thread::spawn(move || {
            enter_new();
            ready.send(gettid()).unwrap();
            queue.into_iter().for_each(|job| job());
        });
        Self { id: is_ready.recv().unwrap(), jobs: Some(jobs), thread: Some(thread) }
    }

    /// Makes a cable: `interface` here, in the caller's namespace, to `others` there. Both ends are up.
    pub fn connect(&self, interface: &str, others: &str) {
        ip(&format!("link add {interface} type veth peer name {others} netns {}", self.id));
        ip(&format!("link set {interface} up"));
        self.ip(&format!("link set {others} up"));
    }

    /// Does something there.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, is_done) = mpsc::channel();
        let job = Box::new(move || done.send(work()).unwrap());
        self.jobs.as_ref().unwrap().send(job).unwrap();
        is_done.recv().expect("the host's thread did it")
    }

    /// Runs `ip` there.
    pub fn ip(&self, arguments: &str) -> String {
        let arguments = arguments.to_owned();
        self.run(move || ip(&arguments))
    }

    /// Sets a sysctl there.
    pub fn set(&self, setting: &str, value: &str) {
        let (setting, value) = (setting.to_owned(), value.to_owned());
        self.run(move || set(&setting, &value));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Puts this thread into a new network namespace. Addresses are usable at once there: no duplicate detection.
pub fn enter_new() {
    unshare(CloneFlags::CLONE_NEWNET).expect("tests in network namespaces need root");
    ip("link set lo up");
    set("net/ipv6/conf/all/accept_dad", "0");
    set("net/ipv6/conf/default/accept_dad", "0");
}

/// Runs `ip` in this thread's namespace.
pub fn ip(arguments: &str) -> String {
    run("ip", &arguments.split(' ').collect::<Vec<_>>())
}

/// Sets a sysctl of this thread's namespace.
pub fn set(setting: &str, value: &str) {
    fs::write(format!("/proc/sys/{setting}"), value).unwrap_or_else(|error| panic!("{setting}: {error}"));
}

/// Runs a command to its successful end.
pub fn run(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output().expect(command);
    assert!(output.status.success(), "{command} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
