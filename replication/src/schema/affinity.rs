//! What SQLite makes of values that are put into a column (<https://sqlite.org/datatype3.html>, section 3).

use rusqlite::Connection;

use super::Column;
use crate::value::Value;

/// A column's affinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// Numbers that are whole become integers.
    Integer,
    /// Numbers become text.
    Text,
    /// Values stay as they are.
    Blob,
    /// Numbers become reals.
    Real,
    /// Like `Integer`.
    Numeric,
}

impl Column {
    /// May it become NULL without anybody looking at its row's other values?
    pub fn may_be_null(&self) -> bool {
        !self.not_null && !self.needed
    }

    /// Can it hold an integer and a real that SQL takes for equal? Not if it makes one of the other. (SQLite has one
    /// exception that is not worth its price in every trigger: a real -2⁶³ stays one beside the integer.) ANY is a type
    /// of STRICT tables, which changes nothing there.
    pub fn mixes_numbers(&self) -> bool {
        self.affinity() == Affinity::Blob || self.declared.eq_ignore_ascii_case("ANY")
    }

    /// Its affinity, from its declared type.
    pub fn affinity(&self) -> Affinity {
        let declared = self.declared.to_ascii_uppercase();
        let has = |words: &[&str]| words.iter().any(|word| declared.contains(word));
        if has(&["INT"]) {
            Affinity::Integer
        } else if has(&["CHAR", "CLOB", "TEXT"]) {
            Affinity::Text
        } else if declared.is_empty() || has(&["BLOB"]) {
            Affinity::Blob
        } else if has(&["REAL", "FLOA", "DOUB"]) {
            Affinity::Real
        } else {
            Affinity::Numeric
        }
    }

    /// What a row gets in it if nobody says anything.
    ///
    /// # Errors
    /// Whatever SQLite says.
    pub fn default_value(&self, database: &Connection) -> rusqlite::Result<Value> {
        let Some(default) = self.plain_default().or_else(|| self.default.clone()) else { return Ok(Value::Null) };
        database.query_row(&format!("SELECT {default}"), [], |row| Ok(row.get_ref(0)?.into()))
    }

    /// The default as SQL that means the same inside a trigger, where a name is a column: a literal, or the time. `None`:
    /// there is none, or it must be computed.
    pub fn plain_default(&self) -> Option<String> {
        let text = self.default.as_deref()?.trim();
        let number = text.trim_start_matches(['+', '-', ' ']);
        let keyword = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
        let name = |character: char| character.is_ascii_alphanumeric() || character == '_' || !character.is_ascii();
        if keyword(&["CURRENT_TIME", "CURRENT_DATE", "CURRENT_TIMESTAMP", "TRUE", "FALSE", "NULL"])
            || number.starts_with(|first: char| first.is_ascii_digit() || first == '.')
                && number.chars().all(|other| name(other) || matches!(other, '.' | '+' | '-'))
            || is_string(text.trim_start_matches(['x', 'X']), '\'')
        {
            Some(text.to_owned())
        } else if is_string(text, '"') {
            Some(format!("'{}'", text[1..text.len() - 1].replace("\"\"", "\"").replace('\'', "''")))
        } else if !text.is_empty() && text.chars().all(name) {
            // SQLite takes a bare word for a string here.
            Some(format!("'{text}'"))
        } else {
            None
        }
    }
}

/// One quoted string, and nothing after it?
fn is_string(text: &str, quote: char) -> bool {
    let inner = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inner.is_some_and(|inner| !inner.replace(&String::from_iter([quote, quote]), "").contains(quote))
}
