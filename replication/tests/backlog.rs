//! What waits for a peer that is away takes no more room than is allowed, and nothing is lost by that.

mod sites;

use std::os::unix::fs::PermissionsExt as _;

use sites::{Dice, Outside, Sites, each_seed};
use siteswap_replication::{
    store::{Doubt, Error, Kept},
    verify::Policy,
};

const SCHEMA: &str = "CREATE TABLE item(id INTEGER PRIMARY KEY, a, b)";

/// Two sites with the same 500 rows, nothing under way.
fn sites() -> (Sites, Dice) {
    let (mut sites, mut dice) = (Sites::new(SCHEMA, &[0, 0], &[]), Dice::new(1));
    write(
        &mut sites,
        0,
        "WITH n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 500) INSERT INTO item SELECT n, 0, 0 FROM n",
    );
    sites.settle(&mut dice);
    (sites, dice)
}

fn write(sites: &mut Sites, at: usize, sql: &str) {
    sites.now += 1;
    sites.all[at].set_clock(sites.now);
    sites.all[at].app.execute_batch(sql).expect("a write");
    sites.fold(at);
}

fn count(sites: &Sites, at: usize, sql: &str) -> u64 {
    sites.all[at].app.query_row(sql, [], |row| row.get(0)).expect("a count")
}

fn assert_equal(sites: &Sites) {
    assert_eq!(sites.all[0].rows("item"), sites.all[1].rows("item"));
}

#[test]
fn many_changes_to_the_same_rows_take_no_more_room_than_the_rows() {
    let (mut sites, mut dice) = sites();
    let last = sites.all[0].store.position().expect("a position").0;
    for round in 1..=50 {
        write(&mut sites, 0, &format!("UPDATE item SET a = {round}; UPDATE item SET b = {round} WHERE id = {round}"));
        while sites.all[0].store.compact(5_000).expect("a transaction") {}
    }
    write(&mut sites, 0, "DELETE FROM item WHERE id = 500");
    while sites.all[0].store.compact(1).expect("a transaction") {}
    assert_eq!(count(&sites, 0, "SELECT count(*) FROM _ssw_change"), 500);
    assert_eq!(count(&sites, 0, "SELECT count(*) FROM _ssw_group"), 1);
    assert_eq!(sites.all[0].store.position().expect("a position").0, last + 51, "no number is given again");
    // At the peer, which has written one of the rows, it is as if each change had come by itself.
    write(&mut sites, 1, "UPDATE item SET b = 'theirs' WHERE id = 400");
    sites.settle(&mut dice);
    assert_equal(&sites);
    assert_eq!(count(&sites, 1, "SELECT count(*) FROM item WHERE a = 50"), 499);
    assert_eq!(count(&sites, 0, "SELECT count(*) FROM item WHERE b = 'theirs' AND a = 50"), 1);
    assert_eq!(count(&sites, 0, "SELECT count(*) FROM _ssw_change"), 0);
}

#[test]
fn what_a_peer_has_been_told_is_not_consolidated() {
    let (mut sites, _) = sites();
    for round in 1..=4 {
        write(&mut sites, 0, &format!("UPDATE item SET a = {round}"));
        if round == 2 {
            sites.send(0, 1);
        }
    }
    while sites.all[0].store.compact(1).expect("a transaction") {}
    assert_eq!(count(&sites, 0, "SELECT count(*) FROM _ssw_group"), 3, "two that may be there, and one of two");
}

/// Three sites with the same 500 rows, of which the third is away from then on.
fn without_the_third() -> (Sites, Dice) {
    let (mut sites, mut dice) = (Sites::new(SCHEMA, &[0, 0, 0], &[]), Dice::new(1));
    write(
        &mut sites,
        0,
        "WITH n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 500) INSERT INTO item SELECT n, 0, 0 FROM n",
    );
    sites.settle(&mut dice);
    (sites, dice)
}

/// The first two sites write in turn and tell each other.
fn write_in_turn(sites: &mut Sites, dice: &mut Dice, rounds: std::ops::RangeInclusive<u32>) {
    for round in rounds {
        write(sites, 0, &format!("UPDATE item SET a = {round}"));
        sites.send_all(0, 1);
        write(sites, 1, &format!("UPDATE item SET b = {round}"));
        sites.send_all(1, 0);
        sites.drain(dice);
        for at in [0, 1] {
            while sites.all[at].store.compact(1).expect("a transaction") {}
        }
    }
}

