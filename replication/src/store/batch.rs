//! Batches: what a peer has not applied yet, consolidated and in parts that fit a message.

use rusqlite::{Row as SqlRow, params, types::ValueRef};

use crate::{
    capture,
    change::Change,
    clock::{Sight, SiteId, Stamp},
    layout::NOTICES,
    schema::Table,
    value::Key,
    wire::{Notice, Part, Rows, Shape},
};

use super::{Error, State, Store, damaged, fence};

/// A batch of several groups has at most this many rows; and so has a part.
pub const ROWS: u64 = 20_000;
/// And at most this many bytes before compression, if its rows are not larger than that.
pub const BYTES: u64 = 4 << 20;

/// How far a peer has been told: everything up to a group, and perhaps some of the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The last group told in full.
    pub group: u64,
    /// Parts told of the group after it, and the last row in them.
    within: Option<(u32, u32, Key)>,
}

impl Position {
    /// After this group.
    pub fn after(group: u64) -> Self {
        Self { group, within: None }
    }
}

/// Groups that go together.
struct Span {
    hi: u64,
    clock: Stamp,
    rows: u64,
    bytes: u64,
    groups: usize,
    sight: Sight,
}

impl Span {
    /// In one message?
    fn fits(&self) -> bool {
        self.rows <= ROWS && self.bytes <= BYTES
    }
}

impl Store {
    /// What `peer` is to be told after `position`, and the position after that. `None`: it has everything, or was not heard
    /// since this database was restored: what it had applied before that must be known first.
    ///
    /// # Errors
    /// `Gone`, `File`, `Damaged`, `Sqlite`.
    pub fn next_part(&self, peer: SiteId, position: &Position) -> Result<Option<(Part, Position)>, Error> {
        if State::load(&self.database)?.restored.is_some_and(|restored| restored.peers.get(&peer) == Some(&None)) {
            return Ok(None);
        }
        let mut next = self.part_after(position)?;
        if let Some((part, _)) = &mut next {
            part.schema = fence::count(&self.database)?;
            self.note(part.hi, part.clock)?;
            let mut told = self.told.borrow_mut();
            let told = told.entry(peer).or_default();
            *told = part.hi.max(*told);
        }
        Ok(next)
    }

    fn part_after(&self, position: &Position) -> Result<Option<(Part, Position)>, Error> {
        let Some(span) = self.span(position)? else { return Ok(None) };
        if span.fits() && span.groups > 1 {
            let rows = self.consolidated(position.group, span.hi)?;
            let part = self.part(position.group, &span, 0, true, rows);
            return Ok(Some((part, Position::after(span.hi))));
        }
        let (number, rows) = self.stretch(position, &span)?;
        let last = rows.last.is_none();
        let after = match rows.last.clone() {
            Some((table, key)) => Position { group: position.group, within: Some((number + 1, table, key)) },
            None => Position::after(span.hi),
        };
        Ok(Some((self.part(position.group, &span, number, last, rows.rows), after)))
    }

    /// As many groups as fit, one at least.
    fn span(&self, position: &Position) -> Result<Option<Span>, Error> {
        let mut statement = self.database.prepare_cached(
            "SELECT grp, last, clock, seen, rows, bytes FROM _ssw_group \
             WHERE grp >= (SELECT ifnull(max(grp), 0) FROM _ssw_group WHERE grp <= ?1 + 1) AND last > ?1 ORDER BY grp",
        )?;
        let mut groups = statement.query([position.group])?;
        let mut span: Option<Span> = None;
        while let Some(group) = groups.next()? {
            let (first, last): (u64, u64) = (group.get(0)?, group.get(1)?);
            let (clock, sight) = (group.get(2)?, sight(group.get_ref(3)?)?);
            let (rows, bytes): (u64, u64) = (group.get(4)?, group.get(5)?);
            match &mut span {
                None if first > position.group + 1 => {
                    return Err(Error::Gone { wanted: position.group + 1, oldest: first });
                }
                // A peer may have some of the groups in place of which there is an empty one; but one that was set back, or
                // has begun anew with a copy, cannot have a part of those that were consolidated.
                None if first <= position.group && rows > 0 => {
                    return Err(Error::Gone { wanted: position.group + 1, oldest: last + 1 });
                }
                None => span = Some(Span { hi: last, clock, rows, bytes, groups: 1, sight }),
                Some(span) if span.rows + rows <= ROWS && span.bytes + bytes <= BYTES => {
                    (span.hi, span.clock) = (last, clock);
                    span.rows += rows;
                    span.bytes += bytes;
                    span.groups += 1;
                    span.sight.append(sight);
                }
                Some(_) => break,
            }
        }
        Ok(span)
    }

    /// The changes in groups above `lo` and up to `hi`, with those to one row combined. A row's only change goes as it is
    /// kept.
    fn consolidated(&self, lo: u64, hi: u64) -> Result<Rows, Error> {
        let mut statement = self.database.prepare_cached(
            "SELECT tbl, key, body FROM _ssw_change WHERE grp > ? AND grp <= ? ORDER BY tbl, key, grp",
        )?;
        let mut changes = statement.query(params![lo, hi])?;
        let mut rows = Rows::default();
        let mut open = Open::default();
        while let Some(row) = changes.next()? {
            let table: u32 = row.get(0)?;
            let (key, body) = (bytes(row, 1)?, bytes(row, 2)?);
            if table == NOTICES {
                rows.notice(notice(body)?, body.len());
                continue;
            }
            if open.is_of(table, key) {
                open.combine(self.settings.site, body)?;
            } else {
                open.close(self.settings.site, &mut rows)?;
                open.begin(table, key, body);
            }
        }
        open.close(self.settings.site, &mut rows)?;
        Ok(rows)
    }

