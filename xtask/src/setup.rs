//! `cargo xtask setup`: an environment in `.venv` with the package built and installed into it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::XtaskError;
use crate::interpreter::{SETTING, Surroundings};
use crate::probe::{self, Interpreter};
use crate::process;
use crate::workspace;

pub(crate) const HELP: &str = "\
Finds CPython 3.13 or newer, makes .venv, builds the extension and installs it there.
Quick when nothing changed.

Usage: cargo xtask setup [--release | --debug] [--find]

Options:
  --release   Build optimised (the default; what demo, test and bench use)
  --debug     Build with debug assertions and overflow checks
  --find      Print the interpreter that would be used, and stop

Environment:
  PYISOLATE_PYTHON   The interpreter to use. Without it: PATH, then pyenv, then uv.";

/// Every development package, pinned, with what it needs; installed without looking further.
const REQUIREMENTS: &str = "requirements-dev.txt";

/// Holds the requirements last installed; in `.venv`, so that it goes when `.venv` goes.
const STAMP: &str = "installed-requirements.txt";

/// Variables of a surrounding Python, conda or pip that would lead the build or pip elsewhere.
const MISLEADING: [&str; 7] = [
    "CONDA_PREFIX",
    "PIP_PREFIX",
    "PIP_TARGET",
    "PIP_USER",
    "PYTHONHOME",
    "PYTHONPATH",
    "__PYVENV_LAUNCHER__",
];

/// Tell PyO3 that the stable ABI and a shared object that Python loads are all we build. It would
/// otherwise ask whatever `python3` is first on PATH, and refuse to build with an old one.
const NEEDS_NO_INTERPRETER: [&str; 2] = ["PYO3_NO_PYTHON", "PYO3_BUILD_EXTENSION_MODULE"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Release,
    Debug,
}

/// The checkout's own environment.
#[derive(Debug)]
pub(crate) struct Venv {
    folder: PathBuf,
}

pub(crate) fn run(arguments: &[OsString]) -> Result<(), XtaskError> {
    let mut profile = Profile::Release;
    for argument in arguments {
        match argument.to_str() {
            Some("--release") => profile = Profile::Release,
            Some("--debug") => profile = Profile::Debug,
            Some("--find") => {
                let found = find()?;
                println!("{}", found.path.display());
                return Ok(());
            }
            _ => {
                let complaint = format!("setup knows no `{}`", argument.display());
                return Err(XtaskError::usage(complaint, HELP));
            }
        }
    }
    let venv = ready(profile)?;
    eprintln!("setup: ready; activate it with: . {}/bin/activate", venv.folder.display());
    Ok(())
}

/// Does whatever is still to be done, and no more.
pub(crate) fn ready(profile: Profile) -> Result<Venv, XtaskError> {
    let venv = Venv::with_tools()?;
    venv.build(profile)?;
    Ok(venv)
}

fn find() -> Result<Interpreter, XtaskError> {
    if !cfg!(target_os = "linux") {
        return Err(XtaskError::NotLinux);
    }
    Surroundings::from_environment().find().map_err(XtaskError::NoInterpreter)
}

impl Venv {
    /// The environment with the development tools in it; the package itself may be missing.
    pub(crate) fn with_tools() -> Result<Self, XtaskError> {
        let venv = Self { folder: workspace::venv_dir() };
        if let Some(reason) = venv.unfit()? {
            venv.make(&reason)?;
        }
        venv.install_tools()?;
        Ok(venv)
    }

    /// Its interpreter, to start as a program.
    pub(crate) fn python(&self) -> Command {
        self.activate(process::command(self.folder.join("bin/python")))
    }

    /// Lets `command` see this environment as the active one, as `bin/activate` would.
    pub(crate) fn activate(&self, mut command: Command) -> Command {
        let bin = self.folder.join("bin");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(bin.clone()).chain(std::env::split_paths(&path));
        // A PATH that cannot be joined again holds a quote; the tools are then found by full path.
        if let Ok(path) = std::env::join_paths(folders) {
            command.env("PATH", path);
        }
        for name in MISLEADING {
            command.env_remove(name);
        }
        command.env("VIRTUAL_ENV", &self.folder);
        for name in NEEDS_NO_INTERPRETER {
            command.env(name, "1");
        }
        command
    }

