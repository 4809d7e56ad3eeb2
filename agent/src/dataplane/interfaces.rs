//! The interfaces that the program is to be on, as they come and go. One that was made again (its driver was loaded
//! again, a bond or VLAN was set up again) has another index than before, and no program.

use std::time::{Duration, Instant};

use aya::programs::Xdp;

use super::{
    attach::{self, Attachment, Place},
    error::Error,
    pins::Pins,
};
use crate::config::{self, Mode};

/// How long an interface that refused the program is left alone: its driver may log every try.
const RETRY: Duration = Duration::from_secs(30);

/// All of them, in the configuration's order.
#[derive(Debug)]
pub struct Interfaces {
    all: Vec<(String, State)>,
    mode: Mode,
    /// Of those that have the program.
    attachment: Attachment,
}

/// How one of them is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// It keeps the program it has until this one is put on.
    Waiting,
    /// The program is on the interface with this index.
    On(u32),
    /// The host has no such interface.
    Missing,
    /// It did not take the program.
    Refused { why: String, tried: Instant },
}

impl Interfaces {
    /// All of them, as they are.
    pub fn new(config: &config::Dataplane) -> Self {
        let all = config.interfaces.iter().map(|interface| (interface.clone(), State::Waiting)).collect();
        Self { all, mode: config.mode, attachment: Attachment::Native }
    }

    /// Whether the program is still to be put on them.
    pub fn wait(&self) -> bool {
        self.all.iter().any(|(_, state)| *state == State::Waiting)
    }

    /// Puts `program` on all of them that the host has, and takes it off all others. The system may start the agent before
    /// its interfaces.
    pub fn start(&mut self, program: &mut Xdp, pins: &Pins) -> Result<(), Error> {
        let places = attach::places(self.all.iter().map(|(interface, _)| interface));
        self.attachment = attach::attach(program, &places, self.mode, pins)?;
        for (interface, state) in &mut self.all {
            if let Some(place) = places.iter().find(|place| place.interface == *interface) {
                tracing::info!(interface, attachment = %self.attachment, "the program is attached");
                *state = State::On(place.index);
            } else {
                tracing::warn!(interface, "attached as soon as it appears: {}", Error::no_interface(interface));
                *state = State::Missing;
            }
        }
        if places.is_empty() {
            tracing::warn!(
                "the program is on no interface: the agent's own server answers what reaches it, until one appears"
            );
        }
        Ok(())
    }

    /// Puts `program` where it was, in place of another that was put there meanwhile.
    pub fn restore(&mut self, program: &mut Xdp, pins: &Pins) -> Result<(), Error> {
        if self.wait() {
            return Ok(());
        }
        self.attachment = attach::attach(program, &self.places(), self.mode, pins)?;
        Ok(())
    }

    /// Puts `program` on those that are there again, and leaves those alone that are as they were.
    pub fn follow(&mut self, program: &mut Xdp, pins: &Pins) {
        for nth in 0..self.all.len() {
            let (interface, state) = &self.all[nth];
            let interface = interface.clone();
            let index = attach::index(&interface);
            let as_it_was = match (state, index) {
                (State::Waiting, _) => true,
                (State::On(before), Some(now)) => *before == now,
                (State::Refused { tried, .. }, Some(_)) => tried.elapsed() < RETRY,
                (State::Missing, None) => true,
                _ => false,
            };
            match index {
                _ if as_it_was => {}
                Some(index) => self.attach(nth, Place { interface, index }, program, pins),
                None => {
                    tracing::warn!(interface, "the interface is gone, and the program with it, until it is back");
                    self.all[nth].1 = State::Missing;
                }
            }
        }
    }

    fn attach(&mut self, nth: usize, place: Place, program: &mut Xdp, pins: &Pins) {
        let (interface, index) = (place.interface.clone(), place.index);
        let before = std::mem::replace(&mut self.all[nth].1, State::Missing);
        let places: Vec<Place> = self.places().into_iter().chain([place]).collect();
        match attach::attach(program, &places, self.mode, pins) {
            Ok(attachment) => {
                tracing::info!(interface, %attachment, "the interface is there, and the program is attached to it");
                self.attachment = attachment;
                self.all[nth].1 = State::On(index);
            }
            Err(error) => {
                let why = error.to_string();
                if !matches!(&before, State::Refused { why: known, .. } if *known == why) {
                    tracing::error!(interface, "the interface has no program, tried again every {RETRY:?}: {why}");
                }
                self.all[nth].1 = State::Refused { why, tried: Instant::now() };
                // The others may have been put into another mode for it.
                if let Err(error) = self.restore(program, pins) {
                    tracing::error!("the program is not on all interfaces: {error}");
                }
            }
        }
    }

    /// Where the program is. An interface that went since it was looked after is none of these: no other should be refused
    /// because of it.
    fn places(&self) -> Vec<Place> {
        let on = |(interface, state): &(String, State)| {
            let index = attach::index(interface)?;
            (*state == State::On(index)).then(|| Place { interface: interface.clone(), index })
        };
        self.all.iter().filter_map(on).collect()
    }

    /// Those that have the program, with how.
    pub fn attachments(&self) -> Vec<(String, Attachment)> {
        self.places().into_iter().map(|place| (place.interface, self.attachment)).collect()
    }

    /// All of them: how the program is attached, or why it is not.
    pub fn status(&self) -> Vec<(String, String)> {
        let says = |state: &State| match state {
            State::Waiting => "none: an earlier program stays until the first answer".to_owned(),
            State::On(_) => self.attachment.to_string(),
            State::Missing => "missing".to_owned(),
            State::Refused { why, .. } => format!("none: {why}"),
        };
        self.all.iter().map(|(interface, state)| (interface.clone(), says(state))).collect()
    }
}
