//! Comparing the sites' databases, and beginning a new site's.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, IsTerminal, Write},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use siteswap_replication::{
    Key,
    store::{self, Local, Progress, Store},
};

use crate::{
    control::client::Client,
    replication::{self, Compared, Comparing, Comparison, Keep, literal},
};

use super::{Opened, runtime, say};

/// A line of progress is replaced after this.
const PACE: Duration = Duration::from_millis(200);
/// So many rows are said again in one transaction, which every site applies as one.
const TOGETHER: usize = 10_000;

/// Compares with this peer, or with all, by way of the agent.
pub(super) fn verify(
    opened: &Opened,
    peer: Option<String>,
    tables: &[String],
    repair: Option<Keep>,
) -> anyhow::Result<ExitCode> {
    let peers = peer.map_or_else(|| opened.config.peers().map(str::to_owned).collect(), |peer| vec![peer]);
    anyhow::ensure!(!peers.is_empty(), "no other site is configured: there is nothing to compare with");
    let mut all = BTreeMap::new();
    for peer in peers {
        let order = Comparison { peer: peer.clone(), tables: tables.to_vec(), repair };
        let compared = compare(opened, &order).with_context(|| format!("comparing with {peer}"))?;
        if !opened.json {
            say(false, &compared, &described(&peer, &compared))?;
        }
        all.insert(peer, compared);
    }
    if opened.json {
        say(true, &all, "")?;
    }
    Ok(if all.values().all(|compared| compared.equal) { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

fn compare(opened: &Opened, order: &Comparison) -> anyhow::Result<Compared> {
    let mut line = Line::new();
    let mut last = Err("the agent broke off".to_owned());
    let told = |said| match said {
        Comparing::Progress { table, rows, suspects } => {
            line.show(&format!("{} {table}: {rows} rows compared, {suspects} seem to differ", order.peer));
        }
        Comparing::Done(compared) => last = Ok(compared),
        Comparing::Failed(why) => last = Err(why),
    };
    runtime(1)?.block_on(Client::new(&opened.config.control).compare(order, told))?;
    drop(line);
    last.map_err(anyhow::Error::msg)
}

fn described(peer: &str, compared: &Compared) -> String {
    let mut lines = Vec::new();
    if compared.repaired > 0 {
        lines.push(format!("{} rows were said again", compared.repaired));
    }
    lines.push(format!("{} rows compared in {}", compared.rows, compared.tables.join(", ")));
    lines.push(if compared.equal { "equal" } else { "not equal" }.to_owned());
    let mut text = format!("{peer}: {}\n", lines.join("; "));
    for table in &compared.alone {
        text += &format!("  {table} is replicated at one site only\n");
    }
    for column in &compared.lacking {
        text += &format!("  {column} is at one site only: add the column at the other, and compare again\n");
    }
    for row in &compared.differences {
        let how = match (row.here, row.there) {
            (true, false) => "only here",
            (false, true) => "only there",
            _ => "differs",
        };
        text += &format!("  {} ({}) {how}\n", row.table, row.key.join(", "));
    }
    let rest = compared.differing - compared.differences.len() as u64;
    if rest > 0 {
        text += &format!("  and {rest} more rows{}\n", if compared.more { ", at least" } else { "" });
    }
    if compared.unsettled > 0 {
        text += &format!("  {} rows were changed all the time: compare again\n", compared.unsettled);
    }
    text
}

/// Checks what can be checked without a peer; makes rows that contradict what is known of them changes made now.
pub(super) fn verify_local(opened: &Opened, repair: bool) -> anyhow::Result<ExitCode> {
    let mut store = opened.store()?;
    let (local, repaired) = checked_here(&mut store, repair)?;
    let good = local.contradictions.is_empty() && local.departures.is_empty() && local.unverified.is_empty();
    let rows: Vec<_> = local
        .contradictions
        .iter()
        .map(|row| {
            let key: Vec<String> = row.key.columns().unwrap_or_default().iter().map(literal).collect();
            serde_json::json!({ "table": row.table, "key": key, "there": row.there })
        })
        .collect();
    let departures: Vec<String> =
        local.departures.iter().map(|departure| format!("{}: {}", departure.table, departure.difference)).collect();
    let mut text = format!("{} rows are known, {} of them are not as they are known", local.rows, rows.len());
    if repaired > 0 {
        text = format!("{repaired} rows were said again; {text}");
    }
    for departure in &departures {
        text += &format!("\n  {departure}");
    }
    for table in &local.unverified {
        text += &format!("\n  {table} was without its triggers for a while: siteswap db verify finds what was missed");
    }
    say(
        opened.json,
        &serde_json::json!({
            "rows": local.rows, "contradictions": rows, "departures": departures,
            "unverified": local.unverified, "repaired": repaired,
        }),
        &text,
    )?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

/// What was found, after so many rows were said again.
fn checked_here(store: &mut Store, repair: bool) -> anyhow::Result<(Local, u64)> {
    let found = look(store)?;
    let mut repaired = 0;
    if repair {
        for (table, keys) in contradicting(&found) {
            repaired += say_again(store, &table, &keys)?;
        }
    }
    Ok((if repaired > 0 { look(store)? } else { found }, repaired))
}

fn look(store: &Store) -> Result<Local, store::Error> {
    let mut line = Line::new();
    store.verify_local_telling(|Progress { table, rows, suspects }| {
        line.count(|| format!("{table}: {rows} rows looked at, {suspects} of them not as they are known"));
    })
}

fn say_again(store: &mut Store, table: &str, keys: &[Key]) -> Result<u64, store::Error> {
    let mut line = Line::new();
    let mut said = 0;
    for together in keys.chunks(TOGETHER) {
        line.show(&format!("{table}: {said} of {} rows said again", keys.len()));
        said += store.assert_rows(table, together, replication::now())?;
    }
    Ok(said)
}

/// Keys by table.
fn contradicting(local: &Local) -> BTreeMap<String, Vec<Key>> {
    let mut all: BTreeMap<String, Vec<Key>> = BTreeMap::new();
    for row in &local.contradictions {
        all.entry(row.table.clone()).or_default().push(row.key.clone());
    }
    all
}

/// Writes a copy that another site can begin with.
pub(super) fn snapshot(opened: &Opened, to: &Path) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(!to.exists(), "{} exists already: name a file that does not", to.display());
    let partial = beside(to, "partial");
    let store = opened.store()?;
    let _ = fs::remove_file(&partial);
    let written = writing(&partial, || while_growing(&partial, || store.snapshot(&partial)))?;
    if let Err(error) = written {
        let _ = fs::remove_file(&partial);
        return Err(error.into());
    }
    fs::rename(&partial, to).with_context(|| format!("naming {}", to.display()))?;
    let bytes = fs::metadata(to).map(|metadata| metadata.len()).unwrap_or_default();
    say(
        opened.json,
        &serde_json::json!({ "file": to, "bytes": bytes }),
        &format!("{}: {bytes} bytes; at the new site: siteswap db join {}", to.display(), to.display()),
    )
}

/// Makes another site's snapshot this site's database.
pub(super) fn join(opened: &Opened, snapshot: &Path) -> anyhow::Result<ExitCode> {
    let file = &opened.database.file;
    nothing_there(file)?;
    let partial = beside(file, "joining");
    let joined = writing(&partial, || adopt(opened, snapshot, &partial))?;
    take_away(&partial);
    joined?;
    say(
        opened.json,
        &serde_json::json!({ "file": file, "site": opened.config.site }),
        &format!(
            "{} is {}'s database now; what was written since comes from the peers",
            file.display(),
            opened.config.site
        ),
    )
}

/// SQLite takes a log or journal beside a database for that database's own, whatever was there before: it would write what
/// is left of an old database into the new one.
fn nothing_there(file: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        !file.exists(),
        "{} exists already; a site joins with a copy of another's database alone. Move it away; rows that only it has can \
         be inserted afterwards, as an application would",
        file.display()
    );
    let left: Vec<String> = ["wal", "shm", "journal"]
        .map(|suffix| beside(file, suffix))
        .iter()
        .filter(|rest| rest.exists())
        .map(|rest| rest.display().to_string())
        .collect();
    anyhow::ensure!(
        left.is_empty(),
        "{} is not there, but of the database that was: {}. Move these to where it is now; changes may be in them that \
         are nowhere else",
        file.display(),
        left.join(", ")
    );
    Ok(())
}

fn adopt(opened: &Opened, snapshot: &Path, partial: &Path) -> anyhow::Result<()> {
    let copied = while_growing(partial, || fs::copy(snapshot, partial));
    copied.with_context(|| format!("copying {} to {}", snapshot.display(), partial.display()))?;
    taking_time("making it this site's", || make_own(opened, snapshot, partial))?;
    let file = &opened.database.file;
    hand_over(partial).with_context(|| format!("giving {} to who has its directory", file.display()))?;
    // An application may have been started meanwhile.
    nothing_there(file)?;
    fs::rename(partial, file).with_context(|| format!("naming {}", file.display()))
}

fn make_own(opened: &Opened, snapshot: &Path, partial: &Path) -> anyhow::Result<()> {
    let store = Store::adopt(partial, replication::settings(&opened.config, &opened.database))
        .with_context(|| format!("joining with {}", snapshot.display()))?;
    // The log goes into the file, or it must not be taken for whole.
    let checkpoint = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    let written = store.database().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], checkpoint);
    let written = written.with_context(|| format!("writing {}", partial.display()))?;
    anyhow::ensure!(written == (0, 0), "{} could not be completed: somebody else uses it", partial.display());
    Ok(())
}