#[test]
fn what_one_of_two_peers_has_is_consolidated_for_the_other() {
    let (mut sites, mut dice) = without_the_third();
    write_in_turn(&mut sites, &mut dice, 1..=20);
    for at in [0, 1] {
        assert_eq!(count(&sites, at, "SELECT count(*) FROM _ssw_change"), 500, "each row once");
        assert_eq!(count(&sites, at, "SELECT count(*) FROM _ssw_group"), 1);
    }
    sites.settle(&mut dice);
    assert_eq!(count(&sites, 2, "SELECT count(*) FROM item WHERE a = 20 AND b = 20"), 500);
    assert_eq!([0, 1, 2].map(|at| count(&sites, at, "SELECT count(*) FROM _ssw_conflict")), [0; 3]);
    assert_eq!([0, 1, 2].map(|at| sites.kept(at)), [(0, 0); 3]);
}

#[test]
fn of_changes_that_are_combined_each_was_made_by_one_who_knew_what_came_before() {
    let (mut sites, mut dice) = without_the_third();
    write(&mut sites, 0, "UPDATE item SET a = 1 WHERE id = 1");
    write(&mut sites, 1, "UPDATE item SET b = 1 WHERE id = 1");
    sites.send_all(1, 0);
    sites.send_all(1, 2);
    sites.drain(&mut dice);
    write(&mut sites, 0, "UPDATE item SET b = 2 WHERE id = 1");
    sites.settle(&mut dice);
    for at in [0, 1, 2] {
        assert_eq!(count(&sites, at, "SELECT count(*) FROM item WHERE a = 1 AND b = 2"), 1);
        assert_eq!(sites.all[at].store.conflicts(1).expect("a log"), []);
    }
}

/// The third site comes back after these have forgotten what it needs.
fn return_to(forgetful: &[usize]) {
    let (mut sites, mut dice) = without_the_third();
    write(&mut sites, 2, "UPDATE item SET b = 'late' WHERE id <= 10");
    write_in_turn(&mut sites, &mut dice, 1..=3);
    for at in forgetful {
        assert!(sites.all[*at].store.forget_beyond(100).expect("a transaction").forgot);
    }
    sites.settle(&mut dice);
    let behind = count(&sites, 2, "SELECT count(*) FROM item WHERE a = 3 AND b = 3");
    assert_eq!(behind, 0, "not all can be told any more");
    sites.mend(2, &mut dice);
    sites.settle(&mut dice);
    for at in [0, 1, 2] {
        assert_eq!(count(&sites, at, "SELECT count(*) FROM item WHERE a = 3 AND b = 3"), 500, "site {at}");
    }
    assert_eq!([0, 1, 2].map(|at| sites.kept(at)), [(0, 0); 3]);
}

#[test]
fn a_site_to_which_one_of_two_peers_cannot_tell_all_is_compared_with_that() {
    return_to(&[0]);
    return_to(&[1]);
}

#[test]
fn a_site_to_which_neither_of_two_peers_can_tell_all_is_compared_with_both() {
    return_to(&[0, 1]);
}

#[test]
fn a_peer_set_back_to_before_the_end_of_what_was_consolidated_is_compared() {
    let (mut sites, mut dice) = without_the_third();
    write_in_turn(&mut sites, &mut dice, 1..=3);
    let backup = sites.back_up(1);
    write_in_turn(&mut sites, &mut dice, 4..=6);
    sites.restore(1, &backup, Outside::Kept);
    sites.settle(&mut dice);
    sites.mend(1, &mut dice);
    sites.settle(&mut dice);
    for at in [0, 1, 2] {
        assert_eq!(count(&sites, at, "SELECT count(*) FROM item WHERE a = 6 AND b = 6"), 500, "site {at}");
    }
    assert_eq!([0, 1, 2].map(|at| sites.kept(at)), [(0, 0); 3]);
}

