//! What a command says on standard output. That nobody reads on (`| head`) is no error, where `println!` would panic.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write as _},
    ops::ControlFlow,
    process::ExitCode,
};

use serde::Serialize;

/// Prints the object, or the text.
pub(super) fn say(json: bool, object: &impl Serialize, text: &str) -> anyhow::Result<ExitCode> {
    let printed = if json { line(serde_json::to_string_pretty(object)?) } else { line(text.trim_end()) };
    printed.break_value().transpose()?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a line. Breaks off if that is not possible, with the reason if that is an error.
pub(super) fn line(line: impl Display) -> ControlFlow<io::Result<()>> {
    match writeln!(io::stdout(), "{line}") {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ControlFlow::Break(Ok(())),
        Err(error) => ControlFlow::Break(Err(error)),
    }
}
