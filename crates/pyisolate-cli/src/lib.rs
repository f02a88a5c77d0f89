//! The `pyisolate` command: flags and glue, nothing reusable.

/// Runs the command; returns its exit status.
#[must_use]
pub fn run(arguments: Vec<String>, environment: Option<&str>) -> u8 {
    let _ = (arguments, environment);
    0
}
