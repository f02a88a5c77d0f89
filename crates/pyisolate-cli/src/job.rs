//! What the command line asks for, read and checked before anything runs.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use pyisolate_supervisor::abi::frame::FRAME_BYTES_MAX;
use pyisolate_supervisor::{CellName, CellOptions, Imports, LimitName, Limits};

use crate::flags::Run;
use crate::limits::{self, Setting};
use crate::report::Trouble;
use crate::status::Status;

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

/// The limits that the flags set.
pub(crate) fn limits(flags: &Run) -> Result<Limits, Trouble> {
    let mut settings = flags.limits.clone();
    if let Some(value) = flags.timeout {
        if settings.iter().any(|setting| setting.name == LimitName::WallTime) {
            return Err(usage(
                "--timeout and --limit wall_time_ms= are the same: give one of them",
            ));
        }
        settings.push(Setting { name: LimitName::WallTime, value });
    }
    let limits = limits::apply(&settings);
    limits.check().map_err(|error| usage(format!("--limit {error}")))?;
    Ok(limits)
}

/// Reads the files that the flags name.
pub(crate) fn read(flags: &Run, limits: Limits) -> Result<Job, Trouble> {
    let name = CellName::new("run").map_err(|error| usage(error.to_string()))?;
    let imports = Imports::new(flags.imports.iter().map(|name| name.trim()))
        .map_err(|error| usage(error.to_string().replace("allowed_imports", "--import")))?;
    let paths = std::iter::once(&flags.script).chain(&flags.inputs);
    if paths.filter(|path| is_stdin(path)).count() > 1 {
        return Err(usage("`-` is given twice, and standard input can be read only once"));
    }
    let script = shown(&flags.script);
    let source = bytes(&flags.script, SOURCE_BYTES_MAX, "a script")?;
    let source = String::from_utf8(source).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        usage(format!("{script} is not UTF-8: see byte {at}"))
    })?;
    let source = source.strip_prefix('\u{feff}').unwrap_or(&source).to_owned();
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
        .collect::<Result<Vec<_>, _>>()?;
    // A large message keeps a descriptor open in the cell until the script has received it.
    let large = inputs.iter().filter(|input| input.data.len() > FRAME_BYTES_MAX / 2).count();
    let needed = large + DESCRIPTORS_OWN;
    if needed as u64 > limits.open_files {
        return Err(usage(format!("{large} large inputs need --limit open_files_max={needed}")));
    }
    Ok(Job {
        script,
        source,
        inputs,
        options: CellOptions { limits, imports, ..CellOptions::new(name) },
    })
}

fn usage(message: impl Into<String>) -> Trouble {
    Trouble::new(Status::Usage, message)
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn shown(path: &Path) -> String {
    if is_stdin(path) { "<stdin>".to_owned() } else { path.display().to_string() }
}

/// The whole of a file or of standard input, which may have no end.
fn bytes(path: &Path, most: u64, what: &str) -> Result<Vec<u8>, Trouble> {
    let read = |source: &mut dyn Read| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        source.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = if is_stdin(path) {
        read(&mut io::stdin().lock())
    } else {
        File::open(path).and_then(|mut file| read(&mut file))
    };
    match bytes {
        Ok(bytes) if bytes.len() as u64 > most => {
            Err(usage(format!("{} is over {most} bytes, too long for {what}", shown(path))))
        }
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(usage(format!("cannot read {}: {error}", shown(path)))),
    }
}
