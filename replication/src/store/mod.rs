//! A site's SQLite database: the transactions in which changes are folded, applied and acknowledged.
//!
//! Nothing that matters is kept outside the database, so that a crash anywhere leaves either the state before a
//! transaction or the one after it.

mod acknowledge;
mod apply;
mod assert;
mod backlog;
mod batch;
mod columns;
mod conflicts;
mod fence;
mod fold;
mod identity;
mod join;
mod live;
mod local;
mod parked;
mod repair;
mod rows;
mod scan;
mod status;
mod tail;
mod touched;
mod triggers;
mod verify;
mod work;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, config::DbConfig};
use serde::{Deserialize, Serialize};

use crate::{
    capture,
    clock::{Clock, Seen, SiteId, Stamp},
    schema::{self, Table},
    wire::Incarnation,
};

pub use apply::Received;
pub use backlog::{Kept, Weighed};
pub use batch::Position;
pub use conflicts::Logged;
pub use fence::{Counted, agree, end_fence, fenced};
pub use fold::Folded;
pub use identity::{Age, Doubt, Restored};
pub use local::{Contradiction, Local};
pub use status::{Backlog, Status};
pub use tail::Told;
pub use verify::{Difference, Limits, Outcome, Progress, Repairs, Step, Verify};

use acknowledge::Sweep;
use backlog::Pass;
pub(crate) use columns::Ruled;
use identity::{Identity, Outside};
use live::Live;
use work::Work;

/// Another process may hold the write lock for so long before a transaction of ours fails.
const BUSY: Duration = Duration::from_secs(30);
/// So long is waited between two tries to get the lock. SQLite's own handler waits up to 100 ms, and an application that
/// writes without pause leaves the lock free for less than a millisecond at a time: see `docs/performance.md`.
const TRY: Duration = Duration::from_micros(500);

/// SQLite's `cache_size`: 16 MiB, for what a large batch changes to be written once.
const CACHE: i32 = -16_384;

/// Long work says how far it is after so many rows.
const OFTEN: u64 = 4_096;

/// How a database is replicated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This site.
    pub site: SiteId,
    /// All sites by number, this one among them.
    pub sites: BTreeMap<SiteId, String>,
    /// A time stamp is at most so many milliseconds ahead of the agent's clock; later ones count as this.
    pub max_skew: i64,
    /// Rules for tables that have their own, by name in lower case.
    pub rules: BTreeMap<String, Rules>,
}

impl Settings {
    fn rules_of(&self, table: &str) -> Rules {
        self.rules.get(&table.to_lowercase()).cloned().unwrap_or_default()
    }
}

/// What happens to one table's changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// What is decided together.
    pub granularity: Granularity,
    /// What wins when one site deletes what another edits.
    pub deletes: Deletes,
    /// What becomes of the loser of a collision between unique columns.
    pub unique: OnCollision,
    /// Whether the application's triggers fire for what peers have told.
    pub fire_triggers: bool,
    /// Columns that have a rule of their own, by name in lower case; the same at every site.
    pub columns: BTreeMap<String, ColumnRule>,
}

/// What becomes of values that sites give a column without knowledge of each other, if it is not that the newer stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnRule {
    /// What updates add to it and take from it counts all.
    Counter,
    /// The smallest stays.
    Min,
    /// The greatest stays.
    Max,
}

/// What a conflict is decided for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Granularity {
    /// Each column.
    #[default]
    Column,
    /// The whole row.
    Row,
}

/// What wins when one site deletes what another edits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deletes {
    /// The newer.
    #[default]
    Latest,
    /// The deletion.
    Win,
    /// The edit.
    Lose,
}

/// What becomes of the loser of a collision between unique columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnCollision {
    /// Its column becomes NULL, if that is allowed; else it is deleted.
    #[default]
    Null,
    /// Its text gets a mark of its key; if it is no text, or has the mark, as with `Null`.
    Suffix,
    /// It is deleted.
    Delete,
}

