//! What agents send each other about their databases.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::Bytes;

use crate::{
    change::{Change, append},
    clock::{Seen, Sight, SiteId, Stamp},
    value::{Key, Value},
};

/// A part is at most this long when unpacked, in bytes; a row may be as large as SQLite's default limit.
pub const MAX_PART: usize = 1 << 30;
/// zstd's level: higher ones save next to nothing on rows. See `docs/performance.md`.
const LEVEL: i32 = 1;

/// A batch, or one of its parts: everything that `origin` changed in its groups above `lo` and up to `hi`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Whose changes these are.
    pub origin: SiteId,
    /// What the receiver must have applied.
    pub lo: u64,
    /// What it has applied then.
    pub hi: u64,
    /// How often the schema was changed at the sender, all sites doing so alike. The receiver has changed it as often.
    pub schema: u32,
    /// No stamp of `origin` in groups up to `hi` is above this.
    pub clock: Stamp,
    /// What the makers of the changes could have seen.
    pub sight: Sight,
    /// Counts the batch's parts from 0.
    pub number: u32,
    /// It is the last one.
    pub last: bool,
    /// The tables in it.
    pub tables: Vec<Shape>,
    /// How many rows.
    pub rows: u32,
    /// The rows' changes, as [`Rows`] wrote them.
    #[serde(with = "serde_bytes")]
    pub changes: Vec<u8>,
    /// What the sender has found to have lost.
    pub notices: Vec<Notice>,
}

/// What lost in a conflict that one site has found, for every site's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Its number, the same at every site that finds it.
    pub id: i64,
    /// When it was found, in milliseconds since 1970 by the finder's stamps.
    pub ms: i64,
    /// The table.
    pub table: String,
    /// The row.
    pub key: Key,
    /// What met what: [`Kind::name`](crate::merge::Kind::name).
    pub kind: String,
    /// The site whose change stays, by its name, and when it made that.
    pub won: (String, Stamp),
    /// The site whose change was dropped, and when it had made that.
    pub lost: (String, Stamp),
    /// What it had set.
    pub image: Vec<(String, Value)>,
    /// Somebody has brought it back.
    pub restored: bool,
}

/// A table at its origin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Its name.
    pub name: String,
    /// Its columns' names. Cells name columns by their places in this list.
    pub columns: Vec<String>,
}

/// Which copy of a site's database it is: 16 random bytes.
pub type Incarnation = [u8; 16];

/// What a site tells its peers of itself: an acknowledgement, and a sign that its clock has moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who.
    pub site: SiteId,
    /// The receiver's groups up to this one are applied and durable.
    pub applied: u64,
    /// The sender's own last group. What follows is true of everything up to it.
    pub group: u64,
    /// Every change of the sender that is in no group up to `group` will have a stamp above this.
    pub clock: Stamp,
    /// What the sender has applied of every site.
    pub seen: Seen,
    /// Which copy of the sender's database this is. Reports of two of them must not overtake each other.
    pub incarnation: Incarnation,
    /// The receiver has said that it has applied the sender's groups up to this one.
    pub acknowledged: u64,
    /// The sender's groups up to this one are not kept any more.
    pub forgotten: u64,
    /// How often the schema was changed at the sender.
    pub schema: u32,
}

/// A message between agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The first message, both ways.
    Hello(Report),
    /// An acknowledgement or a sign of life.
    Report(Report),
    /// Changes.
    Part(Part),
}

impl Message {
    /// Its bytes, as [`pack`] makes them.
    ///
    /// # Errors
    /// The message is too large.
    pub fn encode(&self) -> Result<Vec<u8>, &'static str> {
        pack(self)
    }

    /// Reads a message.
    ///
    /// # Errors
    /// It is none, or too large.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        unpack(bytes)
    }
}

/// A message's bytes: the length in four, the most significant first, then as much compressed by zstd.
///
/// # Errors
/// The message is too large.
pub fn pack(message: &impl Serialize) -> Result<Vec<u8>, &'static str> {
    let bytes = postcard::to_stdvec(message).map_err(|_| "it cannot be encoded")?;
    if bytes.len() > MAX_PART {
        return Err("it is too large");
    }
    let packed = zstd::bulk::compress(&bytes, LEVEL).map_err(|_| "it cannot be compressed")?;
    // MAX_PART fits.
    let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    Ok([&size[..], &packed].concat())
}

/// Reads what [`pack`] made.
///
/// # Errors
/// It is none of these, or too large.
pub fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, &'static str> {
    let (size, bytes) = bytes.split_first_chunk::<4>().ok_or("it is cut short")?;
    let size = u32::from_be_bytes(*size) as usize;
    if size > MAX_PART {
        return Err("it is too large");
    }
    let bytes = zstd::bulk::decompress(bytes, size).map_err(|_| "it cannot be unpacked")?;
    match postcard::take_from_bytes(&bytes) {
        Ok((message, [])) => Ok(message),
        _ => Err("it is not well-formed"),
    }
}

/// Collects a part's rows.
#[derive(Debug, Default)]
pub struct Rows {
    tables: BTreeMap<u32, u32>,
    rows: u32,
    bytes: Vec<u8>,
    notices: Vec<Notice>,
    /// What the notices take.
    noticed: usize,
}

impl Rows {
    /// Adds a row's change as it is encoded.
    pub fn add(&mut self, table: u32, key: &[u8], change: &[u8]) {
        let next = u32::try_from(self.tables.len()).unwrap_or(u32::MAX);
        let table = *self.tables.entry(table).or_insert(next);
        append(&(table, Bytes::new(key)), &mut self.bytes);
        self.bytes.extend_from_slice(change);
        self.rows += 1;
    }

    /// Adds a notice that takes so many bytes.
    pub fn notice(&mut self, notice: Notice, bytes: usize) {
        self.notices.push(notice);
        self.noticed += bytes;
    }

    /// How many rows and notices.
    pub fn count(&self) -> usize {
        self.rows as usize + self.notices.len()
    }

    /// How many bytes they take.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.noticed
    }

    /// A part with these rows; `shape` knows the tables by number.
    pub fn into_part(self, shape: impl Fn(u32) -> Option<Shape>) -> Part {
        let mut tables = vec![Shape::default(); self.tables.len()];
        for (number, place) in self.tables {
            tables[place as usize] = shape(number).unwrap_or_default();
        }
        Part { tables, rows: self.rows, changes: self.bytes, notices: self.notices, ..Part::default() }
    }
}

/// One row of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    /// Which of the part's tables.
    pub table: u32,
    /// Which row.
    pub key: Key,
    /// What was done to it.
    pub change: Change,
}

impl Part {
    /// Its rows. `None` in place of a row: what follows is no row.
    pub fn rows(&self) -> impl Iterator<Item = Option<RowChange>> + '_ {
        let mut bytes = self.changes.as_slice();
        let origin = self.origin;
        (0..self.rows).map(move |_| {
            let ((table, key), rest) = postcard::take_from_bytes(bytes).ok()?;
            bytes = rest;
            let change = Change::decode(origin, &mut bytes)?;
            Some(RowChange { table, key, change })
        })
    }
}
