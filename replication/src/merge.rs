//! How a row as one site knows it takes in another site's change.
//!
//! Everything known of a row is a maximum of versions: its signs of life, its deletions, and each of its columns. So the
//! order in which changes come does not matter, and two sites that know the same changes show the same row (claim C4).
//! Which of two changes wins depends on their versions alone; what the changes' makers had *seen* only decides whether
//! people are told of a conflict.

mod counter;
mod extreme;

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use crate::{
    change::{Cell, Change, Deleted, append},
    clock::{Seen, Sight, SiteId, Stamp, Version},
    value::Value,
};

pub use counter::Added;
pub(crate) use counter::on_top;
pub use extreme::{Contested, Extreme, Extremes};

/// A row as a site knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its newest sign of life.
    pub alive: Version,
    /// Signs of life up to this one are over.
    pub dead: Version,
    /// Its newest deletion.
    pub removed: Version,
    /// Each column's newest change; the key's columns have none.
    pub versions: Vec<Version>,
    /// Each column's value, as far as it is known. Of a deleted row: as it was last.
    pub values: Vec<Option<Value>>,
    /// Values of columns that the table does not have here yet.
    pub parked: Vec<Parked>,
    /// What was added to counters, apart from what all sites have: it is in their values too.
    pub added: Vec<Added>,
    /// What else than the value that stays was given to columns of which the smallest or greatest does.
    pub contested: Vec<Contested>,
}

/// A value that another site gave to a column which the table does not have here yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// The column's name.
    pub column: String,
    /// Who gave it the value, and when.
    pub version: Version,
    /// The value.
    pub value: Value,
}

/// Two sites changed the same without knowing of each other, and one of them lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// What met what.
    pub kind: Kind,
    /// The change that stays.
    pub won: Version,
    /// The change that is dropped, the newest of them if there are several.
    pub lost: Version,
    /// What it had set: column and value. Nothing, if it was a deletion.
    pub image: Vec<(u16, Value)>,
}

/// What a change has done to a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// What was in conflict.
    pub conflicts: Vec<Conflict>,
    /// The columns whose values are others than before.
    pub changed: Vec<u16>,
}

/// What met what: first what won, then what lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// The same columns were changed.
    UpdateUpdate,
    /// A row was inserted twice under one key.
    InsertInsert,
    /// An edit outlives a deletion.
    UpdateDelete,
    /// A deletion ends what was edited.
    DeleteUpdate,
    /// Two rows wanted one value of a unique column.
    Unique,
    /// A row's parent was deleted.
    ForeignKey,
    /// A value given to a counter ends what was added to it.
    CounterReset,
}

impl Kind {
    /// Its name, for people and machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::UpdateUpdate => "update/update",
            Self::InsertInsert => "insert/insert",
            Self::UpdateDelete => "update/delete",
            Self::DeleteUpdate => "delete/update",
            Self::Unique => "unique",
            Self::ForeignKey => "foreign key",
            Self::CounterReset => "counter reset",
        }
    }
}

impl Row {
    /// A row of which nothing is known, with so many columns.
    pub fn unknown(columns: usize) -> Self {
        Self {
            alive: Version::NONE,
            dead: Version::NONE,
            removed: Version::NONE,
            versions: vec![Version::NONE; columns],
            values: vec![None; columns],
            parked: Vec::new(),
            added: Vec::new(),
            contested: Vec::new(),
        }
    }

    /// A row that is there, and is the same everywhere as far as is known.
    pub fn settled(values: Vec<Value>) -> Self {
        Self { alive: Version::SETTLED, values: values.into_iter().map(Some).collect(), ..Self::unknown(0) }.sized()
    }

    fn sized(mut self) -> Self {
        self.versions = vec![Version::NONE; self.values.len()];
        self
    }

    /// Is it to be in the table? Not before all of its columns are known: the change that tells them is on its way from
    /// another site.
    pub fn visible(&self) -> bool {
        self.lives() && self.values.iter().all(Option::is_some)
    }

    /// Is it, by its signs of life, not deleted?
    pub fn lives(&self) -> bool {
        self.alive > self.dead
    }

    /// Was it told values that are not known any more?
    pub fn lacks(&self) -> bool {
        self.values.iter().zip(&self.versions).any(|(value, version)| value.is_none() && version.is_change())
    }

