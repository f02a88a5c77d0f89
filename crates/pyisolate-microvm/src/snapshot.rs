//! A machine that stands still: its memory, which nobody can change any more, and the state of its
//! devices.
//!
//! The memory is a sealed memory file, so that the kernel itself refuses whatever a broken monitor
//! would do to other cells' copies of it. On disk a snapshot lies in the cache, under the hash of
//! everything that it depends on.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, SeekFrom as Sparse};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::qemu::ImageFiles;
use crate::vmm::{Accelerator, Shape, VmmError, failed};

/// The files of a snapshot's folder.
const MEMORY: &str = "memory";
const STATE: &str = "state";
const FACTS: &str = "snapshot.json";
/// The longest device state that is read, in bytes: a machine without devices has a tenth of it.
const STATE_BYTES_MAX: u64 = 16 << 20;
/// How much is copied at a time, in bytes.
const COPY_BYTES: usize = 1 << 20;

/// A machine that can be gone on from, any number of times.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) shape: Shape,
    pub(crate) memory: Arc<OwnedFd>,
    /// How much of the memory held something when it stood still, in bytes. Later the kernel fills
    /// holes with zeros, wherever a machine goes on from one.
    pub(crate) resident_bytes: u64,
    pub(crate) state: Arc<Vec<u8>>,
    /// What its machines are started from.
    pub(crate) image: ImageFiles,
    /// The hash of everything that it depends on.
    pub(crate) key: String,
}

#[derive(Serialize, Deserialize)]
struct StoredFacts {
    accelerator: String,
    memory_bytes: u64,
    state_bytes: u64,
}

impl Snapshot {
    /// What its machines are like.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The memory of it that holds something, in bytes: what all its machines share.
    #[must_use]
    pub const fn resident_bytes(&self) -> u64 {
        self.resident_bytes
    }

    /// Reads it from the cache; `None` if there is none of that key, or not all of it.
    ///
    /// # Errors
    /// What is there cannot be read.
    pub(crate) fn load(
        folder: &Path,
        image: ImageFiles,
        key: &str,
    ) -> Result<Option<Self>, VmmError> {
        let folder = folder.join(key);
        let cached = |call, path: &Path| {
            let path = path.to_path_buf();
            move |source| VmmError::Cache { call, path, source }
        };
        let facts = match fs::read(folder.join(FACTS)) {
            Ok(facts) => facts,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cached("read", &folder)(error)),
        };
        let Ok(facts) = serde_json::from_slice::<StoredFacts>(&facts) else { return Ok(None) };
        let accelerator = match facts.accelerator.as_str() {
            "kvm" => Accelerator::Kvm,
            "tcg" => Accelerator::Tcg,
            _ => return Ok(None),
        };
        let path = folder.join(STATE);
        let mut state = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(STATE_BYTES_MAX).read_to_end(&mut state))
            .map_err(cached("read", &path))?;
        let path = folder.join(MEMORY);
        let stored = File::open(&path).map_err(cached("open", &path))?;
        let length = stored.metadata().map_err(cached("look at", &path))?.len();
        if (state.len() as u64, length) != (facts.state_bytes, facts.memory_bytes) {
            return Ok(None);
        }
        let memory = new_memory(length)?;
        let mut file = File::from(memory.try_clone().map_err(failed("dup"))?);
        copy_sparse(&stored, &mut file).map_err(cached("read", &path))?;
        drop(file);
        seal(&memory)?;
        Ok(Some(Self {
            shape: Shape { accelerator, memory_bytes: length },
            resident_bytes: resident_bytes(&memory),
            memory: Arc::new(memory),
            state: Arc::new(state),
            image,
            key: key.to_owned(),
        }))
    }

    /// Removes what the cache has of a key, if anything.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(crate) fn remove(folder: &Path, key: &str) -> Result<(), VmmError> {
        let path = folder.join(key);
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(VmmError::Cache { call: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    /// Writes it to the cache: into a folder beside, which gets its name when it is whole.
    ///
    /// # Errors
    /// It cannot be written. What was begun is removed.
    pub fn store(&self, folder: &Path) -> Result<(), VmmError> {
        let beside = folder.join(format!(".{}.{}", self.key, std::process::id()));
        let stored = self.write_to(&beside).and_then(|()| {
            match fs::rename(&beside, folder.join(&self.key)) {
                // Another was faster, with the same.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
                other => other,
            }
        });
        // Empty-handed or renamed: nothing stays beside.
        let _ = fs::remove_dir_all(&beside);
        stored.map_err(|source| VmmError::Cache {
            call: "write the snapshot to",
            path: folder.join(&self.key),
            source,
        })
    }

    fn write_to(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut memory = File::create(folder.join(MEMORY))?;
        let source = File::from(self.memory.try_clone()?);
        memory.set_len(self.shape.memory_bytes)?;
        copy_sparse(&source, &mut memory)?;
        memory.sync_all()?;
        fs::write(folder.join(STATE), &**self.state)?;
        let facts = StoredFacts {
            accelerator: self.shape.accelerator.to_string(),
            memory_bytes: self.shape.memory_bytes,
            state_bytes: self.state.len() as u64,
        };
        fs::write(folder.join(FACTS), serde_json::to_vec(&facts)?)
    }

    /// A copy of its memory, to be written to.
    pub(crate) fn copy_memory(&self) -> Result<OwnedFd, VmmError> {
        let memory = new_memory(self.shape.memory_bytes)?;
        let mut copy = File::from(memory.try_clone().map_err(failed("dup"))?);
        let source = self.memory.try_clone().map_err(failed("dup"))?;
        copy_sparse(&File::from(source), &mut copy).map_err(failed("copy the memory"))?;
        Ok(memory)
    }
}

/// An empty memory of so many bytes.
pub(crate) fn new_memory(bytes: u64) -> Result<OwnedFd, VmmError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory =
        rustix::fs::memfd_create("pyisolate-machine", flags).map_err(failed("memfd_create"))?;
    rustix::fs::ftruncate(&memory, bytes).map_err(failed("ftruncate"))?;
    Ok(memory)
}

