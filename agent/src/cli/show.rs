//! `siteswap status` for people.

use std::fmt::Write;

use crate::control::api::{BackendStatus, InstanceStatus, ResourceStatus, Status};
use crate::link::PeerStatus;

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const RESET: &str = "\x1b[0m";

/// All of it, ending in a newline. Counters that are zero are left out.
pub fn status(status: &Status, colours: bool) -> String {
    let mut out = String::new();
    let paint = Paint(colours);
    let ready = if status.ready { paint.good("ready") } else { paint.bad("measuring, no answers yet") };
    line(&mut out, format!("site {}: {ready} (siteswap {}, {})", status.site, status.version, status.config));
    for resource in &status.resources {
        out.push('\n');
        show_resource(&mut out, resource, paint);
    }
    section(&mut out, "backends", status.backends.iter().map(|backend| show_backend(backend, paint)));
    section(&mut out, "peers", status.peers.iter().map(|peer| show_peer(peer, paint)));
    if let Some(program) = &status.program {
        let interfaces: Vec<String> =
            program.interfaces.iter().map(|(name, mode)| format!("{name} ({mode})")).collect();
        let title = format!("program on {}, lease {} s", interfaces.join(", "), program.lease);
        section(&mut out, &title, counters(&program.counters));
    }
    section(&mut out, "name server", counters(&status.server));
    let changes = status.changes.iter().rev().take(5);
    let ms = |micros: u64| std::time::Duration::from_micros(micros).as_secs_f64() * 1e3;
    section(
        &mut out,
        "last changes, newest first, with the time from finding to map",
        changes.map(|change| format!("{:>9.3} ms  {}", ms(change.micros), change.cause)),
    );
    out
}

/// Whether to colour.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn good(self, text: &str) -> String {
        self.with(GREEN, text)
    }

    fn bad(self, text: &str) -> String {
        self.with(RED, text)
    }

    fn with(self, colour: &str, text: &str) -> String {
        if self.0 { format!("{colour}{text}{RESET}") } else { text.to_owned() }
    }
}

fn line(out: &mut String, text: impl std::fmt::Display) {
    writeln!(out, "{text}").expect("a String takes everything");
}

fn section(out: &mut String, title: &str, lines: impl IntoIterator<Item = String>) {
    let mut lines = lines.into_iter().peekable();
    if lines.peek().is_some() {
        line(out, format!("\n{title}"));
        lines.for_each(|text| line(out, format!("  {text}")));
    }
}

fn show_resource(out: &mut String, resource: &ResourceStatus, paint: Paint) {
    let addresses: Vec<String> = resource.addresses.iter().map(ToString::to_string).collect();
    let holder = resource.holder.as_deref().map_or_else(String::new, |holder| format!(", holder {holder}"));
    line(
        out,
        format!("resource {} ({}), epoch {}{holder}", resource.name, resource.domains.join(", "), resource.epoch),
    );
    let answer = if addresses.is_empty() { "no address".to_owned() } else { addresses.join(", ") };
    let note = if resource.all_down { paint.bad("  no site is available: all_down") } else { String::new() };
    line(out, format!("  answer     {answer}{note}"));
    line(out, format!("  requests   {}", resource.arrival));
    for instance in &resource.instances {
        line(out, format!("  {}", show_instance(instance, paint)));
    }
}

fn show_instance(instance: &InstanceStatus, paint: Paint) -> String {
    let view = &instance.view;
    let measured = if view.measured { "available" } else { "not available" };
    let state = if instance.available { paint.good("in ") } else { paint.bad("out") };
    let forced = view.forced.map_or_else(String::new, |forced| format!("  set {forced} by an operator; measured:"));
    format!("{:<10} {state} {:<8}{forced} {measured} ({})", view.site, view.state, view.why)
}

fn show_backend(backend: &BackendStatus, paint: Paint) -> String {
    let state = match backend.up {
        Some(true) => paint.good("up     "),
        Some(false) => paint.bad("down   "),
        None => "unknown".to_owned(),
    };
    let since = backend.since.map_or_else(String::new, |since| format!(" for {since:.0} s"));
    let latency = backend.latency.map_or_else(String::new, |ms| format!(", {ms:.1} ms"));
    format!("{:<10} {:<22} {state}{since}; last try: {}{latency}", backend.resource, backend.backend, backend.last)
}

fn show_peer(peer: &PeerStatus, paint: Paint) -> String {
    let contact = if peer.contact { paint.good("in contact") } else { paint.bad("not in contact") };
    let periods: String = peer.periods.iter().map(|held| if *held { '+' } else { '-' }).collect();
    let rtt = peer.rtt_us.map_or_else(String::new, |rtt| format!(", round trip {rtt} µs"));
    let error = peer.last_error.as_ref().map_or_else(String::new, |error| format!("; {error}"));
    format!("{:<10} {contact}, last periods {periods}, {} heartbeats{rtt}{error}", peer.peer, peer.heartbeats)
}

fn counters(counters: &std::collections::BTreeMap<String, u64>) -> Vec<String> {
    let seen = counters.iter().filter(|(_, count)| **count > 0);
    seen.map(|(name, count)| format!("{count:>12}  {name}")).collect()
}
