//! Triggers that record what any process with any SQLite changes.
