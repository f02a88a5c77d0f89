//! Images of a small made-up library, built with a real interpreter: the same inputs, the same bytes;
//! and nothing damaged, half-written or of another user is ever opened.
//!
//! Skipped by name where there is no `python3`, unless `PYISOLATE_REQUIRE` lists `python`.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr, reason = "a test")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pyisolate_jail::Environment;
use pyisolate_microvm::image::{Cache, ImageError, KernelSource, PackageFiles, Progress, Wanted};

const KERNEL_BYTES: usize = 4 << 20;

/// Set in the process that has a small disk.
const SMALL_DISK: &str = "PYISOLATE_TEST_SMALL_DISK";

fn missing(feature: &str, why: &str) {
    let required = std::env::var("PYISOLATE_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|it| it.trim() == feature), "{feature}: {why}");
    eprintln!("skipped: {feature}: {why}");
}

/// The interpreter's binary and version.
fn python() -> Option<(PathBuf, (u8, u8))> {
    let named = std::env::var("PYISOLATE_PYTHON").unwrap_or("python3".into());
    let script = "import os, sys; print(os.path.realpath(sys._base_executable), \
                  *sys.version_info[:2], sep='\\n')";
    let output = Command::new(named).args(["-I", "-c", script]).output().ok();
    let Some(output) = output.filter(|output| output.status.success()) else {
        missing("python", "there is no python3");
        return None;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    Some((lines[0].into(), (lines[1].parse().unwrap(), lines[2].parse().unwrap())))
}

struct Inputs {
    folder: tempfile::TempDir,
    wanted: Wanted,
}

impl Inputs {
    /// Two modules, what is left out, a package, a runtime and a kernel.
    fn new() -> Option<Self> {
        let (executable, version) = python()?;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, text) in [
            ("stdlib/first.py", "def f(x):\n    return x in {'a', 'b', 'c', 'd', None, 1.5}\n"),
            ("stdlib/inner/__init__.py", "import first\nA = ('a', 'b', ('c', 1, first.f))\n"),
            ("stdlib/inner/__pycache__/old.cpython-38.pyc", "old"),
            ("stdlib/wrong.py", "def f(:\n"),
            ("stdlib/test/test_first.py", "import first\n"),
            ("stdlib/site-packages/secret.py", "import first\n"),
            ("stdlib/config-3.13-x/libpython.a", "!<arch>"),
            ("stdlib/lib-dynload/none.txt", ""),
            ("packages/thing/__init__.py", "B = 1\n"),
            ("packages/thing/tests/test_thing.py", "C = 1\n"),
            ("packages/other.py", "not asked for"),
            ("runtime.so", "the runtime"),
        ] {
            std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            std::fs::write(at(name), text).unwrap();
        }
        std::os::unix::fs::symlink("first.py", at("stdlib/link.py")).unwrap();
        std::os::unix::fs::symlink("nowhere.py", at("stdlib/dangling.py")).unwrap();
        std::fs::write(at("kernel"), vec![7; KERNEL_BYTES]).unwrap();
        let environment = Environment {
            executable,
            stdlib: at("stdlib"),
            platstdlib: at("stdlib"),
            platlibdir: "lib".into(),
            version,
            packages: vec![at("packages")],
            runtime: at("runtime.so"),
        };
        let package = PackageFiles {
            name: "thing".into(),
            version: "1.0".into(),
            folder: at("packages"),
            files: ["thing/__init__.py", "thing/tests/test_thing.py"].map(Into::into).into(),
        };
        let kernel = KernelSource::Files { kernel: at("kernel"), modules: None };
        Some(Self { wanted: Wanted { environment, packages: vec![package], kernel }, folder })
    }

    fn cache(&self, name: &str) -> Cache {
        Cache::at(&self.folder.path().join(name)).unwrap()
    }
}

fn ignore(_: Progress) {}

/// Names, modes and bytes of an archive's entries.
fn entries(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        let field = |number: usize| {
            let start = at + 6 + number * 8;
            u32::from_str_radix(std::str::from_utf8(&archive[start..start + 8]).unwrap(), 16)
                .unwrap()
        };
        assert_eq!(&archive[at..at + 6], b"070701");
        let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
        let name = String::from_utf8(archive[at + 110..at + 109 + name_size].to_vec()).unwrap();
        let data = (at + 110 + name_size).next_multiple_of(4);
        if name == "TRAILER!!!" {
            assert_eq!(data, archive.len());
            return found;
        }
        found.push((name, mode, archive[data..data + size].to_vec()));
        at = (data + size).next_multiple_of(4);
    }
}

