//! Finds a CPython that fits, by itself: an explicit setting, PATH, pyenv, uv, in that order.

use std::collections::HashSet;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::probe::{self, Interpreter, OLDEST};
use crate::process;
use crate::workspace;

/// The variable that names an interpreter explicitly; then no other is looked at.
pub(crate) const SETTING: &str = "PYISOLATE_PYTHON";

/// Names looked for on PATH, the most specific first.
const NAMES: [&str; 4] = ["python3.14", "python3.13", "python3", "python"];

/// Everything outside this program that the search depends on.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    /// The value of `PYISOLATE_PYTHON`, unless empty.
    pub(crate) explicit: Option<OsString>,
    /// The folders of PATH.
    pub(crate) path: Vec<PathBuf>,
    /// pyenv's folders, each with `versions/` in it.
    pub(crate) pyenv_roots: Vec<PathBuf>,
    /// Folders in which uv keeps interpreters.
    pub(crate) uv_folders: Vec<PathBuf>,
    /// This checkout's own environment: made from an interpreter, so no place to find one.
    pub(crate) own_venv: PathBuf,
}

/// No interpreter fits. Its text says what was tried, why each failed, and what to install.
#[derive(Debug, Default)]
pub(crate) struct NoneFits {
    explicit: Option<OsString>,
    tried: Vec<(PathBuf, String)>,
}

impl Surroundings {
    pub(crate) fn from_environment() -> Self {
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let home = variable("HOME").map(PathBuf::from).unwrap_or_default();
        let data = variable("XDG_DATA_HOME").map_or_else(|| home.join(".local/share"), Into::into);
        let mut pyenv_roots: Vec<PathBuf> =
            variable("PYENV_ROOT").map(PathBuf::from).into_iter().collect();
        pyenv_roots.push(home.join(".pyenv"));
        let mut uv_folders: Vec<PathBuf> =
            variable("UV_PYTHON_INSTALL_DIR").map(PathBuf::from).into_iter().collect();
        uv_folders.push(data.join("uv/python"));
        Self {
            explicit: variable(SETTING),
            path: variable("PATH")
                .map(|path| env::split_paths(&path).collect())
                .unwrap_or_default(),
            pyenv_roots,
            uv_folders,
            own_venv: workspace::venv_dir(),
        }
    }

    /// The first interpreter that fits.
    pub(crate) fn find(&self) -> Result<Interpreter, NoneFits> {
        let mut failure = NoneFits { explicit: self.explicit.clone(), tried: Vec::new() };
        if let Some(explicit) = &self.explicit {
            let path = self.resolve(explicit);
            return probe::probe(&path).map_err(|reason| {
                failure.tried.push((path, reason));
                failure
            });
        }
        let mut seen = HashSet::new();
        for place in [Self::on_path, Self::in_pyenv, Self::in_uv] {
            for candidate in place(self) {
                if candidate.starts_with(&self.own_venv) || !seen.insert(identity(&candidate)) {
                    continue;
                }
                match probe::probe(&candidate) {
                    Ok(interpreter) => return Ok(interpreter),
                    Err(reason) => failure.tried.push((candidate, reason)),
                }
            }
        }
        Err(failure)
    }

    /// A bare name given explicitly is looked up on PATH, as a shell would.
    fn resolve(&self, explicit: &OsString) -> PathBuf {
        let given = PathBuf::from(explicit);
        if given.components().count() > 1 {
            // Programs are started in the checkout's top folder; the caller may stand elsewhere.
            return std::path::absolute(&given).unwrap_or(given);
        }
        self.path
            .iter()
            .map(|folder| folder.join(&given))
            .find(|path| is_executable(path))
            .unwrap_or(given)
    }

    fn on_path(&self) -> Vec<PathBuf> {
        NAMES
            .iter()
            .flat_map(|name| self.path.iter().map(move |folder| folder.join(name)))
            .filter(|path| is_executable(path))
            .collect()
    }

    fn in_pyenv(&self) -> Vec<PathBuf> {
        self.pyenv_roots.iter().flat_map(|root| installed_under(&root.join("versions"))).collect()
    }

    /// What uv itself would choose (it also knows places of its own settings), then its folders.
    fn in_uv(&self) -> Vec<PathBuf> {
        let chosen = self.path.iter().map(|folder| folder.join("uv")).find(|uv| is_executable(uv));
        let chosen = chosen.and_then(|uv| {
            let mut command = process::command(uv);
            let request = format!(">={}.{}", OLDEST.0, OLDEST.1);
            // Only its own: those on PATH were asked already, and a broken shim would stop it.
            command.args(["python", "find", "--python-preference", "only-managed", &request]);
            command.arg("--no-project").env("UV_PYTHON_DOWNLOADS", "never");
            let finished = process::output_within("uv", &mut command, probe::LIMIT).ok()?;
            let path = PathBuf::from(finished.stdout.trim());
            (finished.status.success() && is_executable(&path)).then_some(path)
        });
        let folders = self.uv_folders.iter().flat_map(|folder| installed_under(folder));
        chosen.into_iter().chain(folders).collect()
    }
}

