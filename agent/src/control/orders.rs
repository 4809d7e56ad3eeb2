//! Orders that take a while: a swap and a drain, from the order until the other sites have followed. Each runs in the task
//! of its request. Whoever gave the order may go away at any moment: the loop has done all of a step, or nothing.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use tokio::time::timeout;

use super::{
    api::{Drain, Drained, InstanceRow, Step, StepKind, Swap, Swapped},
    server::{Asking, Command, Loop},
};
use crate::{link::message::Response, placement::State};

/// Has a site take a resource, and waits until the others have adopted that. `None`: the agent is stopping.
pub(super) async fn swap(mut agent: Loop, order: Swap) -> Option<Result<Swapped, String>> {
    let (began, wait) = (Instant::now(), Duration::from_millis(order.wait_ms));
    let Asking { to, holder, answer } = match agent.ask(|reply| Command::Swap(order.clone(), reply)).await? {
        Ok(asking) => asking,
        Err(refusal) => return Some(Err(refusal)),
    };
    let response = match answer.await.ok()? {
        Ok(response) => response,
        Err(refusal) => return Some(Err(refusal)),
    };
    let mut swapped = Swapped {
        resource: order.resource,
        to,
        holder,
        epoch: 0,
        already: false,
        steps: vec![],
        waiting: vec![],
        absent: vec![],
        behind: vec![],
    };
    let (epoch, stored, published, caught_up) = match response {
        Response::Taken { epoch, stored, published, caught_up, behind } => {
            swapped.behind = behind;
            (epoch, stored, published, caught_up)
        }
        Response::Holds(epoch) => {
            swapped.already = true;
            (epoch, Duration::ZERO, Duration::ZERO, None)
        }
        Response::Refused(reason) => return Some(Err(reason)),
        Response::Drained
        | Response::Yielded(_)
        | Response::Resumed
        | Response::BeforeFence { .. }
        | Response::Fenced(_) => {
            return Some(Err(format!("{} answered another question", swapped.to)));
        }
    };
    let (known, there) = (Instant::now(), stored + published + caught_up.unwrap_or_default());
    swapped.epoch = epoch;
    let steps = [
        Some((StepKind::Asked, (known - began).saturating_sub(there))),
        caught_up.map(|took| (StepKind::CaughtUp, took)),
        Some((StepKind::Taken, stored)).filter(|_| !swapped.already),
        Some((StepKind::Published, published)).filter(|_| !swapped.already),
    ];
    swapped.steps.extend(steps.into_iter().flatten().map(|(step, took)| Step {
        step,
        site: swapped.to.clone(),
        micros: micros(took),
    }));

    let deadline = tokio::time::Instant::from_std(began + wait);
    let mut lost = None;
    let following = follow(&mut agent, |rows| {
        swapped.adopted(rows, known.elapsed());
        lost = swapped.lost(rows);
        swapped.waiting.is_empty() || lost.is_some()
    });
    within(deadline, following).await?;
    let Swapped { resource, to, epoch, .. } = &swapped;
    Some(match lost {
        Some(other) => Err(format!("{to} began epoch {epoch} of {resource}, but another order has won: {other}")),
        None => Ok(swapped),
    })
}

/// Drains a site or takes that back, and waits until what it held has moved. `None`: the agent is stopping.
pub(super) async fn drain(mut agent: Loop, order: Drain) -> Option<Result<Drained, String>> {
    let deadline = tokio::time::Instant::now() + Duration::from_millis(order.wait_ms);
    let before = agent.ask(Command::Instances).await?;
    if let Err(refusal) = agent.ask(|reply| Command::Drain(order.clone(), reply)).await? {
        return Some(Err(refusal));
    }
    let mut drained = Drained::default();
    if order.drained {
        let following = follow(&mut agent, |rows| {
            let known = rows.iter().any(|row| row.site == order.site && row.drained);
            drained = moved(&order.site, &before, rows);
            drained.waiting.is_empty() && (known || before.iter().all(|row| row.site != order.site))
        });
        within(deadline, following).await?;
    }
    Some(Ok(drained))
}

