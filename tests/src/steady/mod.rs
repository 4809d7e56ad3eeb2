//! Users who keep asking while things happen: whatever went wrong in between is in what they recorded.

mod queries;
mod requests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow};

pub use self::{
    queries::{Asked, queries},
    requests::{
        Conversation, Question, Request, Transport, all_answered, conversation, failed, requests, server, servers,
    },
};

/// Somebody who keeps asking, on a thread, until `finish` or the value is dropped. `T` is the record.
pub struct Steady<T> {
    progress: Arc<Progress>,
    thread: Option<JoinHandle<Result<T>>>,
}

/// What the one who asks and the one who watches share.
#[derive(Default)]
pub(crate) struct Progress {
    stopped: AtomicBool,
    sent: AtomicUsize,
}

impl Progress {
    pub(crate) fn goes_on(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }

    pub(crate) fn sent_one(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }
}

impl<T: Send + 'static> Steady<T> {
    pub(crate) fn start(work: impl FnOnce(&Progress) -> Result<T> + Send + 'static) -> Self {
        let progress = Arc::new(Progress::default());
        let shared = progress.clone();
        Self { progress, thread: Some(thread::spawn(move || work(&shared))) }
    }

    /// How often it has asked so far.
    pub fn sent(&self) -> usize {
        self.progress.sent.load(Ordering::Relaxed)
    }

    /// Whether it has stopped asking by itself.
    pub fn ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops, and waits for the answers that are still on their way.
    ///
    /// # Errors
    /// Asking itself failed; that there was no answer is in the record.
    pub fn finish(mut self) -> Result<T> {
        self.progress.stopped.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it has been finished already")?;
        thread.join().map_err(|_| anyhow!("the asking thread panicked; its message is above"))?
    }
}

/// Stops all of them, then waits for the answers that are still on their way.
///
/// # Errors
/// Those of [`Steady::finish`].
pub fn finish<T: Send + 'static>(all: impl IntoIterator<Item = Steady<T>>) -> Result<Vec<T>> {
    let all: Vec<_> = all.into_iter().collect();
    for steady in &all {
        steady.progress.stopped.store(true, Ordering::Relaxed);
    }
    all.into_iter().map(Steady::finish).collect()
}

impl<T> Drop for Steady<T> {
    fn drop(&mut self) {
        self.progress.stopped.store(true, Ordering::Relaxed);
    }
}
