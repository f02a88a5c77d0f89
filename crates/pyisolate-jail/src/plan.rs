//! What the jail's root contains, worked out from the host's Python before any process is jailed.
//!
//! The plan is data: a list of binds, each a host path and the place it gets in the root. Names
//! inside never repeat names outside, with one exception that ELF forces: the program interpreter
//! sits at the path the binary names. (Text *inside* the host's files is theirs: `_sysconfigdata`
//! still spells the build prefix.)

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use crate::elf::{self, Unresolved};

/// Where the single library files live inside the root.
const LIBRARY_DIRECTORY: &str = "lib";
const LIBRARY_PATH: &str = "/lib";

/// The interpreter's prefix inside the root.
const HOME: &str = "/python";

/// Libraries that glibc and CPython load by name at run time, so that no `DT_NEEDED` mentions them.
/// `libgcc_s` unwinds the stack of a thread that `pthread_exit` ends; without it the process
/// aborts.
const LOADED_BY_NAME: &[&str] = &["libgcc_s.so.1"];

/// The devices of the root. There is no `/dev/zero`: a shared mapping of it is memory that
/// `RLIMIT_DATA` does not see.
const DEVICES: &[&str] = &["null", "urandom"];

/// What the interpreter is told on its command line, wherever guests run. Not `-I`: it would ignore
/// `PYTHONHOME`.
pub const INTERPRETER_FLAGS: [&str; 6] = ["-s", "-P", "-S", "-B", "-X", "utf8"];

/// The variables of the interpreter's environment whose values are always the same.
pub const FIXED_VARIABLES: [(&str, &str); 4] = [
    // Threads that a library starts by itself would be lost in the fork, and count as the cell's.
    ("OPENBLAS_NUM_THREADS", "1"),
    ("OMP_NUM_THREADS", "1"),
    ("MKL_NUM_THREADS", "1"),
    ("LC_ALL", "C.UTF-8"),
];

/// Names the folders that `ld.so` looks in.
pub const LIBRARIES_VARIABLE: &str = "LD_LIBRARY_PATH";

/// Names the interpreter's prefix. Found by its own path, it finds its library beside it.
pub const HOME_VARIABLE: &str = "PYTHONHOME";

/// The host's Python, as its own `sysconfig` describes it.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The interpreter binary itself: the base installation's, not a virtual environment's link to
    /// it.
    pub executable: PathBuf,
    /// `sysconfig.get_path("stdlib")`, e.g. `/usr/lib/python3.13`.
    pub stdlib: PathBuf,
    /// `sysconfig.get_path("platstdlib")` of the base installation. Often the same; on Fedora below
    /// `/usr/lib64`.
    pub platstdlib: PathBuf,
    /// `sys.platlibdir`: `lib` or `lib64`.
    pub platlibdir: String,
    /// Major and minor version.
    pub version: (u8, u8),
    /// Directories of installed packages, in the order of `sys.path`.
    pub packages: Vec<PathBuf>,
    /// The shared object of the guest runtime.
    pub runtime: PathBuf,
}

impl Environment {
    /// The extension modules of the standard library.
    #[must_use]
    pub fn extensions(&self) -> Vec<PathBuf> {
        let mut found = elf::shared_objects(&self.stdlib.join("lib-dynload"));
        if self.stdlib != self.platstdlib {
            found.extend(elf::shared_objects(&self.platstdlib.join("lib-dynload")));
        }
        found
    }
}

/// Why no plan could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A path of the environment cannot be looked at.
    #[error("cannot read {path:?}, which the environment names as its {role}")]
    Missing {
        /// What the environment calls it.
        role: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A path is there, but of the wrong kind.
    #[error("{path:?}, which the environment names as its {role}, is not a {expected}")]
    WrongKind {
        /// What the environment calls it.
        role: &'static str,
        /// The path.
        path: PathBuf,
        /// `file` or `directory`.
        expected: &'static str,
    },
    /// The executable names no program interpreter.
    #[error(
        "{path:?} is not a dynamically linked ELF program of this machine; name the real interpreter binary"
    )]
    NotAProgram {
        /// The executable.
        path: PathBuf,
    },
    /// `platlibdir` or the program interpreter would lead outside the root.
    #[error("{path:?} cannot be a place inside the root")]
    BadTarget {
        /// What was asked for.
        path: PathBuf,
    },
}

