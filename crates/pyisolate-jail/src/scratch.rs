//! A file system in memory for one cell, which is nowhere in any file tree.

use std::os::fd::OwnedFd;

use rustix::mount::MountAttrFlags;

use crate::RootError;
use crate::root::{Room, tmpfs};

/// How many bytes a file stands for in the bound on their number: small files, of a block each.
const BYTES_A_FILE: u64 = 4096;

/// Makes one that holds `bytes`, and hands out its top. It has no name, and is gone with the last
/// descriptor of it, however its holder ends. Nothing in it can be executed.
///
/// # Errors
/// Names the call that failed: without `CAP_SYS_ADMIN` it is the first.
pub fn scratch(bytes: u64) -> Result<OwnedFd, RootError> {
    let (size, inodes) = (bytes.to_string(), (bytes / BYTES_A_FILE + 2).to_string());
    let room = Room { size: &size, inodes: &inodes, mode: "0700" };
    tmpfs(&room, MountAttrFlags::MOUNT_ATTR_NOEXEC)
}
