//! Landlock: a second wall behind the read-only root and the system call filter, made of different
//! code.
//!
//! The domain lets a process read files and list directories, read and write `/dev/null`, and
//! nothing else: no executing, no writing, no TCP, no abstract sockets or signals across its edge.
//! The ruleset is made once; each cell enters it through the inherited descriptor. A thread of the
//! host, which may have no root of its own, enters one that names what may be read.
//!
//! It is the one layer a kernel may lack. What was achieved is a value, [`Support`], and goes into
//! the report.

#![expect(unsafe_code, reason = "landlock_restrict_self on a ruleset that several processes share")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    PathFdError, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::fs::{Mode, OFlags};

/// The newest ABI whose rights are asked for. Older kernels give what they have.
const WANTED: ABI = ABI::V6;

/// The first version with everything that the domain asks for (Linux 6.12).
const COMPLETE: i32 = 6;

/// How much of the domain this kernel enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// Everything asked for.
    Complete {
        /// The kernel's Landlock ABI version.
        abi: i32,
    },
    /// Some of it.
    Partial {
        /// The kernel's Landlock ABI version.
        abi: i32,
        /// What is not enforced.
        lacks: &'static str,
    },
    /// Landlock is not compiled in or was not enabled at boot.
    Missing,
}

/// Why the domain could not be made or entered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LandlockError {
    /// The ruleset could not be made, on a kernel that has Landlock.
    #[error("making the Landlock ruleset failed")]
    Ruleset(#[from] RulesetError),
    /// A path that a rule is about could not be opened.
    #[error("opening a path for a Landlock rule failed")]
    Path(#[from] PathFdError),
    /// `landlock_restrict_self`.
    #[error("landlock_restrict_self failed")]
    Enter(#[source] io::Error),
    /// The root can still be listed, which the domain does not allow.
    #[error("the Landlock domain is not in force after it was entered")]
    NotInForce,
}

/// What may be done at a path, and below it if it is a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Grant {
    /// Read files and list directories.
    Tree,
    /// List directories, and not read what is in them.
    Listing,
    /// Read this one file.
    File,
    /// Read it and execute it.
    Program,
    /// Read it and write to it.
    Null,
}

/// A ruleset that can be entered again and again.
#[derive(Debug)]
pub struct Domain {
    ruleset: Option<OwnedFd>,
    support: Support,
}

impl Domain {
    /// Makes the ruleset, about the root that the caller has now.
    ///
    /// # Errors
    /// When a kernel that has Landlock refuses. A kernel without it is not an error.
    pub fn prepare() -> Result<Self, LandlockError> {
        let support = Support::probe();
        if support == Support::Missing {
            return Ok(Self { ruleset: None, support });
        }
        let null = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
        let mut created = nothing_but_reading()?;
        // A root without /dev/null has nothing to allow there.
        if let Ok(device) = PathFd::new("/dev/null") {
            created = created.add_rule(PathBeneath::new(device, null))?;
        }
        Ok(Self { ruleset: created.into(), support })
    }

    /// Makes the ruleset of a program, about the root that the caller has now: besides reading
    /// everything, it may execute what is at or below `executable`, and write below `scratch` and
    /// to `devices`; those that are `driven` take their own requests, too.
    pub(crate) fn prepare_command(
        executable: &[PathBuf],
        scratch: &str,
        devices: &[&str],
        driven: &[PathBuf],
    ) -> Result<Self, LandlockError> {
        let support = Support::probe();
        if support == Support::Missing {
            return Ok(Self { ruleset: None, support });
        }
        let mut created = nothing_but_reading()?;
        for path in executable {
            created = created.add_rule(PathBeneath::new(PathFd::new(path)?, AccessFs::Execute))?;
        }
        for path in devices {
            let access = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
            created = created.add_rule(PathBeneath::new(PathFd::new(path)?, access))?;
        }
        for path in driven {
            let access = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
            created = created.add_rule(PathBeneath::new(PathFd::new(path)?, access))?;
        }
        let execute_and_devices =
            AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
        let own = AccessFs::from_all(WANTED) & !execute_and_devices;
        created = created.add_rule(PathBeneath::new(PathFd::new(scratch)?, own))?;
        Ok(Self { ruleset: created.into(), support })
    }

    /// Makes the ruleset of who stays in the host's tree: it has `grants` and nothing else of the
    /// tree that the caller has now. The rules are about the files themselves, by whatever path they
    /// are reached.
    pub(crate) fn prepare_listed(grants: &[(PathBuf, Grant)]) -> Result<Self, LandlockError> {
        let support = Support::probe();
        if support == Support::Missing {
            return Ok(Self { ruleset: None, support });
        }
        let mut created = nothing()?;
        for (path, grant) in grants {
            let access: BitFlags<AccessFs> = match grant {
                Grant::Tree => AccessFs::ReadFile | AccessFs::ReadDir,
                Grant::Listing => AccessFs::ReadDir.into(),
                Grant::File => AccessFs::ReadFile.into(),
                Grant::Program => AccessFs::ReadFile | AccessFs::Execute,
                Grant::Null => AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate,
            };
            created = created.add_rule(PathBeneath::new(PathFd::new(path)?, access))?;
        }
        Ok(Self { ruleset: created.into(), support })
    }

    /// What the kernel enforces of it.
    #[must_use]
    pub fn support(&self) -> Support {
        self.support
    }

    /// The ruleset's descriptor, for who closes all others.
    #[must_use]
    pub fn descriptor(&self) -> Option<RawFd> {
        self.ruleset.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Confines the calling thread and what it makes. Needs `no_new_privs`. Does nothing on a
    /// kernel without Landlock.
    ///
    /// # Errors
    /// The kernel's; `E2BIG` after sixteen domains inside one another.
    pub fn enter(&self) -> Result<(), LandlockError> {
        let Some(ruleset) = &self.ruleset else { return Ok(()) };
        // SAFETY: landlock_restrict_self takes a ruleset descriptor and flags, and touches no
        // memory of ours. `ruleset` is open for as long as `self` is.
        let result =
            unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
        if result == 0 { Ok(()) } else { Err(LandlockError::Enter(io::Error::last_os_error())) }
    }
}

/// Tries what the domain of [`Domain::prepare_listed`] refuses on every kernel that has Landlock: to
/// list the root. (There is no call that asks for the domain itself.)
pub(crate) fn verify_listed() -> Result<(), LandlockError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open("/", flags, Mode::empty()) {
        Err(rustix::io::Errno::ACCESS) => Ok(()),
        _ => Err(LandlockError::NotInForce),
    }
}

/// A ruleset about everything there is to restrict, which allows none of it.
fn nothing() -> Result<RulesetCreated, LandlockError> {
    Ok(Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(AccessNet::from_all(WANTED))?
        .scope(Scope::from_all(WANTED))?
        .create()?)
}

/// The same, which lets files be read and folders be listed.
fn nothing_but_reading() -> Result<RulesetCreated, LandlockError> {
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    Ok(nothing()?.add_rule(PathBeneath::new(PathFd::new("/")?, read))?)
}

impl Support {
    /// Whether opening a file for reading cannot cut it off (`O_TRUNC`): since version 3.
    pub(crate) fn guards_truncation(self) -> bool {
        matches!(self, Self::Complete { abi } | Self::Partial { abi, .. } if abi >= 3)
    }

    /// Asks the kernel for its Landlock version.
    #[must_use]
    pub fn probe() -> Self {
        // LANDLOCK_CREATE_RULESET_VERSION (include/uapi/linux/landlock.h): no ruleset, only the
        // version.
        const VERSION: libc::c_uint = 1;
        let nothing = std::ptr::null::<libc::c_void>();
        // SAFETY: with this flag landlock_create_ruleset wants a null attribute of size 0 and reads
        // no memory.
        let abi =
            unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, VERSION) };
        Self::of(i32::try_from(abi).unwrap_or(-1))
    }

    fn of(abi: i32) -> Self {
        let lacks = match abi {
            ..=0 => return Self::Missing,
            1 => "moving files, truncation, TCP, device ioctl, abstract sockets and signals",
            2 => "truncation, TCP, device ioctl, abstract sockets and signals",
            3 => "TCP, device ioctl, abstract sockets and signals",
            4 => "device ioctl, abstract sockets and signals",
            5 => "abstract sockets and signals",
            COMPLETE.. => return Self::Complete { abi },
        };
        Self::Partial { abi, lacks }
    }
}
