//! The tasks: what they tell, and what survives a reload.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::AsyncWriteExt,
    sync::mpsc::{self, Receiver},
    time,
};

use super::{DEADLINE, Server, refusing, request};
use crate::{
    config::{self, Config},
    probe::{BackendStatus, ProbeEvent, Probes, backends, check},
};

/// A configuration of one resource `www` at east, with `probe` and `east` as its sections say.
fn configuration(probe: &str, east: &str) -> Config {
    let key = |digit: &str| format!("sha256:{}", digit.repeat(64));
    let text = format!(
        "agent.site = 'east'\nlink.key = 'k'\ndns.listen = ['127.0.0.1']\n\
         [sites]\n\
         east = {{ link = '127.0.0.1:1', fingerprint = '{}' }}\n\
         west = {{ link = '127.0.0.1:2', fingerprint = '{}' }}\n\
         [resources.www.probe]\n{probe}\n\
         [resources.www.sites.west]\nrole = 'active'\nbackends = ['10.2.0.11:80']\n\
         [resources.www.sites.east]\n{east}\n",
        key("1"),
        key("2")
    );
    let mut config = config::parse(&text, Path::new("/test.toml")).unwrap_or_else(|error| panic!("{error}"));
    // However busy the machine is, no try times out here.
    config.resources.get_mut("www").unwrap().probe.timeout = DEADLINE;
    config
}

fn active(backends: &[SocketAddr]) -> String {
    let backends: Vec<String> = backends.iter().map(|backend| format!("'{backend}'")).collect();
    format!("role = 'active'\nbackends = [{}]", backends.join(", "))
}

async fn next(events: &mut Receiver<ProbeEvent>) -> ProbeEvent {
    let event = time::timeout(DEADLINE, events.recv()).await;
    event.expect("an event in time").expect("tasks that live")
}

