//! What can go wrong between the agent and the kernel, each with what to do about it.

use std::{error::Error as StdError, io, path::PathBuf};

use aya::{EbpfError, programs::ProgramError};
use nix::{errno::Errno, net::if_::if_nameindex};

/// Why the program could not be loaded, attached, fed or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration names an interface this host does not have.
    #[error("`dataplane.interfaces` names `{name}`, but this host has no such interface; it has {existing}")]
    NoInterface {
        /// As configured.
        name: String,
        /// Those that exist.
        existing: String,
    },
    /// No root, or a container that lets nobody use BPF.
    #[error("not permitted to {doing}: run the agent as root, or give it CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")]
    NotPermitted {
        /// What was tried.
        doing: String,
    },
    /// The kernel lacks something the program needs.
    #[error(
        "this kernel ({release}) lacks {lacks}: Linux 6.1 or newer, built with CONFIG_BPF_SYSCALL and \
         CONFIG_DEBUG_INFO_BTF, is needed; or leave `dataplane.interfaces` empty, and the agent's own server answers"
    )]
    OldKernel {
        /// `uname -r`.
        release: String,
        /// What lacks.
        lacks: String,
    },
    /// `dataplane.pins` is somewhere else than on a BPF file system.
    #[error(
        "`dataplane.pins` is {}, which is not on a BPF file system: mount -t bpf bpf /sys/fs/bpf, \
         or choose a directory below one", .path.display()
    )]
    NoBpffs {
        /// As configured.
        path: PathBuf,
    },
    /// A file or directory below `dataplane.pins` does not do as it is told.
    #[error("{} (below `dataplane.pins`): {cause}", .path.display())]
    Pin {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        cause: String,
    },
    /// The pin directory cannot change under a running program.
    #[error("`dataplane.pins` cannot change from {} to {} while the agent runs: restart it", .from.display(), .to.display())]
    PinsMoved {
        /// In use.
        from: PathBuf,
        /// Wanted.
        to: PathBuf,
    },
    /// More of something than the program has room for.
    #[error("there are {count} {what}, but the program has room for at most {most}")]
    TooMany {
        /// Of what, and what they are for.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// The kernel's verifier does not accept the program.
    #[error(
        "the kernel's verifier refused the program `{program}` ({cause}). This is a defect of siteswap or of this \
         kernel; please report it with the end of the verifier's log:\n{log}"
    )]
    Refused {
        /// The program's name.
        program: &'static str,
        /// The error number's text.
        cause: String,
        /// The last lines.
        log: String,
    },
    /// The program is loaded, but an interface does not take it.
    #[error("cannot attach to `{interface}` ({mode} mode): {cause}")]
    Attach {
        /// The interface.
        interface: String,
        /// `native` or `generic`.
        mode: &'static str,
        /// Why, and what to do.
        cause: String,
    },
    /// An interface has a program already that is not ours.
    #[error(
        "cannot attach to `{interface}`: another XDP program is on it (`bpftool net` shows which); detach that, or choose \
         another interface"
    )]
    Taken {
        /// The interface.
        interface: String,
    },
    /// The compiled-in object is not what this agent expects.
    #[error("the program's object file: {0}")]
    Object(String),
    /// A map operation failed.
    #[error("the map {map}: {cause}")]
    Map {
        /// The map's name.
        map: &'static str,
        /// What the kernel said.
        cause: String,
    },
}

/// Verifier's lines that are worth showing.
const LOG_LINES: usize = 24;

impl Error {
    /// For what the loader reports.
    pub(super) fn loading(error: EbpfError) -> Self {
        match errno(&error) {
            Some(Errno::EPERM | Errno::EACCES) => Self::permission("load maps"),
            Some(Errno::ENOSYS) => Self::kernel("the bpf system call"),
            _ => Self::Object(chain(&error)),
        }
    }

    /// For what the verifier reports.
    pub(super) fn verifying(program: &'static str, error: ProgramError) -> Self {
        match error {
            ProgramError::LoadError { io_error, verifier_log } => {
                let log = verifier_log.to_string();
                // Without a log it was not the verifier that said no.
                if log.trim().is_empty() && io_error.kind() == io::ErrorKind::PermissionDenied {
                    return Self::permission("load the program");
                }
                Self::Refused { program, cause: io_error.to_string(), log: tail(&log) }
            }
            other => Self::Object(chain(&other)),
        }
    }

    /// For a failed operation on a map.
    pub(super) fn map(map: &'static str) -> impl Fn(aya::maps::MapError) -> Self {
        move |error| Self::Map { map, cause: chain(&error) }
    }

    pub(super) fn no_interface(name: &str) -> Self {
        let existing: Vec<_> = if_nameindex()
            .map(|all| all.iter().map(|interface| interface.name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        Self::NoInterface { name: name.to_owned(), existing: existing.join(", ") }
    }

    pub(super) fn permission(doing: &str) -> Self {
        Self::NotPermitted { doing: doing.to_owned() }
    }

    pub(super) fn kernel(lacks: &str) -> Self {
        let release = nix::sys::utsname::uname()
            .map_or_else(|_| "unknown".to_owned(), |name| name.release().to_string_lossy().into_owned());
        Self::OldKernel { release, lacks: lacks.to_owned() }
    }
}

/// The error number at the bottom of `error`.
pub(super) fn errno(error: &(dyn StdError + 'static)) -> Option<Errno> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error().map(Errno::from_raw);
        }
        next = error.source();
    }
    None
}

/// An error and its causes in one line, each said once.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_shows_the_end_of_the_verifiers_log() {
        let log = (1..=100).map(|line| format!("line {line}")).collect::<Vec<_>>().join("\n");
        let shown = tail(&log);
        assert!(shown.starts_with("line 77\n") && shown.ends_with("line 100"), "{shown}");
        assert_eq!(tail("short"), "short");
    }

    #[test]
    fn the_error_number_is_found_below_any_wrapping() {
        let syscall = aya::sys::SyscallError {
            call: "bpf_link_update",
            io_error: io::Error::from_raw_os_error(Errno::ENOLINK as i32),
        };
        let error = ProgramError::SyscallError(syscall);
        assert_eq!(errno(&error), Some(Errno::ENOLINK));
        assert!(chain(&error).contains("Link has been severed"), "{}", chain(&error));
    }
}
