//! Which copy of a site's database this is.
//!
//! A database that is restored from a backup has forgotten what it had told its peers since: it would give group numbers
//! and stamps a second time, and the peers would take what is new for what they have. So every database has an
//! *incarnation*, a random number, and a file outside the database says which incarnation told its peers how much: the
//! last group and the greatest stamp that may have been sent. The file is written before that is sent, without waiting for
//! the disk: only a machine that loses its power and has its database restored at once is not told apart by it, and that
//! one by what its peers report. So nothing is to be sent to a peer before its first report was heard, and to none before
//! that of the others if a whole machine may have been set back, file and database.
//!
//! A database that is behind what it told gets a new incarnation. Its clock goes on above everything told, and so do its
//! group numbers: an empty group stands for those that are lost. Peers that have applied some of these keep them; what they
//! have and this database does not, comes back by comparing with every peer, the one that had applied the most first
//! ([`Store::restored`]). Peers that still keep groups which this database applied once send them again; those that do
//! not say so, and this database goes on from where they can. Until it is mended it yields in every comparison: what was
//! written to it since is applied at the peer before rows are said again, so nothing of that is lost. Touches that were not
//! folded when the backup was made are folded as made now.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};

use crate::{
    capture::{rebuilt, unverified},
    clock::{SiteId, Stamp},
    schema::Table,
    value::Key,
    verify::{History, Standing},
    wire::Incarnation,
};

use super::{Error, Outcome, State, Store, acknowledge::forgotten_for, assert, damaged, live::Live, work::Work};

/// Groups that a database may have told, if nobody knows how many.
const UNKNOWN: u64 = 1 << 32;

/// In `_ssw_meta` until the agent runs: the database has just become this site's, by a copy of another's.
pub(super) const JOINED: &str = "joined";

/// What the file outside tells of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// It has told nothing yet.
    New,
    /// It is the one that told its peers last.
    Continues,
    /// It is behind what it told its peers, or the file is lost: see [`Store::restored`].
    Restored,
}

/// A database that was restored, and is not yet known to be what its peers know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// It has what the peer knew that had applied the most.
    pub mended: bool,
    /// Peers with which it is still to be compared, and how many of our groups each had applied when it was heard first, if it
    /// was heard.
    pub peers: BTreeMap<SiteId, Option<u64>>,
}

/// Why a database may not be what its peers know. Sites are told by their names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// It was restored, and this peer has not been heard since: it may know more than all others.
    #[error("{0} has not been heard since the database was restored")]
    Unheard(String),
    /// It was restored; it is to be compared with this peer next.
    #[error("it was restored, and has not been compared with {0}'s since")]
    Restored(String),
    /// It was attached anew, and has not been compared with this peer's since: what was written before that only it knows.
    #[error("it was attached anew, and has not been compared with {0}'s since")]
    Anew(String),
    /// This peer has forgotten changes before they came here, or has changed a row whose other values are forgotten here.
    #[error("not all that {0} has can still come here by itself: some of it was forgotten")]
    Missed(String),
    /// These tables were made anew in a schema change, without their triggers for a while, and so they were elsewhere.
    #[error("tables were made anew in a schema change: {}", .0.join(", "))]
    Rebuilt(Vec<String>),
    /// These tables were without their triggers for a while.
    #[error("tables were without their triggers for a while: {}", .0.join(", "))]
    Unrecorded(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) site: SiteId,
    pub(super) incarnation: Incarnation,
}

impl Identity {
    pub(super) fn load(database: &Connection) -> Result<Option<Self>, Error> {
        let bytes: Option<Vec<u8>> = database
            .prepare_cached("SELECT v FROM _ssw_meta WHERE k='identity'")?
            .query_row([], |row| row.get(0))
            .optional()?;
        let read = |bytes: Vec<u8>| postcard::from_bytes(&bytes).map_err(|_| damaged("the identity", "_ssw_meta"));
        bytes.map(read).transpose()
    }

    /// Gives the database one if it has none. Of several connections that do so at once, the first decides.
    pub(super) fn ensure(database: &Connection, site: SiteId) -> Result<(), Error> {
        Self::write("INSERT OR IGNORE", database, site)
    }

    /// A new one.
    pub(super) fn renew(database: &Connection, site: SiteId) -> Result<(), Error> {
        Self::write("INSERT OR REPLACE", database, site)
    }

    fn write(how: &str, database: &Connection, site: SiteId) -> Result<(), Error> {
        let incarnation = database.query_row("SELECT randomblob(16)", [], |row| row.get(0))?;
        let bytes =
            postcard::to_stdvec(&Self { site, incarnation }).map_err(|_| damaged("the identity", "_ssw_meta"))?;
        database.execute(&format!("{how} INTO _ssw_meta(k, v) VALUES('identity', ?)"), [bytes])?;
        Ok(())
    }
}

