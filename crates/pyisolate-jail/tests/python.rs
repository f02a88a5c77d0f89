//! A real interpreter in the real root: started by root and by a user without any privilege, bare
//! and filtered.
//!
//! `PYISOLATE_PYTHON` names the interpreter, `PYISOLATE_TEST_PACKAGES` a directory of packages to
//! import numpy from.

#![expect(unsafe_code, reason = "execve and dup2 in a process that is a raw clone")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test with its own harness is not recognised as one"
)]

mod common;

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use common::Feature::{Python, Root, Seccomp, Userns};
use common::{python, wait};
use pyisolate_jail::seccomp::Filters;
use pyisolate_jail::{Environment, RootPlan, descriptors, launcher_is_root, spawn_outer};
use rustix::fs::{CWD, Mode};
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

fn main() {
    common::run(&[
        ("python: starts in the root", &[Python, Userns], starts_in_the_root),
        (
            "python: starts for a user without privileges",
            &[Python, Userns, Root],
            starts_without_privileges,
        ),
        (
            "python: works behind the cell's filters",
            &[Python, Userns, Seccomp],
            works_behind_the_filters,
        ),
        ("python: no host path leads anywhere", &[Python, Userns], no_host_path_leads_anywhere),
    ]);
}

/// The environment with a runtime that any user can read.
fn environment(directory: &Path) -> Environment {
    use std::os::unix::fs::PermissionsExt;
    let runtime = directory.join("guest.so");
    std::fs::write(&runtime, "").unwrap();
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    Environment { runtime, ..python().unwrap() }
}

/// Runs a script in a fresh outer jail and returns what it prints; its standard error goes where
/// the test's goes.
fn run(plan: &RootPlan, script: &str, variables: &[(&str, String)]) -> String {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let trees = launcher_is_root().then(|| plan.open().unwrap());
    let packages =
        plan.packages().iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":");
    let mut environment = vec![
        format!("LD_LIBRARY_PATH={}", plan.library_path().display()),
        format!("PYTHONHOME={}", plan.home().display()),
        format!("PYTHONPATH={packages}"),
        "PYTHONDONTWRITEBYTECODE=1".to_owned(),
    ];
    environment.extend(variables.iter().map(|(name, value)| format!("{name}={value}")));
    let arguments = ["/python/bin/python3", "-c", script].map(str::to_owned);
    let outer = spawn_outer(|child| {
        match trees {
            Some(trees) => trees.assemble().unwrap(),
            None => plan.build().unwrap(),
        }
        child.become_nobody().unwrap();
        rustix::stdio::dup2_stdout(&write).unwrap();
        descriptors::close_all_on_exec().unwrap();
        execute(plan.interpreter(), &arguments, &environment)
    })
    .unwrap();
    drop(write);
    let mut output = String::new();
    File::from(read).read_to_string(&mut output).unwrap();
    let code = wait(outer.pid);
    assert_eq!(code, 0, "the interpreter ended with {code}; it had said {output:?}");
    output
}

