//! Applies what the peers send, and acknowledges it.

use std::{collections::BTreeMap, time::Duration};

use siteswap_replication::{
    store::Received,
    wire::{Message, Part, Report},
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};

use crate::link::{
    Opened,
    frames::{Frames, Topic},
};

use super::{
    PAUSED, Shared, compare,
    database::Database,
    messages::{self, Messages},
    now, number, set,
};

/// A peer is told after so long how far this site is, if that has changed without anything to acknowledge.
const TELL: Duration = Duration::from_secs(1);

/// Works all streams that peers open; `beside` answers their questions.
pub(super) async fn receive(mut opened: mpsc::Receiver<Opened>, shared: Shared, beside: Database) {
    let mut streams = JoinSet::new();
    let mut current: BTreeMap<(String, Topic), AbortHandle> = BTreeMap::new();
    while let Some(Opened { peer, topic, frames }) = opened.recv().await {
        while streams.try_join_next().is_some() {}
        let handle = match topic {
            Topic::Changes => streams.spawn(take(peer.clone(), frames, shared.clone())),
            Topic::Comparison => streams.spawn(compare::answer(peer.clone(), frames, beside.clone())),
        };
        if let Some(before) = current.insert((peer, topic), handle) {
            before.abort();
        }
    }
}

/// Takes changes from one stream until it ends or an operator wants none.
async fn take(peer: String, frames: Frames, shared: Shared) {
    let mut paused = shared.paused.subscribe();
    let why = tokio::select! {
        biased;
        _ = paused.wait_for(|paused| *paused) => PAUSED.to_owned(),
        why = session(&peer, frames, &shared) => why,
    };
    tracing::debug!(peer, "stopped receiving changes: {why}");
    shared.sessions.refused(&peer, why);
}

/// Receives on one stream until something goes wrong, and says what.
async fn session(peer: &str, frames: Frames, shared: &Shared) -> String {
    match Receiver::start(peer, frames, shared).await {
        Ok(receiver) => receiver.run().await,
        Err(why) => why,
    }
}

struct Receiver<'a> {
    peer: &'a str,
    frames: Frames,
    messages: Messages,
    shared: &'a Shared,
    told: Report,
}

impl<'a> Receiver<'a> {
    async fn start(peer: &'a str, mut frames: Frames, shared: &'a Shared) -> Result<Self, String> {
        let mut messages = Messages::default();
        let Some(Message::Hello(hello)) = messages.receive(&mut frames.receiver).await? else {
            return Err("the peer did not say how far it is".to_owned());
        };
        let site = number(peer);
        if hello.site != site {
            return Err(format!("the greeting is not {peer}'s"));
        }
        let told = shared
            .database
            .run(move |store| {
                store.heard(&hello)?;
                store.report(site)
            })
            .await
            .map_err(|error| error.to_string())?;
        messages::send(&mut frames.sender, &Message::Hello(told.clone())).await?;
        shared.sessions.taking(peer);
        Ok(Self { peer, frames, messages, shared, told })
    }

    /// Receives until something goes wrong, and says what.
    async fn run(mut self) -> String {
        let mut due = Instant::now() + TELL;
        loop {
            let step = tokio::select! {
                message = self.messages.receive(&mut self.frames.receiver) => match message {
                    Ok(Some(Message::Part(part))) => self.apply(part).await,
                    Ok(Some(Message::Report(report))) => self.heard(report).await,
                    Ok(Some(Message::Hello(_))) => Err("the peer greets twice".to_owned()),
                    Ok(None) => Err("the peer has closed the stream".to_owned()),
                    Err(why) => Err(why),
                },
                () = sleep_until(due) => {
                    due = Instant::now() + TELL;
                    self.tell().await
                }
            };
            if let Err(why) = step {
                return why;
            }
        }
    }

    async fn apply(&mut self, part: Part) -> Result<(), String> {
        let done = self.shared.database.run(move |store| {
            let received = store.receive(&part, now())?;
            Ok((received, store.position()?.0))
        });
        let (received, group) = done.await.map_err(|error| error.to_string())?;
        set(&self.shared.groups, group);
        match received {
            Received::Kept => Ok(()),
            Received::Gap => Err("something in between is missing".to_owned()),
            Received::Applied { conflicts, .. } => {
                self.shared.applied.send_modify(|count| *count += 1);
                if conflicts > 0 {
                    tracing::warn!(peer = self.peer, conflicts, "changes were in conflict; see: siteswap db conflicts");
                }
                self.tell().await
            }
            Received::Duplicate => self.tell().await,
        }
    }

    async fn heard(&mut self, report: Report) -> Result<(), String> {
        self.shared.database.run(move |store| store.heard(&report)).await.map(drop).map_err(|error| error.to_string())
    }

    /// Tells the peer how far this site is, if that is new.
    async fn tell(&mut self) -> Result<(), String> {
        let site = number(self.peer);
        let report =
            self.shared.database.run(move |store| store.report(site)).await.map_err(|error| error.to_string())?;
        if report != self.told {
            messages::send(&mut self.frames.sender, &Message::Report(report.clone())).await?;
            self.told = report;
        }
        Ok(())
    }
}
