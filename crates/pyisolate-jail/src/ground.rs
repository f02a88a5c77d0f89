//! What a host lets the jail stand on: namespaces and a root, namespaces alone, or neither.
//!
//! The launcher finds out by trying, and tells the zygote, which holds it to its word: on whole
//! ground a missing root or namespace is an error. Only what the kernel or its keeper *refuses*
//! leads to poorer ground, and then with the reason, which ends up in every cell's report.

use std::io;
use std::path::Path;

use crate::landlock::{self, Domain, Grant, Support};
use crate::plan::RootPlan;
use crate::process;
use crate::thread_root::ThreadRoot;
use crate::{LandlockError, ProcessError};

/// The files that stand for the namespaces which the outer jail makes. A kernel that was built
/// without a kind lacks its file.
const NAMESPACE_FILES: [&str; 6] = ["user", "pid", "mnt", "ipc", "uts", "net"];

/// The longest reason that is handed on, in bytes: it has to fit a layer's detail with what is said
/// around it.
const WHY_MAX_BYTES: usize = 240;

/// What there is under a zygote and its cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ground {
    /// Namespaces, and a root of their own.
    Whole,
    /// The same, made by a root who may make nothing else: cells are root outside, whose threads the
    /// kernel does not limit.
    WholeAsRoot,
    /// The zygote's namespaces, shared by its cells, in the host's file tree. The text says why.
    HostTree(String),
    /// The host's namespaces and the host's file tree. The text says why.
    NoNamespaces(String),
}

/// Why a process in the host's file tree is not confined to the plan's files. It has to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostTreeError {
    /// A directory of the plan could not be listed.
    #[error("listing what a zygote may read failed")]
    List(#[source] io::Error),
    /// `no_new_privs`, without which Landlock is refused.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The ruleset, on a kernel that has Landlock.
    #[error(transparent)]
    Landlock(#[from] LandlockError),
}

impl Ground {
    /// Whether there are namespaces for each cell, and a root.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::Whole | Self::WholeAsRoot)
    }

    /// The reason; `None` for what [is whole](Self::is_whole).
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Whole | Self::WholeAsRoot => None,
            Self::HostTree(why) | Self::NoNamespaces(why) => Some(why),
        }
    }

    /// One word and the reason, for a program's argument.
    #[must_use]
    pub fn encode(&self) -> String {
        let (word, why) = match self {
            Self::Whole => ("whole", ""),
            Self::WholeAsRoot => ("whole-as-root", ""),
            Self::HostTree(why) => ("host-tree", why.as_str()),
            Self::NoNamespaces(why) => ("no-namespaces", why.as_str()),
        };
        let end = why.floor_char_boundary(WHY_MAX_BYTES);
        // An argument ends at a NUL.
        format!("{word} {}", &why[..end]).replace('\0', "?")
    }

    /// Reads [`Ground::encode`] back.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let (word, why) = text.split_once(' ')?;
        match word {
            "whole" => Some(Self::Whole),
            "whole-as-root" => Some(Self::WholeAsRoot),
            "host-tree" => Some(Self::HostTree(why.to_owned())),
            "no-namespaces" => Some(Self::NoNamespaces(why.to_owned())),
            _ => None,
        }
    }
}

/// Confines the calling process, which stays in the host's file tree, to reading the plan's files
/// and executing its interpreter, for good. Nothing on a kernel without Landlock: the cells' report
/// says so.
///
/// # Errors
/// When a kernel that has Landlock refuses. The process then has to end.
pub fn enter_host_tree(plan: &RootPlan) -> Result<(), HostTreeError> {
    process::no_new_privileges()?;
    let mut grants = ThreadRoot::new(plan).grants().map_err(HostTreeError::List)?;
    grants.extend(plan.programs().iter().map(|path| (path.clone(), Grant::Program)));
    let domain = Domain::prepare_listed(&grants)?;
    domain.enter()?;
    if domain.support() != Support::Missing {
        landlock::verify_listed()?;
    }
    Ok(())
}

/// Whether the kernel, or who keeps it, says that this may not be had here. A wrong argument of ours
/// is answered otherwise.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EPERM
                | libc::EACCES
                | libc::ENOSYS
                | libc::EOPNOTSUPP
                | libc::ENOSPC
                | libc::EUSERS
        )
    )
}

/// The same of a `clone` into new namespaces: a kernel that was built without a kind of them says
/// `EINVAL`.
pub(crate) fn is_refusal_of_namespaces(error: &io::Error) -> bool {
    let built_in = |name: &&str| Path::new("/proc/self/ns").join(name).exists();
    is_refusal(error)
        || error.raw_os_error() == Some(libc::EINVAL) && !NAMESPACE_FILES.iter().all(built_in)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for ground in [
            Ground::Whole,
            Ground::WholeAsRoot,
            Ground::HostTree("fsopen for a tmpfs failed: x".to_owned()),
            Ground::NoNamespaces(String::new()),
        ] {
            assert_eq!(Ground::decode(&ground.encode()), Some(ground));
        }
        for bad in ["", "whole", "better ", "Whole "] {
            assert_eq!(Ground::decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let long = Ground::HostTree("é".repeat(WHY_MAX_BYTES));
        let cut = Ground::decode(&long.encode()).unwrap();
        assert_eq!(cut.why().unwrap().len(), WHY_MAX_BYTES);
    }

    #[test]
    fn a_wrong_argument_is_no_refusal() {
        let error = io::Error::from_raw_os_error;
        for refusal in [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::ENOSPC] {
            assert!(is_refusal(&error(refusal)));
        }
        for fault in [libc::EINVAL, libc::EFAULT, libc::EBADF, libc::ENOENT, libc::ENOMEM] {
            assert!(!is_refusal(&error(fault)));
        }
    }
}