    /// The next rows of one group, and the last of them if more come after: as many as there are, or as fit.
    fn stretch(&self, position: &Position, span: &Span) -> Result<(u32, Stretch), Error> {
        let (number, table, key) = position.within.clone().unwrap_or((0, 0, Key(Vec::new())));
        let mut statement = self.database.prepare_cached(
            "SELECT tbl, key, body FROM _ssw_change WHERE grp = ? AND (tbl, key) > (?, ?) ORDER BY tbl, key",
        )?;
        let mut changes = statement.query(params![position.group + 1, table, key.0])?;
        let mut stretch = Stretch { rows: Rows::default(), last: None };
        let mut last: Option<(u32, Key)> = None;
        while let Some(row) = changes.next()? {
            let (rows, bytes_so_far) = (stretch.rows.count() as u64, stretch.rows.bytes() as u64);
            if !span.fits() && (rows >= ROWS || bytes_so_far >= BYTES) {
                stretch.last = last;
                break;
            }
            let table: u32 = row.get(0)?;
            let (key, body) = (bytes(row, 1)?, bytes(row, 2)?);
            match table {
                NOTICES => stretch.rows.notice(notice(body)?, body.len()),
                _ => stretch.rows.add(table, key, checked(body)?),
            }
            let (last_table, last_key) = last.get_or_insert_with(|| (table, Key(Vec::new())));
            *last_table = table;
            last_key.0.clear();
            last_key.0.extend_from_slice(key);
        }
        Ok((number, stretch))
    }

    fn part(&self, lo: u64, span: &Span, number: u32, last: bool, rows: Rows) -> Part {
        let shape_of = |table: &Table| Shape {
            name: table.name.clone(),
            columns: table.columns.iter().map(|column| column.name.clone()).collect(),
        };
        // What was folded of a table that was dropped since is told under the name that it had.
        let gone = |number: u32| {
            let stored = capture::tables(&self.database).ok()?;
            stored.iter().find(|table| table.number == number).map(shape_of)
        };
        let shape = |number: u32| self.tables.get(&number).map(|live| shape_of(&live.table)).or_else(|| gone(number));
        Part {
            origin: self.settings.site,
            lo,
            hi: span.hi,
            clock: span.clock,
            sight: span.sight.clone(),
            number,
            last,
            ..rows.into_part(shape)
        }
    }
}

struct Stretch {
    rows: Rows,
    last: Option<(u32, Key)>,
}

/// A row of a batch that may get more changes.
#[derive(Default)]
struct Open {
    table: u32,
    key: Vec<u8>,
    /// Its first change. Nothing, if there is no row.
    body: Vec<u8>,
    /// All of them, if there are more.
    combined: Option<Change>,
}

impl Open {
    fn is_of(&self, table: u32, key: &[u8]) -> bool {
        !self.body.is_empty() && self.table == table && self.key == key
    }

    fn begin(&mut self, table: u32, key: &[u8], body: &[u8]) {
        self.table = table;
        self.key.clear();
        self.key.extend_from_slice(key);
        self.body.clear();
        self.body.extend_from_slice(body);
    }

    fn combine(&mut self, site: u32, body: &[u8]) -> Result<(), Error> {
        let all = match &mut self.combined {
            Some(all) => all,
            none => none.insert(decode(site, &self.body)?),
        };
        all.combine(decode(site, body)?);
        Ok(())
    }

    fn close(&mut self, site: u32, rows: &mut Rows) -> Result<(), Error> {
        if let Some(all) = self.combined.take() {
            self.body.clear();
            all.encode(site, &mut self.body);
        }
        if !self.body.is_empty() {
            rows.add(self.table, &self.key, checked(&self.body)?);
        }
        Ok(())
    }
}

/// What the makers of a group's changes could have seen.
pub(super) fn sight(kept: ValueRef<'_>) -> Result<Sight, Error> {
    let bytes = kept.as_blob().unwrap_or_default();
    postcard::from_bytes(bytes).map_err(|_| damaged("what was seen", "_ssw_group"))
}

fn bytes<'a>(row: &'a SqlRow<'_>, column: usize) -> Result<&'a [u8], Error> {
    row.get_ref(column)?.as_blob().map_err(|_| damaged("a change", "_ssw_change"))
}

fn notice(body: &[u8]) -> Result<Notice, Error> {
    postcard::from_bytes(body).map_err(|_| damaged("a notice", "_ssw_change"))
}

/// A change that goes as it is kept: were it none, those after it would be read as something else.
fn checked(body: &[u8]) -> Result<&[u8], Error> {
    if Change::is_encoded(body) { Ok(body) } else { Err(damaged("a change", "_ssw_change")) }
}

fn decode(site: u32, mut body: &[u8]) -> Result<Change, Error> {
    Change::decode(site, &mut body).ok_or_else(|| damaged("a change", "_ssw_change"))
}
