//! What is read of a table, and which tables are refused.

use rusqlite::Connection;
use siteswap_replication::schema::{self, Error, Found, LeftOut, OnDelete, Unique};

fn database(sql: &str) -> Connection {
    let database = Connection::open_in_memory().unwrap();
    database.execute_batch(sql).unwrap();
    database
}

fn read(sql: &str, table: &str) -> Found {
    schema::read(&database(sql), table).unwrap()
}

fn unique(columns: &[(u16, &str)], primary: bool) -> Unique {
    Unique { columns: columns.iter().map(|(column, collation)| (*column, (*collation).to_owned())).collect(), primary }
}

#[test]
fn columns_and_key_are_read_without_generated_columns() {
    let sql = r#"CREATE TABLE "We""ird ["("k 1" TEXT, twice INT AS (a * 2), a INT NOT NULL DEFAULT (1 + 2), k2,
        PRIMARY KEY(k2, "k 1"))"#;
    let table = read(sql, "WE\"IRD [").table;
    assert_eq!(table.name, "We\"ird [");
    let columns = table.columns.iter().map(|column| (column.name.as_str(), column.declared.as_str(), column.not_null));
    assert_eq!(Vec::from_iter(columns), [("k 1", "TEXT", false), ("a", "INT", true), ("k2", "", false)]);
    assert_eq!(table.columns[1].default.as_deref(), Some("1 + 2"));
    assert_eq!(table.key, [2, 0]);
    assert!(!table.without_rowid);
    assert_eq!(table.uniques, [unique(&[(2, "BINARY"), (0, "BINARY")], true)]);
}

#[test]
fn a_key_that_is_the_rowid_is_never_null_and_has_no_index() {
    let table = read("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", "t").table;
    assert!(table.columns[0].not_null && table.uniques.is_empty());
    let descending = read("CREATE TABLE t(id INTEGER PRIMARY KEY DESC, a)", "t").table;
    assert!(!descending.columns[0].not_null, "SQLite's oddity: this one is not the rowid");
    assert!(read("CREATE TABLE t(id INT PRIMARY KEY, a) WITHOUT ROWID", "t").table.columns[0].not_null);
}

#[test]
fn a_primary_keys_index_matters_if_keys_of_different_bytes_can_be_the_same_to_it() {
    let uniques = |key: &str| read(&format!("CREATE TABLE t({key}) WITHOUT ROWID"), "t").table.uniques;
    assert_eq!(uniques("k TEXT PRIMARY KEY"), []);
    assert_eq!(uniques("k INT PRIMARY KEY"), []);
    assert_eq!(uniques("k TEXT COLLATE NOCASE PRIMARY KEY"), [unique(&[(0, "NOCASE")], true)]);
    assert_eq!(uniques("k BLOB PRIMARY KEY"), [unique(&[(0, "BINARY")], true)]);
    let mixed = "k TEXT, j REAL, PRIMARY KEY(j, k COLLATE RTRIM)";
    assert_eq!(uniques(mixed), [unique(&[(1, "BINARY"), (0, "RTRIM")], true)]);
}

#[test]
fn unique_indexes_keep_their_own_collations_and_others_are_named() {
    let found = read(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT UNIQUE, b, g AS (a || b), UNIQUE(b, a COLLATE NOCASE));
         CREATE UNIQUE INDEX half ON t(a) WHERE b > 0; CREATE UNIQUE INDEX lowered ON t(lower(a));
         CREATE UNIQUE INDEX made ON t(g); CREATE INDEX plain ON t(b);",
        "t",
    );
    let expected = [unique(&[(1, "BINARY")], false), unique(&[(2, "BINARY"), (1, "NOCASE")], false)];
    assert_eq!(found.table.uniques, expected);
    let left = [("half", "partial"), ("lowered", "over an expression"), ("made", "over a generated column")];
    assert_eq!(found.left_out, left.map(|(index, kind)| LeftOut::Unique { index: index.into(), kind }));
}

