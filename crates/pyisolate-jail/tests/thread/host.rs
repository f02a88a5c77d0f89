//! The host around a confined thread: the same before, while and after; and what the report says
//! against what `/proc` shows.

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use pyisolate_jail::{DescriptorError, LayerName, Report, Status, ThreadError};

use crate::scene::{Scene, on_thread};

/// Everything about the calling thread and its process that a jail could have changed.
fn portrait() -> Vec<String> {
    let mut lines = vec![format!("{:?}", std::env::current_dir().unwrap())];
    // Of a thread's status, what is about rights and not about time.
    let wanted = [
        "Umask",
        "SigBlk",
        "SigIgn",
        "SigCgt",
        "Cap",
        "NoNewPrivs",
        "Seccomp",
        "Uid",
        "Gid",
        "Groups",
    ];
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    lines.extend(
        status
            .lines()
            .filter(|line| wanted.iter().any(|name| line.starts_with(name)))
            .map(str::to_owned),
    );
    lines.push(std::fs::read_to_string("/proc/thread-self/limits").unwrap());
    for link in ["root", "cwd", "ns/net", "ns/mnt", "ns/ipc", "ns/uts", "ns/user", "ns/pid"] {
        lines.push(format!(
            "{:?}",
            std::fs::read_link(format!("/proc/thread-self/{link}")).unwrap()
        ));
    }
    for descriptor in std::fs::read_dir("/proc/thread-self/fd").unwrap() {
        // The one that lists them is gone when it is asked for.
        let path = descriptor.unwrap().path();
        lines.push(format!("{path:?} {:?}", std::fs::read_link(&path).ok()));
    }
    let process = rustix::process::dumpable_behavior().unwrap();
    let death = rustix::process::parent_process_death_signal().unwrap();
    lines.push(format!("{process:?} {death:?} {:?}", rustix::system::uname().nodename()));
    for signal in 1..=64 {
        // SAFETY: sigaction is plain old data, for which all zeroes is a value.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: null for the new action means "no change"; the old one is live.
        unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
        lines.push(format!("{signal} {:x} {:x}", action.sa_sigaction, action.sa_flags));
    }
    lines
}

/// A confined thread that waits while `observe` runs beside it with its id and report.
fn beside<T>(scene: &Scene, observe: impl FnOnce(i32, Report) -> T) -> T {
    let (say, hear): (Sender<(i32, Report)>, Receiver<_>) = channel();
    let (release, wait) = channel::<()>();
    std::thread::scope(|threads| {
        threads.spawn(move || {
            // SAFETY: the thread is new, and uses no descriptor from here on.
            let report = unsafe { scene.jail.enter(&[]) }.unwrap();
            // SAFETY: gettid has no preconditions.
            say.send((unsafe { libc::gettid() }, report)).unwrap();
            // Until the sender is dropped, by a panic too.
            let _ = wait.recv();
        });
        let _release = release;
        let (thread, report) = hear.recv().unwrap();
        observe(thread, report)
    })
}

pub(crate) fn others_are_untouched() {
    // With its first thread, libc puts a handler of its own in place.
    on_thread(|| ()).unwrap();
    // What the jail itself opens is the host's, and there from now on.
    let scene = Scene::new();
    // The same path on every thread that asks: a thread's id is in it otherwise.
    let on_another = || {
        let lines = on_thread(portrait).unwrap();
        lines.into_iter().filter(|line| !line.starts_with("\"/proc")).collect::<Vec<_>>()
    };
    let (main, other) = (portrait(), on_another());
    beside(&scene, |_, _| {
        assert_eq!(portrait(), main, "while");
        assert_eq!(on_another(), other, "while");
    });
    assert_eq!(portrait(), main, "after");
    // SAFETY: _exit has no preconditions; here it is the test.
    assert_eq!(scene.confined(|| unsafe { libc::_exit(0) }), None::<()>);
    assert_eq!(portrait(), main, "after its end by the kernel");
    assert_eq!(on_another(), other, "after");
}

