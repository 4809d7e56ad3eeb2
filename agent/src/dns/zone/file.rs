//! From a zone file's entries to records: owners, TTLs, directives, included files.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use hickory_proto::serialize::txt::parse_ttl;

use super::{
    super::name::Name,
    error::{Place, ZoneError},
    lexer::{Entries, Entry, Token},
    rdata,
};

/// The largest file that is read, octets.
const MAX_FILE: u64 = 64 << 20;
/// Files included by one zone file, over all levels.
const MAX_INCLUDES: usize = 100;

/// A record as it is written, with its place.
#[derive(Debug)]
pub(super) struct Record {
    pub owner: Name,
    pub rtype: u16,
    pub ttl: u32,
    pub rdata: Vec<u8>,
    pub place: Place,
}

/// Reads `file` and what it includes. Relative names are relative to `apex` until `$ORIGIN` says otherwise.
pub(super) fn read(file: &Path, apex: &Name) -> Result<Vec<Record>, ZoneError> {
    let directory = file.canonicalize().ok().and_then(|file| file.parent().map(Path::to_path_buf)).unwrap_or_default();
    let mut reader =
        Reader { directory, open: Vec::new(), includes: 0, default_ttl: None, last_ttl: None, records: Vec::new() };
    reader.read(file, apex.clone())?;
    Ok(reader.records)
}

struct Reader {
    /// The zone file's own, without symbolic links: nothing outside is included.
    directory: PathBuf,
    /// Files being read, the innermost last.
    open: Vec<PathBuf>,
    includes: usize,
    /// `$TTL` (RFC 2308 §4).
    default_ttl: Option<u32>,
    /// The last TTL that was written (RFC 1035 §5.1).
    last_ttl: Option<u32>,
    records: Vec<Record>,
}

impl Reader {
    fn read(&mut self, file: &Path, mut origin: Name) -> Result<(), ZoneError> {
        let text = read_text(file).map_err(|why| ZoneError::in_file(file, why))?;
        self.open.push(file.canonicalize().unwrap_or_else(|_| file.to_path_buf()));
        let path: Arc<Path> = file.into();
        let mut owner = None;
        let mut entries = Entries::new(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text));
        loop {
            let entry = entries.next_entry().map_err(|fault| ZoneError {
                file: Some(file.to_path_buf()),
                line: Some(fault.line),
                message: fault.message,
            })?;
            let Some(entry) = entry else { break };
            let place = Place { file: path.clone(), line: entry.line };
            if entry.tokens[0].text.starts_with(b"$") && !entry.tokens[0].quoted && !entry.inherits {
                self.directive(&entry, &place, &mut origin)?;
            } else {
                self.record(entry, place, &origin, &mut owner)?;
            }
        }
        self.open.pop();
        Ok(())
    }

    fn directive(&mut self, entry: &Entry, place: &Place, origin: &mut Name) -> Result<(), ZoneError> {
        let wrong = |why: String| ZoneError::at(place, why);
        let directive = entry.tokens[0].show().to_ascii_uppercase();
        match (directive.as_str(), &entry.tokens[1..]) {
            ("$ORIGIN", [name]) => *origin = Name::parse(&name.text, origin).map_err(wrong)?,
            ("$TTL", [ttl]) => self.default_ttl = Some(rdata::seconds(ttl).map_err(wrong)?),
            ("$INCLUDE", [file]) => self.include(&file.show(), place, origin.clone())?,
            ("$INCLUDE", [file, name]) => {
                let origin = Name::parse(&name.text, origin).map_err(wrong)?;
                self.include(&file.show(), place, origin)?;
            }
            ("$ORIGIN" | "$TTL", _) => return Err(wrong(format!("{directive} takes one value"))),
            ("$INCLUDE", _) => {
                return Err(wrong("$INCLUDE takes a file and perhaps an origin".into()));
            }
            _ => {
                return Err(wrong(format!("{directive} is not supported: $ORIGIN, $TTL and $INCLUDE are")));
            }
        }
        Ok(())
    }

    /// Relative to the including file. Only files in the zone file's directory or below are read: the agent may read
    /// more than whoever writes zone files should.
    fn include(&mut self, file: &str, place: &Place, origin: Name) -> Result<(), ZoneError> {
        let wrong = |why: String| ZoneError::at(place, why);
        let path = place.file.parent().unwrap_or(Path::new("")).join(file);
        let real = path.canonicalize().map_err(|error| wrong(format!("$INCLUDE {file}: {error}")))?;
        if !real.starts_with(&self.directory) {
            return Err(wrong(format!(
                "$INCLUDE {file} lies outside {}: included files lie in the zone file's directory or below",
                self.directory.display()
            )));
        }
        if self.open.contains(&real) {
            return Err(wrong(format!("$INCLUDE {file}: the file includes itself")));
        }
        self.includes += 1;
        if self.includes > MAX_INCLUDES {
            return Err(wrong(format!("more than {MAX_INCLUDES} files are included")));
        }
        self.read(&path, origin)
    }

    fn record(
        &mut self,
        entry: Entry,
        place: Place,
        origin: &Name,
        last_owner: &mut Option<Name>,
    ) -> Result<(), ZoneError> {
        let wrong = |why: String| ZoneError::at(&place, why);
        let mut tokens = &entry.tokens[..];
        if !entry.inherits {
            *last_owner = Some(Name::parse(&tokens[0].text, origin).map_err(wrong)?);
            tokens = &tokens[1..];
        }
        let owner = last_owner
            .clone()
            .ok_or_else(|| wrong("the line starts with a blank, but no owner was stated before it".into()))?;
        let (ttl, rtype, tokens) = prefix(tokens).map_err(wrong)?;
        if ttl.is_some() {
            self.last_ttl = ttl;
        }
        let ttl = ttl.or(self.default_ttl).or(self.last_ttl);
        let ttl = ttl.ok_or_else(|| wrong("the record has no TTL: write one, or $TTL before it".into()))?;
        let rdata = rdata::parse(rtype, tokens, origin).map_err(wrong)?;
        self.records.push(Record { owner, rtype, ttl, rdata, place });
        Ok(())
    }
}

/// TTL and class in either order, both optional, and the type; gives what is left.
fn prefix(mut tokens: &[Token]) -> Result<(Option<u32>, u16, &[Token]), String> {
    let mut ttl = None;
    let mut class = false;
    loop {
        let Some((token, rest)) = tokens.split_first() else {
            return Err("the record has no type: owner, TTL, class, type and RDATA are expected".into());
        };
        let text = token.text.to_ascii_uppercase();
        tokens = rest;
        if ttl.is_none() && parse_ttl(&token.show()).is_ok() {
            ttl = Some(rdata::seconds(token)?);
        } else if !class && text == b"IN" {
            class = true;
        } else if matches!(&text[..], b"CH" | b"HS" | b"CS") || text.starts_with(b"CLASS") {
            return Err(format!("class {}: zones are of class IN", token.show()));
        } else {
            return Ok((ttl, rdata::type_number(&text)?, tokens));
        }
    }
}

/// Refuses what is not a file of a sensible size: a pipe would be waited for, a device never end.
fn read_text(file: &Path) -> Result<Vec<u8>, String> {
    let explain = |error: io::Error| format!("the zone file cannot be read: {error}");
    let metadata = fs::metadata(file).map_err(explain)?;
    if !metadata.is_file() {
        return Err("the zone file is not a regular file".into());
    }
    if metadata.len() > MAX_FILE {
        return Err(format!("the zone file has {} octets, at most {MAX_FILE} are read", metadata.len()));
    }
    fs::read(file).map_err(explain)
}
