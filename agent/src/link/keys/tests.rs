use super::*;

fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("east.pem");
    (directory, file)
}

/// A key file with only the sections whose label contains `keep`.
fn only(pem: &str, keep: &str) -> String {
    let end = pem.find("-----BEGIN PRIVATE").unwrap();
    if keep == "CERTIFICATE" { pem[..end].to_owned() } else { pem[end..].to_owned() }
}

fn write(file: &Path, text: &str) {
    let _ = fs::remove_file(file);
    create(file, text.as_bytes()).unwrap();
}

fn complaint(file: &Path) -> String {
    load(file).unwrap_err().to_string()
}

#[test]
fn a_generated_key_loads_with_the_fingerprint_that_was_printed() {
    let (_directory, file) = directory();
    let printed = generate(&file, false).unwrap();
    assert_eq!(load(&file).unwrap().fingerprint(), printed);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn an_existing_key_is_replaced_only_when_told_to() {
    let (directory, file) = directory();
    let first = generate(&file, false).unwrap();
    let error = generate(&file, false).unwrap_err();
    assert!(matches!(error, KeyError::Exists(_)), "{error}");
    assert_eq!(load(&file).unwrap().fingerprint(), first);

    let second = generate(&file, true).unwrap();
    assert_ne!(first, second);
    assert_eq!(load(&file).unwrap().fingerprint(), second);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn a_key_that_cannot_be_written_says_where() {
    let (_directory, file) = directory();
    let inside = file.join("no/such/directory.pem");
    let error = generate(&inside, true).unwrap_err().to_string();
    assert!(error.contains("directory.pem"), "{error}");
}

#[test]
fn a_missing_file_says_how_to_make_one() {
    let (_directory, file) = directory();
    assert!(complaint(&file).contains("siteswap keygen"), "{}", complaint(&file));
}

#[test]
fn a_file_others_can_read_says_how_to_close_it() {
    let (_directory, file) = directory();
    generate(&file, false).unwrap();
    for mode in [0o644, 0o604, 0o620, 0o666] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let expected = format!("chmod 600 {}", file.display());
        assert!(complaint(&file).contains(&expected), "{}", complaint(&file));
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    load(&file).unwrap();
}

#[test]
fn every_way_in_which_a_key_file_is_wrong_is_named() {
    let (_directory, file) = directory();
    generate(&file, false).unwrap();
    let ours = fs::read_to_string(&file).unwrap();
    generate(&file, true).unwrap();
    let theirs = fs::read_to_string(&file).unwrap();

    for (text, expected) in [
        (String::new(), "neither certificate nor private key"),
        ("hello".to_owned(), "neither certificate nor private key"),
        (ours.replace("-----END CERTIFICATE-----", ""), "holds no certificate"),
        (ours.replace("-----END PRIVATE KEY-----", ""), "no line -----END PRIVATE KEY-----"),
        (ours.replace("-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIV"), "begins no section: -----BEGIN PRIV"),
        (ours.replacen("\nM", "\n!", 1), "is not a key file"),
        (only(&ours, "CERTIFICATE"), "holds no private key"),
        (only(&ours, "KEY"), "holds no certificate"),
        (only(&ours, "CERTIFICATE") + &only(&theirs, "KEY"), "does not belong"),
        (nonsense("CERTIFICATE") + &only(&ours, "KEY"), "siteswap keygen"),
        (only(&ours, "CERTIFICATE") + &nonsense("PRIVATE KEY"), "siteswap keygen"),
    ] {
        write(&file, &text);
        let said = complaint(&file);
        assert!(said.contains(expected) && said.contains("east.pem"), "{expected}: {said}");
    }
}

fn nonsense(label: &str) -> String {
    format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n")
}

#[test]
fn a_private_key_is_never_printed() {
    let (_directory, file) = directory();
    let fingerprint = generate(&file, false).unwrap();
    let printed = format!("{:?}", load(&file).unwrap());
    assert_eq!(printed, format!("Identity({fingerprint})"));
}
