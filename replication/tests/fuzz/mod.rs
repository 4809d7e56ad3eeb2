//! Random schemas and statements against the triggers: whatever differs between two snapshots of the tables must follow
//! from the touches in between and the rows that are there.

mod oracle;
mod random;
mod schema;
mod statements;

use rusqlite::{Connection, limits::Limit};
use siteswap_replication::capture::{self, Wanted};

use oracle::Oracle;
use random::Random;
use schema::Schema;

/// Rounds of statements for each schema.
const ROUNDS: usize = 12;

/// Runs one seed. `spoil` may damage the triggers after they are made. The error says what went wrong, with the schema
/// and the statements.
pub fn run(seed: u64, spoil: impl FnOnce(&Connection)) -> Result<(), String> {
    let mut random = Random::new(seed);
    let schema = Schema::random(&mut random);
    let mut captured = database(&schema);
    let plain = database(&schema);
    let transaction = captured.transaction().unwrap();
    let tables = capture::attach(&transaction, Wanted::All).map_err(|error| format!("{error}\n{}", schema.sql))?;
    transaction.commit().unwrap();
    spoil(&captured);
    // From here on, both should give the same last rowid.
    for database in [&captured, &plain] {
        database.execute_batch("CREATE TABLE first(a); INSERT INTO first VALUES(1); DROP TABLE first").unwrap();
    }
    let mut oracle = Oracle::new(&captured, tables);
    for _ in 0..ROUNDS {
        let statements = statements::round(&mut random, &schema);
        let told = |what: String| format!("{what}\n\nschema:\n{}\nround:\n{};", schema.sql, statements.join(";\n"));
        for statement in &statements {
            let [with, without] = [&captured, &plain].map(|database| execute(database, statement));
            // Our triggers add to the depth; where that ends, what is done by then stays in an OR FAIL.
            if [&with, &without].iter().any(|seen| seen.as_ref().is_err_and(|error| error.contains("too deep"))) {
                return Ok(());
            }
            if with.as_ref().is_err_and(|error| error.contains("_ssw_")) || schema.is_predictable() && with != without {
                let sees = format!("the application sees {with:?} with triggers, {without:?} without:\n{statement}");
                return Err(told(sees));
            }
        }
        oracle.check(&captured).map_err(told)?;
        if schema.is_predictable() {
            oracle.compare(&plain).map_err(told)?;
        }
    }
    Ok(())
}

fn database(schema: &Schema) -> Connection {
    let database = Connection::open_in_memory().unwrap();
    // Triggers that call each other and themselves would otherwise go 1000 deep.
    database.set_limit(Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 12).unwrap();
    database.execute_batch(&schema.sql).unwrap_or_else(|error| panic!("{error}\n{}", schema.sql));
    database
}

/// What an application sees of a statement: its error, or the rows changed and the last rowid.
fn execute(database: &Connection, statement: &str) -> Result<(u64, i64), String> {
    let writes = ["INSERT", "UPDATE", "DELETE"].iter().any(|verb| statement.starts_with(verb));
    database.execute_batch(statement).map_err(|error| error.to_string())?;
    Ok((if writes { database.changes() } else { 0 }, database.last_insert_rowid()))
}

/// The seeds to run: `CAPTURE_SEED` alone if it is set, or as many as `CAPTURE_SEEDS` says, or `ordinary`.
pub fn seeds(ordinary: u64) -> std::ops::Range<u64> {
    let variable = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    match variable("CAPTURE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("CAPTURE_SEEDS").unwrap_or(ordinary),
    }
}
