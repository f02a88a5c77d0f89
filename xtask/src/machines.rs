//! What cells in virtual machines need: QEMU, and an image for their guests.

use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::XtaskError;
use crate::process;
use crate::setup::Venv;
use crate::workspace;

/// Where images are; the environment's wins.
const CACHE: &str = "PYISOLATE_CACHE";
/// Holds what the image was last built from.
const STAMP: &str = "built-from";
/// What an image is built from, as far as a checkout changes it: the guest runtime, and packages.
const INPUTS: [&str; 2] = ["python/pyisolate/_core.abi3.so", "requirements-dev.txt"];

#[cfg(target_arch = "x86_64")]
const QEMU: &str = "qemu-system-x86_64";
#[cfg(not(target_arch = "x86_64"))]
const QEMU: &str = "qemu-system-aarch64";

/// Lets `command` make such cells, with an image below `target`, which is built if need be. What is
/// missing is said, and is then missing to `command`.
pub(crate) fn equip(venv: &Venv, command: &mut Command) -> Result<(), XtaskError> {
    if !is_unset(CACHE) {
        return Ok(());
    }
    let cache = workspace::root().join("target/microvm");
    command.env(CACHE, &cache);
    if !has_qemu() {
        eprintln!("image: {QEMU} is not installed, so no cell gets a virtual machine");
        return Ok(());
    }
    match build(venv, &cache) {
        Err(XtaskError::Failed { .. }) => {
            eprintln!("image: there is none, as said above, so no cell gets a virtual machine");
            Ok(())
        }
        other => other,
    }
}

fn build(venv: &Venv, cache: &Path) -> Result<(), XtaskError> {
    let mut inputs = DefaultHasher::new();
    for name in INPUTS {
        let path = workspace::root().join(name);
        let bytes = fs::read(&path).map_err(|source| XtaskError::Read { path, source })?;
        bytes.hash(&mut inputs);
    }
    let inputs = format!("{:016x}", inputs.finish());
    let stamp = cache.join(STAMP);
    if fs::read_to_string(&stamp).is_ok_and(|built| built == inputs) {
        return Ok(());
    }
    if stamp.exists() {
        // The one before is of no use any more, and large. It may be gone already.
        let _ = fs::remove_file(&stamp);
        let _ = process::run("image rm", image(venv, cache).args(["rm", "default", "--json"]));
        let _ = fs::remove_dir_all(cache.join("snapshots"));
    }
    eprintln!("image: building the one that virtual machines start from");
    process::run("image build", image(venv, cache).args(["build", "--package", "numpy"]))?;
    fs::write(&stamp, inputs).map_err(|source| XtaskError::Write { path: stamp, source })
}

fn image(venv: &Venv, cache: &Path) -> Command {
    let mut command = venv.python();
    command.args(["-m", "pyisolate", "image"]).env(CACHE, cache);
    command
}

/// Whether a variable says nothing.
pub(crate) fn is_unset(name: &str) -> bool {
    std::env::var_os(name).is_none_or(|value| value.is_empty())
}

fn has_qemu() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::var_os("PYISOLATE_QEMU").unwrap_or_else(|| OsString::from(QEMU));
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(&named));
    PathBuf::from(&named).is_absolute() || places.any(|place| place.is_file())
}
