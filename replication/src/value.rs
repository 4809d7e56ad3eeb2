//! SQLite's values, exactly: storage class and bytes, without a round trip through text.

use std::cmp::Ordering;

use rusqlite::{
    ToSql,
    types::{ToSqlOutput, ValueRef},
};
use serde::{Deserialize, Serialize};

/// One value of one row. Text is bytes: SQLite stores what an application gives it, also if that is not UTF-8 or holds a
/// NUL.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Value {
    /// NULL.
    Null,
    /// An integer.
    Integer(i64),
    /// A real number; never NaN, which SQLite stores as NULL.
    Real(f64),
    /// Text in the database's encoding as SQLite hands it out, UTF-8 if the application kept to that.
    Text(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Bytes.
    Blob(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// The same storage class and bytes; 0.0 and -0.0 are the same, because SQL cannot tell them apart, and so no trigger
/// can. 1 and 1.0 differ.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.is(other.borrowed())
    }
}

impl Eq for Value {}

impl Value {
    /// NULL?
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Is it equal to this value of SQLite's?
    pub fn is(&self, other: ValueRef<'_>) -> bool {
        match (self.borrowed(), other) {
            (ValueRef::Null, ValueRef::Null) => true,
            (ValueRef::Integer(one), ValueRef::Integer(two)) => one == two,
            (ValueRef::Real(one), ValueRef::Real(two)) => one == two,
            (ValueRef::Text(one), ValueRef::Text(two)) | (ValueRef::Blob(one), ValueRef::Blob(two)) => one == two,
            _ => false,
        }
    }

    /// SQLite's order of values (<https://sqlite.org/datatype3.html>, section 4.1): NULL, numbers, text, blobs; text by its
    /// bytes. An integer and a real may be equal.
    pub fn sql_order(&self, other: &Self) -> Ordering {
        let class = |value: &Self| match value {
            Self::Null => 0,
            Self::Integer(_) | Self::Real(_) => 1,
            Self::Text(_) => 2,
            Self::Blob(_) => 3,
        };
        match (self, other) {
            (Self::Integer(one), Self::Integer(two)) => one.cmp(two),
            (Self::Real(one), Self::Real(two)) => one.partial_cmp(two).unwrap_or(Ordering::Equal),
            (Self::Integer(one), Self::Real(two)) => compare(*one, *two),
            (Self::Real(one), Self::Integer(two)) => compare(*two, *one).reverse(),
            (Self::Text(one), Self::Text(two)) | (Self::Blob(one), Self::Blob(two)) => one.cmp(two),
            _ => class(self).cmp(&class(other)),
        }
    }

    /// Bytes it takes in memory and, nearly, on disk.
    pub fn size(&self) -> usize {
        match self {
            Self::Null => 1,
            Self::Integer(_) | Self::Real(_) => 9,
            Self::Text(bytes) | Self::Blob(bytes) => 1 + bytes.len(),
        }
    }

    /// Appends its canonical encoding, as [`encode`] does.
    pub fn encode(&self, into: &mut Vec<u8>) {
        encode(self.borrowed(), into);
    }

    fn borrowed(&self) -> ValueRef<'_> {
        match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(bytes) => ValueRef::Text(bytes),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }
    }

    /// Reads a canonical encoding from the front of `bytes`. `None`: it is none.
    pub fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let tag = take(bytes, 1)?[0];
        Some(match tag {
            0 => Self::Null,
            1 => Self::Integer((u64::from_be_bytes(take(bytes, 8)?.try_into().ok()?) ^ (1 << 63)).cast_signed()),
            2 => Self::Real(f64::from_be_bytes(take(bytes, 8)?.try_into().ok()?)),
            3 => Self::Text(decode_bytes(bytes)?),
            4 => Self::Blob(decode_bytes(bytes)?),
            _ => return None,
        })
    }
}

