//! Attaching, detaching, and what an application's own changes to its schema do to capture.

use rusqlite::{Connection, Transaction, types::Value};
use siteswap_replication::{
    capture::{self, Departure, Difference, Wanted},
    schema::Table,
};

const SCHEMA: &str = r#"
CREATE TABLE plain(id INTEGER PRIMARY KEY, a TEXT UNIQUE, b);
CREATE TABLE "odd ""name" ("select" TEXT COLLATE NOCASE, "k 2" BLOB, [order] REAL, PRIMARY KEY("select", "k 2")) WITHOUT ROWID;
CREATE INDEX kept ON plain(b); CREATE VIEW shown AS SELECT * FROM plain;
CREATE TRIGGER own AFTER INSERT ON plain BEGIN UPDATE plain SET b = 1 WHERE id = NEW.id; END;
INSERT INTO plain VALUES(1, 'one', NULL);
"#;

fn database() -> Connection {
    let database = Connection::open_in_memory().unwrap();
    database.execute_batch(SCHEMA).unwrap();
    database
}

fn within<T>(database: &mut Connection, work: impl FnOnce(&Transaction<'_>) -> T) -> T {
    let transaction = database.transaction().unwrap();
    let result = work(&transaction);
    transaction.commit().unwrap();
    result
}

fn attach_all(database: &mut Connection) -> Vec<Table> {
    within(database, |transaction| capture::attach(transaction, Wanted::All)).unwrap()
}

fn rows(database: &Connection, sql: &str) -> Vec<Vec<Value>> {
    let mut statement = database.prepare(sql).unwrap();
    let width = statement.column_count();
    let rows = statement.query_map([], |row| (0..width).map(|column| row.get(column)).collect()).unwrap();
    rows.map(Result::unwrap).collect()
}

/// Operation, mask and first part of the key of every touch since the last call, oldest first.
fn touches(database: &Connection) -> Vec<(String, i64, Value)> {
    let sql = "SELECT CASE what WHEN -1 THEN 'I' WHEN -2 THEN 'D' WHEN -3 THEN '?' ELSE 'U' END,
        CASE WHEN what < -1 THEN 0 ELSE what END, k0 FROM _ssw_touch WHERE tbl NOTNULL ORDER BY seq";
    let mut statement = database.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    let touches = rows.map(Result::unwrap).collect();
    database.execute("UPDATE _ssw_touch SET tbl = NULL", []).unwrap();
    touches
}

fn departures(database: &Connection) -> Vec<(String, Difference)> {
    let all = capture::inspect(database, true).unwrap();
    all.into_iter().map(|Departure { table, difference }| (table, difference)).collect()
}

fn refresh(database: &mut Connection) -> Vec<String> {
    within(database, capture::refresh).unwrap()
}

#[test]
fn detach_leaves_the_schema_byte_for_byte_as_it_was() {
    let mut database = database();
    let schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema";
    let before = rows(&database, schema);
    let tables = attach_all(&mut database);
    assert_eq!(tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(), ["odd \"name", "plain"]);
    assert_eq!(capture::tables(&database).unwrap(), tables);
    assert_eq!(attach_all(&mut database), tables, "attaching again changes nothing");
    database.execute_batch("INSERT INTO plain(a) VALUES('two'); DELETE FROM plain WHERE id = 1").unwrap();

    within(&mut database, |transaction| capture::detach(transaction, Wanted::All)).unwrap();
    assert_eq!(rows(&database, schema), before);
    assert_eq!(capture::tables(&database).unwrap(), []);
    assert_eq!(rows(&database, "SELECT a FROM plain"), [[Value::Text("two".into())]]);
}

#[test]
fn tables_are_detached_one_by_one_and_numbers_are_not_used_again() {
    let mut database = database();
    let odd = || vec!["ODD \"name".to_owned()];
    attach_all(&mut database);
    within(&mut database, |transaction| capture::detach(transaction, Wanted::Named(&odd()))).unwrap();
    let left = capture::tables(&database).unwrap();
    assert_eq!(left.iter().map(|table| (table.number, table.name.as_str())).collect::<Vec<_>>(), [(2, "plain")]);
    assert_eq!(departures(&database), [("odd \"name".to_owned(), Difference::New)]);
    assert_eq!(
        rows(&database, "SELECT count(*) FROM sqlite_schema WHERE name LIKE '~_ssw~_%~_1' ESCAPE '~'"),
        [[Value::Integer(0)]]
    );
    let unknown = within(&mut database, |transaction| capture::detach(transaction, Wanted::Named(&odd())));
    assert!(matches!(unknown, Err(capture::Error::NotAttached(_))));

    let again = within(&mut database, |transaction| capture::attach(transaction, Wanted::Named(&odd()))).unwrap();
    assert_eq!(again.iter().map(|table| table.number).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn each_change_leaves_its_touch_and_deleted_rows_their_image() {
    let mut database = database();
    let number = attach_all(&mut database)[1].number;
    let text = |op: &str, mask, key| (op.to_owned(), mask, Value::Integer(key));
    database.execute_batch("DROP TRIGGER own; INSERT INTO plain VALUES(2, 'two', 2.5)").unwrap();
    assert_eq!(touches(&database), [text("I", -1, 2)]);
    database.execute_batch("UPDATE plain SET a = 'Two' WHERE id = 2; UPDATE plain SET b = b, a = a").unwrap();
    assert_eq!(touches(&database), [text("U", 2, 2), text("U", 0, 1), text("U", 0, 2)]);
    database.execute_batch("UPDATE plain SET rowid = 3 WHERE id = 2").unwrap();
    assert_eq!(touches(&database), [text("D", 0, 2), text("I", -1, 3), text("U", 0, 3)]);
    database.execute_batch("REPLACE INTO plain(a) VALUES('Two')").unwrap();
    assert_eq!(touches(&database), [text("?", 0, 3), text("I", -1, 4)]);
    let images = rows(&database, &format!("SELECT c0, c1, c2 FROM _ssw_old_{number} ORDER BY seq"));
    let image = |id| vec![Value::Integer(id), Value::Text("Two".into()), Value::Real(2.5)];
    assert_eq!(images, [image(2), image(3)]);
}

#[test]
fn rows_without_a_whole_key_are_not_recorded() {
    let mut database = Connection::open_in_memory().unwrap();
    database.execute_batch("CREATE TABLE t(k TEXT PRIMARY KEY, a UNIQUE)").unwrap();
    let table = attach_all(&mut database).remove(0);
    assert!(capture::nullable_key(&table));
    database
        .execute_batch(
            "INSERT INTO t VALUES(NULL, 1), ('x', 2); UPDATE t SET a = a + 10; DELETE FROM t WHERE k IS NULL",
        )
        .unwrap();
    let key = |op: &str| (op.to_owned(), Value::Text("x".into()));
    let seen: Vec<_> = touches(&database).into_iter().map(|(op, _, key)| (op, key)).collect();
    assert_eq!(seen, [key("I"), key("U")]);
    database
        .execute_batch(
            "INSERT INTO t VALUES(NULL, 3); UPDATE t SET k = 'y' WHERE a = 3; UPDATE t SET k = NULL WHERE k = 'y'",
        )
        .unwrap();
    let seen: Vec<_> = touches(&database).into_iter().map(|(op, _, _)| op).collect();
    assert_eq!(seen, ["I", "U", "D"]);
}

#[test]
fn an_added_column_is_taken_up_with_what_was_written_to_it_before_that() {
    let mut database = database();
    let before = attach_all(&mut database);
    database.execute_batch("ALTER TABLE plain ADD COLUMN c TEXT DEFAULT 'new'; UPDATE plain SET c = 'set'").unwrap();
    assert_eq!(departures(&database), [("plain".to_owned(), Difference::Added("c".into()))]);
    assert_eq!(refresh(&mut database), Vec::<String>::new());
    assert_eq!(touches(&database), [("U".to_owned(), 0b1000, Value::Integer(1))]);
    assert_eq!(departures(&database), []);
    let after = capture::tables(&database).unwrap();
    assert_eq!((after[1].number, after[1].columns.len()), (before[1].number, 4));
    database.execute_batch("DELETE FROM plain").unwrap();
    let image = rows(&database, &format!("SELECT c3 FROM _ssw_old_{}", after[1].number));
    assert_eq!(image, [[Value::Text("set".into())]]);
}

#[test]
fn missing_and_altered_triggers_and_new_unique_indexes_are_mended_and_call_for_a_scan() {
    let mut database = database();
    attach_all(&mut database);
    let spoil = "DROP TRIGGER own; DROP TRIGGER _ssw_u_2; DROP TRIGGER _ssw_d_2; DROP TABLE _ssw_old_1;
        CREATE TRIGGER _ssw_d_2 AFTER DELETE ON plain BEGIN SELECT 1; END; CREATE UNIQUE INDEX more ON plain(b)";
    database.execute_batch(spoil).unwrap();
    let plain = |difference| ("plain".to_owned(), difference);
    let expected = [
        ("odd \"name".to_owned(), Difference::Missing("_ssw_old_1".into())),
        plain(Difference::Uniques),
        plain(Difference::Missing("_ssw_u_2".into())),
        plain(Difference::Altered("_ssw_d_2".into())),
    ];
    assert_eq!(departures(&database), expected);
    assert_eq!(refresh(&mut database), ["odd \"name", "plain"]);
    assert_eq!(departures(&database), []);
    database.execute_batch("INSERT INTO plain(id, b) VALUES(8, 8); REPLACE INTO plain(id, b) VALUES(9, 8)").unwrap();
    assert!(touches(&database).contains(&("?".to_owned(), 0, Value::Integer(8))));
}

#[test]
fn other_changes_of_the_schema_are_named_and_left_alone() {
    let changes = [
        ("ALTER TABLE plain RENAME COLUMN b TO d", "column \"b\" is now \"d\""),
        ("ALTER TABLE plain RENAME TO other", "it is gone"),
        (
            "DROP TABLE plain; CREATE TABLE plain(id TEXT PRIMARY KEY, a TEXT UNIQUE, b)",
            "column \"id\" is declared otherwise",
        ),
        ("DROP TABLE plain; CREATE TABLE plain(id INTEGER PRIMARY KEY, a TEXT UNIQUE)", "column \"b\" is gone"),
        ("DROP TABLE plain; CREATE TABLE plain(id INTEGER, a TEXT UNIQUE, b)", "has no primary key"),
        (
            "DROP TABLE plain; CREATE TABLE plain(id INTEGER PRIMARY KEY, a TEXT UNIQUE, b REFERENCES plain)",
            "foreign keys",
        ),
        ("DROP TABLE plain; CREATE TABLE plain(id INTEGER PRIMARY KEY, a TEXT UNIQUE, b, CHECK(a < b))", "CHECK"),
        (
            "DROP TABLE plain; CREATE TABLE plain(a TEXT UNIQUE, b, id INTEGER PRIMARY KEY)",
            "column \"id\" is now \"a\"",
        ),
    ];
    for (sql, expected) in changes {
        let mut database = database();
        attach_all(&mut database);
        database.execute_batch("DROP VIEW shown").unwrap();
        database.execute_batch(sql).unwrap();
        let found = capture::inspect(&database, false).unwrap();
        assert!(found.iter().any(|departure| departure.difference.to_string().contains(expected)), "{sql}: {found:?}");
        assert_eq!(refresh(&mut database), Vec::<String>::new(), "{sql}");
    }
}

#[test]
fn a_table_that_changed_is_not_attached_again_before_it_is_detached() {
    let mut database = database();
    attach_all(&mut database);
    database.execute_batch("ALTER TABLE plain RENAME COLUMN b TO d").unwrap();
    let refused = within(&mut database, |transaction| capture::attach(transaction, Wanted::All)).unwrap_err();
    assert_eq!(refused.to_string(), "table \"plain\" changed since it was attached: column \"b\" is now \"d\"");
    let plain = ["plain".to_owned()];
    within(&mut database, |transaction| capture::detach(transaction, Wanted::Named(&plain))).unwrap();
    attach_all(&mut database);
    assert_eq!(departures(&database), []);
}

#[test]
fn a_refused_write_fails_with_the_message_whatever_its_conflict_clause() {
    let mut database = database();
    let tables = attach_all(&mut database);
    database
        .execute_batch("PRAGMA foreign_keys = ON; CREATE TABLE up(id INTEGER PRIMARY KEY); INSERT INTO up VALUES(1)")
        .unwrap();
    within(&mut database, |transaction| capture::refuse(transaction, &tables[1], Some("l'est holds it"))).unwrap();
    for sql in ["INSERT OR IGNORE INTO plain(a) VALUES(1)", "UPDATE OR IGNORE plain SET a = 2", "DELETE FROM plain"] {
        let refused = database.execute_batch(sql).unwrap_err().to_string();
        assert_eq!(refused, "l'est holds it", "{sql}");
    }
    assert_eq!(departures(&database), [("up".to_owned(), Difference::New)], "refusing is no departure");
    within(&mut database, |transaction| capture::refuse(transaction, &tables[1], None)).unwrap();
    database.execute_batch("DELETE FROM plain").unwrap();
}

#[test]
fn columns_from_the_63rd_on_share_a_bit_however_many_there_are() {
    let mut database = Connection::open_in_memory().unwrap();
    let columns: String = (1..1900).map(|column| format!(", c{column}")).collect();
    database
        .execute_batch(&format!("CREATE TABLE t(id INTEGER PRIMARY KEY{columns}); INSERT INTO t(id) VALUES(1)"))
        .unwrap();
    attach_all(&mut database);
    database.execute_batch("UPDATE t SET c61 = 1; UPDATE t SET c62 = 1; UPDATE t SET c1899 = 1, c1 = 1").unwrap();
    let masks: Vec<_> = touches(&database).into_iter().map(|(_, mask, _)| mask).collect();
    assert_eq!(masks, [1 << 61, 1 << 62, 1 << 62 | 0b10]);
}

#[test]
fn an_application_that_trusts_no_schema_writes_as_before() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("db");
    let mut agent = Connection::open(&file).unwrap();
    agent.execute_batch(&format!("PRAGMA journal_mode = WAL; {SCHEMA}")).unwrap();
    attach_all(&mut agent);
    // One that trusts nothing in the schema but what SQLite itself calls harmless.
    let application = Connection::open(&file).unwrap();
    application.execute_batch("PRAGMA trusted_schema = OFF").unwrap();
    application.execute_batch("DROP TRIGGER own; UPDATE plain SET b = 2; DELETE FROM plain; VACUUM").unwrap();
    let seen: Vec<_> = touches(&agent).into_iter().map(|(op, mask, _)| (op, mask)).collect();
    assert_eq!(seen, [("U".to_owned(), 4), ("D".to_owned(), 0)]);
}

#[test]
fn cascades_are_recorded_as_the_children_see_them() {
    let mut database = Connection::open_in_memory().unwrap();
    let sql = "PRAGMA foreign_keys = ON; CREATE TABLE p(id INTEGER PRIMARY KEY);
        CREATE TABLE t(id INTEGER PRIMARY KEY, up REFERENCES t ON DELETE CASCADE,
          p REFERENCES p ON DELETE SET NULL ON UPDATE CASCADE);
        INSERT INTO p VALUES(1); INSERT INTO t VALUES(10, NULL, 1), (11, 10, NULL), (12, 11, NULL);";
    database.execute_batch(sql).unwrap();
    attach_all(&mut database);
    let touch = |op: &str, mask, key| (op.to_owned(), mask, Value::Integer(key));
    database.execute_batch("UPDATE p SET id = 2").unwrap();
    assert_eq!(touches(&database), [touch("U", 4, 10), touch("D", 0, 1), touch("I", -1, 2), touch("U", 0, 2)]);
    database.execute_batch("DELETE FROM p; DELETE FROM t WHERE id = 10").unwrap();
    let mut seen = touches(&database);
    seen.sort_by_key(|(_, _, key)| format!("{key:?}"));
    let gone = [10, 11, 12].map(|key| touch("D", 0, key));
    assert_eq!(seen, [[touch("U", 4, 10)].as_slice(), &gone, &[touch("D", 0, 2)]].concat());
}
