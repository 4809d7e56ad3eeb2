//! The tables that siteswap keeps in an application's database. All begin with `_ssw_`.

use rusqlite::{Connection, OptionalExtension, Result};

/// What every name of ours in somebody's database begins with.
pub const PREFIX: &str = "_ssw_";

/// How the tables below are laid out, and what is in them encoded. To be counted up with every change of that.
pub const VERSION: i64 = 7;

/// What a touch says in place of the columns that an update has changed: the row was inserted,
pub const INSERTED: i64 = -1;

/// deleted,
pub const DELETED: i64 = -2;

/// or is perhaps about to be evicted by a REPLACE, of which no trigger tells.
pub const EVICTED: i64 = -3;

/// The table that changes of no table have in `_ssw_change`.
pub const NOTICES: u32 = 0;

/// The version of what is in a database with our tables; 0 if it is older than versions are.
///
/// # Errors
/// Whatever SQLite says.
pub fn version(database: &Connection) -> Result<i64> {
    let found = database.query_row("SELECT v FROM _ssw_meta WHERE k='layout'", [], |row| row.get(0)).optional()?;
    Ok(found.unwrap_or(0))
}

/// Creates what does not exist yet, in a database with nothing of ours or with tables of this [`VERSION`].
///
/// - `_ssw_meta`: the layout's version, this database's site, incarnation, clock and watermarks.
/// - `_ssw_table`: the replicated tables, `schema` being [`Table`](crate::schema::Table) as JSON.
/// - `_ssw_touch`: written by the triggers alone, one row for each row touched. It has no constraint that could fail: an
///   outer `OR IGNORE` would hide that, and the change be lost. `what` is [`INSERTED`], [`DELETED`], [`EVICTED`], or which
///   columns were updated, bit by bit: in one column, because each takes an application's time. `day` is the application's
///   clock as a Julian day, `k0` and so on are the primary key, `c0` and so on what the table's counters were before an update
///   ([`fit_touches`]). The last values of a row that is gone, or may
///   be, are in `_ssw_old_<number>` under the same `seq`.
/// - `_ssw_change`: the change table. One row for each row changed in a group. Those of table [`NOTICES`] are what peers are
///   told for their conflict logs, by its number.
/// - `_ssw_group`: groups of whole transactions; `grp` is its first number, `last` its last (they differ after
///   consolidation on disk), `clock` the newest stamp in it, `seen` what its writers could have seen of other sites
///   ([`Sight`](crate::clock::Sight)).
/// - `_ssw_row`: versions of rows that are not yet known to be the same everywhere, and what is left of deleted ones.
/// - `_ssw_peer`: what each peer has applied, and what of each is applied here.
/// - `_ssw_inbox`: parts of a batch too large for one message, until the rest has come.
/// - `_ssw_conflict`: what lost against another site's change, at whichever site that was found.
///
/// # Errors
/// Whatever SQLite says.
pub fn create(database: &Connection) -> Result<()> {
    database.execute_batch(TABLES)?;
    database.execute("INSERT OR IGNORE INTO _ssw_meta(k, v) VALUES('layout', ?)", [VERSION]).map(drop)
}

/// Lets touches name rows of a table that has so many columns in its key, and so many counters. There are no more columns
/// for that than one of the tables needs: each takes an application's time, also to be NULL.
///
/// # Errors
/// Whatever SQLite says.
pub fn fit_touches(database: &Connection, key: usize, counters: usize) -> Result<()> {
    for (what, columns) in [("k", key), ("c", counters)] {
        let sql = "SELECT count(*) FROM pragma_table_info('_ssw_touch') WHERE name GLOB ? || '[0-9]*'";
        let there: usize = database.query_row(sql, [what], |row| row.get(0))?;
        for at in there..columns {
            database.execute_batch(&format!("ALTER TABLE _ssw_touch ADD COLUMN {what}{at}"))?;
        }
    }
    Ok(())
}

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS _ssw_meta(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _ssw_table(number INTEGER PRIMARY KEY, name TEXT NOT NULL, schema TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS _ssw_touch(seq INTEGER PRIMARY KEY, tbl, what, day, k0);
CREATE TABLE IF NOT EXISTS _ssw_change(grp INTEGER NOT NULL, tbl INTEGER NOT NULL, key BLOB NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY(grp, tbl, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _ssw_group(grp INTEGER PRIMARY KEY, last INTEGER NOT NULL, clock INTEGER NOT NULL,
  seen BLOB NOT NULL, rows INTEGER NOT NULL, bytes INTEGER NOT NULL, ms INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS _ssw_row(tbl INTEGER NOT NULL, key BLOB NOT NULL, newest INTEGER NOT NULL, state BLOB NOT NULL,
  PRIMARY KEY(tbl, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _ssw_peer(site INTEGER PRIMARY KEY, name TEXT NOT NULL, incarnation BLOB, applied INTEGER NOT NULL DEFAULT 0,
  acknowledged INTEGER NOT NULL DEFAULT 0, seen BLOB NOT NULL DEFAULT x'');
CREATE TABLE IF NOT EXISTS _ssw_inbox(origin INTEGER NOT NULL, batch INTEGER NOT NULL, part INTEGER NOT NULL, data BLOB NOT NULL,
  PRIMARY KEY(origin, batch, part)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _ssw_conflict(id INTEGER PRIMARY KEY, ms INTEGER NOT NULL, tbl TEXT NOT NULL, key BLOB NOT NULL,
  kind TEXT NOT NULL, columns TEXT NOT NULL, won_site TEXT NOT NULL, won_stamp INTEGER NOT NULL, lost_site TEXT NOT NULL,
  lost_stamp INTEGER NOT NULL, image BLOB NOT NULL, state TEXT NOT NULL);
";
