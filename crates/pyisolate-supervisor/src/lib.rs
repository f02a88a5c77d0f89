//! Owns cells: makes them, talks to them, bounds them, and knows how each one ended.
//!
//! This is the Rust face of PyIsolate, and what the Python package and the command stand on. It
//! links no CPython: the interpreter runs in the cells. A [`Supervisor`] starts one launcher, whose
//! zygote is forked for every [`Cell`]; a cell is confined before it says its first word.
//!
//! Everything that a guest sends passes one function (`crossing`), where it is counted, checked and
//! queued. The guest is the enemy: nothing here blocks for ever, panics or allocates without a cap
//! because of what it sends, and a cell that breaks the contract is killed with the reason told.
//!
//! It refuses to fork the host, to unpickle anything with CPython's unpickler, and to report a
//! layer of the jail that the kernel did not confirm.
#![forbid(unsafe_code)]

mod body;
mod cell;
mod configure;
mod confinement;
mod crossing;
mod delivery;
mod environment;
mod error;
mod event;
mod grants;
mod groups;
mod handle;
mod handler;
mod incoming;
mod journalling;
mod launcher;
mod machines;
mod monitor;
mod operations;
mod options;
mod outbound;
mod pace;
mod packages;
mod process;
mod programs;
mod reload;
mod requests;
mod require;
mod resident;
mod supervisor;
mod template;
mod throttle;
mod trial;
mod workers;
mod zygote;

pub use body::{Interpreter, InterpreterEnd, InterpreterError, Interpreters, OnEnd};
pub use confinement::Confinement;
pub use delivery::{Buffer, Delivery};
pub use environment::{DESCRIBE, Environment, EnvironmentError};
pub use error::{CellError, Death, GuestFailure, SpawnError};
pub use event::{Denial, Event, Stats};
pub use handle::{CallHandle, Cell, ExecHandle, Outbound};
pub use handler::{Handler, HandlerCall, HostCapability, Parcel};
pub use machines::MachineOptions;
pub use options::{Backend, CellOptions, SupervisorOptions};
pub use outbound::Patience;
pub use pyisolate_abi as abi;
pub use pyisolate_abi::pickle::{Message, Node, TrustedName, TrustedNames, Value};
pub use pyisolate_broker as broker;
pub use pyisolate_channel::GuestFds;
pub use pyisolate_jail::{Layer, LayerName, Status};
pub use pyisolate_microvm::{self as microvm, Accelerator, image};
pub use pyisolate_policy as policy;
pub use pyisolate_policy::{
    CellName, ImportError, Imports, LimitError, LimitName, Limits, NameError,
};
pub use reload::ReloadError;
pub use require::{Requirement, RequirementError};
pub use supervisor::Supervisor;
pub use template::Template;
pub use trial::{Examination, Lost, Point, examine};
