//! `siteswap status` for people.

use std::{fmt::Write, time::Duration};

use crate::control::api::{
    BackendStatus, Drained, InstanceRow, InstanceStatus, Replicated, ResourceStatus, Status, StepKind, Swapped,
};
use crate::{
    evidence::Backlog,
    link::{PeerStatus, is_wrong},
};

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const RESET: &str = "\x1b[0m";

/// All of it, ending in a newline. Counters that are zero are left out.
pub fn status(status: &Status, colours: bool) -> String {
    let mut out = String::new();
    let paint = Paint(colours);
    let ready = if status.ready { paint.good("ready") } else { paint.bad("measuring, no answers yet") };
    let drained = if status.drained { paint.bad(", drained") } else { String::new() };
    line(&mut out, format!("site {}: {ready}{drained} (siteswap {}, {})", status.site, status.version, status.config));
    for resource in &status.resources {
        out.push('\n');
        show_resource(&mut out, resource, paint);
    }
    section(&mut out, "backends", status.backends.iter().map(|backend| show_backend(backend, paint)));
    section(&mut out, "peers", status.peers.iter().map(|peer| show_peer(peer, paint)));
    section(&mut out, "database", status.replication.iter().map(|(peer, apart)| show_replicated(peer, apart)));
    if let Some(program) = &status.program {
        let interfaces: Vec<String> =
            program.interfaces.iter().map(|(name, mode)| format!("{name} ({mode})")).collect();
        let title = format!("program on {}, lease {} s", interfaces.join(", "), program.lease);
        section(&mut out, &title, counters(&program.counters));
    }
    section(&mut out, "name server", counters(&status.server));
    let changes = status.changes.iter().rev().take(5);
    let ms = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1e3;
    section(
        &mut out,
        "last changes, newest first, with the time from finding to map",
        changes.map(|change| format!("{:>9.3} ms  {}", ms(change.micros), change.cause)),
    );
    out
}

/// `siteswap instances`: a row each, ending in a newline. `now`: seconds since 1970.
pub fn instances(rows: &[InstanceRow], now: u64, colours: bool) -> String {
    let paint = Paint(colours);
    let mut out = String::new();
    let widest = |of: fn(&InstanceRow) -> usize, title: usize| rows.iter().map(of).max().unwrap_or(0).max(title);
    let resource = widest(|row| row.resource.len(), 8);
    let site = widest(|row| row.site.len(), 4);
    let holder = widest(|row| row.holder.as_ref().map_or(1, String::len), 6);
    line(
        &mut out,
        format!(
            "{:resource$}  {:site$}  STATE     {:holder$}  EPOCH  AVAILABLE  SINCE     WHY",
            "RESOURCE", "SITE", "HOLDER"
        ),
    );
    for row in rows {
        let available = match (row.available, row.drained) {
            (true, false) => paint.good("yes      "),
            (true, true) => paint.bad("drained  "),
            (false, _) if !row.contact => paint.bad("silent   "),
            (false, _) => paint.bad("no       "),
        };
        let since = row.since.map_or_else(|| "-".to_owned(), |since| ago(now.saturating_sub(since)));
        let held = row.holder.as_deref().unwrap_or("-");
        line(
            &mut out,
            format!(
                "{:resource$}  {:site$}  {:<8}  {held:holder$}  {:>5}  {available}  {since:<8}  {}",
                row.resource, row.site, row.state, row.epoch, row.why
            ),
        );
    }
    out
}

