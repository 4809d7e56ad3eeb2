//! `cargo xtask mutations`: takes parts out of the replication, one at a time, and sees whether the tests notice.
//!
//! A mutation is an edit of the crate's source. It is made in a copy of the crate in `target/mutations`, a workspace of its own
//! that nothing else is built from.

mod list;

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::{
    tasks::{cargo, root},
    terminal,
};

use list::{Edit, MUTATIONS, Mutation, Test};

/// The crate that is mutated: its package, and its directory in the workspace.
const PACKAGE: &str = "siteswap-replication";
const DIRECTORY: &str = "replication";
/// A test that has not ended by then never will.
const PATIENCE: Duration = Duration::from_secs(300);

/// Prints what there is to take out, and what should notice.
pub fn list() -> ExitCode {
    for mutation in MUTATIONS {
        println!("{:<22} {}", mutation.name, mutation.without);
        println!("{:<22} noticed by {}", "", mutation.noticed_by);
    }
    ExitCode::SUCCESS
}

/// Makes the mutations of these names, or all.
pub fn run(names: &[String]) -> Result<ExitCode> {
    let chosen = choose(names)?;
    let copy = Copy::make()?;
    terminal::step("the tests without any mutation");
    let mut tests: Vec<_> = chosen.iter().map(|mutation| mutation.noticed_by).collect();
    tests.sort_unstable();
    tests.dedup();
    for test in tests {
        let log = copy.log("none");
        let ended = copy.run(test, &log)?;
        ensure!(ended == Ended::Passed, "{test}: {ended}; nothing can be said about mutations. See {}", log.display());
    }
    let mut table = Vec::new();
    for (at, mutation) in chosen.iter().enumerate() {
        terminal::step(&format!("{} of {}: without {}", at + 1, chosen.len(), mutation.without));
        let start = Instant::now();
        let verdict = copy.try_out(mutation).with_context(|| format!("mutation {}", mutation.name))?;
        if verdict.is_noticed() {
            terminal::good(&verdict.to_string());
        } else {
            terminal::bad(&verdict.to_string());
        }
        table.push((mutation, verdict, start.elapsed()));
    }
    println!("{:<22} {:>7}  noticed by", "mutation", "seconds");
    for (mutation, verdict, took) in &table {
        println!("{:<22} {:>7.1}  {verdict}", mutation.name, took.as_secs_f64());
    }
    let missed = table.iter().filter(|(_, verdict, _)| !verdict.is_noticed()).count();
    println!("{} of {} noticed", table.len() - missed, table.len());
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn choose(names: &[String]) -> Result<Vec<&'static Mutation>> {
    if names.is_empty() {
        return Ok(MUTATIONS.iter().collect());
    }
    let find = |name: &String| {
        let found = MUTATIONS.iter().find(|mutation| mutation.name == name);
        found.with_context(|| format!("there is no mutation {name}; `cargo xtask mutations --list` names them"))
    };
    names.iter().map(find).collect()
}

/// The copy of the crate.
struct Copy(PathBuf);

impl Copy {
    fn make() -> Result<Self> {
        let copy = Self(root().join("target/mutations"));
        terminal::step(&format!("a copy of {DIRECTORY}/ in {}", copy.0.display()));
        let manifest = fs::read_to_string(root().join("Cargo.toml"))?;
        let manifest = manifest.lines().map(|line| match line.split_once(" = ") {
            Some((members @ ("members" | "default-members"), _)) => format!("{members} = [\"{DIRECTORY}\"]\n"),
            _ => format!("{line}\n"),
        });
        let files = copy.0.join(DIRECTORY);
        if files.exists() {
            fs::remove_dir_all(&files)?;
        }
        copy_all(&root().join(DIRECTORY), &files)?;
        fs::write(copy.0.join("Cargo.toml"), manifest.collect::<String>())?;
        fs::copy(root().join("Cargo.lock"), copy.0.join("Cargo.lock"))?;
        Ok(copy)
    }

    /// Where cargo's and the tests' output goes.
    fn log(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.log"))
    }

    fn cargo(&self, test: Test, log: &Path) -> Result<Command> {
        let output = File::options().append(true).create(true).open(log)?;
        let mut command = cargo();
        command.current_dir(&self.0).env("CARGO_TARGET_DIR", self.0.join("target")).env("CARGO_TERM_COLOR", "never");
        command.args(["test", "--package", PACKAGE, "--test", test.target]);
        command.stdout(output.try_clone()?).stderr(output);
        Ok(command)
    }

