//! The little that must be read out of a CREATE TABLE's text, because no pragma tells it.

/// Names of columns, perhaps, that occur in one expression. There may be too many (functions, collations, double-quoted
/// strings), never too few.
pub(super) type Names = Vec<String>;

/// The expressions in a table's definition.
#[derive(Default)]
pub(super) struct Expressions {
    /// Names in each CHECK.
    pub checks: Vec<Names>,
    /// Each generated column, and the names in its expression.
    pub generated: Vec<(String, Names)>,
}

/// Reads the text of a CREATE TABLE.
pub(super) fn expressions(create_table: &str) -> Expressions {
    let mut found = Expressions::default();
    let mut tokens = tokens(create_table).skip_while(|token| *token != Token::Open).skip(1);
    let mut column = None;
    let mut start = true;
    while let Some(token) = tokens.next() {
        match &token {
            Token::Comma => {
                start = true;
                continue;
            }
            Token::Name(name) | Token::Word(name) if start => column = Some(name.clone()),
            Token::Close => break,
            Token::Open => {
                parenthesised(&mut tokens);
            }
            _ => {}
        }
        start = false;
        // CHECK and AS are reserved: no column or type can be called so without quotes. Both precede a parenthesis.
        if token.is("CHECK") {
            tokens.next();
            found.checks.push(parenthesised(&mut tokens));
        } else if token.is("AS") {
            tokens.next();
            let names = parenthesised(&mut tokens);
            found.generated.extend(column.clone().map(|column| (column, names)));
        }
    }
    found
}

/// Reads the text of a CREATE TRIGGER: is it fired AFTER a statement has changed a row, and may it say `RAISE(IGNORE)` then?
pub(super) fn ignores_afterwards(create_trigger: &str) -> bool {
    let tokens: Vec<Token> = tokens(create_trigger).collect();
    let begin = tokens.iter().position(|token| token.is("BEGIN")).unwrap_or(tokens.len());
    let after = tokens[..begin].iter().any(|token| token.is("AFTER"));
    after && tokens.windows(3).any(|three| three[0].is("RAISE") && three[1] == Token::Open && three[2].is("IGNORE"))
}

/// Does a CREATE TABLE say what to do ON CONFLICT?
pub(super) fn has_conflict_clauses(create_table: &str) -> bool {
    let tokens: Vec<Token> = tokens(create_table).collect();
    tokens.windows(2).any(|two| two[0].is("ON") && two[1].is("CONFLICT"))
}

/// All names in a statement's text.
pub(super) fn names(sql: &str) -> Names {
    let names = tokens(sql).filter_map(|token| match token {
        Token::Name(name) | Token::Word(name) => Some(name),
        _ => None,
    });
    names.collect()
}

/// Names up to the parenthesis that closes one already read.
fn parenthesised(tokens: &mut impl Iterator<Item = Token>) -> Names {
    let mut names = Vec::new();
    let mut depth = 1;
    for token in tokens {
        match token {
            Token::Open => depth += 1,
            Token::Close => depth -= 1,
            Token::Name(name) | Token::Word(name) => names.push(name),
            Token::Comma | Token::Other => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A quoted name, the quotes taken off.
    Name(String),
    /// A keyword or a name.
    Word(String),
    Open,
    Close,
    Comma,
    /// Anything else: operators, numbers, strings.
    Other,
}

impl Token {
    fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word.eq_ignore_ascii_case(keyword))
    }
}

fn tokens(sql: &str) -> impl Iterator<Item = Token> {
    let mut rest = sql;
    std::iter::from_fn(move || {
        rest = skip_blank(rest);
        let first = rest.chars().next()?;
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            '\'' => (Token::Other, quoted_length(rest, '\'')),
            '"' | '`' => {
                let length = quoted_length(rest, first);
                let doubled = String::from_iter([first, first]);
                (Token::Name(inside(rest, length).replace(&doubled, &first.to_string())), length)
            }
            '[' => {
                let length = rest.find(']').map_or(rest.len(), |end| end + 1);
                (Token::Name(inside(rest, length).to_owned()), length)
            }
            _ if is_word(first) => {
                let length = rest.find(|other| !is_word(other)).unwrap_or(rest.len());
                (Token::Word(rest[..length].to_owned()), length)
            }
            _ => (Token::Other, first.len_utf8()),
        };
        rest = &rest[length..];
        Some(token)
    })
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '$') || !character.is_ascii()
}

/// The quoted text at the front, its `length` with the quotes, without them.
fn inside(text: &str, length: usize) -> &str {
    text.get(1..length.saturating_sub(1)).unwrap_or_default()
}

/// The length of the quoted text at the front, quotes included; a doubled quote does not end it.
fn quoted_length(text: &str, quote: char) -> usize {
    let mut rest = &text[1..];
    while let Some(at) = rest.find(quote) {
        rest = &rest[at + 1..];
        match rest.strip_prefix(quote) {
            Some(after) => rest = after,
            None => return text.len() - rest.len(),
        }
    }
    text.len()
}

/// Without white space and comments at the front.
fn skip_blank(text: &str) -> &str {
    let mut rest = text.trim_start();
    loop {
        let end = if rest.starts_with("--") {
            rest.find('\n').map(|at| at + 1)
        } else if rest.starts_with("/*") {
            rest.find("*/").map(|at| at + 2)
        } else {
            return rest;
        };
        rest = rest[end.unwrap_or(rest.len())..].trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_and_generated_columns_are_found_whatever_the_spelling() {
        let found = expressions(
            "CREATE TABLE \"odd (name, CHECK\" (\n a INT CHECK (a < \"b \"\"q\") -- CHECK (no, comment)\n, \"b \"\"q\" DECIMAL(10,2)\
             DEFAULT (')' || 'x'), [c d] AS (a + `e`) STORED, e /* CHECK(a, e) */ TEXT check(e in ('a,b', 'it''s')), \
             CONSTRAINT n CHECK ((a) > max(e, 3)), UNIQUE(a, e)) WITHOUT ROWID",
        );
        assert_eq!(found.checks, [vec!["a", "b \"q"], vec!["e", "in"], vec!["a", "max", "e", "3"]]);
        assert_eq!(found.generated, [("c d".to_owned(), vec!["a".to_owned(), "e".to_owned()])]);
    }

    #[test]
    fn triggers_that_ignore_what_has_happened_are_found_whatever_the_spelling() {
        let trigger = |when, what| format!("CREATE TRIGGER \"begin\" {when} UPDATE ON t BEGIN SELECT {what}; END");
        assert!(ignores_afterwards(&trigger("after", "raise ( /* so */ ignore )")));
        for (when, what) in [("BEFORE", "RAISE(IGNORE)"), ("", "RAISE(IGNORE)"), ("AFTER", "RAISE(ABORT, 'IGNORE')")] {
            assert!(!ignores_afterwards(&trigger(when, what)), "{when} {what}");
        }
    }

    #[test]
    fn text_that_ends_too_early_is_read_to_its_end() {
        for text in
            ["", "CREATE TABLE t", "CREATE TABLE t(a CHECK(a", "CREATE TABLE t(\"a", "CREATE TABLE t(a /*", "(a AS"]
        {
            expressions(text);
        }
    }
}
