//! Probes: this site's backends are tried, and what is believed of them is told.
//!
//! `attempt` tries a backend once, [`RiseFall`] turns results into belief, and [`Probes`] keeps a task for each backend.
//! [`Reach`] tries the public addresses of peers that are silent.

mod attempt;
mod reach;
mod rise_fall;
mod search;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::mpsc::Sender, task::AbortHandle, time};

pub use attempt::{Attempt, Prober};
pub use reach::Reach;
pub(crate) use reach::{confirming, enough};
pub use rise_fall::{Change, RiseFall};

use crate::config::{Config, Probe, Role};
use attempt::read_roots;
use tls::Roots;

/// What is believed of a backend has changed, or is known for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeEvent {
    /// The resource it serves.
    pub resource: String,
    /// The backend.
    pub backend: SocketAddr,
    /// Whether it is good.
    pub up: bool,
    /// What the deciding try found, for people.
    pub detail: String,
    /// When the deciding try ended.
    pub at: Instant,
}

/// A backend as `siteswap status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendStatus {
    /// The resource it serves.
    pub resource: String,
    /// The backend.
    pub backend: SocketAddr,
    /// What is believed of it. `None`: nothing yet.
    pub up: Option<bool>,
    /// Since when that is believed.
    pub since: Option<Instant>,
    /// The last try.
    pub last: Option<Attempt>,
    /// How many tries in a row had the last one's result.
    pub streak: u32,
}

/// The probes of this site's backends. They stop when this is dropped.
pub struct Probes {
    tasks: Vec<Task>,
    events: Sender<ProbeEvent>,
}

impl Probes {
    /// Starts trying every backend of [`backends`] at once, and again without a pause until something is believed of it.
    /// For each backend `events` gets the first belief and every later change. While it is full, that backend's next try waits.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(config: &Config, events: Sender<ProbeEvent>) -> Self {
        let mut probes = Self { tasks: Vec::new(), events };
        probes.reload(config);
        probes
    }

    /// Goes over to `config`. Backends whose probe is unchanged keep what is believed of them and send nothing; the
    /// others start anew. Once this returns, no event of a stopped probe can be sent any more.
    pub fn reload(&mut self, config: &Config) {
        let targets = targets(config);
        let mut before = std::mem::take(&mut self.tasks);
        let mut kept = Vec::new();
        for target in &targets {
            let same = before.iter().position(|task| *task.target == *target);
            kept.push(same.map(|index| before.swap_remove(index)));
        }
        drop(before);
        let count = u32::try_from(targets.len()).unwrap_or(u32::MAX);
        let tasks = (0..).zip(targets).zip(kept).map(|((index, target), kept)| {
            kept.unwrap_or_else(|| {
                let pause = first_pause(target.probe.interval, index, count);
                Task::start(target, pause, self.events.clone())
            })
        });
        self.tasks = tasks.collect();
    }

    /// Every backend that is tried, resource by resource.
    pub fn status(&self) -> Vec<BackendStatus> {
        self.tasks.iter().map(Task::status).collect()
    }
}

/// The backends that are tried: those of this site's instances that are not disabled, each with its resource.
pub fn backends(config: &Config) -> impl Iterator<Item = (&str, SocketAddr)> {
    config.resources.iter().flat_map(|(name, resource)| {
        let instance = resource.instances.get(&config.site);
        instance
            .filter(|instance| instance.role != Role::Disabled)
            .into_iter()
            .flat_map(|instance| &instance.backends)
            .map(|backend| (name.as_str(), *backend))
    })
}

/// What is wrong with the PEM files that probes name; empty if they are fine. A probe whose file is wrong fails all its
/// tries, so a configuration is better refused.
pub fn check(config: &Config) -> Vec<String> {
    let roots = config.resources.iter().filter_map(|(name, resource)| {
        let error = read_roots(&resource.probe)?.err()?;
        Some(format!("resources.{name}.probe.verify: {error}"))
    });
    roots.collect()
}

/// What a task tries. Unchanged: the task need not know of a reload.
#[derive(PartialEq)]
struct Target {
    resource: String,
    backend: SocketAddr,
    probe: Probe,
    roots: Option<Roots>,
}

fn targets(config: &Config) -> Vec<Target> {
    let target = |(resource, backend): (&str, SocketAddr)| {
        let probe = &config.resources[resource].probe;
        Target { resource: resource.to_owned(), backend, probe: probe.clone(), roots: read_roots(probe) }
    };
    backends(config).map(target).collect()
}

/// The trying of one backend. It stops when this is dropped.
struct Task {
    target: Arc<Target>,
    state: Arc<Mutex<State>>,
    handle: AbortHandle,
}

/// What a task has found.
struct State {
    belief: RiseFall,
    since: Option<Instant>,
    last: Option<Attempt>,
    /// Nothing may be sent any more.
    stopped: bool,
}

impl Task {
    /// `pause`: from the start of the try that was first believed to that of the next.
    fn start(target: Target, pause: Duration, events: Sender<ProbeEvent>) -> Self {
        let target = Arc::new(target);
        let state = Arc::new(Mutex::new(State {
            belief: RiseFall::new(target.probe.rise, target.probe.fall),
            since: None,
            last: None,
            stopped: false,
        }));
        let work = run(target.clone(), state.clone(), pause, events);
        Self { target, state, handle: tokio::spawn(work).abort_handle() }
    }

    fn status(&self) -> BackendStatus {
        let state = lock(&self.state);
        BackendStatus {
            resource: self.target.resource.clone(),
            backend: self.target.backend,
            up: state.belief.up(),
            since: state.since,
            last: state.last.clone(),
            streak: state.belief.streak(),
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        lock(&self.state).stopped = true;
        self.handle.abort();
    }
}

impl State {
    /// What is believed from now on, and whether anything is.
    fn record(&mut self, attempt: &Attempt) -> (Option<Change>, bool) {
        self.last = Some(attempt.clone());
        let change = self.belief.observe(attempt.ok);
        if change.is_some() {
            self.since = Some(attempt.at);
        }
        (change, self.belief.up().is_some())
    }
}

async fn run(target: Arc<Target>, state: Arc<Mutex<State>>, mut pause: Duration, events: Sender<ProbeEvent>) {
    let prober = Prober::with_roots(&target.probe, target.roots.as_ref());
    loop {
        let start = Instant::now();
        let attempt = prober.attempt(target.backend).await;
        let (change, known) = lock(&state).record(&attempt);
        if let Some(change) = change {
            let event = ProbeEvent {
                resource: target.resource.clone(),
                backend: target.backend,
                up: change == Change::Up,
                detail: attempt.detail,
                at: attempt.at,
            };
            let Ok(permit) = events.reserve().await else {
                return;
            };
            // Aborting takes effect at an await only; the lock orders this after or before the task's end.
            let state = lock(&state);
            if state.stopped {
                return;
            }
            permit.send(event);
        }
        // A site waits for the first belief; a try that failed once may only have been slow.
        if known {
            time::sleep_until(next_start(start, pause, Instant::now()).into()).await;
            pause = target.probe.interval;
        }
    }
}

/// From start to start, but never in the past: what was missed is not made up for.
fn next_start(last: Instant, pause: Duration, now: Instant) -> Instant {
    (last + pause).max(now)
}

/// All first tries start at once, so that the first round is soon complete. The next ones are spread over half an
/// interval, none later than usual.
fn first_pause(interval: Duration, index: u32, count: u32) -> Duration {
    interval - (interval / 2).mul_f64(f64::from(index) / f64::from(count.max(1)))
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in it is whole at every moment.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
