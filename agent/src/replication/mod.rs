//! Keeps the site's database the same as the peers' (claims C1–C5).
//!
//! What happens to the database is `siteswap-replication`'s; here its transactions meet the link. One thread works on
//! the database ([`database`]), one task folds what applications write ([`follow`]), and each peer has two streams: on the
//! one that this site has opened it sends batches and hears acknowledgements ([`send`]), on the peer's it is the other way
//! round ([`receive`]).

mod database;
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
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    config::{self, Config},
    link::{Link, Opened},
};

use database::Database;
use status::Sessions;

pub use status::{Peer, Status};

/// Why nothing is sent or taken, if an operator wants that.
const PAUSED: &str = "paused by: siteswap db pause";

/// The tasks that keep this site's database the same as the peers'. Dropped, they end, and the database stays as it is.
#[derive(Debug)]
pub struct Replication {
    database: Database,
    sessions: Sessions,
    streams: mpsc::Sender<Opened>,
    _tasks: JoinSet<()>,
}

/// What all tasks share.
#[derive(Clone, Debug)]
struct Shared {
    database: Database,
    sessions: Sessions,
    /// This site's last group, as the tasks know it.
    groups: Arc<watch::Sender<u64>>,
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
            paused: Arc::new(watch::channel(false).0),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(follow::follow(database.file.clone(), shared.clone()));
        for peer in config.peers() {
            if let Some(opener) = link.opener(peer) {
                tasks.spawn(send::send(peer.to_owned(), opener, shared.clone()));
            }
        }
        let (streams, opened) = mpsc::channel(4);
        tasks.spawn(receive::receive(opened, shared.clone()));
        Some(Self { database: shared.database, sessions: shared.sessions, streams, _tasks: tasks })
    }

    /// A peer has opened its stream.
    pub fn opened(&self, opened: Opened) {
        // Without room it ends, and the peer opens another.
        let _ = self.streams.try_send(opened);
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