    /// Why the environment has to be made (again), if it has to be.
    fn unfit(&self) -> Result<Option<String>, XtaskError> {
        if !self.folder.exists() {
            return Ok(Some("making .venv".to_owned()));
        }
        let settings = self.folder.join("pyvenv.cfg");
        let Ok(settings) = fs::read_to_string(settings) else {
            return Err(XtaskError::NotAVenv { path: self.folder.clone() });
        };
        let has = match probe::probe(&self.folder.join("bin/python")) {
            Ok(has) => has,
            Err(reason) => return Ok(Some(format!("making .venv again: its python {reason}"))),
        };
        if !made_for(&settings, &self.folder) {
            return Ok(Some("making .venv again: the checkout has moved".to_owned()));
        }
        if std::env::var_os(SETTING).is_some_and(|value| !value.is_empty()) {
            let wanted = find()?;
            if (&wanted.base_prefix, &wanted.version) != (&has.base_prefix, &has.version) {
                return Ok(Some(format!("making .venv again: {SETTING} names another python")));
            }
        }
        Ok(None)
    }

    fn make(&self, reason: &str) -> Result<(), XtaskError> {
        let interpreter = find()?;
        let (version, path) = (&interpreter.version, interpreter.path.display());
        eprintln!("setup: {reason}, from CPython {version} at {path}");
        let mut command = process::command(&interpreter.path);
        for name in MISLEADING {
            command.env_remove(name);
        }
        command.args(["-m", "venv", "--clear"]).arg(&self.folder);
        process::run("making .venv", &mut command)
    }

    fn install_tools(&self) -> Result<(), XtaskError> {
        let wanted_path = workspace::root().join(REQUIREMENTS);
        let wanted = workspace::read(&wanted_path)?;
        let stamp = self.folder.join(STAMP);
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(());
        }
        let count = wanted.lines().filter(|line| line.contains("==")).count();
        eprintln!("setup: installing {count} pinned development packages (some 60 MB, once)");
        let mut pip = self.python();
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        // The list is complete; and penguins are wanted for their table, not for pandas.
        pip.args(["--no-deps", "--requirement"]).arg(wanted_path);
        process::run("pip install", &mut pip)?;
        fs::write(&stamp, wanted).map_err(|source| XtaskError::Write { path: stamp, source })
    }

    fn build(&self, profile: Profile) -> Result<(), XtaskError> {
        let how = match profile {
            Profile::Release => "optimised",
            Profile::Debug => "debug",
        };
        let built = workspace::root().join("python/pyisolate/_core.abi3.so").exists();
        let patience = if built { "" } else { "; the first time takes minutes" };
        eprintln!("setup: building pyisolate ({how}{patience}) and installing it into .venv");
        let mut maturin = self.python();
        maturin.args(["-m", "maturin", "develop"]);
        if profile == Profile::Release {
            maturin.arg("--release");
        }
        maturin.env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        process::run("maturin develop", &mut maturin)
    }
}

/// Whether `pyvenv.cfg` says that the environment was made for this very folder. The scripts in
/// its `bin` carry the full path, so a moved checkout has to make it anew.
fn made_for(settings: &str, folder: &Path) -> bool {
    let command = settings.lines().find_map(|line| line.strip_prefix("command = "));
    command.is_none_or(|command| command.ends_with(&*folder.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_a_moved_checkout() {
        let settings = "home = /usr/bin\ncommand = /usr/bin/python3 -m venv --clear /a/b/.venv\n";
        assert!(made_for(settings, Path::new("/a/b/.venv")));
        assert!(!made_for(settings, Path::new("/a/c/.venv")));
        assert!(
            made_for("home = /usr/bin\n", Path::new("/a/c/.venv")),
            "older pythons say nothing"
        );
    }

    #[test]
    fn every_requirement_is_pinned() {
        let text = workspace::read(&workspace::root().join(REQUIREMENTS)).expect("it is there");
        let entries = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        for entry in entries {
            assert!(entry.contains("=="), "{entry} is not pinned");
        }
    }
}
