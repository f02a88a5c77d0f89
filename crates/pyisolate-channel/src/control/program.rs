//! Programs: what the supervisor asks of the launcher, and what comes back on each program's line.
//!
//! The request itself can be long, so it lies in a memory file. The line is a socket of the
//! program's own: the launcher and the first process in the program's jail write to it, the
//! supervisor reads, and closing its end ends the program.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, memfd_create};

use super::{Control, ControlError, Datagram, failed};

/// The longest request, in bytes: arguments of 128 KiB, and as much again for what a policy gives
/// (the environment, the folders to be read), several times over.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;

/// The most descriptors that a program is handed beside its standard streams: a virtual machine's
/// channel, its monitor, its memory and its state.
pub const PASSED_MAX: usize = 4;

/// A program to be run in a jail of its own.
#[derive(Debug)]
pub struct Program {
    /// An absolute path.
    pub path: PathBuf,
    /// All arguments, the program's name first.
    pub arguments: Vec<OsString>,
    /// Its whole environment, `NAME=value` each.
    pub environment: Vec<OsString>,
    /// What it can read beside the system's own folders.
    pub read: Vec<PathBuf>,
    /// Devices of the host's that it can use, beside those that every program has.
    pub devices: Vec<PathBuf>,
    /// Whether it is a virtual machine's monitor, which confines itself further and drives
    /// `/dev/kvm`.
    pub is_vmm: bool,
    /// The memory of each of its processes, in bytes.
    pub mem_bytes: u64,
    /// The CPU time of each of its processes, in seconds.
    pub cpu_seconds: u64,
    /// The length of each of its files, in bytes.
    pub file_bytes: u64,
    /// How many processes and threads it may have at a time.
    pub processes: u64,
    /// How many descriptors each of its processes may have.
    pub open_files: u64,
    /// Where is said what becomes of it.
    pub line: OwnedFd,
    /// Its standard input, output and error.
    pub standard: [OwnedFd; 3],
    /// What it finds open under the numbers from 3 on, at most [`PASSED_MAX`].
    pub passed: Vec<OwnedFd>,
}

