//! The conflict log: what lost, so that people can read it and bring it back.

use std::rc::Rc;

use rusqlite::{Connection, params};
use serde::Serialize;

use crate::{
    change::{Add, Cell, Change, Deleted, append},
    clock::{Stamp, Version, millis},
    merge::{Conflict, Kind, Row},
    schema::Table,
    value::{Key, Value, plain},
    wire::Notice,
};

use super::{Error, Store, damaged, live::Live, repair, work::Work};

/// A conflict, as it was logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Logged {
    /// Its number, the same at every site.
    pub id: i64,
    /// When it was found, in milliseconds since 1970 by the finder's stamps.
    pub ms: i64,
    /// The table.
    pub table: String,
    /// The row's key.
    #[serde(serialize_with = "plain::list")]
    pub key: Vec<Value>,
    /// What met what: what won, then what lost.
    pub kind: String,
    /// The site whose change stays.
    pub won_site: String,
    /// When that was made, in milliseconds since 1970.
    pub won_ms: i64,
    /// The site whose change was dropped.
    pub lost_site: String,
    /// When that was made, in milliseconds since 1970.
    pub lost_ms: i64,
    /// What it had set; nothing, if it was a deletion.
    #[serde(serialize_with = "plain::columns")]
    pub image: Vec<(String, Value)>,
    /// `dropped`, or `restored` if somebody has brought it back from here.
    pub state: String,
}

/// Logs a conflict and has every site log it, once.
pub(super) fn log(work: &mut Work<'_>, live: &Live, key: &Key, conflict: &Conflict) -> Result<(), Error> {
    let site = |version: Version| (work.settings.sites.get(&version.site).cloned().unwrap_or_default(), version.stamp);
    let name = |column: u16| live.table.columns.get(usize::from(column)).map_or("", |column| &column.name);
    let image = conflict.image.iter().map(|(column, value)| (name(*column).to_owned(), value.clone()));
    let mut notice = Notice {
        id: 0,
        ms: millis(work.state.clock.0),
        table: live.table.name.clone(),
        key: key.clone(),
        kind: conflict.kind.name().to_owned(),
        won: site(conflict.won),
        lost: site(conflict.lost),
        image: image.collect(),
        restored: false,
    };
    notice.id = id(&notice);
    if take(work.transaction, &notice)? { work.tell(&notice) } else { Ok(()) }
}

/// Logs what another site may have found. Says whether that is new.
pub(super) fn take(database: &Connection, notice: &Notice) -> Result<bool, Error> {
    let columns: Vec<&str> = notice.image.iter().map(|(column, _)| column.as_str()).collect();
    let columns = serde_json::to_string(&columns).map_err(|_| damaged("columns", "_ssw_conflict"))?;
    let image = postcard::to_stdvec(&notice.image).map_err(|_| damaged("an image", "_ssw_conflict"))?;
    let changed = database
        .prepare_cached(
            "INSERT INTO _ssw_conflict(id, ms, tbl, key, kind, columns, won_site, won_stamp, lost_site, lost_stamp, \
             image, state) VALUES(?,?,?,?,?,?,?,?,?,?,?,?) \
             ON CONFLICT(id) DO UPDATE SET state=excluded.state WHERE excluded.state='restored' AND state='dropped'",
        )?
        .execute(params![
            notice.id,
            notice.ms,
            notice.table,
            notice.key.0,
            notice.kind,
            columns,
            notice.won.0,
            notice.won.1,
            notice.lost.0,
            notice.lost.1,
            image,
            if notice.restored { "restored" } else { "dropped" },
        ])?;
    Ok(changed > 0)
}

/// A conflict's number: FNV-1a, 64 bits, of what every site knows of it; positive, so that people can type it. What it lost
/// against is not in it: that may be one change here and a later one there.
fn id(notice: &Notice) -> i64 {
    let Notice { table, kind, lost, image, key, .. } = notice;
    let mut columns: Vec<_> = image.iter().map(|(column, value)| (column.to_lowercase(), value)).collect();
    columns.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let mut bytes = Vec::with_capacity(128);
    append(&(table.to_lowercase(), kind, lost, columns, key), &mut bytes);
    let hash = bytes
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash >> 16).cast_signed()
}

