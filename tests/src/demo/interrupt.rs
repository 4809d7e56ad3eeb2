//! Ctrl-C: the lab goes down, then the program ends.

use std::{process, thread};

use anyhow::Result;
use nix::sys::signal::{SigSet, Signal};

use crate::stale;

/// From now on, Ctrl-C, SIGTERM and a closed terminal take this process's labs down and end it. To be called before any
/// thread is started: the signals are blocked in this thread and those it starts.
///
/// # Errors
/// The signals cannot be blocked.
pub fn clean_up_on_signals() -> Result<()> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block()?;
    thread::spawn(move || {
        if let Ok(signal) = signals.wait() {
            eprintln!("\n{signal}: taking the lab down");
            stale::remove_own();
            process::exit(128 + signal as i32);
        }
    });
    Ok(())
}
