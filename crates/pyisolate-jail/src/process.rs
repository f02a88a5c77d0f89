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
    /// The kernel does not report a signal as blocked after all were.
    #[error("signal {0} is not blocked after all were")]
    NotBlocked(libc::c_int),
}

/// Signals that a thread's own instructions raise. Blocked, they would end the process unheard, and
/// no handler could tell of them.
const FAULTS: &[libc::c_int] =
    &[libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];

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

/// Blocks every signal but faults in the calling thread alone, so that what is sent to the process
/// is handled by its other threads. The two that libc keeps for itself stay unblocked.
///
/// # Errors
/// The kernel's, or that one does not read back.
pub(crate) fn block_signals() -> Result<(), ProcessError> {
    let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises the set that it is given; sigdelset and pthread_sigmask are
    // given that set, which is live. pthread_sigmask reads the new mask, takes null for the old one
    // as "not wanted", then takes null for the new one as "no change" and fills the old one.
    let blocked = unsafe {
        libc::sigfillset(mask.as_mut_ptr());
        for fault in FAULTS {
            libc::sigdelset(mask.as_mut_ptr(), *fault);
        }
        let result = match libc::pthread_sigmask(libc::SIG_SETMASK, mask.as_ptr(), ptr::null_mut())
        {
            0 => libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), mask.as_mut_ptr()),
            error => error,
        };
        if result != 0 {
            return Err(ProcessError::SignalMask(io::Error::from_raw_os_error(result)));
        }
        mask.assume_init()
    };
    let unblockable = [libc::SIGKILL, libc::SIGSTOP];
    for signal in (1..32).chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
        // SAFETY: `blocked` is a live, initialised set.
        let is_blocked = unsafe { libc::sigismember(&raw const blocked, signal) } == 1;
        if !is_blocked && !FAULTS.contains(&signal) && !unblockable.contains(&signal) {
            return Err(ProcessError::NotBlocked(signal));
        }
    }
    Ok(())
}
