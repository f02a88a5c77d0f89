//! The harness of the jail's tests: single-threaded, each case in a throw-away process.
//!
//! A case that needs what this kernel lacks is skipped by name, unless `PYISOLATE_REQUIRE` lists
//! the feature.

#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary uses a part of the harness"
)]

use std::fs::File;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use pyisolate_jail::{
    CellJail, Cgroups, Cloned, Environment, Report, Rlimits, Role, RootPlan, Support, clone_cell,
};

/// A kernel feature that a case may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feature {
    Landlock,
    Seccomp,
    Userns,
    /// A control group that this process may make groups in.
    Cgroup,
    /// The test itself has to run as root.
    Root,
    /// A Python interpreter: `PYISOLATE_PYTHON`, or `python3` in `PATH`.
    Python,
}

impl Feature {
    fn name(self) -> &'static str {
        match self {
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::Userns => "userns",
            Self::Cgroup => "cgroup",
            Self::Root => "root",
            Self::Python => "python",
        }
    }

    fn present(self) -> bool {
        match self {
            Self::Landlock => Support::probe() != Support::Missing,
            Self::Seccomp => rustix::thread::secure_computing_mode().is_ok(),
            Self::Userns => ends_with_zero(|| {
                // SAFETY: unshare takes flags and no memory; this is a throw-away process.
                unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWUTS) }
            }),
            Self::Cgroup => Cgroups::prepare().is_ok(),
            Self::Root => rustix::process::geteuid().is_root(),
            Self::Python => python().is_some(),
        }
    }
}

pub(crate) type Case = (&'static str, &'static [Feature], fn());

/// Runs the cases and ends the process as libtest would.
pub(crate) fn run(cases: &[Case]) {
    let wanted =
        std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let required = std::env::var("PYISOLATE_REQUIRE").unwrap_or_default();
    let mut failed = Vec::new();
    for (name, needs, case) in cases.iter().filter(|(name, ..)| name.contains(&wanted)) {
        if let Some(missing) = needs.iter().find(|feature| !feature.present()) {
            if required.split(',').any(|feature| feature.trim() == missing.name()) {
                println!(
                    "FAILED  {name}: PYISOLATE_REQUIRE lists {}, which this host lacks",
                    missing.name()
                );
                failed.push(*name);
            } else {
                println!("skipped {name}: this host lacks {}", missing.name());
            }
        } else if ends_with_zero(|| {
            case();
            0
        }) {
            println!("ok      {name}");
        } else {
            println!("FAILED  {name}");
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
}

/// How a throw-away process ended: its exit code, or minus the signal that killed it.
pub(crate) fn in_child(body: impl FnOnce() -> i32) -> i32 {
    std::io::stdout().flush().unwrap();
    // SAFETY: the harness has one thread, so the copy holds no lock that nobody will release.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            let code = catch_unwind(AssertUnwindSafe(body)).unwrap_or(255);
            // SAFETY: ends this copy without running what belongs to the original.
            unsafe { libc::_exit(code) }
        }
        pid => wait(pid),
    }
}