/// How much of a memory is no hole, in bytes.
pub(crate) fn resident_bytes(memory: &OwnedFd) -> u64 {
    rustix::fs::fstat(memory).map_or(0, |stat| stat.st_blocks.cast_unsigned() * 512)
}

/// Makes sure that nobody changes a memory any more. Refused while anybody could still write to it.
pub(crate) fn seal(memory: &OwnedFd) -> Result<(), VmmError> {
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(memory, seals).map_err(failed("seal the memory"))
}

/// Copies what is not a hole, to the same places.
fn copy_sparse(from: &File, to: &mut File) -> io::Result<()> {
    let mut from = from;
    let mut at = 0;
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let start = match rustix::fs::seek(from.as_fd(), Sparse::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        let end = rustix::fs::seek(from.as_fd(), Sparse::Hole(start))?;
        from.seek(SeekFrom::Start(start))?;
        to.seek(SeekFrom::Start(start))?;
        let mut left = end - start;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(COPY_BYTES).min(COPY_BYTES);
            from.read_exact(&mut buffer[..want])?;
            to.write_all(&buffer[..want])?;
            left -= want as u64;
        }
        at = end;
    }
}

/// Where snapshots are in a cache.
#[must_use]
pub fn snapshots(cache: &Path) -> PathBuf {
    cache.join("snapshots")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Snapshot {
        let memory = new_memory(4 << 20).unwrap();
        rustix::io::pwrite(&memory, b"here", 1 << 20).unwrap();
        seal(&memory).unwrap();
        Snapshot {
            shape: Shape { accelerator: Accelerator::Tcg, memory_bytes: 4 << 20 },
            resident_bytes: resident_bytes(&memory),
            memory: Arc::new(memory),
            state: Arc::new(b"devices".to_vec()),
            image: ImageFiles::default(),
            key: "key".to_owned(),
        }
    }

    fn load(folder: &Path) -> Option<Snapshot> {
        Snapshot::load(folder, ImageFiles::default(), "key").unwrap()
    }

    #[test]
    fn what_is_stored_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load(folder.path()).is_none());
        let snapshot = sample();
        snapshot.store(folder.path()).unwrap();
        snapshot.store(folder.path()).unwrap();
        let loaded = load(folder.path()).unwrap();
        assert_eq!((loaded.shape, &*loaded.state), (snapshot.shape, &*snapshot.state));
        let mut bytes = [0; 4];
        assert_eq!(rustix::io::pread(&loaded.memory, &mut bytes, 1 << 20), Ok(4));
        assert_eq!(&bytes, b"here");
        assert!(loaded.resident_bytes() < 1 << 20, "holes stay holes");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing stays beside");
    }

    #[test]
    fn nobody_writes_to_a_snapshot() {
        let snapshot = sample();
        assert_eq!(rustix::io::pwrite(&snapshot.memory, b"x", 0), Err(Errno::PERM));
        let copy = snapshot.copy_memory().unwrap();
        assert_eq!(rustix::io::pwrite(&copy, b"x", 0), Ok(1));
    }

    #[test]
    fn a_part_of_a_snapshot_is_none() {
        let folder = tempfile::tempdir().unwrap();
        sample().store(folder.path()).unwrap();
        let memory = File::options().write(true).open(folder.path().join("key/memory")).unwrap();
        memory.set_len(1 << 20).unwrap();
        assert!(load(folder.path()).is_none());
        Snapshot::remove(folder.path(), "key").unwrap();
        Snapshot::remove(folder.path(), "key").unwrap();
        sample().store(folder.path()).unwrap();
        assert!(load(folder.path()).is_some());
    }
}
