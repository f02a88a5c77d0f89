//! The launcher: a fresh interpreter outside every jail, which builds the zygote's and watches it.
//!
//! It runs no guest code and reads nothing that guests write. Its standard input is the control
//! socket, on which it reports if it fails; once the zygote runs, the socket is the zygote's alone.
//!
//! What the host refuses is found out by trying: first everything, then a zygote in the host's file
//! tree, then one in the host's namespaces too. Only a refusal leads on; any other error is the end.
//!
//! What is left to it are [errands], which only a single-threaded process outside every jail can do:
//! the user maps of templates, for the zygote, and programs, for the supervisor, which asks for them
//! on the socket that is the launcher's standard output.
#![expect(unsafe_code, reason = "execve of the interpreter inside the jail")]

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pyisolate_channel::control::{Control, LOAD_RUNTIME, Reply};
use pyisolate_jail::{
    Environment, FIXED_VARIABLES, Ground, HOME_VARIABLE, INTERPRETER_FLAGS, LIBRARIES_VARIABLE,
    LayerName, Outer, OuterChild, Report, RootPlan, Status, best_ground, enter_host_tree,
    launcher_is_root, spawn_outer_on,
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
    #[error("confining the zygote to the interpreter's files: {0}")]
    HostTree(#[from] pyisolate_jail::HostTreeError),
    /// What the zygote's process said before it was the zygote.
    #[error("{text}")]
    Child { refusal: bool, text: String },
    #[error("becoming nobody: {0}")]
    Nobody(#[from] pyisolate_jail::NobodyError),
    #[error("{0}")]
    Descriptors(#[from] pyisolate_jail::DescriptorError),
    #[error("{call} for the zygote: {source}")]
    Exec { call: &'static str, source: std::io::Error },
}

impl LaunchError {
    /// Whether the host refuses what was tried, so that there is less to be had and not nothing.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Root(error) => error.is_refusal(),
            Self::Spawn(error) => error.is_refusal(),
            Self::Child { refusal, .. } => *refusal,
            _ => false,
        }
    }
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
    match launch() {
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

/// Starts the zygote on the best ground that the host allows.
fn launch() -> Result<(Outer, Control), LaunchError> {
    let environment = environment(std::env::args_os())?;
    let plan = RootPlan::new(&environment)?;
    let mut ground = best_ground();
    loop {
        let error = match start(&ground, &environment, &plan) {
            Ok(started) => return Ok(started),
            Err(error) => error,
        };
        if !error.is_refusal() {
            return Err(error);
        }
        let (namespaces, why) = match &error {
            LaunchError::Spawn(error) => (error.left_namespaces(), error.refusal()),
            other => (true, whole(other)),
        };
        ground = match ground {
            // The namespaces can be made, but not what belongs in them.
            Ground::Whole | Ground::WholeAsRoot if namespaces => Ground::HostTree(why),
            Ground::NoNamespaces(_) => return Err(error),
            _ => Ground::NoNamespaces(why),
        };
    }
}

fn start(
    ground: &Ground,
    environment: &Environment,
    plan: &RootPlan,
) -> Result<(Outer, Control), LaunchError> {
    let failed =
        |call| move |errno: rustix::io::Errno| LaunchError::Exec { call, source: errno.into() };
    let (errands, zygotes_end) = Control::pair()?;
    // Closed by execve: then nothing was said, and all is well.
    let (hear, say) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed("pipe"))?;
    let is_whole = ground.is_whole();
    let trees = if is_whole && launcher_is_root() { Some(plan.open()?) } else { None };
    let outer = spawn_outer_on(ground, move |child| {
        let enter = |child: OuterChild| -> Result<(), LaunchError> {
            match trees {
                Some(trees) => trees.assemble()?,
                None if is_whole => plan.build()?,
                None => {}
            }
            child.become_nobody()?;
            if !is_whole {
                enter_host_tree(plan)?;
            }
            pyisolate_jail::descriptors::close_all_on_exec()?;
            Err(become_interpreter(&Program::of(ground, environment, plan), zygotes_end.into()))
        };
        if let Err(error) = enter(child) {
            let text = whole(&error);
            // A security module that lets namespaces be made may still let nothing run in them.
            let refusal = error.is_refusal()
                || matches!((ground, &error), (Ground::HostTree(_), LaunchError::Exec { .. }));
            let kind: &[u8] = if refusal { &[REFUSAL] } else { &[FAULT] };
            // A launcher that is gone needs no report.
            let _ = File::from(say).write_all(&[kind, text.as_bytes()].concat());
        }
        70
    })?;
    let mut said = Vec::new();
    let heard = File::from(hear).read_to_end(&mut said);
    let (refusal, text) = match (heard, said.split_first()) {
        (Ok(_), None) => return Ok((outer, errands)),
        (Ok(_), Some((kind, text))) => (*kind == REFUSAL, String::from_utf8_lossy(text).into()),
        (Err(error), _) => (false, format!("listening to the zygote's process: {error}")),
    };
    outer.reap();
    Err(LaunchError::Child { refusal, text })
}

/// The first byte of what the zygote's process says if it does not become the zygote.
const REFUSAL: u8 = b'r';
const FAULT: u8 = b'f';

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

/// Adds to the report what this process has in its environment. `of_root`: the root's plan says what
/// the rest is; else it is as the launcher had it from the host.
pub(crate) fn report_environment(report: &mut Report, of_root: bool) {
    let ours = |name: &OsString| {
        name == LIBRARIES_VARIABLE
            || name == HOME_VARIABLE
            || FIXED_VARIABLES.iter().any(|known| known.0 == name)
    };
    let (known, foreign): (Vec<_>, Vec<_>) =
        std::env::vars_os().map(|(name, _)| name).partition(ours);
    let (status, detail) = if !foreign.is_empty() {
        (Status::Missing, format!("has {foreign:?}"))
    } else if !of_root && known.iter().any(|name| name == LIBRARIES_VARIABLE) {
        (Status::Partial, format!("{LIBRARIES_VARIABLE} is the host's, whose libraries lie there"))
    } else {
        (Status::Enforced, format!("{} variables, none of them the host's", known.len()))
    };
    report.add(LayerName::Environment, status, detail);
}

/// The zygote's interpreter and what it is told.
struct Program {
    interpreter: PathBuf,
    environment: Vec<Vec<u8>>,
    /// The zygote's own arguments: the runtime, the ground, the folders of packages.
    arguments: Vec<Vec<u8>>,
}

impl Program {
    fn of(ground: &Ground, environment: &Environment, plan: &RootPlan) -> Self {
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        let variable = |name: &str, value: &[u8]| [name.as_bytes(), b"=", value].concat();
        let known = |variables: &[(&str, &str)]| -> Vec<_> {
            variables.iter().map(|(name, value)| variable(name, value.as_bytes())).collect()
        };
        let (variables, interpreter, runtime, packages) = if ground.is_whole() {
            (known(&plan.variables()), plan.interpreter(), plan.runtime(), plan.packages())
        } else {
            let mut variables = known(&FIXED_VARIABLES);
            let libraries = std::env::var_os(LIBRARIES_VARIABLE);
            variables.extend(libraries.map(|paths| variable(LIBRARIES_VARIABLE, paths.as_bytes())));
            let Environment { executable, runtime, packages, .. } = environment;
            (variables, executable.as_path(), runtime.as_path(), packages.as_slice())
        };
        let mut arguments = vec![bytes(runtime), ground.encode().into_bytes()];
        arguments.extend(packages.iter().map(|path| bytes(path)));
        Self { interpreter: interpreter.to_path_buf(), environment: variables, arguments }
    }
}

/// Executes the interpreter inside the jail. Returns only if that failed.
fn become_interpreter(zygote: &Program, errands: OwnedFd) -> LaunchError {
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
    let interpreter = zygote.interpreter.as_os_str().as_bytes();
    let program = format!("{LOAD_RUNTIME}runtime.zygote(sys.argv[2], sys.argv[3:])");
    let mut arguments = vec![interpreter.to_vec()];
    let words = INTERPRETER_FLAGS.into_iter().chain(["-c", &program]);
    arguments.extend(words.map(|text| text.as_bytes().to_vec()));
    arguments.extend_from_slice(&zygote.arguments);
    let strings = |texts: &[Vec<u8>]| -> Vec<CString> {
        texts.iter().filter_map(|text| CString::new(text.as_slice()).ok()).collect()
    };
    let (arguments, environment) = (strings(&arguments), strings(&zygote.environment));
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let Ok(path) = CString::new(interpreter) else {
        return LaunchError::Argument("interpreter without a NUL byte");
    };
    // SAFETY: a NUL-terminated path and two null-terminated arrays of NUL-terminated strings, all
    // of which outlive the call.
    unsafe {
        libc::execve(path.as_ptr(), pointers(&arguments).as_ptr(), pointers(&environment).as_ptr())
    };
    LaunchError::Exec { call: "execve", source: std::io::Error::last_os_error() }
}