pub(crate) fn wait(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is a live int for the kernel to fill.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    if libc::WIFSIGNALED(status) { -libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

fn ends_with_zero(body: impl FnOnce() -> i32) -> bool {
    in_child(body) == 0
}

/// Does `set_up` and then `action` in a throw-away process; 0 or the errno of `action`.
pub(crate) fn errno_of(set_up: impl FnOnce(), action: impl FnOnce() -> libc::c_long) -> i32 {
    in_child(|| {
        set_up();
        errno(action())
    })
}

/// A system call with up to four arguments.
pub(crate) fn call<const N: usize>(
    number: libc::c_long,
    arguments: [libc::c_long; N],
) -> libc::c_long {
    let argument = |index| arguments.get(index).copied().unwrap_or(0);
    // SAFETY: the tests pass numbers, null, or pointers to live C literals; what the kernel makes
    // of them is the test.
    unsafe { libc::syscall(number, argument(0), argument(1), argument(2), argument(3), 0, 0) }
}

/// A raw result as 0 or an errno. No call here fails with an errno past 254.
pub(crate) fn errno(result: libc::c_long) -> i32 {
    if result >= 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap() }
}

/// A root of this test binary and whatever it needs, with empty directories for Python's.
pub(crate) fn plan_without_python(directory: &std::path::Path) -> RootPlan {
    for name in ["stdlib/site-packages/hidden", "packages"] {
        std::fs::create_dir_all(directory.join(name)).unwrap();
    }
    let executable = std::env::current_exe().unwrap();
    RootPlan::new(&Environment {
        runtime: executable.clone(),
        executable,
        stdlib: directory.join("stdlib"),
        platstdlib: directory.join("stdlib"),
        platlibdir: "lib".to_owned(),
        version: (3, 13),
        packages: vec![directory.join("packages")],
    })
    .unwrap()
}

/// Runs `observe` in a real cell of a real outer jail and returns the report and what it says.
pub(crate) fn in_cell(role: Role, observe: impl FnOnce(&CellJail) -> String) -> (Report, String) {
    let directory = tempfile::tempdir().unwrap();
    let plan = plan_without_python(directory.path());
    let (read, write) = rustix::pipe::pipe().unwrap();
    let trees = pyisolate_jail::launcher_is_root().then(|| plan.open().unwrap());
    let outer = pyisolate_jail::spawn_outer(|child| {
        match trees {
            Some(trees) => trees.assemble().unwrap(),
            None => plan.build().unwrap(),
        }
        child.become_nobody().unwrap();
        let jail = CellJail::prepare().unwrap();
        jail.enter_zygote().unwrap();
        match clone_cell().unwrap() {
            Cloned::Parent { pid, .. } => wait(pid),
            Cloned::Child => {
                use std::os::fd::AsRawFd;
                // SAFETY: from here on only `write` is used, and the process ends by _exit.
                let report =
                    unsafe { jail.enter(role, &[write.as_raw_fd()], &Rlimits::fixed()) }.unwrap();
                let text = format!("{}\n{}", report.encode(), observe(&jail));
                File::from(write).write_all(text.as_bytes()).unwrap();
                // SAFETY: ends this copy without running what belongs to the original.
                unsafe { libc::_exit(0) }
            }
        }
    })
    .unwrap();
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).unwrap();
    assert_eq!(wait(outer.pid), 0, "the zygote or the cell failed; it had said {text:?}");
    let (report, observed) = text.split_once("\n\n").unwrap();
    (Report::decode(format!("{report}\n").as_bytes()).unwrap(), observed.to_owned())
}

/// What the Python to test with says of itself.
pub(crate) fn python() -> Option<Environment> {
    let program = std::env::var_os("PYISOLATE_PYTHON")
        .map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let script = "import sys, os, sysconfig\n\
                  base = {'base': sys.base_prefix, 'platbase': sys.base_exec_prefix,\n\
                          'installed_base': sys.base_prefix, 'installed_platbase': sys.base_exec_prefix}\n\
                  print(os.path.realpath(sys._base_executable))\n\
                  print(sysconfig.get_path('stdlib', vars=base))\n\
                  print(sysconfig.get_path('platstdlib', vars=base))\n\
                  print(sys.platlibdir)\n\
                  print(sys.version_info[0], sys.version_info[1])";
    #[expect(
        clippy::disallowed_methods,
        reason = "a test asks the interpreter about itself, outside any jail"
    )]
    let output = std::process::Command::new(program).args(["-I", "-c", script]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut lines = text.lines();
    let mut next = || lines.next();
    let (executable, stdlib, platstdlib, platlibdir) = (next()?, next()?, next()?, next()?);
    let (major, minor) = next()?.split_once(' ')?;
    Some(Environment {
        executable: executable.into(),
        stdlib: stdlib.into(),
        platstdlib: platstdlib.into(),
        platlibdir: platlibdir.to_owned(),
        version: (major.parse().ok()?, minor.parse().ok()?),
        packages: std::env::var_os("PYISOLATE_TEST_PACKAGES")
            .map(PathBuf::from)
            .into_iter()
            .collect(),
        runtime: std::env::current_exe().ok()?,
    })
}
