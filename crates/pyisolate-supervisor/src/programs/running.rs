//! One program under way.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use pyisolate_broker::{Command, EndedBy, Finished, RunError};
use pyisolate_channel::control::{Control, ControlError, Program, ProgramEvent};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, memfd_create};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, pidfd_send_signal};
use rustix::time::Timespec;

use super::footprint;

/// Processes and threads of one program at a time: a shell's pipeline, or a tool with a few helpers.
const PROCESSES: u64 = 64;
/// Descriptors of each of its processes, as many as most systems give.
const OPEN_FILES: u64 = 1024;
/// The length of each of its files, in bytes; its scratch folder holds less.
const FILE_BYTES: u64 = 64 << 20;
/// How long a jail may take to be built: some ten milliseconds, unless the machine is starved.
const BIRTH_PATIENCE: Duration = Duration::from_secs(30);
/// How long a killed program may take to be gone before it is waited for no more.
const GRACE: Duration = Duration::from_secs(5);
/// How often a running program's memory is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How much output is read at a time, in bytes: what a pipe holds.
const CHUNK_BYTES: usize = 64 * 1024;

/// The host lacks descriptors or memory for one more program.
pub(super) fn no_room(error: Errno) -> RunError {
    RunError::Launcher(format!("no program can be started: {}", io::Error::from(error)))
}

/// A program that was asked for. Dropping it ends it.
pub(super) struct Running {
    /// Closed when its first process has ended, or was never made.
    line: Option<Control>,
    /// Its first process, once that runs.
    pidfd: Option<OwnedFd>,
    stdout: Stream,
    stderr: Stream,
    phase: Phase,
    /// When the phase is over.
    deadline: Instant,
    next_look: Instant,
    /// Whether it used too much memory when it was looked at last.
    large: bool,
    status: Option<i32>,
    failed: Option<RunError>,
    ended: Option<EndedBy>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Its jail is being built.
    Unborn,
    /// It runs.
    Alive,
    /// It was killed.
    Ending,
}

/// What it writes on one descriptor.
struct Stream {
    pipe: Option<OwnedFd>,
    bytes: Vec<u8>,
}

impl Running {
    /// Asks the launcher for it.
    pub(super) fn start(launcher: &Control, command: &Command) -> Result<Self, RunError> {
        let (stdout, its_stdout) = pipe_with(PipeFlags::CLOEXEC).map_err(no_room)?;
        let (stderr, its_stderr) = pipe_with(PipeFlags::CLOEXEC).map_err(no_room)?;
        for pipe in [&stdout, &stderr] {
            // This end alone: the program's is another open file.
            rustix::fs::fcntl_setfl(pipe, OFlags::NONBLOCK).map_err(no_room)?;
        }
        let stdin = standard_input(&command.stdin).map_err(no_room)?;
        let gone = |error: ControlError| RunError::Launcher(error.to_string());
        let (line, its_line) = Control::pair().map_err(gone)?;
        let program = Program {
            path: command.program.clone(),
            arguments: arguments(command),
            environment: environment(command),
            read: command.read.clone(),
            devices: Vec::new(),
            is_vmm: false,
            mem_bytes: command.mem_bytes,
            // The clock on the wall is the one that counts; this is for what outruns it on several
            // processors.
            cpu_seconds: command.wall_time.as_secs() + 2,
            file_bytes: FILE_BYTES,
            processes: PROCESSES,
            open_files: OPEN_FILES,
            line: its_line.into(),
            standard: [stdin, its_stdout, its_stderr],
            passed: Vec::new(),
        };
        launcher.send_program(&program).map_err(|error| match error {
            ControlError::Malformed => RunError::Jail("the request is too long".to_owned()),
            error => gone(error),
        })?;
        let stream = |pipe| Stream { pipe: Some(pipe), bytes: Vec::new() };
        let now = Instant::now();
        Ok(Self {
            line: Some(line),
            pidfd: None,
            stdout: stream(stdout),
            stderr: stream(stderr),
            phase: Phase::Unborn,
            deadline: now + BIRTH_PATIENCE,
            next_look: now,
            large: false,
            status: None,
            failed: None,
            ended: None,
        })
    }

