//! What is in the image's file tree, and what of the host's files is left out.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use pyisolate_channel::control::LOAD_RUNTIME;
use pyisolate_jail::{BindKind, Environment, INTERPRETER_FLAGS, RootPlan};

use super::archive::{Archive, Content, length_bytes};
use super::modules::Module;
use super::{ImageError, MODULE_LIST, PACKAGES, PackageFiles, Progress};

/// Folders of the standard library that no cell needs: its tests, programs with windows, what
/// installs packages, what builds extensions, and the host's own packages.
const LEFT_OUT: [&str; 9] = [
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "lib2to3",
    "site-packages",
    "dist-packages",
];

/// Extension modules that serve these alone. Their libraries are the largest part of some systems.
const EXTENSIONS_LEFT_OUT: [&str; 4] = ["_test", "_tkinter", "_ctypes_test", "xxlimited"];

/// Trees of Python files nest a dozen levels; a deeper one is a loop of links.
const DEPTH_MAX: usize = 64;

/// The device nodes: name, mode, major and minor number (Linux's `devices.txt`).
const DEVICES: [(&str, u32, u32, u32); 4] = [
    // The kernel opens it for /init before anything is mounted.
    ("dev/console", 0o600, 5, 1),
    ("dev/null", 0o666, 1, 3),
    ("dev/urandom", 0o666, 1, 9),
    ("dev/zero", 0o666, 1, 5),
];

const FOLDERS: [(&str, u32); 5] =
    [("dev", 0o755), ("proc", 0o555), ("sys", 0o555), ("tmp", 0o1777), ("packages/0", 0o755)];

/// Names for the two users that processes in the guest have.
const USERS: &str = "root:x:0:0::/:\nnobody:x:65534:65534::/:\n";

const READ: u32 = 0o644;
const EXECUTE: u32 = 0o755;

/// An entry of the tree.
#[derive(Debug)]
enum Entry {
    Folder { mode: u32 },
    File { source: PathBuf, bytes: u64, mode: u32 },
    Made { bytes: Vec<u8>, mode: u32 },
    Device { mode: u32, major: u32, minor: u32 },
}

/// The tree, by paths without a leading slash: a folder stands before what is in it.
#[derive(Debug)]
pub(super) struct Contents {
    entries: BTreeMap<PathBuf, Entry>,
    plan: RootPlan,
}

