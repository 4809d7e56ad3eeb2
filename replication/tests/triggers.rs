//! `fire_triggers`: an application's triggers that fire also for what a peer has told.

mod sites;

use std::collections::BTreeMap;

use rusqlite::Connection;
use sites::{Dice, Sites};
use siteswap_replication::{
    capture::{self, Wanted},
    doctor::{self, Severity},
    store::{Position, Rules},
};

/// Documents with an index of their words, which their triggers keep; notes with such an index too.
const LIBRARY: &str = "
CREATE TABLE doc(id INTEGER PRIMARY KEY, title TEXT UNIQUE, body TEXT);
CREATE VIRTUAL TABLE words USING fts5(body, content = doc, content_rowid = id);
CREATE TRIGGER doc_i AFTER INSERT ON doc BEGIN INSERT INTO words(rowid, body) VALUES(NEW.id, NEW.body); END;
CREATE TRIGGER doc_d AFTER DELETE ON doc BEGIN INSERT INTO words(words, rowid, body) VALUES('delete', OLD.id, OLD.body); END;
CREATE TRIGGER doc_u AFTER UPDATE ON doc BEGIN
  INSERT INTO words(words, rowid, body) VALUES('delete', OLD.id, OLD.body);
  INSERT INTO words(rowid, body) VALUES(NEW.id, NEW.body); END;
CREATE TABLE note(id INTEGER PRIMARY KEY, body TEXT);
CREATE VIRTUAL TABLE noted USING fts5(body);
CREATE TRIGGER note_i AFTER INSERT ON note BEGIN INSERT INTO noted(rowid, body) VALUES(NEW.id, NEW.body); END;
";

fn library(count: usize) -> (Sites, Dice) {
    let rules = Rules { fire_triggers: true, ..Rules::default() };
    let (mut sites, mut dice) = (Sites::new(LIBRARY, &vec![0; count], &[("doc", rules)]), Dice::new(1));
    sites.settle(&mut dice);
    (sites, dice)
}

/// The documents with a word.
fn find(app: &Connection, index: &str, word: &str) -> Vec<i64> {
    let mut statement =
        app.prepare(&format!("SELECT rowid FROM {index} WHERE {index} MATCH ? ORDER BY rowid")).expect("a query");
    let found = statement.query_map([word], |row| row.get(0)).expect("rows");
    found.collect::<Result<_, _>>().expect("rows")
}

/// SQLite compares the index with the documents.
fn assert_whole(app: &Connection) {
    app.execute("INSERT INTO words(words, rank) VALUES('integrity-check', 1)", [])
        .expect("the index is what the table says");
}

#[test]
fn a_search_index_that_triggers_keep_is_kept_at_every_site() {
    let (mut sites, mut dice) = library(3);
    sites.write(0, "INSERT INTO doc VALUES(1, 'one', 'red apple'), (2, 'two', 'green pear')");
    sites.write(0, "INSERT INTO note VALUES(7, 'red ink')");
    sites.settle(&mut dice);
    for site in &sites.all[1..] {
        assert_eq!(site.store.position().expect("a position").0, 0, "site {} has changed nothing itself", site.id);
    }
    sites.write(1, "UPDATE doc SET body = 'yellow pear' WHERE id = 2");
    sites.write(2, "DELETE FROM doc WHERE id = 1");
    // Two with one title: the older loses it, at every site by an update of its own.
    sites.write(0, "INSERT INTO doc VALUES(3, 'same', 'blue plum')");
    sites.write(1, "INSERT INTO doc VALUES(4, 'same', 'blue fig')");
    sites.settle(&mut dice);
    for at in 0..3 {
        let app = &sites.all[at].app;
        assert_eq!(
            ["red", "green", "yellow", "blue"].map(|word| find(app, "words", word)),
            [vec![], vec![], vec![2], vec![3, 4]]
        );
        assert_whole(app);
        // The table of notes has no such rule.
        assert_eq!(find(app, "noted", "red"), if at == 0 { vec![7] } else { vec![] }, "at site {}", at + 1);
    }
}

