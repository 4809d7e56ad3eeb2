//! The words of the errors.

use std::{fs, path::Path};

use super::{EXAMPLE, load, parse, with};

/// What is said about `text` in the file `east.toml`.
fn complaint(text: &str) -> String {
    match parse(text, Path::new("east.toml")) {
        Ok(_) => "nothing".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Replacing the first by the second in the example is answered with the third.
#[track_caller]
fn check(table: &[(&str, &str, &str)]) {
    for (from, to, expected) in table {
        assert_eq!(complaint(&with(from, to)), *expected, "{from:?} -> {to:?}");
    }
}
