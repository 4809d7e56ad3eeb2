//! Comparing this site's tables with a peer's: the asking side.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    clock::{Seen, SiteId},
    value::Key,
    verify::{
        Assertion, FAN_OUT, Hash, History, KEYS, LEAF, PIECE, Piece, Policy, Range, Request, Response, Standing, Sum,
        Told,
    },
    wire::Shape,
};

use super::{
    Error, State, Store, rows,
    scan::{Compared, Other, past_of},
};

/// Questions under way at a time: the peer reads while we do.
const AHEAD: usize = 2;

/// How far a comparison goes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// So many differing rows are enough; after these are repaired, compare again.
    pub rows: usize,
    /// So often rows that differ are looked at again. A row that differs in the same way twice in succession, with nothing
    /// on its way, differs.
    pub rounds: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows: 100_000, rounds: 10 }
    }
}

/// What the caller does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sends this to the peer.
    Send(Request),
    /// Waits for the peer's next answer and gives it to [`Verify::take`].
    Receive,
    /// Lets replication catch up for a while: folds, sends, applies and reports.
    Settle,
    /// Reads the [`Verify::outcome`].
    Done,
}

/// How far a comparison has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The table under way, or nothing before the first and after the last.
    pub table: String,
    /// Rows compared, counted here.
    pub rows: u64,
    /// Rows that seem to differ, so far.
    pub suspects: u64,
}

/// What a comparison has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Compared with this site.
    pub peer: SiteId,
    /// How much this site's rows are worth.
    pub here: Standing,
    /// How much the peer's are.
    pub there: Standing,
    /// Tables that were compared: they have the same columns at both sites.
    pub tables: Vec<Shape>,
    /// Tables that are replicated at one site only.
    pub alone: Vec<String>,
    /// Columns that one site only has, as `table.column`. Their tables are not compared: of what one site lacks nothing would
    /// be known, and rows said again without it would leave that as it is.
    pub lacking: Vec<String>,
    /// Rows compared, counted here.
    pub rows: u64,
    /// Rows that differ, in the order of tables and keys.
    pub differing: Vec<Difference>,
    /// Rows that were still being changed when the last round was over.
    pub unsettled: u64,
    /// There may be more: the limit was reached.
    pub truncated: bool,
    /// Tables that were in doubt here when it began, by the marks that say so, and how often they had been marked.
    pub doubted: BTreeMap<String, i64>,
    /// Up to which of its groups the peer had forgotten changes that did not come here, and in which it had changed rows last
    /// whose other values are forgotten here, as far as was known when it began.
    pub missed: (Option<u64>, Option<u64>),
}

/// A row that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which of the tables.
    pub table: usize,
    /// Which row.
    pub key: Key,
    /// The row here. With no hash it is only at the peer.
    pub here: Told,
    /// The row at the peer. With no hash it is only here.
    pub there: Told,
}

/// Who says which rows again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    /// To be given to [`Store::assert_told`], one after the other.
    pub here: Vec<Vec<Assertion>>,
    /// To be sent to the peer, one after the other; it answers [`Response::Asserted`].
    pub there: Vec<Request>,
}

/// A comparison under way. It asks one question after the other over a transport that keeps their order; between two
/// steps both sites may do whatever they like.
#[derive(Debug)]
pub struct Verify {
    peer: SiteId,
    limits: Limits,
    only: Option<Vec<String>>,
    here: Standing,
    there: Standing,
    tables: Vec<Shape>,
    alone: Vec<String>,
    lacking: Vec<String>,
    waiting: VecDeque<Ask>,
    asked: VecDeque<Ask>,
    answered: VecDeque<(Ask, Response)>,
    suspects: BTreeMap<(usize, Key), Suspect>,
    round: u32,
    progress: Progress,
    truncated: bool,
    doubted: BTreeMap<String, i64>,
    missed: (Option<u64>, Option<u64>),
}

/// A question, with the table's number in `tables`.
#[derive(Clone, Debug)]
enum Ask {
    Tables,
    Split(usize, Range, u64),
    Rows(usize, Range),
    Keys(usize, Vec<Key>),
}

/// A row that seemed to differ when it was looked at last.
#[derive(Clone, Copy, Debug, Default)]
struct Suspect {
    here: Told,
    there: Told,
    differs: bool,
}

