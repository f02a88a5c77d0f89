//! Installed packages, as the image of a microVM takes them.

use std::path::PathBuf;
use std::process::Stdio;

use pyisolate_microvm::image::{KernelSource, PackageFiles, Wanted};
use serde::Deserialize;

use crate::environment::{Environment, EnvironmentError};
use crate::launcher;

const PACKAGES: &str = include_str!("packages.py");

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Packages(Vec<Found>),
    Unfit(String),
}

#[derive(Deserialize)]
struct Found {
    name: String,
    version: String,
    folder: PathBuf,
    files: Vec<PathBuf>,
}

impl Environment {
    /// What an image of this environment is made of, with these installed packages and everything
    /// that they require.
    ///
    /// # Errors
    /// [`EnvironmentError::Packages`] if one of them is not installed, or not so that it can be
    /// copied; or the interpreter does not say.
    pub fn wanted(
        &self,
        packages: &[String],
        kernel: KernelSource,
    ) -> Result<Wanted, EnvironmentError> {
        let packages = if packages.is_empty() { Vec::new() } else { self.package_files(packages)? };
        Ok(Wanted { environment: self.inner.clone(), packages, kernel })
    }

    fn package_files(&self, names: &[String]) -> Result<Vec<PackageFiles>, EnvironmentError> {
        let interpreter = self.executable();
        let output = launcher::command(interpreter)
            .args(["-I", "-S", "-c", PACKAGES])
            .args(self.packages())
            .arg("--")
            .args(names)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| EnvironmentError::Run { interpreter: interpreter.into(), source })?;
        let describe =
            |output: String| EnvironmentError::Describe { interpreter: interpreter.into(), output };
        if !output.status.success() {
            return Err(describe(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        match serde_json::from_slice(&output.stdout) {
            Ok(Answer::Packages(found)) => Ok(found
                .into_iter()
                .map(|Found { name, version, folder, files }| PackageFiles {
                    name,
                    version,
                    folder,
                    files,
                })
                .collect()),
            Ok(Answer::Unfit(why)) => {
                Err(EnvironmentError::Packages { interpreter: interpreter.into(), why })
            }
            Err(error) => Err(describe(format!("its answer is not what was asked for: {error}"))),
        }
    }
}
