//! The thread that works on the database: one transaction at a time, none of them on the runtime's threads.

use std::{
    path::PathBuf,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use siteswap_replication::store::{self, Settings, Store};
use tokio::sync::oneshot;

/// A database that cannot be opened is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// What is to be done with the database, or with the reason why it cannot be opened.
type Job = Box<dyn FnOnce(Result<&mut Store, &str>) + Send>;

/// Why something was not done with the database.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failed {
    /// It cannot be opened.
    #[error("{0}")]
    Closed(String),
    /// A transaction failed.
    #[error("{0}")]
    Refused(String),
    /// The agent stops.
    #[error("the agent stops")]
    Stopping,
}

/// A site's database, worked on by a thread of its own, which ends with the last handle.
#[derive(Clone, Debug)]
pub(super) struct Database {
    jobs: mpsc::Sender<Job>,
}

impl Database {
    pub(super) fn start(file: PathBuf, settings: Settings) -> Self {
        let (jobs, inbox) = mpsc::channel();
        thread::spawn(move || work(&file, &settings, &inbox));
        Self { jobs }
    }

    /// Does `job` when those before it are done.
    pub(super) async fn run<T, F>(&self, job: F) -> Result<T, Failed>
    where
        T: Send + 'static,
        F: FnOnce(&mut Store) -> Result<T, store::Error> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let job: Job = Box::new(move |store| {
            let result = match store {
                Ok(store) => job(store).map_err(|error| Failed::Refused(error.to_string())),
                Err(why) => Err(Failed::Closed(why.to_owned())),
            };
            // Nobody waits for it any more.
            let _ = reply.send(result);
        });
        self.jobs.send(job).map_err(|_| Failed::Stopping)?;
        result.await.map_err(|_| Failed::Stopping)?
    }
}

fn work(file: &std::path::Path, settings: &Settings, jobs: &mpsc::Receiver<Job>) {
    let mut said = String::new();
    loop {
        let error = match Store::open(file, settings.clone()) {
            Ok(mut store) => {
                tracing::info!(database = %file.display(), tables = store.tables().count(), "the database is replicated");
                let Some((job, error)) = serve(&mut store, jobs) else { return };
                job(Err(&error.to_string()));
                error
            }
            Err(error) => error,
        };
        let why = format!("{}: {error}", file.display());
        if why != said {
            tracing::error!("the database is not replicated: {why}");
        }
        if !refuse(jobs, &why) {
            return;
        }
        said = why;
    }
}

/// Does jobs until there are no more, or the tables cannot be read any more: then it returns the job that was not done.
fn serve(store: &mut Store, jobs: &mpsc::Receiver<Job>) -> Option<(Job, store::Error)> {
    while let Ok(job) = jobs.recv() {
        // Somebody may have attached, detached or changed tables.
        match store.refresh() {
            Ok(()) => job(Ok(store)),
            Err(error) => return Some((job, error)),
        }
    }
    None
}

/// Answers all jobs with a reason for a while. Says no when there will be no more.
fn refuse(jobs: &mpsc::Receiver<Job>, why: &str) -> bool {
    let until = Instant::now() + AGAIN;
    loop {
        match jobs.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(job) => job(Err(why)),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}
