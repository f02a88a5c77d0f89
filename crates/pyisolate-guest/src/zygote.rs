//! The zygote: forks cells and templates, and tells the supervisor how they ended.
//!
//! It is single-threaded, has loaded the guest runtime and runs no guest code; a template's zygote
//! has run its set-up code and is as hostile as that was, which is why the supervisor believes it
//! about its own children alone.
#![expect(unsafe_code, reason = "enters the jail, which closes descriptors by number")]

use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyisolate_abi::message::{EXIT_OUT_OF_MEMORY, TEXT_BYTES_MAX, ToHost};
use pyisolate_channel::GuestEnd;
use pyisolate_channel::control::{Control, ControlError, Fork, Reply, Request};
use pyisolate_jail::{CellJail, Cloned, Ground, RlimitError, Rlimits, Role, await_map};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::process::Resource;
use thiserror::Error;

use crate::ffi::{self, Borrowed, Object, PyResult, fork};
use crate::launch::{ERRAND_FD, report_environment, whole};
use crate::link::Link;
use crate::module::State;

/// How often a zygote looks for ended children while none of its pidfds was readable: a backstop.
const LOOK_AROUND_MS: i64 = 1000;

#[derive(Debug, Error)]
enum ZygoteError {
    #[error("{call} in the zygote: {source}")]
    Call { call: &'static str, source: std::io::Error },
    #[error("preparing the jail: {0}")]
    Prepare(#[from] pyisolate_jail::PrepareError),
    #[error("confining the zygote: {0}")]
    Enter(#[from] pyisolate_jail::EnterError),
    #[error("{0}")]
    Control(#[from] ControlError),
}

/// One process that this zygote forked.
struct Child {
    number: u32,
    pid: i32,
    pidfd: OwnedFd,
}

/// What a forked process is to become.
struct Birth {
    fork: Fork,
    /// For a template: says whether the launcher has written its user map.
    mapped: Option<OwnedFd>,
}

/// Runs this process as the zygote. The processes that it forks run as cells in here too. None of
/// them returns.
pub(crate) fn run(state: &State, ground: &str, packages: Borrowed) -> PyResult<Object> {
    let control = match adopt(0) {
        Ok(fd) => Control::from(fd),
        Err(_) => exit(71),
    };
    let errands = match adopt(ERRAND_FD) {
        Ok(fd) => Control::from(fd),
        Err(_) => exit(71),
    };
    let Some(ground) = Ground::decode(ground) else {
        fatal(&control, "the launcher did not say what the zygote stands on");
    };
    let prepared = (|| {
        let prepare = if ground.is_whole() { c"prepare" } else { c"prepare_in_host_tree" };
        state.runtime(prepare)?.call([Object::borrowed(packages)?])?;
        state.runtime(c"freeze")?.call([])
    })();
    if prepared.is_err() {
        // To the launcher's stderr, which the supervisor reads.
        ffi::print_error();
        fatal(&control, "the guest runtime could not be prepared");
    }
    let jail = match confine(ground) {
        Ok(jail) => jail,
        Err(error) => fatal(&control, &whole(&error)),
    };
    // What a zygote owns is closed by number in the jail of its child, which therefore must not
    // close it again.
    let mut serving =
        ManuallyDrop::new(Serving { jail, control, errands: Some(errands), children: Vec::new() });
    loop {
        let birth = match serving.serve() {
            Ok(birth) => birth,
            // The supervisor is gone: everything below this process goes with it.
            Err(ZygoteError::Control(ControlError::Gone)) => exit(0),
            Err(error) => fatal(&serving.control, &whole(&error)),
        };
        // From here on this is a forked process.
        state.set_link(None);
        let Some(control) = live(state, jail, birth) else { exit(0) };
        serving = ManuallyDrop::new(Serving { jail, control, errands: None, children: Vec::new() });
    }
}

fn exit(status: i32) -> ! {
    // SAFETY: ends this process at once; what destructors and exit handlers would do (the guest's
    // among them) must not happen any more.
    unsafe { libc::_exit(status) }
}

fn fatal(control: &Control, why: &str) -> ! {
    let _ = control.send_reply(&Reply::Fatal(why.to_owned()));
    exit(70)
}

/// Moves an inherited descriptor out of the way of the standard streams, closing itself on exec.
fn adopt(number: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: the launcher left an open socket at this number, and nothing else here owns it.
    let mut inherited = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(number) };
    let moved = rustix::io::fcntl_dupfd_cloexec(&inherited, 10)?;
    if number == 0 {
        // The number stays taken: whatever is opened next must not become standard input.
        let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty())?;
        rustix::io::dup2(&null, &mut inherited)?;
        let _ = inherited.into_raw_fd();
    }
    Ok(moved)
}

fn confine(ground: Ground) -> Result<&'static CellJail, ZygoteError> {
    let jail = CellJail::prepare_on(ground)?;
    KERNEL_COUNTS_THREADS.store(jail.counts_threads(), Ordering::Relaxed);
    jail.enter_zygote()?;
    // Every process that is forked from here uses it, and its descriptors are closed by number.
    Ok(Box::leak(Box::new(jail)))
}

struct Serving {
    jail: &'static CellJail,
    control: Control,
    /// To the launcher; a template's zygote has none, and can make no templates.
    errands: Option<Control>,
    children: Vec<Child>,
}

impl Serving {
    /// Serves until there is an error, or until this is a forked process.
    fn serve(&mut self) -> Result<Birth, ZygoteError> {
        self.control.send_reply(&Reply::Serving)?;
        loop {
            let (request, ended) = self.wait()?;
            if ended {
                self.reap()?;
            }
            if request {
                match self.control.recv_request()? {
                    Request::Fork(fork) => {
                        if let Some(birth) = self.fork(fork)? {
                            return Ok(birth);
                        }
                    }
                    Request::Unopened { number } => self.refuse(number, Errno::MFILE)?,
                }
            }
        }
    }

