//! What a writer remembers of its transactions, and what a database holds.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use rusqlite::{Connection, OpenFlags, types::Value};

/// A table of the shop: the columns of its key come first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// As SQL has it.
    pub(super) name: &'static str,
    pub(super) key: usize,
    /// All columns, as SQL has them.
    pub(super) columns: &'static [&'static str],
}

pub(super) const ACCOUNTS: Table =
    Table { name: "accounts", key: 1, columns: &["id", "owner", "email", "balance", "photo"] };
pub(super) const ARTICLES: Table = Table { name: "articles", key: 1, columns: &["id", "title", "price", "stock"] };
pub(super) const ORDERS: Table = Table { name: "orders", key: 1, columns: &["id", "site", "account", "note"] };
pub(super) const ITEMS: Table =
    Table { name: "order_items", key: 2, columns: &["order_id", "line", "article", "quantity"] };
pub(super) const CARDS: Table = Table {
    name: r#""gift ""cards""""#,
    key: 2,
    columns: &["series", "\"card no.\"", "\"worth (€)\"", "\"from\"", "message"],
};
pub(super) const TABLES: [&Table; 5] = [&ACCOUNTS, &ARTICLES, &ORDERS, &ITEMS, &CARDS];

/// What one statement did to one row.
#[derive(Clone, Debug)]
pub(super) struct Effect {
    pub(super) table: &'static Table,
    pub(super) key: Vec<Value>,
    pub(super) what: What,
    /// The writer's clock before the statement and after it, in milliseconds since 1970.
    pub(super) from: i64,
    pub(super) until: i64,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// The row is there with these values, its key's among them.
    Insert(Vec<Value>),
    /// A column has this value now, and had another.
    Set(usize, Value),
    Delete,
}

/// What a writer has committed, in order.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// How many transactions.
    pub transactions: usize,
    pub(super) effects: Vec<Effect>,
}

/// The rows of the shop's tables, by table and key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents(pub(super) BTreeMap<&'static str, BTreeMap<String, Vec<Value>>>);

/// A key that sorts and shows every bit.
pub(super) fn shown(key: &[Value]) -> String {
    format!("{key:?}")
}

/// What a database holds now.
///
/// # Errors
/// It cannot be read.
pub fn contents(file: &Path) -> Result<Contents> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut database = Connection::open_with_flags(file, flags).with_context(|| file.display().to_string())?;
    let transaction = database.transaction()?;
    let mut contents = Contents::default();
    for table in TABLES {
        let mut statement = transaction.prepare(&format!("SELECT {} FROM {}", table.columns.join(", "), table.name))?;
        let mut found = statement.query([])?;
        let rows = contents.0.entry(table.name).or_default();
        while let Some(row) = found.next()? {
            let values = (0..table.columns.len()).map(|at| row.get(at)).collect::<Result<Vec<Value>, _>>()?;
            rows.insert(shown(&values[..table.key]), values);
        }
    }
    Ok(contents)
}

impl Contents {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// The first rows that are not the same in the other, for people.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let nothing = BTreeMap::new();
        let mut all = Vec::new();
        for table in TABLES {
            let [one, two] = [self, other].map(|contents| contents.0.get(table.name).unwrap_or(&nothing));
            for key in one.keys().chain(two.keys().filter(|key| !one.contains_key(*key))) {
                if one.get(key) != two.get(key) {
                    all.push(format!("{} {key}: {:?} and {:?}", table.name, one.get(key), two.get(key)));
                }
            }
        }
        all.truncate(10);
        all
    }
}
