//! The system call filters: allow-lists compiled once, installed per process.
//!
//! Filters stack, and of all that are installed the strictest answer wins. That is used to make a
//! cell cheap:
//!
//! 1. the *zygote filter* allows what cells and the zygote need together and answers `EPERM` to all
//!    else; it kills on a foreign architecture, and x32 numbers, being other numbers, are not in
//!    it;
//! 2. a filter of a few instructions answers `ENOSYS` for the calls libc must believe missing (of
//!    two equally strict answers the kernel takes the later filter's);
//! 3. in a cell, the *cell filter* takes away what only the zygote needed. It is a deny-list in
//!    form but not in effect: everything that it lets pass, the allow-list below it has allowed.
//!
//! The alternative, a whole allow-list per cell, costs several times as much for the same rights,
//! because at every installation the kernel translates the program and runs it once per system call
//! number to find the calls that it may allow without running it again (`seccomp_cache_prepare`).
//! `examples/cell_cost.rs` prints both.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::seccomp_table::{CELL, Check, Row, SHARED_ZYGOTE, UNKNOWN, WRITING_OPENS, When, ZYGOTE};

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;

/// Why the filters could not be compiled or installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeccompError {
    /// A filter would be empty, which would confine nothing.
    #[error("the {filter} filter has no rules")]
    Empty {
        /// Which.
        filter: &'static str,
    },
    /// A row of the tables does not compile.
    #[error("the {filter} filter does not compile")]
    Compile {
        /// Which.
        filter: &'static str,
        /// Why.
        source: seccompiler::Error,
    },
    /// A row's condition cannot be taken away again by a later filter.
    #[error("the cell filter cannot narrow {call}: it allows by more than one argument")]
    NotNarrowable {
        /// The system call.
        call: &'static str,
    },
    /// The kernel did not take a filter.
    #[error("installing the {filter} filter failed")]
    Install {
        /// Which.
        filter: &'static str,
        /// Why.
        source: seccompiler::Error,
    },
    /// The kernel says that no filter is in force after one was installed.
    #[error("prctl(PR_GET_SECCOMP) does not report a filter")]
    NotInForce(#[source] Option<io::Error>),
}

/// The compiled filters. Made once, before any cell is cloned; installing takes `&self` and
/// allocates nothing.
#[derive(Clone, Debug)]
pub struct Filters {
    zygote: BpfProgram,
    unknown: BpfProgram,
    cell: BpfProgram,
}

impl Filters {
    /// Compiles the tables.
    ///
    /// # Errors
    /// Only if the tables are wrong, which the tests rule out.
    pub fn compile() -> Result<Self, SeccompError> {
        let eperm = SeccompAction::Errno(libc::EPERM.cast_unsigned());
        let enosys = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
        let allow = SeccompAction::Allow;
        Ok(Self {
            zygote: program("zygote", &[CELL, ZYGOTE], eperm.clone(), allow.clone())?,
            unknown: program("missing calls", &[UNKNOWN], allow.clone(), enosys)?,
            cell: build("cell", narrowing(ZYGOTE)?, allow, eperm)?,
        })
    }

    /// Compiles the tables for cells that share the zygote's namespaces. The cell's own filter is
    /// made in the cell: see [`Self::install_shared_cell`].
    ///
    /// # Errors
    /// As [`Self::compile`].
    pub(crate) fn compile_shared() -> Result<Self, SeccompError> {
        let eperm = SeccompAction::Errno(libc::EPERM.cast_unsigned());
        let tables: &[&[Row]] = &[CELL, &shared_zygote()];
        let mut filters = Self::compile()?;
        filters.zygote = program("zygote", tables, eperm, SeccompAction::Allow)?;
        filters.cell = BpfProgram::new();
        Ok(filters)
    }

    /// Confines the calling thread to the zygote's calls. Sets `no_new_privs`, without which the
    /// kernel refuses.
    ///
    /// # Errors
    /// The kernel's. The process then has to end: it may be half confined.
    pub fn install_zygote(&self) -> Result<(), SeccompError> {
        install("zygote", &self.zygote)?;
        install("missing calls", &self.unknown)
    }

    /// Takes away what only the zygote needed. [`Self::install_zygote`] has to be in force,
    /// inherited or not.
    ///
    /// # Errors
    /// The kernel's. The process then has to end.
    pub fn install_cell(&self) -> Result<(), SeccompError> {
        in_force()?; // the cell filter by itself would be a deny-list
        install("cell", &self.cell)
    }

