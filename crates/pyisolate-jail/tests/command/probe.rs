//! What this test's own binary does as a program in a jail.

use crate::common::{self, call, errno};
use crate::running::{Trial, trial};

/// The argument that makes the binary do it.
pub(crate) const PROBE: &str = "--probe";

/// This test binary itself, inside, doing what [`probe`] says.
pub(crate) fn probing(name: &str, more: &[&str]) -> Trial {
    let own = std::env::current_exe().unwrap();
    let mut trial = trial(own.to_str().unwrap(), &[&[PROBE, name], more].concat());
    trial.command.read.push(own);
    trial
}

pub(crate) fn probe(name: &str) {
    match name {
        // SAFETY: ends the process.
        "abort" => unsafe { libc::abort() },
        "allocate" => {
            let bytes: usize = std::env::args().nth(3).unwrap().parse().unwrap();
            let mut memory = Vec::<u8>::new();
            if memory.try_reserve_exact(bytes).is_ok() {
                memory.resize(bytes, 1);
                print!("allocated");
            }
        }
        "descriptors" => {
            for number in 0..1024 {
                if call(libc::SYS_fcntl, [number, libc::F_GETFD.into()]) >= 0 {
                    print!("{number} ");
                }
            }
        }
        _ => calls(),
    }
}

/// What a hostile program would try, with harmless arguments: where the kernel would do it, it is
/// done to this very process, and else the arguments make it fail.
fn calls() {
    let print = |name: &str, result: libc::c_long| println!("{name} {}", errno(result));
    let at = |text: &'static std::ffi::CStr| text.as_ptr().expose_provenance() as libc::c_long;
    let fresh =
        |number, arguments: [libc::c_long; 4]| common::errno_of(|| {}, || call(number, arguments));
    let flags = |flags: libc::c_int| libc::c_long::from(flags);
    // Those that change the process, in a copy of it.
    println!("unshare-user {}", fresh(libc::SYS_unshare, [flags(libc::CLONE_NEWUSER), 0, 0, 0]));
    println!("ptrace {}", fresh(libc::SYS_ptrace, [0, 0, 0, 0]));
    println!("personality {}", fresh(libc::SYS_personality, [0xffff_ffff, 0, 0, 0]));
    println!("seccomp {}", fresh(libc::SYS_seccomp, [1, 0, 0, 0]));
    let child = libc::CLONE_NEWUSER | libc::SIGCHLD;
    let cloned = call(libc::SYS_clone, [flags(child), 0, 0, 0]);
    if cloned == 0 {
        // SAFETY: ends this copy.
        unsafe { libc::_exit(0) }
    }
    print("clone-user", cloned);
    for (name, flag) in [
        ("clone-mount", libc::CLONE_NEWNS),
        ("clone-net", libc::CLONE_NEWNET),
        ("clone-pid", libc::CLONE_NEWPID),
        ("clone-cgroup", libc::CLONE_NEWCGROUP),
    ] {
        // With a flag that the kernel never takes together with it, where it would take it.
        let with = flag | libc::SIGCHLD | libc::CLONE_THREAD;
        print(name, call(libc::SYS_clone, [flags(with), 0, 0, 0]));
    }
    print("clone3", call(libc::SYS_clone3, [0, 0]));
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK] {
        print("socket", call(libc::SYS_socket, [flags(family), 1, 0]));
    }
    let pair = [flags(libc::AF_UNIX), flags(libc::SOCK_DGRAM), 0, 0];
    print("socketpair-datagram", call(libc::SYS_socketpair, pair));
    print("mount", call(libc::SYS_mount, [0, at(c"/nowhere"), 0, 0]));
    print("umount", call(libc::SYS_umount2, [at(c"/nowhere"), 0]));
    print("open_tree", call(libc::SYS_open_tree, [-1, at(c"nowhere"), 0]));
    print("fsopen", call(libc::SYS_fsopen, [at(c"nothing"), 0]));
    print("pivot_root", call(libc::SYS_pivot_root, [at(c"/nowhere"), at(c"/nowhere")]));
    print("chroot", call(libc::SYS_chroot, [at(c"/nowhere")]));
    print("setns", call(libc::SYS_setns, [-1, 0]));
    print("bpf", call(libc::SYS_bpf, [-1, 0, 0]));
    print("io_uring_setup", call(libc::SYS_io_uring_setup, [0, 0]));
    print("userfaultfd", call(libc::SYS_userfaultfd, [-1]));
    print("keyctl", call(libc::SYS_keyctl, [-1]));
    print("add_key", call(libc::SYS_add_key, [0, 0, 0, 0]));
    print("perf_event_open", call(libc::SYS_perf_event_open, [0, 0, 0, 0]));
    print("kexec_load", call(libc::SYS_kexec_load, [0, -1, 0, -1]));
    print("init_module", call(libc::SYS_init_module, [0, 0, 0]));
    print("open_by_handle_at", call(libc::SYS_open_by_handle_at, [-1, 0, 0]));
    print("name_to_handle_at", call(libc::SYS_name_to_handle_at, [-1, at(c"x"), 0, 0]));
    print("pidfd_getfd", call(libc::SYS_pidfd_getfd, [-1, -1, 0]));
    print("process_vm_readv", call(libc::SYS_process_vm_readv, [-1, 0, 0, 0]));
    print("process_vm_writev", call(libc::SYS_process_vm_writev, [-1, 0, 0, 0]));
    print("memfd_create", call(libc::SYS_memfd_create, [at(c"x"), 0]));
    print("shmget", call(libc::SYS_shmget, [-1, 0, 0]));
    print("setuid", call(libc::SYS_setuid, [-1]));
    print("capset", call(libc::SYS_capset, [0, 0]));
    print("mknod-device", call(libc::SYS_mknodat, [-1, at(c"x"), libc::S_IFCHR.into(), 0]));
    let forge = [-1, libc::TIOCSTI as libc::c_long, at(c"x")];
    print("ioctl-terminal-input", call(libc::SYS_ioctl, forge));
    #[cfg(target_arch = "x86_64")]
    print("x32-getpid", call(libc::SYS_getpid | 0x4000_0000, []));
}
