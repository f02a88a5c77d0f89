//! `pyisolate image`: what cells of the microVM backend start from.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use pyisolate_supervisor::Environment;
use pyisolate_supervisor::image::{Cache, Image, ImageError, KernelSource, Listed, Progress};
use serde_json::{Value, json};

use crate::answer::{Answer, Out, Stop, answered};
use crate::report::Trouble;
use crate::status::Status;

/// How much of a hash the list shows; as much names an image.
const HASH_SHOWN: usize = 12;

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// Make and keep the images that microVM cells start from.
///
/// An image is a Linux kernel with a file tree in memory: the interpreter, its standard library, the
/// guest runtime, and the packages that were asked for. Images lie in a cache: $PYISOLATE_CACHE, else
/// $XDG_CACHE_HOME/pyisolate, else ~/.cache/pyisolate.
#[derive(Debug, Args)]
pub(crate) struct ImageFlags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Build(Build),
    List(List),
    Rm(Remove),
    Verify(Verify),
}

/// Make an image.
///
/// The same interpreter, packages, runtime and kernel make the same image, with the same hash. The
/// kernel is Debian's for clouds: `apt-get download` fetches its package once, and nothing is
/// installed; root is not needed. Elsewhere name one with --kernel.
#[derive(Debug, Args)]
#[command(after_help = BUILD_HELP)]
struct Build {
    /// The interpreter, with pyisolate installed; the one that cells run on if not given
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,

    /// A package that is installed there, with all that it requires; may be given several times
    #[arg(long = "package", value_name = "NAME")]
    packages: Vec<String>,

    /// A kernel of your own, as QEMU takes it (bzImage, Image)
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,

    /// The folder of that kernel's modules, unless virtio_mmio and virtio_console are built in
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,

    /// What to call the image
    #[arg(long, value_name = "NAME", default_value = "default")]
    name: String,

    /// Print one object of JSON
    #[arg(long)]
    json: bool,
}

const BUILD_HELP: &str = "\
Examples:
  pyisolate image build
  pyisolate image build --package numpy --name science
  pyisolate image build --kernel /boot/vmlinuz-6.1.0-48-cloud-amd64 \\
      --modules /lib/modules/6.1.0-48-cloud-amd64

Exit status: 0 it is made, 2 the command line makes no sense, 6 it cannot be made here.";

/// List the images.
#[derive(Debug, Args)]
struct List {
    /// Print one object of JSON
    #[arg(long)]
    json: bool,
}

/// Remove an image.
///
/// By name, the name is removed, and the image too if it has no other. By hash, the image is removed
/// with all its names. Cells that run on it go on.
#[derive(Debug, Args)]
struct Remove {
    /// A name, or a hash or the first eight digits or more of one
    #[arg(value_name = "NAME|HASH")]
    image: String,

    /// Print one object of JSON
    #[arg(long)]
    json: bool,
}

/// Read all bytes of an image and compare them with its hash.
///
/// Each use looks at the manifest and at sizes, owners and modes alone.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 it is what was built, 1 it is not, 2 there is none.")]
struct Verify {
    /// A name, or a hash or the first eight digits or more of one; all images if not given
    #[arg(value_name = "NAME|HASH")]
    image: Option<String>,