impl fmt::Display for NoneFits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = OLDEST;
        if self.explicit.is_some() {
            write!(f, "{SETTING} names an interpreter that does not fit:")?;
        } else {
            write!(f, "no CPython {major}.{minor} or newer was found.\n\nTried:")?;
        }
        for (path, reason) in &self.tried {
            write!(f, "\n  {}: {reason}", path.display())?;
        }
        if self.tried.is_empty() {
            write!(f, "\n  nothing named python on PATH, none from pyenv, none from uv")?;
        }
        if self.explicit.is_some() {
            return write!(f, "\nUnset it to let one be found, or name CPython {major}.{minor}+.");
        }
        write!(
            f,
            "

Install one (the ordinary build, not the free-threaded one), then run this again:
  Debian 13+, Ubuntu 25.04+   apt install python3 python3-venv
  Fedora 41+                  dnf install python3
  any Linux, with pyenv       pyenv install {major}.{minor}
  any Linux, with uv          uv python install {major}.{minor}
Or name one that is elsewhere: {SETTING}=/path/to/python{major}.{minor}
(macOS and Windows are not supported: the walls are Linux kernel mechanisms.)"
        )
    }
}

/// `folder/*/bin/python3`, the newest version first.
fn installed_under(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    versions.sort_by_key(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let numbers = name.split(|c: char| !c.is_ascii_digit());
        numbers.filter_map(|number| number.parse::<u64>().ok()).collect::<Vec<_>>()
    });
    let found = versions.into_iter().rev().map(|version| version.join("bin/python3"));
    found.filter(|path| is_executable(path)).collect()
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// One file under one name is one candidate, however many folders of PATH link to it. The name
/// counts because shims and multi-call programs act by it.
fn identity(path: &Path) -> (u64, u64, OsString) {
    let (device, inode) = fs::metadata(path).map_or((0, 0), |meta| (meta.dev(), meta.ino()));
    (device, inode, path.file_name().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plants an interpreter that answers the probe like CPython `version`.
    fn plant(path: &Path, version: &str) {
        let answer = format!(
            "version={version}\\nlevel=final\\nimplementation=cpython\\nno_gil=0\\nbits=64\\n\
             venv=1\\nbase_prefix=/p\\nexecutable={}\\n",
            path.display()
        );
        plant_script(path, &format!("printf '{answer}'"));
    }

    fn plant_script(path: &Path, body: &str) {
        fs::create_dir_all(path.parent().expect("a folder")).expect("can make folders");
        fs::write(path, format!("#!/bin/sh\n{body}\n")).expect("can write");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("can chmod");
    }

    fn surroundings(root: &Path) -> Surroundings {
        Surroundings {
            explicit: None,
            path: vec![root.join("shims"), root.join("bin")],
            pyenv_roots: vec![root.join("pyenv")],
            uv_folders: vec![root.join("uv")],
            own_venv: root.join(".venv"),
        }
    }

    #[test]
    fn a_broken_shim_does_not_hide_the_next_one() {
        let root = tempfile::tempdir().expect("a folder");
        let shim = root.path().join("shims/python3.13");
        plant_script(&shim, "echo 'pyenv: python3.13: command not found' >&2; exit 127");
        plant(&root.path().join("bin/python3"), "3.13.5");
        let found = surroundings(root.path()).find().expect("one fits");
        assert_eq!(found.path, root.path().join("bin/python3"));
    }

    #[test]
    fn pyenv_gives_its_newest_and_uv_comes_last() {
        let root = tempfile::tempdir().expect("a folder");
        plant(&root.path().join("bin/python3"), "3.11.2");
        plant(&root.path().join("uv/cpython-3.14.1-linux/bin/python3"), "3.14.1");
        let around = surroundings(root.path());
        assert_eq!(around.find().expect("uv has one").version, "3.14.1");
        for version in ["3.9.18", "3.13.2", "3.13.10"] {
            let path = root.path().join(format!("pyenv/versions/{version}/bin/python3"));
            plant(&path, version);
        }
        assert_eq!(around.find().expect("pyenv has two").version, "3.13.10");
    }

    #[test]
    fn an_explicit_setting_is_obeyed_or_refused_never_replaced() {
        let root = tempfile::tempdir().expect("a folder");
        plant(&root.path().join("bin/python3"), "3.13.5");
        plant(&root.path().join("elsewhere/python"), "3.14.0");
        plant(&root.path().join("old/python"), "3.12.0");
        let mut around = surroundings(root.path());
        around.explicit = Some(root.path().join("elsewhere/python").into());
        assert_eq!(around.find().expect("it fits").version, "3.14.0");
        around.explicit = Some("python3".into());
        assert_eq!(around.find().expect("a bare name is looked up").version, "3.13.5");
        around.explicit = Some(root.path().join("old/python").into());
        let message = around.find().expect_err("too old").to_string();
        assert!(message.contains(SETTING) && message.contains("is Python 3.12.0"), "{message}");
    }

    #[test]
    fn our_own_environment_is_no_source() {
        let root = tempfile::tempdir().expect("a folder");
        plant(&root.path().join(".venv/bin/python3"), "3.13.5");
        let mut around = surroundings(root.path());
        around.path.insert(0, root.path().join(".venv/bin"));
        assert!(around.find().is_err());
    }

    #[test]
    fn absence_says_what_was_tried_and_what_to_install() {
        let root = tempfile::tempdir().expect("a folder");
        plant(&root.path().join("bin/python3"), "3.11.2");
        let message = surroundings(root.path()).find().expect_err("none fits").to_string();
        for part in ["bin/python3: is Python 3.11.2", "apt install", "pyenv install", "uv python"] {
            assert!(message.contains(part), "{message}");
        }
    }
}
