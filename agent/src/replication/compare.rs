//! Compares this site's tables with a peer's, row by row where they differ, and repairs what does.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use siteswap_replication::{
    store::{Limits, Outcome, Progress, Step, Store, Verify},
    verify::{Assertion, Policy, Request, Response},
};
use tokio::{
    sync::{Mutex, mpsc},
    time::{sleep, timeout},
};

use crate::link::{Opener, frames::Frames};

use super::{
    database::Database,
    literal,
    messages::{self, Messages},
    now, number,
};

/// A peer that is not connected for so long is not compared with.
const CONNECT: Duration = Duration::from_secs(5);
/// An answer that takes longer does not come.
const ANSWER: Duration = Duration::from_secs(60);
/// Changes that are under way get so much time before rows are looked at again.
const SETTLE: Duration = Duration::from_millis(250);
/// So often is compared and repaired; each time at least [`Limits::rows`] rows, if so many differ.
const PASSES: usize = 100;
/// So many differing rows are told one by one.
const TOLD: usize = 100;

/// Which of two rows that differ stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// The one that was changed last, if that is still known; that of the site whose database was not restored; else one
    /// that is there, rather than none; else one that all sites choose alike.
    #[default]
    Newest,
    /// One that is there, rather than none, also if it is known to be deleted; else as `newest`. For sites that had rows
    /// before they were joined.
    Present,
    /// This site's.
    Here,
    /// The peer's.
    There,
}

impl From<Keep> for Policy {
    fn from(keep: Keep) -> Self {
        match keep {
            Keep::Newest => Self::Ruled,
            Keep::Present => Self::Keep,
            Keep::Here => Self::Here,
            Keep::There => Self::There,
        }
    }
}

/// What is to be compared, and what becomes of rows that differ.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Compared with this site.
    pub peer: String,
    /// These tables only. Empty: all.
    pub tables: Vec<String>,
    /// Which rows stay, of those that differ. `None`: nothing is repaired.
    pub repair: Option<Keep>,
}

/// What a comparison says while it goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Comparing {
    /// It goes on.
    Progress {
        /// The table that is under way.
        table: String,
        /// Rows compared, counted here.
        rows: u64,
        /// Rows that seem to differ so far.
        suspects: u64,
    },
    /// It is over.
    Done(Compared),
    /// It broke off, and why.
    Failed(String),
}

/// What a comparison has found. After a repair: what is left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Everything that was compared is equal.
    pub equal: bool,
    /// Rows compared, counted here.
    pub rows: u64,
    /// Tables compared.
    pub tables: Vec<String>,
    /// Tables that are replicated at one of the two sites only.
    pub alone: Vec<String>,
    /// Columns that one of the two sites only has, as `table.column`. Their tables are not compared.
    pub lacking: Vec<String>,
    /// How many rows differ.
    pub differing: u64,
    /// The first hundred of them.
    pub differences: Vec<Differing>,
    /// Rows that were changed all the time.
    pub unsettled: u64,
    /// More rows may differ than were counted.
    pub more: bool,
    /// Rows that were said again, here or at the peer.
    pub repaired: u64,
}

/// A row that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Differing {
    /// The table.
    pub table: String,
    /// The columns of the row's key, as SQL literals.
    pub key: Vec<String>,
    /// There is such a row here.
    pub here: bool,
    /// There is at the peer.
    pub there: bool,
}

/// Compares with peers, with one at a time each.
#[derive(Clone, Debug)]
pub(super) struct Comparer {
    /// Beside the one that folds and applies, which goes on meanwhile.
    pub(super) database: Database,
    pub(super) peers: Arc<BTreeMap<String, Mutex<Opener>>>,
}

impl Comparer {
    /// Compares, and repairs if that is wanted; says how far it is. Ends when nobody listens any more.
    pub(super) async fn run(self, comparison: Comparison, told: mpsc::Sender<Comparing>) {
        let Comparison { peer, tables, repair } = comparison;
        let tables = Some(tables).filter(|tables| !tables.is_empty());
        let last = tokio::select! {
            () = told.closed() => return,
            done = self.compare(&peer, tables, repair.map(Policy::from), &told) => done.map_or_else(Comparing::Failed, Comparing::Done),
        };
        // Nobody waits for it any more.
        let _ = told.send(last).await;
    }

    /// Compares all tables or these, and repairs by this rule.
    pub(super) async fn compare(
        &self,
        peer: &str,
        tables: Option<Vec<String>>,
        repair: Option<Policy>,
        told: &mpsc::Sender<Comparing>,
    ) -> Result<Compared, String> {
        let opener = self.peers.get(peer).ok_or_else(|| {
            let known: Vec<&str> = self.peers.keys().map(String::as_str).collect();
            format!("there is no peer {peer:?}; there are: {}", known.join(", "))
        })?;
        let mut opener =
            opener.try_lock().map_err(|_| format!("a comparison with {peer} is under way; try again after it"))?;
        let frames = timeout(CONNECT, opener.open()).await.ok().flatten();
        let frames = frames.ok_or_else(|| format!("{peer} is not connected"))?;
        let mut session =
            Session { database: &self.database, peer: number(peer), conversation: Conversation::new(frames), told };
        let mut repaired = 0;
        for _ in 0..PASSES {
            let outcome = session.pass(tables.clone()).await?;
            let Some(policy) = repair.filter(|_| !outcome.differing.is_empty()) else {
                return session.conclude(outcome, repaired).await;
            };
            repaired += session.repair(&outcome, policy).await?;
        }
        Err(format!(
            "rows still differed after {PASSES} repairs, of {repaired} rows in all: something changes them behind the triggers"
        ))
    }
}

