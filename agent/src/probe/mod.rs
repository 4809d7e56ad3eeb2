//! Skeleton.
use std::{net::SocketAddr, time::Instant};
/// A change.
#[derive(Clone, Debug)]
pub struct ProbeEvent {
    /// A
    pub resource: String,
    /// A
    pub backend: SocketAddr,
    /// A
    pub up: bool,
    /// A
    pub detail: String,
    /// A
    pub at: Instant,
}
