//! The one file of xtask that starts programs.
//!
//! The workspace bans `Command::new`, because in the product nothing but the launcher may be
//! started. A chore runner starts programs by trade, so it lifts the ban here, and only here.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::counts::{Counts, strip_ansi};
use crate::error::XtaskError;
use crate::workspace;

/// How long to wait for the last bytes of a program that has ended. They are in the pipe already;
/// only a grandchild that kept the pipe open makes this wait count.
const DRAIN: Duration = Duration::from_secs(1);

/// A command that will run in the checkout's top folder.
#[expect(
    clippy::disallowed_methods,
    reason = "xtask is no part of the product: starting programs is its job"
)]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace::root());
    command
}

/// The cargo that started us, so that a `+toolchain` choice is kept.
pub(crate) fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// What a finished program printed.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Which stream carries a test runner's closing line.
#[derive(Clone, Copy)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Runs to the end, with our own streams; anything but success is an error.
pub(crate) fn run(step: &str, command: &mut Command) -> Result<(), XtaskError> {
    let status = command.status().map_err(|source| start_error(command, source))?;
    succeed(step, status)
}

/// Runs to the end and passes the output on as it comes, counting the tests it reports.
pub(crate) fn run_counted(
    step: &str,
    command: &mut Command,
    stream: Stream,
) -> Result<(Counts, ExitStatus), XtaskError> {
    match stream {
        Stream::Stdout => command.stdout(Stdio::piped()),
        Stream::Stderr => command.stderr(Stdio::piped()),
    };
    let mut child = command.spawn().map_err(|source| start_error(command, source))?;
    let failed = |source| XtaskError::Start { program: step.to_owned(), source };
    let text = match stream {
        Stream::Stdout => child.stdout.take().map(|pipe| tee(pipe, io::stdout())),
        Stream::Stderr => child.stderr.take().map(|pipe| tee(pipe, io::stderr())),
    };
    let text = text.transpose().map_err(failed)?.unwrap_or_default();
    let status = child.wait().map_err(failed)?;
    Ok((Counts::from_output(&strip_ansi(&text)), status))
}

/// Runs with no input and both outputs taken; kills it once `limit` has passed.
pub(crate) fn output_within(
    step: &str,
    command: &mut Command,
    limit: Duration,
) -> Result<Finished, XtaskError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|source| start_error(command, source))?;
    let stdout = child.stdout.take().map(drain);
    let stderr = child.stderr.take().map(drain);
    let status = wait_within(step, &mut child, limit)?;
    let text = |drained: Option<mpsc::Receiver<String>>| {
        drained.and_then(|text| text.recv_timeout(DRAIN).ok()).unwrap_or_default()
    };
    Ok(Finished { status, stdout: text(stdout), stderr: text(stderr) })
}

pub(crate) fn succeed(step: &str, status: ExitStatus) -> Result<(), XtaskError> {
    if status.success() {
        return Ok(());
    }
    Err(XtaskError::Failed { step: step.to_owned(), status })
}

fn wait_within(step: &str, child: &mut Child, limit: Duration) -> Result<ExitStatus, XtaskError> {
    const POLL: Duration = Duration::from_millis(5);
    let failed = |source| XtaskError::Start { program: step.to_owned(), source };
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            kill_group(child).map_err(failed)?;
            child.wait().map_err(failed)?;
            return Err(XtaskError::TimedOut { step: step.to_owned(), seconds: limit.as_secs() });
        }
        thread::sleep(POLL);
    }
}

/// Kills a program that leads a process group, and with it whatever it started: a shim's children
/// would otherwise live on. The standard library can only kill the leader.
fn kill_group(leader: &mut Child) -> io::Result<()> {
    let group = format!("-{}", leader.id());
    let killed = command("kill").args(["-KILL", "--", &group]).status();
    if killed.is_ok_and(|status| status.success()) { Ok(()) } else { leader.kill() }
}

/// Reads to the end on a thread of its own, so that a full pipe never stalls the program.
fn drain(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What arrived before a read error is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
        // Nobody listens any more after a time-out; then the text has no use.
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// Passes bytes on as they come, whole lines or not, and returns all of them at the end.
fn tee(mut from: impl Read, mut to: impl Write) -> io::Result<String> {
    let mut all = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&buffer[..length])?;
        to.flush()?;
        all.extend_from_slice(&buffer[..length]);
    }
    Ok(String::from_utf8_lossy(&all).into_owned())
}

fn start_error(command: &Command, source: io::Error) -> XtaskError {
    XtaskError::Start { program: command.get_program().to_string_lossy().into_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut shell = command("sh");
        shell.args(["-c", script]);
        shell
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let started = Instant::now();
        let folder = tempfile::tempdir().expect("a folder");
        let note = folder.path().join("pid");
        let mut hanging = shell(&format!("sleep 60 & echo $! > '{}'; wait", note.display()));
        let outcome = output_within("it", &mut hanging, Duration::from_secs(1));
        assert!(matches!(outcome, Err(XtaskError::TimedOut { .. })));
        assert!(started.elapsed() < Duration::from_secs(30));
        let pid = std::fs::read_to_string(note).expect("the shell wrote it");
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        let gone = || state().is_err() || state().is_ok_and(|stat| stat.contains(") Z "));
        while !gone() {
            assert!(started.elapsed() < Duration::from_secs(30), "the child outlived its parent");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn both_outputs_come_back() {
        let mut both = shell("echo out; echo err >&2; exit 3");
        let finished = output_within("it", &mut both, Duration::from_secs(30)).expect("it ends");
        assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(finished.status.code(), Some(3));
    }

    #[test]
    fn passes_output_on_while_counting() {
        let mut passed_on = Vec::new();
        let text = tee(&b"no newline at the end"[..], &mut passed_on).expect("memory");
        assert_eq!(text.as_bytes(), passed_on);
    }
}
