//! The compiled-in object: its maps and programs into the kernel, and templates for the inner maps.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, FromRawFd, OwnedFd},
    path::PathBuf,
};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, Map, MapData},
    programs::{ProgramError, Xdp},
};
use aya_obj::{
    Object,
    generated::{bpf_attr, bpf_cmd},
};
use nix::{errno::Errno, libc};
use siteswap_common::{
    maps::{MAX_LISTEN, MAX_PEERS, TunnelPeer},
    steer::tunnel::site,
};

use super::{
    error::{Error, chain, errno},
    pins::Pins,
};

/// The programs' object file: `siteswap`, the data plane, and `stub`, which passes everything.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/siteswap-ebpf"));

/// Programs that only the benchmark loads.
pub static BENCHMARK: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/siteswap-ebpf-bench"));

/// The data plane's program.
pub const PROGRAM: &str = "siteswap";

/// Maps that outlive the agent.
pub const PINNED: [&str; 11] =
    [SEEDS, NAMES, ANSWERS, ADDRESS_SEEDS, ADDRESSES, INSTANCES, RINGS, TARGETS, FLOWS, CONTROL, COUNTERS];
pub const SEEDS: &str = "SEEDS";
pub const NAMES: &str = "NAMES";
pub const ANSWERS: &str = "ANSWERS";
pub const ADDRESS_SEEDS: &str = "ADDRESS_SEEDS";
pub const ADDRESSES: &str = "ADDRESSES";
pub const INSTANCES: &str = "INSTANCES";
pub const RINGS: &str = "RINGS";
pub const TARGETS: &str = "TARGETS";
const FLOWS: &str = "FLOWS";
pub const CONTROL: &str = "CONTROL";
pub const COUNTERS: &str = "COUNTERS";
pub const EXPLAINED: &str = "EXPLAINED";

/// What does not change while a program runs: the verifier knows it, and leaves out what it makes superfluous.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constants {
    /// Addresses that queries are answered on.
    pub dns: Vec<IpAddr>,
    /// This site's name.
    pub site: String,
    /// This end of the tunnel.
    pub tunnel: Option<SocketAddrV4>,
    /// The other ends, with their sites' names.
    pub peers: Vec<(Ipv4Addr, String)>,
    /// The secret by which flows are told apart, for maps that have none yet.
    pub flow_seed: u64,
}

/// The same as the program's read-only data has it. The first entry of zeros ends a list.
#[derive(Debug, Default, PartialEq, Eq)]
struct ReadOnly {
    v4: [[u8; 4]; MAX_LISTEN],
    v6: [[u8; 16]; MAX_LISTEN],
    tunnel: [u32; 3],
    peers: [TunnelPeer; MAX_PEERS],
    flow_mask: u32,
}

impl ReadOnly {
    fn new(constants: &Constants, flow_sets: u32) -> Result<Self, Error> {
        let mut data = Self { flow_mask: flow_sets - 1, ..Self::default() };
        // Nothing is sent to the unspecified address, and its zeros would end the list.
        let dns = || constants.dns.iter().filter(|address| !address.is_unspecified());
        let v4: Vec<_> = dns().filter_map(|address| v4(*address)).collect();
        let v6: Vec<_> = dns().filter_map(|address| v6(*address)).collect();
        let peer = |(address, name): &(Ipv4Addr, String)| TunnelPeer { address: address.octets(), site: site(name) };
        let peers: Vec<_> = constants.peers.iter().map(peer).collect();
        fill(&mut data.v4, &v4, "IPv4 addresses to answer on")?;
        fill(&mut data.v6, &v6, "IPv6 addresses to answer on")?;
        fill(&mut data.peers, &peers, "peers with a tunnel")?;
        if let Some(tunnel) = constants.tunnel {
            data.tunnel = [tunnel.ip().to_bits(), tunnel.port().into(), site(&constants.site)];
        }
        Ok(data)
    }
}

fn v4(address: IpAddr) -> Option<[u8; 4]> {
    match address {
        IpAddr::V4(address) => Some(address.octets()),
        IpAddr::V6(_) => None,
    }
}

fn v6(address: IpAddr) -> Option<[u8; 16]> {
    match address {
        IpAddr::V6(address) => Some(address.octets()),
        IpAddr::V4(_) => None,
    }
}

