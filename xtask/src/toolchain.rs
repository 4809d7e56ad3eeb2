//! Which compiler and linker build the XDP program. One piece of code for the agent's build script and for `xtask`,
//! so that what set-up promises is what the build then finds.
//!
//! Two routes lead to an object for the BPF target, which needs a `core` library that rustup does not ship:
//!
//! - [`Route::Rustup`]: the nightly toolchain compiles `core` from its `rust-src` component (`-Z build-std=core`).
//! - [`Route::Debian`]: Debian's `rustc-web` has a prebuilt `core` for the target. It is a release compiler, so
//!   `RUSTC_BOOTSTRAP` allows the one crate that needs it, aya-ebpf, its unstable features (inline assembly).

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

/// Set to `rustup` or `debian`, it forces that route.
pub const FORCE: &str = "SITESWAP_TOOLCHAIN";

/// What the XDP program is compiled for.
pub const TARGET: &str = if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };

/// The package and binary that is built.
pub const PACKAGE: &str = "siteswap-ebpf";

/// The oldest compiler of the workspace (`rust-version`): 1 point this.
const OLDEST_MINOR: u32 = 89;

/// Where Debian's compiler is: named in full, because rustup's shims usually come first on `PATH`.
const DEBIAN_BIN: &str = "/usr/bin";

/// How the program's compiler comes onto a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// rustup's nightly with `rust-src`.
    Rustup,
    /// Debian's packages.
    Debian,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rustup => "rustup: nightly with rust-src",
            Self::Debian => "debian: rustc-web with a prebuilt core",
        })
    }
}

/// A compiler that can build for [`TARGET`].
#[derive(Debug)]
pub struct Compiler {
    /// The route it came by.
    pub route: Route,
    /// `rustc -vV`.
    pub version: String,
    tools: PathBuf,
}

/// Why neither route has a compiler.
#[derive(Debug)]
pub struct NoCompiler {
    /// Each route that was tried, with what it lacks.
    pub lacks: Vec<(Route, String)>,
}

impl fmt::Display for NoCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no compiler here can build the XDP program for {TARGET}:")?;
        for (route, lack) in &self.lacks {
            write!(f, "\n  - {route}: {lack}")?;
        }
        Ok(())
    }
}

/// The directory for tools that set-up installs: `root` is the workspace's.
pub fn tools(root: &Path) -> PathBuf {
    root.join("target/tools")
}

/// The routes that may be taken, better one first. An error if [`FORCE`] names none.
pub fn routes() -> Result<Vec<Route>, String> {
    match env::var(FORCE).as_deref() {
        Err(_) | Ok("") => Ok(vec![Route::Rustup, Route::Debian]),
        Ok("rustup") => Ok(vec![Route::Rustup]),
        Ok("debian") => Ok(vec![Route::Debian]),
        Ok(other) => Err(format!("{FORCE} is `{other}`, but must be `rustup` or `debian`, or not be set")),
    }
}

/// The first of `routes` whose compiler can build the program.
pub fn compiler(root: &Path, routes: &[Route]) -> Result<Compiler, NoCompiler> {
    let mut lacks = Vec::new();
    for &route in routes {
        let version = match route {
            Route::Rustup => rustup(),
            Route::Debian => debian(),
        };
        match version {
            Ok(version) => {
                return Ok(Compiler { route, version, tools: tools(root) });
            }
            Err(lack) => lacks.push((route, lack)),
        }
    }
    Err(NoCompiler { lacks })
}

/// A `bpf-linker` that runs: the project's own, or else the one on `PATH`.
pub fn linker(root: &Path) -> Result<PathBuf, String> {
    let own = tools(root).join("bin/bpf-linker");
    let found = if own.exists() { Some(own) } else { find("bpf-linker") };
    let path = found.ok_or("bpf-linker is neither in target/tools/bin nor on PATH")?;
    output(Command::new(&path).arg("--version"))
        .map_err(|error| format!("{} does not run: {error}", path.display()))?;
    Ok(path)
}

/// The executable `name` on `PATH`, or in the directories of system tools that a user's `PATH` may leave out.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

impl Compiler {
    /// LLVM's major version, which `bpf-linker`'s must not be older than.
    pub fn llvm(&self) -> Option<u32> {
        let line = self.version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
        line.split('.').next()?.parse().ok()
    }

    /// `rustc`'s own name for its version.
    pub fn name(&self) -> &str {
        self.version.lines().next().unwrap_or("rustc")
    }

    /// Makes `command`, which runs this route's cargo or something that will, see this compiler and nothing that an
    /// outer cargo set for its own.
    pub fn prepare(&self, command: &mut Command) {
        const OUTER: [&str; 12] = [
            "CARGO",
            "CARGO_BUILD_RUSTC",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "CLIPPY_ARGS",
            "RUSTC",
            "RUSTC_BOOTSTRAP",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
        ];
        for variable in OUTER {
            command.env_remove(variable);
        }
        command.env("PATH", self.path());
        // The program is built alike whatever the host's profiles say.
        for (key, value) in [("LTO", "true"), ("CODEGEN_UNITS", "1"), ("PANIC", "abort"), ("OPT_LEVEL", "3")] {
            command.env(format!("CARGO_PROFILE_RELEASE_{key}"), value);
        }
        if self.route == Route::Debian {
            command.env("RUSTC_BOOTSTRAP", "aya_ebpf");
            // Cargo puts its own toolchain's libraries there.
            command.env_remove("LD_LIBRARY_PATH");
        }
    }