/// How a bind is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindKind {
    /// A single file.
    File,
    /// A directory with all below it, other mounts included.
    Directory,
    /// A device node.
    Device,
}

/// One host path and its place in the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The path on the host. Symbolic links are followed when it is bound.
    pub source: PathBuf,
    /// The place in the root, without a leading slash.
    pub target: PathBuf,
    /// What it is.
    pub kind: BindKind,
}

/// Everything the root will contain.
#[derive(Clone, Debug)]
pub struct RootPlan {
    binds: Vec<Bind>,
    covered: Vec<PathBuf>,
    packages: Vec<PathBuf>,
    runtime: PathBuf,
    programs: Vec<PathBuf>,
    unresolved: Vec<Unresolved>,
}

impl RootPlan {
    /// Works out the root for `environment`. Reads the headers of every shared object in it: some
    /// milliseconds.
    ///
    /// # Errors
    /// When a path of the environment is missing or of the wrong kind.
    pub fn new(environment: &Environment) -> Result<Self, PlanError> {
        let mut objects = environment.extensions();
        for packages in &environment.packages {
            objects.extend(elf::shared_objects(packages));
        }
        Self::with_objects(environment, &objects)
    }

    /// As [`RootPlan::new`], where the libraries are those that the interpreter, the runtime and
    /// `objects` need, of all shared objects in the environment's folders: for a root that holds
    /// only some of them.
    ///
    /// # Errors
    /// As [`RootPlan::new`].
    pub fn with_objects(environment: &Environment, objects: &[PathBuf]) -> Result<Self, PlanError> {
        let mut plan = Self {
            binds: Vec::new(),
            covered: Vec::new(),
            packages: Vec::new(),
            runtime: PathBuf::new(),
            programs: Vec::new(),
            unresolved: Vec::new(),
        };
        plan.add_python(environment)?;
        for (number, packages) in environment.packages.iter().enumerate() {
            let target = PathBuf::from(format!("packages/{number}"));
            plan.add("packages", packages, target.clone(), BindKind::Directory)?;
            plan.packages.push(Path::new("/").join(target));
        }
        let name = environment.runtime.file_name().unwrap_or(OsStr::new("runtime.so"));
        let target = Path::new("pyisolate").join(name);
        plan.add("runtime", &environment.runtime, target.clone(), BindKind::File)?;
        plan.runtime = Path::new("/").join(target);
        plan.add_libraries(environment, objects)?;
        for device in DEVICES {
            let source = Path::new("/dev").join(device);
            plan.binds.push(Bind {
                target: Path::new("dev").join(device),
                source,
                kind: BindKind::Device,
            });
        }
        Ok(plan)
    }

    /// The binds, in the order they are attached.
    #[must_use]
    pub fn binds(&self) -> &[Bind] {
        &self.binds
    }

    /// Directories inside the root that an empty one is put over, without a leading slash: packages
    /// of the base installation that the environment does not list.
    #[must_use]
    pub fn covered(&self) -> &[PathBuf] {
        &self.covered
    }

    /// What is executed to start the interpreter, by the names that it has on the host: the binary,
    /// and the program interpreter that it names.
    #[must_use]
    pub fn programs(&self) -> &[PathBuf] {
        &self.programs
    }

    /// Needed libraries that were found nowhere. The modules that need them cannot be imported.
    #[must_use]
    pub fn unresolved(&self) -> &[Unresolved] {
        &self.unresolved
    }

