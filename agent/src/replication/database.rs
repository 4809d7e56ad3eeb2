//! Threads that work on the database: one transaction at a time each, none of them on the runtime's threads.

use std::{
    path::PathBuf,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use siteswap_replication::store::{self, Age, Settings, Store};
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

/// What a thread works on.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The database.
    pub(super) file: PathBuf,
    /// How it is replicated.
    pub(super) settings: Settings,
    /// Where it is kept what peers may have been told, outside of the database. One thread tells them anything; for others
    /// there is none.
    pub(super) told: Option<PathBuf>,
}

impl Database {
    pub(super) fn start(place: Place) -> Self {
        let (jobs, inbox) = mpsc::channel();
        thread::spawn(move || work(&place, &inbox));
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

impl Place {
    fn open(&self) -> Result<Store, store::Error> {
        let mut store = Store::open(&self.file, self.settings.clone())?;
        if let Some(told) = &self.told {
            let (database, tables) = (self.file.display(), store.tables().count());
            match store.remember_outside(told)? {
                Age::New | Age::Continues => tracing::info!(%database, tables, "the database is replicated"),
                Age::Restored => tracing::warn!(
                    %database,
                    tables,
                    "the database is older than what peers were told (a restored backup?): it is compared with all of them"
                ),
            }
        }
        Ok(store)
    }
}

fn work(place: &Place, jobs: &mpsc::Receiver<Job>) {
    let mut said = String::new();
    loop {
        let error = match place.open() {
            Ok(mut store) => {
                let Some((job, error)) = serve(&mut store, jobs) else { return };
                job(Err(&error.to_string()));
                error
            }
            Err(error) => error,
        };
        let why = format!("{}: {error}", place.file.display());
        if why != said && place.told.is_some() {
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