    /// The same for the calling process, which shares its zygote's namespaces: of all processes that
    /// have a number there, it may signal itself. With `only_reads` it opens no file for writing,
    /// because nothing else would stop it.
    ///
    /// # Errors
    /// As [`Self::install_cell`].
    pub(crate) fn install_shared_cell(&self, only_reads: bool) -> Result<(), SeccompError> {
        in_force()?;
        let mut rules = narrowing(&shared_zygote())?;
        let own = [u64::from(std::process::id())];
        rules.insert(libc::SYS_tgkill, vec![none_of(0, &SeccompCmpArgLen::Dword, &own)?]);
        for row in WRITING_OPENS.iter().filter(|_| only_reads) {
            let refused = alternatives(row).map_err(|source| SeccompError::Compile {
                filter: "cell",
                source: source.into(),
            })?;
            rules.insert(row.number, refused);
        }
        let eperm = SeccompAction::Errno(libc::EPERM.cast_unsigned());
        install("cell", &build("cell", rules, SeccompAction::Allow, eperm)?)
    }

    /// Every system call that a cell may make: name, whether only under a condition on its
    /// arguments, and why.
    pub fn cell_calls() -> impl ExactSizeIterator<Item = (&'static str, bool, &'static str)> {
        CELL.iter().map(|row| (row.name, matches!(row.when, When::Any(_)), row.reason))
    }

    /// The programs in the order of installation, for tests that install them from another
    /// language.
    #[doc(hidden)]
    #[must_use]
    pub fn programs(&self) -> [&BpfProgram; 3] {
        [&self.zygote, &self.unknown, &self.cell]
    }

    /// The cell's whole allow-list as one program: what stacking saves, for the benchmark alone.
    ///
    /// # Errors
    /// As [`Self::compile`].
    #[doc(hidden)]
    pub fn whole_cell_program() -> Result<BpfProgram, SeccompError> {
        program(
            "cell",
            &[CELL],
            SeccompAction::Errno(libc::EPERM.cast_unsigned()),
            SeccompAction::Allow,
        )
    }
}

/// Asks the kernel whether a filter binds the calling thread.
///
/// # Errors
/// If none does.
pub fn in_force() -> Result<(), SeccompError> {
    match rustix::thread::secure_computing_mode() {
        Ok(rustix::thread::SecureComputingMode::Filter) => Ok(()),
        Ok(_) => Err(SeccompError::NotInForce(None)),
        Err(error) => Err(SeccompError::NotInForce(Some(error.into()))),
    }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

pub(crate) fn program(
    filter: &'static str,
    tables: &[&[Row]],
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, SeccompError> {
    let compile =
        |source: seccompiler::BackendError| SeccompError::Compile { filter, source: source.into() };
    let mut rules = Rules::new();
    for row in tables.iter().copied().flatten() {
        let alternatives = alternatives(row).map_err(compile)?;
        match rules.entry(row.number) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(alternatives);
            }
            // No alternatives means always, and always it stays whatever the other table adds.
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                if entry.get().is_empty() || alternatives.is_empty() {
                    entry.get_mut().clear();
                } else {
                    entry.get_mut().extend(alternatives);
                }
            }
        }
    }
    build(filter, rules, otherwise, matching)
}

fn build(
    filter: &'static str,
    rules: Rules,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, SeccompError> {
    if rules.is_empty() {
        return Err(SeccompError::Empty { filter });
    }
    SeccompFilter::new(rules, otherwise, matching, ARCH)
        .and_then(BpfProgram::try_from)
        .map_err(|source| SeccompError::Compile { filter, source: source.into() })
}

/// The row's condition in seccompiler's terms: any of the rules; no rules at all for "always".
fn alternatives(row: &Row) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let When::Any(alternatives) = row.when else { return Ok(Vec::new()) };
    let mut rules = Vec::new();
    for checks in alternatives {
        // A check with several values stands for several rules: multiply out.
        let mut partial: Vec<Vec<SeccompCondition>> = vec![Vec::new()];
        for check in *checks {
            let conditions = conditions(*check)?;
            partial = partial
                .iter()
                .flat_map(|done| {
                    conditions.iter().map(move |condition| {
                        let mut longer = done.clone();
                        longer.push(condition.clone());
                        longer
                    })
                })
                .collect();
        }
        for conditions in partial {
            rules.push(SeccompRule::new(conditions)?);
        }
    }
    Ok(rules)
}

