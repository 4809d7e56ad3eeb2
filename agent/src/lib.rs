//! The siteswap agent.
//!
//! Arrows point one way: `probe` and `link` measure, `evidence` holds what they found, `placement` decides, and
//! `answers` carries the decision to `dataplane` and `dns`. `control` shows and steers all of it.

pub mod answers;
pub mod cli;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod decision;
pub mod dns;
pub mod doctor;
pub mod evidence;
pub mod link;
pub mod maglev;
pub mod nexthop;
pub mod placement;
pub mod probe;
pub mod replication;
pub mod run;
pub mod state;
pub mod steering;
