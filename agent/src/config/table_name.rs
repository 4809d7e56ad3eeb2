//! Names of the database's tables.

use std::{cmp::Ordering, fmt, hash};

/// A table's name as SQLite takes it: any text without NUL, in which the case of ASCII letters makes no difference. It is
/// displayed as it was written.
#[derive(Clone, Debug)]
pub struct TableName(String);

/// SQLite's own tables begin with the first, siteswap's in the user's database with the second.
const RESERVED: [&str; 2] = ["sqlite_", "_ssw_"];

/// Why a name is no replicated table's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTableName {
    /// Nothing.
    #[error("names no table")]
    Empty,
    /// SQLite takes no such name.
    #[error("holds a NUL, which no table's name does")]
    Nul,
    /// The table belongs to SQLite or to siteswap.
    #[error("begins with \"{0}\", as only tables of SQLite and siteswap do")]
    Reserved(&'static str),
}

impl TableName {
    /// # Errors
    /// It is empty, holds a NUL, or begins with what is reserved.
    pub fn new(name: &str) -> Result<Self, InvalidTableName> {
        if name.is_empty() {
            return Err(InvalidTableName::Empty);
        }
        if name.contains('\0') {
            return Err(InvalidTableName::Nul);
        }
        let begins = |with: &&str| name.get(..with.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(with));
        match RESERVED.into_iter().find(begins) {
            Some(reserved) => Err(InvalidTableName::Reserved(reserved)),
            None => Ok(Self(name.to_owned())),
        }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn folded(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.bytes().map(|byte| byte.to_ascii_lowercase())
    }
}

impl PartialEq for TableName {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for TableName {}

impl Ord for TableName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.folded().cmp(other.folded())
    }
}

impl PartialOrd for TableName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl hash::Hash for TableName {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.0.to_ascii_lowercase().hash(state);
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;

    fn name(text: &str) -> TableName {
        TableName::new(text).unwrap()
    }

    #[test]
    fn the_case_of_ascii_letters_makes_no_difference() {
        assert_eq!(name("Orders"), name("oRDERS"));
        assert_ne!(name("Ö"), name("ö"));
        assert_ne!(name("order"), name("orders"));
        let written = ["Orders", "ORDERS", "Ö", "ö"].map(name);
        assert_eq!(BTreeSet::from(written.clone()).len(), 3);
        assert_eq!(HashSet::from(written).len(), 3);
        assert_eq!(name("Orders").to_string(), "Orders");
    }

    #[test]
    fn any_text_is_a_name_but_for_the_reserved_ones() {
        for good in ["we\"ird t", "a.b", "\n", "ß", "sqlite", "_ssw", "my_sqlite_table", "_ssé"] {
            assert_eq!(TableName::new(good).map(|name| name.as_str().to_owned()), Ok(good.to_owned()));
        }
        for (bad, why) in [
            ("", InvalidTableName::Empty),
            ("a\0b", InvalidTableName::Nul),
            ("sqlite_sequence", InvalidTableName::Reserved("sqlite_")),
            ("SQLite_stat1", InvalidTableName::Reserved("sqlite_")),
            ("_SSW_change", InvalidTableName::Reserved("_ssw_")),
        ] {
            assert_eq!(TableName::new(bad), Err(why), "{bad:?}");
        }
    }
}
