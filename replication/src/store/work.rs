//! What all transactions share: the state that moves with them, and the group that collects this site's changes.

use std::{collections::BTreeMap, mem::replace, rc::Rc};

use rusqlite::{Connection, Transaction, params};

use crate::{
    change::Change,
    clock::{Seen, Sight, SiteId, Stamp, Version, millis},
    layout::NOTICES,
    merge::Row,
    value::Key,
    wire::Notice,
};

use super::{
    Error, Peer, Settings, State, Tables,
    apply::claim,
    damaged,
    live::Live,
    rows::{Rows, TOGETHER, insert_all, many},
};

/// A transaction under way.
pub(super) struct Work<'a> {
    pub(super) transaction: &'a Transaction<'a>,
    pub(super) settings: &'a Settings,
    pub(super) tables: &'a Tables,
    pub(super) state: State,
    pub(super) peers: BTreeMap<SiteId, Peer>,
    pub(super) rows: Rows<'a>,
    /// For so many milliseconds it waited for the write lock, since somebody looked at the clock.
    pub(super) waited: i64,
    /// Changes that are not in the tables yet.
    soon: Vec<Soon>,
    group: Option<Group>,
    before: State,
}

const ADD: &str = "INSERT OR IGNORE INTO _ssw_change(grp, tbl, key, body)";

/// A change that is recorded soon.
struct Soon {
    table: u32,
    key: Key,
    body: Vec<u8>,
}

/// This site's changes that are made in this transaction.
struct Group {
    number: u64,
    rows: u64,
    bytes: u64,
    /// What their makers may have seen.
    seen: Seen,
}

impl<'a> Work<'a> {
    pub(super) fn begin(
        transaction: &'a Transaction<'a>,
        settings: &'a Settings,
        tables: &'a Tables,
    ) -> Result<Self, Error> {
        let state = State::load(transaction)?;
        let peers = peers(transaction, settings)?;
        let rows = Rows::open(transaction)?;
        let (soon, group) = (Vec::new(), None);
        Ok(Self { transaction, settings, tables, before: state.clone(), state, peers, rows, waited: 0, soon, group })
    }

    /// The same as [`record`](Self::record), if the group has no change of the row yet and nobody looks at it before the
    /// next [`flush`](Self::flush).
    pub(super) fn record_soon(&mut self, live: &Live, key: Key, row: &mut Row, change: Change) -> Result<(), Error> {
        let body = self.absorb(live, &key, row, change)?;
        self.count(&key, &body);
        self.soon.push(Soon { table: live.table.number, key, body });
        if self.soon.len() == TOGETHER { self.flush() } else { Ok(()) }
    }

