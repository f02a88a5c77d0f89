//! `cargo xtask soak`: cells for minutes on end, with faults, and what was lost or left behind.

use std::ffi::OsString;

use crate::error::XtaskError;
use crate::process;
use crate::setup::{self, Profile};

pub(crate) const HELP: &str = "\
Builds optimised, then spawns, loads and kills cells, zygotes, launchers and hosts, and takes away
descriptors, memory and disk. Prints progress and a table. Fails if anything was lost or left behind.

Usage: cargo xtask soak [--minutes N] [--seed N]
       cargo xtask soak --bombs N

The options go to benches/soak.py as they are.";

pub(crate) fn run(arguments: &[OsString]) -> Result<(), XtaskError> {
    let venv = setup::ready(Profile::Release)?;
    let passed_on = arguments.iter().filter(|argument| *argument != "--");
    process::run("the soak", venv.python().arg("benches/soak.py").args(passed_on))
}