/// Why something was not done. The database is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite refused.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The tables are not captured as they should be.
    #[error(transparent)]
    Capture(#[from] capture::Error),
    /// What we keep in the database is not what we wrote.
    #[error(
        "{what} in {table} cannot be read: it was changed by somebody else; siteswap db verify finds out what is left"
    )]
    Damaged {
        /// Of what kind.
        what: &'static str,
        /// Where.
        table: String,
    },
    /// A peer sent what is no batch.
    #[error("a malformed batch: {0}")]
    Malformed(&'static str),
    /// A peer's change is to something that this database does not have.
    #[error("{0} is not replicated here, or does not exist; changes wait at the peer until it does")]
    Unknown(String),
    /// A column cannot have the rule that the configuration gives it.
    #[error("column {column:?} of table {table:?} cannot have a rule of its own: {why}")]
    Column {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Why not.
        why: &'static str,
    },
    /// A schema change must wait: nothing would be known any more of what is parked for these columns.
    #[error("peers have columns that this site lacks: {0}; add them first")]
    Lacking(String),
    /// The changes after this group are not kept any more.
    #[error(
        "changes from group {wanted} are not kept any more, the oldest is {oldest}: verify and repair, or join again"
    )]
    Gone {
        /// What was asked for.
        wanted: u64,
        /// What there is.
        oldest: u64,
    },
    /// The file that was opened is not the one of this name any more.
    #[error("another file was put in its place")]
    Replaced,
    /// No schema change is under way.
    #[error("no schema change is under way here; begin one with: siteswap db schema begin")]
    NotFenced,
    /// A peer lacks changes that were made before the schema change.
    #[error("{0} rows wait for a peer that has not applied them; see: siteswap db status")]
    Waiting(u64),
    /// It must be compared with a peer's first.
    #[error("the database is still to be compared with a peer's: {0}; see: siteswap db status")]
    Doubtful(Doubt),
    /// A peer's schema was changed more or less often than ours.
    #[error(
        "the sender's schema was changed {theirs} times and ours {ours} times: end the schema change at every site with \
         siteswap db schema commit; if none is under way, begin and end one without a change; a backup from before a \
         schema change is to be replaced by a snapshot of a peer's database (siteswap db join)"
    )]
    Schema {
        /// The sender's count.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// A row would refer to one that is not there.
    #[error("the row of {table} refers to one of {parent} that is not there any more: insert that first")]
    Dangling {
        /// The row's table.
        table: String,
        /// The table referred to.
        parent: String,
    },
    /// Another row has what a row should get.
    #[error("another row has it by now ({0}): change or delete that row first, or leave this one as it is")]
    Taken(rusqlite::Error),
    /// A row cannot go.
    #[error("rows refer to the one of {0} that was deleted, and would call it back: delete those first")]
    Referred(String),
    /// What was added to counters, and lost, was added again before.
    #[error("conflict {0} was restored before, and what is added to a counter twice counts twice")]
    Restored(i64),
    /// Nothing can be added to what a counter is now.
    #[error("{table}.{column} holds no integer now that this could be added to: give it one first")]
    NoInteger {
        /// The counter's table.
        table: String,
        /// The counter.
        column: String,
    },
    /// No table is captured.
    #[error("no table is attached; run: siteswap db attach")]
    NotAttached,
    /// Tables were to be compared that neither site has.
    #[error("neither site replicates {}: look at the name, or run siteswap db attach", .0.join(", "))]
    Nowhere(Vec<String>),
    /// A peer does not answer.
    #[error("the peer refuses: {0}")]
    Refused(String),
    /// The database is a copy of another site's.
    #[error("this is a copy of the database of site {site}: siteswap db join makes it this site's")]
    Foreign {
        /// Whose.
        site: SiteId,
    },
    /// The database is this site's own already.
    #[error("this is a copy of this site's own database: to restore it, put it in the place of the lost one")]
    Own,
    /// A file cannot be read or written.
    #[error("{}: {source}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The journal mode does not fit.
    #[error("the database is in journal mode {0}; run once: PRAGMA journal_mode=WAL")]
    Journal(String),
}

