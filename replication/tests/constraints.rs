//! What a schema says beside its columns: conflict clauses, unique values, foreign keys of every kind, triggers of the
//! application's. Whatever that is, both sites end with the same rows, and those keep to it.

mod sites;

use sites::{Dice, Sites};
use siteswap_replication::store::{OnCollision, Rules};

/// Two sites with these tables and rows.
struct Pair {
    sites: Sites,
    dice: Dice,
}

impl Pair {
    fn new(schema: &str) -> Self {
        Self::with(schema, &[])
    }

    fn with(schema: &str, rules: &[(&str, Rules)]) -> Self {
        let mut pair = Self { sites: Sites::new(schema, &[0, 0], rules), dice: Dice::new(1) };
        pair.sites.settle(&mut pair.dice);
        pair
    }

    /// An application writes, later than whatever was written before.
    fn write(&mut self, at: usize, sql: &str) -> &mut Self {
        self.sites.write(at, sql);
        self
    }

    /// Both tell each other everything. Then each of these queries has the same one answer at both, and foreign keys hold.
    fn settle(&mut self, expected: &[(&str, &str)]) {
        self.sites.settle(&mut self.dice);
        for site in &self.sites.all {
            for (sql, expected) in expected {
                let found: String = site.app.query_row(sql, [], |row| row.get(0)).expect("an answer");
                assert_eq!(found, *expected, "at site {}: {sql}", site.id);
            }
            let dangling = site.app.prepare("PRAGMA foreign_key_check").expect("a check").exists([]).expect("a check");
            assert!(!dangling, "a row without its parent at site {}", site.id);
        }
        let outcome = self.sites.compare(0, 1, &mut self.dice);
        assert!(outcome.is_clean(), "{outcome:?}");
        assert_eq!([0, 1].map(|at| self.sites.kept(at)), [(0, 0); 2], "nothing is kept when all is said");
    }
}

const COUNTS: &str = "SELECT concat((SELECT count(*) FROM customer), ' ', (SELECT count(*) FROM purchase), ' ', (SELECT count(*) FROM item))";

#[test]
fn a_row_does_not_call_its_parent_back_if_that_has_to_go_with_a_parent_of_its_own() {
    let schema = "CREATE TABLE customer(id INTEGER PRIMARY KEY);
        CREATE TABLE purchase(id INTEGER PRIMARY KEY, customer REFERENCES customer ON DELETE CASCADE);
        CREATE TABLE item(id INTEGER PRIMARY KEY, purchase INTEGER NOT NULL REFERENCES purchase);
        INSERT INTO customer VALUES(1); INSERT INTO purchase VALUES(1, 1);";
    let mut pair = Pair::new(schema);
    pair.write(0, "DELETE FROM customer").write(1, "INSERT INTO item VALUES(1, 1)");
    pair.settle(&[(COUNTS, "0 0 0")]);
}

#[test]
fn a_row_goes_with_its_parent_if_another_has_the_place_of_what_that_refers_to() {
    let schema = "CREATE TABLE customer(id INTEGER PRIMARY KEY, email TEXT UNIQUE);
        CREATE TABLE purchase(id INTEGER PRIMARY KEY, customer INTEGER NOT NULL REFERENCES customer);
        CREATE TABLE item(id INTEGER PRIMARY KEY, purchase INTEGER NOT NULL REFERENCES purchase);
        INSERT INTO customer VALUES(1, 'x'); INSERT INTO purchase VALUES(1, 1);";
    let mut pair = Pair::new(schema);
    pair.write(0, "DELETE FROM purchase; DELETE FROM customer; INSERT INTO customer VALUES(2, 'x')");
    pair.write(1, "INSERT INTO item VALUES(1, 1)");
    pair.settle(&[(COUNTS, "1 0 0")]);
}

