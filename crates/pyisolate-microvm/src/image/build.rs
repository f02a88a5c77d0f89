//! Makes an image in a folder beside the others, and puts it among them when it is whole.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::contents::Contents;
use super::manifest::{
    self, FORMAT, INITRAMFS, KERNEL, MANIFEST, Manifest, Package, StoredFile, hex,
};
use super::store::{self, Lock, Workshop};
use super::{Cache, Image, ImageError, Progress, Wanted, bytecode, cache, kernel, modules};

/// Room for the manifest and the folders.
const OVERHEAD_BYTES: u64 = 1 << 20;

/// Builds under the cache's lock.
pub(super) fn build(
    cache: &Cache,
    wanted: &Wanted,
    lock: &Lock,
    progress: &mut dyn FnMut(Progress),
) -> Result<Image, ImageError> {
    let work = Workshop::new(cache.building(), lock)?;
    let kernel = kernel::find(&wanted.kernel, &cache.kernels(), work.path(), progress)?;
    progress(Progress::Planning);
    let modules = match &kernel.modules {
        Some(folder) => modules::needed(folder)?,
        None => Vec::new(),
    };
    let mut contents = Contents::of(&wanted.environment, &wanted.packages, progress)?;
    let modules = contents.add_modules(&kernel.release, modules);
    let python = bytecode::add(&mut contents, &wanted.environment, progress)?;

    let runtime = &wanted.environment.runtime;
    let runtime = manifest::stored(runtime).map_err(ImageError::call("read", runtime))?;
    let mut packages: Vec<_> = wanted
        .packages
        .iter()
        .map(|package| Package { name: package.name.clone(), version: package.version.clone() })
        .collect();
    packages.sort_by(|one, other| one.name.cmp(&other.name));

    let total_bytes = contents.archive_bytes()
        + std::fs::metadata(&kernel.file).map_err(ImageError::call("look at", &kernel.file))?.len();
    let fresh = work.path().join("image");
    let write = |progress: &mut dyn FnMut(Progress)| -> Result<String, ImageError> {
        store::make_folder(&fresh)?;
        let kernel_file = copy(&kernel.file, &fresh.join(KERNEL))?;
        let initramfs =
            archive(&contents, &fresh.join(INITRAMFS), kernel_file.bytes, total_bytes, progress)?;
        let manifest = Manifest {
            format: FORMAT,
            machine: std::env::consts::ARCH.into(),
            kernel_release: kernel.release,
            kernel: kernel_file,
            initramfs,
            python,
            runtime_sha256: runtime.sha256,
            packages,
            modules,
            environment: contents.variables(),
        };
        let mut text = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| ImageError::call("write", fresh.join(MANIFEST))(error.into()))?;
        text.push(b'\n');
        store::write(&fresh.join(MANIFEST), &text)?;
        Ok(manifest::sha256(&text))
    };
    let hash = write(progress)
        .map_err(|error| error.or_full(cache.folder(), total_bytes + OVERHEAD_BYTES))?;

    // The same image may be there. It stays, in use as it may be, unless it was damaged.
    if let Ok(image) = cache.open_hash(&hash)
        && cache::verify(&image).is_ok()
    {
        return Ok(image);
    }
    let place = cache.images().join(&hash);
    if place.exists() {
        let damaged = work.path().join("damaged");
        std::fs::rename(&place, &damaged).map_err(ImageError::call("remove", &place))?;
    }
    store::publish(&fresh, &place)?;
    cache.open_hash(&hash)
}

fn copy(from: &Path, to: &Path) -> Result<StoredFile, ImageError> {
    let mut source = File::open(from).map_err(ImageError::call("open", from))?;
    let mut out = Hashing::new(store::create(to)?);
    io::copy(&mut source, &mut out).map_err(ImageError::call("write", to))?;
    out.finish().map_err(ImageError::call("write", to))
}

fn archive(
    contents: &Contents,
    to: &Path,
    before_bytes: u64,
    total_bytes: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<StoredFile, ImageError> {
    let out = BufWriter::with_capacity(1 << 20, Hashing::new(store::create(to)?));
    let written = |bytes| {
        progress(Progress::Writing { done_bytes: before_bytes + bytes, total_bytes });
    };
    let out = contents.write(out, to, written)?;
    let out =
        out.into_inner().map_err(|error| ImageError::call("write", to)(error.into_error()))?;
    out.finish().map_err(ImageError::call("write", to))
}

/// A file that is hashed while it is written.
struct Hashing {
    file: File,
    digest: Sha256,
    bytes: u64,
}

impl Hashing {
    fn new(file: File) -> Self {
        Self { file, digest: Sha256::new(), bytes: 0 }
    }

    /// Down to the disk.
    fn finish(self) -> io::Result<StoredFile> {
        self.file.sync_all()?;
        Ok(StoredFile { bytes: self.bytes, sha256: hex(&self.digest.finalize()) })
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
