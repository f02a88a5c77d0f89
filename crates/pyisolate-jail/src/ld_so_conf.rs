//! The directories in which the host's `ld.so` looks for libraries that nothing names more closely.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where `ld.so` looks last, by distribution family: Debian's multiarch directories, then
/// everyone's.
const DEFAULT_DIRECTORIES: &[&str] = &[
    #[cfg(target_arch = "x86_64")]
    "/lib/x86_64-linux-gnu",
    #[cfg(target_arch = "x86_64")]
    "/usr/lib/x86_64-linux-gnu",
    #[cfg(target_arch = "aarch64")]
    "/lib/aarch64-linux-gnu",
    #[cfg(target_arch = "aarch64")]
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
    "/usr/local/lib",
];

/// The directories of `LD_LIBRARY_PATH`, which an interpreter that was moved may need, those of
/// `/etc/ld.so.conf` and what it includes, then the built-in ones; only those that exist.
pub(crate) fn library_directories() -> Vec<PathBuf> {
    let named = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> =
        std::env::split_paths(&named).filter(|directory| directory.is_absolute()).collect();
    read_conf(Path::new("/etc/ld.so.conf"), 0, &mut directories);
    directories.extend(DEFAULT_DIRECTORIES.iter().map(PathBuf::from));
    let mut seen = HashSet::new();
    directories.retain(|directory| directory.is_dir() && seen.insert(directory.clone()));
    directories
}

fn read_conf(file: &Path, depth: usize, directories: &mut Vec<PathBuf>) {
    // ld.so.conf files that include each other are a mistake of the host's; four levels are more
    // than any has.
    if depth > 4 {
        return;
    }
    let Ok(text) = std::fs::read_to_string(file) else { return };
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(pattern) =
            line.strip_prefix("include").filter(|rest| rest.starts_with(char::is_whitespace))
        {
            for pattern in pattern.split_whitespace() {
                let base = file.parent().unwrap_or(Path::new("/"));
                for included in glob(&base.join(pattern)) {
                    read_conf(&included, depth + 1, directories);
                }
            }
        } else if line.starts_with('/') {
            directories.push(PathBuf::from(line));
        }
    }
}

/// The files a pattern names. A `*` is understood once, in the last component, which is how
/// ld.so.conf uses it.
fn glob(pattern: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) =
        (pattern.parent(), pattern.file_name().and_then(OsStr::to_str))
    else {
        return Vec::new();
    };
    let Some((before, after)) = name.split_once('*') else { return vec![pattern.to_path_buf()] };
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.as_bytes();
            name.len() >= before.len() + after.len()
                && name.starts_with(before.as_bytes())
                && name.ends_with(after.as_bytes())
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn includes_and_comments_are_understood() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir(path("conf.d")).unwrap();
        std::fs::write(path("ld.so.conf"), "include conf.d/*.conf\n# /comment\n/last # why\n")
            .unwrap();
        std::fs::write(path("conf.d/b.conf"), "/b\ninclude ../ld.so.conf\n").unwrap();
        std::fs::write(path("conf.d/a.conf"), "/a\n").unwrap();
        std::fs::write(path("conf.d/other"), "/never\n").unwrap();
        let mut found = Vec::new();
        read_conf(&path("ld.so.conf"), 4, &mut found);
        assert_eq!(found, ["/last"].map(PathBuf::from), "a loop of includes ends");
        found.clear();
        read_conf(&path("ld.so.conf"), 3, &mut found);
        assert_eq!(found, ["/a", "/b", "/last"].map(PathBuf::from));
    }
}
