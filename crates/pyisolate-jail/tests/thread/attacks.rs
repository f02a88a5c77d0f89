//! What a guest tries on a confined thread, each with a thread of the host that succeeds.

use std::ffi::CString;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use libc::{EACCES, EBADF, EINVAL, ENOENT, ENOSYS, EPERM, EROFS, ESRCH};

use crate::common;
use crate::scene::{Scene, address, attempt, both, number, on_thread, outcome, python_jail};

/// The host's files: opened, made, listed, looked at. `refused` and `seen` are the answers to
/// opening one and to looking at one.
fn files(scene: &Scene, refused: i32, seen: i32) {
    let secret = scene.path("secret");
    let hidden = scene.path("stdlib/site-packages/hidden/module.py");
    let new = scene.path("new");
    let attack = |action: &(dyn Fn() -> i32 + Sync)| both(scene, action);
    assert_eq!(attack(&|| outcome(fs::read(&secret))), (0, refused));
    assert_eq!(attack(&|| outcome(fs::read(&hidden))), (0, refused), "packages nobody listed");
    assert_eq!(attack(&|| outcome(fs::read("/etc/passwd"))), (0, refused));
    assert_eq!(attack(&|| outcome(fs::read("/proc/self/environ"))), (0, refused));
    assert_eq!(attack(&|| outcome(File::options().append(true).open(&secret))), (0, refused));
    let (control, confined) = attack(&|| outcome(File::create(&new)));
    // A root of its own has the folder in which the packages are, and is read-only.
    assert!(control == 0 && [EACCES, EROFS].contains(&confined), "{control} {confined}");
    assert_eq!(attack(&|| outcome(fs::read_dir(scene.directory.path()))), (0, EACCES));
    assert_eq!(attack(&|| outcome(fs::read_dir("/proc"))), (0, refused));
    assert_eq!(attack(&|| outcome(fs::read_dir("/"))), (0, EACCES));
    assert_eq!(attack(&|| outcome(fs::metadata(&secret))), (0, seen));
    let through = scene.path("stdlib/../secret");
    assert_eq!(attack(&|| outcome(fs::read(&through))), (0, refused));
}

pub(crate) fn files_with_a_root() {
    files(&Scene::new(), ENOENT, ENOENT);
}

pub(crate) fn files_by_landlock_alone() {
    // Names and metadata stay visible, as the report says.
    files(&Scene::unprivileged(), EACCES, 0);
}

pub(crate) fn what_may_be_read() {
    let scenes: [fn() -> Scene; 2] = [Scene::new, Scene::unprivileged];
    for make in scenes {
        let scene = make();
        let stdlib = scene.path("stdlib");
        let seen = scene.confined(|| {
            for below in ["stdlib/module.py", "stdlib/package/module.py", "packages/module.py"] {
                assert_eq!(fs::read(scene.path(below)).unwrap(), b"guest");
            }
            assert_eq!(fs::read_dir(&stdlib).unwrap().count(), 3);
            assert_eq!(fs::write("/dev/null", "x").map_err(|error| error.to_string()), Ok(()));
            assert_eq!(fs::read("/dev/null").unwrap(), b"");
            use std::io::Read;
            File::open("/dev/urandom").unwrap().read_exact(&mut [0; 8]).unwrap();
            assert_eq!(std::env::current_dir().unwrap(), Path::new("/"));
            [
                outcome(File::options().append(true).open(scene.path("stdlib/module.py"))),
                outcome(File::create(scene.path("packages/new"))),
                outcome(File::options().write(true).open("/dev/urandom")),
            ]
        });
        for refused in seen.expect("the thread was ended") {
            assert!([EACCES, EROFS].contains(&refused), "{refused}");
        }
    }
}

