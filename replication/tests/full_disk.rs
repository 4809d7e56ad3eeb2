//! A disk without room: nothing of what was recorded is forgotten.

mod sites;

use sites::{Dice, Sites};

#[test]
fn touches_that_could_not_be_folded_are_folded_when_there_is_room_again_without_another_write() {
    let mut sites = Sites::new("CREATE TABLE item(id INTEGER PRIMARY KEY, a)", &[0, 0], &[]);
    let limit = |sites: &Sites, pages: &str| {
        let sql = format!("PRAGMA max_page_count = {pages}");
        sites.all[0].store.database().query_row(&sql, [], |row| row.get::<_, i64>(0)).expect("a limit")
    };
    sites.all[0].app.execute("INSERT INTO item VALUES(1, zeroblob(1000000))", []).expect("a write");
    limit(&sites, "1");
    let now = sites.now;
    let store = &mut sites.all[0].store;
    assert!(store.changed().expect("a look"));
    let full = store.fold(now).expect_err("it cannot grow").to_string();
    assert!(full.contains("full"), "{full}");
    assert!(store.changed().expect("a look"), "it must be tried again");
    limit(&sites, "1000000");
    sites.settle(&mut Dice::new(1));
    assert_eq!(sites.all[1].rows("item").len(), 1);
}
