//! cargo-deny: the licences, bans and sources of what we depend on, and known advisories.

use std::process::Command;
use std::time::Duration;

use crate::error::XtaskError;
use crate::process;

/// The version that `deny.toml` was written for.
const INSTALL: &str = "cargo install --locked cargo-deny@0.20.2";

/// The advisory database is a small clone; without a network the attempt may only time out.
const FETCH_LIMIT: Duration = Duration::from_secs(60);

pub(super) fn check() -> Result<(), XtaskError> {
    let mut version = deny(&["--version"]);
    let probe = process::output_within("cargo deny", &mut version, crate::probe::LIMIT)?;
    if !probe.status.success() {
        return Err(XtaskError::MissingTool { tool: "cargo-deny", install: INSTALL });
    }
    let mut local = deny(&["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
    process::run("cargo deny check", &mut local)?;
    advisories()
}

/// Advisories need a database from the network. Where it cannot be had, that is said openly, and
/// it is a failure if `PYISOLATE_REQUIRE` lists `advisories`.
fn advisories() -> Result<(), XtaskError> {
    let mut fetch = deny(&["fetch", "db"]);
    let fetched = process::output_within("fetching advisories", &mut fetch, FETCH_LIMIT)
        .and_then(|finished| process::succeed("fetching advisories", finished.status));
    match fetched {
        Ok(()) => {
            let mut check = deny(&["check", "--disable-fetch", "advisories"]);
            process::run("cargo deny check advisories", &mut check)
        }
        Err(error) if is_required("advisories") => Err(error),
        Err(error) => {
            eprintln!("check: deny: advisories were NOT checked: {error}");
            Ok(())
        }
    }
}

fn deny(arguments: &[&str]) -> Command {
    let mut command = process::cargo();
    command.arg("deny").args(arguments);
    command
}

fn is_required(feature: &str) -> bool {
    let required = std::env::var("PYISOLATE_REQUIRE").unwrap_or_default();
    required.split(',').any(|name| name.trim() == feature)
}
