//! What can be said on the command line, and the help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use pyisolate_supervisor::Requirement;

use crate::doctor::Doctor;
use crate::image::ImageFlags;
use crate::journal::Journal;
use crate::limits::{self, Setting};
use crate::policy::Policy;

/// Runs Python that you do not trust, behind a wall that the kernel keeps.
#[derive(Debug, Parser)]
#[command(name = "pyisolate", bin_name = "pyisolate", version, after_help = EXAMPLES)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<Run>),
    Policy(Policy),
    Journal(Journal),
    Image(ImageFlags),
    Doctor(Doctor),
    /// Show on this host that a backend keeps the contract.
    ///
    /// Several hundred small programs drive the seven operations, and what the host sees must be,
    /// byte for byte, what is recorded for every backend. The suite drives the Python package,
    /// which runs it: this is there wherever `pip` installed PyIsolate. Its own --help says more.
    #[command(disable_help_flag = true)]
    Conformance(Suite),
    /// Attack a backend on this host, and show what held.
    ///
    /// Each attack is run in a cell, and as a control without the wall in throw-away namespaces.
    /// The suite drives the Python package, which runs it: this is there wherever `pip` installed
    /// PyIsolate. Its own --help says more.
    #[command(disable_help_flag = true)]
    Attack(Suite),
}

/// What is passed on to a suite.
#[derive(Debug, Args)]
pub(crate) struct Suite {
    /// What the Python package takes; see the suite's own --help
    #[arg(value_name = "FLAGS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<String>,
}

/// Run a script in a cell and print what it sends.
///
/// The script has no files, no network, no other processes and no capability of the kernel. What it
/// may have all the same is what --policy grants. It may import nothing but what the policy and
/// --import name, and has the limits that the policy and --limit set.
#[derive(Debug, Args)]
#[command(after_long_help = RUN_HELP, after_help = "--help says more: examples, what the script sees, exit statuses.")]
pub(crate) struct Run {
    /// The script, in UTF-8; `-` reads it from standard input
    #[arg(value_name = "SCRIPT")]
    pub(crate) script: PathBuf,

    /// Where the wall stands
    #[arg(long, value_enum, default_value_t = Backend::Process, hide_possible_values = true)]
    #[arg(long_help = "Where the wall stands: `process` is a boundary of the kernel's; \
                       `subinterpreter` is for code that is trusted somewhat, in an interpreter of \
                       this process behind a thread's wall; `microvm` is a virtual machine, of the image \
                       that `pyisolate image build` made")]
    pub(crate) backend: Backend,

