//! The one process that the host starts: a fresh interpreter that builds the jail around a zygote.
//!
//! It inherits nothing of the host: no environment but `LD_LIBRARY_PATH`, no descriptor but the
//! control socket (its standard input), the socket on which it is asked for programs (its standard
//! output) and an unnamed file for what it may have to say on stderr.
//! The interpreter is started with `execve`, so nothing of the host's memory is in it either.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pyisolate_channel::control::{Control, LOAD_RUNTIME};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::environment::Environment;

/// How long an ended launcher may take to be gone before it is killed.
const GRACE: Duration = Duration::from_secs(2);
/// How much of the launcher's stderr goes into an error, in bytes.
const STDERR_BYTES_MAX: usize = 4096;

/// The one sanctioned way to start a program from the host: with an empty environment but for where
/// its libraries lie, without which an interpreter that was moved does not start.
pub(crate) fn command(program: &Path) -> Command {
    #[expect(clippy::disallowed_methods, reason = "this is the sanctioned place")]
    let mut command = Command::new(program);
    command.env_clear();
    if let Some(libraries) = std::env::var_os("LD_LIBRARY_PATH") {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command
}

/// A running launcher, whose child is the zygote.
#[derive(Debug)]
pub(crate) struct Launcher {
    child: Child,
    stderr: File,
}

impl Launcher {
    /// Starts a launcher whose zygote serves on `control`, and which itself serves on `programs`.
    pub(crate) fn start(
        environment: &Environment,
        control: Control,
        programs: Control,
    ) -> std::io::Result<Self> {
        let stderr = memfd_create("pyisolate-launcher-stderr", MemfdFlags::CLOEXEC)
            .map_err(|errno| std::io::Error::other(format!("memfd_create: {errno}")))?;
        let stderr = File::from(stderr);
        let child = command(environment.executable())
            .args(["-I", "-S", "-B", "-X", "utf8", "-c"])
            .arg(format!("{LOAD_RUNTIME}sys.exit(runtime.launch())"))
            .args(environment.launcher_arguments())
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(control)))
            .stdout(Stdio::from(std::os::fd::OwnedFd::from(programs)))
            .stderr(Stdio::from(stderr.try_clone()?))
            // A terminal's interrupt is the host's to handle.
            .process_group(0)
            .current_dir("/")
            .spawn()?;
        Ok(Self { child, stderr })
    }

    /// The process that the host started.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the launcher wrote to stderr so far.
    pub(crate) fn said(&mut self) -> String {
        let mut bytes = Vec::new();
        let start = self.stderr.seek(SeekFrom::Start(0));
        let limit = u64::try_from(STDERR_BYTES_MAX).unwrap_or(0);
        match start.and_then(|_| self.stderr.by_ref().take(limit).read_to_end(&mut bytes)) {
            Ok(_) => String::from_utf8_lossy(&bytes).trim().to_owned(),
            Err(error) => format!("(its stderr could not be read: {error})"),
        }
    }

    /// Whether it ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Reaps the launcher, which ends by itself once its control socket is closed.
    pub(crate) fn reap(mut self) {
        let deadline = Instant::now() + GRACE;
        let mut pause = Duration::from_micros(200);
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() >= deadline {
                // Its zygote dies with it, and every cell with the zygote.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}