/// An integer and a real, exactly.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "what is cut off is compared after it"
)]
fn compare(integer: i64, real: f64) -> Ordering {
    if real < -(2_f64.powi(63)) {
        Ordering::Greater
    } else if real >= 2_f64.powi(63) {
        Ordering::Less
    } else {
        // Where a real has a fraction, the integer beside it is small enough to be one too.
        integer.cmp(&(real as i64)).then((integer as f64).partial_cmp(&real).unwrap_or(Ordering::Equal))
    }
}

/// Appends a value's canonical encoding: a tag for the storage class, then the bytes; equal values, and no others, have
/// equal encodings. Integers compare as their encodings do, so that rows with integer keys are visited in order.
pub fn encode(value: ValueRef<'_>, into: &mut Vec<u8>) {
    match value {
        ValueRef::Null => into.push(0),
        ValueRef::Integer(number) => {
            into.push(1);
            into.extend_from_slice(&(number.cast_unsigned() ^ (1 << 63)).to_be_bytes());
        }
        ValueRef::Real(number) => {
            into.push(2);
            let number = if number == 0.0 { 0.0 } else { number };
            into.extend_from_slice(&number.to_be_bytes());
        }
        ValueRef::Text(bytes) => encode_bytes(3, bytes, into),
        ValueRef::Blob(bytes) => encode_bytes(4, bytes, into),
    }
}

fn encode_bytes(tag: u8, bytes: &[u8], into: &mut Vec<u8>) {
    into.push(tag);
    // SQLite's values are at most 2 GB long.
    into.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    into.extend_from_slice(bytes);
}

fn decode_bytes(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let length = u32::from_be_bytes(take(bytes, 4)?.try_into().ok()?);
    take(bytes, usize::try_from(length).ok()?).map(<[u8]>::to_vec)
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (front, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(front)
}

impl From<ValueRef<'_>> for Value {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Real(number) => Self::Real(number),
            ValueRef::Text(bytes) => Self::Text(bytes.to_vec()),
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_vec()),
        }
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.borrowed()))
    }
}

/// Values in JSON for people and their programs: numbers, strings and null; bytes, and text that is not UTF-8, in
/// hexadecimal as `{"blob": "00ff"}` and `{"text": "ff"}`.
pub(crate) mod plain {
    use serde::{Serialize, Serializer, ser::SerializeMap};

    use super::Value;

    struct Plain<'a>(&'a Value);

    impl Serialize for Plain<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            match self.0 {
                Value::Null => serializer.serialize_unit(),
                Value::Integer(number) => serializer.serialize_i64(*number),
                Value::Real(number) => serializer.serialize_f64(*number),
                Value::Text(bytes) => match str::from_utf8(bytes) {
                    Ok(text) => serializer.serialize_str(text),
                    Err(_) => serializer.collect_map([("text", hex(bytes))]),
                },
                Value::Blob(bytes) => serializer.collect_map([("blob", hex(bytes))]),
            }
        }
    }

    /// A list.
    pub(crate) fn list<S: Serializer>(values: &[Value], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(Plain))
    }

    /// An object: each column's value under its name.
    pub(crate) fn columns<S: Serializer>(columns: &[(String, Value)], serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(columns.len()))?;
        columns.iter().try_for_each(|(name, value)| map.serialize_entry(name, &Plain(value)))?;
        map.end()
    }
}

/// A row's primary key: the canonical encodings of its columns, one after the other. Two rows are the same row if these
/// bytes are equal, whatever the collation of the key's columns: `a` and `A` are two rows that cannot both be in a table
/// with a key that ignores case, which is a collision like any other between unique columns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(#[serde(with = "serde_bytes")] pub Vec<u8>);

