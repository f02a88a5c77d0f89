//! cargo-fuzz: every parser of guest bytes, each for a bounded time.

use std::process::Command;

use crate::error::XtaskError;
use crate::process;
use crate::workspace;

const INSTALL: &str = "cargo install --locked cargo-fuzz@0.13.2";

/// Listing may compile nothing, but asks cargo for metadata, which may have to fetch an index.
const LIST_LIMIT: std::time::Duration = std::time::Duration::from_secs(120);

/// Runs all targets and names every one that found something.
pub(super) fn run(seconds: u64) -> Result<(), XtaskError> {
    let toolchain = Toolchain::find();
    let mut list = toolchain.fuzz(&["list"]);
    let listed = process::output_within("cargo fuzz list", &mut list, LIST_LIMIT)?;
    if listed.stderr.contains("no such command") {
        return Err(XtaskError::MissingTool { tool: "cargo-fuzz", install: INSTALL });
    }
    if !listed.status.success() {
        eprint!("{}", listed.stderr);
        process::succeed("cargo fuzz list", listed.status)?;
    }
    let mut violations = Vec::new();
    for target in listed.stdout.lines().map(str::trim).filter(|line| !line.is_empty()) {
        eprintln!("check: fuzz: {target} for {seconds} s");
        let mut command = toolchain.fuzz(&["run", target, "--"]);
        command
            .arg(format!("-max_total_time={seconds}"))
            .args(["-verbosity=0", "-print_final_stats=1"]);
        if let Err(error) = process::run(target, &mut command) {
            violations.push(error.to_string());
        }
    }
    if violations.is_empty() { Ok(()) } else { Err(XtaskError::Rules { violations }) }
}

/// libFuzzer needs compiler flags that only nightly accepts, or a stable one told to.
enum Toolchain {
    Nightly,
    StableWithUnstableFlags,
}

impl Toolchain {
    fn find() -> Self {
        let mut nightly = process::command("rustup");
        nightly.args(["run", "nightly", "cargo", "--version"]);
        let found = process::output_within("rustup", &mut nightly, crate::probe::LIMIT);
        match found {
            Ok(finished) if finished.status.success() => Self::Nightly,
            _ => Self::StableWithUnstableFlags,
        }
    }

    fn fuzz(&self, arguments: &[&str]) -> Command {
        let mut command = match self {
            Self::Nightly => {
                let mut rustup = process::command("rustup");
                rustup.args(["run", "nightly", "cargo"]).env_remove("CARGO");
                rustup
            }
            Self::StableWithUnstableFlags => {
                let mut cargo = process::cargo();
                cargo.env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
        };
        command.arg("fuzz").args(arguments);
        // cargo-fuzz finds its folder from the manifest of the folder it is started in.
        command.current_dir(workspace::root().join("fuzz"));
        command
    }
}