#[test]
fn a_site_that_begins_anew_with_an_older_copy_is_compared() {
    let (mut sites, mut dice) = without_the_third();
    write_in_turn(&mut sites, &mut dice, 1..=3);
    let copy = sites.snapshot(0);
    write_in_turn(&mut sites, &mut dice, 4..=6);
    sites.adopt(copy, 2);
    sites.settle(&mut dice);
    assert_eq!(count(&sites, 2, "SELECT count(*) FROM item WHERE a = 6 AND b = 6"), 0, "what it needs was combined");
    sites.mend(2, &mut dice);
    sites.settle(&mut dice);
    assert_eq!(count(&sites, 2, "SELECT count(*) FROM item WHERE a = 6 AND b = 6"), 500);
    assert_eq!([0, 1, 2].map(|at| sites.kept(at)), [(0, 0); 3]);
}

#[test]
fn for_a_site_that_joins_nothing_is_consolidated_so_that_it_can_begin_anywhere() {
    let (mut sites, mut dice) = (Sites::some(SCHEMA, &[0, 0], &[], 3), Dice::new(1));
    write(&mut sites, 0, "INSERT INTO item VALUES(1, 0, 0), (2, 0, 0)");
    write_in_turn(&mut sites, &mut dice, 1..=3);
    let copy = sites.snapshot(0);
    write_in_turn(&mut sites, &mut dice, 4..=6);
    sites.adopt(copy, 2);
    sites.settle(&mut dice);
    assert_eq!(sites.all[2].store.doubt().expect("a state"), None);
    assert_eq!(count(&sites, 2, "SELECT count(*) FROM item WHERE a = 6 AND b = 6"), 2);
    assert_eq!([0, 1, 2].map(|at| sites.kept(at)), [(0, 0); 3]);
}

#[test]
fn what_is_too_much_is_forgotten_and_found_by_a_comparison() {
    let (mut sites, mut dice) = sites();
    write(&mut sites, 0, "UPDATE item SET a = 'new' WHERE id <= 100; DELETE FROM item WHERE id BETWEEN 101 AND 110");
    write(&mut sites, 1, "UPDATE item SET b = 'theirs' WHERE id = 5; UPDATE item SET a = 'late' WHERE id IN (7, 101)");
    write(&mut sites, 1, "INSERT INTO item VALUES(1000, 1, 1)");
    assert!(!sites.all[0].store.forget_beyond(1 << 20).expect("a transaction").forgot, "it is not too much");
    // First what the rows were, then a group.
    assert!(sites.all[0].store.forget_beyond(100).expect("a transaction").forgot);
    assert!(sites.all[0].store.forget_beyond(100).expect("a transaction").forgot);
    let now = sites.now;
    assert!(sites.all[0].store.backlogs(now).expect("a state")["site2"].forgotten);
    assert!(sites.all[0].store.detach(now).expect("a transaction")["site2"].forgotten, "that would be lost");
    write(&mut sites, 0, "UPDATE item SET a = 'newer' WHERE id = 1");
    sites.settle(&mut dice);
    assert!(
        !sites.all[0].store.backlogs(now).expect("a state")["site2"].forgotten,
        "now the peer knows that it lacks it"
    );
    let refused = |what: Result<(), Error>| matches!(what, Err(Error::Doubtful(Doubt::Missed(_))));
    assert!(refused(sites.all[1].store.detach(now).map(drop)));
    assert!(refused(sites.all[1].store.before_fence(now).map(drop)), "it would change another schema's rows");
    assert_eq!(count(&sites, 1, "SELECT count(*) FROM item WHERE a = 'new'"), 0, "it was forgotten");
    assert_eq!(count(&sites, 1, "SELECT count(*) FROM item WHERE a = 'newer'"), 1, "what came later was not");
    sites.mend(1, &mut dice);
    sites.mend(0, &mut dice);
    sites.settle(&mut dice);
    assert_equal(&sites);
    assert_eq!(count(&sites, 1, "SELECT count(*) FROM item WHERE a = 'new'"), 98, "all but those changed since");
    assert_eq!(count(&sites, 1, "SELECT count(*) FROM item WHERE a = 'new' AND b = 'theirs'"), 1, "column by column");
    assert_eq!(
        count(&sites, 0, "SELECT count(*) FROM item WHERE a = 'late'"),
        2,
        "an edit that is newer than a deletion"
    );
    assert_eq!(count(&sites, 1, "SELECT count(*) FROM item WHERE id BETWEEN 101 AND 110"), 1);
    assert_eq!(count(&sites, 0, "SELECT count(*) FROM item WHERE id = 1000"), 1);
    // From now on it is seen that everything was seen.
    assert_eq!(count(&sites, 0, "SELECT count(*) FROM _ssw_row"), 0);
    assert_eq!(count(&sites, 1, "SELECT count(*) FROM _ssw_row"), 0);
}

