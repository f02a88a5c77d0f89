//! Which interpreter and packages cells run on.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use pyisolate_jail::{PlanError, RootPlan};
use serde::Deserialize;
use thiserror::Error;

use crate::launcher;

/// The program that an interpreter runs to describe itself; prints one line of JSON.
pub const DESCRIBE: &str = include_str!("describe.py");

/// The oldest CPython whose per-interpreter state and C-API the guest runtime is written for.
const VERSION_LEAST: (u8, u8) = (3, 13);

/// An interpreter that can run cells, with its packages and the guest runtime.
#[derive(Clone, Debug)]
pub struct Environment {
    pub(crate) inner: pyisolate_jail::Environment,
    venv_config: Option<PathBuf>,
}

/// Why there is no environment for cells.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// The interpreter could not be run.
    #[error("cannot run {interpreter}: {source}; name a CPython 3.13 or newer")]
    Run {
        /// The interpreter.
        interpreter: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The interpreter ran and did not describe itself.
    #[error("{interpreter} did not describe itself: {output}")]
    Describe {
        /// The interpreter.
        interpreter: PathBuf,
        /// What it printed to stderr, or what is wrong with its answer.
        output: String,
    },
    /// Another implementation or an older version.
    #[error("{interpreter} is {found}: cells need CPython 3.13 or newer with its lock (not 3.13t)")]
    Unfit {
        /// The interpreter.
        interpreter: PathBuf,
        /// What it is.
        found: String,
    },
    /// Nothing that was tried is an interpreter with pyisolate in it.
    #[error(
        "found no interpreter with pyisolate installed (tried {tried}): set PYISOLATE_PYTHON to \
         one, or create .venv and `pip install pyisolate` into it"
    )]
    NotFound {
        /// What was tried, separated by commas.
        tried: String,
    },
    /// The interpreter has no pyisolate, and none was given.
    #[error("{interpreter} has no pyisolate, whose guest runtime cells need: install it there")]
    NoRuntime {
        /// The interpreter.
        interpreter: PathBuf,
    },
    /// A package cannot go into an image.
    #[error("{why}, for {interpreter}: `{interpreter} -m pip install NAME` installs a package")]
    Packages {
        /// The interpreter.
        interpreter: PathBuf,
        /// Which package, and why.
        why: String,
    },
    /// No interpreter in the folder that was named as a virtual environment.
    #[error("{0} is no virtual environment: it has no bin/python")]
    NotAVenv(PathBuf),
}

#[derive(Deserialize)]
struct Description {
    implementation: String,
    version: (u8, u8),
    gil: bool,
    executable: PathBuf,
    stdlib: PathBuf,
    platstdlib: PathBuf,
    platlibdir: String,
    packages: Vec<PathBuf>,
    runtime: Option<PathBuf>,
    venv_config: Option<PathBuf>,
}

impl Environment {
    /// Looks for an interpreter with pyisolate in it: `$PYISOLATE_PYTHON`, `.venv` here, then
    /// `python3` and `python` on `PATH`. The first may also be one that a virtual environment is to
    /// be made from, as the project's own set-up takes it; then the search goes on.
    ///
    /// # Errors
    /// [`EnvironmentError::NotFound`] naming what was tried.
    pub fn discover() -> Result<Self, EnvironmentError> {
        if let Some(explicit) = std::env::var_os("PYISOLATE_PYTHON") {
            match Self::of_interpreter(Path::new(&explicit), None) {
                Err(EnvironmentError::NoRuntime { .. }) => {}
                found => return found,
            }
        }
        let mut tried = Vec::new();
        for candidate in [".venv/bin/python", "python3", "python"] {
            match Self::of_interpreter(Path::new(candidate), None) {
                Ok(environment) => return Ok(environment),
                Err(error) => tried.push(format!("{candidate} ({error})")),
            }
        }
        Err(EnvironmentError::NotFound { tried: tried.join(", ") })
    }

