//! What the doctor finds, and that he finds nothing where nothing is wrong.

use rusqlite::{Connection, functions::FunctionFlags};
use siteswap_replication::{
    capture::{self, Wanted},
    doctor::{self, Finding, Severity},
};
use tempfile::TempDir;

/// A database in a file, because a log needs one. The tables are attached.
fn database(directory: &TempDir, sql: &str) -> Connection {
    let mut database = Connection::open(directory.path().join("db")).unwrap();
    database.execute_batch(&format!("PRAGMA journal_mode = WAL; {sql}")).unwrap();
    let transaction = database.transaction().unwrap();
    capture::attach(&transaction, Wanted::All).unwrap();
    transaction.commit().unwrap();
    database
}

fn check(sql: &str, later: &str) -> Vec<Finding> {
    let directory = tempfile::tempdir().unwrap();
    let database = database(&directory, sql);
    database.execute_batch(later).unwrap();
    doctor::check(&database, Wanted::All, &[]).unwrap()
}

#[test]
fn a_table_that_was_without_a_trigger_is_named_until_it_is_compared() {
    let directory = tempfile::tempdir().unwrap();
    let mut database = database(&directory, "CREATE TABLE t(k NOT NULL PRIMARY KEY)");
    database.execute_batch("DROP TRIGGER _ssw_d_1").unwrap();
    let transaction = database.transaction().unwrap();
    capture::refresh(&transaction).unwrap();
    transaction.commit().unwrap();
    let [found] = &doctor::check(&database, Wanted::All, &[]).unwrap()[..] else { panic!("one finding") };
    assert_eq!((found.severity, found.table.as_deref()), (Severity::Warning, Some("t")));
    assert!(found.what.contains("without its triggers for a while"), "{}", found.what);
}

#[test]
fn a_sound_database_has_no_findings() {
    let sql = "CREATE TABLE t(k TEXT NOT NULL PRIMARY KEY, a UNIQUE, up REFERENCES t);
        CREATE TABLE u(k BLOB PRIMARY KEY, t TEXT NOT NULL REFERENCES t ON DELETE CASCADE) WITHOUT ROWID;";
    assert_eq!(check(sql, "INSERT INTO t VALUES('x', 1, NULL)"), []);
}

#[test]
fn each_ill_is_found_in_its_table_with_its_severity() {
    use Severity::{Error, Note, Warning};
    let wide: String = (0..70).map(|column| format!(", c{column}")).collect();
    let ills = [
        ("CREATE TABLE t(k TEXT PRIMARY KEY)", "", Warning, "may be NULL (k)"),
        ("CREATE TABLE t(k TEXT PRIMARY KEY)", "INSERT INTO t VALUES(NULL), (NULL)", Error, "2 rows with NULL"),
        (
            "CREATE TABLE t(k TEXT, l NOT NULL, a, PRIMARY KEY(k, l))",
            "INSERT INTO t VALUES('x', 1, 1), (NULL, 2, 2); UPDATE t SET k = NULL WHERE a = 1; UPDATE t SET k = 'y' WHERE a = 2",
            Error,
            "1 rows with NULL",
        ),
        ("CREATE TABLE t(k INTEGER PRIMARY KEY)", "", Warning, "SQLite chooses"),
        (
            "CREATE TABLE t(k NOT NULL PRIMARY KEY, a); CREATE UNIQUE INDEX i ON t(a) WHERE a > 1",
            "",
            Warning,
            "is partial",
        ),
        (
            "CREATE TABLE t(k NOT NULL PRIMARY KEY, a); CREATE UNIQUE INDEX i ON t(a + 1)",
            "",
            Warning,
            "over an expression",
        ),
        ("CREATE TABLE t(k NOT NULL PRIMARY KEY, a NOT NULL UNIQUE DEFAULT (1 + 1))", "", Warning, "computed default"),
        ("CREATE TABLE t(k NOT NULL PRIMARY KEY, a REFERENCES nobody)", "", Warning, "no such table"),
        (
            "CREATE TABLE t(k NOT NULL PRIMARY KEY, a REFERENCES u(b)); CREATE TABLE u(k NOT NULL PRIMARY KEY, b UNIQUE)",
            "",
            Warning,
            "by b, not by the primary key",
        ),
        (
            "CREATE TABLE t(k NOT NULL PRIMARY KEY, a TEXT REFERENCES u); CREATE TABLE u(k INT NOT NULL PRIMARY KEY)",
            "",
            Warning,
            "of another type",
        ),
        (
            "CREATE TABLE t(k NOT NULL PRIMARY KEY, a)",
            "CREATE TRIGGER g AFTER UPDATE ON t BEGIN SELECT RAISE(IGNORE); END",
            Warning,
            "\"g\" says RAISE(IGNORE)",
        ),
        (
            "CREATE TABLE t(k NOT NULL PRIMARY KEY, u REFERENCES u); CREATE TABLE u(k NOT NULL PRIMARY KEY, t REFERENCES t)",
            "",
            Warning,
            "t → u → t",
        ),
        (&format!("CREATE TABLE t(k NOT NULL PRIMARY KEY {wide})"), "", Note, "from column 63 on"),
        ("", "CREATE VIRTUAL TABLE t USING fts5(a)", Note, "virtual"),
        ("CREATE TABLE t(k NOT NULL PRIMARY KEY)", "CREATE TABLE u(a)", Error, "no primary key"),
        ("CREATE TABLE t(k NOT NULL PRIMARY KEY)", "DROP TRIGGER _ssw_d_1", Error, "_ssw_d_1 is missing"),
        ("CREATE TABLE t(k NOT NULL PRIMARY KEY)", "DROP TABLE t", Error, "is gone"),
        ("CREATE TABLE t(k NOT NULL PRIMARY KEY)", "ALTER TABLE t ADD COLUMN a", Note, "\"a\" was added"),
        ("CREATE TABLE t(k NOT NULL PRIMARY KEY)", "CREATE TABLE u(k NOT NULL PRIMARY KEY)", Warning, "not attached"),
        ("CREATE TABLE t(k NOT NULL PRIMARY KEY)", "PRAGMA journal_mode = DELETE", Error, "journal mode is delete"),
    ];
    for (sql, later, severity, what) in ills {
        let findings = check(sql, later);
        let is_it = |finding: &Finding| finding.severity == severity && finding.what.contains(what);
        assert!(findings.iter().any(is_it), "{sql}; {later}: {findings:?}");
        assert!(findings.iter().all(|finding| !finding.advice.is_empty()));
    }
}

