//! Keeps the site's database the same as the peers' (claims C1–C5).
//!
//! What happens to the database is `siteswap-replication`'s; here its transactions meet the link. One thread works on
//! the database ([`database`]), one task folds what applications write ([`follow`]), and each peer has two streams: on the
//! one that this site has opened it sends batches and hears acknowledgements ([`send`]), on the peer's it is the other way
//! round ([`receive`]). Whether the sites are the same is asked over streams of their own and read by a second thread
//! ([`compare`]), on an operator's order or when there is doubt ([`mend`]).

mod compare;
mod database;
mod fences;
mod follow;
mod mend;
mod messages;
mod receive;
mod send;
mod status;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use siteswap_common::steer::tunnel;
use siteswap_replication::{
    Value,
    store::{self, Counted, Rules, Settings},
};
use tokio::{
    sync::{Mutex, mpsc, oneshot, watch},
    task::JoinSet,
};

use crate::{
    config::{self, Config},
    evidence::Backlog,
    link::{Link, Opened, frames::Topic},
};

use compare::Comparer;
use database::{Database, Place};
use fences::Move;
use status::Sessions;

pub use compare::{Compared, Comparing, Comparison, Differing, Keep};
pub use fences::Guarded;
pub use status::{Peer, Status};

/// Why nothing is sent or taken, if an operator wants that.
const PAUSED: &str = "paused by: siteswap db pause";

/// The tasks that keep this site's database the same as the peers'. With its last copy they end, and the database stays as
/// it is.
#[derive(Clone, Debug)]
pub struct Replication {
    database: Database,
    sessions: Sessions,
    comparer: Comparer,
    streams: mpsc::Sender<Opened>,
    guarded: watch::Sender<Option<BTreeMap<String, Guarded>>>,
    moves: mpsc::Sender<Move>,
    applied: watch::Receiver<u64>,
    _tasks: Arc<JoinSet<()>>,
}

/// What all tasks share.
#[derive(Clone, Debug)]
struct Shared {
    database: Database,
    sessions: Sessions,
    /// This site's last group, as the tasks know it.
    groups: Arc<watch::Sender<u64>>,
    /// Counts batches that were applied here.
    applied: Arc<watch::Sender<u64>>,
    /// An operator wants no changes sent or taken.
    paused: Arc<watch::Sender<bool>>,
    /// What waits for each peer, looked up once a second.
    backlogs: Backlogs,
}

/// What waits for each peer.
pub type Backlogs = Arc<watch::Sender<BTreeMap<String, Backlog>>>;

