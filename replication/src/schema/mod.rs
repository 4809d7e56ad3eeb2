//! What a replicated table looks like, as far as capture and merge need to know.

mod affinity;
mod bases;
mod constraints;
mod read;
mod sql;

use serde::{Deserialize, Serialize};

pub use affinity::Affinity;
pub use read::{Error, Found, LeftOut, has_columns, has_conflict_clauses, ignoring_triggers, names, read};

/// Columns with a bit of their own in a touch's mask; all later ones share the next bit.
pub const MASK_BITS: usize = 62;
/// A primary key has at most this many columns.
pub const MAX_KEY: usize = 8;
/// A table has at most this many columns: a fold reads some more, and SQLite allows 2000 by default.
pub const MAX_COLUMNS: usize = 1980;

/// A replicated table.
///
/// `number` stays while columns are only added, so that what was recorded before still means the same: columns are
/// counted from 0 in the order in which the table has them, generated ones left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// What touches and changes call it.
    pub number: u32,
    /// Its name, as the schema spells it.
    pub name: String,
    /// Its columns without the generated ones.
    pub columns: Vec<Column>,
    /// The primary key's columns, in the key's order.
    pub key: Vec<u16>,
    /// What must be unique besides whole key bytes; the primary key's index too if keys whose bytes differ can be the
    /// same to it (by a collation, or as 1 and 1.0). Partial indexes and those over expressions or generated columns are
    /// left out.
    pub uniques: Vec<Unique>,
    /// The columns that have a part in what is left out. There may be too many, never too few.
    pub otherwise_unique: Option<Vec<u16>>,
    /// Its foreign keys.
    pub references: Vec<Reference>,
    /// Sets of columns that only make sense together (one CHECK, one UNIQUE, one foreign key over several columns):
    /// disjoint, each of two columns or more, none of the key's. They are always stamped together, so that merged rows
    /// hold a combination that was valid somewhere.
    pub together: Vec<Vec<u16>>,
    /// Has no rowid.
    pub without_rowid: bool,
    /// Columns of which updates record what they were: counters. Not part of the schema, but of what is captured.
    pub counters: Vec<u16>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its declared type, as written.
    pub declared: String,
    /// Its default as an SQL expression.
    pub default: Option<String>,
    /// It is never NULL: by its declaration, or because it is the rowid.
    pub not_null: bool,
    /// A generated column that must not be NULL is made of it.
    pub needed: bool,
}

/// Columns that are unique together. Rows with a NULL among them collide with none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unique {
    /// The columns, each with its collation in this index.
    pub columns: Vec<(u16, String)>,
    /// It is the primary key's.
    pub primary: bool,
}

/// A foreign key of this table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// This table's columns.
    pub columns: Vec<u16>,
    /// The table referred to.
    pub parent: String,
    /// The columns referred to, one for each of `columns`.
    pub parent_columns: Vec<String>,
    /// What the schema wants when the parent is deleted.
    pub on_delete: OnDelete,
}

/// What becomes of a row whose parent is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnDelete {
    /// It must not happen: NO ACTION, RESTRICT, or nothing said.
    Keep,
    /// It is deleted too.
    Cascade,
    /// Its reference becomes NULL.
    SetNull,
    /// Its reference becomes the default.
    SetDefault,
}

impl Table {
    /// The column's place, by its name as SQL compares names.
    pub fn column(&self, name: &str) -> Option<u16> {
        let at = self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))?;
        u16::try_from(at).ok()
    }

    /// Is the column part of the primary key?
    pub fn in_key(&self, column: u16) -> bool {
        self.key.contains(&column)
    }

    /// The columns of this table to which another's foreign key refers, each with the collation by which the index of
    /// them compares it. `None`: there is no such column any more.
    pub fn referred_to(&self, reference: &Reference) -> Option<Vec<(u16, &str)>> {
        let columns: Vec<u16> = reference.parent_columns.iter().map(|name| self.column(name)).collect::<Option<_>>()?;
        let over = |unique: &&Unique| {
            unique.columns.len() == columns.len() && unique.columns.iter().all(|(column, _)| columns.contains(column))
        };
        let index = self.uniques.iter().find(over);
        let collation = |column: u16| {
            let found = index.and_then(|index| index.columns.iter().find(|(of, _)| *of == column));
            (column, found.map_or("BINARY", |(_, collation)| collation.as_str()))
        };
        Some(columns.into_iter().map(collation).collect())
    }

    /// Are these the whole primary key, and does its index take two of them for the same only if they are the same bytes?
    pub fn is_whole_key(&self, columns: &[(u16, &str)]) -> bool {
        columns.len() == self.key.len()
            && columns.iter().all(|(column, _)| self.in_key(*column))
            && !self.uniques.iter().any(|unique| unique.primary)
    }

    /// The collation, as an identifier, by which the primary key's index compares this column of it. The column's own may be
    /// another, to which rows with different keys are equal.
    pub fn key_collation(&self, column: u16) -> String {
        let index = self.uniques.iter().find(|unique| unique.primary);
        let found = index.and_then(|index| index.columns.iter().find(|(of, _)| *of == column));
        quoted(found.map_or("BINARY", |(_, collation)| collation))
    }

    /// The condition, as SQL, that the primary key's columns, each after `prefix`, equal these operands as the key's index
    /// compares them. An operand is asked for by its place in the key.
    pub fn key_equals(&self, prefix: &str, operand: impl Fn(usize) -> String) -> String {
        let equal = self.key.iter().enumerate().map(|(part, column)| {
            let name = quoted(&self.columns[usize::from(*column)].name);
            format!("{prefix}{name} = {} COLLATE {}", operand(part), self.key_collation(*column))
        });
        equal.collect::<Vec<_>>().join(" AND ")
    }
}

/// An identifier, quoted for SQL.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