/// What moves with every transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    clock: Clock,
    /// The last group's number.
    group: u64,
    /// The last touch that was folded.
    folded: i64,
    /// What is applied here.
    seen: Seen,
    /// The newest stamp of anything that was dropped because every site has it.
    settled: Stamp,
    /// It is an older copy of what it was.
    restored: Option<Restored>,
    /// Peers that have forgotten changes of theirs before they came here, and up to which of their groups: until this
    /// database was compared with them it does not say that it has seen anything of them.
    missed: BTreeMap<SiteId, u64>,
    /// Peers that have changed rows whose other values are forgotten here, and in which of their groups the last.
    incomplete: BTreeMap<SiteId, u64>,
    /// When it was last forgotten that rows were deleted.
    forgot: Stamp,
}

/// A peer, as the database knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its groups up to this one are applied here.
    pub applied: u64,
    /// Our groups up to this one are applied there.
    pub acknowledged: u64,
    /// What it has seen, as far as it has told and we have applied what it told before.
    pub seen: Seen,
    /// Which copy of its database it was when it was heard last.
    pub incarnation: Option<Incarnation>,
}

/// A site's database.
#[derive(Debug)]
pub struct Store {
    database: Connection,
    /// Its name, and which file that was.
    file: (PathBuf, Option<(u64, u64)>),
    settings: Settings,
    tables: Tables,
    /// `PRAGMA data_version` when touches were last looked for.
    looked: Option<i64>,
    /// The last group when it was opened.
    opened: u64,
    outside: Option<Outside>,
    /// Each peer was told up to this group, since it was opened.
    told: RefCell<BTreeMap<SiteId, u64>>,
    sweep: Sweep,
    /// Of what is forgotten because it is too much, while that is under way.
    pass: Option<Pass>,
    /// `PRAGMA schema_version` when the tables were last found, or made, to be captured as they are.
    schema: Option<i64>,
}

/// The replicated tables by number.
type Tables = BTreeMap<u32, Rc<Live>>;

