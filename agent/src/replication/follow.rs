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
use siteswap_replication::store::{self, Folded};
use tokio::{
    io::unix::AsyncFd,
    time::{sleep, timeout},
};

use crate::evidence::Backlog;

use super::{Shared, database::Failed, now, set};

/// Folds have at least this between them: one takes in all that was committed meanwhile.
const PACE: Duration = Duration::from_millis(4);
/// The database is looked at after this, whatever the kernel says, and so often for orders and the size of what waits.
const LOOK: Duration = Duration::from_secs(1);
/// So often it is looked how much is kept for peers that are away: in a database larger than the limit that reads a table.
const WEIGH: Duration = Duration::from_secs(10);

/// But for no more than one part in so many of the time: of a large database all that is kept of rows is looked at.
const SELDOM: u32 = 20;
/// So many changes of neighbouring groups that wait are consolidated together.
const WORTH: u64 = 10_000;
/// Wrong clocks are spoken of no more often than this.
const REPEAT: Duration = Duration::from_secs(60);

/// `limit`: bytes that may be kept for peers that are away.
pub(super) async fn follow(file: PathBuf, limit: u64, shared: Shared) {
    let log = log_of(&file);
    let mut follower = Follower {
        shared,
        alarm: Alarm { limit, said: Fill::Little },
        forgetting: false,
        looked: None,
        weighed: None,
        rest: WEIGH,
        ahead: None,
        said: String::new(),
    };
    let mut writes = None;
    loop {
        match follower.fold().await {
            // The log is there once the database is open, and stays while it is.
            Ok(()) => writes = writes.or_else(|| Writes::to(&log).ok()),
            Err(Failed::Stopping) => return,
            Err(error) => {
                follower.failed(error.to_string());
                writes = None;
            }
        }
        sleep(PACE).await;
        match &writes {
            Some(_) if follower.forgetting => {}
            Some(writes) => _ = timeout(LOOK, writes.next()).await,
            None => sleep(LOOK).await,
        }
    }
}

struct Follower {
    shared: Shared,
    alarm: Alarm,
    /// What waited was too much, and is being forgotten.
    forgetting: bool,
    /// When orders and the size of what waits were last looked at.
    looked: Option<Instant>,
    /// When what is kept was last weighed.
    weighed: Option<Instant>,
    /// For how long it is not weighed again.
    rest: Duration,
    /// When a wrong clock was last spoken of.
    ahead: Option<Instant>,
    /// The last failure.
    said: String,
}

impl Follower {
    /// Folds what was committed, if anything was, and lets the others know.
    async fn fold(&mut self) -> Result<(), Failed> {
        let due = |last: Option<Instant>, after| last.is_none_or(|last| last.elapsed() >= after);
        let look = due(self.looked, LOOK);
        if look {
            // An order holds also where nothing can be folded.
            let paused = self.shared.database.run(|store| store.paused()).await?;
            set(&self.shared.paused, paused);
        }
        let folded = self.shared.database.run(move |store| {
            let folded = if store.changed()? { store.fold(now())? } else { Folded::default() };
            let rest = if look { Some(store.backlogs(now())?) } else { None };
            Ok((folded, store.position()?.0, rest))
        });
        let (folded, group, rest) = folded.await?;
        self.said.clear();
        self.shared.sessions.folded();
        if folded.ahead > 0 && due(self.ahead, REPEAT) {
            tracing::warn!("an application's clock is further ahead than database.max_skew allows");
            self.ahead = Some(Instant::now());
        }
        if let Some(backlogs) = rest {
            self.looked = Some(Instant::now());
            let waiting = backlogs.into_iter().map(|(peer, found)| (peer, describe(&found))).collect();
            set(&self.shared.backlogs, waiting);
            // What waits for peers that are away.
            while self.shared.database.run(|store| store.compact(WORTH)).await? {}
        }
        if self.forgetting || due(self.weighed, self.rest) {
            let began = Instant::now();
            self.forget().await?;
            self.weighed = Some(Instant::now());
            self.rest = WEIGH.max(began.elapsed() * SELDOM);
        }
        set(&self.shared.groups, group);
        Ok(())
    }

    /// Looks how much is kept, and forgets what is too much though it was consolidated: not all at once, so that
    /// applications can write and what they write is folded in between.
    async fn forget(&mut self) -> Result<(), Failed> {
        let limit = self.alarm.limit;
        // Once it has begun it goes on to four fifths, so that it does not begin anew with every change.
        let limit = if self.forgetting { limit / 5 * 4 } else { limit };
        let weighed = self.shared.database.run(move |store| store.forget_beyond(limit)).await?;
        self.alarm.look(weighed.kept.bytes());
        self.forgetting = weighed.forgot;
        Ok(())
    }

    fn failed(&mut self, why: String) {
        if why != self.said {
            tracing::error!("changes wait in the database: {why}");
            self.shared.sessions.not_folded(why.clone());
        }
        self.said = why;
    }
}

fn describe(found: &store::Backlog) -> Backlog {
    let lag = if found.rows > 0 { found.lag } else { 0 };
    Backlog { rows: found.rows, lag, forgotten: found.forgotten }
}

/// Says when what is kept for peers comes near its limit, and when it is above it.
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
                tracing::error!(
                    bytes,
                    limit,
                    "more is kept for peers that are away than database.max_backlog allows: what deleted rows were is \
                     forgotten, then the oldest changes; a peer that lacks these is compared with this site when it returns"
                );
            }
            _ => tracing::warn!(bytes, limit, "what is kept for peers that are away comes near database.max_backlog"),
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