fn fill<T: Copy, const N: usize>(list: &mut [T; N], items: &[T], what: &'static str) -> Result<(), Error> {
    if items.len() > N {
        return Err(Error::TooMany { what, count: items.len(), most: N });
    }
    list[..items.len()].copy_from_slice(items);
    Ok(())
}

/// Loads maps, the pinned ones from their pins if they are there, and the program. As many sets of flows, a power of two.
/// Once the program is attached, [`Pins::settle_new_maps`] is to be called.
pub fn load(constants: &Constants, flow_sets: u32, pins: &Pins) -> Result<(Ebpf, Templates), Error> {
    let data = ReadOnly::new(constants, flow_sets)?;
    if aya::features().btf().is_none() {
        // Also what a process without privileges sees.
        if !nix::unistd::Uid::effective().is_root() {
            return Err(Error::permission("use BPF"));
        }
        return Err(Error::kernel("BTF"));
    }
    let templates = Templates::new()?;
    // Of an agent that was killed in passing.
    pins.drop_new_maps()?;
    let path = |(map, definition): &(&'static str, aya_obj::Map)| {
        let mut definition = definition.clone();
        if *map == FLOWS {
            definition.set_max_entries(flow_sets);
        }
        (*map, pins.map_to_load(map, &definition))
    };
    let paths: Vec<_> = templates.pinned.iter().map(path).collect();
    Ok((load_program(&data, &paths, false)?, templates))
}

/// Loads the program that says what would become of a packet, on the same maps, and changes nothing.
pub fn load_explaining(constants: &Constants, flow_sets: u32, pins: &Pins) -> Result<Ebpf, Error> {
    let paths = PINNED.map(|map| (map, pins.map(map)));
    load_program(&ReadOnly::new(constants, flow_sets)?, &paths, true)
}

/// `paths`: of the pinned maps.
fn load_program(data: &ReadOnly, paths: &[(&'static str, PathBuf)], explains: bool) -> Result<Ebpf, Error> {
    let explains = u32::from(explains);
    let mut loader = EbpfLoader::new();
    loader
        .override_global("DNS_V4", &data.v4, true)
        .override_global("DNS_V6", &data.v6, true)
        .override_global("TUNNEL", &data.tunnel, true)
        .override_global("PEERS", &data.peers, true)
        .override_global("FLOW_MASK", &data.flow_mask, true)
        .map_max_entries(FLOWS, data.flow_mask + 1)
        .override_global("EXPLAINS", &explains, true);
    for (map, path) in paths {
        loader.map_pin_path(map, path);
    }
    let mut ebpf = loader.load(OBJECT).map_err(Error::loading)?;
    verify(program(&mut ebpf)?).map_err(|error| Error::verifying(PROGRAM, error))?;
    Ok(ebpf)
}

/// Loads a program. The kernel breaks off its verification for a signal, which a child's end is too, and wants to be asked
/// again.
pub fn verify(program: &mut Xdp) -> Result<(), ProgramError> {
    const TRIES: usize = 10;
    for _ in 1..TRIES {
        match program.load() {
            Err(error) if errno(&error) == Some(Errno::EAGAIN) => {}
            done => return done,
        }
    }
    program.load()
}

/// The data plane's program in `ebpf`.
pub fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, Error> {
    ebpf.program_mut(PROGRAM)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| Error::Object(format!("it has no XDP program `{PROGRAM}`")))
}

/// Maps of maps, whose inner maps are made while the program runs.
const OUTER: [&str; 5] = [SEEDS, NAMES, ANSWERS, ADDRESS_SEEDS, ADDRESSES];

/// What inner maps are made from. With the object's BTF, so that `bpftool map dump` prints their fields by name, and
/// because Linux 6.1 takes no other into the maps that the program has.
#[derive(Debug)]
pub struct Templates {
    pinned: Vec<(&'static str, aya_obj::Map)>,
    inner: BTreeMap<&'static str, aya_obj::Map>,
    btf: OwnedFd,
}

impl Templates {
    /// Reads the compiled-in object.
    pub fn new() -> Result<Self, Error> {
        let object = |error: &(dyn std::error::Error + 'static)| Error::Object(chain(error));
        let mut parsed = Object::parse(OBJECT).map_err(|error| object(&error))?;
        let missing = |map: &str| Error::Object(format!("it has no map {map}"));
        let pinned = PINNED.map(|map| Ok((map, parsed.maps.get(map).cloned().ok_or_else(|| missing(map))?)));
        let pinned = pinned.into_iter().collect::<Result<Vec<_>, Error>>()?;
        let inner = |map: &'static str| {
            let inner = parsed.maps.get(map).and_then(aya_obj::Map::inner);
            Ok((map, inner.ok_or_else(|| missing(&format!("inside {map}")))?))
        };
        let inner = OUTER.into_iter().map(inner).collect::<Result<_, Error>>()?;
        // As the loader does with its own copy; the maps' type numbers are the same in both.
        let features = aya::features().btf().ok_or_else(|| Error::kernel("BTF"))?;
        let btf = parsed
            .fixup_and_sanitize_btf(features)
            .map_err(|error| object(&error))?
            .ok_or_else(|| Error::Object("it has no BTF".into()))?;
        let btf = load_btf(&btf.to_bytes()).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => Error::permission("load BTF"),
            _ => object(&error),
        })?;
        Ok(Self { pinned, inner, btf })
    }

    /// An all-zero map to put into `outer`, one of the maps of maps.
    ///
    /// # Errors
    /// There is no such map, or the kernel makes none.
    pub fn make<V: Pod>(&self, outer: &'static str) -> Result<Array<MapData, V>, Error> {
        let missing = || Error::Object(format!("it has no map inside {outer}"));
        let template = self.inner.get(outer).ok_or_else(missing)?.clone();
        let name = outer.to_lowercase();
        let map = MapData::create(template, &name, Some(self.btf.as_fd())).map_err(Error::map(outer))?;
        Array::try_from(Map::Array(map)).map_err(Error::map(outer))
    }
}

