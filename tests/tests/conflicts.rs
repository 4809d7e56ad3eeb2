//! Changes at both sites that know nothing of each other (claim C4): each site finds the conflict and decides it as the
//! other does, and what lost is kept for people, who can bring it back.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};
use lab::{
    Conflict, Lab, Options,
    plan::{EAST, SITES, Site, WEST},
    wait_until,
};

const DEADLINE: Duration = Duration::from_secs(30);

/// Every case has rows of its own; they are there before the link is cut.
const TABLES: &str = "
CREATE TABLE by_latest(id TEXT PRIMARY KEY NOT NULL, body TEXT, more TEXT);
CREATE TABLE by_delete(id TEXT PRIMARY KEY NOT NULL, body TEXT, more TEXT);
CREATE TABLE by_update(id TEXT PRIMARY KEY NOT NULL, body TEXT, more TEXT);
CREATE TABLE whole(id TEXT PRIMARY KEY NOT NULL, body TEXT, more TEXT);
INSERT INTO by_latest VALUES('edited', 'old', 'm'), ('turned', 'old', 'm'), ('shared', 'old', 'm'),
  ('deleted first', 'old', 'm'), ('edited first', 'old', 'm');
INSERT INTO by_delete SELECT * FROM by_latest;
INSERT INTO by_update SELECT * FROM by_latest;
INSERT INTO whole SELECT * FROM by_latest;

CREATE TABLE badge(id TEXT PRIMARY KEY NOT NULL, code TEXT UNIQUE);
CREATE TABLE desk(id TEXT PRIMARY KEY NOT NULL, code TEXT UNIQUE);
CREATE TABLE seat(id TEXT PRIMARY KEY NOT NULL, code TEXT NOT NULL UNIQUE);

CREATE TABLE room(id TEXT PRIMARY KEY NOT NULL, name TEXT);
CREATE TABLE booking(id TEXT PRIMARY KEY NOT NULL, room TEXT NOT NULL REFERENCES room);
CREATE TABLE guest(id TEXT PRIMARY KEY NOT NULL, room TEXT REFERENCES room ON DELETE CASCADE);
CREATE TABLE pass(id TEXT PRIMARY KEY NOT NULL, room TEXT REFERENCES room ON DELETE SET NULL);
INSERT INTO room VALUES('1', 'one'), ('2', 'two'), ('3', 'three'), ('4', 'four');

CREATE TABLE login(id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE);
CREATE TABLE item(id TEXT PRIMARY KEY NOT NULL, stock INTEGER, first INTEGER, last INTEGER);
INSERT INTO item VALUES('cup', 100, 50, 50);
CREATE TABLE doc(id INTEGER PRIMARY KEY NOT NULL, body TEXT);
CREATE VIRTUAL TABLE words USING fts5(body);
CREATE TRIGGER doc_words AFTER INSERT ON doc BEGIN INSERT INTO words(rowid, body) VALUES(NEW.id, NEW.body); END;
";

