//! Runs programs in a jail and outside, and says what they came to.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use pyisolate_jail::{Command, CommandError, CommandEvent, CommandFilter, Rlimits, spawn_command};
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::common::wait;

/// What a run came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The exit code, or minus the signal.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) report: String,
}

pub(crate) struct Running {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) line: OwnedFd,
    pub(crate) stdout: File,
    pub(crate) stderr: File,
}

pub(crate) struct Trial {
    pub(crate) command: Command,
    pub(crate) stdin: Vec<u8>,
}

pub(crate) fn trial(program: &str, arguments: &[&str]) -> Trial {
    let text = |text: &str| CString::new(text).unwrap();
    Trial {
        command: Command {
            program: PathBuf::from(program),
            arguments: std::iter::once(&program).chain(arguments).map(|it| text(it)).collect(),
            environment: ["PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp"].map(text).to_vec(),
            read: Vec::new(),
            devices: Vec::new(),
            limits: Rlimits { threads: Some(64), file_bytes: Some(1 << 20), ..Rlimits::fixed() },
        },
        stdin: Vec::new(),
    }
}

pub(crate) fn shell(script: &str) -> Trial {
    trial("/bin/bash", &["-c", script])
}

impl Trial {
    pub(crate) fn reading(mut self, path: &Path) -> Self {
        self.command.read.push(path.to_path_buf());
        self
    }

    pub(crate) fn start(&self) -> Result<Running, CommandError> {
        let stdin = memfd_create("stdin", MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&stdin, &self.stdin).unwrap();
        rustix::fs::seek(&stdin, SeekFrom::Start(0)).unwrap();
        let (stdout, out) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (stderr, err) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (line, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let say = |event: CommandEvent<'_>| {
            let text = match event {
                CommandEvent::Confined(report) => format!("C{report}"),
                CommandEvent::NotExecuted(errno) => format!("N{errno}"),
                CommandEvent::Failed(why) => format!("F{why}"),
                CommandEvent::Ended(status) => format!("E{status}"),
            };
            let _ = rustix::net::send(&theirs, text.as_bytes(), SendFlags::NOSIGNAL);
        };
        let filter = CommandFilter::compile().unwrap();
        let standard = [stdin, out, err];
        let outer = spawn_command(&self.command, &filter, &standard, &[], theirs.as_fd(), &say)?;
        Ok(Running {
            pid: outer.pid,
            pidfd: outer.pidfd,
            line,
            stdout: stdout.into(),
            stderr: stderr.into(),
        })
    }

    pub(crate) fn run(&self) -> Outcome {
        self.start().unwrap().finish()
    }
}

impl Running {
    pub(crate) fn finish(mut self) -> Outcome {
        let mut outcome = Outcome::default();
        let mut stderr = self.stderr;
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let mut bytes = Vec::new();
        self.stdout.read_to_end(&mut bytes).unwrap();
        outcome.stdout = String::from_utf8_lossy(&bytes).into_owned();
        outcome.stderr = String::from_utf8_lossy(&reader.join().unwrap()).into_owned();
        wait(self.pid);
        let mut events = Vec::new();
        loop {
            let mut bytes = vec![0; 8192];
            match rustix::net::recv(&self.line, &mut bytes, rustix::net::RecvFlags::empty()) {
                Ok((0, _)) | Err(_) => break,
                Ok((count, _)) => {
                    events.push(String::from_utf8_lossy(&bytes[..count]).into_owned());
                }
            }
        }
        let mut events = events.iter().map(|event| event.split_at(1));
        outcome.code = i32::MIN;
        for (kind, text) in &mut events {
            match kind {
                "C" => outcome.report = text.to_owned(),
                "N" => outcome.stderr = format!("not executed: {text}"),
                "E" => {
                    let status: i32 = text.parse().unwrap();
                    outcome.code = if libc::WIFSIGNALED(status) {
                        -libc::WTERMSIG(status)
                    } else {
                        libc::WEXITSTATUS(status)
                    };
                }
                _ => panic!("the jail failed: {text}"),
            }
        }
        outcome
    }

    pub(crate) fn kill(&self) {
        rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL).unwrap();
    }
}

/// The same outside of any jail: the control.
pub(crate) fn outside(program: &str, arguments: &[&str]) -> Outcome {
    #[expect(clippy::disallowed_methods, reason = "the control, outside any jail")]
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    Outcome {
        code: output.status.code().unwrap_or(i32::MIN),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        report: String::new(),
    }
}

pub(crate) fn shell_outside(script: &str) -> Outcome {
    outside("/bin/bash", &["-c", script])
}
