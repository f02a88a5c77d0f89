//! Each layer by itself against the real kernel, with a control that shows what happens where the
//! layer is off.

#![expect(unsafe_code, reason = "the tests do what a hostile guest does: raw system calls")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::mem_forget,
    reason = "a test with its own harness is not recognised as one"
)]

mod common;

use std::ffi::CStr;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::ptr;

use common::Feature::{Landlock, Seccomp, Userns};
use common::{call, errno, errno_of, in_child};
use pyisolate_jail::seccomp::Filters;
use pyisolate_jail::{
    CELL_CLONE_FLAGS, Domain, Rlimits, Support, capabilities, descriptors, process,
};

fn main() {
    common::run(&[
        ("seccomp: clone3 is ENOSYS, what is refused EPERM", &[Seccomp], clone3_is_missing),
        ("seccomp: x32 numbers are refused", &[Seccomp], x32_is_refused),
        ("seccomp: int 0x80 kills", &[Seccomp], foreign_architecture_kills),
        ("seccomp: no process, no namespace", &[Seccomp, Userns], processes_are_refused),
        (
            "seccomp: the zygote may clone a cell, a cell may not",
            &[Seccomp, Userns],
            only_the_zygote_clones_cells,
        ),
        ("seccomp: threads start", &[Seccomp], threads_start),
        ("seccomp: no socket of any family", &[Seccomp], sockets_are_refused),
        ("seccomp: stream pairs only", &[Seccomp], stream_pairs_only),
        ("seccomp: connect is refused", &[Seccomp], connect_is_refused),
        ("seccomp: execve is refused", &[Seccomp], execve_is_refused),
        ("seccomp: terminal input cannot be forged", &[Seccomp], terminal_input_is_refused),
        (
            "seccomp: no shared memory without a file",
            &[Seccomp],
            shared_anonymous_memory_is_refused,
        ),
        (
            "seccomp: the cell loses what the zygote has",
            &[Seccomp],
            the_cell_loses_what_the_zygote_has,
        ),
        ("seccomp: the cell filter alone is refused", &[Seccomp], cell_filter_needs_the_zygotes),
        ("landlock: writing and executing are refused", &[Landlock], landlock_refuses_writing),
        ("landlock: connect is refused", &[Landlock], landlock_refuses_connect),
        ("landlock: one ruleset serves many processes", &[Landlock], landlock_serves_many),
        ("capabilities: all are gone", &[Userns], capabilities_are_gone),
        ("rlimits: hold and cannot be raised", &[], rlimits_hold),
        ("rlimits: data counts what is writable", &[], data_limit_counts_writable_memory),
        ("process: not dumpable, no new privileges", &[], process_attributes_hold),
        ("descriptors: only the list stays", &[], descriptors_are_closed),
    ]);
}

fn zygote_filter() {
    Filters::compile().unwrap().install_zygote().unwrap();
}

fn cell_filter() {
    let filters = Filters::compile().unwrap();
    filters.install_zygote().unwrap();
    filters.install_cell().unwrap();
}

fn literal(text: &'static CStr) -> libc::c_long {
    text.as_ptr().expose_provenance() as libc::c_long
}

fn clone3_is_missing() {
    assert_eq!(errno_of(|| {}, || call(libc::SYS_clone3, [0, 0])), libc::EINVAL);
    assert_eq!(errno_of(zygote_filter, || call(libc::SYS_clone3, [0, 0])), libc::ENOSYS);
    assert_eq!(errno_of(cell_filter, || call(libc::SYS_clone3, [0, 0])), libc::ENOSYS);
    assert_eq!(errno_of(cell_filter, || call(libc::SYS_unshare, [0])), libc::EPERM);
}

fn x32_is_refused() {
    #[cfg(target_arch = "x86_64")]
    {
        let getpid = libc::SYS_getpid | 0x4000_0000;
        // Kernels without x32 say ENOSYS; with it, the call succeeds.
        let control = errno_of(|| {}, || call(getpid, []));
        assert!([0, libc::ENOSYS].contains(&control), "{control}");
        assert_eq!(errno_of(cell_filter, || call(getpid, [])), libc::EPERM);
    }
}

