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

/// What one site says to the next batch of the other.
fn refusal(sites: &mut Sites, from: usize, to: usize) -> String {
    sites.fold(from);
    let (peer, now) = (sites.all[to].id, sites.now);
    let next = sites.all[from].store.next_part(peer, &Position::after(sites.all[from].acknowledged(peer)));
    let (part, _) = next.expect("a look").expect("a batch");
    sites.all[to].store.receive(&part, now).expect_err("it fails").to_string()
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
    let refused = refusal(&mut sites, 0, 1);
    assert!(refused.contains("not here"), "{refused}");
    assert_eq!(sites.all[1].rows("note").len(), 0, "a batch is applied whole or not");
    sites.all[1].app.execute_batch("DROP TRIGGER no").expect("gone");
    sites.settle(&mut dice);
    assert_eq!((sites.all[1].rows("note").len(), find(&sites.all[1].app, "words", "red")), (1, vec![1]));
}

/// People, and a register of their names at each of two sites, which a trigger keeps with a clause of its own.
fn register(clause: &str) -> (Sites, Dice) {
    let rules = Rules { fire_triggers: true, ..Rules::default() };
    let (dice, people) = (Dice::new(1), "CREATE TABLE person(id INTEGER PRIMARY KEY, name TEXT)");
    let mut sites = Sites::new(people, &[0, 0], &[("person", rules)]);
    for at in [0, 1] {
        let trigger = format!(
            "CREATE TABLE called(name TEXT PRIMARY KEY, person);
             CREATE TRIGGER register AFTER INSERT ON person BEGIN
               INSERT {clause} INTO called VALUES(NEW.name, NEW.id); END"
        );
        sites.write(at, &trigger);
        sites.all[at].store.refresh().expect("a store");
    }
    (sites, dice)
}

#[test]
fn what_a_trigger_does_on_conflict_is_as_it_says() {
    for (clause, first) in [("OR IGNORE", 2), ("OR REPLACE", 3)] {
        let (mut sites, mut dice) = register(clause);
        sites.write(1, "INSERT INTO person VALUES(2, 'ann')");
        sites.write(1, "INSERT INTO person VALUES(3, 'ann')");
        sites.settle(&mut dice);
        for site in &sites.all {
            assert_eq!(site.rows("person").len(), 2, "{clause}");
            let person: i64 = site.app.query_row("SELECT person FROM called", [], |row| row.get(0)).expect("a row");
            assert_eq!(person, first, "{clause}");
        }
    }
}

#[test]
fn a_row_is_not_deleted_because_a_trigger_finds_another_in_its_way() {
    let (mut sites, _) = register("");
    sites.write(0, "INSERT INTO called VALUES('ann', 0)");
    sites.write(1, "INSERT INTO person VALUES(2, 'ann')");
    let refused = refusal(&mut sites, 1, 0);
    assert!(refused.contains("called.name"), "{refused}");
    sites.write(0, "DELETE FROM called");
    sites.settle(&mut Dice::new(1));
    assert!(sites.all.iter().all(|site| site.rows("person").len() == 1));
}

#[test]
fn what_a_trigger_finds_in_its_way_is_no_rival_of_the_row_where_an_index_is_partial() {
    let rules = Rules { fire_triggers: true, ..Rules::default() };
    let schema = "CREATE TABLE account(id INTEGER PRIMARY KEY, email TEXT, gone INTEGER NOT NULL DEFAULT 0);
                  CREATE UNIQUE INDEX present ON account(email) WHERE gone = 0";
    let mut sites = Sites::new(schema, &[0, 0], &[("account", rules)]);
    for at in [0, 1] {
        sites.write(
            at,
            "CREATE TABLE called(name TEXT PRIMARY KEY);
             CREATE TRIGGER register AFTER INSERT ON account BEGIN INSERT INTO called VALUES(NEW.email); END",
        );
    }
    sites.settle(&mut Dice::new(1));
    sites.write(0, "INSERT INTO called VALUES('ann')");
    sites.write(1, "INSERT INTO account VALUES(1, 'ann', 0)");
    let refused = refusal(&mut sites, 1, 0);
    assert!(refused.contains("called.name"), "{refused}");
    assert_eq!(sites.all[0].rows("account").len(), 0);
}

