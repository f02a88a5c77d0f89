//! The folder of images: found, opened, listed, checked, removed.
//!
//! ```text
//! lock                 held by whoever changes something
//! building/            an image that is being made; leftovers go with the next build
//! images/<hash>/       kernel, initramfs, manifest.json
//! names/<name>         the hash of the image that has the name
//! kernels/<file>.deb   fetched packages
//! ```

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::manifest::{self, FORMAT, INITRAMFS, KERNEL, MANIFEST, Manifest, StoredFile};
use super::store::{self, Lock};
use super::{Image, ImageError, Progress, Wanted, build};

/// A manifest with some hundred packages has some ten kilobytes.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// How much of a hash is enough to name an image by.
const PREFIX_LEAST: usize = 8;
const HASH_LENGTH: usize = 64;
const NAME_BYTES_MAX: usize = 64;

/// Where images are kept: a folder that only its owner can change.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

/// An image in the list.
#[derive(Debug)]
pub struct Listed {
    /// Its hash.
    pub hash: String,
    /// Its names, sorted.
    pub names: Vec<String>,
    /// The image, or why it cannot be used.
    pub image: Result<Image, ImageError>,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that are gone.
    pub names: Vec<String>,
    /// The hash of the image that is gone; `None` if it still has another name.
    pub hash: Option<String>,
}

impl Cache {
    /// The cache in `$PYISOLATE_CACHE`, else `$XDG_CACHE_HOME/pyisolate`, else `~/.cache/pyisolate`.
    ///
    /// # Errors
    /// None of these variables is set, or as [`Cache::at`].
    pub fn discover() -> Result<Self, ImageError> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let folder = variable("PYISOLATE_CACHE")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(variable("XDG_CACHE_HOME")?).join("pyisolate")))
            .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache/pyisolate")))
            .ok_or(ImageError::NoFolder)?;
        Self::at(&folder)
    }

    /// The cache in a folder, which is made if it is not there.
    ///
    /// # Errors
    /// It cannot be made, or another user owns it or can write to it.
    pub fn at(folder: &Path) -> Result<Self, ImageError> {
        let folder = std::path::absolute(folder).map_err(ImageError::call("find", folder))?;
        let cache = Self { folder };
        store::make_folder(&cache.folder)?;
        for part in [cache.images(), cache.names(), cache.kernels()] {
            store::make_folder(&part)?;
        }
        Ok(cache)
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Builds an image and gives it the name, which another may have had. If the same image is there
    /// and whole, it stays.
    ///
    /// # Errors
    /// [`ImageError`] says what is missing. Nothing is left of an image that was not finished.
    pub fn build(
        &self,
        wanted: &Wanted,
        name: &str,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Image, ImageError> {
        check_name(name)?;
        let lock = self.lock(progress)?;
        let image = build::build(self, wanted, &lock, progress)?;
        self.put_name(name, image.hash())?;
        Ok(image)
    }

    /// The image with a name, a hash, or the only one whose hash begins so. A look at it is taken, at
    /// its manifest and the sizes of its files, and not at all of its bytes: see [`Cache::verify`].
    ///
    /// # Errors
    /// There is none, it is damaged, or others could have changed it.
    pub fn open(&self, name_or_hash: &str) -> Result<Image, ImageError> {
        let hash = self.resolve(name_or_hash)?;
        self.open_hash(&hash)
    }

    /// All images, by hash.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, ImageError> {
        let named = self.named()?;
        let hashes = store::names(&self.images())?.into_iter().filter(|name| is_hash(name));
        let listed = hashes.map(|hash| {
            let names = named.iter().filter(|(_, of)| *of == hash).map(|(name, _)| name.clone());
            Listed { names: names.collect(), image: self.open_hash(&hash), hash }
        });
        Ok(listed.collect())
    }

    /// Removes a name, and with its last name the image; or, by hash, an image with its names.
    ///
    /// # Errors
    /// There is none, or it cannot be removed.
    pub fn remove(&self, name_or_hash: &str) -> Result<Removed, ImageError> {
        let _lock = self.lock(&mut |_| {})?;
        let named = self.named()?;
        let hash = self.resolve(name_or_hash)?;
        let (mut names, others): (Vec<_>, Vec<_>) = named
            .into_iter()
            .filter(|(_, of)| *of == hash)
            .map(|(name, _)| name)
            .partition(|name| name == name_or_hash);
        let by_hash = names.is_empty();
        let keeps = !by_hash && !others.is_empty();
        if by_hash {
            names = others;
        }
        for name in &names {
            let path = self.names().join(name);
            std::fs::remove_file(&path).map_err(ImageError::call("remove", path))?;
        }
        if keeps {
            return Ok(Removed { names, hash: None });
        }
        let image = self.images().join(&hash);
        if image.exists() {
            // Out of sight first, so that nobody meets half of it.
            let doomed = self.building();
            store::remove_folder(&doomed)?;
            std::fs::rename(&image, &doomed).map_err(ImageError::call("remove", &image))?;
            store::remove_folder(&doomed)?;
        }
        Ok(Removed { names, hash: Some(hash) })
    }

    /// Reads all bytes of an image and compares them with its hash.
    ///
    /// # Errors
    /// As [`Cache::open`], and if a byte is another.
    pub fn verify(&self, name_or_hash: &str) -> Result<Image, ImageError> {
        let image = self.open(name_or_hash)?;
        verify(&image)?;
        Ok(image)
    }

    pub(super) fn images(&self) -> PathBuf {
        self.folder.join("images")
    }

    pub(super) fn kernels(&self) -> PathBuf {
        self.folder.join("kernels")
    }

    pub(super) fn building(&self) -> PathBuf {
        self.folder.join("building")
    }

    pub(super) fn open_hash(&self, hash: &str) -> Result<Image, ImageError> {
        let folder = self.images().join(hash);
        if !folder.exists() {
            return Err(ImageError::NotFound { wanted: hash.into() });
        }
        store::check_owner(&folder)?;
        let path = folder.join(MANIFEST);
        let damaged = |path: &Path, why: String| ImageError::Damaged { path: path.into(), why };
        let text = read(&path)?;
        if manifest::sha256(&text) != hash {
            return Err(damaged(&path, "is not what was written".into()));
        }
        // Another format may have other fields.
        let format = serde_json::from_slice::<serde_json::Value>(&text)
            .ok()
            .and_then(|value| value.get("format")?.as_u64());
        if format != Some(u64::from(FORMAT)) {
            return Err(damaged(&folder, "is of another version of PyIsolate".into()));
        }
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|error| damaged(&path, format!("is no manifest: {error}")))?;
        if manifest.machine != std::env::consts::ARCH {
            return Err(damaged(&folder, format!("is for {}", manifest.machine)));
        }
        for (name, stored) in [(KERNEL, &manifest.kernel), (INITRAMFS, &manifest.initramfs)] {
            check_size(&folder.join(name), stored)?;
        }
        Ok(Image { folder, hash: hash.into(), manifest })
    }

    fn names(&self) -> PathBuf {
        self.folder.join("names")
    }

    fn lock(&self, progress: &mut dyn FnMut(Progress)) -> Result<Lock, ImageError> {
        Lock::take(&self.folder, || progress(Progress::Waiting))
    }

    fn put_name(&self, name: &str, hash: &str) -> Result<(), ImageError> {
        let fresh = self.names().join(".new");
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(ImageError::call("remove", fresh)(error));
            }
            _ => {}
        }
        store::write(&fresh, hash.as_bytes())?;
        store::publish(&fresh, &self.names().join(name))
    }

    /// All names with their hashes.
    fn named(&self) -> Result<Vec<(String, String)>, ImageError> {
        let names =
            store::names(&self.names())?.into_iter().filter(|name| check_name(name).is_ok());
        names.map(|name| Ok((name.clone(), self.hash_of(&name)?))).collect()
    }

    fn hash_of(&self, name: &str) -> Result<String, ImageError> {
        let path = self.names().join(name);
        let text = String::from_utf8(read(&path)?).unwrap_or_default();
        if is_hash(&text) {
            return Ok(text);
        }
        Err(ImageError::Damaged { path, why: "holds no hash".into() })
    }

    fn resolve(&self, wanted: &str) -> Result<String, ImageError> {
        if check_name(wanted).is_ok() && self.names().join(wanted).exists() {
            return self.hash_of(wanted);
        }
        if wanted.len() < PREFIX_LEAST || !is_hex(wanted) {
            return Err(ImageError::NotFound { wanted: wanted.into() });
        }
        let mut hashes = store::names(&self.images())?
            .into_iter()
            .filter(|hash| is_hash(hash) && hash.starts_with(wanted));
        match (hashes.next(), hashes.next()) {
            (Some(hash), None) => Ok(hash),
            (None, _) => Err(ImageError::NotFound { wanted: wanted.into() }),
            (Some(_), Some(_)) => Err(ImageError::Ambiguous { wanted: wanted.into() }),
        }
    }
}

