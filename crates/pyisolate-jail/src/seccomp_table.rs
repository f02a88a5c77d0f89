//! The allow-lists, as data. A system call that is in neither table does not exist for the jail.
//!
//! [`CELL`] is what a cell may do. [`ZYGOTE`] is what the zygote and templates may do besides:
//! clone cells, reap them, and take away their own rights. Every row says why it is there. What is
//! deliberately absent: every way to make a file system object or change one by path, to make a
//! socket of any family, to execute, trace or signal another process, to make memory that is a file
//! (`memfd_create`), to load anything into the kernel (`bpf`, `io_uring`, `userfaultfd`, keyrings,
//! modules), to change namespaces, mounts, identities or clocks. `openat2` and `clone3` are absent
//! because their arguments lie in memory, where a filter cannot see them; libc falls back to the
//! older calls.

use crate::clone::{CELL_CLONE_FLAGS, PLAIN_CLONE_FLAGS};

/// Flags with which libc makes a thread, exactly. Anything else is a process or a namespace.
/// 0x3d0f00 is glibc's set: VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID,
/// CHILD_CLEARTID. 0x7d0f00 is musl's: the same and the obsolete DETACHED.
const THREAD_CLONE_FLAGS: &[u64] = &[0x003d_0f00, 0x007d_0f00];

/// A condition on one argument of a system call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Check {
    /// The lower 32 bits of the argument are one of these. For what the kernel takes as an `int`.
    Int(u8, &'static [u64]),
    /// All 64 bits of the argument are one of these. For what the kernel takes as a `long`.
    Long(u8, &'static [u64]),
    /// Under a mask, the lower 32 bits of the argument are this.
    Masked(u8, u64, u64),
}

/// When a call is allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    /// Whatever its arguments.
    Always,
    /// If one of the alternatives holds with all its checks.
    Any(&'static [&'static [Check]]),
}

/// One row: a call that is allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// The call's name, for tests and reports.
    pub(crate) name: &'static str,
    /// Its number on this architecture.
    pub(crate) number: i64,
    /// Under which condition.
    pub(crate) when: When,
    /// Why the guest, or the zygote, needs it.
    pub(crate) reason: &'static str,
}

pub(crate) const fn row(name: &'static str, number: i64, when: When, reason: &'static str) -> Row {
    Row { name, number, when, reason }
}