const COLUMNS: &str = "id, ms, tbl, key, kind, won_site, won_stamp, lost_site, lost_stamp, image, state";

impl Store {
    /// The newest conflicts, at most so many, the newest first.
    ///
    /// # Errors
    /// `Damaged`, `Sqlite`.
    pub fn conflicts(&self, limit: u32) -> Result<Vec<Logged>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM _ssw_conflict ORDER BY ms DESC, id LIMIT ?");
        let mut statement = self.database.prepare_cached(&sql)?;
        let mut rows = statement.query([limit])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(logged(notice(row)?)?);
        }
        Ok(all)
    }

    /// One conflict by its number.
    ///
    /// # Errors
    /// `Damaged`, `Sqlite`.
    pub fn conflict(&self, id: i64) -> Result<Option<Logged>, Error> {
        self.notice(id)?.map(logged).transpose()
    }

    fn notice(&self, id: i64) -> Result<Option<Notice>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM _ssw_conflict WHERE id=?");
        let mut statement = self.database.prepare_cached(&sql)?;
        let mut rows = statement.query([id])?;
        rows.next()?.map(notice).transpose()
    }

    /// Forgets the conflicts that were found before this, in milliseconds since 1970, at this site alone. Returns how many.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn purge_conflicts(&mut self, before: i64) -> Result<u64, Error> {
        Ok(self.database.execute("DELETE FROM _ssw_conflict WHERE ms < ?", [before])? as u64)
    }

    /// Brings back what lost, as a change made now. Says no if there is no such conflict.
    ///
    /// # Errors
    /// `Unknown`: its table or column is not there any more. `Taken`, `Dangling`, `Referred`: other rows are in the way.
    /// `Restored`, `NoInteger`: it cannot be added to a counter. `Damaged`, `Sqlite`, a constraint that forbids it among that.
    pub fn restore(&mut self, id: i64, now: i64) -> Result<bool, Error> {
        let Some(notice) = self.notice(id)? else { return Ok(false) };
        if notice.restored && notice.kind == Kind::CounterReset.name() {
            return Err(Error::Restored(id));
        }
        let conflict = logged(notice.clone())?;
        self.transact(|work| {
            // What was written until now came before.
            super::fold::fold(work, now)?;
            let live = restore(work, &conflict, now).map_err(taken)?;
            repair::mend(work, &live, &Key::new(&conflict.key), now)?;
            if conflict.image.is_empty() && live.read(work.transaction, &conflict.key)?.is_some() {
                return Err(Error::Referred(conflict.table));
            }
            let notice = Notice { restored: true, ..notice };
            take(work.transaction, &notice)?;
            work.tell(&notice)?;
            Ok(true)
        })
    }
}

/// Says it so that one knows what to do.
fn taken(error: Error) -> Error {
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_ROWID, SQLITE_CONSTRAINT_UNIQUE};
    const UNIQUE: [i32; 3] = [SQLITE_CONSTRAINT_UNIQUE, SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_ROWID];
    match error {
        Error::Sqlite(error) if error.sqlite_error().is_some_and(|found| UNIQUE.contains(&found.extended_code)) => {
            Error::Taken(error)
        }
        other => other,
    }
}

