//! What generated columns are made from.

/// All columns of a table, the generated ones among them, in the order in which the table has them.
#[derive(Default)]
pub(super) struct Bases(Vec<(String, Base)>);

/// Where a column's values come from.
pub(super) enum Base {
    /// They are its own; its place among the columns that are not generated.
    Column(u16),
    /// They are computed from columns with these names, perhaps.
    Generated(Vec<String>),
}

impl Bases {
    pub(super) fn push(&mut self, name: &str, base: Base) {
        self.0.push((name.to_owned(), base));
    }

    /// The column that is not generated at this place among all.
    pub(super) fn plain(&self, place: i64) -> Option<u16> {
        match self.0.get(usize::try_from(place).ok()?) {
            Some((_, Base::Column(column))) => Some(*column),
            _ => None,
        }
    }

    /// The columns behind the one at this place among all.
    pub(super) fn of(&self, place: i64) -> Vec<u16> {
        usize::try_from(place)
            .ok()
            .and_then(|place| self.0.get(place))
            .map(|(_, base)| self.behind(base))
            .unwrap_or_default()
    }

    /// The columns behind the one with this name.
    pub(super) fn named(&self, name: &str) -> Vec<u16> {
        let found = self.0.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, base)| self.behind(base)).unwrap_or_default()
    }

    fn behind(&self, base: &Base) -> Vec<u16> {
        match base {
            Base::Column(column) => vec![*column],
            Base::Generated(names) => self.through(names),
        }
    }

    /// The columns behind these names. Each generated column is entered once: SQLite refuses real loops, but a function
    /// may be called as a column is.
    fn through(&self, names: &[String]) -> Vec<u16> {
        let mut found = Vec::new();
        let mut entered = vec![false; self.0.len()];
        let mut waiting: Vec<&String> = names.iter().collect();
        while let Some(name) = waiting.pop() {
            match self.0.iter().position(|(own, _)| own.eq_ignore_ascii_case(name)) {
                Some(at) if !entered[at] => {
                    entered[at] = true;
                    match &self.0[at].1 {
                        Base::Column(column) => found.push(*column),
                        Base::Generated(names) => waiting.extend(names),
                    }
                }
                _ => {}
            }
        }
        found
    }
}