#[test]
fn what_the_schema_says_to_do_on_conflict_is_not_done_with_what_a_peer_has_told() {
    for clause in ["REPLACE", "IGNORE", "ROLLBACK", "FAIL"] {
        let schema = format!(
            "CREATE TABLE seat(id INTEGER PRIMARY KEY, number INTEGER UNIQUE ON CONFLICT {clause}, name);
             INSERT INTO seat VALUES(1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c');"
        );
        let mut pair = Pair::new(&schema);
        // Two rows take one value, one by an update and one as a new row; the newer claim wins, and the other row stays.
        pair.write(0, "UPDATE seat SET number = 7 WHERE id = 1").write(1, "UPDATE seat SET number = 7 WHERE id = 2");
        pair.write(0, "INSERT INTO seat VALUES(4, 8, 'd')").write(1, "UPDATE seat SET number = 8 WHERE id = 3");
        let all = "SELECT group_concat(concat(id, ifnull(number, '-'), name), ' ' ORDER BY id) FROM seat";
        pair.settle(&[(all, "1-a 27b 38c 4-d")]);
    }
}

#[test]
fn a_value_that_is_unique_by_an_expression_or_in_some_rows_only_goes_to_the_newer_claim() {
    for index in [
        "CREATE UNIQUE INDEX one ON account(email) WHERE gone = 0",
        "CREATE UNIQUE INDEX one ON account(lower(email), gone) WHERE gone < 1",
        "CREATE UNIQUE INDEX one ON account(made)",
    ] {
        let schema = format!(
            "CREATE TABLE account(id INTEGER PRIMARY KEY, email TEXT, gone INTEGER, note,
               made AS (CASE gone WHEN 0 THEN email END));
             {index}; INSERT INTO account VALUES(1, 'a', 1, ''), (2, 'b', 0, ''), (3, 'b', 1, '');"
        );
        let mut pair = Pair::new(&schema);
        pair.write(0, "INSERT INTO account VALUES(4, 'new', 0, '')");
        pair.write(1, "INSERT INTO account VALUES(5, 'new', 0, '')");
        pair.write(0, "UPDATE account SET gone = 0 WHERE id = 1").write(1, "INSERT INTO account VALUES(6, 'a', 1, '')");
        pair.write(1, "UPDATE account SET gone = 0 WHERE id = 6");
        // It says nothing of an address.
        pair.write(0, "UPDATE account SET note = 'edited' WHERE id IN (1, 4)");
        let all = "SELECT group_concat(concat(id, email, gone, note), ' ' ORDER BY id) FROM account";
        pair.settle(&[(all, "2b0 3b1 5new0 6a0")]);
        let lost = pair.sites.all[0].store.conflicts(9).expect("a log");
        assert_eq!(lost.iter().map(|lost| lost.kind.as_str()).collect::<Vec<_>>(), ["unique", "unique"], "{index}");
    }
}

#[test]
fn with_suffix_the_loser_of_a_unique_text_keeps_it_with_a_mark_of_its_key() {
    let schema =
        "CREATE TABLE account(id INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, name TEXT NOT NULL, number UNIQUE,
            UNIQUE(tenant, name));
        INSERT INTO account VALUES(1, 7, 'x', NULL), (2, 7, 'y', NULL);";
    let mut pair = Pair::with(schema, &[("account", Rules { unique: OnCollision::Suffix, ..Rules::default() })]);
    let name = |pair: &Pair| -> String {
        pair.sites.all[0].app.query_row("SELECT name FROM account WHERE id = 1", [], |row| row.get(0)).expect("a row")
    };
    // The older claim loses.
    pair.write(0, "UPDATE account SET name = 'ann' WHERE id = 1")
        .write(1, "UPDATE account SET name = 'ann' WHERE id = 2");
    let short =
        "SELECT group_concat(concat(id, tenant, substr(name, 1, 4), length(name)), ' ' ORDER BY id) FROM account";
    pair.settle(&[(short, "17ann~12 27ann3")]);
    let marked = name(&pair);
    assert_eq!(pair.sites.all[1].store.conflicts(9).expect("a log").len(), 1);

    // What has its mark already gets no second one, and NULL is not allowed: the row goes.
    pair.write(0, "DELETE FROM account WHERE id = 1").settle(&[(short, "27ann3")]);
    pair.write(0, &format!("INSERT INTO account VALUES(1, 7, '{marked}', NULL)"));
    pair.write(1, &format!("INSERT INTO account VALUES(3, 7, '{marked}', NULL)"));
    pair.settle(&[(short, "27ann3 37ann~12")]);

    // A number gets none.
    pair.write(0, "UPDATE account SET number = 5 WHERE id = 2").write(1, "UPDATE account SET number = 5 WHERE id = 3");
    pair.settle(&[("SELECT group_concat(concat(id, ifnull(number, '-')), ' ' ORDER BY id) FROM account", "2- 35")]);
    // A text in the same column does, also one that begins like a number.
    pair.write(0, "UPDATE account SET number = '1e' WHERE id = 2")
        .write(1, "UPDATE account SET number = '1e' WHERE id = 3");
    let types = "SELECT group_concat(concat(id, substr(number, 1, 3), length(number)), ' ' ORDER BY id) FROM account";
    pair.settle(&[(types, "21e~11 31e2")]);
}