    /// What runs the machine of `--backend microvm`: kvm, or tcg for emulation
    #[arg(long, value_enum, value_name = "ACCEL", hide_possible_values = true)]
    #[arg(
        long_help = "What runs the machine of `--backend microvm`: `kvm`, or `tcg` for emulation, \
                       which is slow and no boundary of the hardware's. PYISOLATE_MICROVM_ACCEL says \
                       it too; else it is KVM, and where that does not work nothing takes its place"
    )]
    pub(crate) accel: Option<Accel>,

    /// What the script may have: a file in YAML, TOML or JSON, or a template's name
    #[arg(long, value_name = "FILE|TEMPLATE")]
    #[arg(long_help = "What the script may have: a file in YAML, TOML or JSON, or the name of a \
                       template (`pyisolate policy templates` lists them). Whatever it does not \
                       grant is denied; without it, everything is")]
    pub(crate) policy: Option<PathBuf>,

    /// The layers of confinement that must hold: default, hardened, none, or names with commas
    #[arg(long, value_name = "LAYERS", default_value_t = Requirement::Default)]
    #[arg(
        long_help = "The layers of confinement that must hold before the script runs: `default`, \
                       those without which the backend's promise is false; `hardened`, all that it \
                       has; `none`, whatever this host gives; or names of layers with commas, \
                       which must be enforced beside the default ones"
    )]
    pub(crate) require: Requirement,

    /// The cell's name, for what the policy says of it; the script's own if it can be one
    #[arg(long, value_name = "NAME")]
    pub(crate) cell: Option<String>,

    /// The value of a secret that the policy names: @FILE or env:VARIABLE
    #[arg(long = "secret", value_name = "NAME=@FILE|env:VAR")]
    #[arg(
        long_help = "The value of a secret that the policy names, out of a file or a variable of \
                       the environment; never on the command line itself, where others can read \
                       it. Of a text file the line end at its end is left out; what is no UTF-8 \
                       becomes bytes"
    )]
    pub(crate) secrets: Vec<String>,

    /// Write every crossing there, for `pyisolate journal` and `pyisolate policy learn`
    #[arg(long, value_name = "FILE")]
    #[arg(
        long_help = "Write every crossing of the cell's wall there, for `pyisolate journal` and \
                       `pyisolate policy learn`. A journal that is there is gone on with. Once it \
                       cannot be written to, the cell gets nothing more"
    )]
    pub(crate) journal: Option<PathBuf>,

    /// What the journal keeps of payloads
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = KeptPayloads::Hash)]
    #[arg(requires = "journal")]
    pub(crate) journal_payloads: KeptPayloads,

    /// A file whose bytes, at least 16, the journal's hashes are made with
    #[arg(long, value_name = "FILE", requires = "journal")]
    pub(crate) journal_key_file: Option<PathBuf>,

    /// A module that the script may import, with what is below it; several with commas
    #[arg(long = "import", value_name = "MODULE", value_delimiter = ',')]
    pub(crate) imports: Vec<String>,

    /// A file whose bytes the script is sent; `-` is standard input
    #[arg(long = "input", value_name = "FILE")]
    #[arg(
        long_help = "A file whose bytes the script is sent; `-` is standard input. Each recv() \
                       of the script takes the next, in the order given: a dict \
                       {\"name\": \"penguins.csv\", \"data\": b\"...\"}"
    )]
    pub(crate) inputs: Vec<PathBuf>,

    /// What the script may use, for instance mem_bytes=256MiB
    #[arg(long = "limit", value_name = "NAME=VALUE", value_parser = limits::setting)]
    #[arg(long_help = "What the script may use. Values take units: ms, s, m, h; KiB, MiB, GiB, \
                       kB, MB, GB. Each is on by default:\n\
                       \n  wall_time_ms=60s                from its start to its end\
                       \n  cpu_ms=60s                      CPU time of all its threads\
                       \n  cpu_rate_max=1000               cores that it may keep busy, such as 0.5\
                       \n  mem_bytes=512MiB                memory of its own\
                       \n  output_bytes_max=16MiB          printed and logged in all\
                       \n  output_bytes_per_second=16MiB   printed and logged a second\
                       \n  message_bytes_max=128MiB        one message, either way\
                       \n  unread_bytes_max=256MiB         sent and not printed yet\
                       \n  unread_messages_max=250000      the same by number\
                       \n  requests_per_second_max=50000   asked of the host a second\
                       \n  open_files_max=64               open descriptors\
                       \n  child_work_max=16               threads\
                       \n  network_ops_max=1000            connections and HTTP requests\
                       \n  network_bytes_max=256MiB        over the network, both ways\
                       \n  disk_bytes_max=1GiB             written to files\
                       \n  scratch_bytes=0                 files in memory at /tmp; none without it")]
    pub(crate) limits: Vec<Setting>,

    /// How long the script may run; short for --limit wall_time_ms=
    #[arg(long, value_name = "SECONDS", value_parser = limits::timeout)]
    pub(crate) timeout: Option<u64>,

    /// Print every event as a line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The walls that the contract names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    Subinterpreter,
    Process,
    Microvm,
}

impl Backend {
    /// The supervisor's.
    pub(crate) fn of_cell(self) -> pyisolate_supervisor::Backend {
        match self {
            Self::Subinterpreter => pyisolate_supervisor::Backend::Subinterpreter,
            Self::Process => pyisolate_supervisor::Backend::Process,
            Self::Microvm => pyisolate_supervisor::Backend::Microvm,
        }
    }
}

/// What runs a machine's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accel {
    Kvm,
    Tcg,
}

