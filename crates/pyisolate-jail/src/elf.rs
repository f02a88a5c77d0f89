//! Which shared libraries a set of ELF files needs, found the way `ld.so` finds them.
//!
//! The jail's root holds single library files, not library directories, so the list has to be
//! complete before the root is built. It is read from the files themselves (`PT_INTERP`,
//! `DT_NEEDED`, `DT_RPATH`, `DT_RUNPATH`), never by running them or `ldd`. The environment's
//! `LD_LIBRARY_PATH` counts: the interpreter itself may have been started with it.
//!
//! A library that `$ORIGIN` finds inside a directory which is bound whole (`numpy.libs` beside
//! `numpy`) is found the same way inside the root and needs nothing more. What cannot be found is
//! returned as a list, not as an error: an optional extension module with a missing library is
//! normal, and fails when it is imported, as it does outside.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use object::elf;
use object::endian::LittleEndian;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadRef};

use crate::ld_so_conf::library_directories;

/// A dynamic segment past this many bytes is no library's: real ones hold some hundred entries of
/// 16 bytes.
const DYNAMIC_MAX_BYTES: u64 = 64 * 1024;

/// An interpreter path past this many bytes could not be opened anyway (Linux's `PATH_MAX`).
const INTERPRETER_MAX_BYTES: u64 = 4096;

/// Package trees nest a dozen levels; a deeper one is a loop or an attack on our stack.
const DEPTH_MAX: usize = 64;

/// The machine this crate is built for; files for any other are passed over, as `ld.so` passes over
/// them.
#[cfg(target_arch = "x86_64")]
const MACHINE: elf::Machine = elf::EM_X86_64;
#[cfg(target_arch = "aarch64")]
const MACHINE: elf::Machine = elf::EM_AARCH64;

/// One library that has to be bound into the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// The name it is asked for by, e.g. `libssl.so.3`. Never contains a slash.
    pub name: OsString,
    /// Where it is on the host. May be a symbolic link.
    pub path: PathBuf,
}

/// A needed library that was found nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// The name asked for.
    pub name: OsString,
    /// The first file that asked.
    pub needed_by: PathBuf,
}

/// What a set of ELF files needs beyond itself.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// The program interpreter (`PT_INTERP`) of the first root that names one.
    pub interpreter: Option<PathBuf>,
    /// Every library outside the bound directories, in the order found, each name once.
    pub libraries: Vec<Library>,
    /// Needed, but nowhere to be found.
    pub unresolved: Vec<Unresolved>,
}

/// Follows `roots` to everything they need.
///
/// `bound` are the directories that the jail binds whole; `by_name` are libraries that are loaded
/// at run time without being needed by any file, and are taken along if the host has them. Files
/// that are missing, unreadable, not ELF, of another machine or damaged are passed over.
#[must_use]
pub fn closure(roots: &[PathBuf], bound: &[PathBuf], by_name: &[&str]) -> Needs {
    let mut search = Search {
        bound: bound.iter().map(|path| lexical(path)).collect(),
        system: library_directories(),
        visited: HashSet::new(),
        placed: HashMap::new(),
        needs: Needs::default(),
        queue: roots.iter().map(|path| (path.clone(), Vec::new())).collect(),
    };
    while let Some((path, inherited)) = search.queue.pop_front() {
        search.visit(&path, &inherited);
    }
    for name in by_name.iter().map(OsStr::new) {
        if !search.placed.contains_key(name)
            && let Some(path) = search.in_system(name)
        {
            search.place(name, path, &[]);
        }
    }
    while let Some((path, inherited)) = search.queue.pop_front() {
        search.visit(&path, &inherited);
    }
    search.needs
}

/// Every file below `directory` that is named like a shared object (`*.so` or `*.so.*`).
///
/// Symbolic links to directories are not followed. Unreadable directories are passed over.
#[must_use]
pub fn shared_objects(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![(directory.to_path_buf(), 0)];
    while let Some((directory, depth)) = pending.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                if depth < DEPTH_MAX {
                    pending.push((entry.path(), depth + 1));
                }
            } else if named_like_a_library(&entry.file_name()) {
                found.push(entry.path());
            }
        }
    }
    // The order of readdir is the file system's; a plan has to be the same on every run.
    found.sort();
    found
}

fn named_like_a_library(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.ends_with(b".so") || name.windows(4).any(|part| part == b".so.")
}

