//! The launcher: a fresh interpreter outside every jail, which builds the zygote's and watches it.
//!
//! It runs no guest code and reads nothing that guests write. Its standard input is the control
//! socket, on which it reports if it fails; once the zygote runs, the socket is the zygote's alone.
//! What is left to it are [errands], which only a single-threaded process outside every jail can do:
//! the user maps of templates, for the zygote, and programs, for the supervisor, which asks for them
//! on the socket that is the launcher's standard output.
#![expect(unsafe_code, reason = "execve of the interpreter inside the jail")]

use std::ffi::{CString, OsString};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use pyisolate_channel::control::{Control, LOAD_RUNTIME, Reply};
use pyisolate_jail::{
    Environment, LayerName, Outer, Report, RootPlan, Status, launcher_is_root, spawn_outer,
};
use thiserror::Error;

mod errands;

/// Where the zygote finds the errand socket. The control socket is its standard input.
pub(crate) const ERRAND_FD: i32 = 3;

#[derive(Debug, Error)]
enum LaunchError {
    #[error("the launcher was given no {0}")]
    Argument(&'static str),
    #[error("{0}")]
    Socket(#[from] pyisolate_channel::control::ControlError),
    #[error("planning the cell's root: {0}")]
    Plan(#[from] pyisolate_jail::PlanError),
    #[error("building the cell's root: {0}")]
    Root(#[from] pyisolate_jail::RootError),
    #[error("{0}")]
    Spawn(#[from] pyisolate_jail::SpawnError),
    #[error("becoming nobody: {0}")]
    Nobody(#[from] pyisolate_jail::NobodyError),
    #[error("{0}")]
    Descriptors(#[from] pyisolate_jail::DescriptorError),
    #[error("{call} for the zygote: {source}")]
    Exec { call: &'static str, source: std::io::Error },
}

/// An error and its sources, in one line.
pub(crate) fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Runs the launcher; its exit status.
pub(crate) fn run() -> u8 {
    let control = rustix::io::dup(rustix::stdio::stdin()).map(Control::from);
    let programs = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).map(Control::from);
    let (Ok(control), Ok(programs)) = (control, programs) else { return 71 };
    // Nothing that this interpreter or the zygote's prints may be taken for a message.
    let Ok(null) = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    ) else {
        return 71;
    };
    if rustix::stdio::dup2_stdout(&null).is_err() {
        return 71;
    }
    match launch(&control) {
        Ok((zygote, errands)) => {
            // From here on the supervisor hears the end of the zygote, not of the launcher.
            drop(control);
            let _ = rustix::stdio::dup2_stdin(null);
            errands::serve(&zygote, errands, programs);
            0
        }
        Err(error) => {
            // A supervisor that is gone needs no report.
            let _ = control.send_reply(&Reply::Fatal(whole(&error)));
            70
        }
    }
}

fn launch(control: &Control) -> Result<(Outer, Control), LaunchError> {
    let environment = environment(std::env::args_os())?;
    let plan = RootPlan::new(&environment)?;
    let (errands, zygotes_end) = Control::pair()?;
    let trees = if launcher_is_root() { Some(plan.open()?) } else { None };
    let outer = spawn_outer(|child| {
        let enter = || -> Result<(), LaunchError> {
            match trees {
                Some(trees) => trees.assemble()?,
                None => plan.build()?,
            }
            child.become_nobody()?;
            pyisolate_jail::descriptors::close_all_on_exec()?;
            Err(become_interpreter(&plan, zygotes_end.into()))
        };
        if let Err(error) = enter() {
            let _ = control.send_reply(&Reply::Fatal(whole(&error)));
        }
        70
    })?;
    Ok((outer, errands))
}

/// Reads the launcher's arguments, which follow the program text.
fn environment(mut arguments: impl Iterator<Item = OsString>) -> Result<Environment, LaunchError> {
    arguments.by_ref().find(|argument| argument == "-c");
    let _program = arguments.next();
    let mut next = |what| arguments.next().ok_or(LaunchError::Argument(what));
    let number = |text: OsString, what| {
        text.to_str().and_then(|text| text.parse().ok()).ok_or(LaunchError::Argument(what))
    };
    Ok(Environment {
        runtime: PathBuf::from(next("runtime")?),
        executable: PathBuf::from(next("executable")?),
        stdlib: PathBuf::from(next("stdlib")?),
        platstdlib: PathBuf::from(next("platstdlib")?),
        platlibdir: next("platlibdir")?.to_string_lossy().into_owned(),
        version: (
            number(next("major version")?, "major version")?,
            number(next("minor version")?, "minor version")?,
        ),
        packages: arguments.map(PathBuf::from).collect(),
    })
}

/// The whole environment of the zygote and of its cells; where a value is empty, the root's plan
/// says it.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("LD_LIBRARY_PATH", ""),
    ("PYTHONHOME", ""),
    // Threads that a library starts by itself would be lost in the fork, and count as the cell's.
    ("OPENBLAS_NUM_THREADS", "1"),
    ("OMP_NUM_THREADS", "1"),
    ("MKL_NUM_THREADS", "1"),
    ("LC_ALL", "C.UTF-8"),
];

/// Adds to the report what this process has in its environment.
pub(crate) fn report_environment(report: &mut Report) {
    let ours = |name: &OsString| ENVIRONMENT.iter().any(|known| known.0 == name);
    let (known, foreign): (Vec<_>, Vec<_>) =
        std::env::vars_os().map(|(name, _)| name).partition(ours);
    if foreign.is_empty() {
        let detail = format!("{} variables, none of them the host's", known.len());
        report.add(LayerName::Environment, Status::Enforced, detail);
    } else {
        report.add(LayerName::Environment, Status::Missing, format!("has {foreign:?}"));
    }
}

/// Executes the interpreter inside the jail. Returns only if that failed.
fn become_interpreter(plan: &RootPlan, errands: OwnedFd) -> LaunchError {
    let failed =
        |call| move |errno: rustix::io::Errno| LaunchError::Exec { call, source: errno.into() };
    // The errand socket goes to its number and stays open over exec; everything else closes itself.
    if errands.as_raw_fd() == ERRAND_FD {
        let flags = rustix::io::FdFlags::empty();
        if let Err(error) = rustix::io::fcntl_setfd(&errands, flags).map_err(failed("fcntl")) {
            return error;
        }
    } else {
        // SAFETY: the number may be anybody's, and is taken over: this process is about to execute
        // another program, and uses nothing but standard input and this socket until then.
        let mut target = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(ERRAND_FD) };
        let moved = rustix::io::dup2(&errands, &mut target).map_err(failed("dup2"));
        // It stays open for the program.
        let _ = target.into_raw_fd();
        if let Err(error) = moved {
            return error;
        }
    }
    let library_path = plan.library_path().as_os_str().as_bytes();
    let home = plan.home().as_os_str().as_bytes();
    let environment = ENVIRONMENT.map(|(name, value)| {
        let value = match name {
            "LD_LIBRARY_PATH" => library_path,
            "PYTHONHOME" => home,
            _ => value.as_bytes(),
        };
        [name.as_bytes(), b"=", value].concat()
    });
    // Found by its own path, the interpreter finds its library beside it.
    let interpreter = plan.interpreter().to_string_lossy();
    let program = format!("{LOAD_RUNTIME}runtime.zygote(sys.argv[2:])");
    let mut arguments: Vec<Vec<u8>> = [
        // -E and -s, but not -I: that would ignore PYTHONHOME.
        &*interpreter,
        "-s",
        "-P",
        "-S",
        "-B",
        "-X",
        "utf8",
        "-c",
        &program,
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    arguments.push(plan.runtime().as_os_str().as_bytes().to_vec());
    arguments.extend(plan.packages().iter().map(|path| path.as_os_str().as_bytes().to_vec()));
    let strings = |texts: &[Vec<u8>]| -> Vec<CString> {
        texts.iter().filter_map(|text| CString::new(text.as_slice()).ok()).collect()
    };
    let (arguments, environment) = (strings(&arguments), strings(&environment));
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let Ok(path) = CString::new(plan.interpreter().as_os_str().as_bytes()) else {
        return LaunchError::Argument("interpreter without a NUL byte");
    };
    // SAFETY: a NUL-terminated path and two null-terminated arrays of NUL-terminated strings, all
    // of which outlive the call.
    unsafe {
        libc::execve(path.as_ptr(), pointers(&arguments).as_ptr(), pointers(&environment).as_ptr())
    };
    LaunchError::Exec { call: "execve", source: std::io::Error::last_os_error() }
}
