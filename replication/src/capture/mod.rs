//! Triggers that record what any process with any SQLite changes.

mod attach;
mod inspect;
mod refuse;
mod triggers;

pub use attach::{Wanted, anew, attach, check_layout, detach, disarm, is_attached, resume, tables};
pub use inspect::{Departure, Difference, count, doubt, inspect, refresh, unarmed};
pub use refuse::{refuse, refuses};
pub(crate) use triggers::{differs, list};
pub use triggers::{nullable_key, rebuilt, unverified};

use crate::{layout, schema};

/// Why tables could not be captured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A table cannot be replicated.
    #[error(transparent)]
    Schema(#[from] schema::Error),
    /// A table is not what it was when it was attached.
    #[error("table {table:?} changed since it was attached: {what}")]
    Changed {
        /// The table.
        table: String,
        /// How.
        what: String,
    },
    /// Another version of siteswap has attached the tables.
    #[error(
        "what siteswap keeps in this database has layout {found}, and this version reads layout {}: use the other version, or run \
         siteswap db detach --force and attach, and then siteswap db verify",
        layout::VERSION
    )]
    Layout {
        /// Which it has; 0 if it is older than their numbers.
        found: i64,
    },
    /// A table is not captured.
    #[error("table {0:?} is not attached")]
    NotAttached(String),
    /// What `_ssw_table` holds is not ours.
    #[error(
        "what is stored of the replicated tables cannot be read ({0}); another version of siteswap may have written it"
    )]
    Stored(#[from] serde_json::Error),
    /// SQLite's word.
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
}
