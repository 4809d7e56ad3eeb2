//! What a merge can break that each site alone had kept: UNIQUE and foreign keys. Mended in the transaction that applies,
//! by changes of this site's own; every site decides the same, from versions and keys alone.

use std::rc::Rc;

use rusqlite::{OptionalExtension, params_from_iter};

use crate::{
    change::{Cell, Change, Deleted},
    clock::Version,
    merge::{Conflict, Kind, Row},
    schema::{OnDelete, Reference, Unique, quoted},
    value::{Key, Value},
    wire::Part,
};

use super::{
    Error, OnCollision,
    apply::{Found, Waiting, claim, free},
    conflicts,
    live::Live,
    work::Work,
};

/// Rows whose references are to be looked at.
pub(super) type Checks = Vec<Check>;

/// A row whose references, or whose children's, are to be looked at.
pub(super) struct Check {
    live: Rc<Live>,
    key: Key,
    /// Its change, if it comes from a peer. It may be settled with that, and then nothing is kept of its versions.
    told: Version,
}

impl Check {
    pub(super) fn new(live: &Rc<Live>, key: &Key) -> Self {
        Self { live: Rc::clone(live), key: key.clone(), told: Version::NONE }
    }
}

/// Writes the rows that others were in the way of. If one still is, the newer claim to the value wins; of two as new, the
/// greater key.
pub(super) fn collisions(work: &mut Work<'_>, found: &mut Found, now: i64) -> Result<Checks, Error> {
    let mut waiting = std::mem::take(&mut found.waiting);
    loop {
        let before = waiting.len();
        let mut still = Vec::new();
        for row in waiting {
            if !free(row.live.insert(work.transaction, row.row.values.iter().flatten()))? {
                still.push(row);
            }
        }
        waiting = still;
        if waiting.is_empty() || waiting.len() == before {
            break;
        }
    }
    let mut checks = Checks::new();
    // In the order of keys, as every site does it.
    waiting.sort_by(|one, two| (&one.live.table.name, &one.key).cmp(&(&two.live.table.name, &two.key)));
    for row in waiting {
        place(work, row, &mut checks, found, now)?;
    }
    Ok(checks)
}

/// Puts a row into the table, or takes from it what another has the better claim to.
fn place(
    work: &mut Work<'_>,
    mut newcomer: Waiting,
    checks: &mut Checks,
    found: &mut Found,
    now: i64,
) -> Result<(), Error> {
    let live = Rc::clone(&newcomer.live);
    while !free(live.insert(work.transaction, newcomer.row.values.iter().flatten()))? {
        let Some((unique, other)) = rival(work, &live, &newcomer.row)? else {
            if live.rules.fire_triggers {
                // What a trigger writes is in another's way: that is no reason to take anything from this row.
                return Ok(live.insert(work.transaction, newcomer.row.values.iter().flatten())?);
            }
            // Nobody can say for what.
            lose(work, &live, &newcomer.key, &mut newcomer.row, None, Version::NONE, found, now)?;
            checks.push(Check::new(&live, &newcomer.key));
            return Ok(());
        };
        let columns = other.columns().unwrap_or_default();
        let there = live.read(work.transaction, &columns)?;
        let (mut resident, _) = work.rows.load(&live, &other, there)?;
        let [mine, theirs] = [&newcomer.row, &resident].map(|row| claim(&live.table, row, unique.as_ref()));
        // A row without a whole key is known to this site alone, and nobody can take anything from it.
        let whole = !columns.iter().any(Value::is_null);
        if !whole || (mine, &newcomer.key) < (theirs, &other) {
            lose(work, &live, &newcomer.key, &mut newcomer.row, unique.as_ref(), theirs, found, now)?;
            if !newcomer.row.visible() {
                checks.push(Check::new(&live, &newcomer.key));
                return Ok(());
            }
        } else {
            lose(work, &live, &other, &mut resident, unique.as_ref(), mine, found, now)?;
            live.delete(work.transaction, &columns)?;
            if resident.visible() {
                let resident = Waiting { live: Rc::clone(&live), key: other, row: resident };
                place(work, resident, checks, found, now)?;
            } else {
                checks.push(Check::new(&live, &other));
            }
        }
    }
    Ok(())
}