/// What is said on a program's line.
#[derive(Debug)]
pub enum ProgramEvent<'a> {
    /// Its first process runs. Killing that one ends the program.
    Started(OwnedFd),
    /// Every layer of its jail is applied, with this report, and it is executed next.
    Confined(&'a str),
    /// It cannot be executed, for this reason.
    NotExecuted(i32),
    /// Its jail could not be built.
    Failed(&'a str),
    /// It ended, with this status as `wait` gives it.
    Ended(i32),
}

impl Control {
    /// Asks the launcher for a program.
    ///
    /// # Errors
    /// [`ControlError::Gone`] if the launcher ended, [`ControlError::Malformed`] if the request is
    /// longer than [`REQUEST_BYTES_MAX`], or hands over too many descriptors.
    pub fn send_program(&self, program: &Program) -> Result<(), ControlError> {
        let request = encode(program);
        if request.len() > REQUEST_BYTES_MAX || program.passed.len() > PASSED_MAX {
            return Err(ControlError::Malformed);
        }
        let memory = memfd_create("pyisolate-program", MemfdFlags::CLOEXEC)
            .map_err(failed("memfd_create"))?;
        let mut memory = File::from(memory);
        memory
            .write_all(&request)
            .map_err(|source| ControlError::Call { call: "write", source })?;
        let [stdin, stdout, stderr] = &program.standard;
        let memory: OwnedFd = memory.into();
        let fds = [&program.line, &memory, stdin, stdout, stderr];
        let fds: Vec<_> = fds.into_iter().chain(&program.passed).map(AsFd::as_fd).collect();
        self.send(b'P', 0, 0, &[], &fds)
    }

    /// Takes the next request for a program, waiting for it.
    ///
    /// # Errors
    /// [`ControlError::Gone`] if the supervisor ended, [`ControlError::Malformed`] for what is no
    /// request.
    pub fn recv_program(&self) -> Result<Program, ControlError> {
        let Datagram { tag, mut fds, .. } = self.recv(true)?.ok_or(ControlError::Malformed)?;
        let passed = fds.split_off(fds.len().min(5));
        let fds = <[OwnedFd; 5]>::try_from(fds).map_err(|_| ControlError::Malformed)?;
        let [line, memory, stdin, stdout, stderr] = fds;
        if tag != b'P' {
            return Err(ControlError::Malformed);
        }
        let mut bytes = Vec::new();
        let mut memory = File::from(memory);
        memory
            .seek(SeekFrom::Start(0))
            .and_then(|_| memory.take(REQUEST_BYTES_MAX as u64).read_to_end(&mut bytes))
            .map_err(|source| ControlError::Call { call: "read", source })?;
        decode(&bytes, line, [stdin, stdout, stderr], passed).ok_or(ControlError::Malformed)
    }

    /// Says something on a program's line. Allocates nothing.
    ///
    /// # Errors
    /// [`ControlError::Gone`] if the supervisor listens no more.
    pub fn send_program_event(&self, event: &ProgramEvent<'_>) -> Result<(), ControlError> {
        match event {
            ProgramEvent::Started(pidfd) => self.send(b's', 0, 0, &[], &[pidfd.as_fd()]),
            ProgramEvent::Confined(report) => self.send(b'c', 0, 0, report.as_bytes(), &[]),
            ProgramEvent::NotExecuted(errno) => self.send(b'n', 0, *errno, &[], &[]),
            ProgramEvent::Failed(why) => self.send(b'!', 0, 0, why.as_bytes(), &[]),
            ProgramEvent::Ended(status) => self.send(b'e', 0, *status, &[], &[]),
        }
    }

    /// Takes what is next on a program's line and hands it on; `None` if there is nothing yet.
    ///
    /// # Errors
    /// [`ControlError::Gone`] at the end, [`ControlError::Malformed`] for what has no place there.
    pub fn recv_program_event<T>(
        &self,
        hear: impl FnOnce(ProgramEvent<'_>) -> T,
    ) -> Result<Option<T>, ControlError> {
        let Some(Datagram { tag, value, text, mut fds, .. }) = self.recv(false)? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&text);
        Ok(Some(hear(match (tag, fds.pop()) {
            (b's', Some(pidfd)) if fds.is_empty() => ProgramEvent::Started(pidfd),
            (b'c', None) => ProgramEvent::Confined(&text),
            (b'n', None) => ProgramEvent::NotExecuted(value),
            (b'!', None) => ProgramEvent::Failed(&text),
            (b'e', None) => ProgramEvent::Ended(value),
            _ => return Err(ControlError::Malformed),
        })))
    }
}

// --- the request: six numbers, the path, and four lists, each with its count before it

fn encode(program: &Program) -> Vec<u8> {
    let mut bytes = Vec::new();
    let numbers = [
        program.mem_bytes,
        program.cpu_seconds,
        program.file_bytes,
        program.processes,
        program.open_files,
        program.is_vmm.into(),
    ];
    for number in numbers {
        bytes.extend(number.to_le_bytes());
    }
    let mut list = |texts: &mut dyn ExactSizeIterator<Item = &[u8]>| {
        bytes.extend((texts.len() as u64).to_le_bytes());
        for text in texts {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text);
        }
    };
    list(&mut [program.path.as_os_str().as_bytes()].into_iter());
    list(&mut program.arguments.iter().map(|text| text.as_bytes()));
    list(&mut program.environment.iter().map(|text| text.as_bytes()));
    list(&mut program.read.iter().map(|path| path.as_os_str().as_bytes()));
    list(&mut program.devices.iter().map(|path| path.as_os_str().as_bytes()));
    bytes
}

