//! What is said about a file that is wrong.

use std::{
    cell::RefCell,
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
};

/// At most this many problems are printed; a file with more is best mended from the top.
const SHOWN: usize = 25;

/// Why a configuration was refused. Displayed as one line per problem: `FILE:LINE:COLUMN: what is wrong; what would be
/// right`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: PathBuf,
    /// At least one, in the order of the file.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `None`: the file could not be read at all.
    pub at: Option<Position>,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// A place in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

impl ConfigError {
    pub(super) fn unreadable(file: &Path, error: &io::Error) -> Self {
        Self {
            file: file.to_owned(),
            problems: vec![Problem { at: None, message: format!("cannot be read: {error}") }],
        }
    }

    pub(super) fn not_text(file: &Path, bytes: &[u8], offset: usize) -> Self {
        let good = String::from_utf8_lossy(&bytes[..offset]);
        let byte = bytes[offset];
        Self {
            file: file.to_owned(),
            problems: vec![Problem {
                at: Some(Position::of(&good, good.len())),
                message: format!("byte 0x{byte:02x} is not UTF-8; save the file as UTF-8 text"),
            }],
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().take(SHOWN).enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", self.file.display())?;
            if let Some(Position { line, column }) = problem.at {
                write!(f, "{line}:{column}:")?;
            }
            write!(f, " {}", problem.message)?;
        }
        match self.problems.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n{}: and {more} more", self.file.display()),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Position {
    /// Of the byte at `offset`.
    fn of(text: &str, offset: usize) -> Self {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

/// Bytes of the text that something stands in.
pub(super) type Span = Range<usize>;

/// What has been found wrong so far.
#[derive(Default)]
pub(super) struct Problems(RefCell<Vec<(usize, String)>>);

impl Problems {
    pub(super) fn report(&self, span: &Span, message: impl Into<String>) {
        self.0.borrow_mut().push((span.start, message.into()));
    }

    pub(super) fn syntax(&self, text: &str, error: &toml::de::Error) {
        let span = error.span().unwrap_or(0..0);
        let message = match (error.message(), text.get(span.clone())) {
            ("duplicate key", Some(key)) => {
                format!("{key} is already given above; keep one of them")
            }
            (message, _) => format!("not TOML: {message}"),
        };
        self.report(&span, message);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    pub(super) fn into_error(self, text: &str, file: &Path) -> ConfigError {
        let mut found = self.0.into_inner();
        found.sort_by_key(|(offset, _)| *offset);
        let problems =
            found.into_iter().map(|(offset, message)| Problem { at: Some(Position::of(text, offset)), message });
        ConfigError { file: file.to_owned(), problems: problems.collect() }
    }
}
