//! Agents are killed at and around every commit, and everything that they send.
//!
//! A killed agent leaves what SQLite had committed. So it is as good as killed when its COMMIT is made a ROLLBACK, or when
//! it has committed and not yet said so, and its store is dropped and opened anew.

use std::{
    cell::Cell,
    ffi::{c_int, c_void},
    ptr,
};

use rusqlite::ffi;
use siteswap_replication::store::Error;

use super::{Said, Site};

/// Where in a step an agent is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// Instead of its next COMMIT after so many; if it does not commit so often, before it sends anything.
    BeforeCommit(u32),
    /// After everything is committed, before it sends anything.
    BeforeSend,
    /// When what it sent has arrived.
    AfterSend,
}

impl Kill {
    pub const ALL: [Self; 4] = [Self::BeforeCommit(0), Self::BeforeCommit(1), Self::BeforeSend, Self::AfterSend];
}

/// Does `act`; after so many commits the next COMMIT becomes a ROLLBACK and fails.
pub(super) fn after_commits(site: &mut Site, commits: u32, act: impl FnOnce(&mut Site) -> Result<Said, Error>) -> Said {
    let left = Cell::new(commits);
    // SAFETY: the store's connection is open, and stays so until `hook` is dropped: `act` does not replace the store.
    let handle = unsafe { site.store.database().handle() };
    let hook = Hook(handle);
    // SAFETY: the connection is used by this thread alone, and `left` lives longer than `hook`.
    unsafe { ffi::sqlite3_commit_hook(handle, Some(count_down), (&raw const left).cast_mut().cast()) };
    let result = act(site);
    drop(hook);
    result.unwrap_or_else(|error| {
        assert!(is_refused_commit(&error), "an agent's step: {error}");
        Vec::new()
    })
}

fn is_refused_commit(error: &Error) -> bool {
    let Error::Sqlite(error) = error else { return false };
    error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_CONSTRAINT_COMMITHOOK)
}

/// Called before each COMMIT, which is done only if this says 0.
unsafe extern "C" fn count_down(left: *mut c_void) -> c_int {
    // SAFETY: it is the counter in `after_commits`, which is there as long as this is called.
    let left = unsafe { &*left.cast::<Cell<u32>>() };
    let Some(fewer) = left.get().checked_sub(1) else { return 1 };
    left.set(fewer);
    0
}

struct Hook(*mut ffi::sqlite3);

impl Drop for Hook {
    fn drop(&mut self) {
        // SAFETY: the connection is still open, see `after_commits`.
        unsafe { ffi::sqlite3_commit_hook(self.0, None, ptr::null_mut()) };
    }
}
