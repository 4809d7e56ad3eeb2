//! Every resource at every site, a row each.

use super::api::InstanceRow;
use crate::decision::{Decided, Decision, Knowledge};
use crate::placement::{Instance, InstanceView};

/// The rows, by resource and in its policy's order.
pub fn instances(knowledge: &Knowledge, decision: &Decision) -> Vec<InstanceRow> {
    let rows = decision.resources.iter().flat_map(|(resource, decided)| {
        decided.instances.iter().map(move |view| row(knowledge, resource, decided, view))
    });
    rows.collect()
}

fn row(knowledge: &Knowledge, resource: &str, decided: &Decided, view: &InstanceView) -> InstanceRow {
    let own = view.site == knowledge.config.site;
    let peer = knowledge.evidence.peers.get(&view.site);
    let mut row = InstanceRow {
        resource: resource.to_owned(),
        site: view.site.clone(),
        state: view.state,
        holder: decided.tenure.holder.clone(),
        epoch: decided.tenure.epoch,
        available: view.serves(),
        drained: view.drained,
        contact: own || peer.is_some_and(|peer| peer.contact),
        why: "its site has not said".to_owned(),
        since: None,
    };
    if own {
        let Instance { state, why, since } = knowledge.instance(resource, &decided.tenure);
        (row.state, row.why, row.since) = (state, why, Some(since));
    } else if let Some(said) = peer.and_then(|peer| peer.report.as_ref()?.instances.get(resource)) {
        (row.state, row.why, row.since) = (said.state, said.why.clone(), Some(said.since));
        (row.holder, row.epoch) = (said.holder.clone(), said.epoch);
    }
    row
}