/// Polls until `condition` holds of the only backend's status.
async fn until(probes: &Probes, condition: impl Fn(&BackendStatus) -> bool) -> BackendStatus {
    let wait = async {
        loop {
            let status = probes.status().remove(0);
            if condition(&status) {
                return status;
            }
            time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    time::timeout(DEADLINE, wait).await.expect("the status in time")
}

/// A web server that says 200 or 500.
async fn switchable() -> (Server, Arc<AtomicBool>) {
    let good = Arc::new(AtomicBool::new(true));
    let switch = good.clone();
    let server = Server::start(move |mut stream| {
        let good = good.clone();
        async move {
            request(&mut stream).await;
            let status = if good.load(Ordering::Relaxed) { "200 OK" } else { "500 Oops" };
            let reply = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.write_all(reply.as_bytes()).await;
        }
    });
    (server.await, switch)
}

const FAST: &str = "url = 'http://www.shop.test/'\ninterval = '10ms'\nrise = 2\nfall = 3";

#[tokio::test]
async fn the_first_round_starts_at_once_and_tells_every_backend() {
    let server = Server::start(|_| async {}).await;
    let (_socket, refusing) = refusing();
    let (sender, mut events) = mpsc::channel(4);
    let east = active(&[server.address, refusing]);
    let config = configuration("tcp = true\ninterval = '1h'", &east);
    let probes = Probes::start(&config, sender);
    let mut told = [next(&mut events).await, next(&mut events).await];
    told.sort_by_key(|event| !event.up);
    assert_eq!((told[0].backend, told[0].up), (server.address, true));
    assert_eq!((told[1].backend, told[1].up), (refusing, false));
    assert_eq!((told[0].detail.as_str(), told[1].detail.as_str()), ("connected", "connection refused"));
    let status = probes.status();
    assert_eq!(status.len(), 2);
    assert_eq!((status[0].up, status[0].streak, status[0].since), (Some(true), 1, Some(told[0].at)));
    assert_eq!(status[1].last.as_ref().map(|last| last.at), Some(told[1].at));
}

#[tokio::test]
async fn a_change_is_told_after_fall_and_rise_tries() {
    let (server, good) = switchable().await;
    let (sender, mut events) = mpsc::channel(4);
    let probes = Probes::start(&configuration(FAST, &active(&[server.address])), sender);
    assert!(next(&mut events).await.up);
    until(&probes, |status| status.streak >= 5).await;
    good.store(false, Ordering::Relaxed);
    let down = next(&mut events).await;
    assert_eq!((down.up, down.detail.as_str()), (false, "status 500, expected 200"));
    let status = until(&probes, |status| status.streak >= 5).await;
    assert_eq!((status.up, status.since), (Some(false), Some(down.at)));
    good.store(true, Ordering::Relaxed);
    let up = next(&mut events).await;
    assert_eq!((up.up, up.detail.as_str()), (true, "status 200"));
}

#[tokio::test]
async fn only_this_sites_instances_that_are_not_disabled_are_tried() {
    let backend = "10.1.0.11:80".parse().unwrap();
    let config = configuration("tcp = true", &active(&[backend]));
    assert_eq!(backends(&config).collect::<Vec<_>>(), [("www", backend)]);
    let config = configuration("tcp = true", "role = 'disabled'\nbackends = ['10.1.0.11:80']");
    assert_eq!(backends(&config).count(), 0);
}

#[tokio::test]
async fn a_reload_keeps_what_is_unchanged_and_starts_and_stops_the_rest() {
    let (first, _) = switchable().await;
    let (second, _) = switchable().await;
    let (sender, mut events) = mpsc::channel(4);
    let mut probes = Probes::start(&configuration(FAST, &active(&[first.address])), sender);
    let since = next(&mut events).await.at;
    until(&probes, |status| status.streak >= 3).await;

    probes.reload(&configuration(FAST, &active(&[first.address, second.address])));
    assert_eq!(next(&mut events).await.backend, second.address, "the first tells nothing again");
    let status = probes.status();
    assert!(status[0].streak >= 3, "{status:?}");
    assert_eq!((status[0].up, status[0].since), (Some(true), Some(since)));

    probes.reload(&configuration(FAST, &active(&[second.address])));
    assert_eq!(probes.status().len(), 1);

    let slower = FAST.replace("10ms", "20ms");
    probes.reload(&configuration(&slower, &active(&[second.address])));
    let again = next(&mut events).await;
    assert_eq!((again.backend, again.up), (second.address, true));
}

#[tokio::test]
async fn a_changed_file_of_roots_starts_its_probes_anew() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (_socket, refusing) = refusing();
    let probe = format!("url = 'https://www.shop.test/'\nverify = '{}'\ninterval = '1h'", file.path().display());
    let config = configuration(&probe, &active(&[refusing]));
    assert_eq!(check(&config).len(), 1, "an empty file is no file of roots");
    let (sender, mut events) = mpsc::channel(4);
    let mut probes = Probes::start(&config, sender);
    let detail = next(&mut events).await.detail;
    assert!(detail.contains("holds no certificate"), "{detail}");

    let certificate = rcgen::generate_simple_self_signed(["www.shop.test".to_owned()]).unwrap();
    std::fs::write(file.path(), certificate.cert.pem()).unwrap();
    assert_eq!(check(&config), [""; 0]);
    probes.reload(&config);
    assert_eq!(next(&mut events).await.detail, "connection refused");
}

#[tokio::test]
async fn dropped_probes_stop() {
    let (server, _) = switchable().await;
    let (sender, mut events) = mpsc::channel(4);
    let probes = Probes::start(&configuration(FAST, &active(&[server.address])), sender);
    next(&mut events).await;
    drop(probes);
    let end = time::timeout(DEADLINE, events.recv()).await;
    assert_eq!(end.expect("the end in time"), None);
}

#[test]
fn tries_go_from_start_to_start_and_second_ones_are_spread_over_half_an_interval() {
    use std::time::{Duration, Instant};

    use crate::probe::{first_pause, next_start};

    let ms = Duration::from_millis;
    let start = Instant::now();
    assert_eq!(next_start(start, ms(100), start + ms(30)), start + ms(100));
    assert_eq!(next_start(start, ms(100), start + ms(130)), start + ms(130));
    let pauses = [0, 1, 2, 3].map(|index| first_pause(ms(800), index, 4));
    assert_eq!(pauses, [ms(800), ms(700), ms(600), ms(500)]);
}