/// What extension modules need loads: by name where the loader's cache leads to it, else by path.
pub(crate) fn libraries_load() {
    let (environment, plan, jail) = python_jail();
    let libraries: Vec<_> = plan
        .binds()
        .iter()
        .filter(|bind| bind.target.starts_with("lib"))
        .map(|bind| {
            let cached = bind.source.starts_with("/lib") || bind.source.starts_with("/usr/lib");
            let name = Path::new(bind.target.file_name().unwrap());
            let name = if cached { name } else { &bind.source };
            CString::new(name.to_str().unwrap()).unwrap()
        })
        .collect();
    assert!(!libraries.is_empty());
    let fails = |name: &&CString| {
        // SAFETY: the name is a live C string; the libraries are the interpreter's, made to be
        // loaded by it.
        unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY) }.is_null()
    };
    let load = || libraries.iter().filter(fails).count();
    assert_eq!(common::in_child(|| i32::try_from(load()).unwrap()), 0, "control");
    let loaded = on_thread(|| {
        // SAFETY: the thread is new and opens its own files.
        unsafe { jail.enter(&[]) }.unwrap();
        let listed = fs::read_dir(&environment.stdlib).unwrap().count();
        let source = fs::read(environment.stdlib.join("os.py")).unwrap().len();
        (listed > 100, source > 1000, load())
    });
    assert_eq!(loaded, Some((true, true, 0)));
}

pub(crate) fn changes_of_the_tree() {
    let scene = Scene::new();
    let path = CString::new(scene.path("made").to_str().unwrap()).unwrap();
    let cwd = libc::AT_FDCWD.into();
    let at = |call, more| attempt(call, [cwd, address(path.as_ptr()), more]);
    assert_eq!(both(&scene, || at(libc::SYS_mkdirat, 0o755)), (0, EPERM));
    assert_eq!(both(&scene, || at(libc::SYS_fchmodat, 0o700)), (0, EPERM));
    let directory: libc::c_long = libc::AT_REMOVEDIR.into();
    assert_eq!(scene.confined(|| at(libc::SYS_unlinkat, directory)), Some(EPERM));
    assert_eq!(on_thread(|| at(libc::SYS_unlinkat, directory)), Some(0));
    assert_eq!(
        both(&scene, || attempt(libc::SYS_chroot, [address(c"/nowhere".as_ptr())])).1,
        EPERM
    );
}

pub(crate) fn sockets() {
    let scene = Scene::new();
    let refused = scene.confined(|| {
        (1..46).all(|family| {
            [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_SEQPACKET]
                .into_iter()
                .all(|kind| attempt(libc::SYS_socket, [family, kind.into(), 0]) == EPERM)
        })
    });
    assert_eq!(refused, Some(true));
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_NETLINK] {
        let socket = || attempt(libc::SYS_socket, [family.into(), libc::SOCK_DGRAM.into(), 0]);
        assert_eq!(on_thread(socket), Some(0), "control");
    }
}

/// Even with a socket in hand, as of a fresh family that nobody thought of.
pub(crate) fn held_sockets() {
    let scene = Scene::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let std::net::SocketAddr::V4(to) = listener.local_addr().unwrap() else { unreachable!() };
    // SAFETY: sockaddr_in is plain old data, for which all zeroes is a value.
    let mut there: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    there.sin_family = libc::AF_INET as _;
    there.sin_addr.s_addr = u32::from(*to.ip()).to_be();
    let mut nowhere = there;
    there.sin_port = to.port().to_be();
    nowhere.sin_port = 0;
    let (to, length) = (address(&raw const there), size_of_val(&there) as libc::c_long);
    let fresh = || {
        // SAFETY: socket takes numbers and no memory.
        unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) }
    };
    let attacks = |socket: i32| {
        let socket = socket.into();
        [
            attempt(libc::SYS_bind, [socket, address(&raw const nowhere), length]),
            attempt(libc::SYS_listen, [socket, 1]),
            attempt(libc::SYS_connect, [socket, to, length]),
            attempt(libc::SYS_sendto, [socket, to, 0, 0, to, length]),
        ]
    };
    let control = fresh();
    // A socket that listens cannot connect; what counts is that the kernel was asked.
    assert_eq!(on_thread(|| attacks(control)).unwrap()[..2], [0, 0], "control");
    let other = fresh();
    assert_eq!(on_thread(|| attempt(libc::SYS_connect, [other.into(), to, length])), Some(0));
    let held = fresh();
    assert_eq!(scene.confined_with(&[held], |_| attacks(held)), Some([EPERM; 4]));
    let accept = |listener: i32| attempt(libc::SYS_accept4, [listener.into(), 0, 0, 0]);
    let number = listener.as_raw_fd();
    assert_eq!(scene.confined_with(&[number], |_| accept(number)), Some(EPERM));
    assert_eq!(on_thread(|| accept(number)), Some(0), "control");
}

