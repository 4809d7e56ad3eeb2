//! Refuses an application's writes.

use rusqlite::Transaction;

use super::triggers::name;
use crate::schema::{Table, quoted};

/// With a `message`: every write to the table fails from now on with it, whatever the statement's conflict clause, also by a
/// cascade. With none, writes succeed again. The agent's own connection fires no
/// triggers and goes on applying.
///
/// # Errors
/// Whatever SQLite says.
pub fn refuse(transaction: &Transaction<'_>, table: &Table, message: Option<&str>) -> rusqlite::Result<()> {
    for (kind, event) in [("ri", "INSERT"), ("ru", "UPDATE"), ("rd", "DELETE")] {
        let trigger = quoted(&name(kind, table));
        transaction.execute_batch(&format!("DROP TRIGGER IF EXISTS {trigger}"))?;
        if let Some(message) = message {
            let message = message.replace('\'', "''");
            transaction.execute_batch(&format!(
                "CREATE TRIGGER {trigger} BEFORE {event} ON {} BEGIN SELECT RAISE(ABORT, '{message}'); END",
                quoted(&table.name)
            ))?;
        }
    }
    Ok(())
}
