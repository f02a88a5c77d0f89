//! The name of a cell.

use std::fmt;

use thiserror::Error;

/// The longest name, in characters: short enough for a log line, a cgroup and a thread name prefix.
const NAME_CHARS_MAX: usize = 64;

/// A checked cell name: 1 to 64 of ASCII letters, digits, `_`, `-` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CellName(String);

/// Why a text is no cell name.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("cell name {0:?} is not 1 to 64 of letters, digits, '_', '-' and '.'")]
pub struct NameError(String);

impl CellName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`NameError`] if it is empty, too long, or has another character.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.bytes().all(fits) {
            let shown = name.chars().take(NAME_CHARS_MAX + 1).collect();
            return Err(NameError(shown));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CellName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for good in ["a", "tenant-7.job_3", &"x".repeat(64)] {
            assert!(CellName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "é", "a\0", "a\n", &"x".repeat(65)] {
            assert!(CellName::new(bad).is_err(), "{bad:?}");
        }
    }
}
