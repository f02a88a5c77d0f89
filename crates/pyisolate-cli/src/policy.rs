//! `pyisolate policy`: questions about policies.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::answer::answered;
use crate::{policy_ask, policy_run};

/// Check, explain, compare, learn and try policies.
///
/// A policy says what a cell may have; whatever it does not grant is denied. FILE is YAML, or by
/// its ending TOML or JSON; `-` is standard input. Where FILE|TEMPLATE stands, the name of a
/// template does as well: `pyisolate policy templates` lists them.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Policy {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(Check),
    Explain(Explain),
    Diff(Diff),
    Templates(Templates),
    Learn(Learn),
    Replay(Replay),
}

/// Say whether policies can be read, and what is wrong where.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 all are in order, 1 one is not, 2 one cannot be read.")]
pub(crate) struct Check {
    /// Policies
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

/// Say whether a cell may do something, by which rule, and what would allow it.
#[derive(Debug, Args)]
#[command(after_help = EXPLAIN_HELP)]
pub(crate) struct Explain {
    /// The policy
    #[arg(value_name = "FILE|TEMPLATE")]
    pub(crate) policy: PathBuf,

    /// The cell, for what the policy says of it beside the defaults
    #[arg(long, value_name = "NAME")]
    pub(crate) cell: Option<String>,

    /// Print one object of JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// What the cell would do; options stand before it
    #[arg(value_names = ["VERB", "TARGET"], required = true, num_args = 1..)]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) act: Vec<String>,
}

/// Say what a new policy would newly allow and newly deny.
///
/// Rules are compared by what they mean: the order and the words make no difference. Cells that are
/// named in a policy follow with what changes for them alone.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 both allow the same, 1 they do not, 2 one cannot be read.")]
pub(crate) struct Diff {
    /// The policy that is in force
    #[arg(value_name = "OLD")]
    pub(crate) old: PathBuf,

    /// The policy that is to be
    #[arg(value_name = "NEW")]
    pub(crate) new: PathBuf,

    /// Compare what this cell has, and nothing else
    #[arg(long, value_name = "NAME")]
    pub(crate) cell: Option<String>,

    /// Print one object of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// List the policies that come with the program, or print one.
#[derive(Debug, Args)]
pub(crate) struct Templates {
    /// The template to print, as a text to begin from
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// Write the smallest policy under which a recorded run passes.
///
/// Files are granted by their paths, commands by their arguments, requests by their methods and by
/// what all paths of a method begin with. Comments tell how often each rule was used. What the run
/// was refused is granted too, so read what comes out before you use it.
///
/// Lines are taken at their word: `pyisolate journal verify` says whether they are what was
/// written.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pyisolate run job.py --policy data-analysis --journal run.journal
  pyisolate policy learn run.journal -o job.yml --fold 20
  pyisolate policy replay job.yml run.journal")]
pub(crate) struct Learn {
    /// What `pyisolate run --journal` wrote
    #[arg(value_name = "JOURNAL")]
    pub(crate) journal: PathBuf,

    /// Write the policy there, in the place of what is there; without it, to stdout
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Learn from this cell alone
    #[arg(long, value_name = "NAME")]
    pub(crate) cell: Option<String>,

    /// Grant a folder where more than N of its files were read, or written
    #[arg(long, value_name = "N")]
    pub(crate) fold: Option<usize>,

    /// Leave out what the run was refused
    #[arg(long)]
    pub(crate) granted_only: bool,
}

/// Say what another policy would have answered to a recorded run.
///
/// What was asked then is asked again. What the code would have done after another answer nobody
/// knows.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 nothing would change, 1 something would, 2 a file cannot be read."
)]
pub(crate) struct Replay {
    /// The policy to try
    #[arg(value_name = "FILE|TEMPLATE")]
    pub(crate) policy: PathBuf,

    /// What `pyisolate run --journal` wrote
    #[arg(value_name = "JOURNAL")]
    pub(crate) journal: PathBuf,

    /// Print one object of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the subcommand; returns its exit status.
pub(crate) fn run(flags: &Policy) -> u8 {
    answered(|out| match &flags.command {
        Command::Check(flags) => policy_ask::check(flags, out),
        Command::Explain(flags) => policy_ask::explain(flags, out),
        Command::Diff(flags) => policy_ask::diff(flags, out),
        Command::Templates(flags) => policy_ask::templates(flags, out),
        Command::Learn(flags) => policy_run::learn(flags, out),
        Command::Replay(flags) => policy_run::replay(flags, out),
    })
}

const EXAMPLES: &str = "\
Examples:
  pyisolate policy check policy.yml
  pyisolate policy explain policy.yml --cell worker read /data/penguins.csv
  pyisolate policy diff old.yml new.yml
  pyisolate policy templates web-scraper > policy.yml
  pyisolate policy learn run.journal -o job.yml";

const EXPLAIN_HELP: &str = "\
VERB and TARGET:
  read PATH, write PATH          a file or folder
  connect HOST:PORT              a TCP stream
  resolve HOST                   the addresses of a name
  get URL, post URL, ...         an HTTP request; http METHOD URL for any method
  run PROGRAM ARGUMENTS...       a program
  reveal NAME, use NAME [HOST]   a secret
  clock time|monotonic|sleep     the clock
  random                         random bytes
  send CHANNEL, receive CHANNEL  a channel between cells
  import MODULE                  a module
  NAME.ACTION                    a capability of the host's own

Examples:
  pyisolate policy explain policy.yml read /data/penguins.csv
  pyisolate policy explain policy.yml --cell worker --json get https://example.org/
  pyisolate policy explain data-analysis run git log --oneline

Exit status: 0 it is allowed, 3 it is denied, 2 the policy cannot be read.";
