//! A network of its own for each test: the edge in the test's thread, a client in another, a veth pair between them.
//! Both namespaces go with their threads, and the pins with their guard, however the test ends.

// Each test binary uses its part.
#![allow(dead_code)]

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, mpsc},
    thread,
    time::Duration,
};

use aya::{
    Ebpf,
    programs::{Xdp, XdpMode},
};
use hickory_proto::rr::LowerName;
use nix::{
    sched::{CloneFlags, unshare},
    unistd::gettid,
};
use siteswap::{
    answers::{AnswerSet, AnswerTable},
    config::{self, Mode},
    dataplane::{Constants, Dataplane, OBJECT, requests::Requests},
    nexthop::Hops,
};
use siteswap_common::outcome::Outcome;

/// The edge's address, on which queries are answered.
pub const EDGE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Another one, for changes of configuration.
pub const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
/// The edge's interface.
pub const INTERFACE: &str = "edge0";
/// Its index, always the same, so that a new interface can take an old one's.
pub const INDEX: u32 = 42;

const LEASE: Duration = Duration::from_secs(60);

/// A pin directory of the test's own; removed with everything in it.
pub struct Pins(pub PathBuf);

impl Pins {
    pub fn new(test: &str) -> Self {
        Self(PathBuf::from(format!("/sys/fs/bpf/siteswap-{test}-{}", gettid())))
    }

    pub fn config(&self, interfaces: &[&str]) -> config::Dataplane {
        config::Dataplane {
            interfaces: interfaces.iter().map(|&name| name.to_owned()).collect(),
            mode: Mode::Auto,
            pins: self.0.clone(),
            lease: LEASE,
            flows: 1 << 17,
        }
    }

    /// The names of the pins, in order.
    pub fn list(&self) -> Vec<String> {
        let layout = self.0.join(format!("v{}", siteswap_common::maps::LAYOUT));
        let mut names: Vec<_> = std::fs::read_dir(layout)
            .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        names.sort();
        names
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(format!("v{}", siteswap_common::maps::LAYOUT)).join(name)
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = Dataplane::detach_pinned(&self.0);
    }
}

/// Puts this thread, and the commands it runs, into a new network namespace.
pub fn new_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).expect("tests in network namespaces need root");
    ip("link set lo up");
}

/// Runs `ip` in this thread's namespace.
pub fn ip(arguments: &str) -> String {
    run("ip", &arguments.split(' ').collect::<Vec<_>>())
}