    /// Writes what was to be recorded or saved soon.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        self.rows.flush()?;
        if self.soon.is_empty() {
            return Ok(());
        }
        let group = self.group().number;
        let added =
            insert_all(self.transaction, (ADD, ""), &self.soon, |soon| [&group, &soon.table, &soon.key.0, &soon.body])?;
        if added != self.soon.len() {
            return Err(damaged("a change", "_ssw_change"));
        }
        self.soon.clear();
        Ok(())
    }

    /// Records a change of this site in the change table, and in what is known of the row.
    pub(super) fn record(&mut self, live: &Live, key: &Key, row: &mut Row, change: Change) -> Result<(), Error> {
        let body = self.absorb(live, key, row, change)?;
        let (number, table) = (self.group().number, live.table.number);
        let mut add = self.transaction.prepare_cached(&many(ADD, 1, ""))?;
        if add.execute(params![number, table, key.0, body])? == 0 {
            // Repairing may change a row more than once.
            return combine(self.transaction, number, table, key, self.settings.site, &body);
        }
        self.count(key, &body);
        Ok(())
    }

    /// Has every site log what lost.
    pub(super) fn tell(&mut self, notice: &Notice) -> Result<(), Error> {
        let body = postcard::to_stdvec(notice).map_err(|_| damaged("an image", "_ssw_conflict"))?;
        let (number, key) = (self.group().number, Key(notice.id.to_be_bytes().into()));
        self.transaction
            .prepare_cached("INSERT OR REPLACE INTO _ssw_change(grp, tbl, key, body) VALUES(?,?,?,?)")?
            .execute(params![number, NOTICES, key.0, body])?;
        self.count(&key, &body);
        Ok(())
    }

    /// Has the row take in a change of this site, and encodes it.
    fn absorb(&mut self, live: &Live, key: &Key, row: &mut Row, change: Change) -> Result<Vec<u8>, Error> {
        let site = self.settings.site;
        let mut body = Vec::with_capacity(256);
        change.encode(site, &mut body);
        let none = Seen::default();
        let seen = if live.extremes.is_empty() { &none } else { &self.group().seen };
        row.absorb(site, seen, change, &live.extremes);
        self.settle(row);
        self.rows.save(live, key.clone(), row)?;
        Ok(body)
    }

    /// The group has a row more.
    fn count(&mut self, key: &Key, body: &[u8]) {
        let group = self.group();
        group.rows += 1;
        group.bytes += (key.0.len() + body.len()) as u64;
    }

    fn group(&mut self) -> &mut Group {
        let (state, group) = (&mut self.state, &mut self.group);
        group.get_or_insert_with(|| {
            state.group += 1;
            Group { number: state.group, rows: 0, bytes: 0, seen: state.seen.clone() }
        })
    }

    /// Ends the group: changes made from here on are in the next. Returns its rows and the bytes that they take.
    pub(super) fn close_group(&mut self) -> Result<Option<(u64, u64)>, Error> {
        let Some(group) = self.group.take() else { return Ok(None) };
        self.save_group(group.number, &group)?;
        Ok(Some((group.rows, group.bytes)))
    }

    /// Groups that are lost, up to this one, have a group without rows in their place.
    pub(super) fn skip_to(&mut self, last: u64) -> Result<(), Error> {
        let group = Group { number: self.state.group + 1, rows: 0, bytes: 0, seen: self.state.seen.clone() };
        self.state.group = last;
        self.save_group(last, &group)
    }

    fn save_group(&self, last: u64, group: &Group) -> Result<(), Error> {
        let clock = self.state.clock.0;
        let sight = postcard::to_stdvec(&Sight::new(clock, group.seen.clone()));
        let sight = sight.map_err(|_| damaged("what was seen", "_ssw_group"))?;
        self.transaction
            .prepare_cached("INSERT INTO _ssw_group(grp, last, clock, seen, rows, bytes, ms) VALUES(?,?,?,?,?,?,?)")?
            .execute(params![group.number, last, clock, sight, group.rows, group.bytes, millis(clock)])?;
        Ok(())
    }

    /// Does every peer have this change, and have we everything that any of them did before it had?
    pub(super) fn settled(&self, version: Version) -> bool {
        !version.is_change()
            || self
                .peers
                .iter()
                .all(|(site, peer)| *site == version.site || peer.seen.of(version.site) >= version.stamp)
    }

    /// Forgets what need not be kept apart of a row any more.
    fn settle(&self, row: &mut Row) {
        row.settle(|version| self.settled(version));
    }

    /// Keeps what is known of the row for as long as that can matter. A deleted parent is kept until the next
    /// collection in any case: children of it may be found before this transaction ends.
    pub(super) fn keep(&mut self, live: &Live, key: &Key, row: &mut Row, kept: bool) -> Result<(), Error> {
        self.settle(row);
        // Usually most versions of a row are one and the same.
        let mut last = Version::NONE;
        let settled = row.all_versions().all(|version| version == replace(&mut last, version) || self.settled(version));
        let (visible, lives) = (row.visible(), row.lives());
        let complete = visible == lives && (!lives || row.parked.is_empty());
        if !(settled && complete && (visible || !live.is_parent) && !self.may_be_contested(live, row)) {
            return self.rows.save(live, key.clone(), row);
        }
        self.state.settled = self.state.settled.max(row.newest());
        if kept { self.rows.forget(live, key) } else { Ok(()) }
    }

    /// May an older claim to one of its unique values be on its way? If nothing were known of this one here, but still
    /// elsewhere, sites would decide between the two differently.
    fn may_be_contested(&self, live: &Live, row: &Row) -> bool {
        let otherwise = live.table.otherwise_unique.iter().map(|_| None);
        let claims = live.table.uniques.iter().map(Some).chain(otherwise);
        let claims = claims.map(|unique| claim(&live.table, row, unique)).filter(|claim| claim.is_change());
        claims.map(|claim| claim.stamp).max().is_some_and(|newest| newest > self.settled_up_to())
    }

    pub(super) fn table(&self, number: u32) -> Option<Rc<Live>> {
        self.tables.get(&number).cloned()
    }

    /// Stores what has moved.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        self.flush()?;
        self.close_group()?;
        if self.state != self.before {
            self.state.save(self.transaction)?;
        }
        Ok(())
    }

    /// The stamp up to which everything is known to be the same everywhere.
    pub(super) fn settled_up_to(&self) -> Stamp {
        let sites = self.settings.sites.keys();
        let pairs = sites.flat_map(|site| {
            self.peers.iter().filter(move |(peer, _)| *peer != site).map(move |(_, peer)| peer.seen.of(*site))
        });
        pairs.min().unwrap_or(self.state.clock.0)
    }
}

