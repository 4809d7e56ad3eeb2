//! The changes that wait, as a person reads them.

mod sites;

use std::ops::ControlFlow;

use sites::{Dice, Sites};
use siteswap_replication::{
    Value,
    capture::{self, Wanted},
    store::Told,
};

const SCHEMA: &str = "CREATE TABLE item(id INTEGER PRIMARY KEY, a, b)";

fn write(sites: &mut Sites, sql: &str) {
    sites.now += 1;
    sites.all[0].set_clock(sites.now);
    sites.all[0].app.execute_batch(sql).expect("a write");
    sites.fold(0);
}

/// The first so many changes after a group.
fn told(sites: &Sites, after: u64, most: usize) -> Vec<Told> {
    let mut all = Vec::new();
    let end = sites.all[0].store.tell_after(after, |change| {
        all.push(change);
        if all.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break("enough") }
    });
    let end = end.expect("changes");
    assert_eq!(end.break_value(), (all.len() == most).then_some("enough"));
    all
}

#[test]
fn what_waits_is_told_in_order_and_no_more_of_it_than_is_listened_to() {
    let mut sites = Sites::new(SCHEMA, &[0, 0], &[]);
    write(&mut sites, "INSERT INTO item VALUES(1, 'x', NULL), (2, 'y', 3)");
    write(&mut sites, "UPDATE item SET b = 4 WHERE id = 2");
    write(&mut sites, "DELETE FROM item WHERE id = 1");
    let all = told(&sites, 0, 100);
    let seen: Vec<_> = all.iter().map(|change| (change.what, change.key.clone(), change.columns.len())).collect();
    let key = |id| vec![Value::Integer(id)];
    assert_eq!(seen, [("insert", key(1), 2), ("insert", key(2), 2), ("update", key(2), 1), ("delete", key(1), 0)]);
    assert_eq!(told(&sites, 0, 2), all[..2]);
    assert_eq!(told(&sites, all[1].group, 100), all[2..]);
    sites.settle(&mut Dice::new(1));
    assert_eq!(told(&sites, 0, 100), [], "the peer has them");
}

#[test]
fn a_table_that_was_attached_later_is_told_of() {
    let mut sites = Sites::new(SCHEMA, &[0, 0], &[]);
    let reader = sites.all[0].reader();
    sites.all[0].app.execute_batch("CREATE TABLE later(id INTEGER PRIMARY KEY, v)").expect("a table");
    let transaction = sites.all[0].app.transaction().expect("a transaction");
    capture::attach(&transaction, Wanted::All).expect("one table more");
    transaction.commit().expect("a commit");
    write(&mut sites, "INSERT INTO later VALUES(1, 2)");
    let mut tables = Vec::new();
    let end = reader.tell_after(0, |change| {
        tables.push(change.table);
        ControlFlow::<()>::Continue(())
    });
    assert!(end.expect("changes").is_continue());
    assert_eq!(tables, ["later"]);
}
