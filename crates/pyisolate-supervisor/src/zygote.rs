//! A zygote, seen from the host: it forks cells on request and says how they ended.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use pyisolate_abi::message::ToGuest;
use pyisolate_channel::control::{Control, ControlError, Fork, Reply};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};
use rustix::time::Timespec;

use crate::cell::lock;
use crate::environment::Environment;
use crate::error::{Death, SpawnError};
use crate::launcher::Launcher;
use crate::monitor::Monitor;

const NO_HANDLE: &str =
    "no descriptor is left for a handle on its process; close some, or raise `ulimit -n`";

/// A process that forks cells: one right under the launcher, or a template.
#[derive(Debug)]
pub(crate) struct Zygote {
    pub(crate) number: u32,
    pub(crate) control: Control,
    /// Where its launcher takes programs; `None` for a template.
    pub(crate) programs: Option<Arc<Control>>,
    /// `None` for a template, whose process is a child of another zygote.
    launcher: Mutex<Option<Launcher>>,
    children: Mutex<HashSet<u32>>,
    /// Whether it ever was confined and ready.
    served: AtomicBool,
    /// Whether it, or its launcher, said why it ended.
    complained: AtomicBool,
    ended: OnceLock<String>,
}

/// How long the end of a zygote may take to be known in full, once its socket is closed.
const END_PATIENCE: Duration = Duration::from_secs(3);

impl Zygote {
    /// Starts a launcher and with it a zygote.
    pub(crate) fn launch(
        number: u32,
        environment: &Environment,
        monitor: &Monitor,
    ) -> Result<Arc<Self>, SpawnError> {
        let (ours, theirs) = Control::pair()?;
        check_that_processes_can_be_ended(&ours)?;
        let (programs, launchers) = Control::pair()?;
        let launcher =
            Launcher::start(environment, theirs, launchers).map_err(SpawnError::Launcher)?;
        tracing::debug!(pid = launcher.pid(), "launcher started");
        Self::new(number, ours, Some((launcher, programs)), monitor)
    }

    /// The zygote that a template's process becomes.
    pub(crate) fn of_template(
        number: u32,
        control: Control,
        monitor: &Monitor,
    ) -> Result<Arc<Self>, SpawnError> {
        Self::new(number, control, None, monitor)
    }

    fn new(
        number: u32,
        control: Control,
        launcher: Option<(Launcher, Control)>,
        monitor: &Monitor,
    ) -> Result<Arc<Self>, SpawnError> {
        let (launcher, programs) = launcher.unzip();
        let zygote = Arc::new(Self {
            number,
            control,
            programs: programs.map(Arc::new),
            launcher: Mutex::new(launcher),
            children: Mutex::default(),
            served: AtomicBool::new(false),
            complained: AtomicBool::new(false),
            ended: OnceLock::new(),
        });
        if let Err(error) = monitor.add_zygote(&zygote) {
            zygote.shut_down();
            zygote.end(&error.to_string());
            return Err(error);
        }
        Ok(zygote)
    }

    /// Why it ended, if it did.
    pub(crate) fn ended(&self) -> Option<&str> {
        self.ended.get().map(String::as_str)
    }

