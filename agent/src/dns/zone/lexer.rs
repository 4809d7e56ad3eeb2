//! A zone file's entries (RFC 1035 §5.1): comments, quotes and parentheses undone, escapes left as they are.
//!
//! hickory-proto's zone parser tells no lines, takes text for UTF-8, splits quoted strings inside parentheses and
//! refuses `@` in RDATA, so this server has its own.

/// One item of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// As written, without quotes.
    pub text: Vec<u8>,
    pub quoted: bool,
}

impl Token {
    /// For messages.
    pub(super) fn show(&self) -> String {
        String::from_utf8_lossy(&self.text).into_owned()
    }
}

/// A directive or a record, possibly over several lines.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where it starts, counted from 1.
    pub line: usize,
    /// It starts with a blank: the owner is the last one stated.
    pub inherits: bool,
    /// At least one.
    pub tokens: Vec<Token>,
}

/// What is wrong, and in which line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub line: usize,
    pub message: String,
}

/// The entries of one file. Nothing follows a fault.
pub(super) struct Entries<'a> {
    rest: &'a [u8],
    line: usize,
}

impl<'a> Entries<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { rest: text, line: 1 }
    }

    /// The next entry; `None` at the end.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, Fault> {
        let mut entry = self.start();
        let mut open: Option<usize> = None;
        while let Some((&byte, tail)) = self.rest.split_first() {
            match byte {
                b'\n' => {
                    self.rest = tail;
                    self.line += 1;
                    if open.is_none() {
                        if !entry.tokens.is_empty() {
                            return Ok(Some(entry));
                        }
                        entry = self.start();
                    }
                }
                b' ' | b'\t' | b'\r' => self.rest = tail,
                b';' => self.skip_comment(),
                b'(' if open.is_some() => {
                    return Err(self.fault("`(` inside `( )`: one pair per entry"));
                }
                b'(' => {
                    open = Some(self.line);
                    self.rest = tail;
                }
                b')' if open.is_none() => return Err(self.fault("`)` without `(`")),
                b')' => {
                    open = None;
                    self.rest = tail;
                }
                _ => {
                    let token = self.token()?;
                    if entry.tokens.is_empty() {
                        entry.line = self.line;
                    }
                    entry.tokens.push(token);
                }
            }
        }
        match open {
            Some(line) => {
                Err(Fault { line, message: "`(` is never closed: write `)` after the entry's last item".into() })
            }
            None => Ok((!entry.tokens.is_empty()).then_some(entry)),
        }
    }

    fn start(&self) -> Entry {
        Entry { line: self.line, inherits: matches!(self.rest.first(), Some(b' ' | b'\t')), tokens: Vec::new() }
    }

    fn fault(&self, message: &str) -> Fault {
        Fault { line: self.line, message: message.into() }
    }

    fn skip_comment(&mut self) {
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        self.rest = &self.rest[end.unwrap_or(self.rest.len())..];
    }

    /// A quoted string or a run of other characters.
    fn token(&mut self) -> Result<Token, Fault> {
        let quoted = self.rest[0] == b'"';
        let text = &self.rest[usize::from(quoted)..];
        let mut length = 0;
        while let Some(&byte) = text.get(length) {
            match byte {
                b'"' if quoted => break,
                b'\n' if quoted => {
                    return Err(self.fault("the quoted string is not closed on its line"));
                }
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(' | b')' | b'"' if !quoted => break,
                b'\\' if matches!(text.get(length + 1), None | Some(b'\n')) => {
                    return Err(self.fault("`\\` has nothing after it"));
                }
                b'\\' => length += 2,
                b'\t' => length += 1,
                0..=31 | 127 => {
                    let message = format!("the byte 0x{byte:02x} is not text: write it as \\{byte:03}");
                    return Err(self.fault(&message));
                }
                _ => length += 1,
            }
        }
        if quoted && length == text.len() {
            return Err(self.fault("the quoted string is never closed"));
        }
        let token = Token { text: text[..length].to_vec(), quoted };
        self.rest = &text[length + usize::from(quoted)..];
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Result<Vec<(usize, bool, Vec<String>)>, Fault> {
        let mut entries = Entries::new(text.as_bytes());
        let mut all = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            let tokens = entry.tokens.iter().map(Token::show).collect();
            all.push((entry.line, entry.inherits, tokens));
        }
        Ok(all)
    }

    #[test]
    fn rfc1035_5_1_entries() {
        let text =
            "; a comment\n\n@ IN SOA a b ( 1 ; serial\n  2\n\t3 )\n\t NS ns1\r\n \t ; nothing\nx TXT \"a;(b\" c\\;d";
        let expected = vec![
            (3, false, ["@", "IN", "SOA", "a", "b", "1", "2", "3"].map(String::from).to_vec()),
            (6, true, ["NS", "ns1"].map(String::from).to_vec()),
            (8, false, ["x", "TXT", "a;(b", "c\\;d"].map(String::from).to_vec()),
        ];
        assert_eq!(entries(text).unwrap(), expected);
    }

    #[test]
    fn faults_name_the_line_to_mend() {
        for (text, line) in [
            ("a\nb ( c\nd", 2),
            ("a\nb ) c", 2),
            ("a \"b\nc\"", 1),
            ("a \"b", 1),
            ("a (\n( b ) )", 2),
            ("a\n\0", 2),
            ("a\nb\\\n", 2),
        ] {
            assert_eq!(entries(text).unwrap_err().line, line, "{text:?}");
        }
    }
}
