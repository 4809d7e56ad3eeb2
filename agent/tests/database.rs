//! `siteswap db` on a database without an agent: what is printed, and to whom.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use rusqlite::Connection;
use siteswap_common::steer::tunnel;
use siteswap_replication::store::{Settings, Store};
use tempfile::TempDir;

const SITESWAP: &str = env!("CARGO_BIN_EXE_siteswap");

/// A database of the site east, whose peer is away.
struct Site {
    directory: TempDir,
}

impl Site {
    /// `tables`: those that are configured.
    fn new(schema: &str, tables: &str) -> Self {
        let site = Self { directory: tempfile::tempdir().unwrap() };
        site.application(&format!("PRAGMA journal_mode = WAL; {schema}"));
        let key = |digit: &str| format!("fingerprint = 'sha256:{}'", digit.repeat(64));
        let text = format!(
            "[agent]\nsite = 'east'\n[sites.east]\nlink = '127.0.0.1:7400'\n{}\n[sites.west]\nlink = '127.0.0.2:7400'\n{}\n\
             [link]\nkey = 'east.pem'\n[dns]\nlisten = ['127.0.0.1']\n[database]\nfile = 'shop.db'\ntables = {tables}\n",
            key("1"),
            key("2")
        );
        fs::write(site.file("east.toml"), text).unwrap();
        site
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn application(&self, sql: &str) {
        Connection::open(self.file("shop.db")).unwrap().execute_batch(sql).unwrap();
    }

    /// Has what was written wait for the peer, as the agent does.
    fn fold(&self) {
        let sites = ["east", "west"].map(|site| (tunnel::site(site), site.to_owned())).into();
        let settings = Settings { site: tunnel::site("east"), sites, max_skew: 10_000, rules: BTreeMap::new() };
        let mut store = Store::open(&self.file("shop.db"), settings).unwrap();
        store.remember_outside(&self.file("told")).unwrap();
        store.fold(1_700_000_000_000).unwrap();
    }

    fn order(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(SITESWAP);
        command.arg("db").args(arguments).arg("--config").arg(self.file("east.toml"));
        command
    }

    fn said(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = self.order(arguments).output().unwrap();
        (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
    }

    fn attach(&self) {
        let (code, said) = self.said(&["attach"]);
        assert_eq!(code, Some(0), "{said}");
    }
}

/// Reads one line and no more. Returns it, what went to standard error, and the exit code.
fn head(mut child: Child) -> (String, String, Option<i32>) {
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let (mut line, mut errors) = (String::new(), String::new());
    lines.read_line(&mut line).unwrap();
    drop(lines);
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    (line, errors, child.wait().unwrap().code())
}

const MANY: &str =
    "WITH n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20000) INSERT INTO t SELECT n, 'x' FROM n";

#[test]
fn a_list_that_nobody_reads_on_ends_quietly() {
    let site = Site::new("CREATE TABLE t(k INTEGER PRIMARY KEY, v)", "'all'");
    site.attach();
    site.application(MANY);
    site.fold();
    for arguments in [&["tail"][..], &["tail", "--json"], &["tail", "--follow"]] {
        let child = site.order(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (line, errors, code) = head(child);
        assert!(line.contains("insert"), "{line}");
        assert_eq!((errors.as_str(), code), ("", Some(0)), "{arguments:?}");
    }
    let (code, said) = site.said(&["tail"]);
    assert_eq!((code, said.lines().count()), (Some(0), 20_000));
}

#[test]
fn changes_to_a_table_that_was_attached_while_they_were_followed_are_shown() {
    let site = Site::new("CREATE TABLE t(k INTEGER PRIMARY KEY, v)", "'all'");
    site.attach();
    site.application("INSERT INTO t VALUES(1, 'x')");
    site.fold();
    let mut tail = site.order(&["tail", "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().is_some_and(|line| line.contains("insert t (1)")));
    site.application("CREATE TABLE later(k INTEGER PRIMARY KEY)");
    site.attach();
    site.application("INSERT INTO later VALUES(2)");
    site.fold();
    assert!(lines.next().is_some_and(|line| line.contains("insert later (2)")));
    tail.kill().unwrap();
    tail.wait().unwrap();
}

#[test]
fn the_doctor_knows_which_tables_are_configured() {
    let site = Site::new("CREATE TABLE t(k BLOB NOT NULL PRIMARY KEY); CREATE TABLE keyless(a)", "['t']");
    site.attach();
    let (code, said) = site.said(&["doctor"]);
    assert_eq!((code, said.as_str()), (Some(0), "errors: 0, warnings: 0\n"));
    let text = fs::read_to_string(site.file("east.toml")).unwrap();
    fs::write(site.file("east.toml"), text.replace("['t']", "['t', 'typo']")).unwrap();
    let (code, said) = site.said(&["doctor"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("there is no table \"typo\" in this database"), "{said}");
}