/// Another row with the same values in unique columns; or one that is in the way for an index that is not described: partial,
/// or over an expression.
fn rival(work: &Work<'_>, live: &Live, row: &Row) -> Result<Option<(Option<Unique>, Key)>, Error> {
    let keys: Vec<String> =
        live.table.key.iter().map(|column| quoted(&live.table.columns[usize::from(*column)].name)).collect();
    for unique in &live.table.uniques {
        let values: Vec<&Value> =
            unique.columns.iter().filter_map(|(column, _)| row.values[usize::from(*column)].as_ref()).collect();
        if values.iter().any(|value| value.is_null()) || values.len() < unique.columns.len() {
            continue;
        }
        let same: Vec<String> = unique
            .columns
            .iter()
            .map(|(column, collation)| {
                format!("{}=? COLLATE {}", quoted(&live.table.columns[usize::from(*column)].name), quoted(collation))
            })
            .collect();
        let sql = format!("SELECT {} FROM {} WHERE {}", keys.join(","), quoted(&live.table.name), same.join(" AND "));
        let other = work
            .transaction
            .prepare_cached(&sql)?
            .query_row(params_from_iter(values), |found| {
                (0..keys.len()).map(|at| Ok(found.get_ref(at)?.into())).collect::<Result<Vec<Value>, _>>()
            })
            .optional()?;
        if let Some(other) = other {
            return Ok(Some((Some(unique.clone()), Key::new(&other))));
        }
    }
    if live.table.otherwise_unique.is_none() {
        return Ok(None);
    }
    let Some(other) = live.in_the_way(work.transaction, row.values.iter().flatten())? else { return Ok(None) };
    let key = live.table.key.iter().map(|column| row.values[usize::from(*column)].as_ref());
    if key.eq(other.iter().map(Some)) {
        // Nothing was in the way but of what a trigger writes.
        live.take_out(work.transaction, &other)?;
        return Ok(None);
    }
    Ok(Some((None, Key::new(&other))))
}

/// The row gives up its claim, in the way that its table's rules say, or if there is none it is deleted. `row` says what is
/// left of it; the table is the caller's to change.
#[expect(clippy::too_many_arguments, reason = "one decision, in one place")]
fn lose(
    work: &mut Work<'_>,
    live: &Live,
    key: &Key,
    row: &mut Row,
    unique: Option<&Unique>,
    won: Version,
    found: &mut Found,
    now: i64,
) -> Result<(), Error> {
    let lost = claim(&live.table, row, unique);
    log(work, live, key, &Conflict { kind: Kind::Unique, won, lost, image: row.image() }, found)?;
    let change = match unique.and_then(|unique| way_out(live, key, row, unique)) {
        Some((column, value)) => set(work, live, row, &[column], &value, now),
        None => deletion(work, now),
    };
    work.record(live, key, row, change)
}

/// A column of a unique constraint with which its row is in nobody's way, and the value to give it.
fn way_out(live: &Live, key: &Key, row: &Row, unique: &Unique) -> Option<(u16, Value)> {
    if unique.primary || live.rules.unique == OnCollision::Delete {
        return None;
    }
    let columns = || unique.columns.iter().map(|(column, _)| *column).filter(|column| !live.table.in_key(*column));
    let suffixed =
        || columns().find_map(|column| Some((column, suffixed(row.values[usize::from(column)].as_ref()?, key)?)));
    let null = || columns().find(|column| live.table.columns[usize::from(*column)].may_be_null());
    let suffixed = if live.rules.unique == OnCollision::Suffix { suffixed() } else { None };
    suffixed.or_else(|| Some((null()?, Value::Null)))
}

/// A text with a mark of its row's key, the same at every site. `None`: it has the mark already, or is no text.
fn suffixed(value: &Value, key: &Key) -> Option<Value> {
    let Value::Text(text) = value else { return None };
    // No number has a tilde, so that no column takes the text for one.
    let mark = format!("~{}", &blake3::hash(&key.0).to_hex()[..8]);
    (!text.ends_with(mark.as_bytes())).then(|| Value::Text([text, mark.as_bytes()].concat()))
}

