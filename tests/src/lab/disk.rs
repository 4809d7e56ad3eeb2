//! Disks that run full.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    os::unix::fs::symlink,
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use rusqlite::Connection;

use super::Lab;
use crate::{
    files,
    plan::{DB, Site},
};

/// The disk that a site's database has for itself.
#[derive(Debug)]
pub struct Disk {
    filler: PathBuf,
}

impl Lab {
    /// Moves a site's database to a disk of so many bytes. Its agent and its data tier are restarted for that, and nobody
    /// else may have it open.
    ///
    /// # Errors
    /// One of them does not run, or the disk cannot be made.
    pub fn small_disk(&self, site: Site, bytes: u64) -> Result<Disk> {
        let data_tier = site.node(DB.name);
        self.kill(site.name)?;
        self.kill(&data_tier)?;
        let (file, disk) = (self.database(site.name), files::disk(&self.directory, site.name));
        Connection::open(&file)?.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;

        fs::create_dir(&disk)?;
        let size = format!("size={bytes}");
        mount(Some("tmpfs"), &disk, Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))
            .with_context(|| format!("mounting a disk on {}", disk.display()))?;
        let moved = disk.join(format!("{}.db", site.name));
        fs::copy(&file, &moved)?;
        fs::remove_file(&file)?;
        symlink(&moved, &file)?;

        let agent = self.agent(site.name)?;
        agent.edit(&format!("file = \"{}\"", file.display()), &format!("file = \"{}\"", moved.display()))?;
        self.start(&data_tier)?;
        agent.start()?;
        agent.await_ready()?;
        Ok(Disk { filler: disk.join("filler") })
    }
}

impl Disk {
    /// Takes all the room that is left.
    ///
    /// # Errors
    /// Whatever the disk says, but that it is full.
    pub fn fill(&self) -> Result<()> {
        let mut filler = File::options().create(true).append(true).open(&self.filler)?;
        loop {
            if let Err(error) = filler.write_all(&[0; 4096]) {
                ensure!(error.kind() == ErrorKind::StorageFull, error);
                return Ok(());
            }
        }
    }

    /// Gives it back.
    ///
    /// # Errors
    /// It was not taken.
    pub fn free(&self) -> Result<()> {
        fs::remove_file(&self.filler).with_context(|| self.filler.display().to_string())
    }
}
