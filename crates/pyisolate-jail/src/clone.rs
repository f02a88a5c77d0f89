//! Cloning a cell off the zygote: one system call that makes the process and all its namespaces, or
//! nothing.
//!
//! It is the old `clone`, not `clone3`, on purpose. A seccomp filter sees registers and cannot
//! follow pointers: it can compare `clone`'s flags with one permitted value, where `clone3` keeps
//! them in memory. So the zygote's filter lets [`CELL_CLONE_FLAGS`] pass and no other kind of
//! process.
//!
//! No user or group map is ever written for a cell. Its user is then nobody, with every capability
//! in its new namespaces and none outside, which is what [`crate::CellJail::enter`] needs; and a
//! process that is mapped nowhere may not create user namespaces in turn. A *template*, which has
//! to, gets its map by [`crate::map_template`].
//!
//! There is no network namespace in the flags: the cell shares the zygote's, which is empty, and
//! making one is the slowest part of making a process by far.

#![expect(
    unsafe_code,
    reason = "raw clone: no safe wrapper can exist for a call that returns twice"
)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;

/// The flags of a cell's clone, the only ones besides a thread's that the zygote's filter lets
/// pass.
pub const CELL_CLONE_FLAGS: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_PIDFD
    | libc::CLONE_CHILD_SETTID
    | libc::CLONE_CHILD_CLEARTID
    | libc::SIGCHLD) as u64;

/// The flags of a process in its maker's namespaces: of the zygote and of cells where no namespace
/// can be had.
pub(crate) const PLAIN_CLONE_FLAGS: u64 =
    (libc::CLONE_PIDFD | libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD)
        as u64;

/// Which side of a clone the caller is on.
#[derive(Debug)]
pub enum Cloned {
    /// The new process: pid 1 of its own namespace, if it was given one.
    Child,
    /// The caller.
    Parent {
        /// The new process, as the caller's pid namespace numbers it.
        pid: i32,
        /// A handle to it that no reuse of the number can mislead. Close-on-exec.
        pidfd: OwnedFd,
    },
}

/// Clones the calling process into the namespaces of a cell.
///
/// The child has the caller's memory, copied on write, and only the calling thread. A caller with
/// an interpreter in it wraps this in `PyOS_BeforeFork` and `PyOS_AfterFork_Child`/`_Parent`.
///
/// # Errors
/// `clone`'s. `EPERM`: the caller's user is mapped nowhere (see the module's text) or user
/// namespaces are forbidden; `ENOSPC` or `EUSERS`: `user.max_user_namespaces` is reached; `EAGAIN`:
/// `RLIMIT_NPROC` or the cgroup's `pids.max`.
pub fn clone_cell() -> io::Result<Cloned> {
    clone_with(CELL_CLONE_FLAGS)
}

/// The flags of a program's clone: a user namespace without a map, so that nobody in it can make
/// another, and none besides.
const PROGRAM_CLONE_FLAGS: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_PIDFD
    | libc::CLONE_CHILD_SETTID
    | libc::CLONE_CHILD_CLEARTID
    | libc::SIGCHLD) as u64;

/// Clones the first process of a program's jail into the process that becomes the program.
///
/// # Errors
/// As [`clone_cell`].
pub(crate) fn clone_program() -> io::Result<Cloned> {
    clone_with(PROGRAM_CLONE_FLAGS)
}

pub(crate) fn clone_with(flags: u64) -> io::Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    let thread_id = thread_id_address();
    let pidfd_slot = (&raw mut pidfd).cast::<libc::c_void>();
    let no_stack = ptr::null_mut::<libc::c_void>();
    let no_tls = ptr::null_mut::<libc::c_void>();
    // To a null address the kernel writes no thread id and does not complain, so the flags stay the
    // one value that the filter knows even where the address is unavailable.
    //
    // SAFETY: without CLONE_VM the child runs on a copy of this very stack and address space, so a
    // null stack (keep the current one) is valid and no memory is shared. With CLONE_PIDFD the
    // third argument is where the kernel stores a descriptor: `pidfd` is a live c_int. The
    // child-tid address is either null or that of glibc's own field for the calling thread, which
    // is valid in the copy too. CLONE_SETTLS is absent, so tls is unused. The order of tls and
    // child-tid differs by architecture, as clone(2) lists it.
    let result = unsafe {
        #[cfg(target_arch = "x86_64")]
        {
            libc::syscall(libc::SYS_clone, flags, no_stack, pidfd_slot, thread_id, no_tls)
        }
        #[cfg(target_arch = "aarch64")]
        {
            libc::syscall(libc::SYS_clone, flags, no_stack, pidfd_slot, no_tls, thread_id)
        }
    };
    finish(result, pidfd)
}

fn finish(result: libc::c_long, pidfd: libc::c_int) -> io::Result<Cloned> {
    match i32::try_from(result) {
        Ok(0) => Ok(Cloned::Child),
        Ok(pid) if pid > 0 => {
            // SAFETY: the clone succeeded with CLONE_PIDFD, so `pidfd` is an open descriptor that
            // nothing else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid, pidfd })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Where libc keeps the calling thread's id.
///
/// A raw clone goes round libc, which caches the id and would go on using the parent's: `abort`
/// would then signal a thread that is not there. Telling the kernel to write the child's id
/// (`CLONE_CHILD_SETTID`) to the same place, as libc's own `fork` does, puts that right. Null where
/// the kernel cannot say (`CONFIG_CHECKPOINT_RESTORE` off).
fn thread_id_address() -> *mut libc::c_void {
    match rustix::thread::get_clear_child_tid_address() {
        Ok(Some(address)) => address.as_ptr(),
        Ok(None) | Err(_) => ptr::null_mut(),
    }
}