/// Deletes a row for good, whatever the table's policy says of edits: it would be in the way again.
pub(super) fn deletion(work: &mut Work<'_>, now: i64) -> Change {
    let stamp = work.state.clock.tick(now);
    Change { deleted: Some(Deleted { stamp, ends: Version::new(stamp, work.settings.site) }), ..Change::default() }
}

/// Sets columns to a value; what only makes sense with them is said again.
fn set(work: &mut Work<'_>, live: &Live, row: &Row, changed: &[u16], new: &Value, now: i64) -> Change {
    let stamp = work.state.clock.tick(now);
    let alone = |column: &u16| live.table.counters.contains(column) || live.extremes.contains_key(column);
    let with = |column: &u16| {
        let sets = live.table.together.iter().filter(|set| set.iter().any(|column| changed.contains(column)));
        changed.contains(column) || !alone(column) && sets.flatten().any(|other| other == column)
    };
    let cells = (0..).zip(&row.values).filter(|(column, _)| with(column) && !live.table.in_key(*column));
    let cells = cells.map(|(column, value)| {
        let value = if changed.contains(&column) { new } else { value.as_ref().unwrap_or(&Value::Null) }.clone();
        Cell { column, stamp, value }
    });
    // No sign of life: a deletion that is on its way stays one.
    Change { cells: cells.collect(), ..Change::default() }
}

fn log(work: &mut Work<'_>, live: &Live, key: &Key, conflict: &Conflict, found: &mut Found) -> Result<(), Error> {
    found.conflicts += 1;
    conflicts::log(work, live, key, conflict)
}

/// Looks at the references from and to all rows of a part.
pub(super) fn references(work: &mut Work<'_>, part: &Part, found: &mut Found, now: i64) -> Result<(), Error> {
    let tables: Vec<Option<Rc<Live>>> = part
        .tables
        .iter()
        .map(|shape| work.tables.values().rev().find(|live| live.table.name.eq_ignore_ascii_case(&shape.name)).cloned())
        .map(|live| live.filter(|live| live.is_parent || !live.table.references.is_empty()))
        .collect();
    if tables.iter().all(Option::is_none) {
        return Ok(());
    }
    for row in part.rows().flatten() {
        if let Some(Some(live)) = tables.get(row.table as usize) {
            let told = Version::new(row.change.newest(), part.origin);
            check_all(work, &mut vec![Check { live: Rc::clone(live), key: row.key, told }], found, now)?;
        }
    }
    Ok(())
}

/// Mends what hangs in the air at these rows, and at those that mending changes.
pub(super) fn check_all(work: &mut Work<'_>, checks: &mut Checks, found: &mut Found, now: i64) -> Result<(), Error> {
    while let Some(check) = checks.pop() {
        let Check { live, key, .. } = &check;
        let Some(columns) = key.columns() else { continue };
        match live.read(work.transaction, &columns)? {
            Some(row) => {
                for reference in &live.table.references {
                    if let Some(values) = referred(reference, &row)
                        && !exists(work, reference, &values)?
                        && parent_missing(work, &check, reference, &values, checks, found, now)?
                    {
                        break;
                    }
                }
            }
            None if live.is_parent => children_of(work, live, key, checks)?,
            None => {}
        }
    }
    Ok(())
}

/// Mends what somebody's change of a row by hand leaves in the air, or fails if nothing can be done about it.
pub(super) fn mend(work: &mut Work<'_>, live: &Rc<Live>, key: &Key, now: i64) -> Result<(), Error> {
    work.flush()?;
    let columns = key.columns().unwrap_or_default();
    let was = live.read(work.transaction, &columns)?;
    check_all(work, &mut vec![Check::new(live, key)], &mut Found::default(), now)?;
    let (Some(was), is) = (was, live.read(work.transaction, &columns)?) else { return Ok(()) };
    for reference in &live.table.references {
        let values = referred(reference, is.as_ref().unwrap_or(&was));
        if let Some(values) = values
            && !exists(work, reference, &values)?
        {
            return Err(Error::Dangling { table: live.table.name.clone(), parent: reference.parent.clone() });
        }
    }
    Ok(())
}

