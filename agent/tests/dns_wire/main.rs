//! What the agent's name server says on the wire: one module per concern, tests named after the RFC section or rule they
//! show. All but `sockets` call the pure `respond`; `sockets` goes through loopback.

mod edns;
mod header;
mod program_bytes;
mod properties;
mod size;
mod sockets;
mod support;
mod zone_data;
mod zone_files;
