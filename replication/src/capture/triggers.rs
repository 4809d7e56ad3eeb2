//! The triggers of one table, as SQL.
//!
//! Whatever SQLite the application has must understand them: nothing newer than 3.8.2, which brought the WITHOUT ROWID
//! tables that are beside them, and none but built-in functions. `NEW` and `OLD` stand before every column, and the alias
//! `x` before those of other rows, so that no name of the application's can mean something else.

use std::fmt::Display;

use crate::{
    layout::{DELETED, EVICTED, INSERTED},
    schema::{Column, MASK_BITS, Table, Unique, quoted},
};

/// A trigger: its name, and the statement that creates it exactly as the schema then shows it.
pub(super) struct Trigger {
    pub name: String,
    pub sql: String,
}

/// The application's clock. All of one statement's touches get the same. The fold makes milliseconds of it.
const NOW: &str = "julianday()";

/// What the triggers of a table are called: this, its kind, `_` and the table's number.
pub(super) fn name(kind: &str, table: &Table) -> String {
    format!("_ssw_{kind}_{}", table.number)
}

/// Where the last values of the table's rows are kept. They are put there with OR REPLACE: one that were left over under
/// a touch's number must not make an application's write fail.
pub(super) fn images(table: &Table) -> String {
    format!("_ssw_old_{}", table.number)
}

/// The mark in `_ssw_meta` of a table that was without its triggers for a while and was not compared with a peer's since.
pub fn unverified(table: &Table) -> String {
    format!("unverified_{}", table.number)
}

/// The mark in `_ssw_meta` of such a table that was made anew in a schema change: at every site, so that none knows better
/// than another.
pub fn rebuilt(table: &Table) -> String {
    format!("rebuilt_{}", table.number)
}

/// May the primary key hold NULL? SQLite allows it unless the table is WITHOUT ROWID or says NOT NULL.
pub fn nullable_key(table: &Table) -> bool {
    key(table).any(|column| !column.not_null)
}

/// The table's triggers.
pub(super) fn triggers(table: &Table) -> Vec<Trigger> {
    let mut triggers = vec![inserted(table), updated(table), moved(table), deleted(table)];
    if !table.uniques.is_empty() || hidden_rowid(table).is_some() {
        triggers.extend([evicting(table, "vi", "INSERT"), evicting(table, "vu", &evicting_update(table))]);
    }
    triggers
}

fn inserted(table: &Table) -> Trigger {
    let body = touch(table, INSERTED, "NEW", &holds(table, "NEW"));
    trigger(table, "i", "AFTER INSERT", "", &body)
}

/// Updates. Also one that changes nothing known is recorded: it may have changed a column that was added since. Nobody asks
/// whether the key has changed, which takes longer than it takes to fold this into the new row's insertion. What counters
/// were is recorded with it: what was added to them can be told from that alone.
fn updated(table: &Table) -> Trigger {
    let counters = table.counters.iter().map(|column| of("OLD", &table.columns[usize::from(*column)]));
    let values = list([touched(table, mask(table), "NEW")].into_iter().chain(counters));
    let body = format!("{} VALUES({values}); ", touch_into(table, table.counters.len()));
    trigger(table, "u", "AFTER UPDATE", &holds(table, "NEW").join(" AND "), &body)
}

/// What the rowid is called where no column is.
const ROWID: [&str; 3] = ["rowid", "oid", "_rowid_"];

/// Updates that change the key: the old row is gone, and another is there.
fn moved(table: &Table) -> Trigger {
    let body = gone(table) + &touch(table, INSERTED, "NEW", &holds(table, "NEW"));
    let set = key(table).map(|column| quoted(&column.name));
    let rowid = if key_may_be_rowid(table) { ROWID.as_slice() } else { &[] };
    let set = list(set.chain(rowid.iter().map(|&name| name.to_owned())));
    trigger(table, "k", &format!("AFTER UPDATE OF {set}"), &other_key(table, "NEW", "OLD"), &body)
}

/// Is its key the rowid, which statements may also set under the names that it always has? (Or it looks so: an `INTEGER
/// PRIMARY KEY DESC` is not the rowid.)
fn key_may_be_rowid(table: &Table) -> bool {
    let integer = |column: &u16| table.columns[usize::from(*column)].declared.eq_ignore_ascii_case("INTEGER");
    !table.without_rowid && table.key.len() == 1 && table.key.iter().all(integer)
}

/// The names of a rowid that is none of the columns. Statements may set it all the same.
fn hidden_rowid_names(table: &Table) -> impl Iterator<Item = &'static str> {
    let hidden = !table.without_rowid && !key_may_be_rowid(table);
    let is_column = |name: &str| table.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    ROWID.into_iter().filter(move |name| hidden && !is_column(name))
}

