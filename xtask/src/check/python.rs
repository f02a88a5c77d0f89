//! The Python side: formatting, lints, types, stubs, and the README's examples.

use crate::error::XtaskError;
use crate::process;
use crate::setup::{self, Profile, Venv};
use crate::workspace;

/// Where our Python is.
const FOLDERS: [&str; 4] = ["python", "tests", "examples", "benches"];

pub(super) fn ruff() -> Result<(), XtaskError> {
    let venv = Venv::with_tools()?;
    let folders = workspace::existing(&FOLDERS);
    let format = ["-m", "ruff", "format", "--check", "--quiet"];
    let formatted = process::run("ruff format --check", venv.python().args(format).args(&folders));
    let lint = ["-m", "ruff", "check", "--quiet"];
    process::run("ruff check", venv.python().args(lint).args(&folders))?;
    formatted
}

/// mypy reads the package as its users' type checkers will; stubtest compares the stubs with the
/// extension as it was built.
pub(super) fn types() -> Result<(), XtaskError> {
    let venv = setup::ready(Profile::Release)?;
    process::run("mypy", venv.python().args(["-m", "mypy"]))?;
    let stubtest = ["-m", "mypy.stubtest", "--mypy-config-file", "pyproject.toml"];
    process::run("stubtest", venv.python().args(stubtest).arg("pyisolate._core"))
}

pub(super) fn readme() -> Result<(), XtaskError> {
    let venv = setup::ready(Profile::Release)?;
    process::run(
        "README examples",
        venv.python().args(["-m", "pytest", "-q", "tests/test_readme.py"]),
    )
}
