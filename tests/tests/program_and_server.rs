//! Wherever the program answers, the agent's server would have sent the same message, byte for byte.

use std::{collections::BTreeMap, fs, net::IpAddr, sync::Arc};

use anyhow::{Context, Result};
use lab::program::{
    decode,
    frames::{A, AAAA, Datagram, Opt, Query, SERVER_V4, SERVER_V6, V4, V6},
    kernel::Kernel,
    table::Table,
};
use siteswap::{
    answers::{AnswerSet, AnswerTable},
    config, decision,
    dns::{Transport, Zones, respond},
};
use siteswap_common::outcome::Action;

/// Names of both parities, short and as long as the program knows, each with this many addresses of each family.
fn names() -> Vec<(String, u8)> {
    let long = format!("{0}.{0}.{1}.shop.test", "l".repeat(50), "m".repeat(14));
    let given = [("w.shop.test", 1), ("ww.shop.test", 2), ("www.shop.test", 3), ("eight.shop.test", 8)];
    let mut names: Vec<(String, u8)> = given.map(|(name, count)| (name.to_owned(), count)).into();
    names.push((long, 2));
    names
}

fn v4(count: u8) -> Vec<[u8; 4]> {
    (0..count).map(|n| [192, 0, 2, 80 + n]).collect()
}

fn v6(count: u8) -> Vec<[u8; 16]> {
    (0..count).map(|n| [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0x80, 0, 0, 0, 0, 0, 0, 0xff, 0x80 + n]).collect()
}

/// What the server answers from, made the agent's way: from a configuration and a zone file.
fn server() -> Result<(Zones, AnswerTable, tempfile::TempDir)> {
    let directory = tempfile::tempdir()?;
    let zone =
        "$ORIGIN shop.test.\n@ 60 IN SOA ns1 hostmaster 1 3600 600 604800 60\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.2\n";
    fs::write(directory.path().join("zone"), zone)?;
    let mut text = r#"agent = { site = "only" }
sites.only = { link = "127.0.0.1:7400", fingerprint = "sha256:0000000000000000000000000000000000000000000000000000000000000001" }
link = { key = "key.pem" }
dns = { listen = ["192.0.2.2"], zone = [{ name = "shop.test", file = "zone" }] }
"#
    .to_owned();
    for (index, (name, _)) in names().iter().enumerate() {
        text += &format!(
            "[resources.r{index}]\ndomains = [\"{name}\"]\nprobe = {{ tcp = true }}\n[resources.r{index}.sites.only]\n\
             role = \"active\"\naddresses = [\"198.51.100.{index}\"]\nbackends = [\"10.1.0.{index}:80\"]\n"
        );
    }
    let config = config::parse(&text, &directory.path().join("siteswap.toml"))?;
    let zones = Zones::load(&config.dns.zones, &config.resources)?;
    let sets = names().into_iter().enumerate().map(|(index, (_, count))| AnswerSet {
        resource: format!("r{index}"),
        ttl: 20,
        addresses: v4(count).into_iter().map(IpAddr::from).chain(v6(count).into_iter().map(IpAddr::from)).collect(),
        all_down: None,
    });
    let table = AnswerTable { names: decision::names(&config), sets: sets.collect() };
    let unique: BTreeMap<_, _> = table.names.iter().collect();
    assert_eq!(unique.len(), names().len());
    Ok((zones, AnswerTable { names: Arc::clone(&table.names), ..table }, directory))
}

fn kernel() -> Result<Kernel> {
    let mut table = Table::new(&[SERVER_V4], &[SERVER_V6]);
    for (name, count) in names() {
        table.add(&name, 20, &v4(count), &v6(count));
    }
    Kernel::new(&table)
}

/// The query plainly, with recursion wanted and flags to ignore, in mixed case, and with EDNS in every form that the
/// program answers.
fn variants(name: &str, kind: u16) -> Vec<Query> {
    let mixed: String =
        name.chars().enumerate().map(|(n, c)| if n % 2 == 0 { c.to_ascii_uppercase() } else { c }).collect();
    let dnssec_ok = Opt { flags: 0x8000, ..Opt::default() };
    let cookie = Opt::default().option(10, &[1, 2, 3, 4, 5, 6, 7, 8]);
    vec![
        Query::new(name, kind),
        Query::new(name, kind).flags(0x0100),
        Query::new(name, kind).flags(0x07f0),
        Query::new(&mixed, kind),
        Query::new(&mixed, kind).edns(&Opt::default()),
        Query::new(name, kind).edns(&dnssec_ok),
        Query::new(name, kind).edns(&cookie),
    ]
}

#[test]
fn the_program_and_the_agents_server_send_the_same_bytes() -> Result<()> {
    let (zones, table, _directory) = server()?;
    let kernel = kernel()?;
    let mut compared = 0;
    for (name, _) in names() {
        for kind in [A, AAAA] {
            for query in variants(&name, kind) {
                let wire = query.wire();
                let expected = respond(&wire, Transport::Udp, &zones, &table).context("the server is silent")?.bytes;
                for addresses in [V4, V6] {
                    let verdict = kernel.run(&Datagram::new(addresses, &wire).frame())?;
                    assert_eq!(verdict.action, Action::Transmit, "{name} {kind} {wire:02x?}");
                    assert_eq!(
                        decode::Packet::read(&verdict.frame)?.udp[8..],
                        expected[..],
                        "{name} {kind} {wire:02x?}"
                    );
                    compared += 1;
                }
            }
        }
    }
    assert_eq!(compared, 5 * 2 * 7 * 2);
    Ok(())
}