impl Accel {
    pub(crate) fn of_machine(self) -> pyisolate_supervisor::Accelerator {
        match self {
            Self::Kvm => pyisolate_supervisor::Accelerator::Kvm,
            Self::Tcg => pyisolate_supervisor::Accelerator::Tcg,
        }
    }
}

/// What the journal keeps of payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeptPayloads {
    /// All of them
    Full,
    /// Their SHA-256
    Hash,
    /// Their length
    None,
}

const EXAMPLES: &str = "\
Examples:
  pyisolate run report.py --import csv,statistics --input penguins.csv
  echo 'post(6 * 7)' | pyisolate run -
  pyisolate run job.py --policy data-analysis --journal run.journal
  pyisolate policy explain policy.yml read /data/penguins.csv
  pyisolate policy learn run.journal -o policy.yml
  pyisolate journal verify run.journal
  pyisolate conformance --backend process
  pyisolate attack --backend process

`pyisolate run --help` says what the script sees and what the exit status tells.";

const RUN_HELP: &str = r#"Examples:
  pyisolate run report.py --import csv,statistics --input penguins.csv
  pyisolate run job.py --timeout 5 --limit mem_bytes=256MiB
  pyisolate run job.py --json | jq 'select(.type == "post").value'
  echo 'post(6 * 7)' | pyisolate run -
  pyisolate run job.py --policy job.yml --secret api_key=env:API_KEY --journal run.journal

What the script sees, without importing anything:
  recv(timeout=None)                         the next --input
  post(value)                                sends a result
  log(level, message, **fields)              sends a log event
  metric(name, value, tags=None)             sends a number
  request(capability, action, payload=None)  asks for a privilege that the policy grants
  open, pathlib, socket, urllib, subprocess and others ask for themselves where the policy grants it
  The script ends with its last line, or by raising SystemExit. Threads that it left end with it.

What is printed, in the order in which the script sent it:
  stdout   what the script printed, and each posted value as Python writes it
  stderr   what it printed to stderr, its logs and metrics, its traceback, and how it ended
  On a terminal, control characters that the script sent are shown, not obeyed.

With --json, all of it goes to stdout as one object a line:
  {"type": "post", "value": ...}
  {"type": "log", "level": "info", "message": "...", "fields": {"stream": "stdout"}}
  {"type": "metric", "name": "rows", "value": 344, "tags": null}
  {"type": "error", "status": "guest", "message": "...", "exception": "...", "traceback": "..."}
  {"type": "done", "status": "success", "exit_status": 0, "denials": [...], "stats": {...}}
  The last line is always "done". Tuples become arrays. What JSON lacks becomes an object with one
  key: {"$bytes": "<base64>"}, {"$set": [...]}, {"$float": "nan"}, {"$datetime": "..."},
  {"$decimal": "1.50"}, {"$dict": [[key, value], ...]} for keys that are not text, and so on.

Exit status:
  0    the script ran to its end
  1    the script raised an exception
  2    the command line makes no sense, or a file cannot be read
  3    the script asked for an import or a privilege that it was not granted
  4    the script used up a limit
  5    the cell ended before the script did, or broke the contract
  6    this machine cannot make the cell that was asked for
  130  Ctrl-C, which ends the cell too
  141  nobody reads stdout any more, which ends the cell too

Environment:
  PYISOLATE_PYTHON   For the stand-alone command: the interpreter that cells run on, with pyisolate
                     installed. Without it .venv here, then python3 and python on PATH"#;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use pyisolate_supervisor::{LimitName, Limits};

    #[test]
    fn the_flags_are_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn the_help_tells_the_defaults() {
        let help = Flags::command()
            .find_subcommand_mut("run")
            .map(|run| run.render_long_help().to_string())
            .unwrap_or_default();
        let said: Vec<Setting> = help
            .lines()
            .filter_map(|line| limits::setting(line.split_whitespace().next()?).ok())
            .collect();
        assert_eq!(said.len(), LimitName::ALL.len(), "{help}");
        for setting in said {
            let limits = limits::apply(&[setting], Limits::default());
            assert_eq!(limits, Limits::default(), "{}", setting.name);
        }
    }
}