impl Store {
    /// Opens a database whose tables are attached ([`capture::attach`]).
    ///
    /// # Errors
    /// `Journal`, `Capture`, `Foreign`, `Damaged`, `Sqlite`.
    pub fn open(file: &Path, settings: Settings) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut database = Connection::open_with_flags(file, flags)?;
        database.busy_handler(Some(wait))?;
        let mode: String = database.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(Error::Journal(mode));
        }
        write_as_told(&database)?;
        database.execute_batch("PRAGMA synchronous=FULL; PRAGMA temp_store=FILE;")?;
        database.pragma_update(None, "cache_size", CACHE)?;
        database.set_prepared_statement_cache_capacity(512);
        capture::check_layout(&database)?;
        let tables = load(&database, &settings)?;
        let (sweep, told) = (Sweep::default(), RefCell::default());
        let mut store = Self {
            database,
            file: (file.to_owned(), which(file)),
            settings,
            tables,
            looked: None,
            sweep,
            pass: None,
            schema: None,
            opened: 0,
            outside: None,
            told,
        };
        match Identity::load(&store.database)? {
            Some(identity) if identity.site != store.settings.site => {
                return Err(Error::Foreign { site: identity.site });
            }
            Some(_) => {}
            None => Identity::ensure(&store.database, store.settings.site)?,
        }
        store.opened = State::load(&store.database)?.group;
        Ok(store)
    }

    /// May there be new touches? Costs microseconds; says yes once after each change of the file by another connection.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn changed(&mut self) -> Result<bool, Error> {
        let version = self.database.query_row("PRAGMA data_version", [], |row| row.get(0))?;
        Ok(self.looked.replace(version) != Some(version))
    }

    /// This site's last group, its clock, and what it has applied.
    ///
    /// # Errors
    /// `Damaged`, `Sqlite`.
    pub fn position(&self) -> Result<(u64, Stamp, Seen), Error> {
        let state = State::load(&self.database)?;
        Ok((state.group, state.clock.0, state.seen))
    }

    /// What is known of each peer.
    ///
    /// # Errors
    /// `Damaged`, `Sqlite`.
    pub fn peers(&self) -> Result<BTreeMap<SiteId, Peer>, Error> {
        work::peers(&self.database, &self.settings)
    }

    /// From now on writes to these tables fail and name the holder, or succeed (`None`), as do those to all others; tables
    /// that are attached later among them. Returns how far this site is: the
    /// last group of what was written here before, and of each peer what is applied here, by site. Who has applied all that
    /// has everything that the last writer can have seen. Tables that are not replicated are passed over. During a schema change it holds from its end on.
    ///
    /// # Errors
    /// `Capture`, `Damaged`, `Sqlite`.
    pub fn refuse(
        &mut self,
        tables: &BTreeMap<String, Option<String>>,
        now: i64,
    ) -> Result<BTreeMap<SiteId, u64>, Error> {
        self.transact(|work| {
            fold::fold(work, now)?;
            fence::remember(work.transaction, tables)?;
            if !fenced(work.transaction)? {
                let all = work.tables.values().map(|live| &live.table);
                fence::refuse(work.transaction, all, tables)?;
            }
            let applied = work.peers.iter().map(|(site, peer)| (*site, peer.applied));
            Ok(applied.chain([(work.settings.site, work.state.group)]).collect())
        })
    }

    /// Are changes neither sent nor taken, because an operator has said so?
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn paused(&self) -> Result<bool, Error> {
        Ok(self.database.prepare_cached("SELECT 1 FROM _ssw_meta WHERE k='paused'")?.exists([])?)
    }

    /// Stops the sending and taking of changes, or lets it go on.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn pause(&mut self, paused: bool) -> Result<(), Error> {
        let order = if paused {
            "INSERT OR REPLACE INTO _ssw_meta(k, v) VALUES('paused', 1)"
        } else {
            "DELETE FROM _ssw_meta WHERE k='paused'"
        };
        self.database.execute(order, [])?;
        Ok(())
    }

    /// Takes up what has been done to the schema since the last time: columns that were added, triggers of ours that were
    /// dropped. Every transaction begins so; this is for when there is none.
    ///
    /// # Errors
    /// `Replaced`, `NotAttached`, `Capture`, `Damaged`, `Sqlite`: the store is of no use any more.
    pub fn refresh(&mut self) -> Result<(), Error> {
        if which(&self.file.0) != self.file.1 {
            return Err(Error::Replaced);
        }
        if self.schema == Some(schema_version(&self.database)?) { Ok(()) } else { self.transact(|_| Ok(())) }
    }

    /// The connection, to look at the database.
    pub fn database(&self) -> &Connection {
        &self.database
    }

    /// Does `act` in one transaction that has the write lock from its beginning, and makes it durable.
    fn transact<T>(&mut self, act: impl FnOnce(&mut Work<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let start = Instant::now();
        let transaction = Transaction::new(&mut self.database, TransactionBehavior::Immediate)?;
        let waited = i64::try_from(start.elapsed().as_millis()).unwrap_or(i64::MAX);
        // A transaction that failed may have left them on.
        triggers::fire(&transaction, false)?;
        let tables = take_up(&transaction, &self.settings, self.schema)?;
        let current = tables.as_ref().unwrap_or(&self.tables);
        let newest = triggers::newest_touch(&transaction, current)?;
        let mut work = Work::begin(&transaction, &self.settings, current)?;
        work.waited = waited;
        let result = act(&mut work)?;
        if let Some(newest) = newest {
            triggers::silence(&transaction, current, newest)?;
        }
        work.finish()?;
        // Triggers of ours are part of the schema.
        let schema = schema_version(&transaction)?;
        transaction.commit()?;
        if let Some(tables) = tables {
            self.tables = tables;
        }
        self.schema = Some(schema);
        Ok(result)
    }
}