/// A length of time in its largest unit.
fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// What `siteswap swap` did.
pub fn swapped(swapped: &Swapped) -> String {
    let mut out = String::new();
    let Swapped { resource, holder, epoch, .. } = swapped;
    let already = if swapped.already { " already" } else { "" };
    line(
        &mut out,
        match holder {
            Some(holder) => format!("{holder} holds {resource}{already}, epoch {epoch}"),
            None => format!("the roles of {resource} are{already} as configured, epoch {epoch}"),
        },
    );
    for step in swapped.steps.iter().filter(|_| !swapped.already) {
        let what = match step.step {
            StepKind::Asked => "asked",
            StepKind::CaughtUp => "caught up",
            StepKind::Taken => "taken",
            StepKind::Published => "published",
            StepKind::Adopted => "adopted",
        };
        let ms = Duration::from_micros(step.micros).as_secs_f64() * 1e3;
        line(&mut out, format!("  {what:<9}  {:<12} {ms:>9.3} ms", step.site));
    }
    for site in &swapped.waiting {
        line(&mut out, format!("  waiting    {site} is in contact and has not adopted it yet"));
    }
    for site in &swapped.absent {
        line(&mut out, format!("  absent     {site} is not in contact and adopts it when it returns"));
    }
    for site in &swapped.behind {
        let why = match *site == swapped.to {
            true => "may lack what its peers count as applied there; see: siteswap db status",
            false => "was not waited for: what it has committed and not sent comes later",
        };
        line(&mut out, format!("  behind     {site} {why}"));
    }
    out
}

/// What `siteswap drain` did.
pub fn drained(site: &str, drained: &Drained) -> String {
    let mut out = String::new();
    line(&mut out, format!("{site} is drained"));
    for (resource, to) in &drained.moved {
        line(&mut out, format!("  moved    {resource} to {to}"));
    }
    for (resource, why) in &drained.stays {
        line(&mut out, format!("  stays    {resource}: {why}"));
    }
    for resource in &drained.waiting {
        line(&mut out, format!("  waiting  {resource}: no other site has taken it yet"));
    }
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
    if let Some(site) = &resource.leaving {
        line(out, format!("  flows      established at {site} finish there"));
    }
    for instance in &resource.instances {
        line(out, format!("  {}", show_instance(instance, paint)));
    }
}

fn show_instance(instance: &InstanceStatus, paint: Paint) -> String {
    let view = &instance.view;
    let measured = if view.measured { "available" } else { "not available" };
    let state = if instance.available { paint.good("in ") } else { paint.bad("out") };
    let forced = view.forced.map_or_else(String::new, |forced| format!("  set {forced} by an operator; measured:"));
    let drained = if view.drained { " drained," } else { "" };
    format!("{:<10} {state} {:<8}{forced}{drained} {measured} ({})", view.site, view.state, view.why)
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
    let clock = peer.clock_ahead_ms.filter(|ahead| is_wrong(*ahead)).map_or_else(String::new, |ahead| {
        let seconds = Duration::from_millis(ahead.unsigned_abs()).as_secs_f64();
        paint.bad(&format!(", its clock is {seconds:.1} s {}", if ahead > 0 { "ahead" } else { "behind" }))
    });
    let error = peer.last_error.as_ref().map_or_else(String::new, |error| format!("; {error}"));
    format!("{:<10} {contact}, last periods {periods}, {} heartbeats{rtt}{clock}{error}", peer.peer, peer.heartbeats)
}

fn show_replicated(peer: &str, apart: &Replicated) -> String {
    let rows = |backlog: &Backlog| match backlog.rows {
        _ if backlog.forgotten => "less than is kept for it, and is to be compared".to_owned(),
        0 => "everything".to_owned(),
        rows => format!(
            "all but {rows} rows, the oldest changed {:.1} s ago",
            Duration::from_millis(backlog.lag).as_secs_f64()
        ),
    };
    let here =
        apart.missing.as_ref().map_or_else(String::new, |missing| format!(", this site has {} of it", rows(missing)));
    format!("{peer:<10} has {} of this site{here}", rows(&apart.waits))
}

fn counters(counters: &std::collections::BTreeMap<String, u64>) -> Vec<String> {
    let seen = counters.iter().filter(|(_, count)| **count > 0);
    seen.map(|(name, count)| format!("{count:>12}  {name}")).collect()
}
