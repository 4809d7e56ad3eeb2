//! What the lab writes to disk: configurations, zone, firewall rules, databases. The templates are in `assets/`, with
//! `@name@` where a value goes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use rusqlite::Connection;
use siteswap_replication::capture::{self, Wanted};

use crate::plan::{Public, SITES};

const SITE: &str = include_str!("../assets/site.toml");
const SHOP: &str = include_str!("../assets/shop.sql");
const ZONE: &str = include_str!("../assets/shop.test.zone");

/// Rules that lose exactly one datagram of the link, and count it.
pub const LOSE_ONE: &str = include_str!("../assets/lose-one.nft");

/// What distinguishes one lab's agents from another's.
pub struct Agents<'a> {
    /// The lab's directory.
    pub directory: &'a Path,
    /// Directory for the pins of both sites.
    pub pins: &'a Path,
    /// What the configurations end with, besides the usual.
    pub rules: &'a str,
    /// Fingerprints of both sites' keys, in the order of [`SITES`].
    pub fingerprints: [String; 2],
}

/// Writes the zone and both agents' configurations.
pub fn write_configurations(agents: &Agents) -> Result<()> {
    let Agents { directory, pins, rules, fingerprints } = agents;
    fs::write(directory.join("shop.test.zone"), ZONE)?;
    for site in SITES {
        let configuration = fill(
            SITE,
            &[
                ("site", site.name),
                ("dir", &directory.to_string_lossy()),
                ("pins", &pins.to_string_lossy()),
                ("dns4", &site.v4(Public::Dns).to_string()),
                ("dns6", &site.v6(Public::Dns).to_string()),
                ("fingerprint-east", &fingerprints[0]),
                ("fingerprint-west", &fingerprints[1]),
            ],
        )?;
        fs::write(directory.join(format!("{}.toml", site.name)), configuration + "\n" + rules)?;
        fs::create_dir_all(directory.join(site.name))?;
    }
    Ok(())
}

/// Makes a site's database with its first rows, the same at both sites, and lets triggers record what changes from now
/// on. `tables` is SQL for more than the shop has.
pub fn create_database(file: &Path, tables: &str) -> Result<()> {
    let mut database = Connection::open(file).with_context(|| format!("database {}", file.display()))?;
    database.execute_batch(SHOP).context("shop.sql")?;
    database.execute_batch(tables)?;
    let transaction = database.transaction()?;
    capture::attach(&transaction, Wanted::All)?;
    Ok(transaction.commit()?)
}

/// Where a site's database is.
pub fn database(directory: &Path, site: &str) -> PathBuf {
    directory.join(format!("{site}.db"))
}

/// Where a site's database is once it is on a disk of its own.
pub fn disk(directory: &Path, site: &str) -> PathBuf {
    directory.join(format!("{site}-disk"))
}

/// Replaces every `@name@`.
fn fill(template: &str, values: &[(&str, &str)]) -> Result<String> {
    let mut text = template.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("@{name}@"), value);
    }
    match text.split('@').nth(1) {
        Some(name) => bail!("a template has no value for @{name}@"),
        None => Ok(text),
    }
}
