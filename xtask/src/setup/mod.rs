//! `cargo xtask setup`: what building, running and testing need; each thing looked for, and installed only if it lacks.

mod kernel;
mod linker;
mod packages;

use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    tasks::{need_root, root},
    terminal,
    toolchain::{self, Compiler, Route},
};

/// Programs, the Debian package that has them, and why they are needed.
struct Tools {
    commands: &'static [&'static str],
    package: &'static str,
    why: &'static str,
}

const TOOLS: [Tools; 9] = [
    Tools { commands: &["cc"], package: "build-essential", why: "compiles SQLite and ring's cryptography" },
    Tools { commands: &["ip"], package: "iproute2", why: "the lab's network namespaces, addresses and routes" },
    Tools { commands: &["ethtool"], package: "ethtool", why: "turns checksum offload off on the lab's interfaces" },
    Tools { commands: &["nft"], package: "nftables", why: "loses single packets of the lab" },
    Tools { commands: &["faketime"], package: "faketime", why: "runs the lab's agents with wrong clocks" },
    Tools { commands: &["bpftool"], package: "bpftool", why: "shows maps and programs" },
    Tools { commands: &["sqlite3"], package: "sqlite3", why: "writes with another SQLite than the agent's" },
    Tools { commands: &["dig"], package: "bind9-dnsutils", why: "the tests ask as users do" },
    Tools { commands: &["kdig", "kxdpgun"], package: "knot-dnsutils", why: "more queries, and many of them" },
];

const BENCH_TOOLS: [Tools; 2] = [
    Tools { commands: &["knotd"], package: "knot", why: "a fast name server, to compare with" },
    Tools { commands: &["gdnsd"], package: "gdnsd", why: "a name server that balances, to compare with" },
];

impl Tools {
    fn for_task(bench: bool) -> impl Iterator<Item = &'static Self> {
        TOOLS.iter().chain(if bench { &BENCH_TOOLS[..] } else { &[] })
    }

    fn missing(&self) -> Vec<&'static str> {
        self.commands.iter().copied().filter(|command| toolchain::find(command).is_none()).collect()
    }

    /// Present, if all commands are found, from the package or from elsewhere.
    fn look(&self) -> Result<String, String> {
        let missing = self.missing();
        if missing.is_empty() {
            return Ok(self.commands.join(", "));
        }
        Err(format!("{} (package {}): {}", missing.join(", "), self.package, self.why))
    }
}

/// `setup --check`
pub fn check(bench: bool) -> Result<ExitCode> {
    let compiler = compiler();
    let findings = kernel::look()
        .into_iter()
        .chain([kernel::look_for_bpffs()])
        .chain(Tools::for_task(bench).map(Tools::look))
        .chain([
            compiler.as_ref().map(told).map_err(|error| format!("{error:#}")),
            compiler.as_ref().map_or_else(
                |_| Err("clippy for the XDP program: known when its compiler is there".into()),
                |compiler| compiler.clippy().map(|_| "clippy for the XDP program".into()),
            ),
            toolchain::linker(root()).map(|path| path.display().to_string()),
        ]);
    let mut whole = true;
    terminal::step("looking at this machine");
    for finding in findings {
        match finding {
            Ok(text) => terminal::good(&text),
            Err(text) => {
                whole = false;
                terminal::lack(&text);
            }
        }
    }
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `setup`, and the first step of the tasks that need it.
pub fn install(bench: bool) -> Result<()> {
    terminal::step("looking at this machine");
    if let Some(lack) = kernel::look().into_iter().find_map(Result::err) {
        bail!("this kernel cannot run the XDP program: {lack}");
    }
    if let Err(lack) = kernel::look_for_bpffs() {
        terminal::lack(&lack);
        need_root("mounting it")?;
        kernel::mount_bpffs()?;
    }

    let lacking: Vec<_> = Tools::for_task(bench).filter(|tools| !tools.missing().is_empty()).collect();
    let mut wanted: Vec<_> = lacking.iter().map(|tools| (tools.package.to_owned(), tools.why)).collect();
    wanted.extend(compiler_packages()?.into_iter().map(|(package, why)| (package.to_owned(), why)));
    packages::install(&wanted)?;
    if let Some(lack) = lacking.iter().find_map(|tools| tools.look().err()) {
        bail!("still lacking after the installation: {lack}");
    }

    let compiler = compiler()?;
    linker::install(&compiler)?;
    terminal::good(&told(&compiler));
    Ok(())
}

fn told(compiler: &Compiler) -> String {
    format!("the XDP program's compiler, by the route {} ({})", compiler.route, compiler.name())
}

fn compiler() -> Result<Compiler> {
    let routes = toolchain::routes().map_err(anyhow::Error::msg)?;
    toolchain::compiler(root(), &routes).map_err(|error| anyhow!("{error}"))
}

/// What must be installed for the route that has a compiler, or else for Debian's. An error, if that is no way out.
fn compiler_packages() -> Result<Vec<(&'static str, &'static str)>> {
    const CLIPPY: (&str, &str) = ("rust-web-clippy", "lints the XDP program");
    match compiler() {
        Ok(compiler) if compiler.route == Route::Debian && compiler.clippy().is_err() => Ok(vec![CLIPPY]),
        // Without nightly's clippy everything but `lint` works, and `lint` says so.
        Ok(_) => Ok(Vec::new()),
        Err(error) => {
            let routes = toolchain::routes().map_err(anyhow::Error::msg)?;
            if !routes.contains(&Route::Debian) || !packages::available() {
                return Err(error).context("nothing here installs it by itself; mend one of these");
            }
            for line in error.to_string().lines() {
                eprintln!("  {line}");
            }
            Ok(vec![
                ("rustc-web", "compiles the XDP program"),
                ("cargo-web", "builds it with that compiler"),
                ("libstd-rust-web-dev-bpf", "the core library for the BPF target"),
                CLIPPY,
            ])
        }
    }
}
