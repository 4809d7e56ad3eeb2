//! The program that passes everything, for interfaces opposite to those with the real one: a veth throws away what is
//! transmitted from XDP unless its peer has a program too.

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::{Context, Result, anyhow};
use aya::{
    EbpfLoader,
    programs::{Xdp, XdpMode, links::FdLink},
};
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use siteswap::dataplane::{OBJECT, verify};

use crate::netns::Netns;

/// Where pins are, on every distribution.
const BPFFS: &str = "/sys/fs/bpf";

/// Makes the lab's directory for pins.
///
/// # Errors
/// There is no BPF file system, and none can be mounted.
pub fn prepare(pins: &Path) -> Result<()> {
    let is_mounted = || statfs(BPFFS).is_ok_and(|info| info.filesystem_type() == BPF_FS_MAGIC);
    if !is_mounted() {
        // Two mounts on top of each other would hide the first one's pins.
        let parent = File::open("/sys/fs").context("/sys/fs")?;
        let _held = Flock::lock(parent, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
        if !is_mounted() {
            let mounted = mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>);
            mounted.with_context(|| format!("mounting the BPF file system on {BPFFS}"))?;
        }
    }
    fs::create_dir_all(pins).with_context(|| pins.display().to_string())
}

/// Attaches it to an interface, pinned below `pins` as that of `cable`, so that it outlives this process.
///
/// # Errors
/// The kernel refuses it.
pub fn attach(node: &Netns, interface: &str, pins: &Path, cable: &str) -> Result<()> {
    let pin = pins.join(format!("stub-{cable}"));
    let attached = node.enter(|| {
        let mut object = EbpfLoader::new().load(OBJECT)?;
        let program: &mut Xdp = object.program_mut("stub").context("the object has no program `stub`")?.try_into()?;
        verify(program)?;
        let link = program.attach(interface, XdpMode::Driver)?;
        let link = FdLink::try_from(program.take_link(link)?).map_err(|error| anyhow!(error))?;
        link.pin(&pin)?;
        Ok(())
    });
    attached.with_context(|| format!("a program that passes everything on {interface}"))
}
