//! The compiled-in object: its maps and programs into the kernel, and templates for the inner maps.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, FromRawFd, OwnedFd},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::MapData,
    programs::{ProgramError, Xdp},
};
use aya_obj::{
    Object,
    generated::{bpf_attr, bpf_cmd},
};
use nix::{errno::Errno, libc};
use siteswap_common::maps::MAX_LISTEN;

use super::{
    error::{Error, chain, errno},
    pins::{self, Pins},
};

/// The programs' object file: `siteswap`, the data plane, and `stub`, which passes everything.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/siteswap-ebpf"));

/// Programs that only the benchmark loads.
pub static BENCHMARK: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/siteswap-ebpf-bench"));

/// The data plane's program.
pub const PROGRAM: &str = "siteswap";

/// Maps that outlive the agent.
pub const PINNED: [&str; 5] = [SEEDS, NAMES, ANSWERS, CONTROL, COUNTERS];
pub const SEEDS: &str = "SEEDS";
pub const NAMES: &str = "NAMES";
pub const ANSWERS: &str = "ANSWERS";
pub const CONTROL: &str = "CONTROL";
pub const COUNTERS: &str = "COUNTERS";

/// The addresses the program answers on, as its read-only data has them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listen {
    v4: [[u8; 4]; MAX_LISTEN],
    v6: [[u8; 16]; MAX_LISTEN],
}

impl Listen {
    fn new(addresses: &[IpAddr]) -> Result<Self, Error> {
        let mut listen = Self::default();
        let v4: Vec<_> = addresses.iter().filter_map(|address| v4(*address)).collect();
        let v6: Vec<_> = addresses.iter().filter_map(|address| v6(*address)).collect();
        fill(&mut listen.v4, &v4, "IPv4")?;
        fill(&mut listen.v6, &v6, "IPv6")?;
        Ok(listen)
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

/// The first all-zero entry ends the list, so an unspecified address (which no packet is sent to) is left out.
fn fill<const N: usize>(
    listen: &mut [[u8; N]; MAX_LISTEN],
    addresses: &[[u8; N]],
    family: &'static str,
) -> Result<(), Error> {
    let addresses = addresses.iter().filter(|address| **address != [0; N]);
    let count = addresses.clone().count();
    if count > MAX_LISTEN {
        return Err(Error::TooManyAddresses { family, count, most: MAX_LISTEN });
    }
    for (slot, address) in listen.iter_mut().zip(addresses) {
        *slot = *address;
    }
    Ok(())
}

/// Loads maps, the pinned ones from their pins if they are there, and the program.
pub fn load(dns: &[IpAddr], pins: &Pins) -> Result<(Ebpf, Templates), Error> {
    let listen = Listen::new(dns)?;
    if aya::features().btf().is_none() {
        // Also what a process without privileges sees.
        if !nix::unistd::Uid::effective().is_root() {
            return Err(Error::permission("use BPF"));
        }
        return Err(Error::kernel("BTF"));
    }
    let templates = Templates::new()?;
    for (map, definition) in &templates.pinned {
        pins::drop_misfit(&pins.map(map), definition)?;
    }
    let mut loader = EbpfLoader::new();
    loader.override_global("DNS_V4", &listen.v4, true).override_global("DNS_V6", &listen.v6, true);
    for map in PINNED {
        loader.map_pin_path(map, pins.map(map));
    }
    let mut ebpf = loader.load(OBJECT).map_err(Error::loading)?;
    verify(program(&mut ebpf)?).map_err(|error| Error::verifying(PROGRAM, error))?;
    Ok((ebpf, templates))
}

/// Loads the program. The kernel breaks off for a signal, which a child's end is too, and wants to be asked again.
fn verify(program: &mut Xdp) -> Result<(), ProgramError> {
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

/// What inner maps are made from. With the object's BTF, so that `bpftool map dump` prints their fields by name, and
/// because kernels before 6.2 take no other into the maps that the program has.
#[derive(Debug)]
pub struct Templates {
    pinned: Vec<(&'static str, aya_obj::Map)>,
    seeds: aya_obj::Map,
    names: aya_obj::Map,
    answers: aya_obj::Map,
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
        let inner = |map: &str| parsed.maps[map].inner().ok_or_else(|| missing(&format!("inside {map}")));
        let (seeds, names, answers) = (inner(SEEDS)?, inner(NAMES)?, inner(ANSWERS)?);
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
        Ok(Self { pinned, seeds, names, answers, btf })
    }

    /// An all-zero map to put into `SEEDS`.
    pub fn seeds(&self) -> Result<MapData, Error> {
        MapData::create(self.seeds.clone(), "seeds", Some(self.btf.as_fd())).map_err(Error::map(SEEDS))
    }

    /// An all-zero map to put into `NAMES`.
    pub fn names(&self) -> Result<MapData, Error> {
        MapData::create(self.names.clone(), "names", Some(self.btf.as_fd())).map_err(Error::map(NAMES))
    }

    /// An all-zero map to put into `ANSWERS`.
    pub fn answers(&self) -> Result<MapData, Error> {
        MapData::create(self.answers.clone(), "answers", Some(self.btf.as_fd())).map_err(Error::map(ANSWERS))
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

    #[test]
    fn addresses_of_both_families_keep_their_order_and_end_with_zeros() {
        let addresses = ["192.0.2.2", "2001:db8:1::2", "192.0.2.3", "::", "0.0.0.0"].map(|text| text.parse().unwrap());
        let listen = Listen::new(&addresses).unwrap();
        assert_eq!(listen.v4[..3], [[192, 0, 2, 2], [192, 0, 2, 3], [0; 4]]);
        assert_eq!(listen.v6[0][..4], [0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!(listen.v6[1], [0; 16]);
    }

    #[test]
    fn more_addresses_than_fit_are_refused_with_the_limit() {
        let addresses: Vec<IpAddr> = (1..=9).map(|last| IpAddr::from([192, 0, 2, last])).collect();
        let error = Listen::new(&addresses).unwrap_err().to_string();
        assert!(error.contains("9 IPv4 addresses") && error.contains("at most 8"), "{error}");
    }
}