#[test]
fn a_child_is_not_deleted_because_a_trigger_fails_where_its_parent_is_called_back() {
    let rules = Rules { fire_triggers: true, ..Rules::default() };
    let schema = "CREATE TABLE parent(id INTEGER PRIMARY KEY, name TEXT); INSERT INTO parent VALUES(1, 'ann');
                  CREATE TABLE child(id INTEGER PRIMARY KEY, parent INTEGER NOT NULL REFERENCES parent)";
    let mut sites = Sites::new(schema, &[0, 0], &[("parent", rules)]);
    for at in [0, 1] {
        sites.write(
            at,
            "CREATE TABLE called(name TEXT PRIMARY KEY); INSERT INTO called VALUES('ann');
             CREATE TRIGGER register AFTER INSERT ON parent BEGIN INSERT INTO called VALUES(NEW.name); END",
        );
    }
    sites.settle(&mut Dice::new(1));
    sites.write(0, "DELETE FROM parent");
    sites.write(1, "INSERT INTO child VALUES(1, 1)");
    let refused = refusal(&mut sites, 0, 1);
    assert!(refused.contains("called.name"), "{refused}");
    assert_eq!(sites.all[1].rows("child").len(), 1);
    (0..2).for_each(|at| sites.write(at, "DELETE FROM called"));
    sites.settle(&mut Dice::new(1));
    assert!(sites.all.iter().all(|site| (site.rows("parent").len(), site.rows("child").len()) == (1, 1)));
}

/// It is no clause of the table's, which would have to be kept from acting.
#[test]
fn a_column_that_is_called_conflict_leaves_triggers_their_clauses() {
    let rules = Rules { fire_triggers: true, ..Rules::default() };
    let schema = "CREATE TABLE person(id INTEGER PRIMARY KEY, on_conflict TEXT)";
    let mut sites = Sites::new(schema, &[0, 0], &[("person", rules)]);
    for at in [0, 1] {
        sites.write(
            at,
            "CREATE TABLE called(name TEXT PRIMARY KEY);
             CREATE TRIGGER register AFTER INSERT ON person BEGIN INSERT OR IGNORE INTO called VALUES(NEW.on_conflict); END",
        );
    }
    sites.settle(&mut Dice::new(1));
    sites.write(0, "INSERT INTO person VALUES(1, 'ann'), (2, 'ann')");
    sites.settle(&mut Dice::new(1));
    assert!(sites.all.iter().all(|site| site.rows("person").len() == 2));
}

#[test]
fn what_a_trigger_passes_over_silently_keeps_a_batch_out_and_does_not_get_lost() {
    for (event, then) in [
        ("INSERT ON person WHEN NEW.name = 'ann'", "INSERT INTO person VALUES(2, 'ann')"),
        ("UPDATE ON person WHEN NEW.name = 'bob'", "UPDATE person SET name = 'bob'"),
        ("DELETE ON person", "DELETE FROM person"),
    ] {
        let (mut sites, mut dice) = register("OR IGNORE");
        sites.write(1, "INSERT INTO person VALUES(1, 'eve')");
        sites.settle(&mut dice);
        sites.write(0, &format!("CREATE TRIGGER never BEFORE {event} BEGIN SELECT RAISE(IGNORE); END"));
        sites.write(1, then);
        assert!(refusal(&mut sites, 1, 0).contains("RAISE(IGNORE)"), "{event}");
        sites.write(0, "DROP TRIGGER never");
        sites.settle(&mut dice);
        assert_eq!(sites.all[0].rows("person"), sites.all[1].rows("person"), "{event}");
    }
}

#[test]
fn doctor_names_triggers_that_may_refuse_what_a_peer_has_told_where_they_fire() {
    let (sites, _) = register("");
    let app = &sites.all[0].app;
    app.execute_batch(
        "CREATE TRIGGER sold_out BEFORE UPDATE ON person WHEN NEW.id < 0 BEGIN SELECT RAISE(ABORT, 'sold out'); END;
         CREATE TRIGGER full AFTER INSERT ON called BEGIN SELECT RAISE(IGNORE) FROM called WHERE person > 9; END;",
    )
    .expect("triggers");
    let raising = |firing: &[String]| {
        let findings = doctor::check(app, Wanted::All, firing).expect("findings");
        let raising = findings.into_iter().filter(|finding| finding.what.contains("with RAISE"));
        raising.map(|finding| finding.what).collect::<Vec<_>>()
    };
    assert_eq!(raising(&[]), [""; 0]);
    let [full, sold_out] = &raising(&["person".to_owned()])[..] else {
        panic!("{:?}", raising(&["person".to_owned()]))
    };
    assert!(full.contains("\"full\"") && sold_out.contains("\"sold_out\""), "{full}, {sold_out}");
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