    /// Builds and runs tests.
    fn run(&self, test: Test, log: &Path) -> Result<Ended> {
        File::create(log)?;
        if !self.cargo(test, log)?.arg("--no-run").status()?.success() {
            return Ok(Ended::Unbuilt);
        }
        let mut run = self.cargo(test, log)?;
        // A group of its own: the test is a child of cargo's, and both are to end if it does not.
        let mut child = run.arg("--").arg(test.name).process_group(0).spawn()?;
        let start = Instant::now();
        let status = loop {
            match child.try_wait()? {
                Some(status) => break status,
                None if start.elapsed() > PATIENCE => {
                    killpg(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGKILL)?;
                    child.wait()?;
                    return Ok(Ended::Never);
                }
                None => thread::sleep(Duration::from_millis(20)),
            }
        };
        let output = fs::read_to_string(log)?;
        ensure!(!output.contains("\nrunning 0 tests"), "there is no such test: {test}");
        Ok(Ended::of(status, &output))
    }

    /// Makes a mutation, sees what becomes of it, and takes it back.
    fn try_out(&self, mutation: &Mutation) -> Result<Ended> {
        let log = self.log(mutation.name);
        for (file, text) in mutation.mutated(root().join(DIRECTORY).as_path())? {
            fs::write(self.0.join(DIRECTORY).join(file), text)?;
        }
        let ended = self.run(mutation.noticed_by, &log)?;
        for edit in mutation.edits {
            fs::write(self.0.join(DIRECTORY).join(edit.file), fs::read(root().join(DIRECTORY).join(edit.file))?)?;
        }
        Ok(ended)
    }
}

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ended {
    Passed,
    /// This one failed, perhaps among others.
    Failed(String),
    /// It ended without saying so.
    Died(ExitStatus),
    /// It had to be ended.
    Never,
    /// It did not begin: the compiler refused.
    Unbuilt,
}

impl Ended {
    fn of(status: ExitStatus, output: &str) -> Self {
        if status.success() {
            return Self::Passed;
        }
        let failed = output.lines().find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
        failed.map_or(Self::Died(status), |name| Self::Failed(name.to_owned()))
    }

    fn is_noticed(&self) -> bool {
        !matches!(self, Self::Passed | Self::Unbuilt)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => write!(f, "NOBODY"),
            Self::Unbuilt => write!(f, "NOBODY: it does not compile"),
            Self::Failed(name) => write!(f, "{name}"),
            Self::Died(status) => write!(f, "the test's end by {status}"),
            Self::Never => write!(f, "a test that does not end in {} s", PATIENCE.as_secs()),
        }
    }
}

impl Mutation {
    /// The files that it changes, as they are then.
    fn mutated(&self, directory: &Path) -> Result<BTreeMap<&'static str, String>> {
        let mut files = BTreeMap::new();
        for Edit { file, find, put } in self.edits {
            let text = match files.remove(file) {
                Some(text) => text,
                None => fs::read_to_string(directory.join(file)).with_context(|| format!("{DIRECTORY}/{file}"))?,
            };
            let times = text.matches(find).count();
            ensure!(
                times == 1,
                "{DIRECTORY}/{file} has {times} times, and not once:\n  {find}\nxtask/src/mutations/list.rs must follow it"
            );
            files.insert(*file, text.replace(find, put));
        }
        Ok(files)
    }
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutation_can_be_made() {
        for mutation in MUTATIONS {
            let files = mutation.mutated(&root().join(DIRECTORY));
            assert!(!files.unwrap_or_else(|error| panic!("{}: {error:#}", mutation.name)).is_empty());
        }
    }

    #[test]
    fn no_two_mutations_have_one_name() {
        let names: std::collections::BTreeSet<_> = MUTATIONS.iter().map(|mutation| mutation.name).collect();
        assert_eq!(names.len(), MUTATIONS.len());
    }

    #[test]
    fn the_first_test_that_failed_is_named() {
        use std::os::unix::process::ExitStatusExt as _;
        let output = "running 2 tests\ntest one ... ok\ntest two ... FAILED\n";
        assert_eq!(Ended::of(ExitStatus::from_raw(101 << 8), output), Ended::Failed("two".to_owned()));
        assert_eq!(Ended::of(ExitStatus::from_raw(0), output), Ended::Passed);
        assert_eq!(Ended::of(ExitStatus::from_raw(9), ""), Ended::Died(ExitStatus::from_raw(9)));
    }
}