/// What a row refers to; nothing, if one of the columns is NULL.
fn referred(reference: &Reference, row: &[Value]) -> Option<Vec<Value>> {
    let values: Vec<Value> = reference.columns.iter().map(|column| row[usize::from(*column)].clone()).collect();
    (!values.iter().any(Value::is_null)).then_some(values)
}

fn exists(work: &Work<'_>, reference: &Reference, values: &[Value]) -> Result<bool, Error> {
    let same: Vec<String> = reference.parent_columns.iter().map(|column| format!("{}=?", quoted(column))).collect();
    let sql = format!("SELECT 1 FROM {} WHERE {}", quoted(&reference.parent), same.join(" AND "));
    Ok(work.transaction.prepare_cached(&sql)?.exists(params_from_iter(values))?)
}

/// A deleted row's children are looked at next.
fn children_of(work: &mut Work<'_>, parent: &Live, key: &Key, checks: &mut Checks) -> Result<(), Error> {
    let (row, _) = work.rows.load(parent, key, None)?;
    let tables = work.tables;
    for child in tables.values() {
        let of = |reference: &&Reference| reference.parent.eq_ignore_ascii_case(&parent.table.name);
        for reference in child.table.references.iter().filter(of) {
            let Some(to) = parent.table.referred_to(reference) else { continue };
            let values: Option<Vec<&Value>> =
                to.iter().map(|(column, _)| row.values[usize::from(*column)].as_ref()).collect();
            let Some(values) = values else { continue };
            let name = |column: &u16| quoted(&child.table.columns[usize::from(*column)].name);
            let same: Vec<String> = reference
                .columns
                .iter()
                .zip(&to)
                .map(|(column, (_, collation))| format!("{}=? COLLATE {}", name(column), quoted(collation)))
                .collect();
            let keys: Vec<String> = child.table.key.iter().map(name).collect();
            let sql =
                format!("SELECT {} FROM {} WHERE {}", keys.join(","), quoted(&child.table.name), same.join(" AND "));
            let mut statement = work.transaction.prepare_cached(&sql)?;
            let mut found = statement.query(params_from_iter(values))?;
            while let Some(row) = found.next()? {
                let columns =
                    (0..keys.len()).map(|at| Ok(row.get_ref(at)?.into())).collect::<Result<Vec<Value>, Error>>()?;
                checks.push(Check::new(child, &Key::new(&columns)));
            }
        }
    }
    Ok(())
}

/// Does what the schema says should happen to a child whose parent is deleted; where it says that this must not happen,
/// the parent comes back. A parent that nobody here has heard of may still be on its way from another site: nothing is
/// done then, and this says no.
fn parent_missing(
    work: &mut Work<'_>,
    check: &Check,
    reference: &Reference,
    values: &[Value],
    checks: &mut Checks,
    found: &mut Found,
    now: i64,
) -> Result<bool, Error> {
    let Some((parent, parent_key, mut gone)) = deleted_parent(work, reference, values)? else { return Ok(false) };
    let Check { live, key, told } = check;
    let columns = key.columns().unwrap_or_default();
    let there = live.read(work.transaction, &columns)?;
    let (mut row, _) = work.rows.load(live, key, there)?;
    let (table, edited) = (&live.table, row.edited().max(*told));
    let nulls: Vec<u16> = reference
        .columns
        .iter()
        .copied()
        .filter(|column| table.columns[usize::from(*column)].may_be_null() && !table.in_key(*column))
        .collect();
    let action = match reference.on_delete {
        OnDelete::SetNull | OnDelete::SetDefault if nulls.is_empty() => OnDelete::Keep,
        action => action,
    };
    let kind = Kind::ForeignKey;
    if action == OnDelete::Keep {
        let conflict = Conflict { kind, won: edited, lost: gone.removed, image: Vec::new() };
        // Once: if it is gone again, it had to go with a parent of its own, and would have to for ever.
        let first = found.returned.insert((parent.table.number, parent_key.clone()));
        if first && revive(work, &parent, &parent_key, &mut gone, now)? {
            log(work, &parent, &parent_key, &conflict, found)?;
            checks.push(Check::new(&parent, &parent_key));
            checks.push(Check::new(live, key));
            return Ok(true);
        }
        // It cannot stay, or another row has its place; the child goes the parent's way.
    }
    log(work, live, key, &Conflict { kind, won: gone.removed, lost: edited, image: row.image() }, found)?;
    if matches!(action, OnDelete::SetNull | OnDelete::SetDefault) {
        let change = set(work, live, &row, &nulls, &Value::Null, now);
        work.record(live, key, &mut row, change.clone())?;
        let cells: Vec<(u16, &Value)> = change.cells.iter().map(|cell| (cell.column, &cell.value)).collect();
        live.update(work.transaction, &columns, &cells)?;
    } else {
        let change = deletion(work, now);
        work.record(live, key, &mut row, change)?;
        live.delete(work.transaction, &columns)?;
    }
    checks.push(Check::new(live, key));
    Ok(true)
}

