//! Attributes of the process itself: privileges by `execve`, who may inspect it, what ends it, its
//! signals.

#![expect(unsafe_code, reason = "signal masks and dispositions: rustix leaves them to libc")]

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use rustix::process::{DumpableBehavior, Signal};

/// Why an attribute could not be set, or is not in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// `prctl(PR_SET_NO_NEW_PRIVS)`.
    #[error("setting no_new_privs failed")]
    NoNewPrivileges(#[source] io::Error),
    /// The kernel does not report `no_new_privs` after it was set.
    #[error("no_new_privs is not in force after it was set")]
    NoNewPrivilegesNotInForce,
    /// `prctl(PR_SET_DUMPABLE)`.
    #[error("making the process not dumpable failed")]
    Dumpable(#[source] io::Error),
    /// The kernel reports the process as dumpable after that was switched off.
    #[error("the process is dumpable after that was switched off")]
    StillDumpable,
    /// `prctl(PR_SET_PDEATHSIG)`.
    #[error("tying the process to its parent's life failed")]
    ParentDeath(#[source] io::Error),
    /// `sigprocmask`.
    #[error("resetting the signal mask failed")]
    SignalMask(#[source] io::Error),
}

/// `execve` grants nothing from here on: set-user-id bits and file capabilities are ignored.
///
/// # Errors
/// The kernel's, or that it does not read back.
pub fn no_new_privileges() -> Result<(), ProcessError> {
    rustix::thread::set_no_new_privs(true)
        .map_err(|error| ProcessError::NoNewPrivileges(error.into()))?;
    match rustix::thread::no_new_privs() {
        Ok(true) => Ok(()),
        Ok(false) => Err(ProcessError::NoNewPrivilegesNotInForce),
        Err(error) => Err(ProcessError::NoNewPrivileges(error.into())),
    }
}

/// No core dumps, and nobody without privilege over the process may trace it or read its `/proc`
/// files.
///
/// # Errors
/// The kernel's, or that it does not read back.
pub fn not_dumpable() -> Result<(), ProcessError> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| ProcessError::Dumpable(error.into()))?;
    match rustix::process::dumpable_behavior() {
        Ok(DumpableBehavior::NotDumpable) => Ok(()),
        Ok(_) => Err(ProcessError::StillDumpable),
        Err(error) => Err(ProcessError::Dumpable(error.into())),
    }
}

/// The kernel kills the process when its parent ends. Cleared by a later change of user or gain of
/// capabilities.
///
/// A cell needs it least: when the zygote ends, which is pid 1 of the outer namespace, the kernel
/// kills all in there.
///
/// # Errors
/// The kernel's.
pub fn die_with_parent() -> Result<(), ProcessError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| ProcessError::ParentDeath(error.into()))
}

/// Unblocks every signal. Dispositions stay: in a cell they are the interpreter's own (`SIGPIPE`
/// ignored, say).
///
/// # Errors
/// The kernel's.
pub fn unblock_signals() -> Result<(), ProcessError> {
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set it is given; sigprocmask then reads that set, which
    // is live, and is given null for the old mask, which it takes as "not wanted". The caller is
    // single-threaded.
    let result = unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(ProcessError::SignalMask(io::Error::last_os_error())) }
}

/// Unblocks every signal and gives each its default disposition, so that a program executed next
/// inherits nothing of the launcher's (an ignored signal survives `execve`).
///
/// # Errors
/// The kernel's.
pub fn reset_signals() -> Result<(), ProcessError> {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: signal(2) with SIG_DFL installs no handler and so runs no code of ours. Numbers
        // that may not be changed (SIGKILL, SIGSTOP, the two that libc keeps) are refused with
        // EINVAL, which is as good.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    unblock_signals()
}
