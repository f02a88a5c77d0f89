//! Makes cells in virtual machines: what they are restored from, and the relay to each.

use std::io::BufReader;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pyisolate_abi::message::ToGuest;
use pyisolate_channel::control::Control;
use pyisolate_channel::relay::{
    RelayEnd, RelayError, SEED_BYTES, StreamWriter, Told, Wake, relay_host,
};
use pyisolate_channel::{DEFAULT_RING_BYTES, GuestEnd, pair};
use pyisolate_jail::{GroupLimits, Layer, LayerName, Report, Status};
use pyisolate_microvm::image::{Cache, Image};
use pyisolate_microvm::{Accelerator, Machine, Qemu, Shape, Sharing, Snapshot, Vmm, VmmError};
use pyisolate_policy::Limits;
use sha2::{Digest, Sha256};

use crate::body::Body;
use crate::cell::{CellShared, lock};
use crate::configure::nobodys_settings;
use crate::confinement::hex;
use crate::error::{Death, SpawnError};
use crate::groups::group_limits;
use crate::resident::{MachineEnd, Resident};
use crate::supervisor::Inner;

/// The image that cells are made of if nobody names one.
const DEFAULT_IMAGE: &str = "default";
/// The memory of a machine if nobody says otherwise, in bytes: the default limit of a cell's, thrice,
/// so that it is left where a template brings large packages. What nobody writes to costs nothing.
const DEFAULT_MEMORY_BYTES: u64 = 3 << 29;
/// What the kernel and the processes beside the cell's need of a machine, beyond what its snapshot
/// holds already, in bytes.
const KERNEL_BYTES: u64 = 64 << 20;
/// What a monitor takes beside its machine's memory, in bytes, before its group counts it as too much.
const MONITOR_BYTES: u64 = 256 << 20;
/// The threads of a monitor.
const MONITOR_THREADS: u64 = 64;
/// How long a guest may take to start under KVM, where that works: a second or two.
const KVM_PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take if it is emulated: two to fifteen seconds, by how busy the host is.
const TCG_PATIENCE: Duration = Duration::from_secs(180);
/// How long a template's machine may take to stand still once its set-up ran.
const STANDSTILL_PATIENCE: Duration = Duration::from_secs(60);

/// What cells in virtual machines are made of. What is `None` is read from the environment, and has a
/// default.
#[derive(Clone, Debug, Default)]
pub struct MachineOptions {
    /// The image, by name or hash; `PYISOLATE_MICROVM_IMAGE`, else the one named `default`.
    pub image: Option<String>,
    /// The accelerator; `PYISOLATE_MICROVM_ACCEL`, else KVM. There is no choice by what works.
    pub accelerator: Option<Accelerator>,
    /// The memory of each machine, in bytes; `PYISOLATE_MICROVM_MEMORY`, else 1.5 GiB.
    pub memory_bytes: Option<u64>,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl MachineOptions {
    /// The image that is asked for. It holds the guest runtime that this host has, `runtime`.
    pub(crate) fn open_image(&self, cache: &Cache, runtime: &Path) -> Result<Image, SpawnError> {
        let image = self.image.clone().or_else(|| variable("PYISOLATE_MICROVM_IMAGE"));
        let image = cache.open(image.as_deref().unwrap_or(DEFAULT_IMAGE))?;
        check_runtime(&image, runtime)?;
        Ok(image)
    }

    /// The accelerator that is asked for.
    pub(crate) fn accelerator(&self) -> Result<Accelerator, SpawnError> {
        if let Some(accelerator) = self.accelerator {
            return Ok(accelerator);
        }
        match variable("PYISOLATE_MICROVM_ACCEL").as_deref() {
            None | Some("kvm") => Ok(Accelerator::Kvm),
            Some("tcg") => Ok(Accelerator::Tcg),
            Some(other) => Err(SpawnError::AcceleratorName(other.to_owned())),
        }
    }
}

/// What every machine goes on from, and what drives it.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) vmm: Qemu,
    pub(crate) snapshot: Snapshot,
}

/// The supervisor's machines.
#[derive(Debug)]
pub(crate) struct Machines {
    options: MachineOptions,
    base: Mutex<Option<Arc<Base>>>,
}

impl Machines {
    pub(crate) fn new(options: MachineOptions) -> Self {
        Self { options, base: Mutex::default() }
    }

    /// What cells are restored from: made with the first of them. `runtime` is the guest runtime that
    /// this host has.
    fn base(&self, launcher: &Control, runtime: &Path) -> Result<Arc<Base>, SpawnError> {
        let mut base = lock(&self.base);
        if let Some(base) = &*base {
            return Ok(Arc::clone(base));
        }
        let cache = Cache::discover()?;
        let image = self.options.open_image(&cache, runtime)?;
        let memory = variable("PYISOLATE_MICROVM_MEMORY").and_then(|value| value.parse().ok());
        let memory_bytes = self.options.memory_bytes.or(memory).unwrap_or(DEFAULT_MEMORY_BYTES);
        let accelerator = self.options.accelerator()?;
        let vmm = Qemu::find()?;
        let shape = Shape { accelerator, memory_bytes: memory_bytes.next_multiple_of(2 << 20) };
        let snapshot = match accelerator {
            Accelerator::Tcg => vmm.base(launcher, &image, shape, cache.folder(), TCG_PATIENCE)?,
            Accelerator::Kvm => kvm_base(&vmm, launcher, &image, shape, cache.folder())?,
        };
        Ok(Arc::clone(base.insert(Arc::new(Base { vmm, snapshot }))))
    }
}

