//! What the data tier is asked, and what it does with the database then.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, params};

/// How long a write waits for others.
const BUSY: Duration = Duration::from_secs(4);

/// A request. Words are separated by spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// `orders`: the newest, each with its key, the site where it was made, and its articles and quantities.
    Orders,
    /// `accounts`: the newest, each with its key, owner and balance.
    Accounts,
    /// `order ARTICLE QUANTITY`: makes one.
    Order { article: String, quantity: u32 },
    /// `change KEY QUANTITY`: of the first article of an order.
    Change { key: String, quantity: u32 },
    /// `cancel KEY`: deletes an order.
    Cancel { key: String },
}

impl Request {
    /// Reads a line.
    pub(super) fn read(line: &str) -> Result<Self> {
        let quantity = |text: &str| text.parse().with_context(|| format!("a quantity is a whole number, not {text:?}"));
        Ok(match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["orders"] => Self::Orders,
            ["accounts"] => Self::Accounts,
            ["order", article, number] => Self::Order { article: article.into(), quantity: quantity(number)? },
            ["change", key, number] => Self::Change { key: key.into(), quantity: quantity(number)? },
            ["cancel", key] => Self::Cancel { key: key.into() },
            _ => bail!(
                "requests are orders, accounts, order ARTICLE QUANTITY, change KEY QUANTITY and cancel KEY, not {line:?}"
            ),
        })
    }

    /// Does it change anything?
    pub(super) fn writes(&self) -> bool {
        !matches!(self, Self::Orders | Self::Accounts)
    }

    /// Does it, as `site`; gives the rows read, or the key of the order written, which is committed then.
    pub(super) fn execute(&self, file: &Path, site: &str) -> Result<Vec<String>> {
        let access = if self.writes() { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
        let opened = Connection::open_with_flags(file, access | OpenFlags::SQLITE_OPEN_NO_MUTEX);
        let mut database = opened.with_context(|| format!("{} cannot be opened", file.display()))?;
        database.busy_timeout(BUSY)?;
        match self {
            Self::Orders => rows(&database, NEWEST_ORDERS),
            Self::Accounts => rows(&database, NEWEST_ACCOUNTS),
            _ => Ok(vec![self.write(&mut database, site)?]),
        }
    }

    fn write(&self, database: &mut Connection, site: &str) -> Result<String> {
        database.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON")?;
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let key = match self {
            Self::Order { article, quantity } => {
                let key = free_key(&transaction)?;
                transaction.execute("INSERT INTO orders (id, site) VALUES (?1, ?2)", params![key, site])?;
                let item = "INSERT INTO order_items (order_id, line, article, quantity) VALUES (?1, 1, ?2, ?3)";
                transaction.execute(item, params![key, article, quantity]).map_err(|error| explain(error, article))?;
                key
            }
            Self::Change { key, quantity } => {
                let change = "UPDATE order_items SET quantity = ?2 WHERE order_id = ?1 AND line = 1";
                ensure!(transaction.execute(change, params![key, quantity])? == 1, "there is no order {key}");
                key.clone()
            }
            Self::Cancel { key } => {
                ensure!(
                    transaction.execute("DELETE FROM orders WHERE id = ?1", [key])? == 1,
                    "there is no order {key}"
                );
                key.clone()
            }
            Self::Orders | Self::Accounts => bail!("{self:?} writes nothing"),
        };
        transaction.commit()?;
        Ok(key)
    }
}

const NEWEST_ORDERS: &str = "SELECT id || ' ' || site ||
    (SELECT ifnull(group_concat(' ' || article || ' ' || quantity, ''), '') FROM order_items WHERE order_id = orders.id)
  FROM orders ORDER BY id DESC LIMIT 5";
const NEWEST_ACCOUNTS: &str = "SELECT id || ' ' || owner || ' ' || balance FROM accounts ORDER BY id DESC LIMIT 5";

fn rows(database: &Connection, query: &str) -> Result<Vec<String>> {
    let mut statement = database.prepare(query)?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A key that no row has, here or elsewhere.
fn free_key(database: &Connection) -> Result<String> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let random: String = database.query_row("SELECT lower(hex(randomblob(10)))", [], |row| row.get(0))?;
    Ok(format!("{:012x}{random}", since.as_millis()))
}

/// In the words of somebody who orders.
fn explain(error: rusqlite::Error, article: &str) -> anyhow::Error {
    match error.sqlite_error() {
        Some(found) if found.code == ErrorCode::ConstraintViolation => {
            let unknown = found.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY;
            let what = if unknown { "there is no article" } else { "nobody orders none of" };
            anyhow::anyhow!("{what} {article}").context(error)
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_or_refused_with_what_would_be_right() -> Result<()> {
        let order = Request::Order { article: "cups".into(), quantity: 6 };
        assert_eq!(Request::read("order cups 6\n")?, order);
        assert!(order.writes() && !Request::read("orders")?.writes());
        for wrong in ["", "order", "order cups", "order cups six", "orders now", "drop orders"] {
            assert!(Request::read(wrong).is_err(), "{wrong:?}");
        }
        assert!(Request::read("?").is_err_and(|error| error.to_string().contains("order ARTICLE QUANTITY")));
        Ok(())
    }
}
