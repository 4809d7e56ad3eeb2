//! Acknowledgement and collection: what every site has is not kept any more.

use crate::{clock::SiteId, wire::Report};

use super::{Error, State, Store, work, work::Work};

impl Store {
    /// What to tell this peer: what is applied here of it, and how far this site is.
    ///
    /// # Errors
    /// `Damaged`, `Sqlite`.
    pub fn report(&self, peer: SiteId) -> Result<Report, Error> {
        let state = State::load(&self.database)?;
        let applied = self.peers()?.get(&peer).map_or(0, |peer| peer.applied);
        Ok(Report { site: self.settings.site, applied, group: state.group, clock: state.clock.0, seen: state.seen })
    }

    /// Takes in what a peer tells of itself, and drops what is not needed any more. Says whether anything was new.
    ///
    /// # Errors
    /// `Malformed`: it acknowledges what was never sent. `Damaged`, `Sqlite`.
    pub fn heard(&mut self, report: &Report) -> Result<bool, Error> {
        let state = State::load(&self.database)?;
        let peers = self.peers()?;
        let Some(peer) = peers.get(&report.site) else { return Err(Error::Malformed("a report from nowhere")) };
        if report.applied > state.group {
            return Err(Error::Malformed("it has applied more than there is"));
        }
        // What it says of its clock is true of the groups it has made; those not applied here yet come first.
        let current = report.group <= peer.applied;
        let new = report.applied > peer.acknowledged
            || current && (report.clock > state.seen.of(report.site) || joined(&peer.seen, report) != peer.seen);
        if !new {
            return Ok(false);
        }
        self.transact(|work| {
            if let Some(peer) = work.peers.get_mut(&report.site) {
                peer.acknowledged = peer.acknowledged.max(report.applied);
                if current {
                    peer.seen.join(&report.seen);
                }
            }
            if current {
                work.state.seen.pass(report.site, report.clock);
                work.state.clock.pass(report.clock);
            }
            work::save_peer(work, report.site)?;
            collect(work)?;
            Ok(true)
        })
    }
}

fn joined(seen: &crate::clock::Seen, report: &Report) -> crate::clock::Seen {
    let mut seen = seen.clone();
    seen.join(&report.seen);
    seen
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
