//! What is said about a zone file.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub file: Arc<Path>,
    /// Counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Why the zones cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ZoneError {
    /// The file, unless the configuration itself is wrong.
    pub file: Option<PathBuf>,
    /// The line, counted from 1, if one line is to blame.
    pub line: Option<usize>,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Something that is served but hardly meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneWarning {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
    /// What is suspicious, and what is done with it.
    pub message: String,
}

impl ZoneError {
    pub(super) fn at(place: &Place, message: impl Into<String>) -> Self {
        Self { file: Some(place.file.to_path_buf()), line: Some(place.line), message: message.into() }
    }

    pub(super) fn in_file(file: &Path, message: impl Into<String>) -> Self {
        Self { file: Some(file.to_path_buf()), line: None, message: message.into() }
    }

    pub(super) fn configuration(message: impl Into<String>) -> Self {
        Self { file: None, line: None, message: message.into() }
    }
}

impl fmt::Display for ZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        }
        f.write_str(&self.message)
    }
}

impl ZoneWarning {
    pub(super) fn at(place: &Place, message: impl Into<String>) -> Self {
        Self { file: place.file.to_path_buf(), line: place.line, message: message.into() }
    }
}

impl fmt::Display for ZoneWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.message)
    }
}
