//! Fold: touches become changes, in one transaction, before anything else can change the rows.

use std::collections::BTreeMap;

use rusqlite::{Row as SqlRow, params, types::ValueRef};

use crate::{
    capture,
    clock::{Stamp, Version, stamp},
    layout::{DELETED, EVICTED, INSERTED},
    value::{Key, Value},
};

use super::{
    Error, OFTEN, Store, damaged,
    live::Live,
    parked,
    touched::{Op, Touched},
    work::Work,
};

/// What a fold has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// Touches read.
    pub touches: u64,
    /// Rows changed.
    pub rows: u64,
    /// Bytes that their changes take.
    pub bytes: u64,
    /// Touches whose time was too far ahead of the agent's clock.
    pub ahead: u64,
}

impl Store {
    /// Folds everything that has been committed until now into one group. `now` is the agent's clock in milliseconds
    /// since 1970.
    ///
    /// # Errors
    /// `Damaged`, `Sqlite`; touches stay, for the next time, and [`changed`](Self::changed) says that they are there.
    pub fn fold(&mut self, now: i64) -> Result<Folded, Error> {
        let folded = self.fold_new(now);
        if folded.is_err() {
            self.looked = None;
        }
        folded
    }

    fn fold_new(&mut self, now: i64) -> Result<Folded, Error> {
        let newest: i64 = self
            .database
            .prepare_cached("SELECT ifnull(max(seq), 0) FROM _ssw_touch")?
            .query_row([], |row| row.get(0))?;
        let nothing_new = newest <= super::State::load(&self.database)?.folded;
        if nothing_new && !parked::may_be_there(&self.database)? {
            return Ok(Folded::default());
        }
        self.transact(|work| fold(work, now))
    }
}

/// Is told how many touches are folded, and of how many.
pub(super) type Tell<'a> = &'a mut dyn FnMut(u64, u64);

/// Folds all touches into the open group and closes it. Then nothing stands in the way of parked values whose columns were
/// added.
pub(super) fn fold(work: &mut Work<'_>, now: i64) -> Result<Folded, Error> {
    fold_and_tell(work, now, &mut |_, _| ())
}

/// The same; tells now and then how far it is.
pub(super) fn fold_and_tell(work: &mut Work<'_>, now: i64, tell: Tell<'_>) -> Result<Folded, Error> {
    let folded = fold_touches(work, now, tell)?;
    parked::take_up(work, now)?;
    Ok(folded)
}

fn fold_touches(work: &mut Work<'_>, now: i64, tell: Tell<'_>) -> Result<Folded, Error> {
    let (stamps, mut folded) = Stamps::read(work, now)?;
    if folded.touches == 0 {
        return Ok(folded);
    }
    let mut meter = Meter { done: 0, of: folded.touches, tell };
    meter.say();
    for (number, order) in &stamps.tables {
        match work.table(*number) {
            Some(live) => fold_table(work, &live, &stamps, *order, &mut meter)?,
            None => pass_over(work, *number)?,
        }
    }
    work.flush()?;
    work.state.folded = stamps.newest;
    (folded.rows, folded.bytes) = work.close_group()?.unwrap_or_default();
    forget_touches(work, stamps.newest)?;
    Ok(folded)
}

/// Touches of a table that is not there. If it is replicated still, it may come back under its name.
fn pass_over(work: &Work<'_>, number: u32) -> Result<(), Error> {
    if let Some(table) = capture::tables(work.transaction)?.iter().find(|table| table.number == number) {
        capture::doubt(work.transaction, table)?;
    }
    Ok(())
}

/// Counts what is folded.
struct Meter<'a> {
    done: u64,
    of: u64,
    tell: Tell<'a>,
}

impl Meter<'_> {
    fn say(&mut self) {
        (self.tell)(self.done, self.of);
    }

    fn one_more(&mut self) {
        self.done += 1;
        if self.done.is_multiple_of(OFTEN) {
            self.say();
        }
    }
}

/// Folds one table's touches.
fn fold_table(
    work: &mut Work<'_>,
    live: &Live,
    stamps: &Stamps,
    order: Order,
    meter: &mut Meter<'_>,
) -> Result<(), Error> {
    let transaction = work.transaction;
    let any = work.rows.any(live)?;
    let images = transaction.prepare_cached(&format!("SELECT 1 FROM _ssw_old_{}", live.table.number))?.exists([])?;
    let sorted = live.table.key.len() == 1 && matches!(order, Order::ByKey { .. });
    let mut statement = live.touches(transaction, sorted, images)?;
    let mut touches = statement.query([work.state.folded])?;
    // Rows whose keys SQL calls equal, though they may differ (1 and 1.0): few, usually one.
    let mut near: Vec<Near> = Vec::new();
    while let Some(touch) = touches.next()? {
        meter.one_more();
        let key = live.touched_key(touch)?;
        if near.first().is_some_and(|first| !alike(&first.key, &key)) {
            close(work, live, any, &mut near)?;
        }
        let (seq, op) = (touch.get(0)?, op(touch)?);
        // Of a row that is gone only these keep all values.
        let tells = |there: bool| there || matches!(op, Op::Delete | Op::Evict);
        let at = match near.iter().position(|other| other.key == key) {
            Some(at) => {
                if !near[at].there && matches!(op, Op::Delete | Op::Evict) {
                    near[at].last = live.touched_row(touch)?.1;
                }
                at
            }
            None => {
                let (there, last) = live.touched_row(touch)?;
                near.push(Near { key, there, last: last.filter(|_| tells(there)), touched: Touched::default() });
                near.len() - 1
            }
        };
        near[at].touched.add(op, stamps.of(seq));
        if let Op::Update(columns) = op {
            near[at].touched.count(&live.table, columns, &live.counted(touch)?);
        }
    }
    close(work, live, any, &mut near)
}

