//! The first process of a virtual machine: makes the machine fit for a launcher, and stands between
//! its zygote and the host.
//!
//! Everything up to a confined cell that has heard nothing yet is there before the machine's snapshot
//! is taken. A machine that goes on from it is told so, renews what all machines of that snapshot share
//! (the kernel's random generator, the time), and from then on passes on what the cell's channel
//! carries. If it is to become a template instead, that cell goes, and the zygote clones the template,
//! which clones the cell of the next snapshot. All this runs as root of the machine, which is a root
//! that the host trusts with nothing.
#![expect(unsafe_code, reason = "the requests of the kernel's random generator")]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pyisolate_channel::control::{Control, ControlError, Fork, LOAD_RUNTIME, Reply};
use pyisolate_channel::relay::{
    RelayError, SEED_BYTES, StreamReader, StreamWriter, Told, Wake, relay_machine,
};
use pyisolate_channel::{ChannelError, DEFAULT_RING_BYTES, HostEnd, Received, pair};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::process::Signal;
use rustix::time::{ClockId, Timespec};
use thiserror::Error;

use crate::launch::whole;

/// The name of the port that is the channel's, as the machine's monitor is told it.
const PORT: &str = "pyisolate";
/// Where the kernel lists the ports.
const PORTS: &str = "/sys/class/virtio-ports";
/// Where the image lists the kernel's modules, in the order of loading.
const MODULES: &str = "/pyisolate/modules";
/// How long the port may take to appear once its driver is loaded.
const PORT_PATIENCE: Duration = Duration::from_secs(30);
/// How long a clone may take to be confined: some ten milliseconds, emulated a hundred.
const BIRTH_PATIENCE: Duration = Duration::from_secs(60);
/// The zygote's number for the one cell of this machine, and for a template.
const CELL: u32 = 1;
const TEMPLATE: u32 = 2;