#[test]
fn where_the_losers_marked_text_is_taken_that_too_is_decided() {
    let rules = [("u", Rules { unique: OnCollision::Suffix, ..Rules::default() })];
    let schema = "CREATE TABLE u(id INTEGER PRIMARY KEY, name TEXT UNIQUE)";
    let (mut sites, mut dice) = (Sites::new(schema, &[0, 0], &rules), Dice::new(1));
    let both = |sites: &mut Sites, dice: &mut Dice| {
        for (at, id) in [(0, 1), (1, 2)] {
            sites.write(at, &format!("INSERT INTO u VALUES({id}, 'ann')"));
        }
        sites.settle(dice);
        let name = "SELECT name FROM u WHERE id = 1";
        sites.all[0].app.query_row(name, [], |row| row.get::<_, Option<String>>(0)).expect("a row")
    };
    let marked = both(&mut sites, &mut dice).expect("a name");
    sites.write(0, "DELETE FROM u");
    sites.settle(&mut dice);
    sites.write(0, &format!("INSERT INTO u VALUES(3, '{marked}')"));
    sites.settle(&mut dice);
    let name = both(&mut sites, &mut dice);
    let rows = sites.all[0].rows("u");
    assert_eq!((rows.len(), sites.all[1].rows("u")), (3, rows));
    assert_eq!(name, Some(marked), "the newer claim to it");
}

#[test]
fn every_site_decides_the_same_of_two_rows_with_one_value_whatever_it_has_forgotten() {
    let schema = "CREATE TABLE seat(id INTEGER PRIMARY KEY, number INTEGER UNIQUE, name);
        INSERT INTO seat VALUES(1, 1, 'a'), (2, 2, 'b');";
    let rules = [("seat", Rules { unique: OnCollision::Delete, ..Rules::default() })];
    let (mut sites, mut dice) = (Sites::new(schema, &[0, 0, 0], &rules), Dice::new(1));
    let write = |sites: &mut Sites, at: usize, sql: &str| {
        sites.write(at, sql);
        sites.fold(at);
    };
    sites.settle(&mut dice);
    write(&mut sites, 1, "UPDATE seat SET number = 7 WHERE id = 1");
    write(&mut sites, 0, "UPDATE seat SET number = 7 WHERE id = 2");
    // The second site decides for the newer claim; the third hears of that, and then of the claim itself.
    sites.send_all(0, 1);
    sites.drain(&mut dice);
    sites.send_all(1, 2);
    sites.report(1, 2);
    sites.drain(&mut dice);
    sites.send_all(0, 2);
    sites.drain(&mut dice);
    // The first, which knows nothing of a collision yet, edits the loser: for that it comes back everywhere.
    write(&mut sites, 0, "UPDATE seat SET name = 'edited' WHERE id = 1");
    sites.settle(&mut dice);
    for site in &sites.all {
        let rows: String = site
            .app
            .query_row("SELECT group_concat(concat(id, ' ', number)) FROM seat", [], |row| row.get(0))
            .expect("rows");
        assert_eq!(rows, "2 7", "at site {}", site.id);
    }
}

#[test]
fn a_row_without_a_whole_key_keeps_its_unique_value() {
    for (null, expected) in [("", "(null)x k-"), (" NOT NULL", "(null)x")] {
        let schema = format!("CREATE TABLE t(k TEXT PRIMARY KEY, u TEXT{null} UNIQUE)");
        let mut pair = Pair::new(&schema);
        pair.write(0, "INSERT INTO t VALUES(NULL, 'x')").write(1, "INSERT INTO t VALUES('k', 'x')");
        pair.sites.settle(&mut pair.dice);
        let all = "SELECT group_concat(concat(ifnull(k, '(null)'), ifnull(u, '-')), ' ' ORDER BY k) FROM t";
        let rows = |pair: &Pair, at: usize| -> Option<String> {
            pair.sites.all[at].app.query_row(all, [], |row| row.get(0)).expect("an answer")
        };
        assert_eq!(rows(&pair, 0).as_deref(), Some(expected), "of{null}");
        assert_eq!(
            rows(&pair, 1),
            expected.strip_prefix("(null)x").map(str::trim).filter(|rest| !rest.is_empty()).map(str::to_owned)
        );
    }
}

