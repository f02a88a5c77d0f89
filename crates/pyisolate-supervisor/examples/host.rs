//! A Rust program that runs Python it does not trust, and links no CPython itself.
//!
//! `cargo xtask setup` once, for an interpreter with the guest runtime in it; then
//! `cargo run --example host`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "prints what the cell answers")]

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use pyisolate_supervisor::abi::pickle::Caps;
use pyisolate_supervisor::{
    Cell, CellError, CellName, CellOptions, Delivery, Environment, Event, Imports, Limits,
    Outbound, Patience, Supervisor, SupervisorOptions, Value,
};

/// Guest code. `recv`, `post`, `log` and `metric` are there without an import.
const SOURCE: &str = r#"
import statistics

def describe(numbers):
    return {"mean": statistics.fmean(numbers), "largest": max(numbers)}

order = recv()
print("packing order", order["id"])
metric("items", len(order["items"]))
post([item.upper() for item in order["items"]])
"#;

/// How long to wait for the cell before giving up.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(10));

fn main() -> ExitCode {
    // $PYISOLATE_PYTHON, .venv in this folder, or a python on PATH that has pyisolate.
    let environment = match Environment::discover() {
        Ok(environment) => environment,
        Err(error) => {
            eprintln!("host: {error}");
            eprintln!("host: in a checkout of pyisolate, run `cargo xtask setup` first");
            return ExitCode::FAILURE;
        }
    };
    match run(environment) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("host: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(environment: Environment) -> Result<(), Box<dyn Error>> {
    let supervisor = Supervisor::new(SupervisorOptions::new(environment))?;
    let cell = supervisor.spawn(
        CellOptions {
            imports: Imports::new(["statistics"])?,
            limits: Limits { wall_time_ms: 500, ..Limits::default() },
            ..CellOptions::new(CellName::new("example")?)
        },
        None,
    )?;
    println!("{} lives, confined by:", cell.name());
    for layer in cell.confinement().report.layers {
        println!("  {} ({}): {}", layer.name, layer.status, layer.detail);
    }

    // post and exec: the guest takes the message and sends its own.
    let order = Value::Dict(vec![
        (text("id"), Value::Int(7)),
        (text("items"), Value::List(vec![text("nut"), text("bolt")])),
    ]);
    let order = order.to_pickle();
    cell.post(Outbound { pickle: &order, buffers: &[] }, &Patience::default())?;
    cell.exec(SOURCE)?.wait(PATIENCE)?;

    // recv: what it sent, in order.
    for _ in 0..3 {
        match cell.recv(PATIENCE)? {
            Event::Log { level, message, .. } => println!("{level}: {message}"),
            Event::Metric { name, sample } => println!("{name}: {:?}", plain(&sample)?),
            Event::Message(message) => println!("posted: {:?}", plain(&message)?),
        }
    }

    // call: a function that the source defined, with plain values both ways.
    let numbers = Value::List([1.0, 2.5, 4.0].map(Value::Float).into());
    let described = cell.call_values("__main__.describe", vec![numbers], PATIENCE)?;
    println!("described: {:?}", plain(&described)?);

    refused(&cell)?;
    cell.close(Duration::from_secs(1));
    println!("the end: {}", cell.death().map_or_else(String::new, |death| death.to_string()));
    Ok(())
}

/// An error of the guest's is a value, and the cell goes on; a limit ends the cell.
fn refused(cell: &Cell) -> Result<(), CellError> {
    match cell.exec("import socket")?.wait(PATIENCE) {
        Err(CellError::Guest(failure)) => println!("refused: {failure}"),
        other => other?,
    }
    match cell.exec("while True: pass")?.wait(PATIENCE) {
        Err(error @ CellError::Dead(_)) => println!("stopped: {error}"),
        other => other?,
    }
    Ok(())
}

/// A message as a tree of plain data.
fn plain(message: &Delivery) -> Result<Value, Box<dyn Error>> {
    Ok(message.message.to_value(&Caps::default())?)
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}
