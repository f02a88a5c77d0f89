//! The kernel modules that a cell's line needs, in the order of loading.
//!
//! What a module needs is read from the module, as `depmod` does: a kernel's package has no
//! `modules.dep` until it is installed.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use object::elf;
use object::endian::LittleEndian;
use object::read::elf::FileHeader;

use super::ImageError;
use super::program;

/// The line is a console of virtio's, which a microVM has as a device in memory.
const NEEDED: [&str; 2] = ["virtio_mmio", "virtio_console"];

/// The tools that unpack compressed modules, by the endings of their names.
const COMPRESSED: [(&str, &str); 3] = [("xz", "xz"), ("zst", "zstd"), ("gz", "gzip")];

/// A module is unpacked in milliseconds.
const UNPACK_LIMIT: Duration = Duration::from_secs(60);

/// Folders of modules nest some five levels.
const DEPTH_MAX: usize = 16;

/// A kernel module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Module {
    /// Its name, with underscores.
    pub(super) name: String,
    /// What the kernel loads, not compressed.
    pub(super) bytes: Vec<u8>,
}

/// The needed modules and what they need, each after what it needs. `folder` is the release's, such
/// as `/lib/modules/6.1.0`. Those that are built into the kernel are left out.
///
/// # Errors
/// A module is neither there nor built in, or cannot be read.
pub(super) fn needed(folder: &Path) -> Result<Vec<Module>, ImageError> {
    let mut search = Search {
        folder,
        built_in: built_in(folder)?,
        files: files(folder)?,
        taken: HashSet::new(),
        order: Vec::new(),
    };
    for name in NEEDED {
        search.take(name)?;
    }
    Ok(search.order)
}

struct Search<'a> {
    folder: &'a Path,
    built_in: HashSet<String>,
    files: HashMap<String, PathBuf>,
    taken: HashSet<String>,
    order: Vec<Module>,
}

impl Search<'_> {
    fn take(&mut self, name: &str) -> Result<(), ImageError> {
        if self.built_in.contains(name) || !self.taken.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(path) = self.files.get(name).cloned() else {
            return Err(ImageError::NoModule { folder: self.folder.into(), module: name.into() });
        };
        let bytes = read(&path)?;
        let Some(needs) = needs(&bytes) else {
            return Err(ImageError::Kernel {
                path,
                why: "is no kernel module: it does not say what it needs".into(),
            });
        };
        for needed in needs {
            self.take(&needed)?;
        }
        self.order.push(Module { name: name.into(), bytes });
        Ok(())
    }
}

fn built_in(folder: &Path) -> Result<HashSet<String>, ImageError> {
    let path = folder.join("modules.builtin");
    let text = std::fs::read_to_string(&path).map_err(ImageError::call("read", path))?;
    Ok(text.lines().filter_map(|line| name(Path::new(line))).collect())
}

/// All modules below the folder, by name.
fn files(folder: &Path) -> Result<HashMap<String, PathBuf>, ImageError> {
    let mut found = HashMap::new();
    let mut pending = vec![(folder.to_path_buf(), 0)];
    while let Some((folder, depth)) = pending.pop() {
        let entries = std::fs::read_dir(&folder).map_err(ImageError::call("list", &folder))?;
        for entry in entries {
            let entry = entry.map_err(ImageError::call("list", &folder))?;
            let kind = entry.file_type().map_err(ImageError::call("look at", entry.path()))?;
            if kind.is_dir() && depth < DEPTH_MAX {
                pending.push((entry.path(), depth + 1));
            } else if kind.is_file()
                && let Some(name) = name(&entry.path())
            {
                found.insert(name, entry.path());
            }
        }
    }
    Ok(found)
}

/// The name of the module in a file: `virtio-rng.ko.xz` has `virtio_rng`.
fn name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (stem, ending) = file.split_once(".ko")?;
    let is_module = ending.is_empty()
        || COMPRESSED.iter().any(|(compressed, _)| ending.strip_prefix('.') == Some(compressed));
    is_module.then(|| stem.replace('-', "_"))
}

fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    let ending = path.extension().unwrap_or_default();
    let Some((_, tool)) = COMPRESSED.iter().find(|(compressed, _)| ending == *compressed) else {
        return std::fs::read(path).map_err(ImageError::call("read", path));
    };
    let file = std::fs::File::open(path).map_err(ImageError::call("open", path))?;
    program::output(program::program(tool).args(["-d", "-c"]).stdin(file), UNPACK_LIMIT)
        .map_err(|source| ImageError::Compressed { path: path.into(), source })
}

