//! Folders and files of the cache that nobody else can write, and that are whole or not there.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::ImageError;

/// The mode of folders: what is in an image may be a secret.
const FOLDER_MODE: u32 = 0o700;
/// The folder keeps others out. A machine's monitor is another user, and is shown the files alone.
const FILE_MODE: u32 = 0o644;

/// What lets others write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// How long a build waits for another: the longest takes some minutes.
const LOCK_LIMIT: Duration = Duration::from_secs(900);

/// How often it looks; `flock` has no time limit of its own.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Makes a folder that is this user's alone, with what is above it, if it is not there.
pub(super) fn make_folder(path: &Path) -> Result<(), ImageError> {
    let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path);
    made.map_err(ImageError::call("make", path))?;
    check_owner(path)
}

/// Refuses a file or folder that another user owns or can write, and a symbolic link.
pub(super) fn check_owner(path: &Path) -> Result<(), ImageError> {
    let found = std::fs::symlink_metadata(path).map_err(ImageError::call("look at", path))?;
    let unsafe_ =
        |why: String, remedy: String| ImageError::Unsafe { path: path.into(), why, remedy };
    let user = rustix::process::geteuid().as_raw();
    if found.file_type().is_symlink() {
        return Err(unsafe_(
            "is a symbolic link".into(),
            "name the folder that it leads to".into(),
        ));
    }
    if found.uid() != user {
        let why = format!("belongs to user {}, not to {user}", found.uid());
        return Err(unsafe_(why, "set PYISOLATE_CACHE to a folder of your own".into()));
    }
    if found.mode() & WRITABLE_BY_OTHERS != 0 {
        let why = format!("has mode {:04o}", found.mode() & 0o7777);
        return Err(unsafe_(why, format!("run `chmod go-w {}` if nobody did", path.display())));
    }
    Ok(())
}

/// A lock that ends with its holder, however that ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock in a folder; `wait` is called once if another has it.
    pub(super) fn take(folder: &Path, wait: impl FnOnce()) -> Result<Self, ImageError> {
        Self::take_within(folder, wait, LOCK_LIMIT)
    }

    fn take_within(
        folder: &Path,
        wait: impl FnOnce(),
        limit: Duration,
    ) -> Result<Self, ImageError> {
        let path = folder.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(ImageError::call("open", &path))?;
        let (deadline, mut wait) = (Instant::now() + limit, Some(wait));
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    if let Some(wait) = wait.take() {
                        wait();
                    }
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(Errno::WOULDBLOCK) => {
                    return Err(ImageError::Busy { path, waited_s: limit.as_secs() });
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(ImageError::call("lock", path)(errno.into())),
            }
        }
    }
}

/// A new file of this user's alone.
pub(super) fn create(path: &Path) -> Result<File, ImageError> {
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(FILE_MODE)
        .open(path)
        .map_err(ImageError::call("make", path))
}

/// Writes a new file, down to the disk.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    let mut file = create(path)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(ImageError::call("write", path))
}

/// Makes what is at `from`, a whole file or folder, visible at `to`, down to the disk.
pub(super) fn publish(from: &Path, to: &Path) -> Result<(), ImageError> {
    sync(from)?;
    std::fs::rename(from, to).map_err(ImageError::call("rename to", to))?;
    to.parent().map_or(Ok(()), sync)
}

fn sync(path: &Path) -> Result<(), ImageError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(ImageError::call("sync", path))
}

/// Removes a folder with all below it, if it is there.
pub(super) fn remove_folder(path: &Path) -> Result<(), ImageError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ImageError::call("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// The names in a folder, sorted.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, ImageError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(ImageError::call("list", folder))? {
        let name = entry.map_err(ImageError::call("list", folder))?.file_name();
        names.extend(name.into_string());
    }
    names.sort();
    Ok(names)
}

/// A folder for work in progress, which is gone when this is dropped, or else with the next build.
#[derive(Debug)]
pub(super) struct Workshop(PathBuf);

impl Workshop {
    /// Makes it, without what a killed build left.
    pub(super) fn new(path: PathBuf, _lock: &Lock) -> Result<Self, ImageError> {
        remove_folder(&path)?;
        make_folder(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // If it cannot be removed, the next build says why.
        let _ = remove_folder(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_lock_is_one_builds_and_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::take(folder.path(), || panic!("nobody has it")).unwrap();
        let mut waited = false;
        let second = Lock::take_within(folder.path(), || waited = true, Duration::from_millis(250));
        assert!(matches!(second, Err(ImageError::Busy { .. })));
        assert!(waited);
        drop(lock);
        Lock::take(folder.path(), || panic!("nobody has it")).unwrap();
    }

    #[test]
    fn what_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        make_folder(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        for mode in [0o720, 0o702, 0o1777] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let error = make_folder(&path).unwrap_err();
            assert!(matches!(error, ImageError::Unsafe { .. }), "{error}");
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        make_folder(&path).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(check_owner(&link), Err(ImageError::Unsafe { .. })));
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
            assert!(matches!(make_folder(&path), Err(ImageError::Unsafe { .. })));
        } else {
            // Whoever is not root cannot give away a folder, but sees one of root's.
            assert!(matches!(check_owner("/".as_ref()), Err(ImageError::Unsafe { .. })));
        }
    }
}
