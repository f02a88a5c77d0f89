//! What the launcher does once its zygote runs: user maps for the zygote's templates, programs for
//! the supervisor, and reaping both.
//!
//! It stays single-threaded, since it forks. The zygote's socket and the supervisor's are apart, so
//! that the zygote can ask for nothing but maps.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use pyisolate_channel::control::{Control, ControlError, Program, ProgramEvent, Reply};
use pyisolate_jail::{
    Command, CommandEvent, CommandFilter, Outer, Rlimits, SeccompError, map_template, spawn_command,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, WaitId, WaitIdOptions, waitid};
use thiserror::Error;

use super::whole;

/// How much more address space than memory a program may have, in bytes: what allocators and
/// runtimes reserve without touching it.
const RESERVABLE_BYTES: u64 = 32 << 30;

#[derive(Debug, Error)]
enum ProgramError {
    #[error("an argument or a variable of the environment has a NUL byte in it")]
    Nul(#[from] std::ffi::NulError),
    #[error("compiling the filter for programs: {0}")]
    Filter(#[from] SeccompError),
    #[error("{0}")]
    Command(#[from] pyisolate_jail::CommandError),
    #[error("dup of the program's handle: {0}")]
    Handle(std::io::Error),
}

/// Where the line of a program is kept while its jail is built.
const LINE_ABOVE: i32 = 128;

/// The filters of programs, compiled when they are first needed.
#[derive(Default)]
struct Filters {
    program: Option<CommandFilter>,
    vmm: Option<CommandFilter>,
}

/// What is listened to, by its place among the descriptors that are polled.
const ZYGOTE: usize = 0;
const ERRANDS: usize = 1;
const PROGRAMS: usize = 2;

/// Serves until the zygote ends, and every program with it, since programs die with the launcher.
pub(super) fn serve(zygote: &Outer, errands: Control, programs: Control) {
    // A zygote that asks and takes no answers is not waited for: `map` fails, and that was that.
    let mut errands = rustix::io::ioctl_fionbio(&errands, true).is_ok().then_some(errands);
    let mut programs = Some(programs);
    let mut filters = Filters::default();
    let mut running: Vec<OwnedFd> = Vec::new();
    loop {
        // A socket whose other end is gone is asked no more: the zygote stands in for it.
        let zygotes = zygote.pidfd.as_fd();
        let mut fds: Vec<_> = [
            zygotes,
            errands.as_ref().map_or(zygotes, AsFd::as_fd),
            programs.as_ref().map_or(zygotes, AsFd::as_fd),
        ]
        .into_iter()
        .chain(running.iter().map(AsFd::as_fd))
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // Without memory for a list of ten descriptors there is nothing left to serve with.
            Err(_) => return,
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[ZYGOTE] && ended(&zygote.pidfd) {
            return;
        }
        if ready[ERRANDS] && errands.as_ref().is_some_and(|errands| map(zygote, errands).is_err()) {
            errands = None;
        }
        let mut place = PROGRAMS;
        running.retain(|pidfd| {
            place += 1;
            !(ready[place] && ended(pidfd))
        });
        if let Some(socket) = programs.as_ref().filter(|_| ready[PROGRAMS]) {
            match socket.recv_program() {
                Ok(program) => running.extend(start(program, &mut filters)),
                // Whoever asked holds the other end of the line, and hears that it is closed.
                Err(ControlError::Malformed) => {}
                Err(_) => programs = None,
            }
        }
    }
}

/// Writes the user map of one template.
fn map(zygote: &Outer, errands: &Control) -> Result<(), ControlError> {
    let Some(Reply::Forked { number, pidfd }) = errands.recv_reply(false)? else { return Ok(()) };
    let answer = match map_template(zygote, pidfd.as_fd()) {
        Ok(()) => Reply::Exited { number, status: 0, cpu_ms: 0 },
        Err(error) => Reply::Fatal(whole(&error)),
    };
    errands.send_reply(&answer)
}

/// Reaps a child if it has ended.
fn ended(pidfd: &OwnedFd) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    // An error means that it is no child any more.
    !matches!(waitid(WaitId::PidFd(pidfd.as_fd()), options), Ok(None))
}

/// Starts a program, or says on its line why not. A handle on its first process, to be reaped.
fn start(program: Program, filters: &mut Filters) -> Option<OwnedFd> {
    let Program { line, standard, .. } = &program;
    // Above the numbers under which a program finds what it is handed.
    let Ok(line) = rustix::io::fcntl_dupfd_cloexec(line, LINE_ABOVE).map(Control::from) else {
        return None;
    };
    match spawn(&program, filters, &line, standard) {
        Ok((handle, running)) => {
            let _ = line.send_program_event(&ProgramEvent::Started(handle));
            Some(running)
        }
        Err(error) => {
            let _ = line.send_program_event(&ProgramEvent::Failed(&whole(&error)));
            None
        }
    }
}

fn spawn(
    program: &Program,
    filters: &mut Filters,
    line: &Control,
    standard: &[OwnedFd; 3],
) -> Result<(OwnedFd, OwnedFd), ProgramError> {
    let (filter, compile): (_, fn() -> _) = match program.is_vmm {
        false => (&mut filters.program, CommandFilter::compile),
        true => (&mut filters.vmm, CommandFilter::compile_vmm),
    };
    let filter = match filter {
        Some(filter) => filter,
        None => filter.insert(compile()?),
    };
    let strings = |texts: &[OsString]| -> Result<Vec<CString>, std::ffi::NulError> {
        texts.iter().map(|text| CString::new(text.clone().into_vec())).collect()
    };
    let command = Command {
        program: program.path.clone(),
        arguments: strings(&program.arguments)?,
        environment: strings(&program.environment)?,
        read: program.read.clone(),
        devices: program.devices.clone(),
        limits: limits(program),
    };
    let say = |event: CommandEvent<'_>| {
        // If nobody listens, the program is about to end.
        let _ = line.send_program_event(&match event {
            CommandEvent::Confined(report) => ProgramEvent::Confined(report),
            CommandEvent::NotExecuted(errno) => ProgramEvent::NotExecuted(errno),
            CommandEvent::Failed(why) => ProgramEvent::Failed(why),
            CommandEvent::Ended(status) => ProgramEvent::Ended(status),
        });
    };
    let running =
        spawn_command(&command, filter, standard, &program.passed, line.as_fd(), &say)?.pidfd;
    let handle = running.try_clone().map_err(ProgramError::Handle)?;
    Ok((handle, running))
}

/// The program's limits, or the host's own where those are lower.
fn limits(program: &Program) -> Rlimits {
    let at_most = |resource, wanted: u64| {
        Some(rustix::process::getrlimit(resource).maximum.map_or(wanted, |hard| wanted.min(hard)))
    };
    Rlimits {
        // With 0 the kernel would still run a host's program that collects core dumps, as root and
        // outside of the jail, on whatever the program made of its memory; with 1 it does not.
        core_bytes: at_most(Resource::Core, 1),
        open_files: at_most(Resource::Nofile, program.open_files),
        threads: at_most(Resource::Nproc, program.processes),
        data_bytes: at_most(Resource::Data, program.mem_bytes),
        address_space_bytes: at_most(
            Resource::As,
            program.mem_bytes.saturating_add(RESERVABLE_BYTES),
        ),
        stack_bytes: at_most(Resource::Stack, 8 << 20),
        cpu_seconds: at_most(Resource::Cpu, program.cpu_seconds),
        file_bytes: at_most(Resource::Fsize, program.file_bytes),
        ..Rlimits::fixed()
    }
}