fn foreign_architecture_kills() {
    #[cfg(target_arch = "x86_64")]
    {
        fn getpid_by_int80() -> libc::c_long {
            let result: libc::c_long;
            // SAFETY: int 0x80 with 20 is the 32-bit getpid, which takes no argument and touches no
            // memory.
            unsafe {
                std::arch::asm!("int 0x80", inlateout("rax") 20_i64 => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _)
            };
            if result > 0 { 0 } else { -1 }
        }
        let control = in_child(|| i32::from(getpid_by_int80() != 0));
        if control != 0 {
            println!("        (this kernel has no 32-bit calls: control ended with {control})");
        }
        assert_eq!(
            in_child(|| {
                cell_filter();
                i32::from(getpid_by_int80() != 0)
            }),
            -libc::SIGSYS
        );
    }
}

/// A raw clone; the child ends at once.
fn clone_with(flags: u64) -> libc::c_long {
    let mut pidfd: libc::c_int = -1;
    let slot = (&raw mut pidfd).expose_provenance();
    let result = call(libc::SYS_clone, [flags.cast_signed(), 0, slot as libc::c_long, 0]);
    if result == 0 {
        // SAFETY: ends this copy without running what belongs to the original.
        unsafe { libc::_exit(0) }
    }
    result
}

fn processes_are_refused() {
    let sigchld = libc::SIGCHLD as u64;
    for flags in [
        sigchld,
        sigchld | libc::CLONE_NEWUSER as u64,
        sigchld | libc::CLONE_NEWNS as u64 | libc::CLONE_NEWUSER as u64,
    ] {
        assert_eq!(errno_of(|| {}, || clone_with(flags)), 0, "control {flags:#x}");
        assert_eq!(errno_of(cell_filter, || clone_with(flags)), libc::EPERM, "{flags:#x}");
        assert_eq!(errno_of(zygote_filter, || clone_with(flags)), libc::EPERM, "{flags:#x}");
    }
    #[cfg(target_arch = "x86_64")]
    assert_eq!(errno_of(cell_filter, || call(libc::SYS_fork, [])), libc::EPERM);
}

fn only_the_zygote_clones_cells() {
    assert_eq!(errno_of(zygote_filter, || clone_with(CELL_CLONE_FLAGS)), 0);
    assert_eq!(
        errno_of(zygote_filter, || clone_with(CELL_CLONE_FLAGS | libc::CLONE_NEWNET as u64)),
        libc::EPERM
    );
    assert_eq!(errno_of(zygote_filter, || clone_with(CELL_CLONE_FLAGS | 1 << 32)), libc::EPERM);
    assert_eq!(errno_of(cell_filter, || clone_with(CELL_CLONE_FLAGS)), libc::EPERM);
}

fn threads_start() {
    assert_eq!(
        in_child(|| {
            cell_filter();
            i32::from(std::thread::spawn(|| 42).join().unwrap() != 42)
        }),
        0
    );
}

fn sockets_are_refused() {
    for family in 1..46 {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_SEQPACKET] {
            let socket = || call(libc::SYS_socket, [family, libc::c_long::from(kind), 0]);
            assert_eq!(errno_of(cell_filter, socket), libc::EPERM, "{family} {kind}");
        }
    }
    assert_eq!(errno_of(|| {}, || call(libc::SYS_socket, [1, 1, 0])), 0, "control");
}

fn pair(kind: libc::c_int) -> libc::c_long {
    let mut both = [0; 2];
    // SAFETY: `both` is a live pair of ints for the kernel to fill.
    unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, both.as_mut_ptr()) }.into()
}

fn stream_pairs_only() {
    for kind in [libc::SOCK_STREAM, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK] {
        assert_eq!(errno_of(cell_filter, || pair(kind)), 0);
    }
    for kind in [libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        assert_eq!(errno_of(|| {}, || pair(kind)), 0, "control");
        assert_eq!(errno_of(cell_filter, || pair(kind)), libc::EPERM);
    }
}

/// Connects a socket made beforehand to a listener of our own, on the loopback.
fn connect_after(set_up: impl FnOnce()) -> i32 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = match listener.local_addr().unwrap() {
        std::net::SocketAddr::V4(address) => address,
        std::net::SocketAddr::V6(_) => unreachable!("bound to an IPv4 address"),
    };
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    errno_of(set_up, || match rustix::net::connect(&socket, &address) {
        Ok(()) => 0,
        Err(error) => {
            // SAFETY: errno is this thread's own.
            unsafe { *libc::__errno_location() = error.raw_os_error() };
            -1
        }
    })
}

fn connect_is_refused() {
    assert_eq!(connect_after(|| {}), 0, "control");
    assert_eq!(connect_after(cell_filter), libc::EPERM);
}

