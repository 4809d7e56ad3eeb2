//! One table of the file. Asking for a key makes it known; [`Section::finish`] reports the keys nobody asked for.

use std::borrow::Cow;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::{
    error::{Problems, Span},
    nearest::did_you_mean,
    values::describe,
};

/// A table, present in the file or not.
pub(super) struct Section<'a> {
    /// Dotted, as it would be written in a header. Empty for the whole file.
    path: String,
    span: Span,
    table: Option<&'a DeTable<'a>>,
    /// Its absence has been reported, so that of its keys need not be.
    reported: bool,
    known: Vec<&'static str>,
    problems: &'a Problems,
}

impl<'a> Section<'a> {
    /// The file itself.
    pub(super) fn whole(table: &'a DeTable<'a>, problems: &'a Problems) -> Self {
        Self { path: String::new(), span: 0..0, table: Some(table), reported: false, known: Vec::new(), problems }
    }

    /// Where it starts.
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// Where to report what several sections together do wrong.
    pub(super) fn problems(&self) -> &'a Problems {
        self.problems
    }

    /// Reports something about this section's `key`, or with an empty key about the section.
    pub(super) fn report(&self, span: &Span, key: &str, message: impl AsRef<str>) {
        let name = join(&self.path, key);
        let message = message.as_ref();
        let colon = if name.is_empty() { "" } else { ": " };
        self.problems.report(span, format!("{name}{colon}{message}"));
    }

    /// Whether `key` is given, rightly or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.raw(key).is_some()
    }

    /// Whether `key` is a table.
    pub(super) fn is_section(&self, key: &str) -> bool {
        let value = self.raw(key).map(Spanned::get_ref);
        matches!(value, Some(DeValue::Table(_)))
    }

    /// Whether `key` is a list.
    pub(super) fn is_list(&self, key: &str) -> bool {
        let value = self.raw(key).map(Spanned::get_ref);
        matches!(value, Some(DeValue::Array(_)))
    }

    /// Whether it is not in the file.
    pub(super) fn is_absent(&self) -> bool {
        self.table.is_none()
    }

    /// Whether it is in the file, and holds nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_some_and(|table| table.is_empty())
    }

    /// The place of `key`'s value, or of the section.
    pub(super) fn span_of(&self, key: &str) -> Span {
        self.raw(key).map_or_else(|| self.span.clone(), |value| value.span())
    }

    /// Every key's name.
    pub(super) fn keys(&self) -> Vec<String> {
        let keys = self.table.iter().flat_map(|table| table.keys());
        keys.map(|key| key.get_ref().to_string()).collect()
    }

    /// The value of `key`. `None`: it is not given, or wrong and reported.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'a>) -> Result<T, String>,
    ) -> Option<Spanned<T>> {
        self.known.push(key);
        let value = self.raw(key)?;
        match read(value.get_ref()) {
            Ok(read) => Some(Spanned::new(value.span(), read)),
            Err(message) => {
                self.report(&value.span(), key, message);
                None
            }
        }
    }

    /// The value of `key`, or else `default`.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&DeValue<'a>) -> Result<T, String>,
    ) -> T {
        self.get(key, read).map_or(default, Spanned::into_inner)
    }

    /// The value of `key`, which must be given; `right` says how. `None`: reported.
    pub(super) fn need<T>(
        &mut self,
        key: &'static str,
        right: &str,
        read: impl FnOnce(&DeValue<'a>) -> Result<T, String>,
    ) -> Option<Spanned<T>> {
        if !self.has(key) && !self.reported {
            self.report(&self.span, key, format!("missing; {right}"));
        }
        self.get(key, read)
    }

    /// The list `key`, empty if it is not given. What is wrong in it is reported and left out.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&DeValue<'a>) -> Result<T, String>,
    ) -> Vec<Spanned<T>> {
        self.known.push(key);
        let Some(value) = self.raw(key) else {
            return Vec::new();
        };
        let DeValue::Array(items) = value.get_ref() else {
            let found = describe(value.get_ref());
            self.report(&value.span(), key, format!("found {found}, expected a list, in [ ]"));
            return Vec::new();
        };
        let mut list = Vec::new();
        for item in items {
            match read(item.get_ref()) {
                Ok(value) => list.push(Spanned::new(item.span(), value)),
                Err(message) => self.report(&item.span(), key, message),
            }
        }
        list
    }

    /// As [`Section::list`], but the list must hold something; `right` says what.
    pub(super) fn need_list<T>(
        &mut self,
        key: &'static str,
        right: &str,
        read: impl Fn(&DeValue<'a>) -> Result<T, String>,
    ) -> Vec<Spanned<T>> {
        match self.raw(key).map(Spanned::get_ref) {
            None if self.reported => {}
            None => self.report(&self.span, key, format!("missing; {right}")),
            Some(DeValue::Array(items)) if items.is_empty() => {
                self.report(&self.span_of(key), key, format!("empty; {right}"));
            }
            Some(_) => {}
        }
        self.list(key, read)
    }

    /// The table `key`; an empty one if it is not given.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        self.known.push(key);
        match self.raw(key) {
            Some(value) => self.child(key, value),
            None => self.absent(key, false),
        }
    }

    /// The table `key`, which must be given; `right` says what it is for.
    pub(super) fn need_section(&mut self, key: &'static str, right: &str) -> Section<'a> {
        let missing = !self.has(key);
        if missing {
            let name = join(&self.path, key);
            self.report(&self.span, "", format!("no section [{name}]; {right}"));
        }
        let mut section = self.section(key);
        section.reported |= missing;
        section
    }

    /// The tables in the list `key`, each written under a header of its own.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        self.known.push(key);
        match self.raw(key).map(Spanned::get_ref) {
            None => Vec::new(),
            Some(DeValue::Array(items)) => items.iter().map(|item| self.child(key, item)).collect(),
            Some(other) => {
                let name = join(&self.path, key);
                let found = describe(other);
                let message = format!("found {found}, expected sections [[{name}]]");
                self.report(&self.span_of(key), key, message);
                Vec::new()
            }
        }
    }

    /// Every key as a table of its own, for tables whose keys are names.
    pub(super) fn named(&self) -> Vec<(Spanned<&'a str>, Section<'a>)> {
        let entries = self.table.into_iter().flatten();
        entries
            .map(|(key, value)| {
                let name: &'a Cow<'a, str> = key.get_ref();
                (Spanned::new(key.span(), name.as_ref()), self.child(name, value))
            })
            .collect()
    }

    /// Reports every key that was never asked for.
    pub(super) fn finish(&self) {
        for key in self.table.into_iter().flat_map(|table| table.keys()) {
            let name = key.get_ref().as_ref();
            if !self.known.contains(&name) {
                let known = self.known.iter().copied();
                let mut right = did_you_mean(name, known.clone());
                if right.is_empty() {
                    right = format!("; known here: {}", known.collect::<Vec<_>>().join(", "));
                }
                self.report(&key.span(), name, format!("no such key{right}"));
            }
        }
    }

    fn raw(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table?.get(key)
    }

    fn child(&self, key: &str, value: &'a Spanned<DeValue<'a>>) -> Section<'a> {
        match value.get_ref() {
            DeValue::Table(table) => Section { span: value.span(), table: Some(table), ..self.absent(key, false) },
            other => {
                let name = join(&self.path, key);
                let found = describe(other);
                let message = format!("found {found}, expected a section [{name}]");
                self.report(&value.span(), key, message);
                self.absent(key, true)
            }
        }
    }

    fn absent(&self, key: &str, reported: bool) -> Section<'a> {
        Section {
            path: join(&self.path, key),
            span: self.span.clone(),
            table: None,
            reported,
            known: Vec::new(),
            problems: self.problems,
        }
    }
}

/// `path.key`, with a key that is not a bare one quoted and cut to a length that fits a line.
fn join(path: &str, key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let key = match key {
        "" => return path.to_owned(),
        key if key.len() <= 64 && key.chars().all(bare) => key.to_owned(),
        key => super::values::shown(key),
    };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}
