//! The `pyisolate` command: flags and glue, nothing reusable.
//!
//! It is a library so that two programs can be it: the Python package's entry point, which passes
//! a description of the interpreter that it runs in, and the binary of this crate, which looks for
//! an interpreter by itself.
//!
//! It refuses to trust what a cell sends: text is cut at a length, and on a terminal control
//! characters are shown rather than sent. It prints nothing but what a script sent and what became
//! of it, or the answer that was asked for.
#![forbid(unsafe_code)]

mod answer;
mod doctor;
mod flags;
mod human;
mod image;
mod job;
mod journal;
mod json;
mod json_lines;
mod limits;
mod numbers;
mod numpy;
mod policy;
mod policy_ask;
mod policy_run;
mod policy_text;
mod report;
mod run;
mod secret;
mod show;
mod source;
mod status;
mod suite;
mod text;

use std::sync::Arc;

use clap::Parser;
use pyisolate_supervisor::{Environment, Interpreters};

use crate::flags::{Command, Flags};

/// Makes what makes sub-interpreter cells, in a program that has an interpreter.
pub type MakeInterpreters = fn(&Environment) -> Arc<dyn Interpreters>;

/// Runs the command; returns its exit status.
///
/// `arguments` begin with the program's name. `environment` is what
/// [`DESCRIBE`](pyisolate_supervisor::DESCRIBE) printed in the interpreter that cells are to run
/// on; without it one is looked for. Without `interpreters` there are no sub-interpreter cells.
#[must_use]
pub fn run(
    arguments: Vec<String>,
    environment: Option<&str>,
    interpreters: Option<MakeInterpreters>,
) -> u8 {
    let flags = match Flags::try_parse_from(arguments) {
        Ok(flags) => flags,
        Err(error) => {
            // Where nobody reads the help there is nobody to tell.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(status::Status::Usage.code());
        }
    };
    match flags.command {
        Command::Run(flags) => run::run(&flags, environment, interpreters).code(),
        Command::Policy(flags) => policy::run(&flags),
        Command::Journal(flags) => journal::run(&flags),
        Command::Image(flags) => image::run(&flags, environment),
        Command::Doctor(flags) => doctor::run(&flags, environment, interpreters),
        Command::Conformance(flags) => suite::refuse("conformance", &flags).code(),
        Command::Attack(flags) => suite::refuse("attack", &flags).code(),
    }
}