#[test]
fn what_is_forgotten_while_databases_are_compared_is_found_by_another_comparison() {
    let (mut sites, mut dice) = sites();
    write(&mut sites, 0, "UPDATE item SET a = 'new' WHERE id <= 100");
    assert!(sites.all[0].store.forget_beyond(50).expect("a transaction").forgot);
    sites.settle(&mut dice);
    let outcome = sites.compare(1, 0, &mut dice);
    sites.repair(1, &outcome, Policy::Behind, &mut dice);
    let outcome = sites.compare(1, 0, &mut dice);
    assert!(outcome.differing.is_empty(), "{outcome:?}");

    write(&mut sites, 0, "UPDATE item SET a = 'newer' WHERE id <= 100");
    assert!(sites.all[0].store.forget_beyond(50).expect("a transaction").forgot);
    sites.settle(&mut dice);
    assert!(sites.all[1].store.verified(&outcome).expect("a transaction"));
    assert!(matches!(sites.all[1].store.doubt().expect("a state"), Some(Doubt::Missed(_))));
    sites.mend(1, &mut dice);
    sites.settle(&mut dice);
    assert_equal(&sites);
    assert_eq!(count(&sites, 1, "SELECT count(*) FROM item WHERE a = 'newer'"), 100);
}

#[test]
fn no_more_is_forgotten_at_once_than_goes_into_one_batch() {
    let (mut sites, mut dice) = sites();
    for round in 1..=90 {
        write(&mut sites, 0, &format!("UPDATE item SET a = {round}"));
    }
    write(&mut sites, 0, "INSERT INTO item SELECT x.id * 1000 + y.id, 1, 1 FROM item x, item y WHERE x.id <= 42");
    for _ in 1..=3 {
        write(&mut sites, 0, "INSERT INTO item VALUES(NULL, zeroblob(2000000), 1)");
    }
    let mut left = Vec::new();
    while sites.all[0].store.forget_beyond(100).expect("a transaction").forgot {
        left.push(count(&sites, 0, "SELECT count(*) FROM _ssw_change"));
    }
    assert_eq!(left, [46_003, 26_003, 21_003, 3, 1, 0], "20,000 rows, one group that has more, or 4 MB");
    assert_eq!(count(&sites, 0, "SELECT count(*) FROM _ssw_group"), 0);
    sites.settle(&mut dice);
    sites.mend(1, &mut dice);
    sites.settle(&mut dice);
    assert_equal(&sites);
}

#[test]
fn only_as_much_is_forgotten_as_is_too_much() {
    let (mut sites, _) = sites();
    for round in 1..=10 {
        write(&mut sites, 0, &format!("UPDATE item SET a = {round}"));
    }
    let bytes = count(&sites, 0, "SELECT sum(bytes) FROM _ssw_group");
    let newest = count(&sites, 0, "SELECT sum(bytes) FROM (SELECT bytes FROM _ssw_group ORDER BY grp DESC LIMIT 7)");
    assert!(sites.all[0].store.forget_beyond(bytes / 4 * 3).expect("a transaction").forgot);
    assert_eq!(count(&sites, 0, "SELECT sum(bytes) FROM _ssw_group"), newest);
    assert!(!sites.all[0].store.forget_beyond(bytes / 4 * 3).expect("a transaction").forgot);
}

/// Forgets at a site until what is kept is no more than this.
fn forget(sites: &mut Sites, at: usize, limit: u64) {
    while sites.all[at].store.forget_beyond(limit).expect("a transaction").forgot {}
}

