//! `cargo xtask demo`: untrusted Python at work behind a real wall.

use std::ffi::OsString;

use crate::error::XtaskError;
use crate::machines;
use crate::process;
use crate::setup::{self, Profile};

pub(crate) const HELP: &str = "\
Analyses a real table inside a cell, then shows three hostile scripts being refused.

Usage: cargo xtask demo [--backend BACKEND] [OPTIONS OF examples/demo.py]

Options:
  --backend BACKEND   Where the wall stands: process (the default), subinterpreter, microvm
  --accel ACCEL       For microvm: kvm (the default), or tcg, which emulates the processor

The image that microvm cells start from is built into target/microvm.

Everything after `--` goes to examples/demo.py as it is; `cargo xtask demo -- --help` lists it.";

pub(crate) fn run(arguments: &[OsString]) -> Result<(), XtaskError> {
    let venv = setup::ready(Profile::Release)?;
    let mut demo = venv.python();
    demo.arg("examples/demo.py").args(arguments.iter().filter(|argument| *argument != "--"));
    if arguments.iter().any(|argument| argument.to_string_lossy().contains("microvm")) {
        machines::equip(&venv, &mut demo)?;
    }
    process::run("the demo", &mut demo)
}
