//! The `siteswap` command.
fn main() {}