fn decode(
    mut bytes: &[u8],
    line: OwnedFd,
    standard: [OwnedFd; 3],
    passed: Vec<OwnedFd>,
) -> Option<Program> {
    let bytes = &mut bytes;
    let (mem_bytes, cpu_seconds, file_bytes) = (number(bytes)?, number(bytes)?, number(bytes)?);
    let (processes, open_files, is_vmm) = (number(bytes)?, number(bytes)?, number(bytes)? != 0);
    let path = PathBuf::from(list(bytes)?.pop()?);
    let (arguments, environment) = (list(bytes)?, list(bytes)?);
    let paths = |list: Vec<OsString>| list.into_iter().map(PathBuf::from).collect();
    let (read, devices) = (paths(list(bytes)?), paths(list(bytes)?));
    bytes.is_empty().then_some(Program {
        path,
        arguments,
        environment,
        read,
        devices,
        is_vmm,
        mem_bytes,
        cpu_seconds,
        file_bytes,
        processes,
        open_files,
        line,
        standard,
        passed,
    })
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

fn list(bytes: &mut &[u8]) -> Option<Vec<OsString>> {
    let count = number(bytes)?;
    let mut texts = Vec::new();
    for _ in 0..count {
        let length = usize::try_from(number(bytes)?).ok()?;
        let (text, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        texts.push(OsString::from_vec(text.to_vec()));
    }
    Some(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any_fd() -> OwnedFd {
        Control::pair().unwrap().0.into()
    }

    fn sample(argument: &str) -> Program {
        Program {
            path: "/bin/echo".into(),
            arguments: vec!["echo".into(), argument.into(), "".into()],
            environment: vec!["A=b".into()],
            read: vec![],
            devices: vec!["/dev/kvm".into()],
            is_vmm: true,
            mem_bytes: 1,
            cpu_seconds: 2,
            file_bytes: 3,
            processes: 4,
            open_files: 5,
            line: any_fd(),
            standard: [any_fd(), any_fd(), any_fd()],
            passed: vec![any_fd(), any_fd()],
        }
    }

    #[test]
    fn a_request_arrives_as_it_was_sent() {
        let (host, launcher) = Control::pair().unwrap();
        let long = "x".repeat(128 * 1024);
        host.send_program(&sample(&long)).unwrap();
        let got = launcher.recv_program().unwrap();
        assert_eq!(got.arguments, ["echo", &long, ""]);
        assert_eq!((got.path, got.environment.len(), got.read.len()), ("/bin/echo".into(), 1, 0));
        assert_eq!((got.mem_bytes, got.processes, got.open_files), (1, 4, 5));
        assert_eq!((got.devices, got.passed.len()), (vec!["/dev/kvm".into()], 2));
        assert!(got.is_vmm);
    }

    #[test]
    fn what_hands_over_too_much_is_not_sent() {
        let (host, _launcher) = Control::pair().unwrap();
        let passed = (0..=PASSED_MAX).map(|_| any_fd()).collect();
        let sent = host.send_program(&Program { passed, ..sample("x") });
        assert!(matches!(sent, Err(ControlError::Malformed)));
    }

    #[test]
    fn a_request_that_is_too_long_is_not_sent() {
        let (host, _launcher) = Control::pair().unwrap();
        let sent = host.send_program(&sample(&"x".repeat(REQUEST_BYTES_MAX)));
        assert!(matches!(sent, Err(ControlError::Malformed)));
    }

    #[test]
    fn no_truncation_is_taken_for_a_request() {
        let whole = encode(&sample("x"));
        for end in 0..whole.len() {
            let standard = [any_fd(), any_fd(), any_fd()];
            assert!(decode(&whole[..end], any_fd(), standard, vec![]).is_none(), "{end}");
        }
    }

    #[test]
    fn events_arrive_in_order_and_then_the_end() {
        let (host, jail) = Control::pair().unwrap();
        let hear = |event: ProgramEvent<'_>| match event {
            ProgramEvent::Started(_) => "started".to_owned(),
            ProgramEvent::Confined(report) => report.to_owned(),
            ProgramEvent::NotExecuted(errno) => errno.to_string(),
            ProgramEvent::Failed(why) => why.to_owned(),
            ProgramEvent::Ended(status) => status.to_string(),
        };
        assert!(host.recv_program_event(hear).unwrap().is_none());
        for event in [
            ProgramEvent::Started(any_fd()),
            ProgramEvent::Confined("layers"),
            ProgramEvent::NotExecuted(2),
            ProgramEvent::Failed("why"),
            ProgramEvent::Ended(256),
        ] {
            jail.send_program_event(&event).unwrap();
        }
        drop(jail);
        let heard = || host.recv_program_event(hear).unwrap().unwrap();
        assert_eq!([(); 5].map(|()| heard()), ["started", "layers", "2", "why", "256"]);
        assert!(matches!(host.recv_program_event(hear), Err(ControlError::Gone)));
    }
}