/// A comparison with one peer.
struct Session<'a> {
    database: &'a Database,
    peer: u32,
    conversation: Conversation,
    told: &'a mpsc::Sender<Comparing>,
}

impl Session<'_> {
    /// Compares once.
    async fn pass(&mut self, tables: Option<Vec<String>>) -> Result<Outcome, String> {
        let peer = self.peer;
        let begin = move |store: &mut _| Verify::new(store, peer, tables, Limits::default());
        let mut verify = self.database.run(begin).await.map_err(|error| error.to_string())?;
        loop {
            let step = self.database.run(move |store| verify.step(store).map(|step| (verify, step))).await;
            let step = step.map_err(|error| error.to_string())?;
            verify = step.0;
            self.tell(verify.progress());
            match step.1 {
                Step::Send(request) => self.conversation.ask(&request).await?,
                Step::Receive => {
                    let answer = self.conversation.answer().await?;
                    verify.take(answer).map_err(|error| error.to_string())?;
                }
                Step::Settle => sleep(SETTLE).await,
                Step::Done => return Ok(verify.outcome()),
            }
        }
    }

    /// Has rows that differ said again where they are right. Returns how many were.
    async fn repair(&mut self, outcome: &Outcome, policy: Policy) -> Result<u64, String> {
        let repairs = outcome.repairs(policy);
        let mut said = 0;
        for rows in repairs.here {
            let assert = move |store: &mut Store| store.assert_told(&rows, now());
            said += self.database.run(assert).await.map_err(|error| error.to_string())?;
        }
        for request in repairs.there {
            self.conversation.ask(&request).await?;
            match self.conversation.answer().await? {
                Response::Asserted(rows) => said += rows,
                Response::Refused(why) => return Err(format!("the peer refuses: {why}")),
                _ => return Err("the peer answered another question".to_owned()),
            }
        }
        Ok(said)
    }

    /// Remembers what was found equal.
    async fn conclude(&self, outcome: Outcome, repaired: u64) -> Result<Compared, String> {
        let compared = describe(&outcome, repaired);
        let done = self.database.run(move |store| store.verified(&outcome)).await;
        done.map(|_| compared).map_err(|error| error.to_string())
    }

    /// Progress is for people: what finds no room is soon followed by newer.
    fn tell(&self, progress: Progress) {
        let Progress { table, rows, suspects } = progress;
        let _ = self.told.try_send(Comparing::Progress { table, rows, suspects });
    }
}

fn describe(outcome: &Outcome, repaired: u64) -> Compared {
    let differences = outcome.differing.iter().take(TOLD).map(|row| Differing {
        table: outcome.tables[row.table].name.clone(),
        key: row.key.columns().unwrap_or_default().iter().map(literal).collect(),
        here: row.here.hash.is_some(),
        there: row.there.hash.is_some(),
    });
    Compared {
        equal: outcome.is_clean(),
        rows: outcome.rows,
        tables: outcome.tables.iter().map(|shape| shape.name.clone()).collect(),
        alone: outcome.alone.clone(),
        lacking: outcome.lacking.clone(),
        differing: outcome.differing.len() as u64,
        differences: differences.collect(),
        unsettled: outcome.unsettled,
        more: outcome.truncated,
        repaired,
    }
}

/// Questions and answers, in order.
struct Conversation {
    frames: Frames,
    messages: Messages,
}

impl Conversation {
    fn new(frames: Frames) -> Self {
        Self { frames, messages: Messages::default() }
    }

    async fn ask(&mut self, request: &Request) -> Result<(), String> {
        messages::send(&mut self.frames.sender, request).await
    }

    async fn answer(&mut self) -> Result<Response, String> {
        let answer = timeout(ANSWER, self.messages.receive(&mut self.frames.receiver)).await;
        answer
            .map_err(|_| format!("the peer has not answered for {ANSWER:?}"))??
            .ok_or_else(|| "the peer has closed the stream".to_owned())
    }
}

/// Answers a peer that compares, until it has no more questions.
pub(super) async fn answer(peer: String, frames: Frames, database: Database) {
    let (mut conversation, asker) = (Conversation::new(frames), number(&peer));
    let why = loop {
        let request: Request = match conversation.messages.receive(&mut conversation.frames.receiver).await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(why) => break why,
        };
        if let Request::Assert(assertions) = &request {
            tracing::warn!(peer, rows = rows(assertions), "rows differ from the peer's: it keeps ours");
        }
        let response = database.run(move |store| store.answer(asker, &request, now())).await;
        let response = response.unwrap_or_else(|error| Response::Refused(error.to_string()));
        if let Err(why) = messages::send(&mut conversation.frames.sender, &response).await {
            break why;
        }
    };
    tracing::debug!(peer, "stopped answering questions about rows: {why}");
}

fn rows(assertions: &[Assertion]) -> usize {
    assertions.iter().map(|assertion| assertion.rows.len()).sum()
}
