//! Where the kernel comes from: Debian's package, or files of the user's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::program::{self, ProgramError};
use super::{ImageError, KernelSource, Progress, manifest};

/// The package that depends on the newest kernel for clouds: small, and with virtio.
#[cfg(target_arch = "x86_64")]
const META_PACKAGE: &str = "linux-image-cloud-amd64";
#[cfg(target_arch = "aarch64")]
const META_PACKAGE: &str = "linux-image-cloud-arm64";

/// Some 30 MB, on a slow line.
const FETCH_LIMIT: Duration = Duration::from_secs(600);

/// Questions to the package manager's own lists, and unpacking.
const LOCAL_LIMIT: Duration = Duration::from_secs(120);

/// A kernel's release is shorter (`__NEW_UTS_LEN` in Linux).
const RELEASE_BYTES_MAX: usize = 64;

/// A kernel and its modules.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) file: PathBuf,
    /// As `uname -r` says it; empty if the file does not tell.
    pub(super) release: String,
    pub(super) modules: Option<PathBuf>,
}

/// Has the kernel. Packages are kept in `packages`; `work` is for what is unpacked.
///
/// # Errors
/// There is none, or the modules are another's.
pub(super) fn find(
    source: &KernelSource,
    packages: &Path,
    work: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Kernel, ImageError> {
    match source {
        KernelSource::Files { kernel, modules } => files(kernel, modules.as_deref()),
        KernelSource::Debian => {
            let package = fetched(packages, work, progress)?;
            progress(Progress::Unpacking);
            unpacked(&package, work)
        }
    }
}

fn files(file: &Path, modules: Option<&Path>) -> Result<Kernel, ImageError> {
    let bytes = std::fs::read(file).map_err(ImageError::call("read", file))?;
    let wrong = |path: &Path, why: String| ImageError::Kernel { path: path.into(), why };
    if bytes.is_empty() {
        return Err(wrong(file, "is empty, and so no kernel".into()));
    }
    let told = release(&bytes);
    // The folder's name is its release's, as the kernel's build installs it.
    let of_folder = modules
        .map(|folder| std::path::absolute(folder).map_err(ImageError::call("find", folder)))
        .transpose()?
        .and_then(|folder| Some(folder.file_name()?.to_str()?.to_owned()));
    if let (Some(told), Some(of_folder), Some(modules)) = (&told, &of_folder, modules)
        && told != of_folder
    {
        let why = format!("holds the modules of {of_folder}, and the kernel is {told}");
        return Err(wrong(modules, why));
    }
    let release = told.or(of_folder).unwrap_or_default();
    Ok(Kernel { file: file.into(), release, modules: modules.map(Into::into) })
}

/// The release in a kernel for x86, whose header points at it (Linux's
/// `Documentation/arch/x86/boot.rst`, `kernel_version`).
fn release(kernel: &[u8]) -> Option<String> {
    if kernel.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let at = usize::from(u16::from_le_bytes(kernel.get(0x20e..0x210)?.try_into().ok()?)) + 0x200;
    let text = kernel.get(at..)?;
    let text = &text[..text.len().min(RELEASE_BYTES_MAX)];
    let end = text.iter().position(|byte| *byte == b' ' || *byte == 0)?;
    let release = std::str::from_utf8(&text[..end]).ok()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_+~".contains(c);
    let is_release = !release.is_empty() && release.chars().all(is_plain);
    (is_release && release.starts_with(|c: char| c.is_ascii_digit())).then(|| release.to_owned())
}

/// The kernel's package, fetched if it is not there.
fn fetched(
    packages: &Path,
    work: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<PathBuf, ImageError> {
    let wrong = |what| ImageError::KernelPackage { what };
    let shown = apt("apt-cache", &["--no-all-versions", "show", META_PACKAGE], work)?;
    let name = dependency(&shown)
        .ok_or_else(|| wrong(format!("{META_PACKAGE} depends on no package of a kernel")))?;
    let uri = apt("apt-get", &["download", "--print-uris", &name], work)?;
    let (file, sha256) =
        listed(&uri).ok_or_else(|| wrong(format!("apt-get does not say where {name} is")))?;
    let kept = packages.join(&file);
    let is_whole = |path: &Path| {
        manifest::stored(path)
            .is_ok_and(|stored| sha256.as_ref().is_none_or(|it| *it == stored.sha256))
    };
    if is_whole(&kept) {
        return Ok(kept);
    }
    progress(Progress::Fetching(file.clone()));
    apt("apt-get", &["-q", "download", &name], work)?;
    let fresh = work.join(&file);
    if !is_whole(&fresh) {
        return Err(wrong(format!("apt-get fetched no {file} with the hash of its list")));
    }
    super::store::publish(&fresh, &kept)?;
    Ok(kept)
}

/// Asks the package manager; what it writes goes to `work`.
fn apt(tool: &str, words: &[&str], work: &Path) -> Result<String, ImageError> {
    // Otherwise it would fetch as another user, who cannot write here.
    let whole = ["-o", "APT::Sandbox::User=root"].iter().chain(words);
    let output = program::output(program::program(tool).args(whole).current_dir(work), FETCH_LIMIT);
    let output = output.map_err(|source| match source {
        source @ ProgramError::Run { .. } => {
            ImageError::NoKernel { source, remedy: "use a system with apt" }
        }
        source => ImageError::NoKernel { source, remedy: "run `apt-get update` as root" },
    })?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// The first package that the `Depends:` line names.
fn dependency(shown: &str) -> Option<String> {
    let depends = shown.lines().find_map(|line| line.strip_prefix("Depends: "))?;
    let name = depends.split([' ', ',', '|', '(']).next()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-+".contains(c);
    (name.starts_with("linux-image-") && name.chars().all(is_plain)).then(|| name.to_owned())
}

/// The file's name and SHA-256 of `'URI' NAME SIZE SHA256:HASH`.
fn listed(uris: &str) -> Option<(String, Option<String>)> {
    let line = uris.lines().find(|line| line.starts_with('\''))?;
    let mut words = line.split(' ').skip(1);
    let name = words.next()?;
    let is_name = name.ends_with(".deb") && !name.contains('/') && !name.starts_with('.');
    let sha256 = words.nth(1).and_then(|hash| hash.strip_prefix("SHA256:")).map(str::to_owned);
    is_name.then(|| (name.to_owned(), sha256))
}

fn unpacked(package: &Path, work: &Path) -> Result<Kernel, ImageError> {
    let tree = work.join("tree");
    let words = ["-x".as_ref(), package.as_os_str(), tree.as_os_str()];
    program::output(program::program("dpkg-deb").args(words), LOCAL_LIMIT)
        .map_err(|source| ImageError::NoKernel { source, remedy: "install dpkg, make room" })?;
    let boot = tree.join("boot");
    let wrong =
        |what: &str| ImageError::KernelPackage { what: format!("{} {what}", package.display()) };
    let name = std::fs::read_dir(&boot)
        .map_err(ImageError::call("list", &boot))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find(|name| name.starts_with("vmlinuz-"))
        .ok_or_else(|| wrong("holds no kernel"))?;
    let release = name.trim_start_matches("vmlinuz-").to_owned();
    let modules = ["lib/modules", "usr/lib/modules"]
        .map(|folder| tree.join(folder).join(&release))
        .into_iter()
        .find(|folder| folder.is_dir())
        .ok_or_else(|| wrong("holds no modules"))?;
    Ok(Kernel { file: boot.join(name), release, modules: Some(modules) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_managers_answers_are_read() {
        let shown = "Package: x\nDepends: linux-image-6.1.0-48-cloud-amd64 (= 6.1.172-1)\n";
        assert_eq!(dependency(shown).unwrap(), "linux-image-6.1.0-48-cloud-amd64");
        assert_eq!(dependency("Depends: --help"), None);
        assert_eq!(dependency(""), None);
        let uri = "Reading\n'http://x/y/a_1%3a2_amd64.deb' a_1%3a2_amd64.deb 12 SHA256:00ff\n";
        assert_eq!(listed(uri), Some(("a_1%3a2_amd64.deb".into(), Some("00ff".into()))));
        assert_eq!(listed("'http://x/a' ../a.deb 12 SHA256:00"), None);
    }

    #[test]
    fn the_release_is_read_from_the_header() {
        let mut kernel = vec![0; 0x1000];
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel[0x20e..0x210].copy_from_slice(&0x600_u16.to_le_bytes());
        kernel[0x800..0x812].copy_from_slice(b"6.1.0-48-x (a@b) #");
        assert_eq!(release(&kernel).unwrap(), "6.1.0-48-x");
        for length in 0..0x820 {
            let _ = release(&kernel[..length]);
        }
        kernel[0x800] = b'/';
        assert_eq!(release(&kernel), None);
    }

    #[test]
    fn modules_of_another_kernel_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut kernel = vec![0; 0x300];
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel[0x20e..0x210].copy_from_slice(&0x20_u16.to_le_bytes());
        kernel[0x220..0x22a].copy_from_slice(b"6.1.0 (a@b");
        let file = folder.path().join("bzImage");
        std::fs::write(&file, kernel).unwrap();
        assert_eq!(files(&file, Some(Path::new("/lib/modules/6.1.0"))).unwrap().release, "6.1.0");
        let error = files(&file, Some(Path::new("/lib/modules/6.2.0"))).unwrap_err();
        assert!(error.to_string().contains("the kernel is 6.1.0"), "{error}");
    }
}