/// Files, connections, programs, threads, processes.
fn work(scene: &Scene) {
    let path = scene.path("written");
    std::fs::write(&path, "x").unwrap();
    std::fs::remove_file(path).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    listener.accept().unwrap();
    #[expect(clippy::disallowed_methods, reason = "the host of this test starts a program")]
    let status = std::process::Command::new("/bin/true").status().unwrap();
    assert!(status.success());
    assert_eq!(std::thread::spawn(|| 42).join().unwrap(), 42);
}

pub(crate) fn others_go_on() {
    let scene = Scene::new();
    work(&scene);
    beside(&scene, |_, _| {
        work(&scene);
        on_thread(|| work(&scene)).unwrap();
    });
    work(&scene);
    on_thread(|| work(&scene)).unwrap();
}

static HANDLED_BY: AtomicU32 = AtomicU32::new(0);

extern "C" fn note(_: libc::c_int) {
    // SAFETY: gettid has no preconditions.
    HANDLED_BY.store(unsafe { libc::gettid() }.cast_unsigned(), Ordering::Relaxed);
}

pub(crate) fn signals_go_elsewhere() {
    let scene = Scene::new();
    let handler: extern "C" fn(libc::c_int) = note;
    // SAFETY: the handler asks for a number and stores it.
    unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
    beside(&scene, |thread, _| {
        for _ in 0..100 {
            HANDLED_BY.store(0, Ordering::Relaxed);
            // SAFETY: kill takes numbers; the handler is in place.
            unsafe { libc::kill(libc::getpid(), libc::SIGUSR1) };
            while HANDLED_BY.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            assert_ne!(HANDLED_BY.load(Ordering::Relaxed), thread.cast_unsigned());
        }
    });
}

fn check(report: &Report, expected: &[(LayerName, Status)]) {
    println!(
        "{}",
        report
            .to_string()
            .lines()
            .map(|line| format!("        {line}\n"))
            .collect::<String>()
            .trim_end()
    );
    let found: Vec<_> = report.layers.iter().map(|layer| (layer.name, layer.status)).collect();
    let mut sorted = expected.to_vec();
    sorted.sort_unstable_by_key(|row| row.0);
    let mut actual = found;
    actual.sort_unstable_by_key(|row| row.0);
    assert_eq!(actual, sorted);
    for layer in &report.layers {
        assert!(layer.detail.len() < 160, "{layer:?}");
    }
    assert_eq!(Report::decode(report.encode().as_bytes()).as_ref(), Ok(report));
}

fn landlock() -> Status {
    match pyisolate_jail::Support::probe() {
        pyisolate_jail::Support::Complete { .. } => Status::Enforced,
        pyisolate_jail::Support::Partial { .. } => Status::Partial,
        pyisolate_jail::Support::Missing => Status::Missing,
    }
}

pub(crate) fn report_of_a_privileged_host() {
    let report = Scene::new().confined_with(&[], |report| report).unwrap();
    check(
        &report,
        &[
            (LayerName::UserNamespace, Status::Missing),
            (LayerName::PidNamespace, Status::Missing),
            (LayerName::MountNamespace, Status::Enforced),
            (LayerName::IpcNamespace, Status::Enforced),
            (LayerName::UtsNamespace, Status::Enforced),
            (LayerName::NetworkNamespace, Status::Enforced),
            (LayerName::Environment, Status::Partial),
            (LayerName::Root, Status::Enforced),
            (LayerName::Capabilities, Status::Enforced),
            (LayerName::NoNewPrivileges, Status::Enforced),
            (LayerName::Landlock, landlock()),
            (LayerName::Seccomp, Status::Enforced),
            (LayerName::Rlimits, Status::Missing),
            (LayerName::Descriptors, Status::Enforced),
            (LayerName::Process, Status::Missing),
        ],
    );
}

