//! Skeleton.
use crate::evidence::Report;
use std::time::Instant;
/// What the link found.
#[derive(Clone, Debug)]
pub enum LinkEvent {
    /// A
    Contact {
        /// A
        peer: String,
        /// A
        contact: bool,
        /// A
        at: Instant,
        /// A
        reason: String,
    },
    /// B
    Report {
        /// A
        peer: String,
        /// A
        report: Report,
    },
}