/// The file outside.
#[derive(Debug)]
pub(super) struct Outside {
    path: PathBuf,
    file: File,
    noted: Cell<Noted>,
}

/// What may have been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Noted {
    incarnation: Incarnation,
    group: u64,
    clock: Stamp,
}

impl Noted {
    /// Always as long.
    fn text(&self) -> String {
        let Self { incarnation, group, clock } = self;
        let incarnation = u128::from_be_bytes(*incarnation);
        format!("siteswap 1\nincarnation {incarnation:032x}\ngroup {group:020}\nclock {clock:020}\n")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        (lines.next()? == "siteswap 1").then_some(())?;
        let incarnation = u128::from_str_radix(lines.next()?.strip_prefix("incarnation ")?, 16).ok()?.to_be_bytes();
        let group = lines.next()?.strip_prefix("group ")?.parse().ok()?;
        let clock = lines.next()?.strip_prefix("clock ")?.parse().ok()?;
        Some(Self { incarnation, group, clock })
    }

    fn read(path: &Path) -> io::Result<Option<Self>> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map(Some).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    "it does not say what this database has told its peers; without it the database counts as restored",
                )
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a new file in place of the old one, for good.
    fn create(self, path: &Path) -> io::Result<Outside> {
        let beside = path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(self.text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        let file = OpenOptions::new().write(true).open(path)?;
        Ok(Outside { path: path.to_owned(), file, noted: Cell::new(self) })
    }
}

impl Outside {
    /// Notes what is about to be told.
    fn note(&self, group: u64, clock: Stamp) -> io::Result<()> {
        let noted = self.noted.get();
        let next = Noted { group: noted.group.max(group), clock: noted.clock.max(clock), ..noted };
        if next != noted {
            self.file.write_all_at(next.text().as_bytes(), 0)?;
            self.noted.set(next);
        }
        Ok(())
    }
}

impl Store {
    /// From now on keeps in this file, outside the database, what peers may have been told; compares it with the database
    /// first. To be called once after opening, before anything else, with the same file every time.
    ///
    /// # Errors
    /// `File`: the file cannot be read or written. `Damaged`, `Sqlite`.
    pub fn remember_outside(&mut self, file: &Path) -> Result<Age, Error> {
        let failed = |source| Error::File { file: file.to_owned(), source };
        let state = State::load(&self.database)?;
        let joined = self.database.prepare_cached("SELECT 1 FROM _ssw_meta WHERE k=?")?.exists([JOINED])?;
        let age = match Noted::read(file).map_err(failed)? {
            // Nothing is its own yet: it has just joined, or has heard nobody.
            None if state.group == 0 && (joined || self.peers()?.values().all(|peer| peer.incarnation.is_none())) => {
                Age::New
            }
            None => {
                self.transact(|work| renew(work, work.state.group + UNKNOWN, 0))?;
                Age::Restored
            }
            Some(noted)
                if noted.incarnation == self.incarnation()?
                    && noted.group <= state.group
                    && noted.clock <= state.clock.0 =>
            {
                Age::Continues
            }
            Some(noted) => {
                let other = noted.incarnation != self.incarnation()?;
                self.transact(|work| {
                    // No copy of what has told its peers: what was written before is known to nobody else.
                    if other
                        && work.state.restored.is_none()
                        && work.peers.values().all(|peer| peer.applied == 0 && peer.acknowledged == 0)
                    {
                        work.transaction.execute("INSERT OR IGNORE INTO _ssw_meta(k, v) VALUES('anew', 1)", [])?;
                    }
                    renew(work, noted.group, noted.clock)
                })?;
                Age::Restored
            }
        };
        // Peers may have some of the groups that are lost.
        self.opened = State::load(&self.database)?.group;
        self.note_anew(file).map_err(failed)?;
        if joined {
            self.database.execute("DELETE FROM _ssw_meta WHERE k=?", [JOINED])?;
        }
        Ok(age)
    }

    fn note_anew(&mut self, file: &Path) -> io::Result<()> {
        let state = State::load(&self.database).map_err(io::Error::other)?;
        let incarnation = self.incarnation().map_err(io::Error::other)?;
        self.outside = Some(Noted { incarnation, group: state.group, clock: state.clock.0 }.create(file)?);
        Ok(())
    }

