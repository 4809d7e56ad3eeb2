//! The lab: two whole sites in network namespaces, real web servers and databases in them, and a WAN with clients.
//!
//! [`Lab::up`] makes one; dropping it takes everything down. Each lab has a prefix of its own, so that several can stand
//! side by side; the one made by hand uses `ssw-`.

mod bare;
pub mod data;
pub mod demo;
pub mod dns;
pub mod fetch;
pub mod files;
mod lab;
pub mod links;
pub mod mixed;
pub mod netns;
pub mod plan;
mod process;
pub mod program;
pub mod shop;
mod show;
mod stale;
pub mod steady;
mod stub;
mod wait;

pub use bare::Bare;
pub use lab::{Agent, BY_HAND, Conflict, Disk, FAMILIES, Lab, Node, Options, Waiting};
pub use process::{Identity, Process};
pub use show::show;
pub use wait::wait_until;
