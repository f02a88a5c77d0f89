//! Which crate of ours may depend on which, compared with what the manifests say.
//!
//! Crate lines are drawn by who may link what, so an edge is an architectural decision: to add
//! one, change the table here and the picture in ARCHITECTURE.md in the same commit.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::error::XtaskError;
use crate::process;

/// What the names of all crates of ours begin with; the table leaves it out.
const PREFIX: &str = "pyisolate-";

/// Every crate of ours with the crates of ours it may depend on, tests included.
const ALLOWED: &[(&str, &[&str])] = &[
    ("abi", &[]),
    ("policy", &[]),
    ("channel", &["abi"]),
    ("jail", &["policy"]),
    ("broker", &["abi", "policy"]),
    ("guest", &["abi", "channel", "jail"]),
    ("microvm", &["abi", "channel", "jail", "policy"]),
    ("supervisor", &["abi", "policy", "channel", "jail", "broker", "microvm"]),
    ("cli", &["supervisor"]),
    // The interpreters that it makes run the guest runtime.
    ("subinterpreter", &["channel", "jail", "guest"]),
    // One shared object carries the host module, the command and the guest runtime, and hands the
    // supervisor what makes sub-interpreters.
    ("python", &["abi", "supervisor", "subinterpreter", "guest", "cli"]),
];

/// The only crates of ours that may link CPython, so that a Rust host can own cells without it.
const LINK_CPYTHON: &[&str] = &["guest", "subinterpreter", "python"];

/// Crates that bind CPython.
const BINDINGS: &[&str] = &["pyo3", "pyo3-ffi", "numpy"];

pub(super) fn check() -> Result<(), XtaskError> {
    let mut command = process::cargo();
    command
        .args(["metadata", "--no-deps", "--format-version=1"])
        .stderr(std::process::Stdio::inherit());
    let limit = std::time::Duration::from_secs(120);
    let finished = process::output_within("cargo metadata", &mut command, limit)?;
    eprint!("{}", finished.stderr);
    process::succeed("cargo metadata", finished.status)?;
    let metadata = serde_json::from_str(&finished.stdout).map_err(XtaskError::Metadata)?;
    let violations = violations(&metadata);
    if violations.is_empty() { Ok(()) } else { Err(XtaskError::Rules { violations }) }
}

fn violations(metadata: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut present = BTreeSet::new();
    for package in items(metadata, "packages") {
        let name = text(package, "name");
        let short = name.strip_prefix(PREFIX);
        let allowed = match short {
            Some(short) => {
                present.insert(short);
                let Some((_, allowed)) = ALLOWED.iter().find(|(row, _)| *row == short) else {
                    found.push(format!("{name} has no row in the table of crate edges"));
                    continue;
                };
                *allowed
            }
            // xtask: everyone compiles it first, and it must work while the rest is broken.
            None => &[],
        };
        for dependency in items(package, "dependencies") {
            let target = text(dependency, "name");
            let kind = match text(dependency, "kind") {
                "" => "dependency",
                "dev" => "dev-dependency",
                _ => "build-dependency",
            };
            if target.strip_prefix(PREFIX).is_some_and(|target| !allowed.contains(&target)) {
                found.push(format!("{name} may not depend on {target} ({kind})"));
            }
            let links = short.is_some_and(|short| LINK_CPYTHON.contains(&short));
            if BINDINGS.contains(&target) && !links {
                found.push(format!("{name} may not link CPython, but has {target} as {kind}"));
            }
        }
    }
    for (row, _) in ALLOWED.iter().filter(|(row, _)| !present.contains(row)) {
        found.push(format!("the table of crate edges has a row for {PREFIX}{row}, which is gone"));
    }
    found
}

fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// All rows present, with `name` depending on `target`.
    fn metadata(name: &str, target: &str, kind: Option<&str>) -> Value {
        let mut packages: Vec<Value> = ALLOWED
            .iter()
            .map(|(row, _)| json!({"name": format!("{PREFIX}{row}"), "dependencies": []}))
            .collect();
        packages.push(json!({"name": name, "dependencies": [{"name": target, "kind": kind}]}));
        json!({ "packages": packages })
    }

    #[test]
    fn the_table_points_downwards_only() {
        for (index, (row, targets)) in ALLOWED.iter().enumerate() {
            let below: Vec<&str> = ALLOWED[..index].iter().map(|(row, _)| *row).collect();
            assert!(targets.iter().all(|target| below.contains(target)), "{row}");
        }
    }

    #[test]
    fn only_edges_of_the_table_pass() {
        let passes = |name, target, kind| violations(&metadata(name, target, kind)).is_empty();
        assert!(passes("pyisolate-channel", "pyisolate-abi", None));
        assert!(passes("pyisolate-supervisor", "serde", None));
        assert!(!passes("pyisolate-abi", "pyisolate-channel", None));
        assert!(!passes("pyisolate-supervisor", "pyisolate-guest", Some("dev")));
        assert!(!passes("xtask", "pyisolate-abi", Some("build")));
    }

    #[test]
    fn cpython_is_linked_by_named_crates_alone() {
        let passes = |name, target| violations(&metadata(name, target, None)).is_empty();
        assert!(passes("pyisolate-guest", "pyo3-ffi"));
        assert!(!passes("pyisolate-supervisor", "pyo3"));
    }

    #[test]
    fn rows_and_crates_match_both_ways() {
        let unknown = violations(&metadata("pyisolate-novel", "serde", None));
        assert!(unknown[0].contains("no row"), "{unknown:?}");
        let gone = violations(&json!({"packages": []}));
        assert_eq!(gone.len(), ALLOWED.len());
    }
}