pub(crate) fn processes() {
    let scene = Scene::new();
    let clone = |flags: libc::c_int| {
        let result = common::call(libc::SYS_clone, [flags.into(), 0, 0, 0]);
        if result == 0 {
            // SAFETY: ends this copy without running what belongs to the original.
            unsafe { libc::_exit(0) }
        }
        common::errno(result)
    };
    assert_eq!(both(&scene, || clone(libc::SIGCHLD)), (0, EPERM));
    assert_eq!(both(&scene, || attempt(libc::SYS_clone3, [0, 0])), (EINVAL, ENOSYS));
    #[cfg(target_arch = "x86_64")]
    assert_eq!(
        scene.confined(|| [libc::SYS_fork, libc::SYS_vfork].map(|call| attempt(call, []))),
        Some([EPERM; 2])
    );
    // What libc's pthread_create passes, and with a stack of its own.
    let thread = || std::thread::Builder::new().spawn(|| ()).map(|thread| thread.join().unwrap());
    assert_eq!(both(&scene, || outcome(thread())), (0, EPERM));
    let execute = |call| attempt(call, [address(c"/nowhere".as_ptr()), 0, 0]);
    assert_eq!(both(&scene, || execute(libc::SYS_execve)), (ENOENT, EPERM));
    let execute = || attempt(libc::SYS_execveat, [-1, address(c"nowhere".as_ptr()), 0, 0, 0]);
    assert_eq!(both(&scene, execute), (EBADF, EPERM));
    // The host's children are not the guest's to reap.
    let reap = || attempt(libc::SYS_wait4, [-1, 0, libc::WNOHANG.into(), 0]);
    assert_eq!(scene.confined(reap), Some(EPERM));
    assert_eq!(on_thread(reap), Some(0), "control");
}

pub(crate) fn namespaces() {
    let scene = Scene::new();
    let unshare = |flags: libc::c_int| attempt(libc::SYS_unshare, [flags.into()]);
    assert_eq!(both(&scene, || unshare(libc::CLONE_FS)), (0, EPERM));
    assert_eq!(both(&scene, || unshare(libc::CLONE_NEWUSER)), (EINVAL, EPERM));
    assert_eq!(both(&scene, || attempt(libc::SYS_setns, [-1, 0])), (EBADF, EPERM));
    let missing = address(c"/nowhere".as_ptr());
    let mount = || attempt(libc::SYS_mount, [missing, missing, missing, 0, 0]);
    assert_eq!(both(&scene, mount), (ENOENT, EPERM));
    let open_tree = || attempt(libc::SYS_open_tree, [-1, missing, 0]);
    assert_eq!(both(&scene, open_tree), (ENOENT, EPERM));
}

pub(crate) fn memory() {
    let scene = Scene::new();
    let own = i64::from(std::process::id());
    let word = 7_u64;
    let mut copy = 0_u64;
    let from = libc::iovec { iov_base: (&raw const word).cast_mut().cast(), iov_len: 8 };
    let to = libc::iovec { iov_base: (&raw mut copy).cast(), iov_len: 8 };
    let (from, to) = (address(&raw const from), address(&raw const to));
    let peek = || attempt(libc::SYS_process_vm_readv, [own, to, 1, from, 1, 0]);
    assert_eq!(both(&scene, peek), (0, EPERM));
    let poke = || attempt(libc::SYS_process_vm_writev, [own, from, 1, to, 1, 0]);
    assert_eq!(both(&scene, poke), (0, EPERM));
    let trace = || attempt(libc::SYS_ptrace, [libc::PTRACE_ATTACH.into(), i32::MAX.into(), 0, 0]);
    assert_eq!(both(&scene, trace), (ESRCH, EPERM));
    let (control, confined) = both(&scene, || outcome(File::open("/proc/self/mem")));
    assert!(control == 0 && [ENOENT, EACCES].contains(&confined), "{control} {confined}");
    let pidfd = || attempt(libc::SYS_pidfd_open, [own, 0]);
    assert_eq!(both(&scene, pidfd), (0, EPERM));
    let file = || attempt(libc::SYS_memfd_create, [address(c"x".as_ptr()), 0]);
    assert_eq!(both(&scene, file), (0, EPERM));
    let share = || {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        attempt(libc::SYS_mmap, [0, 4096, libc::PROT_READ.into(), flags.into(), -1, 0])
    };
    assert_eq!(both(&scene, share), (0, EPERM));
    // What malloc needs stays.
    assert_eq!(scene.confined(|| vec![1_u8; 64 << 20].len()), Some(64 << 20));
}