/// Compares all bytes of an image with its manifest.
pub(super) fn verify(image: &Image) -> Result<(), ImageError> {
    let manifest = image.manifest();
    for (path, wanted) in
        [(image.kernel(), &manifest.kernel), (image.initramfs(), &manifest.initramfs)]
    {
        let found = manifest::stored(&path).map_err(ImageError::call("read", &path))?;
        if found != *wanted {
            return Err(ImageError::Damaged { path, why: "is not what was written".into() });
        }
    }
    Ok(())
}

fn check_size(path: &Path, stored: &StoredFile) -> Result<(), ImageError> {
    let damaged = |why: String| ImageError::Damaged { path: path.into(), why };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(damaged("is missing".into())),
        Err(error) => Err(ImageError::call("look at", path)(error)),
        Ok(found) if found.len() != stored.bytes => {
            let (has, wanted) = (found.len(), stored.bytes);
            Err(damaged(format!("has {has} bytes of {wanted}")))
        }
        Ok(_) => store::check_owner(path),
    }
}

/// The bytes of a small file that nobody else can write.
fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    let missing = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => ImageError::Damaged { path: path.into(), why: "is missing".into() },
        _ => ImageError::call("read", path)(error),
    };
    let file = std::fs::File::open(path).map_err(missing)?;
    store::check_owner(path)?;
    let mut bytes = Vec::new();
    file.take(MANIFEST_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(ImageError::call("read", path))?;
    Ok(bytes)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_hash(text: &str) -> bool {
    text.len() == HASH_LENGTH && is_hex(text)
}

fn check_name(name: &str) -> Result<(), ImageError> {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let is_name = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(plain)
        && !(name.len() >= PREFIX_LEAST && is_hex(name));
    if is_name { Ok(()) } else { Err(ImageError::BadName { name: name.into() }) }
}
