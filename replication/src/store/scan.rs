//! Reading tables in order, to compare them with a peer's.

use std::{collections::HashSet, rc::Rc};

use rusqlite::{Connection, Row as SqlRow, params, params_from_iter};

use crate::{
    capture,
    clock::{Seen, SiteId, Stamp, Version},
    schema::quoted,
    value::{Key, Value, encode},
    verify::{FAN_OUT, Hash, KEYS, Piece, Range, Sum, Told, hash},
    wire::Shape,
};

use super::{Error, Peer, State, Tables, damaged, live::Live, rows};

/// A table, and its columns in the order in which both sites read them.
pub(super) struct Compared {
    pub(super) live: Rc<Live>,
    columns: Vec<u16>,
    /// Where the key's columns are among `columns`.
    key: Vec<usize>,
}

impl Compared {
    /// Finds here what a peer calls so.
    pub(super) fn find(tables: &Tables, shape: &Shape) -> Result<Self, Error> {
        let live = tables.values().rev().find(|live| live.table.name.eq_ignore_ascii_case(&shape.name)).cloned();
        let live = live.ok_or_else(|| Error::Unknown(format!("table {}", shape.name)))?;
        let unknown = |name: &str| Error::Unknown(format!("column {}.{name}", shape.name));
        let columns = shape.columns.iter().map(|name| live.table.column(name).ok_or_else(|| unknown(name)));
        let columns = columns.collect::<Result<Vec<u16>, _>>()?;
        let key = live.table.key.iter().map(|key| {
            let at = columns.iter().position(|column| column == key);
            at.ok_or_else(|| unknown(&live.table.columns[usize::from(*key)].name))
        });
        Ok(Self { key: key.collect::<Result<_, _>>()?, columns, live })
    }

    fn sql(&self, range: &Range) -> String {
        let name = |column: &u16| quoted(&self.live.table.columns[usize::from(*column)].name);
        let list = |columns: &[u16]| columns.iter().map(name).collect::<Vec<_>>().join(",");
        let key = list(&self.live.table.key);
        let collated =
            |what: String, column: &u16| format!("{what} COLLATE {}", self.live.table.key_collation(*column));
        let of_key = |what: &dyn Fn(&u16) -> String| {
            self.live.table.key.iter().map(|column| collated(what(column), column)).collect::<Vec<_>>().join(",")
        };
        let (marks, order) = (of_key(&|_| "?".to_owned()), of_key(&name));
        let mut terms = Vec::new();
        if range.after.is_some() {
            terms.push(format!("({key}) > ({marks})"));
        }
        if range.to.is_some() {
            terms.push(format!("({key}) <= ({marks})"));
        }
        // What no key names is not replicated.
        if capture::nullable_key(&self.live.table) {
            terms.extend(self.live.table.key.iter().map(|column| format!("{} NOT NULL", name(column))));
        }
        let terms = if terms.is_empty() { String::new() } else { format!(" WHERE {}", terms.join(" AND ")) };
        format!("SELECT {} FROM {}{terms} ORDER BY {order}", list(&self.columns), quoted(&self.live.table.name))
    }