    /// Waits for a request or for the end of a child.
    fn wait(&self) -> Result<(bool, bool), ZygoteError> {
        let children = self.children.iter().map(|child| child.pidfd.as_fd());
        let mut fds: Vec<_> = std::iter::once(self.control.as_fd())
            .chain(children)
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let timeout = rustix::time::Timespec { tv_sec: LOOK_AROUND_MS / 1000, tv_nsec: 0 };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(ZygoteError::Call { call: "poll", source: errno.into() }),
        }
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        Ok((fds.first().is_some_and(ready), fds.iter().skip(1).any(ready)))
    }

    fn reap(&mut self) -> Result<(), ZygoteError> {
        let mut ended = Vec::new();
        self.children.retain(|child| {
            let end = wait_for(child.pid);
            if let Some((status, cpu_ms)) = end {
                ended.push(Reply::Exited { number: child.number, status, cpu_ms });
            }
            end.is_none()
        });
        for reply in &ended {
            self.control.send_reply(reply)?;
        }
        Ok(())
    }

    /// Says that there is no new process: the host lacks something, and other requests may succeed.
    fn refuse(&self, number: u32, errno: Errno) -> Result<(), ControlError> {
        self.control.send_reply(&Reply::ForkFailed { number, errno: errno.raw_os_error() })
    }

