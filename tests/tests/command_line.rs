//! The command line without a lab: every error says what is wrong and what would be right.

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lab::{netns::Netns, wait_until};

const DEADLINE: Duration = Duration::from_secs(15);

fn program() -> Result<PathBuf> {
    Ok(std::env::current_exe()?.parent().and_then(Path::parent).context("a target directory")?.join("siteswap"))
}

fn siteswap(directory: &Path, arguments: &[&str]) -> Result<Output> {
    let program = program()?;
    Command::new(&program)
        .args(arguments)
        .current_dir(directory)
        .output()
        .with_context(|| program.display().to_string())
}

/// Standard error of a command that must fail with code 1.
fn refused(directory: &Path, arguments: &[&str]) -> Result<String> {
    let output = siteswap(directory, arguments)?;
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    Ok(String::from_utf8(output.stderr)?)
}

fn configuration(fingerprint: &str, interface: &str) -> String {
    format!(
        r#"[agent]
site = "only"
state = "state"
control = "control.sock"
[sites.only]
link = "127.0.0.1:7400"
fingerprint = "{fingerprint}"
[link]
key = "only.pem"
[dns]
listen = ["127.0.0.1"]
port = 5391
[[dns.zone]]
name = "shop.test"
file = "shop.test.zone"
[dataplane]
interfaces = [{interface}]
pins = "/sys/fs/bpf/siteswap-command-line-{}"
[resources.www]
domains = ["www.shop.test"]
probe = {{ tcp = true }}
[resources.www.sites.only]
role = "active"
addresses = ["192.0.2.80"]
backends = ["127.0.0.1:80"]
"#,
        std::process::id()
    )
}

/// A directory with a key, a zone and a configuration for it.
fn site(interface: &str) -> Result<tempfile::TempDir> {
    let directory = tempfile::tempdir()?;
    let made = siteswap(directory.path(), &["keygen", "--out", "only.pem"])?;
    let fingerprint = String::from_utf8(made.stdout)?;
    fs::write(directory.path().join("siteswap.toml"), configuration(fingerprint.trim(), interface))?;
    let zone =
        "$ORIGIN shop.test.\n@ 60 IN SOA ns1 hostmaster 1 3600 600 604800 60\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.2\n";
    fs::write(directory.path().join("shop.test.zone"), zone)?;
    Ok(directory)
}

#[test]
fn check_accepts_a_good_configuration_and_touches_nothing() -> Result<()> {
    let directory = site("")?;
    let output = siteswap(directory.path(), &["check", "--config", "siteswap.toml"])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8(output.stdout)?.contains("good. Site only of 1, 1 resources, 1 zones."));
    assert!(!directory.path().join("state").exists());
    Ok(())
}

#[test]
fn check_warns_of_more_than_the_program_has_room_for() -> Result<()> {
    let directory = site("\"lo\"")?;
    let file = directory.path().join("siteswap.toml");
    let mut text = fs::read_to_string(&file)?;
    let backends: Vec<_> = (0..656).map(|n| format!("\"10.0.{}.{}:80\"", n / 250, n % 250 + 1)).collect();
    for n in 1..=17 {
        write!(
            text,
            "[resources.r{n}]\nprobe = {{ tcp = true }}\nports = [\"tcp/80\"]\n[resources.r{n}.sites.only]\n"
        )?;
        let backends = backends.join(", ");
        write!(text, "role = \"active\"\naddresses = [\"192.0.2.{n}\"]\nbackends = [{backends}]\n")?;
    }
    fs::write(&file, text)?;
    let output = siteswap(directory.path(), &["check", "--config", "siteswap.toml"])?;
    let said = String::from_utf8(output.stderr)?;
    assert!(output.status.success(), "{said}");
    assert!(said.contains("warning: the backends' tables need 4456448 entries, but the program has 4194304"), "{said}");
    Ok(())
}

/// As after `siteswap check | true`.
#[test]
fn nobody_who_reads_the_output_is_no_error() -> Result<()> {
    let directory = site("")?;
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let checked = Command::new(program()?)
        .args(["check", "--config", "siteswap.toml"])
        .current_dir(directory.path())
        .stdout(writer)
        .output()?;
    assert_eq!((checked.status.code(), String::from_utf8(checked.stderr)?), (Some(0), String::new()));
    Ok(())
}

#[test]
fn check_refuses_a_key_whose_fingerprint_is_not_the_configured_one() -> Result<()> {
    let directory = site("")?;
    siteswap(directory.path(), &["keygen", "--force", "--out", "only.pem"])?;
    let error = refused(directory.path(), &["check", "--config", "siteswap.toml"])?;
    assert!(error.contains("peers would refuse this site"), "{error}");
    Ok(())
}

