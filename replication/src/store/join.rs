//! A new site begins with a copy of another's database, and goes on from where that was.

use std::{fs::OpenOptions, io, os::unix::fs::OpenOptionsExt as _, path::Path};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params, params_from_iter};

use crate::{
    capture,
    layout::INSERTED,
    schema::{Table, quoted},
    value::Value,
};

use super::{
    Error, Peer, Restored, Rules, Settings, State, Store, Tables, damaged,
    identity::{Identity, JOINED},
    live::Live,
    work,
    work::Work,
    write_as_told,
};

impl Store {
    /// Writes a copy of the database as it is at one moment, with all that is kept of changes, to a file that does not
    /// exist yet, for its owner alone. Applications go on writing.
    ///
    /// The new site must be in the settings of every site before: from then on nothing that it will need is dropped.
    ///
    /// # Errors
    /// `File`: it cannot be created, or its name is not UTF-8. `Sqlite`.
    pub fn snapshot(&self, file: &Path) -> Result<(), Error> {
        let failed = |source| Error::File { file: file.to_owned(), source };
        let not_utf8 = || failed(io::Error::new(io::ErrorKind::InvalidInput, "the name is not UTF-8"));
        let name = file.to_str().ok_or_else(not_utf8)?;
        // SQLite takes an empty file for none.
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
        self.database.execute("VACUUM INTO ?", [name])?;
        Ok(())
    }

    /// Makes another site's [`snapshot`](Self::snapshot) the database of the site in the settings. It has applied what the
    /// other had applied, and all that the other had folded; what the other had not folded yet will come from there as a
    /// change. It has made no changes itself.
    ///
    /// # Errors
    /// `Own`: it is not another site's. `Unknown`: the settings do not know that site. `Damaged`, `Sqlite`.
    pub fn adopt(file: &Path, settings: Settings) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut database = Connection::open_with_flags(file, flags)?;
        write_as_told(&database)?;
        database.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")?;
        let transaction = Transaction::new(&mut database, TransactionBehavior::Immediate)?;
        become_another(&transaction, &settings)?;
        transaction.commit()?;
        drop(database);
        Self::open(file, settings)
    }
}

fn become_another(transaction: &Transaction<'_>, settings: &Settings) -> Result<(), Error> {
    let source = Identity::load(transaction)?.ok_or_else(|| damaged("the identity", "_ssw_meta"))?;
    if source.site == settings.site {
        return Err(Error::Own);
    }
    if !settings.sites.contains_key(&source.site) {
        return Err(Error::Unknown(format!("site {}", source.site)));
    }
    Identity::renew(transaction, settings.site)?;
    transaction.execute("INSERT OR IGNORE INTO _ssw_meta(k, v) VALUES(?, 1)", [JOINED])?;
    let tables = Tables::new();
    let mut work = Work::begin(transaction, settings, &tables)?;
    let before = work.state.clone();
    let own = own_groups(transaction, settings)?;
    let whole = put_back(transaction, before.folded)?;
    work.state = State {
        clock: before.clock,
        group: own,
        folded: forget(transaction)?,
        seen: before.seen.clone(),
        settled: before.settled,
        restored: None::<Restored>,
        missed: before.missed.clone(),
        incomplete: before.incomplete.clone(),
        forgot: before.forgot,
    };
    work.state.seen.pass(source.site, before.clock.0);
    if !whole {
        work.state.incomplete.insert(source.site, before.group);
    }
    let known =
        Peer { applied: before.group, acknowledged: own, seen: before.seen, incarnation: Some(source.incarnation) };
    work.peers.insert(source.site, known);
    for site in work.peers.keys().copied().collect::<Vec<_>>() {
        work.peers.entry(site).or_default().acknowledged = own;
        work::save_peer(&work, site)?;
    }
    transaction.execute("DELETE FROM _ssw_peer WHERE site=?", [settings.site])?;
    work.finish()
}

