//! Judges a backend: it must own the resources' addresses, and keep quiet about them.

use std::net::IpAddr;

use super::{
    Finding,
    facts::{Host, Interface, Kind},
    set_ipv4,
};

/// All checks, for a backend that is to serve `addresses`.
pub fn check(host: &Host, addresses: &[IpAddr]) -> Vec<Finding> {
    let owned = addresses.iter().map(|address| loopback(host, *address));
    // IPv6 needs nothing of the kind: its neighbour discovery answers for an interface's own addresses only.
    let asked: Vec<&Interface> = match addresses.iter().any(IpAddr::is_ipv4) {
        true => host.interfaces.iter().filter(|interface| interface.kind.has_arp() && interface.up).collect(),
        false => Vec::new(),
    };
    owned.chain(asked.iter().flat_map(|interface| [arp_ignore(interface), arp_announce(interface)])).collect()
}

fn loopback(host: &Host, address: IpAddr) -> Finding {
    const CHECK: &str = "loopback";
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let add = format!("ip addr add {address}/{whole} dev lo");
    let quiet = |name: &str| {
        host.interface(name).is_some_and(|interface| matches!(interface.kind, Kind::Loopback | Kind::Dummy))
    };
    let (kept, shown): (Vec<_>, Vec<_>) = host.places(address).partition(|place| quiet(&place.interface));
    if let Some(place) = shown.first() {
        let says = format!("on {}, so that this host answers there when others ask whose it is", place.interface);
        let del = format!("ip addr del {address}/{} dev {}", place.prefix, place.interface);
        let mend = if kept.is_empty() { format!("{del} && {add}") } else { del };
        return Finding::problem(CHECK, address, says).mended_by(mend);
    }
    match kept.iter().find(|place| place.prefix != whole) {
        Some(place) => {
            let says = format!(
                "on {} as /{}, which makes this host take all of that network for its own",
                place.interface, place.prefix
            );
            let del = format!("ip addr del {address}/{} dev {}", place.prefix, place.interface);
            Finding::problem(CHECK, address, says).mended_by(format!("{del} && {add}"))
        }
        None => match kept.first() {
            Some(place) => Finding::ok(CHECK, address, format!("on {}", place.interface)),
            None => Finding::problem(CHECK, address, "missing: requests for it are not taken").mended_by(add),
        },
    }
}

fn arp_ignore(interface: &Interface) -> Finding {
    const CHECK: &str = "arp_ignore";
    let says = match interface.arp_ignore {
        value @ (1 | 2) => {
            return Finding::ok(
                CHECK,
                &interface.name,
                format!("{value}: it answers for the interface's own addresses only"),
            );
        }
        8 => "8: it answers no ARP request at all, and the edge cannot find it".to_owned(),
        value => format!(
            "{value}: it answers ARP requests for the resources' addresses, and draws their traffic past the edge"
        ),
    };
    let mend = match interface.arp_ignore {
        0 => set_ipv4("all", CHECK, 1),
        // The larger of both counts.
        _ => format!("{} && {}", set_ipv4("all", CHECK, 1), set_ipv4(&interface.name, CHECK, 1)),
    };
    Finding::problem(CHECK, &interface.name, says).mended_by(mend)
}

fn arp_announce(interface: &Interface) -> Finding {
    const CHECK: &str = "arp_announce";
    match interface.arp_announce {
        2 => Finding::ok(CHECK, &interface.name, "2: it asks from the interface's own address"),
        value => {
            let says = format!(
                "{value}: its own ARP requests may name a resource's address as the sender's, and teach the LAN that it \
                 lives here"
            );
            Finding::problem(CHECK, &interface.name, says).mended_by(set_ipv4("all", CHECK, 2))
        }
    }
}

#[cfg(test)]
mod tests;