pub(crate) fn descriptors() {
    let scene = Scene::new();
    let held = number(File::open(scene.path("secret")).unwrap());
    let mut text = [0_u8; 4];
    let into = address(text.as_mut_ptr());
    let read = |descriptor: i32| attempt(libc::SYS_pread64, [descriptor.into(), into, 4, 0]);
    assert_eq!(both(&scene, || read(held)), (0, EBADF));
    assert_eq!(scene.confined_with(&[held], |_| read(held)), Some(0), "what is kept is open");
    // No number leads anywhere but to the null device.
    let null = fs::metadata("/dev/null").unwrap().rdev();
    let open = scene.confined(|| {
        (0..4096)
            .filter(|descriptor| {
                // SAFETY: stat is plain old data, for which all zeroes is a value.
                let mut found: libc::stat = unsafe { std::mem::zeroed() };
                // SAFETY: `found` is a live stat for the kernel to fill.
                let result = unsafe { libc::fstat(*descriptor, &raw mut found) };
                assert!(result < 0 || found.st_rdev == null, "{descriptor}");
                result == 0
            })
            .collect::<Vec<_>>()
    });
    assert_eq!(open, Some(vec![0, 1, 2]));
    // What it closes or replaces is its own.
    assert_eq!(
        scene.confined_with(&[held], |_| [
            attempt(libc::SYS_close, [held.into()]),
            attempt(libc::SYS_dup3, [1, held.into(), 0]),
            attempt(libc::SYS_close_range, [0, u32::MAX.into(), 0]),
        ]),
        Some([0; 3])
    );
    assert_eq!(on_thread(|| read(held)), Some(0));
}

pub(crate) fn signals() {
    let scene = Scene::new();
    let own = i64::from(std::process::id());
    assert_eq!(both(&scene, || attempt(libc::SYS_kill, [own, 0])), (0, EPERM));
    let usr1: libc::c_long = libc::SIGUSR1.into();
    let action = || attempt(libc::SYS_rt_sigaction, [usr1, 0, 0, 8]);
    assert_eq!(both(&scene, action), (0, EPERM));
    let none = 0_u64;
    let empty = address(&raw const none);
    let block: libc::c_long = libc::SIG_SETMASK.into();
    let mask = || attempt(libc::SYS_rt_sigprocmask, [block, empty, 0, 8]);
    assert_eq!(both(&scene, mask), (0, EPERM));
    assert_eq!(both(&scene, || attempt(libc::SYS_sigaltstack, [0, 0])), (0, EPERM));
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let now = address(&raw const now);
    let take = || attempt(libc::SYS_rt_sigtimedwait, [empty, 0, now, 8]);
    assert_eq!(both(&scene, take), (libc::EAGAIN, EPERM));
    // The calls that change the mask for as long as they wait.
    let poll = |mask| attempt(libc::SYS_ppoll, [0, 0, now, mask, 8]);
    assert_eq!(both(&scene, || poll(empty)), (0, EPERM));
    assert_eq!(both(&scene, || poll(0)), (0, 0));
    let both_words = [empty, 8];
    let select = |mask| attempt(libc::SYS_pselect6, [0, 0, 0, 0, now, mask]);
    assert_eq!(both(&scene, || select(address(both_words.as_ptr()))), (0, EPERM));
    assert_eq!(both(&scene, || select(0)), (0, 0));
    let epoll = |mask| attempt(libc::SYS_epoll_pwait, [-1, now, 1, 0, mask, 8]);
    assert_eq!(both(&scene, || epoll(empty)), (EBADF, EPERM));
    assert_eq!(both(&scene, || epoll(0)), (EBADF, EBADF));
    let epoll = |mask| attempt(libc::SYS_epoll_pwait2, [-1, now, 1, now, mask, 8]);
    assert_eq!(both(&scene, || epoll(empty)), (EBADF, EPERM));
}

