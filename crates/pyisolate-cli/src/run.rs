//! `pyisolate run`: one script in one cell.

use std::io;
use std::path::Path;
use std::time::Duration;

use pyisolate_supervisor::{
    Cell, CellError, Death, Environment, ExecHandle, Outbound, Patience, Supervisor,
    SupervisorOptions, Value,
};

use crate::flags::{Backend, Run};
use crate::human::Human;
use crate::job::{self, Input, Job};
use crate::json_lines::JsonLines;
use crate::report::{Ending, Report, Trouble};
use crate::status::Status;

/// How long a cell may take to end once its script has; threads that it left running end then.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Runs the script; says how it ended.
pub(crate) fn run(flags: &Run, environment: Option<&str>) -> Status {
    let limits = job::limits(flags);
    let message_bytes = limits.as_ref().map_or(0, |limits| limits.message_bytes);
    let mut report: Box<dyn Report> =
        if flags.json { Box::new(JsonLines::new(message_bytes)) } else { Box::new(Human::new()) };
    let report = &mut *report;
    let prepared = limits
        .and_then(|limits| job::read(flags, limits))
        .and_then(|job| Ok((supervisor(flags.backend, environment)?, job)));
    let printed = match prepared {
        Ok((supervisor, job)) => perform(report, &supervisor, job),
        Err(trouble) => give_up(report, &trouble),
    };
    printed.unwrap_or_else(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Status::BrokenPipe,
        _ => {
            let trouble = Trouble::new(Status::Host, format!("cannot write to stdout: {error}"));
            // Said on stderr; where that cannot be written to either, the status says it.
            let _ = Human::new().trouble(&trouble);
            trouble.status
        }
    })
}

fn supervisor(backend: Backend, environment: Option<&str>) -> Result<Supervisor, Trouble> {
    let host = |message: String| Trouble::new(Status::Host, message);
    if backend != Backend::Process {
        let name = backend.word();
        return Err(host(format!(
            "--backend {name} is not in this release: use --backend process"
        )));
    }
    let environment = match environment {
        Some(text) => Environment::from_description(text, Path::new("this interpreter"), None),
        None => Environment::discover(),
    };
    let environment = environment.map_err(|error| host(error.to_string()))?;
    Supervisor::new(SupervisorOptions { environment, warm_pool: 0 })
        .map_err(|error| host(error.to_string()))
}

/// Ends a run that never had a cell.
fn give_up(report: &mut dyn Report, trouble: &Trouble) -> io::Result<Status> {
    report.trouble(trouble)?;
    report.ending(&Ending { status: trouble.status, denials: Vec::new(), stats: None })?;
    Ok(trouble.status)
}

fn perform(report: &mut dyn Report, supervisor: &Supervisor, job: Job) -> io::Result<Status> {
    let Job { script, source, inputs, options } = job;
    let cell = match supervisor.spawn(options, None) {
        Ok(cell) => cell,
        Err(error) => {
            let trouble = Trouble::new(Status::of_spawn(&error), error.to_string());
            return give_up(report, &trouble);
        }
    };
    let mut account = Account { report, script: &script, status: Status::Success };
    match begin(&cell, &source, inputs) {
        Ok(exec) => follow(&cell, &exec, &mut account)?,
        Err(error) => account.trouble(error)?,
    }
    let status = account.status;
    report.ending(&Ending { status, denials: cell.denials(), stats: Some(cell.stats()) })?;
    Ok(status)
}

/// Sends the inputs and the script. An idle cell takes what it is sent, so that all inputs are
/// there when the script begins.
fn begin(cell: &Cell, source: &str, inputs: Vec<Input>) -> Result<ExecHandle, CellError> {
    let text = |text: &str| Value::Text(text.to_owned());
    for Input { name, data } in inputs {
        let message = Value::Dict(vec![
            (text("name"), Value::Text(name)),
            (text("data"), Value::Bytes(data)),
        ]);
        let message = message.to_pickle();
        cell.post(Outbound { pickle: &message, buffers: &[] }, &Patience::default())?;
    }
    cell.exec(source)
}

/// Prints what the script sends until its cell has ended, and how the script ended.
fn follow(cell: &Cell, exec: &ExecHandle, account: &mut Account<'_>) -> io::Result<()> {
    std::thread::scope(|scope| {
        let script = scope.spawn(|| {
            let ended = exec.wait(None);
            // What ends here is the wait for further events.
            cell.close(CLOSE_PATIENCE);
            ended
        });
        let printed = print_all(cell, account);
        if printed.is_err() {
            cell.kill();
        }
        let ended = script.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (ended, printed?) {
            (Err(error), _) => account.trouble(error),
            // Told to end, it did; were it not for a race, it would be called closed.
            (Ok(()), Death::Exit(0)) => Ok(()),
            // Threads that the script left running can still do wrong.
            (Ok(()), death) => account.trouble(CellError::Dead(death)),
        }
    })
}

/// Prints events as they come, until no more can. Returns how the cell ended.
fn print_all(cell: &Cell, account: &mut Account<'_>) -> io::Result<Death> {
    loop {
        let event = match cell.try_recv() {
            Some(event) => event,
            None => {
                account.report.flush()?;
                cell.recv(None)
            }
        };
        match event {
            Ok(event) => account.report.event(&event)?,
            Err(CellError::Dead(death)) => return Ok(death),
            Err(error) => account.trouble(error)?,
        }
    }
}

/// Where trouble is told, and remembered.
struct Account<'a> {
    report: &'a mut dyn Report,
    script: &'a str,
    /// The first that went wrong.
    status: Status,
}

impl Account<'_> {
    fn trouble(&mut self, error: CellError) -> io::Result<()> {
        let Some(trouble) = Trouble::of_cell(error, self.script) else { return Ok(()) };
        match (trouble.status, self.status) {
            // It ended itself and said that all is well.
            (Status::Success, _) => return Ok(()),
            (status, Status::Success) => self.status = status,
            _ => {}
        }
        self.report.trouble(&trouble)
    }
}