fn conditions(check: Check) -> Result<Vec<SeccompCondition>, seccompiler::BackendError> {
    let equal = |argument, length: SeccompCmpArgLen, values: &[u64]| {
        values
            .iter()
            .map(|value| SeccompCondition::new(argument, length.clone(), SeccompCmpOp::Eq, *value))
            .collect::<Result<Vec<_>, _>>()
    };
    match check {
        Check::Int(argument, values) => equal(argument, SeccompCmpArgLen::Dword, values),
        Check::Long(argument, values) => equal(argument, SeccompCmpArgLen::Qword, values),
        Check::Masked(argument, mask, value) => Ok(vec![SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::MaskedEq(mask),
            value,
        )?]),
    }
}

/// What a zygote may do besides whose cells share its namespaces.
fn shared_zygote() -> Vec<Row> {
    let replaced = |row: &&Row| SHARED_ZYGOTE.iter().any(|other| other.number == row.number);
    ZYGOTE.iter().filter(|row| !replaced(row)).chain(SHARED_ZYGOTE).copied().collect()
}

/// What the zygote may and a cell may not, as rules that match exactly that.
fn narrowing(zygote: &[Row]) -> Result<Rules, SeccompError> {
    let mut rules = Rules::new();
    for row in zygote {
        let refused = match CELL.iter().find(|cell| cell.number == row.number).map(|cell| cell.when)
        {
            None => Vec::new(),
            // Not one of the values that a cell may pass: all the inequalities together.
            Some(When::Any([[Check::Int(argument, values)]])) => {
                vec![none_of(*argument, &SeccompCmpArgLen::Dword, values)?]
            }
            Some(When::Any([[Check::Long(argument, values)]])) => {
                vec![none_of(*argument, &SeccompCmpArgLen::Qword, values)?]
            }
            Some(_) => return Err(SeccompError::NotNarrowable { call: row.name }),
        };
        rules.insert(row.number, refused);
    }
    Ok(rules)
}

fn none_of(
    argument: u8,
    length: &SeccompCmpArgLen,
    values: &[u64],
) -> Result<SeccompRule, SeccompError> {
    values
        .iter()
        .map(|value| SeccompCondition::new(argument, length.clone(), SeccompCmpOp::Ne, *value))
        .collect::<Result<Vec<_>, _>>()
        .and_then(SeccompRule::new)
        .map_err(|source| SeccompError::Compile { filter: "cell", source: source.into() })
}

pub(crate) fn install(filter: &'static str, program: &BpfProgram) -> Result<(), SeccompError> {
    seccompiler::apply_filter(program).map_err(|source| SeccompError::Install { filter, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp_table::READING_OPENS;

    #[test]
    fn tables_compile_and_fit_the_kernels_limit() {
        let filters = Filters::compile().unwrap();
        let sizes = filters.programs().map(|program| program.len());
        // BPF_MAXINSNS
        assert!(sizes.iter().all(|size| (1..=4096).contains(size)), "{sizes:?}");
    }

    #[test]
    fn an_empty_filter_is_refused() {
        let error = program("empty", &[&[]], SeccompAction::Allow, SeccompAction::Allow);
        assert!(matches!(error, Err(SeccompError::Empty { .. })));
    }

    #[test]
    fn no_call_is_listed_twice_and_each_has_a_reason() {
        for table in [CELL, ZYGOTE, SHARED_ZYGOTE, WRITING_OPENS, READING_OPENS, UNKNOWN] {
            let mut seen = std::collections::HashSet::new();
            for row in table {
                assert!(seen.insert(row.number), "{} twice", row.name);
                assert!(!row.reason.is_empty(), "{} without a reason", row.name);
            }
        }
    }

    #[test]
    fn what_has_no_place_in_a_cell_is_not_in_the_tables() {
        let absent = [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_accept4,
            libc::SYS_memfd_create,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_getfd,
            libc::SYS_kill,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_io_uring_setup,
            libc::SYS_userfaultfd,
            libc::SYS_keyctl,
            libc::SYS_mount,
            libc::SYS_open_tree,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_chroot,
            libc::SYS_pivot_root,
            libc::SYS_name_to_handle_at,
            libc::SYS_open_by_handle_at,
            libc::SYS_shmget,
            libc::SYS_personality,
            libc::SYS_clock_settime,
            libc::SYS_setuid,
            libc::SYS_unlinkat,
            libc::SYS_renameat2,
            libc::SYS_mkdirat,
        ];
        for row in CELL.iter().chain(ZYGOTE).chain(SHARED_ZYGOTE) {
            assert!(!absent.contains(&row.number), "{} is allowed", row.name);
        }
    }
}