    /// Which copy of the site's database this is.
    ///
    /// # Errors
    /// `Damaged`, `Sqlite`.
    pub fn incarnation(&self) -> Result<Incarnation, Error> {
        Ok(Identity::load(&self.database)?.ok_or_else(|| damaged("the identity", "_ssw_meta"))?.incarnation)
    }

    /// Before this is told to a peer.
    pub(super) fn note(&self, group: u64, clock: Stamp) -> Result<(), Error> {
        let Some(outside) = &self.outside else { return Ok(()) };
        outside.note(group, clock).map_err(|source| Error::File { file: outside.path.clone(), source })
    }

    /// Is this a restored database that is not yet as its peers are? Then it is to be compared with each of `peers` and
    /// repaired, the one that had applied the most first ([`doubt`](Self::doubt)): by a [`Verify`](super::Verify), [`Outcome::repairs`] if anything
    /// differs, another `Verify` after replication has caught up, and [`verified`](Self::verified) when nothing differs.
    ///
    /// # Errors
    /// `Damaged`, `Sqlite`.
    pub fn restored(&self) -> Result<Option<Restored>, Error> {
        Ok(State::load(&self.database)?.restored)
    }

    /// Is there anything that only a comparison with a peer can settle?
    ///
    /// # Errors
    /// `Damaged`, `Sqlite`.
    pub fn doubt(&self) -> Result<Option<Doubt>, Error> {
        let state = State::load(&self.database)?;
        let name = |site: &SiteId| self.settings.sites.get(site).cloned().unwrap_or_default();
        // A site that is not configured any more cannot be compared with.
        let is_peer = |site: &SiteId| *site != self.settings.site && self.settings.sites.contains_key(site);
        let Some(restored) = state.restored else {
            if let Some(site) = state.missed.keys().chain(state.incomplete.keys()).find(|site| is_peer(site)) {
                return Ok(Some(Doubt::Missed(name(site))));
            }
            let rebuilt = self.marked(rebuilt)?;
            let (rebuilt, other): (Vec<_>, Vec<_>) =
                self.unrecorded()?.into_iter().partition(|table| rebuilt.contains(table));
            return Ok(match (&other[..], &rebuilt[..]) {
                ([], []) => None,
                ([], _) => Some(Doubt::Rebuilt(rebuilt)),
                _ => Some(Doubt::Unrecorded(other)),
            });
        };
        let peers = || restored.peers.iter().filter(|(site, _)| is_peer(site));
        let unheard = peers().find(|(_, applied)| applied.is_none());
        let most = peers().max_by_key(|(_, applied)| **applied);
        Ok(match (unheard, most) {
            (Some((site, _)), _) => Some(Doubt::Unheard(name(site))),
            (None, Some((site, _))) => {
                let anew = self.database.prepare_cached("SELECT 1 FROM _ssw_meta WHERE k='anew'")?.exists([])?;
                Some(if anew { Doubt::Anew(name(site)) } else { Doubt::Restored(name(site)) })
            }
            (None, None) => None,
        })
    }

    /// Is everything known here that peers count as known?
    ///
    /// # Errors
    /// `Doubtful`, if not. `Damaged`, `Sqlite`.
    pub fn is_beyond_doubt(&self) -> Result<(), Error> {
        // What the tables without triggers lack, if anything, is at the peers.
        self.doubt()?
            .filter(|doubt| !matches!(doubt, Doubt::Unrecorded(_)))
            .map_or(Ok(()), |doubt| Err(Error::Doubtful(doubt)))
    }

    /// Tables that were without their triggers for a while and have not been found equal to a peer's since.
    pub(super) fn unrecorded(&self) -> Result<Vec<String>, Error> {
        self.marked(unverified)
    }

    /// Tables with this mark.
    fn marked(&self, mark: fn(&Table) -> String) -> Result<Vec<String>, Error> {
        let mut marked = self.database.prepare_cached("SELECT 1 FROM _ssw_meta WHERE k=?")?;
        let mut tables = Vec::new();
        for live in self.tables.values() {
            if marked.exists([mark(&live.table)])? {
                tables.push(live.table.name.clone());
            }
        }
        Ok(tables)
    }

    /// The marks of tables that are in doubt, and how often they were marked.
    pub(super) fn marks(&self) -> Result<BTreeMap<String, i64>, Error> {
        let mut marks =
            self.database.prepare_cached("SELECT k, v FROM _ssw_meta WHERE substr(k, 1, 11) = 'unverified_'")?;
        let marks = marks.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(marks.collect::<Result<_, _>>()?)
    }