#[test]
fn foreign_keys_name_the_parents_columns_also_when_the_schema_does_not() {
    let found = read(
        "CREATE TABLE Parent(x, y, PRIMARY KEY(y, x));
         CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, up REFERENCES t ON DELETE SET NULL, n REFERENCES nobody,
           g AS (a) REFERENCES t, FOREIGN KEY(b, a) REFERENCES PARENT ON DELETE CASCADE)",
        "t",
    );
    let references = found.table.references.iter();
    let references =
        references.map(|key| (&key.columns[..], &key.parent[..], key.parent_columns.join(","), key.on_delete));
    let expected =
        [(&[3][..], "t", "id".into(), OnDelete::SetNull), (&[2, 1], "Parent", "y,x".into(), OnDelete::Cascade)];
    assert_eq!(Vec::from_iter(references), expected);
    let left = found.left_out.iter().map(|left| matches!(left, LeftOut::Reference { .. }));
    assert_eq!(Vec::from_iter(left), [true, true]);
}

#[test]
fn columns_of_one_constraint_belong_together() {
    let together = |sql: &str| read(sql, "t").table.together;
    let sql = "CREATE TABLE t(k PRIMARY KEY, a, b, c, d, e, f, g AS (e + k), h AS (g * f), CHECK(a < b), UNIQUE(b, c),
        UNIQUE(d, k), CHECK(h > 0))";
    assert_eq!(together(sql), [vec![1, 2, 3], vec![5, 6]]);
    let sql = "CREATE TABLE p(x, y, PRIMARY KEY(x, y));
        CREATE TABLE t(k PRIMARY KEY, a, b, FOREIGN KEY(a, b) REFERENCES p)";
    assert_eq!(together(sql), [vec![1, 2]]);
    assert_eq!(together("CREATE TABLE t(k PRIMARY KEY, a CHECK(a > 0), b)"), Vec::<Vec<u16>>::new());
}

#[test]
fn unique_columns_with_computed_defaults_are_named() {
    let plain = ["5", "-1.5e3", "'a''b'", "x'00'", "word", "\"double\"", "CURRENT_TIMESTAMP", "TRUE"];
    for default in plain {
        let sql = format!("CREATE TABLE t(k INTEGER PRIMARY KEY, u NOT NULL UNIQUE DEFAULT {default})");
        assert_eq!(read(&sql, "t").left_out, [], "{default}");
    }
    let found = read("CREATE TABLE t(k INTEGER PRIMARY KEY, u NOT NULL UNIQUE DEFAULT (random()))", "t");
    assert_eq!(found.left_out, [LeftOut::Default { column: "u".into() }]);
}

#[test]
fn what_cannot_be_replicated_is_refused_with_the_reason() {
    let database = database(
        "CREATE TABLE bare(a); CREATE VIEW seen AS SELECT 1; CREATE VIRTUAL TABLE words USING fts5(a);
         CREATE TABLE _ssw_x(a); CREATE TABLE counted(a INTEGER PRIMARY KEY AUTOINCREMENT);
         CREATE TABLE long(a, b, c, d, e, f, g, h, i, PRIMARY KEY(a, b, c, d, e, f, g, h, i));",
    );
    let columns: Vec<String> = (0..1981).map(|column| format!("c{column}")).collect();
    database.execute_batch(&format!("CREATE TABLE wide({}, PRIMARY KEY(c0))", columns.join(", "))).unwrap();
    let refused = |table: &str| schema::read(&database, table).unwrap_err();
    assert!(matches!(refused("bare"), Error::NoKey(_)));
    assert!(matches!(refused("nothing"), Error::Missing(_)));
    assert!(matches!(refused("long"), Error::LongKey { columns: 9, .. }));
    assert!(matches!(refused("wide"), Error::Wide { columns: 1981, .. }));
    for table in ["seen", "words", "words_data", "_ssw_x", "sqlite_sequence"] {
        assert!(matches!(refused(table), Error::NotOrdinary { .. }), "{table}");
    }
    assert_eq!(refused("seen").to_string(), "\"seen\" is a view: only ordinary tables can be replicated");
    assert_eq!(schema::names(&database).unwrap(), ["bare", "counted", "long", "wide"]);
}
