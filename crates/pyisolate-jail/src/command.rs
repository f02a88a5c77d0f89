//! The jail of a program that the broker runs for a cell: an ordinary program of the host's, among
//! the host's own system folders, with nothing else of the host's.
//!
//! Two processes. The first one, pid 1 of the new namespaces, is a copy of the launcher; it builds
//! the root, steps down to nobody, and stays as the one that reaps. The second one is cloned from it
//! into one more user namespace, which has no map, so that the kernel itself refuses it and its
//! children any further namespace; it gives up what is left and executes the program. Both are
//! confined by the same domain and filter. When the first one ends, the kernel kills all the others:
//! whoever kills it, or closes the line to it, ends everything that the program started.

#![expect(
    unsafe_code,
    reason = "execve, signalfd and closing descriptors by number have no safe wrapper"
)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::WaitOptions;

use crate::clone::{Cloned, clone_program};
use crate::command_root::{CommandRoot, CommandTrees, DEVICES, SCRATCH_PATH};
use crate::landlock::Support;
use crate::namespaces::OuterChild;
use crate::{
    CapabilityError, CommandFilter, CommandRootError, DescriptorError, Domain, Ground,
    LandlockError, LayerName, NetworkError, NobodyError, Outer, ProcessError, Report, RlimitError,
    Rlimits, SeccompError, SpawnError, Status, best_ground, capabilities, descriptors,
    launcher_is_root, network, process, spawn_outer,
};

/// What the program is told of itself when it cannot be executed, as shells have it.
const NOT_EXECUTED: i32 = 127;

/// Above all numbers that a program is handed.
const PASSED_ABOVE: i32 = 64;

/// The exit code of a first process that could not build the jail, or could not go on.
const FAILED: i32 = 70;

/// A program to be run.
#[derive(Clone, Debug)]
pub struct Command {
    /// An absolute path, the same inside and outside.
    pub program: PathBuf,
    /// All arguments, the program's name first.
    pub arguments: Vec<CString>,
    /// Its whole environment, `NAME=value` each.
    pub environment: Vec<CString>,
    /// Folders and files, beside the system's own, that it can read. No part of their paths may be
    /// a symbolic link.
    pub read: Vec<PathBuf>,
    /// Devices of the host's that it can use, beside those that every program has.
    pub devices: Vec<PathBuf>,
    /// Its limits.
    pub limits: Rlimits,
}