    /// Visits the range's rows in order, for as long as `each` says.
    fn scan(
        &self,
        database: &Connection,
        range: &Range,
        mut each: impl FnMut(&SqlRow<'_>, Hash) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let mut bounds = Vec::new();
        for key in range.after.iter().chain(&range.to) {
            bounds.extend(self.key_columns(key)?);
        }
        let mut statement = database.prepare_cached(&self.sql(range))?;
        let mut rows = statement.query(params_from_iter(bounds))?;
        let mut bytes = Vec::with_capacity(256);
        while let Some(row) = rows.next()? {
            bytes.clear();
            for at in 0..self.columns.len() {
                encode(row.get_ref(at)?, &mut bytes);
            }
            if !each(row, hash(&bytes))? {
                break;
            }
        }
        Ok(())
    }

    fn key(&self, row: &SqlRow<'_>) -> Result<Key, Error> {
        let mut bytes = Vec::with_capacity(16);
        for at in &self.key {
            encode(row.get_ref(*at)?, &mut bytes);
        }
        Ok(Key(bytes))
    }

    pub(super) fn key_columns(&self, key: &Key) -> Result<Vec<Value>, Error> {
        let columns = key.columns().filter(|columns| columns.len() == self.key.len());
        columns.ok_or(Error::Malformed("a key that is none"))
    }

    /// What the range's rows come to.
    pub(super) fn sum(&self, database: &Connection, range: &Range) -> Result<Sum, Error> {
        let mut sum = Sum::default();
        self.scan(database, range, |_, hash| {
            sum.add(hash);
            Ok(true)
        })?;
        Ok(sum)
    }

    /// The same in pieces of so many rows, and whether there are more rows than these.
    pub(super) fn pieces(&self, database: &Connection, range: &Range, rows: u64) -> Result<(Vec<Piece>, bool), Error> {
        let rows = rows.max(1);
        let (mut pieces, mut sum, mut to) = (Vec::new(), Sum::default(), None);
        let mut more = false;
        self.scan(database, range, |row, hash| {
            if sum.rows == rows {
                pieces.push(Piece { to: to.take(), sum: std::mem::take(&mut sum) });
                more = pieces.len() as u64 == FAN_OUT;
            }
            sum.add(hash);
            if sum.rows == rows {
                to = Some(self.key(row)?);
            }
            Ok(!more)
        })?;
        if !more {
            pieces.push(Piece { to: range.to.clone(), sum });
        }
        Ok((pieces, more))
    }

    /// The range's rows, at most so many, and whether there are more.
    pub(super) fn rows(
        &self,
        database: &Connection,
        range: &Range,
        limit: usize,
    ) -> Result<(Vec<(Key, Hash)>, bool), Error> {
        let (mut rows, mut more) = (Vec::new(), false);
        self.scan(database, range, |row, hash| {
            more = rows.len() == limit;
            if !more {
                rows.push((self.key(row)?, hash));
            }
            Ok(!more)
        })?;
        Ok((rows, more))
    }

    /// The hash of the row with this key, if it is there.
    pub(super) fn hash_of(&self, row: Option<&[Value]>) -> Option<Hash> {
        row.map(|row| {
            let mut bytes = Vec::with_capacity(256);
            self.columns.iter().for_each(|column| row[usize::from(*column)].encode(&mut bytes));
            hash(&bytes)
        })
    }

    /// How these rows are, for another site.
    pub(super) fn told(&self, database: &Connection, keys: &[Key], other: &Other<'_>) -> Result<Vec<Told>, Error> {
        if keys.len() > KEYS {
            return Err(Error::Malformed("too many keys"));
        }
        let touched = touched(database, &self.live)?;
        let waiting = self.waiting(database, keys, other.acknowledged)?;
        let tell = |key: &Key| {
            let now = self.live.read(database, &self.key_columns(key)?)?;
            let (row, _) = rows::load(database, &self.live, key, now.as_deref())?;
            let version = row.all_versions().filter(|version| version.is_change()).max().unwrap_or(Version::NONE);
            let changes = row.versions.iter().filter(|version| version.is_change()).count();
            // SQLite allows 32767 columns at most.
            let changes = u16::try_from(changes).unwrap_or(u16::MAX);
            let comes = |version: Version| version.site != other.own && !other.past.knew(other.site, version);
            let moving = touched.contains(key) || waiting.contains(key) || row.all_versions().any(comes);
            let partial = row.lives() && !row.visible();
            Ok(Told { hash: self.hash_of(now.as_deref()), version, changes, moving, partial })
        };
        keys.iter().map(tell).collect()
    }

    /// Which of these rows have changes of this site in groups above this one.
    fn waiting(&self, database: &Connection, keys: &[Key], acknowledged: u64) -> Result<HashSet<Key>, Error> {
        let asked: HashSet<&Key> = keys.iter().collect();
        let mut statement = database.prepare_cached("SELECT key FROM _ssw_change WHERE grp > ? AND tbl = ?")?;
        let changes = statement.query_map(params![acknowledged, self.live.table.number], |row| Ok(Key(row.get(0)?)))?;
        let mut waiting = HashSet::new();
        for key in changes {
            let key = key?;
            if asked.contains(&key) {
                waiting.insert(key);
            }
        }
        Ok(waiting)
    }
}

/// The other of two sites that are compared.
pub(super) struct Other<'a> {
    /// The one that is asked here.
    pub(super) own: SiteId,
    /// The other.
    pub(super) site: SiteId,
    /// It has applied the groups of the one asked up to this one.
    pub(super) acknowledged: u64,
    /// Changes up to these do not come to it any more.
    pub(super) past: &'a Seen,
}

/// Changes up to these do not come here any more: they are applied, or their site has forgotten some before.
pub(super) fn past_of(state: &State) -> Seen {
    let mut past = state.seen.clone();
    state.missed.keys().for_each(|site| past.pass(*site, Stamp::MAX));
    past
}

/// Rows with touches that are not folded yet.
pub(super) fn touched(database: &Connection, live: &Live) -> Result<HashSet<Key>, Error> {
    let columns = live.table.key.len();
    let list: Vec<String> = (0..columns).map(|column| format!("k{column}")).collect();
    let sql = format!("SELECT {} FROM _ssw_touch WHERE tbl=? AND seq > ?", list.join(","));
    let mut statement = database.prepare_cached(&sql)?;
    let mut touches = statement.query(params![live.table.number, State::load(database)?.folded])?;
    let mut keys = HashSet::new();
    while let Some(touch) = touches.next()? {
        let mut bytes = Vec::with_capacity(16);
        for column in 0..columns {
            encode(touch.get_ref(column)?, &mut bytes);
        }
        keys.insert(Key(bytes));
    }
    Ok(keys)
}

impl super::Store {
    /// The replicated tables and their columns.
    pub(super) fn shapes(&self) -> Vec<Shape> {
        let shape = |live: &Rc<Live>| Shape {
            name: live.table.name.clone(),
            columns: live.table.columns.iter().map(|column| column.name.clone()).collect(),
        };
        self.tables.values().map(shape).collect()
    }

    /// Reads at one moment.
    pub(super) fn at_one_moment<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        let moment = self.database.unchecked_transaction()?;
        let result = read(&moment)?;
        moment.commit()?;
        Ok(result)
    }

    /// A peer that must be configured.
    pub(super) fn peer(&self, site: SiteId) -> Result<Peer, Error> {
        self.peers()?.remove(&site).ok_or_else(|| damaged("a peer", "_ssw_peer"))
    }
}
