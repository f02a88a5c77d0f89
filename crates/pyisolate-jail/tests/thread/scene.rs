//! A host process with a jail, threads that are confined by it, and threads that are not.

use std::fs::File;
use std::os::fd::RawFd;
use std::os::unix::thread::JoinHandleExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use pyisolate_jail::{Environment, Report, RootPlan, ThreadJail, capabilities};

use crate::common;

/// A directory of the host's, a plan of which it holds only parts, and the jail.
pub(crate) struct Scene {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) jail: ThreadJail,
}

impl Scene {
    /// With the rights that the test has.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let plan = common::plan_without_python(directory.path());
        for (path, text) in [
            ("secret", "host"),
            ("stdlib/module.py", "guest"),
            ("stdlib/package/module.py", "guest"),
            ("stdlib/site-packages/hidden/module.py", "host"),
            ("packages/module.py", "guest"),
        ] {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let jail = ThreadJail::prepare(&plan, &[]).unwrap();
        Self { directory, jail }
    }

    /// Without any: this throw-away process gives up what it has.
    pub(crate) fn unprivileged() -> Self {
        capabilities::drop_sets().unwrap();
        Self::new()
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    /// What `body` returns on a confined thread; `None` if the kernel ended it.
    pub(crate) fn confined<T: Send>(&self, body: impl FnOnce() -> T + Send) -> Option<T> {
        self.confined_with(&[], |_| body())
    }

    pub(crate) fn confined_with<T: Send>(
        &self,
        keep: &[RawFd],
        body: impl FnOnce(Report) -> T + Send,
    ) -> Option<T> {
        on_thread(|| {
            // SAFETY: the thread is new, and the bodies of the tests use only numbers in `keep`, or
            // others on purpose, through raw system calls.
            let report = unsafe { self.jail.enter(keep) }.unwrap();
            body(report)
        })
    }
}

/// A jail for the Python to test with.
pub(crate) fn python_jail() -> (Environment, RootPlan, ThreadJail) {
    let environment = common::python().unwrap();
    let plan = RootPlan::new(&environment).unwrap();
    let jail = ThreadJail::prepare(&plan, &[]).unwrap();
    (environment, plan, jail)
}

/// What `body` returns on a thread of its own; `None` if the kernel ended it.
pub(crate) fn on_thread<T: Send>(body: impl FnOnce() -> T + Send) -> Option<T> {
    let result = Arc::new(Mutex::new(None));
    let slot = result.clone();
    let boxed: Box<dyn FnOnce() + Send> = Box::new(move || {
        let value = body();
        *slot.lock().unwrap() = Some(value);
    });
    // SAFETY: the thread has ended when this function returns, whichever way it ended, and does not
    // outlive what `boxed` borrows.
    let boxed: Box<dyn FnOnce() + Send + 'static> = unsafe { std::mem::transmute(boxed) };
    let thread = std::thread::spawn(boxed).into_pthread_t();
    // Not JoinHandle::join, which panics when the kernel ended the thread.
    // SAFETY: the thread is joinable and joined once; what it returned is not asked for.
    assert_eq!(unsafe { libc::pthread_join(thread, std::ptr::null_mut()) }, 0);
    result.lock().unwrap().take()
}

/// How a thread that is not confined, and one that is, fare with the same attack: 0 or an errno.
pub(crate) fn both(scene: &Scene, attack: impl Fn() -> i32 + Send + Sync) -> (i32, i32) {
    (on_thread(&attack).unwrap(), scene.confined(&attack).expect("the thread was ended"))
}

/// A system call with up to six arguments: 0 or an errno.
pub(crate) fn attempt<const N: usize>(number: libc::c_long, arguments: [libc::c_long; N]) -> i32 {
    let argument = |index| arguments.get(index).copied().unwrap_or(0);
    // SAFETY: the tests pass numbers, null, or pointers to live values; what the kernel makes of
    // them is the test.
    let result = unsafe {
        libc::syscall(
            number,
            argument(0),
            argument(1),
            argument(2),
            argument(3),
            argument(4),
            argument(5),
        )
    };
    common::errno(result)
}

/// The outcome of a file operation: 0 or an errno.
pub(crate) fn outcome<T>(result: std::io::Result<T>) -> i32 {
    result.map_or_else(|error| error.raw_os_error().unwrap(), |_| 0)
}

/// The number of an open descriptor that its owner gives up.
pub(crate) fn number(file: File) -> RawFd {
    std::os::fd::IntoRawFd::into_raw_fd(file)
}

/// The address of a value, as an argument.
pub(crate) fn address<T>(value: *const T) -> libc::c_long {
    value.expose_provenance() as libc::c_long
}
