//! Acknowledgement and collection: what every site has is not kept any more.

use std::mem::take;

use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    clock::{SiteId, Stamp},
    wire::Report,
};

use super::{Error, Peer, State, Store, fence, work, work::Work};

/// Each report has the sweep look at so many rows,
const SWEPT: usize = 20_000;
/// and so many more for each change that is not kept any more, so that it keeps up with them.
const SWEPT_FOR_EACH: usize = 4;

impl Store {
    /// What to tell this peer: what is applied here of it, and how far this site is.
    ///
    /// # Errors
    /// `File`, `Damaged`, `Sqlite`.
    pub fn report(&self, peer: SiteId) -> Result<Report, Error> {
        let state = State::load(&self.database)?;
        self.note(state.group, state.clock.0)?;
        let peer = self.peers()?.remove(&peer).unwrap_or_default();
        Ok(Report {
            site: self.settings.site,
            applied: peer.applied,
            group: state.group,
            clock: state.clock.0,
            seen: state.seen,
            incarnation: self.incarnation()?,
            acknowledged: peer.acknowledged,
            forgotten: forgotten_for(&self.database, state.group, peer.acknowledged)?,
            schema: fence::count(&self.database)?,
        })
    }

    /// Takes in what a peer tells of itself, and drops what is not needed any more. Says whether anything was new.
    ///
    /// If the peer knows more of this site than there is, this is a restored backup: see [`Store::restored`].
    ///
    /// # Errors
    /// `Malformed`: it comes from nowhere. `File`, `Damaged`, `Sqlite`.
    pub fn heard(&mut self, report: &Report) -> Result<bool, Error> {
        self.count_as_peer(report.schema)?;
        let mut state = State::load(&self.database)?;
        let mut peer = self.peers()?.remove(&report.site).ok_or(Error::Malformed("a report from nowhere"))?;
        let behind = report.applied > state.group || report.seen.of(self.settings.site) > state.clock.0;
        // A peer that does not know of the restoration yet says this for a while.
        let known = state.restored.as_ref().is_some_and(|restored| restored.peers.contains_key(&report.site));
        if behind || report.acknowledged > peer.applied && !known {
            self.found_restored(report.applied, report.seen.of(self.settings.site))?;
            state = State::load(&self.database)?;
        }
        let told = forgotten(&self.database, state.group)?;
        let new = take_in(&mut state, &mut peer, report, told);
        if new || self.sweep.is_under_way() {
            // If this fails the sweep begins anew.
            let mut sweep = take(&mut self.sweep);
            self.transact(|work| {
                // Nothing else writes to what peers are known for.
                take_in(&mut work.state, work.peers.entry(report.site).or_default(), report, told);
                work::save_peer(work, report.site)?;
                collect(work, &mut sweep)
            })?;
            self.sweep = sweep;
        }
        Ok(new)
    }
}

impl Store {
    /// Drops what is kept for peers if there are none. Says whether there may be more.
    pub(super) fn collect_alone(&mut self) -> Result<bool, Error> {
        let any = self.database.prepare_cached("SELECT 1 FROM _ssw_group")?.exists([])?;
        if any || self.sweep.is_under_way() {
            let mut sweep = take(&mut self.sweep);
            self.transact(|work| collect(work, &mut sweep))?;
            self.sweep = sweep;
        }
        Ok(self.sweep.is_under_way())
    }
}

/// This site's groups up to this one are not kept any more.
fn forgotten(database: &Connection, last: u64) -> Result<u64, Error> {
    let first: Option<u64> =
        database.prepare_cached("SELECT min(grp) FROM _ssw_group")?.query_row([], |row| row.get(0))?;
    Ok(first.map_or(last, |first| first - 1))
}