const KEPT_OF_ROWS: &str = "SELECT ifnull(sum(length(key) + length(state)), 0) FROM _ssw_row";

#[test]
fn what_deleted_rows_were_and_that_they_were_is_forgotten_from_where_the_last_batch_ended() {
    let (mut sites, mut dice) = sites();
    let many = "SELECT x.id * 1000 + y.id, printf('%.100c', 'x'), 0 FROM item x, item y WHERE x.id <= 100";
    write(&mut sites, 0, &format!("INSERT INTO item {many}"));
    sites.settle(&mut dice);
    write(&mut sites, 0, "DELETE FROM item WHERE id > 1000");
    let mut kept = Vec::new();
    loop {
        let weighed = sites.all[0].store.forget_beyond(100).expect("a transaction");
        kept.push(weighed.kept);
        if !weighed.forgot {
            break;
        }
    }
    let steps = |of: fn(&Kept) -> u64| {
        let all = of(&kept[0]);
        let mut steps: Vec<u64> = kept.iter().map(|kept| (of(kept) * 10 + all / 2) / all).collect();
        steps.dedup();
        steps
    };
    assert_eq!(steps(|kept| kept.images), [10, 6, 2, 0], "tenths; 20,000 of 50,000 rows");
    assert_eq!(steps(|kept| kept.deletions), [10, 6, 2, 0]);
    assert_eq!(sites.all[0].store.kept(100).expect("a state").bytes(), 0);
    sites.settle(&mut dice);
    sites.mend(1, &mut dice);
    sites.settle(&mut dice);
    assert_equal(&sites);
}

#[test]
fn what_deleted_rows_were_is_forgotten_before_any_change_is() {
    let (mut sites, mut dice) = sites();
    write(&mut sites, 0, "UPDATE item SET b = printf('%d %.1000c', id, 'x')");
    sites.settle(&mut dice);
    write(&mut sites, 0, "DELETE FROM item WHERE id <= 400");
    // It does not have these, and is not to get them.
    write(
        &mut sites,
        0,
        "INSERT INTO item SELECT id + 1000, printf('%.1000c', 'y'), 0 FROM item; DELETE FROM item WHERE id > 1000",
    );
    write(&mut sites, 1, "UPDATE item SET a = 'late' WHERE id IN (7, 450)");
    assert!(count(&sites, 0, KEPT_OF_ROWS) > 500_000);
    forget(&mut sites, 0, 2_000_000);
    assert!(count(&sites, 0, KEPT_OF_ROWS) > 500_000, "it is not too much");
    forget(&mut sites, 0, 250_000);
    assert!(count(&sites, 0, KEPT_OF_ROWS) < 500 * 50, "{} bytes", count(&sites, 0, KEPT_OF_ROWS));
    assert_eq!(count(&sites, 0, "SELECT count(*) FROM _ssw_change"), 500);

    sites.settle(&mut dice);
    let rest = "SELECT count(*) FROM item WHERE id < 400 OR id > 500";
    assert_eq!([count(&sites, 0, rest), count(&sites, 1, rest)], [0, 1], "what it was is not known here any more");
    assert_eq!(sites.all[0].store.doubt().expect("a state"), Some(Doubt::Missed("site2".to_owned())));
    sites.mend(0, &mut dice);
    sites.settle(&mut dice);
    assert_equal(&sites);
    let whole = "SELECT count(*) FROM item WHERE id = 7 AND a = 'late' AND b LIKE '7 xxx%'";
    assert_eq!(count(&sites, 0, whole), 1, "an edit that is newer than a deletion");
    assert_eq!([0, 1].map(|at| sites.kept(at)), [(0, 0); 2]);
}