/// What is heard from a program's jail, in this order: one of the first three, then the end. A jail
/// that could not be built is heard of once, with nothing after it.
#[derive(Clone, Copy, Debug)]
pub enum CommandEvent<'a> {
    /// Every layer is applied, and the program is executed next. An encoded [`Report`].
    Confined(&'a str),
    /// `execve` failed with this error number.
    NotExecuted(i32),
    /// The jail could not be built.
    Failed(&'a str),
    /// The program ended, with this status as `wait` gives it.
    Ended(i32),
}

/// Why a program's jail could not be built. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The program's path, which a C string cannot hold.
    #[error("{0:?} has a NUL byte in it")]
    Program(PathBuf),
    /// The root.
    #[error(transparent)]
    Root(#[from] CommandRootError),
    /// The first process.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// A step inside that failed, with no layer of its own.
    #[error("{call} in the program's jail failed")]
    Call {
        /// The system call.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Stepping down to nobody.
    #[error(transparent)]
    Nobody(#[from] NobodyError),
    /// Capabilities.
    #[error(transparent)]
    Capabilities(#[from] CapabilityError),
    /// Privileges by `execve`, dumpability.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The network namespace has a way out.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Landlock, on a kernel that has it.
    #[error(transparent)]
    Landlock(#[from] LandlockError),
    /// Descriptors.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
    /// The program would be root outside of its jail, whose processes the kernel does not count.
    #[error(
        "a program of this root's could start processes without end: run the host as an ordinary \
         user, or with CAP_SYS_ADMIN, CAP_SETUID and CAP_SETGID"
    )]
    AsRoot,
    /// Resource limits.
    #[error(transparent)]
    Rlimits(#[from] RlimitError),
    /// The filter.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
}

fn failed(call: &'static str) -> impl Fn(Errno) -> CommandError {
    move |error| CommandError::Call { call, source: error.into() }
}

/// Starts a program in a jail of its own. Returns as soon as its first process runs; the rest is
/// heard through `say`, which is called in that process and its child. It has to write to `line`,
/// whose other end the listener holds: when that is closed, the program and all that it started end.
///
/// `standard` become the program's standard input, output and error, `passed` what it finds open from
/// 3 on. The caller has to be single-threaded, and reaps the first process.
///
/// # Errors
/// [`CommandError`] for what failed before the first process was on its own.
pub fn spawn_command(
    command: &Command,
    filter: &CommandFilter,
    standard: &[OwnedFd; 3],
    passed: &[OwnedFd],
    line: BorrowedFd<'_>,
    say: &dyn Fn(CommandEvent<'_>),
) -> Result<Outer, CommandError> {
    if best_ground() == Ground::WholeAsRoot {
        return Err(CommandError::AsRoot);
    }
    let root = CommandRoot::new(&command.read, &command.devices)?;
    let path = CString::new(command.program.as_os_str().as_bytes())
        .map_err(|_| CommandError::Program(command.program.clone()))?;
    // As for a cell's root: who is root has to do this outside.
    let trees = if launcher_is_root() { Some(root.open()?) } else { None };
    let image = Image {
        path: &path,
        arguments: pointers(&command.arguments),
        environment: pointers(&command.environment),
        limits: &command.limits,
        filter,
        standard,
        passed,
        line,
    };
    Ok(spawn_outer(|child| {
        let status = match run_first(child, &root, trees, &image, say) {
            Ok(Some(status)) => status,
            Ok(None) => return 0, // nobody listens any more
            Err(error) => {
                say(CommandEvent::Failed(&whole(&error)));
                return FAILED;
            }
        };
        say(CommandEvent::Ended(status));
        0
    })?)
}

/// What the second process needs, made before there are any limits.
struct Image<'a> {
    path: &'a CStr,
    arguments: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
    limits: &'a Rlimits,
    filter: &'a CommandFilter,
    standard: &'a [OwnedFd; 3],
    passed: &'a [OwnedFd],
    line: BorrowedFd<'a>,
}

/// A null-terminated array of pointers to strings that the caller keeps alive.
fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

/// The first process, from its first step to the end of the program: its status, or `None` if the
/// listener is gone.
fn run_first(
    child: OuterChild,
    root: &CommandRoot,
    trees: Option<CommandTrees>,
    image: &Image<'_>,
    say: &dyn Fn(CommandEvent<'_>),
) -> Result<Option<i32>, CommandError> {
    // SAFETY: a new cgroup namespace changes what this process sees of cgroups, and no memory or
    // descriptor of it.
    if unsafe { libc::unshare(libc::CLONE_NEWCGROUP) } != 0 {
        let source = io::Error::last_os_error();
        return Err(CommandError::Call { call: "unshare", source });
    }
    let built = match trees {
        Some(trees) => trees,
        None => root.open()?,
    }
    .assemble()?;
    network::verify_empty()?;
    capabilities::lock()?;
    child.become_nobody()?;
    capabilities::drop_sets()?;
    capabilities::verify_none()?;
    capabilities::verify_bounding_empty()?;
    process::no_new_privileges()?;
    process::not_dumpable()?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));

    let domain =
        Domain::prepare_command(&built.executable, SCRATCH_PATH, &DEVICES, &built.devices)?;
    domain.enter()?;
    let report = report(image.limits, domain.support(), built.proc).encode();
    drop(domain);

    let null = descriptors::open_null()?;
    let streams = image.standard.iter().chain(image.passed);
    let mut keep: Vec<_> = streams.map(AsRawFd::as_raw_fd).collect();
    keep.push(image.line.as_raw_fd());
    keep.sort_unstable();
    // SAFETY: from here on this process and its child use nothing but `keep` and what they open
    // themselves. `null` is closed behind its own back and forgotten; everything else belongs to
    // the launcher that this is a copy of, none of whose values is dropped here, since this process
    // ends by _exit.
    unsafe { descriptors::close_all_but(&keep, null.as_fd())? };
    let _closed = std::os::fd::IntoRawFd::into_raw_fd(null);

    match clone_program().map_err(|source| CommandError::Call { call: "clone", source })? {
        Cloned::Child => {
            let code = match become_program(image, &report, say) {
                Ok(errno) => {
                    say(CommandEvent::NotExecuted(errno));
                    NOT_EXECUTED
                }
                Err(error) => {
                    say(CommandEvent::Failed(&whole(&error)));
                    FAILED
                }
            };
            // SAFETY: ends this copy; nothing that it skips belongs to it.
            unsafe { libc::_exit(code) }
        }
        Cloned::Parent { pid, pidfd } => {
            drop(pidfd);
            image.filter.install()?;
            watch(pid, image.line)
        }
    }
}

/// The second process. Returns only if the program could not be executed: the error number.
fn become_program(
    image: &Image<'_>,
    report: &str,
    say: &dyn Fn(CommandEvent<'_>),
) -> Result<i32, CommandError> {
    // A new user namespace comes with all capabilities in it.
    capabilities::drop_all()?;
    capabilities::verify_none()?;
    capabilities::verify_bounding_empty()?;
    // Out of the way of the numbers that they are to have.
    let passed = image.passed.iter().map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, PASSED_ABOVE));
    let passed: Vec<_> = passed.collect::<Result<_, _>>().map_err(failed("fcntl"))?;
    let [stdin, stdout, stderr] = image.standard;
    rustix::stdio::dup2_stdin(stdin).map_err(failed("dup2"))?;
    rustix::stdio::dup2_stdout(stdout).map_err(failed("dup2"))?;
    rustix::stdio::dup2_stderr(stderr).map_err(failed("dup2"))?;
    descriptors::close_all_on_exec()?;
    for (fd, number) in passed.iter().zip(3..) {
        // What was at that number is one of `image`'s, or closed: all of it goes with `execve`, and
        // nothing of it is used any more but the line.
        if number == image.line.as_raw_fd() {
            return Err(failed("dup2")(Errno::BUSY));
        }
        // SAFETY: two numbers, and a copy of the first takes over the second: see above.
        if unsafe { libc::dup2(fd.as_raw_fd(), number) } < 0 {
            let source = io::Error::last_os_error();
            return Err(CommandError::Call { call: "dup2", source });
        }
    }
    // From here on nothing is allocated: the limit may lie below what this copy of the launcher has.
    image.limits.apply()?;
    image.filter.install()?;
    say(CommandEvent::Confined(report));
    // SAFETY: a NUL-terminated path and two null-terminated arrays of NUL-terminated strings, all
    // of which the caller keeps alive.
    unsafe {
        libc::execve(image.path.as_ptr(), image.arguments.as_ptr(), image.environment.as_ptr())
    };
    Ok(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// Reaps whatever ends in the namespace, until the program does or nobody listens any more.
fn watch(program: i32, line: BorrowedFd<'_>) -> Result<Option<i32>, CommandError> {
    let signals = child_signals()?;
    loop {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid.as_raw_nonzero().get() == program {
                return Ok(Some(status.as_raw()));
            }
        }
        // A closed line is told without being asked for.
        let mut fds =
            [PollFd::new(&signals, PollFlags::IN), PollFd::new(&line, PollFlags::empty())];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(failed("poll")(error)),
        }
        if !fds[1].revents().is_empty() {
            return Ok(None);
        }
        let _ = rustix::io::read(&signals, &mut [0; size_of::<libc::signalfd_siginfo>()]);
    }
}

/// A descriptor that can be read when a child has ended.
fn child_signals() -> Result<OwnedFd, CommandError> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set that the three calls after it read or change; it is
    // live. The process is single-threaded. The old mask is not wanted. A new signalfd belongs to
    // nobody else.
    let fd = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if fd < 0 {
        let source = io::Error::last_os_error();
        return Err(CommandError::Call { call: "signalfd", source });
    }
    // SAFETY: just made, and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The layers of a program's jail, each of which is an error if it cannot be applied.
fn report(limits: &Rlimits, landlock: Support, proc: Result<(), Errno>) -> Report {
    let mut report = Report::default();
    for (name, detail) in [
        (LayerName::UserNamespace, "its own; it can make none"),
        (LayerName::PidNamespace, "its own"),
        (LayerName::MountNamespace, "its own"),
        (LayerName::IpcNamespace, "its own"),
        (LayerName::UtsNamespace, "its own"),
        (LayerName::NetworkNamespace, "its own, without interfaces"),
        (LayerName::Environment, "what the policy says, and nothing else"),
    ] {
        report.add(name, Status::Enforced, detail);
    }
    let proc = match proc {
        Ok(()) => "a /proc of its own processes".to_owned(),
        Err(error) => format!("no /proc ({})", io::Error::from(error)),
    };
    let root = format!("read-only system folders, a scratch folder, {proc}");
    report.add(LayerName::Root, Status::Enforced, root);
    report.add(LayerName::Capabilities, Status::Enforced, "none in any set; secure bits locked");
    report.add(LayerName::NoNewPrivileges, Status::Enforced, "set for good");
    report.add(LayerName::Process, Status::Enforced, "killed with its launcher; no core dumps");
    report.add(LayerName::Rlimits, Status::Enforced, limits.describe());
    let (status, detail) = match landlock {
        Support::Complete { abi } => {
            let detail =
                format!("ABI {abi}: writes the scratch folder alone, no TCP, no signals out");
            (Status::Enforced, detail)
        }
        Support::Partial { abi, lacks } => {
            (Status::Partial, format!("ABI {abi} of this kernel lacks: {lacks}"))
        }
        Support::Missing => {
            (Status::Missing, "this kernel has no Landlock, or booted without it".to_owned())
        }
    };
    report.add(LayerName::Landlock, status, detail);
    report.add(
        LayerName::Descriptors,
        Status::Enforced,
        "standard streams kept, all others closed",
    );
    let calls = format!("allow-list of {} calls", CommandFilter::calls());
    report.add(LayerName::Seccomp, Status::Enforced, calls);
    report
}

/// An error and its sources, in one line.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
