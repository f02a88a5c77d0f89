//! QEMU, from version 7.2 on: the `microvm` machine, without a device that its cell does not need.

use std::io::{BufReader, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pyisolate_channel::control::Control;
use qapi::{Qmp, Stream, qmp};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use sha2::{Digest, Sha256};

use crate::clock;
use crate::image::Image;
use crate::machine::{Machine, Start};
use crate::snapshot::{Snapshot, new_memory, resident_bytes, seal, snapshots};
use crate::vmm::{Accelerator, Facts, Shape, Sharing, Vmm, VmmError, failed};

/// What of QEMU's own translator's memory is for translated code, in MiB: a guest's kernel and
/// interpreter take some thirty.
const TRANSLATED_MIB: u64 = 64;
/// How long QEMU may take to answer: some ten milliseconds, unless the host is starved.
const MONITOR_PATIENCE: Duration = Duration::from_secs(30);
/// How long the state of the devices may take to be written.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(30);
/// The oldest version that this was tried with.
const OLDEST: (u32, u32) = (7, 2);

#[cfg(target_arch = "x86_64")]
const PROGRAM: &str = "qemu-system-x86_64";
#[cfg(target_arch = "aarch64")]
const PROGRAM: &str = "qemu-system-aarch64";

/// The variable that names another program than the one on `PATH`.
const PROGRAM_VARIABLE: &str = "PYISOLATE_QEMU";

/// QEMU, found on this host.
#[derive(Debug)]
pub struct Qemu {
    facts: Facts,
}

impl Qemu {
    /// Looks for QEMU: `$PYISOLATE_QEMU`, else the program of this machine's kind on `PATH`.
    ///
    /// # Errors
    /// [`VmmError::NoProgram`], [`VmmError::TooOld`].
    pub fn find() -> Result<Self, VmmError> {
        let named = std::env::var_os(PROGRAM_VARIABLE).map(PathBuf::from);
        let missing = |program: &Path, why: String| VmmError::NoProgram {
            program: program.display().to_string(),
            why,
        };
        let program = match named {
            Some(program) => program,
            None => on_path(PROGRAM).ok_or_else(|| {
                missing(Path::new(PROGRAM), "no folder of PATH has it".to_owned())
            })?,
        };
        let program =
            program.canonicalize().map_err(|error| missing(&program, error.to_string()))?;
        #[expect(
            clippy::disallowed_methods,
            reason = "asks a program of the host's for its version"
        )]
        let mut command = Command::new(&program);
        let output = command
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| missing(&program, error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        // "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)"
        let version = text.split_whitespace().skip_while(|word| *word != "version").nth(1);
        let Some(version) = version.filter(|_| output.status.success()) else {
            return Err(missing(&program, "it does not tell its version".to_owned()));
        };
        let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let version = format!("QEMU {version}");
        if found < OLDEST {
            return Err(VmmError::TooOld(version));
        }
        Ok(Self { facts: Facts { program, version, machine: "microvm" } })
    }

    /// The arguments that a machine and everything that goes on from it have in common.
    fn arguments(shape: Shape, sharing: Sharing) -> Vec<String> {
        let mib = shape.memory_bytes >> 20;
        let (accelerator, cpu) = match shape.accelerator {
            Accelerator::Kvm => ("kvm".to_owned(), "host"),
            Accelerator::Tcg => (format!("tcg,tb-size={TRANSLATED_MIB}"), "max"),
        };
        let share = match sharing {
            Sharing::Private => "off",
            Sharing::Copy => "on",
        };
        [
            "-machine",
            "microvm,memory-backend=memory",
            "-accel",
            &accelerator,
            "-cpu",
            cpu,
            "-smp",
            "1",
            "-m",
            &format!("{mib}M"),
            "-object",
            &format!(
                "memory-backend-file,id=memory,size={mib}M,share={share},mem-path=/proc/self/fd/5"
            ),
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
            "-global",
            "virtio-mmio.force-legacy=false",
            "-chardev",
            "socket,id=channel,fd=3",
            "-device",
            "virtio-serial-device,max_ports=2",
            "-device",
            "virtserialport,chardev=channel,name=pyisolate,nr=1",
            "-chardev",
            "socket,id=monitor,fd=4",
            "-mon",
            "chardev=monitor,mode=control",
            "-chardev",
            "stdio,id=console,signal=off",
            "-serial",
            "chardev:console",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// The snapshot of an image whose guest waits for its first cell: from the cache, or else booted,
    /// and cached for the next time.
    ///
    /// # Errors
    /// [`VmmError`]: the guest does not come up.
    pub fn base(
        &self,
        launcher: &Control,
        image: &Image,
        shape: Shape,
        cache: &Path,
        patience: Duration,
    ) -> Result<Snapshot, VmmError> {
        let (key, folder) = (self.key(image, shape), snapshots(cache));
        match Snapshot::load(&folder, ImageFiles::of(image, shape), &key) {
            Ok(Some(snapshot)) => return Ok(snapshot),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a cached snapshot is of no use"),
        }
        // What is there of it is no whole one, and would be in the way of that.
        Snapshot::remove(&folder, &key)?;
        tracing::info!(image = image.hash(), accelerator = %shape.accelerator, "booting the image");
        let machine = self.boot(launcher, image, shape)?;
        machine.await_booted(patience)?;
        let snapshot = self.snapshot(&machine)?;
        if let Err(error) = snapshot.store(&folder) {
            // The next supervisor boots again; this one has what it needs.
            tracing::warn!(%error, "the snapshot is not cached");
        }
        Ok(snapshot)
    }

    /// The hash of everything that a snapshot of an image depends on.
    #[must_use]
    pub fn key(&self, image: &Image, shape: Shape) -> String {
        let files = ImageFiles::of(image, shape);
        let mut digest = Sha256::new();
        let program = std::fs::metadata(&self.facts.program).and_then(|it| it.modified()).ok();
        let parts = [
            env!("CARGO_PKG_VERSION").to_owned(),
            image.hash().to_owned(),
            self.facts.version.clone(),
            format!("{program:?}"),
            clock::processor(),
            Self::arguments(shape, Sharing::Copy).join("\n"),
            files.command_line,
        ];
        for part in parts {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Starts QEMU. With a `state` to come it waits for that, and needs no image: the kernel is in the
    /// memory.
    fn start(
        &self,
        launcher: &Control,
        snapshot: Snapshot,
        sharing: Sharing,
        state: Option<OwnedFd>,
    ) -> Result<Machine, VmmError> {
        let Snapshot { shape, memory, image, key, .. } = snapshot;
        let mut arguments = Self::arguments(shape, sharing);
        // One that is not among the system's programs brings its folder.
        let folder = self.facts.program.parent().and_then(Path::parent);
        let mut read: Vec<PathBuf> = folder.map(Path::to_path_buf).into_iter().collect();
        if state.is_some() {
            arguments.extend(["-incoming", "defer"].map(str::to_owned));
        } else {
            let path = |path: &Path| path.display().to_string();
            let (kernel, initramfs) = (path(&image.kernel), path(&image.initramfs));
            let line = &image.command_line;
            arguments.extend(
                ["-kernel", &kernel, "-initrd", &initramfs, "-append", line].map(str::to_owned),
            );
            read.extend([image.kernel.clone(), image.initramfs.clone()]);
        }
        let devices = match shape.accelerator {
            Accelerator::Kvm => vec![PathBuf::from("/dev/kvm")],
            Accelerator::Tcg => Vec::new(),
        };
        Machine::start(Start {
            path: self.facts.program.clone(),
            arguments,
            read,
            devices,
            shape,
            image,
            memory,
            state,
            launcher,
            key,
            version: self.facts.version.clone(),
        })
    }
}

/// What a machine is started from.
#[derive(Clone, Debug, Default)]
pub(crate) struct ImageFiles {
    kernel: PathBuf,
    initramfs: PathBuf,
    command_line: String,
}

impl ImageFiles {
    fn of(image: &Image, shape: Shape) -> Self {
        let mut words = vec![
            // Where its last words go, and few others.
            "console=ttyS0 quiet loglevel=3".to_owned(),
            // A kernel that panicked, or powers off, is a monitor that ends.
            "panic=-1 reboot=t".to_owned(),
        ];
        if shape.accelerator == Accelerator::Tcg {
            // Emulated timers are too late on a busy host for the kernel to measure its clock by them.
            words.extend(clock::tsc_khz().map(|khz| format!("tsc_early_khz={khz} tsc=reliable")));
            // There is one guest, and no speculation to be guarded from.
            words.push("mitigations=off".to_owned());
        }
        let environment = image.manifest().environment.iter();
        words.extend(environment.map(|(name, value)| format!("{name}={value}")));
        Self { kernel: image.kernel(), initramfs: image.initramfs(), command_line: words.join(" ") }
    }
}

impl Vmm for Qemu {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn boot(&self, launcher: &Control, image: &Image, shape: Shape) -> Result<Machine, VmmError> {
        let nothing = Snapshot {
            shape,
            memory: Arc::new(new_memory(shape.memory_bytes)?),
            resident_bytes: 0,
            state: Arc::default(),
            image: ImageFiles::of(image, shape),
            key: self.key(image, shape),
        };
        self.start(launcher, nothing, Sharing::Copy, None)
    }

    fn restore(
        &self,
        launcher: &Control,
        snapshot: &Snapshot,
        sharing: Sharing,
    ) -> Result<Machine, VmmError> {
        let memory = match sharing {
            Sharing::Private => Arc::clone(&snapshot.memory),
            Sharing::Copy => Arc::new(snapshot.copy_memory()?),
        };
        let (mut ours, theirs) = UnixStream::pair().map_err(failed("socketpair"))?;
        let copy = Snapshot { memory, ..snapshot.clone() };
        let machine = self.start(launcher, copy, sharing, Some(theirs.into()))?;
        let mut monitor = Monitor::of(&machine)?;
        monitor.handshake(&machine)?;
        monitor.leave_memory_out(&machine)?;
        let uri = Some("fd:6".to_owned());
        let command = qmp::migrate_incoming { uri, channels: None, exit_on_error: None };
        monitor.ask("migrate-incoming", &machine, &command)?;
        ours.set_write_timeout(Some(MONITOR_PATIENCE)).map_err(failed("setsockopt"))?;
        match ours.write_all(&snapshot.state) {
            Ok(()) => Ok(machine),
            Err(_) => Err(VmmError::Ended(machine.obituary())),
        }
    }

    fn snapshot(&self, machine: &Machine) -> Result<Snapshot, VmmError> {
        let mut monitor = Monitor::of(machine)?;
        monitor.handshake(machine)?;
        monitor.leave_memory_out(machine)?;
        let (mut ours, theirs) = UnixStream::pair().map_err(failed("socketpair"))?;
        monitor.hand_over(theirs);
        let fdname = "state".to_owned();
        monitor.ask("getfd", machine, &qmp::getfd { fdname })?;
        let uri = Some("fd:state".to_owned());
        let command = qmp::migrate { uri, channels: None, detach: None, resume: None };
        monitor.ask("migrate", machine, &command)?;
        ours.set_read_timeout(Some(SNAPSHOT_PATIENCE)).map_err(failed("setsockopt"))?;
        let mut state = Vec::new();
        // It closes its end when it is done.
        ours.read_to_end(&mut state).map_err(failed("read the state of the devices"))?;
        monitor.await_completed(machine)?;
        drop(monitor);
        machine.kill();
        machine.wait(MONITOR_PATIENCE);
        let memory = Arc::clone(&machine.memory);
        seal(&memory)?;
        Ok(Snapshot {
            shape: machine.shape,
            resident_bytes: resident_bytes(&memory),
            memory,
            state: Arc::new(state),
            image: machine.image.clone(),
            key: machine.key.clone(),
        })
    }
}

/// Where a program is on `PATH`.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// QEMU's monitor protocol, on the socket of one machine.
struct Monitor(Qmp<Stream<BufReader<UnixStream>, Sender>>);

impl Monitor {
    fn of(machine: &Machine) -> Result<Self, VmmError> {
        let clone = || machine.monitor.try_clone().map_err(failed("dup"));
        let (reader, socket) = (clone()?, clone()?);
        reader.set_read_timeout(Some(MONITOR_PATIENCE)).map_err(failed("setsockopt"))?;
        Ok(Self(Qmp::new(Stream::new(BufReader::new(reader), Sender { socket, handed: None }))))
    }

    fn handshake(&mut self, machine: &Machine) -> Result<(), VmmError> {
        if machine.greeted.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        match self.0.handshake() {
            Ok(_) => Ok(()),
            Err(qapi::ExecuteError::Io(error))
                if error.kind() == std::io::ErrorKind::UnexpectedEof =>
            {
                Err(VmmError::Ended(machine.obituary()))
            }
            Err(error) => Err(refused("qmp_capabilities", machine)(error)),
        }
    }

    fn ask<C: qmp::QmpCommand>(
        &mut self,
        name: &'static str,
        machine: &Machine,
        command: &C,
    ) -> Result<C::Ok, VmmError> {
        self.0.execute(command).map_err(refused(name, machine))
    }

    /// The memory is in a file that both sides have: only devices are written and read.
    fn leave_memory_out(&mut self, machine: &Machine) -> Result<(), VmmError> {
        let capability = qmp::MigrationCapability::x_ignore_shared;
        let status = qmp::MigrationCapabilityStatus { capability, state: true };
        let command = qmp::migrate_set_capabilities { capabilities: vec![status] };
        self.ask("migrate-set-capabilities", machine, &command).map(drop)
    }

    /// Sends a descriptor with the next command.
    fn hand_over(&mut self, fd: impl Into<OwnedFd>) {
        self.0.inner_mut().get_mut_write().handed = Some(fd.into());
    }

    fn await_completed(&mut self, machine: &Machine) -> Result<(), VmmError> {
        let deadline = Instant::now() + SNAPSHOT_PATIENCE;
        loop {
            let found = self.ask("query-migrate", machine, &qmp::query_migrate {})?;
            match found.status {
                Some(qmp::MigrationStatus::completed) => return Ok(()),
                Some(qmp::MigrationStatus::failed) => {
                    let why = found.error_desc.unwrap_or_else(|| "it failed".to_owned());
                    return Err(VmmError::Refused { command: "migrate", why });
                }
                _ if Instant::now() > deadline => {
                    let why = format!("not done in {} s", SNAPSHOT_PATIENCE.as_secs());
                    return Err(VmmError::Refused { command: "migrate", why });
                }
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

fn refused(
    command: &'static str,
    machine: &Machine,
) -> impl FnOnce(qapi::ExecuteError) -> VmmError {
    move |error| match error {
        qapi::ExecuteError::Qapi(error) => VmmError::Refused { command, why: error.to_string() },
        qapi::ExecuteError::Io(_) if machine.has_exited() => VmmError::Ended(machine.obituary()),
        qapi::ExecuteError::Io(source) => VmmError::Call { call: command, source },
    }
}

/// Writes commands, one of them with a descriptor.
struct Sender {
    socket: UnixStream,
    handed: Option<OwnedFd>,
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let Some(handed) = &self.handed else { return self.socket.write(bytes) };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [handed.as_fd()];
        let fits = control.push(SendAncillaryMessage::ScmRights(&descriptors));
        debug_assert!(fits, "the space is for one descriptor");
        let parts = [IoSlice::new(bytes)];
        let count = sendmsg(&self.socket, &parts, &mut control, SendFlags::NOSIGNAL)?;
        self.handed = None;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.socket.flush()
    }
}