#[test]
fn the_same_inputs_make_the_same_image() {
    let (Some(inputs), Some(again)) = (Inputs::new(), Inputs::new()) else { return };
    let image = inputs.cache("cache").build(&inputs.wanted, "default", &mut ignore).unwrap();
    let other = again.cache("cache").build(&again.wanted, "other", &mut ignore).unwrap();
    assert_eq!(image.hash(), other.hash());
    let bytes = [image.initramfs(), other.initramfs()].map(|path| std::fs::read(path).unwrap());
    assert!(bytes[0] == bytes[1]);
    let own = inputs.folder.path().to_str().unwrap();
    assert!(!bytes[0].windows(own.len()).any(|part| part == own.as_bytes()), "names a host path");

    std::fs::write(again.wanted.environment.stdlib.join("first.py"), "pass\n").unwrap();
    let changed = again.cache("cache").build(&again.wanted, "other", &mut ignore).unwrap();
    assert_ne!(image.hash(), changed.hash());
}

#[test]
fn it_holds_what_was_asked_for_and_nothing_else() {
    let Some(inputs) = Inputs::new() else { return };
    let (major, minor) = inputs.wanted.environment.version;
    let image = inputs.cache("cache").build(&inputs.wanted, "default", &mut ignore).unwrap();
    let found = entries(&std::fs::read(image.initramfs()).unwrap());
    let names: Vec<_> = found.iter().map(|(name, ..)| name.as_str()).collect();
    let library = format!("python/lib/python{major}.{minor}");
    let tag = format!("cpython-{major}{minor}");
    for name in [
        "init",
        "dev/console",
        "dev/null",
        "proc",
        "sys",
        "tmp",
        "etc/passwd",
        "python/bin/python3",
        "lib/libc.so.6",
        "pyisolate/runtime.so",
        "pyisolate/modules",
        "packages/0/thing/__init__.py",
        "packages/0/thing/tests/test_thing.py",
        &format!("packages/0/thing/__pycache__/__init__.{tag}.pyc"),
        &format!("{library}/first.py"),
        &format!("{library}/link.py"),
        &format!("{library}/wrong.py"),
        &format!("{library}/__pycache__/first.{tag}.pyc"),
        &format!("{library}/inner/__pycache__/__init__.{tag}.pyc"),
    ] {
        assert!(names.contains(&name), "{name} is missing");
    }
    for part in ["other.py", "secret", "test_first", "libpython.a", "cpython-38", "dangling"] {
        assert!(!names.iter().any(|name| name.contains(part)), "{part} is there");
    }
    let sources_only = ["thing/tests/__pycache__", "wrong.cpython"];
    assert!(!names.iter().any(|name| sources_only.iter().any(|part| name.contains(part))));
    // The kernel makes folders in the order of the archive.
    for (at, name) in names.iter().enumerate() {
        if let Some((folder, _)) = name.rsplit_once('/') {
            assert!(names[..at].contains(&folder), "{name} comes before its folder");
        }
    }
    let (_, mode, init) = found.iter().find(|(name, ..)| name == "init").unwrap();
    assert_eq!(*mode, 0o100_755);
    let init = String::from_utf8(init.clone()).unwrap();
    assert!(init.starts_with("#!/python/bin/python3 -sPSBXutf8\n"), "{init}");
    let ours = "runtime.init([\"/pyisolate/runtime.so\", '/python/bin/python3', ";
    assert!(init.contains(ours) && init.ends_with(", \"/packages/0\"])\n"), "{init}");
    let manifest = image.manifest();
    assert!(manifest.environment.contains(&("PYTHONHOME".into(), "/python".into())));
    assert!(manifest.python.starts_with(&format!("{major}.{minor}.")));
    assert_eq!(manifest.packages[0].name, "thing");
    assert_eq!(manifest.initramfs.bytes, std::fs::metadata(image.initramfs()).unwrap().len());
}

#[test]
fn damage_is_seen_and_mended_by_another_build() {
    let Some(inputs) = Inputs::new() else { return };
    let cache = inputs.cache("cache");
    let build = || cache.build(&inputs.wanted, "default", &mut ignore).unwrap();
    let image = build();
    cache.verify("default").unwrap();
    let whole = std::fs::read(image.initramfs()).unwrap();

    // Cut off: seen at each use.
    std::fs::write(image.initramfs(), &whole[..whole.len() - 1]).unwrap();
    let error = cache.open("default").unwrap_err();
    assert!(error.to_string().contains("bytes of"), "{error}");
    assert!(cache.list().unwrap()[0].image.is_err());
    build();
    cache.verify("default").unwrap();

    // Changed: seen by reading it.
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    std::fs::write(image.initramfs(), &changed).unwrap();
    cache.open("default").unwrap();
    assert!(matches!(cache.verify("default"), Err(ImageError::Damaged { .. })));
    build();
    assert!(std::fs::read(image.initramfs()).unwrap() == whole);

    // The manifest: its hash is the image's.
    let manifest = image.folder().join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("thing", "thong")).unwrap();
    assert!(matches!(cache.open("default"), Err(ImageError::Damaged { .. })));
    std::fs::remove_file(&manifest).unwrap();
    assert!(matches!(cache.open("default"), Err(ImageError::Damaged { .. })));
    build();
    cache.verify("default").unwrap();
}