#[test]
fn what_rows_were_that_another_site_has_deleted_is_forgotten_as_well() {
    let (mut sites, mut dice) = (Sites::new(SCHEMA, &[0, 0, 0], &[]), Dice::new(1));
    write(&mut sites, 0, "INSERT INTO item VALUES(1, 'a', zeroblob(100000)), (2, 'a', zeroblob(100000))");
    sites.settle(&mut dice);
    // The third is away.
    write(&mut sites, 2, "UPDATE item SET a = 'edited' WHERE id = 2");
    write(&mut sites, 0, "DELETE FROM item");
    write(&mut sites, 2, "UPDATE item SET a = 'later' WHERE id = 1");
    sites.send_all(0, 1);
    sites.drain(&mut dice);
    assert!(count(&sites, 1, KEPT_OF_ROWS) > 200_000);
    forget(&mut sites, 1, 1_000);
    assert!((1..200).contains(&count(&sites, 1, KEPT_OF_ROWS)));
    sites.mend(1, &mut dice);
    for at in 0..3 {
        let whole = "SELECT count(*) FROM item WHERE id = 1 AND a = 'later' AND length(b) = 100000";
        assert_eq!([count(&sites, at, whole), count(&sites, at, "SELECT count(*) FROM item")], [1, 1]);
    }
    sites.settle(&mut dice);
    assert_eq!([0, 1, 2].map(|at| sites.kept(at)), [(0, 0); 3]);
}

#[test]
fn at_last_it_is_forgotten_that_rows_were_deleted() {
    let (mut sites, mut dice) = sites();
    for at in [0, 1] {
        let (own, other) = (at * 100 + 1, 300 + at * 100 + 1);
        write(&mut sites, at, &format!("DELETE FROM item WHERE id BETWEEN {own} AND {own} + 79"));
        write(
            &mut sites,
            at,
            &format!("INSERT INTO item SELECT id + {own}000, 1, 1 FROM item; DELETE FROM item WHERE id > 1000"),
        );
        write(&mut sites, at, &format!("INSERT INTO item VALUES({own}000, 'new', {at})"));
        write(&mut sites, at, &format!("UPDATE item SET a = 'changed' WHERE id = {other}"));
    }
    // Newer than the deletion.
    write(&mut sites, 1, "UPDATE item SET a = 'late' WHERE id = 7");
    for at in [0, 1] {
        forget(&mut sites, at, 100);
        let kept = sites.all[at].store.kept(100).expect("a state");
        assert_eq!(kept.bytes(), 0, "{kept:?}");
        assert!(count(&sites, at, "SELECT count(*) FROM _ssw_row") < 5, "of rows that are there");
    }
    sites.settle(&mut dice);
    for at in [1, 0] {
        sites.mend(at, &mut dice);
    }
    sites.settle(&mut dice);
    assert_equal(&sites);
    let there = |what: &str| count(&sites, 0, &format!("SELECT count(*) FROM item WHERE {what}"));
    assert_eq!(there("id BETWEEN 1 AND 80 OR id BETWEEN 101 AND 180"), 1, "deleted rows stay so");
    assert_eq!(there("id = 7 AND a = 'late' AND b = 0"), 1, "but not one that was changed elsewhere");
    assert_eq!((there("a = 'new'"), there("a = 'changed'"), there("id > 0")), (2, 2, 500 - 160 + 1 + 2));
    assert_eq!([0, 1].map(|at| sites.kept(at)), [(0, 0); 2]);
}

/// The rows that only this site writes to, as it has them.
fn own(sites: &Sites, at: usize) -> Option<String> {
    let sql = format!(
        "SELECT group_concat(concat(id, ' ', a, ' ', b)) FROM (SELECT * FROM item WHERE id > 40 AND (id - 41) % 3 = {at} ORDER BY id)"
    );
    sites.all[at].app.query_row(&sql, [], |row| row.get(0)).expect("rows")
}

/// Writes somewhere, and now and then tells the others or forgets. The first forty rows are everybody's, then come each
/// site's own.
fn write_and_forget(sites: &mut Sites, dice: &mut Dice, round: usize) {
    let at = dice.below(sites.all.len());
    let id = if dice.chance(70) { 1 + dice.below(40) } else { 41 + at + 3 * dice.below(6) };
    let sql = match dice.below(4) {
        0 => format!("DELETE FROM item WHERE id = {id}"),
        1 => format!("INSERT OR REPLACE INTO item VALUES({id}, {round}, printf('%.200c', 'x'))"),
        2 => format!("UPDATE item SET a = {round} WHERE id = {id}"),
        _ => format!("UPDATE item SET b = {round} WHERE id = {id}"),
    };
    write(sites, at, &sql);
    if dice.chance(10) {
        sites.tell(at, dice);
    }
    if dice.chance(15) {
        forget(sites, at, 100 * dice.below(20) as u64);
    }
}

