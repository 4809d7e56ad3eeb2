//! What the databases should hold, from the writers' logs alone. It shares nothing with the code that replicates but the
//! rule: of the changes to one column the newest stays, and a row is there if it was inserted or changed after it was
//! last deleted.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use rusqlite::types::Value;

use super::{
    Contents, Log,
    log::{ACCOUNTS, ARTICLES, ITEMS, TABLES, Table, What, shown},
    writer::SEASONAL,
};

/// Whether times of different writers can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clocks {
    /// They show the same time. Changes of two writers within the same millisecond may have been made in either order.
    Same,
    /// They are wrong, each in its own way: of the last changes of several writers any may count as the newest.
    Apart,
}

/// What should be there.
#[derive(Debug)]
pub struct Expected<'a> {
    clocks: Clocks,
    rows: BTreeMap<&'static str, BTreeMap<String, History<'a>>>,
    /// Addresses that more than one account had at some time.
    contested: BTreeSet<&'a str>,
}

/// What was done to a row, in each writer's order.
type History<'a> = Vec<Event<'a>>;

#[derive(Clone, Copy, Debug)]
struct Event<'a> {
    /// Which log; `None`: it was there before.
    writer: Option<usize>,
    from: i64,
    until: i64,
    change: Change<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Change<'a> {
    Row(&'a [Value]),
    Column(usize, &'a Value),
    Gone,
}

impl<'a> Expected<'a> {
    /// After these logs, on top of what was there before.
    pub fn new(before: &'a Contents, logs: &'a [Log], clocks: Clocks) -> Self {
        let mut rows: BTreeMap<&'static str, BTreeMap<String, History<'a>>> = BTreeMap::new();
        for (table, found) in &before.0 {
            for (key, row) in found {
                let event = Event { writer: None, from: 0, until: 0, change: Change::Row(row) };
                rows.entry(table).or_default().insert(key.clone(), vec![event]);
            }
        }
        for (writer, log) in logs.iter().enumerate() {
            for effect in &log.effects {
                let change = match &effect.what {
                    What::Insert(row) => Change::Row(row),
                    What::Set(column, value) => Change::Column(*column, value),
                    What::Delete => Change::Gone,
                };
                let event = Event { writer: Some(writer), from: effect.from, until: effect.until, change };
                let table = rows.entry(effect.table.name).or_default();
                table.entry(shown(&effect.key)).or_default().push(event);
            }
        }
        let contested = contested(rows.get(ACCOUNTS.name));
        Self { clocks, rows, contested }
    }

    /// Holds a database to it.
    ///
    /// # Errors
    /// It holds something else; the error names the first such rows.
    pub fn check(&self, contents: &Contents) -> Result<()> {
        let nothing = BTreeMap::new();
        let no_history = BTreeMap::new();
        let mut wrong = Vec::new();
        for table in TABLES {
            let found = contents.0.get(table.name).unwrap_or(&nothing);
            let histories = self.rows.get(table.name).unwrap_or(&no_history);
            let invented = found.iter().filter(|(key, _)| !histories.contains_key(*key));
            wrong.extend(invented.map(|(key, row)| format!("{} {key}: nobody wrote {row:?}", table.name)));
            for (key, history) in histories {
                let row = found.get(key);
                let problem = self.problem(table, key, history, row);
                wrong.extend(problem.map(|problem| format!("{} {key}: {problem}\n    {row:?}", table.name)));
            }
        }
        wrong.extend(orphans(contents));
        let count = wrong.len();
        wrong.truncate(10);
        ensure!(wrong.is_empty(), "{count} rows are not as they should be, first\n  {}", wrong.join("\n  "));
        Ok(())
    }

    /// What is wrong with a row.
    fn problem(&self, table: &Table, key: &str, history: &History<'a>, row: Option<&Vec<Value>>) -> Option<String> {
        let lives = |event: &Event| Some(!matches!(event.change, Change::Gone));
        let there: Vec<bool> = self.newest(history, lives);
        let seasonal = table == &ARTICLES && key.contains(SEASONAL);
        let Some(row) = row else {
            return (!there.contains(&false)).then(|| "lost".to_owned());
        };
        // An article comes back when the other site has ordered it.
        if !there.contains(&true) && !seasonal {
            return Some("deleted, but there".to_owned());
        }
        (table.key..table.columns.len()).find_map(|column| {
            let of = |event: &Event<'a>| match event.change {
                Change::Row(row) => row.get(column),
                Change::Column(of, value) if of == column => Some(value),
                _ => None,
            };
            let possible: Vec<&Value> =
                if seasonal { history.iter().filter_map(of).collect() } else { self.newest(history, of) };
            let good = possible.contains(&&row[column])
                || table == &ACCOUNTS && column == EMAIL && row[column] == Value::Null && self.was_contested(history);
            (!good).then(|| format!("{} should be {possible:?}", table.columns[column]))
        })
    }

    /// What the newest events say: one thing, unless it cannot be known which was the newest.
    fn newest<'b, T>(&self, history: &[Event<'b>], of: impl Fn(&Event<'b>) -> Option<T>) -> Vec<T> {
        // Later ones of the same writer take the place of earlier ones.
        let mut last: BTreeMap<Option<usize>, (&Event<'b>, T)> = BTreeMap::new();
        for event in history {
            if let Some(said) = of(event) {
                last.insert(event.writer, (event, said));
            }
        }
        if last.len() > 1 {
            last.remove(&None);
        }
        let latest_start = last.values().map(|(event, _)| event.from).max();
        let may_be = |event: &Event| self.clocks == Clocks::Apart || Some(event.until) >= latest_start;
        last.into_values().filter(|(event, _)| may_be(event)).map(|(_, said)| said).collect()
    }

    /// Of two accounts with the same address one has lost it.
    fn was_contested(&self, history: &History) -> bool {
        emails(history).any(|email| self.contested.contains(email))
    }
}