fn execve_is_refused() {
    let arguments = [literal(c"/nowhere"), 0, 0];
    assert_eq!(errno_of(|| {}, || call(libc::SYS_execve, arguments)), libc::ENOENT, "control");
    assert_eq!(errno_of(cell_filter, || call(libc::SYS_execve, arguments)), libc::EPERM);
    assert_eq!(errno_of(zygote_filter, || call(libc::SYS_execve, arguments)), libc::EPERM);
}

fn terminal_input_is_refused() {
    // A descriptor that is not open tells a filter's refusal from the kernel's, and touches no
    // terminal.
    let forge = |high: libc::c_long| {
        move || call(libc::SYS_ioctl, [-1, libc::TIOCSTI as libc::c_long | high, literal(c"x")])
    };
    assert_eq!(errno_of(|| {}, forge(0)), libc::EBADF, "control");
    assert_eq!(errno_of(cell_filter, forge(0)), libc::EPERM);
    assert_eq!(errno_of(cell_filter, forge(1 << 32)), libc::EPERM);
    assert_eq!(
        errno_of(cell_filter, || call(libc::SYS_ioctl, [-1, libc::TIOCLINUX as libc::c_long, 0])),
        libc::EPERM
    );
    assert_eq!(
        errno_of(cell_filter, || call(libc::SYS_ioctl, [-1, libc::TCGETS as libc::c_long, 0])),
        libc::EBADF
    );
}

fn map(flags: libc::c_int) -> libc::c_long {
    // SAFETY: a fresh mapping at an address of the kernel's choice disturbs nothing.
    let result = unsafe {
        libc::mmap(ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    if result == libc::MAP_FAILED { -1 } else { 0 }
}

fn shared_anonymous_memory_is_refused() {
    assert_eq!(errno_of(cell_filter, || map(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)), 0);
    let shared = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    assert_eq!(errno_of(|| {}, || map(shared)), 0, "control");
    assert_eq!(errno_of(cell_filter, || map(shared)), libc::EPERM);
}

fn the_cell_loses_what_the_zygote_has() {
    let wait_for_nobody = || call(libc::SYS_wait4, [-1, 0, 0, 0]);
    assert_eq!(errno_of(zygote_filter, wait_for_nobody), libc::ECHILD);
    assert_eq!(errno_of(cell_filter, wait_for_nobody), libc::EPERM);
    let filter_with_nothing =
        || call(libc::SYS_seccomp, [libc::SECCOMP_SET_MODE_FILTER as libc::c_long, 0, 0]);
    assert_eq!(errno_of(zygote_filter, filter_with_nothing), libc::EFAULT);
    assert_eq!(errno_of(cell_filter, filter_with_nothing), libc::EPERM);
    let dumpable = || call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE.into(), 0]);
    assert_eq!(errno_of(zygote_filter, dumpable), 0);
    assert_eq!(errno_of(cell_filter, dumpable), libc::EPERM);
    let name = || call(libc::SYS_prctl, [libc::PR_SET_NAME.into(), literal(c"guest")]);
    assert_eq!(errno_of(cell_filter, name), 0);
}

fn cell_filter_needs_the_zygotes() {
    assert!(Filters::compile().unwrap().install_cell().is_err());
}

fn enter_domain() {
    let domain = Domain::prepare().unwrap();
    process::no_new_privileges().unwrap();
    domain.enter().unwrap();
}

fn landlock_refuses_writing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let write = || match std::fs::write(&path, "x") {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap(),
    };
    assert_eq!(in_child(write), 0, "control");
    assert_eq!(
        in_child(|| {
            enter_domain();
            write()
        }),
        libc::EACCES
    );
    assert_eq!(
        in_child(|| {
            enter_domain();
            i32::from(std::fs::read(&path).is_err())
        }),
        0,
        "reading is allowed"
    );
    assert_eq!(
        in_child(|| {
            enter_domain();
            i32::from(std::fs::write("/dev/null", "x").is_err())
        }),
        0
    );
    let execute = || call(libc::SYS_execve, [literal(c"/bin/false"), 0, 0]);
    assert_eq!(
        in_child(|| {
            execute();
            0
        }),
        1,
        "control: false(1) ran"
    );
    assert_eq!(errno_of(enter_domain, execute), libc::EACCES);
}

