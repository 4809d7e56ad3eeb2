//! Bad input gets an error with a place in the file, and nothing else.

use std::path::Path;

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{EXAMPLE, parse, with};

/// Loads it, or checks that every problem has a place in it.
fn survives(text: &str) {
    let Err(error) = parse(text, Path::new("east.toml")) else {
        return;
    };
    assert!(!error.problems.is_empty(), "refused without a reason");
    let lines = text.matches('\n').count() + 1;
    for problem in &error.problems {
        let at = problem.at.expect("a problem has a place");
        assert!((1..=lines).contains(&at.line), "{at:?}");
        assert!(at.column >= 1);
        assert!(problem.message.len() < 1000, "{} is a long message", problem.message);
        assert!(!problem.message.contains(|c: char| c.is_control()), "{:?}", problem.message);
    }
    assert!(error.to_string().starts_with("east.toml:"));
}

/// Things that are wrong in many places.
fn piece() -> impl Strategy<Value = String> {
    let pieces = [
        "\0",
        "\u{feff}",
        "\r",
        "\n",
        "\"",
        "'",
        "[",
        "]",
        "[[",
        "{",
        "}",
        "=",
        ".",
        ",",
        "#",
        "é",
        "\u{202e}",
        "-1",
        "0",
        "99999999999999999999999999",
        "1e999",
        "nan",
        "0xffffffffffffffff",
        "true",
        "\"\"",
        "[]",
        "{}",
        "1979-05-27",
        "\"*.shop.test\"",
        "[database]\n",
        "[database.table.\"a\\n\"]\n",
        "tables = [\"a\\n\", \"A\\n\"]\n",
        "[resources.www]",
        "[dns]\n",
        "\"\\u0000\"",
        "'''",
        "\"::\"",
    ];
    prop_oneof![proptest::sample::select(pieces.to_vec()).prop_map(str::to_owned), any::<String>(),]
}

/// `text` with a span of characters replaced.
fn replaced(text: &str, from: Index, length: usize, by: &str) -> String {
    let places: Vec<usize> = text.char_indices().map(|(place, _)| place).chain([text.len()]).collect();
    let from = from.index(places.len());
    let to = (from + length).min(places.len() - 1);
    format!("{}{by}{}", &text[..places[from]], &text[places[to]..])
}

proptest! {
    #[test]
    fn a_mutated_file_loads_or_gets_an_error_with_a_line(
        changes in vec((any::<Index>(), 0..20_usize, piece()), 1..4)
    ) {
        let text = changes.into_iter().fold(EXAMPLE.to_owned(), |text, (from, length, by)| {
            replaced(&text, from, length, &by)
        });
        survives(&text);
    }

    #[test]
    fn a_value_of_any_kind_anywhere_gets_an_error_with_a_line(at in any::<Index>(), value in piece()) {
        let mut lines: Vec<String> = EXAMPLE.lines().map(str::to_owned).collect();
        let settings: Vec<usize> = (0..lines.len()).filter(|&line| lines[line].contains(" = ")).collect();
        let line = &mut lines[settings[at.index(settings.len())]];
        let key = line.split(" = ").next().unwrap_or_default();
        *line = format!("{key} = {value}");
        survives(&lines.join("\n"));
    }

    #[test]
    fn a_truncated_file_loads_or_gets_an_error_with_a_line(end in any::<Index>()) {
        survives(&replaced(EXAMPLE, end, usize::MAX / 2, ""));
    }

    #[test]
    fn a_file_without_some_lines_loads_or_gets_an_error_with_a_line(
        kept in vec(any::<bool>(), EXAMPLE.lines().count())
    ) {
        let lines = EXAMPLE.lines().zip(kept).filter(|(_, kept)| *kept);
        let lines: Vec<&str> = lines.map(|(line, _)| line).collect();
        survives(&lines.join("\n"));
    }

    #[test]
    fn any_text_gets_an_error_with_a_line(text in any::<String>()) {
        survives(&text);
    }
}

#[test]
fn deep_nesting_is_refused() {
    for (open, close) in [("[", "]"), ("{a=", "}")] {
        let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        survives(&with("\"shop.test.zone\"", &deep));
        survives(&with("\"shop.test.zone\"", &open.repeat(100_000)));
    }
    survives(&format!("{}x = 1", "a.".repeat(10_000)));
    survives(&format!("[{}x]", "a.".repeat(10_000)));
}

#[test]
fn long_things_are_cut_short() {
    let long = "y".repeat(1_000_000);
    for text in [
        with("site = \"east\"", &format!("{long} = 1")),
        with("site = \"east\"", &format!("site = \"{long}\"")),
        with("[sites.west]", &format!("[sites.{long}]")),
        with("tcp = true", &format!("tcp = true\nrise = {}", "9".repeat(100_000))),
        with("\"orders.shop.test\"", &format!("\"{long}\"")),
        with("[resources.orders]", &format!("[resources.{long}]")),
        with("[dataplane]", &format!("[database.table.{long}]\n[dataplane]")),
        with("[resources.orders]", &format!("[resources.orders]\ntables = [\"{long}\", \"{long}\"]")),
    ] {
        survives(&text);
    }
}

#[test]
fn a_hundred_thousand_names_load() {
    use std::fmt::Write;
    let mut names = String::new();
    for number in 0..100_000 {
        write!(names, "\"n{number}.shop.test\",").unwrap();
    }
    let config = super::read(&with("\"orders.shop.test\"", &names));
    assert_eq!(config.resources["orders"].domains.len(), 100_000);
}
