//! `pyisolate run`: one script in one cell.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pyisolate_supervisor::broker::journal::{Journal, JournalOptions, Payloads};
use pyisolate_supervisor::{
    Cell, CellError, Death, Environment, ExecHandle, MachineOptions, Outbound, Patience,
    Supervisor, SupervisorOptions, Value,
};

use crate::MakeInterpreters;
use crate::flags::{Accel, KeptPayloads, Run};
use crate::human::Human;
use crate::job::{self, Input, Job};
use crate::json_lines::JsonLines;
use crate::report::{Ending, Report, Trouble};
use crate::source;
use crate::status::Status;

/// How long a cell may take to end once its script has; threads that it left running end then.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Runs the script; says how it ended.
pub(crate) fn run(
    flags: &Run,
    environment: Option<&str>,
    interpreters: Option<MakeInterpreters>,
) -> Status {
    let policy = job::policy(flags);
    let limits = policy.and_then(|policy| Ok((job::limits(flags, policy.as_ref())?, policy)));
    let message_bytes = limits.as_ref().map_or(0, |(limits, _)| limits.message_bytes);
    let mut report: Box<dyn Report> =
        if flags.json { Box::new(JsonLines::new(message_bytes)) } else { Box::new(Human::new()) };
    let report = &mut *report;
    let prepared = limits
        .and_then(|(limits, policy)| job::read(flags, policy, limits))
        .and_then(|job| Ok((supervisor(flags, environment, interpreters)?, job)));
    let printed = match prepared {
        Ok(((supervisor, journal), job)) => {
            let printed = perform(report, &supervisor, job);
            // The end of its cell is to be in the journal.
            drop(supervisor);
            printed.and_then(|status| closed(journal.as_deref(), status))
        }
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

/// The supervisor, and the journal that it writes.
fn supervisor(
    flags: &Run,
    environment: Option<&str>,
    interpreters: Option<MakeInterpreters>,
) -> Result<(Supervisor, Option<Arc<Journal>>), Trouble> {
    let host = |message: String| Trouble::new(Status::Host, message);
    let environment = match environment {
        Some(text) => Environment::from_description(text, Path::new("this interpreter"), None),
        None => Environment::discover(),
    };
    let environment = environment.map_err(|error| host(error.to_string()))?;
    let journal = journal(flags)?;
    let options = SupervisorOptions {
        journal: journal.clone(),
        require: flags.require.clone(),
        machines: MachineOptions {
            accelerator: flags.accel.map(Accel::of_machine),
            ..MachineOptions::default()
        },
        interpreters: interpreters.map(|make| make(&environment)),
        ..SupervisorOptions::new(environment)
    };
    let supervisor = Supervisor::new(options).map_err(|error| host(error.to_string()))?;
    Ok((supervisor, journal))
}

/// The journal that the flags name. Whoever asks for one wants all of it.
fn journal(flags: &Run) -> Result<Option<Arc<Journal>>, Trouble> {
    let Some(path) = &flags.journal else { return Ok(None) };
    let payloads = match flags.journal_payloads {
        KeptPayloads::Full => Payloads::Full,
        KeptPayloads::Hash => Payloads::Hash,
        KeptPayloads::None => Payloads::None,
    };
    let key = source::key(flags.journal_key_file.as_deref())?;
    let options = JournalOptions { payloads, key, required: true, ..JournalOptions::default() };
    let journal = Journal::create(path, options);
    journal.map(Some).map_err(|error| Trouble::new(Status::Usage, error.to_string()))
}

/// Closes the journal. A run that is not all in it did not go well.
fn closed(journal: Option<&Journal>, status: Status) -> io::Result<Status> {
    match journal.map_or(Ok(()), |journal| journal.close().map(drop)) {
        Ok(()) => Ok(status),
        Err(error) => {
            let trouble = Trouble::new(Status::Host, error.to_string());
            // After the last line of --json there is no other: this one is for stderr.
            Human::new().trouble(&trouble)?;
            Ok(if status == Status::Success { trouble.status } else { status })
        }
    }
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
