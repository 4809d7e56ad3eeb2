//! Requests without the program: what the lab's network and servers do by themselves.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::Lab;
use crate::plan::{LAN, RESOURCES, SITES, Site};

impl Lab {
    /// Has each edge's kernel route the requests for its addresses to the backends of its own site, good or bad: all
    /// that can be done without the program.
    ///
    /// # Errors
    /// The kernel refuses a route.
    pub(super) fn route_requests(&self) -> Result<()> {
        SITES.into_iter().try_for_each(|site| self.route_requests_of(site))
    }

    fn route_requests_of(&self, site: Site) -> Result<()> {
        const SETTINGS: [(&str, &str); 4] = [
            ("ipv4/fib_multipath_hash_policy", "1"),
            ("ipv6/fib_multipath_hash_policy", "1"),
            // A request from the LAN goes back there, and its sender is not to find a shorter way.
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/lan0/send_redirects", "0"),
        ];
        let edge = self.node(site.name)?;
        edge.enter(|| {
            let set = |(setting, value)| fs::write(format!("/proc/sys/net/{setting}"), value).context(setting);
            SETTINGS.into_iter().try_for_each(set)
        })?;
        for resource in RESOURCES {
            for family in [0, 1] {
                let address = site.public(resource)[family].to_string();
                let serving = LAN.into_iter().filter(|host| host.serves.contains(&resource));
                let gateways: Vec<String> = serving.map(|host| site.lan(host.number)[family].to_string()).collect();
                let hops = gateways.iter().flat_map(|gateway| ["nexthop", "via", gateway]);
                let route: Vec<&str> = ["ip", "route", "replace", &address].into_iter().chain(hops).collect();
                let output = edge.exec(&route)?;
                let error = String::from_utf8_lossy(&output.stderr);
                ensure!(output.status.success(), "{}: {}: {}", site.name, route.join(" "), error.trim());
            }
        }
        Ok(())
    }
}
