//! Shared by the XDP program and the agent: map layouts, wire formats, and the decisions of the data plane as pure
//! functions over a packet trait, so that the host runs, tests and fuzzes exactly what the kernel runs.
#![cfg_attr(not(test), no_std)]

#[cfg(any(test, feature = "user"))]
extern crate alloc;

pub mod answer;
pub mod answers;
pub mod checksum;
#[cfg(any(test, feature = "user"))]
pub mod frame;
pub mod maps;
pub mod name;
pub mod network;
pub mod outcome;
pub mod packet;
pub mod placing;
pub mod query;
mod reply;
pub mod steer;