const RULES: &str = "
[database.table.by_delete]
conflicts = \"delete\"
[database.table.by_update]
conflicts = \"update\"
[database.table.whole]
granularity = \"row\"
[database.table.desk]
unique = \"delete\"
[database.table.login]
unique = \"suffix\"
[database.table.item]
counters = [\"stock\"]
min = [\"first\"]
max = [\"last\"]
[database.table.doc]
fire_triggers = true
";

/// What one site does first and the other later, and what becomes of it.
struct Case {
    name: &'static str,
    first: (Site, &'static str),
    later: &'static str,
    /// A query, and what both sites answer: the rows' first columns.
    left: (&'static str, &'static [&'static str]),
    /// What is in the log.
    lost: Option<Lost>,
}

/// A conflict in the log.
struct Lost {
    kind: &'static str,
    table: &'static str,
    key: &'static str,
    by: Site,
    image: &'static [(&'static str, &'static str)],
}

impl Lost {
    /// It had set these columns.
    const fn with(self, image: &'static [(&'static str, &'static str)]) -> Self {
        Self { image, ..self }
    }
}

const fn lost(kind: &'static str, (table, key): (&'static str, &'static str), by: Site) -> Lost {
    Lost { kind, table, key, by, image: &[] }
}

/// A row and its column.
const EDITED: [Case; 4] = [
    Case {
        name: "of two changes to one column the later stays",
        first: (EAST, "UPDATE by_latest SET body = 'by east' WHERE id = 'edited'"),
        later: "UPDATE by_latest SET body = 'by west' WHERE id = 'edited'",
        left: ("SELECT body FROM by_latest WHERE id = 'edited'", &["by west"]),
        lost: Some(lost("update/update", ("by_latest", "edited"), EAST).with(&[("body", "by east")])),
    },
    Case {
        name: "also the other way round",
        first: (WEST, "UPDATE by_latest SET body = 'by west' WHERE id = 'turned'"),
        later: "UPDATE by_latest SET body = 'by east' WHERE id = 'turned'",
        left: ("SELECT body FROM by_latest WHERE id = 'turned'", &["by east"]),
        lost: Some(lost("update/update", ("by_latest", "turned"), WEST).with(&[("body", "by west")])),
    },
    Case {
        name: "changes to different columns are no conflict",
        first: (EAST, "UPDATE by_latest SET body = 'by east' WHERE id = 'shared'"),
        later: "UPDATE by_latest SET more = 'by west' WHERE id = 'shared'",
        left: ("SELECT body || ', ' || more FROM by_latest WHERE id = 'shared'", &["by east, by west"]),
        lost: None,
    },
    Case {
        name: "unless the table's rows are decided as a whole",
        first: (EAST, "UPDATE whole SET body = 'by east' WHERE id = 'shared'"),
        later: "UPDATE whole SET more = 'by west' WHERE id = 'shared'",
        left: ("SELECT body || ', ' || more FROM whole WHERE id = 'shared'", &["old, by west"]),
        lost: Some(lost("update/update", ("whole", "shared"), EAST).with(&[("body", "by east")])),
    },
];

/// One site deletes what the other edits, under each policy and in both orders.
const DELETED: [Case; 6] = [
    Case {
        name: "latest: an edit after the deletion keeps the row",
        first: (EAST, "DELETE FROM by_latest WHERE id = 'deleted first'"),
        later: "UPDATE by_latest SET body = 'by west' WHERE id = 'deleted first'",
        left: ("SELECT body || more FROM by_latest WHERE id = 'deleted first'", &["by westm"]),
        lost: Some(lost("update/delete", ("by_latest", "deleted first"), EAST)),
    },
    Case {
        name: "latest: a deletion after the edit ends it",
        first: (EAST, "UPDATE by_latest SET body = 'by east' WHERE id = 'edited first'"),
        later: "DELETE FROM by_latest WHERE id = 'edited first'",
        left: ("SELECT id FROM by_latest WHERE id = 'edited first'", &[]),
        lost: Some(lost("delete/update", ("by_latest", "edited first"), EAST).with(&[("body", "by east")])),
    },
    Case {
        name: "delete: an edit after the deletion does not bring the row back",
        first: (WEST, "DELETE FROM by_delete WHERE id = 'deleted first'"),
        later: "UPDATE by_delete SET body = 'by east' WHERE id = 'deleted first'",
        left: ("SELECT id FROM by_delete WHERE id = 'deleted first'", &[]),
        lost: Some(lost("delete/update", ("by_delete", "deleted first"), EAST).with(&[("body", "by east")])),
    },
    Case {
        name: "delete: a deletion after the edit ends it",
        first: (WEST, "UPDATE by_delete SET body = 'by west' WHERE id = 'edited first'"),
        later: "DELETE FROM by_delete WHERE id = 'edited first'",
        left: ("SELECT id FROM by_delete WHERE id = 'edited first'", &[]),
        lost: Some(lost("delete/update", ("by_delete", "edited first"), WEST).with(&[("body", "by west")])),
    },
    Case {
        name: "update: an edit after the deletion keeps the row",
        first: (EAST, "DELETE FROM by_update WHERE id = 'deleted first'"),
        later: "UPDATE by_update SET body = 'by west' WHERE id = 'deleted first'",
        left: ("SELECT body || more FROM by_update WHERE id = 'deleted first'", &["by westm"]),
        lost: Some(lost("update/delete", ("by_update", "deleted first"), EAST)),
    },
    Case {
        name: "update: so does one before it",
        first: (EAST, "UPDATE by_update SET body = 'by east' WHERE id = 'edited first'"),
        later: "DELETE FROM by_update WHERE id = 'edited first'",
        left: ("SELECT body || more FROM by_update WHERE id = 'edited first'", &["by eastm"]),
        lost: Some(lost("update/delete", ("by_update", "edited first"), WEST)),
    },
];

/// Two rows want one value of a UNIQUE column.
const COLLIDING: [Case; 4] = [
    Case {
        name: "null: the later has the value, the other keeps its row",
        first: (EAST, "INSERT INTO badge VALUES('east', 'x')"),
        later: "INSERT INTO badge VALUES('west', 'x')",
        left: ("SELECT id || ' ' || ifnull(code, 'NULL') FROM badge ORDER BY id", &["east NULL", "west x"]),
        lost: Some(lost("unique", ("badge", "east"), EAST)),
    },
    Case {
        name: "null, where the column must not be: its row goes",
        first: (WEST, "INSERT INTO seat VALUES('west', 'x')"),
        later: "INSERT INTO seat VALUES('east', 'x')",
        left: ("SELECT id FROM seat", &["east"]),
        lost: Some(lost("unique", ("seat", "west"), WEST)),
    },
    Case {
        name: "delete: its row goes",
        first: (EAST, "INSERT INTO desk VALUES('east', 'x')"),
        later: "INSERT INTO desk VALUES('west', 'x')",
        left: ("SELECT id FROM desk", &["west"]),
        lost: Some(lost("unique", ("desk", "east"), EAST)),
    },
    Case {
        name: "suffix: it keeps its value, with a suffix",
        first: (WEST, "INSERT INTO login VALUES('west', 'x')"),
        later: "INSERT INTO login VALUES('east', 'x')",
        left: (
            "SELECT id || ' ' || substr(name, 1, 2) || length(name) FROM login ORDER BY id",
            &["east x1", "west x~10"],
        ),
        lost: Some(lost("unique", ("login", "west"), WEST).with(&[("name", "x")])),
    },
];

/// Not every change of the same is a conflict.
const JOINED: [Case; 2] = [
    Case {
        name: "what both take from a counter counts, and the first and last stay",
        first: (EAST, "UPDATE item SET stock = stock - 3, first = 40, last = 70 WHERE id = 'cup'"),
        later: "UPDATE item SET stock = stock - 1, first = 30, last = 60 WHERE id = 'cup'",
        left: ("SELECT concat_ws(' ', stock, first, last) FROM item", &["96 30 70"]),
        lost: None,
    },
    Case {
        name: "each site indexes what the other wrote",
        first: (WEST, "INSERT INTO doc VALUES(1, 'one word')"),
        later: "INSERT INTO doc VALUES(2, 'another word')",
        left: ("SELECT CAST(rowid AS TEXT) FROM words('word') ORDER BY rowid", &["1", "2"]),
        lost: None,
    },
];

/// A child is inserted where nobody knows that its parent was deleted, or the other way round.
const ORPHANED: [Case; 4] = [
    Case {
        name: "a parent that must not go comes back for a child inserted later",
        first: (EAST, "DELETE FROM room WHERE id = '1'"),
        later: "INSERT INTO booking VALUES('late', '1')",
        left: ("SELECT name FROM room JOIN booking ON booking.room = room.id WHERE booking.id = 'late'", &["one"]),
        lost: Some(lost("foreign key", ("room", "1"), EAST)),
    },
    Case {
        name: "and for one inserted before",
        first: (EAST, "INSERT INTO booking VALUES('early', '2')"),
        later: "DELETE FROM room WHERE id = '2'",
        left: ("SELECT name FROM room JOIN booking ON booking.room = room.id WHERE booking.id = 'early'", &["two"]),
        lost: Some(lost("foreign key", ("room", "2"), WEST)),
    },
    Case {
        name: "ON DELETE CASCADE: the child goes too",
        first: (WEST, "DELETE FROM room WHERE id = '3'"),
        later: "INSERT INTO guest VALUES('late', '3')",
        left: ("SELECT id FROM room WHERE id = '3' UNION ALL SELECT id FROM guest", &[]),
        lost: Some(lost("foreign key", ("guest", "late"), EAST)),
    },
    Case {
        name: "ON DELETE SET NULL: the child stays without it",
        first: (WEST, "DELETE FROM room WHERE id = '4'"),
        later: "INSERT INTO pass VALUES('late', '4')",
        left: ("SELECT ifnull(room, 'NULL') FROM pass", &["NULL"]),
        lost: Some(lost("foreign key", ("pass", "late"), EAST)),
    },
];

fn cases() -> impl Iterator<Item = &'static Case> {
    EDITED.iter().chain(&DELETED).chain(&COLLIDING).chain(&ORPHANED).chain(&JOINED)
}

/// One cut, and everything that can go wrong in it.
#[test]
fn c4_both_sites_decide_every_conflict_alike_and_keep_what_lost() -> Result<()> {
    let lab = Lab::up(&Options { tables: TABLES.into(), rules: RULES.into(), ..Options::default() })?;
    lab.await_contact(true)?;
    lab.cut("link")?;
    lab.await_contact(false)?;
    let write = |site: Site, case: &Case, sql: &str| {
        let changed = lab.application(site)?.execute(sql, []).with_context(|| format!("{}: {sql}", case.name))?;
        ensure!(changed == 1, "{}: {sql} changed {changed} rows", case.name);
        Ok(())
    };
    cases().try_for_each(|case| write(case.first.0, case, case.first.1))?;
    next_millisecond();
    cases().try_for_each(|case| write(case.first.0.other(), case, case.later))?;

    lab.mend("link")?;
    lab.await_same_databases(DEADLINE)?;
    for case in cases() {
        let (query, expected) = case.left;
        await_rows(&lab, query, expected).context(case.name)?;
    }
    for site in SITES {
        let dangling = rows(&lab, site, "SELECT \"table\" FROM pragma_foreign_key_check")?;
        ensure!(dangling.is_empty(), "without their parents at {}: {dangling:?}", site.name);
    }

    let log = same_log(&lab)?;
    for case in cases() {
        check_log(case, &log).context(case.name)?;
    }
    let expected = cases().filter(|case| case.lost.is_some()).count();
    ensure!(log.len() == expected, "{} conflicts were found, and there were {expected}: {log:?}", log.len());
    restore(&lab, &log)
}

/// What both sites say has lost.
fn same_log(lab: &Lab) -> Result<Vec<Conflict>> {
    let [east, west] = SITES.map(|site| lab.conflicts(site));
    let (east, west) = (east?, west?);
    let known = |log: &[Conflict]| -> BTreeMap<_, _> {
        log.iter().map(|conflict| (conflict.id, conflict.state.clone())).collect()
    };
    assert_eq!(known(&east), known(&west), "the conflicts that each site knows of");
    Ok(east)
}

/// What lost comes back as a change made now, at both sites, whichever of them is asked.
fn restore(lab: &Lab, log: &[Conflict]) -> Result<()> {
    let restorations = [
        (WEST, "edited", "SELECT body FROM by_latest WHERE id = 'edited'", &["by east"][..]),
        (EAST, "deleted first", "SELECT id FROM by_latest WHERE id = 'deleted first'", &[]),
        (WEST, "edited first", "SELECT body || more FROM by_latest WHERE id = 'edited first'", &["by eastm"]),
    ];
    for (site, key, query, expected) in restorations {
        let of = |conflict: &&Conflict| conflict.table == "by_latest" && conflict.key == [key];
        let conflict = log.iter().find(of).with_context(|| format!("no conflict about {key}"))?;
        let agent = lab.agent(site.name)?;
        agent.database(&["conflicts", "restore", &conflict.id.to_string()])?;
        await_rows(lab, query, expected).with_context(|| format!("{key} is restored"))?;
        lab.await_same_databases(DEADLINE)?;
        let now = same_log(lab)?;
        let state = now.iter().find(|now| now.id == conflict.id).map(|now| now.state.as_str());
        assert_eq!(state, Some("restored"), "{key}");
    }
    Ok(())
}

/// The conflict is in the log, with what was dropped.
fn check_log(case: &Case, log: &[Conflict]) -> Result<()> {
    let Some(lost) = &case.lost else { return Ok(()) };
    let of = |conflict: &&Conflict| conflict.table == lost.table && conflict.key == [lost.key];
    let found: Vec<&Conflict> = log.iter().filter(of).collect();
    let [conflict] = found[..] else { bail!("it is in the log {} times: {found:?}", found.len()) };
    let sites = [lost.by.other().name, lost.by.name];
    ensure!([&conflict.won_site, &conflict.lost_site] == sites, "other sites are named: {conflict:?}");
    ensure!(conflict.kind == lost.kind, "it is of another kind: {conflict:?}");
    for (column, value) in lost.image {
        let said = conflict.image.get(*column).is_some_and(|said| said == value);
        ensure!(said, "{column} is not {value:?} in {conflict:?}");
    }
    Ok(())
}

fn rows(lab: &Lab, site: Site, query: &str) -> Result<Vec<String>> {
    let database = lab.application(site)?;
    let mut statement = database.prepare(query)?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Waits until both sites answer a query so.
fn await_rows(lab: &Lab, query: &str, expected: &[&str]) -> Result<()> {
    let mut last = [Vec::new(), Vec::new()];
    let awaited = wait_until(DEADLINE, "both sites have the same rows, and the right ones", || {
        last = SITES.map(|site| rows(lab, site, query).unwrap_or_default());
        last.iter().all(|rows| rows == expected)
    });
    awaited.with_context(|| format!("{query}: {last:?} and not {expected:?}")).map(drop)
}

/// Comes back when the clock shows another millisecond, by which changes are told apart.
fn next_millisecond() {
    let (start, from) = (Instant::now(), SystemTime::now());
    while SystemTime::now() < from + Duration::from_millis(2) && start.elapsed() < DEADLINE {
        thread::sleep(Duration::from_millis(1));
    }
}
