//! What this host really gives: ten guarantees, each tried with a cell that tries to break it, and an
//! eleventh where the processor keeps a virtual machine apart.
//!
//! Nothing is concluded from version numbers or files that are there. Each attempt is made in a cell
//! against something that this process planted and can reach itself, and each limit is tripped.

mod group;
mod machine;

use std::io::Write;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyisolate_abi::pickle::{Caps, Value};
use pyisolate_jail::{LayerName, Status};
use pyisolate_policy::{CellName, Imports, LimitName, Limits};

use crate::body::Interpreters;
use crate::confinement::Confinement;
use crate::environment::Environment;
use crate::error::{CellError, Death};
use crate::event::Event;
use crate::handle::{Cell, Outbound};
use crate::options::{Backend, CellOptions, SupervisorOptions};
use crate::outbound::Patience;
use crate::require::Requirement;
use crate::supervisor::Supervisor;

/// How long one trial may take.
const PATIENCE: Duration = Duration::from_secs(20);
const ATTEMPTS: &str = include_str!("attempts.py");

/// One guarantee, and whether it was kept.
#[derive(Clone, Debug)]
pub struct Point {
    /// A word for it.
    pub name: &'static str,
    /// What is guaranteed, in a sentence.
    pub guarantee: &'static str,
    /// What was found, or why it is not kept.
    pub outcome: Result<String, Lost>,
}

/// Why a guarantee is not kept here.
#[derive(Clone, Debug)]
pub struct Lost {
    /// What was seen.
    pub why: String,
    /// What mends it; empty where nobody knows.
    pub remedy: String,
}

