//! What cells in virtual machines need, looked at one by one, and then tried.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use pyisolate_microvm::image::{Cache, Image};
use pyisolate_microvm::{Accelerator, Qemu, Vmm, VmmError};

use super::{Lost, Point, answers};
use crate::environment::Environment;
use crate::machines::MachineOptions;
use crate::options::{Backend, SupervisorOptions};
use crate::require::Requirement;
use crate::supervisor::Supervisor;

const KVM: &str = "/dev/kvm";
const INSTALL: &str = "apt-get install --no-install-recommends qemu-system-x86 (Debian, Ubuntu), dnf \
                       install qemu-system-x86-core (Fedora), or PYISOLATE_QEMU=PATH";
const BUILD: &str = "pyisolate image build";
const LOAD: &str = "modprobe kvm_intel or kvm_amd, on a processor that has virtualisation; in a virtual \
                    machine, its host has to let it nest";
const OPEN: &str = "chmod 666 /dev/kvm: the monitor runs as nobody";
const NEST: &str = "a host on its own processor, or nested virtualisation that works";
const SAY: &str = "PYISOLATE_MICROVM_ACCEL=tcg, or accel=\"tcg\"";

/// What was found.
pub(super) struct Found {
    /// What is needed, and whether it is there.
    pub(super) parts: Vec<Point>,
    /// A cell behind the hardware's own wall, where there is one.
    pub(super) guarantee: Option<Point>,
    /// Whether the backend works here, as the environment asks for it.
    pub(super) works: Result<String, String>,
}

/// Looks, and where all is there makes cells.
pub(super) fn examine(environment: &Environment) -> Found {
    let asked = MachineOptions::default();
    let monitor = Qemu::find();
    let image = Cache::discover()
        .map_err(Into::into)
        .and_then(|cache| asked.open_image(&cache, environment.runtime()));
    let is_complete = monitor.is_ok() && image.is_ok();
    let kvm = kvm(environment, is_complete);
    let emulation = match (&monitor, asked.accelerator()) {
        (Err(_), _) => Err(lost("no QEMU to do it", INSTALL)),
        (Ok(_), Err(error)) => Err(lost(&error.to_string(), SAY)),
        (Ok(_), Ok(Accelerator::Kvm)) => Ok(format!("there if it is asked for: {SAY}")),
        (Ok(_), Ok(Accelerator::Tcg)) if !is_complete => Ok("asked for".to_owned()),
        (Ok(_), Ok(Accelerator::Tcg)) => tried(environment, Accelerator::Tcg)
            .map(|()| "asked for: a cell answered".to_owned())
            .map_err(|why| lost(&why, "")),
    };
    let said = |it: &Result<String, Lost>| it.as_ref().err().map(|it| it.why.clone());
    let lacking = monitor.as_ref().err().map(ToString::to_string);
    let lacking = lacking.or_else(|| image.as_ref().err().map(ToString::to_string));
    let works = match (lacking, asked.accelerator()) {
        (Some(why), _) => Err(why),
        (None, Err(error)) => Err(error.to_string()),
        (None, Ok(Accelerator::Kvm)) => match said(&kvm) {
            None => Ok("works".to_owned()),
            Some(why) => Err(format!("no KVM: {why}; {SAY} emulates it")),
        },
        (None, Ok(Accelerator::Tcg)) => match said(&emulation) {
            None => Ok("works, emulated, which is no boundary of the hardware's".to_owned()),
            Some(why) => Err(why),
        },
    };
    let guarantee = kvm.as_ref().ok().map(|said| Point {
        name: "machine",
        guarantee: "a cell behind a virtual machine of the processor's starts and answers",
        outcome: Ok(said.clone()),
    });
    let release = |image: &Image| image.manifest().kernel_release.clone();
    let kernel = match &image {
        Ok(image) => Ok(format!("Linux {}, in the image", release(image))),
        Err(_) => Err(lost(
            "an image brings it",
            "pyisolate image build, which fetches one by apt-get; else with --kernel PATH",
        )),
    };
    let image = image.map_err(|error| lost(&error.to_string(), BUILD)).map(|image| {
        let short: String = image.hash().chars().take(12).collect();
        let packages: Vec<_> = image
            .manifest()
            .packages
            .iter()
            .map(|it| format!(" {} {}", it.name, it.version))
            .collect();
        format!("{short}, Python {}{}", image.manifest().python, packages.concat())
    });
    let monitor = match monitor {
        Ok(monitor) => {
            let facts = monitor.facts();
            Ok(format!("{}, {}", facts.version, facts.program.display()))
        }
        Err(VmmError::NoProgram { program, why }) => {
            Err(lost(&format!("{program} is not there: {why}"), INSTALL))
        }
        Err(error) => Err(lost(&error.to_string(), INSTALL)),
    };
    let part = |name, guarantee, outcome| Point { name, guarantee, outcome };
    let parts = vec![
        part("qemu", "the machines' monitor", monitor),
        part("image", "what they start from", image),
        part("kernel", "the guests' own", kernel),
        part("kvm", "the processor keeps guests apart", kvm),
        part("emulation", "no boundary of the hardware's: only by name", emulation),
    ];
    Found { parts, guarantee, works }
}

fn lost(why: &str, remedy: &str) -> Lost {
    Lost { why: why.to_owned(), remedy: remedy.to_owned() }
}

/// Whether guests run under KVM. A device that opens is no proof.
fn kvm(environment: &Environment, is_complete: bool) -> Result<String, Lost> {
    if let Err(error) = File::options().read(true).write(true).open(Path::new(KVM)) {
        let remedy = if error.kind() == ErrorKind::PermissionDenied { OPEN } else { LOAD };
        return Err(lost(&format!("{KVM}: {error}"), remedy));
    }
    if !is_complete {
        return Err(lost(
            &format!("{KVM} opens; without QEMU and an image it cannot be tried"),
            BUILD,
        ));
    }
    let remedy = if is_everybodys(Path::new(KVM)) { NEST } else { OPEN };
    tried(environment, Accelerator::Kvm)
        .map(|()| "a cell answered".to_owned())
        .map_err(|why| lost(&why, remedy))
}

/// Whether everybody may open a device, as the monitor has to.
fn is_everybodys(device: &Path) -> bool {
    device.metadata().is_ok_and(|found| found.mode() & 0o006 == 0o006)
}

/// Has a cell behind a machine answer.
fn tried(environment: &Environment, accelerator: Accelerator) -> Result<(), String> {
    let options = SupervisorOptions {
        require: Requirement::None,
        machines: MachineOptions { accelerator: Some(accelerator), ..MachineOptions::default() },
        ..SupervisorOptions::new(environment.clone())
    };
    let supervisor = Supervisor::new(options).map_err(|error| error.to_string())?;
    answers(&supervisor, Backend::Microvm).map(|_| ())
}
