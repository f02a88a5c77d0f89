//! `cargo xtask test`: every test there is, and one line at the end that says how it went.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::{Command, ExitStatus};

use crate::counts::Counts;
use crate::error::XtaskError;
use crate::machines;
use crate::process::{self, Stream};
use crate::setup::{self, Profile, Venv};

pub(crate) const HELP: &str = "\
Sets up, then runs the Rust tests, the documentation's examples and the Python tests.
The last line counts them all; any failure makes the exit status non-zero.

Usage: cargo xtask test [--fast] [--debug] [--only PART] [PYTEST ARGUMENTS]

Options:
  --fast        Leave out the documentation's examples and the tests marked `slow`
  --debug       Test the extension built with debug assertions and overflow checks
  --only PART   Run one part: `rust` or `python`

Everything else goes to pytest: cargo xtask test --only python -k recv

Cells in virtual machines are tested with an image that is built into target/microvm, where QEMU is
installed and a kernel can be fetched; by emulation, unless the environment says otherwise.

Environment:
  PYISOLATE_REQUIRE         Features, comma-separated (landlock,seccomp,userns,qemu,…), whose
                            absence is a failure instead of a skip
  PYISOLATE_MICROVM_ACCEL   kvm or tcg
  PYISOLATE_CACHE           A folder with an image of yours: then none is built";

/// Crates whose test programs would have to link libpython. They have no tests of their own: what
/// they do is tested from Python, inside a real interpreter.
const LINK_PYTHON: [&str; 2] = ["pyisolate-guest", "pyisolate-python"];

/// What runs virtual machines. Emulation works on every host, and by name alone.
const ACCELERATOR: &str = "PYISOLATE_MICROVM_ACCEL";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Rust,
    Python,
}

#[derive(Debug)]
struct Options {
    fast: bool,
    profile: Profile,
    only: Option<Part>,
    pytest: Vec<OsString>,
}

/// How a whole run went.
#[derive(Debug, Default)]
struct Tally {
    counts: Counts,
    failed: Vec<&'static str>,
}

pub(crate) fn run(arguments: &[OsString]) -> Result<(), XtaskError> {
    let options = parse(arguments)?;
    let venv = setup::ready(options.profile)?;
    let mut tally = Tally::default();
    if options.only != Some(Part::Python) {
        rust(&venv, options.fast, &mut tally)?;
    }
    if options.only != Some(Part::Rust) {
        let mut pytest = pytest(&venv, &options);
        machines::equip(&venv, &mut pytest)?;
        if machines::is_unset(ACCELERATOR) {
            pytest.env(ACCELERATOR, "tcg");
        }
        tally.run("pytest", &mut pytest, Stream::Stdout)?;
    }
    tally.close()
}

fn parse(arguments: &[OsString]) -> Result<Options, XtaskError> {
    let mut options =
        Options { fast: false, profile: Profile::Release, only: None, pytest: Vec::new() };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--fast") => options.fast = true,
            Some("--debug") => options.profile = Profile::Debug,
            Some("--only") => {
                options.only = match arguments.next().and_then(|part| part.to_str()) {
                    Some("rust") => Some(Part::Rust),
                    Some("python") => Some(Part::Python),
                    _ => return Err(XtaskError::usage("--only takes rust or python", HELP)),
                };
            }
            Some("--") => options.pytest.extend(arguments.by_ref().cloned()),
            _ => options.pytest.push(argument.clone()),
        }
    }
    Ok(options)
}

fn rust(venv: &Venv, fast: bool, tally: &mut Tally) -> Result<(), XtaskError> {
    if has_nextest() {
        let mut nextest = venv.activate(process::cargo());
        nextest.args(["nextest", "run", "--no-fail-fast"]);
        select_crates(&mut nextest);
        if std::io::stderr().is_terminal() {
            nextest.args(["--color", "always"]);
        }
        tally.run("cargo nextest run", &mut nextest, Stream::Stderr)?;
    } else {
        eprintln!("test: cargo-nextest is not installed, so cargo test runs the Rust tests");
        let mut test = venv.activate(process::cargo());
        test.args(["test", "--no-fail-fast", "--lib", "--bins", "--tests"]);
        select_crates(&mut test);
        tally.run("cargo test", &mut test, Stream::Stdout)?;
    }
    if fast {
        return Ok(());
    }
    let mut examples = venv.activate(process::cargo());
    examples.args(["test", "--no-fail-fast", "--doc", "--exclude", "xtask"]);
    select_crates(&mut examples);
    tally.run("cargo test --doc", &mut examples, Stream::Stdout)
}

fn select_crates(cargo: &mut Command) {
    cargo.arg("--workspace");
    for name in LINK_PYTHON {
        cargo.args(["--exclude", name]);
    }
}

fn has_nextest() -> bool {
    let mut version = process::cargo();
    version.args(["nextest", "--version"]);
    process::output_within("cargo nextest", &mut version, crate::probe::LIMIT)
        .is_ok_and(|finished| finished.status.success())
}

fn pytest(venv: &Venv, options: &Options) -> Command {
    let mut pytest = venv.python();
    pytest.args(["-m", "pytest"]);
    if std::io::stdout().is_terminal() {
        pytest.arg("--color=yes");
    }
    if options.fast {
        pytest.args(["-m", "not slow"]);
    }
    // Without a path among them, pyproject.toml's `testpaths` says where the tests are.
    pytest.args(&options.pytest);
    pytest
}

impl Tally {
    /// Runs one runner and goes on whatever came of it: a reader wants all the failures at once.
    fn run(
        &mut self,
        step: &'static str,
        command: &mut Command,
        stream: Stream,
    ) -> Result<(), XtaskError> {
        eprintln!("test: {step}");
        let (counts, status) = process::run_counted(step, command, stream)?;
        self.add(step, counts, status);
        Ok(())
    }

    fn add(&mut self, step: &'static str, mut counts: Counts, status: ExitStatus) {
        if !status.success() {
            self.failed.push(step);
            // A runner that died or did not compile has no failed test to show for it.
            counts.failed = counts.failed.max(1);
        }
        self.counts += counts;
    }

    fn close(self) -> Result<(), XtaskError> {
        let verdict = if !self.failed.is_empty() || self.counts.failed > 0 {
            Err(XtaskError::Steps { steps: self.failed })
        } else if self.counts.ran() == 0 {
            Err(XtaskError::NothingRan)
        } else {
            Ok(())
        };
        println!("summary: {}", self.counts);
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(Into::into).collect()
    }

    #[test]
    fn unknown_arguments_are_pytests() {
        let options =
            parse(&words("--fast -k recv --only python tests/x.py -- --debug")).expect("ok");
        assert!(options.fast && options.only == Some(Part::Python));
        assert_eq!(options.profile, Profile::Release);
        assert_eq!(options.pytest, words("-k recv tests/x.py --debug"));
        assert!(parse(&words("--only docs")).is_err());
    }

    #[test]
    fn a_runner_that_dies_counts_as_a_failure() {
        let mut tally = Tally::default();
        tally.add("pytest", Counts { passed: 3, ..Counts::default() }, ExitStatus::from_raw(9));
        assert_eq!(tally.counts.failed, 1);
        assert!(tally.close().is_err());
    }

    #[test]
    fn nothing_run_is_no_success() {
        let mut tally = Tally::default();
        tally.add("pytest", Counts::default(), ExitStatus::from_raw(0));
        assert!(matches!(tally.close(), Err(XtaskError::NothingRan)));
    }
}
