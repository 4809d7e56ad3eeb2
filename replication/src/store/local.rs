//! What of a database can be checked without a peer.
//!
//! A change behind the triggers leaves no touch: a process with triggers switched off, incremental BLOB I/O, a trigger that
//! somebody dropped. Of a row that is the same everywhere nothing is kept, not even a hash: what is kept is to be bounded by
//! what is under way, not by the size of the tables, and every write would pay for it. So what such a row was can only be
//! told by a peer, whose copy costs nothing to keep: [`Verify`](super::Verify) finds every such change. Without a peer it
//! is found where something is kept of the row, a missing or altered trigger is found, and tables that were without their
//! triggers for a while are named until a comparison has found them equal.

use rusqlite::params;

use crate::{
    capture::{self, Departure},
    merge::Row,
    value::Key,
};

use super::{Error, OFTEN, Progress, Store, damaged, scan};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Rows looked at: all those of which something is kept.
    pub rows: u64,
    /// Rows that are not as they are known. [`Store::assert_rows`] makes what they are now a change.
    pub contradictions: Vec<Contradiction>,
    /// Tables whose triggers or columns are not as they should be.
    pub departures: Vec<Departure>,
    /// Tables that must be compared with a peer: for a time their triggers were not as they should be.
    pub unverified: Vec<String>,
}

/// A row that is not as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// Its table.
    pub table: String,
    /// Which row.
    pub key: Key,
    /// It is in the table, though it was deleted; else it is not, though it was not.
    pub there: bool,
}

impl Store {
    /// Checks what can be checked without a peer, at one moment.
    ///
    /// # Errors
    /// `Capture`, `Damaged`, `Sqlite`.
    pub fn verify_local(&self) -> Result<Local, Error> {
        self.verify_local_telling(|_| ())
    }

    /// The same; tells how far it is at the beginning of each table and then and when.
    ///
    /// # Errors
    /// As [`verify_local`](Self::verify_local).
    pub fn verify_local_telling(&self, mut tell: impl FnMut(Progress)) -> Result<Local, Error> {
        self.at_one_moment(|database| {
            let mut local = Local {
                departures: capture::inspect(database, false)?,
                unverified: self.unrecorded()?,
                ..Local::default()
            };
            for live in self.tables.values() {
                let mut progress = |local: &Local| {
                    let suspects = local.contradictions.len() as u64;
                    tell(Progress { table: live.table.name.clone(), rows: local.rows, suspects });
                };
                progress(&local);
                let touched = scan::touched(database, live)?;
                let mut statement =
                    database.prepare_cached("SELECT key, state FROM _ssw_row WHERE tbl=? ORDER BY key")?;
                let mut kept = statement.query(params![live.table.number])?;
                while let Some(row) = kept.next()? {
                    let (key, state): (Key, Vec<u8>) = (Key(row.get(0)?), row.get(1)?);
                    let visible = Row::kept_visible(&state).ok_or_else(|| damaged("a row's versions", "_ssw_row"))?;
                    let columns = key.columns().ok_or_else(|| damaged("a key", "_ssw_row"))?;
                    let there = live.read(database, &columns)?.is_some();
                    local.rows += 1;
                    if local.rows.is_multiple_of(OFTEN) {
                        progress(&local);
                    }
                    if there != visible && !touched.contains(&key) {
                        local.contradictions.push(Contradiction { table: live.table.name.clone(), key, there });
                    }
                }
            }
            Ok(local)
        })
    }
}