struct Search {
    bound: Vec<PathBuf>,
    system: Vec<PathBuf>,
    visited: HashSet<PathBuf>,
    /// Names already answered outside the bound directories: found or not.
    placed: HashMap<OsString, bool>,
    needs: Needs,
    /// Files to read, each with the `DT_RPATH` directories of the files that led to it.
    queue: VecDeque<(PathBuf, Vec<PathBuf>)>,
}

impl Search {
    fn visit(&mut self, path: &Path, inherited: &[PathBuf]) {
        if !self.visited.insert(path.to_path_buf()) {
            return;
        }
        let Some(image) = Image::read(path) else { return };
        if self.needs.interpreter.is_none() {
            self.needs.interpreter.clone_from(&image.interpreter);
        }
        // DT_RUNPATH serves the file itself alone and switches DT_RPATH off; DT_RPATH serves what
        // it loads, too.
        let origin = path.parent().unwrap_or(Path::new("/"));
        let (own, passed_on) = if image.runpath.is_empty() {
            let mut all = expand(&image.rpath, origin);
            all.extend_from_slice(inherited);
            (all.clone(), all)
        } else {
            (expand(&image.runpath, origin), inherited.to_vec())
        };
        for name in &image.needed {
            self.resolve(name, path, &own, &passed_on);
        }
    }

    fn resolve(&mut self, name: &OsStr, needed_by: &Path, own: &[PathBuf], passed_on: &[PathBuf]) {
        let is_interpreter =
            self.needs.interpreter.as_deref().and_then(Path::file_name) == Some(name);
        if is_interpreter || name.as_bytes().contains(&b'/') {
            return;
        }
        for directory in own {
            let candidate = directory.join(name);
            if !candidate.exists() {
                continue;
            }
            if self.travels_with(needed_by, &candidate) {
                self.queue.push_back((candidate, passed_on.to_vec()));
                return;
            }
            if !self.placed.contains_key(name) && Image::read(&candidate).is_some() {
                self.place(name, candidate, passed_on);
                return;
            }
        }
        if self.placed.contains_key(name) {
            return;
        }
        match self.in_system(name) {
            Some(path) => self.place(name, path, passed_on),
            None => {
                self.placed.insert(name.to_os_string(), false);
                self.needs.unresolved.push(Unresolved {
                    name: name.to_os_string(),
                    needed_by: needed_by.to_path_buf(),
                });
            }
        }
    }

    fn in_system(&self, name: &OsStr) -> Option<PathBuf> {
        let candidates = self.system.iter().map(|directory| directory.join(name));
        candidates.filter(|path| path.exists()).find(|path| Image::read(path).is_some())
    }

    fn place(&mut self, name: &OsStr, path: PathBuf, passed_on: &[PathBuf]) {
        self.placed.insert(name.to_os_string(), true);
        self.needs.libraries.push(Library { name: name.to_os_string(), path: path.clone() });
        self.queue.push_back((path, passed_on.to_vec()));
    }

    /// Whether both files lie in one bound directory, so that a path from one to the other holds
    /// inside the root.
    fn travels_with(&self, needed_by: &Path, candidate: &Path) -> bool {
        let needed_by = lexical(needed_by);
        self.bound
            .iter()
            .any(|directory| needed_by.starts_with(directory) && candidate.starts_with(directory))
    }
}

/// What `ld.so` reads of one file.
#[derive(Default)]
struct Image {
    interpreter: Option<PathBuf>,
    needed: Vec<OsString>,
    rpath: Vec<u8>,
    runpath: Vec<u8>,
}

impl Image {
    /// `None` for anything that is not a well-formed 64-bit ELF file of our machine.
    fn read(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        // A device or a pipe named like a library must not be read from.
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let data = ReadCache::new(file);
        Self::parse(&data)
    }