    /// Forks. In the new process, what it is to become.
    fn fork(&mut self, fork: Fork) -> Result<Option<Birth>, ZygoteError> {
        let number = fork.number;
        if fork.control.is_some() && self.errands.is_none() {
            self.refuse(number, Errno::OPNOTSUPP)?;
            return Ok(None);
        }
        let gate = match &fork.control {
            None => None,
            // It has no user namespace for a map, and will say so itself.
            Some(_) if !self.jail.is_whole() => None,
            Some(_) => {
                let (unix, flags) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
                match socketpair(unix, SocketType::STREAM, flags, None) {
                    Ok(pair) => Some(pair),
                    Err(errno) => {
                        self.refuse(number, errno)?;
                        return Ok(None);
                    }
                }
            }
        };
        fork::before();
        match self.jail.clone_cell() {
            Ok(Cloned::Child) => {
                fork::in_child();
                let mapped = gate.map(|(_, theirs)| theirs);
                Ok(Some(Birth { fork, mapped }))
            }
            Ok(Cloned::Parent { pid, pidfd }) => {
                fork::in_parent();
                drop(fork);
                if let (Some((ours, theirs)), Some(errands)) = (gate, &self.errands) {
                    drop(theirs);
                    // It says when it can be mapped, or is gone.
                    let _ = rustix::io::read(&ours, &mut [0; 1]);
                    let outcome = map(errands, number, &pidfd)?;
                    // The new process reports it if it is not what it waits for.
                    let _ = rustix::net::send(&ours, outcome.as_bytes(), SendFlags::NOSIGNAL);
                }
                let reply = Reply::Forked { number, pidfd };
                self.control.send_reply(&reply)?;
                if let Reply::Forked { number, pidfd } = reply {
                    self.children.push(Child { number, pid, pidfd });
                }
                Ok(None)
            }
            Err(error) => {
                fork::in_parent();
                let errno = error.raw_os_error().unwrap_or(0);
                self.control.send_reply(&Reply::ForkFailed { number, errno })?;
                Ok(None)
            }
        }
    }
}

/// How a child ended and the CPU time that it used, in milliseconds, if it ended.
fn wait_for(pid: i32) -> Option<(i32, u64)> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to live values of the types that the kernel fills.
    let waited = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) };
    // SAFETY: all zeros is a valid value too, for the case that the kernel did not fill it.
    let usage = unsafe { usage.assume_init() };
    let milliseconds =
        |time: libc::timeval| u64::try_from(time.tv_sec * 1000 + time.tv_usec / 1000).unwrap_or(0);
    match waited {
        0 => None,
        // Not a child any more, which only a fault of ours could cause.
        -1 => Some((0, 0)),
        _ => Some((status, milliseconds(usage.ru_utime) + milliseconds(usage.ru_stime))),
    }
}

/// What is written to a template whose user map stands.
const MAPPED: &str = "mapped";

/// Has the launcher write the user map of a new template: [`MAPPED`], or why not.
fn map(errands: &Control, number: u32, pidfd: &OwnedFd) -> Result<String, ZygoteError> {
    let pidfd = match rustix::io::fcntl_dupfd_cloexec(pidfd, 3) {
        Ok(pidfd) => pidfd,
        Err(errno) => return Ok(format!("no descriptor for the template's handle: {errno}")),
    };
    errands.send_reply(&Reply::Forked { number, pidfd })?;
    Ok(match errands.recv_reply(true)? {
        Some(Reply::Exited { status: 0, .. }) => MAPPED.to_owned(),
        Some(Reply::Fatal(why)) => why,
        _ => "the launcher did not answer".to_owned(),
    })
}

/// Waits, in a new template, for its user map; an error is why it has none.
fn wait_for_map(mapped: OwnedFd) -> Result<(), String> {
    await_map().map_err(|error| format!("making the template dumpable: {error}"))?;
    rustix::net::send(&mapped, &[1], SendFlags::NOSIGNAL).map_err(|errno| errno.to_string())?;
    let mut said = [0; 1024];
    let count = rustix::io::read(&mapped, &mut said).map_err(|errno| errno.to_string())?;
    if count == 0 {
        exit(72); // the zygote is gone, and this process about to be: nobody's fault that is here
    }
    match String::from_utf8_lossy(&said[..count]) {
        said if said == MAPPED => Ok(()),
        why => Err(why.into_owned()),
    }
}

// --- in the forked process ----------------------------------------------------------------------