    /// Follows it to its end, or to the end of `command`'s patience. `confined` hears the report of
    /// its jail.
    pub(super) fn follow(
        mut self,
        command: &Command,
        stop: &OwnedFd,
        confined: &dyn Fn(&str),
    ) -> Result<Finished, RunError> {
        while self.line.is_some() || self.stdout.pipe.is_some() || self.stderr.pipe.is_some() {
            if Instant::now() >= self.deadline {
                match self.phase {
                    Phase::Unborn => {
                        let why =
                            format!("no program started within {} s", BIRTH_PATIENCE.as_secs());
                        return Err(RunError::Launcher(why));
                    }
                    Phase::Alive => self.end(EndedBy::WallTime),
                    Phase::Ending => break,
                }
            }
            if self.wait(stop)? && self.phase != Phase::Ending {
                self.end(EndedBy::Cancelled);
            }
            self.hear(command, confined);
            self.read(command.output_bytes);
            self.look(command.mem_bytes);
        }
        self.finish()
    }

    /// Waits until something can be heard or read, or until it is time to look. Returns whether the
    /// cell has ended.
    fn wait(&self, stop: &OwnedFd) -> Result<bool, RunError> {
        let until = match self.phase {
            Phase::Alive => self.deadline.min(self.next_look),
            Phase::Unborn | Phase::Ending => self.deadline,
        };
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        // It stays rung, and is of no more interest once the program was killed.
        let stop = (self.phase != Phase::Ending).then(|| stop.as_fd());
        let line = self.line.as_ref().map(AsFd::as_fd);
        let pipes =
            [&self.stdout, &self.stderr].map(|stream| stream.pipe.as_ref().map(AsFd::as_fd));
        let mut fds: Vec<_> = stop
            .into_iter()
            .chain(line)
            .chain(pipes.into_iter().flatten())
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => Ok(stop.is_some() && !fds[0].revents().is_empty()),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(no_room(error)),
        }
    }

    /// Takes what was said on the line.
    fn hear(&mut self, command: &Command, confined: &dyn Fn(&str)) {
        while let Some(line) = self.line.take() {
            let heard = line.recv_program_event(|event| match event {
                ProgramEvent::Started(pidfd) => {
                    self.pidfd = Some(pidfd);
                    if self.phase == Phase::Ending {
                        self.kill();
                    }
                }
                ProgramEvent::Confined(report) => {
                    confined(report);
                    if self.phase == Phase::Unborn {
                        self.phase = Phase::Alive;
                        self.deadline = Instant::now() + command.wall_time;
                    }
                }
                ProgramEvent::NotExecuted(errno) => {
                    self.failed = Some(RunError::Exec(io::Error::from_raw_os_error(errno)));
                }
                ProgramEvent::Failed(why) => {
                    self.failed.get_or_insert_with(|| RunError::Jail(why.to_owned()));
                }
                ProgramEvent::Ended(status) => self.status = Some(status),
            });
            match heard {
                Ok(Some(())) => self.line = Some(line),
                Ok(None) => {
                    self.line = Some(line);
                    return;
                }
                // Closed at its other end, or of no more use: closed at this end, too.
                Err(ControlError::Gone) => {}
                Err(error) => {
                    self.failed.get_or_insert_with(|| RunError::Jail(error.to_string()));
                }
            }
        }
    }

    /// Takes what it wrote, up to `output_bytes` in all; what comes after is thrown away.
    fn read(&mut self, output_bytes: u64) {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut written = (self.stdout.bytes.len() + self.stderr.bytes.len()) as u64;
        let mut excess = false;
        for stream in [&mut self.stdout, &mut self.stderr] {
            // Once each: a program that writes without end must not keep this from the clock.
            let Some(pipe) = &stream.pipe else { continue };
            match rustix::io::read(pipe, &mut chunk) {
                Ok(0) => stream.pipe = None,
                Ok(count) => {
                    let room = usize::try_from(output_bytes - written).unwrap_or(usize::MAX);
                    excess |= count > room;
                    let kept = count.min(room);
                    stream.bytes.extend_from_slice(&chunk[..kept]);
                    written += kept as u64;
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                // A pipe that cannot be read says nothing more.
                Err(_) => stream.pipe = None,
            }
        }
        if excess && self.phase != Phase::Ending {
            self.end(EndedBy::Output);
        }
    }

    /// Looks at its memory, if it is time to. The kernel's limits hold for each of its processes;
    /// this is for all of them.
    fn look(&mut self, mem_bytes: u64) {
        let now = Instant::now();
        let Some(pidfd) = self.pidfd.as_ref() else { return };
        if self.phase != Phase::Alive || now < self.next_look {
            return;
        }
        self.next_look = now + LOOK;
        let large = footprint::exceeds(pidfd, mem_bytes);
        // Twice: between a fork and what the child executes, the same memory is seen in both.
        if large && self.large {
            self.end(EndedBy::Memory);
        }
        self.large = large;
    }

    fn end(&mut self, by: EndedBy) {
        self.ended = Some(by);
        self.phase = Phase::Ending;
        self.deadline = Instant::now() + GRACE;
        self.kill();
        if self.pidfd.is_none() {
            // Its jail is being built: nobody listening to it any more is what ends it.
            self.line = None;
            self.stdout.pipe = None;
            self.stderr.pipe = None;
        }
    }

    fn kill(&self) {
        if let Some(pidfd) = &self.pidfd {
            // It fails only if the process is gone already.
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
    }

    fn finish(mut self) -> Result<Finished, RunError> {
        let finished = |returncode, this: Self| Finished {
            returncode,
            stdout: this.stdout.bytes,
            stderr: this.stderr.bytes,
            ended: this.ended,
        };
        match (self.ended, self.failed.take(), self.status) {
            (Some(_), ..) => Ok(finished(-Signal::KILL.as_raw(), self)),
            (None, Some(error), _) => Err(error),
            (None, None, Some(status)) => Ok(finished(returncode(status), self)),
            (None, None, None) => {
                Err(RunError::Launcher("it ended while the program was under way".to_owned()))
            }
        }
    }
}

/// A wait status as an exit status, or as the negative number of a signal.
fn returncode(status: i32) -> i32 {
    // As wait(2) lays it out: the signal in the low seven bits, the exit status above.
    match (status & 0x7f, (status >> 8) & 0xff) {
        (0, status) => status,
        (signal, _) => -signal,
    }
}

/// All arguments, the program's name first.
fn arguments(command: &Command) -> Vec<OsString> {
    let name = command.program.file_name().unwrap_or(command.program.as_os_str());
    let arguments = command.args.iter().map(OsString::from);
    std::iter::once(name.to_owned()).chain(arguments).collect()
}

/// What every program gets, and what its rule gives it, which wins.
fn environment(command: &Command) -> Vec<OsString> {
    let common =
        [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LC_ALL", "C.UTF-8"), ("HOME", "/tmp")];
    let common = common.into_iter().filter(|(name, _)| !command.env.contains_key(*name));
    let own = command.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    common.chain(own).map(|(name, value)| OsString::from(format!("{name}={value}"))).collect()
}

/// A descriptor at whose start the bytes are, for nobody to change or to execute.
fn standard_input(bytes: &[u8]) -> Result<OwnedFd, Errno> {
    if bytes.is_empty() {
        return rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    }
    let name = "pyisolate-stdin";
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create(name, flags)?, // before Linux 6.3
        other => other?,
    };
    let mut offset = 0;
    while offset < bytes.len() {
        match rustix::io::pwrite(&memory, &bytes[offset..], offset as u64) {
            Ok(count) => offset += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memory, seals)?;
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_statuses_become_return_codes() {
        assert_eq!([0, 7 << 8, 9, 6 | 0x80].map(returncode), [0, 7, -9, -6]);
    }

    #[test]
    fn standard_input_cannot_be_changed() {
        let input = standard_input(b"word").unwrap();
        assert_eq!(rustix::io::pwrite(&input, b"x", 0), Err(Errno::PERM));
        let mut word = [0; 4];
        assert_eq!(rustix::io::read(&input, &mut word), Ok(4));
        assert_eq!(&word, b"word");
    }
}
