//! Capabilities: all gone from every set, and the ways back locked.

#![expect(
    unsafe_code,
    reason = "prctl on the bounding set by number: rustix knows only the names it was built with"
)]

use std::io;

use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

/// Linux has 41 capabilities and 64 bits for them. The loops end at the first number that the
/// kernel does not know.
const NUMBERS: std::ops::Range<libc::c_ulong> = 0..64;

/// Why capabilities could not be dropped, or are still there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CapabilityError {
    /// `prctl(PR_CAPBSET_DROP)`.
    #[error("dropping capability {number} from the bounding set failed")]
    DropBounding {
        /// The capability.
        number: u64,
        /// Why.
        source: io::Error,
    },
    /// `prctl(PR_SET_SECUREBITS)`.
    #[error("locking the secure bits failed")]
    SecureBits(#[source] io::Error),
    /// `prctl(PR_CAP_AMBIENT)`.
    #[error("clearing the ambient set failed")]
    ClearAmbient(#[source] io::Error),
    /// `capset`.
    #[error("capset to nothing failed")]
    Set(#[source] io::Error),
    /// `capget`.
    #[error("capget failed")]
    Get(#[source] io::Error),
    /// The kernel still reports capabilities after all were dropped.
    #[error("capabilities remain after all were dropped: {0:?}")]
    Remain(CapabilitySets),
    /// The kernel still reports a bounding set after it was emptied.
    #[error("capability {0} remains in the bounding set after it was dropped")]
    BoundingRemains(u64),
}

/// Drops everything, in a process that holds all capabilities of its user namespace, and locks the
/// secure bits so that not even user 0 would gain any by `execve`.
///
/// # Errors
/// Names the step.
pub fn drop_all() -> Result<(), CapabilityError> {
    drop_bounding()?;
    lock()?;
    drop_sets()
}

/// Locks the secure bits: no user gains capabilities by `execve`, and a change of user neither gives
/// nor takes any. Needs `CAP_SETPCAP`.
///
/// # Errors
/// The kernel's.
pub fn lock() -> Result<(), CapabilityError> {
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    rustix::thread::set_capabilities_secure_bits(bits)
        .map_err(|error| CapabilityError::SecureBits(error.into()))
}

/// Empties the ambient, inheritable, permitted and effective sets. Needs no capability.
///
/// # Errors
/// Names the step.
pub fn drop_sets() -> Result<(), CapabilityError> {
    rustix::thread::clear_ambient_capability_set()
        .map_err(|error| CapabilityError::ClearAmbient(error.into()))?;
    rustix::thread::set_capabilities(None, NOTHING)
        .map_err(|error| CapabilityError::Set(error.into()))
}

/// Empties the bounding set. Needs `CAP_SETPCAP`.
///
/// # Errors
/// Names the capability that would not go.
pub fn drop_bounding() -> Result<(), CapabilityError> {
    for number in NUMBERS {
        match prctl(libc::PR_CAPBSET_DROP, number) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(source) => return Err(CapabilityError::DropBounding { number, source }),
        }
    }
    Ok(())
}

/// Empties the bounding set and locks the secure bits where the host lets it be, and every other set
/// in any case: in a process that may have no capabilities, or none that a security module lets it
/// use.
///
/// # Errors
/// Names the step that failed for another reason than being refused.
pub(crate) fn drop_what_may_be_dropped() -> Result<(), CapabilityError> {
    match drop_bounding().and_then(|()| lock()) {
        Err(CapabilityError::DropBounding { source, .. } | CapabilityError::SecureBits(source))
            if source.raw_os_error() == Some(libc::EPERM) => {}
        done => done?,
    }
    drop_sets()
}

/// Whether the calling thread has all of `wanted` in its effective set.
pub(crate) fn has(wanted: CapabilitySet) -> Result<bool, CapabilityError> {
    let sets =
        rustix::thread::capabilities(None).map_err(|error| CapabilityError::Get(error.into()))?;
    Ok(sets.effective.contains(wanted))
}

/// Whether the process has any effective capability: proof of a fresh user namespace, in a cell
/// whose zygote had none.
///
/// # Errors
/// `capget`'s.
pub fn any_effective() -> Result<bool, CapabilityError> {
    let sets =
        rustix::thread::capabilities(None).map_err(|error| CapabilityError::Get(error.into()))?;
    Ok(!sets.effective.is_empty())
}

/// Reads back that the effective, permitted and inheritable sets are empty.
///
/// # Errors
/// If they are not.
pub fn verify_none() -> Result<(), CapabilityError> {
    let sets =
        rustix::thread::capabilities(None).map_err(|error| CapabilityError::Get(error.into()))?;
    if sets == NOTHING { Ok(()) } else { Err(CapabilityError::Remain(sets)) }
}

/// Reads back that the bounding set is empty.
///
/// # Errors
/// If it is not.
pub fn verify_bounding_empty() -> Result<(), CapabilityError> {
    for number in NUMBERS {
        match prctl(libc::PR_CAPBSET_READ, number) {
            Ok(0) => {}
            Ok(_) => return Err(CapabilityError::BoundingRemains(number)),
            Err(_) => break, // EINVAL: past the last one
        }
    }
    Ok(())
}

const NOTHING: CapabilitySets = CapabilitySets {
    effective: CapabilitySet::empty(),
    permitted: CapabilitySet::empty(),
    inheritable: CapabilitySet::empty(),
};

fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<libc::c_int> {
    let none: libc::c_ulong = 0;
    // SAFETY: both options that are passed here take a number and touch no memory of the caller's.
    let result = unsafe { libc::prctl(option, argument, none, none, none) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
