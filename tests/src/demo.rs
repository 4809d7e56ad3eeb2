//! The demonstration: a lab goes up, things fail in it, users hardly notice, and it goes down. Everything printed was
//! observed a moment before; anything that is not as it should be ends it with an error.

mod interrupt;
mod story;

use std::{
    fmt,
    io::{IsTerminal, stdout},
    net::IpAddr,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hickory_proto::rr::RecordType;

use crate::{
    lab::{Lab, Options},
    plan::{Public, SITES, Site},
    steady::Question,
    wait::wait_until,
};

/// Failures and recoveries are noticed within a second or two; a busy machine gets more.
const DEADLINE: Duration = Duration::from_secs(15);

/// Runs it. Ctrl-C takes the lab down too.
///
/// # Errors
/// Something was not as it should be.
pub fn run() -> Result<ExitCode> {
    interrupt::clean_up_on_signals()?;
    let start = Instant::now();
    title("Two data centres, east and west, on this machine");
    let lab = Lab::up(&Options { progress: |what| note(format_args!("{what}")), ..Options::default() })?;
    note(format_args!("both agents are ready after {}", seconds(start.elapsed())));
    story::tell(&Stage { lab: &lab })?;
    drop(lab);
    title("Done");
    note(format_args!("all of it as it should be, in {}; the lab is gone again", seconds(start.elapsed())));
    println!(
        "\nBy hand:\n  cargo xtask lab up\n  cargo xtask lab exec client-e -- dig @192.0.2.2 www.shop.test\n  \
         cargo xtask lab exec client-e -- curl http://192.0.2.80/\n  cargo xtask lab status\n  cargo xtask lab down"
    );
    Ok(ExitCode::SUCCESS)
}

/// A lab, and an audience.
struct Stage<'a> {
    lab: &'a Lab,
}

impl Stage<'_> {
    /// Shows what a client gets for a name from a site's name server, over IPv4 and IPv6, and holds it to `expected`.
    fn ask(&self, client: &str, server: Site, resource: Public, expected: &[Site]) -> Result<()> {
        for (kind, family) in crate::FAMILIES {
            let at = server.public(Public::Dns)[family];
            let name = resource.domain().trim_end_matches('.');
            let answer = self.lab.dig(client, at, name, kind)?;
            say(client, format_args!("dig @{at} {name} {kind}"), &list(&answer));
            let wanted: Vec<IpAddr> = expected.iter().map(|site| site.public(resource)[family]).collect();
            ensure!(answer == wanted, "{client} should have got {} from {}", list(&wanted), server.name);
        }
        Ok(())
    }

    /// Shows the page a client gets when it tries these addresses in order, and holds it to the site expected.
    fn browse(&self, client: &str, addresses: &[IpAddr], expected: Site) -> Result<()> {
        let (address, page) = self.lab.browse(client, addresses)?;
        let line = |words| page.after(words).map(|rest| rest.split(':').next().unwrap_or(rest).to_owned());
        let server = line("page by ").context("the page does not say who made it")?;
        let database = |words| line(words).unwrap_or_else(|| "nobody".into());
        let (orders, accounts) = (database("orders by "), database("accounts by "));
        let request = format_args!("GET http://www.shop.test/ from {address}");
        say(client, request, &format!("page by {server}, orders by {orders}, accounts by {accounts}"));
        ensure!(server.starts_with(expected.name), "the page should have come from {}", expected.name);
        Ok(())
    }

    /// Shows which server answers a client's request, and holds it to the one expected.
    fn request(&self, client: &str, question: Question, server: &str) -> Result<()> {
        let answered = self.lab.server(client, question)?;
        say(client, format_args!("{question}"), &format!("answered by {answered}"));
        ensure!(answered == server, "{server} should have answered {client}");
        Ok(())
    }

    /// Waits until a client's request is answered by this server, says after how long from `since`.
    fn until_answered(&self, since: Instant, question: Question, server: &str) -> Result<()> {
        self.lab.await_server("client-e", question, server)?;
        note(format_args!("after {}  {server} answers {question}", seconds(since.elapsed())));
        Ok(())
    }

    /// Waits until these sites' name servers answer with `expected`, says after how long from `since`.
    fn until(&self, since: Instant, servers: &[Site], resource: Public, expected: &[Site]) -> Result<()> {
        for server in servers {
            let at = server.v4(Public::Dns).into();
            let wanted: Vec<IpAddr> = expected.iter().map(|site| site.v4(resource).into()).collect();
            let name = resource.domain().trim_end_matches('.');
            let what = format!("{} answers {} for {}", server.name, list(&wanted), name);
            wait_until(DEADLINE, &what, || {
                let answer = self.lab.ask("client-e", at, resource.domain(), RecordType::A);
                answer.is_ok_and(|answer| answer == wanted)
            })?;
            note(format_args!("after {}  {what}", seconds(since.elapsed())));
        }
        Ok(())
    }

    /// Waits until status at a site shows so many good backends of `www`.
    fn until_backends(&self, site: Site, good: usize) -> Result<()> {
        let since = Instant::now();
        let what = format!("{}'s probes find {good} good web servers", site.name);
        wait_until(DEADLINE, &what, || self.good_backends(site).is_ok_and(|found| found == good))?;
        note(format_args!("after {}  {what}", seconds(since.elapsed())));
        Ok(())
    }

    fn good_backends(&self, site: Site) -> Result<usize> {
        let status = self.lab.agent(site.name)?.status()?;
        let backends = status["backends"].as_array().context("status has no backends")?;
        Ok(backends.iter().filter(|backend| backend["resource"] == "www" && backend["up"] == true).count())
    }

    /// The addresses of `www` at both sites, as a resolver still has them in its cache.
    fn cached(&self) -> Vec<IpAddr> {
        SITES.map(|site| site.v4(Public::Www).into()).to_vec()
    }
}

/// The next chapter.
fn title(text: &str) {
    let bold = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (on, off) = if bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    println!("\n{on}{text}{off}");
}

/// Something done or seen.
fn note(text: fmt::Arguments) {
    println!("  {text}");
}

/// What a client asked and got.
fn say(client: &str, asked: fmt::Arguments, got: &str) {
    println!("  {client}$ {asked:<52}  {got}", asked = asked.to_string());
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join("  ")
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