    /// Print one object of JSON
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand; returns its exit status.
pub(crate) fn run(flags: &ImageFlags, environment: Option<&str>) -> u8 {
    answered(|out| {
        let cache = Cache::discover().map_err(trouble)?;
        match &flags.command {
            Command::Build(flags) => build(&cache, flags, environment, out),
            Command::List(flags) => list(&cache, flags, out),
            Command::Rm(flags) => remove(&cache, flags, out),
            Command::Verify(flags) => verify(&cache, flags, out),
        }
    })
}

fn trouble(error: ImageError) -> Trouble {
    let status = match &error {
        ImageError::NotFound { .. } | ImageError::Ambiguous { .. } | ImageError::BadName { .. } => {
            Status::Usage
        }
        _ => Status::Host,
    };
    Trouble::new(status, error.to_string())
}

fn build(
    cache: &Cache,
    flags: &Build,
    environment: Option<&str>,
    out: &mut Out,
) -> Result<Answer, Stop> {
    let environment = match (&flags.python, environment) {
        (Some(python), _) => Environment::of_interpreter(python, None),
        (None, Some(text)) => {
            Environment::from_description(text, Path::new("this interpreter"), None)
        }
        (None, None) => Environment::discover(),
    };
    let kernel = match &flags.kernel {
        Some(kernel) => {
            KernelSource::Files { kernel: kernel.clone(), modules: flags.modules.clone() }
        }
        None => KernelSource::Debian,
    };
    let wanted = environment
        .and_then(|environment| environment.wanted(&flags.packages, kernel))
        .map_err(|error| Trouble::new(Status::Host, error.to_string()))?;
    let mut shown = Shown::new();
    let built = cache.build(&wanted, &flags.name, &mut |progress| shown.show(out, &progress));
    shown.bar.finish_and_clear();
    let image = built.map_err(trouble)?;
    if flags.json {
        out.json(&described(image.hash(), std::slice::from_ref(&flags.name), Ok(&image)))?;
    } else {
        out.lines(&listed(image.hash(), std::slice::from_ref(&flags.name), Ok(&image)))?;
    }
    Ok(Answer::Yes)
}

fn list(cache: &Cache, flags: &List, out: &mut Out) -> Result<Answer, Stop> {
    let images = cache.list().map_err(trouble)?;
    if flags.json {
        let images: Vec<_> = images.iter().map(described_listed).collect();
        out.json(&json!({"folder": cache.folder(), "images": images}))?;
        return Ok(Answer::Yes);
    }
    if images.is_empty() {
        let folder = cache.folder().display();
        out.note(&format!("no images in {folder}: `pyisolate image build` makes one"));
    }
    for Listed { hash, names, image } in &images {
        out.lines(&listed(hash, names, image.as_ref()))?;
    }
    Ok(Answer::Yes)
}

fn remove(cache: &Cache, flags: &Remove, out: &mut Out) -> Result<Answer, Stop> {
    let removed = cache.remove(&flags.image).map_err(trouble)?;
    if flags.json {
        out.json(&json!({"names": removed.names, "hash": removed.hash}))?;
    } else {
        let names = removed.names.join(", ");
        out.lines(&match removed.hash {
            Some(hash) => format!("removed {} {names}", short(&hash)).trim_end().to_owned(),
            None => format!("removed the name {names}; its image has another"),
        })?;
    }
    Ok(Answer::Yes)
}

fn verify(cache: &Cache, flags: &Verify, out: &mut Out) -> Result<Answer, Stop> {
    let verified: Vec<(String, Result<Image, ImageError>)> = match &flags.image {
        Some(image) => match cache.verify(image) {
            Err(error @ (ImageError::NotFound { .. } | ImageError::Ambiguous { .. })) => {
                return Err(trouble(error).into());
            }
            verified => vec![(image.clone(), verified)],
        },
        None => {
            let images = cache.list().map_err(trouble)?.into_iter();
            images.map(|listed| (listed.hash.clone(), cache.verify(&listed.hash))).collect()
        }
    };
    let is_whole = verified.iter().all(|(_, image)| image.is_ok());
    if flags.json {
        let images = verified.iter().map(|(asked, image)| {
            let hash = image.as_ref().map_or(asked.as_str(), Image::hash);
            let error = image.as_ref().err().map(ToString::to_string);
            json!({"image": asked, "hash": hash, "ok": error.is_none(), "error": error})
        });
        out.json(&json!({"ok": is_whole, "images": images.collect::<Vec<_>>()}))?;
    } else {
        for (asked, image) in &verified {
            let said = match image {
                Ok(image) => format!("ok {}", image.hash()),
                Err(error) => format!("DAMAGED {asked}: {error}"),
            };
            out.lines(&said)?;
        }
    }
    Ok(if is_whole { Answer::Yes } else { Answer::No })
}

fn short(hash: &str) -> &str {
    hash.get(..HASH_SHOWN).unwrap_or(hash)
}

/// An image as a line for people.
fn listed(hash: &str, names: &[String], image: Result<&Image, &ImageError>) -> String {
    let names = if names.is_empty() { "-".to_owned() } else { names.join(",") };
    let head = format!("{}  {names:<12}", short(hash));
    match image {
        Err(error) => format!("{head}  unusable: {error}"),
        Ok(image) => {
            let manifest = image.manifest();
            let packages = manifest.packages.iter();
            let packages: String =
                packages.map(|package| format!(" {} {}", package.name, package.version)).collect();
            let bytes = HumanBytes(manifest.kernel.bytes + manifest.initramfs.bytes);
            let (python, kernel) = (&manifest.python, &manifest.kernel_release);
            format!("{head}  {bytes}  Python {python}  Linux {kernel} {packages}")
                .trim_end()
                .to_owned()
        }
    }
}

fn described_listed(image: &Listed) -> Value {
    described(&image.hash, &image.names, image.image.as_ref())
}

fn described(hash: &str, names: &[String], image: Result<&Image, &ImageError>) -> Value {
    json!({
        "hash": hash,
        "names": names,
        "error": image.err().map(ToString::to_string),
        "folder": image.ok().map(Image::folder),
        "kernel": image.ok().map(Image::kernel),
        "initramfs": image.ok().map(Image::initramfs),
        "manifest": image.ok().map(|image| json!(image.manifest())),
    })
}

/// Progress: a bar on a terminal, else a line for each step.
struct Shown {
    bar: ProgressBar,
    is_terminal: bool,
    is_writing: bool,
}

impl Shown {
    fn new() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = if is_terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        Self { bar, is_terminal, is_writing: false }
    }

    fn show(&mut self, out: &mut Out, progress: &Progress) {
        let step = match progress {
            Progress::Waiting => "waiting for another build".to_owned(),
            Progress::Fetching(package) => format!("fetching {package}"),
            Progress::Unpacking => "unpacking the kernel".to_owned(),
            Progress::Planning => "looking for files and libraries".to_owned(),
            Progress::Compiling { modules } => format!("compiling {modules} Python modules"),
            Progress::Lacking { library, needed_by } => {
                let text = format!("{library} is nowhere, and {} needs it", needed_by.display());
                return self.bar.suspend(|| out.note(&format!("warning: {text}")));
            }
            Progress::Writing { done_bytes, total_bytes } => {
                if !self.is_writing {
                    self.is_writing = true;
                    self.begin_bytes(*total_bytes);
                    if !self.is_terminal {
                        out.note(&format!("writing {}", HumanBytes(*total_bytes)));
                    }
                }
                return self.bar.set_position(*done_bytes);
            }
            _ => return,
        };
        if self.is_terminal {
            self.bar.set_message(step);
            self.bar.enable_steady_tick(TICK);
        } else {
            out.note(&step);
        }
    }

    fn begin_bytes(&self, total_bytes: u64) {
        self.bar.disable_steady_tick();
        self.bar.set_length(total_bytes);
        // The template is fixed; if it were wrong, the spinner would stay.
        if let Ok(style) = ProgressStyle::with_template("writing {wide_bar} {bytes}/{total_bytes}")
        {
            self.bar.set_style(style);
        }
    }
}
