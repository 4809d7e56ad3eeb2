//! Tells one peer what was changed here, and hears what it has applied.

use std::collections::VecDeque;

use siteswap_replication::{
    store::Position,
    wire::{Message, Report},
};
use tokio::sync::watch;

use crate::link::{Opener, frames::Frames};

use super::{
    PAUSED, Shared,
    messages::{self, Messages},
    number,
};

/// Batches that may be under way before the first of them is acknowledged. A peer that applies slowly is not told more
/// than that; the rest waits on disk.
const CREDIT: usize = 4;

/// Sends for as long as the peer is configured.
pub(super) async fn send(peer: String, mut opener: Opener, shared: Shared) {
    let mut paused = shared.paused.subscribe();
    while paused.wait_for(|paused| !paused).await.is_ok() {
        let Some(frames) = opener.open().await else { return };
        let why = tokio::select! {
            _ = paused.wait_for(|paused| *paused) => PAUSED.to_owned(),
            why = session(&peer, frames, &shared) => why,
        };
        tracing::debug!(peer, "stopped sending changes: {why}");
        shared.sessions.stopped(&peer, why);
    }
}

/// Sends on one stream until something goes wrong, and says what.
async fn session(peer: &str, frames: Frames, shared: &Shared) -> String {
    match Sender::start(peer, frames, shared).await {
        Ok(sender) => sender.run().await,
        Err(why) => why,
    }
}

struct Sender<'a> {
    peer: &'a str,
    frames: Frames,
    messages: Messages,
    shared: &'a Shared,
    groups: watch::Receiver<u64>,
    position: Position,
    /// The last group of each batch that is under way.
    unacknowledged: VecDeque<u64>,
}

impl<'a> Sender<'a> {
    /// Both say how far they are. What the peer has applied is where to go on.
    async fn start(peer: &'a str, mut frames: Frames, shared: &'a Shared) -> Result<Self, String> {
        let groups = shared.groups.subscribe();
        let site = number(peer);
        let report = shared.database.run(move |store| store.report(site)).await.map_err(|error| error.to_string())?;
        messages::send(&mut frames.sender, &Message::Hello(report)).await?;
        let mut messages = Messages::default();
        let Some(Message::Hello(report)) = messages.receive(&mut frames.receiver).await? else {
            return Err("the peer did not say how far it is".to_owned());
        };
        let position = Position::after(report.applied);
        let mut sender = Self { peer, frames, messages, shared, groups, position, unacknowledged: VecDeque::new() };
        sender.heard(report).await?;
        shared.sessions.started(peer);
        Ok(sender)
    }

    /// Sends until something goes wrong, and says what.
    async fn run(mut self) -> String {
        loop {
            match self.send_what_is_due().await {
                Ok(()) => {}
                Err(why) => return why,
            }
            tokio::select! {
                changed = self.groups.changed() => if changed.is_err() {
                    return "the agent stops".to_owned();
                },
                message = self.messages.receive(&mut self.frames.receiver) => match message {
                    Ok(Some(Message::Report(report))) => if let Err(why) = self.heard(report).await {
                        return why;
                    },
                    Ok(Some(_)) => return "the peer sent what does not belong here".to_owned(),
                    Ok(None) => return "the peer has closed the stream".to_owned(),
                    Err(why) => return why,
                },
            }
        }
    }

    async fn send_what_is_due(&mut self) -> Result<(), String> {
        while self.unacknowledged.len() < CREDIT {
            let (site, position) = (number(self.peer), self.position.clone());
            let next = self.shared.database.run(move |store| store.next_part(site, &position)).await;
            let Some((part, position)) = next.map_err(|error| error.to_string())? else { return Ok(()) };
            let (last, hi) = (part.last, part.hi);
            messages::send(&mut self.frames.sender, &Message::Part(part)).await?;
            self.position = position;
            if last {
                self.unacknowledged.push_back(hi);
            }
        }
        Ok(())
    }

    async fn heard(&mut self, report: Report) -> Result<(), String> {
        if report.site != number(self.peer) {
            return Err(format!("the report is not {}'s", self.peer));
        }
        while self.unacknowledged.front().is_some_and(|group| *group <= report.applied) {
            self.unacknowledged.pop_front();
        }
        self.shared.database.run(move |store| store.heard(&report)).await.map(drop).map_err(|error| error.to_string())
    }
}