/// What is left of the parent, if it was deleted and its values are still kept; of several, the one that was deleted last.
fn deleted_parent(
    work: &mut Work<'_>,
    reference: &Reference,
    values: &[Value],
) -> Result<Option<(Rc<Live>, Key, Row)>, Error> {
    let parent = work.tables.values().rev().find(|live| live.table.name.eq_ignore_ascii_case(&reference.parent));
    let Some(parent) = parent.cloned() else { return Ok(None) };
    let Some(to) = parent.table.referred_to(reference) else { return Ok(None) };
    let usable = |row: &Row| !row.lives() && row.values.iter().all(Option::is_some);
    if parent.table.is_whole_key(&to) {
        let place = |column: &u16| to.iter().position(|(other, _)| other == column);
        let key: Option<Vec<&Value>> = parent.table.key.iter().map(|column| values.get(place(column)?)).collect();
        let key = Key::new(key.unwrap_or_default());
        let (row, kept) = work.rows.load(&parent, &key, None)?;
        return Ok((kept && usable(&row)).then_some((parent, key, row)));
    }
    let same: Vec<String> = to.iter().map(|(_, collation)| format!("?=? COLLATE {}", quoted(collation))).collect();
    let mut same = work.transaction.prepare_cached(&format!("SELECT {}", same.join(" AND ")))?;
    let mut last: Option<(Key, Row)> = None;
    work.rows.each_gone(&parent, |key, row| {
        if usable(&row) && last.as_ref().is_none_or(|(_, last)| last.removed < row.removed) {
            let theirs = to.iter().map(|(column, _)| row.values[usize::from(*column)].as_ref());
            let pairs = theirs.zip(values).flat_map(|(theirs, value)| [theirs, Some(value)]);
            if same.query_row(params_from_iter(pairs), |row| row.get::<_, Option<bool>>(0))? == Some(true) {
                last = Some((key, row));
            }
        }
        Ok(())
    })?;
    Ok(last.map(|(key, row)| (parent, key, row)))
}

/// Brings a deleted row back as it was last. Says no if another row has one of its unique values by now: with its new
/// stamp the returned row would drive that one out, whose children would then call it back, and so on for ever.
fn revive(work: &mut Work<'_>, live: &Rc<Live>, key: &Key, row: &mut Row, now: i64) -> Result<bool, Error> {
    if !free(live.insert(work.transaction, row.values.iter().flatten()))? {
        if !live.rules.fire_triggers || rival(work, live, row)?.is_some() {
            return Ok(false);
        }
        // As in `place`.
        live.insert(work.transaction, row.values.iter().flatten())?;
    }
    let stamp = work.state.clock.tick(now);
    let cells = (0..).zip(&row.values).filter(|(column, _)| !live.table.in_key(*column));
    let cells = cells.filter_map(|(column, value)| Some(Cell { column, stamp, value: value.clone()? })).collect();
    let change = Change { alive: Some(stamp), whole: true, cells, ..Change::default() };
    work.record(live, key, row, change)?;
    Ok(true)
}
