//! Shared by the XDP program and the agent: map layouts, wire formats, and the decisions of the data plane as pure
//! functions over a packet trait, so that the host runs, tests and fuzzes exactly what the kernel runs.
#![cfg_attr(not(test), no_std)]

pub mod maps;