fn execute(program: &Path, arguments: &[String], environment: &[String]) -> i32 {
    let strings = |texts: &[String]| {
        texts.iter().map(|text| CString::new(text.as_str()).unwrap()).collect::<Vec<_>>()
    };
    let pointers = |texts: &[CString]| {
        texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    let program = CString::new(program.as_os_str().as_bytes()).unwrap();
    let (arguments, environment) = (strings(arguments), strings(environment));
    // SAFETY: a NUL-terminated path and two null-terminated arrays of such strings, all live across
    // the call.
    unsafe {
        libc::execve(
            program.as_ptr(),
            pointers(&arguments).as_ptr(),
            pointers(&environment).as_ptr(),
        )
    };
    eprintln!("execve: {}", std::io::Error::last_os_error());
    1
}

const IMPORTS: &str = "
import sys, os, ssl, sqlite3, hashlib, ctypes, lzma, bz2, zlib, asyncio, decimal, json
assert sys.prefix == '/python', sys.prefix
assert hashlib.sha256(b'').hexdigest().startswith('e3b0')
assert sqlite3.connect(':memory:').execute('select 1').fetchone() == (1,)
assert ctypes.CDLL(None).getpid() == os.getpid() == 1
ssl.create_default_context()
print(os.getuid(), sys.executable, sorted(os.listdir('/')))
";

fn expect_imports_to_work(plan: &RootPlan) {
    let output = run(plan, IMPORTS, &[]);
    assert!(output.starts_with("65534 /python/bin/python3 ['dev', 'lib'"), "{output}");
}

fn starts_in_the_root() {
    let directory = tempfile::tempdir().unwrap();
    expect_imports_to_work(&RootPlan::new(&environment(directory.path())).unwrap());
}

/// Becomes user 1000 for good, in a mount namespace where that user can reach the interpreter even
/// if it is installed below a home directory that is closed to others.
fn starts_without_privileges() {
    let directory = tempfile::tempdir().unwrap();
    let environment = environment(directory.path());
    open_home_of(&environment);
    let (user, group) =
        (rustix::process::Uid::from_raw(1000), rustix::process::Gid::from_raw(1000));
    rustix::thread::set_thread_groups(&[]).unwrap();
    rustix::thread::set_thread_res_gid(group, group, group).unwrap();
    rustix::thread::set_thread_res_uid(user, user, user).unwrap();
    // The change of user made the process not dumpable, and its /proc files root's. A launcher is
    // executed as its user and never in that state.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable).unwrap();
    assert!(std::fs::read_dir("/proc/1/fd").is_err(), "still privileged");
    expect_imports_to_work(&RootPlan::new(&environment).unwrap());
}

/// Puts a tmpfs over the first directory of the interpreter's path that is closed to others, with
/// only the installation bound back into it.
fn open_home_of(environment: &Environment) {
    use std::os::unix::fs::PermissionsExt;
    let Some(installation) = environment.executable.parent().and_then(Path::parent) else { return };
    let closed =
        |path: &&Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o005 != 0o005;
    let ancestors: Vec<&Path> = installation.ancestors().collect();
    let Some(home) = ancestors.into_iter().rev().find(closed) else { return };
    // SAFETY: unshare takes flags and no memory; this is a throw-away process.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0);
    let private =
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).unwrap();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree: OwnedFd = rustix::mount::open_tree(CWD, installation, flags).unwrap();
    rustix::mount::mount(
        "tmpfs",
        home,
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        Some(c"mode=0755"),
    )
    .unwrap();
    let mut path = PathBuf::new();
    for part in installation.components() {
        path.push(part);
        if path.starts_with(home) && path != home {
            rustix::fs::mkdirat(CWD, &path, Mode::from_raw_mode(0o755)).unwrap();
        }
    }
    rustix::mount::move_mount(
        &tree,
        "",
        CWD,
        installation,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .unwrap();
}

/// Loads the three filters the way the zygote and the cell do, then does what guests do.
const FILTERED: &str = r#"
import asyncio, ctypes, os, socket, subprocess, sys, threading, time, mmap, select, signal, random
from concurrent.futures import ThreadPoolExecutor
libc = ctypes.CDLL(None, use_errno=True)
class Program(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('code', ctypes.c_char_p)]
assert libc.prctl(38, 1, 0, 0, 0) == 0
for code in os.environ['FILTERS'].split(','):
    code = bytes.fromhex(code)
    program = Program(len(code) // 8, code)
    assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0, ctypes.get_errno()

with ThreadPoolExecutor(4) as pool:
    assert sum(pool.map(lambda n: n * n, range(100))) == 328350

async def main():
    left, right = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=left)
    other_reader, other_writer = await asyncio.open_connection(sock=right)
    writer.write(b'hello\n')
    assert await other_reader.readline() == b'hello\n'
    await asyncio.sleep(0.001)
    assert await asyncio.to_thread(os.getpid) == 1
asyncio.run(main())

def refused(action):
    try:
        action()
    except PermissionError:
        return True
    except OSError as error:
        return error.errno in (1, 30)
    return False
assert refused(lambda: socket.socket())
assert refused(lambda: os.fork())
assert refused(lambda: subprocess.run(['/python/bin/python3']))
assert refused(lambda: open('/x', 'w'))
assert refused(lambda: os.kill(1, 0))
assert refused(lambda: os.memfd_create('x'))
signal.signal(signal.SIGUSR1, lambda *_: None); signal.raise_signal(signal.SIGUSR1)
signal.setitimer(signal.ITIMER_REAL, 0.001); signal.signal(signal.SIGALRM, lambda *_: None); time.sleep(0.01)
random.random(); os.urandom(8); os.cpu_count(); time.time(); select.select([], [], [], 0)
m = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS); m[0] = 1
try:
    import numpy
    try:
        import pandas
        assert pandas.DataFrame({'a': [1, 2]}).a.sum() == 3
    except ModuleNotFoundError:
        pass
except ImportError:
    print('plain')
else:
    a = numpy.random.default_rng(0).random((300, 300))
    numpy.linalg.inv(a) @ a
    print('numpy')
"#;

fn works_behind_the_filters() {
    let directory = tempfile::tempdir().unwrap();
    let plan = RootPlan::new(&environment(directory.path())).unwrap();
    let filters = Filters::compile().unwrap();
    let mut programs = Vec::new();
    for program in filters.programs() {
        let mut hex = String::new();
        for instruction in program {
            let mut bytes = instruction.code.to_ne_bytes().to_vec();
            bytes.extend([instruction.jt, instruction.jf]);
            bytes.extend(instruction.k.to_ne_bytes());
            hex.extend(bytes.iter().map(|byte| format!("{byte:02x}")));
        }
        programs.push(hex);
    }
    let output = run(&plan, FILTERED, &[("FILTERS", programs.join(","))]);
    let expected = if plan.packages().is_empty() { "plain" } else { "numpy" };
    assert_eq!(output.trim(), expected);
}

fn no_host_path_leads_anywhere() {
    let directory = tempfile::tempdir().unwrap();
    let environment = environment(directory.path());
    let plan = RootPlan::new(&environment).unwrap();
    let script = "
import os
for path in ['/proc', '/sys', '/etc', '/home', '/tmp', '/root', '/usr', '/var', os.environ['STDLIB'], '/..//etc']:
    assert not os.path.lexists(path), path
assert os.getcwd() == '/'
assert os.listdir('/') == os.listdir('/../..')
for number in range(3, 64):
    try:
        os.fstat(number)
    except OSError:
        continue
    raise AssertionError(f'descriptor {number} came along')
print('nowhere')";
    let stdlib = environment.stdlib.display().to_string();
    assert_eq!(run(&plan, script, &[("STDLIB", stdlib)]).trim(), "nowhere");
    assert!(
        plan.binds()
            .iter()
            .all(|bind| bind.target.is_relative() && !bind.target.as_os_str().is_empty())
    );
}
