//! `siteswap db`: the site's database. What changes or only reads it works on the file, with the agent running or not;
//! what another site has a part in asks the agent.

mod show;
mod sites;

use std::{cmp::Reverse, ops::ControlFlow, path::PathBuf, process::ExitCode, thread, time::Duration};

use anyhow::Context;
use clap::{Args, Subcommand};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use siteswap_replication::{
    capture::{self, Wanted},
    doctor::{self, Severity},
    store::{self, Logged, Store, Told},
};

use crate::{
    config::{self, Config, Database, Tables},
    control::client::Client,
    replication::{self, Keep, literal},
};

use super::{
    ConfigFile, Socket, colours,
    print::{self, say},
    runtime,
};
use sites::Line;

/// Applications may hold the write lock for so long before an order fails.
const BUSY: Duration = Duration::from_secs(30);
/// `tail --follow` looks after this for changes that wait: those that peers have acknowledged meanwhile are gone.
const LOOK: Duration = Duration::from_millis(5);

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Db {
    /// Begin to record changes: install our triggers and tables (their names begin with `_ssw_`).
    ///
    /// Rows that are there already are not sent: sites begin with the same content (`siteswap db snapshot`), or are made
    /// equal once (`siteswap db verify --repair --keep present`). Run it once
    /// at each site, before the application writes. It may be repeated.
    Attach(Order),
    /// Stop recording and remove all that is ours. The schema is then what it was before `attach`.
    ///
    /// Changes that a peer has not applied are lost with it; without --force it refuses while there are some, or while that
    /// cannot be told.
    Detach {
        #[command(flatten)]
        order: Order,
        /// Also while peers have not applied everything, or nobody can tell.
        #[arg(long)]
        force: bool,
    },
    /// Show what each peer has applied, what waits for it, and why.
    ///
    /// Exit code 0: changes go to and come from all peers. 3: they do not, or something waits, or a schema change is under way. 1:
    /// no agent answers.
    Status {
        #[command(flatten)]
        socket: Socket,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Examine the database: what cannot be replicated or could collide, and what would be right. Changes nothing.
    ///
    /// Exit code 0: no error, though perhaps warnings. 1: an error.
    Doctor(Order),
    /// Print the changes that wait for a peer, the oldest first.
    ///
    /// While it cannot print on (`| less`), the database's write-ahead log grows with every write.
    Tail {
        #[command(flatten)]
        order: Order,
        /// Go on with changes that come to wait, until Ctrl-C. It looks every 5 ms: a change that all peers have acknowledged
        /// between two looks is not shown.
        #[arg(long, short)]
        follow: bool,
    },
    /// Read what lost against another site's change, and bring it back. Alone it lists them.
    #[command(args_conflicts_with_subcommands = true)]
    Conflicts {
        #[command(subcommand)]
        what: Option<Conflicts>,
        #[command(flatten)]
        list: Listing,
    },
    /// Compare this site's tables with a peer's, or with every peer's; repair what differs.
    ///
    /// The agents read both databases while applications go on; rows with changes on their way are looked at again.
    /// Differences come from writes that no trigger has seen: of a process with triggers switched off, by incremental BLOB
    /// I/O, `.restore` or `PRAGMA writable_schema`, and while a trigger was dropped. A repair says the row that stays once
    /// more, as a change made now, which goes to all sites.
    ///
    /// Exit code 0: everything is equal. 3: something differs or could not be settled. 1: it was not compared.
    Verify {
        #[command(flatten)]
        order: Order,
        /// The peer; without it all are compared, one after the other.
        #[arg(conflicts_with = "local")]
        peer: Option<String>,
        /// Check what can be checked without a peer: rows of which something is still kept, and our triggers.
        #[arg(long)]
        local: bool,
        /// Make rows that differ equal.
        #[arg(long)]
        repair: bool,
        /// Which of two rows stays.
        #[arg(long, value_enum, default_value_t, requires = "repair", conflicts_with = "local")]
        keep: Keep,
        /// This table only; may be given several times.
        #[arg(long = "table", value_name = "TABLE", conflicts_with = "local")]
        tables: Vec<String>,
    },
    /// Write a copy of the database that a new site can begin with; applications go on writing.
    ///
    /// Put the new site into every site's configuration first: from then on what it will need is kept for it. Only who runs
    /// this can read the copy.
    Snapshot {
        #[command(flatten)]
        order: Order,
        /// A file that does not exist yet.
        to: PathBuf,
    },
    /// Make another site's snapshot this site's database. What was written since the snapshot comes from the peers.
    ///
    /// The file belongs to the owner and group of its directory, who can write to it (mode 0660); only root can give it away.
    Join {
        #[command(flatten)]
        order: Order,
        /// What `siteswap db snapshot` wrote at another site; it stays as it is.
        snapshot: PathBuf,
    },
    /// Change the schema at all sites without losing a write. (A column that is added needs none of this.)
    Schema {
        #[command(subcommand)]
        what: Schema,
    },
    /// Stop sending and taking changes; recording goes on. The agent does so within a second or two, see `siteswap db
    /// status`. Survives restarts.
    Pause(Order),
    /// Send and take changes again.
    Resume(Order),
}

/// A schema change.
#[derive(Debug, Subcommand)]
pub(super) enum Schema {
    /// Let no more be written to the replicated tables at any site, and wait until all sites have applied what was.
    ///
    /// Then change the schema at each site, with any tool, and end it there with `siteswap db schema commit`. Applications'
    /// writes fail meanwhile and say why. Run it once, at any site; it may be repeated.
    ///
    /// Exit code 0: the schema can be changed now. 3: writes are refused, but not everything was applied in time. 1: nothing
    /// was done, or a site did not answer.
    Begin {
        #[command(flatten)]
        order: Order,
        /// Seconds to wait until all sites have applied everything.
        #[arg(long = "wait", default_value_t = 60, value_name = "SECONDS")]
        seconds: u32,
    },
    /// Record the tables as they are now, and let applications write again. Run it at each site after its change.
    ///
    /// A site that has committed sends nothing to one that has not: it waits. Without a change it takes the begin back, and
    /// nothing is lost.
    Commit {
        #[command(flatten)]
        order: Order,
        /// Also while a peer lacks changes made before: they are lost to it until `siteswap db verify --repair`.
        #[arg(long)]
        force: bool,
    },
}

/// What to do with conflicts.
#[derive(Debug, Subcommand)]
pub(super) enum Conflicts {
    /// List them, the newest first.
    List(Listing),
    /// Show one with the values that were dropped.
    Show {
        #[command(flatten)]
        order: Order,
        /// Its number, the same at every site.
        id: i64,
    },
    /// Make the dropped values the current ones, as a change made now. It goes to all sites.
    Restore {
        #[command(flatten)]
        order: Order,
        /// Its number.
        id: i64,
    },
    /// Forget those that were found long ago, with the values that were dropped; at this site alone. Nothing else forgets
    /// any.
    Purge {
        #[command(flatten)]
        order: Order,
        /// Those that were found more than so many days ago.
        #[arg(long, value_name = "N")]
        days: u32,
    },
}

/// A list of conflicts.
#[derive(Debug, Args)]
pub(super) struct Listing {
    #[command(flatten)]
    order: Order,
    /// At most so many.
    #[arg(long, default_value_t = 50)]
    limit: u32,
}

/// Which database, and how to print.
#[derive(Debug, Args)]
pub(super) struct Order {
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A database with its configuration.
struct Opened {
    config: Config,
    database: Database,
    json: bool,
}

impl Order {
    fn open(&self) -> anyhow::Result<Opened> {
        let config = config::load(&self.file.config)?;
        let database = config.database.clone().with_context(|| {
            format!("{} has no section [database]: nothing says which file to work on", self.file.config.display())
        })?;
        Ok(Opened { config, database, json: self.json })
    }
}

impl Opened {
    fn path(&self) -> std::path::Display<'_> {
        self.database.file.display()
    }

    fn connect(&self, flags: OpenFlags) -> anyhow::Result<Connection> {
        let connection = Connection::open_with_flags(&self.database.file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .with_context(|| format!("opening {}", self.path()))?;
        connection.busy_timeout(BUSY)?;
        Ok(connection)
    }

    fn store(&self) -> anyhow::Result<Store> {
        Store::open(&self.database.file, replication::settings(&self.config, &self.database))
            .with_context(|| format!("opening {}", self.path()))
    }

    /// Tables as the configuration has them.
    fn wanted(&self) -> Option<Vec<String>> {
        match &self.database.tables {
            Tables::All => None,
            Tables::Listed(tables) => Some(tables.iter().map(|table| table.as_str().to_owned()).collect()),
        }
    }

    /// Tables whose triggers fire for what peers have told.
    fn firing(&self) -> Vec<String> {
        let firing = self.database.rules.iter().filter(|(_, rules)| rules.fire_triggers);
        firing.map(|(table, _)| table.as_str().to_owned()).collect()
    }

    /// One transaction that has the write lock from its beginning.
    fn transact<T>(&self, act: impl FnOnce(&Transaction<'_>) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let mut connection = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let transaction = Transaction::new(&mut connection, TransactionBehavior::Immediate)?;
        let result = act(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }
}

/// Does it.
pub(super) fn execute(command: Db) -> anyhow::Result<ExitCode> {
    match command {
        Db::Attach(order) => attach(&order.open()?),
        Db::Detach { order, force } => detach(&order.open()?, force),
        Db::Status { socket, json } => status(&socket, json),
        Db::Doctor(order) => examine(&order.open()?),
        Db::Tail { order, follow } => tail(&order.open()?, follow),
        Db::Conflicts { what, list } => match what.unwrap_or(Conflicts::List(list)) {
            Conflicts::List(Listing { order, limit }) => list_conflicts(&order.open()?, limit),
            Conflicts::Show { order, id } => show_conflict(&order.open()?, id),
            Conflicts::Restore { order, id } => restore(&order.open()?, id),
            Conflicts::Purge { order, days } => purge(&order.open()?, days),
        },
        Db::Verify { order, local: true, repair, .. } => sites::verify_local(&order.open()?, repair),
        Db::Verify { order, peer, repair, keep, tables, .. } => {
            sites::verify(&order.open()?, peer, &tables, repair.then_some(keep))
        }
        Db::Snapshot { order, to } => sites::snapshot(&order.open()?, &to),
        Db::Join { order, snapshot } => sites::join(&order.open()?, &snapshot),
        Db::Schema { what: Schema::Begin { order, seconds } } => sites::begin_schema(&order.open()?, seconds),
        Db::Schema { what: Schema::Commit { order, force } } => commit_schema(&order.open()?, force),
        Db::Pause(order) => pause(&order.open()?, true),
        Db::Resume(order) => pause(&order.open()?, false),
    }
}

fn attach(opened: &Opened) -> anyhow::Result<ExitCode> {
    let mode: String =
        opened.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    anyhow::ensure!(
        mode == "wal",
        "{} is in journal mode {mode}; changes are only durable before they are sent in WAL mode; run once: \
         PRAGMA journal_mode=WAL",
        opened.path()
    );
    let wanted = opened.wanted();
    let tables = opened.transact(|transaction| {
        let wanted = wanted.as_deref().map_or(Wanted::All, Wanted::Named);
        Ok(capture::attach(transaction, wanted)?)
    })?;
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    say(
        opened.json,
        &serde_json::json!({ "file": opened.database.file, "tables": names }),
        &format!("{}: changes to {} are recorded", opened.path(), names.join(", ")),
    )
}

fn commit_schema(opened: &Opened, force: bool) -> anyhow::Result<ExitCode> {
    let wanted = opened.wanted();
    let tables = opened.transact(|transaction| {
        Ok(store::end_fence(transaction, wanted.as_deref().map_or(Wanted::All, Wanted::Named), force)?)
    })?;
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    say(
        opened.json,
        &serde_json::json!({ "file": opened.database.file, "tables": names }),
        &format!("{}: changes to {} are recorded; run it at the other sites too", opened.path(), names.join(", ")),
    )
}

fn detach(opened: &Opened, force: bool) -> anyhow::Result<ExitCode> {
    if force {
        opened.transact(|transaction| Ok(capture::detach(transaction, Wanted::All)?))?;
    } else {
        detach_settled(opened)?;
    }
    say(
        opened.json,
        &serde_json::json!({ "file": opened.database.file, "tables": [] }),
        &format!("{}: nothing is recorded any more, and nothing of ours is left", opened.path()),
    )
}

/// Detaches if nothing is lost with it.
fn detach_settled(opened: &Opened) -> anyhow::Result<()> {
    let waiting = match Store::open(&opened.database.file, replication::settings(&opened.config, &opened.database)) {
        Ok(mut store) => {
            let mut line = Line::new();
            store.detach_telling(replication::now(), |folded, of| {
                line.count(|| format!("{folded} of {of} writes taken up that the agent has not seen"));
            })
        }
        // Then nothing is recorded, and only what is left of ours goes.
        Err(store::Error::NotAttached) => {
            return opened.transact(|transaction| Ok(capture::detach(transaction, Wanted::All)?));
        }
        Err(error) => Err(error),
    };
    let waiting = waiting.with_context(|| {
        format!(
            "{}: nobody can tell whether changes wait that would be lost; --force detaches nevertheless",
            opened.path()
        )
    })?;
    let of = |(peer, backlog): (String, store::Backlog)| match backlog.forgotten {
        true => format!("more than is kept for {peer}"),
        false => format!("{} rows for {peer}", backlog.rows),
    };
    let waiting: Vec<String> = waiting.into_iter().map(of).collect();
    anyhow::ensure!(
        waiting.is_empty(),
        "changes wait that would be lost: {}; let the agents finish, or use --force",
        waiting.join(", ")
    );
    Ok(())
}

fn status(socket: &Socket, json: bool) -> anyhow::Result<ExitCode> {
    let status = runtime(1)?.block_on(Client::new(&socket.control).database())?;
    say(json, &status, &show::status(&status, colours()))?;
    let good = status.error.is_none()
        && !status.paused
        && !status.fenced
        && status.doubt.is_none()
        && status.peers.values().all(|peer| peer.sending && peer.taking && peer.rows == 0 && !peer.forgotten);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

fn examine(opened: &Opened) -> anyhow::Result<ExitCode> {
    let connection = opened.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let wanted = opened.wanted();
    let mut findings =
        doctor::check(&connection, wanted.as_deref().map_or(Wanted::All, Wanted::Named), &opened.firing())?;
    let settings = replication::settings(&opened.config, &opened.database);
    findings.extend(doctor::columns(&connection, &settings.rules)?);
    findings.sort_by_key(|finding| Reverse(finding.severity));
    say(opened.json, &findings, &show::findings(&findings, colours()))?;
    let bad = findings.iter().any(|finding| finding.severity == Severity::Error);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn tail(opened: &Opened, follow: bool) -> anyhow::Result<ExitCode> {
    let mut store = opened.store()?;
    let mut after = 0;
    loop {
        if store.changed()? {
            let told = store.tell_after(after, |change| {
                after = after.max(change.group);
                let line = if opened.json { serde_json::to_string(&change) } else { Ok(line(&change)) };
                line.map_or_else(|error| ControlFlow::Break(Err(error.into())), print::line)
            })?;
            if let Some(end) = told.break_value() {
                end?;
                return Ok(ExitCode::SUCCESS);
            }
        }
        if !follow {
            return Ok(ExitCode::SUCCESS);
        }
        thread::sleep(LOOK);
    }
}

/// A change in a line: its group, when, the row, and what became of it.
fn line(change: &Told) -> String {
    let cells = change.columns.iter().map(|(name, value)| format!("{name}={}", literal(value)));
    let adds = change.added.iter().map(|(name, value)| format!("{name}+={}", literal(value)));
    let cells: Vec<String> = cells.chain(adds).collect();
    let key: Vec<String> = change.key.iter().map(literal).collect();
    let Told { group, ms, table, what, .. } = change;
    format!("{group} {ms} {what} {table} ({}) {}", key.join(", "), cells.join(" ")).trim_end().to_owned()
}

fn list_conflicts(opened: &Opened, limit: u32) -> anyhow::Result<ExitCode> {
    let conflicts = opened.store()?.conflicts(limit)?;
    let lines: Vec<String> = conflicts.iter().map(in_a_line).collect();
    let text = if lines.is_empty() { "no conflicts".to_owned() } else { lines.join("\n") };
    say(opened.json, &conflicts, &text)
}

fn in_a_line(conflict: &Logged) -> String {
    let key: Vec<String> = conflict.key.iter().map(literal).collect();
    let columns: Vec<&str> = conflict.image.iter().map(|(column, _)| column.as_str()).collect();
    let columns = if columns.is_empty() { "the deletion".to_owned() } else { columns.join(", ") };
    format!(
        "{} {} {} ({}): {} won over {}, which lost {columns}; {}",
        conflict.id,
        conflict.kind,
        conflict.table,
        key.join(", "),
        conflict.won_site,
        conflict.lost_site,
        conflict.state
    )
}

fn show_conflict(opened: &Opened, id: i64) -> anyhow::Result<ExitCode> {
    let conflict = opened.store()?.conflict(id)?.with_context(|| no_conflict(id))?;
    let mut text = in_a_line(&conflict);
    for (column, value) in &conflict.image {
        text += &format!("\n  {column} = {}", literal(value));
    }
    say(opened.json, &conflict, &text)
}

fn restore(opened: &Opened, id: i64) -> anyhow::Result<ExitCode> {
    let mut store = opened.store()?;
    anyhow::ensure!(store.restore(id, replication::now())?, no_conflict(id));
    say(opened.json, &store.conflict(id)?, "restored, as a change made now")
}

fn purge(opened: &Opened, days: u32) -> anyhow::Result<ExitCode> {
    let before = replication::now() - i64::from(days) * 24 * 60 * 60 * 1_000;
    let purged = opened.store()?.purge_conflicts(before)?;
    say(opened.json, &serde_json::json!({ "purged": purged }), &format!("{purged} conflicts are forgotten"))
}

fn no_conflict(id: i64) -> String {
    format!("there is no conflict {id}; list them with: siteswap db conflicts list")
}

fn pause(opened: &Opened, paused: bool) -> anyhow::Result<ExitCode> {
    opened.store()?.pause(paused)?;
    let sentence =
        if paused { "changes are recorded, and neither sent nor taken" } else { "changes are sent and taken" };
    say(opened.json, &serde_json::json!({ "paused": paused }), sentence)
}
