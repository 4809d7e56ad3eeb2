//! What users should get, awaited.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result};
use hickory_proto::rr::RecordType;
use serde_json::Value;

use super::Lab;
use crate::{
    plan::{Public, SITES, Site},
    steady::Question,
    wait::wait_until,
};

/// Detection takes about a second with the lab's settings; a busy machine gets a lot more.
const DEADLINE: Duration = Duration::from_secs(15);

/// The record types of addresses, with their place in [`Site::public`].
pub const FAMILIES: [(RecordType, usize); 2] = [(RecordType::A, 0), (RecordType::AAAA, 1)];

impl Lab {
    /// Waits until the name servers of `servers`, over IPv4 and IPv6, answer a resource's name with exactly the
    /// addresses of `sites`, in this order, A and AAAA alike. Says how long that took.
    ///
    /// # Errors
    /// They still answer something else at the deadline; the error says what.
    pub fn await_answers(&self, client: &str, servers: &[Site], resource: Public, sites: &[Site]) -> Result<Duration> {
        let mut waited = Duration::ZERO;
        for server in servers.iter().flat_map(|site| site.public(Public::Dns)) {
            for (kind, family) in FAMILIES {
                let expected: Vec<IpAddr> = sites.iter().map(|site| site.public(resource)[family]).collect();
                let mut last = String::new();
                let what = format!("{client} gets {expected:?} from {server} for {} {kind}", resource.domain());
                let awaited = wait_until(DEADLINE, &what, || {
                    let answer = self.ask(client, server, resource.domain(), kind);
                    last = format!("{answer:?}");
                    answer.is_ok_and(|addresses| addresses == expected)
                });
                waited += awaited.with_context(|| format!("the last answer was {last}"))?;
            }
        }
        Ok(waited)
    }

    /// Waits until a request from `node` is answered by `server`.
    ///
    /// # Errors
    /// It still is not at the deadline; the error says what came last.
    pub fn await_server(&self, node: &str, question: Question, server: &str) -> Result<()> {
        let mut last = String::new();
        let what = format!("{node} is answered by {server} when it asks {question}");
        let awaited = wait_until(DEADLINE, &what, || {
            let answer = self.server(node, question);
            last = format!("{answer:?}");
            answer.is_ok_and(|found| found == server)
        });
        awaited.map(drop).with_context(|| format!("the last answer was {last}"))
    }

    /// Waits until both agents say that the other is in contact, or that it is not.
    ///
    /// # Errors
    /// They still say the opposite at the deadline.
    pub fn await_contact(&self, contact: bool) -> Result<()> {
        for site in SITES {
            let agent = self.agent(site.name)?;
            let what = format!("{} is {}in contact with {}", site.name, if contact { "" } else { "not " }, site.peer);
            wait_until(DEADLINE, &what, || agent.status().is_ok_and(|all| all["peers"][0]["contact"] == contact))?;
        }
        Ok(())
    }

    /// Waits until the agents of `sites` all say that this is the epoch, and that the instance at `holder` is active and
    /// the other's is not.
    ///
    /// # Errors
    /// They still say something else at the deadline; the error says what.
    pub fn await_holder(&self, sites: &[Site], resource: Public, holder: Site, epoch: u64) -> Result<()> {
        for site in sites {
            let agent = self.agent(site.name)?;
            let mut last = String::new();
            let what =
                format!("{} says that {} is held by {} in epoch {epoch}", site.name, resource.name(), holder.name);
            let awaited = wait_until(DEADLINE, &what, || {
                let found = agent.resource(resource);
                last = format!("{found:?}");
                found.is_ok_and(|found| found["epoch"] == epoch && active(&found) == [holder.name])
            });
            awaited.with_context(|| format!("the last it said was {last}"))?;
        }
        Ok(())
    }
}

/// The sites whose instance is active, by a resource's status.
fn active(resource: &Value) -> Vec<&str> {
    let instances = resource["instances"].as_array().into_iter().flatten();
    instances
        .filter(|instance| instance["state"] == "active")
        .filter_map(|instance| instance["site"].as_str())
        .collect()
}
