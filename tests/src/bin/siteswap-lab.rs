//! The lab by hand, and the small servers that run in it.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use lab::{BY_HAND, Lab, Options, data::Data, shop::Shop};

/// Two data centres, a WAN and users on this machine, in network namespaces.
#[derive(Parser)]
#[command(
    version,
    after_help = "By hand:\n  \
    siteswap-lab up\n  \
    siteswap-lab exec client-e -- dig @192.0.2.2 www.shop.test\n  \
    siteswap-lab exec client-e -- curl -s --resolve www.shop.test:80:192.0.2.80 http://www.shop.test/\n  \
    siteswap-lab exec client-e -- curl -s -d article=cups -d quantity=6 http://192.0.2.80/orders\n  \
    siteswap-lab kill east-web1; siteswap-lab kill east-web2    # and ask again\n  \
    siteswap-lab start east-web1\n  \
    siteswap-lab cut link; siteswap-lab mend link\n  \
    siteswap-lab down"
)]
struct Arguments {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand)]
enum Commands {
    /// Put the lab up; return when both agents are ready
    Up {
        /// Print what is up as JSON
        #[arg(long)]
        json: bool,
        /// Without the agents: the network, the shops and the data tier
        #[arg(long)]
        without_agents: bool,
    },
    /// Take it down, with everything that belongs to it, also if only half of it is up
    Down,
    /// Nodes, processes and what the agents say
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a command on a node
    Exec {
        /// Such as client-e, east or west-web1
        node: String,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Kill a node's process with SIGKILL: a web server's, a data tier's, or an edge's agent
    Kill {
        /// Such as east-web1, west-db or east
        node: String,
    },
    /// Start a node's process again
    Start {
        /// Such as east-web1, west-db or east
        node: String,
    },
    /// Cut a cable: `link` between the sites, or the one to a client, a site, its LAN (`east-lan`) or a host
    Cut {
        /// Such as link, west or east-db
        cable: String,
    },
    /// Mend a cable
    Mend {
        /// Such as link, west or east-db
        cable: String,
    },
    /// A whole demonstration: up, queries and pages, failures and recoveries, down
    Demo,
    /// Run a web server of the shop
    #[command(hide = true)]
    Shop {
        #[arg(long)]
        site: String,
        #[arg(long)]
        name: String,
        #[arg(long)]
        orders: SocketAddr,
        #[arg(long)]
        accounts: SocketAddr,
        #[arg(long)]
        database: SocketAddr,
        #[arg(long, required = true)]
        listen: Vec<SocketAddr>,
    },
    /// Run a data tier
    #[command(hide = true)]
    Data {
        #[arg(long)]
        name: String,
        #[arg(long)]
        site: String,
        #[arg(long)]
        db: PathBuf,
        #[arg(long, required = true)]
        listen: Vec<SocketAddr>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Commands) -> Result<ExitCode> {
    match command {
        Commands::Up { json, without_agents } => up(json, !without_agents)?,
        Commands::Down => {
            let found = Lab::remove(BY_HAND)?;
            println!("{}", if found { "the lab is down" } else { "the lab was not up" });
        }
        Commands::Status { json } => lab::show(&Lab::attach(BY_HAND)?, json)?,
        Commands::Exec { node, command } => return exec(&node, &command),
        Commands::Kill { node } => Lab::attach(BY_HAND)?.kill(&node)?,
        Commands::Start { node } => Lab::attach(BY_HAND)?.start(&node)?,
        Commands::Cut { cable } => Lab::attach(BY_HAND)?.cut(&cable)?,
        Commands::Mend { cable } => Lab::attach(BY_HAND)?.mend(&cable)?,
        Commands::Demo => return lab::demo::run(),
        Commands::Shop { site, name, orders, accounts, database, listen } => {
            serve(Shop { site, name, orders, accounts, database }.serve(&listen))?;
        }
        Commands::Data { name, site, db, listen } => serve(Data { name, site, file: db }.serve(&listen))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn up(json: bool, agents: bool) -> Result<()> {
    let progress: fn(&str) = if json { |_| {} } else { |what| println!("{what}") };
    let lab = Lab::up(&Options { prefix: Some(BY_HAND.into()), agents, keep: true, progress, ..Options::default() })?;
    lab::show(&lab, json)
}

fn exec(node: &str, command: &[String]) -> Result<ExitCode> {
    let node = Lab::attach(BY_HAND)?.node(node)?;
    let status = node.command(&command[0])?.args(&command[1..]).status();
    let status = status.with_context(|| format!("{}: cannot run {}", node.name(), command[0]))?;
    Ok(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1).into())
}

fn serve(service: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(service)
}
