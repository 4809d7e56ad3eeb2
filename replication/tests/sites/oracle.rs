//! What tables must show, put together from the changes that the sites recorded, by code that has nothing in common with
//! the merge: each of a row's registers has the greatest (stamp, site) that anybody ever gave it. On a counter counts what
//! was added later than that. Of a column with the smallest or greatest value those are compared, by SQLite, that nobody
//! replaced who knew them: by the groups that a site had applied, not by stamps.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use siteswap_replication::{
    Value,
    clock::SiteId,
    store::{ColumnRule, Rules},
};

use super::Sites;

/// When, and where.
type Stamped = (i64, SiteId);

#[derive(Default)]
struct Row {
    key: Vec<Value>,
    alive: Stamped,
    dead: Stamped,
    cells: BTreeMap<u16, (Stamped, Value)>,
    adds: Vec<(u16, Stamped, i64)>,
    /// Every value that a column was ever given, and in which group.
    given: BTreeMap<u16, Vec<(Stamped, u64, Value)>>,
}

/// The table's rows as [`Site::rows`](super::Site::rows) writes them. `key` says at which of its `columns` the key's are.
pub fn joined(sites: &Sites, table: &str, key: &[usize], columns: usize) -> BTreeSet<String> {
    let mut rows: BTreeMap<Vec<u8>, Row> = BTreeMap::new();
    for (site, _, row_key, change, group) in sites.recorded.iter().filter(|recorded| recorded.1 == table) {
        let row = rows.entry(row_key.0.clone()).or_default();
        row.key = row_key.columns().expect("a key");
        if let Some(alive) = change.alive {
            row.alive = row.alive.max((alive, *site));
        }
        if let Some(deleted) = change.deleted {
            row.dead = row.dead.max((deleted.ends.stamp, deleted.ends.site));
        }
        for cell in &change.cells {
            let new = ((cell.stamp, *site), cell.value.clone());
            row.given.entry(cell.column).or_default().push((new.0, *group, new.1.clone()));
            let old = row.cells.entry(cell.column).or_insert_with(|| new.clone());
            if new.0 > old.0 {
                *old = new;
            }
        }
        row.adds.extend(change.adds.iter().map(|add| (add.column, (add.since, *site), add.delta)));
    }
    let rules = rules(sites, table);
    let visible = rows.into_values().filter(|row| row.alive > row.dead);
    visible
        .map(|row| {
            let value = |column: usize| match key.iter().position(|at| *at == column) {
                Some(at) => row.key[at].clone(),
                None => row.value(u16::try_from(column).expect("few columns"), rules.get(&column).copied(), sites),
            };
            format!("{:?}", (0..columns).map(value).collect::<Vec<_>>())
        })
        .collect()
}

/// The rules of the table's columns by their places.
fn rules(sites: &Sites, table: &str) -> BTreeMap<usize, ColumnRule> {
    let site = &sites.all[0];
    let rules = site.settings.rules.get(table).cloned().unwrap_or_else(Rules::default);
    let sql = format!("SELECT * FROM \"{}\"", table.replace('"', "\"\""));
    let statement = site.app.prepare(&sql).expect("a table");
    let names = statement.column_names().enumerate();
    names.filter_map(|(at, name)| Some((at, *rules.columns.get(name)?))).collect()
}

impl Row {
    fn value(&self, column: u16, rule: Option<ColumnRule>, sites: &Sites) -> Value {
        let (given, value) = &self.cells[&column];
        match (rule, value) {
            (Some(ColumnRule::Counter), Value::Integer(number)) => {
                let later = self.adds.iter().filter(|(of, since, _)| *of == column && since > given);
                let sum: i128 = later.map(|(_, _, delta)| i128::from(*delta)).sum();
                Value::Integer(i64::try_from(i128::from(*number) + sum).expect("small numbers"))
            }
            (Some(ColumnRule::Min), _) => self.extreme(column, "min", sites),
            (Some(ColumnRule::Max), _) => self.extreme(column, "max", sites),
            _ => value.clone(),
        }
    }

    fn extreme(&self, column: u16, which: &str, sites: &Sites) -> Value {
        let all = &self.given[&column];
        let knew = |((stamp, site), group, _): &(Stamped, u64, Value), other: &(Stamped, u64, Value)| {
            let ((before, maker), its_group, _) = other;
            let known = sites.knew[&(*site, *group)].get(maker).is_some_and(|applied| applied >= its_group);
            known || site == maker && before < stamp
        };
        let left = all.iter().filter(|other| !all.iter().any(|one| knew(one, other)));
        let database = Connection::open_in_memory().expect("a database");
        database.execute_batch("CREATE TABLE left(v)").expect("a table");
        for (_, _, value) in left {
            database.execute("INSERT INTO left VALUES(?)", [value]).expect("a value");
        }
        let read = |row: &rusqlite::Row<'_>| Ok(Value::from(row.get_ref(0)?));
        database.query_row(&format!("SELECT {which}(v) FROM left"), [], read).expect("a value")
    }
}
