//! The XDP program under test: frames to give it, the program in the kernel and its logic on the host, and an
//! independent reading of what it sends.

pub mod decode;
pub mod fixtures;
pub mod frames;
pub mod generator;
pub mod host;
pub mod kernel;
pub mod queue;
pub mod requests;
pub mod stopwatch;
pub mod table;

use siteswap_common::outcome::{Action, Outcome};

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What the driver is told.
    pub action: Action,
    /// Which counters rose, and by how much.
    pub counted: Vec<(Outcome, u64)>,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

impl Verdict {
    /// The one outcome that was counted.
    ///
    /// # Panics
    ///
    /// If none was, or several.
    pub fn outcome(&self) -> Outcome {
        match self.counted[..] {
            [(outcome, 1)] => outcome,
            _ => panic!("not one counter rose by one: {:?}", self.counted),
        }
    }
}
