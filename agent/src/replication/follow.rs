//! Folds what applications commit, soon after they do.
//!
//! The kernel says when the write-ahead log is written to (inotify), so that an idle database costs nothing; should it not
//! say so, SQLite's own counter is asked once a second.

use std::{
    ffi::OsString,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
    unistd,
};
use tokio::{
    io::unix::AsyncFd,
    time::{sleep, timeout},
};

use siteswap_replication::store;

use crate::evidence::Backlog;

use super::{Shared, now};

/// Folds have at least this between them: one takes in all that was committed meanwhile.
const PACE: Duration = Duration::from_millis(4);
/// The database is looked at after this, whatever the kernel says, and so often for orders and the size of what waits.
const LOOK: Duration = Duration::from_secs(1);

/// `limit`: bytes that changes may take while peers have not acknowledged them.
pub(super) async fn follow(file: PathBuf, limit: u64, shared: Shared) {
    let log = log_of(&file);
    let mut alarm = Alarm { limit, said: Fill::Little };
    let mut looked: Option<Instant> = None;
    let mut writes = None;
    let mut said = String::new();
    loop {
        let look = looked.is_none_or(|looked| looked.elapsed() >= LOOK);
        let folded = shared
            .database
            .run(move |store| {
                if store.changed()? {
                    store.fold(now())?;
                }
                let rest = if look { Some((store.paused()?, store.backlogs(now())?)) } else { None };
                Ok((store.position()?.0, rest))
            })
            .await;
        match folded {
            Ok((group, rest)) => {
                said.clear();
                if let Some((paused, backlogs)) = rest {
                    looked = Some(Instant::now());
                    alarm.look(backlogs.values().map(|backlog| backlog.bytes).max().unwrap_or(0));
                    let waiting = backlogs.into_iter().map(|(peer, found)| (peer, describe(&found))).collect();
                    shared.backlogs.send_if_modified(|last| {
                        *last != waiting && {
                            *last = waiting;
                            true
                        }
                    });
                    shared.paused.send_if_modified(|last| std::mem::replace(last, paused) != paused);
                }
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

fn describe(found: &store::Backlog) -> Backlog {
    Backlog { rows: found.rows, lag: if found.rows > 0 { found.lag } else { 0 } }
}

/// Says when the changes that wait for peers come near their limit, and when they are above it. They are kept all the same:
/// without them a peer could only begin anew.
struct Alarm {
    limit: u64,
    said: Fill,
}

/// How much of what is allowed is taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fill {
    Little,
    /// Four fifths.
    Much,
    /// More than that.
    TooMuch,
}

impl Alarm {
    fn look(&mut self, bytes: u64) {
        let fill = match bytes {
            bytes if bytes > self.limit => Fill::TooMuch,
            bytes if bytes > self.limit / 5 * 4 => Fill::Much,
            _ => Fill::Little,
        };
        let limit = self.limit;
        match fill {
            _ if fill <= self.said => {}
            Fill::TooMuch => {
                tracing::error!(bytes, limit, "more changes wait for peers than database.max_backlog allows");
            }
            _ => tracing::warn!(bytes, limit, "the changes that wait for peers come near database.max_backlog"),
        }
        self.said = fill;
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