/// The modules that a module names as needed.
fn needs(bytes: &[u8]) -> Option<Vec<String>> {
    let header = elf::FileHeader64::<LittleEndian>::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, bytes).ok()?;
    let (_, section) = sections.section_by_name(endian, b".modinfo")?;
    let text = object::read::elf::SectionHeader::data(section, endian, bytes).ok()?;
    let depends = text
        .split(|byte| *byte == 0)
        .find_map(|entry| std::str::from_utf8(entry).ok()?.strip_prefix("depends="))?;
    let names = depends.split(',').filter(|name| !name.is_empty());
    Some(names.map(|name| name.replace('-', "_")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An object file with a `.modinfo` section, as little of one as there can be.
    fn module(modinfo: &str) -> Vec<u8> {
        const HEADER: usize = 64;
        let names = b"\0.modinfo\0.shstrtab\0";
        let text = [modinfo.as_bytes(), names].concat();
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(HEADER, 0);
        file[16..18].copy_from_slice(&1_u16.to_le_bytes());
        let sections = (HEADER + text.len()) as u64;
        file[40..48].copy_from_slice(&sections.to_le_bytes());
        for (at, value) in [(52, 64_u16), (58, 64), (60, 3), (62, 2)] {
            file[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        file.extend(&text);
        let section = |name: u32, kind: u32, offset: usize, size: usize| {
            let mut section = [name.to_le_bytes(), kind.to_le_bytes()].concat();
            section.extend([0; 16]);
            section.extend([offset as u64, size as u64].iter().flat_map(|it| it.to_le_bytes()));
            section.resize(64, 0);
            section
        };
        file.extend([0; 64]);
        file.extend(section(1, 1, HEADER, modinfo.len()));
        file.extend(section(10, 3, HEADER + modinfo.len(), names.len()));
        file
    }

    fn folder(modules: &[(&str, &str)], built_in: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("modules.builtin"), built_in).unwrap();
        let deep = folder.path().join("kernel/drivers/virtio");
        std::fs::create_dir_all(&deep).unwrap();
        for (name, needs) in modules {
            let text = format!("license=GPL\0depends={needs}\0name={name}\0");
            std::fs::write(deep.join(format!("{name}.ko")), module(&text)).unwrap();
        }
        folder
    }

    fn order(folder: &tempfile::TempDir) -> Vec<String> {
        needed(folder.path()).unwrap().into_iter().map(|module| module.name).collect()
    }

    const DEBIAN: [(&str, &str); 5] = [
        ("virtio", ""),
        ("virtio_ring", ""),
        ("virtio_mmio", "virtio,virtio-ring"),
        ("virtio-console", "virtio,virtio_ring"),
        ("unwanted", "virtio"),
    ];

    #[test]
    fn each_module_comes_after_what_it_needs() {
        let modules = folder(&DEBIAN, "kernel/fs/ext4/ext4.ko\n");
        assert_eq!(order(&modules), ["virtio", "virtio_ring", "virtio_mmio", "virtio_console"]);
    }

    #[test]
    fn what_is_built_in_is_not_loaded_and_what_is_nowhere_is_named() {
        let modules = folder(&DEBIAN[1..], "kernel/drivers/virtio/virtio.ko\n");
        assert_eq!(order(&modules), ["virtio_ring", "virtio_mmio", "virtio_console"]);
        let all = "a/virtio_mmio.ko\na/virtio_console.ko\n";
        assert!(order(&folder(&[], all)).is_empty());
        let error = needed(folder(&DEBIAN[1..], "").path()).unwrap_err();
        assert!(
            matches!(&error, ImageError::NoModule { module, .. } if module == "virtio"),
            "{error}"
        );
    }

    #[test]
    fn modules_that_need_each_other_end_the_search() {
        let modules =
            folder(&[("virtio_mmio", "virtio_console"), ("virtio_console", "virtio_mmio")], "");
        assert_eq!(order(&modules), ["virtio_console", "virtio_mmio"]);
    }

    #[test]
    fn compressed_modules_are_unpacked() {
        let modules = folder(&DEBIAN, "");
        let path = modules.path().join("kernel/drivers/virtio/virtio.ko");
        let plain = std::fs::read(&path).unwrap();
        match program::output(program::program("gzip").arg(&path), UNPACK_LIMIT) {
            Err(program::ProgramError::Run { .. }) => eprintln!("skipped: there is no gzip"),
            packed => {
                packed.unwrap();
                assert!(!path.exists());
                assert_eq!(needed(modules.path()).unwrap()[0].bytes, plain);
            }
        }
    }

    #[test]
    fn a_damaged_module_is_refused_and_every_truncation_survived() {
        let whole = module("depends=\0");
        assert_eq!(needs(&whole), Some(vec![]));
        for length in 0..whole.len() {
            let _ = needs(&whole[..length]);
        }
        let modules = folder(&DEBIAN, "");
        std::fs::write(modules.path().join("kernel/drivers/virtio/virtio.ko"), "no ELF").unwrap();
        assert!(matches!(needed(modules.path()), Err(ImageError::Kernel { .. })));
    }
}