    /// All versions in it.
    pub fn all_versions(&self) -> impl Iterator<Item = Version> + '_ {
        let contested = self.contested.iter().flat_map(|contested| &contested.values).map(|(version, _)| *version);
        let columns = self.versions.iter().copied().chain(self.added.iter().map(Added::newest)).chain(contested);
        [self.alive, self.dead, self.removed].into_iter().chain(columns)
    }

    /// The newest stamp in it.
    pub fn newest(&self) -> Stamp {
        self.all_versions().map(|version| version.stamp).max().unwrap_or(0)
    }

    /// The newest edit: sign of life or change of a column.
    pub fn edited(&self) -> Version {
        let added = self.added.iter().map(Added::newest);
        self.versions.iter().copied().chain(added).fold(self.alive, Version::max)
    }

    /// Takes in a change of the own site, which knew all there is to know here: its values are the row's, and what it adds is
    /// in them. `seen` is what the other sites are told that it knew.
    pub fn absorb(&mut self, site: SiteId, seen: &Seen, change: Change, extremes: &Extremes) {
        self.join_life(site, &change);
        for cell in change.cells {
            let version = Version::new(cell.stamp, site);
            self.forget_added(cell.column);
            if extremes.contains_key(&cell.column) {
                self.give_extreme(seen, version, cell.column, &cell.value);
            }
            if let Some(mine) = self.versions.get_mut(usize::from(cell.column)) {
                *mine = version.max(*mine);
                self.values[usize::from(cell.column)] = Some(cell.value);
            }
        }
        change.adds.into_iter().for_each(|add| self.note_added(Added { site, add }));
    }

    fn join_life(&mut self, site: SiteId, change: &Change) {
        if let Some(stamp) = change.alive {
            self.alive = self.alive.max(Version::new(stamp, site));
        }
        if let Some(Deleted { stamp, ends }) = change.deleted {
            self.dead = self.dead.max(ends);
            self.removed = self.removed.max(Version::new(stamp, site));
        }
    }

    /// Takes in a change that `origin` made, with what it had seen then, and says what was in conflict. Cells of columns
    /// that the row does not have are passed over.
    pub fn join(&mut self, origin: SiteId, sight: &Sight, change: Change, extremes: &Extremes) -> Joined {
        let before = Before::of(self, origin, sight, &change);
        let mut cells = Cells { changed: Vec::with_capacity(change.cells.len()), ..Cells::default() };
        let twice = change.whole && before.inserted;
        self.join_life(origin, &change);
        for cell in change.cells {
            self.join_cell(origin, sight.at(cell.stamp), cell, extremes, &mut cells);
        }
        for add in change.adds {
            self.join_add(origin, add, &mut cells.changed);
        }
        let conflicts = match before.conflict_of_life(self) {
            Some(conflict) => vec![conflict],
            // Columns of a deleted row are nobody's concern, beyond what was just said.
            None if !self.lives() => Vec::new(),
            None => {
                let kind = if twice { Kind::InsertInsert } else { Kind::UpdateUpdate };
                let reset = cells.reset.into_values().map(|lost| lost.conflict(Kind::CounterReset));
                [cells.here.conflict(kind), cells.there.conflict(kind)].into_iter().chain(reset).flatten().collect()
            }
        };
        Joined { conflicts, changed: cells.changed }
    }

    fn join_cell(&mut self, origin: SiteId, seen: &Seen, cell: Cell, extremes: &Extremes, cells: &mut Cells) {
        if let Some(extreme) = extremes.get(&cell.column) {
            return self.join_extreme(origin, seen, cell, *extreme, &mut cells.changed);
        }
        if self.is_counted(cell.column) {
            return self.join_given(origin, seen, cell, cells);
        }
        let at = usize::from(cell.column);
        let (Some(mine), Some(value)) = (self.versions.get_mut(at), self.values.get_mut(at)) else { return };
        let theirs = Version::new(cell.stamp, origin);
        let unknown = !seen.knew(origin, *mine);
        let differs = value.as_ref().is_some_and(|value| *value != cell.value);
        if theirs > *mine {
            let old = value.replace(cell.value);
            if differs || old.is_none() {
                cells.changed.push(cell.column);
            }
            if let Some(old) = old.filter(|_| unknown && differs) {
                cells.here.add(theirs, *mine, cell.column, old);
            }
            *mine = theirs;
        } else if unknown && differs && theirs < *mine {
            cells.there.add(*mine, theirs, cell.column, cell.value);
        }
    }
}

impl Row {
    /// Keeps a value for a column that the row does not have yet; of several for one column the newest.
    pub fn park(&mut self, parked: Parked) {
        match self.parked.iter_mut().find(|other| other.column.eq_ignore_ascii_case(&parked.column)) {
            Some(other) if other.version >= parked.version => {}
            Some(other) => *other = parked,
            None => self.parked.push(parked),
        }
    }

