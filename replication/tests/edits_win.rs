//! Tables whose edits win over deletions.

mod sites;

use sites::{Dice, Sites};
use siteswap_replication::store::{Deletes, Rules};

#[test]
fn a_row_deleted_before_anything_else_has_happened_comes_back_for_an_edit_elsewhere() {
    let schema = "CREATE TABLE item(id INTEGER PRIMARY KEY, a, b); INSERT INTO item VALUES(1, 'old', 'more')";
    let rules = [("item", Rules { deletes: Deletes::Lose, ..Rules::default() })];
    for first in ["DELETE FROM item", "UPDATE item SET a = 'new'"] {
        let (mut sites, mut dice) = (Sites::new(schema, &[0, 0], &rules), Dice::new(1));
        for (at, sql) in [(0, "DELETE FROM item"), (1, "UPDATE item SET a = 'new'")] {
            sites.now += 10;
            sites.all[at].set_clock(if sql == first { sites.now } else { sites.now + 100 });
            sites.all[at].app.execute_batch(sql).expect("a write");
            sites.fold(at);
        }
        sites.settle(&mut dice);
        let rows = sites.all.iter().map(|site| site.rows("item")).collect::<Vec<_>>();
        assert!(rows[0] == rows[1] && rows[0].len() == 1, "{rows:?}");
        assert!(rows[0].iter().all(|row| row.contains("[110, 101, 119]")), "{rows:?}");
    }
}

#[test]
fn a_row_that_was_only_mended_since_it_was_the_same_everywhere_can_be_deleted() {
    let schema = "CREATE TABLE parent(id INTEGER PRIMARY KEY);
        CREATE TABLE child(id INTEGER PRIMARY KEY, parent REFERENCES parent ON DELETE SET NULL);
        CREATE TABLE other(id INTEGER PRIMARY KEY);
        INSERT INTO parent VALUES(1)";
    let rules = [("child", Rules { deletes: Deletes::Lose, ..Rules::default() })];
    let (mut sites, mut dice) = (Sites::new(schema, &[0, 0, 0], &rules), Dice::new(1));
    sites.settle(&mut dice);
    sites.write(0, "INSERT INTO child VALUES(1, 1)");
    sites.fold(0);
    for at in [2, 1] {
        sites.write(at, &format!("INSERT INTO other VALUES({at})"));
        sites.tell(at, &mut dice);
    }
    sites.tell(0, &mut dice);
    let kept = "SELECT count(*) FROM _ssw_row JOIN _ssw_table ON number = tbl WHERE name = 'child'";
    let kept = |at: usize| -> u32 { sites.all[at].app.query_row(kept, [], |row| row.get(0)).expect("a count") };
    assert_eq!([kept(0), kept(1)], [0, 1], "only the first knows that all have the row");
    // An application that does not enforce foreign keys: the first site mends what it leaves behind.
    sites.write(2, "PRAGMA foreign_keys = OFF; DELETE FROM parent");
    sites.fold(2);
    sites.send_all(2, 0);
    sites.drain(&mut dice);
    let mended = "SELECT count(*) FROM child WHERE parent IS NULL";
    assert_eq!(sites.all[0].app.query_row(mended, [], |row| row.get(0)), Ok(1));
    sites.write(0, "DELETE FROM child");
    sites.settle(&mut dice);
    for site in &sites.all {
        assert_eq!(site.rows("child").len(), 0, "at site {}", site.id);
    }
}