#[test]
fn check_names_file_and_line_of_what_is_wrong() -> Result<()> {
    let directory = site("")?;
    let file = directory.path().join("siteswap.toml");
    fs::write(&file, fs::read_to_string(&file)?.replace("role =", "rôle ="))?;
    let error = refused(directory.path(), &["check", "--config", "siteswap.toml"])?;
    assert!(error.contains("siteswap.toml:"), "{error}");
    let error = refused(directory.path(), &["check", "--config", "nowhere.toml"])?;
    assert!(error.contains("nowhere.toml"), "{error}");
    Ok(())
}

#[test]
fn keygen_never_replaces_a_key_unless_told_to() -> Result<()> {
    let directory = site("")?;
    let before = fs::read(directory.path().join("only.pem"))?;
    let error = refused(directory.path(), &["keygen", "--out", "only.pem"])?;
    assert!(error.contains("--force"), "{error}");
    assert_eq!(fs::read(directory.path().join("only.pem"))?, before);
    Ok(())
}

/// The agent of a site in a namespace of its own. It ends with this, and its pins go.
struct Running<'a> {
    agent: Child,
    namespace: Netns,
    _held: File,
    directory: &'a Path,
}

impl<'a> Running<'a> {
    fn start(directory: &'a Path) -> Result<Self> {
        let (namespace, held) = Netns::unnamed()?;
        ip(&namespace, "link set lo up")?;
        let mut command = namespace.command(program()?)?;
        command.args(["run", "--config", "siteswap.toml"]).current_dir(directory);
        command.stderr(File::create(directory.join("log"))?);
        Ok(Self { agent: command.spawn()?, namespace, _held: held, directory })
    }

    /// What `status` says of the program's interface.
    fn interface(&self, name: &str) -> Option<String> {
        let output = siteswap(self.directory, &["status", "--json", "--control", "control.sock"]).ok()?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(status["program"]["interfaces"][name].as_str()?.to_owned())
    }

    fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.directory.join("log"))?)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // One that has ended is as good.
        let _ = self.agent.kill().and_then(|()| self.agent.wait());
        let _ = siteswap(self.directory, &["detach", "--config", "siteswap.toml"]);
    }
}

fn ip(namespace: &Netns, arguments: &str) -> Result<()> {
    let status = namespace.command("ip")?.args(arguments.split(' ')).status()?;
    ensure!(status.success(), "ip {arguments}");
    Ok(())
}

#[test]
fn run_says_that_an_interface_is_missing_and_takes_it_when_it_appears() -> Result<()> {
    let directory = site("\"late0\"")?;
    let running = Running::start(directory.path())?;
    let is = |state: &str| {
        wait_until(DEADLINE, &format!("late0 is {state}"), || running.interface("late0").as_deref() == Some(state))
            .with_context(|| running.log().unwrap_or_default())
    };
    is("missing")?;
    let log = running.log()?;
    assert!(log.contains("`late0`, but this host has no such interface; it has lo"), "{log}");
    assert!(log.contains("on no interface"), "{log}");
    ip(&running.namespace, "link add late0 type veth")?;
    is("native")?;

    let file = directory.path().join("siteswap.toml");
    let with = fs::read_to_string(&file)?.replace("[\"late0\"]", "[\"late0\", \"wrong0\"]");
    fs::write(&file, with)?;
    let error = refused(directory.path(), &["reload", "--control", "control.sock"])?;
    assert!(error.contains("`wrong0`") && error.contains("late0"), "{error}");
    Ok(())
}

#[test]
fn status_without_an_agent_says_what_to_look_at() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let error = refused(directory.path(), &["status", "--control", "nothing.sock"])?;
    assert!(error.contains("nothing.sock") && error.contains("siteswap run"), "{error}");
    Ok(())
}

#[test]
fn help_teaches_every_command() -> Result<()> {
    let directory = tempfile::tempdir()?;
    for command in [
        "run",
        "check",
        "doctor",
        "keygen",
        "status",
        "instances",
        "set",
        "swap",
        "drain",
        "undrain",
        "explain",
        "reload",
        "detach",
    ] {
        let output = siteswap(directory.path(), &[command, "--help"])?;
        assert!(output.status.success() && output.stdout.len() > 100, "{command}");
    }
    Ok(())
}

#[test]
fn help_of_conflicts_teaches_its_commands_and_what_it_does_without_one() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let output = siteswap(directory.path(), &["db", "conflicts", "--help"])?;
    let said = String::from_utf8(output.stdout)?;
    assert!(output.status.success());
    for what in ["Alone it lists them", "list ", "show ", "restore ", "--limit <", "--json"] {
        assert!(said.contains(what), "{what} is not in {said}");
    }
    let mixed = siteswap(directory.path(), &["db", "conflicts", "--limit", "3", "show", "5"])?;
    assert_eq!(mixed.status.code(), Some(2), "--limit says nothing about one conflict");
    Ok(())
}
