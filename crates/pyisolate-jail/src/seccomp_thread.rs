//! The filter of a confined thread: the cell's allow-list without what concerns the whole process,
//! which is the host's.
//!
//! Three programs, because a program knows one answer besides "allowed" and the strictest of several
//! wins: what must end the thread ends it; what libc has to believe missing is answered `ENOSYS`;
//! what is not on the allow-list is answered `EPERM`.
//!
//! **Ending only the thread.** libc's `_exit` and `abort` trust the kernel to end the process, and
//! run into an instruction that faults when it does not. That fault would end the host. So the calls
//! they make end the thread that makes them, without a word (`SECCOMP_RET_KILL_THREAD`), and so does
//! a call by another architecture's numbers.

use seccompiler::{BpfProgram, SeccompAction};

use crate::seccomp::{self, SeccompError};
use crate::seccomp_table::{CELL, Check, READING_OPENS, Row, UNKNOWN, When, arg, row};

/// `BPF_RET | BPF_K`: a program's answer.
const ANSWER: u16 = 0x06;

/// What the thread has besides the filter, and the filter need not stand in for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Has {
    /// A root or a Landlock domain that keeps it from writing to files.
    pub(crate) read_only_files: bool,
    /// A working folder and a umask of its own.
    pub(crate) own_folder: bool,
}

/// The filter of confined threads, compiled. Installing takes `&self` and allocates nothing.
#[derive(Clone, Debug)]
pub(crate) struct ThreadFilter {
    ending: BpfProgram,
    unknown: BpfProgram,
    allowed: BpfProgram,
    calls: (usize, usize),
}

impl ThreadFilter {
    /// Compiles the tables.
    pub(crate) fn compile(has: Has) -> Result<Self, SeccompError> {
        let eperm = SeccompAction::Errno(libc::EPERM.cast_unsigned());
        let enosys = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
        let allow = SeccompAction::Allow;
        let kill = SeccompAction::KillThread;
        let opens = if has.read_only_files { &[] } else { READING_OPENS };
        let narrowed = [NARROWED, opens].concat();
        let kept = kept(has, &narrowed);
        let conditional = kept.iter().filter(|row| matches!(row.when, When::Any(_))).count();
        let tables: &[&[Row]] = &[&kept, &narrowed, UNKNOWN];
        Ok(Self {
            ending: thread_only(seccomp::program("ending calls", &[ENDING], allow.clone(), kill)?),
            unknown: thread_only(seccomp::program(
                "missing calls",
                &[UNKNOWN],
                allow.clone(),
                enosys,
            )?),
            // It lets pass what another program says is missing, whose answer is the stricter one.
            allowed: thread_only(seccomp::program("thread", tables, eperm, allow)?),
            calls: (kept.len() + narrowed.len(), conditional + narrowed.len()),
        })
    }

    /// Confines the calling thread, and no other.
    pub(crate) fn install(&self) -> Result<(), SeccompError> {
        seccomp::install("ending calls", &self.ending)?;
        seccomp::install("missing calls", &self.unknown)?;
        // Last, because it refuses to install another.
        seccomp::install("thread", &self.allowed)?;
        seccomp::in_force()
    }

    /// How many system calls a thread may make, and how many of them only by argument.
    pub(crate) fn calls(&self) -> (usize, usize) {
        self.calls
    }
}

/// The cell's rows that a thread keeps as they are.
fn kept(has: Has, narrowed: &[Row]) -> Vec<Row> {
    let folder = if has.own_folder { &[] } else { FOLDER };
    let listed = |row: &Row| {
        [WHOLE_PROCESS, narrowed, ENDING, folder]
            .iter()
            .any(|table| table.iter().any(|other| other.number == row.number))
    };
    CELL.iter().filter(|row| !listed(row)).copied().collect()
}

/// seccompiler ends the process of who calls by another architecture's numbers.
fn thread_only(mut program: BpfProgram) -> BpfProgram {
    for instruction in &mut program {
        if instruction.code == ANSWER && instruction.k == libc::SECCOMP_RET_KILL_PROCESS {
            instruction.k = libc::SECCOMP_RET_KILL_THREAD;
        }
    }
    program
}

/// What a cell may do and a thread may not, because it would be done to the host.
#[rustfmt::skip] // one row a line, as a table
const WHOLE_PROCESS: &[Row] = &[
    row("clone", libc::SYS_clone, When::Always, "a thread made here would be the host's to count and to end"),
    row("rt_sigaction", libc::SYS_rt_sigaction, When::Always, "dispositions are the process's"),
    row("rt_sigprocmask", libc::SYS_rt_sigprocmask, When::Always, "unblocked, the host's handlers would run here"),
    row("rt_sigsuspend", libc::SYS_rt_sigsuspend, When::Always, "unblocked, the host's handlers would run here"),
    row("rt_sigtimedwait", libc::SYS_rt_sigtimedwait, When::Always, "takes signals that are sent to the host"),
    row("rt_sigpending", libc::SYS_rt_sigpending, When::Always, "tells of signals that are sent to the host"),
    row("sigaltstack", libc::SYS_sigaltstack, When::Always, "the host chose where its handlers run"),
    row("setitimer", libc::SYS_setitimer, When::Always, "timers are the process's"),
    row("set_tid_address", libc::SYS_set_tid_address, When::Always, "the host hears of the thread's end by that address"),
    #[cfg(target_arch = "x86_64")]
    row("alarm", libc::SYS_alarm, When::Always, "timers are the process's"),
];

