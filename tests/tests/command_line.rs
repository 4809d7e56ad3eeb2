//! The command line without an agent: every error says what is wrong and what would be right.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context, Result};

fn siteswap(directory: &Path, arguments: &[&str]) -> Result<Output> {
    let program =
        std::env::current_exe()?.parent().and_then(Path::parent).context("a target directory")?.join("siteswap");
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
pins = "/sys/fs/bpf/siteswap-command-line-test"
[resources.www]
domains = ["www.shop.test"]
probe = {{ tcp = true }}
[resources.www.sites.only]
role = "active"
addresses = ["192.0.2.80"]
backends = ["127.0.0.1:80"]
"#
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

#[test]
fn run_names_the_interfaces_there_are_when_one_is_missing_and_leaves_nothing() -> Result<()> {
    let directory = site("\"nonesuch0\"")?;
    let error = refused(directory.path(), &["run", "--config", "siteswap.toml"])?;
    assert!(error.contains("nonesuch0") && error.contains("lo"), "{error}");
    assert!(!Path::new("/sys/fs/bpf/siteswap-command-line-test").exists());
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
