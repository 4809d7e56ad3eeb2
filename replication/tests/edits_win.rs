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
