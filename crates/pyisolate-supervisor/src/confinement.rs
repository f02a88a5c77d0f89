//! What confines a cell, as the supervisor vouches for it: the layers, what was required of them,
//! and the policy that holds.

use std::fmt;

use pyisolate_jail::{Layer, LayerName, Report, Status};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::cell::{CellShared, lock};
use crate::options::Backend;
use crate::process::ProcStatus;
use crate::require::Requirement;

/// What confines a cell. Layers are as the kernel said after they were applied: read back inside the
/// cell before guest code ran, and compared with what `/proc` shows of it.
#[derive(Clone, Debug)]
pub struct Confinement {
    /// The cell's name.
    pub cell: String,
    /// Where its wall stands.
    pub backend: Backend,
    /// What was required.
    pub require: Requirement,
    /// The layers.
    pub report: Report,
    /// The SHA-256 of the policy in force, as JSON, in hexadecimal digits.
    pub policy_sha256: String,
}

impl Confinement {
    /// The layers that a requirement asks for and that do not hold.
    #[must_use]
    pub fn lacking(&self, require: &Requirement) -> Vec<Layer> {
        require.lacking(self.backend, &self.report)
    }

    /// The whole as one JSON object: `version` (1), `cell`, `backend`, `require`, `policy_sha256` and
    /// `layers`, each with `name`, `status`, `detail`, `meaning`, and `remedy` if it is not enforced.
    #[must_use]
    pub fn to_json(&self) -> String {
        let layers: Vec<Value> = self.report.layers.iter().map(layer_json).collect();
        json!({
            "version": 1,
            "cell": self.cell,
            "backend": self.backend.as_str(),
            "require": self.require.to_string(),
            "policy_sha256": self.policy_sha256,
            "layers": layers,
        })
        .to_string()
    }
}

impl CellShared {
    /// The layers. `placed`: after the process is in its group, or cannot be.
    pub(crate) fn report(&self, placed: bool) -> Report {
        let mut report = lock(&self.state).ready.clone().unwrap_or_default();
        if let Some(resident) = self.body.as_machine() {
            report = resident.report(&report);
        }
        match self.body.placement() {
            Some(placement) if placed => report.layers.push(placement.layer()),
            Some(_) => {}
            None => report.add(LayerName::Cgroup, Status::Missing, THREADS_HAVE_NONE),
        }
        report.add(LayerName::Clock, Status::Missing, CLOCK_IS_OPEN);
        report
    }

    /// What confines it, after its process is in its group or cannot be; resource limits as they are
    /// now.
    pub(crate) fn confinement(&self) -> Confinement {
        let mut report = self.report(true);
        let rlimits = report.layers.iter_mut().find(|layer| layer.name == LayerName::Rlimits);
        if let (Some(layer), Some(limits)) = (rlimits, self.body.limits()) {
            layer.detail = match layer.status {
                Status::Partial => format!("{limits}; {}", layer.detail),
                Status::Enforced | Status::Missing => limits,
            };
        }
        let settings = self.settings.get();
        Confinement {
            cell: settings.map(|it| it.name.to_string()).unwrap_or_default(),
            backend: settings.map(|it| it.backend).unwrap_or_default(),
            require: settings.map(|it| it.require.clone()).unwrap_or_default(),
            report,
            policy_sha256: sha256(
                &settings.map(|it| it.session.policy().to_json()).unwrap_or_default(),
            ),
        }
    }
}

/// Why a sub-interpreter has no group.
const THREADS_HAVE_NONE: &str =
    "a thread of the host's is in the host's; memory is counted by the interpreter's allocators";
/// A guard in the runtime stands where the policy grants no clock; native code walks past it.
const CLOCK_IS_OPEN: &str = "read without a system call, like the processor's randomness: without a \
                             grant only guest code's own imports are guarded";

/// A line a layer.
impl fmt::Display for Confinement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.report.fmt(out)
    }
}

fn layer_json(layer: &Layer) -> Value {
    let mut object = json!({
        "name": layer.name.as_str(),
        "status": layer.status.as_str(),
        "detail": layer.detail,
        "meaning": layer.name.meaning(),
    });
    if let (Some(remedy), true) = (layer.name.remedy(), layer.status != Status::Enforced) {
        object["remedy"] = Value::from(remedy);
    }
    object
}

/// The SHA-256 of a text, in hexadecimal digits.
pub(crate) fn sha256(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Takes out of a cell's own report what the kernel does not confirm from outside. A cell of a
/// template that ran hostile set-up code could have made up its own.
pub(crate) fn confirm(report: &mut Report, seen: &ProcStatus) {
    let says = report.get(LayerName::Capabilities).map(|it| it.status);
    let mut refute = |name: LayerName, is_so: bool, what: &str| {
        let layer = report.layers.iter_mut().find(|layer| layer.name == name);
        if let (Some(layer), false) = (layer.filter(|it| it.status != Status::Missing), is_so) {
            layer.status = Status::Missing;
            layer.detail = format!("/proc shows {what}");
        }
    };
    refute(LayerName::NoNewPrivileges, seen.no_new_privileges, "that it could gain privileges");
    refute(LayerName::Seccomp, seen.filtered, "no system call filter");
    refute(LayerName::Capabilities, seen.without_capabilities, "capabilities");
    // Who may not empty the bounding set says so.
    let bounded = seen.without_bounding_set || says != Some(Status::Enforced);
    refute(LayerName::Capabilities, bounded, "a bounding set");
    for (name, own) in &seen.namespaces {
        refute(*name, *own, "the host's own");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_refutes_is_missing() {
        let mut report = Report::default();
        for name in [LayerName::Seccomp, LayerName::Capabilities, LayerName::UserNamespace] {
            report.add(name, Status::Enforced, "says the cell");
        }
        let seen = ProcStatus {
            no_new_privileges: true,
            filtered: false,
            without_capabilities: true,
            without_bounding_set: true,
            namespaces: vec![(LayerName::UserNamespace, false)],
        };
        confirm(&mut report, &seen);
        let status = |name| report.get(name).unwrap().status;
        assert_eq!(status(LayerName::Seccomp), Status::Missing);
        assert_eq!(status(LayerName::Capabilities), Status::Enforced);
        assert_eq!(status(LayerName::UserNamespace), Status::Missing);
        assert!(report.get(LayerName::NoNewPrivileges).is_none(), "nothing is added");
    }

    #[test]
    fn a_bounding_set_that_is_told_of_is_no_lie() {
        for (said, status) in
            [(Status::Enforced, Status::Missing), (Status::Partial, Status::Partial)]
        {
            let mut report = Report::default();
            report.add(LayerName::Capabilities, said, "says the cell");
            let seen = ProcStatus {
                no_new_privileges: true,
                filtered: true,
                without_capabilities: true,
                without_bounding_set: false,
                namespaces: Vec::new(),
            };
            confirm(&mut report, &seen);
            assert_eq!(report.get(LayerName::Capabilities).unwrap().status, status);
        }
    }

    #[test]
    fn a_hash_is_the_standards() {
        assert!(sha256("abc").starts_with("ba7816bf8f01cfea414140de5dae2223"));
    }
}
