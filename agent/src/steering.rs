//! From a decision to what the program does with requests. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    config::{Config, Instance},
    dataplane::requests::{Arrival, Backend, Leaving, Requests, Resource},
    decision::{self, Decided, Decision, Knowledge},
    evidence::OwnInstance,
    nexthop::{Hop, Hops, Unresolved},
    placement::{self, Override},
};

/// What should become of requests for all resources that have ports.
pub fn requests(knowledge: &Knowledge, decision: &Decision) -> Requests {
    let config = &knowledge.config;
    let tunnel = |site: &str| Some((site.to_owned(), config.sites[site].tunnel?));
    let resources = config.resources.iter().filter(|(_, resource)| !resource.ports.is_empty());
    Requests {
        resources: resources
            .filter_map(|(name, _)| Some((name.clone(), resource(knowledge, name, decision.resources.get(name)?))))
            .collect(),
        own_tunnel: config.sites[&config.site].tunnel.map(|tunnel| *tunnel.ip()),
        tunnels: config.peers().filter_map(tunnel).collect(),
    }
}

/// What of a configuration the program has no room for, if it has a program.
pub fn crowded(config: &Arc<Config>) -> Vec<String> {
    if config.dataplane.interfaces.is_empty() {
        return Vec::new();
    }
    let knowledge = Knowledge::new(Arc::clone(config));
    requests(&knowledge, &knowledge.decide(&decision::names(config))).crowded()
}

/// The addresses whose next hops the program needs: this site's backends, and the peers' tunnels.
pub fn addresses(config: &Config) -> BTreeSet<IpAddr> {
    let served = config.own_instances().filter(|(name, _)| !config.resources[*name].ports.is_empty());
    let backends = served.flat_map(|(_, instance)| &instance.backends).map(|backend| backend.ip());
    let tunnels = config.peers().filter_map(|site| config.sites[site].tunnel).map(|tunnel| (*tunnel.ip()).into());
    backends.chain(tunnels).collect()
}

/// The ways to go by after `last`, now that the kernel says `found`. A neighbour that the kernel has lost sight of keeps its
/// place: whether a backend works is for its probes to say, and one that passes them is where it was.
pub fn ways(last: &Hops, found: &Hops) -> Hops {
    let one = |(address, hop): (&IpAddr, &Result<Hop, Unresolved>)| {
        let known = last.get(address).filter(|known| known.is_ok());
        let way = match hop {
            Err(Unresolved::NoNeighbour { .. }) => known.unwrap_or(hop),
            _ => hop,
        };
        (*address, way.clone())
    };
    found.iter().map(one).collect()
}

fn resource(knowledge: &Knowledge, name: &str, decided: &Decided) -> Resource {
    let own = &knowledge.config.site;
    let configured = &knowledge.config.resources[name];
    let forced = knowledge.overrides.get(&(name.to_owned(), own.clone())) == Some(&Override::Up);
    let backends = match (configured.instances.get(own), knowledge.evidence.own.get(name)) {
        (Some(instance), Some(evidence)) => backends(instance, evidence, forced),
        _ => Vec::new(),
    };
    Resource {
        addresses: configured.instances.values().flat_map(|instance| instance.addresses.iter().copied()).collect(),
        ports: configured.ports.clone(),
        epoch: decided.tenure.epoch,
        arrival: match &decided.placement.arrival {
            placement::Arrival::Serve => Arrival::Serve,
            placement::Arrival::Forward(site)
            | placement::Arrival::ForwardSilent(site)
            | placement::Arrival::TakeOver(Some(site)) => Arrival::Forward(site.clone()),
            // Not before the new epoch is stored; then it is served.
            placement::Arrival::TakeOver(None) | placement::Arrival::Refuse => Arrival::Refuse,
        },
        leaving: decided.leaving.as_ref().map(|site| match site == own {
            true => Leaving::Here,
            false => Leaving::Peer(site.clone()),
        }),
        backends,
    }
}

/// One entry for each address; direct mode knows no ports. `forced`: an operator says that the instance serves, so all
/// backends do if none passes its probes, and so they do while all are new and none has been tried. If none but those of
/// weight 0 is up they serve too: the instance is available.
fn backends(instance: &Instance, evidence: &OwnInstance, forced: bool) -> Vec<Backend> {
    let all = forced && !evidence.available() || evidence.carried();
    let mut backends = BTreeMap::new();
    for backend in &instance.backends {
        let verdict = evidence.backends.get(backend).and_then(Option::as_ref);
        let up = all || verdict.is_some_and(|verdict| verdict.up);
        let entry = backends.entry(backend.ip()).or_insert(Backend { address: backend.ip(), weight: 0, up: false });
        if up {
            entry.up = true;
            entry.weight += instance.weight(backend);
        }
    }
    let mut backends: Vec<Backend> = backends.into_values().collect();
    if backends.iter().all(|backend| backend.weight == 0) {
        backends.iter_mut().filter(|backend| backend.up).for_each(|backend| backend.weight = 1);
    }
    backends
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::{config::Role, evidence::Verdict};

    #[test]
    fn backends_of_weight_0_serve_where_no_other_is_up() {
        let backends: Vec<SocketAddr> = ["10.1.0.11:80", "10.1.0.12:80"].map(|text| text.parse().unwrap()).into();
        let instance = Instance {
            role: Role::Active,
            addresses: Vec::new(),
            backends: backends.clone(),
            weights: BTreeMap::from([(backends[1], 0)]),
        };
        let weights = |up: [bool; 2]| {
            let verdict = |up| Some(Verdict { up, detail: String::new() });
            let evidence =
                OwnInstance { backends: backends.iter().copied().zip(up.map(verdict)).collect(), before: None };
            super::backends(&instance, &evidence, false).iter().map(|backend| backend.weight).collect::<Vec<_>>()
        };
        assert_eq!(weights([true, true]), [1, 0]);
        assert_eq!(weights([false, true]), [0, 1]);
        assert_eq!(weights([false, false]), [0, 0]);
    }

    #[test]
    fn a_neighbour_out_of_sight_keeps_its_place_but_one_without_a_route_does_not() {
        let address: IpAddr = "10.1.0.11".parse().unwrap();
        let hop = |last: u8| {
            Ok(Hop {
                interface: 7,
                name: "lan0".to_owned(),
                source_mac: [2; 6],
                mac: [last; 6],
                mtu: 1500,
                source: "10.1.0.1".parse().unwrap(),
                gateway: None,
            })
        };
        let lost = Err(Unresolved::NoNeighbour { gateway: None, interface: "lan0".to_owned() });
        let hops = |hop: &Result<Hop, Unresolved>| Hops::from([(address, hop.clone())]);
        assert_eq!(ways(&Hops::new(), &hops(&lost)), hops(&lost));
        assert_eq!(ways(&hops(&hop(1)), &hops(&lost)), hops(&hop(1)));
        assert_eq!(ways(&hops(&hop(1)), &hops(&hop(2))), hops(&hop(2)));
        assert_eq!(ways(&hops(&hop(1)), &hops(&Err(Unresolved::NoRoute))), hops(&Err(Unresolved::NoRoute)));
        assert_eq!(ways(&hops(&hop(1)), &Hops::new()), Hops::new());
    }
}