    /// Clippy for [`TARGET`] by this route, to be given arguments as `cargo clippy` is; or what it lacks.
    pub fn clippy(&self) -> Result<Command, String> {
        let mut command = match self.route {
            Route::Rustup => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo-clippy", "clippy", "-Zbuild-std=core"]);
                let mut probe = Command::new("rustup");
                output(self.prepared(probe.args(["run", "nightly", "cargo-clippy", "--version"]))).map_err(
                    |error| format!("nightly's clippy ({error}): rustup component add --toolchain nightly clippy"),
                )?;
                command
            }
            Route::Debian => {
                // Not `cargo clippy`, which would prefer rustup's shim in cargo's own bin directory.
                let path = Path::new(DEBIAN_BIN).join("cargo-clippy");
                if !path.exists() || is_rustup(&path) {
                    return Err("Debian's clippy: apt-get install rust-web-clippy".into());
                }
                let mut command = Command::new(path);
                command.arg("clippy");
                command
            }
        };
        self.prepare(&mut command);
        let arch = env::consts::ARCH;
        command.env("CARGO_ENCODED_RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{arch}\"")).args([
            "--package",
            PACKAGE,
            "--bins",
            "--release",
            "--target",
            TARGET,
        ]);
        if self.route == Route::Debian {
            command.env("CARGO", Path::new(DEBIAN_BIN).join("cargo"));
        }
        Ok(command)
    }

    fn prepared<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        self.prepare(command);
        command
    }

    /// The search path: the project's tools first, and for Debian's compiler nothing that leads to rustup's.
    fn path(&self) -> OsString {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut directories = vec![self.tools.join("bin")];
        match self.route {
            Route::Rustup => directories.extend(env::split_paths(&path)),
            Route::Debian => {
                directories.push(DEBIAN_BIN.into());
                directories.extend(env::split_paths(&path).filter(|directory| !directory.join("rustup").exists()));
            }
        }
        env::join_paths(directories).unwrap_or(path)
    }
}

/// What the rustup route's compiler says of itself, or what it lacks.
fn rustup() -> Result<String, String> {
    if find("rustup").is_none() {
        return Err("rustup is not on PATH".into());
    }
    let rustc = |argument: &[&str]| {
        let mut command = Command::new("rustup");
        command.env("RUSTUP_AUTO_INSTALL", "0").env_remove("RUSTUP_TOOLCHAIN");
        output(command.args(["run", "nightly", "rustc"]).args(argument))
    };
    let sysroot = rustc(&["--print", "sysroot"]).map_err(|error| {
        format!(
            "the nightly toolchain is not installed ({error}): rustup toolchain install nightly --component rust-src"
        )
    })?;
    let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs");
    if !source.exists() {
        return Err("the nightly toolchain lacks its component rust-src (the source of `core`): \
             rustup component add --toolchain nightly rust-src"
            .into());
    }
    rustc(&["-vV"])
}

/// What Debian's compiler says of itself, or what it lacks.
fn debian() -> Result<String, String> {
    for (program, package) in [("rustc", "rustc-web"), ("cargo", "cargo-web")] {
        let path = Path::new(DEBIAN_BIN).join(program);
        if !path.exists() {
            return Err(format!("{} does not exist: apt-get install {package}", path.display()));
        }
        if is_rustup(&path) {
            return Err(format!("{} is rustup's, not Debian's {package}", path.display()));
        }
    }
    let rustc = |argument: &[&str]| output(Command::new(Path::new(DEBIAN_BIN).join("rustc")).args(argument));
    let sysroot = rustc(&["--print", "sysroot"])?;
    let libraries = Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).join("lib");
    let core =
        std::fs::read_dir(&libraries).is_ok_and(|entries| entries.flatten().any(|entry| is_core(&entry.file_name())));
    if !core {
        return Err(format!(
            "there is no prebuilt `core` in {}: apt-get install libstd-rust-web-dev-bpf",
            libraries.display()
        ));
    }
    let version = rustc(&["-vV"])?;
    let minor = version.strip_prefix("rustc 1.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    if minor.is_none_or(|minor| minor < OLDEST_MINOR) {
        return Err(format!(
            "{} is older than 1.{OLDEST_MINOR}: a newer rustc-web is in Debian's security archive \
             (apt-get update && apt-get install rustc-web cargo-web libstd-rust-web-dev-bpf)",
            version.lines().next().unwrap_or("rustc-web")
        ));
    }
    Ok(version)
}

fn is_core(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("libcore-") && name.ends_with(".rlib")
}

fn is_rustup(program: &Path) -> bool {
    program.canonicalize().is_ok_and(|path| path.file_name() == Some(OsStr::new("rustup")))
}

/// Standard output, or why there is none.
fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(stderr.lines().next().unwrap_or("it failed silently").trim().to_owned())
}