/// Looks at the rows now and whenever the loop has acted, until `done`. `None`: the agent is stopping.
async fn follow(agent: &mut Loop, mut done: impl FnMut(&[InstanceRow]) -> bool) -> Option<()> {
    loop {
        agent.acted.mark_unchanged();
        let rows = agent.ask(Command::Instances).await?;
        if done(&rows) {
            return Some(());
        }
        agent.acted.changed().await.ok()?;
    }
}

/// The first look may take so long, whatever the deadline is.
const LOOK: Duration = Duration::from_secs(1);

/// What was seen until the deadline is enough; once it is looked in any case.
async fn within(deadline: tokio::time::Instant, following: impl Future<Output = Option<()>>) -> Option<()> {
    let left = deadline.saturating_duration_since(tokio::time::Instant::now());
    timeout(left.max(LOOK), following).await.unwrap_or(Some(()))
}

impl Swapped {
    /// Takes in who has adopted it by now, `since` it was known to be taken.
    fn adopted(&mut self, rows: &[InstanceRow], since: Duration) {
        let others = rows.iter().filter(|row| row.resource == self.resource && row.site != self.to);
        let (here, away): (Vec<_>, Vec<_>) = others.partition(|row| row.contact);
        // Of two that have taken it in the same epoch, by orders given at the same moment, one gives it up again.
        let knows = |row: &&InstanceRow| row.epoch >= self.epoch && self.agrees(row);
        let (adopted, waiting): (Vec<_>, Vec<_>) = here.into_iter().partition(knows);
        let names = |rows: Vec<&InstanceRow>| rows.into_iter().map(|row| row.site.clone()).collect();
        (self.waiting, self.absent) = (names(waiting), names(away));
        for row in adopted {
            if !self.steps.iter().any(|step| step.step == StepKind::Adopted && step.site == row.site) {
                let (step, site) = (StepKind::Adopted, row.site.clone());
                self.steps.push(Step { step, site, micros: micros(since) });
            }
        }
    }

    /// What holds instead, once the site that was asked has given it up again.
    fn lost(&self, rows: &[InstanceRow]) -> Option<String> {
        let own = rows.iter().find(|row| row.resource == self.resource && row.site == self.to)?;
        let lost = own.epoch >= self.epoch && !self.agrees(own);
        lost.then(|| match &own.holder {
            Some(holder) => format!("{holder} holds it now"),
            None => "its roles are as configured now".to_owned(),
        })
    }

    /// Whether this is the holder that was ordered. One that held it before may do so by configuration, without a word.
    fn agrees(&self, row: &InstanceRow) -> bool {
        self.already || row.holder == self.holder
    }
}