    /// Up to which of its groups a peer has forgotten changes that did not come here, and in which it has changed rows
    /// last whose other values are forgotten here.
    pub(super) fn missed(&self, peer: SiteId) -> Result<(Option<u64>, Option<u64>), Error> {
        let state = State::load(&self.database)?;
        Ok((state.missed.get(&peer).copied(), state.incomplete.get(&peer).copied()))
    }

    /// Remembers that a comparison has found everything equal; of a restored database only that of all tables counts. Says
    /// no if anything differs.
    ///
    /// # Errors
    /// `Damaged`, `Sqlite`.
    pub fn verified(&mut self, outcome: &Outcome) -> Result<bool, Error> {
        if !outcome.is_clean() {
            return Ok(false);
        }
        self.transact(|work| {
            let compared = |live: &Live| outcome.tables.iter().any(|shape| shape.name == live.table.name);
            for live in work.tables.values().filter(|live| compared(live)) {
                let mark = unverified(&live.table);
                // What was marked again meanwhile may have been missed behind where the comparison was.
                let times = outcome.doubted.get(&mark);
                if work.transaction.execute("DELETE FROM _ssw_meta WHERE k=? AND v IS ?", (mark, times))? > 0 {
                    work.transaction.execute("DELETE FROM _ssw_meta WHERE k=?", [rebuilt(&live.table)])?;
                }
            }
            let all = work.tables.values().all(|live| compared(live));
            // More may have been forgotten since, behind where the comparison was.
            let (missed, incomplete) = outcome.missed;
            for (lacked, then) in [(&mut work.state.missed, missed), (&mut work.state.incomplete, incomplete)] {
                if all && lacked.get(&outcome.peer) == then.as_ref() {
                    lacked.remove(&outcome.peer);
                }
            }
            if let Some(restored) = &mut work.state.restored
                && all
            {
                restored.peers.retain(|site, _| work.peers.contains_key(site));
                restored.mended |= restored.peers.get(&outcome.peer) >= restored.peers.values().max();
                restored.peers.remove(&outcome.peer);
                if restored.peers.is_empty() {
                    work.state.restored = None;
                    work.transaction.execute("DELETE FROM _ssw_meta WHERE k='anew'", [])?;
                }
            }
            Ok(true)
        })
    }

    /// How much this site's rows are worth to a peer.
    pub(super) fn standing(&self, peer: SiteId) -> Result<Standing, Error> {
        let history = match self.restored()? {
            None => History::Usual,
            Some(restored) if restored.mended => History::Mended,
            Some(_) => History::Restored,
        };
        let (state, known) = (State::load(&self.database)?, self.peer(peer)?);
        let told = known.acknowledged;
        Ok(Standing {
            forgetful: self.settings.sites.keys().any(|site| *site != peer && known.seen.of(*site) < state.forgot),
            withholds: forgotten_for(&self.database, state.group, told)? > told,
            lacks: state.missed.contains_key(&peer),
            ..Standing::new(self.settings.site, history)
        })
    }

    /// A peer knows more of this site than there is, and no file outside has told: what was recorded since the
    /// database was opened may have numbers that the peer knows for something else, and is said again.
    pub(super) fn found_restored(&mut self, applied: u64, clock: Stamp) -> Result<(), Error> {
        let opened = self.opened;
        self.transact(|work| {
            let recent = recent(work.transaction, opened)?;
            renew(work, applied, clock)?;
            for (table, key) in recent {
                if let Some(live) = work.table(table) {
                    // As soon after what is known as can be, whatever the time is.
                    assert::say_again(work, &live, &key, 0)?;
                }
            }
            Ok(())
        })?;
        self.opened = State::load(&self.database)?.group;
        if let Some(file) = self.outside.as_ref().map(|outside| outside.path.clone()) {
            self.note_anew(&file).map_err(|source| Error::File { file, source })?;
        }
        Ok(())
    }
}

/// Rows with changes in groups after this one.
fn recent(database: &Connection, group: u64) -> Result<Vec<(u32, Key)>, Error> {
    let mut statement = database.prepare_cached("SELECT DISTINCT tbl, key FROM _ssw_change WHERE grp > ?")?;
    let rows = statement.query_map([group], |row| Ok((row.get(0)?, Key(row.get(1)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Goes on as another incarnation, above what was told.
fn renew(work: &mut Work<'_>, told: u64, clock: Stamp) -> Result<(), Error> {
    Identity::renew(work.transaction, work.settings.site)?;
    work.state.clock.pass(clock);
    if told > work.state.group {
        work.skip_to(told)?;
    }
    let restored = work.state.restored.get_or_insert_default();
    restored.mended = false;
    for peer in work.peers.keys() {
        restored.peers.entry(*peer).or_insert(None);
    }
    Ok(())
}