impl Verify {
    /// Begins to compare all tables, or `only` these, with a peer's.
    ///
    /// # Errors
    /// `Damaged`, `Sqlite`.
    pub fn new(store: &Store, peer: SiteId, only: Option<Vec<String>>, limits: Limits) -> Result<Self, Error> {
        let here = store.standing(peer)?;
        Ok(Self {
            peer,
            limits,
            only,
            here,
            there: Standing::new(peer, History::Usual),
            tables: Vec::new(),
            alone: Vec::new(),
            lacking: Vec::new(),
            waiting: VecDeque::from([Ask::Tables]),
            asked: VecDeque::new(),
            answered: VecDeque::new(),
            suspects: BTreeMap::new(),
            round: 0,
            progress: Progress::default(),
            truncated: false,
            doubted: store.marks()?,
            missed: store.missed(peer)?,
        })
    }

    /// What to do next. Reads our part of what was answered.
    ///
    /// # Errors
    /// `Nowhere`: a table that neither site has. `Malformed`: an answer to another question. `Refused`: the peer's reason.
    /// `Unknown`, `Damaged`, `Sqlite`.
    pub fn step(&mut self, store: &Store) -> Result<Step, Error> {
        loop {
            if self.asked.len() < AHEAD
                && let Some(ask) = self.waiting.pop_front()
            {
                let request = self.request(store, &ask)?;
                self.asked.push_back(ask);
                return Ok(Step::Send(request));
            }
            if let Some((ask, response)) = self.answered.pop_front() {
                self.compare(store, ask, response)?;
            } else if !self.asked.is_empty() {
                return Ok(Step::Receive);
            } else if self.round >= self.limits.rounds || self.suspects.values().all(|suspect| suspect.differs) {
                self.progress.table.clear();
                return Ok(Step::Done);
            } else {
                self.round += 1;
                self.ask_again();
                return Ok(Step::Settle);
            }
        }
    }

    /// Takes the peer's answer to the oldest question that it has not answered.
    ///
    /// # Errors
    /// `Malformed`: nothing was asked.
    pub fn take(&mut self, response: Response) -> Result<(), Error> {
        let ask = self.asked.pop_front().ok_or(Error::Malformed("an answer to nothing"))?;
        // The rest can be asked for before the pieces are compared.
        if let (Ask::Split(table, range, rows), Response::Pieces { pieces, more: true }) = (&ask, &response)
            && let Some(last) = pieces.last()
            && last.to.is_some()
        {
            let rest = Range { after: last.to.clone(), to: range.to.clone() };
            self.waiting.push_front(Ask::Split(*table, rest, *rows));
        }
        self.answered.push_back((ask, response));
        Ok(())
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        Progress { suspects: self.suspects.len() as u64, ..self.progress.clone() }
    }

    /// What it has found, once it is done.
    pub fn outcome(self) -> Outcome {
        let unsettled = self.suspects.values().filter(|suspect| !suspect.differs).count() as u64;
        let differing = self.suspects.into_iter().filter(|(_, suspect)| suspect.differs);
        let differing =
            differing.map(|((table, key), Suspect { here, there, .. })| Difference { table, key, here, there });
        Outcome {
            peer: self.peer,
            here: self.here,
            there: self.there,
            tables: self.tables,
            alone: self.alone,
            lacking: self.lacking,
            rows: self.progress.rows,
            differing: differing.collect(),
            unsettled,
            truncated: self.truncated,
            doubted: self.doubted,
            missed: self.missed,
        }
    }

    fn request(&mut self, store: &Store, ask: &Ask) -> Result<Request, Error> {
        let mut shape = |table: usize| {
            self.progress.table.clone_from(&self.tables[table].name);
            self.tables[table].clone()
        };
        Ok(match ask.clone() {
            Ask::Tables => Request::Tables,
            Ask::Split(table, range, rows) => Request::Split { table: shape(table), range, rows },
            Ask::Rows(table, range) => Request::Rows { table: shape(table), range },
            Ask::Keys(table, keys) => {
                Request::Keys { table: shape(table), keys, past: past_of(&State::load(&store.database)?) }
            }
        })
    }

