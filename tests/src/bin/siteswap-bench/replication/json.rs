//! What people write themselves, on the same work: a trigger logs whole rows as JSON, and a program ships the log.

use std::path::Path;

use anyhow::{Context, Error, Result};
use rusqlite::{Connection, params};
use serde_json::Value;
use siteswap_replication::wire::{pack, unpack};

use super::{
    capture::{INSERT, LOG, SCHEMA},
    steps::{ROWS, Start, Step, Steps, UPDATES, Wire, open},
};

/// Rows in a batch.
const BATCH: u32 = 20_000;

/// Two databases, and how far the second has been told.
struct Pair {
    here: Connection,
    there: Connection,
    told: i64,
    steps: Steps,
}

/// The same inserts, updates and deletes as siteswap's steps have.
pub fn measure() -> Result<(Vec<Step>, Vec<Wire>)> {
    let directory = tempfile::tempdir()?;
    let mut pair = Pair {
        here: database(&directory.path().join("here.db"), LOG)?,
        there: database(&directory.path().join("there.db"), "")?,
        told: 0,
        steps: Steps::default(),
    };
    pair.here.execute(INSERT, [1, ROWS])?;
    pair.tell("insert", ROWS)?;
    for _ in 0..UPDATES {
        pair.here.execute("UPDATE item SET stock = stock + 1", [])?;
    }
    pair.tell("5 updates of each row", UPDATES * ROWS)?;
    pair.here.execute("UPDATE item SET stock = stock + 1", [])?;
    pair.tell("update of one column", ROWS)?;
    pair.here.execute("DELETE FROM item WHERE id > 0", [])?;
    pair.tell("delete", ROWS)?;
    Ok((pair.steps.all, pair.steps.wire))
}

fn database(file: &Path, more: &str) -> Result<Connection> {
    let database = open(file)?;
    database.execute_batch("PRAGMA synchronous=FULL; CREATE TABLE told(seq INTEGER); INSERT INTO told VALUES(0);")?;
    database.execute_batch(SCHEMA)?;
    database.execute_batch(more)?;
    Ok(database)
}

impl Pair {
    /// Ships the log, and deletes what was shipped.
    fn tell(&mut self, what: &'static str, entries: u32) -> Result<()> {
        let mut messages = Vec::new();
        let read = Start::now();
        while let Some(lines) = self.lines()? {
            messages.push(pack(&lines).map_err(Error::msg)?);
        }
        self.steps.end(format!("read and compress: {what}"), entries.into(), read);
        let bytes: usize = messages.iter().map(Vec::len).sum();
        self.steps.wire.push(Wire { what, bytes_per_row: bytes as f64 / f64::from(ROWS) });
        let apply = Start::now();
        for message in messages {
            self.apply(&unpack::<String>(&message).map_err(Error::msg)?)?;
        }
        self.steps.end(format!("apply: {what}"), entries.into(), apply);
        let acknowledge = Start::now();
        // The last one stays, so that SQLite goes on counting from it.
        self.here.execute("DELETE FROM log WHERE seq < ?", [self.told])?;
        self.steps.end(format!("acknowledge: {what}"), entries.into(), acknowledge);
        Ok(())
    }

    /// The log's next entries, one on each line.
    fn lines(&mut self) -> Result<Option<String>> {
        let mut statement =
            self.here.prepare_cached("SELECT seq, op, row FROM log WHERE seq > ? ORDER BY seq LIMIT ?")?;
        let mut entries = statement.query(params![self.told, BATCH])?;
        let mut lines = String::new();
        while let Some(entry) = entries.next()? {
            self.told = entry.get(0)?;
            let (op, row) = (entry.get_ref(1)?.as_str()?, entry.get_ref(2)?.as_str()?);
            lines += &format!("[{},\"{op}\",{row}]\n", self.told);
        }
        Ok((!lines.is_empty()).then_some(lines))
    }

    fn apply(&mut self, lines: &str) -> Result<()> {
        let transaction = self.there.transaction()?;
        let mut told = 0;
        {
            let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO item VALUES(?,?,?,?,?,?,?,?,?)")?;
            let mut delete = transaction.prepare_cached("DELETE FROM item WHERE id = ?")?;
            for line in lines.lines() {
                let (seq, op, row): (i64, char, Vec<Value>) = serde_json::from_str(line)?;
                told = seq;
                let [id, name, price, stock, sold, note, made, tag, state, ..] = &row[..] else {
                    anyhow::bail!("a row of {} columns", row.len());
                };
                match op {
                    'D' => delete.execute([id.as_i64()])?,
                    _ => put.execute(params![
                        id.as_i64(),
                        name.as_str(),
                        price.as_f64(),
                        stock.as_i64(),
                        sold.as_i64(),
                        note.as_str(),
                        made.as_str(),
                        unhex(tag.as_str().unwrap_or_default())?,
                        state.as_i64()
                    ])?,
                };
            }
        }
        transaction.execute("UPDATE told SET seq = ?", [told])?;
        Ok(transaction.commit()?)
    }
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes()
        .chunks(2)
        .map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?))
        .collect::<Option<_>>()
        .context("not hexadecimal")
}