/// What this connection writes is not captured again, nor cascades twice; a CHECK has been passed where the change was made.
fn write_as_told(database: &Connection) -> Result<(), Error> {
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    database.execute_batch("PRAGMA foreign_keys=OFF; PRAGMA ignore_check_constraints=ON;")?;
    Ok(())
}

/// Device and number of the file of this name.
fn which(file: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(file).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Waits for another connection's transaction to end, and says whether to try again.
fn wait(tries: i32) -> bool {
    thread::sleep(TRY);
    TRY * tries.unsigned_abs() < BUSY
}

fn schema_version(database: &Connection) -> Result<i64, Error> {
    Ok(database.query_row("PRAGMA schema_version", [], |row| row.get(0))?)
}

/// If the schema is not what it was in version `known`: has our triggers follow it, and returns the tables as they are now.
/// While the write lock is held nobody else can change it again, so nothing is folded by anything older.
fn take_up(transaction: &Transaction<'_>, settings: &Settings, known: Option<i64>) -> Result<Option<Tables>, Error> {
    if known == Some(schema_version(transaction)?) {
        return Ok(None);
    }
    // A schema change takes our triggers off.
    if !fenced(transaction)? {
        capture::refresh(transaction)?;
        fence::refuse_new(transaction)?;
        for table in capture::tables(transaction)? {
            if schema::has_columns(transaction, &table)? {
                let rules = settings.rules_of(&table.name);
                capture::count(transaction, &table, Ruled::find(transaction, &table, &rules)?.counters)?;
            }
        }
    }
    let tables = load(transaction, settings)?;
    // Detached and attached again: whoever has it open does so anew.
    if Identity::load(transaction)?.is_none() {
        return Err(Error::NotAttached);
    }
    Ok(Some(tables))
}

/// The replicated tables as they are captured, without those that are gone, or have lost columns or renamed them: until a
/// schema change nobody knows what these are to the other sites.
fn load(database: &Connection, settings: &Settings) -> Result<Tables, Error> {
    let tables = capture::tables(database)?;
    if tables.is_empty() {
        return Err(Error::NotAttached);
    }
    let there = |table: Table| Ok(schema::has_columns(database, &table)?.then_some(table));
    let tables: Vec<Table> =
        tables.into_iter().map(there).filter_map(Result::transpose).collect::<Result<_, Error>>()?;
    let references = tables.iter().flat_map(|table| &table.references);
    let referenced: Vec<String> = references.map(|reference| reference.parent.to_lowercase()).collect();
    let live = |table: Table| {
        let name = table.name.to_lowercase();
        let rules = settings.rules_of(&name);
        let is_parent = referenced.contains(&name);
        Ok((table.number, Rc::new(Live::new(database, table, rules, is_parent)?)))
    };
    tables.into_iter().map(live).collect()
}

impl State {
    fn load(database: &Connection) -> Result<Self, Error> {
        let bytes: Option<Vec<u8>> = database
            .prepare_cached("SELECT v FROM _ssw_meta WHERE k='state'")?
            .query_row([], |row| row.get(0))
            .optional()?;
        let Some(bytes) = bytes else { return Ok(Self::default()) };
        postcard::from_bytes(&bytes).map_err(|_| damaged("the state", "_ssw_meta"))
    }

    fn save(&self, database: &Connection) -> Result<(), Error> {
        let bytes = postcard::to_stdvec(self).map_err(|_| damaged("the state", "_ssw_meta"))?;
        database.prepare_cached("INSERT OR REPLACE INTO _ssw_meta(k, v) VALUES('state', ?)")?.execute([bytes])?;
        Ok(())
    }
}

fn damaged(what: &'static str, table: &str) -> Error {
    Error::Damaged { what, table: table.to_owned() }
}
