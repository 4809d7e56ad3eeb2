//! What the checks judge.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::echo::Echo;
use crate::{
    config::Config,
    nexthop::{Hops, Unresolved},
};

/// What every host has.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// All of them.
    pub interfaces: Vec<Interface>,
    /// All of them, on all interfaces.
    pub addresses: Vec<Address>,
    /// `rp_filter` of `all`.
    pub all_rp_filter: u32,
}

impl Host {
    /// The interface of that name.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    /// Where the host has `address`.
    pub fn places(&self, address: IpAddr) -> impl Iterator<Item = &Address> {
        self.addresses.iter().filter(move |own| own.address == address)
    }
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Set up by an administrator.
    pub up: bool,
    /// Connected to something.
    pub carrier: bool,
    /// The longest packet it takes, bytes.
    pub mtu: u32,
    /// The interfaces whose frames are its own: a VLAN's, or a bridge's or bond's ports.
    pub below: Vec<String>,
    /// The XDP program on it.
    pub program: Option<Program>,
    /// Large receive offload is on.
    pub lro: bool,
    /// Generic receive offload is on.
    pub gro: bool,
    /// The device takes VLAN tags off what it receives.
    pub takes_tags: bool,
    /// Checksums are left to the device.
    pub tx_checksums: bool,
    /// `rp_filter`, effective: the larger of the interface's and that of `all`.
    pub rp_filter: u32,
    /// `arp_ignore`, likewise.
    pub arp_ignore: u32,
    /// `arp_announce`, likewise.
    pub arp_announce: u32,
}

/// What an interface is, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `lo`.
    Loopback,
    /// A place for addresses, connected to nothing.
    Dummy,
    /// One end of a cable between namespaces.
    Veth,
    /// What of another interface's frames has a certain tag.
    Vlan,
    /// Anything else that speaks Ethernet.
    Ethernet,
    /// Anything else.
    Other,
}

impl Kind {
    /// Whether hosts on it ask for addresses by ARP.
    pub fn has_arp(self) -> bool {
        matches!(self, Self::Veth | Self::Vlan | Self::Ethernet)
    }
}

/// An XDP program on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name, if the kernel tells.
    pub name: Option<String>,
    /// It runs in the kernel's network stack, not in the driver.
    pub generic: bool,
}

/// An address of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// The length of its network's prefix.
    pub prefix: u8,
    /// The name of the interface it is on.
    pub interface: String,
}

/// An edge host and what it is to do.
#[derive(Clone, Debug)]
pub struct Edge<'a> {
    /// What it is to do.
    pub config: &'a Config,
    /// What it has.
    pub host: Host,
    /// `uname -r`.
    pub release: String,
    /// Whether `dataplane.pins` is on a BPF file system.
    pub bpf_file_system: bool,
    /// Whether the kernel forwards IPv4.
    pub forwards_v4: bool,
    /// Whether it forwards IPv6.
    pub forwards_v6: bool,
    /// The way to every backend of this site and to every peer's tunnel.
    pub hops: Arc<Hops>,
    /// Those addresses of resources with ports, and those tried before a takeover, that no route leads to, or one that
    /// forbids it.
    pub unrouted: BTreeMap<IpAddr, Unresolved>,
    /// What each peer said that could be asked, by site.
    pub echoes: BTreeMap<String, Echo>,
}
