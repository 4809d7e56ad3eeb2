//! Putting the program on interfaces through pinned links, so that it stays when the agent goes, and is replaced
//! without a moment in which an interface has none.

use std::{collections::BTreeMap, fmt, fs};

use aya::programs::{
    Xdp, XdpMode,
    links::{FdLink, LinkError, PinnedLink},
    xdp::{XdpLink, XdpLinkId},
};
use nix::{errno::Errno, net::if_::if_nametoindex};

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
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An interface, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub interface: String,
    pub index: u32,
}

/// Where those of `interfaces` are that the host has, in their order.
pub fn places<'a>(interfaces: impl Iterator<Item = &'a String>) -> Vec<Place> {
    interfaces.filter_map(|interface| Some(Place { interface: interface.clone(), index: index(interface)? })).collect()
}

/// Refuses `interfaces` if the host does not have all of them.
pub fn must_exist<'a>(mut interfaces: impl Iterator<Item = &'a String>) -> Result<(), Error> {
    let missing = interfaces.find(|interface| index(interface).is_none());
    missing.map_or(Ok(()), |interface| Err(Error::no_interface(interface)))
}

/// The index of `interface`, if the host has it.
pub fn index(interface: &str) -> Option<u32> {
    if_nametoindex(interface).ok()
}

/// Puts `program` on all `places`, in the same mode, and takes whatever was pinned off all others. If one of them fails,
/// those that had no program before have none again. Where the same program is already, nothing is done.
pub fn attach(program: &mut Xdp, places: &[Place], mode: Mode, pins: &Pins) -> Result<Attachment, Error> {
    let before = pins.links()?;
    let attached = attach_alike(program, places, mode, pins);
    let stays = |index: u32| match &attached {
        Ok(_) => places.iter().any(|place| place.index == index),
        Err(_) => before.iter().any(|link| link.index == index),
    };
    for link in pins.links()?.iter().filter(|link| !stays(link.index)) {
        pins::unpin(&link.path)?;
    }
    attached
}

/// The kernel drops frames that a native program sends to an interface whose driver takes none, even if the program is on
/// that in generic mode. Generic ones send everywhere: `auto` takes the mode that all interfaces take.
fn attach_alike(program: &mut Xdp, places: &[Place], mode: Mode, pins: &Pins) -> Result<Attachment, Error> {
    let generic =
        |link: &Link| link.attachment == Attachment::Generic && places.iter().any(|place| place.index == link.index);
    let attachment = match mode {
        Mode::Native => Attachment::Native,
        Mode::Generic => Attachment::Generic,
        // An earlier agent found out that it must be; to try again would leave an interface without a program meanwhile.
        Mode::Auto if pins.links()?.iter().any(generic) => Attachment::Generic,
        Mode::Auto => Attachment::Native,
    };
    match attach_all(program, places, attachment, pins) {
        Err(Error::Attach { interface, cause, .. }) if mode == Mode::Auto && attachment == Attachment::Native => {
            tracing::warn!(interface, cause, "the driver does not take the program: generic mode, on all interfaces");
            attach_all(program, places, Attachment::Generic, pins).map(|()| Attachment::Generic)
        }
        done => done.map(|()| attachment),
    }
}

fn attach_all(program: &mut Xdp, places: &[Place], attachment: Attachment, pins: &Pins) -> Result<(), Error> {
    let pinned: BTreeMap<u32, Link> = pins.links()?.into_iter().map(|link| (link.index, link)).collect();
    places.iter().try_for_each(|Place { interface, index }| {
        if let Some(link) = pinned.get(index) {
            if link.attachment == attachment && replace(program, link, pins)? {
                return Ok(());
            }
            // Of another mode, or left by an interface that is gone.
            pins::unpin(&link.path)?;
        }
        let id = program
            .attach_to_if_index(*index, attachment.mode())
            .map_err(|error| refused(interface, attachment, &error))?;
        pin(program, id, interface, attachment, *index, pins)
    })
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

/// [`Error::Attach`], unless another mode would be refused for the same reason.
fn refused(interface: &str, attachment: Attachment, error: &(dyn std::error::Error + 'static)) -> Error {
    let cause = match errno(error) {
        Some(Errno::EPERM) => return Error::permission(&format!("attach to {interface}")),
        Some(Errno::EBUSY | Errno::EEXIST) => return Error::Taken { interface: interface.to_owned() },
        Some(Errno::ENODEV) => return Error::no_interface(interface),
        Some(Errno::EOPNOTSUPP) if attachment == Attachment::Native => {
            "its driver cannot run XDP programs, but the `dataplane.mode`s `auto` and `generic` need none that can"
                .into()
        }
        _ => chain(error),
    };
    Error::Attach { interface: interface.to_owned(), mode: attachment.name(), cause }
}
