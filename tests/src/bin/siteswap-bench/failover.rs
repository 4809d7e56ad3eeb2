//! From what is found to the changed map, as the agents of a lab record it.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result};
use lab::{Lab, Options, wait_until};
use serde_json::{Value, json};

use crate::{Report, median};

/// Failures and recoveries of each kind.
const ROUNDS: usize = 10;

/// Microseconds, by what was found.
pub struct Failover {
    probes: Vec<u64>,
    silence: Vec<u64>,
}

/// Kills and restarts both web servers of a site, and cuts and mends the link between the sites.
pub fn measure() -> Result<Failover> {
    let lab = Lab::up(&Options { progress: |what| eprintln!("  {what}"), ..Options::default() })?;
    let (mut probes, mut silence) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        eprintln!("  failure {round} of {ROUNDS}");
        for server in ["east-web1", "east-web2"] {
            lab.kill(server)?;
        }
        probes.extend(caused(&lab, "east", "is down")?);
        for server in ["east-web1", "east-web2"] {
            lab.start(server)?;
        }
        answered(&lab, "east", 2)?;
        answered(&lab, "west", 2)?;
        lab.cut("link")?;
        silence.extend(caused(&lab, "east", "west is not in contact")?);
        lab.mend("link")?;
        answered(&lab, "east", 2)?;
        answered(&lab, "west", 2)?;
    }
    Ok(Failover { probes, silence })
}

/// Waits until `site` answers for `www` with one site only, and gives the times of the changes that `words` caused.
fn caused(lab: &Lab, site: &str, words: &str) -> Result<Vec<u64>> {
    let before: BTreeSet<u64> =
        Vec::from_iter(moments(&lab.agent(site)?.status()?)?).into_iter().map(|c| c.0).collect();
    answered(lab, site, 1)?;
    let status = lab.agent(site)?.status()?;
    let new = moments(&status)?.into_iter().filter(|(at, cause, _)| !before.contains(at) && cause.contains(words));
    Ok(new.map(|(_, _, micros)| micros).collect())
}

/// When, what and how long: the changes an agent remembers.
fn moments(status: &Value) -> Result<Vec<(u64, String, u64)>> {
    let changes = status["changes"].as_array().context("status has no changes")?;
    let one = |change: &Value| {
        Some((change["at"].as_u64()?, change["cause"].as_str()?.to_owned(), change["micros"].as_u64()?))
    };
    changes.iter().map(|change| one(change).context("a change without its fields")).collect()
}

/// Waits until `site` answers for `www` with this many sites.
fn answered(lab: &Lab, site: &str, sites: usize) -> Result<()> {
    let agent = lab.agent(site)?;
    let www = |status: Value| {
        let resources = status["resources"].as_array().cloned().unwrap_or_default();
        let found = resources.into_iter().find(|resource| resource["name"] == "www");
        found.and_then(|resource| resource["answer"].as_array().map(Vec::len))
    };
    let what = format!("{site} answers with {sites} sites");
    wait_until(Duration::from_secs(20), &what, || agent.status().is_ok_and(|status| www(status) == Some(sites)))?;
    Ok(())
}

impl Report for Failover {
    fn json(&self) -> Value {
        json!({ "benchmark": "failover", "unit": "microseconds", "probes": self.probes, "silence": self.silence })
    }

    fn text(&self) -> String {
        let line = |what: &str, micros: &[u64]| match micros {
            [] => format!("  {what:<44} nothing was recorded\n"),
            some => format!(
                "  {what:<44} {:>8.2} {:>8.2} {:>6}\n",
                Duration::from_micros(median(some)).as_secs_f64() * 1e3,
                Duration::from_micros(some.iter().copied().max().unwrap_or(0)).as_secs_f64() * 1e3,
                some.len()
            ),
        };
        format!("failover: from finding to the changed map, ms\n  {:<44} {:>8} {:>8} {:>6}\n", "", "median", "max", "n")
            + &line("the last failed try of the last web server", &self.probes)
            + &line("the end of the empty heartbeat period", &self.silence)
    }
}
