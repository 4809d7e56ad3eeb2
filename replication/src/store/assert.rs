//! Saying again how rows are: what a comparison found to differ becomes a change like any other.

use crate::{
    change::{Cell, Change},
    value::Key,
    verify::{Assertion, Hash, Request, Response},
};

use super::{
    Error, State, Store, fold,
    live::Live,
    parked, repair,
    scan::{Compared, Other, past_of},
    work::Work,
};

impl Store {
    /// Makes how these rows are now, whole or deleted, changes of this site that are newer than everything it has seen.
    /// They travel to every peer in one group, so call it once with all that belong together, but with some 10,000 at
    /// most: every site applies a group in one transaction. Returns how many rows it said. `now` is the agent's clock in
    /// milliseconds since 1970.
    ///
    /// # Errors
    /// `Unknown`: there is no such table. `Lacking`: peers know more of its rows than can be said here. `Malformed`: a key that
    /// is none. `Damaged`, `Sqlite`.
    pub fn assert_rows(&mut self, table: &str, keys: &[Key], now: i64) -> Result<u64, Error> {
        let shape = self.shapes().into_iter().rev().find(|shape| shape.name.eq_ignore_ascii_case(table));
        let table = shape.ok_or_else(|| Error::Unknown(format!("table {table}")))?;
        self.transact(|work| {
            fold::fold(work, now)?;
            let compared = Compared::find(work.tables, &table)?;
            let lacking = parked::lacking(work.transaction, [&*compared.live])?;
            if !lacking.is_empty() {
                return Err(Error::Lacking(lacking.join(", ")));
            }
            keys.iter().try_for_each(|key| say(work, &compared, key, None, now).map(drop))?;
            Ok(keys.len() as u64)
        })
    }

    /// The same for rows of which a peer was told, if they are still as it was told. Returns how many were.
    ///
    /// # Errors
    /// As [`assert_rows`](Self::assert_rows).
    pub fn assert_told(&mut self, assertions: &[Assertion], now: i64) -> Result<u64, Error> {
        self.transact(|work| {
            fold::fold(work, now)?;
            let mut said = 0;
            for Assertion { table, rows } in assertions {
                let compared = Compared::find(work.tables, table)?;
                for (key, told) in rows {
                    said += u64::from(say(work, &compared, key, Some(*told), now)?);
                }
            }
            Ok(said)
        })
    }

    /// Answers a peer that compares, or has compared, its tables with ours. Reads at one moment; only `Assert` writes.
    ///
    /// A store of its own beside the one that folds and applies keeps these from waiting.
    ///
    /// # Errors
    /// As [`assert_rows`](Self::assert_rows); the peer should be told [`Response::Refused`].
    pub fn answer(&mut self, asker: u32, request: &Request, now: i64) -> Result<Response, Error> {
        if let Request::Assert(assertions) = request {
            return Ok(Response::Asserted(self.assert_told(assertions, now)?));
        }
        let find = |shape| Compared::find(&self.tables, shape);
        self.at_one_moment(|database| {
            Ok(match request {
                Request::Tables => Response::Tables { standing: self.standing(asker)?, tables: self.shapes() },
                Request::Split { table, range, rows } => {
                    let (pieces, more) = find(table)?.pieces(database, range, *rows)?;
                    Response::Pieces { pieces, more }
                }
                Request::Rows { table, range } => {
                    let (rows, more) = find(table)?.rows(database, range, crate::verify::KEYS)?;
                    Response::Rows { rows, more }
                }
                Request::Keys { table, keys, past } => {
                    let acknowledged = self.peer(asker)?.acknowledged;
                    let other = Other { own: self.settings.site, site: asker, acknowledged, past };
                    let rows = find(table)?.told(database, keys, &other)?;
                    Response::Keys { rows, past: past_of(&State::load(database)?) }
                }
                Request::Assert(_) => return Err(Error::Malformed("it is not a question")),
            })
        })
    }
}

/// Says no if the row is not what was `told`.
fn say(
    work: &mut Work<'_>,
    compared: &Compared,
    key: &Key,
    told: Option<Option<Hash>>,
    now: i64,
) -> Result<bool, Error> {
    let there = compared.live.read(work.transaction, &compared.key_columns(key)?)?;
    if told.is_some_and(|told| told != compared.hash_of(there.as_deref())) {
        return Ok(false);
    }
    say_again(work, &compared.live, key, now)?;
    Ok(true)
}

/// Records a row as it is.
pub(super) fn say_again(work: &mut Work<'_>, live: &Live, key: &Key, now: i64) -> Result<(), Error> {
    let columns = key.columns().ok_or(Error::Malformed("a key that is none"))?;
    let there = live.read(work.transaction, &columns)?;
    let (mut row, _) = work.rows.load(live, key, there.clone())?;
    let change = match &there {
        None => repair::deletion(work, now),
        Some(values) => {
            let stamp = work.state.clock.tick(now);
            let cells = (0..).zip(values).filter(|(column, _)| !live.table.in_key(*column));
            let cells = cells.map(|(column, value)| Cell { column, stamp, value: value.clone() }).collect();
            Change { alive: Some(stamp), whole: true, cells, ..Change::default() }
        }
    };
    work.record(live, key, &mut row, change)
}
