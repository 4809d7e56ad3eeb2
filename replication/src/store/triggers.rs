//! Triggers that fire also for what peers have told, where a table's rules say so: those that keep a search index, say,
//! which every site has for itself.

use rusqlite::{Connection, config::DbConfig};

use super::{Error, Tables};

const ENABLED: DbConfig = DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER;

/// Has triggers fire for what this connection writes from now on, or not. SQLite then compiles every statement anew, so this
/// changes from one table to the next and not from row to row.
pub(super) fn fire(database: &Connection, fire: bool) -> Result<(), rusqlite::Error> {
    if database.db_config(ENABLED)? == fire {
        return Ok(());
    }
    // Seen in this transaction only: what refuses an application's writes lets these pass.
    let mark = if fire {
        "INSERT OR IGNORE INTO _ssw_meta(k, v) VALUES('applying', 1)"
    } else {
        "DELETE FROM _ssw_meta WHERE k='applying'"
    };
    database.prepare_cached(mark)?.execute([])?;
    database.set_db_config(ENABLED, fire).map(drop)
}

/// The newest touch before a transaction in which triggers may fire: ours among them. `None`: none will.
pub(super) fn newest_touch(database: &Connection, tables: &Tables) -> Result<Option<i64>, Error> {
    if !tables.values().any(|live| live.rules.fire_triggers) {
        return Ok(None);
    }
    let mut newest = database.prepare_cached("SELECT ifnull(max(seq), 0) FROM _ssw_touch")?;
    Ok(Some(newest.query_row([], |row| row.get(0))?))
}

/// Ends what `fire` began, and takes back the touches since the `newest` one: nobody else could write in this transaction.
pub(super) fn silence(database: &Connection, tables: &Tables, newest: i64) -> Result<(), Error> {
    fire(database, false)?;
    database.prepare_cached("DELETE FROM _ssw_touch WHERE seq > ?")?.execute([newest])?;
    for number in tables.keys() {
        database.prepare_cached(&format!("DELETE FROM _ssw_old_{number} WHERE seq > ?"))?.execute([newest])?;
    }
    Ok(())
}