    fn parse<'data>(data: impl ReadRef<'data>) -> Option<Self> {
        let header = elf::FileHeader64::<LittleEndian>::parse(data).ok()?;
        let endian = header.endian().ok()?;
        if header.e_machine(endian) != MACHINE {
            return None;
        }
        let segments = header.program_headers(endian, data).ok()?;
        let mut image = Self::default();
        for segment in segments {
            let size = segment.p_filesz(endian);
            if segment.p_type(endian) == elf::PT_INTERP && size <= INTERPRETER_MAX_BYTES {
                let path = segment.interpreter(endian, data).ok()??;
                image.interpreter = Some(PathBuf::from(OsStr::from_bytes(path)));
            }
        }
        let Some(dynamic) =
            segments.iter().find(|segment| segment.p_type(endian) == elf::PT_DYNAMIC)
        else {
            return Some(image); // static: needs nothing
        };
        if dynamic.p_filesz(endian) > DYNAMIC_MAX_BYTES {
            return None;
        }
        let entries = dynamic.dynamic(endian, data).ok()??;
        let value_of = |tag| {
            entries.iter().find(|entry| entry.d_tag(endian) == tag).map(|entry| entry.d_val(endian))
        };
        let Some(strings) = value_of(elf::DT_STRTAB) else { return Some(image) };
        // DT_STRTAB is an address in memory; the file offset is the same distance into its load
        // segment.
        let strings = segments
            .iter()
            .filter(|segment| segment.p_type(endian) == elf::PT_LOAD)
            .find_map(|segment| {
                let into = strings.checked_sub(segment.p_vaddr(endian))?;
                (into < segment.p_filesz(endian))
                    .then_some(segment.p_offset(endian).checked_add(into)?)
            })?;
        let end = data.len().ok()?;
        let string = |at: u64| -> Option<&'data [u8]> {
            let start = strings.checked_add(at).filter(|start| *start < end)?;
            data.read_bytes_at_until(start..end, 0).ok()
        };
        for entry in entries.iter().take_while(|entry| entry.d_tag(endian) != elf::DT_NULL) {
            match entry.d_tag(endian) {
                elf::DT_NEEDED => {
                    image.needed.push(OsString::from_vec(string(entry.d_val(endian))?.to_vec()))
                }
                elf::DT_RPATH => image.rpath = string(entry.d_val(endian))?.to_vec(),
                elf::DT_RUNPATH => image.runpath = string(entry.d_val(endian))?.to_vec(),
                _ => {}
            }
        }
        Some(image)
    }
}

/// Splits a search path and puts `origin` for `$ORIGIN`. Entries with another token, or relative
/// ones, are dropped.
fn expand(path: &[u8], origin: &Path) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    for entry in path.split(|byte| *byte == b':').filter(|entry| !entry.is_empty()) {
        let below = entry.strip_prefix(b"$ORIGIN").or_else(|| entry.strip_prefix(b"${ORIGIN}"));
        let directory = match below {
            Some(rest) => {
                let mut whole = origin.as_os_str().as_bytes().to_vec();
                whole.extend_from_slice(rest);
                PathBuf::from(OsString::from_vec(whole))
            }
            None => PathBuf::from(OsStr::from_bytes(entry)),
        };
        if directory.is_absolute() && !directory.as_os_str().as_bytes().contains(&b'$') {
            directories.push(lexical(&directory));
        }
    }
    directories
}

/// Resolves `.` and `..` in the text alone, without asking the file system.
fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_is_expanded_and_normalised() {
        let found = expand(
            b"$ORIGIN/../numpy.libs:${ORIGIN}:/abs/./x:$LIB/y:relative",
            Path::new("/p/numpy"),
        );
        assert_eq!(found, ["/p/numpy.libs", "/p/numpy", "/abs/x"].map(PathBuf::from));
    }

    #[test]
    fn own_binary_needs_libc_and_names_its_interpreter() {
        let needs = closure(&[std::env::current_exe().unwrap()], &[], &[]);
        assert!(needs.interpreter.unwrap().is_absolute());
        assert!(
            needs.libraries.iter().any(|library| library.name.as_bytes().starts_with(b"libc."))
        );
        assert!(needs.unresolved.is_empty(), "{:?}", needs.unresolved);
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_of_the_headers_is_survived() {
        let whole = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for length in 0..512 {
            let _ = Image::parse(&whole[..length]);
        }
        // The header, the program headers and the start of what follows, where all offsets and
        // counts live.
        let mut damaged = whole;
        for at in 0..1024 {
            let kept = damaged[at];
            for value in [0, 0x7f, 0xff, kept ^ 1] {
                damaged[at] = value;
                let _ = Image::parse(damaged.as_slice());
            }
            damaged[at] = kept;
        }
    }

    #[test]
    fn files_that_are_not_elf_are_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let garbage = directory.path().join("garbage.so");
        std::fs::write(&garbage, vec![0x7f; 4096]).unwrap();
        let found = shared_objects(directory.path());
        assert_eq!(found, [garbage]);
        assert!(closure(&found, &[], &[]).libraries.is_empty());
    }
}