/// `BPF_BTF_LOAD`, which aya keeps to itself.
fn load_btf(bytes: &[u8]) -> io::Result<OwnedFd> {
    // SAFETY: all zeros are a valid `bpf_attr`, a union of integers.
    let mut attribute: bpf_attr = unsafe { std::mem::zeroed() };
    let size = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    // SAFETY: of the union's members, this is the one `BPF_BTF_LOAD` reads, and the others overlap integers.
    let btf = unsafe { &mut attribute.__bindgen_anon_7 };
    btf.btf = bytes.as_ptr() as u64;
    btf.btf_size = size;
    // SAFETY: `attribute` and `bytes` outlive the call, which only reads them.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, bpf_cmd::BPF_BTF_LOAD, &raw const attribute, size_of::<bpf_attr>()) };
    let descriptor = Errno::result(result)?;
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the call gave this descriptor to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answering(dns: Vec<IpAddr>) -> Constants {
        Constants { dns, ..Constants::default() }
    }

    #[test]
    fn addresses_of_both_families_keep_their_order_and_end_with_zeros() {
        let addresses = ["192.0.2.2", "2001:db8:1::2", "192.0.2.3", "::", "0.0.0.0"].map(|text| text.parse().unwrap());
        let data = ReadOnly::new(&answering(addresses.to_vec()), 8).unwrap();
        assert_eq!(data.v4[..3], [[192, 0, 2, 2], [192, 0, 2, 3], [0; 4]]);
        assert_eq!(data.v6[0][..4], [0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!(data.v6[1], [0; 16]);
        assert_eq!(data.tunnel, [0; 3]);
    }

    #[test]
    fn more_addresses_than_fit_are_refused_with_the_limit() {
        let addresses: Vec<IpAddr> = (1..=9).map(|last| IpAddr::from([192, 0, 2, last])).collect();
        let error = ReadOnly::new(&answering(addresses), 8).unwrap_err().to_string();
        assert!(error.contains("9 IPv4 addresses") && error.contains("at most 8"), "{error}");
    }

    #[test]
    fn both_ends_of_the_tunnel_call_a_site_the_same() {
        let east = Constants {
            site: "east".into(),
            tunnel: Some("10.255.0.1:7401".parse().unwrap()),
            peers: vec![("10.255.0.2".parse().unwrap(), "west".into())],
            ..Constants::default()
        };
        let data = ReadOnly::new(&east, 8).unwrap();
        assert_eq!(data.tunnel, [0x0aff_0001, 7401, site("east")]);
        assert_eq!(
            data.peers[..2],
            [TunnelPeer { address: [10, 255, 0, 2], site: site("west") }, TunnelPeer::default()]
        );
    }
}