/// Combines a change with the one that the group has of the row already.
fn combine(database: &Connection, group: u64, table: u32, key: &Key, site: SiteId, change: &[u8]) -> Result<(), Error> {
    let mut body: Vec<u8> = database
        .prepare_cached("SELECT body FROM _ssw_change WHERE grp=? AND tbl=? AND key=?")?
        .query_row(params![group, table, key.0], |row| row.get(0))?;
    let decode = |mut body: &[u8]| Change::decode(site, &mut body).ok_or_else(|| damaged("a change", "_ssw_change"));
    let mut all = decode(&body)?;
    all.combine(decode(change)?);
    body.clear();
    all.encode(site, &mut body);
    database
        .prepare_cached("UPDATE _ssw_change SET body=? WHERE grp=? AND tbl=? AND key=?")?
        .execute(params![body, group, table, key.0])?;
    Ok(())
}

/// What is known of each configured peer; one that was never heard of has applied nothing.
pub(super) fn peers(database: &Connection, settings: &Settings) -> Result<BTreeMap<SiteId, Peer>, Error> {
    let others = settings.sites.keys().filter(|site| **site != settings.site);
    let mut peers: BTreeMap<SiteId, Peer> = others.map(|site| (*site, Peer::default())).collect();
    let mut statement =
        database.prepare_cached("SELECT site, applied, acknowledged, seen, incarnation FROM _ssw_peer")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let Some(peer) = peers.get_mut(&row.get(0)?) else { continue };
        peer.applied = row.get(1)?;
        peer.acknowledged = row.get(2)?;
        peer.incarnation = row.get(4)?;
        let seen: Vec<u8> = row.get(3)?;
        if !seen.is_empty() {
            peer.seen = postcard::from_bytes(&seen).map_err(|_| damaged("what a peer has seen", "_ssw_peer"))?;
        }
    }
    Ok(peers)
}

/// Stores what is known of a peer.
pub(super) fn save_peer(work: &Work<'_>, site: SiteId) -> Result<(), Error> {
    let Some(peer) = work.peers.get(&site) else { return Ok(()) };
    let name = work.settings.sites.get(&site).map_or("", String::as_str);
    let seen = postcard::to_stdvec(&peer.seen).map_err(|_| damaged("what a peer has seen", "_ssw_peer"))?;
    work.transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO _ssw_peer(site, name, applied, acknowledged, seen, incarnation) VALUES(?,?,?,?,?,?)",
        )?
        .execute(params![site, name, peer.applied, peer.acknowledged, seen, peer.incarnation])?;
    Ok(())
}