impl Contents {
    /// What the environment and the packages bring along, with the libraries that they need.
    ///
    /// # Errors
    /// A file is not there or cannot be read.
    pub(super) fn of(
        environment: &Environment,
        packages: &[PackageFiles],
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, ImageError> {
        let mut objects = environment.extensions();
        objects.retain(|path| !is_left_out(path));
        let mut environment = environment.clone();
        environment.packages.clear();
        for package in packages {
            if !environment.packages.contains(&package.folder) {
                environment.packages.push(package.folder.clone());
            }
            let objects_of = package.files.iter().filter(|file| names_object(file));
            objects.extend(objects_of.map(|file| package.folder.join(file)));
        }
        let plan = RootPlan::with_objects(&environment, &objects)?;
        for lacking in plan.unresolved() {
            progress(Progress::Lacking {
                library: lacking.name.to_string_lossy().into_owned(),
                needed_by: lacking.needed_by.clone(),
            });
        }
        let mut contents = Self { entries: BTreeMap::new(), plan };
        for (folder, mode) in FOLDERS {
            contents.put(folder.into(), Entry::Folder { mode });
        }
        for (name, mode, major, minor) in DEVICES {
            contents.put(name.into(), Entry::Device { mode, major, minor });
        }
        for bind in contents.plan.binds().to_vec() {
            match bind.kind {
                BindKind::File => contents.file(&bind.source, bind.target)?,
                // Only the listed files of packages are taken.
                BindKind::Directory if environment.packages.contains(&bind.source) => {}
                BindKind::Directory => contents.tree(&bind.source, &bind.target, 0)?,
                BindKind::Device => {}
            }
        }
        let folder = inside(PACKAGES);
        for package in packages {
            for file in &package.files {
                if file.components().all(|part| matches!(part, Component::Normal(_))) {
                    contents.file(&package.folder.join(file), folder.join(file))?;
                }
            }
        }
        contents.make("etc/passwd".into(), USERS.into(), READ);
        let init = contents.init(&environment);
        contents.make("init".into(), init.into(), EXECUTE);
        Ok(contents)
    }

    /// The environment of `/init`.
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        let variables = self.plan.variables();
        variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    /// Adds the kernel's modules and the list of them; returns their paths.
    pub(super) fn add_modules(&mut self, release: &str, modules: Vec<Module>) -> Vec<String> {
        let folder = Path::new("lib/modules").join(release);
        let mut paths = Vec::new();
        for module in modules {
            let path = folder.join(format!("{}.ko", module.name));
            paths.push(format!("/{}", path.display()));
            self.make(path, module.bytes, READ);
        }
        let list: String = paths.iter().map(|path| format!("{path}\n")).collect();
        self.make(inside(MODULE_LIST), list.into(), READ);
        paths
    }

    /// The Python files that are imported, by their paths in the image, and where they are.
    pub(super) fn sources(&self) -> impl Iterator<Item = (&Path, &Path)> {
        self.entries.iter().filter_map(|(path, entry)| match entry {
            Entry::File { source, .. } if path.extension() == Some(OsStr::new("py")) => {
                Some((path.as_path(), source.as_path()))
            }
            _ => None,
        })
    }

    /// Adds a file with these bytes.
    pub(super) fn add(&mut self, path: PathBuf, bytes: Vec<u8>) {
        self.make(path, bytes, READ);
    }

    /// The size of the archive, in bytes.
    pub(super) fn archive_bytes(&self) -> u64 {
        length_bytes(self.entries.iter().map(|(path, entry)| {
            let bytes = match entry {
                Entry::File { bytes, .. } => *bytes,
                Entry::Made { bytes, .. } => bytes.len() as u64,
                Entry::Folder { .. } | Entry::Device { .. } => 0,
            };
            (path.as_os_str().len(), bytes)
        }))
    }

    /// Writes the archive to `out`, which is named `to` in errors.
    ///
    /// # Errors
    /// A file cannot be read any more, or the archive not written.
    pub(super) fn write<W: std::io::Write>(
        &self,
        out: W,
        to: &Path,
        mut written: impl FnMut(u64),
    ) -> Result<W, ImageError> {
        let mut archive = Archive::new(out);
        for (path, entry) in &self.entries {
            let name = path.as_os_str().as_bytes();
            let added = match entry {
                Entry::Folder { mode } => archive.add(name, *mode, Content::Folder),
                Entry::Device { mode, major, minor } => {
                    archive.add(name, *mode, Content::Device { major: *major, minor: *minor })
                }
                Entry::Made { bytes, mode } => archive.add(name, *mode, Content::File(bytes)),
                Entry::File { source, mode, .. } => {
                    let bytes = std::fs::read(source).map_err(ImageError::call("read", source))?;
                    archive.add(name, *mode, Content::File(&bytes))
                }
            };
            added.map_err(|error| match (error.kind(), entry) {
                (std::io::ErrorKind::FileTooLarge, Entry::File { source, .. }) => {
                    ImageError::TooLarge { path: source.clone() }
                }
                _ => ImageError::call("write", to)(error),
            })?;
            written(archive.written_bytes());
        }
        archive.finish().map_err(ImageError::call("write", to))
    }

    /// The program that the kernel starts. It gets a single word from the first line.
    /// The first program: loads the guest runtime and hands it what its launcher needs to know, which
    /// is where things are in the image.
    fn init(&self, environment: &Environment) -> String {
        let flags = INTERPRETER_FLAGS.concat().replace('-', "");
        let (interpreter, runtime) = (self.plan.interpreter().display(), self.plan.runtime());
        let Environment { stdlib, platstdlib, platlibdir, version: (major, minor), .. } =
            environment;
        let library =
            |folder: &str| self.plan.home().join(folder).join(format!("python{major}.{minor}"));
        let platform = if stdlib == platstdlib { "lib" } else { platlibdir };
        let (stdlib, platstdlib) = (library("lib"), library(platform));
        format!(
            "#!{interpreter} -{flags}\n\
             import sys\n\
             sys.argv = ['/init', {runtime:?}]\n\
             {LOAD_RUNTIME}\n\
             runtime.init([{runtime:?}, '{interpreter}', {stdlib:?}, {platstdlib:?}, \
             {platlibdir:?}, '{major}', '{minor}', {PACKAGES:?}])\n"
        )
    }

    fn tree(&mut self, source: &Path, target: &Path, depth: usize) -> Result<(), ImageError> {
        self.put(target.into(), Entry::Folder { mode: EXECUTE });
        let entries = std::fs::read_dir(source).map_err(ImageError::call("list", source))?;
        for entry in entries {
            let name = entry.map_err(ImageError::call("list", source))?.file_name();
            let (from, to) = (source.join(&name), target.join(&name));
            // A link that leads nowhere is no file. Pipes and devices are none of the library's.
            let Ok(found) = std::fs::metadata(&from) else { continue };
            if is_left_out(&from) {
                continue;
            } else if found.is_dir() {
                if depth < DEPTH_MAX {
                    self.tree(&from, &to, depth + 1)?;
                }
            } else if found.is_file() {
                self.file(&from, to)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, source: &Path, target: PathBuf) -> Result<(), ImageError> {
        let found = std::fs::metadata(source).map_err(ImageError::call("look at", source))?;
        let executable = found.permissions().mode() & 0o100 != 0;
        let mode = if executable { EXECUTE } else { READ };
        self.put(target, Entry::File { source: source.into(), bytes: found.len(), mode });
        Ok(())
    }

    fn make(&mut self, path: PathBuf, bytes: Vec<u8>, mode: u32) {
        self.put(path, Entry::Made { bytes, mode });
    }

    fn put(&mut self, path: PathBuf, entry: Entry) {
        let above = path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
        for folder in above {
            if !self.entries.contains_key(folder) {
                self.entries.insert(folder.into(), Entry::Folder { mode: EXECUTE });
            }
        }
        self.entries.insert(path, entry);
    }
}

fn inside(path: &str) -> PathBuf {
    path.trim_start_matches('/').into()
}

/// Whether something of the standard library stays out of the image.
fn is_left_out(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let ending = path.extension().unwrap_or_default();
    LEFT_OUT.contains(&&*name)
        || name == "__pycache__"
        || name.starts_with("config-")
        || ["a", "o", "pyc"].iter().any(|it| ending == *it)
        || (ending == "so" && EXTENSIONS_LEFT_OUT.iter().any(|start| name.starts_with(start)))
}

/// Whether a file is named like a shared object.
fn names_object(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".so") || name.contains(".so.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_cell_needs_is_left_out() {
        let out = [
            "/p/test",
            "/p/unittest/__pycache__",
            "/p/config-3.13-x86_64-linux-gnu",
            "/p/libpython.a",
            "/p/lib-dynload/_tkinter.cpython-313-x86_64-linux-gnu.so",
            "/p/lib-dynload/_testcapi.cpython-313-x86_64-linux-gnu.so",
            "/p/site-packages",
        ];
        let kept = ["/p/unittest", "/p/doctest.py", "/p/lib-dynload/_ssl.so", "/p/configparser.py"];
        assert!(out.iter().all(|path| is_left_out(path.as_ref())));
        assert!(!kept.iter().any(|path| is_left_out(path.as_ref())));
    }
}
