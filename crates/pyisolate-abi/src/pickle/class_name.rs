//! Names that a guest wrote, made fit to be shown.

use std::fmt;

/// The dotted name of a class as a guest wrote it: printable, and shortened to
/// [`ClassName::MAX_CHARS`] characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassName(String);

impl ClassName {
    /// Longest name shown. A module path and class of real code stay well below it; a hostile one
    /// must not fill a log.
    pub const MAX_CHARS: usize = 200;

    pub(super) fn new(module: &[u8], qualname: &[u8]) -> Self {
        let mut name = printable(module, Self::MAX_CHARS);
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&printable(qualname, Self::MAX_CHARS));
        if name.chars().count() > Self::MAX_CHARS {
            name = name.chars().take(Self::MAX_CHARS - 1).collect();
            name.push('…');
        }
        Self(name)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What to do instead of sending an instance.
    pub(super) fn advice(&self) -> &'static str {
        let (module, class) = self.0.rsplit_once('.').unwrap_or(("", &self.0));
        match (module.split('.').next().unwrap_or_default(), class) {
            ("pathlib", _) => "it may touch the file system; send a PurePath or str(path)",
            ("zoneinfo", _) => {
                "zones carry code; send the zone's key, or use a fixed-offset datetime.timezone"
            }
            ("numpy", _) => {
                "only plain numpy arrays, scalars and dtypes cross; send numpy.asarray(value)"
            }
            _ => {
                "only plain data, dates, decimals, UUIDs, pure paths, collections and numpy arrays \
                 cross; register the class with trusted_types= or send its fields"
            }
        }
    }
}

impl fmt::Display for ClassName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// At most `max_chars` characters of guest text, with everything that could disturb a log or a
/// terminal replaced.
pub(super) fn printable(bytes: &[u8], max_chars: usize) -> String {
    // A character is at most four bytes, so this much always holds `max_chars` of them.
    let head = &bytes[..bytes.len().min(max_chars.saturating_mul(4))];
    let mut out: String = String::from_utf8_lossy(head)
        .chars()
        .take(max_chars)
        .map(|c| if is_plain(c) { c } else { '\u{fffd}' })
        .collect();
    if head.len() < bytes.len() {
        out.push('…');
    }
    out
}

/// Letters and digits of any script, and printable ASCII save the backtick that quotes names.
fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || (c.is_ascii_graphic() && c != '`') || c == ' '
}

#[cfg(test)]
mod tests {
    use super::super::DecodeError;
    use super::*;

    #[test]
    fn a_hostile_name_is_short_and_printable() {
        let name = ClassName::new(b"os\n\x1b[31m`", "x\u{202e}".repeat(500).as_bytes());
        assert!(name.as_str().chars().count() <= ClassName::MAX_CHARS);
        assert!(!name.as_str().contains(['\n', '\x1b', '`', '\u{202e}']));
        assert!(name.as_str().starts_with("os"));
    }

    #[test]
    fn advice_depends_on_the_module() {
        let refused = |module: &str, class: &str| {
            DecodeError::RefusedClass { name: ClassName::new(module.as_bytes(), class.as_bytes()) }
                .to_string()
        };
        assert!(refused("pathlib._local", "PosixPath").contains("PurePath"));
        assert!(refused("zoneinfo", "ZoneInfo").contains("datetime.timezone"));
        assert!(refused("socket", "socket").contains("trusted_types="));
        assert!(refused("socket", "socket").starts_with("cannot receive `socket.socket`"));
    }
}
