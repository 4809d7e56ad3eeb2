//! The directory of pinned maps and links: `<dataplane.pins>/v<layout>/`, with one link per interface named after how
//! and where the program is attached, `link-native-3` for interface index 3. (A BPF file system refuses dots, which an
//! interface's name may have.) A map that shall take the place of one of another shape is `new-<map>` until the program
//! that uses it is attached.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    maps::{MapData, MapInfo},
    programs::links::{FdLink, PinnedLink},
};
use nix::{
    errno::Errno,
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use siteswap_common::maps::LAYOUT;

use super::{
    attach::Attachment,
    error::{Error, chain, errno},
};

/// `dataplane.pins`.
#[derive(Clone, Debug)]
pub struct Pins {
    base: PathBuf,
}

/// What the name of a new map's pin begins with.
const NEW: &str = "new-";

/// A link that outlived the agent that made it, or will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub path: PathBuf,
    pub attachment: Attachment,
    pub index: u32,
}

impl Pins {
    pub fn new(base: &Path) -> Self {
        Self { base: base.to_owned() }
    }

    pub fn base(&self) -> &Path {
        &self.base
    }

    /// This layout's directory.
    pub fn directory(&self) -> PathBuf {
        self.base.join(format!("v{LAYOUT}"))
    }

    pub fn map(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// Where the loader finds the map, or pins a new one: where it stays, unless one of another shape is there, which the
    /// loader would take as it is. Shape: type, key and value size, entries.
    pub fn map_to_load(&self, name: &str, wanted: &aya_obj::Map) -> PathBuf {
        let path = self.map(name);
        let fits = |info: &MapInfo| {
            info.map_type().is_ok_and(|kind| kind as u32 == wanted.map_type())
                && info.key_size() == wanted.key_size()
                && info.value_size() == wanted.value_size()
                && info.max_entries() == wanted.max_entries()
        };
        let found = MapData::from_pin(&path).ok().and_then(|map| map.info().ok());
        if !path.exists() || found.as_ref().is_some_and(fits) {
            return path;
        }
        tracing::warn!(pin = %path.display(), "the pinned map is of another shape and is made anew");
        self.map(&format!("{NEW}{name}"))
    }

    /// Puts the new maps in the place of those of another shape.
    pub fn settle_new_maps(&self) -> Result<(), Error> {
        for (path, name) in self.new_maps()? {
            fs::rename(&path, self.map(&name)).map_err(|error| failed(&path, &error))?;
        }
        Ok(())
    }

    /// Removes new maps whose program was not attached.
    pub fn drop_new_maps(&self) -> Result<(), Error> {
        for (path, _) in self.new_maps()? {
            fs::remove_file(&path).map_err(|error| failed(&path, &error))?;
        }
        Ok(())
    }

    /// With the maps' names.
    fn new_maps(&self) -> Result<Vec<(PathBuf, String)>, Error> {
        let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.strip_prefix(NEW)?.to_owned());
        Ok(entries(&self.directory())?.into_iter().filter_map(|path| Some((path.clone(), name(&path)?))).collect())
    }

    pub fn link(&self, attachment: Attachment, index: u32) -> PathBuf {
        self.directory().join(format!("link-{attachment}-{index}"))
    }

    /// Makes the directory, on a BPF file system only.
    pub fn create(&self) -> Result<(), Error> {
        for path in self.base.ancestors() {
            match path.try_exists() {
                Ok(false) => {}
                Ok(true) if is_bpffs(path) => break,
                Ok(true) => {
                    return Err(Error::NoBpffs { path: self.base.clone() });
                }
                Err(error) => return Err(failed(&self.base, &error)),
            }
        }
        let directory = self.directory();
        fs::create_dir_all(&directory).map_err(|error| failed(&directory, &error))
    }

    /// The pinned links, those of other layouts too.
    pub fn links(&self) -> Result<Vec<Link>, Error> {
        let mut links = Vec::new();
        for directory in self.layouts()? {
            for path in entries(&directory)? {
                if let Some((attachment, index)) = parse(&path) {
                    links.push(Link { path, attachment, index });
                }
            }
        }
        Ok(links)
    }