/// What was found on this host.
#[derive(Clone, Debug)]
pub struct Examination {
    /// Ten, and an eleventh where a cell behind a virtual machine of the processor's answered.
    pub points: Vec<Point>,
    /// What cells behind a virtual machine need, and whether it is there.
    pub machine: Vec<Point>,
    /// What confined the cell that tried, if there was one.
    pub confinement: Option<Confinement>,
    /// Each backend's name, and why it does not work, if it does not.
    pub backends: Vec<(&'static str, Result<String, String>)>,
}

impl Examination {
    /// How many guarantees are kept.
    #[must_use]
    pub fn grade(&self) -> usize {
        self.points.iter().filter(|point| point.outcome.is_ok()).count()
    }
}

/// Every guarantee, in the order in which they are printed: word, sentence.
const POINTS: [(&str, &str); 10] = [
    ("cells", "a cell starts, confined, and answers"),
    ("processes", "a cell can neither see, signal nor trace a process, nor make one"),
    ("files", "a cell has no file but its read-only runtime"),
    ("second-wall", "Landlock stands behind the file tree, with all that it can refuse"),
    ("network", "a cell has no way out, not even to this host"),
    ("system-calls", "calls that cells do not need do not reach the kernel"),
    ("privileges", "a cell has no capability and can gain none"),
    ("inheritance", "a cell has no descriptor and no variable of its host's"),
    ("limits", "memory and time end where they were set, and the cell with them"),
    ("whole-cell", "the kernel counts memory and threads of the whole cell: a control group"),
];

/// Tries what this host gives. Makes a few cells, of which none is left.
#[must_use]
pub fn examine(
    environment: &Environment,
    interpreters: Option<Arc<dyn Interpreters>>,
) -> Examination {
    let begun = Instant::now();
    let mut outcomes: Vec<Result<String, Lost>> = Vec::new();
    let options = SupervisorOptions {
        require: Requirement::None,
        interpreters,
        ..SupervisorOptions::new(environment.clone())
    };
    let tried =
        Supervisor::new(options).map_err(|error| error.to_string()).and_then(|supervisor| {
            let trial = Trial::run(&supervisor)?;
            Ok((supervisor, trial, begun.elapsed()))
        });
    let machine = machine::examine(environment);
    let (confinement, mut backends) = match tried {
        Err(why) => {
            let remedy = LayerName::UserNamespace.remedy().unwrap_or_default();
            outcomes.push(Err(Lost { why: why.clone(), remedy: remedy.to_owned() }));
            let untried =
                || Err(Lost { why: "no cell to try it with".to_owned(), remedy: String::new() });
            outcomes.resize_with(POINTS.len(), untried);
            (None, vec![("process", Err(why))])
        }
        Ok((supervisor, trial, took)) => {
            outcomes.push(Ok(format!("the first after {} ms", took.as_millis())));
            outcomes.extend(trial.judge());
            outcomes.push(limits(&supervisor));
            outcomes.push(group::trip(environment));
            let backends = backends(&supervisor);
            (Some(trial.confinement), backends)
        }
    };
    backends.push(("microvm", machine.works));
    let points = POINTS.into_iter().zip(outcomes);
    let points = points.map(|((name, guarantee), outcome)| Point { name, guarantee, outcome });
    Examination {
        points: points.chain(machine.guarantee).collect(),
        machine: machine.parts,
        confinement,
        backends,
    }
}

/// What one cell tried, and what came of it.
struct Trial {
    confinement: Confinement,
    /// The error's name for each attempt; `None` if it worked.
    refused: Vec<(String, Option<String>)>,
}

impl Trial {
    fn run(supervisor: &Supervisor) -> Result<Self, String> {
        let failed = |what: &str, error: std::io::Error| format!("{what}: {error}");
        let mut planted =
            tempfile::NamedTempFile::new().map_err(|error| failed("planting a file", error))?;
        let mark = format!("planted by {}", std::process::id());
        planted.write_all(mark.as_bytes()).map_err(|error| failed("planting a file", error))?;
        let listener =
            TcpListener::bind("127.0.0.1:0").map_err(|error| failed("listening", error))?;
        let port = listener.local_addr().map_err(|error| failed("listening", error))?.port();
        let text = |text: &str| Value::Text(text.to_owned());
        let variable = std::env::vars().map(|(name, _)| name).find(|name| name == "PATH");
        let wanted = Value::Dict(vec![
            (text("file"), text(&planted.path().to_string_lossy())),
            (text("mark"), text(&mark)),
            (text("descriptor"), Value::Int(planted.as_file().as_raw_fd().into())),
            (text("port"), Value::Int(port.into())),
            (text("variable"), text(variable.as_deref().unwrap_or("HOME"))),
        ]);
        let cell = spawn(supervisor, Backend::Process, Limits::default())?;
        let confinement = cell.confinement();
        let answer = ask(&cell, ATTEMPTS, Some(&wanted)).map_err(|error| error.to_string())?;
        cell.close(Duration::from_secs(1));
        let Value::Dict(rows) = answer else {
            return Err("the trial's cell answered nonsense".into());
        };
        let refused = rows.into_iter().filter_map(|row| match row {
            (Value::Text(name), Value::Text(error)) => Some((name, Some(error))),
            (Value::Text(name), Value::None) => Some((name, None)),
            _ => None,
        });
        Ok(Self { confinement, refused: refused.collect() })
    }

    fn judge(&self) -> Vec<Result<String, Lost>> {
        use LayerName::{
            Capabilities, Descriptors, Environment, IpcNamespace, Landlock, MountNamespace,
            NetworkNamespace, NoNewPrivileges, PidNamespace, Process, Root, Seccomp, UserNamespace,
            UtsNamespace,
        };
        vec![
            self.held(
                &["signal", "trace", "fork"],
                &[PidNamespace, UserNamespace, IpcNamespace, UtsNamespace, Process],
            ),
            self.held(&["file"], &[Root, MountNamespace]),
            self.held(&[], &[Landlock]),
            self.held(&["connect"], &[NetworkNamespace]),
            self.held(&["namespace", "trace"], &[Seccomp]),
            self.held(&["user", "host name"], &[Capabilities, NoNewPrivileges]),
            self.held(&["variable", "descriptor"], &[Descriptors, Environment]),
        ]
    }