fn hidden_rowid(table: &Table) -> Option<&'static str> {
    hidden_rowid_names(table).next()
}

fn deleted(table: &Table) -> Trigger {
    trigger(table, "d", "AFTER DELETE", "", &gone(table))
}

/// Rows that a REPLACE will evict because they are equal in a unique index or have the new row's rowid: SQLite fires no
/// DELETE trigger for them. They are recorded before it is known whether they go; the fold looks.
fn evicting(table: &Table, kind: &str, event: &str) -> Trigger {
    let this = if kind == "vi" { "NEW" } else { "OLD" };
    let mut found = Vec::new();
    let mut body = String::new();
    let equal = table.uniques.iter().map(|unique| (String::new(), equal_in(table, unique, this)));
    let same = hidden_rowid(table).map(|rowid| {
        // Before an INSERT that leaves the rowid to SQLite, it reads as -1. To ask for that is faster than to look.
        let given = if this == "NEW" { format!("NEW.{rowid} <> -1 AND ") } else { String::new() };
        (given, other(table, [format!("x.{rowid} = NEW.{rowid}")], this))
    });
    for (given, those) in equal.chain(same) {
        let rows = format!("FROM {} AS x WHERE {those}", quoted(&table.name));
        let (values, image) = (touched(table, EVICTED, "x"), columns(table, "x"));
        body += &format!("{} SELECT {values} {rows}; ", touch_into(table, 0));
        body +=
            &format!("INSERT OR REPLACE INTO {} SELECT last_insert_rowid(), {image} {rows}; ", quoted(&images(table)));
        found.push(format!("{given}EXISTS(SELECT 1 {rows})"));
    }
    trigger(table, kind, &format!("BEFORE {event}"), &found.join(" OR "), &body)
}

fn evicting_update(table: &Table) -> String {
    let mut columns: Vec<u16> =
        table.uniques.iter().flat_map(|unique| &unique.columns).map(|(column, _)| *column).collect();
    columns.sort_unstable();
    columns.dedup();
    let columns = columns.iter().map(|column| quoted(&table.columns[usize::from(*column)].name));
    format!("UPDATE OF {}", list(columns.chain(hidden_rowid_names(table).map(str::to_owned))))
}

/// Rows `x` that are equal to the new one in a unique index, without the row `this` that is replaced as a whole.
fn equal_in(table: &Table, unique: &Unique, this: &str) -> String {
    let equal = unique.columns.iter().map(|(column, collation)| {
        // After `x.k = NEW.k`, SQLite takes one for the other in what follows, where 1 and 1.0 are not the same. It does not
        // after IS, which finds no more here: `holds` leaves out keys with a NULL.
        let is = if table.in_key(*column) { "IS" } else { "=" };
        let column = &table.columns[usize::from(*column)];
        format!("{} {is} {} COLLATE {}", of("x", column), given(column), quoted(collation))
    });
    other(table, equal, this)
}

/// Rows `x` for which this holds, without the row `this` that is replaced as a whole.
fn other(table: &Table, equal: impl IntoIterator<Item = String>, this: &str) -> String {
    let mut other = other_key(table, "x", this);
    if this == "NEW" && key_may_be_rowid(table) {
        // Before an INSERT that leaves the rowid to SQLite, it reads as -1.
        other = key(table).fold(other, |other, column| format!("{other} OR {} = -1", of("NEW", column)));
    }
    let parts = equal.into_iter().chain([format!("({other})")]).chain(holds(table, "x"));
    parts.collect::<Vec<_>>().join(" AND ")
}

/// A value as it will be stored: OR REPLACE makes a column's default of a NULL that it cannot store, but not before
/// BEFORE triggers have seen the NULL.
fn given(column: &Column) -> String {
    match column.plain_default() {
        Some(default) if column.not_null => format!("coalesce({}, {default})", of("NEW", column)),
        _ => of("NEW", column),
    }
}

fn trigger(table: &Table, kind: &str, event: &str, when: &str, body: &str) -> Trigger {
    let name = name(kind, table);
    let when = if when.is_empty() { String::new() } else { format!("WHEN {when} ") };
    let sql = format!("CREATE TRIGGER {} {event} ON {} {when}BEGIN {body}END", quoted(&name), quoted(&table.name));
    Trigger { name, sql }
}

