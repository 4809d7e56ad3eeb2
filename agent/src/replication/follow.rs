//! Folds what applications commit, soon after they do.
//!
//! The kernel says when the write-ahead log is written to (inotify), so that an idle database costs nothing; should it not
//! say so, SQLite's own counter is asked once a second.

use std::{
    ffi::OsString,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
    unistd,
};
use tokio::{
    io::unix::AsyncFd,
    time::{sleep, timeout},
};

use super::{Shared, now};

/// Folds have at least this between them: one takes in all that was committed meanwhile.
const PACE: Duration = Duration::from_millis(4);
/// The database is looked at after this, whatever the kernel says.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn follow(file: PathBuf, shared: Shared) {
    let log = log_of(&file);
    let mut writes = None;
    let mut said = String::new();
    loop {
        let folded = shared
            .database
            .run(|store| {
                if store.changed()? {
                    store.fold(now())?;
                }
                Ok((store.position()?.0, store.paused()?))
            })
            .await;
        match folded {
            Ok((group, paused)) => {
                said.clear();
                shared.paused.send_if_modified(|last| std::mem::replace(last, paused) != paused);
                shared.groups.send_if_modified(|last| std::mem::replace(last, group) != group);
                // The log is there once the database is open, and stays while it is.
                writes = writes.or_else(|| Writes::to(&log).ok());
            }
            Err(super::database::Failed::Stopping) => return,
            Err(error) => {
                let why = error.to_string();
                if why != said {
                    tracing::error!("changes wait in the database: {why}");
                }
                said = why;
                writes = None;
            }
        }
        sleep(PACE).await;
        match &writes {
            Some(writes) => _ = timeout(LOOK, writes.next()).await,
            None => sleep(LOOK).await,
        }
    }
}

/// The database's write-ahead log.
fn log_of(file: &Path) -> PathBuf {
    let mut name = OsString::from(file);
    name.push("-wal");
    name.into()
}

/// Says when a file is written to.
struct Writes {
    events: AsyncFd<OwnedFd>,
}

impl Writes {
    fn to(file: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(file, AddWatchFlags::IN_MODIFY)?;
        // SAFETY: an `OwnedFd` has one descriptor, which stays open until it is dropped.
        let events = unsafe { AsyncFd::register(OwnedFd::from(inotify))? };
        Ok(Self { events })
    }

    /// Waits until it was written to since the last time.
    async fn next(&self) {
        if let Ok(mut ready) = self.events.readable().await {
            // What the events say is known already.
            let mut events = [0; 4096];
            while unistd::read(self.events.get_ref(), &mut events).is_ok_and(|length| length > 0) {}
            ready.clear_ready();
        }
    }
}