    /// Takes in what was parked for columns that the row has by now, and says what was in conflict.
    pub fn unpark(&mut self, column: impl Fn(&str) -> Option<u16>, extremes: &Extremes) -> Joined {
        let mut cells = Cells::default();
        for parked in std::mem::take(&mut self.parked) {
            let Some(column) = column(&parked.column) else {
                self.parked.push(parked);
                continue;
            };
            let Version { stamp, site } = parked.version;
            // Who gave it the value knew nothing of this site's column.
            let cell = Cell { column, stamp, value: parked.value };
            self.join_cell(site, &Seen::default(), cell, extremes, &mut cells);
        }
        let lost = if self.lives() { [cells.here, cells.there] } else { [Lost::default(), Lost::default()] };
        let conflicts = lost.into_iter().filter_map(|lost| lost.conflict(Kind::UpdateUpdate)).collect();
        Joined { conflicts, changed: cells.changed }
    }
}

/// What the row was before a change came, and what of the change decides about its life.
struct Before {
    visible: bool,
    /// The change's newest version.
    theirs: Version,
    /// The change ends with the row's deletion.
    deletes: bool,
    /// The newest edit, if the change's maker did not know it.
    edited: Option<Version>,
    /// The newest deletion, if the change's maker did not know it.
    removed: Option<Version>,
    /// It was inserted as a whole, and the change's maker did not know that.
    inserted: bool,
    /// What is lost if the deletion wins, the row's or the change's; nothing, if there can be no conflict about that.
    image: Vec<(u16, Value)>,
}

impl Before {
    fn of(row: &Row, origin: SiteId, sight: &Sight, change: &Change) -> Self {
        let unknown = |version: Version, at| (!sight.at(at).knew(origin, version)).then_some(version);
        let (visible, newest) = (row.visible(), change.newest());
        let ends = change.deleted.filter(|deleted| change.alive.is_none_or(|alive| alive <= deleted.stamp));
        let deletes = ends.is_some();
        let edited = unknown(row.edited(), ends.map_or(newest, |deleted| deleted.stamp));
        let removed = unknown(row.removed, newest);
        let image = match deletes {
            true if visible && edited.is_some() => row.image(),
            false if !visible && removed.is_some() => row.image_with(change),
            _ => Vec::new(),
        };
        Self {
            visible,
            theirs: Version::new(newest, origin),
            deletes,
            edited,
            removed,
            inserted: visible
                && unknown(row.alive, change.alive.unwrap_or(newest)).is_some()
                && row.versions.iter().any(|version| version.is_change()),
            image,
        }
    }

    fn conflict_of_life(self, row: &Row) -> Option<Conflict> {
        let theirs = self.theirs;
        if self.deletes {
            let mine = self.edited.filter(|_| self.visible)?;
            return Some(if row.lives() {
                Conflict { kind: Kind::UpdateDelete, won: mine, lost: theirs, image: Vec::new() }
            } else {
                Conflict { kind: Kind::DeleteUpdate, won: theirs, lost: mine, image: self.image }
            });
        }
        let mine = self.removed.filter(|_| !self.visible)?;
        Some(if row.lives() {
            Conflict { kind: Kind::UpdateDelete, won: theirs, lost: mine, image: Vec::new() }
        } else {
            Conflict { kind: Kind::DeleteUpdate, won: mine, lost: theirs, image: self.image }
        })
    }
}

impl Row {
    /// Its columns' values, as far as they are known.
    pub fn image(&self) -> Vec<(u16, Value)> {
        self.image_with(&Change::default())
    }

    /// The same with what a change makes of it.
    fn image_with(&self, change: &Change) -> Vec<(u16, Value)> {
        let other = |column| change.cells.iter().find(|cell| cell.column == column).map(|cell| &cell.value);
        let added = |column| change.adds.iter().filter(move |add| add.column == column).map(|add| add.delta);
        let value = |(column, value): (u16, &Option<Value>)| {
            let value = other(column).or(value.as_ref())?.clone();
            Some((column, on_top(value, added(column).fold(0, i64::wrapping_add))))
        };
        (0..).zip(&self.values).filter_map(value).collect()
    }
}

/// What has become of a change's cells.
#[derive(Default)]
struct Cells {
    changed: Vec<u16>,
    here: Lost,
    there: Lost,
    /// What was added here or elsewhere, and does not count any more: by site.
    reset: BTreeMap<SiteId, Lost>,
}

/// Columns that lost, on one side.
#[derive(Default)]
struct Lost {
    won: Version,
    lost: Version,
    image: Vec<(u16, Value)>,
}

impl Lost {
    fn add(&mut self, won: Version, lost: Version, column: u16, value: Value) {
        self.won = self.won.max(won);
        self.lost = self.lost.max(lost);
        self.image.push((column, value));
    }

