//! Applies what the peers send, and acknowledges it.

use std::{collections::BTreeMap, time::Duration};

use siteswap_replication::{
    store::Received,
    wire::{Message, Part, Report},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::link::Opened;

use super::{
    PAUSED, Shared,
    messages::{self, Messages},
    now, number,
};

/// A peer is told after so long how far this site is, if that has changed without anything to acknowledge.
const TELL: Duration = Duration::from_secs(1);

/// Works all streams that peers open.
pub(super) async fn receive(mut opened: mpsc::Receiver<Opened>, shared: Shared) {
    let mut streams = JoinSet::new();
    let mut current: BTreeMap<String, tokio::task::AbortHandle> = BTreeMap::new();
    while let Some(opened) = opened.recv().await {
        while streams.try_join_next().is_some() {}
        let (peer, shared) = (opened.peer.clone(), shared.clone());
        let handle = streams.spawn(async move {
            let peer = opened.peer.clone();
            let mut paused = shared.paused.subscribe();
            let why = tokio::select! {
                biased;
                _ = paused.wait_for(|paused| *paused) => PAUSED.to_owned(),
                why = session(opened, &shared) => why,
            };
            tracing::debug!(peer, "stopped receiving changes: {why}");
            shared.sessions.refused(&peer, why);
        });
        if let Some(before) = current.insert(peer, handle) {
            before.abort();
        }
    }
}

/// Receives on one stream until something goes wrong, and says what.
async fn session(opened: Opened, shared: &Shared) -> String {
    match Receiver::start(opened, shared).await {
        Ok(receiver) => receiver.run().await,
        Err(why) => why,
    }
}

struct Receiver<'a> {
    opened: Opened,
    messages: Messages,
    shared: &'a Shared,
    groups: watch::Receiver<u64>,
    told: Report,
}

impl<'a> Receiver<'a> {
    async fn start(mut opened: Opened, shared: &'a Shared) -> Result<Self, String> {
        let groups = shared.groups.subscribe();
        let mut messages = Messages::default();
        let Some(Message::Hello(hello)) = messages.receive(&mut opened.frames.receiver).await? else {
            return Err("the peer did not say how far it is".to_owned());
        };
        let site = number(&opened.peer);
        if hello.site != site {
            return Err(format!("the greeting is not {}'s", opened.peer));
        }
        let told = shared
            .database
            .run(move |store| {
                store.heard(&hello)?;
                store.report(site)
            })
            .await
            .map_err(|error| error.to_string())?;
        messages::send(&mut opened.frames.sender, &Message::Hello(told.clone())).await?;
        Ok(Self { opened, messages, shared, groups, told })
    }

    /// Receives until something goes wrong, and says what.
    async fn run(mut self) -> String {
        let mut due = Instant::now() + TELL;
        loop {
            let step = tokio::select! {
                message = self.messages.receive(&mut self.opened.frames.receiver) => match message {
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
        self.shared.groups.send_if_modified(|last| std::mem::replace(last, group) != group);
        match received {
            Received::Kept => Ok(()),
            Received::Gap => Err("something in between is missing".to_owned()),
            Received::Applied { conflicts, .. } => {
                self.shared.applied.send_modify(|count| *count += 1);
                if conflicts > 0 {
                    tracing::warn!(
                        peer = self.opened.peer,
                        conflicts,
                        "changes were in conflict; see: siteswap db conflicts"
                    );
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
        self.groups.borrow_and_update();
        let site = number(&self.opened.peer);
        let report =
            self.shared.database.run(move |store| store.report(site)).await.map_err(|error| error.to_string())?;
        if report != self.told {
            messages::send(&mut self.opened.frames.sender, &Message::Report(report.clone())).await?;
            self.told = report;
        }
        Ok(())
    }
}