    fn ask_again(&mut self) {
        let open = self.suspects.iter().filter(|(_, suspect)| !suspect.differs);
        for ((table, key), _) in open {
            match self.waiting.back_mut() {
                Some(Ask::Keys(last, keys)) if last == table && keys.len() < KEYS => keys.push(key.clone()),
                _ => self.waiting.push_back(Ask::Keys(*table, vec![key.clone()])),
            }
        }
    }

    fn compare(&mut self, store: &Store, ask: Ask, response: Response) -> Result<(), Error> {
        match (ask, response) {
            (Ask::Tables, Response::Tables { standing, tables }) => {
                self.there = Standing { site: self.peer, ..standing };
                self.choose(store.shapes(), tables)?;
                self.suspect_partial(store)
            }
            (Ask::Split(table, range, rows), Response::Pieces { pieces, .. }) => {
                self.compare_pieces(store, table, range, rows, pieces)
            }
            (Ask::Rows(table, range), Response::Rows { more: true, .. }) => {
                // There were few a moment ago.
                self.split(Ask::Split(table, range, LEAF));
                Ok(())
            }
            (Ask::Rows(table, range), Response::Rows { rows, .. }) => self.compare_rows(store, table, &range, rows),
            (Ask::Keys(table, keys), Response::Keys { rows, past }) if keys.len() == rows.len() => {
                self.compare_keys(store, table, keys, rows, &past)
            }
            (_, Response::Refused(why)) => Err(Error::Refused(why)),
            _ => Err(Error::Malformed("an answer to another question")),
        }
    }

    /// Compares what both sites have. A table that neither has would seem to be equal.
    fn choose(&mut self, ours: Vec<Shape>, theirs: Vec<Shape>) -> Result<(), Error> {
        let has = |all: &[Shape], name: &str| all.iter().any(|shape| shape.name.eq_ignore_ascii_case(name));
        let nowhere = |name: &&String| !has(&ours, name) && !has(&theirs, name);
        let nowhere: Vec<String> = self.only.iter().flatten().filter(nowhere).cloned().collect();
        if !nowhere.is_empty() {
            return Err(Error::Nowhere(nowhere));
        }
        let among = |all: &[String], name: &str| all.iter().any(|one| one.eq_ignore_ascii_case(name));
        let wanted = |name: &str| self.only.as_ref().is_none_or(|only| among(only, name));
        let mut alone: Vec<String> = theirs
            .iter()
            .filter(|shape| wanted(&shape.name) && !has(&ours, &shape.name))
            .map(|shape| shape.name.clone())
            .collect();
        for shape in ours.into_iter().filter(|shape| wanted(&shape.name)) {
            match theirs.iter().find(|their| their.name.eq_ignore_ascii_case(&shape.name)) {
                Some(their) => {
                    let apart = [(&shape, their), (their, &shape)]
                        .into_iter()
                        .flat_map(|(one, other)| one.columns.iter().filter(|column| !among(&other.columns, column)));
                    let apart: Vec<String> = apart.map(|column| format!("{}.{column}", shape.name)).collect();
                    if apart.is_empty() {
                        self.waiting.push_back(Ask::Split(self.tables.len(), Range::default(), PIECE));
                        self.tables.push(shape);
                    }
                    self.lacking.extend(apart);
                }
                None => alone.push(shape.name),
            }
        }
        self.alone = alone;
        Ok(())
    }

    /// Rows of which something is not known here are in no range: a restored database may have got a change of a row that
    /// it has deleted once.
    fn suspect_partial(&mut self, store: &Store) -> Result<(), Error> {
        for (number, shape) in self.tables.iter().enumerate() {
            let compared = Compared::find(&store.tables, shape)?;
            let keys = store.at_one_moment(|database| rows::partial(database, &compared.live))?;
            self.suspects.extend(keys.into_iter().map(|key| ((number, key), Suspect::default())));
        }
        Ok(())
    }

    fn compare_pieces(
        &mut self,
        store: &Store,
        table: usize,
        range: Range,
        rows: u64,
        pieces: Vec<Piece>,
    ) -> Result<(), Error> {
        let compared = Compared::find(&store.tables, &self.tables[table])?;
        let mut after = range.after;
        for Piece { to, sum: theirs } in pieces {
            let piece = Range { after, to: to.clone() };
            after = to;
            let ours: Sum = store.at_one_moment(|database| compared.sum(database, &piece))?;
            if rows == PIECE {
                self.progress.rows += ours.rows;
            }
            if ours == theirs {
                continue;
            }
            self.split(if theirs.rows <= LEAF {
                Ask::Rows(table, piece)
            } else {
                Ask::Split(table, piece, LEAF.max(theirs.rows.div_ceil(FAN_OUT)))
            });
        }
        Ok(())
    }