    /// The same for a part of what was added to a column.
    fn sum(&mut self, won: Version, lost: Version, column: u16, delta: i64) {
        match self.image.last_mut() {
            Some((last, Value::Integer(sum))) if *last == column => {
                *sum = sum.wrapping_add(delta);
                self.lost = self.lost.max(lost);
            }
            _ => self.add(won, lost, column, Value::Integer(delta)),
        }
    }

    fn conflict(self, kind: Kind) -> Option<Conflict> {
        let Self { won, lost, image } = self;
        (!image.is_empty()).then_some(Conflict { kind, won, lost, image })
    }
}

/// How a row is kept while it is not settled: the versions that differ from the commonest, and values only if the table
/// does not have them.
#[derive(Serialize, Deserialize)]
struct Kept<'a> {
    /// How many columns the row had: none of those added since has changed.
    columns: u16,
    alive: Version,
    dead: Version,
    removed: Version,
    base: Version,
    others: Vec<(u16, Version)>,
    values: Option<Cow<'a, [Option<Value>]>>,
    parked: Cow<'a, [Parked]>,
    added: Cow<'a, [Added]>,
    contested: Cow<'a, [Contested]>,
}

impl Row {
    /// How it is kept. Of a visible row the values are in the table.
    pub fn keep(&self) -> Vec<u8> {
        let base = self.versions.iter().copied().max().unwrap_or_default();
        let others = (0..).zip(&self.versions).filter(|(_, version)| **version != base);
        let kept = Kept {
            // SQLite allows 32767 columns at most.
            columns: u16::try_from(self.versions.len()).unwrap_or(u16::MAX),
            alive: self.alive,
            dead: self.dead,
            removed: self.removed,
            base,
            others: others.map(|(column, version)| (column, *version)).collect(),
            values: (!self.visible()).then(|| Cow::from(&self.values)),
            parked: Cow::from(&self.parked),
            added: Cow::from(&self.added),
            contested: Cow::from(&self.contested),
        };
        let mut bytes = Vec::with_capacity(if kept.values.is_some() { 256 } else { 64 });
        append(&kept, &mut bytes);
        bytes
    }

    /// Was the row in the table when this was kept? `None`: this is not what was kept.
    pub fn kept_visible(bytes: &[u8]) -> Option<bool> {
        postcard::from_bytes(bytes).ok().map(|kept: Kept<'_>| kept.values.is_none())
    }

    /// The same of a deleted row without its values: what is left decides against changes of it, but cannot bring it back.
    /// Nothing, if this is of a row that is not deleted. `None`: this is not what was kept.
    pub fn kept_of_deleted(bytes: &[u8]) -> Option<Option<Vec<u8>>> {
        let kept: Kept<'_> = postcard::from_bytes(bytes).ok()?;
        let Some(values) = kept.values.as_ref().filter(|_| kept.alive <= kept.dead) else { return Some(None) };
        let none = Cow::from(vec![None; values.len()]);
        let mut without = Vec::with_capacity(64);
        append(&Kept { values: Some(none), ..kept }, &mut without);
        Some(Some(without))
    }

    /// Was anything parked for the row when this was kept? `None`: this is not what was kept.
    pub fn kept_parked(bytes: &[u8]) -> Option<bool> {
        postcard::from_bytes(bytes).ok().map(|kept: Kept<'_>| !kept.parked.is_empty())
    }

    /// Reads what was kept of a row whose columns have these defaults; `live` is the row in the table, if it is there.
    /// `None`: this is not what was kept.
    pub fn kept(bytes: &[u8], defaults: &[Value], live: Option<Vec<Value>>) -> Option<Self> {
        let kept: Kept<'_> = postcard::from_bytes(bytes).ok()?;
        let mut row = Self::unknown(defaults.len());
        (row.alive, row.dead, row.removed) = (kept.alive, kept.dead, kept.removed);
        row.parked = kept.parked.into_owned();
        (row.added, row.contested) = (kept.added.into_owned(), kept.contested.into_owned());
        let known = usize::from(kept.columns);
        row.versions.get_mut(..known)?.fill(kept.base);
        for (column, version) in kept.others {
            *row.versions.get_mut(usize::from(column))? = version;
        }
        match (live, kept.values) {
            (Some(live), _) => row.values = live.into_iter().map(Some).collect(),
            (None, Some(values)) => {
                row.values = values.into_owned();
                row.values.extend(defaults.get(known..)?.iter().cloned().map(Some));
            }
            // It was there when this was kept, and has vanished without a trigger's notice.
            (None, None) => {}
        }
        Some(row)
    }
}
