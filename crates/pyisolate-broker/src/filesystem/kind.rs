//! What may be opened: regular files, on file systems that hold files.

use std::os::fd::AsFd;

use pyisolate_policy::CleanPath;
use rustix::fs::{FileType, Stat, fstatfs};
use rustix::io::Errno;

use super::judge::Use;
use super::stop::{Stop, os, refused};
use crate::outcome::Refusal;

/// The file systems that are windows into the kernel or into other processes, with the numbers of
/// `linux/magic.h`. Nothing of them is read, written, listed or told, whatever a policy grants.
const KERNEL_SYSTEMS: [(u32, &str); 23] = [
    (0x9fa0, "procfs"),
    (0x6265_6572, "sysfs"),
    (0x1cd1, "devpts"),
    (0x0027_e0eb, "cgroup"),
    (0x6367_7270, "cgroup2"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0xcafe_4a11, "bpf"),
    (0x7363_6673, "securityfs"),
    (0x6165_676c, "pstore"),
    (0xde5e_81e4, "efivarfs"),
    (0x6265_6570, "configfs"),
    (0x4249_4e4d, "binfmt_misc"),
    (0x6c6f_6f70, "binderfs"),
    (0x6e73_6673, "nsfs"),
    (0x5049_4446, "pidfs"),
    (0xf97c_ff8c, "selinuxfs"),
    (0x4341_5d53, "smackfs"),
    (0x6573_5543, "fusectl"),
    (0x1980_0202, "mqueue"),
    (0xabba_1974, "xenfs"),
    (0x0765_5821, "resctrl"),
    (0x6e66_7364, "nfsd"),
];

/// Refuses what lies on one of the kernel's own file systems.
pub(super) fn check_system(node: impl AsFd, usage: Use, path: &CleanPath) -> Result<(), Stop> {
    let system = fstatfs(node)?.f_type;
    // The numbers have 32 bits; the field has a sign and 64 of them on some machines.
    #[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are the number")]
    #[expect(clippy::cast_sign_loss, reason = "the low 32 bits are the number")]
    let number = system as u32;
    match KERNEL_SYSTEMS.iter().find(|(magic, _)| *magic == number) {
        None => Ok(()),
        Some((_, name)) => Err(refused(usage, path, format_args!("it leads to {name}")).into()),
    }
}

/// Refuses what is no regular file; for writing also what has a second name or runs as another
/// user. Looks at what was named by a handle, before anything is opened.
pub(super) fn check_file(stat: &Stat, usage: Use, path: &CleanPath) -> Result<(), Refusal> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            return match usage {
                Use::Read | Use::See => Ok(()),
                Use::Write | Use::Both => check_written(stat, usage, path),
            };
        }
        FileType::Directory => return Err(os(Errno::ISDIR)),
        FileType::Symlink => return Err(os(Errno::LOOP)),
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "no regular file",
    };
    Err(refused(usage, path, format_args!("it is {kind}, and only regular files are opened")))
}

fn check_written(stat: &Stat, usage: Use, path: &CleanPath) -> Result<(), Refusal> {
    if stat.st_nlink > 1 {
        let names = stat.st_nlink;
        let why = "(hard links), and the others may lie elsewhere";
        return Err(refused(usage, path, format_args!("the file has {names} names {why}")));
    }
    if stat.st_mode & 0o6000 != 0 {
        let why = "the file runs as another user or group (setuid, setgid)";
        return Err(refused(usage, path, why));
    }
    Ok(())
}

/// `file`, `dir`, `link` or `other`.
pub(super) fn name(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "file",
        FileType::Directory => "dir",
        FileType::Symlink => "link",
        _ => "other",
    }
}
