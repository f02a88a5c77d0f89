//! All layers in order, and the report that says they hold.

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use rustix::fs::StatVfsMountFlags;

use crate::landlock::Support;
use crate::rlimits::Rlimits;
use crate::seccomp::{self, Filters};
use crate::{
    CapabilityError, DescriptorError, Domain, LandlockError, LayerName, NetworkError, ProcessError,
    Report, RlimitError, SeccompError, Status, capabilities, descriptors, network, process,
};

/// What a cloned process is going to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs guest code and makes no process.
    Cell,
    /// Runs set-up code and clones cells, for which it keeps the zygote's filter and the Landlock
    /// ruleset.
    Template,
}

/// Why no jail could be prepared. Nothing has been changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// The root could not be looked at.
    #[error("statvfs of the root failed")]
    Root(#[source] io::Error),
    /// The root can be written: this is not the outer jail.
    #[error("the root is not read-only; enter the outer jail before preparing cells")]
    RootWritable,
    /// The network namespace has a way out.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The Landlock ruleset.
    #[error(transparent)]
    Landlock(#[from] LandlockError),
    /// The filters.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// `/dev/null`.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
}

/// Why a jail was not entered. The process is half confined and has to end; its parent goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnterError {
    /// The process is not pid 1: it was not cloned by [`crate::clone_cell`].
    #[error("a cell must be pid 1 of its own namespace, but is {0}")]
    NotInit(u32),
    /// The process has no capabilities to drop, which a fresh user namespace would have given it.
    #[error("a cell must be in a fresh user namespace, but has no capability in the one it is in")]
    NotFresh,
    /// Capabilities.
    #[error(transparent)]
    Capabilities(#[from] CapabilityError),
    /// Signals, privileges, dumpability, parent death.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Resource limits.
    #[error(transparent)]
    Rlimits(#[from] RlimitError),
    /// Landlock, on a kernel that has it.
    #[error(transparent)]
    Landlock(#[from] LandlockError),
    /// Descriptors.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
    /// The filters.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
}

/// What every cell enters, made once in the zygote and inherited by each clone.
#[derive(Debug)]
pub struct CellJail {
    domain: Domain,
    filters: Filters,
    null: OwnedFd,
}

impl CellJail {
    /// Makes the Landlock ruleset and the filters, and checks that the caller's root and network
    /// are the outer jail's, for that is what cells inherit. Has to come before
    /// [`Self::enter_zygote`], which forbids all of it.
    ///
    /// # Errors
    /// When the caller is not in the outer jail, or the kernel refuses a part.
    pub fn prepare() -> Result<Self, PrepareError> {
        let root = rustix::fs::statvfs("/").map_err(|error| PrepareError::Root(error.into()))?;
        if !root.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(PrepareError::RootWritable);
        }
        network::verify_empty()?;
        Ok(Self {
            domain: Domain::prepare()?,
            filters: Filters::compile()?,
            null: descriptors::open_null()?,
        })
    }

    /// Confines the zygote: no capabilities, no privileges by `execve`, not traceable, dies with
    /// the launcher, and no system call but its own. Afterwards it can clone cells and hardly
    /// anything else.
    ///
    /// # Errors
    /// Names the layer. The process then has to end.
    pub fn enter_zygote(&self) -> Result<(), EnterError> {
        capabilities::drop_sets()?;
        capabilities::verify_none()?;
        process::no_new_privileges()?;
        process::not_dumpable()?;
        process::die_with_parent()?;
        self.filters.install_zygote()?;
        seccomp::in_force()?;
        Ok(())
    }

    /// Applies every layer to a process fresh from [`crate::clone_cell`], whose parent has
    /// [`Self::enter_zygote`] behind it. `keep` are the descriptors that stay open, ascending and
    /// above 2.
    ///
    /// # Errors
    /// Names the layer that failed, which fails closed: the process has to end.
    ///
    /// # Safety
    /// Every descriptor that is not in `keep` is closed behind the back of whatever owns
    /// it. Nothing that the process will still run may use one of them or close it again: only code
    /// that knows `keep` may go on, and the process has to end by `_exit`.
    #[expect(unsafe_code, reason = "passes on the duty about closed descriptors to the caller")]
    pub unsafe fn enter(
        &self,
        role: Role,
        keep: &[RawFd],
        limits: &Rlimits,
    ) -> Result<Report, EnterError> {
        let mut report = Report::default();
        let pid = std::process::id();
        if pid != 1 {
            return Err(EnterError::NotInit(pid));
        }
        // The zygote has no capabilities, so to have some now proves the new user namespace; and
        // one clone made it together with the pid, mount, ipc and uts namespaces, or would have
        // failed.
        if !capabilities::any_effective()? {
            return Err(EnterError::NotFresh);
        }
        for (name, detail) in [
            (LayerName::UserNamespace, "its own, with nobody mapped"),
            (LayerName::PidNamespace, "its own: the cell is process 1 and can make no other"),
            (LayerName::MountNamespace, "its own"),
            (LayerName::IpcNamespace, "its own"),
            (LayerName::UtsNamespace, "its own"),
            (LayerName::NetworkNamespace, "one without interfaces, shared by cells"),
        ] {
            report.add(name, Status::Enforced, detail);
        }
        report.add(
            LayerName::Root,
            Status::Enforced,
            "read-only tree of the interpreter and its packages",
        );

        process::unblock_signals()?;
        limits.apply()?;
        capabilities::drop_all()?;
        capabilities::verify_none()?;
        capabilities::verify_bounding_empty()?;
        report.add(
            LayerName::Capabilities,
            Status::Enforced,
            "none in any set; secure bits locked",
        );
        process::no_new_privileges()?;
        report.add(LayerName::NoNewPrivileges, Status::Enforced, "set for good");
        process::not_dumpable()?;
        process::die_with_parent()?;
        report.add(LayerName::Process, Status::Enforced, "not dumpable; killed with its parent");
        report.layers.push(rlimits_layer(limits));

        self.domain.enter()?;
        report.layers.push(landlock_layer(self.domain.support()));
        let kept = self.kept(role, keep)?;
        // SAFETY: the caller vouches for all descriptors but `keep`. Ours are the null device and
        // the ruleset, both in `kept` for a template; in a cell they are closed, and a cell neither
        // uses nor drops this value again, which is the caller's promise too.
        unsafe { descriptors::close_all_but(&kept, self.null.as_fd())? };
        report.add(
            LayerName::Descriptors,
            Status::Enforced,
            format!("{} kept, all others closed", keep.len()),
        );
        match role {
            Role::Cell => {
                self.filters.install_cell()?;
                let calls = Filters::cell_calls();
                let detail = format!(
                    "allow-list of {} calls, {} of them by argument",
                    calls.len(),
                    calls.filter(|call| call.1).count()
                );
                report.add(LayerName::Seccomp, Status::Enforced, detail);
            }
            Role::Template => {
                seccomp::in_force()?;
                report.add(
                    LayerName::Seccomp,
                    Status::Enforced,
                    "the zygote's allow-list, to clone cells",
                );
            }
        }
        Ok(report)
    }

    /// What stays open: the caller's list, and for a template what its own cells will need.
    fn kept(&self, role: Role, keep: &[RawFd]) -> Result<Vec<RawFd>, DescriptorError> {
        use std::os::fd::AsRawFd;
        descriptors::check(keep)?;
        let mut kept = keep.to_vec();
        if role == Role::Template {
            kept.push(self.null.as_raw_fd());
            kept.extend(self.domain.descriptor());
            kept.sort_unstable();
            kept.dedup();
        }
        Ok(kept)
    }
}

fn rlimits_layer(limits: &Rlimits) -> crate::Layer {
    let (status, detail) = match limits.describe() {
        none if none.is_empty() => (Status::Missing, "no limit was asked for".to_owned()),
        some => (Status::Enforced, some),
    };
    crate::Layer { name: LayerName::Rlimits, status, detail }
}

pub(crate) fn landlock_layer(support: Support) -> crate::Layer {
    let (status, detail) = match support {
        Support::Complete { abi } => {
            (Status::Enforced, format!("ABI {abi}: read files only, no TCP, no signals out"))
        }
        Support::Partial { abi, lacks } => {
            (Status::Partial, format!("ABI {abi} of this kernel lacks: {lacks}"))
        }
        Support::Missing => {
            (Status::Missing, "this kernel has no Landlock, or booted without it".to_owned())
        }
    };
    crate::Layer { name: LayerName::Landlock, status, detail }
}
