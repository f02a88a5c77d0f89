//! A guest's path, cleaned by its text alone.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest path, in bytes: the kernel's `PATH_MAX`.
pub const PATH_BYTES_MAX: usize = 4096;

/// An absolute path without `.`, `..`, empty components, NUL, or a trailing slash. What the text
/// means is decided by nobody but the broker, which never lets the kernel walk a `..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CleanPath(String);

/// A text that is no path for a cell.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PathError {
    /// It does not begin with a slash.
    #[error("{0:?} is not absolute: begin it with '/'")]
    Relative(String),
    /// It has a NUL byte.
    #[error("a path cannot contain a NUL byte")]
    Nul,
    /// It is longer than [`PATH_BYTES_MAX`], or one of its components than 255 bytes.
    #[error(
        "the path is too long: {PATH_BYTES_MAX} bytes, and 255 for each component, is the most"
    )]
    TooLong,
}

impl CleanPath {
    /// Cleans `text`: `..` takes the component before it away, by text, as nothing behind it can be
    /// a symbolic link that leads elsewhere.
    ///
    /// # Errors
    /// [`PathError`] if it is not absolute, has a NUL byte or is too long.
    pub fn new(text: &str) -> Result<Self, PathError> {
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if text.contains('\0') {
            return Err(PathError::Nul);
        }
        if !text.starts_with('/') {
            return Err(PathError::Relative(text.to_owned()));
        }
        let mut parts: Vec<&str> = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                part if part.len() > 255 => return Err(PathError::TooLong),
                part => parts.push(part),
            }
        }
        Ok(Self(format!("/{}", parts.join("/"))))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its components; none for `/`.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|part| !part.is_empty())
    }

    /// What is left of it below `root`: `Some("")` for the root itself.
    #[must_use]
    pub fn below(&self, root: &Self) -> Option<&str> {
        match self.0.strip_prefix(root.0.trim_end_matches('/'))? {
            "" => Some(""),
            rest => rest.strip_prefix('/'),
        }
    }
}

impl TryFrom<String> for CleanPath {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        Self::new(&text)
    }
}

impl From<CleanPath> for String {
    fn from(path: CleanPath) -> Self {
        path.0
    }
}

impl fmt::Display for CleanPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}
