//! A machine that runs: its monitor's process in its jail, seen from outside, and the streams to it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyisolate_channel::control::{Control, ControlError, Program, ProgramEvent};
use pyisolate_channel::relay::{StreamReader, Told};
use pyisolate_jail::Report;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::process::{Signal, pidfd_send_signal};
use rustix::time::Timespec;

use crate::qemu::ImageFiles;
use crate::vmm::{Shape, VmmError, failed};

/// How long a jail may take to be built, and a monitor to answer: some ten milliseconds, unless the
/// machine is starved.
const BIRTH_PATIENCE: Duration = Duration::from_secs(30);
/// What is kept of a console, in bytes: the first of it, since the kernel's last words follow few.
const CONSOLE_BYTES: usize = 64 * 1024;
/// What is told of it, in bytes.
const TOLD_BYTES: usize = 2000;
/// The processes and threads of a monitor.
const THREADS: u64 = 64;
/// The descriptors of a monitor.
const OPEN_FILES: u64 = 256;
/// The length of the files that a monitor writes: its console is the only one.
const FILE_BYTES: u64 = 1 << 20;
/// What a monitor takes beside its machine's memory, in bytes: its own code, and translated code.
const MONITOR_BYTES: u64 = 1 << 30;
/// A monitor's own limit on CPU time, in seconds, is none: its cell has one.
const CPU_SECONDS: u64 = 1 << 40;

/// A monitor's program, to be started.
pub(crate) struct Start<'a> {
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) read: Vec<PathBuf>,
    pub(crate) devices: Vec<PathBuf>,
    pub(crate) shape: Shape,
    pub(crate) memory: Arc<OwnedFd>,
    /// Beside the channel, the monitor's own socket, and the memory: what it finds at 6.
    pub(crate) state: Option<OwnedFd>,
    pub(crate) launcher: &'a Control,
    pub(crate) image: ImageFiles,
    pub(crate) key: String,
    /// The monitor's name and version.
    pub(crate) version: String,
}

/// A machine. Dropping it ends it.
#[derive(Debug)]
pub struct Machine {
    pub(crate) shape: Shape,
    pub(crate) memory: Arc<OwnedFd>,
    pub(crate) monitor: UnixStream,
    /// Whether the monitor was greeted: it says who it is once in its life.
    pub(crate) greeted: AtomicBool,
    pub(crate) image: ImageFiles,
    /// Of the snapshot that it came from, or is to become.
    pub(crate) key: String,
    version: String,
    stream: UnixStream,
    /// The first process of the jail; killing it ends all.
    first: OwnedFd,
    report: Report,
    console: OwnedFd,
    complaints: OwnedFd,
    line: Mutex<Line>,
}

/// What the jail says of its program.
#[derive(Debug)]
struct Line {
    /// `None` once it was closed.
    control: Option<Control>,
    status: Option<i32>,
}