/// Whatever was forgotten, and wherever: the sites come to be equal, and a row that only one has written to is as that one
/// has left it.
#[test]
fn sites_that_have_forgotten_what_they_like_come_to_be_equal() {
    const ROWS: &str =
        "WITH n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 60) INSERT INTO item SELECT n, 0, 0 FROM n";
    each_seed(60, |seed| {
        let mut dice = Dice::new(seed);
        let count = 2 + dice.below(2);
        let mut sites = Sites::new(SCHEMA, &[0, 0, 0][..count], &[]);
        write(&mut sites, 0, ROWS);
        sites.settle(&mut dice);
        (0..30).for_each(|round| write_and_forget(&mut sites, &mut dice, round));
        let left: Vec<_> = (0..count).map(|at| own(&sites, at)).collect();
        sites.settle(&mut dice);
        // A comparison may leave another site with something to ask.
        for at in (0..count).chain(0..count) {
            sites.mend(at, &mut dice);
        }
        sites.settle(&mut dice);
        for (at, left) in left.iter().enumerate() {
            assert_eq!(sites.all[at].rows("item"), sites.all[0].rows("item"));
            assert_eq!(sites.all[at].store.doubt().expect("a state"), None);
            assert_eq!(sites.kept(at), (0, 0));
            assert_eq!(own(&sites, at), *left, "site {at}'s own rows");
        }
    });
}

#[test]
fn of_rows_that_every_site_has_nothing_is_kept_however_many_became_so_at_once() {
    let (mut sites, mut dice) = (Sites::new(SCHEMA, &[0, 0, 0], &[]), Dice::new(1));
    let many =
        "WITH n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 100000) INSERT INTO item SELECT n, 0, 0 FROM n";
    write(&mut sites, 0, many);
    sites.tell(0, &mut dice);
    assert_eq!(sites.kept(1), (0, 100_000), "it does not know that the third site has them");
    // Reports that say nothing new any more.
    for _ in 0..5 {
        sites.settle(&mut dice);
    }
    assert_eq!([0, 1, 2].map(|at| sites.kept(at)), [(0, 0); 3]);
}

#[test]
fn a_database_is_not_detached_before_its_peers_have_what_nobody_has_folded_yet() {
    let (mut sites, mut dice) = sites();
    // No agent runs here.
    sites.all[0].app.execute_batch("INSERT INTO item VALUES(501, 0, 0), (502, 0, 0)").expect("a write");
    let waiting = sites.all[0].store.detach(sites.now).expect("what waits");
    assert_eq!(waiting["site2"].rows, 2);
    sites.settle(&mut dice);
    assert_equal(&sites);
    assert!(sites.all[0].store.detach(sites.now).expect("what waits").is_empty());
    assert_eq!(count(&sites, 0, "SELECT count(*) FROM sqlite_schema WHERE name LIKE '~_ssw%' ESCAPE '~'"), 0);
}

#[test]
fn only_its_owner_can_read_a_snapshot() {
    let (sites, _) = sites();
    let mode = std::fs::metadata(sites.snapshot(0)).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn groups_of_which_a_site_that_joined_has_only_the_first_are_not_made_one() {
    let (mut sites, mut dice) = (Sites::some(SCHEMA, &[0, 0], &[], 3), Dice::new(1));
    sites.settle(&mut dice);
    // The second site is away, so that all groups are kept.
    write(&mut sites, 0, "INSERT INTO item VALUES(1, 0, 0)");
    let copy = sites.snapshot(0);
    write(&mut sites, 0, "UPDATE item SET a = 1");
    sites.adopt(copy, 2);
    sites.drain(&mut dice);
    assert_eq!(count(&sites, 0, "SELECT count(*) FROM _ssw_group"), 2);
    while sites.all[0].store.compact(1).expect("a transaction") {}
    sites.settle(&mut dice);
    assert_equal(&sites);
    assert_eq!(sites.all[2].rows("item"), sites.all[0].rows("item"));
    assert_eq!(sites.all[2].store.doubt().expect("a state"), None, "nothing has to be compared");
}
