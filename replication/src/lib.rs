//! Databases that stay the same.
//!
//! Triggers leave a touch for each change that an application makes. The agent *folds* touches into *changes* (the change
//! table), sends *consolidated* batches of them to the peers, and *applies* theirs: five transactions, after each of which
//! everything that matters is in the database.
//!
//! What a change is and how two of them merge (`clock`, `change`, `merge`) knows nothing of SQLite; `capture` and `store`
//! do.

pub mod capture;
pub mod change;
pub mod clock;
pub mod doctor;
pub mod layout;
pub mod merge;
pub mod schema;
pub mod store;
pub mod value;
pub mod verify;
pub mod wire;

pub use value::{Key, Value};
