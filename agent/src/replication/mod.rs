//! Keeps the site's database the same as the peers' (claims C1–C5).
//!
//! What happens to the database is `siteswap-replication`'s; here its transactions meet the link. One thread works on
//! the database ([`database`]), one task folds what applications write ([`follow`]), and each peer has two streams: on the
//! one that this site has opened it sends batches and hears acknowledgements ([`send`]), on the peer's it is the other way
//! round ([`receive`]).

mod database;
mod fences;
mod follow;
mod messages;
mod receive;
mod send;
mod status;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use siteswap_common::steer::tunnel;
use siteswap_replication::store::{self, Rules, Settings};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use crate::{
    config::{self, Config},
    link::{Link, Opened},
};

use database::Database;
use fences::Moving;
use status::Sessions;

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
    streams: mpsc::Sender<Opened>,
    guarded: watch::Sender<BTreeMap<String, Guarded>>,
    moves: mpsc::Sender<Moving>,
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
}

impl Replication {
    /// Begins, if a database is configured.
    pub fn start(config: &Config, link: &Link) -> Option<Self> {
        let database = config.database.as_ref()?;
        let (groups, _) = watch::channel(0);
        let shared = Shared {
            database: Database::start(database.file.clone(), settings(config, database)),
            sessions: Sessions::default(),
            groups: Arc::new(groups),
            applied: Arc::new(watch::channel(0).0),
            paused: Arc::new(watch::channel(false).0),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(follow::follow(database.file.clone(), database.max_backlog, shared.clone()));
        for peer in config.peers() {
            if let Some(opener) = link.opener(peer) {
                tasks.spawn(send::send(peer.to_owned(), opener, shared.clone()));
            }
        }
        let (streams, opened) = mpsc::channel(4);
        tasks.spawn(receive::receive(opened, shared.clone()));
        let (guarded, watched) = watch::channel(BTreeMap::new());
        let (moves, orders) = mpsc::channel(4);
        tasks.spawn(fences::keep(watched, orders, shared.clone()));
        let applied = shared.applied.subscribe();
        let Shared { database, sessions, .. } = shared;
        Some(Self { database, sessions, streams, guarded, moves, applied, _tasks: Arc::new(tasks) })
    }

    /// A peer has opened its stream.
    pub fn opened(&self, opened: Opened) {
        // Without room it ends, and the peer opens another.
        let _ = self.streams.try_send(opened);
    }

    /// Who holds the resources that have tables.
    pub fn guard(&self, guarded: BTreeMap<String, Guarded>) {
        self.guarded.send_if_modified(|last| {
            let changed = *last != guarded;
            *last = guarded;
            changed
        });
    }

    /// A resource is about to move: its tables refuse writes from now on, until it has moved or that takes too long.
    /// Returns this site's last group, which holds everything that was written before.
    pub fn leave(&self, resource: String, to: String) -> impl Future<Output = Result<u64, String>> + Send + use<> {
        let moves = self.moves.clone();
        async move {
            let (reply, group) = oneshot::channel();
            let stopping = |_| "the agent stops".to_owned();
            moves.send(Moving { resource, to, reply }).await.map_err(|_| "the agent stops".to_owned())?;
            group.await.map_err(stopping)?.map_err(|error| error.to_string())
        }
    }

    /// Waits until a peer's groups up to this one are applied here.
    pub fn applied(&self, peer: &str, group: u64) -> impl Future<Output = Result<(), String>> + Send + use<> {
        let (database, mut applied, site) = (self.database.clone(), self.applied.clone(), number(peer));
        async move {
            loop {
                applied.borrow_and_update();
                let peers = database.run(|store| store.peers()).await.map_err(|error| error.to_string())?;
                if peers.get(&site).is_some_and(|peer| peer.applied >= group) {
                    return Ok(());
                }
                applied.changed().await.map_err(|_| "the agent stops".to_owned())?;
            }
        }
    }

    /// How it stands. May wait for a transaction to end.
    pub fn status(&self) -> impl Future<Output = Status> + Send + use<> {
        status::status(self.database.clone(), self.sessions.clone())
    }
}

/// What a site is called in the database and on the wire: the same number as in the tunnel.
fn number(site: &str) -> u32 {
    tunnel::site(site)
}

/// What the configuration says of the database.
pub(crate) fn settings(config: &Config, database: &config::Database) -> Settings {
    let sites: BTreeMap<u32, String> = config.sites.keys().map(|site| (number(site), site.clone())).collect();
    Settings {
        site: number(&config.site),
        sites,
        max_skew: i64::try_from(database.max_skew.as_millis()).unwrap_or(i64::MAX),
        rules: database.rules.iter().map(|(table, rules)| (table.as_str().to_lowercase(), translate(*rules))).collect(),
    }
}

fn translate(rules: config::TableRules) -> Rules {
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
            config::Unique::Delete => store::OnCollision::Delete,
        },
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