impl Key {
    /// The key of these columns.
    pub fn new<'a>(columns: impl IntoIterator<Item = &'a Value>) -> Self {
        let mut bytes = Vec::with_capacity(16);
        columns.into_iter().for_each(|column| column.encode(&mut bytes));
        Self(bytes)
    }

    /// Its columns. `None`: it was not made by `new`.
    pub fn columns(&self) -> Option<Vec<Value>> {
        let mut bytes = self.0.as_slice();
        let mut columns = Vec::with_capacity(1);
        while !bytes.is_empty() {
            columns.push(Value::decode(&mut bytes)?);
        }
        Some(columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_exact_and_tell_storage_classes_apart() {
        let values = [
            Value::Null,
            Value::Integer(i64::MIN),
            Value::Integer(1),
            Value::Real(1.0),
            Value::Real(f64::from_bits(1)),
            Value::Text(b"a\0b\xff".to_vec()),
            Value::Blob(b"a\0b\xff".to_vec()),
            Value::Text(Vec::new()),
        ];
        let key = Key::new(&values);
        assert_eq!(key.columns().as_deref(), Some(&values[..]));
        for (one, value) in values.iter().enumerate() {
            for (two, other) in values.iter().enumerate() {
                assert_eq!(Key::new([value]) == Key::new([other]), one == two);
            }
        }
        assert_eq!(Key::new([&Value::Real(-0.0)]), Key::new([&Value::Real(0.0)]));
    }

    #[test]
    fn json_has_plain_values_and_bytes_in_hexadecimal() {
        #[derive(Serialize)]
        struct Row {
            #[serde(serialize_with = "plain::columns")]
            columns: Vec<(String, Value)>,
            #[serde(serialize_with = "plain::list")]
            key: Vec<Value>,
        }
        let text = |bytes: &[u8]| Value::Text(bytes.to_vec());
        let key = vec![Value::Null, Value::Integer(i64::MIN), Value::Real(0.5), text("é".as_bytes()), text(b"\xff")];
        let row = Row { columns: vec![("a \"b\"".to_owned(), Value::Blob(vec![0, 255]))], key };
        let expected =
            r#"{"columns":{"a \"b\"":{"blob":"00ff"}},"key":[null,-9223372036854775808,0.5,"é",{"text":"ff"}]}"#;
        assert_eq!(serde_json::to_string(&row).unwrap(), expected);
    }

    #[test]
    fn values_are_in_the_order_that_sqlite_has_them_in() {
        let text = |bytes: &[u8]| Value::Text(bytes.to_vec());
        let values = [
            Value::Null,
            Value::Real(-1e300),
            Value::Integer(i64::MIN),
            Value::Real(-2.5),
            Value::Integer(-2),
            Value::Real(0.5),
            Value::Integer(1 << 53),
            Value::Integer((1 << 53) + 1),
            Value::Integer(i64::MAX),
            Value::Real(2_f64.powi(63)),
            text(b""),
            text(b"A"),
            text(b"a"),
            Value::Blob(Vec::new()),
        ];
        let database = rusqlite::Connection::open_in_memory().unwrap();
        for one in &values {
            for two in &values {
                let sql = "SELECT CASE WHEN ?1 IS NULL THEN CASE WHEN ?2 IS NULL THEN 0 ELSE -1 END WHEN ?2 IS NULL THEN 1 \
                           ELSE (?1 > ?2) - (?1 < ?2) END";
                let said: i8 = database.query_row(sql, [one, two], |row| row.get(0)).unwrap();
                assert_eq!(one.sql_order(two) as i8, said, "{one:?} {two:?}");
            }
        }
        assert_eq!(Value::Integer(1).sql_order(&Value::Real(1.0)), Ordering::Equal);
    }

    #[test]
    fn integer_keys_sort_as_their_numbers_do() {
        let numbers = [i64::MIN, -300, -1, 0, 1, 256, i64::MAX];
        assert!(numbers.map(|number| Key::new([&Value::Integer(number)])).is_sorted());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bytes in [&[9][..], &[1, 0], &[3, 0, 0, 0, 9, 1], &[3, 0]] {
            assert_eq!(Key(bytes.to_vec()).columns(), None);
        }
    }
}
