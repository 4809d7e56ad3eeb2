//! The local control socket: HTTP and JSON over a Unix socket.

pub mod api;
pub mod client;
mod explain;
mod instances;
mod orders;
pub mod server;

pub use explain::explain;
pub use instances::instances;
