//! The filter of programs that the broker runs: the cell's allow-list, and what ordinary programs do
//! besides.
//!
//! They execute others, make, name and remove files (where the root and Landlock let them), and
//! signal what they started. What stays absent, as for cells: every socket but a stream pair; mounts
//! and namespaces; tracing and other processes' memory; `bpf`, `io_uring`, `userfaultfd`, `perf`,
//! keyrings, modules and `kexec`; file handles; identities, capabilities and clocks; memory that is
//! a file or is shared without one. There is no terminal in the jail, and no way to put input into
//! one.

use seccompiler::{BpfProgram, SeccompAction};

use crate::seccomp::{self, SeccompError};
use crate::seccomp_table::{CELL, Check, Row, When, arg, request, row};

/// The filter of programs, compiled. Installing takes `&self` and allocates nothing.
#[derive(Clone, Debug)]
pub struct CommandFilter {
    unknown: BpfProgram,
    allowed: BpfProgram,
}

impl CommandFilter {
    /// Compiles the tables.
    ///
    /// # Errors
    /// Only if the tables are wrong, which the tests rule out.
    pub fn compile() -> Result<Self, SeccompError> {
        Self::of(&[CELL, COMMAND, UNKNOWN])
    }

    /// The same for a virtual machine's monitor.
    ///
    /// # Errors
    /// As [`Self::compile`].
    pub fn compile_vmm() -> Result<Self, SeccompError> {
        Self::of(&[CELL, COMMAND, VMM, UNKNOWN])
    }

    fn of(allowed: &[&[Row]]) -> Result<Self, SeccompError> {
        let eperm = SeccompAction::Errno(libc::EPERM.cast_unsigned());
        let enosys = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
        let allow = SeccompAction::Allow;
        Ok(Self {
            // It lets pass what the other filter says is missing: of two filters the stricter answer
            // counts, and of two equally strict ones that of the later filter.
            allowed: seccomp::program("program", allowed, eperm, allow.clone())?,
            unknown: seccomp::program("missing calls", &[UNKNOWN], allow, enosys)?,
        })
    }

    /// Confines the calling thread and what it makes.
    ///
    /// # Errors
    /// The kernel's. The process then has to end: it may be half confined.
    pub fn install(&self) -> Result<(), SeccompError> {
        // The other way round, the second installation would be refused.
        seccomp::install("missing calls", &self.unknown)?;
        seccomp::install("program", &self.allowed)?;
        seccomp::in_force()
    }

    /// How many system calls a program may make.
    #[must_use]
    pub fn calls() -> usize {
        let more = COMMAND.iter().filter(|row| CELL.iter().all(|cell| cell.number != row.number));
        CELL.len() + more.count()
    }
}

