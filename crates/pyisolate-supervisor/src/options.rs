//! What supervisors and cells are made with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use pyisolate_abi::pickle::TrustedNames;
use pyisolate_broker::{BrokerOptions, Journal, SecretValue};
use pyisolate_policy::{CellName, Imports, Limits, Policy, Rule};

use crate::body::Interpreters;
use crate::environment::Environment;
use crate::event::Denial;
use crate::handler::HostCapability;
use crate::machines::MachineOptions;
use crate::require::Requirement;

/// What a supervisor is made with.
#[derive(Debug)]
pub struct SupervisorOptions {
    /// What cells run on.
    pub environment: Environment,
    /// How many confined cells to keep ready, of the backend `pool_of`.
    pub warm_pool: usize,
    /// Which kind of cells the pool holds.
    pub pool_of: Backend,
    /// How cells in sub-interpreters are made, where CPython is there.
    pub interpreters: Option<Arc<dyn Interpreters>>,
    /// What cells in virtual machines are made of.
    pub machines: MachineOptions,
    /// How requests are answered.
    pub broker: BrokerOptions,
    /// Who hears of every refusal. What finds the channel full is not told there.
    pub denials: Option<SyncSender<Denial>>,
    /// What every cell's confinement is held to, unless its own options say otherwise.
    pub require: Requirement,
    /// Where every crossing is written.
    pub journal: Option<Arc<Journal>>,
}

impl SupervisorOptions {
    /// A supervisor without a pool, whose broker is the ordinary one.
    #[must_use]
    pub fn new(environment: Environment) -> Self {
        let broker = BrokerOptions::default();
        Self {
            environment,
            warm_pool: 0,
            pool_of: Backend::Process,
            interpreters: None,
            machines: MachineOptions::default(),
            broker,
            denials: None,
            require: Requirement::default(),
            journal: None,
        }
    }
}

/// Where a cell's wall stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// Around a process of its own.
    #[default]
    Process,
    /// Around a thread of this process with an interpreter of its own.
    Subinterpreter,
    /// Around a virtual machine of its own.
    Microvm,
}

impl Backend {
    /// The name that callers use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Subinterpreter => "subinterpreter",
            Self::Microvm => "microvm",
        }
    }
}

/// What a cell is made with.
#[derive(Clone, Debug)]
pub struct CellOptions {
    /// Its name.
    pub name: CellName,
    /// Where its wall stands.
    pub backend: Backend,
    /// What it may use.
    pub limits: Limits,
    /// What its code may import.
    pub imports: Imports,
    /// Classes whose instances the host rebuilds.
    pub trusted: TrustedNames,
    /// What the broker grants it; nothing if `None`. Its limits are not looked at: `limits` is what
    /// holds, whoever made it of what.
    pub policy: Option<Policy>,
    /// What is granted beside the policy, and stays when the policy is replaced.
    pub granted: Vec<Rule>,
    /// Whether `policy` came from a document, and follows it in
    /// [`reload_policy`](crate::Supervisor::reload_policy).
    pub follows_document: bool,
    /// Whether files that it reads and connections are handed to it as descriptors, which it uses at
    /// the kernel's speed. If not, every byte of them passes the broker.
    pub hand_descriptors: bool,
    /// The values behind the names of secrets; the policy says what may be done with them.
    pub secrets: BTreeMap<String, SecretValue>,
    /// What its confinement is held to; `None`: what the supervisor's cells are.
    pub require: Option<Requirement>,
    /// Capabilities of the host's own, by name. One that the policy does not speak of is granted
    /// whole.
    pub capabilities: BTreeMap<String, HostCapability>,
}

impl CellOptions {
    /// A cell with the default limits that may import nothing.
    #[must_use]
    pub fn new(name: CellName) -> Self {
        Self {
            name,
            backend: Backend::default(),
            limits: Limits::default(),
            imports: Imports::default(),
            trusted: TrustedNames::default(),
            policy: None,
            granted: Vec::new(),
            follows_document: false,
            hand_descriptors: true,
            secrets: BTreeMap::new(),
            require: None,
            capabilities: BTreeMap::new(),
        }
    }
}
