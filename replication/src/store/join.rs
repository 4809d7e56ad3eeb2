//! A new site begins with a copy of another's database, and goes on from where that was.

use std::{fs::OpenOptions, io, os::unix::fs::OpenOptionsExt as _, path::Path};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params, params_from_iter};

use crate::{
    capture,
    schema::{Table, quoted},
    value::Value,
};

use super::{
    Error, Peer, Restored, Settings, State, Store, Tables, damaged, identity::Identity, work, work::Work, write_as_told,
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
    let tables = Tables::new();
    let mut work = Work::begin(transaction, settings, &tables)?;
    let before = work.state.clone();
    let own = own_groups(transaction, settings)?;
    put_back(transaction, before.folded)?;
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
/// what the rows were, if one is to come back for an edit elsewhere.
fn put_back(transaction: &Transaction<'_>, folded: i64) -> Result<(), Error> {
    for table in capture::tables(transaction)? {
        let touched = "SELECT 1 FROM _ssw_touch WHERE tbl = ? AND seq > ?";
        if !transaction.prepare_cached(touched)?.exists(params![table.number, folded])? {
            continue;
        }
        let columns: Vec<String> = table.columns.iter().map(|column| quoted(&column.name)).collect();
        let values: Vec<String> = (0..columns.len()).map(|at| format!("o.c{at}")).collect();
        let (name, images) = (quoted(&table.name), format!("_ssw_old_{}", table.number));
        let sql = format!(
            "INSERT OR IGNORE INTO {name}({}) SELECT {} FROM _ssw_touch AS t JOIN {images} AS o ON o.seq = t.seq \
             WHERE t.tbl = ? AND t.seq > ? AND t.what < 0 ORDER BY t.seq DESC",
            columns.join(","),
            values.join(",")
        );
        transaction.execute(&sql, params![table.number, folded])?;
        take_off(transaction, &table, folded)?;
    }
    Ok(())
}

/// Sets counters back to what they were before what the source had not folded yet: what was added then is still to come.
fn take_off(transaction: &Transaction<'_>, table: &Table, folded: i64) -> Result<(), Error> {
    if table.counters.is_empty() {
        return Ok(());
    }
    let (counters, key) = (table.counters.len(), table.key.len());
    let sets = table.counters.iter().map(|column| format!("{}=?", quoted(&table.columns[usize::from(*column)].name)));
    let sql = format!(
        "UPDATE {} SET {} WHERE {}",
        quoted(&table.name),
        capture::list(sets),
        table.key_equals("", |_| "?".to_owned())
    );
    let mut update = transaction.prepare(&sql)?;
    let were = table.counters.iter().map(|column| format!("o.c{column}"));
    let parts = (0..key).map(|part| format!("t.k{part}"));
    // What they were first is put back last.
    let sql = format!(
        "SELECT {} FROM _ssw_touch AS t JOIN _ssw_old_{} AS o ON o.seq = t.seq \
         WHERE t.tbl = ? AND t.seq > ? AND t.what >= 0 ORDER BY t.seq DESC",
        capture::list(were.chain(parts)),
        table.number
    );
    let mut statement = transaction.prepare(&sql)?;
    let mut touches = statement.query(params![table.number, folded])?;
    while let Some(touch) = touches.next()? {
        let values = (0..counters + key).map(|at| touch.get_ref(at).map(Value::from));
        update.execute(params_from_iter(values.collect::<Result<Vec<_>, _>>()?))?;
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
