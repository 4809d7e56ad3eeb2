//! Putting the program on interfaces through pinned links, so that it stays when the agent goes, and is replaced
//! without a moment in which an interface has none.

use std::{collections::BTreeMap, fmt, fs};

use aya::programs::{
    ProgramError, Xdp, XdpMode,
    links::{FdLink, LinkError, PinnedLink},
    xdp::{XdpLink, XdpLinkId},
};
use nix::{
    errno::Errno,
    net::if_::{if_nameindex, if_nametoindex},
};

use super::{
    error::{Error, chain, errno},
    pins::{self, Link, Pins},
};
use crate::config::Mode;

/// How the program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// In the driver.
    Native,
    /// In the kernel's network stack: slower, but with every driver.
    Generic,
}

impl Attachment {
    /// `native` or `generic`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    const fn mode(self) -> XdpMode {
        match self {
            Self::Native => XdpMode::Driver,
            Self::Generic => XdpMode::Skb,
        }
    }

    /// What `mode` allows, better one first.
    const fn allowed(mode: Mode) -> &'static [Self] {
        match mode {
            Mode::Auto => &[Self::Native, Self::Generic],
            Mode::Native => &[Self::Native],
            Mode::Generic => &[Self::Generic],
        }
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The indices of `interfaces`, in their order.
pub fn indices(interfaces: &[String]) -> Result<Vec<u32>, Error> {
    interfaces.iter().map(|name| index(name)).collect()
}

fn index(name: &str) -> Result<u32, Error> {
    if_nametoindex(name).map_err(|_| {
        let existing: Vec<_> = if_nameindex()
            .map(|all| all.iter().map(|interface| interface.name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        Error::NoInterface { name: name.to_owned(), existing: existing.join(", ") }
    })
}

/// Puts `program` on `interfaces`, and takes whatever was pinned off all others. If one of them fails, those that had
/// no program before have none again.
pub fn attach(
    program: &mut Xdp,
    interfaces: &[String],
    mode: Mode,
    pins: &Pins,
) -> Result<Vec<(String, Attachment)>, Error> {
    let indices = indices(interfaces)?;
    let mut existing: BTreeMap<u32, Link> = pins.links()?.into_iter().map(|link| (link.index, link)).collect();
    let mut attached = Vec::new();
    let mut fresh = Vec::new();
    for (interface, index) in interfaces.iter().zip(indices) {
        let pinned = existing.remove(&index);
        let had_one = pinned.is_some();
        match attach_one(program, interface, index, mode, pins, pinned) {
            Ok(attachment) => {
                attached.push((interface.clone(), attachment));
                if !had_one {
                    fresh.push(pins.link(attachment, index));
                }
            }
            Err(error) => {
                for path in fresh {
                    pins::unpin(&path)?;
                }
                return Err(error);
            }
        }
    }
    for link in existing.into_values() {
        pins::unpin(&link.path)?;
    }
    Ok(attached)
}

fn attach_one(
    program: &mut Xdp,
    interface: &str,
    index: u32,
    mode: Mode,
    pins: &Pins,
    pinned: Option<Link>,
) -> Result<Attachment, Error> {
    let allowed = Attachment::allowed(mode);
    if let Some(link) = pinned {
        if allowed.contains(&link.attachment) && replace(program, &link, pins)? {
            return Ok(link.attachment);
        }
        // Of a mode no longer wanted, or left by an interface that is gone.
        pins::unpin(&link.path)?;
    }
    let mut tries = allowed.iter().copied().peekable();
    while let Some(attachment) = tries.next() {
        let error = match program.attach_to_if_index(index, attachment.mode()) {
            Ok(id) => {
                pin(program, id, interface, attachment, index, pins)?;
                return Ok(attachment);
            }
            Err(error) => error,
        };
        if tries.peek().is_none() || !worth_another_mode(&error) {
            return Err(refused(interface, attachment, &error));
        }
        tracing::warn!(interface, error = chain(&error), "the driver does not take the program: generic mode");
    }
    unreachable!("every mode allows something")
}

/// Replaces the program of a pinned link. `false`: its interface is gone, and the link leads nowhere.
fn replace(program: &mut Xdp, link: &Link, pins: &Pins) -> Result<bool, Error> {
    let failed = |error: &(dyn std::error::Error + 'static)| pins::failed(&link.path, error);
    let old: FdLink = PinnedLink::from_pin(&link.path).map_err(|error| failed(&error))?.into();
    let old = XdpLink::try_from(old).map_err(|error| failed(&error))?;
    let id = match program.attach_to_link(old) {
        Ok(id) => id,
        Err(error) if errno(&error) == Some(Errno::ENOLINK) => return Ok(false),
        Err(error) => return Err(failed(&error)),
    };
    let path = pins.link(link.attachment, link.index);
    let held = take(program, id).map_err(|error| failed(&error))?;
    if path != link.path {
        // From another layout's directory.
        held.pin(&path).map_err(|error| failed(&error))?;
        fs::remove_file(&link.path).map_err(|error| failed(&error))?;
    }
    Ok(true)
}

/// Pins a new link. Its descriptor is closed then: the pin alone keeps the program where it is.
fn pin(
    program: &mut Xdp,
    id: XdpLinkId,
    interface: &str,
    attachment: Attachment,
    index: u32,
    pins: &Pins,
) -> Result<(), Error> {
    let link = take(program, id).map_err(|error| refused(interface, attachment, &error))?;
    let path = pins.link(attachment, index);
    link.pin(&path).map(drop).map_err(|error| pins::failed(&path, &error))
}

/// Takes a link out of the program's keeping; dropped, it detaches. (An attachment that is not a link, aya's way on
/// kernels that are too old for links, is an error.)
fn take(program: &mut Xdp, id: XdpLinkId) -> Result<FdLink, LinkError> {
    let link = program.take_link(id).map_err(|_| LinkError::InvalidLink)?;
    FdLink::try_from(link)
}

/// Whether the generic mode might go where the native did not: not if the interface is taken, or we are not allowed.
fn worth_another_mode(error: &ProgramError) -> bool {
    !matches!(errno(error), Some(Errno::EBUSY | Errno::EEXIST | Errno::EPERM | Errno::ENODEV))
}

fn refused(interface: &str, attachment: Attachment, error: &(dyn std::error::Error + 'static)) -> Error {
    let cause = match errno(error) {
        Some(Errno::EPERM) => return Error::permission(&format!("attach to {interface}")),
        Some(Errno::EBUSY | Errno::EEXIST) => {
            "another XDP program is on it (`bpftool net` shows which); detach that, or choose another interface".into()
        }
        Some(Errno::EOPNOTSUPP) if attachment == Attachment::Native => {
            "its driver cannot run XDP programs; set `dataplane.mode` to `auto` or `generic`".into()
        }
        _ => chain(error),
    };
    Error::Attach { interface: interface.to_owned(), mode: attachment.name(), cause }
}
