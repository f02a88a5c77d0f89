//! What a cell's report says of the layers that depend on the host.

use super::CellJail;
use crate::ground::Ground;
use crate::landlock::Support;
use crate::rlimits::Rlimits;
use crate::{Layer, LayerName, Report, Status, capabilities};

const OWN_NETWORK: &str = "one without interfaces, shared by cells";

impl CellJail {
    pub(super) fn report_ground(&self, report: &mut Report) {
        use LayerName::{
            IpcNamespace, MountNamespace, NetworkNamespace, PidNamespace, Root, UserNamespace,
            UtsNamespace,
        };
        match &self.ground {
            Ground::Whole | Ground::WholeAsRoot => {
                for (name, detail) in [
                    (UserNamespace, "its own, with nobody mapped"),
                    (PidNamespace, "its own: the cell is process 1 and can make no other"),
                    (MountNamespace, "its own"),
                    (IpcNamespace, "its own"),
                    (UtsNamespace, "its own"),
                    (NetworkNamespace, OWN_NETWORK),
                    (Root, "read-only tree of the interpreter and its packages"),
                ] {
                    report.add(name, Status::Enforced, detail);
                }
            }
            Ground::HostTree(why) => {
                for (name, detail) in [
                    (UserNamespace, "one for all cells"),
                    (PidNamespace, "one for all cells; the filter refuses signals to others"),
                    (MountNamespace, "one for all cells, with the host's tree in it"),
                    (IpcNamespace, "one for all cells"),
                    (UtsNamespace, "one for all cells"),
                ] {
                    report.add(name, Status::Partial, detail);
                }
                report.add(NetworkNamespace, Status::Enforced, OWN_NETWORK);
                report.add(Root, Status::Missing, self.root_missing(why));
            }
            Ground::NoNamespaces(why) => {
                for (name, detail) in [
                    (UserNamespace, "the host's"),
                    (PidNamespace, "the host's: numbers are seen, signals to others refused"),
                    (MountNamespace, "the host's; the filter refuses every mount"),
                    (IpcNamespace, "the host's; the filter refuses System V memory and queues"),
                    (UtsNamespace, "the host's, whose name is seen"),
                    (NetworkNamespace, "the host's; the filter refuses every socket"),
                ] {
                    report.add(name, Status::Missing, format!("{detail} ({why})"));
                }
                report.add(Root, Status::Missing, self.root_missing(why));
            }
        }
    }

    fn root_missing(&self, why: &str) -> String {
        let what = match self.domain.support() {
            Support::Missing => {
                "the host's, and no Landlock: the guest reads what this user may, other processes' \
                 memory among it, and writes nothing"
            }
            _ => "the host's: stat sees its names; Landlock refuses contents and listings",
        };
        format!("{what} ({why})")
    }

    /// Of a process that holds no capability.
    pub(super) fn capabilities_layer(&self) -> Layer {
        let (status, detail) = match (self.ground.is_whole(), capabilities::verify_bounding_empty())
        {
            (true, _) => (Status::Enforced, "none in any set; secure bits locked"),
            (_, Ok(())) => (Status::Enforced, "none in any set"),
            (_, Err(_)) => (
                Status::Partial,
                "none held; the host may not empty the bounding set, which execve alone would use",
            ),
        };
        Layer { name: LayerName::Capabilities, status, detail: detail.to_owned() }
    }

    pub(super) fn rlimits_layer(&self, limits: &Rlimits) -> Layer {
        let (status, detail) = match limits.describe() {
            none if none.is_empty() => (Status::Missing, "no limit was asked for".to_owned()),
            _ if !self.counts_threads() => (
                Status::Partial,
                format!("threads are counted by the supervisor as it looks: {}", self.uncounted()),
            ),
            some => (Status::Enforced, some),
        };
        Layer { name: LayerName::Rlimits, status, detail }
    }

    fn uncounted(&self) -> &'static str {
        match self.ground {
            Ground::WholeAsRoot => "RLIMIT_NPROC does not bind root, whom the cell is outside",
            _ => "RLIMIT_NPROC would count every process of this user",
        }
    }
}

pub(crate) fn landlock_layer(support: Support) -> Layer {
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
    Layer { name: LayerName::Landlock, status, detail }
}
