//! Files that the command line names, where `-` is standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use pyisolate_supervisor::broker::journal::JournalKey;

use crate::report::Trouble;
use crate::status::Status;

/// The longest key file, in bytes. More adds nothing to a key.
const KEY_BYTES_MAX: u64 = 4096;

pub(crate) fn usage(message: impl Into<String>) -> Trouble {
    Trouble::new(Status::Usage, message)
}

pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

pub(crate) fn shown(path: &Path) -> String {
    if is_stdin(path) { "<stdin>".to_owned() } else { path.display().to_string() }
}

/// A file or standard input, for reading.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read>, Trouble> {
    if is_stdin(path) {
        return Ok(Box::new(io::stdin().lock()));
    }
    match File::open(path) {
        Ok(file) => Ok(Box::new(file)),
        Err(error) => Err(usage(format!("cannot read {}: {error}", shown(path)))),
    }
}

/// The whole of a file or of standard input, which may have no end.
pub(crate) fn bytes(path: &Path, most: u64, what: &str) -> Result<Vec<u8>, Trouble> {
    let mut bytes = Vec::new();
    match open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes) {
        Ok(_) if bytes.len() as u64 > most => {
            Err(usage(format!("{} is over {most} bytes, too long for {what}", shown(path))))
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(usage(format!("cannot read {}: {error}", shown(path)))),
    }
}

/// As [`bytes`], where it has to be UTF-8. A byte order mark is left out.
pub(crate) fn text(path: &Path, most: u64, what: &str) -> Result<String, Trouble> {
    let text = String::from_utf8(bytes(path, most, what)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        usage(format!("{} is not UTF-8: see byte {at}", shown(path)))
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// The key of a journal: all bytes of a file.
pub(crate) fn key(path: Option<&Path>) -> Result<Option<JournalKey>, Trouble> {
    let Some(path) = path else { return Ok(None) };
    let key = bytes(path, KEY_BYTES_MAX, "a key")?;
    let key = JournalKey::new(&key).map_err(|error| usage(format!("{}: {error}", shown(path))))?;
    Ok(Some(key))
}