impl Machine {
    /// Starts a monitor and waits until it is confined.
    pub(crate) fn start(start: Start<'_>) -> Result<Self, VmmError> {
        let (stream, its_stream) = UnixStream::pair().map_err(failed("socketpair"))?;
        let (monitor, its_monitor) = UnixStream::pair().map_err(failed("socketpair"))?;
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed("open /dev/null"))?;
        let (console, complaints) = (bounded_file()?, bounded_file()?);
        let (line, its_line) = Control::pair()?;
        let clone = |fd: &OwnedFd| fd.try_clone().map_err(failed("dup"));
        let mut passed = vec![its_stream.into(), its_monitor.into(), clone(&start.memory)?];
        passed.extend(start.state);
        let name = start.path.file_name().unwrap_or(start.path.as_os_str()).to_owned();
        let arguments = start.arguments.into_iter().map(Into::into);
        start.launcher.send_program(&Program {
            path: start.path,
            arguments: std::iter::once(name).chain(arguments).collect(),
            environment: vec!["PATH=/usr/bin:/bin".into(), "LC_ALL=C.UTF-8".into()],
            read: start.read,
            devices: start.devices,
            is_vmm: true,
            mem_bytes: start.shape.memory_bytes + MONITOR_BYTES,
            cpu_seconds: CPU_SECONDS,
            file_bytes: FILE_BYTES,
            processes: THREADS,
            open_files: OPEN_FILES,
            line: its_line.into(),
            standard: [null, clone(&console)?, clone(&complaints)?],
            passed,
        })?;
        let (first, report) = await_confined(&line)?;
        Ok(Self {
            shape: start.shape,
            memory: start.memory,
            monitor,
            greeted: AtomicBool::new(false),
            image: start.image,
            key: start.key,
            version: start.version,
            stream,
            first,
            report,
            console,
            complaints,
            line: Mutex::new(Line { control: Some(line), status: None }),
        })
    }

    /// The stream to the guest.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn stream(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

    /// What it is like.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The name and version of its monitor.
    #[must_use]
    pub fn monitor_version(&self) -> &str {
        &self.version
    }

    /// The layers of the monitor's jail.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Ends it. Returns at once.
    pub fn kill(&self) {
        // It fails only if the process is gone already.
        let _ = pidfd_send_signal(&self.first, Signal::KILL);
    }

    /// Has it stand still, or go on.
    pub fn hold(&self, still: bool) {
        let signal = if still { Signal::STOP } else { Signal::CONT };
        if let Some(pid) = self.pid().and_then(rustix::process::Pid::from_raw) {
            // It fails only if the process is gone already.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Whether its first process ended, and with it all others.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        let mut fds = [PollFd::new(&self.first, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut fds, Some(&now)), Ok(1))
    }

    /// Waits until it is gone.
    pub fn wait(&self, patience: Duration) {
        let mut fds = [PollFd::new(&self.first, PollFlags::IN)];
        let timeout = Timespec::try_from(patience).ok();
        let _ = poll(&mut fds, timeout.as_ref());
    }

    /// The number of the monitor's process in the host's pid namespace, while it lives.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        let info = format!("/proc/self/fdinfo/{}", self.first.as_raw_fd());
        let info = fs::read_to_string(info).ok()?;
        let first = info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim();
        first.parse::<i32>().ok().filter(|pid| *pid > 0)?;
        let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children")).ok()?;
        children.split_ascii_whitespace().next()?.parse().ok()
    }

    /// How its program ended, as `wait` gives it, if that is known by now.
    pub fn status(&self) -> Option<i32> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(control) = line.control.take() {
            let mut status = None;
            let heard = control.recv_program_event(|event| {
                if let ProgramEvent::Ended(ended) = event {
                    status = Some(ended);
                }
            });
            line.status = line.status.or(status);
            match heard {
                Ok(Some(())) => line.control = Some(control),
                Ok(None) => {
                    line.control = Some(control);
                    break;
                }
                Err(_) => {}
            }
        }
        line.status
    }

    /// The last words on the guest's console and of the monitor, for an error.
    #[must_use]
    pub fn last_words(&self) -> String {
        let words = [&self.complaints, &self.console].map(tail);
        words.into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join("; ")
    }

    /// Waits until the guest says that it is there.
    ///
    /// # Errors
    /// [`VmmError::Slow`], [`VmmError::Guest`] with its own words, [`VmmError::Ended`].
    pub fn await_booted(&self, patience: Duration) -> Result<(), VmmError> {
        let stream = self.stream().map_err(failed("dup"))?;
        stream.set_read_timeout(Some(patience)).map_err(failed("setsockopt"))?;
        let heard = StreamReader::new(&stream).hear();
        stream.set_read_timeout(None).map_err(failed("setsockopt"))?;
        match heard {
            Ok(Some(Told::Booted)) => Ok(()),
            Ok(Some(Told::Fatal(why))) => Err(VmmError::Guest(why)),
            Ok(None) => Err(VmmError::Ended(self.obituary())),
            Err(pyisolate_channel::relay::RelayError::Stream(error))
                if error.kind() == io::ErrorKind::WouldBlock =>
            {
                let words = self.last_words();
                let console = if words.is_empty() { words } else { format!("; it said: {words}") };
                Err(VmmError::Slow { patience, console })
            }
            Ok(Some(_)) => Err(VmmError::Guest("it said something else first".to_owned())),
            Err(error) => Err(VmmError::Guest(error.to_string())),
        }
    }

    /// Why it ended, as far as that can be told: waits a moment for what is still under way.
    #[must_use]
    pub fn obituary(&self) -> String {
        self.wait(Duration::from_secs(2));
        let status = self.status().map_or_else(
            || "it was killed".to_owned(),
            |status| match (status & 0x7f, status >> 8) {
                (0, status) => format!("status {status}"),
                (signal, _) => format!("signal {signal}"),
            },
        );
        match self.last_words() {
            words if words.is_empty() => status,
            words => format!("{status}; it said: {words}"),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until the program is confined and about to run: the jail's first process and its report.
fn await_confined(line: &Control) -> Result<(OwnedFd, Report), VmmError> {
    let deadline = Instant::now() + BIRTH_PATIENCE;
    let (mut first, mut report) = (None, None);
    loop {
        if let (Some(_), Some(_)) = (&first, &report) {
            break;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(VmmError::Jail(format!("not built within {} s", BIRTH_PATIENCE.as_secs())));
        }
        let mut fds = [PollFd::from_borrowed_fd(line.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(failed("poll")(errno)),
        }
        let heard = line.recv_program_event(|event| match event {
            ProgramEvent::Started(pidfd) => {
                first = Some(pidfd);
                Ok(())
            }
            ProgramEvent::Confined(text) => {
                report = Some(Report::decode(text.as_bytes()));
                Ok(())
            }
            ProgramEvent::NotExecuted(errno) => {
                Err(VmmError::Jail(io::Error::from_raw_os_error(errno).to_string()))
            }
            ProgramEvent::Failed(why) => Err(VmmError::Jail(why.to_owned())),
            ProgramEvent::Ended(status) => {
                Err(VmmError::Jail(format!("it ended with status {status}")))
            }
        });
        match heard {
            Ok(Some(heard)) => heard?,
            Ok(None) => {}
            Err(ControlError::Gone) => {
                return Err(VmmError::Jail("the launcher ended".to_owned()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let report = match report {
        Some(Ok(report)) => report,
        _ => return Err(VmmError::Jail("its report is none".to_owned())),
    };
    let first = first.ok_or(VmmError::Jail("it has no first process".to_owned()))?;
    Ok((first, report))
}

/// A file in memory that takes so much and no more: who floods it loses what comes after.
fn bounded_file() -> Result<OwnedFd, VmmError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file =
        rustix::fs::memfd_create("pyisolate-console", flags).map_err(failed("memfd_create"))?;
    rustix::fs::ftruncate(&file, CONSOLE_BYTES as u64).map_err(failed("ftruncate"))?;
    let seals = SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).map_err(failed("fcntl"))?;
    Ok(file)
}

/// The end of what was written to a bounded file, on one line.
fn tail(file: &OwnedFd) -> String {
    let mut bytes = vec![0; CONSOLE_BYTES];
    let count = rustix::io::pread(file, &mut bytes, 0).unwrap_or(0);
    let written = &bytes[..count];
    let end = written.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let text = String::from_utf8_lossy(&written[end.saturating_sub(TOLD_BYTES)..end]);
    let lines = text.lines().map(|line| line.trim_end_matches('\r').trim());
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" | ")
}