    /// The environment of an interpreter, by running it once. `runtime` is the guest runtime's
    /// shared object; without it the interpreter's own pyisolate is used.
    ///
    /// # Errors
    /// [`EnvironmentError`] if it does not run, is too old, or has no runtime.
    pub fn of_interpreter(
        interpreter: &Path,
        runtime: Option<&Path>,
    ) -> Result<Self, EnvironmentError> {
        let run = |source| EnvironmentError::Run { interpreter: interpreter.into(), source };
        let output = launcher::command(interpreter)
            .args(["-I", "-c", DESCRIBE])
            .stdin(Stdio::null())
            .output()
            .map_err(run)?;
        if !output.status.success() {
            return Err(EnvironmentError::Describe {
                interpreter: interpreter.into(),
                output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Self::from_description(&text, interpreter, runtime)
    }

    /// The environment of a virtual environment's folder.
    ///
    /// # Errors
    /// As [`Environment::of_interpreter`].
    pub fn of_venv(folder: &Path, runtime: Option<&Path>) -> Result<Self, EnvironmentError> {
        let interpreter = folder.join("bin/python");
        if !interpreter.exists() {
            return Err(EnvironmentError::NotAVenv(folder.into()));
        }
        Self::of_interpreter(&interpreter, runtime)
    }

    /// The environment that [`DESCRIBE`] printed; for a host that is an interpreter itself.
    ///
    /// # Errors
    /// [`EnvironmentError`] if the text is no description, or describes an interpreter that is
    /// too old.
    pub fn from_description(
        description: &str,
        interpreter: &Path,
        runtime: Option<&Path>,
    ) -> Result<Self, EnvironmentError> {
        let found: Description =
            serde_json::from_str(description).map_err(|error| EnvironmentError::Describe {
                interpreter: interpreter.into(),
                output: format!("its answer is not what was asked for: {error}"),
            })?;
        if found.implementation != "cpython" || found.version < VERSION_LEAST || !found.gil {
            let (major, minor) = found.version;
            let build = if found.gil { "" } else { "t" };
            return Err(EnvironmentError::Unfit {
                interpreter: interpreter.into(),
                found: format!("{} {major}.{minor}{build}", found.implementation),
            });
        }
        let runtime = runtime
            .map(Path::to_path_buf)
            .or(found.runtime)
            .ok_or_else(|| EnvironmentError::NoRuntime { interpreter: interpreter.into() })?;
        Ok(Self {
            inner: pyisolate_jail::Environment {
                executable: found.executable,
                stdlib: found.stdlib,
                platstdlib: found.platstdlib,
                platlibdir: found.platlibdir,
                version: found.version,
                packages: found.packages,
                runtime,
            },
            venv_config: found.venv_config,
        })
    }

    /// The interpreter that cells run on.
    #[must_use]
    pub fn executable(&self) -> &Path {
        &self.inner.executable
    }

    /// Folders of installed packages, in the order of `sys.path`.
    #[must_use]
    pub fn packages(&self) -> &[PathBuf] {
        &self.inner.packages
    }

    /// The file that makes the interpreter one of a virtual environment, which it looks for whenever it
    /// starts.
    #[must_use]
    pub fn venv_config(&self) -> &[PathBuf] {
        self.venv_config.as_slice()
    }

    /// The folder of the standard library's extension modules.
    #[must_use]
    pub fn extensions(&self) -> PathBuf {
        self.inner.platstdlib.join("lib-dynload")
    }

    /// The files that cells may read, as the jail names them.
    ///
    /// # Errors
    /// A path that the interpreter named is not there.
    pub fn root_plan(&self) -> Result<RootPlan, PlanError> {
        RootPlan::new(&self.inner)
    }

    /// What the launcher is told, in the order in which it reads it.
    /// The guest runtime's shared object.
    pub(crate) fn runtime(&self) -> &Path {
        &self.inner.runtime
    }

    pub(crate) fn launcher_arguments(&self) -> Vec<OsString> {
        let environment = &self.inner;
        let (major, minor) = environment.version;
        let mut arguments: Vec<OsString> = vec![
            environment.runtime.clone().into(),
            environment.executable.clone().into(),
            environment.stdlib.clone().into(),
            environment.platstdlib.clone().into(),
            environment.platlibdir.clone().into(),
            major.to_string().into(),
            minor.to_string().into(),
        ];
        arguments.extend(environment.packages.iter().map(Into::into));
        arguments
    }
}
