//! `[database]` and its tables.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use serde_spanned::Spanned;
use toml::de::DeValue;

use super::{
    ColumnRule, Conflicts, Database, Granularity, TableName, TableRules, Tables, Unique,
    section::Section,
    settings::{Context, distinct},
    values::{column, describe, duration, flag, shown, size, table, word},
};

const MB: u64 = 1_000_000;

/// `[database]` as it stands in the file.
pub(super) struct DatabaseDraft {
    /// `None`: wrong, and reported.
    file: Option<PathBuf>,
    /// `None`: wrong, and reported.
    pub(super) tables: Option<Tables>,
    rules: BTreeMap<TableName, TableRules>,
    max_backlog: u64,
    max_skew: Duration,
}

impl DatabaseDraft {
    /// `None`: something is wrong and has been reported.
    pub(super) fn finish(self) -> Option<Database> {
        let Self { file, tables, rules, max_backlog, max_skew } = self;
        Some(Database { file: file?, tables: tables?, rules, max_backlog, max_skew })
    }
}

/// `[database]`
pub(super) fn database(section: &mut Section<'_>, context: &Context) -> DatabaseDraft {
    let hint = "write file = \"FILE.db\", the SQLite database that the application at this site writes";
    let file = section.need("file", hint, context.path()).map(Spanned::into_inner);
    let tables = tables(section);
    let max_backlog = section.or("max_backlog", 10_000 * MB, size(MB..=1_000_000_000 * MB));
    let hour = Duration::from_secs(3600);
    let max_skew = section.or("max_skew", Duration::from_secs(10), duration(Duration::from_millis(100)..=hour));
    let rules = rules(&section.section("table"), tables.as_ref());
    section.finish();
    DatabaseDraft { file, tables, rules, max_backlog, max_skew }
}

/// `database.tables`. `None`: wrong, and reported.
fn tables(section: &mut Section<'_>) -> Option<Tables> {
    let right = "write tables = \"all\", or tables = [\"TABLE\"] with those that are kept the same";
    if section.is_list("tables") {
        let listed = section.need_list("tables", right, table);
        distinct(section, "tables", &listed);
        let listed: BTreeSet<_> = listed.into_iter().map(Spanned::into_inner).collect();
        return (!listed.is_empty()).then_some(Tables::Listed(listed));
    }
    let all = section.get("tables", |value| match value {
        DeValue::String(word) if word == "all" => Ok(()),
        DeValue::Table(_) => {
            Err("found a table; the rules of a table are in a section [database.table.NAME]".to_owned())
        }
        other => Err(format!("found {}; {right}", describe(other))),
    });
    (all.is_some() || !section.has("tables")).then_some(Tables::All)
}

/// `[database.table]`: the rules of tables that have some of their own.
fn rules(section: &Section<'_>, tables: Option<&Tables>) -> BTreeMap<TableName, TableRules> {
    let mut all = BTreeMap::new();
    for (name, mut table) in section.named() {
        let rules = table_rules(&mut table);
        let key = name.get_ref();
        let wrong = match TableName::new(key) {
            Err(wrong) => format!("{} {wrong}", shown(key)),
            Ok(name) if tables.is_some_and(|tables| !tables.contain(&name)) => {
                "not among database.tables; list it there too".to_owned()
            }
            Ok(name) => match all.insert(name, rules) {
                Some(_) => "given twice, in letters of another case; keep one of them".to_owned(),
                None => continue,
            },
        };
        section.report(&name.span(), key, wrong);
    }
    all
}

/// `[database.table.NAME]`
fn table_rules(section: &mut Section<'_>) -> TableRules {
    let granularities = [("column", Granularity::Column), ("row", Granularity::Row)];
    let conflicts = [("latest", Conflicts::Latest), ("delete", Conflicts::Delete), ("update", Conflicts::Update)];
    let unique = [("null", Unique::Null), ("suffix", Unique::Suffix), ("delete", Unique::Delete)];
    let default = TableRules::default();
    let rules = TableRules {
        granularity: section.or("granularity", default.granularity, word(&granularities)),
        conflicts: section.or("conflicts", default.conflicts, word(&conflicts)),
        unique: section.or("unique", default.unique, word(&unique)),
        columns: column_rules(section),
        fire_triggers: section.or("fire_triggers", default.fire_triggers, flag),
    };
    section.finish();
    rules
}

/// The columns of a table that have a rule of their own. Each has one.
fn column_rules(section: &mut Section<'_>) -> BTreeMap<String, ColumnRule> {
    let mut all: BTreeMap<String, (&str, ColumnRule)> = BTreeMap::new();
    for (key, rule) in [("counters", ColumnRule::Counter), ("min", ColumnRule::Min), ("max", ColumnRule::Max)] {
        for name in section.list(key, column) {
            if let Some((other, _)) = all.insert(name.get_ref().to_ascii_lowercase(), (key, rule)) {
                let name_shown = shown(name.get_ref());
                let message = if other == key {
                    format!("{name_shown} is given twice; keep one of them")
                } else {
                    format!("{name_shown} is among {other} already; a column has one rule")
                };
                section.report(&name.span(), key, message);
            }
        }
    }
    all.into_iter().map(|(name, (_, rule))| (name, rule)).collect()
}
