//! A table's UNIQUE indexes and foreign keys, and the columns that belong together.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::{
    OnDelete, Reference, Table, Unique,
    bases::Bases,
    read::{LeftOut, query},
    sql,
};

/// A UNIQUE index as SQLite describes it.
pub(super) struct Index {
    name: String,
    pub(super) primary: bool,
    partial: bool,
    /// Places of its columns among all of the table's; negative: an expression.
    pub(super) places: Vec<i64>,
    collations: Vec<String>,
}

/// The table's UNIQUE indexes, oldest first. A primary key that is the rowid has none.
pub(super) fn unique_indexes(database: &Connection, table: &str) -> rusqlite::Result<Vec<Index>> {
    let list =
        "SELECT name, origin = 'pk', partial FROM pragma_index_list(?1, 'main') WHERE \"unique\" ORDER BY seq DESC";
    let columns = "SELECT cid, coll FROM pragma_index_xinfo(?1, 'main') WHERE key ORDER BY seqno";
    let mut indexes = query(database, list, [table], |row| {
        let (places, collations) = (Vec::new(), Vec::new());
        Ok(Index { name: row.get(0)?, primary: row.get(1)?, partial: row.get(2)?, places, collations })
    })?;
    for index in &mut indexes {
        (index.places, index.collations) =
            query(database, columns, [&index.name], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?
                .into_iter()
                .unzip();
    }
    Ok(indexes)
}

impl Index {
    /// The columns behind its own, and behind all that its expressions name.
    pub(super) fn named(&self, database: &Connection, bases: &Bases) -> rusqlite::Result<BTreeSet<u16>> {
        let text = "SELECT sql FROM sqlite_schema WHERE type = 'index' AND name = ?1 AND sql NOT NULL";
        let text: Option<String> = query(database, text, [&self.name], |row| row.get(0))?.pop();
        let names = text.map_or_else(Vec::new, |text| sql::names(&text));
        let own = self.places.iter().flat_map(|place| bases.of(*place));
        Ok(own.chain(names.iter().flat_map(|name| bases.named(name))).collect())
    }

    pub(super) fn unique(self, bases: &Bases) -> Result<Unique, LeftOut> {
        let kind = if self.partial {
            "partial"
        } else if self.places.iter().any(|place| *place < 0) {
            "over an expression"
        } else {
            "over a generated column"
        };
        let plain =
            self.places.iter().zip(self.collations).map(|(place, collation)| Some((bases.plain(*place)?, collation)));
        match plain.collect() {
            Some(columns) if !self.partial => Ok(Unique { columns, primary: self.primary }),
            _ => Err(LeftOut::Unique { index: self.name, kind }),
        }
    }
}

/// Can two rows be the same to the primary key's index though their keys' bytes differ?
pub(super) fn can_collide(table: &Table, primary: &Unique) -> bool {
    primary.columns.iter().any(|(column, collation)| {
        table.columns[usize::from(*column)].mixes_numbers() || !collation.eq_ignore_ascii_case("BINARY")
    })
}

/// A foreign key as SQLite describes it.
pub(super) struct Foreign {
    parent: String,
    on_delete: OnDelete,
    /// The child's column, and the parent's unless it is left to be its primary key.
    columns: Vec<(String, Option<String>)>,
}

/// The table's foreign keys, in the order in which they are written.
pub(super) fn foreign_keys(database: &Connection, table: &str) -> rusqlite::Result<Vec<Foreign>> {
    let sql = "SELECT id, \"table\", on_delete, \"from\", \"to\" FROM pragma_foreign_key_list(?1, 'main') ORDER BY id DESC, seq";
    let mut last = None;
    let mut keys: Vec<Foreign> = Vec::new();
    query(database, sql, [table], |row| {
        let id: i64 = row.get(0)?;
        if last.replace(id) != Some(id) {
            let on_delete = match row.get::<_, String>(2)?.as_str() {
                "CASCADE" => OnDelete::Cascade,
                "SET NULL" => OnDelete::SetNull,
                "SET DEFAULT" => OnDelete::SetDefault,
                _ => OnDelete::Keep,
            };
            keys.push(Foreign { parent: row.get(1)?, on_delete, columns: Vec::new() });
        }
        let columns = (row.get(3)?, row.get(4)?);
        keys.last_mut().into_iter().for_each(|key| key.columns.push(columns.clone()));
        Ok(())
    })?;
    Ok(keys)
}

impl Foreign {
    /// The child's columns.
    pub(super) fn children(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(child, _)| child.as_str())
    }

    pub(super) fn reference(
        self,
        database: &Connection,
        table: &Table,
    ) -> rusqlite::Result<Result<Reference, LeftOut>> {
        let left_out = |why| LeftOut::Reference { parent: self.parent.clone(), why };
        let spelled = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE";
        let Some(parent) = query(database, spelled, [&self.parent], |row| row.get::<_, String>(0))?.pop() else {
            return Ok(Err(left_out("there is no such table")));
        };
        let Some(columns) = self.children().map(|child| table.column(child)).collect::<Option<Vec<_>>>() else {
            return Ok(Err(left_out("it is made of a generated column")));
        };
        let key = "SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE pk > 0 ORDER BY pk";
        let key = query(database, key, [&parent], |row| row.get::<_, String>(0))?;
        let named: Option<Vec<_>> = self.columns.iter().map(|(_, parent)| parent.clone()).collect();
        let parent_columns = named.unwrap_or(key);
        if parent_columns.len() != columns.len() {
            return Ok(Err(left_out("its primary key has another number of columns")));
        }
        Ok(Ok(Reference { columns, parent, parent_columns, on_delete: self.on_delete }))
    }
}

/// Unites sets that overlap. The key's columns, and what is then a set of one, are left out.
pub(super) fn disjoint(sets: Vec<BTreeSet<u16>>, key: &[u16]) -> Vec<Vec<u16>> {
    let mut united: Vec<BTreeSet<u16>> = Vec::new();
    for mut set in sets {
        set.retain(|column| !key.contains(column));
        united.retain(|other| {
            let apart = other.is_disjoint(&set);
            if !apart {
                set.extend(other);
            }
            apart
        });
        united.push(set);
    }
    united.retain(|set| set.len() > 1);
    united.sort();
    united.into_iter().map(Vec::from_iter).collect()
}

/// Unique NOT NULL columns whose default is neither constant nor the time.
pub(super) fn computed_defaults(table: &Table) -> impl Iterator<Item = LeftOut> {
    let unique = |at: usize| {
        table.uniques.iter().flat_map(|unique| &unique.columns).any(|(column, _)| usize::from(*column) == at)
    };
    let computed = table.columns.iter().enumerate().filter(move |(at, column)| {
        column.not_null && unique(*at) && column.default.is_some() && column.plain_default().is_none()
    });
    computed.map(|(_, column)| LeftOut::Default { column: column.name.clone() })
}