/// Limits, timers, attributes, identity: what a thread would change for all others.
pub(crate) fn whole_process() {
    let scene = Scene::new();
    let mut limit = [0_u64; 2];
    let slot = address(limit.as_mut_ptr());
    let files: libc::c_long = libc::RLIMIT_NOFILE.into();
    let read = || attempt(libc::SYS_prlimit64, [0, files, 0, slot]);
    assert_eq!(both(&scene, read), (0, 0));
    assert!(limit[0] > 0);
    let write = || attempt(libc::SYS_prlimit64, [0, files, slot, 0]);
    assert_eq!(both(&scene, write), (0, EPERM));
    let write = || attempt(libc::SYS_setrlimit, [files, slot]);
    assert_eq!(both(&scene, write), (0, EPERM));
    let timer = [0_u64; 4];
    let timer = address(timer.as_ptr());
    assert_eq!(both(&scene, || attempt(libc::SYS_setitimer, [0, timer, 0])), (0, EPERM));
    #[cfg(target_arch = "x86_64")]
    assert_eq!(both(&scene, || attempt(libc::SYS_alarm, [0])), (0, EPERM));
    let create = || attempt(libc::SYS_timer_create, [99, 0, 0]);
    assert_eq!(both(&scene, create), (EINVAL, EPERM));
    let set_dumpable = || attempt(libc::SYS_prctl, [libc::PR_SET_DUMPABLE.into(), 1]);
    assert_eq!(both(&scene, set_dumpable), (0, EPERM));
    let death = || attempt(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG.into(), 0]);
    assert_eq!(both(&scene, death), (0, EPERM));
    let subreaper = || attempt(libc::SYS_prctl, [libc::PR_SET_CHILD_SUBREAPER.into(), 0]);
    assert_eq!(both(&scene, subreaper), (0, EPERM));
    assert_eq!(both(&scene, || attempt(libc::SYS_setresuid, [-1, -1, -1])), (0, EPERM));
    assert_eq!(both(&scene, || attempt(libc::SYS_setpgid, [0, -1])), (EINVAL, EPERM));
    assert_eq!(both(&scene, || attempt(libc::SYS_personality, [0xffff_ffff])), (0, EPERM));
    // Its own name, working directory and umask are its own.
    let own = || attempt(libc::SYS_prctl, [libc::PR_SET_NAME.into(), address(c"guest".as_ptr())]);
    assert_eq!(scene.confined(own), Some(0));
}

pub(crate) fn foreign_numbers() {
    #[cfg(target_arch = "x86_64")]
    {
        let scene = Scene::new();
        let x32 = || attempt(libc::SYS_getpid | 0x4000_0000, []);
        assert_eq!(scene.confined(x32), Some(EPERM));
        let exit = || attempt(libc::SYS_exit_group | 0x4000_0000, [0]);
        assert_eq!(scene.confined(exit), Some(EPERM));
        fn getpid_by_int80() -> i32 {
            let result: i64;
            // SAFETY: int 0x80 with 20 is the 32-bit getpid, which takes no argument and touches no
            // memory.
            unsafe {
                std::arch::asm!("int 0x80", inlateout("rax") 20_i64 => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _)
            };
            i32::from(result <= 0)
        }
        if common::in_child(getpid_by_int80) == 0 {
            assert_eq!(scene.confined(getpid_by_int80), None);
            assert_eq!(on_thread(getpid_by_int80), Some(0), "the host goes on");
        } else {
            println!("        (this kernel has no 32-bit calls)");
        }
    }
}
