//! The `siteswap` command.

fn main() -> std::process::ExitCode {
    siteswap::cli::main()
}
