//! What an image says of itself. Its SHA-256 is the image's hash.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The version of the manifest and of what the image holds. Images of another are built again.
pub const FORMAT: u32 = 1;

/// The files of an image's folder.
pub(super) const KERNEL: &str = "kernel";
pub(super) const INITRAMFS: &str = "initramfs";
pub(super) const MANIFEST: &str = "manifest.json";

/// What is in an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The machine, as `uname -m` says it.
    pub machine: String,
    /// The kernel's release, as `uname -r` says it in the guest; empty if its file does not tell.
    pub kernel_release: String,
    /// The kernel.
    pub kernel: StoredFile,
    /// The initramfs, which is not compressed: unpacked it takes as much memory.
    pub initramfs: StoredFile,
    /// The interpreter's version, such as `3.13.0`.
    pub python: String,
    /// The SHA-256 of the guest runtime's shared object, in hexadecimal.
    pub runtime_sha256: String,
    /// The packages, by name.
    pub packages: Vec<Package>,
    /// The kernel's modules, by their paths in the image, in the order of loading.
    pub modules: Vec<String>,
    /// The environment that `/init` needs: `NAME=value` words for the kernel's command line.
    pub environment: Vec<(String, String)>,
}

/// A file of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredFile {
    /// Its size, in bytes.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// A package in the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The size and SHA-256 of a file.
pub(super) fn stored(path: &Path) -> io::Result<StoredFile> {
    let mut file = File::open(path)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => {
                digest.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
    Ok(StoredFile { bytes, sha256: hex(&digest.finalize()) })
}
