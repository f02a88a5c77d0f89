//! Programs of the system that a build runs: within a time, with what they print kept.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal};
use thiserror::Error;

/// What is kept of a program's complaint, in bytes: its end says why.
const COMPLAINT_BYTES_MAX: usize = 2000;

/// Why a program of the system did not do its work.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// It could not be started, or not be waited for.
    #[error("cannot run {program}: {source}")]
    Run {
        /// The program.
        program: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// It failed.
    #[error("{program} failed ({status}): {complaint}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of what it printed to stderr.
        complaint: String,
    },
    /// It took too long and was killed.
    #[error("{program} did not end within {limit_s} s: {complaint}")]
    Slow {
        /// The program.
        program: String,
        /// The time it had, in seconds.
        limit_s: u64,
        /// The end of what it printed to stderr.
        complaint: String,
    },
}

/// A program of the system's, told to speak English.
pub(super) fn program(name: impl AsRef<std::ffi::OsStr>) -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "runs while an image is built, never beside a cell"
    )]
    let mut command = Command::new(name);
    command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    command
}

/// Runs a program to its end; returns what it printed to stdout.
///
/// # Errors
/// [`ProgramError`] if it cannot be run, fails, or takes longer than `limit`; then it and its children
/// are killed.
pub(super) fn output(command: &mut Command, limit: Duration) -> Result<Vec<u8>, ProgramError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |source: std::io::Error| ProgramError::Run { program: program.clone(), source };
    let memory = |name| {
        rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).map(File::from).map_err(Into::into)
    };
    // Files rather than pipes: a program cannot fill them and wait for a reader.
    let mut out: File = memory("pyisolate-program-stdout").map_err(failed)?;
    let mut error: File = memory("pyisolate-program-stderr").map_err(failed)?;
    let mut child = command
        .stdout(out.try_clone().map_err(failed)?)
        .stderr(error.try_clone().map_err(failed)?)
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let ended = wait(&mut child, limit).map_err(failed)?;
    let read = |file: &mut File| {
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(failed)?;
        Ok::<_, ProgramError>(bytes)
    };
    let complaint = |bytes: Vec<u8>| {
        let start = bytes.len().saturating_sub(COMPLAINT_BYTES_MAX);
        String::from_utf8_lossy(&bytes[start..]).trim().to_owned()
    };
    match ended {
        Some(status) if status.success() => read(&mut out),
        Some(status) => {
            let complaint = complaint(read(&mut error)?);
            Err(ProgramError::Failed { program, status, complaint })
        }
        None => {
            let complaint = complaint(read(&mut error)?);
            Err(ProgramError::Slow { program, limit_s: limit.as_secs(), complaint })
        }
    }
}

/// How it ended; `None` if it had to be killed.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<std::process::ExitStatus>> {
    let deadline = Instant::now() + limit;
    let pid = Pid::from_child(child);
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(std::io::Error::other)?;
        let mut ready = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
        match poll(&mut ready, Some(&timeout)) {
            Ok(0) => break,
            Ok(_) => return child.wait().map(Some),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    // It is not waited for yet, so that the number of its group is still its own.
    rustix::process::kill_process_group(pid, Signal::KILL)?;
    child.wait()?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str) -> Command {
        let mut command = program("sh");
        command.args(["-c", text]);
        command
    }

    #[test]
    fn what_it_prints_is_kept_and_its_complaint_told() {
        let minute = Duration::from_secs(60);
        assert_eq!(output(&mut shell("printf out; printf err >&2"), minute).unwrap(), b"out");
        let error = output(&mut shell("echo no such thing >&2; exit 3"), minute).unwrap_err();
        assert!(error.to_string().contains("no such thing"), "{error}");
        let error = output(&mut program("/nowhere/at-all"), minute).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at-all"), "{error}");
    }

    #[test]
    fn one_that_takes_too_long_is_ended_with_its_children() {
        let begun = Instant::now();
        let script = "sleep 600 & echo $!>&2; wait";
        let error = output(&mut shell(script), Duration::from_millis(500)).unwrap_err();
        let ProgramError::Slow { complaint, .. } = error else { panic!("{error}") };
        assert!(begun.elapsed() < Duration::from_secs(60));
        let child = format!("/proc/{complaint}/stat");
        let deadline = Instant::now() + Duration::from_secs(10);
        // Killed at once, reaped by whoever takes orphans.
        while let Ok(stat) = std::fs::read_to_string(&child)
            && !stat.contains(") Z ")
        {
            assert!(Instant::now() < deadline, "{stat}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