#[test]
fn foreign_keys_to_unique_columns_are_looked_after_as_those_to_the_key_are() {
    for (action, expected) in [("CASCADE", "0 0"), ("SET NULL", "0 1"), ("NO ACTION", "1 1")] {
        let schema = format!(
            "CREATE TABLE customer(id INTEGER PRIMARY KEY, email TEXT COLLATE NOCASE NOT NULL UNIQUE);
             CREATE TABLE purchase(id INTEGER PRIMARY KEY, email TEXT REFERENCES customer(email) ON DELETE {action});
             INSERT INTO customer VALUES(1, 'a@x'), (2, 'b@x'); DELETE FROM customer WHERE id = 2;"
        );
        for purchase in ["a@x", "A@X"] {
            let mut pair = Pair::new(&schema);
            pair.write(0, "DELETE FROM customer");
            pair.write(1, &format!("INSERT INTO purchase VALUES(1, '{purchase}')"));
            let counts = "SELECT concat((SELECT count(*) FROM customer), ' ', (SELECT count(*) FROM purchase))";
            pair.settle(&[(counts, expected)]);
        }
    }
}

#[test]
fn of_several_foreign_keys_each_is_looked_after() {
    let schema = "CREATE TABLE colour(name TEXT NOT NULL PRIMARY KEY); CREATE TABLE size(id INTEGER PRIMARY KEY);
        CREATE TABLE shirt(id INTEGER PRIMARY KEY, colour TEXT REFERENCES colour ON DELETE SET NULL,
            size INTEGER REFERENCES size ON DELETE CASCADE);
        INSERT INTO colour VALUES('red'); INSERT INTO size VALUES(1);";
    let shirts = "SELECT ifnull(group_concat(concat(id, ifnull(colour, '-'), ifnull(size, '-'))), 'none') FROM shirt";
    for (deleted, expected) in [("colour", "1-1"), ("size", "none")] {
        let mut pair = Pair::new(schema);
        pair.write(0, &format!("DELETE FROM {deleted}")).write(1, "INSERT INTO shirt VALUES(1, 'red', 1)");
        pair.settle(&[(shirts, expected)]);
    }
}

#[test]
fn a_row_that_a_trigger_of_the_applications_deletes_is_deleted_at_the_other_site() {
    let schema = "CREATE TABLE item(id INTEGER PRIMARY KEY, left INTEGER); INSERT INTO item VALUES(1, 1), (2, 2)";
    let mut pair = Pair::new(schema);
    // Made later than siteswap's, it is fired before them.
    pair.write(
        0,
        "CREATE TRIGGER sold AFTER UPDATE ON item WHEN NEW.left = 0 BEGIN DELETE FROM item WHERE id = NEW.id; END",
    );
    pair.write(0, "UPDATE item SET left = left - 1");
    pair.settle(&[("SELECT group_concat(concat(id, ' ', left)) FROM item", "2 1")]);
}

#[test]
fn a_row_is_not_restored_without_its_parent() {
    let schema = "CREATE TABLE customer(id INTEGER PRIMARY KEY);
        CREATE TABLE purchase(id INTEGER PRIMARY KEY, customer INTEGER NOT NULL REFERENCES customer, n);
        INSERT INTO customer VALUES(1); INSERT INTO purchase VALUES(1, 1, 0)";
    let mut pair = Pair::new(schema);
    pair.write(1, "UPDATE purchase SET n = 1").write(0, "DELETE FROM purchase").settle(&[]);
    pair.write(0, "DELETE FROM customer").settle(&[]);
    let lost = pair.sites.all[0].store.conflicts(1).expect("a log").remove(0);
    let now = pair.sites.now;
    let refused = pair.sites.all[0].store.restore(lost.id, now).expect_err("a refusal").to_string();
    assert!(refused.contains("purchase refers to one of customer"), "{refused}");
    pair.settle(&[]);
    pair.write(1, "INSERT INTO customer VALUES(1)").settle(&[]);
    let now = pair.sites.now;
    assert!(pair.sites.all[0].store.restore(lost.id, now).expect("a transaction"));
    pair.settle(&[("SELECT concat(id, customer, n) FROM purchase", "111")]);
}

#[test]
fn a_row_is_not_restored_where_another_has_its_unique_value() {
    let mut pair = Pair::new("CREATE TABLE item(id INTEGER PRIMARY KEY, code NOT NULL UNIQUE)");
    pair.write(0, "INSERT INTO item VALUES(1, 'a')").write(1, "INSERT INTO item VALUES(2, 'a')").settle(&[]);
    let lost = pair.sites.all[0].store.conflicts(1).expect("a log").remove(0);
    let now = pair.sites.now;
    let refused = pair.sites.all[0].store.restore(lost.id, now).expect_err("a refusal").to_string();
    assert!(refused.contains("item.code") && refused.contains("change or delete that row first"), "{refused}");
    pair.settle(&[("SELECT concat(count(*)) FROM item", "1")]);
    pair.write(1, "UPDATE item SET code = 'b'").settle(&[]);
    let now = pair.sites.now;
    assert!(pair.sites.all[0].store.restore(lost.id, now).expect("a transaction"));
    pair.settle(&[("SELECT concat(count(*)) FROM item", "2")]);
}