/// The last group that the source had applied of this site, if it existed before.
fn own_groups(transaction: &Transaction<'_>, settings: &Settings) -> Result<u64, Error> {
    let sql = "SELECT applied FROM _ssw_peer WHERE site=?";
    Ok(transaction.query_row(sql, [settings.site], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Puts back the rows whose deletion the source had not folded yet: it will tell of that. Until then nobody else could say
/// what the rows were, if one is to come back for an edit elsewhere. Says no if one's place is taken.
fn put_back(transaction: &Transaction<'_>, folded: i64) -> Result<bool, Error> {
    let mut all = true;
    for table in capture::tables(transaction)? {
        let touched = "SELECT 1 FROM _ssw_touch WHERE tbl = ? AND seq > ?";
        if !transaction.prepare_cached(touched)?.exists(params![table.number, folded])? {
            continue;
        }
        let live = Live::new(transaction, table, Rules::default(), false)?;
        let number = live.table.number;
        let values: Vec<String> = (0..live.table.columns.len()).map(|at| format!("o.c{at}")).collect();
        // What they were first is put back last.
        let sql = format!(
            "SELECT {} FROM _ssw_touch AS t JOIN _ssw_old_{number} AS o ON o.seq = t.seq \
             WHERE t.tbl = ? AND t.seq > ? AND t.what < 0 ORDER BY t.seq DESC",
            values.join(",")
        );
        let mut statement = transaction.prepare(&sql)?;
        let mut images = statement.query(params![number, folded])?;
        while let Some(image) = images.next()? {
            all &= put_row_back(transaction, &live, &live.values_in(image, 0)?, folded)?;
        }
        take_off(transaction, &live.table, folded)?;
    }
    Ok(all)
}

/// Puts one row back, if it is not there. Of those that were inserted since, and are in its way, the source will tell.
fn put_row_back(transaction: &Transaction<'_>, live: &Live, row: &[Value], folded: i64) -> Result<bool, Error> {
    let key: Vec<Value> = live.table.key.iter().map(|column| row[usize::from(*column)].clone()).collect();
    let parts = (0..key.len()).map(|part| format!(" AND k{part} IS ?")).collect::<String>();
    let inserted = format!("SELECT 1 FROM _ssw_touch WHERE seq > ? AND tbl = ? AND what = {INSERTED}{parts}");
    while let Some(other) = live.in_the_way(transaction, row)?.filter(|other| *other != key) {
        let about = [Value::Integer(folded), Value::Integer(live.table.number.into())];
        let since = about.iter().chain(&other);
        if !transaction.prepare_cached(&inserted)?.exists(params_from_iter(since))? {
            return Ok(false);
        }
        live.delete(transaction, &other)?;
    }
    Ok(true)
}

/// Sets counters back to what they were before what the source had not folded yet: what was added then is still to come, and
/// so is the value of one that was no integer.
fn take_off(transaction: &Transaction<'_>, table: &Table, folded: i64) -> Result<(), Error> {
    for (place, column) in table.counters.iter().enumerate() {
        let sql = format!(
            "UPDATE {} SET {}=? WHERE {}",
            quoted(&table.name),
            quoted(&table.columns[usize::from(*column)].name),
            table.key_equals("", |_| "?".to_owned())
        );
        let mut update = transaction.prepare(&sql)?;
        let parts: String = (0..table.key.len()).map(|part| format!(", k{part}")).collect();
        // What it was first is put back last.
        let sql = format!(
            "SELECT c{place}{parts} FROM _ssw_touch WHERE tbl = ? AND seq > ? AND what >= 0 \
             AND typeof(c{place}) = 'integer' ORDER BY seq DESC"
        );
        let mut statement = transaction.prepare(&sql)?;
        let mut touches = statement.query(params![table.number, folded])?;
        while let Some(touch) = touches.next()? {
            let values = (0..=table.key.len()).map(|at| touch.get_ref(at).map(Value::from));
            update.execute(params_from_iter(values.collect::<Result<Vec<_>, _>>()?))?;
        }
    }
    Ok(())
}

/// Drops what is the source's own business. Returns the last touch.
fn forget(transaction: &Transaction<'_>) -> Result<i64, Error> {
    transaction.execute_batch(
        "DELETE FROM _ssw_change; DELETE FROM _ssw_group; DELETE FROM _ssw_inbox;
         DELETE FROM _ssw_touch WHERE seq < (SELECT max(seq) FROM _ssw_touch); DELETE FROM _ssw_meta WHERE k='paused';",
    )?;
    let numbers = transaction
        .prepare("SELECT number FROM _ssw_table")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<Vec<u32>, _>>()?;
    for number in numbers {
        transaction.execute(&format!("DELETE FROM _ssw_old_{number}"), [])?;
    }
    Ok(transaction.query_row("SELECT ifnull(max(seq), 0) FROM _ssw_touch", [], |row| row.get(0))?)
}
