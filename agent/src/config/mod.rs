//! The configuration file: what it may say, and what is said about it when it is wrong.

mod fingerprint;
mod model;

pub use fingerprint::InvalidFingerprint;
pub use model::*;
