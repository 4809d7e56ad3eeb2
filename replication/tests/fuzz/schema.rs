//! Random schemas: odd names, keys of every kind, unique indexes, foreign keys, generated columns, triggers of their own.

use siteswap_replication::schema::quoted;

use super::random::Random;

pub struct Schema {
    pub sql: String,
    pub tables: Vec<Table>,
}

/// A table, as far as statements need to know. All names are quoted.
#[derive(Clone)]
pub struct Table {
    pub name: String,
    /// Columns that can be written.
    pub columns: Vec<String>,
    /// The key's columns are the first of them.
    pub key: usize,
    /// Its key is the rowid, which may also be set under that name.
    pub rowid: bool,
    /// It has a rowid that may be set, though it is none of the columns.
    pub hidden: bool,
}

const TABLES: [&str; 10] = ["t", "we\"ird t", "select", "new", "old", "x", "a.b", "ünï", "semi;colon'", "_ssw"];
const COLUMNS: [&str; 16] = [
    "a",
    "k 1",
    "order",
    "new",
    "old",
    "x",
    "seq",
    "tbl",
    "q\"q",
    "ü",
    "typeof",
    "rowid",
    "br[ack]et",
    "'",
    "A1",
    "NULL",
];
const TYPES: [&str; 12] = [
    "",
    "INT",
    "INTEGER",
    "TEXT",
    "BLOB",
    "REAL",
    "NUMERIC",
    "VARCHAR(10)",
    "TEXT COLLATE NOCASE",
    "TEXT COLLATE RTRIM",
    "COLLATE NOCASE",
    "ANY",
];
const DEFAULTS: [&str; 8] = ["5", "'a'", "1.0", "x'61'", "word", "-1", "\"dq\"", "(1 + 1)"];
const ON: [&str; 5] = ["", " CASCADE", " SET NULL", " SET DEFAULT", " RESTRICT"];

impl Schema {
    pub fn random(random: &mut Random) -> Self {
        let mut schema = Self { sql: String::new(), tables: Vec::new() };
        let first = random.below(TABLES.len());
        for number in 0..1 + random.below(3) {
            schema.add_table(random, TABLES[(first + number) % TABLES.len()]);
        }
        if random.chance(30) {
            schema.add_trigger(random);
        }
        schema
    }

    /// Does SQLite do the same whether a table has triggers or not? With foreign keys to the table itself it does not:
    /// `CREATE TABLE t(k INTEGER PRIMARY KEY, f REFERENCES t ON DELETE SET NULL)` takes `INSERT OR REPLACE INTO t
    /// VALUES(5, 77)` only if there are no triggers.
    pub fn is_predictable(&self) -> bool {
        !self.sql.contains("FOREIGN KEY")
    }

    fn add_table(&mut self, random: &mut Random, name: &str) {
        let rowid = random.chance(40);
        let without_rowid = !rowid && random.chance(50);
        let first = random.below(COLUMNS.len());
        let mut unused = (0..COLUMNS.len()).map(|at| quoted(COLUMNS[(first + at * 3) % COLUMNS.len()]));
        let key = if rowid { 1 } else { 1 + random.below(3) };
        let mut table = Table {
            name: quoted(name),
            columns: unused.by_ref().take(key).collect(),
            key,
            rowid,
            hidden: !rowid && !without_rowid,
        };
        let mut parts = Vec::new();
        for column in &table.columns {
            let kind = if rowid { "INTEGER PRIMARY KEY" } else { random.pick(&TYPES) };
            let not_null = if !rowid && random.chance(30) { " NOT NULL" } else { "" };
            parts.push(format!("{column} {kind}{not_null}"));
        }
        let wide = random.chance(8);
        let more: Vec<String> = if wide {
            (0..70).map(|at| quoted(&format!("w{at}"))).collect()
        } else {
            unused.take(1 + random.below(5)).collect()
        };
        for column in more {
            parts.push(format!("{column} {}{}", random.pick(&TYPES), constraints(random)));
            table.columns.push(column);
        }
        self.add_references(random, &mut table, &mut parts);
        add_generated(random, &table, &mut parts);
        // SQLite wants one clause for all constraints over the same columns.
        let clause = random.pick(&[" ON CONFLICT REPLACE", " ON CONFLICT IGNORE"]);
        if !rowid {
            parts.push(format!("PRIMARY KEY({}){}", table.columns[..key].join(", "), random.pick(&["", clause])));
        }
        for _ in 0..random.below(3) {
            parts.push(format!("UNIQUE({}){}", some_columns(random, &table), random.pick(&["", clause])));
        }
        let end = if without_rowid { " WITHOUT ROWID" } else { "" };
        self.sql += &format!("CREATE TABLE {}({}){end};\n", table.name, parts.join(", "));
        if random.chance(40) {
            let index = quoted(&format!("index of {name}"));
            self.sql += &format!("CREATE UNIQUE INDEX {index} ON {}({});\n", table.name, some_columns(random, &table));
        }
        self.tables.push(table);
    }

