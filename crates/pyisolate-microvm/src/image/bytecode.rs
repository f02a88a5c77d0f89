//! The bytecode of the image's Python files, so that no machine compiles it when it boots: emulated,
//! that is most of a boot.
//!
//! It is made anew by the image's own interpreter, never taken from the host's folders: there it may
//! be another version's, of another time, or not be.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pyisolate_jail::{Environment, INTERPRETER_FLAGS, LIBRARIES_VARIABLE};

use super::contents::Contents;
use super::program;
use super::{ImageError, ProgramError, Progress};

const COMPILE: &str = include_str!("compile.py");

/// Some thousand files take ten seconds.
const LIMIT: Duration = Duration::from_secs(1800);

/// Tests of packages are there for who asks for them, and not worth the memory of their bytecode.
const SOURCE_ONLY: [&str; 2] = ["test", "tests"];

/// Compiles what is imported; returns the interpreter's version.
///
/// # Errors
/// The interpreter does not run, or gives an answer that is none.
pub(super) fn add(
    contents: &mut Contents,
    environment: &Environment,
    progress: &mut dyn FnMut(Progress),
) -> Result<String, ImageError> {
    let sources: Vec<(PathBuf, PathBuf)> = contents
        .sources()
        .filter(|(path, _)| !path.iter().any(|part| SOURCE_ONLY.iter().any(|it| part == *it)))
        .map(|(path, source)| (path.into(), source.into()))
        .collect();
    progress(Progress::Compiling { modules: sources.len() });
    let answer = compile(environment, &sources)?;
    let wrong = || ImageError::BytecodeAnswer { interpreter: environment.executable.clone() };
    let mut rest = answer.as_slice();
    let version = text(&mut rest).ok_or_else(wrong)?;
    let tag = text(&mut rest).ok_or_else(wrong)?;
    for (path, _) in &sources {
        let compiled = record(&mut rest).ok_or_else(wrong)?;
        let (Some(folder), Some(stem)) = (path.parent(), path.file_stem()) else { continue };
        if !compiled.is_empty() {
            let mut name = stem.to_os_string();
            name.push(format!(".{tag}.pyc"));
            contents.add(folder.join("__pycache__").join(name), compiled.to_vec());
        }
    }
    if rest.is_empty() { Ok(version) } else { Err(wrong()) }
}

fn compile(
    environment: &Environment,
    sources: &[(PathBuf, PathBuf)],
) -> Result<Vec<u8>, ImageError> {
    let run = |source| {
        let program = environment.executable.display().to_string();
        ImageError::Bytecode(ProgramError::Run { program, source })
    };
    let mut command = program::program(&environment.executable);
    command.env_clear();
    if let Some(libraries) = std::env::var_os(LIBRARIES_VARIABLE) {
        command.env(LIBRARIES_VARIABLE, libraries);
    }
    // The order of a set in bytecode hangs on it.
    command.env("PYTHONHASHSEED", "0");
    command.args(INTERPRETER_FLAGS).args(["-W", "ignore", "-c", COMPILE]);
    command.stdin(list(sources).map_err(run)?);
    program::output(&mut command, LIMIT).map_err(ImageError::Bytecode)
}

/// What is to be compiled, as the program reads it.
fn list(sources: &[(PathBuf, PathBuf)]) -> std::io::Result<File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::memfd_create("pyisolate-compile", flags)?);
    let mut names = Vec::new();
    for (path, source) in sources {
        for name in [source, &Path::new("/").join(path)] {
            names.extend_from_slice(name.as_os_str().as_bytes());
            names.push(0);
        }
    }
    file.write_all(&names)?;
    file.rewind()?;
    Ok(file)
}

fn text(rest: &mut &[u8]) -> Option<String> {
    let end = rest.iter().position(|byte| *byte == 0)?;
    let text = std::str::from_utf8(&rest[..end]).ok()?;
    *rest = &rest[end + 1..];
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    (!text.is_empty() && text.chars().all(is_plain)).then(|| text.to_owned())
}

fn record<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (record, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(record)
}