/// The column of [`ACCOUNTS`] that is UNIQUE.
const EMAIL: usize = 2;

fn emails<'a>(history: &[Event<'a>]) -> impl Iterator<Item = &'a str> {
    let email = |event: &Event<'a>| match event.change {
        Change::Row(row) => Some(&row[EMAIL]),
        Change::Column(EMAIL, value) => Some(value),
        _ => None,
    };
    history.iter().filter_map(email).filter_map(|value| match value {
        Value::Text(email) => Some(email.as_str()),
        _ => None,
    })
}

fn contested<'a>(accounts: Option<&BTreeMap<String, History<'a>>>) -> BTreeSet<&'a str> {
    let (mut once, mut again) = (BTreeSet::new(), BTreeSet::new());
    for history in accounts.into_iter().flat_map(BTreeMap::values) {
        let own: BTreeSet<&str> = emails(history).collect();
        again.extend(own.into_iter().filter(|email| !once.insert(*email)));
    }
    again
}

/// Items of articles that are not there.
fn orphans(contents: &Contents) -> Vec<String> {
    let (Some(articles), Some(items)) = (contents.0.get(ARTICLES.name), contents.0.get(ITEMS.name)) else {
        return Vec::new();
    };
    let exists = |row: &[Value]| articles.contains_key(&shown(&row[2..3]));
    items.iter().filter(|(_, row)| !exists(row)).map(|(key, row)| format!("no article for {key} {row:?}")).collect()
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::{
        files,
        mixed::{
            Application, contents,
            log::{CARDS, Effect},
        },
    };

    fn effect(from: i64, until: i64, what: What) -> Effect {
        Effect { table: &CARDS, key: vec![1.into(), 2.into()], what, from, until }
    }

    fn log(effects: Vec<Effect>) -> Log {
        Log { transactions: effects.len(), effects }
    }

    fn card(value: i64) -> Vec<Value> {
        vec![1.into(), 2.into(), value.into(), value.into(), Value::Null]
    }

    fn holding(row: Option<Vec<Value>>) -> Contents {
        let rows = row.into_iter().map(|row| (shown(&row[..2]), row)).collect();
        Contents(BTreeMap::from([(CARDS.name, rows)]))
    }

    #[test]
    fn of_two_changes_the_newer_is_expected_and_of_two_at_once_either() {
        let inserted = effect(10, 11, What::Insert(card(1)));
        let set = |from, until| effect(from, until, What::Set(2, 7.into()));
        let with = |worth: i64| holding(Some([&card(1)[..2], &[worth.into(), 1.into(), Value::Null]].concat()));
        let before = Contents::default();
        let fits =
            |logs: &[Log], clocks, contents: &Contents| Expected::new(&before, logs, clocks).check(contents).is_ok();

        let later = [log(vec![inserted.clone()]), log(vec![set(12, 12)])];
        assert!(fits(&later, Clocks::Same, &with(7)) && !fits(&later, Clocks::Same, &with(1)));
        assert!(fits(&later, Clocks::Apart, &with(1)) && !fits(&later, Clocks::Apart, &with(2)));
        assert!(!fits(&later, Clocks::Same, &holding(None)), "lost");
        let at_once = [log(vec![inserted.clone()]), log(vec![set(11, 12)])];
        assert!(fits(&at_once, Clocks::Same, &with(7)) && fits(&at_once, Clocks::Same, &with(1)));
        let deleted = [log(vec![inserted.clone(), effect(11, 11, What::Delete)])];
        assert!(fits(&deleted, Clocks::Same, &holding(None)) && !fits(&deleted, Clocks::Same, &with(1)));
        assert!(!fits(&[], Clocks::Same, &with(1)), "nobody wrote it");
    }

    #[test]
    fn a_site_alone_holds_what_its_application_wrote() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("shop.db");
        files::create_database(&file, "")?;
        let before = contents(&file)?;
        let application = Application { site: "east", file: file.clone(), seed: 1, rate: 0, clock_error: 0 };
        let logs = [application.write_some(800)?];
        let expected = Expected::new(&before, &logs, Clocks::Same);
        let mut after = contents(&file)?;
        expected.check(&after)?;
        for table in TABLES {
            assert!(after.0[table.name].len() > 2, "few rows in {}", table.name);
        }

        // And nothing else.
        let orders = after.0.get_mut("orders").expect("orders");
        let (key, row) = orders.pop_last().expect("an order");
        assert!(expected.check(&after).is_err(), "one is missing");
        after.0.get_mut("orders").expect("orders").insert(key, row);
        Connection::open(&file)?.execute("UPDATE order_items SET quantity = quantity + 1 WHERE line = 0", [])?;
        assert!(expected.check(&contents(&file)?).is_err(), "others are different");
        Ok(())
    }
}