/// The same for a peer that has `applied` so much: if it was set back, or has begun anew with a copy, and has a part of
/// groups that were consolidated since, it cannot have the rest.
pub(super) fn forgotten_for(database: &Connection, last: u64, applied: u64) -> Result<u64, Error> {
    let sql = "SELECT last FROM _ssw_group WHERE grp <= ?1 AND last > ?1 AND rows > 0";
    let part: Option<u64> = database.prepare_cached(sql)?.query_row([applied], |row| row.get(0)).optional()?;
    Ok(forgotten(database, last)?.max(part.unwrap_or(0)))
}

/// Says whether anything was new.
fn take_in(state: &mut State, peer: &mut Peer, report: &Report, forgotten: u64) -> bool {
    let before = (state.clone(), peer.clone());
    if peer.incarnation.is_some_and(|known| known != report.incarnation) {
        // It may have forgotten what it acknowledged. What is not kept here any more comes to it by a comparison.
        peer.acknowledged = report.applied.max(forgotten);
    } else {
        peer.acknowledged = peer.acknowledged.max(report.applied);
    }
    peer.incarnation = Some(report.incarnation);
    if let Some(restored) = &mut state.restored {
        if let Some(applied) = restored.peers.get_mut(&report.site) {
            applied.get_or_insert(report.applied);
        }
    } else if report.forgotten > peer.applied {
        state.missed.insert(report.site, report.forgotten);
    }
    peer.applied = peer.applied.max(report.forgotten);
    // What it says of its clock is true of the groups it has made; those not applied here yet come first.
    if report.group <= peer.applied && !state.missed.contains_key(&report.site) {
        peer.seen.join(&report.seen);
        state.seen.pass(report.site, report.clock);
        state.clock.pass(report.clock);
    }
    before != (state.clone(), peer.clone())
}

/// Drops changes that every peer has applied, and some of the versions of rows that are the same everywhere.
fn collect(work: &mut Work<'_>, sweep: &mut Sweep) -> Result<(), Error> {
    let everywhere = work.peers.values().map(|peer| peer.acknowledged).min().unwrap_or(work.state.group);
    let transaction = work.transaction;
    let dropped = transaction
        .prepare_cached("DELETE FROM _ssw_change WHERE grp <= (SELECT max(grp) FROM _ssw_group WHERE last <= ?)")?
        .execute([everywhere])?;
    transaction.prepare_cached("DELETE FROM _ssw_group WHERE last <= ?")?.execute([everywhere])?;
    let settled = work.settled_up_to();
    if settled > work.state.settled {
        work.state.settled = settled;
    }
    sweep.go_on(transaction, settled, SWEPT + SWEPT_FOR_EACH * dropped)
}

/// Looks through what is kept of rows, in the order of their keys, for what is settled. An index by age would find it at
/// once, but cost a fold a tenth of its time.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// The last row looked at: a table's number and a key. Nothing, if all were.
    after: Option<(u32, Vec<u8>)>,
    /// What was settled when it began.
    settled: Stamp,
}

impl Sweep {
    fn is_under_way(&self) -> bool {
        self.after.is_some()
    }

    /// Looks at so many more rows and drops those that are settled. Begins again if more has settled since it began.
    fn go_on(&mut self, database: &Connection, settled: Stamp, rows: usize) -> Result<(), Error> {
        let (table, key) = match self.after.take() {
            Some(after) => after,
            None if settled > self.settled => {
                self.settled = settled;
                (0, Vec::new())
            }
            None => return Ok(()),
        };
        self.after = database
            .prepare_cached(
                "SELECT tbl, key FROM _ssw_row WHERE (tbl, key) > (?, ?) ORDER BY tbl, key LIMIT 1 OFFSET ?",
            )?
            .query_row(params![table, key, rows], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let drop = "DELETE FROM _ssw_row WHERE newest <= ? AND (tbl, key) > (?, ?)";
        match &self.after {
            Some((to_table, to)) => database
                .prepare_cached(&format!("{drop} AND (tbl, key) <= (?, ?)"))?
                .execute(params![settled, table, key, to_table, to])?,
            None => database.prepare_cached(drop)?.execute(params![settled, table, key])?,
        };
        Ok(())
    }
}