/// What became of the resources that were active at `site` `before`.
fn moved(site: &str, before: &[InstanceRow], now: &[InstanceRow]) -> Drained {
    let mut drained = Drained::default();
    for held in before.iter().filter(|row| row.site == site && row.state == State::Active) {
        let resource = held.resource.clone();
        let rows = || now.iter().filter(|row| row.resource == held.resource);
        let others = || rows().filter(|row| row.site != site && row.available && !row.drained);
        let taken = others().any(|row| row.holder.as_ref() == Some(&row.site));
        match rows().find(|row| row.site == site) {
            Some(own) if own.state != State::Active => {
                drained.moved.insert(resource, own.holder.clone().unwrap_or_default());
            }
            // Others are active beside it: there is nothing to move.
            _ if !taken && others().any(|row| row.state == State::Active) => {}
            _ if others().next().is_some() => drained.waiting.push(resource),
            _ => drop(drained.stays.insert(resource, "no other site is available".to_owned())),
        }
    }
    drained
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(resource: &str, site: &str, state: State, epoch: u64) -> InstanceRow {
        InstanceRow {
            resource: resource.to_owned(),
            site: site.to_owned(),
            state,
            holder: None,
            epoch,
            available: true,
            drained: false,
            contact: true,
            why: String::new(),
            since: None,
        }
    }

    fn swapped() -> Swapped {
        Swapped {
            resource: "orders".to_owned(),
            to: "west".to_owned(),
            holder: Some("west".to_owned()),
            epoch: 4,
            already: false,
            steps: vec![],
            waiting: vec![],
            absent: vec![],
            behind: vec![],
        }
    }

    #[test]
    fn of_two_swaps_in_one_epoch_one_wins_and_the_other_is_told_so() {
        let mut swapped = swapped();
        let mut rows = [row("orders", "east", State::Active, 4), row("orders", "west", State::Active, 4)];
        for (row, holder) in rows.iter_mut().zip(["east", "west"]) {
            row.holder = Some(holder.to_owned());
        }
        swapped.adopted(&rows, Duration::ZERO);
        assert_eq!(swapped.waiting, ["east"], "the same epoch is not enough");
        assert_eq!(swapped.lost(&rows), None, "it is not decided yet");
        let mut won = rows.clone();
        won[0].holder = Some("west".to_owned());
        swapped.adopted(&won, Duration::ZERO);
        assert!(swapped.waiting.is_empty() && swapped.lost(&won).is_none());
        rows[1].holder = Some("east".to_owned());
        assert_eq!(swapped.lost(&rows).as_deref(), Some("east holds it now"));
        rows[1].holder = None;
        assert_eq!(swapped.lost(&rows).as_deref(), Some("its roles are as configured now"));
        swapped.holder = None;
        assert_eq!(swapped.lost(&rows), None, "that was the order");
        swapped.adopted(&rows, Duration::ZERO);
        assert_eq!(swapped.waiting, ["east"]);
    }

    #[test]
    fn who_holds_it_by_configuration_has_nothing_to_wait_for() {
        let mut swapped = Swapped { epoch: 0, already: true, ..swapped() };
        let rows = [row("orders", "east", State::Standby, 0), row("orders", "west", State::Active, 0)];
        swapped.adopted(&rows, Duration::ZERO);
        assert!(swapped.waiting.is_empty() && swapped.lost(&rows).is_none());
    }

    #[test]
    fn a_swap_is_over_when_all_in_contact_report_the_new_epoch() {
        let mut swapped = swapped();
        let mut rows = [
            row("orders", "east", State::Active, 3),
            row("orders", "north", State::Standby, 3),
            row("orders", "west", State::Active, 4),
            row("www", "east", State::Active, 0),
        ];
        rows[..3].iter_mut().for_each(|row| row.holder = Some("west".to_owned()));
        rows[1].contact = false;
        swapped.adopted(&rows, Duration::from_micros(5));
        assert_eq!((&swapped.waiting[..], &swapped.absent[..]), (&["east".to_owned()][..], &["north".to_owned()][..]));
        assert!(swapped.steps.is_empty());
        rows[0].epoch = 4;
        for micros in [7, 9] {
            swapped.adopted(&rows, Duration::from_micros(micros));
        }
        assert!(swapped.waiting.is_empty());
        assert_eq!(swapped.steps, [Step { step: StepKind::Adopted, site: "east".to_owned(), micros: 7 }], "once");
    }

    #[test]
    fn a_drain_says_what_has_moved_what_stays_and_what_could_still_move() {
        let before = [
            row("accounts", "east", State::Active, 0),
            row("accounts", "west", State::Standby, 0),
            row("orders", "east", State::Active, 0),
            row("orders", "west", State::Standby, 0),
            row("mail", "east", State::Active, 0),
            row("mail", "west", State::Standby, 0),
            row("www", "east", State::Active, 0),
            row("www", "west", State::Active, 0),
        ];
        let mut now = before.clone();
        (now[0].state, now[1].state) = (State::Standby, State::Active);
        now[0].holder = Some("west".to_owned());
        now[3].available = false;
        let drained = moved("east", &before, &now);
        assert_eq!(drained.moved, [("accounts".to_owned(), "west".to_owned())].into());
        assert_eq!(drained.stays, [("orders".to_owned(), "no other site is available".to_owned())].into());
        assert_eq!(drained.waiting, ["mail"], "www is active at west already");

        (now[5].state, now[5].holder) = (State::Active, Some("west".to_owned()));
        assert_eq!(moved("east", &before, &now).waiting, ["mail"], "east has not adopted it yet");
        (now[4].state, now[4].holder) = (State::Standby, Some("west".to_owned()));
        assert_eq!(moved("east", &before, &now).moved["mail"], "west");
    }
}
