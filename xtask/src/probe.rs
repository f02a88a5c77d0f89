//! Asks one interpreter what it is, and says whether it fits.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::XtaskError;
use crate::process;

/// The oldest CPython whose stable ABI the extension is built for.
pub(crate) const OLDEST: (u32, u32) = (3, 13);

/// A healthy interpreter answers in well under a second; the rest is for cold disks and busy
/// machines. Past it, it counts as one that does not run, so that a broken shim cannot hang us.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// Printed as `key=value` lines. It must run on any Python since 2.6: old ones are to be told
/// apart from broken ones.
const SCRIPT: &str = r#"
import sys
def show(key, value):
    sys.stdout.write("%s=%s\n" % (key, value))
def has(*modules):
    try:
        for module in modules:
            __import__(module)
    except ImportError:
        return 0
    return 1
import sysconfig
show("version", "%d.%d.%d" % tuple(sys.version_info[:3]))
show("level", sys.version_info[3])
show("implementation", getattr(getattr(sys, "implementation", None), "name", "python2"))
show("no_gil", sysconfig.get_config_var("Py_GIL_DISABLED") or 0)
show("bits", 64 if sys.maxsize > 2**32 else 32)
show("venv", has("venv", "ensurepip"))
show("base_prefix", getattr(sys, "base_prefix", sys.prefix))
show("executable", getattr(sys, "_base_executable", None) or sys.executable)
"#;

/// An interpreter that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interpreter {
    /// The interpreter itself, even where a shim or a virtual environment's link was asked.
    pub(crate) path: PathBuf,
    /// `major.minor.patch`.
    pub(crate) version: String,
    /// Where its standard library lives; two links to one interpreter share it.
    pub(crate) base_prefix: PathBuf,
}

/// Runs `path` for a moment; `Err` says in a few words why it does not fit.
pub(crate) fn probe(path: &Path) -> Result<Interpreter, String> {
    // -E and -s keep the caller's PYTHON… variables and user packages out of the answer.
    let mut command = process::command(path);
    command.args(["-E", "-s", "-c", SCRIPT]);
    let finished = match process::output_within("it", &mut command, LIMIT) {
        Ok(finished) => finished,
        Err(XtaskError::Start { source, .. }) => return Err(format!("does not start: {source}")),
        Err(other) => return Err(other.to_string()),
    };
    if !finished.status.success() {
        let complaint = finished.stderr.lines().find(|line| !line.trim().is_empty());
        return Err(format!(
            "does not run ({}{}{})",
            finished.status,
            if complaint.is_some() { "; " } else { "" },
            complaint.unwrap_or_default().trim(),
        ));
    }
    judge(&finished.stdout)
}

/// Decides from what the script printed.
fn judge(answer: &str) -> Result<Interpreter, String> {
    let field = |key: &str| {
        answer
            .lines()
            .filter_map(|line| line.split_once('='))
            .find_map(|(name, value)| (name == key).then_some(value))
    };
    let text = |key: &str| field(key).unwrap_or_default().to_owned();
    let Some(version) = field("version") else {
        return Err("printed no version; it is no Python".to_owned());
    };
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < OLDEST {
        return Err(format!("is Python {version}"));
    }
    match text("implementation").as_str() {
        "cpython" => {}
        other => return Err(format!("is {other} {version}, not CPython")),
    }
    if text("level") != "final" {
        return Err(format!("is a pre-release of {version}"));
    }
    if text("no_gil") != "0" {
        return Err(format!("is the free-threaded build of {version}, which has no stable ABI"));
    }
    if text("bits") != "64" {
        return Err(format!("is a 32-bit build of {version}"));
    }
    if text("venv") != "1" {
        return Err(format!(
            "is {version} without the venv module (Debian, Ubuntu: apt install python{}.{}-venv)",
            found.0, found.1
        ));
    }
    Ok(Interpreter {
        path: text("executable").into(),
        version: version.to_owned(),
        base_prefix: text("base_prefix").into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "version=3.13.1\nlevel=final\nimplementation=cpython\nno_gil=0\nbits=64\n\
                        venv=1\nbase_prefix=/p\nexecutable=/p/bin/python3\n";

    #[test]
    fn takes_a_good_one() {
        let found = judge(GOOD).expect("it fits");
        assert_eq!(found.version, "3.13.1");
        assert_eq!(found.path, Path::new("/p/bin/python3"));
    }

    #[test]
    fn names_what_is_wrong() {
        for (from, to, reason) in [
            ("3.13.1", "3.12.9", "is Python 3.12.9"),
            ("3.13.1", "2.7.18", "is Python 2.7.18"),
            ("cpython", "pypy", "not CPython"),
            ("final", "beta", "pre-release"),
            ("no_gil=0", "no_gil=1", "free-threaded"),
            ("bits=64", "bits=32", "32-bit"),
            ("venv=1", "venv=0", "python3.13-venv"),
            ("version", "nothing", "no Python"),
        ] {
            let complaint = judge(&GOOD.replace(from, to)).expect_err(reason);
            assert!(complaint.contains(reason), "{complaint} should say {reason}");
        }
    }

    #[test]
    fn newer_ones_fit() {
        assert!(judge(&GOOD.replace("3.13.1", "3.14.0")).is_ok());
        assert!(judge(&GOOD.replace("3.13.1", "4.0.0")).is_ok());
    }
}