#[derive(Debug, Error)]
enum InitError {
    #[error("{call} {path}: {source}")]
    Call { call: &'static str, path: PathBuf, source: io::Error },
    #[error("the machine has no port named {PORT}")]
    NoPort,
    #[error(transparent)]
    Relay(#[from] RelayError),
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("the zygote's socket: {0}")]
    Control(#[from] ControlError),
    #[error("{0}")]
    Zygote(String),
}

fn failed<E: Into<io::Error>>(
    call: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(E) -> InitError {
    move |error| InitError::Call { call, path: path.into(), source: error.into() }
}

type FromHost = StreamReader<BufReader<File>>;
type ToHost = StreamWriter<File>;

/// Runs the machine to its end. `launcher` are the launcher's arguments, the runtime first.
pub(crate) fn run(launcher: &[OsString]) -> ! {
    let ended = prepare().and_then(|port| serve(port, launcher));
    if let Err(error) = ended {
        // Standard error is the machine's console, which the host reads when the machine ended.
        let _ = rustix::io::write(
            rustix::stdio::stderr(),
            format!("pyisolate: {}\n", whole(&error)).as_bytes(),
        );
    }
    rustix::fs::sync();
    loop {
        let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Mounts, modules, and the port.
fn prepare() -> Result<File, InitError> {
    stand_on_a_mount()?;
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
        rustix::mount::mount(kind, place, kind, flags, None).map_err(failed("mount", place))?;
    }
    let modules = fs::read_to_string(MODULES).map_err(failed("read", MODULES))?;
    for path in modules.lines().map(Path::new) {
        let file = File::open(path).map_err(failed("open", path))?;
        match rustix::system::finit_module(&file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed("load", path)(errno)),
        }
    }
    let deadline = Instant::now() + PORT_PATIENCE;
    let port = loop {
        match port()? {
            Some(port) => break port,
            None if Instant::now() > deadline => return Err(InitError::NoPort),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    File::options().read(true).write(true).open(&port).map_err(failed("open", port))
}

/// Makes the root a mount of its own: the initramfs is none, and a jail cannot leave it.
fn stand_on_a_mount() -> Result<(), InitError> {
    let place = "/tmp";
    rustix::mount::mount_bind("/", place).map_err(failed("bind", place))?;
    rustix::process::chdir(place).map_err(failed("enter", place))?;
    rustix::mount::mount_move(".", "/").map_err(failed("move", place))?;
    rustix::process::chroot(".").map_err(failed("chroot", place))?;
    rustix::process::chdir("/").map_err(failed("enter", "/"))
}

/// The device of the channel's port, once it is there.
fn port() -> Result<Option<PathBuf>, InitError> {
    let Ok(ports) = fs::read_dir(PORTS) else { return Ok(None) };
    for entry in ports {
        let entry = entry.map_err(failed("list", PORTS))?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == PORT {
            return Ok(Some(Path::new("/dev").join(entry.file_name())));
        }
    }
    Ok(None)
}

/// From the launcher's start to the end of the cell.
fn serve(port: File, arguments: &[OsString]) -> Result<(), InitError> {
    let mut to_host = StreamWriter::new(port.try_clone().map_err(failed("dup", "the port"))?);
    let from_host = StreamReader::new(BufReader::with_capacity(64 * 1024, port));
    let served = (|| {
        let (first, theirs) = Control::pair()?;
        let _launcher = launch(arguments, theirs)?;
        // The last one makes the cells. One whose socket is closed ends, and what it cloned with it.
        let mut zygotes = vec![first];
        let mut listening = Listening::First(from_host);
        while let Some(zygote) = zygotes.last() {
            match zygote.recv_reply(true)? {
                Some(Reply::Serving) => {}
                Some(Reply::Fatal(why)) => return Err(InitError::Zygote(why)),
                _ => return Err(InitError::Zygote("it did not say that it serves".to_owned())),
            }
            let cell = Newborn::of(zygote)?;
            // The snapshot is taken behind this.
            to_host.tell(&Told::Booted).map_err(RelayError::from)?;
            let Some((from_host, wake)) = listening.wake()? else { return Ok(()) };
            renew(&wake)?;
            if !wake.is_template {
                return cell.lead(zygote, from_host, &mut to_host);
            }
            cell.end(zygote)?;
            let Some((template, next)) = lead_template(zygote, from_host, &mut to_host)? else {
                return Ok(());
            };
            listening = next;
            zygotes.push(template);
        }
        Ok(())
    })();
    if let Err(error) = &served {
        // A host that is gone needs no reason.
        let _ = to_host.tell(&Told::Fatal(whole(error)));
    }
    served
}

/// Starts the launcher, whose zygote serves on `control`.
fn launch(arguments: &[OsString], control: Control) -> Result<Child, InitError> {
    let Some([runtime, interpreter]) = arguments.first_chunk() else {
        return Err(InitError::Zygote("init was not told the launcher's arguments".to_owned()));
    };
    // It takes programs on its standard output, and is asked for none here.
    let (_ours, programs) = Control::pair()?;
    #[expect(clippy::disallowed_methods, reason = "the first process of a machine of its own")]
    let mut command = Command::new(interpreter);
    command
        .args(["-I", "-S", "-B", "-X", "utf8", "-c"])
        .arg(format!("{LOAD_RUNTIME}sys.exit(runtime.launch())"))
        .arg(runtime)
        .args(&arguments[1..])
        .stdin(Stdio::from(OwnedFd::from(control)))
        .stdout(Stdio::from(OwnedFd::from(programs)))
        .spawn()
        .map_err(failed("start", interpreter))
}

/// Who hears the host's next word to go on.
enum Listening {
    /// Nobody has listened yet.
    First(FromHost),
    /// The relay of the template that runs.
    Relay(JoinHandle<Result<Option<(FromHost, Told)>, RelayError>>),
}

impl Listening {
    /// Waits for it; `None` if the host is gone.
    fn wake(self) -> Result<Option<(FromHost, Wake)>, InitError> {
        let heard = match self {
            Self::First(mut from_host) => from_host.hear()?.map(|told| (from_host, told)),
            Self::Relay(relay) => {
                relay.join().map_err(|_| RelayError::Foreign("the relay itself failed"))??
            }
        };
        match heard {
            Some((from_host, Told::Wake(wake))) => Ok(Some((from_host, wake))),
            Some(_) => Err(RelayError::Foreign("something else than the word to go on").into()),
            None => Ok(None),
        }
    }
}

/// Renews what every machine of this one's snapshot has: the state of the kernel's random generator,
/// and the time.
fn renew(wake: &Wake) -> Result<(), InitError> {
    let path = "/dev/urandom";
    let generator = File::options().write(true).open(path).map_err(failed("open", path))?;
    let pool = PoolInfo {
        entropy_bits: SEED_BYTES as i32 * 8,
        seed_bytes: SEED_BYTES as i32,
        seed: wake.seed,
    };
    // SAFETY: RNDADDENTROPY reads a `struct rand_pool_info` (linux/random.h) with `buf_size` bytes
    // behind it, which this is; RNDRESEEDCRNG takes no argument. Both leave memory alone.
    let refused = unsafe {
        libc::ioctl(generator.as_raw_fd(), RNDADDENTROPY, &raw const pool) != 0
            || libc::ioctl(generator.as_raw_fd(), RNDRESEEDCRNG) != 0
    };
    if refused {
        // Two machines with the same randomness are worse than none.
        return Err(failed("reseed", path)(io::Error::last_os_error()));
    }
    let time = Timespec {
        tv_sec: i64::try_from(wake.realtime_ns / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: (wake.realtime_ns % 1_000_000_000).cast_signed(),
    };
    rustix::time::clock_settime(ClockId::Realtime, time).map_err(failed("set", "the clock"))
}

/// `_IOW('R', 3, int[2])`
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
/// `_IO('R', 7)`
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

/// `struct rand_pool_info`
#[repr(C)]
struct PoolInfo {
    entropy_bits: i32,
    seed_bytes: i32,
    seed: [u8; SEED_BYTES],
}

/// A cell that is confined, and has heard nothing yet.
struct Newborn {
    end: HostEnd,
    pidfd: OwnedFd,
    /// What it said: that it is ready, or why it could not be confined.
    first: Vec<u8>,
}

impl Newborn {
    /// Has the zygote clone it, and waits until it is confined.
    fn of(zygote: &Control) -> Result<Self, InitError> {
        let (mut end, guest) = pair(DEFAULT_RING_BYTES)?;
        let (memory, socket) = (guest.memory, guest.socket);
        zygote.send_fork(&Fork { number: CELL, memory, socket, control: None })?;
        let pidfd = cloned(zygote)?;
        let mut first = Vec::new();
        match end.reader.recv(&mut first, Some(Instant::now() + BIRTH_PATIENCE))? {
            Received::Record => Ok(Self { end, pidfd, first }),
            _ => Err(InitError::Zygote("its cell did not say that it is confined".to_owned())),
        }
    }

    /// Ends it: nobody needs it.
    fn end(self, zygote: &Control) -> Result<(), InitError> {
        rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL)
            .map_err(failed("kill", "the cell that is not needed"))?;
        await_end(zygote).map(drop)
    }

    /// Passes on what its channel carries, until it ended and the host was told how.
    fn lead(
        self,
        zygote: &Control,
        from_host: FromHost,
        to_host: &mut ToHost,
    ) -> Result<(), InitError> {
        let relay_port = to_host.try_clone().map_err(RelayError::from)?;
        let relay = relay_machine(self.end, self.first, from_host, relay_port)
            .map_err(failed("start", "the relay's threads"))?;
        let (status, cpu_ms) = await_end(zygote)?;
        relay.finish()?;
        Ok(to_host.tell(&Told::Ended { status, cpu_ms }).map_err(RelayError::from)?)
    }
}

/// Waits until the zygote has cloned a process: a handle on it.
fn cloned(zygote: &Control) -> Result<OwnedFd, InitError> {
    match zygote.recv_reply(true)? {
        Some(Reply::Forked { pidfd, .. }) => Ok(pidfd),
        Some(Reply::ForkFailed { errno, .. }) => {
            let error = io::Error::from_raw_os_error(errno);
            Err(InitError::Zygote(format!("it could not clone: {error}")))
        }
        Some(Reply::Fatal(why)) => Err(InitError::Zygote(why)),
        _ => Err(InitError::Zygote("it cloned nothing".to_owned())),
    }
}

/// Waits for the end of what the zygote cloned: its status, and its CPU time in milliseconds.
fn await_end(zygote: &Control) -> Result<(i32, u64), InitError> {
    match zygote.recv_reply(true)? {
        Some(Reply::Exited { status, cpu_ms, .. }) => Ok((status, cpu_ms)),
        Some(Reply::Fatal(why)) => Err(InitError::Zygote(why)),
        _ => Err(InitError::Zygote("it did not say how its cell ended".to_owned())),
    }
}

/// Has the zygote clone a template, and passes on what its channel carries until it serves as a zygote
/// itself: its socket, and who hears the host next. `None` if it ended, of which the host was told.
fn lead_template(
    zygote: &Control,
    from_host: FromHost,
    to_host: &mut ToHost,
) -> Result<Option<(Control, Listening)>, InitError> {
    let (mut end, guest) = pair(DEFAULT_RING_BYTES)?;
    let (template, theirs) = Control::pair()?;
    let (memory, socket) = (guest.memory, guest.socket);
    zygote.send_fork(&Fork { number: TEMPLATE, memory, socket, control: Some(theirs.into()) })?;
    cloned(zygote)?;
    let mut first = Vec::new();
    if end.reader.recv(&mut first, Some(Instant::now() + BIRTH_PATIENCE))? != Received::Record {
        return Err(InitError::Zygote("its template did not say that it is confined".to_owned()));
    }
    let relay_port = to_host.try_clone().map_err(RelayError::from)?;
    let relay = relay_machine(end, first, from_host, relay_port)
        .map_err(failed("start", "the relay's threads"))?;
    if is_first(template.as_fd(), zygote.as_fd())? {
        return Ok(Some((template, Listening::Relay(relay.finish()?))));
    }
    let (status, cpu_ms) = await_end(zygote)?;
    relay.finish()?;
    to_host.tell(&Told::Ended { status, cpu_ms }).map_err(RelayError::from)?;
    Ok(None)
}

/// Waits until one of two sockets can be read; whether it is the first.
fn is_first(
    first: std::os::fd::BorrowedFd<'_>,
    second: std::os::fd::BorrowedFd<'_>,
) -> Result<bool, InitError> {
    let mut fds = [first, second].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    loop {
        match poll(&mut fds, None) {
            Ok(_) => return Ok(!fds[0].revents().is_empty()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed("poll", "the sockets")(errno)),
        }
    }
}
