//! `cargo xtask`: everything one does with this repository, each as one command.

mod mutations;
mod setup;
mod tasks;
mod terminal;
mod toolchain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets up, builds, runs and tests siteswap.
///
/// `cargo xtask run` is the place to start: it installs what this machine lacks, builds, starts two whole sites in
/// network namespaces, shows them answering and failing over, and cleans up after itself.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building, running and testing need and this machine lacks.
    ///
    /// Says what it is about to install and why, and which route gave the compiler of the XDP program: `rustup`
    /// (nightly with rust-src) or `debian` (rustc-web, with a prebuilt core). SITESWAP_TOOLCHAIN=rustup or =debian
    /// forces one. Nothing is done twice; where nothing lacks it takes a second. Packages come from apt; bpf-linker is
    /// built into target/tools. Installing needs root.
    Setup {
        /// Only report. The exit code is 1 if something lacks.
        #[arg(long)]
        check: bool,
        /// What `bench` needs too: Knot DNS and gdnsd, to compare with. Neither is started.
        #[arg(long)]
        bench: bool,
    },
    /// Build the agent with its XDP program, and the lab.
    Build {
        /// With optimisations, as for a real host.
        #[arg(long)]
        release: bool,
    },
    /// Show two sites at work in network namespaces, or run the agent on this host.
    ///
    /// Without arguments: the lab's demonstration, which cleans up after itself.
    /// With `-- --config FILE`: the agent on this host, with that configuration, until Ctrl-C.
    /// Sets up and builds first. Needs root.
    Run {
        /// Arguments for `siteswap run`, after `--`.
        #[arg(last = true, value_name = "ARGUMENTS")]
        arguments: Vec<String>,
    },
    /// Run every test, those in network namespaces too.
    ///
    /// Sets up and builds first. Needs root.
    Test {
        /// Only tests whose name contains this.
        filter: Option<String>,
    },
    /// Take parts out of the replication, one at a time, and see whether the tests notice.
    ///
    /// Each mutation is a small edit of the crate's source: no gap check, no image of deleted rows. It is made in a copy in
    /// target/mutations, from which nothing else is built, and the test that guards the part must fail there. Prints a table;
    /// the exit code is 1 if a mutation goes unnoticed. What the tests said is in target/mutations/NAME.log.
    /// All of them take some minutes, so `test` does not make them; it does check that each still can be made. Needs no root.
    Mutations {
        /// Only these. Without names: all.
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Only say what there is to take out, and which test should notice.
        #[arg(long)]
        list: bool,
    },
    /// Work the lab by hand: two sites, a WAN between them, and clients.
    ///
    /// The nodes are `wan`, `client-e`, `client-w`, `east`, `west`, `east-web1`, `east-web2`, `west-web1`,
    /// `west-web2`, `east-db` and `west-db`. Needs root, and `cargo xtask setup` once.
    Lab {
        /// `up`, `down`, `status`, `exec NODE -- COMMAND`, `kill NODE`, `start NODE`, `cut CABLE`, `mend CABLE`; `help`
        /// teaches them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "ACTION")]
        arguments: Vec<String>,
    },
    /// Measure: the program's time per answer, replies per second beside other name servers, failover, the idle agent, and
    /// the table of backends.
    ///
    /// Sets up (Knot DNS and gdnsd too) and builds with optimisations first. Needs root.
    Bench {
        /// Only this measurement. Without it: all.
        name: Option<String>,
        /// Print the figures as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check the formatting, and run clippy on everything, the XDP program included; any warning is an error.
    Lint,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Setup { check: true, bench } => setup::check(bench),
        Task::Setup { check: false, bench } => setup::install(bench).map(|()| ExitCode::SUCCESS),
        Task::Build { release } => tasks::build(release),
        Task::Run { arguments } => tasks::run(arguments),
        Task::Test { filter } => tasks::test(filter),
        Task::Mutations { list: true, .. } => Ok(mutations::list()),
        Task::Mutations { names, list: false } => mutations::run(&names),
        Task::Lab { arguments } => tasks::lab(arguments),
        Task::Bench { name, json } => tasks::bench(name, json),
        Task::Lint => tasks::lint(),
    };
    result.unwrap_or_else(|error| {
        terminal::error(&error);
        ExitCode::FAILURE
    })
}