/// An image holds a guest runtime. One of another build may speak another language.
fn check_runtime(image: &Image, runtime: &Path) -> Result<(), SpawnError> {
    let bytes = std::fs::read(runtime).map_err(|source| {
        SpawnError::Machine(VmmError::Cache { call: "read", path: runtime.into(), source })
    })?;
    if image.manifest().runtime_sha256 == hex(&Sha256::digest(bytes)) {
        return Ok(());
    }
    Err(SpawnError::StaleImage(image.hash().chars().take(12).collect()))
}

/// The snapshot of a guest that started under KVM. A device that opens is no proof: that a guest does
/// start is found out once for each start of the host.
fn kvm_base(
    vmm: &Qemu,
    launcher: &Control,
    image: &Image,
    shape: Shape,
    cache: &Path,
) -> Result<Snapshot, SpawnError> {
    let no = SpawnError::NoAccelerator;
    let device = Path::new("/dev/kvm");
    if let Err(error) = std::fs::File::options().read(true).write(true).open(device) {
        return Err(no(format!("opening /dev/kvm: {error}")));
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let tried = format!("{} {}", boot.trim(), vmm.key(image, shape));
    let note = cache.join("kvm-does-not-work");
    let noted = std::fs::read_to_string(&note).unwrap_or_default();
    if let Some(why) = noted.strip_prefix(&tried) {
        return Err(no(why.trim().to_owned()));
    }
    vmm.base(launcher, image, shape, cache, KVM_PATIENCE).map_err(|error| {
        let why = format!("/dev/kvm is there, but {error}");
        // Without the note the next supervisor finds out again.
        let _ = std::fs::write(&note, format!("{tried}\n{why}"));
        no(why)
    })
}

impl Inner {
    /// The launcher's socket for programs, among which are machines' monitors.
    fn program_launcher(&self) -> Result<Arc<Control>, SpawnError> {
        let zygote = self.zygote()?;
        zygote.programs.clone().ok_or(SpawnError::ShutDown)
    }

    pub(crate) fn machine_base(&self) -> Result<Arc<Base>, SpawnError> {
        let launcher = self.program_launcher()?;
        self.machines.base(&launcher, self.environment.runtime())
    }

    /// Restores a machine and waits until the guest in it is ready.
    pub(crate) fn make_machine(
        &self,
        vmm: &dyn Vmm,
        snapshot: &Snapshot,
        sharing: Sharing,
    ) -> Result<Arc<CellShared>, SpawnError> {
        let launcher = self.program_launcher()?;
        let (end, guest) = pair(DEFAULT_RING_BYTES)?;
        let cell = CellShared::new(self.number(), end, Body::machine(), Arc::clone(&self.monitor));
        self.monitor.add_cell(&cell)?;
        let started = (|| {
            let machine = vmm.restore(&launcher, snapshot, sharing)?;
            let guest = GuestEnd::attach(guest.memory, guest.socket)?;
            lead(&cell, machine, guest, sharing == Sharing::Copy)
        })();
        if let Err(error) = started {
            self.monitor.cell_lost(cell.number, Death::Unborn(error.to_string()));
            return Err(error);
        }
        if self.is_shut_down() {
            cell.condemn(Death::Closed);
            return Err(SpawnError::ShutDown);
        }
        let cell = self.await_ready(cell)?;
        if let Some(resident) = cell.body.as_machine() {
            resident.ready();
        }
        cell.tell(&ToGuest::Configure(&nobodys_settings())).map_err(SpawnError::Setup)?;
        if sharing == Sharing::Private {
            self.monitor.groups.place(&cell).inspect_err(|_| cell.condemn(Death::Killed))?;
        }
        Ok(cell)
    }

    /// Has a machine that ran a template's set-up stand still, and makes a snapshot of it.
    pub(crate) fn make_snapshot(
        &self,
        base: &Base,
        cell: &CellShared,
    ) -> Result<Snapshot, SpawnError> {
        cell.hand_over().map_err(SpawnError::Setup)?;
        let made = match cell.body.as_machine() {
            Some(resident) if resident.await_standstill(STANDSTILL_PATIENCE) => {
                let machine = resident.machine().ok_or(SpawnError::Forked)?;
                base.vmm.snapshot(machine).map_err(SpawnError::from)
            }
            _ => Err(SpawnError::Slow(STANDSTILL_PATIENCE)),
        };
        if let Some(resident) = cell.body.as_machine() {
            resident.ended(MachineEnd::Process(0), 0);
        }
        cell.condemn(Death::Closed);
        self.monitor.bury_if_over(&cell.me.upgrade().ok_or(SpawnError::ShutDown)?);
        made
    }
}

/// Wakes a restored machine, and has its channel carried.
fn lead(
    cell: &Arc<CellShared>,
    machine: Machine,
    guest: GuestEnd,
    is_template: bool,
) -> Result<(), SpawnError> {
    let failed = |call| move |source| SpawnError::Machine(VmmError::Call { call, source });
    let clone = || machine.stream().map_err(failed("dup"));
    let (from_machine, to_machine) = (clone()?, clone()?);
    let mut seed = [0; SEED_BYTES];
    let mut filled = 0;
    while filled < seed.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        match rustix::rand::getrandom(&mut seed[filled..], flags) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(failed("getrandom")(errno.into())),
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let realtime_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    let wake = Told::Wake(Wake { seed, realtime_ns, is_template });
    StreamWriter::new(&to_machine).tell(&wake).map_err(failed("wake the machine"))?;
    let Some(resident) = cell.body.as_machine() else { return Err(SpawnError::ShutDown) };
    resident.move_in(machine);
    let (alive, ended) = (Weak::clone(&cell.me), Weak::clone(&cell.me));
    let is_over = move || alive.upgrade().is_none_or(|cell| cell.body.has_exited());
    let from_machine = BufReader::with_capacity(64 * 1024, from_machine);
    relay_host(guest, from_machine, to_machine, is_over, move |end| {
        if let Some(cell) = ended.upgrade()
            && let Some(resident) = cell.body.as_machine()
        {
            note_end(&cell, resident, end);
        }
    })
    .map_err(failed("start the relay's threads"))
}

fn note_end(cell: &CellShared, resident: &Resident, end: RelayEnd) {
    let why = match end {
        RelayEnd::Told(Told::Booted) if resident.is_handed_over() => {
            return resident.stands_still();
        }
        RelayEnd::Told(Told::Ended { status, cpu_ms }) => {
            // It is killed next: this is the last look at what it used.
            resident.cpu_ms();
            return resident.ended(MachineEnd::Process(status), cpu_ms);
        }
        RelayEnd::Told(Told::Fatal(why)) => why,
        RelayEnd::Told(told @ (Told::Booted | Told::Wake(_))) => {
            let what = format!("its machine said what has no place here: {told:?}");
            cell.condemn(Death::Violation(what.clone()));
            what
        }
        RelayEnd::Gone => resident.machine().map_or_else(String::new, Machine::obituary),
        RelayEnd::Failed(error @ RelayError::Foreign(_)) => {
            cell.condemn(Death::Violation(error.to_string()));
            error.to_string()
        }
        RelayEnd::Failed(RelayError::Channel(error)) => {
            let death = Death::from(error);
            cell.condemn(death.clone());
            death.to_string()
        }
        RelayEnd::Failed(error) => {
            let obituary = resident.machine().map_or_else(String::new, Machine::obituary);
            format!("{error}; {obituary}")
        }
    };
    resident.kill();
    resident.ended(MachineEnd::Lost(why), 0);
}

impl Base {
    /// Whether a cell with these limits fits into a machine.
    pub(crate) fn check(&self, snapshot: &Snapshot, limits: &Limits) -> Result<(), SpawnError> {
        let machine = snapshot.shape().memory_bytes;
        let left = machine.saturating_sub(snapshot.resident_bytes() + KERNEL_BYTES);
        if limits.mem_bytes <= left {
            return Ok(());
        }
        Err(SpawnError::MachineTooSmall { wanted: limits.mem_bytes, machine, left })
    }
}

impl Resident {
    /// What its monitor's group is to hold it to: a machine that writes to all of its memory, and the
    /// cell's messages.
    pub(crate) fn group_limits(&self, limits: &Limits) -> GroupLimits {
        let machine = self.machine().map_or(0, |machine| machine.shape().memory_bytes);
        GroupLimits {
            memory_bytes: machine
                .saturating_add(MONITOR_BYTES)
                .saturating_add(group_limits(limits).memory_bytes - limits.mem_bytes),
            threads: MONITOR_THREADS,
            ..group_limits(limits)
        }
    }

    /// The layers around it: the machine, and its monitor's jail. `inside` is what the guest's kernel
    /// says of the cell in there, which nobody outside can check.
    pub(crate) fn report(&self, inside: &Report) -> Report {
        let Some(machine) = self.machine() else { return Report::default() };
        let mut report = machine.report().clone();
        let enforced = inside.layers.iter().filter(|it| it.status == Status::Enforced).count();
        let within =
            format!("{} of {} layers hold inside, says its kernel", enforced, inside.layers.len());
        let mib = machine.shape().memory_bytes >> 20;
        let (status, how) = match machine.shape().accelerator {
            Accelerator::Kvm => (Status::Enforced, "KVM"),
            Accelerator::Tcg => (Status::Partial, "emulated (TCG), which is no hardware boundary"),
        };
        report.layers.insert(
            0,
            Layer {
                name: LayerName::VirtualMachine,
                status,
                detail: format!("{how}; {}, {mib} MiB; {within}", machine.monitor_version()),
            },
        );
        report
    }
}
