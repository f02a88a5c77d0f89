//! Trips the limits of a control group with a process that is there for nothing else.

use std::io::Write;
use std::process::{Child, Stdio};

use pyisolate_jail::{Cgroups, Controller, GroupLimits, LayerName};

use super::{Lost, remedy};
use crate::environment::Environment;
use crate::launcher;

/// Waits until it is in its group, then goes over both limits: 7 if it could not fork, and then
/// killed for want of memory.
const PROGRAM: &str = "\
import os, sys
sys.stdin.read(1)
try:
    child = os.fork()
except OSError:
    pass
else:
    os._exit(0 if child == 0 else 8)
if sys.argv[1] == 'threads': os._exit(7)
data = bytearray(192 << 20)
os._exit(9)
";

pub(super) fn trip(environment: &Environment) -> Result<String, Lost> {
    let lost = |why: String| Lost { why, remedy: remedy(Some(LayerName::Cgroup)) };
    let groups = Cgroups::prepare().map_err(|error| lost(error.to_string()))?;
    let mut tripped = Vec::new();
    for (number, controller) in [Controller::Pids, Controller::Memory].into_iter().enumerate() {
        let number = u32::try_from(number).unwrap_or(0);
        let group = groups.group(number).map_err(|error| lost(error.to_string()))?;
        if !group.has(controller) {
            return Err(lost(format!("no {} controller is to be had", controller.as_str())));
        }
        let limits = GroupLimits { memory_bytes: 64 << 20, threads: 1, cpu_millicores: None };
        group.limit(&limits).map_err(|error| lost(error.to_string()))?;
        let mut child = start(environment, controller).map_err(|error| lost(error.to_string()))?;
        let moved = group.add(i32::try_from(child.id()).unwrap_or(0));
        if moved.is_err() {
            let _ = child.kill();
        }
        // Its end of file is the sign to begin.
        drop(child.stdin.take().map(|mut stdin| stdin.write_all(b"x")));
        let ended = child.wait().map_err(|error| lost(error.to_string()))?;
        moved.map_err(|error| lost(error.to_string()))?;
        let held = match controller {
            Controller::Memory => group.ran_out_of_memory(),
            _ => ended.code() == Some(7),
        };
        if !held {
            return Err(lost(format!(
                "a process went over the {} limit: {ended}",
                controller.as_str()
            )));
        }
        group.remove();
        tripped.push(controller.as_str());
    }
    Ok(format!("limits on {} were tripped", tripped.join(" and ")))
}

fn start(environment: &Environment, controller: Controller) -> std::io::Result<Child> {
    let what = if controller == Controller::Pids { "threads" } else { "memory" };
    launcher::command(environment.executable())
        .args(["-I", "-S", "-c", PROGRAM, what])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}
