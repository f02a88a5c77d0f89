//! `cargo xtask demo`: untrusted Python at work behind a real wall.

use std::ffi::OsString;

use crate::error::XtaskError;
use crate::process;
use crate::setup::{self, Profile};

pub(crate) const HELP: &str = "\
Analyses a real table inside a cell, then shows three hostile scripts being refused.

Usage: cargo xtask demo [--backend BACKEND] [OPTIONS OF examples/demo.py]

Options:
  --backend BACKEND   Where the wall stands (default: process)

Everything after `--` goes to examples/demo.py as it is; `cargo xtask demo -- --help` lists it.";

pub(crate) fn run(arguments: &[OsString]) -> Result<(), XtaskError> {
    let venv = setup::ready(Profile::Release)?;
    let passed_on = arguments.iter().filter(|argument| *argument != "--");
    process::run("the demo", venv.python().arg("examples/demo.py").args(passed_on))
}
