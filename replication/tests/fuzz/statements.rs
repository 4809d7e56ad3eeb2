//! Random statements over few values, so that they collide.

use super::{
    random::Random,
    schema::{Schema, Table},
};

const VALUES: [&str; 30] = [
    "NULL",
    "NULL",
    "0",
    "1",
    "1",
    "2",
    "3",
    "-1",
    "-1",
    "1.0",
    "2.5",
    "0.0",
    "-0.0",
    "'a'",
    "'a'",
    "'A'",
    "'a '",
    "'b'",
    "'B'",
    "''",
    "'1'",
    "x'61'",
    "x''",
    "CAST(x'610062' AS TEXT)",
    "4611686018427387904",
    "-9e18",
    "9007199254740993",
    "0.1",
    "1e300",
    "5",
];
const OR: [&str; 8] = ["", "", "OR REPLACE", "OR REPLACE", "OR REPLACE", "OR IGNORE", "OR FAIL", "OR ROLLBACK"];

/// Rows that one statement copies, so that tables stay small.
const LIMIT: usize = 4;

/// A round's statements use so few values, so that they collide.
const POOL: usize = 9;

/// Statements between two looks at the database. No transaction is left open.
pub fn round(random: &mut Random, schema: &Schema) -> Vec<String> {
    let pool = (0..POOL).map(|_| random.pick(&VALUES)).collect();
    let mut maker = Maker { random, pool };
    let mut statements = vec![
        format!("PRAGMA foreign_keys = {}", maker.random.below(2)),
        format!("PRAGMA recursive_triggers = {}", maker.random.below(2)),
    ];
    for _ in 0..1 + maker.random.below(4) {
        if maker.random.chance(30) {
            maker.transaction(schema, &mut statements);
        } else {
            statements.push(maker.statement(schema));
        }
    }
    statements
}

struct Maker<'a> {
    random: &'a mut Random,
    pool: Vec<&'static str>,
}

impl Maker<'_> {
    fn transaction(&mut self, schema: &Schema, statements: &mut Vec<String>) {
        statements.push("BEGIN".into());
        for _ in 0..1 + self.random.below(3) {
            if self.random.chance(40) {
                statements.extend(["SAVEPOINT s".into(), self.statement(schema)]);
                statements.push(self.random.pick(&["RELEASE s", "ROLLBACK TO s; RELEASE s"]).into());
            } else {
                statements.push(self.statement(schema));
            }
        }
        // A COMMIT may fail for a deferred foreign key, or because a statement has rolled back.
        statements.extend([self.random.pick(&["COMMIT", "COMMIT", "ROLLBACK"]).into(), "ROLLBACK".into()]);
    }

    fn statement(&mut self, schema: &Schema) -> String {
        let table = &schema.tables[self.random.below(schema.tables.len())];
        match self.random.below(12) {
            0..=4 => self.insert(table),
            5 => self.upsert(table),
            6 => self.copy(table),
            7..=9 => self.update(table),
            _ => self.delete(table),
        }
    }

    fn insert(&mut self, table: &Table) -> String {
        let mut columns = self.columns(table);
        if table.hidden && self.random.chance(30) {
            columns.push(self.random.pick(&["OID", "_rowid_"]).to_owned());
        }
        let rows = self.rows(columns.len());
        format!("INSERT {} INTO {}({}) VALUES {rows}", self.random.pick(&OR), table.name, columns.join(", "))
    }

    fn upsert(&mut self, table: &Table) -> String {
        let columns = self.columns(table);
        let rows = self.rows(columns.len());
        let set = &columns[self.random.below(columns.len())];
        let what = match self.random.below(4) {
            0 => "DO NOTHING".to_owned(),
            1 => format!("DO UPDATE SET {set} = excluded.{set}"),
            2 => format!("DO UPDATE SET {}", self.assignments(table)),
            _ => format!("({}) DO UPDATE SET {set} = excluded.{set}", table.columns[..table.key].join(", ")),
        };
        format!("INSERT INTO {}({}) VALUES {rows} ON CONFLICT {what}", table.name, columns.join(", "))
    }

    /// Rows made of others.
    fn copy(&mut self, table: &Table) -> String {
        let columns = self.columns(table);
        let values =
            columns.iter().map(|column| if self.random.chance(30) { self.value().to_owned() } else { column.clone() });
        let values = values.collect::<Vec<_>>().join(", ");
        let (or, condition) = (self.random.pick(&OR), self.condition(table));
        let (name, columns) = (&table.name, columns.join(", "));
        format!("INSERT {or} INTO {name}({columns}) SELECT {values} FROM {name}{condition} LIMIT {LIMIT}")
    }

    fn update(&mut self, table: &Table) -> String {
        let (or, set) = (self.random.pick(&OR), self.assignments(table));
        format!("UPDATE {or} {} SET {set}{}", table.name, self.condition(table))
    }

    fn delete(&mut self, table: &Table) -> String {
        format!("DELETE FROM {}{}", table.name, self.condition(table))
    }

    fn assignments(&mut self, table: &Table) -> String {
        let mut chosen = self.random.some(&table.columns);
        chosen.truncate(1 + self.random.below(3));
        let one = |column: &String| {
            let (one, two) = (self.value(), self.value());
            let column = if table.rowid && *column == table.columns[0] && self.random.chance(30) {
                self.random.pick(&["rowid", "OID", "_rowid_"])
            } else if table.hidden && self.random.chance(10) {
                self.random.pick(&["OID", "_rowid_"])
            } else {
                column
            };
            match self.random.below(7) {
                0..=2 => format!("{column} = {one}"),
                3 => format!("{column} = {}", table.columns[self.random.below(table.columns.len())]),
                4 => format!("{column} = CASE {column} WHEN {one} THEN {two} WHEN {two} THEN {one} ELSE {column} END"),
                5 => format!("{column} = {}({column})", self.random.pick(&["upper", "lower", "trim", "abs"])),
                _ => format!("{column} = {column} {}", self.random.pick(&["+ 1", "- 1", "|| ''", "* 1.0"])),
            }
        };
        chosen.into_iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn condition(&mut self, table: &Table) -> String {
        let column = &table.columns[self.random.below(table.columns.len())];
        match self.random.below(5) {
            0 => String::new(),
            1 | 2 => format!(" WHERE {column} = {}", self.value()),
            3 => format!(" WHERE {column} IS {}", self.value()),
            _ => format!(" WHERE {column} < {}", self.value()),
        }
    }

    /// Columns to insert into: the key's mostly among them.
    fn columns(&mut self, table: &Table) -> Vec<String> {
        if self.random.chance(70) {
            let (key, rest) = table.columns.split_at(table.key);
            key.iter().chain(self.random.some(rest)).cloned().collect()
        } else {
            self.random.some(&table.columns).into_iter().cloned().collect()
        }
    }

    fn rows(&mut self, width: usize) -> String {
        let row = |maker: &mut Self| {
            let values: Vec<_> = (0..width).map(|_| maker.value()).collect();
            format!("({})", values.join(", "))
        };
        let rows: Vec<_> = (0..1 + self.random.below(3)).map(|_| row(self)).collect();
        rows.join(", ")
    }

    fn value(&mut self) -> &'static str {
        self.random.pick(&self.pool)
    }
}
