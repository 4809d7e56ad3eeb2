//! The configuration file: what it may say, and what is said about it when it is wrong.

mod model;

pub use model::*;