/// Findings for a list of tables, as severity, table and the beginning of what is the matter.
fn of_list(database: &Connection, listed: &[&str]) -> Vec<(Severity, String, String)> {
    let listed: Vec<String> = listed.iter().map(|&name| name.to_owned()).collect();
    let findings = doctor::check(database, Wanted::Named(&listed), &[]).unwrap();
    let cut = |what: String| what.split(['(', ':', ',']).next().unwrap_or_default().to_owned();
    findings.into_iter().map(|found| (found.severity, found.table.unwrap_or_default(), cut(found.what))).collect()
}

#[test]
fn what_is_attached_is_held_against_the_list() {
    let directory = tempfile::tempdir().unwrap();
    let database =
        database(&directory, "CREATE TABLE t(k NOT NULL PRIMARY KEY); CREATE TABLE u(k NOT NULL PRIMARY KEY)");
    database.execute_batch("CREATE TABLE v(k NOT NULL PRIMARY KEY); CREATE VIEW w AS SELECT * FROM t").unwrap();
    assert_eq!(of_list(&database, &["T", "u"]), [], "names are the same in either case");
    let found = of_list(&database, &["t", "v", "w", "typo"]);
    let found: Vec<_> = found.iter().map(|(severity, table, what)| (*severity, &table[..], &what[..])).collect();
    assert_eq!(
        found,
        [
            (Severity::Error, "w", "\"w\" is a view"),
            (Severity::Error, "typo", "there is no table \"typo\" in this database"),
            (Severity::Error, "v", "it is listed in database.tables and not attached"),
            (Severity::Warning, "u", "it is attached and not listed in database.tables"),
        ]
    );
}

#[test]
fn tables_that_are_not_listed_are_not_examined() {
    let directory = tempfile::tempdir().unwrap();
    let database = database(&directory, "CREATE TABLE t(k NOT NULL PRIMARY KEY)");
    database.execute_batch("CREATE TABLE keyless(a); CREATE VIRTUAL TABLE words USING fts5(a)").unwrap();
    assert_eq!(of_list(&database, &["t"]), []);
    let advice = |wanted| doctor::check(&database, wanted, &[]).unwrap().swap_remove(0).advice;
    assert!(advice(Wanted::All).ends_with("list the other tables in database.tables"));
    let listed = ["t".to_owned(), "keyless".to_owned()];
    assert!(advice(Wanted::Named(&listed)).ends_with("take it out of database.tables"));
}

#[test]
fn before_anything_is_attached_the_list_need_not_be() {
    let directory = tempfile::tempdir().unwrap();
    let database = Connection::open(directory.path().join("db")).unwrap();
    database.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(k NOT NULL PRIMARY KEY)").unwrap();
    assert_eq!(of_list(&database, &["t"]), []);
    assert_eq!(of_list(&database, &["t", "typo"]).len(), 1);
}

#[test]
fn a_parent_that_is_not_replicated_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE t(k NOT NULL PRIMARY KEY); CREATE TABLE u(k NOT NULL PRIMARY KEY, t REFERENCES t)";
    let mut database = database(&directory, sql);
    let transaction = database.transaction().unwrap();
    capture::detach(&transaction, Wanted::Named(&["t".to_owned()])).unwrap();
    transaction.commit().unwrap();
    let findings = doctor::check(&database, Wanted::Named(&["u".to_owned()]), &[]).unwrap();
    let seen: Vec<_> = findings.iter().map(|finding| (finding.table.as_deref(), finding.what.as_str())).collect();
    assert_eq!(seen, [(Some("u"), "it refers to \"t\", which is not replicated")]);
}

#[test]
fn functions_and_collations_that_only_the_application_knows_are_found() {
    let sql = [
        "CREATE TABLE t(k NOT NULL PRIMARY KEY, a CHECK(own(a) = 1))",
        "CREATE TABLE t(k NOT NULL PRIMARY KEY, a, g AS (own(a)))",
        "CREATE TABLE t(k NOT NULL PRIMARY KEY, a); CREATE INDEX i ON t(own(a))",
        "CREATE TABLE t(k COLLATE own NOT NULL PRIMARY KEY, a)",
    ];
    for sql in sql {
        let directory = tempfile::tempdir().unwrap();
        {
            let application = Connection::open(directory.path().join("db")).unwrap();
            application.create_scalar_function("own", 1, FunctionFlags::SQLITE_DETERMINISTIC, |_| Ok(1)).unwrap();
            application.create_collation("own", |one, two| one.cmp(two)).unwrap();
            application.execute_batch(sql).unwrap();
        }
        let database = Connection::open(directory.path().join("db")).unwrap();
        let findings = doctor::check(&database, Wanted::All, &[]).unwrap();
        let is_it =
            |finding: &Finding| finding.severity == Severity::Error && finding.what.contains("cannot be written");
        assert!(findings.iter().any(is_it), "{sql}: {findings:?}");
    }
}