/// What a cell may do. A row whose effect is on the whole process belongs on the list in
/// `seccomp_thread.rs` too, which keeps it from threads of the host.
#[rustfmt::skip] // one row a line, as a table
pub(crate) const CELL: &[Row] = &[
    row("read", libc::SYS_read, When::Always, "read and write descriptors it holds"),
    row("write", libc::SYS_write, When::Always, "read and write descriptors it holds"),
    row("readv", libc::SYS_readv, When::Always, "read and write descriptors it holds"),
    row("writev", libc::SYS_writev, When::Always, "read and write descriptors it holds"),
    row("pread64", libc::SYS_pread64, When::Always, "read and write descriptors it holds"),
    row("pwrite64", libc::SYS_pwrite64, When::Always, "read and write descriptors it holds"),
    row("preadv", libc::SYS_preadv, When::Always, "read and write descriptors it holds"),
    row("pwritev", libc::SYS_pwritev, When::Always, "read and write descriptors it holds"),
    row("preadv2", libc::SYS_preadv2, When::Always, "read and write descriptors it holds"),
    row("pwritev2", libc::SYS_pwritev2, When::Always, "read and write descriptors it holds"),
    row("lseek", libc::SYS_lseek, When::Always, "read and write descriptors it holds"),
    row("sendfile", libc::SYS_sendfile, When::Always, "read and write descriptors it holds"),
    row("fsync", libc::SYS_fsync, When::Always, "read and write descriptors it holds"),
    row("fdatasync", libc::SYS_fdatasync, When::Always, "read and write descriptors it holds"),
    row("ftruncate", libc::SYS_ftruncate, When::Always, "read and write descriptors it holds"),
    row("fadvise64", libc::SYS_fadvise64, When::Always, "read and write descriptors it holds"),
    row("openat", libc::SYS_openat, When::Always, "open files; Landlock and the read-only root say which"),
    row("newfstatat", libc::SYS_newfstatat, When::Always, "look at files"),
    row("fstat", libc::SYS_fstat, When::Always, "look at files"),
    row("statx", libc::SYS_statx, When::Always, "look at files"),
    row("faccessat", libc::SYS_faccessat, When::Always, "look at files"),
    row("faccessat2", libc::SYS_faccessat2, When::Always, "look at files"),
    row("readlinkat", libc::SYS_readlinkat, When::Always, "look at files"),
    row("getdents64", libc::SYS_getdents64, When::Always, "look at files"),
    row("getcwd", libc::SYS_getcwd, When::Always, "look at files"),
    row("chdir", libc::SYS_chdir, When::Always, "look at files"),
    row("fchdir", libc::SYS_fchdir, When::Always, "look at files"),
    row("close", libc::SYS_close, When::Always, "close and copy descriptors"),
    row("close_range", libc::SYS_close_range, When::Always, "close and copy descriptors"),
    row("dup", libc::SYS_dup, When::Always, "close and copy descriptors"),
    row("dup3", libc::SYS_dup3, When::Always, "close and copy descriptors"),
    row("pipe2", libc::SYS_pipe2, When::Always, "close and copy descriptors"),
    row("ppoll", libc::SYS_ppoll, When::Always, "wait for descriptors"),
    row("pselect6", libc::SYS_pselect6, When::Always, "wait for descriptors"),
    row("epoll_create1", libc::SYS_epoll_create1, When::Always, "wait for descriptors"),
    row("epoll_ctl", libc::SYS_epoll_ctl, When::Always, "wait for descriptors"),
    row("epoll_pwait", libc::SYS_epoll_pwait, When::Always, "wait for descriptors"),
    row("epoll_pwait2", libc::SYS_epoll_pwait2, When::Always, "wait for descriptors"),
    row("eventfd2", libc::SYS_eventfd2, When::Always, "wait for descriptors"),
    row("sendto", libc::SYS_sendto, When::Any(SEND_TO), "use sockets it was given, towards whom they are connected to"),
    row("recvfrom", libc::SYS_recvfrom, When::Always, "use sockets it was given"),
    row("sendmsg", libc::SYS_sendmsg, When::Any(SEND_MESSAGE), "use sockets it was given, towards whom they are connected to"),
    row("recvmsg", libc::SYS_recvmsg, When::Always, "use sockets it was given"),
    row("shutdown", libc::SYS_shutdown, When::Always, "use sockets it was given"),
    row("getsockname", libc::SYS_getsockname, When::Always, "use sockets it was given"),
    row("getpeername", libc::SYS_getpeername, When::Always, "use sockets it was given"),
    row("munmap", libc::SYS_munmap, When::Always, "have memory; RLIMIT_DATA and the cgroup say how much"),
    row("mremap", libc::SYS_mremap, When::Always, "have memory; RLIMIT_DATA and the cgroup say how much"),
    row("brk", libc::SYS_brk, When::Always, "have memory; RLIMIT_DATA and the cgroup say how much"),
    row("mprotect", libc::SYS_mprotect, When::Always, "have memory; RLIMIT_DATA and the cgroup say how much"),
    row("madvise", libc::SYS_madvise, When::Always, "have memory; RLIMIT_DATA and the cgroup say how much"),
    row("msync", libc::SYS_msync, When::Always, "have memory; RLIMIT_DATA and the cgroup say how much"),
    row("futex", libc::SYS_futex, When::Always, "wait for threads and wake them"),
    row("futex_waitv", libc::SYS_futex_waitv, When::Always, "wait for threads and wake them"),
    row("set_robust_list", libc::SYS_set_robust_list, When::Always, "wait for threads and wake them"),
    row("rseq", libc::SYS_rseq, When::Always, "wait for threads and wake them"),
    row("membarrier", libc::SYS_membarrier, When::Always, "wait for threads and wake them"),
    row("sched_yield", libc::SYS_sched_yield, When::Always, "wait for threads and wake them"),
    row("set_tid_address", libc::SYS_set_tid_address, When::Always, "start as a thread"),
    row("sched_getaffinity", libc::SYS_sched_getaffinity, When::Always, "know about processors, for thread pools"),
    row("getcpu", libc::SYS_getcpu, When::Always, "know about processors, for thread pools"),
    row("sched_getparam", libc::SYS_sched_getparam, When::Always, "know about processors, for thread pools"),
    row("sched_getscheduler", libc::SYS_sched_getscheduler, When::Always, "know about processors, for thread pools"),
    row("sched_get_priority_max", libc::SYS_sched_get_priority_max, When::Always, "know about processors, for thread pools"),
    row("sched_get_priority_min", libc::SYS_sched_get_priority_min, When::Always, "know about processors, for thread pools"),
    row("sysinfo", libc::SYS_sysinfo, When::Always, "know about processors, for thread pools"),
    row("uname", libc::SYS_uname, When::Always, "know about processors, for thread pools"),
    row("rt_sigaction", libc::SYS_rt_sigaction, When::Always, "handle signals of its own"),
    row("rt_sigprocmask", libc::SYS_rt_sigprocmask, When::Always, "handle signals of its own"),
    row("rt_sigreturn", libc::SYS_rt_sigreturn, When::Always, "handle signals of its own"),
    row("rt_sigpending", libc::SYS_rt_sigpending, When::Always, "handle signals of its own"),
    row("rt_sigsuspend", libc::SYS_rt_sigsuspend, When::Always, "handle signals of its own"),
    row("rt_sigtimedwait", libc::SYS_rt_sigtimedwait, When::Always, "handle signals of its own"),
    row("sigaltstack", libc::SYS_sigaltstack, When::Always, "handle signals of its own"),
    row("restart_syscall", libc::SYS_restart_syscall, When::Always, "handle signals of its own"),
    row("clock_gettime", libc::SYS_clock_gettime, When::Always, "know the time and wait for it"),
    row("clock_getres", libc::SYS_clock_getres, When::Always, "know the time and wait for it"),
    row("clock_nanosleep", libc::SYS_clock_nanosleep, When::Always, "know the time and wait for it"),
    row("nanosleep", libc::SYS_nanosleep, When::Always, "know the time and wait for it"),
    row("gettimeofday", libc::SYS_gettimeofday, When::Always, "know the time and wait for it"),
    row("setitimer", libc::SYS_setitimer, When::Always, "know the time and wait for it"),
    row("getitimer", libc::SYS_getitimer, When::Always, "know the time and wait for it"),
    row("times", libc::SYS_times, When::Always, "know the time and wait for it"),
    row("getrusage", libc::SYS_getrusage, When::Always, "know the time and wait for it"),
    row("getpid", libc::SYS_getpid, When::Always, "know who it is"),
    row("getppid", libc::SYS_getppid, When::Always, "know who it is"),
    row("gettid", libc::SYS_gettid, When::Always, "know who it is"),
    row("getuid", libc::SYS_getuid, When::Always, "know who it is"),
    row("geteuid", libc::SYS_geteuid, When::Always, "know who it is"),
    row("getgid", libc::SYS_getgid, When::Always, "know who it is"),
    row("getegid", libc::SYS_getegid, When::Always, "know who it is"),
    row("getresuid", libc::SYS_getresuid, When::Always, "know who it is"),
    row("getresgid", libc::SYS_getresgid, When::Always, "know who it is"),
    row("getgroups", libc::SYS_getgroups, When::Always, "know who it is"),
    row("getpgid", libc::SYS_getpgid, When::Always, "know who it is"),
    row("getsid", libc::SYS_getsid, When::Always, "know who it is"),
    row("umask", libc::SYS_umask, When::Always, "know who it is"),
    row("getrandom", libc::SYS_getrandom, When::Always, "random bytes"),
    row("exit", libc::SYS_exit, When::Always, "end"),
    row("exit_group", libc::SYS_exit_group, When::Always, "end"),
    #[cfg(target_arch = "x86_64")]
    row("open", libc::SYS_open, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("stat", libc::SYS_stat, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("lstat", libc::SYS_lstat, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("access", libc::SYS_access, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("readlink", libc::SYS_readlink, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("dup2", libc::SYS_dup2, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("pipe", libc::SYS_pipe, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("poll", libc::SYS_poll, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("select", libc::SYS_select, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("epoll_create", libc::SYS_epoll_create, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("epoll_wait", libc::SYS_epoll_wait, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("eventfd", libc::SYS_eventfd, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("getpgrp", libc::SYS_getpgrp, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("time", libc::SYS_time, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("alarm", libc::SYS_alarm, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("pause", libc::SYS_pause, When::Always, "older names of calls above, which libc still uses on x86-64"),
    #[cfg(target_arch = "x86_64")]
    row("getrlimit", libc::SYS_getrlimit, When::Always, "older names of calls above, which libc still uses on x86-64"),
    row("mmap", libc::SYS_mmap, When::Any(MMAP), "have memory, except what RLIMIT_DATA does not count: shared memory without a file, and stacks that grow"),
    row("fcntl", libc::SYS_fcntl, When::Any(FCNTL), "duplicate and mark descriptors; not redirect their signals, size their pipes, or lock files, which the host's processes share"),
    row("ioctl", libc::SYS_ioctl, When::Any(IOCTL), "ask whether a descriptor is a terminal or has bytes waiting; never put input into one"),
    row("prctl", libc::SYS_prctl, When::Any(PRCTL), "name threads and memory, read its own jail; change nothing else about the process"),
    row("prlimit64", libc::SYS_prlimit64, When::Any(OWN_PROCESS), "read its limits, and lower them"),
    row("tgkill", libc::SYS_tgkill, When::Any(CELL_INIT), "signal its own threads: raise() and abort()"),
    row("clone", libc::SYS_clone, When::Any(THREAD), "start threads, never processes"),
    row("socketpair", libc::SYS_socketpair, When::Any(STREAM_PAIR), "asyncio wakes its loop through a stream pair; a stream pair cannot name another socket"),
    row("setsockopt", libc::SYS_setsockopt, When::Any(SET_OPTION), "tune sockets it was given"),
    row("getsockopt", libc::SYS_getsockopt, When::Any(GET_OPTION), "ask about sockets it was given, but not who is at the other end"),
];

/// What the zygote and templates may do besides.
#[rustfmt::skip] // one row a line, as a table
pub(crate) const ZYGOTE: &[Row] = &[
    row("wait4", libc::SYS_wait4, When::Always, "reap cells"),
    row("waitid", libc::SYS_waitid, When::Always, "reap cells"),
    row("capget", libc::SYS_capget, When::Always, "take away its own capabilities"),
    row("capset", libc::SYS_capset, When::Always, "take away its own capabilities"),
    row("prctl", libc::SYS_prctl, When::Always, "confine a fresh cell: parent death, dumpability, bounding set, no_new_privs"),
    row("seccomp", libc::SYS_seccomp, When::Always, "confine a fresh cell: the second filter"),
    row("landlock_restrict_self", libc::SYS_landlock_restrict_self, When::Always, "confine a fresh cell: its Landlock domain"),
    row("clone", libc::SYS_clone, When::Any(CELL_CLONE), "make cells, and no other process"),
];

/// What a zygote may do besides whose cells have no namespaces of their own: in place of the rows of
/// [`ZYGOTE`] for the same calls, or added to them.
#[rustfmt::skip] // one row a line, as a table
pub(crate) const SHARED_ZYGOTE: &[Row] = &[
    row("clone", libc::SYS_clone, When::Any(PLAIN_CLONE), "make cells, and no other process"),
    row("tgkill", libc::SYS_tgkill, When::Always, "so that a cell may signal itself, whose number only the cell knows"),
];

/// What would write to a file by opening it.
#[rustfmt::skip] // one row a line, as a table
pub(crate) const WRITING_OPENS: &[Row] = &[
    row("openat", libc::SYS_openat, When::Any(WRITING_OPENAT), "Landlock is not there to say what may be written"),
    #[cfg(target_arch = "x86_64")]
    row("open", libc::SYS_open, When::Any(WRITING_OPEN), "Landlock is not there to say what may be written"),
];

/// Opening files to read them, and no more.
#[rustfmt::skip] // one row a line, as a table
pub(crate) const READING_OPENS: &[Row] = &[
    row("openat", libc::SYS_openat, When::Any(&[&[Check::Masked(2, WRITING, 0)]]), "Landlock is not there to say what may be written"),
    #[cfg(target_arch = "x86_64")]
    row("open", libc::SYS_open, When::Any(&[&[Check::Masked(1, WRITING, 0)]]), "Landlock is not there to say what may be written"),
];

/// Calls answered with `ENOSYS` and not `EPERM`, because libc takes only the former as a reason to
/// fall back.
pub(crate) const UNKNOWN: &[Row] = &[
    row(
        "clone3",
        libc::SYS_clone3,
        When::Always,
        "libc falls back to clone, whose flags the filter can see",
    ),
    row("openat2", libc::SYS_openat2, When::Always, "callers fall back to openat"),
];

/// The kernel takes an ioctl's request as 32 bits, whatever width libc gives it.
pub(crate) const fn request(value: libc::Ioctl) -> u64 {
    value as u32 as u64
}

pub(crate) const fn arg(value: libc::c_int) -> u64 {
    value as u64 & 0xffff_ffff
}

const MMAP: &[&[Check]] = &[
    &[Check::Masked(3, arg(libc::MAP_ANONYMOUS | libc::MAP_GROWSDOWN), 0)],
    &[Check::Masked(3, arg(libc::MAP_TYPE | libc::MAP_GROWSDOWN), arg(libc::MAP_PRIVATE))],
];

const FCNTL: &[&[Check]] = &[&[Check::Int(
    1,
    &[
        arg(libc::F_DUPFD),
        arg(libc::F_DUPFD_CLOEXEC),
        arg(libc::F_GETFD),
        arg(libc::F_SETFD),
        arg(libc::F_GETFL),
        arg(libc::F_SETFL),
        arg(libc::F_GET_SEALS),
        arg(libc::F_GETPIPE_SZ),
    ],
)]];

const IOCTL: &[&[Check]] = &[&[Check::Int(
    1,
    &[
        request(libc::FIONREAD),
        request(libc::FIONBIO),
        request(libc::FIOCLEX),
        request(libc::FIONCLEX),
        request(libc::TCGETS),
    ],
)]];

const PRCTL: &[&[Check]] = &[&[Check::Int(
    0,
    &[
        arg(libc::PR_SET_NAME),
        arg(libc::PR_GET_NAME),
        arg(libc::PR_GET_DUMPABLE),
        arg(libc::PR_GET_SECCOMP),
        arg(libc::PR_GET_NO_NEW_PRIVS),
        arg(libc::PR_CAPBSET_READ),
        arg(libc::PR_SET_VMA), // glibc and CPython label their mappings
    ],
)]];

/// The calling process, by the 0 that means it.
const OWN_PROCESS: &[&[Check]] = &[&[Check::Int(0, &[0])]];

/// A cell is pid 1 of its namespace.
const CELL_INIT: &[&[Check]] = &[&[Check::Int(0, &[1])]];

const THREAD: &[&[Check]] = &[&[Check::Long(0, THREAD_CLONE_FLAGS)]];

const CELL_CLONE: &[&[Check]] = &[&[Check::Long(0, &[CELL_CLONE_FLAGS])]];

const PLAIN_CLONE: &[&[Check]] = &[&[Check::Long(0, &[PLAIN_CLONE_FLAGS])]];

const WRITING_OPENAT: &[&[Check]] = &[
    &[Check::Masked(2, arg(libc::O_WRONLY), arg(libc::O_WRONLY))],
    &[Check::Masked(2, arg(libc::O_RDWR), arg(libc::O_RDWR))],
    &[Check::Masked(2, arg(libc::O_CREAT), arg(libc::O_CREAT))],
    &[Check::Masked(2, arg(libc::O_TRUNC), arg(libc::O_TRUNC))],
];

#[cfg(target_arch = "x86_64")]
const WRITING_OPEN: &[&[Check]] = &[
    &[Check::Masked(1, arg(libc::O_WRONLY), arg(libc::O_WRONLY))],
    &[Check::Masked(1, arg(libc::O_RDWR), arg(libc::O_RDWR))],
    &[Check::Masked(1, arg(libc::O_CREAT), arg(libc::O_CREAT))],
    &[Check::Masked(1, arg(libc::O_TRUNC), arg(libc::O_TRUNC))],
];

/// Every flag by which opening a file can change one.
const WRITING: u64 = arg(libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC);

const STREAM_PAIR: &[&[Check]] = &[&[
    Check::Int(0, &[arg(libc::AF_UNIX)]),
    Check::Masked(
        1,
        !arg(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) & 0xffff_ffff,
        arg(libc::SOCK_STREAM),
    ),
]];

/// No address, and not the flag that makes a connection of a message.
const SEND_TO: &[&[Check]] =
    &[&[Check::Long(4, &[0]), Check::Masked(3, arg(libc::MSG_FASTOPEN), 0)]];

/// The address that a message may name lies in memory, where a filter cannot see it. On the sockets
/// that a cell can hold it leads nowhere. TCP looks at it only under `MSG_FASTOPEN`
/// (`tcp_sendmsg_locked`): without the flag a connected socket sends to its peer, and one that is
/// closed or disconnected answers `EPIPE` or `ECONNRESET`. The flag's other form,
/// `TCP_FASTOPEN_CONNECT`, is no option that a cell may set. A stream pair refuses an address, and
/// the sequenced-packet sockets of the channel ignore it. Datagram sockets, which would follow it, a
/// cell is never given and cannot make.
const SEND_MESSAGE: &[&[Check]] = &[&[Check::Masked(2, arg(libc::MSG_FASTOPEN), 0)]];

/// All of these concern the connection that is there. None of them names an address, an interface, a
/// mark or a route, repairs or replaces a connection's state, hands the socket to another protocol,
/// lets others share its port, or loads a program; and none makes the host wait when it closes its
/// own copy, as `SO_LINGER` would.
const SET_OPTION: &[&[Check]] = &[
    &[
        Check::Int(1, &[arg(libc::SOL_SOCKET)]),
        Check::Int(2, &[arg(libc::SO_KEEPALIVE), arg(libc::SO_RCVTIMEO), arg(libc::SO_SNDTIMEO)]),
    ],
    &[
        Check::Int(1, &[arg(libc::IPPROTO_TCP)]),
        Check::Int(
            2,
            &[
                arg(libc::TCP_NODELAY),
                arg(libc::TCP_KEEPIDLE),
                arg(libc::TCP_KEEPINTVL),
                arg(libc::TCP_KEEPCNT),
            ],
        ),
    ],
];

const GET_OPTION: &[&[Check]] = &[&[
    Check::Int(1, &[arg(libc::SOL_SOCKET)]),
    Check::Int(
        2,
        &[
            arg(libc::SO_TYPE),
            arg(libc::SO_ERROR),
            arg(libc::SO_DOMAIN),
            arg(libc::SO_PROTOCOL),
            arg(libc::SO_ACCEPTCONN),
            arg(libc::SO_KEEPALIVE),
            arg(libc::SO_RCVBUF),
            arg(libc::SO_SNDBUF),
        ],
    ),
]];
