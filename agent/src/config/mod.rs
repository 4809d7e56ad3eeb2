//! The configuration file: what it may say, and what is said about it when it is wrong.
//!
//! [`parse`] reads a text in three steps: TOML with the place of every key and value (`toml`), each section's own keys
//! (`settings`, `database`, `resource`, `probe`), and what sections promise each other (`claims`). Every step reports all it finds.

mod claims;
mod database;
mod error;
mod fingerprint;
mod model;
mod nearest;
mod probe;
mod resource;
mod section;
mod settings;
mod table_name;
#[cfg(test)]
mod tests;
mod values;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{self, Path, PathBuf},
};

use toml::de::DeTable;

pub use error::{ConfigError, Position, Problem};
pub use fingerprint::InvalidFingerprint;
pub use model::*;
pub use table_name::{InvalidTableName, TableName};

use database::DatabaseDraft;
use error::Problems;
use section::Section;
use settings::Context;

/// A file larger than this many bytes is no configuration: 100,000 names fit many times over.
const MAX_BYTES: u64 = 64 << 20;

/// Reads and validates the configuration `file`.
///
/// # Errors
/// The file cannot be read, or says something wrong: every problem found, each with its line and column.
pub fn load(file: &Path) -> Result<Config, ConfigError> {
    let bytes = read(file).map_err(|error| ConfigError::unreadable(file, &error))?;
    let text = std::str::from_utf8(&bytes).map_err(|error| ConfigError::not_text(file, &bytes, error.valid_up_to()))?;
    parse(text, file)
}

/// Validates `text` as if it stood in `file`. Reads nothing else: files that it names are not opened.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, file: &Path) -> Result<Config, ConfigError> {
    let problems = Problems::default();
    let (table, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        for error in &syntax {
            problems.syntax(text, error);
        }
        return Err(problems.into_error(text, file));
    }
    match whole(Section::whole(table.get_ref(), &problems), file) {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(problems.into_error(text, file)),
    }
}

/// The whole file. `None`: something is wrong and has been reported.
fn whole(mut file: Section<'_>, path: &Path) -> Option<Config> {
    let problems = file.problems();
    let path = path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let base = path.parent().map(Path::to_owned).unwrap_or_default();
    let mut agent = file.need_section("agent", "say which of the sites this is: site = \"east\"");
    let mut sites = file.need_section("sites", "describe each site in a section [sites.NAME]");
    let mut link = file.need_section("link", "name the key of this site: key = \"east.pem\"");
    let mut dns = file.need_section("dns", "say where to answer: listen = [\"192.0.2.2\"]");
    let mut dataplane = file.section("dataplane");
    let has_database = file.has("database");
    let mut database = file.section("database");
    let mut resources = file.section("resources");
    file.finish();

    let context = Context { names: sites.keys(), site: settings::own_site(&mut agent, &sites.keys()), base };
    let state = agent.or("state", "/var/lib/siteswap".into(), context.path());
    let control = agent.or("control", "/run/siteswap/control.sock".into(), context.path());
    agent.finish();
    let sites = settings::sites(&mut sites);
    let own_link = context.site.as_ref().and_then(|site| Some(sites.get(site)?.link));
    let link = settings::link(&mut link, &context, own_link);
    let dns = settings::dns(&mut dns, &context);
    let dataplane = settings::dataplane(&mut dataplane, &context);
    let database = has_database.then(|| database::database(&mut database, &context));
    let resources = resource::all(&mut resources, &context);
    claims::check(dns.apexes().as_ref(), &resources, problems);
    claims::tables(database.as_ref(), &resources, problems);
    claims::tunnels(&sites, &resources, problems);

    Some(Config {
        file: path,
        site: context.site?,
        state,
        control,
        sites,
        link: link?,
        dns: dns.finish(),
        dataplane,
        database: database.map(DatabaseDraft::finish).map_or(Some(None), |database| database.map(Some))?,
        resources: resources
            .into_iter()
            .map(|draft| Some((draft.name.clone(), draft.finish()?)))
            .collect::<Option<BTreeMap<_, _>>>()?,
    })
}

/// The bytes of `file`.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("it is larger than {} MiB; is it the right file?", MAX_BYTES >> 20)));
    }
    Ok(bytes)
}

/// `path` below `base`, unless it is absolute.
fn below(base: &Path, path: &str) -> PathBuf {
    base.join(path)
}