/// Lets whoever has the directory write to the file, which is root's if root joins. Others may not even read it.
fn hand_over(file: &Path) -> io::Result<()> {
    let directory = file.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let metadata = fs::metadata(directory)?;
    match chown(file, Some(metadata.uid()), Some(metadata.gid())) {
        // Only root may give files away.
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
        _ => {}
    }
    fs::set_permissions(file, fs::Permissions::from_mode(0o660))
}

/// Fences all sites, until all have applied what was written.
pub(super) fn begin_schema(opened: &Opened, seconds: u32) -> anyhow::Result<ExitCode> {
    let client = Client::new(&opened.config.control);
    let until = Instant::now() + Duration::from_secs(seconds.into());
    let mut line = Line::new();
    let runtime = runtime(1)?;
    let (fenced, level) = loop {
        let fenced = runtime.block_on(client.fence())?;
        if let Some((site, Err(why))) = fenced.sites.iter().find(|(_, level)| level.is_err()) {
            anyhow::bail!(
                "{site}: {why}\nwrites are refused at the other sites; repeat this, or end it at each of them with: \
                 siteswap db schema commit"
            );
        }
        let waiting: Vec<&str> =
            fenced.sites.iter().filter(|(_, level)| **level != Ok(true)).map(|(site, _)| site.as_str()).collect();
        if waiting.is_empty() || Instant::now() >= until {
            let level = waiting.is_empty();
            break (fenced, level);
        }
        line.show(&format!("what was written at {} is not applied everywhere yet", waiting.join(", ")));
        thread::sleep(PACE);
    };
    drop(line);
    let sentence = if level {
        "all sites have everything and refuse writes: change the schema at each, then run there: siteswap db schema commit"
    } else {
        "writes are refused, but not everything was applied in time; repeat this, or look at siteswap db status"
    };
    say(opened.json, &fenced, sentence)?;
    Ok(if level { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

/// `FILE-SUFFIX`
fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-");
    name.push(suffix);
    name.into()
}

/// Does `work`, which writes the database. Ctrl-C ends it and takes away what there is of the database.
fn writing<T>(partial: &Path, work: impl FnOnce() -> T) -> anyhow::Result<T> {
    let meanwhile = runtime(1)?;
    let written = partial.to_owned();
    meanwhile.spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            take_away(&written);
            // As a shell says that a signal ended it.
            std::process::exit(130);
        }
    });
    Ok(work())
}