    /// Where the shared libraries are, for `LD_LIBRARY_PATH`: not every `ld.so` looks in `/lib` by
    /// itself.
    #[must_use]
    pub fn library_path(&self) -> &'static Path {
        Path::new(LIBRARY_PATH)
    }

    /// Where the packages are, for `sys.path`, in the environment's order.
    #[must_use]
    pub fn packages(&self) -> &[PathBuf] {
        &self.packages
    }

    /// The interpreter to execute.
    #[must_use]
    pub fn interpreter(&self) -> &'static Path {
        Path::new("/python/bin/python3")
    }

    /// The prefix of the interpreter, for `PYTHONHOME`.
    #[must_use]
    pub fn home(&self) -> &'static Path {
        Path::new(HOME)
    }

    /// The interpreter's environment, all of it.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, &'static str)> {
        let mut variables = FIXED_VARIABLES.to_vec();
        variables.push((LIBRARIES_VARIABLE, LIBRARY_PATH));
        variables.push((HOME_VARIABLE, HOME));
        variables
    }

    /// The guest runtime.
    #[must_use]
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    fn add_python(&mut self, environment: &Environment) -> Result<(), PlanError> {
        let Environment {
            executable, stdlib, platstdlib, platlibdir, version: (major, minor), ..
        } = environment;
        let version = format!("python{major}.{minor}");
        self.add("executable", executable, PathBuf::from("python/bin/python3"), BindKind::File)?;
        let target = Path::new("python/lib").join(&version);
        self.add("stdlib", stdlib, target.clone(), BindKind::Directory)?;
        self.cover_packages(stdlib, &target, environment);
        if stdlib != platstdlib {
            let target = inside(&Path::new("/python").join(platlibdir).join(&version))?;
            self.add("platstdlib", platstdlib, target.clone(), BindKind::Directory)?;
            self.cover_packages(platstdlib, &target, environment);
        }
        Ok(())
    }

    /// The base installation keeps its packages below its standard library. Unless listed, they are
    /// not the guest's. (CPython's own `test` package stays: it is the standard library's, and
    /// holds nothing of the host's.)
    fn cover_packages(&mut self, stdlib: &Path, target: &Path, environment: &Environment) {
        for name in ["site-packages", "dist-packages"] {
            let directory = stdlib.join(name);
            if directory.is_dir() && !environment.packages.contains(&directory) {
                self.covered.push(target.join(name));
            }
        }
    }

    fn add_libraries(
        &mut self,
        environment: &Environment,
        objects: &[PathBuf],
    ) -> Result<(), PlanError> {
        let bound: Vec<PathBuf> = self
            .binds
            .iter()
            .filter(|bind| bind.kind == BindKind::Directory)
            .map(|bind| bind.source.clone())
            .collect();
        let mut roots = vec![environment.executable.clone(), environment.runtime.clone()];
        roots.extend_from_slice(objects);
        let needs = elf::closure(&roots, &bound, LOADED_BY_NAME);
        let interpreter = needs
            .interpreter
            .ok_or_else(|| PlanError::NotAProgram { path: environment.executable.clone() })?;
        let target = inside(&interpreter)?;
        self.add("program interpreter", &interpreter, target, BindKind::File)?;
        self.programs = vec![environment.executable.clone(), interpreter];
        for library in needs.libraries {
            let target = Path::new(LIBRARY_DIRECTORY).join(&library.name);
            self.binds.push(Bind { source: library.path, target, kind: BindKind::File });
        }
        let mut taken = HashSet::new();
        self.binds.retain(|bind| taken.insert(bind.target.clone()));
        self.unresolved = needs.unresolved;
        Ok(())
    }

    fn add(
        &mut self,
        role: &'static str,
        source: &Path,
        target: PathBuf,
        kind: BindKind,
    ) -> Result<(), PlanError> {
        let found = std::fs::metadata(source).map_err(|error| PlanError::Missing {
            role,
            path: source.to_path_buf(),
            source: error,
        })?;
        let (fits, expected) = match kind {
            BindKind::Directory => (found.is_dir(), "directory"),
            BindKind::File | BindKind::Device => (found.is_file(), "file"),
        };
        if !fits {
            return Err(PlanError::WrongKind { role, path: source.to_path_buf(), expected });
        }
        self.binds.push(Bind { source: source.to_path_buf(), target, kind });
        Ok(())
    }
}

/// An absolute path as a place below the root, refused if it has any part that is not a plain name.
fn inside(path: &Path) -> Result<PathBuf, PlanError> {
    let bad = || PlanError::BadTarget { path: path.to_path_buf() };
    let below = path.strip_prefix("/").map_err(|_| bad())?;
    let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
    if plain && below.components().next().is_some() { Ok(below.to_path_buf()) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_outside_the_root_are_refused() {
        assert!(inside(Path::new("/lib64/ld.so")).is_ok());
        for bad in ["relative", "/", "/../etc", "/lib/../../x"] {
            assert!(inside(Path::new(bad)).is_err(), "{bad}");
        }
    }
}
