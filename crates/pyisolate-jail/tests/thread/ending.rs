//! Ways by which a guest ends: its thread alone, never the host.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::common;
use crate::scene::{Scene, attempt, on_thread};

/// The host still does what hosts do.
fn host_serves(scene: &Scene) {
    assert_eq!(on_thread(|| std::fs::read(scene.path("secret")).unwrap().len()), Some(4));
    assert_eq!(scene.confined(|| 42), Some(42), "and confines the next thread");
}

pub(crate) fn exit_group() {
    let scene = Scene::new();
    // SAFETY: _exit has no preconditions; here it is the test.
    assert_eq!(scene.confined(|| unsafe { libc::_exit(3) }), None::<()>);
    host_serves(&scene);
    // SAFETY: as above.
    let control = common::in_child(|| on_thread(|| unsafe { libc::_exit(3) }).map_or(0, |()| 1));
    assert_eq!(control, 3, "control: without the filter the process ends");
}

fn own() -> libc::c_long {
    // SAFETY: gettid has no preconditions.
    libc::c_long::from(unsafe { libc::gettid() })
}

pub(crate) fn aborting() {
    let scene = Scene::new();
    let ways: [(&str, &(dyn Fn() + Sync)); 3] = [
        // SAFETY: abort has no preconditions; here it is the test.
        ("abort", &|| unsafe { libc::abort() }),
        ("raise", &|| {
            // SAFETY: raise takes a number; here it is the test.
            unsafe { libc::raise(libc::SIGABRT) };
        }),
        ("tkill", &|| assert_ne!(attempt(libc::SYS_tkill, [own(), libc::SIGABRT.into()]), 0)),
    ];
    for (name, way) in ways {
        assert_eq!(scene.confined(way), None, "{name}");
        host_serves(&scene);
    }
    // SAFETY: as above.
    let control = common::in_child(|| on_thread(|| unsafe { libc::abort() }).map_or(0, |()| 1));
    assert_eq!(control, -libc::SIGABRT, "control: without the filter the process ends");
    // The host can still end itself.
    // SAFETY: as above.
    assert_eq!(common::in_child(|| unsafe { libc::abort() }), -libc::SIGABRT);
}

pub(crate) fn signals_to_others() {
    let scene = Scene::new();
    let (process, term) = (i64::from(std::process::id()), libc::c_long::from(libc::SIGTERM));
    let ways: [(&str, &(dyn Fn() -> i32 + Sync)); 5] = [
        ("tgkill", &|| attempt(libc::SYS_tgkill, [process, process, term])),
        ("tgkill of itself", &|| attempt(libc::SYS_tgkill, [process, own(), term])),
        ("tkill", &|| attempt(libc::SYS_tkill, [process, term])),
        ("rt_sigqueueinfo", &|| attempt(libc::SYS_rt_sigqueueinfo, [process, term, 0])),
        ("rt_tgsigqueueinfo", &|| {
            attempt(libc::SYS_rt_tgsigqueueinfo, [process, process, term, 0])
        }),
    ];
    for (name, way) in ways {
        assert_eq!(scene.confined(way), Some(libc::EPERM), "{name}");
        host_serves(&scene);
    }
    let control = common::in_child(|| {
        let process = i64::from(std::process::id());
        on_thread(|| attempt(libc::SYS_tgkill, [process, process, libc::SIGTERM.into()]));
        0
    });
    assert_eq!(control, -libc::SIGTERM);
}

/// `setuid` sends a signal to every thread and holds a lock of all of them meanwhile. To be ended there
/// would be the end of the host, too.
pub(crate) fn changing_the_user() {
    let scene = Scene::new();
    // SAFETY: getuid and setuid take and give numbers.
    let same = || unsafe { libc::setuid(libc::getuid()) };
    assert_eq!(scene.confined(same), Some(-1));
    host_serves(&scene);
    assert_eq!(on_thread(same), Some(0), "control: without the filter it is allowed");
}

static FAULTS: AtomicU32 = AtomicU32::new(0);

extern "C" fn on_fault(_: libc::c_int) {
    FAULTS.fetch_add(1, Ordering::Relaxed);
}

/// A handler that returns would fault again, and spin for ever on a thread that nobody can stop.
pub(crate) fn return_of_a_handler() {
    let scene = Scene::new();
    let handler: extern "C" fn(libc::c_int) = on_fault;
    // SAFETY: the handler only adds to an atomic number.
    unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
    // SAFETY: as above.
    unsafe { libc::signal(libc::SIGSEGV, handler as libc::sighandler_t) };
    // SAFETY: no memory of ours is at that address, which is the test: the kernel refuses the read.
    let fault = || unsafe { std::ptr::without_provenance::<u8>(8).read_volatile() };
    assert_eq!(scene.confined(fault), None);
    assert_eq!(FAULTS.load(Ordering::Relaxed), 1);
    host_serves(&scene);
    // Elsewhere handlers return as ever.
    // SAFETY: raise takes a number.
    assert_eq!(on_thread(|| unsafe { libc::raise(libc::SIGUSR1) }), Some(0));
    assert_eq!(FAULTS.load(Ordering::Relaxed), 2);
}

fn names(directory: &str) -> Vec<String> {
    let entries = std::fs::read_dir(Path::new(directory)).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn ten_leave_nothing() {
    let empty = names("/proc/self/fd");
    let scene = Scene::new();
    let before = (names("/proc/self/fd"), names("/proc/self/task"));
    for round in 0..10 {
        let exits = round % 2 == 0;
        let ended = scene.confined(|| {
            if exits {
                // SAFETY: _exit has no preconditions; here it is the test.
                unsafe { libc::_exit(0) }
            }
        });
        assert_eq!(ended.is_none(), exits);
        // The join ends when the thread no longer uses its stack, a moment before it is off the list.
        while names("/proc/self/task") != before.1 {
            std::thread::yield_now();
        }
        assert_eq!(names("/proc/self/fd"), before.0);
    }
    drop(scene);
    assert_eq!(names("/proc/self/fd"), empty, "the namespaces go with the jail");
}
