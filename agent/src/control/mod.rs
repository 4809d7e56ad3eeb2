//! The local control socket: HTTP and JSON over a Unix socket.

pub mod api;
pub mod client;
mod explain;
pub mod server;

pub use explain::explain;
