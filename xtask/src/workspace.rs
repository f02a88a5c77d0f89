//! Where things are in this checkout.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::error::XtaskError;

/// The checkout's top folder. `cargo run` says at run time which checkout it is; where this was
/// compiled may be another one that shares a target folder.
pub(crate) fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let compiled = || env!("CARGO_MANIFEST_DIR").into();
        let mut folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(compiled));
        folder.pop();
        folder
    });
    &ROOT
}

pub(crate) fn venv_dir() -> PathBuf {
    root().join(".venv")
}

pub(crate) fn read(path: &Path) -> Result<String, XtaskError> {
    fs::read_to_string(path).map_err(|source| XtaskError::Read { path: path.to_owned(), source })
}

/// The names among `names` that exist in the checkout.
pub(crate) fn existing(names: &[&'static str]) -> Vec<&'static str> {
    names.iter().copied().filter(|name| root().join(name).exists()).collect()
}