fn restore(work: &mut Work<'_>, conflict: &Logged, now: i64) -> Result<Rc<Live>, Error> {
    let live = work.tables.values().rev().find(|live| live.table.name.eq_ignore_ascii_case(&conflict.table)).cloned();
    let live = live.ok_or_else(|| Error::Unknown(format!("table {}", conflict.table)))?;
    let key = Key::new(&conflict.key);
    let there = live.read(work.transaction, &conflict.key)?;
    let (mut row, _) = work.rows.load(&live, &key, there.clone())?;
    let stamp = work.state.clock.tick(now);
    if conflict.image.is_empty() {
        let ends = Version::new(stamp, work.settings.site);
        let change = Change { deleted: Some(Deleted { stamp, ends }), ..Change::default() };
        work.record(&live, &key, &mut row, change)?;
        // The key's index may take another row for it.
        if there.is_some() {
            live.delete(work.transaction, &conflict.key)?;
        }
        return Ok(live);
    }
    let column = |name: &String| {
        live.table.column(name).ok_or_else(|| Error::Unknown(format!("column {}.{name}", conflict.table)))
    };
    if conflict.kind == Kind::CounterReset.name() {
        let there = there.as_ref().ok_or_else(|| Error::Unknown(format!("the row of {}", conflict.table)))?;
        let image = conflict.image.iter().map(|(name, value)| Ok((column(name)?, value.clone())));
        let image: Vec<_> = image.collect::<Result<_, Error>>()?;
        add_again(work, &live, &mut row, (&conflict.key, there), stamp, image)?;
        return Ok(live);
    }
    let mut cells = Vec::new();
    for (name, value) in &conflict.image {
        let column = column(name)?;
        row.values[usize::from(column)] = Some(value.clone());
        if !live.table.in_key(column) {
            cells.push(Cell { column, stamp, value: value.clone() });
        }
    }
    cells.sort_by_key(|cell| cell.column);
    let whole = there.is_none();
    if whole {
        // The row is back as a whole, with what was not in conflict as it was last.
        cells = (0..)
            .zip(&row.values)
            .filter(|(column, _)| !live.table.in_key(*column))
            .map(|(column, value)| Cell { column, stamp, value: value.clone().unwrap_or(Value::Null) })
            .collect();
    }
    let change = Change { alive: Some(stamp), whole, cells, ..Change::default() };
    work.record(&live, &key, &mut row, change.clone())?;
    if whole {
        live.insert(work.transaction, row.values.iter().map(|value| value.as_ref().unwrap_or(&Value::Null)))?;
    } else {
        let cells: Vec<(u16, &Value)> = change.cells.iter().map(|cell| (cell.column, &cell.value)).collect();
        live.update(work.transaction, &conflict.key, &cells)?;
    }
    Ok(live)
}

/// What was added to counters, and lost, is added again.
fn add_again(
    work: &mut Work<'_>,
    live: &Live,
    row: &mut Row,
    (key, there): (&[Value], &[Value]),
    stamp: Stamp,
    image: Vec<(u16, Value)>,
) -> Result<(), Error> {
    let mut adds = Vec::new();
    for (column, value) in image {
        let (Value::Integer(was), Value::Integer(delta)) = (&there[usize::from(column)], value) else {
            let Table { name, columns, .. } = &live.table;
            return Err(Error::NoInteger { table: name.clone(), column: columns[usize::from(column)].name.clone() });
        };
        let value = Value::Integer(was.wrapping_add(delta));
        live.update(work.transaction, key, &[(column, &value)])?;
        row.values[usize::from(column)] = Some(value);
        adds.push(Add { column, stamp, since: stamp, delta });
    }
    adds.sort_unstable_by_key(|add| add.column);
    let change = Change { alive: Some(stamp), adds, ..Change::default() };
    work.record(live, &Key::new(key), row, change)
}

fn notice(row: &rusqlite::Row<'_>) -> Result<Notice, Error> {
    let image: Vec<u8> = row.get(9)?;
    Ok(Notice {
        id: row.get(0)?,
        ms: row.get(1)?,
        table: row.get(2)?,
        key: Key(row.get(3)?),
        kind: row.get(4)?,
        won: (row.get(5)?, row.get(6)?),
        lost: (row.get(7)?, row.get(8)?),
        image: postcard::from_bytes(&image).map_err(|_| damaged("an image", "_ssw_conflict"))?,
        restored: row.get_ref(10)?.as_str().is_ok_and(|state| state == "restored"),
    })
}

fn logged(notice: Notice) -> Result<Logged, Error> {
    Ok(Logged {
        id: notice.id,
        ms: notice.ms,
        table: notice.table,
        key: notice.key.columns().ok_or_else(|| damaged("a key", "_ssw_conflict"))?,
        kind: notice.kind,
        won_site: notice.won.0,
        won_ms: millis(notice.won.1),
        lost_site: notice.lost.0,
        lost_ms: millis(notice.lost.1),
        image: notice.image,
        state: if notice.restored { "restored" } else { "dropped" }.to_owned(),
    })
}
