//! `subprocess`: runs a program of the policy's choice, in a jail, and returns what it wrote.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pyisolate_abi::pickle::Value;
use pyisolate_policy::{Act, CellName, CleanPath, Right, Rule, RunRight, Verdict};
use thiserror::Error;

use crate::cancel::Cancel;
use crate::outcome::{Failure, Granted, Refusal};
use crate::payload::{Payload, record};
use crate::session::Session;
use crate::task::{Pace, Task, no_action};

/// Who starts programs for the broker, which starts none itself.
pub trait Run: Send + Sync + std::fmt::Debug {
    /// Runs a program to its end, in a jail of its own. Ends it past its time, or with the cell.
    ///
    /// # Errors
    /// [`RunError`] if it did not run.
    fn run(&self, command: &Command, cancel: &Cancel) -> Result<Finished, RunError>;
}

/// A program to be run.
#[derive(Clone, Debug)]
pub struct Command {
    /// For whom: no cell may keep all the others from running programs.
    pub cell: CellName,
    /// An absolute path on the host.
    pub program: PathBuf,
    /// Everything after the program's name.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// What it can read beside the system's own folders, at the same places. No part of these paths
    /// may be a symbolic link.
    pub read: Vec<PathBuf>,
    /// Its standard input.
    pub stdin: Vec<u8>,
    /// How long it may run.
    pub wall_time: Duration,
    /// What it may write to stdout and stderr together, in bytes.
    pub output_bytes: u64,
    /// Its memory, in bytes.
    pub mem_bytes: u64,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Its exit status, or the negative number of the signal that ended it.
    pub returncode: i32,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
    /// Why it was ended, if it was.
    pub ended: Option<EndedBy>,
}

/// Why a program was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// Its time was over.
    WallTime,
    /// It wrote more than it may.
    Output,
    /// It and what it started used more memory than they may.
    Memory,
    /// The cell ended.
    Cancelled,
}

/// Why a program did not run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// There is no such program, or it may not be executed.
    #[error("the program cannot be executed: {0}")]
    Exec(std::io::Error),
    /// The process that starts programs is gone.
    #[error("the launcher is gone: {0}")]
    Launcher(String),
    /// A layer of its jail could not be applied.
    #[error("its jail could not be built: {0}")]
    Jail(String),
}

/// Arguments of one program: what a command line holds that somebody wrote.
const ARGS_MAX: usize = 1000;
/// All of them together, in bytes: the kernel's own limit for one argument.
const ARGS_BYTES_MAX: usize = 128 * 1024;
/// Standard input, in bytes: a message's usual limit. What is longer belongs into a file.
const STDIN_BYTES_MAX: usize = 16 << 20;

/// Where a bare name is looked for: what is in `PATH` inside, in the same order.
const PROGRAM_FOLDERS: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];
/// What every program's root shows anyway.
const SYSTEM_FOLDERS: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

pub(crate) fn parse(action: &str, payload: &Value) -> Result<Box<dyn Task>, Failure> {
    if action != "run" {
        return Err(no_action("subprocess", action, &["run"]));
    }
    let mut payload = Payload::new("subprocess", action, payload)?;
    let program = payload.text("program")?;
    let args = payload.texts("args")?;
    let stdin = payload.bytes_or_none("stdin")?.unwrap_or_default();
    let timeout = payload.seconds_or_none("timeout")?;
    if program.is_empty() || program.contains('\0') {
        return Err(payload.wrong("\"program\" is empty or has a NUL byte in it"));
    }
    if args.iter().any(|arg| arg.contains('\0')) {
        return Err(payload.wrong("an item of \"args\" has a NUL byte in it"));
    }
    let bytes = program.len() + args.iter().map(|arg| arg.len() + 1).sum::<usize>();
    if args.len() > ARGS_MAX || bytes > ARGS_BYTES_MAX {
        let most = format_args!("more than {ARGS_MAX} arguments, or {ARGS_BYTES_MAX} bytes in all");
        return Err(payload.wrong(most));
    }
    if stdin.len() > STDIN_BYTES_MAX {
        let most = format_args!("\"stdin\" is longer than {STDIN_BYTES_MAX} bytes");
        return Err(payload.wrong(most));
    }
    payload.end()?;
    let act = Act::Run {
        program: program.to_owned(),
        args: args.into_iter().map(str::to_owned).collect(),
    };
    Ok(Box::new(RunTask { act, stdin: stdin.to_vec(), timeout }))
}

#[derive(Debug)]
struct RunTask {
    act: Act,
    stdin: Vec<u8>,
    timeout: Option<Duration>,
}

impl Task for RunTask {
    fn act(&self) -> Option<&Act> {
        Some(&self.act)
    }

    fn pace(&self) -> Pace {
        Pace::Slow
    }

    fn perform(self: Box<Self>, session: &Session) -> Result<Granted, Refusal> {
        let right = self.right(session)?;
        let Act::Run { program, args } = self.act else {
            unreachable!("the task was made with a program")
        };
        let Some(runner) = &session.broker().runner else {
            let why = "subprocess.run: the supervisor of this host starts no programs";
            return Err(Failure::new("RuntimeError", why).into());
        };
        let wall_time = Duration::from_millis(right.wall_time_ms);
        let path = find(&program)?;
        let mut read: Vec<PathBuf> =
            right.read.iter().map(|path| PathBuf::from(path.as_str())).collect();
        if !SYSTEM_FOLDERS.iter().any(|folder| path.starts_with(folder)) {
            read.push(path.clone());
        }
        let command = Command {
            cell: session.cell().clone(),
            program: path,
            args,
            env: right.env,
            read,
            stdin: self.stdin,
            wall_time: self.timeout.map_or(wall_time, |timeout| timeout.min(wall_time)),
            output_bytes: right.output_bytes,
            mem_bytes: right.mem_bytes,
        };
        let finished =
            runner.run(&command, session.cancel()).map_err(|error| not_run(&program, &error))?;
        answer(&program, &command, finished)
    }
}

