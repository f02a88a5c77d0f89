//! The guest image: a kernel, an initramfs, and a manifest that names the hashes of both.
//!
//! An image lies in a folder of the [`Cache`] that has the name of its hash, which is the SHA-256 of
//! its manifest. The same inputs make the same bytes: names are sorted, times are zero, owners are
//! root, and bytecode is compiled by one process with a fixed hash seed.

mod archive;
mod build;
mod bytecode;
mod cache;
mod contents;
mod error;
mod kernel;
mod manifest;
mod modules;
mod program;
mod store;

use std::path::{Path, PathBuf};

pub use cache::{Cache, Listed, Removed};
pub use error::ImageError;
pub use manifest::{FORMAT, Manifest, Package, StoredFile};
pub use program::ProgramError;

/// Where the list of kernel modules is in the image: one path a line, in the order of loading.
pub const MODULE_LIST: &str = "/pyisolate/modules";

/// Where the packages are in the image.
pub const PACKAGES: &str = "/packages/0";

/// What an image is made of.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The interpreter, its standard library and the guest runtime. Of its folders of packages
    /// nothing is taken.
    pub environment: pyisolate_jail::Environment,
    /// Packages, with everything that they require.
    pub packages: Vec<PackageFiles>,
    /// The kernel.
    pub kernel: KernelSource,
}

/// The files of one installed package.
#[derive(Clone, Debug)]
pub struct PackageFiles {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The folder that it is installed in: one of `sys.path`.
    pub folder: PathBuf,
    /// Its files, relative to the folder, without bytecode.
    pub files: Vec<PathBuf>,
}

/// Where the kernel comes from.
#[derive(Clone, Debug)]
pub enum KernelSource {
    /// Debian's kernel for clouds, which `apt-get` fetches once.
    Debian,
    /// Files that are there.
    Files {
        /// The kernel, as QEMU takes it: `bzImage`, `Image`.
        kernel: PathBuf,
        /// Its folder of modules, such as `/lib/modules/6.1.0-48-cloud-amd64`. Without it the
        /// kernel has to have virtio's console and memory-mapped transport built in.
        modules: Option<PathBuf>,
    },
}

/// How far a build is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Another build holds the cache; this one waits.
    Waiting,
    /// The package of the kernel is fetched.
    Fetching(String),
    /// The kernel's package is unpacked.
    Unpacking,
    /// Files and shared libraries are looked for.
    Planning,
    /// A shared library that an extension module needs is nowhere; the module cannot be imported.
    Lacking {
        /// The library.
        library: String,
        /// What needs it.
        needed_by: PathBuf,
    },
    /// The bytecode of so many modules is made.
    Compiling {
        /// Their number.
        modules: usize,
    },
    /// The image is written.
    Writing {
        /// Bytes that are.
        done_bytes: u64,
        /// All bytes.
        total_bytes: u64,
    },
}

/// A whole image that is in order as far as a look at it can tell.
#[derive(Clone, Debug)]
pub struct Image {
    folder: PathBuf,
    hash: String,
    manifest: Manifest,
}

impl Image {
    /// The SHA-256 of its manifest, in hexadecimal, which its folder is named by.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The kernel.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.folder.join(manifest::KERNEL)
    }

    /// The file tree, as the kernel takes it.
    #[must_use]
    pub fn initramfs(&self) -> PathBuf {
        self.folder.join(manifest::INITRAMFS)
    }

    /// What is in it.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}
