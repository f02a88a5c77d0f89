//! All layers in order, and the report that says they hold.

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::StatVfsMountFlags;

use crate::clone::{self, Cloned, PLAIN_CLONE_FLAGS};
use crate::ground::Ground;
use crate::landlock::{self, Support};
use crate::rlimits::Rlimits;
use crate::seccomp::{self, Filters};
use crate::{
    CapabilityError, DescriptorError, Domain, LandlockError, LayerName, NetworkError, ProcessError,
    Report, RlimitError, SeccompError, Status, capabilities, descriptors, network, process,
};

mod layers;

pub(crate) use layers::landlock_layer;

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
    /// The zygote is not the first process of a pid namespace that it was said to have.
    #[error("a zygote with namespaces of its own must be pid 1, but is {0}")]
    NotInit(u32),
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
    /// The zygote ended before its cell was tied to its life.
    #[error("the zygote is gone")]
    Orphan,
    /// A process that makes others was to run code of a guest's where no namespace ends them with
    /// it.
    #[error(
        "namespaces: a template needs its own, so that nothing that its set-up starts outlives it; \
         spawn cells without a template here, or let this user have user namespaces ({0})"
    )]
    TemplateNeedsNamespaces(String),
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
    ground: Ground,
    /// The process that clones cells, by the number that it and they know it by.
    maker: AtomicU32,
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
        Self::prepare_on(Ground::Whole)
    }

    /// The same where the launcher found poorer ground. What that still has is checked all the same.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_on(ground: Ground) -> Result<Self, PrepareError> {
        let filters = match ground {
            Ground::Whole | Ground::WholeAsRoot => {
                let root =
                    rustix::fs::statvfs("/").map_err(|error| PrepareError::Root(error.into()))?;
                if !root.f_flag.contains(StatVfsMountFlags::RDONLY) {
                    return Err(PrepareError::RootWritable);
                }
                network::verify_empty()?;
                Filters::compile()?
            }
            Ground::HostTree(_) => {
                let pid = std::process::id();
                if pid != 1 {
                    return Err(PrepareError::NotInit(pid));
                }
                network::verify_empty()?;
                Filters::compile_shared()?
            }
            Ground::NoNamespaces(_) => Filters::compile_shared()?,
        };
        let domain = Domain::prepare()?;
        if !ground.is_whole() && domain.support() != Support::Missing {
            landlock::verify_listed()?;
        }
        let (maker, null) = (AtomicU32::new(0), descriptors::open_null()?);
        Ok(Self { ground, maker, domain, filters, null })
    }

    /// Whether the kernel counts a cell's threads by `RLIMIT_NPROC`. It does in a user namespace of
    /// the cell's own; else it would count every process of the host's user. Root it never limits.
    #[must_use]
    pub fn counts_threads(&self) -> bool {
        self.ground == Ground::Whole
    }

    /// Whether cells have namespaces and a root of their own: else none can be a template (see
    /// [`EnterError::TemplateNeedsNamespaces`]).
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.ground.is_whole()
    }

    /// Clones a cell: into namespaces of its own, where there are any to be had.
    ///
    /// # Errors
    /// As [`clone::clone_cell`].
    pub fn clone_cell(&self) -> io::Result<Cloned> {
        self.maker.store(std::process::id(), Ordering::Relaxed);
        match self.ground {
            Ground::Whole | Ground::WholeAsRoot => clone::clone_cell(),
            Ground::HostTree(_) | Ground::NoNamespaces(_) => clone::clone_with(PLAIN_CLONE_FLAGS),
        }
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

    /// Applies every layer to a process fresh from [`Self::clone_cell`], whose parent has
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
        match self.ground.why() {
            None => verify_fresh()?,
            Some(why) if role == Role::Template => {
                return Err(EnterError::TemplateNeedsNamespaces(why.to_owned()));
            }
            Some(_) => {}
        }
        self.report_ground(&mut report);

        process::unblock_signals()?;
        limits.apply()?;
        if self.ground.is_whole() {
            capabilities::drop_all()?;
            capabilities::verify_bounding_empty()?;
        } else {
            capabilities::drop_what_may_be_dropped()?;
        }
        capabilities::verify_none()?;
        report.layers.push(self.capabilities_layer());
        process::no_new_privileges()?;
        report.add(LayerName::NoNewPrivileges, Status::Enforced, "set for good");
        process::not_dumpable()?;
        process::die_with_parent()?;
        // In a pid namespace of its own nobody stays behind; the parent has no number there.
        let maker = self.maker.load(Ordering::Relaxed);
        let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        if !self.ground.is_whole() && u32::try_from(parent) != Ok(maker) {
            return Err(EnterError::Orphan);
        }
        report.add(LayerName::Process, Status::Enforced, "not dumpable; killed with its parent");
        report.layers.push(self.rlimits_layer(limits));

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
                let only_reads = !self.domain.support().guards_truncation();
                if self.ground.is_whole() {
                    self.filters.install_cell()?;
                } else {
                    self.filters.install_shared_cell(only_reads)?;
                }
                let calls = Filters::cell_calls();
                let detail = format!(
                    "allow-list of {} calls, {} of them by argument{}",
                    calls.len(),
                    calls.filter(|call| call.1).count(),
                    match () {
                        () if self.ground.is_whole() => "",
                        () if only_reads => "; signals to itself alone; no file is opened to write",
                        () => "; signals to itself alone",
                    }
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

/// Checks that the process came out of a clone into new namespaces.
fn verify_fresh() -> Result<(), EnterError> {
    let pid = std::process::id();
    if pid != 1 {
        return Err(EnterError::NotInit(pid));
    }
    // The zygote has no capabilities, so to have some now proves the new user namespace; and one
    // clone made it together with the pid, mount, ipc and uts namespaces, or would have failed.
    if capabilities::any_effective()? { Ok(()) } else { Err(EnterError::NotFresh) }
}
