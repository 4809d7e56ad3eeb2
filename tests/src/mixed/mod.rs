//! Applications that write a site's database whatever happens to the agents, and remember what they have committed; and
//! what both databases should hold in the end, computed from those memories alone.
//!
//! Transactions are mixed: rows of a site's own and rows that both sites write, composite keys, BLOBs, NULLs, foreign
//! keys, UNIQUE columns, quoted names, REPLACE and cascades, in the tables of `shop.sql`.

mod dice;
mod expected;
mod log;
mod session;
mod writer;

use std::path::PathBuf;

use anyhow::Result;

pub use self::{
    dice::Dice,
    expected::{Clocks, Expected},
    log::{Contents, Log, contents},
};
use crate::steady::Steady;

/// A site's application.
#[derive(Clone, Debug)]
pub struct Application {
    /// The site, as its orders name it.
    pub site: &'static str,
    /// The site's database.
    pub file: PathBuf,
    /// What it does follows from this.
    pub seed: u64,
    /// Transactions a second.
    pub rate: u32,
    /// So many milliseconds its clock is ahead of the real one, or behind, if below zero.
    pub clock_error: i64,
}

impl Application {
    /// Writes until it is told to finish.
    ///
    /// # Errors
    /// `finish` says that the database refused what it should not.
    pub fn write(self) -> Steady<Log> {
        Steady::start(move |progress| writer::run(&self, progress))
    }

    /// Writes so many transactions, and comes back.
    ///
    /// # Errors
    /// The database refuses what it should not.
    pub fn write_some(self, transactions: usize) -> Result<Log> {
        writer::run_some(&self, transactions)
    }
}
