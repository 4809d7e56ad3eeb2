//! The sites' databases, as applications and the curious see them.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, bail};
use rusqlite::Connection;
use serde::Deserialize;
use siteswap_common::steer::tunnel;
use siteswap_replication::{
    Key, Value,
    change::Change,
    store::{Settings, Store},
};

use super::Lab;
use crate::{
    mixed::{self, Contents},
    plan::{SITES, Site},
    wait::wait_until,
};

/// A change that waits in a site's change table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The table.
    pub table: String,
    /// The row's key.
    pub key: Vec<Value>,
    /// What was changed, and when.
    pub change: Change,
}

/// A change that lost against another site's, as `siteswap db conflicts list --json` tells it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Conflict {
    /// Its number, the same at every site.
    pub id: i64,
    /// The table.
    pub table: String,
    /// The row's key.
    pub key: Vec<serde_json::Value>,
    /// What met what: what won, then what lost.
    pub kind: String,
    /// The site whose change stays.
    pub won_site: String,
    /// The site whose change was dropped.
    pub lost_site: String,
    /// What it had set; nothing, if it was a deletion.
    pub image: BTreeMap<String, serde_json::Value>,
    /// `dropped` or `restored`.
    pub state: String,
}

impl Lab {
    /// A connection to a site's database, as applications have them.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn application(&self, site: Site) -> Result<Connection> {
        let database = Connection::open(self.database(site.name))?;
        database.busy_timeout(Duration::from_secs(10))?;
        database.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON")?;
        Ok(database)
    }

    /// What a site's database holds.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn contents(&self, site: Site) -> Result<Contents> {
        mixed::contents(&self.database(site.name))
    }

    /// A site's changes that its peer has not acknowledged, in the order of their groups.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn waiting(&self, site: Site) -> Result<Vec<Waiting>> {
        let database = self.application(site)?;
        let mut statement = database.prepare(
            "SELECT t.name, c.key, c.body FROM _ssw_change c JOIN _ssw_table t ON t.number = c.tbl ORDER BY c.grp",
        )?;
        let mut rows = statement.query([])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let body: Vec<u8> = row.get(2)?;
            let change = Change::decode(tunnel::site(site.name), &mut &body[..]).context("not a change")?;
            let key = Key(row.get(1)?).columns().context("not a key")?;
            all.push(Waiting { table: row.get(0)?, key, change });
        }
        Ok(all)
    }

    /// A site's conflicts, the newest first.
    ///
    /// # Errors
    /// The command fails, or prints something else.
    pub fn conflicts(&self, site: Site) -> Result<Vec<Conflict>> {
        let printed = self.agent(site.name)?.database(&["conflicts", "list", "--limit", "1000", "--json"])?;
        serde_json::from_str(&printed).with_context(|| format!("these are no conflicts: {printed}"))
    }

    /// A site's database as its agent opens it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn store(&self, site: Site) -> Result<Store> {
        let settings = Settings {
            site: tunnel::site(site.name),
            sites: SITES.map(|site| (tunnel::site(site.name), site.name.to_owned())).into(),
            max_skew: 10_000,
            rules: BTreeMap::new(),
        };
        Ok(Store::open(&self.database(site.name), settings)?)
    }

    /// Has the agent of a site seen all that was written there?
    pub fn is_folded(&self, site: Site) -> bool {
        // It leaves the newest touch where it is.
        self.count(site, "_ssw_touch").is_ok_and(|touches| touches <= 1)
    }

    /// How many of a site's groups its peer has acknowledged.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn acknowledged(&self, site: Site) -> Result<u64> {
        let sql = "SELECT ifnull(max(acknowledged), 0) FROM _ssw_peer";
        Ok(self.application(site)?.query_row(sql, [], |row| row.get(0))?)
    }

    fn count(&self, site: Site, table: &str) -> Result<u64> {
        Ok(self.application(site)?.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?)
    }

    /// Waits until each site has acknowledged all that the other wrote, and both hold the same. Gives what that is.
    ///
    /// # Errors
    /// Something still waits at the deadline, or the databases differ; the error says what.
    pub fn await_same_databases(&self, deadline: Duration) -> Result<Contents> {
        let drained = || {
            SITES
                .into_iter()
                .all(|site| self.is_folded(site) && self.count(site, "_ssw_change").is_ok_and(|changes| changes == 0))
        };
        let awaited = wait_until(deadline, "all changes are acknowledged", drained);
        awaited.with_context(|| self.backlog())?;
        let [east, west] = SITES.map(|site| self.contents(site));
        let (east, west) = (east?, west?);
        if east != west {
            bail!("the databases differ, first in\n  {}", east.differences(&west).join("\n  "));
        }
        Ok(east)
    }

    /// What waits at each site, and what its agent says of it.
    pub fn backlog(&self) -> String {
        let of = |site: Site| {
            let count =
                |table| self.count(site, table).map_or_else(|error| error.to_string(), |count| count.to_string());
            let said = self.agent(site.name).and_then(|agent| agent.order(&["db", "status"]));
            let said = said.unwrap_or_else(|error| format!("{error:#}\n{}", self.process(site.name).last_words()));
            format!("{}: {} touches, {} changes; {said}", site.name, count("_ssw_touch"), count("_ssw_change"))
        };
        SITES.map(of).join("\n")
    }
}
