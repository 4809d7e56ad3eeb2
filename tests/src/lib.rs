//! Skeleton.

pub mod program;