impl Replication {
    /// Begins, if a database is configured. What waits for each peer goes to `backlogs`.
    pub fn start(config: &Config, link: &Link, backlogs: Backlogs) -> Option<Self> {
        let database = config.database.as_ref()?;
        let (groups, _) = watch::channel(0);
        let place =
            Place { file: database.file.clone(), settings: settings(config, database), told: Some(told(config)) };
        let openers = |topic| config.peers().filter_map(move |peer| Some((peer.to_owned(), link.opener(peer, topic)?)));
        let comparer = Comparer {
            database: Database::start(Place { told: None, ..place.clone() }),
            peers: Arc::new(openers(Topic::Comparison).map(|(peer, opener)| (peer, Mutex::new(opener))).collect()),
        };
        let shared = Shared {
            database: Database::start(place),
            sessions: Sessions::default(),
            groups: Arc::new(groups),
            applied: Arc::new(watch::channel(0).0),
            paused: Arc::new(watch::channel(false).0),
            backlogs,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(follow::follow(database.file.clone(), database.max_backlog, shared.clone()));
        for (peer, opener) in openers(Topic::Changes) {
            tasks.spawn(send::send(peer, opener, shared.clone()));
        }
        let (streams, opened) = mpsc::channel(4);
        tasks.spawn(receive::receive(opened, shared.clone(), comparer.database.clone()));
        tasks.spawn(mend::mend(comparer.clone(), shared.clone()));
        let (guarded, watched) = watch::channel(None);
        let (moves, orders) = mpsc::channel(4);
        tasks.spawn(fences::keep(watched, orders, shared.clone()));
        let applied = shared.applied.subscribe();
        let Shared { database, sessions, .. } = shared;
        Some(Self { database, sessions, comparer, streams, guarded, moves, applied, _tasks: Arc::new(tasks) })
    }

    /// A peer has opened its stream.
    pub fn opened(&self, opened: Opened) {
        // Without room it ends, and the peer opens another.
        let _ = self.streams.try_send(opened);
    }

    /// Who holds the resources that have tables.
    pub fn guard(&self, guarded: BTreeMap<String, Guarded>) {
        set(&self.guarded, Some(guarded));
    }

    /// A resource is about to move: its tables refuse writes from now on, until it has moved or that takes too long.
    /// Returns how far this site is, by the sites' numbers: up to which group of each it has everything.
    pub fn leave(
        &self,
        resource: String,
        to: String,
    ) -> impl Future<Output = Result<BTreeMap<u32, u64>, String>> + Send + use<> {
        let moves = self.moves.clone();
        async move {
            let (reply, reached) = oneshot::channel();
            let stopping = |_| "the agent stops".to_owned();
            moves.send(Move::Begins { resource, to, reply }).await.map_err(|_| "the agent stops".to_owned())?;
            reached.await.map_err(stopping)?.map_err(|error| error.to_string())
        }
    }

    /// The resource does not move to that site after all.
    pub fn stay(&self, resource: String, to: String) -> impl Future<Output = ()> + Send + use<> {
        let moves = self.moves.clone();
        async move { drop(moves.send(Move::Ends { resource, to }).await) }
    }

    /// Sites whose groups up to this one are not all applied here, by the sites' numbers.
    pub fn lacks(&self, reached: BTreeMap<u32, u64>) -> impl Future<Output = Result<Vec<u32>, String>> + Send + use<> {
        let database = self.database.clone();
        async move {
            let peers = database.run(|store| store.peers()).await.map_err(|error| error.to_string())?;
            let lacks = |(site, group): (u32, u64)| peers.get(&site).is_some_and(|peer| peer.applied < group);
            Ok(reached.into_iter().filter(|part| lacks(*part)).map(|(site, _)| site).collect())
        }
    }

    /// Says why this database may lack what peers count as applied here, if so.
    pub fn is_whole(&self) -> impl Future<Output = Result<(), String>> + Send + use<> {
        let database = self.database.clone();
        async move { database.run(|store| store.is_beyond_doubt()).await.map_err(|error| error.to_string()) }
    }

    /// Waits until each site's groups up to this one are applied here, by the sites' numbers.
    pub fn reaches(&self, reached: BTreeMap<u32, u64>) -> impl Future<Output = Result<(), String>> + Send + use<> {
        let (replication, mut applied) = (self.clone(), self.applied.clone());
        async move {
            loop {
                applied.borrow_and_update();
                if replication.lacks(reached.clone()).await?.is_empty() {
                    return Ok(());
                }
                applied.changed().await.map_err(|_| "the agent stops".to_owned())?;
            }
        }
    }

    /// Could a schema change begin here?
    pub fn before_fence(&self) -> impl Future<Output = Result<Counted, String>> + Send + use<> {
        let database = self.database.clone();
        async move { database.run(|store| store.before_fence(now())).await.map_err(|error| error.to_string()) }
    }

    /// Lets no more be written to the tables, before a schema change after which all sites count so many. Says whether every
    /// peer has applied what was.
    pub fn fence(&self, agreed: u32) -> impl Future<Output = Result<bool, String>> + Send + use<> {
        let database = self.database.clone();
        async move { database.run(move |store| store.fence(agreed, now())).await.map_err(|error| error.to_string()) }
    }

    /// Compares tables with a peer's, and repairs what differs if that is wanted. The last thing that the receiver gets is
    /// `Done` or `Failed`; without the receiver it ends.
    pub fn compare(&self, comparison: Comparison) -> mpsc::Receiver<Comparing> {
        let (told, progress) = mpsc::channel(16);
        tokio::spawn(self.comparer.clone().run(comparison, told));
        progress
    }

    /// How it stands. May wait for a transaction to end.
    pub fn status(&self) -> impl Future<Output = Status> + Send + use<> {
        status::status(self.database.clone(), self.sessions.clone())
    }
}

/// Tells who watches, if it is another than before.
fn set<T: PartialEq>(watched: &watch::Sender<T>, value: T) {
    watched.send_if_modified(|last| {
        let changed = *last != value;
        *last = value;
        changed
    });
}

/// What a site is called in the database and on the wire: the same number as in the tunnel.
pub(crate) fn number(site: &str) -> u32 {
    tunnel::site(site)
}

/// Where this site keeps what its peers may have been told: not in the database, which may be restored from a backup.
fn told(config: &Config) -> PathBuf {
    config.state.join("database.told")
}

/// What the configuration says of the database.
pub(crate) fn settings(config: &Config, database: &config::Database) -> Settings {
    let sites: BTreeMap<u32, String> = config.sites.keys().map(|site| (number(site), site.clone())).collect();
    Settings {
        site: number(&config.site),
        sites,
        max_skew: i64::try_from(database.max_skew.as_millis()).unwrap_or(i64::MAX),
        rules: database.rules.iter().map(|(table, rules)| (table.as_str().to_lowercase(), translate(rules))).collect(),
    }
}

fn translate(rules: &config::TableRules) -> Rules {
    Rules {
        granularity: match rules.granularity {
            config::Granularity::Column => store::Granularity::Column,
            config::Granularity::Row => store::Granularity::Row,
        },
        deletes: match rules.conflicts {
            config::Conflicts::Latest => store::Deletes::Latest,
            config::Conflicts::Delete => store::Deletes::Win,
            config::Conflicts::Update => store::Deletes::Lose,
        },
        unique: match rules.unique {
            config::Unique::Null => store::OnCollision::Null,
            config::Unique::Suffix => store::OnCollision::Suffix,
            config::Unique::Delete => store::OnCollision::Delete,
        },
        fire_triggers: rules.fire_triggers,
        columns: rules.columns.iter().map(|(name, rule)| (name.clone(), column_rule(*rule))).collect(),
    }
}

fn column_rule(rule: config::ColumnRule) -> store::ColumnRule {
    match rule {
        config::ColumnRule::Counter => store::ColumnRule::Counter,
        config::ColumnRule::Min => store::ColumnRule::Min,
        config::ColumnRule::Max => store::ColumnRule::Max,
    }
}

/// A value as SQL would have it.
pub(crate) fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => format!("{number:?}"),
        Value::Text(text) => {
            let text = String::from_utf8_lossy(text).replace('\'', "''");
            format!("'{}'", text.replace(char::is_control, "\u{fffd}"))
        }
        Value::Blob(bytes) => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("x'{digits}'")
        }
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
