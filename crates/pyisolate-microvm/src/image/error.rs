//! Why there is no image.

use std::path::PathBuf;

use thiserror::Error;

use super::program::ProgramError;

/// Why an image was not made, opened or removed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// No variable names a folder for the cache.
    #[error("there is no place for images: set PYISOLATE_CACHE to a folder, or HOME")]
    NoFolder,
    /// Somebody else could put an image there.
    #[error("{path} {why}, so that others could put an image there: {remedy}")]
    Unsafe {
        /// What others can write.
        path: PathBuf,
        /// How.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// The file system said no.
    #[error("cannot {action} {path}: {source}")]
    Call {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// No room.
    #[error(
        "{folder} is full: an image needs {needed_bytes} bytes there; make room, or set \
         PYISOLATE_CACHE to a folder with more"
    )]
    Full {
        /// The cache.
        folder: PathBuf,
        /// The size of the image.
        needed_bytes: u64,
    },
    /// Another build did not end.
    #[error("another build has held {path} for {waited_s} s: wait for it, or end it")]
    Busy {
        /// The lock.
        path: PathBuf,
        /// How long it was waited for, in seconds.
        waited_s: u64,
    },
    /// No such image.
    #[error("there is no image {wanted:?}: make one with `pyisolate image build --name NAME`")]
    NotFound {
        /// The name or hash.
        wanted: String,
    },
    /// The beginning of several hashes.
    #[error("several images have a hash that begins with {wanted:?}: give more of it")]
    Ambiguous {
        /// The beginning.
        wanted: String,
    },
    /// No name for an image.
    #[error(
        "{name:?} cannot be an image's name: up to 64 of a-z, 0-9, `.`, `_` and `-`, a letter first, \
         and no hash"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// Not what was written.
    #[error("{path} {why}: build the image again")]
    Damaged {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The interpreter's files cannot be found.
    #[error("planning the image: {0}")]
    Plan(#[from] pyisolate_jail::PlanError),
    /// No kernel could be had.
    #[error("no kernel: {source}; {remedy}, or name one with --kernel PATH [--modules DIR]")]
    NoKernel {
        /// What failed.
        source: ProgramError,
        /// What to do.
        remedy: &'static str,
    },
    /// The package manager's answer, or its package, is not what was expected.
    #[error("no kernel: {what}; name one with --kernel PATH [--modules DIR]")]
    KernelPackage {
        /// What is wrong.
        what: String,
    },
    /// The file is no kernel for this.
    #[error("{path} {why}")]
    Kernel {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A kernel without what the cell's line needs.
    #[error(
        "{folder} has no module {module:?}, which is not built into the kernel either: name a kernel \
         with virtio_mmio and virtio_console"
    )]
    NoModule {
        /// The folder of modules.
        folder: PathBuf,
        /// The module.
        module: String,
    },
    /// A kernel module that cannot be unpacked.
    #[error("cannot unpack {path}: {source}")]
    Compressed {
        /// The module.
        path: PathBuf,
        /// What failed.
        source: ProgramError,
    },
    /// The interpreter did not compile its library.
    #[error("compiling the image's Python modules: {0}")]
    Bytecode(ProgramError),
    /// The interpreter's answer is no bytecode.
    #[error("compiling the image's Python modules: {interpreter} gave an answer that is none")]
    BytecodeAnswer {
        /// The interpreter.
        interpreter: PathBuf,
    },
    /// The archive's format has no place for it.
    #[error("{path} does not fit into an initramfs, whose files have at most 4 GiB")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

impl ImageError {
    /// For `map_err`: what was tried on which path.
    pub(super) fn call(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Call { action, path, source }
    }

    /// The error of a full disk, in place of the call that found it full.
    pub(super) fn or_full(self, folder: impl Into<PathBuf>, needed_bytes: u64) -> Self {
        let is_full = |source: &std::io::Error| {
            matches!(
                source.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            )
        };
        match self {
            Self::Call { source, .. } if is_full(&source) => {
                Self::Full { folder: folder.into(), needed_bytes }
            }
            other => other,
        }
    }
}