/// A row that was touched.
struct Near {
    key: Vec<Value>,
    there: bool,
    /// Its values, the last ones if it is gone.
    last: Option<Vec<Value>>,
    touched: Touched,
}

/// Records what has become of these rows. `any`: something was kept of some rows before this fold.
fn close(work: &mut Work<'_>, live: &Live, any: bool, near: &mut Vec<Near>) -> Result<(), Error> {
    for Near { key, there, last, touched } in near.drain(..) {
        let told = last.is_some();
        let key = Key::new(&key);
        let (mut row, _) = work.rows.load_if(any, live, &key, last)?;
        // Signs of life that are kept no more were all older than this.
        let settled = Version::SETTLED.max(Version::new(work.state.settled, u32::MAX));
        let known_alive = if row.alive.is_change() { row.alive } else { settled };
        let site = work.settings.site;
        let adds = if told { touched.adds(&row, site) } else { Vec::new() };
        let last = if told { row.values.as_mut_slice() } else { &mut [] };
        if let Some(change) = touched.change(site, live, there, last, adds, known_alive) {
            work.record_soon(live, key, &mut row, change)?;
        }
    }
    Ok(())
}

/// All touches were read, so SQLite may drop whole pages. The newest number stays, or it would count from the beginning
/// again.
fn forget_touches(work: &Work<'_>, newest: i64) -> Result<(), Error> {
    work.transaction.prepare_cached("DELETE FROM _ssw_touch")?.execute([])?;
    work.transaction.prepare_cached("INSERT INTO _ssw_touch(seq, tbl) VALUES(?, 0)")?.execute([newest])?;
    for number in work.tables.keys() {
        work.transaction.prepare_cached(&format!("DELETE FROM _ssw_old_{number}"))?.execute([])?;
    }
    Ok(())
}

fn op(touch: &SqlRow<'_>) -> Result<Op, Error> {
    Ok(match touch.get_ref(1)?.as_i64() {
        Ok(INSERTED) => Op::Insert,
        Ok(DELETED) => Op::Delete,
        Ok(EVICTED) => Op::Evict,
        Ok(columns @ 0..) => Op::Update(columns.cast_unsigned()),
        _ => return Err(damaged("a touch", "_ssw_touch")),
    })
}

/// Would SQL call these keys equal?
fn alike(one: &[Value], two: &[Value]) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "keys that only look alike are told apart later")]
    let same = |(one, two): (&Value, &Value)| match (one, two) {
        (Value::Integer(one), Value::Real(two)) | (Value::Real(two), Value::Integer(one)) => *one as f64 == *two,
        _ => one == two,
    };
    one.len() == two.len() && one.iter().zip(two).all(same)
}

/// The stamp of every touch, given in the order of their commits: after each of these, the next ones follow one by one.
struct Stamps {
    steps: Vec<(i64, Stamp)>,
    newest: i64,
    /// The tables touched.
    tables: BTreeMap<u32, Order>,
}

/// The order in which a table's rows were touched.
#[derive(Clone, Copy)]
enum Order {
    /// The keys' first columns are integers that never become smaller, as when one statement changes many rows.
    ByKey {
        last: i64,
    },
    Any,
}

impl Order {
    fn with(self, key: ValueRef<'_>) -> Self {
        match (self, key) {
            (Self::ByKey { last }, ValueRef::Integer(next)) if last <= next => Self::ByKey { last: next },
            _ => Self::Any,
        }
    }
}

impl Stamps {
    fn read(work: &mut Work<'_>, now: i64) -> Result<(Self, Folded), Error> {
        let mut statement =
            work.transaction.prepare_cached("SELECT seq, day, tbl, k0 FROM _ssw_touch WHERE seq > ? ORDER BY seq")?;
        let mut touches = statement.query(params![work.state.folded])?;
        let mut stamps = Self { steps: Vec::new(), newest: 0, tables: BTreeMap::new() };
        let mut folded = Folded::default();
        let latest = now.saturating_add(work.waited).saturating_add(work.settings.max_skew);
        let mut last = work.state.clock.0;
        while let Some(touch) = touches.next()? {
            let seq: i64 = touch.get(0)?;
            let ms = millis(touch);
            let first = folded.touches == 0;
            let follows = last + if first { 1 } else { seq - stamps.newest };
            let stamp = follows.max(stamp(ms.min(latest)));
            if first || stamp > follows {
                stamps.steps.push((seq, stamp));
            }
            let order = stamps.tables.entry(touch.get(2)?).or_insert(Order::ByKey { last: i64::MIN });
            *order = order.with(touch.get_ref(3)?);
            folded.touches += 1;
            folded.ahead += u64::from(ms > latest);
            (last, stamps.newest) = (stamp, seq);
        }
        work.state.clock.pass(last);
        Ok((stamps, folded))
    }

    fn of(&self, seq: i64) -> Stamp {
        let after = self.steps.partition_point(|(step, _)| *step <= seq);
        self.steps.get(after.wrapping_sub(1)).map_or(0, |(step, stamp)| stamp + (seq - step))
    }
}

/// The application's clock in milliseconds since 1970; what no i64 holds becomes the nearest one.
#[expect(clippy::cast_possible_truncation, reason = "whole milliseconds")]
fn millis(touch: &SqlRow<'_>) -> i64 {
    let day: f64 = touch.get(1).unwrap_or_default();
    ((day - 2_440_587.5) * 86_400_000.0).round() as i64
}
