//! Linux confinement for processes that run hostile code, one kernel mechanism a file.
//!
//! **What.** A launcher clones the *outer jail* ([`spawn_outer`]): new namespaces, and a tiny
//! read-only file tree in place of the host's ([`RootPlan`]). The interpreter executed there is the
//! *zygote*. It makes a [`CellJail`] once, confines itself with it ([`CellJail::enter_zygote`]),
//! and clones a process per cell ([`clone_cell`]), which gives up everything else
//! ([`CellJail::enter`]) before guest code runs.
//!
//! A program that the broker runs gets another jail of the same parts ([`spawn_command`]): the host's
//! system folders to read, a scratch folder, and no network.
//!
//! A guest that runs on a thread of the host's process gets what the kernel keeps for each thread by
//! itself ([`ThreadJail`]). Memory is not among it.
//!
//! **Why a crate of its own.** The jail is the same for every cell, whatever its policy, so it can
//! be read, tested and measured by itself. It links neither Python nor the supervisor, and costs a
//! fraction of a millisecond a cell.
//!
//! **What it refuses to do.** It never weakens itself in silence: a layer that cannot be applied is
//! an error, and the process that meets it has to end. The exceptions are Landlock, which a kernel
//! may lack, namespaces and mounts that the host refuses ([`Ground`]), and what a thread cannot have,
//! or not without rights; then the [`Report`] says so, and who demands it can refuse the cell. Every
//! layer in a report was read back from the kernel. Nothing here grants anything: there is no call
//! to widen a jail once entered. It knows no policy, and does not run where the kernel has no seccomp
//! filters or is older than 5.14.

pub mod capabilities;
mod cgroup;
mod clone;
mod command;
mod command_root;
pub mod descriptors;
pub mod elf;
mod enter;
mod ground;
mod landlock;
mod layer;
mod ld_so_conf;
mod namespaces;
pub mod network;
mod plan;
pub mod process;
mod report;
mod rlimits;
mod root;
mod scratch;
pub mod seccomp;
mod seccomp_command;
mod seccomp_table;
mod seccomp_thread;
mod template;
mod thread;
mod thread_namespaces;
mod thread_root;

pub use capabilities::CapabilityError;
pub use cgroup::{CgroupError, Cgroups, Controller, Group, GroupLimits};
pub use clone::{CELL_CLONE_FLAGS, Cloned, clone_cell};
pub use command::{Command, CommandError, CommandEvent, spawn_command};
pub use command_root::CommandRootError;
pub use descriptors::DescriptorError;
pub use elf::Unresolved;
pub use enter::{CellJail, EnterError, PrepareError, Role};
pub use ground::{Ground, HostTreeError, enter_host_tree};
pub use landlock::{Domain, LandlockError, Support};
pub use layer::{LayerName, Status};
pub use namespaces::{
    NOBODY, NobodyError, Outer, OuterChild, SpawnError, best_ground, launcher_is_root, spawn_outer,
    spawn_outer_on,
};
pub use network::NetworkError;
pub use plan::{
    Bind, BindKind, Environment, FIXED_VARIABLES, HOME_VARIABLE, INTERPRETER_FLAGS,
    LIBRARIES_VARIABLE, PlanError, RootPlan,
};
pub use process::ProcessError;
pub use report::{DETAIL_MAX_BYTES, DecodeError, ENCODED_MAX_BYTES, LAYERS_MAX, Layer, Report};
pub use rlimits::{RlimitError, Rlimits};
pub use root::{RootError, Trees};
pub use scratch::scratch;
pub use seccomp::{Filters, SeccompError};
pub use seccomp_command::CommandFilter;
pub use template::{MapTemplateError, await_map, map_template};
pub use thread::{PrepareThreadError, ThreadError, ThreadJail};
pub use thread_namespaces::ThreadNamespaceError;
