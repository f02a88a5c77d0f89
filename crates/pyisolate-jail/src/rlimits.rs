//! Resource limits: numbers the kernel holds one process to.
//!
//! They are what a host without cgroups has, and a second line where it has them. A cell can only
//! lower them.

use std::io;

use rustix::process::{Resource, Rlimit};

/// Limits to apply; `None` leaves what is inherited. Soft and hard limit become the same number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rlimits {
    /// `RLIMIT_CORE` in bytes. 0: no memory of the guest's is ever written to the host's disk.
    pub core_bytes: Option<u64>,
    /// `RLIMIT_NOFILE`: one more than the highest descriptor number.
    pub open_files: Option<u64>,
    /// `RLIMIT_NPROC`: threads. Since Linux 5.14 counted for each user namespace, so for each cell;
    /// before, for all processes of the user that the cell is outside.
    pub threads: Option<u64>,
    /// `RLIMIT_DATA` in bytes: private writable memory (heap, anonymous and private file mappings)
    /// whether touched or not, the zygote's part that the cell inherited included. Not counted:
    /// address space reserved without access (`PROT_NONE`), as allocators and BLAS libraries do;
    /// read-only mappings; the main stack; shared mappings, which a cell can make only of
    /// descriptors that it was given.
    pub data_bytes: Option<u64>,
    /// `RLIMIT_AS` in bytes: all address space. It bounds what `data_bytes` does not see, above all
    /// the page tables of what is mapped and only read; far above what is used, since allocators
    /// and libraries reserve much more than they touch.
    pub address_space_bytes: Option<u64>,
    /// `RLIMIT_STACK` in bytes, of the main thread.
    pub stack_bytes: Option<u64>,
    /// `RLIMIT_CPU` in seconds, over all threads. A backstop in whole seconds, ending in `SIGKILL`;
    /// the supervisor meters finer.
    pub cpu_seconds: Option<u64>,
    /// `RLIMIT_FSIZE` in bytes: how far a regular file may be written, by any descriptor. 0 also
    /// stops writing to files that the broker opened and passed.
    pub file_bytes: Option<u64>,
    /// `RLIMIT_MSGQUEUE` in bytes.
    pub message_queue_bytes: Option<u64>,
    /// `RLIMIT_MEMLOCK` in bytes.
    pub locked_bytes: Option<u64>,
}

impl Rlimits {
    /// The limits that hold whatever the policy: no core dumps, no message queues, no locked
    /// memory, no file writing.
    #[must_use]
    pub const fn fixed() -> Self {
        Self {
            core_bytes: Some(0),
            open_files: None,
            threads: None,
            data_bytes: None,
            address_space_bytes: None,
            // What glibc and CPython assume for the main thread.
            stack_bytes: Some(8 << 20),
            cpu_seconds: None,
            file_bytes: Some(0),
            message_queue_bytes: Some(0),
            locked_bytes: Some(0),
        }
    }

    /// Applies every limit that is set to the calling process, and reads each back.
    ///
    /// # Errors
    /// Names the limit. `EPERM`: the number is above the hard limit that is in force.
    pub fn apply(&self) -> Result<(), RlimitError> {
        for (name, resource, value) in self.named() {
            let Some(value) = value else { continue };
            let wanted = Rlimit { current: Some(value), maximum: Some(value) };
            rustix::process::setrlimit(resource, wanted).map_err(|error| RlimitError::Set {
                name,
                value,
                source: error.into(),
            })?;
            if rustix::process::getrlimit(resource) != wanted {
                return Err(RlimitError::NotInForce { name, value });
            }
        }
        Ok(())
    }

    /// The limits that are set, with the kernel's names: `core=0 nofile=64`.
    #[must_use]
    pub fn describe(&self) -> String {
        let set = self
            .named()
            .into_iter()
            .filter_map(|(name, _, value)| value.map(|value| format!("{name}={value}")));
        set.collect::<Vec<_>>().join(" ")
    }

    fn named(&self) -> [(&'static str, Resource, Option<u64>); 10] {
        [
            ("core", Resource::Core, self.core_bytes),
            ("nofile", Resource::Nofile, self.open_files),
            ("nproc", Resource::Nproc, self.threads),
            ("data", Resource::Data, self.data_bytes),
            ("as", Resource::As, self.address_space_bytes),
            ("stack", Resource::Stack, self.stack_bytes),
            ("cpu", Resource::Cpu, self.cpu_seconds),
            ("fsize", Resource::Fsize, self.file_bytes),
            ("msgqueue", Resource::Msgqueue, self.message_queue_bytes),
            ("memlock", Resource::Memlock, self.locked_bytes),
        ]
    }
}

/// Why a limit is not in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RlimitError {
    /// `setrlimit`.
    #[error("setting RLIMIT_{name} to {value} failed")]
    Set {
        /// The kernel's name, in lower case.
        name: &'static str,
        /// The number asked for.
        value: u64,
        /// Why.
        source: io::Error,
    },
    /// The kernel reports another number than the one it accepted.
    #[error("RLIMIT_{name} is not {value} after it was set")]
    NotInForce {
        /// The kernel's name, in lower case.
        name: &'static str,
        /// The number asked for.
        value: u64,
    },
}
