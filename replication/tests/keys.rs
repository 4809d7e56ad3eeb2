//! Tables with unusual keys, or very many columns.

mod sites;

use sites::{Dice, Sites};
use siteswap_replication::schema::MAX_COLUMNS;

/// What an application writes at the first site, one batch after the other; then both sites have the same so many rows.
fn follow(schema: &str, batches: &[&str], table: &str, rows: usize) {
    let (mut sites, mut dice) = (Sites::new(schema, &[0, 0], &[]), Dice::new(1));
    for sql in batches {
        sites.now += 10;
        sites.all[0].set_clock(sites.now);
        sites.all[0].app.execute_batch(sql).expect("a write");
        sites.fold(0);
        sites.settle(&mut dice);
        let [one, two] = [0, 1].map(|at| sites.all[at].rows(table));
        assert_eq!(one, two, "after {sql:.80}");
    }
    assert_eq!(sites.all[0].rows(table).len(), rows);
    let outcome = sites.compare(0, 1, &mut dice);
    assert!(outcome.is_clean() && outcome.rows == rows as u64, "{outcome:?}");
}

#[test]
fn rows_that_only_their_columns_collation_takes_for_equal_are_told_apart() {
    for tail in ["", " WITHOUT ROWID"] {
        let schema = format!(
            "CREATE TABLE word(k TEXT COLLATE NOCASE NOT NULL, v, PRIMARY KEY(k COLLATE BINARY)){tail};
             INSERT INTO word VALUES('a', 0), ('A', 0), ('b', 0), ('B', 0);
             WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 2000)
             INSERT INTO word SELECT 'name ' || n, 0 FROM n UNION ALL SELECT 'NAME ' || n, 0 FROM n"
        );
        let batches = [
            "UPDATE word SET v = 1 WHERE k = 'a' COLLATE BINARY",
            "UPDATE word SET v = 2 WHERE k = 'A' COLLATE BINARY",
            "DELETE FROM word WHERE k = 'b' COLLATE BINARY; INSERT INTO word VALUES('c', 0), ('C', 0)",
            "DELETE FROM word WHERE k = 'A' COLLATE BINARY",
        ];
        follow(&schema, &batches, "word", 4004);
    }
}

#[test]
fn a_table_of_nearly_as_many_columns_as_sqlite_allows_is_replicated() {
    let columns: Vec<String> = (1..MAX_COLUMNS).map(|column| format!("c{column} DEFAULT {column}")).collect();
    let schema = format!("CREATE TABLE wide(id INTEGER PRIMARY KEY, {})", columns.join(", "));
    let update = format!("UPDATE wide SET c1 = 'x', c{} = 'y' WHERE id = 1", MAX_COLUMNS - 1);
    let batches = ["INSERT INTO wide(id) VALUES(1), (2), (3)", &update, "DELETE FROM wide WHERE id = 2"];
    follow(&schema, &batches, "wide", 2);
}
