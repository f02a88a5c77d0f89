//! The chores of this repository, as one plain Rust program: `cargo xtask --help`.
//!
//! It exists so that a fresh clone needs nothing set up by hand beyond Rust, a C compiler and
//! CPython 3.13. It refuses to install system packages or interpreters: it says which to install.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program: results go to stdout, progress and errors to stderr"
)]

mod bench;
mod check;
mod counts;
mod demo;
mod error;
mod interpreter;
mod machines;
mod probe;
mod process;
mod setup;
mod soak;
mod test;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use error::XtaskError;

/// What a command does with the words after its name.
type Chore = fn(&[OsString]) -> Result<(), XtaskError>;

const HELP: &str = "\
The chores of this repository.

Usage: cargo xtask <COMMAND> [OPTIONS]

Commands:
  demo    Set up, then watch untrusted Python work behind a real wall
  test    Set up, then run every test: Rust, documentation, Python
  check   Formatting, lints, crate edges, licences, types, README examples
  bench   Set up, then measure and print beside the standard library's ways
  soak    Set up, then minutes of cells and faults: nothing may be lost or left behind
  setup   Find CPython, make .venv, build the extension and install it there

`cargo xtask <COMMAND> --help` tells more about one of them.";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next();
    let rest: Vec<OsString> = arguments.collect();
    match dispatch(command.as_deref().and_then(|word| word.to_str()), &rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code()
        }
    }
}

fn dispatch(command: Option<&str>, arguments: &[OsString]) -> Result<(), XtaskError> {
    let (help, run): (&str, Chore) = match command {
        Some("demo") => (demo::HELP, demo::run),
        Some("test") => (test::HELP, test::run),
        Some("check") => (check::HELP, check::run),
        Some("bench") => (bench::HELP, bench::run),
        Some("soak") => (soak::HELP, soak::run),
        Some("setup") => (setup::HELP, setup::run),
        None | Some("help" | "-h" | "--help") => {
            println!("{HELP}");
            return Ok(());
        }
        Some(other) => {
            return Err(XtaskError::usage(format!("there is no command `{other}`"), HELP));
        }
    };
    if asks_for_help(arguments) {
        println!("{help}");
        return Ok(());
    }
    run(arguments)
}

/// Whether `-h` or `--help` stands before any `--`; after it, it belongs to the program started.
fn asks_for_help(arguments: &[OsString]) -> bool {
    arguments
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| argument == "-h" || argument == "--help")
}