#[test]
fn a_deletion_is_not_restored_while_rows_refer_to_what_it_deleted() {
    let mut pair = Pair::new(
        "CREATE TABLE customer(id INTEGER PRIMARY KEY, name);
         CREATE TABLE purchase(id INTEGER PRIMARY KEY, customer INTEGER NOT NULL REFERENCES customer);
         INSERT INTO customer VALUES(1, 'a')",
    );
    pair.write(0, "DELETE FROM customer").write(1, "INSERT INTO purchase VALUES(1, 1)").settle(&[]);
    let deletion = |pair: &Pair| {
        pair.sites.all[0].store.conflicts(9).expect("a log").into_iter().find(|lost| lost.image.is_empty())
    };
    let lost = deletion(&pair).expect("a deletion that lost");
    let now = pair.sites.now;
    let refused = pair.sites.all[0].store.restore(lost.id, now).expect_err("a refusal").to_string();
    assert!(refused.contains("refer to the one of customer"), "{refused}");
    pair.settle(&[("SELECT concat(count(*)) FROM customer", "1")]);
    pair.write(1, "DELETE FROM purchase").settle(&[]);
    let now = pair.sites.now;
    assert!(pair.sites.all[0].store.restore(lost.id, now).expect("a transaction"));
    pair.settle(&[("SELECT concat(count(*)) FROM customer", "0")]);
}

#[test]
fn restoring_a_deletion_takes_no_row_that_only_looks_like_it() {
    let mut pair =
        Pair::new("CREATE TABLE word(k TEXT COLLATE NOCASE NOT NULL PRIMARY KEY, v); INSERT INTO word VALUES('a', 0)");
    pair.write(0, "DELETE FROM word").write(1, "UPDATE word SET v = 1");
    let word = "SELECT concat(k, v) FROM word";
    pair.settle(&[(word, "a1")]);
    pair.write(0, "DELETE FROM word; INSERT INTO word VALUES('A', 2)");
    pair.settle(&[(word, "A2")]);
    let lost = pair.sites.all[0].store.conflicts(1).expect("a log").remove(0);
    assert!(lost.image.is_empty(), "a deletion: {lost:?}");
    let now = pair.sites.now;
    assert!(pair.sites.all[0].store.restore(lost.id, now).expect("a transaction"));
    pair.settle(&[(word, "A2")]);
}

#[test]
fn what_a_generated_column_needs_to_be_not_null_is_never_taken_from_a_row() {
    let unique =
        "CREATE TABLE t(id INTEGER PRIMARY KEY, email TEXT UNIQUE, low TEXT NOT NULL AS (lower(email)) STORED)";
    let reference = "CREATE TABLE p(id INTEGER PRIMARY KEY); INSERT INTO p VALUES(1);
        CREATE TABLE t(id INTEGER PRIMARY KEY, p REFERENCES p ON DELETE SET NULL, g NOT NULL AS (p + 1) VIRTUAL)";
    let either = "CREATE TABLE t(id INTEGER PRIMARY KEY, phone, mail, by NOT NULL AS (coalesce(phone, mail)));
        INSERT INTO t VALUES(1, '1', 'm')";
    for (schema, first, second) in [
        (unique, "INSERT INTO t VALUES(1, 'a')", "INSERT INTO t VALUES(2, 'a')"),
        (reference, "DELETE FROM p", "INSERT INTO t VALUES(1, 1)"),
        (either, "UPDATE t SET phone = NULL", "UPDATE t SET mail = NULL"),
    ] {
        let (mut sites, mut dice) = (Sites::new(schema, &[0, 0], &[]), Dice::new(1));
        sites.settle(&mut dice);
        sites.write(0, first);
        sites.write(1, second);
        sites.settle(&mut dice);
        assert_eq!(sites.all[0].rows("t"), sites.all[1].rows("t"), "{schema}");
        assert_eq!(
            (sites.all[0].rows("t").len(), sites.all[0].store.conflicts(9).expect("a log").len()),
            (1, 1),
            "{schema}"
        );
    }
}
