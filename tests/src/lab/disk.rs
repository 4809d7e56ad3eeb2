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

/// A disk of a site's own.
#[derive(Debug)]
pub struct Disk {
    /// Where it is mounted.
    pub directory: PathBuf,
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
        let file = self.database(site.name);
        Connection::open(&file)?.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        let disk = self.mount_disk(site, bytes)?;
        let moved = disk.directory.join(format!("{}.db", site.name));
        fs::copy(&file, &moved)?;
        fs::remove_file(&file)?;
        symlink(&moved, &file)?;

        let agent = self.agent(site.name)?;
        agent.edit(&format!("file = \"{}\"", file.display()), &format!("file = \"{}\"", moved.display()))?;
        self.start(&data_tier)?;
        agent.start()?;
        agent.await_ready()?;
        Ok(disk)
    }

    /// Moves the state of a site's agent to a disk of so many bytes.
    ///
    /// # Errors
    /// It does not run, or the disk cannot be made.
    pub fn small_state_disk(&self, site: Site, bytes: u64) -> Result<Disk> {
        self.kill(site.name)?;
        let disk = self.mount_disk(site, bytes)?;
        let agent = self.agent(site.name)?;
        let before = self.directory.join(site.name);
        for entry in fs::read_dir(&before)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), disk.directory.join(entry.file_name()))?;
            }
        }
        agent
            .edit(&format!("state = \"{}\"", before.display()), &format!("state = \"{}\"", disk.directory.display()))?;
        agent.start()?;
        agent.await_ready()?;
        Ok(disk)
    }

    fn mount_disk(&self, site: Site, bytes: u64) -> Result<Disk> {
        let directory = files::disk(&self.directory, site.name);
        fs::create_dir(&directory)?;
        let size = format!("size={bytes}");
        mount(Some("tmpfs"), &directory, Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))
            .with_context(|| format!("mounting a disk on {}", directory.display()))?;
        Ok(Disk { directory })
    }
}

impl Disk {
    fn filler(&self) -> PathBuf {
        self.directory.join("filler")
    }

    /// Takes all the room that is left.
    ///
    /// # Errors
    /// Whatever the disk says, but that it is full.
    pub fn fill(&self) -> Result<()> {
        let mut filler = File::options().create(true).append(true).open(self.filler())?;
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
        fs::remove_file(self.filler()).with_context(|| self.filler().display().to_string())
    }
}
