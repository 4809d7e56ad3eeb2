//! What applications did to a table of whole numbers, as they saw it themselves, and what must come of it: an oracle that
//! knows nothing of folds, stamps and changes.

use std::collections::{BTreeMap, BTreeSet};

use siteswap_replication::{
    clock::SiteId,
    store::{Deletes, Granularity, Rules},
};

use super::Site;

/// A row's columns but its key.
pub const COLUMNS: usize = 3;

/// The rows of a table.
pub type Rows = BTreeMap<i64, [i64; COLUMNS]>;

/// What was done to a row, and how it was then.
#[derive(Clone, Copy, Debug)]
pub enum What {
    Insert([i64; COLUMNS]),
    Set(usize, [i64; COLUMNS]),
    Delete,
}

impl What {
    /// What it makes of this column.
    fn cell(self, column: usize) -> Option<i64> {
        match self {
            Self::Insert(values) => Some(values[column]),
            Self::Set(at, values) => (at == column).then_some(values[column]),
            Self::Delete => None,
        }
    }
}

#[derive(Clone, Debug)]
struct Done {
    site: SiteId,
    /// The group of that site in which it will be.
    group: u64,
    /// Of each site, the last group that can have made a difference to it.
    knew: BTreeMap<SiteId, u64>,
    row: i64,
    what: What,
}

impl Done {
    fn knew(&self, other: &Self) -> bool {
        self.knew.get(&other.site).is_some_and(|group| *group >= other.group)
    }
}

/// Everything that was committed, in order of time.
#[derive(Default)]
pub struct History(Vec<Done>);

impl History {
    /// A transaction was committed at this site just now.
    pub fn add(&mut self, site: &Site, done: &[(i64, What)]) {
        let group = site.store.position().expect("a position").0 + 1;
        let mut knew = BTreeMap::from([(site.id, group)]);
        for (origin, applied) in site.applied.iter().chain([(&site.id, &group)]) {
            let told = self.0.iter().rfind(|done| done.site == *origin && done.group <= *applied);
            for (other, group) in told.iter().flat_map(|done| &done.knew) {
                let known = knew.entry(*other).or_default();
                *known = (*known).max(*group);
            }
        }
        self.0.extend(done.iter().map(|&(row, what)| Done { site: site.id, group, knew: knew.clone(), row, what }));
    }

    /// The rows if every clock is right, by these rules: what was done last stays.
    pub fn last(&self, rules: &Rules) -> Rows {
        let mut rows = Rows::new();
        for done in &self.0 {
            match done.what {
                What::Set(column, values) if rules.granularity == Granularity::Column => {
                    rows.entry(done.row).or_default()[column] = values[column];
                }
                What::Insert(values) | What::Set(_, values) => drop(rows.insert(done.row, values)),
                What::Delete => {}
            }
        }
        rows.retain(|row, _| self.lives(*row, rules.deletes));
        rows
    }

    /// Is its newest sign of life newer than all that any deletion ends?
    fn lives(&self, row: i64, deletes: Deletes) -> bool {
        let sign = |done: &Done| match done.what {
            What::Insert(_) => true,
            What::Set(..) => deletes != Deletes::Win,
            What::Delete => false,
        };
        let of_row: Vec<(usize, &Done)> = self.0.iter().enumerate().filter(|(_, done)| done.row == row).collect();
        let newest = of_row.iter().rfind(|(_, done)| sign(done)).map(|(at, _)| *at);
        let ends = of_row.iter().filter(|(_, done)| matches!(done.what, What::Delete)).filter_map(|(at, deletion)| {
            // What its maker knew, or everything before.
            let over = |(before, done): &&(usize, &Done)| {
                before < at && sign(done) && (deletes != Deletes::Lose || deletion.knew(done))
            };
            of_row.iter().rfind(over).map(|(before, _)| *before)
        });
        newest > ends.max()
    }

    /// Whatever the clocks are: a site shows nothing that was done over again by somebody who knew it, as far as this site
    /// has heard of it. Of what was done without knowing of each other, it may show either.
    pub fn assert_shown(&self, site: &Site, rows: &Rows) {
        let applied =
            |done: &&Done| done.site == site.id || site.applied.get(&done.site).is_some_and(|last| *last >= done.group);
        let (known, unknown): (Vec<&Done>, Vec<&Done>) = self.0.iter().partition(applied);
        for row in known.iter().map(|done| done.row).chain(rows.keys().copied()).collect::<BTreeSet<_>>() {
            let of_row: Vec<&Done> = known.iter().copied().filter(|done| done.row == row).collect();
            let cells: Vec<BTreeSet<i64>> = (0..COLUMNS)
                .map(|column| {
                    let set =
                        of_row.iter().copied().filter(|done| done.what.cell(column).is_some()).collect::<Vec<_>>();
                    newest(&set).filter_map(|done| done.what.cell(column)).collect()
                })
                .collect();
            // Somebody has changed the row knowing what is not known here yet: it may have to wait for that.
            let waits = unknown.iter().any(|other| other.row == row && of_row.iter().any(|done| done.knew(other)));
            let mut lives = newest(&of_row).map(|done| !matches!(done.what, What::Delete));
            let at = format!("row {row} at site {}", site.id);
            match rows.get(&row) {
                Some(values) => {
                    assert!(lives.any(|lives| lives), "{at} should not be there: {of_row:?}");
                    let right = values.iter().zip(&cells).all(|(value, allowed)| allowed.contains(value));
                    assert!(right, "{at} is {values:?} and not of {cells:?}");
                }
                None => assert!(waits || lives.any(|lives| !lives), "{at} should be there: {of_row:?}"),
            }
        }
    }
}

/// Those of which no other knew: with what was done in one transaction, the last of it.
fn newest<'a>(all: &'a [&'a Done]) -> impl Iterator<Item = &'a Done> + 'a {
    let over = move |at: usize| all[at + 1..].iter().any(|later| later.knew(all[at]));
    all.iter().enumerate().filter(move |(at, _)| !over(*at)).map(|(_, done)| *done)
}