    /// Kept if every attempt was refused and every layer is enforced.
    fn held(&self, attempts: &[&str], layers: &[LayerName]) -> Result<String, Lost> {
        let mut seen = Vec::new();
        for wanted in attempts {
            match self.refused.iter().find(|row| row.0 == *wanted) {
                Some((name, Some(error))) => seen.push(format!("{name}: {error}")),
                Some((name, None)) => {
                    let why = format!("{name} worked in a cell");
                    return Err(Lost { why, remedy: remedy(layers.first().copied()) });
                }
                None => {
                    return Err(Lost {
                        why: format!("{wanted} was not tried"),
                        remedy: String::new(),
                    });
                }
            }
        }
        for name in layers {
            let layer = self.confinement.report.get(*name);
            match layer {
                Some(layer) if layer.status == Status::Enforced => {
                    if attempts.is_empty() {
                        seen.push(layer.detail.clone());
                    }
                }
                Some(layer) => {
                    let why = format!("{name} is {}: {}", layer.status, layer.detail);
                    return Err(Lost { why, remedy: remedy(Some(*name)) });
                }
                None => {
                    let why = format!("{name} is not reported");
                    return Err(Lost { why, remedy: remedy(Some(*name)) });
                }
            }
        }
        Ok(seen.join(", "))
    }
}

fn remedy(layer: Option<LayerName>) -> String {
    layer.and_then(LayerName::remedy).unwrap_or_default().to_owned()
}

fn spawn(supervisor: &Supervisor, backend: Backend, limits: Limits) -> Result<Cell, String> {
    let name = CellName::new("doctor").map_err(|error| error.to_string())?;
    let imports = Imports::new(["ctypes", "errno"]).map_err(|error| error.to_string())?;
    let options = CellOptions { backend, limits, imports, ..CellOptions::new(name) };
    supervisor.spawn(options, None).map_err(|error| error.to_string())
}

/// Sends a message, runs source text, and takes what it posts.
fn ask(cell: &Cell, source: &str, message: Option<&Value>) -> Result<Value, CellError> {
    if let Some(message) = message {
        let pickle = message.to_pickle();
        cell.post(Outbound { pickle: &pickle, buffers: &[] }, &Patience::default())?;
    }
    let exec = cell.exec(source)?;
    exec.wait(Some(PATIENCE))?;
    loop {
        if let Event::Message(delivery) = cell.recv(Some(PATIENCE))? {
            // The trial's own script posts a few words.
            return Ok(delivery.message.to_value(&Caps::default()).unwrap_or(Value::None));
        }
    }
}

/// Trips the limits on memory and on wall time.
fn limits(supervisor: &Supervisor) -> Result<String, Lost> {
    let trials = [
        (LimitName::Memory, "data = []\nwhile True: data.append(bytearray(1 << 20))"),
        (LimitName::WallTime, "while True: pass"),
    ];
    for (expected, source) in trials {
        let limits = Limits { mem_bytes: 64 << 20, wall_time_ms: 2000, ..Limits::default() };
        let lost = |why: String| Lost { why, remedy: String::new() };
        let cell = spawn(supervisor, Backend::Process, limits).map_err(lost)?;
        let ended = cell.exec(source).and_then(|exec| exec.wait(Some(PATIENCE)));
        let death = cell.death();
        cell.kill();
        match (ended, death) {
            (Err(_), Some(Death::Limit { limit, .. })) if limit == expected => {}
            (ended, death) => {
                let what = death.map_or_else(|| format!("{ended:?}"), |it| it.to_string());
                return Err(lost(format!("a cell over {expected} did not end by it: {what}")));
            }
        }
    }
    Ok("a cell over mem_bytes and one over wall_time_ms ended by it".to_owned())
}

fn backends(supervisor: &Supervisor) -> Vec<(&'static str, Result<String, String>)> {
    [Backend::Process, Backend::Subinterpreter]
        .map(|backend| (backend.as_str(), answers(supervisor, backend)))
        .into()
}

/// Has a cell answer.
fn answers(supervisor: &Supervisor, backend: Backend) -> Result<String, String> {
    let cell = spawn(supervisor, backend, Limits::default())?;
    let answer = ask(&cell, "post(6 * 7)", None);
    cell.close(Duration::from_secs(1));
    match answer {
        Ok(Value::Int(42)) => Ok("works".to_owned()),
        Ok(_) => Err("its cell answered nonsense".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
