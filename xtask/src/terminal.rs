//! What a person sees: progress and errors on standard error, in colour only where that is wanted.

use std::{
    env,
    io::{IsTerminal, stderr},
};

fn paint(code: &str, text: &str) -> String {
    let wanted = stderr().is_terminal()
        && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && env::var_os("TERM").is_none_or(|value| value != "dumb");
    if wanted { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Announces a step.
pub fn step(text: &str) {
    eprintln!("{} {text}", paint("1;36", "==>"));
}

/// Something that is as it should be.
pub fn good(text: &str) {
    eprintln!("  {} {text}", paint("32", "ok"));
}

/// Something that lacks.
pub fn lack(text: &str) {
    eprintln!("  {} {text}", paint("33", "lacks"));
}

/// Something that is not as it should be.
pub fn bad(text: &str) {
    eprintln!("  {} {text}", paint("31", "noticed by"));
}

/// The error that ends the command.
pub fn error(error: &anyhow::Error) {
    eprintln!("{} {error:#}", paint("1;31", "error:"));
}