    /// Whether the program is on interfaces, but nowhere with this layout's maps.
    pub fn other_layout(&self) -> Result<bool, Error> {
        let (own, links) = (self.directory(), self.links()?);
        Ok(!links.is_empty() && links.iter().all(|link| !link.path.starts_with(&own)))
    }

    /// Removes everything of other layouts: what is worth keeping has been taken over.
    pub fn remove_other_layouts(&self) -> Result<(), Error> {
        let own = self.directory();
        for directory in self.layouts()?.into_iter().filter(|directory| *directory != own) {
            clear(&directory)?;
        }
        Ok(())
    }

    /// Detaches the program everywhere and removes every pin. Returns whether there was anything.
    pub fn remove(&self) -> Result<bool, Error> {
        let layouts = self.layouts()?;
        for directory in &layouts {
            clear(directory)?;
        }
        match fs::remove_dir(&self.base) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            // Somebody else's pins are in it.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(!layouts.is_empty()),
            Err(error) => Err(failed(&self.base, &error)),
        }
    }

    fn layouts(&self) -> Result<Vec<PathBuf>, Error> {
        let is_layout = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok())
        };
        Ok(entries(&self.base)?.into_iter().filter(is_layout).collect())
    }
}

/// Removes a link's pin, and with it the link: the program is off the interface when this returns.
pub fn unpin(path: &Path) -> Result<(), Error> {
    // The kernel lets go of a link in the background, unless a descriptor is the last that holds it.
    let link: Option<FdLink> = PinnedLink::from_pin(path).ok().map(Into::into);
    fs::remove_file(path).map_err(|error| failed(path, &error))?;
    drop(link);
    Ok(())
}

/// For what a file operation or the kernel reports about `path`.
pub fn failed(path: &Path, error: &(dyn std::error::Error + 'static)) -> Error {
    if let Some(Errno::EACCES | Errno::EPERM) = errno(error) {
        return Error::permission(&format!("use {}", path.display()));
    }
    Error::Pin { path: path.to_owned(), cause: chain(error) }
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|info| info.filesystem_type() == BPF_FS_MAGIC)
}

/// Unpins everything in `directory`, links first, and removes it.
fn clear(directory: &Path) -> Result<(), Error> {
    let (links, others): (Vec<_>, Vec<_>) = entries(directory)?.into_iter().partition(|path| parse(path).is_some());
    for path in links {
        unpin(&path)?;
    }
    for path in others {
        fs::remove_file(&path).map_err(|error| failed(&path, &error))?;
    }
    fs::remove_dir(directory).map_err(|error| failed(directory, &error))
}

/// What is in `directory`, in order; nothing, if it does not exist.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let read = match fs::read_dir(directory) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(directory, &error)),
    };
    let mut paths = read
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(directory, &error))?;
    paths.sort();
    Ok(paths)
}

fn parse(path: &Path) -> Option<(Attachment, u32)> {
    let (attachment, index) = path.file_name()?.to_str()?.strip_prefix("link-")?.split_once('-')?;
    let attachment =
        [Attachment::Native, Attachment::Generic].into_iter().find(|candidate| candidate.name() == attachment)?;
    Some((attachment, index.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_links_name_says_how_and_where_it_is_attached() {
        let pins = Pins::new(Path::new("/sys/fs/bpf/siteswap"));
        for attachment in [Attachment::Native, Attachment::Generic] {
            assert_eq!(parse(&pins.link(attachment, 17)), Some((attachment, 17)));
        }
        for other in ["NAMES", "link-native", "link-hardware-3", "link-native-x"] {
            assert_eq!(parse(&pins.map(other)), None, "{other}");
        }
    }

    #[test]
    fn pins_elsewhere_than_on_a_bpf_file_system_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let error = Pins::new(&directory.path().join("pins")).create().unwrap_err();
        assert!(matches!(error, Error::NoBpffs { .. }), "{error}");
        assert!(error.to_string().contains("mount -t bpf"), "{error}");
    }
}
