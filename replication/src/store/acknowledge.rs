//! Acknowledgement and collection: what every site has is not kept any more.

use rusqlite::Connection;

use crate::{clock::SiteId, wire::Report};

use super::{Error, Peer, State, Store, work, work::Work};

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
            forgotten: forgotten(&self.database, state.group)?,
        })
    }

    /// Takes in what a peer tells of itself, and drops what is not needed any more. Says whether anything was new.
    ///
    /// If the peer knows more of this site than there is, this is a restored backup: see [`Store::restored`].
    ///
    /// # Errors
    /// `Malformed`: it comes from nowhere. `File`, `Damaged`, `Sqlite`.
    pub fn heard(&mut self, report: &Report) -> Result<bool, Error> {
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
        if !take_in(&mut state, &mut peer, report, told) {
            return Ok(false);
        }
        self.transact(|work| {
            // Nothing else writes to what peers are known for.
            take_in(&mut work.state, work.peers.entry(report.site).or_default(), report, told);
            work::save_peer(work, report.site)?;
            collect(work)?;
            Ok(true)
        })
    }
}

/// This site's groups up to this one are not kept any more.
fn forgotten(database: &Connection, last: u64) -> Result<u64, Error> {
    let first: Option<u64> =
        database.prepare_cached("SELECT min(grp) FROM _ssw_group")?.query_row([], |row| row.get(0))?;
    Ok(first.map_or(last, |first| first - 1))
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
        state.missed.insert(report.site);
    }
    peer.applied = peer.applied.max(report.forgotten);
    // What it says of its clock is true of the groups it has made; those not applied here yet come first.
    if report.group <= peer.applied && !state.missed.contains(&report.site) {
        peer.seen.join(&report.seen);
        state.seen.pass(report.site, report.clock);
        state.clock.pass(report.clock);
    }
    before != (state.clone(), peer.clone())
}

/// Drops changes that every peer has applied, and versions of rows that are the same everywhere.
fn collect(work: &mut Work<'_>) -> Result<(), Error> {
    let everywhere = work.peers.values().map(|peer| peer.acknowledged).min().unwrap_or(work.state.group);
    let transaction = work.transaction;
    transaction
        .prepare_cached("DELETE FROM _ssw_change WHERE grp <= (SELECT max(grp) FROM _ssw_group WHERE last <= ?)")?
        .execute([everywhere])?;
    transaction.prepare_cached("DELETE FROM _ssw_group WHERE last <= ?")?.execute([everywhere])?;
    let settled = work.settled_up_to();
    if settled > work.state.settled {
        work.state.settled = settled;
    }
    transaction.prepare_cached("DELETE FROM _ssw_row WHERE newest <= ?")?.execute([settled])?;
    Ok(())
}
