//! Sites with real keys and real sockets on loopback, for the tests of the link.

// Each test binary uses its part of this.
#![allow(dead_code)]

pub mod raw;
pub mod relay;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use siteswap::{
    config::{self, Config, Dataplane, Dns, Mode},
    evidence::{InstanceReport, Report},
    link::{Asked, Inbox, Link, LinkError, LinkEvent, Opened, PeerStatus, frames::Frames, keys},
    placement::State,
};
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};

/// No condition of these tests needs longer, however busy the machine is.
pub const DEADLINE: Duration = Duration::from_secs(30);
pub const PERIOD: Duration = Duration::from_millis(100);
pub const PERIODS: u32 = 3;

/// Keys and free addresses for sites of these names.
pub struct World {
    pub sites: BTreeMap<String, config::Site>,
    directory: PathBuf,
    _temporary: Option<TempDir>,
}

impl World {
    pub fn new(names: &[&str]) -> Self {
        Self::on(Ipv4Addr::LOCALHOST.into(), names)
    }

    pub fn on(ip: IpAddr, names: &[&str]) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let directory = temporary.path().to_owned();
        // All at once, so that they differ.
        let sockets: Vec<_> = names.iter().map(|_| UdpSocket::bind((ip, 0)).unwrap()).collect();
        let site = |(name, socket): (&&str, &UdpSocket)| {
            let fingerprint = keys::generate(&directory.join(format!("{name}.pem")), false).unwrap();
            let link = socket.local_addr().unwrap();
            ((*name).to_owned(), config::Site { link, tunnel: None, fingerprint })
        };
        let sites = names.iter().zip(&sockets).map(site).collect();
        Self { sites, directory, _temporary: Some(temporary) }
    }

    /// For another process; the keys stay where they are.
    pub fn describe(&self) -> String {
        let site = |(name, site): (&String, &config::Site)| format!("{name} {} {}", site.link, site.fingerprint);
        let sites: Vec<_> = self.sites.iter().map(site).collect();
        format!("{}\n{}", self.directory.display(), sites.join("\n"))
    }

    pub fn described(text: &str) -> Self {
        let (directory, sites) = text.split_once('\n').unwrap();
        let site = |line: &str| {
            let words: Vec<_> = line.split(' ').collect();
            let site =
                config::Site { link: words[1].parse().unwrap(), tunnel: None, fingerprint: words[2].parse().unwrap() };
            (words[0].to_owned(), site)
        };
        Self { sites: sites.lines().map(site).collect(), directory: directory.into(), _temporary: None }
    }

    pub fn key(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.pem"))
    }

    pub fn address(&self, name: &str) -> SocketAddr {
        self.sites[name].link
    }

    pub fn config(&self, name: &str) -> Config {
        let directory = &self.directory;
        Config {
            file: directory.join("siteswap.toml"),
            site: name.to_owned(),
            state: directory.to_owned(),
            control: directory.join("control"),
            sites: self.sites.clone(),
            link: config::Link { listen: self.address(name), key: self.key(name), period: PERIOD, periods: PERIODS },
            dns: Dns { listen: vec![], port: 53, zones: vec![] },
            dataplane: Dataplane {
                interfaces: vec![],
                mode: Mode::Auto,
                pins: directory.to_owned(),
                lease: Duration::from_secs(3),
                flows: 1 << 17,
            },
            database: None,
            resources: BTreeMap::new(),
        }
    }

    pub async fn start(&self, name: &str) -> Agent {
        Agent::start(self.config(name)).await.unwrap()
    }
}

/// A report that says `reason` about `www`.
pub fn report(reason: &str) -> Report {
    let instance = InstanceReport {
        available: true,
        epoch: 3,
        holder: None,
        state: State::Active,
        why: "configured".to_owned(),
        since: 0,
        reason: reason.to_owned(),
    };
    Report { instances: [("www".to_owned(), instance)].into(), ..Report::default() }
}

/// What the agent around the link would be: it reports "NAME is well" until told otherwise.
pub struct Agent {
    pub link: Link,
    pub report: watch::Sender<Report>,
    pub events: mpsc::Receiver<LinkEvent>,
    pub asked: mpsc::Receiver<Asked>,
    pub opened: mpsc::Receiver<Opened>,
}

impl Agent {
    pub async fn start(config: Config) -> Result<Self, LinkError> {
        let identity = keys::load(&config.link.key).unwrap();
        let (report, reports) = watch::channel(report(&format!("{} is well", config.site)));
        let (event_sender, events) = mpsc::channel(64);
        let (asked_sender, asked) = mpsc::channel(4);
        let (opened_sender, opened) = mpsc::channel(4);
        let inbox = Inbox { events: event_sender, asked: asked_sender, opened: opened_sender };
        let link = Link::start(&config, identity, reports, inbox).await?;
        Ok(Self { link, report, events, asked, opened })
    }

    pub fn say(&self, reason: &str) {
        self.report.send_replace(report(reason));
    }

    pub async fn next(&mut self) -> LinkEvent {
        let event = timeout(DEADLINE, self.events.recv()).await;
        event.unwrap_or_else(|_| panic!("no event; {:?}", self.link.status())).unwrap()
    }

    /// Skips events until `peer` is in contact, or out of it.
    pub async fn contact(&mut self, name: &str, wanted: bool) -> String {
        loop {
            if let LinkEvent::Contact { peer, contact, reason, .. } = self.next().await
                && peer == name
                && contact == wanted
            {
                return reason;
            }
        }
    }

    /// Skips events until `peer` reports this about `www`.
    pub async fn reported(&mut self, name: &str, reason: &str) {
        loop {
            if let LinkEvent::Report { peer, report } = self.next().await
                && peer == name
                && report.instances.get("www").is_some_and(|www| www.reason == reason)
            {
                return;
            }
        }
    }

    /// The next stream of frames that a peer opens.
    pub async fn next_stream(&mut self, name: &str) -> Frames {
        let opened = timeout(DEADLINE, self.opened.recv()).await;
        let opened = opened.unwrap_or_else(|_| panic!("no stream; {:?}", self.link.status())).unwrap();
        assert_eq!(opened.peer, name);
        opened.frames
    }

    pub fn peer(&self, name: &str) -> PeerStatus {
        self.link.status().into_iter().find(|status| status.peer == name).unwrap()
    }
}

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