#[test]
fn a_site_that_refuses_its_applications_writes_takes_those_of_its_peer() {
    let (mut sites, mut dice) = library(2);
    let tables = BTreeMap::from([("doc".to_owned(), Some("site 1 holds it".to_owned()))]);
    let now = sites.now;
    sites.all[1].store.refuse(&tables, now).expect("a refusal");
    sites.write(0, "INSERT INTO doc VALUES(1, 'one', 'red apple')");
    sites.settle(&mut dice);
    sites.write(0, "UPDATE doc SET body = 'green apple' WHERE id = 1");
    sites.settle(&mut dice);
    assert_eq!(find(&sites.all[1].app, "words", "green"), [1]);
    let refused = sites.all[1].app.execute("DELETE FROM doc", []).expect_err("it is refused").to_string();
    assert!(refused.contains("site 1 holds it"), "{refused}");
}

#[test]
fn a_trigger_that_fails_keeps_a_batch_out_until_it_does_not() {
    let (mut sites, mut dice) = library(2);
    sites.all[1]
        .app
        .execute_batch("CREATE TRIGGER no BEFORE INSERT ON doc BEGIN SELECT RAISE(ABORT, 'not here'); END")
        .expect("a trigger");
    sites.write(0, "INSERT INTO doc VALUES(1, 'one', 'red apple')");
    sites.write(0, "INSERT INTO note VALUES(1, 'ink')");
    sites.fold(0);
    let (peer, now) = (sites.all[1].id, sites.now);
    let next = sites.all[0].store.next_part(peer, &Position::after(sites.all[0].acknowledged(peer)));
    let (part, _) = next.expect("a look").expect("a batch");
    let refused = sites.all[1].store.receive(&part, now).expect_err("it fails").to_string();
    assert!(refused.contains("not here"), "{refused}");
    assert_eq!(sites.all[1].rows("note").len(), 0, "a batch is applied whole or not");
    sites.all[1].app.execute_batch("DROP TRIGGER no").expect("gone");
    sites.settle(&mut dice);
    assert_eq!((sites.all[1].rows("note").len(), find(&sites.all[1].app, "words", "red")), (1, vec![1]));
}

#[test]
fn doctor_names_replicated_tables_that_triggers_write_to_where_they_fire() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut database = Connection::open(directory.path().join("db")).expect("a database");
    let tables = "PRAGMA journal_mode = WAL;
        CREATE TABLE log(at TEXT NOT NULL PRIMARY KEY, what);
        CREATE TRIGGER doc_log AFTER UPDATE ON doc BEGIN INSERT INTO log VALUES(julianday(), NEW.id); END;
        CREATE TRIGGER note_log AFTER UPDATE ON note BEGIN INSERT INTO log VALUES(julianday(), NEW.id); END;";
    database.execute_batch(&format!("{LIBRARY}{tables}")).expect("tables");
    let transaction = database.transaction().expect("a transaction");
    capture::attach(&transaction, Wanted::All).expect("attached");
    transaction.commit().expect("a commit");
    let errors = |firing: &[&str]| {
        let firing: Vec<String> = firing.iter().map(|name| (*name).to_owned()).collect();
        let mut findings = doctor::check(&database, Wanted::All, &firing).expect("findings");
        findings.retain(|finding| finding.severity == Severity::Error);
        findings.into_iter().map(|finding| (finding.table.unwrap_or_default(), finding.what)).collect::<Vec<_>>()
    };
    assert_eq!(errors(&[]), []);
    let [(table, what)] = &errors(&["DOC"])[..] else { panic!("{:?}", errors(&["DOC"])) };
    assert!(table == "doc" && what.contains("write to log, which is replicated too"), "{table}: {what}");

    database
        .create_scalar_function("ours", 0, rusqlite::functions::FunctionFlags::SQLITE_UTF8, |_| Ok(1))
        .expect("a function");
    database.execute_batch("CREATE TRIGGER note_f AFTER INSERT ON note BEGIN SELECT ours(); END").expect("a trigger");
    database.remove_function("ours", 0).expect("no function");
    assert!(!errors(&["doc"]).iter().any(|(table, _)| table == "note"), "it does not fire there");
    assert!(
        errors(&["note"]).iter().any(|(table, what)| table == "note" && what.contains("ours")),
        "{:?}",
        errors(&["note"])
    );
}
