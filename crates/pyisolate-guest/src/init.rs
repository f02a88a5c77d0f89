//! The first process of a virtual machine: makes the machine fit for a launcher, and stands between
//! its zygote and the host.
//!
//! Everything up to the zygote is there before the machine's snapshot is taken. A machine that goes
//! on from it is told so, renews what all machines of that snapshot share (the kernel's random
//! generator, the time), has the zygote clone the cell, and passes on what the channel carries. It
//! runs as root of the machine, which is a root that the host trusts with nothing.
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
use pyisolate_channel::{ChannelError, DEFAULT_RING_BYTES, pair};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::mount::MountFlags;
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
/// The zygote's number for the one cell of this machine.
const CELL: u32 = 1;

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
        let (mut zygote, theirs) = Control::pair()?;
        let launcher = launch(arguments, theirs)?;
        let mut listening = Listening::First(from_host);
        loop {
            match zygote.recv_reply(true)? {
                Some(Reply::Serving) => {}
                Some(Reply::Fatal(why)) => return Err(InitError::Zygote(why)),
                _ => return Err(InitError::Zygote("it did not say that it serves".to_owned())),
            }
            // What is told here is what the snapshot is taken behind.
            to_host.tell(&Told::Booted).map_err(RelayError::from)?;
            let (from_host, wake) = match listening.wake()? {
                Some(woken) => woken,
                None => return Ok(()),
            };
            renew(&wake)?;
            match lead(&zygote, &wake, from_host, &mut to_host)? {
                Led::Template(socket, next) => (zygote, listening) = (socket, next),
                Led::Ended => return Ok(()),
            }
            let _ = &launcher;
        }
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

/// What became of what the zygote cloned.
enum Led {
    /// It is a template, which serves there. Its machine is about to be made a snapshot of.
    Template(Control, Listening),
    /// It ended, and the host was told how.
    Ended,
}

/// Has the zygote clone the cell, or the template, and passes on what its channel carries.
fn lead(
    zygote: &Control,
    wake: &Wake,
    from_host: FromHost,
    to_host: &mut ToHost,
) -> Result<Led, InitError> {
    let (end, guest) = pair(DEFAULT_RING_BYTES)?;
    let (template, theirs) = match wake.is_template {
        true => Some(Control::pair()?).unzip(),
        false => (None, None),
    };
    let control = theirs.map(Into::into);
    zygote.send_fork(&Fork {
        number: CELL,
        memory: guest.memory,
        socket: guest.socket,
        control,
    })?;
    let relay_port = to_host.try_clone().map_err(RelayError::from)?;
    let relay = relay_machine(end, from_host, relay_port)
        .map_err(failed("start", "the relay's threads"))?;
    loop {
        if let Some(template) = &template
            && is_first(template.as_fd(), zygote.as_fd())?
        {
            break;
        }
        match zygote.recv_reply(true)? {
            Some(Reply::Exited { status, cpu_ms, .. }) => {
                relay.finish()?;
                to_host.tell(&Told::Ended { status, cpu_ms }).map_err(RelayError::from)?;
                return Ok(Led::Ended);
            }
            Some(Reply::ForkFailed { errno, .. }) => {
                let error = io::Error::from_raw_os_error(errno);
                return Err(InitError::Zygote(format!("it could not clone the cell: {error}")));
            }
            Some(Reply::Fatal(why)) => return Err(InitError::Zygote(why)),
            _ => {}
        }
    }
    let listening = Listening::Relay(relay.finish()?);
    Ok(Led::Template(template.unwrap_or_else(|| unreachable!("it has just been heard")), listening))
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