/// Removes what there is of a database that is not whole.
fn take_away(file: &Path) {
    for rest in [file, &beside(file, "wal"), &beside(file, "shm")] {
        let _ = fs::remove_file(rest);
    }
}

/// Shows how large the file has become.
fn while_growing<T>(file: &Path, work: impl FnOnce() -> T) -> T {
    let size = || fs::metadata(file).map(|metadata| metadata.len()).unwrap_or_default();
    while_showing(|| format!("{}: {} MB", file.display(), size() >> 20), work)
}

/// Shows for how long it has done `work`, of which nobody can tell how much is left.
pub(super) fn taking_time<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    while_showing(|| format!("{what}: {} s", start.elapsed().as_secs()), work)
}

/// Shows a line about `work` until it is done.
fn while_showing<T>(text: impl Fn() -> String + Send, work: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let (done, over) = mpsc::channel::<()>();
        scope.spawn(move || {
            let mut line = Line::new();
            while over.recv_timeout(PACE) == Err(mpsc::RecvTimeoutError::Timeout) {
                line.show(&text());
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// A line on the terminal that is replaced by the next; away in the end. None elsewhere.
pub(super) struct Line {
    terminal: bool,
    /// What is counted is not shown again before.
    next: Instant,
}

impl Line {
    pub(super) fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), next: Instant::now() }
    }

    /// Shows what is said more often than anybody can read.
    pub(super) fn count(&mut self, text: impl FnOnce() -> String) {
        if self.terminal && Instant::now() >= self.next {
            self.show(&text());
            self.next = Instant::now() + PACE;
        }
    }

    fn show(&mut self, text: &str) {
        if self.terminal {
            // Whether anybody can read it does not matter.
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.show("");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_joined_beside_what_is_left_of_another_database() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("shop.db");
        assert!(nothing_there(&file).is_ok());
        for rest in ["wal", "shm", "journal"].map(|suffix| beside(&file, suffix)) {
            fs::write(&rest, "").expect("a file");
            let refused = nothing_there(&file).expect_err("something is left").to_string();
            assert!(refused.contains(&rest.display().to_string()), "{refused}");
            fs::remove_file(&rest).expect("a file");
        }
    }

    #[test]
    fn a_database_belongs_to_who_has_its_directory_and_is_not_for_all() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("shop.db");
        fs::write(&file, "").expect("a file");
        hand_over(&file).expect("a file to give");
        let (given, of) = (fs::metadata(&file).expect("a file"), fs::metadata(directory.path()).expect("a directory"));
        assert_eq!((given.uid(), given.gid(), given.mode() & 0o777), (of.uid(), of.gid(), 0o660));
    }
}
