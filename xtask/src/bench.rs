//! `cargo xtask bench`: measures, and prints what it measured.

use std::ffi::OsString;

use crate::error::XtaskError;
use crate::process;
use crate::setup::{self, Profile};

pub(crate) const HELP: &str = "\
Builds optimised, then measures cells beside multiprocessing and ProcessPoolExecutor.

Usage: cargo xtask bench [OPTIONS OF benches/bench.py]

Everything after `--` goes to benches/bench.py as it is; `cargo xtask bench -- --help` lists it.";

pub(crate) fn run(arguments: &[OsString]) -> Result<(), XtaskError> {
    let venv = setup::ready(Profile::Release)?;
    let passed_on = arguments.iter().filter(|argument| *argument != "--");
    process::run("the benchmark", venv.python().arg("benches/bench.py").args(passed_on))
}