/// What would be done to the host where the thread has its working folder and umask.
#[rustfmt::skip] // one row a line, as a table
const FOLDER: &[Row] = &[
    row("chdir", libc::SYS_chdir, When::Always, "the working folder is the host's"),
    row("fchdir", libc::SYS_fchdir, When::Always, "the working folder is the host's"),
    row("umask", libc::SYS_umask, When::Always, "the umask is the host's"),
];

/// What a thread may do under more conditions than a cell.
#[rustfmt::skip] // one row a line, as a table
const NARROWED: &[Row] = &[
    row("prlimit64", libc::SYS_prlimit64, When::Any(READ_LIMITS), "read the limits, which are the process's"),
    row("ppoll", libc::SYS_ppoll, When::Any(&[&[Check::Long(3, &[0])]]), "wait for descriptors, with the signal mask it has"),
    row("pselect6", libc::SYS_pselect6, When::Any(&[&[Check::Long(5, &[0])]]), "wait for descriptors, with the signal mask it has"),
    row("epoll_pwait", libc::SYS_epoll_pwait, When::Any(&[&[Check::Long(4, &[0])]]), "wait for descriptors, with the signal mask it has"),
    row("epoll_pwait2", libc::SYS_epoll_pwait2, When::Any(&[&[Check::Long(4, &[0])]]), "wait for descriptors, with the signal mask it has"),
];

/// What ends the thread that does it.
#[rustfmt::skip] // one row a line, as a table
const ENDING: &[Row] = &[
    row("exit_group", libc::SYS_exit_group, When::Always, "_exit() means the guest, not the host"),
    row("tgkill", libc::SYS_tgkill, When::Any(ABORT_THREAD), "abort() means the guest, not the host"),
    row("tkill", libc::SYS_tkill, When::Any(ABORT), "abort() of other libcs"),
    row("rt_sigreturn", libc::SYS_rt_sigreturn, When::Always, "ends a handler: of a fault, the only signal there is, which would repeat; and it sets the mask"),
];

/// After any other signal that was refused its sender goes on. It must: glibc's `setuid` holds a lock of
/// all threads while it sends them one of its own.
const ABORT_THREAD: &[&[Check]] = &[&[Check::Int(2, &[arg(libc::SIGABRT)])]];
const ABORT: &[&[Check]] = &[&[Check::Int(1, &[arg(libc::SIGABRT)])]];

const READ_LIMITS: &[&[Check]] = &[&[Check::Int(0, &[0]), Check::Long(2, &[0])]];

#[cfg(test)]
mod tests {
    use super::*;

    const RICH: Has = Has { read_only_files: true, own_folder: true };
    const POOR: Has = Has { read_only_files: false, own_folder: false };

    fn programs() -> Vec<BpfProgram> {
        let compiled = [RICH, POOR].map(|has| ThreadFilter::compile(has).unwrap());
        compiled.into_iter().flat_map(|it| [it.ending, it.unknown, it.allowed]).collect()
    }

    #[test]
    fn tables_compile_and_fit_the_kernels_limit() {
        for program in programs() {
            assert!((1..=4096).contains(&program.len()), "{}", program.len()); // BPF_MAXINSNS
        }
    }

    #[test]
    fn no_answer_ends_the_process() {
        for program in programs() {
            let answers = program.iter().filter(|instruction| instruction.code == ANSWER);
            for answer in answers {
                assert_ne!(answer.k, libc::SECCOMP_RET_KILL_PROCESS);
            }
        }
    }

    #[test]
    fn what_is_taken_away_is_a_cells_and_comes_once() {
        let mut seen = std::collections::HashSet::new();
        for table in [WHOLE_PROCESS, NARROWED, ENDING] {
            for row in table {
                assert!(seen.insert(row.number), "{} twice", row.name);
                assert!(!row.reason.is_empty(), "{} without a reason", row.name);
            }
        }
        for row in WHOLE_PROCESS.iter().chain(NARROWED).chain(FOLDER).chain(READING_OPENS) {
            assert!(CELL.iter().any(|cell| cell.number == row.number), "{} is no cell's", row.name);
        }
        let allowed = kept(POOR, &[NARROWED, READING_OPENS].concat());
        for row in WHOLE_PROCESS.iter().chain(ENDING).chain(FOLDER).chain(READING_OPENS) {
            assert!(
                allowed.iter().all(|kept| kept.number != row.number),
                "{} is allowed",
                row.name
            );
        }
    }
}