/// Lives as a cell, to its end. A template then has the socket on which it serves as a zygote.
fn live(state: &State, jail: &CellJail, birth: Birth) -> Option<Control> {
    let Birth { fork, mapped } = birth;
    let (role, control) = match fork.control {
        Some(control) => (Role::Template, Some(control)),
        None => (Role::Cell, None),
    };
    let mapped = mapped.map_or(Ok(()), wait_for_map);
    let mut keep = vec![fork.memory.as_raw_fd(), fork.socket.as_raw_fd()];
    keep.extend(control.as_ref().map(AsRawFd::as_raw_fd));
    keep.sort_unstable();
    // The cell's own numbers come with its settings. Writing into shared buffers is how large
    // messages leave, so the length of files is limited then, too.
    let limits = Rlimits { file_bytes: None, ..Rlimits::fixed() };
    // SAFETY: of the descriptors that are closed, those of `Serving` were forgotten, the jail's own
    // are leaked, CPython has none, and this process ends by `_exit`.
    let entered = unsafe { jail.enter(role, &keep, &limits) };
    let link = match GuestEnd::attach(fork.memory, fork.socket) {
        Ok(end) => Arc::new(Link::new(end)),
        // Without a channel there is nobody to tell.
        Err(_) => exit(72),
    };
    let confined =
        match entered.map_err(|error| whole(&error)).and_then(|report| mapped.map(|()| report)) {
            Ok(mut report) => {
                report_environment(&mut report, jail.is_whole());
                link.send(&ToHost::Ready(&report.encode()))
            }
            Err(mut message) => {
                message.truncate(message.floor_char_boundary(TEXT_BYTES_MAX));
                let kind = "JailError";
                let _ =
                    link.send(&ToHost::Failed { id: 0, kind, message: &message, traceback: "" });
                exit(73)
            }
        };
    if confined.is_err() {
        exit(72);
    }
    state.set_link(Some(link));
    let lived = (|| {
        state.runtime(c"after_fork")?.call([])?;
        state.runtime(c"serve")?.call([])
    })();
    if lived.is_err() {
        // What the guest runtime itself raised.
        exit(if ffi::is_memory_error() { EXIT_OUT_OF_MEMORY } else { 74 });
    }
    let control = Control::from(control?);
    state.set_link(None);
    match state.runtime(c"freeze").and_then(|freeze| freeze.call([])) {
        Ok(_) => Some(control),
        Err(_) => exit(74),
    }
}

/// How much more address space than memory a cell may have, in bytes: what allocators and numerical
/// libraries reserve without touching it. Page tables for all of it take a five-hundredth of that.
const RESERVABLE_BYTES: u64 = 32 << 30;

/// Whether `RLIMIT_NPROC` is the cell's own. Set in the zygote, before any cell is forked.
static KERNEL_COUNTS_THREADS: AtomicBool = AtomicBool::new(true);

/// Applies the cell's own limits, before guest code runs. The guest can only lower them. Where the
/// host's own limit is lower, that one holds.
pub(crate) fn limit(
    message_bytes: u64,
    mem_bytes: u64,
    open_files: u64,
    threads: u64,
    cpu_seconds: u64,
) -> Result<(), RlimitError> {
    let at_most = |resource, wanted: u64| {
        Some(rustix::process::getrlimit(resource).maximum.map_or(wanted, |hard| wanted.min(hard)))
    };
    let limits = Rlimits {
        open_files: at_most(Resource::Nofile, open_files),
        threads: KERNEL_COUNTS_THREADS
            .load(Ordering::Relaxed)
            .then(|| at_most(Resource::Nproc, threads))
            .flatten(),
        data_bytes: at_most(Resource::Data, mem_bytes),
        address_space_bytes: at_most(Resource::As, mem_bytes.saturating_add(RESERVABLE_BYTES)),
        cpu_seconds: at_most(Resource::Cpu, cpu_seconds),
        // Parts of a message are aligned in their buffer, which may take it past the limit.
        file_bytes: at_most(Resource::Fsize, message_bytes + 64 * 1024),
        ..Rlimits::default()
    };
    limits.apply()
}
