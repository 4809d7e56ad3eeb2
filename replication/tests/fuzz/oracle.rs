//! What a fold can conclude from touches, checked against all that is there.

use std::collections::BTreeMap;

use rusqlite::Connection;
use siteswap_replication::{
    Key, Value,
    schema::{MASK_BITS, Table, quoted},
};

type Rows = BTreeMap<Key, Vec<Value>>;

pub struct Oracle {
    tables: Vec<Table>,
    /// What each table held at the last check, rows without a whole key left out.
    before: Vec<Rows>,
}

/// The touches of one row, oldest first.
#[derive(Debug, Default)]
struct Touches {
    whole: bool,
    mask: i64,
    /// Operations that should have left an image, and the images.
    gone: usize,
    images: Vec<Vec<Value>>,
}

impl Oracle {
    pub fn new(database: &Connection, tables: Vec<Table>) -> Self {
        let before = tables.iter().map(|table| rows(database, table)).collect();
        Self { tables, before }
    }

    /// Do the touches since the last check explain what is different? Then they are forgotten.
    pub fn check(&mut self, captured: &Connection) -> Result<(), String> {
        for (table, before) in self.tables.iter().zip(&mut self.before) {
            let after = rows(captured, table);
            let touches = touches(captured, table);
            check_images(table, before, &after, &touches)?;
            let folded = fold(table, before, &after, &touches);
            if folded != after {
                let differ = |key: &&Key| folded.get(*key) != after.get(*key);
                let key = folded.keys().chain(after.keys()).find(differ).expect("they differ");
                let (was, found, is) = (before.get(key), folded.get(key), after.get(key));
                return Err(format!(
                    "{}: missed a change of row {:?}\nwas {was:?}\nis {is:?}\ntouches tell {found:?}: {:?}",
                    table.name,
                    key.columns(),
                    touches.get(key)
                ));
            }
            *before = after;
            let images = format!("DELETE FROM _ssw_old_{}", table.number);
            captured.execute_batch(&images).expect("images can be deleted");
        }
        // As the agent does: the newest touch stays, so that the next one's number is higher.
        let forget =
            "DELETE FROM _ssw_touch WHERE seq < (SELECT max(seq) FROM _ssw_touch); UPDATE _ssw_touch SET tbl = 0";
        captured.execute_batch(forget).expect("touches can be deleted");
        Ok(())
    }

    /// Is another database, which has no triggers, as this one was at the last check?
    pub fn compare(&self, plain: &Connection) -> Result<(), String> {
        let differs = |(table, before): &(&Table, &Rows)| rows(plain, table) != **before;
        match self.tables.iter().zip(&self.before).find(differs) {
            Some((table, _)) => Err(format!("{} is not what it would be without triggers", table.name)),
            None => Ok(()),
        }
    }
}

/// What is known of the rows afterwards, if only touched rows are looked at, and only those of their columns that are
/// said to have changed.
fn fold(table: &Table, before: &Rows, after: &Rows, touches: &BTreeMap<Key, Touches>) -> Rows {
    let mut folded = before.clone();
    for (key, touches) in touches {
        match (after.get(key), folded.get_mut(key)) {
            (None, _) => {
                folded.remove(key);
            }
            (Some(now), _) if touches.whole => {
                folded.insert(key.clone(), now.clone());
            }
            (Some(now), Some(then)) => {
                for column in (0..table.columns.len()).filter(|column| touches.mask & bit(*column) != 0) {
                    then[column] = now[column].clone();
                }
            }
            (Some(_), None) => {}
        }
    }
    folded
}

fn bit(column: usize) -> i64 {
    1 << column.min(MASK_BITS)
}

/// A row that is gone has an image, with nothing in it that nothing explains.
fn check_images(table: &Table, before: &Rows, after: &Rows, all: &BTreeMap<Key, Touches>) -> Result<(), String> {
    for (key, touches) in all {
        let told = |what| Err(format!("{}, row {:?}: {what}: {touches:?}", table.name, key.columns()));
        if touches.gone != touches.images.len() {
            return told("an image is missing");
        }
        let Some(then) = before.get(key) else { continue };
        if !after.contains_key(key) && touches.images.is_empty() {
            return told("it is gone without an image");
        }
        let explained = |column: usize| touches.whole || touches.mask & bit(column) != 0;
        let strange =
            |image: &Vec<Value>| (0..image.len()).any(|column| image[column] != then[column] && !explained(column));
        if touches.images.iter().any(strange) {
            return told("an image is not what the row was");
        }
    }
    Ok(())
}

fn rows(database: &Connection, table: &Table) -> Rows {
    let columns: Vec<_> = table.columns.iter().map(|column| quoted(&column.name)).collect();
    let rows = query(database, &format!("SELECT {} FROM {}", columns.join(", "), quoted(&table.name)));
    let keyed = rows.into_iter().map(|row| (key(table, &row), row));
    keyed.filter_map(|(key, row)| Some((key?, row))).collect()
}

fn key(table: &Table, row: &[Value]) -> Option<Key> {
    let columns = table.key.iter().map(|column| &row[usize::from(*column)]);
    columns.clone().all(|value| !value.is_null()).then(|| Key::new(columns))
}

fn touches(database: &Connection, table: &Table) -> BTreeMap<Key, Touches> {
    let images = query(database, &format!("SELECT * FROM _ssw_old_{}", table.number));
    let parts: Vec<_> = (0..table.key.len()).map(|part| format!("k{part}")).collect();
    let sql = format!("SELECT seq, what, {} FROM _ssw_touch WHERE tbl = {}", parts.join(", "), table.number);
    let mut found: BTreeMap<Key, Touches> = BTreeMap::new();
    for touch in query(database, &format!("{sql} ORDER BY seq")) {
        let touches = found.entry(Key::new(&touch[2..])).or_default();
        match &touch[1] {
            Value::Integer(-1) => touches.whole = true,
            Value::Integer(-2 | -3) => touches.gone += 1,
            Value::Integer(mask @ 0..) => touches.mask |= mask,
            other => panic!("no touch: {other:?}"),
        }
        touches.images.extend(images.iter().filter(|image| image[0] == touch[0]).map(|image| image[1..].to_vec()));
    }
    found
}

fn query(database: &Connection, sql: &str) -> Vec<Vec<Value>> {
    let mut statement = database.prepare(sql).expect("a query");
    let width = statement.column_count();
    let read = |row: &rusqlite::Row<'_>| (0..width).map(|column| Ok(row.get_ref(column)?.into())).collect();
    statement.query_map([], read).expect("rows").collect::<Result<_, _>>().expect("rows")
}
