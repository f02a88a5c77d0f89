//! `cargo xtask check`: everything that can be judged without running the product at length.

mod deny;
mod edges;
mod fuzz;
mod python;
mod tidy;

use std::ffi::OsString;

use crate::error::XtaskError;
use crate::process;
use crate::setup::Venv;

pub(crate) const HELP: &str = "\
Checks everything that needs no long run; goes on past failures and names them at the end.

Usage: cargo xtask check [STEP]… [--fuzz [SECONDS]]

Steps (all but fuzz by default):
  fmt      rustfmt
  edges    no crate depends on another of ours against the table
  tidy     house rules: file size, headers, manifests, unfinished work
  ruff     Python formatting and lints
  deny     licences, bans and sources of dependencies; advisories where they can be fetched
  clippy   Rust lints, warnings as errors
  types    mypy, and mypy's stubtest against the built extension
  readme   the README's examples
  fuzz     each parser of guest bytes, for SECONDS each (default 30)";

/// Long enough to reach past the headers of each parser, short enough for a handful of targets.
const FUZZ_SECONDS: u64 = 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Fmt,
    Edges,
    Tidy,
    Ruff,
    Deny,
    Clippy,
    Types,
    Readme,
    Fuzz,
}

/// The cheap ones first, so that the usual slip shows in seconds.
const STEPS: [(&str, Step); 9] = [
    ("fmt", Step::Fmt),
    ("edges", Step::Edges),
    ("tidy", Step::Tidy),
    ("ruff", Step::Ruff),
    ("deny", Step::Deny),
    ("clippy", Step::Clippy),
    ("types", Step::Types),
    ("readme", Step::Readme),
    ("fuzz", Step::Fuzz),
];

#[derive(Debug, PartialEq, Eq)]
struct Options {
    steps: Vec<(&'static str, Step)>,
    fuzz_seconds: u64,
}

pub(crate) fn run(arguments: &[OsString]) -> Result<(), XtaskError> {
    let options = parse(arguments)?;
    let mut failed = Vec::new();
    for (name, step) in &options.steps {
        eprintln!("check: {name}");
        if let Err(error) = step.run(options.fuzz_seconds) {
            eprintln!("check: {name}: {error}");
            failed.push(*name);
        }
    }
    if !failed.is_empty() {
        return Err(XtaskError::Steps { steps: failed });
    }
    println!("check: {} passed", crate::error::plural(options.steps.len(), "step"));
    Ok(())
}

fn parse(arguments: &[OsString]) -> Result<Options, XtaskError> {
    let mut chosen = Vec::new();
    let mut fuzz = None;
    let mut arguments = arguments.iter().peekable();
    while let Some(argument) = arguments.next() {
        let word = argument.to_str().unwrap_or_default();
        if word == "--fuzz" {
            let seconds = arguments.peek().and_then(|next| next.to_str()?.parse().ok());
            if seconds.is_some() {
                arguments.next();
            }
            fuzz = Some(seconds.unwrap_or(FUZZ_SECONDS));
        } else if let Some(step) = STEPS.iter().find(|(name, _)| *name == word) {
            chosen.push(*step);
        } else {
            let complaint = format!("check knows no `{}`", argument.display());
            return Err(XtaskError::usage(complaint, HELP));
        }
    }
    if chosen.is_empty() {
        chosen.extend(STEPS.iter().filter(|(_, step)| *step != Step::Fuzz));
    }
    if fuzz.is_some() && !chosen.iter().any(|(_, step)| *step == Step::Fuzz) {
        chosen.push(("fuzz", Step::Fuzz));
    }
    Ok(Options { steps: chosen, fuzz_seconds: fuzz.unwrap_or(FUZZ_SECONDS) })
}

impl Step {
    fn run(self, fuzz_seconds: u64) -> Result<(), XtaskError> {
        match self {
            Self::Fmt => {
                process::run("cargo fmt", process::cargo().args(["fmt", "--all", "--check"]))
            }
            Self::Edges => edges::check(),
            Self::Tidy => tidy::check(),
            Self::Ruff => python::ruff(),
            Self::Deny => deny::check(),
            Self::Clippy => clippy(),
            Self::Types => python::types(),
            Self::Readme => python::readme(),
            Self::Fuzz => fuzz::run(fuzz_seconds),
        }
    }
}

fn clippy() -> Result<(), XtaskError> {
    let mut clippy = Venv::with_tools()?.activate(process::cargo());
    clippy.args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]);
    process::run("cargo clippy", &mut clippy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(line: &str) -> (Vec<&'static str>, u64) {
        let words: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
        let options = parse(&words).expect("it makes sense");
        (options.steps.iter().map(|(name, _)| *name).collect(), options.fuzz_seconds)
    }

    #[test]
    fn everything_but_fuzzing_by_default() {
        let (steps, _) = names("");
        assert_eq!(steps.len(), STEPS.len() - 1);
        assert!(!steps.contains(&"fuzz"));
    }

    #[test]
    fn fuzz_takes_seconds_or_none() {
        assert_eq!(names("--fuzz 5").1, 5);
        assert_eq!(names("--fuzz").1, FUZZ_SECONDS);
        assert_eq!(names("fuzz --fuzz 7"), (vec!["fuzz"], 7));
        assert_eq!(names("--fuzz tidy"), (vec!["tidy", "fuzz"], FUZZ_SECONDS));
    }
}