impl RunTask {
    /// The grant, as it is now: it says what the program may use.
    fn right(&self, session: &Session) -> Result<RunRight, Refusal> {
        let policy = session.policy();
        match policy.decide(&self.act) {
            Verdict { allowed: true, rule: Some(Rule { right: Right::Run(right), .. }) } => {
                Ok(right.clone())
            }
            _ => {
                session.check(&self.act)?;
                let why = "subprocess.run: the policy changed while the request was under way";
                Err(Failure::new("RuntimeError", why).into())
            }
        }
    }
}

/// The program's path. That it is the file that runs in the end is not promised, and nothing rests
/// on it: whatever lies there runs in the jail.
fn find(program: &str) -> Result<PathBuf, Failure> {
    let missing = || Failure::os(rustix::io::Errno::NOENT);
    if program.contains('/') {
        let path = CleanPath::new(program).map_err(|_| missing())?;
        return Ok(PathBuf::from(path.as_str()));
    }
    let candidates = PROGRAM_FOLDERS.iter().map(|folder| Path::new(folder).join(program));
    let executable = |path: &PathBuf| {
        path.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    candidates.into_iter().find(executable).ok_or_else(missing)
}

fn not_run(program: &str, error: &RunError) -> Refusal {
    let what = match error {
        RunError::Exec(error) => return Failure::io(error).into(),
        // Neither text is for the guest: they speak of the host.
        RunError::Launcher(_) => "could not be started: the launcher failed",
        RunError::Jail(_) => "could not be started: its jail could not be built",
    };
    tracing::warn!(program, %error, "a program was not run");
    let why = format!("subprocess.run: {program} {what}; the host's log says why");
    Failure::new("RuntimeError", why).into()
}

fn answer(program: &str, command: &Command, finished: Finished) -> Result<Granted, Refusal> {
    let failed = |kind, what: String| Err(Failure::new(kind, what).into());
    match finished.ended {
        None => Ok(record([
            ("returncode", Value::Int(finished.returncode.into())),
            ("stdout", Value::Bytes(finished.stdout)),
            ("stderr", Value::Bytes(finished.stderr)),
        ])
        .into()),
        Some(EndedBy::Cancelled) => Err(Refusal::Cancelled),
        Some(EndedBy::WallTime) => {
            let seconds = command.wall_time.as_secs_f64();
            failed(
                "TimeoutError",
                format!("subprocess.run: {program} took longer than {seconds} s"),
            )
        }
        Some(EndedBy::Output) => {
            let most = command.output_bytes;
            let what = format!(
                "[Errno 27] subprocess.run: {program} wrote more than {most} bytes: \
                 raise output_bytes in its rule"
            );
            failed("OSError", what)
        }
        Some(EndedBy::Memory) => {
            let most = command.mem_bytes;
            let what = format!(
                "subprocess.run: {program} used more than {most} bytes of memory: \
                 raise mem in its rule"
            );
            failed("MemoryError", what)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(entries: &[(&str, Value)]) -> Value {
        Value::Dict(
            entries
                .iter()
                .map(|(key, value)| (Value::Text((*key).to_owned()), value.clone()))
                .collect(),
        )
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    fn refused(entries: &[(&str, Value)]) -> String {
        let failure = parse("run", &payload(entries)).unwrap_err();
        assert_eq!(failure.kind, "ValueError");
        failure.message
    }

    #[test]
    fn payloads_are_checked() {
        let args = |args: Vec<Value>| ("args", Value::List(args));
        let git = ("program", text("git"));
        assert!(parse("run", &payload(&[git.clone(), args(vec![text("--version")])])).is_ok());
        assert!(refused(&[]).contains("\"program\" is missing"));
        assert!(refused(&[("program", text(""))]).contains("empty"));
        assert!(refused(&[("program", text("a\0b"))]).contains("NUL"));
        assert!(refused(&[git.clone(), args(vec![text("a\0")])]).contains("NUL"));
        assert!(refused(&[git.clone(), args(vec![Value::Int(1)])]).contains("a list of str"));
        assert!(refused(&[git.clone(), args(vec![text(""); 1001])]).contains("1000 arguments"));
        assert!(refused(&[git.clone(), args(vec![text(&"x".repeat(1 << 17))])]).contains("131072"));
        let long = ("stdin", Value::Bytes(vec![0; STDIN_BYTES_MAX + 1]));
        assert!(refused(&[git.clone(), long]).contains("stdin"));
        assert!(refused(&[git.clone(), ("shell", Value::Bool(true))]).contains("unknown key"));
        assert!(refused(&[git, ("timeout", Value::Int(-1))]).contains("timeout"));
        assert_eq!(parse("spawn", &Value::None).unwrap_err().kind, "LookupError");
    }

    #[test]
    fn programs_are_found_where_the_system_has_them() {
        assert!(find("sh").unwrap().is_absolute());
        assert_eq!(find("/bin/../bin/sh").unwrap(), Path::new("/bin/sh"));
        for missing in ["there-is-no-such-program", "./sh", "bin/sh", "..", "."] {
            assert_eq!(
                find(missing).unwrap_err(),
                Failure::os(rustix::io::Errno::NOENT),
                "{missing}"
            );
        }
    }
}