/// The touch of a row that is deleted, and its last values.
fn gone(table: &Table) -> String {
    let whole = holds(table, "OLD");
    let image = format!("last_insert_rowid(), {}", columns(table, "OLD"));
    let image = format!("INSERT OR REPLACE INTO {} {}; ", quoted(&images(table)), only_if(&whole, &image));
    touch(table, DELETED, "OLD", &whole) + &image
}

fn touch(table: &Table, what: impl Display, row: &str, conditions: &[String]) -> String {
    format!("{} {}; ", touch_into(table, 0), only_if(conditions, &touched(table, what, row)))
}

fn touch_into(table: &Table, counters: usize) -> String {
    let key = (0..table.key.len()).map(|part| format!("k{part}"));
    format!("INSERT INTO _ssw_touch(tbl, what, day, {})", list(key.chain((0..counters).map(|at| format!("c{at}")))))
}

fn touched(table: &Table, what: impl Display, row: &str) -> String {
    let key = list(key(table).map(|column| of(row, column)));
    format!("{}, {what}, {NOW}, {key}", table.number)
}

/// One row of values to insert, if the conditions hold.
fn only_if(conditions: &[String], values: &str) -> String {
    match conditions {
        [] => format!("VALUES({values})"),
        _ => format!("SELECT {values} WHERE {}", conditions.join(" AND ")),
    }
}

/// The row has a whole key.
fn holds(table: &Table, row: &str) -> Vec<String> {
    key(table).filter(|column| !column.not_null).map(|column| format!("{} NOTNULL", of(row, column))).collect()
}

/// Which columns outside the key change. (CASE takes less time than shifting what the comparison says, and two columns in
/// one less than two.)
fn mask(table: &Table) -> String {
    let outside = |column: &u16| !table.in_key(*column);
    let changes = |column: u16| {
        let column = &table.columns[usize::from(column)];
        differs(column, &of("NEW", column), &of("OLD", column))
    };
    let all = || (0..).zip(&table.columns).map(|(at, _)| at).filter(outside);
    let own = all().filter(|column| usize::from(*column) < MASK_BITS);
    let rest: Vec<_> = all().filter(|column| usize::from(*column) >= MASK_BITS).map(changes).collect();
    let columns: Vec<_> = own.map(|column| (changes(column), 1_u64 << column)).collect();
    let mut bits: Vec<_> = columns.chunks(2).map(bits_of).collect();
    if !rest.is_empty() {
        bits.push(bits_of(&[(any(&rest), 1 << MASK_BITS)]));
    }
    if bits.is_empty() { "0".to_owned() } else { bits.join(" | ") }
}

/// The bits of two columns, or of one, that change.
fn bits_of(columns: &[(String, u64)]) -> String {
    match columns {
        [(one, bit), (two, next)] => format!(
            "CASE WHEN {one} THEN CASE WHEN {two} THEN {} ELSE {bit} END WHEN {two} THEN {next} ELSE 0 END",
            bit | next
        ),
        _ => columns.iter().map(|(one, bit)| format!("CASE WHEN {one} THEN {bit} ELSE 0 END")).collect(),
    }
}

/// Any of the conditions, as a balanced tree: SQLite refuses an expression that is more than 1000 deep.
fn any(conditions: &[String]) -> String {
    match conditions {
        [] => "0".to_owned(),
        [only] => only.clone(),
        _ => {
            let (left, right) = conditions.split_at(conditions.len() / 2);
            format!("({} OR {})", any(left), any(right))
        }
    }
}

fn other_key(table: &Table, one: &str, two: &str) -> String {
    key(table).map(|column| differs(column, &of(one, column), &of(two, column))).collect::<Vec<_>>().join(" OR ")
}

/// Two values of a column are not the same bytes of the same storage class. `IS NOT` alone would go by the column's
/// collation, and take 1 for 1.0. Numbers are what comes before all text; of anything else nobody has to ask for its class.
pub(crate) fn differs(column: &Column, one: &str, two: &str) -> String {
    let classes = format!(" OR {one} < '' AND typeof({one}) <> typeof({two})");
    let classes = if column.mixes_numbers() { &classes } else { "" };
    format!("{one} IS NOT {two} COLLATE BINARY{classes}")
}

fn key(table: &Table) -> impl Iterator<Item = &Column> {
    table.key.iter().map(|column| &table.columns[usize::from(*column)])
}

fn columns(table: &Table, row: &str) -> String {
    list(table.columns.iter().map(|column| of(row, column)))
}

fn of(row: &str, column: &Column) -> String {
    format!("{row}.{}", quoted(&column.name))
}

pub(crate) fn list(parts: impl IntoIterator<Item = String>) -> String {
    parts.into_iter().collect::<Vec<_>>().join(", ")
}