#[test]
fn what_a_killed_build_left_is_not_used_and_goes() {
    let Some(inputs) = Inputs::new() else { return };
    let cache = inputs.cache("cache");
    let left = cache.folder().join("building/image");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("kernel"), "half").unwrap();
    assert!(cache.list().unwrap().is_empty());
    assert!(matches!(cache.open("default"), Err(ImageError::NotFound { .. })));
    cache.build(&inputs.wanted, "default", &mut ignore).unwrap();
    assert!(!cache.folder().join("building").exists());
}

#[test]
fn what_others_can_write_is_not_opened() {
    let Some(inputs) = Inputs::new() else { return };
    let cache = inputs.cache("cache");
    let image = cache.build(&inputs.wanted, "default", &mut ignore).unwrap();
    for path in
        [image.folder().to_path_buf(), image.initramfs(), image.folder().join("manifest.json")]
    {
        let mode = std::fs::metadata(&path).unwrap().permissions();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o722)).unwrap();
        let error = cache.open("default").unwrap_err();
        assert!(matches!(error, ImageError::Unsafe { .. }), "{error}");
        std::fs::set_permissions(&path, mode).unwrap();
        cache.open("default").unwrap();
    }
    std::fs::set_permissions(cache.folder(), PermissionsExt::from_mode(0o777)).unwrap();
    assert!(matches!(Cache::at(cache.folder()), Err(ImageError::Unsafe { .. })));
}

#[test]
fn names_lead_to_images_and_the_last_one_takes_its_image_along() {
    let Some(inputs) = Inputs::new() else { return };
    let cache = inputs.cache("cache");
    let hash = cache.build(&inputs.wanted, "one", &mut ignore).unwrap().hash().to_owned();
    cache.build(&inputs.wanted, "two", &mut ignore).unwrap();
    assert_eq!(cache.open(&hash[..8]).unwrap().hash(), hash);
    assert!(matches!(cache.open(&hash[..7]), Err(ImageError::NotFound { .. })));
    let listed = cache.list().unwrap();
    assert_eq!((listed.len(), listed[0].names.as_slice()), (1, &["one".into(), "two".into()][..]));
    assert_eq!(cache.remove("one").unwrap().hash, None);
    assert!(matches!(cache.open("one"), Err(ImageError::NotFound { .. })));
    assert_eq!(cache.remove("two").unwrap().hash.as_deref(), Some(hash.as_str()));
    assert!(cache.list().unwrap().is_empty());
    cache.build(&inputs.wanted, "three", &mut ignore).unwrap();
    assert_eq!(cache.remove(&hash).unwrap().names, ["three"]);
    for name in ["", "../x", "Upper", ".hidden", "cafebabe", "a b"] {
        let built = cache.build(&inputs.wanted, name, &mut ignore);
        assert!(matches!(built, Err(ImageError::BadName { .. })), "{name}");
    }
}

#[test]
fn builds_at_the_same_time_wait_for_each_other() {
    let Some(inputs) = Inputs::new() else { return };
    let cache = inputs.cache("cache");
    let build = |name| cache.build(&inputs.wanted, name, &mut ignore).unwrap().hash().to_owned();
    let hashes = std::thread::scope(|scope| {
        let building = ["one", "two", "three"].map(|name| scope.spawn(move || build(name)));
        building.map(|building| building.join().unwrap())
    });
    assert!(hashes.iter().all(|hash| *hash == hashes[0]));
    assert_eq!(cache.list().unwrap()[0].names.len(), 3);
}

#[test]
fn a_full_disk_is_named_with_what_is_needed_and_nothing_stays_on_it() {
    if let Some(disk) = std::env::var_os(SMALL_DISK) {
        return fill(Path::new(&disk));
    }
    if python().is_none() {
        return;
    }
    let disk = tempfile::tempdir().unwrap();
    let own = std::env::current_exe().unwrap();
    let script = format!(
        "mount -t tmpfs -o size={} x \"${SMALL_DISK}\" && chmod 700 \"${SMALL_DISK}\" && exec \"$0\" \
         --exact --nocapture a_full_disk_is_named_with_what_is_needed_and_nothing_stays_on_it",
        KERNEL_BYTES / 2
    );
    let unshare = |words: &[&std::ffi::OsStr]| {
        let mut command = Command::new("unshare");
        command.args(["-U", "-r", "-m"]).args(words).env(SMALL_DISK, disk.path()).output()
    };
    if !unshare(&["true".as_ref()]).is_ok_and(|output| output.status.success()) {
        return missing("userns", "no mount namespace to make a small disk in");
    }
    let output =
        unshare(&["sh".as_ref(), "-c".as_ref(), script.as_ref(), own.as_os_str()]).unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn fill(disk: &Path) {
    let inputs = Inputs::new().unwrap();
    let cache = Cache::at(&disk.join("cache")).unwrap();
    let error = cache.build(&inputs.wanted, "default", &mut ignore).unwrap_err();
    let ImageError::Full { folder, needed_bytes } = &error else { panic!("{error}") };
    assert_eq!(folder, cache.folder());
    assert!(*needed_bytes > KERNEL_BYTES as u64);
    assert!(cache.list().unwrap().is_empty());
    assert!(!cache.folder().join("building").exists());
}