pub(crate) fn report_of_an_unprivileged_host() {
    let report = Scene::unprivileged().confined_with(&[], |report| report).unwrap();
    check(
        &report,
        &[
            (LayerName::UserNamespace, Status::Missing),
            (LayerName::PidNamespace, Status::Missing),
            (LayerName::MountNamespace, Status::Missing),
            (LayerName::IpcNamespace, Status::Missing),
            (LayerName::UtsNamespace, Status::Missing),
            (LayerName::NetworkNamespace, Status::Missing),
            (LayerName::Environment, Status::Partial),
            (LayerName::Root, Status::Missing),
            (LayerName::Capabilities, Status::Partial),
            (LayerName::NoNewPrivileges, Status::Enforced),
            (LayerName::Landlock, landlock()),
            (LayerName::Seccomp, Status::Enforced),
            (LayerName::Rlimits, Status::Missing),
            (LayerName::Descriptors, Status::Enforced),
            (LayerName::Process, Status::Missing),
        ],
    );
}

/// Each layer again, from the host's side.
pub(crate) fn report_is_what_proc_shows() {
    let scene = Scene::new();
    beside(&scene, |thread, report| {
        let at = |file: &str| format!("/proc/self/task/{thread}/{file}");
        let status = std::fs::read_to_string(at("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.split(':').next() == Some(name));
            line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
        };
        assert_eq!(
            (field("NoNewPrivs"), field("Seccomp"), field("Umask")),
            ("1".into(), "2".into(), "0077".into())
        );
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(field(set), "0000000000000000", "{set}");
        }
        let bounding = report.get(LayerName::Capabilities).unwrap().status == Status::Enforced;
        assert_eq!(field("CapBnd") == "0000000000000000", bounding);
        let blocked = u64::from_str_radix(&field("SigBlk"), 16).unwrap();
        let bit = |signal: libc::c_int| 1_u64 << (signal - 1);
        assert_eq!(blocked & bit(libc::SIGTERM), bit(libc::SIGTERM));
        assert_eq!(blocked & (bit(libc::SIGSEGV) | bit(libc::SIGBUS)), 0);
        let same = |kind: &str| {
            std::fs::read_link(at(&format!("ns/{kind}"))).unwrap()
                == std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap()
        };
        let missing = |name| report.get(name).unwrap().status == Status::Missing;
        assert_eq!(same("net"), missing(LayerName::NetworkNamespace));
        assert_eq!(same("mnt"), missing(LayerName::Root));
        assert_eq!(
            [same("ipc"), same("uts")],
            [missing(LayerName::IpcNamespace), missing(LayerName::UtsNamespace)]
        );
        let mut descriptors: Vec<_> = std::fs::read_dir(at("fd"))
            .unwrap()
            .map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap())
            .collect();
        descriptors.dedup();
        assert_eq!(descriptors.len(), 1, "{descriptors:?}");
        if !missing(LayerName::Root) {
            let mounts = std::fs::read_to_string(at("mounts")).unwrap();
            assert!(
                mounts.lines().all(|mount| mount.split(' ').nth(3).unwrap().starts_with("ro")),
                "{mounts}"
            );
        }
    });
}

pub(crate) fn misuse_is_refused() {
    let scene = Scene::new();
    // SAFETY: it is refused before anything is done.
    let error = unsafe { scene.jail.enter(&[]) }.unwrap_err();
    assert!(matches!(error, ThreadError::FirstThread), "{error}");
    // SAFETY: the threads end at once.
    let refused = |keep: &'static [i32]| on_thread(|| unsafe { scene.jail.enter(keep) }).unwrap();
    for bad in [&[2][..], &[5, 4], &[5, 5], &[-1]] {
        let error = refused(bad).unwrap_err();
        assert!(matches!(error, ThreadError::Descriptors(DescriptorError::BadList(_))), "{error}");
    }
    let error = refused(&[9999]).unwrap_err();
    let not_open = |error: &ThreadError| {
        matches!(error, ThreadError::Descriptors(DescriptorError::NotOpen { number: 9999, .. }))
    };
    assert!(not_open(&error), "{error}");
}