/// What a program may do besides what a cell may.
#[rustfmt::skip] // one row a line, as a table
const COMMAND: &[Row] = &[
    row("execve", libc::SYS_execve, When::Always, "execute programs; noexec and Landlock say which"),
    row("execveat", libc::SYS_execveat, When::Always, "execute programs; noexec and Landlock say which"),
    row("clone", libc::SYS_clone, When::Any(NO_NAMESPACE), "start processes and threads, never namespaces"),
    row("wait4", libc::SYS_wait4, When::Always, "wait for what it started"),
    row("waitid", libc::SYS_waitid, When::Always, "wait for what it started"),
    row("pidfd_open", libc::SYS_pidfd_open, When::Always, "wait for what it started"),
    row("kill", libc::SYS_kill, When::Always, "signal what it can see: its own pid namespace"),
    row("tkill", libc::SYS_tkill, When::Always, "signal what it can see: its own pid namespace"),
    row("tgkill", libc::SYS_tgkill, When::Always, "signal what it can see: its own pid namespace"),
    row("rt_sigqueueinfo", libc::SYS_rt_sigqueueinfo, When::Always, "signal what it can see: its own pid namespace"),
    row("pidfd_send_signal", libc::SYS_pidfd_send_signal, When::Always, "signal what it can see: its own pid namespace"),
    row("signalfd4", libc::SYS_signalfd4, When::Always, "wait for signals"),
    row("setpgid", libc::SYS_setpgid, When::Always, "group what it started, as shells do"),
    row("setsid", libc::SYS_setsid, When::Always, "group what it started, as shells do"),
    row("getpriority", libc::SYS_getpriority, When::Always, "be nice"),
    row("setpriority", libc::SYS_setpriority, When::Always, "be nice"),
    row("sched_setaffinity", libc::SYS_sched_setaffinity, When::Always, "place its threads"),
    row("setrlimit", libc::SYS_setrlimit, When::Always, "lower its limits"),
    row("get_robust_list", libc::SYS_get_robust_list, When::Always, "wait for threads and wake them"),
    row("capget", libc::SYS_capget, When::Always, "see that it has no capabilities"),
    row("openat2", libc::SYS_openat2, When::Always, "open files; Landlock and the root say which"),
    row("statfs", libc::SYS_statfs, When::Always, "look at files"),
    row("fstatfs", libc::SYS_fstatfs, When::Always, "look at files"),
    row("getxattr", libc::SYS_getxattr, When::Always, "look at files"),
    row("lgetxattr", libc::SYS_lgetxattr, When::Always, "look at files"),
    row("fgetxattr", libc::SYS_fgetxattr, When::Always, "look at files"),
    row("listxattr", libc::SYS_listxattr, When::Always, "look at files"),
    row("llistxattr", libc::SYS_llistxattr, When::Always, "look at files"),
    row("flistxattr", libc::SYS_flistxattr, When::Always, "look at files"),
    row("readahead", libc::SYS_readahead, When::Always, "look at files"),
    row("mkdirat", libc::SYS_mkdirat, When::Always, "change files; only the scratch folder can be written"),
    row("unlinkat", libc::SYS_unlinkat, When::Always, "change files; only the scratch folder can be written"),
    row("renameat", libc::SYS_renameat, When::Always, "change files; only the scratch folder can be written"),
    row("renameat2", libc::SYS_renameat2, When::Always, "change files; only the scratch folder can be written"),
    row("linkat", libc::SYS_linkat, When::Always, "change files; only the scratch folder can be written"),
    row("symlinkat", libc::SYS_symlinkat, When::Always, "change files; only the scratch folder can be written"),
    row("mknodat", libc::SYS_mknodat, When::Any(FIFO_AT), "name pipes; only the scratch folder can be written"),
    row("fchmod", libc::SYS_fchmod, When::Always, "change files; only the scratch folder can be written"),
    row("fchmodat", libc::SYS_fchmodat, When::Always, "change files; only the scratch folder can be written"),
    row("fchmodat2", libc::SYS_fchmodat2, When::Always, "change files; only the scratch folder can be written"),
    row("fchown", libc::SYS_fchown, When::Always, "change files; only to itself, since there is nobody else"),
    row("fchownat", libc::SYS_fchownat, When::Always, "change files; only to itself, since there is nobody else"),
    row("utimensat", libc::SYS_utimensat, When::Always, "change files; only the scratch folder can be written"),
    row("truncate", libc::SYS_truncate, When::Always, "change files; only the scratch folder can be written"),
    row("fallocate", libc::SYS_fallocate, When::Always, "change files; only the scratch folder can be written"),
    row("copy_file_range", libc::SYS_copy_file_range, When::Always, "copy files"),
    row("flock", libc::SYS_flock, When::Always, "lock files, for as long as it runs"),
    row("fcntl", libc::SYS_fcntl, When::Always, "lock files, for as long as it runs; signals reach only its own processes"),
    row("ioctl", libc::SYS_ioctl, When::Any(IOCTL), "ask whether a descriptor is a terminal; share a file's blocks with a copy"),
    row("prctl", libc::SYS_prctl, When::Any(PRCTL), "name itself, and take from itself"),
    row("timerfd_create", libc::SYS_timerfd_create, When::Always, "know the time and wait for it"),
    row("timerfd_settime", libc::SYS_timerfd_settime, When::Always, "know the time and wait for it"),
    row("timerfd_gettime", libc::SYS_timerfd_gettime, When::Always, "know the time and wait for it"),
    row("timer_create", libc::SYS_timer_create, When::Always, "know the time and wait for it"),
    row("timer_settime", libc::SYS_timer_settime, When::Always, "know the time and wait for it"),
    row("timer_gettime", libc::SYS_timer_gettime, When::Always, "know the time and wait for it"),
    row("timer_getoverrun", libc::SYS_timer_getoverrun, When::Always, "know the time and wait for it"),
    row("timer_delete", libc::SYS_timer_delete, When::Always, "know the time and wait for it"),
    #[cfg(target_arch = "x86_64")]
    row("arch_prctl", libc::SYS_arch_prctl, When::Any(THREAD_POINTER), "start: the loader sets the thread pointer"),
    #[cfg(target_arch = "x86_64")]
    row("fork", libc::SYS_fork, When::Always, "start processes"),
    #[cfg(target_arch = "x86_64")]
    row("vfork", libc::SYS_vfork, When::Always, "start processes"),
    #[cfg(target_arch = "x86_64")]
    row("creat", libc::SYS_creat, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("mkdir", libc::SYS_mkdir, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("rmdir", libc::SYS_rmdir, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("unlink", libc::SYS_unlink, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("rename", libc::SYS_rename, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("link", libc::SYS_link, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("symlink", libc::SYS_symlink, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("mknod", libc::SYS_mknod, When::Any(FIFO), "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("chmod", libc::SYS_chmod, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("chown", libc::SYS_chown, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("lchown", libc::SYS_lchown, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("utime", libc::SYS_utime, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("utimes", libc::SYS_utimes, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("futimesat", libc::SYS_futimesat, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("getdents", libc::SYS_getdents, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("signalfd", libc::SYS_signalfd, When::Always, "older names of calls above, which libc still uses on x86-64"),
];

/// What a virtual machine's monitor may do besides. Its own filter on top can only take away.
#[rustfmt::skip] // one row a line, as a table
const VMM: &[Row] = &[
    row("seccomp", libc::SYS_seccomp, When::Any(FILTER), "confine itself further"),
    row("ioctl", libc::SYS_ioctl, When::Any(KVM), "drive /dev/kvm, where its root has it"),
];

/// What libseccomp does: `SECCOMP_SET_MODE_FILTER` without a listener, and looks at what there is, one
/// of them by a wrong `SECCOMP_SET_MODE_STRICT`.
const FILTER: &[&[Check]] = &[
    &[
        Check::Int(0, &[arg(libc::SECCOMP_SET_MODE_FILTER.cast_signed())]),
        Check::Masked(1, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER, 0),
    ],
    &[Check::Int(
        0,
        &[
            arg(libc::SECCOMP_SET_MODE_STRICT.cast_signed()),
            arg(libc::SECCOMP_GET_ACTION_AVAIL.cast_signed()),
            arg(libc::SECCOMP_GET_NOTIF_SIZES.cast_signed()),
        ],
    )],
];

/// All of type `KVMIO` (`linux/kvm.h`).
const KVM: &[&[Check]] = &[&[Check::Masked(1, 0xff00, 0xae00)]];

/// Calls that libc and programs must believe missing, so that they fall back: `clone3` to `clone`,
/// `io_uring` to `epoll`, a sandbox of the program's own to none.
const UNKNOWN: &[Row] = &[
    row("clone3", libc::SYS_clone3, When::Always, "libc falls back to clone"),
    row("io_uring_setup", libc::SYS_io_uring_setup, When::Always, "callers fall back to epoll"),
    row(
        "landlock_create_ruleset",
        libc::SYS_landlock_create_ruleset,
        When::Always,
        "callers go on without; the jail's own domain holds",
    ),
];

/// `clone` takes 32 bits of flags.
const NO_NAMESPACE: &[&[Check]] = &[&[Check::Masked(
    0,
    arg(libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP),
    0,
)]];

const FIFO_AT: &[&[Check]] = &[&[Check::Masked(2, libc::S_IFMT as u64, libc::S_IFIFO as u64)]];

#[cfg(target_arch = "x86_64")]
const FIFO: &[&[Check]] = &[&[Check::Masked(1, libc::S_IFMT as u64, libc::S_IFIFO as u64)]];

const IOCTL: &[&[Check]] = &[&[Check::Int(
    1,
    &[
        request(libc::TIOCGWINSZ),
        request(libc::TIOCGPGRP),
        request(libc::TCGETS2),
        request(libc::FICLONE),
        request(libc::FICLONERANGE),
    ],
)]];

const PRCTL: &[&[Check]] = &[&[Check::Int(
    0,
    &[
        arg(libc::PR_SET_PDEATHSIG),
        arg(libc::PR_GET_PDEATHSIG),
        arg(libc::PR_SET_DUMPABLE),
        arg(libc::PR_SET_NO_NEW_PRIVS),
        arg(libc::PR_SET_CHILD_SUBREAPER),
        arg(libc::PR_GET_CHILD_SUBREAPER),
        arg(libc::PR_GET_KEEPCAPS),
        arg(libc::PR_GET_SECUREBITS),
    ],
)]];

/// `ARCH_SET_GS`, `ARCH_SET_FS`, `ARCH_GET_FS` and `ARCH_GET_GS` (`asm/prctl.h`).
#[cfg(target_arch = "x86_64")]
const THREAD_POINTER: &[&[Check]] = &[&[Check::Int(0, &[0x1001, 0x1002, 0x1003, 0x1004])]];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_compile_and_fit_the_kernels_limit() {
        let filter = CommandFilter::compile().unwrap();
        for program in [&filter.allowed, &filter.unknown] {
            assert!((1..=4096).contains(&program.len()), "{}", program.len());
        }
    }

    #[test]
    fn no_call_is_listed_twice_and_each_has_a_reason() {
        let mut seen = std::collections::HashSet::new();
        for row in COMMAND {
            assert!(seen.insert(row.number), "{} twice", row.name);
            assert!(!row.reason.is_empty(), "{} without a reason", row.name);
        }
    }

    #[test]
    fn what_has_no_place_in_a_program_is_not_in_the_table() {
        let absent = [
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_accept,
            libc::SYS_accept4,
            libc::SYS_sendmmsg,
            libc::SYS_memfd_create,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_process_madvise,
            libc::SYS_pidfd_getfd,
            libc::SYS_kcmp,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_io_uring_enter,
            libc::SYS_userfaultfd,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_open_tree,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_mount_setattr,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_chroot,
            libc::SYS_pivot_root,
            libc::SYS_name_to_handle_at,
            libc::SYS_open_by_handle_at,
            libc::SYS_kexec_load,
            libc::SYS_kexec_file_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_personality,
            libc::SYS_clock_settime,
            libc::SYS_settimeofday,
            libc::SYS_adjtimex,
            libc::SYS_setuid,
            libc::SYS_setgid,
            libc::SYS_setgroups,
            libc::SYS_capset,
            libc::SYS_seccomp,
            libc::SYS_shmget,
            libc::SYS_mq_open,
            libc::SYS_swapon,
            libc::SYS_reboot,
            libc::SYS_syslog,
            libc::SYS_acct,
            libc::SYS_quotactl,
            libc::SYS_fanotify_init,
            libc::SYS_splice,
            libc::SYS_vmsplice,
        ];
        for row in CELL.iter().chain(COMMAND) {
            assert!(!absent.contains(&row.number), "{} is allowed", row.name);
        }
    }
}
