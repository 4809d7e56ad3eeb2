//! The mixed transactions of one application.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rusqlite::{Connection, OpenFlags, types::Value};

use super::{
    Application, Dice, Log,
    log::{ACCOUNTS, ARTICLES, CARDS, ITEMS, ORDERS},
    session::Session,
};
use crate::steady::Progress;

/// How long a transaction waits for others.
const BUSY: Duration = Duration::from_secs(20);

/// Articles that both sites change and nobody deletes.
const ARTICLES_KEPT: [&str; 3] = ["cups", "kettle", "teapot"];
/// Articles that come and go at both sites. Their keys begin so.
pub(super) const SEASONAL: &str = "season ";
const SEASONS: u32 = 4;
/// So many addresses for all accounts.
const EMAILS: u32 = 40;

const SERIES: [&str; 2] = ["birthday", "it's \"you\""];
const CARD_NUMBERS: [&[u8]; 4] = [b"", b"\0", b"\0\x01", b"\xff\xfe"];

/// Writes at its rate until told to stop.
pub(super) fn run(application: &Application, progress: &Progress) -> Result<Log> {
    let mut writer = Writer::open(application)?;
    let (start, period) = (Instant::now(), Duration::from_secs(1) / application.rate.max(1));
    let mut due = start;
    while progress.goes_on() {
        writer.transaction()?;
        progress.sent_one();
        due += period;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(writer.log)
}

/// Writes so many transactions.
pub(super) fn run_some(application: &Application, transactions: usize) -> Result<Log> {
    let mut writer = Writer::open(application)?;
    for _ in 0..transactions {
        writer.transaction()?;
    }
    Ok(writer.log)
}

struct Writer {
    session: Session,
    dice: Dice,
    site: &'static str,
    /// A part of every key and value, so that no two are the same.
    run: u64,
    number: u64,
    accounts: Vec<Value>,
    orders: Vec<Value>,
    log: Log,
}

impl Writer {
    fn open(application: &Application) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let file = &application.file;
        let database = Connection::open_with_flags(file, flags).with_context(|| file.display().to_string())?;
        database.busy_timeout(BUSY)?;
        database.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON")?;
        let mut dice = Dice::new(application.seed);
        Ok(Self {
            run: dice.any(),
            session: Session::new(database, application.clock_error)?,
            dice,
            site: application.site,
            number: 0,
            accounts: Vec::new(),
            orders: Vec::new(),
            log: Log::default(),
        })
    }

    /// One transaction of one to three steps; remembered once it is committed.
    fn transaction(&mut self) -> Result<()> {
        self.session.database.execute_batch("BEGIN IMMEDIATE")?;
        for _ in 0..=self.dice.below(3) {
            self.step()?;
        }
        self.session.database.execute_batch("COMMIT")?;
        self.log.effects.append(&mut self.session.effects);
        self.log.transactions += 1;
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        self.number += 1;
        match self.dice.below(20) {
            0..=4 => self.order(),
            5..=7 => self.change_order(),
            8 => self.cancel_order(),
            9 | 10 => self.open_account(),
            11 | 12 => self.change_account(),
            13 => self.close_account(),
            14 | 15 => self.change_article(),
            16 => self.season(),
            _ => self.card(),
        }
    }

    fn order(&mut self) -> Result<()> {
        let key = self.key();
        let account = if self.dice.chance(50) { self.some_account() } else { Value::Null };
        let note = self.note();
        if !self.session.insert("INSERT", &ORDERS, vec![key.clone(), self.site.to_owned().into(), account, note])? {
            return Ok(());
        }
        for line in 0..=i64::from(self.dice.below(3)) {
            let article = self.article();
            let quantity = i64::from(self.dice.below(9) + 1);
            self.session.insert("INSERT", &ITEMS, vec![key.clone(), line.into(), article, quantity.into()])?;
        }
        self.orders.push(key);
        Ok(())
    }

    fn change_order(&mut self) -> Result<()> {
        let Some(order) = self.some_order() else { return Ok(()) };
        if self.dice.chance(30) {
            let note = self.note();
            return self.session.set(&ORDERS, &[order], 3, note).map(drop);
        }
        let line = Value::from(i64::from(self.dice.below(3)));
        if self.dice.chance(20) {
            return self.session.delete(&ITEMS, &[order, line]).map(drop);
        }
        let quantity = i64::from(self.dice.below(1000) + 1);
        self.session.set(&ITEMS, &[order, line], 3, quantity.into()).map(drop)
    }

    /// Its items go with it.
    fn cancel_order(&mut self) -> Result<()> {
        if self.orders.is_empty() {
            return Ok(());
        }
        let at = self.dice.below(u32::try_from(self.orders.len())?) as usize;
        let order = self.orders.swap_remove(at);
        let mut lines = Vec::new();
        for line in 0..4_i64 {
            let key = vec![order.clone(), line.into()];
            let sql = "SELECT 1 FROM order_items WHERE order_id = ?1 AND line = ?2";
            if self.session.one(sql, &key)?.is_some() {
                lines.push(key);
            }
        }
        if self.session.delete(&ORDERS, &[order])? {
            self.session.cascaded(&ITEMS, lines);
        }
        Ok(())
    }

    fn open_account(&mut self) -> Result<()> {
        let key = self.key();
        let owner = format!("{} {}", self.site, self.number);
        let (email, photo) = (self.email(), self.photo());
        let row = vec![key.clone(), owner.into(), email, i64::from(self.dice.below(100)).into(), photo];
        // An address that another account has here is refused.
        if self.session.insert("INSERT OR IGNORE", &ACCOUNTS, row)? {
            self.accounts.push(key);
        }
        Ok(())
    }

    fn change_account(&mut self) -> Result<()> {
        let key = self.some_account();
        if key == Value::Null {
            return Ok(());
        }
        let (column, value) = match self.dice.below(3) {
            0 => (2, self.email()),
            1 => (3, self.unique_number()),
            _ => (4, self.photo()),
        };
        self.session.set(&ACCOUNTS, &[key], column, value).map(drop)
    }

    /// Not while it has orders.
    fn close_account(&mut self) -> Result<()> {
        let key = self.some_account();
        if key != Value::Null && self.session.delete(&ACCOUNTS, std::slice::from_ref(&key))? {
            self.accounts.retain(|account| *account != key);
        }
        Ok(())
    }

    fn change_article(&mut self) -> Result<()> {
        let key = Value::from((*self.dice.pick(&ARTICLES_KEPT)).to_owned());
        let (column, value) = match self.dice.below(3) {
            0 => (1, format!("{} {}", self.site, self.number).into()),
            1 => (2, self.real()),
            _ => (3, self.unique_number()),
        };
        self.session.set(&ARTICLES, &[key], column, value).map(drop)
    }

    fn season(&mut self) -> Result<()> {
        let key = Value::from(format!("{SEASONAL}{}", self.dice.below(SEASONS)));
        if self.dice.chance(50) {
            return self.session.delete(&ARTICLES, &[key]).map(drop);
        }
        let title = format!("{} {}", self.site, self.number);
        self.session.insert("INSERT OR IGNORE", &ARTICLES, vec![key, title.into(), Value::Null, Value::Null]).map(drop)
    }

    fn card(&mut self) -> Result<()> {
        let series = (*self.dice.pick(&SERIES)).to_owned();
        let key = vec![Value::from(series), Value::from(self.dice.pick(&CARD_NUMBERS).to_vec())];
        if self.dice.chance(20) {
            return self.session.delete(&CARDS, &key).map(drop);
        }
        if self.dice.chance(40) {
            let row = [&key[..], &[self.real(), self.note(), self.anything()]].concat();
            return self.session.insert("INSERT OR REPLACE", &CARDS, row).map(drop);
        }
        let (column, value) = match self.dice.below(3) {
            0 => (2, self.real()),
            1 => (3, self.note()),
            _ => (4, self.anything()),
        };
        self.session.set(&CARDS, &key, column, value).map(drop)
    }

    /// A key that no other row has, at any site.
    fn key(&self) -> Value {
        format!("{:016x}{:08x}{}", self.run, self.number, self.site).into()
    }

    fn some_order(&mut self) -> Option<Value> {
        (!self.orders.is_empty()).then(|| self.dice.pick(&self.orders).clone())
    }

    /// NULL if there is none.
    fn some_account(&mut self) -> Value {
        if self.accounts.is_empty() { Value::Null } else { self.dice.pick(&self.accounts).clone() }
    }

    /// One of those that come and go may be gone: the item is refused then.
    fn article(&mut self) -> Value {
        if self.dice.chance(20) {
            return format!("{SEASONAL}{}", self.dice.below(SEASONS)).into();
        }
        (*self.dice.pick(&ARTICLES_KEPT)).to_owned().into()
    }

    /// Both sites give the same addresses to accounts of their own.
    fn email(&mut self) -> Value {
        if self.dice.chance(40) {
            return Value::Null;
        }
        format!("{}@shop.test", self.dice.below(EMAILS)).into()
    }

    fn photo(&mut self) -> Value {
        if self.dice.chance(30) {
            return Value::Null;
        }
        let words: Vec<[u8; 8]> = (0..=self.dice.below(24)).map(|_| self.dice.any().to_le_bytes()).collect();
        Value::Blob(words.concat())
    }

    fn note(&mut self) -> Value {
        if self.dice.chance(30) {
            return Value::Null;
        }
        format!("für {}\0 '{}' \"{}\"", self.number, self.site, self.run).into()
    }

    /// With all the digits a double has.
    fn real(&mut self) -> Value {
        #[expect(clippy::cast_precision_loss, reason = "any double will do")]
        let number = self.dice.any() as f64;
        (number / 3.0e17).into()
    }

    fn unique_number(&mut self) -> Value {
        i64::try_from(self.dice.any() >> 2).unwrap_or(0).into()
    }

    fn anything(&mut self) -> Value {
        match self.dice.below(5) {
            0 => Value::Null,
            1 => self.unique_number(),
            2 => self.real(),
            3 => self.photo(),
            _ => self.note(),
        }
    }
}
