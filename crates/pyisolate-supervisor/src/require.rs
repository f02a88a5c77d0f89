//! Which layers must hold before guest code runs.

use std::str::FromStr;

use pyisolate_jail::{Layer, LayerName, Report, Status};
use thiserror::Error;

use crate::options::Backend;

/// What a cell's confinement is held to. A layer that is not there ends the cell before guest code
/// runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Requirement {
    /// The layers without which the backend's promise is false.
    #[default]
    Default,
    /// Every layer that the backend has.
    Hardened,
    /// Those of [`Self::Default`] and these, each enforced.
    Layers(Vec<LayerName>),
    /// None: whatever holds.
    None,
}

/// A word that is neither a requirement nor a layer.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "require={0:?} is not \"default\", \"hardened\", \"none\" or a layer ({names})",
    names = LayerName::ALL.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(", ")
)]
pub struct RequirementError(String);

impl FromStr for Requirement {
    type Err = RequirementError;

    /// `default`, `hardened`, `none`, or names of layers with commas between them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "default" => Self::Default,
            "hardened" => Self::Hardened,
            "none" => Self::None,
            names => {
                let layer = |name: &str| {
                    LayerName::parse(name).ok_or_else(|| RequirementError(name.to_owned()))
                };
                Self::Layers(names.split(',').map(str::trim).map(layer).collect::<Result<_, _>>()?)
            }
        })
    }
}

impl std::fmt::Display for Requirement {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => out.write_str("default"),
            Self::Hardened => out.write_str("hardened"),
            Self::None => out.write_str("none"),
            Self::Layers(names) => {
                let names: Vec<_> = names.iter().map(|it| it.as_str()).collect();
                out.write_str(&names.join(","))
            }
        }
    }
}

impl Requirement {
    /// Whether it speaks of control groups, which take a while to join.
    pub(crate) fn needs_cgroup(&self, backend: Backend) -> bool {
        match self {
            Self::Default | Self::None => false,
            Self::Hardened => backend != Backend::Subinterpreter,
            Self::Layers(names) => names.contains(&LayerName::Cgroup),
        }
    }

    /// The layers that must hold and do not, with why.
    pub(crate) fn lacking(&self, backend: Backend, report: &Report) -> Vec<Layer> {
        let mut lacking = match self {
            Self::None => return Vec::new(),
            Self::Default | Self::Layers(_) => Vec::new(),
            Self::Hardened => unmet(report, hardened(backend)),
        };
        if let Self::Layers(names) = self {
            lacking =
                unmet(report, &names.iter().map(|it| (*it, Status::Enforced)).collect::<Vec<_>>());
        }
        for layer in unmet(report, promised(backend)) {
            if !lacking.iter().any(|it| it.name == layer.name) {
                lacking.push(layer);
            }
        }
        // Either keeps the host's files out by itself.
        let files = [(LayerName::Root, Status::Partial), (LayerName::Landlock, Status::Partial)];
        let without = unmet(report, &files);
        if without.len() == files.len() {
            lacking.extend(without.into_iter().filter(|it| it.name == LayerName::Root));
            lacking.dedup_by_key(|it| it.name);
        }
        lacking
    }
}

/// What the backend's promise rests on, and how far it has to be enforced.
fn promised(backend: Backend) -> &'static [(LayerName, Status)] {
    use LayerName::{
        Capabilities, Descriptors, Environment, NoNewPrivileges, Rlimits, Seccomp, VirtualMachine,
    };
    use Status::{Enforced, Partial};
    match backend {
        Backend::Process => &[
            (Seccomp, Enforced),
            (NoNewPrivileges, Enforced),
            // A bounding set, or the variable that says where libraries lie, is no way out.
            (Capabilities, Partial),
            (Descriptors, Enforced),
            (Environment, Partial),
            (Rlimits, Partial),
        ],
        // Emulation is what somebody asked for by name.
        Backend::Microvm => &[
            (VirtualMachine, Partial),
            (Seccomp, Enforced),
            (NoNewPrivileges, Enforced),
            (Capabilities, Partial),
            (Descriptors, Enforced),
            (Environment, Partial),
            (Rlimits, Partial),
        ],
        Backend::Subinterpreter => &[
            (Seccomp, Enforced),
            (NoNewPrivileges, Enforced),
            (Capabilities, Partial),
            (Descriptors, Enforced),
        ],
    }
}

