//! The `pyisolate` command for machines where it is no part of a Python package.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A word that is no UTF-8 can only be a path, and is then reported as one that is not there.
    let arguments = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    ExitCode::from(pyisolate_cli::run(arguments, None, None))
}
