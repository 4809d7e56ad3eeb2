//! The demonstration.

use std::process::ExitCode;

use anyhow::Result;

/// Runs it.
///
/// # Errors
/// Something was not as expected.
pub fn run() -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