    /// Asks on, unless enough is found: first what is within what was asked for before.
    fn split(&mut self, ask: Ask) {
        if !self.truncated {
            self.waiting.push_front(ask);
        }
    }

    fn compare_rows(
        &mut self,
        store: &Store,
        table: usize,
        range: &Range,
        theirs: Vec<(Key, Hash)>,
    ) -> Result<(), Error> {
        let compared = Compared::find(&store.tables, &self.tables[table])?;
        let room = self.limits.rows.saturating_sub(self.suspects.len());
        let (ours, more) =
            store.at_one_moment(|database| compared.rows(database, range, theirs.len().saturating_add(room)))?;
        let mut theirs: BTreeMap<Key, Hash> = theirs.into_iter().collect();
        let mut found = Vec::new();
        for (key, hash) in ours {
            if theirs.remove(&key) != Some(hash) {
                found.push(key);
            }
        }
        found.extend(theirs.into_keys());
        self.suspects.extend(found.into_iter().map(|key| ((table, key), Suspect::default())));
        if more || self.suspects.len() >= self.limits.rows {
            self.truncated = true;
            self.waiting.clear();
        }
        Ok(())
    }

    fn compare_keys(
        &mut self,
        store: &Store,
        table: usize,
        keys: Vec<Key>,
        told: Vec<Told>,
        past: &Seen,
    ) -> Result<(), Error> {
        let compared = Compared::find(&store.tables, &self.tables[table])?;
        let acknowledged = store.peer(self.peer)?.acknowledged;
        let other = Other { own: store.settings.site, site: self.peer, acknowledged, past };
        let ours = store.at_one_moment(|database| compared.told(database, &keys, &other))?;
        for (key, (here, there)) in keys.into_iter().zip(ours.into_iter().zip(told)) {
            let place = (table, key);
            if (here.hash, here.partial) == (there.hash, there.partial) {
                self.suspects.remove(&place);
            } else if let Some(suspect) = self.suspects.get_mut(&place) {
                let again = (suspect.here.hash, suspect.there.hash) == (here.hash, there.hash);
                *suspect = Suspect { here, there, differs: again && !here.moving && !there.moving };
            }
        }
        Ok(())
    }
}

impl Outcome {
    /// Everything was compared, and is equal.
    pub fn is_clean(&self) -> bool {
        let compared = self.alone.is_empty() && self.lacking.is_empty() && !self.truncated;
        compared && self.differing.is_empty() && self.unsettled == 0
    }

    /// Who says what again, so that the rows which the policy prefers come to stand at both sites: by [`Policy::Ruled`]
    /// the same whoever has asked.
    pub fn repairs(&self, policy: Policy) -> Repairs {
        let (mut here, mut there) = (Vec::new(), Vec::new());
        for difference in &self.differing {
            let ours = policy.first_stays((self.here, difference.here), (self.there, difference.there));
            let (told, into) = if ours { (difference.here, &mut here) } else { (difference.there, &mut there) };
            into.push((difference.table, difference.key.clone(), told.hash));
        }
        let there = self.together(there).into_iter().map(Request::Assert).collect();
        Repairs { here: self.together(here), there }
    }

    /// As many rows as go into one transaction.
    fn together(&self, rows: Vec<(usize, Key, Option<Hash>)>) -> Vec<Vec<Assertion>> {
        rows.chunks(2 * KEYS).map(|rows| self.assertions(rows)).collect()
    }

    fn assertions(&self, rows: &[(usize, Key, Option<Hash>)]) -> Vec<Assertion> {
        let mut all: BTreeMap<usize, Vec<(Key, Option<Hash>)>> = BTreeMap::new();
        for (table, key, hash) in rows {
            all.entry(*table).or_default().push((key.clone(), *hash));
        }
        all.into_iter().map(|(table, rows)| Assertion { table: self.tables[table].clone(), rows }).collect()
    }
}