/// Every layer that the backend has. An older kernel's Landlock knows fewer rights; what it lacks the
/// filter refuses, too.
fn hardened(backend: Backend) -> &'static [(LayerName, Status)] {
    use LayerName::{
        Capabilities, Cgroup, Descriptors, Environment, IpcNamespace, Landlock, MountNamespace,
        NetworkNamespace, NoNewPrivileges, PidNamespace, Process, Rlimits, Root, Seccomp,
        UserNamespace, UtsNamespace, VirtualMachine,
    };
    use Status::{Enforced, Partial};
    match backend {
        Backend::Process => &[
            (UserNamespace, Enforced),
            (PidNamespace, Enforced),
            (MountNamespace, Enforced),
            (IpcNamespace, Enforced),
            (UtsNamespace, Enforced),
            (NetworkNamespace, Enforced),
            (Root, Enforced),
            (Capabilities, Enforced),
            (NoNewPrivileges, Enforced),
            (Landlock, Partial),
            (Seccomp, Enforced),
            (Rlimits, Enforced),
            (Descriptors, Enforced),
            (Environment, Enforced),
            (Process, Enforced),
            (Cgroup, Enforced),
        ],
        Backend::Microvm => &[
            (VirtualMachine, Enforced),
            (UserNamespace, Enforced),
            (PidNamespace, Enforced),
            (MountNamespace, Enforced),
            (IpcNamespace, Enforced),
            (UtsNamespace, Enforced),
            (NetworkNamespace, Enforced),
            (Root, Enforced),
            (Capabilities, Enforced),
            (NoNewPrivileges, Enforced),
            (Landlock, Partial),
            (Seccomp, Enforced),
            (Rlimits, Enforced),
            (Descriptors, Enforced),
            (Environment, Enforced),
            (Process, Enforced),
            (Cgroup, Enforced),
        ],
        Backend::Subinterpreter => &[
            (MountNamespace, Enforced),
            (IpcNamespace, Enforced),
            (UtsNamespace, Enforced),
            (NetworkNamespace, Enforced),
            (Root, Enforced),
            (Capabilities, Enforced),
            (NoNewPrivileges, Enforced),
            (Landlock, Partial),
            (Seccomp, Enforced),
            (Descriptors, Enforced),
        ],
    }
}

fn unmet(report: &Report, wanted: &[(LayerName, Status)]) -> Vec<Layer> {
    let is_met = |layer: &Layer, least: Status| match least {
        Status::Enforced => layer.status == Status::Enforced,
        Status::Partial => layer.status != Status::Missing,
        Status::Missing => true,
    };
    let unmet = |&(name, least): &(LayerName, Status)| match report.get(name) {
        Some(layer) if is_met(layer, least) => None,
        Some(layer) => Some(layer.clone()),
        None => Some(Layer {
            name,
            status: Status::Missing,
            detail: "the backend has no such layer".to_owned(),
        }),
    };
    wanted.iter().filter_map(unmet).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(but: &[(LayerName, Status)]) -> Report {
        let mut report = Report::default();
        for name in LayerName::ALL {
            let other = but.iter().find(|it| it.0 == *name);
            report.add(*name, other.map_or(Status::Enforced, |it| it.1), "so");
        }
        report
    }

    fn lacking(text: &str, but: &[(LayerName, Status)]) -> Vec<&'static str> {
        let requirement: Requirement = text.parse().unwrap();
        let lacking = requirement.lacking(Backend::Process, &report(but));
        lacking.iter().map(|it| it.name.as_str()).collect()
    }

    #[test]
    fn what_the_promise_rests_on_is_required_by_default() {
        use LayerName::{Capabilities, Cgroup, Environment, Landlock, Root, Seccomp};
        use Status::{Missing, Partial};
        assert!(lacking("default", &[(Cgroup, Missing), (Landlock, Missing)]).is_empty());
        assert!(lacking("default", &[(Root, Missing)]).is_empty());
        assert_eq!(lacking("default", &[(Root, Missing), (Landlock, Missing)]), ["root"]);
        assert_eq!(lacking("default", &[(Seccomp, Partial)]), ["seccomp"]);
        assert!(lacking("default", &[(Capabilities, Partial), (Environment, Partial)]).is_empty());
        assert_eq!(lacking("default", &[(Capabilities, Missing)]), ["capabilities"]);
        assert!(lacking("none", &[(Seccomp, Missing), (Root, Missing)]).is_empty());
    }

    #[test]
    fn layers_by_name_come_on_top() {
        use LayerName::{Cgroup, Landlock, Seccomp};
        use Status::{Missing, Partial};
        assert_eq!(lacking("landlock", &[(Landlock, Partial)]), ["landlock"]);
        assert_eq!(
            lacking("cgroup", &[(Cgroup, Missing), (Seccomp, Missing)]),
            ["cgroup", "seccomp"]
        );
        assert_eq!(lacking("hardened", &[(Cgroup, Partial)]), ["cgroup"]);
        assert!(lacking("hardened", &[(Landlock, Partial)]).is_empty());
    }

    #[test]
    fn words_are_read_back() {
        for text in ["default", "hardened", "none", "landlock,cgroup"] {
            assert_eq!(text.parse::<Requirement>().unwrap().to_string(), text);
        }
        let error = "landlok".parse::<Requirement>().unwrap_err().to_string();
        assert!(error.contains("landlok") && error.contains("hardened"), "{error}");
    }
}
