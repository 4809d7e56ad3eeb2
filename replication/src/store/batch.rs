//! Batches: what a peer has not applied yet, consolidated and in parts that fit a message.

use std::collections::BTreeMap;

use rusqlite::params;

use crate::{
    change::Change,
    clock::Stamp,
    value::Key,
    wire::{Part, Rows, Shape},
};

use super::{Error, Store, damaged, fence};

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
    /// What the makers of each group had seen, by the group's first number.
    seen: BTreeMap<u64, Vec<u8>>,
}

impl Store {
    /// What comes after `position`, and the position after that. `None`: the peer has everything.
    ///
    /// # Errors
    /// `Gone`, `File`, `Damaged`, `Sqlite`.
    pub fn next_part(&self, position: &Position) -> Result<Option<(Part, Position)>, Error> {
        let mut next = self.part_after(position)?;
        if let Some((part, _)) = &mut next {
            part.schema = fence::schema(&self.database)?;
            self.note(part.hi, part.clock)?;
        }
        Ok(next)
    }

    fn part_after(&self, position: &Position) -> Result<Option<(Part, Position)>, Error> {
        let Some(span) = self.span(position)? else { return Ok(None) };
        if span.rows <= ROWS && span.bytes <= BYTES {
            let rows = self.consolidated(position.group, &span)?;
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
        let mut statement = self
            .database
            .prepare_cached("SELECT grp, last, clock, seen, rows, bytes FROM _ssw_group WHERE last > ? ORDER BY grp")?;
        let mut groups = statement.query([position.group])?;
        let mut span: Option<Span> = None;
        while let Some(group) = groups.next()? {
            let (first, last): (u64, u64) = (group.get(0)?, group.get(1)?);
            let (rows, bytes): (u64, u64) = (group.get(4)?, group.get(5)?);
            match &mut span {
                // A peer may have some of the groups in place of which there is an empty one.
                None if first > position.group + 1 => {
                    return Err(Error::Gone { wanted: position.group + 1, oldest: first });
                }
                None => {
                    let seen = BTreeMap::from([(first, group.get(3)?)]);
                    span = Some(Span { hi: last, clock: group.get(2)?, rows, bytes, seen });
                }
                Some(span) if span.rows + rows <= ROWS && span.bytes + bytes <= BYTES => {
                    (span.hi, span.clock) = (last, group.get(2)?);
                    span.rows += rows;
                    span.bytes += bytes;
                    span.seen.insert(first, group.get(3)?);
                }
                Some(_) => break,
            }
        }
        Ok(span)
    }

    /// The span's changes with those to one row combined.
    fn consolidated(&self, lo: u64, span: &Span) -> Result<Rows, Error> {
        let site = self.settings.site;
        let mut statement = self.database.prepare_cached(
            "SELECT grp, tbl, key, body FROM _ssw_change WHERE grp > ? AND grp <= ? ORDER BY tbl, key, grp",
        )?;
        let mut changes = statement.query(params![lo, span.hi])?;
        let mut rows = Rows::new(site);
        let mut open: Option<(u64, u32, Key, Change)> = None;
        while let Some(row) = changes.next()? {
            let (group, table, key) = (row.get(0)?, row.get(1)?, Key(row.get(2)?));
            let change = decode(site, row.get_ref(3)?.as_blob().unwrap_or_default())?;
            match &mut open {
                Some((_, last, same, all)) if *last == table && *same == key => all.combine(change),
                _ => {
                    if let Some((group, table, key, change)) = open.replace((group, table, key, change)) {
                        rows.add(table, &key, place(span, group), &change);
                    }
                }
            }
        }
        if let Some((group, table, key, change)) = open {
            rows.add(table, &key, place(span, group), &change);
        }
        Ok(rows)
    }

    /// The next rows of one large group, and the last of them if more come after.
    fn stretch(&self, position: &Position, span: &Span) -> Result<(u32, Stretch), Error> {
        let site = self.settings.site;
        let (number, table, key) = position.within.clone().unwrap_or((0, 0, Key(Vec::new())));
        let mut statement = self.database.prepare_cached(
            "SELECT tbl, key, body FROM _ssw_change WHERE grp = ? AND (tbl, key) > (?, ?) ORDER BY tbl, key",
        )?;
        let mut changes = statement.query(params![position.group + 1, table, key.0])?;
        let mut stretch = Stretch { rows: Rows::new(site), last: None };
        let mut last = None;
        while let Some(row) = changes.next()? {
            if stretch.rows.count() as u64 >= ROWS || stretch.rows.bytes() as u64 >= BYTES {
                stretch.last = last;
                break;
            }
            let (table, key) = (row.get(0)?, Key(row.get(1)?));
            let change = decode(site, row.get_ref(2)?.as_blob().unwrap_or_default())?;
            stretch.rows.add(table, &key, place(span, position.group + 1), &change);
            last = Some((table, key));
        }
        Ok((number, stretch))
    }

    fn part(&self, lo: u64, span: &Span, number: u32, last: bool, rows: Rows) -> Part {
        let shape = |number: u32| {
            self.tables.get(&number).map(|live| Shape {
                name: live.table.name.clone(),
                columns: live.table.columns.iter().map(|column| column.name.clone()).collect(),
            })
        };
        let seen = span.seen.values().map(|seen| postcard::from_bytes(seen).unwrap_or_default()).collect();
        Part {
            origin: self.settings.site,
            lo,
            hi: span.hi,
            clock: span.clock,
            seen,
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

/// Which of the span's groups this is.
fn place(span: &Span, group: u64) -> u32 {
    u32::try_from(span.seen.keys().position(|first| *first == group).unwrap_or(0)).unwrap_or(u32::MAX)
}

fn decode(site: u32, mut body: &[u8]) -> Result<Change, Error> {
    Change::decode(site, &mut body).ok_or_else(|| damaged("a change", "_ssw_change"))
}
