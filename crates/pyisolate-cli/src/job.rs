//! What the command line asks for, read and checked before anything runs.

use std::path::PathBuf;

use pyisolate_supervisor::abi::frame::FRAME_BYTES_MAX;
use pyisolate_supervisor::policy::Policy;
use pyisolate_supervisor::{CellName, CellOptions, Imports, LimitName, Limits};

use crate::flags::Run;
use crate::limits::{self, Setting};
use crate::policy_text;
use crate::report::Trouble;
use crate::secret;
use crate::source::{bytes, is_stdin, shown, text, usage};

/// The longest source text, in bytes. Python's parser takes some hundred bytes of memory for each.
const SOURCE_BYTES_MAX: u64 = 16 << 20;
/// What a message may take beside its file's bytes: the file's name and the pickle around both.
const MESSAGE_OVERHEAD: u64 = 8 * 1024;
/// Descriptors that a cell needs for itself: three streams, its channel, a few that libraries open.
const DESCRIPTORS_OWN: usize = 8;

/// A file on its way to the script.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) data: Vec<u8>,
}

/// A script and all that it gets.
#[derive(Debug)]
pub(crate) struct Job {
    /// The script's name, for tracebacks.
    pub(crate) script: String,
    pub(crate) source: String,
    pub(crate) inputs: Vec<Input>,
    pub(crate) options: CellOptions,
}

/// The cell's name: what was said, or the script's own name if that will do.
fn name(flags: &Run) -> Result<CellName, Trouble> {
    if let Some(name) = &flags.cell {
        return CellName::new(name).map_err(|error| usage(format!("--cell: {error}")));
    }
    let stem = flags.script.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let own = if is_stdin(&flags.script) { None } else { CellName::new(stem).ok() };
    own.map_or_else(|| CellName::new("run").map_err(|error| usage(error.to_string())), Ok)
}

/// The policy that the flags name, as it holds for the cell.
pub(crate) fn policy(flags: &Run) -> Result<Option<Policy>, Trouble> {
    let Some(path) = &flags.policy else { return Ok(None) };
    let document = policy_text::find(path)?;
    let name = name(flags)?;
    // A name that was not said need not be in the policy; one that was is probably misspelt.
    match policy_text::of_cell(&document, Some(name.as_str()), path)? {
        (_, Some(note)) if flags.cell.is_some() => Err(usage(note)),
        (policy, _) => Ok(Some(policy)),
    }
}

/// The limits that the flags and the policy set; those of the flags win.
pub(crate) fn limits(flags: &Run, policy: Option<&Policy>) -> Result<Limits, Trouble> {
    let mut settings = flags.limits.clone();
    if let Some(value) = flags.timeout {
        if settings.iter().any(|setting| setting.name == LimitName::WallTime) {
            return Err(usage(
                "--timeout and --limit wall_time_ms= are the same: give one of them",
            ));
        }
        settings.push(Setting { name: LimitName::WallTime, value });
    }
    let mut limits = Limits::default();
    if let Some(policy) = policy {
        policy.limits.apply(&mut limits);
        limits.check().map_err(|error| usage(format!("the policy sets {error}")))?;
    }
    let limits = limits::apply(&settings, limits);
    limits.check().map_err(|error| usage(format!("--limit {error}")))?;
    Ok(limits)
}

/// Reads the files that the flags name.
pub(crate) fn read(flags: &Run, policy: Option<Policy>, limits: Limits) -> Result<Job, Trouble> {
    let name = name(flags)?;
    let imports = Imports::new(flags.imports.iter().map(|name| name.trim()))
        .map_err(|error| usage(error.to_string().replace("allowed_imports", "--import")))?;
    let paths = std::iter::once(&flags.script).chain(&flags.inputs).chain(&flags.policy);
    let others = flags.journal_key_file.iter().map(PathBuf::as_path).filter(|path| is_stdin(path));
    let others = others.count() + secret::from_stdin(&flags.secrets);
    if paths.filter(|path| is_stdin(path)).count() + others > 1 {
        return Err(usage("`-` is given twice, and standard input can be read only once"));
    }
    let script = shown(&flags.script);
    let source = text(&flags.script, SOURCE_BYTES_MAX, "a script")?;
    let most = limits.message_bytes.saturating_sub(MESSAGE_OVERHEAD);
    let inputs = flags
        .inputs
        .iter()
        .map(|path| {
            let data = bytes(path, most, "an input (--limit message_bytes_max= allows more)")?;
            let name = path.file_name().filter(|_| !is_stdin(path));
            let name = name.map_or_else(|| shown(path), |name| name.to_string_lossy().into_owned());
            Ok(Input { name, data })
        })
        .collect::<Result<Vec<_>, Trouble>>()?;
    // A large message keeps a descriptor open in the cell until the script has received it.
    let large = inputs.iter().filter(|input| input.data.len() > FRAME_BYTES_MAX / 2).count();
    let needed = large + DESCRIPTORS_OWN;
    if needed as u64 > limits.open_files {
        return Err(usage(format!("{large} large inputs need --limit open_files_max={needed}")));
    }
    let secrets = secret::read(&flags.secrets)?;
    let options = CellOptions {
        backend: flags.backend.of_cell(),
        limits,
        imports,
        policy,
        secrets,
        ..CellOptions::new(name)
    };
    Ok(Job { script, source, inputs, options })
}