/// Runs a command to its successful end.
pub fn run(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output().expect(command);
    assert!(output.status.success(), "{command} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The client, in a thread and namespace of its own, ready when `start` returns.
pub struct Client {
    questions: Option<mpsc::Sender<(Ipv4Addr, String)>>,
    answers: Mutex<mpsc::Receiver<Option<Ipv4Addr>>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Client {
    /// Makes the veth pair, with the edge's end in this thread's namespace.
    pub fn start() -> Self {
        let (questions, asked) = mpsc::channel::<(Ipv4Addr, String)>();
        let (reply, answers) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let (linked, is_linked) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            new_namespace();
            ready.send(gettid()).unwrap();
            is_linked.recv().unwrap();
            ip("addr add 192.0.2.10/24 dev client0");
            // With offload the program would see checksums that the device was to finish.
            run("ethtool", &["-K", "client0", "tx", "off"]);
            ip("link set client0 up");
            let _stub = stub("client0");
            ready.send(gettid()).unwrap();
            for (server, name) in asked {
                reply.send(ask(server, &name)).unwrap();
            }
        });
        let client = is_ready.recv().unwrap();
        ip(&format!("link add {INTERFACE} index {INDEX} type veth peer name client0 netns {client}"));
        run("ethtool", &["-K", INTERFACE, "tx", "off"]);
        ip(&format!("addr add {EDGE}/24 dev {INTERFACE}"));
        ip(&format!("addr add {OTHER}/24 dev {INTERFACE}"));
        ip(&format!("link set {INTERFACE} up"));
        linked.send(()).unwrap();
        is_ready.recv().unwrap();
        Self { questions: Some(questions), answers: Mutex::new(answers), thread: Some(thread) }
    }

    /// Asks `server` for the A record of `name`: the first address of the reply. `None`: silence, which here means that
    /// the program passed the query up, for the edge has no server.
    pub fn ask(&self, server: Ipv4Addr, name: &str) -> Option<Ipv4Addr> {
        self.questions.as_ref().unwrap().send((server, name.to_owned())).unwrap();
        self.answers.lock().unwrap().recv().unwrap()
    }

    /// Asks one query after the other for as long as `work` takes: how many were asked, and what they got, each
    /// different reply once.
    pub fn keep_asking(&self, server: Ipv4Addr, name: &str, work: impl FnOnce()) -> (usize, Vec<Option<Ipv4Addr>>) {
        thread::scope(|scope| {
            let (stop, stopped) = mpsc::channel::<()>();
            let (questions, answers) = (self.questions.clone().unwrap(), &self.answers);
            let asking = scope.spawn(move || {
                let (mut asked, mut replies) = (0, Vec::new());
                while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                    questions.send((server, name.to_owned())).unwrap();
                    let reply = answers.lock().unwrap().recv().unwrap();
                    asked += 1;
                    if !replies.contains(&reply) {
                        replies.push(reply);
                    }
                }
                (asked, replies)
            });
            work();
            drop(stop);
            asking.join().unwrap()
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.questions.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Passes everything, so that the client's end of the pair takes frames that were sent by XDP.
pub fn stub(interface: &str) -> Ebpf {
    let mut ebpf = Ebpf::load(OBJECT).unwrap();
    let program: &mut Xdp = ebpf.program_mut("stub").unwrap().try_into().unwrap();
    siteswap::dataplane::verify(program).unwrap();
    program.attach(interface, XdpMode::Driver).unwrap();
    ebpf
}

/// RFC 1035 section 4.1.
fn ask(server: Ipv4Addr, name: &str) -> Option<Ipv4Addr> {
    let mut query = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind("192.0.2.10:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    // Connected, it also learns that the edge's port is closed.
    socket.connect((server, 53)).unwrap();
    socket.send(&query).unwrap();
    let mut reply = [0; 512];
    let length = socket.recv(&mut reply).ok()?;
    assert_eq!(reply[..2], query[..2]);
    assert_eq!(reply[2] & 0x80, 0x80, "a reply");
    assert_eq!(reply[3] & 0x0f, 0, "NOERROR");
    let address: [u8; 4] = reply[length - 4..length].try_into().unwrap();
    Some(address.into())
}

/// A table with one name per resource.
pub fn table(resources: &[(&str, &str, Ipv4Addr)]) -> AnswerTable {
    let mut table = AnswerTable::default();
    for (index, (resource, name, address)) in resources.iter().enumerate() {
        table.sets.push(AnswerSet {
            resource: (*resource).to_owned(),
            ttl: 30,
            addresses: vec![IpAddr::V4(*address)],
            all_down: None,
        });
        std::sync::Arc::make_mut(&mut table.names).insert(LowerName::new(&name.parse().unwrap()), index);
    }
    table
}

/// One counter.
pub fn counter(dataplane: &Dataplane, outcome: Outcome) -> u64 {
    let counters = dataplane.counters().unwrap();
    counters.iter().find(|(counted, _)| *counted == outcome).unwrap().1
}

/// What `ip` says of XDP on `interface`: empty, or `xdp` or `xdpgeneric` with the program's number.
pub fn xdp_on(interface: &str) -> String {
    let shown = ip(&format!("-details link show dev {interface}"));
    shown.lines().filter(|line| line.contains("prog/xdp")).map(str::trim).collect()
}

/// A program that answers on these addresses.
pub fn answering(dns: &[IpAddr]) -> Constants {
    Constants { dns: dns.to_vec(), ..Constants::default() }
}

/// A program that has been told everything: to answer nothing, and to leave requests alone.
pub fn started(config: &config::Dataplane, dns: Ipv4Addr) -> Dataplane {
    let mut dataplane = Dataplane::start(config, &answering(&[dns.into()])).unwrap();
    dataplane.publish(&table(&[])).unwrap();
    dataplane.steer(&Requests::default(), &Hops::default()).unwrap();
    dataplane.renew_lease(config.lease).unwrap();
    dataplane
}

/// Whether anything is left at `path`.
pub fn gone(path: &Path) -> bool {
    !path.exists()
}
