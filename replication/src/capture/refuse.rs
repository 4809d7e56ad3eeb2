//! Refuses an application's writes.

use rusqlite::{Connection, Transaction};

use super::triggers::name;
use crate::schema::{Table, quoted};

const KINDS: [(&str, &str); 3] = [("ri", "INSERT"), ("ru", "UPDATE"), ("rd", "DELETE")];

/// With a `message`: every write to the table fails from now on with it, whatever the statement's conflict clause, also by a
/// cascade. With none, writes succeed again. The agent goes on applying: its connection fires no triggers, or where it has to,
/// leaves a mark that only its own transaction sees.
///
/// # Errors
/// Whatever SQLite says.
pub fn refuse(transaction: &Transaction<'_>, table: &Table, message: Option<&str>) -> rusqlite::Result<()> {
    for (kind, event) in KINDS {
        let trigger = quoted(&name(kind, table));
        transaction.execute_batch(&format!("DROP TRIGGER IF EXISTS {trigger}"))?;
        if let Some(message) = message {
            let message = message.replace('\'', "''");
            transaction.execute_batch(&format!(
                "CREATE TRIGGER {trigger} BEFORE {event} ON {} WHEN NOT EXISTS(SELECT 1 FROM _ssw_meta WHERE k='applying')
                BEGIN SELECT RAISE(ABORT, '{message}'); END",
                quoted(&table.name)
            ))?;
        }
    }
    Ok(())
}

/// Do writes to the table of this name fail because `table`, which it is or was before a change of the schema, refuses them?
/// A table that was dropped and made anew has none of its triggers; one that was renamed has them all.
///
/// # Errors
/// Whatever SQLite says.
pub fn refuses(database: &Connection, table: &Table, called: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM main.sqlite_schema WHERE type='trigger' AND name=?1 AND tbl_name=?2 COLLATE NOCASE";
    let mut statement = database.prepare_cached(sql)?;
    for (kind, _) in KINDS {
        if !statement.exists([&name(kind, table), called])? {
            return Ok(false);
        }
    }
    Ok(true)
}