fn landlock_refuses_connect() {
    match Support::probe() {
        Support::Complete { .. } => {}
        Support::Partial { abi, .. } if abi >= 4 => {}
        other => {
            return println!("        (skipped: TCP rules need ABI 4, this kernel has {other:?})");
        }
    }
    assert_eq!(connect_after(|| {}), 0, "control");
    assert_eq!(connect_after(enter_domain), libc::EACCES);
}

fn landlock_serves_many() {
    let domain = Domain::prepare().unwrap();
    for _ in 0..3 {
        let enter = || {
            process::no_new_privileges().unwrap();
            domain.enter().unwrap();
            i32::from(std::fs::File::create("/tmp/never").is_ok())
        };
        assert_eq!(in_child(enter), 0);
    }
}

fn capabilities_are_gone() {
    // SAFETY: unshare takes flags and no memory; every case is a throw-away process.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWUTS) }, 0);
    assert!(capabilities::any_effective().unwrap());
    let rename = || rustix::system::sethostname(b"guest").map_err(|error| error.raw_os_error());
    assert_eq!(rename(), Ok(()), "control");
    capabilities::drop_all().unwrap();
    capabilities::verify_none().unwrap();
    capabilities::verify_bounding_empty().unwrap();
    assert_eq!(rename(), Err(libc::EPERM));
}

fn rlimits_hold() {
    let limits = Rlimits { open_files: Some(16), cpu_seconds: Some(30), ..Rlimits::fixed() };
    limits.apply().unwrap();
    assert_eq!(
        limits.describe(),
        "core=0 nofile=16 stack=8388608 cpu=30 fsize=0 msgqueue=0 memlock=0"
    );
    assert_eq!(errno(call(libc::SYS_dup3, [0, 15, 0])), 0);
    assert_eq!(errno(call(libc::SYS_dup3, [0, 16, 0])), libc::EBADF);
    let raise = || Rlimits { open_files: Some(1 << 16), ..Rlimits::default() }.apply().is_ok();
    if !rustix::process::geteuid().is_root() {
        assert!(!raise());
    }
    capabilities::drop_sets().unwrap();
    assert!(!raise());
}

fn data_limit_counts_writable_memory() {
    const SIZE: usize = 1 << 30;
    Rlimits { data_bytes: Some(256 << 20), ..Rlimits::default() }.apply().unwrap();
    let map = |protection| {
        // SAFETY: a fresh mapping at an address of the kernel's choice disturbs nothing.
        unsafe {
            libc::mmap(
                ptr::null_mut(),
                SIZE,
                protection,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        }
    };
    assert_ne!(map(libc::PROT_NONE), libc::MAP_FAILED, "address space is not counted");
    assert_eq!(map(libc::PROT_READ | libc::PROT_WRITE), libc::MAP_FAILED);
    assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::ENOMEM));
}

fn process_attributes_hold() {
    let readable = || {
        std::fs::metadata("/proc/self/environ")
            .map(|found| std::os::unix::fs::MetadataExt::uid(&found))
            .unwrap()
    };
    assert_eq!(readable(), rustix::process::geteuid().as_raw(), "control");
    process::no_new_privileges().unwrap();
    process::not_dumpable().unwrap();
    process::die_with_parent().unwrap();
    process::unblock_signals().unwrap();
    assert_eq!(readable(), 0, "the /proc files of a process that is not dumpable are root's");
    assert_eq!(
        rustix::process::parent_process_death_signal().unwrap(),
        Some(rustix::process::Signal::KILL)
    );
}

fn descriptors_are_closed() {
    let null = descriptors::open_null().unwrap();
    let kept = std::fs::File::open("/").unwrap();
    let other = std::fs::File::open("/").unwrap();
    let (kept, other) =
        (std::os::fd::IntoRawFd::into_raw_fd(kept), std::os::fd::IntoRawFd::into_raw_fd(other));
    let is_open = |descriptor: i32| {
        errno(call(libc::SYS_fcntl, [descriptor.into(), libc::F_GETFD.into()])) == 0
    };
    assert!(is_open(kept) && is_open(other), "control");
    let code = in_child(|| {
        // SAFETY: this throw-away process uses only numbers from here on and ends by _exit.
        unsafe { descriptors::close_all_but(&[kept], std::os::fd::AsFd::as_fd(&null)).unwrap() };
        let null_number = null.as_raw_fd();
        std::mem::forget(null);
        let standard = (0..3).all(is_open);
        i32::from(!standard)
            | i32::from(!is_open(kept)) << 1
            | i32::from(is_open(other) || is_open(null_number)) << 2
    });
    assert_eq!(code, 0);
}