    /// Whether it ended, or its launcher did, with which it ends; also if the supervisor has not heard
    /// of it yet.
    pub(crate) fn is_gone(&self) -> bool {
        if lock(&self.launcher).as_mut().is_some_and(Launcher::has_ended) {
            return true;
        }
        let mut fds = [PollFd::new(&self.control, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        self.ended.get().is_some() || matches!(poll(&mut fds, Some(&now)), Ok(1))
    }

    /// What a child died of that this could not be asked for.
    pub(crate) fn death_of_unforked(&self, error: &ControlError) -> Death {
        if !self.is_gone() {
            return Death::Unborn(error.to_string());
        }
        let deadline = Instant::now() + END_PATIENCE;
        while self.ended.get().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.death_of_child(self.ended().unwrap_or("its process was killed"))
    }

    /// What its end is to a child. One that cannot serve says why, and would say so again; where
    /// another may serve, the child is an orphan.
    fn death_of_child(&self, why: &str) -> Death {
        let was_killed =
            self.served.load(Ordering::Relaxed) || !self.complained.load(Ordering::Relaxed);
        if was_killed { Death::Orphaned(why.to_owned()) } else { Death::Unborn(why.to_owned()) }
    }

    /// Asks for a new process; the answer comes to `hear`.
    pub(crate) fn fork(&self, fork: &Fork) -> Result<(), ControlError> {
        lock(&self.children).insert(fork.number);
        let sent = self.control.send_fork(fork);
        if sent.is_err() {
            lock(&self.children).remove(&fork.number);
        }
        sent
    }

    /// Takes what the zygote said. An error is the zygote's end.
    pub(crate) fn hear(&self, monitor: &Monitor) -> Result<(), String> {
        while let Some(reply) = self.control.recv_reply(false).map_err(|error| error.to_string())? {
            match reply {
                Reply::Serving => self.served.store(true, Ordering::Relaxed),
                Reply::Forked { number, pidfd } => {
                    self.check(number)?;
                    if let Some(process) =
                        monitor.cell(number).as_ref().and_then(|it| it.body.as_process())
                    {
                        process.born(pidfd);
                    }
                }
                Reply::Unopened { number } => {
                    self.check(number)?;
                    if let Some(cell) = monitor.cell(number) {
                        cell.condemn(Death::Unborn(NO_HANDLE.to_owned()));
                        // It cannot be killed. No guest's code runs in it yet, so it does as told.
                        let _ = cell.send_later(&ToGuest::Stop, None);
                    }
                }
                Reply::ForkFailed { number, errno } => {
                    self.check(number)?;
                    lock(&self.children).remove(&number);
                    let error = std::io::Error::from_raw_os_error(errno);
                    monitor.cell_lost(number, Death::Unborn(format!("fork: {error}")));
                }
                Reply::Exited { number, status, cpu_ms } => {
                    self.check(number)?;
                    lock(&self.children).remove(&number);
                    monitor.cell_exited(number, status, cpu_ms);
                }
                Reply::Fatal(why) => {
                    self.complained.store(true, Ordering::Relaxed);
                    return Err(why);
                }
            }
        }
        Ok(())
    }

    /// A template's zygote may be hostile: it may speak of its own children alone.
    fn check(&self, number: u32) -> Result<(), String> {
        if lock(&self.children).contains(&number) {
            Ok(())
        } else {
            Err(format!("the zygote spoke of process {number}, which is not its own"))
        }
    }

    /// Its control socket is of no more use: reaps the launcher, and says what each child died of.
    pub(crate) fn end(&self, why: &str) -> Vec<(u32, Death)> {
        let launcher = lock(&self.launcher).take();
        let mut why = why.to_owned();
        if let Some(mut launcher) = launcher {
            let said = launcher.said();
            if !said.is_empty() {
                self.complained.store(true, Ordering::Relaxed);
                why = format!("{why}; {said}");
            }
            // Closes nothing of ours: the launcher ends because its zygote did.
            launcher.reap();
        }
        let why = self.ended.get_or_init(|| why);
        lock(&self.children).drain().map(|number| (number, self.death_of_child(why))).collect()
    }

    /// Ends it and all its cells: it exits when its control socket is shut.
    pub(crate) fn shut_down(&self) {
        let _ = rustix::net::shutdown(&self.control, rustix::net::Shutdown::Both);
    }
}

/// Asks for a signal to what is no process: the kernel says so, unless the call is kept from it. A
/// cell that cannot be killed would outlive every limit.
fn check_that_processes_can_be_ended(no_process: &Control) -> Result<(), SpawnError> {
    match pidfd_send_signal(no_process, Signal::KILL) {
        Ok(()) | Err(Errno::BADF) => Ok(()),
        Err(errno) => Err(SpawnError::Unkillable(errno.into())),
    }
}