    /// Foreign keys to this table or earlier ones.
    fn add_references(&self, random: &mut Random, table: &mut Table, parts: &mut Vec<String>) {
        for number in 0..random.below(3) {
            let parent = if random.chance(40) || self.tables.is_empty() {
                table.clone()
            } else {
                self.tables[random.below(self.tables.len())].clone()
            };
            let columns: Vec<_> = (0..parent.key).map(|part| quoted(&format!("fk{number}{part}"))).collect();
            for column in &columns {
                parts.push(format!("{column} {}{}", random.pick(&TYPES), random.pick(&["", " DEFAULT 1"])));
            }
            let (delete, update) = (random.pick(&ON), random.pick(&ON));
            let clause = |on, action: &str| if action.is_empty() { String::new() } else { format!(" ON {on}{action}") };
            let later = if random.chance(30) { " DEFERRABLE INITIALLY DEFERRED" } else { "" };
            table.columns.extend(columns.iter().cloned());
            parts.push(format!(
                "FOREIGN KEY({}) REFERENCES {}{}{}{later}",
                columns.join(", "),
                parent.name,
                clause("DELETE", delete),
                clause("UPDATE", update)
            ));
        }
        // Columns come before all constraints.
        parts.sort_by_key(|part| part.starts_with("FOREIGN"));
    }

    fn add_trigger(&mut self, random: &mut Random) {
        let [on, to] = [(); 2].map(|()| self.tables[random.below(self.tables.len())].clone());
        let when = random.pick(&["BEFORE", "AFTER"]);
        let event = random.pick(&["INSERT", "UPDATE", "DELETE"]);
        let column = &to.columns[random.below(to.columns.len())];
        let target = &to.name;
        let work = match random.below(4) {
            0 => format!("UPDATE {target} SET {column} = 2 WHERE {column} IS 1"),
            1 => format!("DELETE FROM {target} WHERE {column} IS 'a'"),
            2 => format!("UPDATE OR REPLACE {target} SET {column} = 'b' WHERE {column} = 'a'"),
            _ => format!("INSERT OR REPLACE INTO {target}({column}) VALUES(1)"),
        };
        self.sql += &format!("CREATE TRIGGER own {when} {event} ON {} BEGIN {work}; END;\n", on.name);
    }
}

fn constraints(random: &mut Random) -> String {
    let default = if random.chance(40) { format!(" DEFAULT {}", random.pick(&DEFAULTS)) } else { String::new() };
    let not_null = match random.below(5) {
        0 => " NOT NULL",
        1 => " NOT NULL ON CONFLICT REPLACE",
        _ => "",
    };
    let unique = if random.chance(15) { " UNIQUE" } else { "" };
    format!("{default}{not_null}{unique}")
}

fn add_generated(random: &mut Random, table: &Table, parts: &mut Vec<String>) {
    if random.chance(30) {
        let from = &table.columns[random.below(table.columns.len())];
        let kind = random.pick(&["STORED", "VIRTUAL"]);
        let at = random.below(table.columns.len().min(4));
        parts.insert(at, format!("\"made {at}\" TEXT AS ({from} || '!') {kind}"));
    }
}

fn some_columns(random: &mut Random, table: &Table) -> String {
    let mut columns = random.some(&table.columns);
    columns.truncate(1 + random.below(2));
    let collated = columns.iter().map(|column| format!("{column}{}", random.pick(&["", "", "", " COLLATE NOCASE"])));
    collated.collect::<Vec<_>>().join(", ")
}
