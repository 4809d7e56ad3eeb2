//! The program's rare events in the agent's log.

mod dataplane_support;

use std::{
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use dataplane_support::*;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_programs_events_reach_the_agents_log_once_each() {
    new_namespace();
    let (pins, client) = (Pins::new("events"), Client::start());
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut dataplane = started(&pins.config(&[INTERFACE]), EDGE);
        let answers = [("www", "www.shop.test.", Ipv4Addr::new(192, 0, 2, 80))];
        dataplane.publish(&table(&answers)).unwrap();
        dataplane.renew_lease(Duration::ZERO).unwrap();
        for _ in 0..3 {
            assert_eq!(client.ask(EDGE, "www.shop.test."), None);
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while !log.text().contains("lease has run out") {
            assert!(Instant::now() < deadline, "{}", log.text());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let text = log.text();
    assert_eq!(text.matches("lease has run out").count(), 1, "{text}");
    assert!(text.contains("WARN siteswap::xdp"), "{text}");
}
