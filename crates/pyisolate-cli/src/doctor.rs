//! `pyisolate doctor`: what this host really gives.

use std::io::{self, Write};

use clap::Args;
use pyisolate_supervisor::{Environment, Examination, Point, Requirement, examine};
use serde_json::{Value, json};

use crate::MakeInterpreters;
use crate::status::Status;

/// Try what this host gives: ten guarantees, and how to have those that are missing.
///
/// Cells are made, and try to break each guarantee; limits are tripped. Nothing is concluded from
/// version numbers. Nothing is left behind.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Doctor {
    /// The layers that must hold for success: default, hardened, or names with commas
    #[arg(long, value_name = "LAYERS", default_value_t = Requirement::Default)]
    require: Requirement,

    /// How many of the guarantees must be kept for success: ten, and an eleventh with KVM
    #[arg(long, value_name = "POINTS", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=11))]
    least: u8,

    /// Print one object of JSON
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  pyisolate doctor
  pyisolate doctor --require hardened --json    an admission check: exit status 0 or 1

Exit status:
  0  process cells work here with what --require asks for, and at least --least points
  1  they do not
  2  the command line makes no sense
  6  no interpreter was found for cells to run on";

pub(crate) fn run(
    flags: &Doctor,
    environment: Option<&str>,
    interpreters: Option<MakeInterpreters>,
) -> u8 {
    let found = match environment {
        Some(text) => Environment::from_description(text, "this interpreter".as_ref(), None),
        None => Environment::discover(),
    };
    let environment = match found {
        Ok(environment) => environment,
        Err(error) => {
            let _ = writeln!(io::stderr(), "pyisolate: {error}");
            return Status::Host.code();
        }
    };
    let examination = examine(&environment, interpreters.map(|make| make(&environment)));
    let lacking = lacking(&examination, &flags.require);
    let passed = lacking.as_ref().is_ok_and(Vec::is_empty)
        && examination.grade() >= usize::from(flags.least);
    let mut out = io::stdout().lock();
    let written = if flags.json {
        writeln!(out, "{}", as_json(&examination, flags, &lacking, passed))
    } else {
        print(&mut out, &examination, flags, &lacking)
    };
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Status::BrokenPipe.code(),
        Err(_) => Status::Host.code(),
        Ok(()) => u8::from(!passed),
    }
}

/// The layers that the requirement asks for and a cell does not have; an error if there is no cell.
fn lacking(examination: &Examination, require: &Requirement) -> Result<Vec<String>, ()> {
    let confinement = examination.confinement.as_ref().ok_or(())?;
    let lacking = confinement.lacking(require);
    Ok(lacking.into_iter().map(|layer| format!("{} ({})", layer.name, layer.detail)).collect())
}

fn print(
    out: &mut impl Write,
    examination: &Examination,
    flags: &Doctor,
    lacking: &Result<Vec<String>, ()>,
) -> io::Result<()> {
    for (number, point) in examination.points.iter().enumerate() {
        let (mark, said) = match &point.outcome {
            Ok(seen) => ("held", seen),
            Err(lost) => ("LOST", &lost.why),
        };
        writeln!(out, "{mark} {:>2}  {:<13} {}", number + 1, point.name, point.guarantee)?;
        writeln!(out, "                       {said}")?;
        if let Err(lost) = &point.outcome
            && !lost.remedy.is_empty()
        {
            writeln!(out, "                       to have it: {}", lost.remedy)?;
        }
    }
    if let Some(confinement) = &examination.confinement {
        writeln!(out, "\nWhat confines a process cell here:")?;
        for line in confinement.to_string().lines() {
            writeln!(out, "  {line}")?;
        }
    }
    writeln!(out, "\nWhat microvm cells need:")?;
    for part in &examination.machine {
        let (mark, said) = match &part.outcome {
            Ok(seen) => ("there", seen),
            Err(lost) => ("LACKS", &lost.why),
        };
        writeln!(out, "  {mark} {:<10} {}: {said}", part.name, part.guarantee)?;
        if let Err(lost) = &part.outcome
            && !lost.remedy.is_empty()
        {
            writeln!(out, "                   to have it: {}", lost.remedy)?;
        }
    }
    writeln!(out, "\nBackends:")?;
    for (name, works) in &examination.backends {
        let said = match works {
            Ok(said) | Err(said) => said,
        };
        writeln!(out, "  {name:<16}{said}")?;
    }
    writeln!(out, "\nGrade: {} of {}", examination.grade(), examination.points.len())?;
    match lacking {
        Err(()) => writeln!(out, "No process cell can be made."),
        Ok(lacking) if lacking.is_empty() => {
            writeln!(out, "require={}: holds", flags.require)
        }
        Ok(lacking) => writeln!(out, "require={}: lacks {}", flags.require, lacking.join("; ")),
    }
}

fn as_json(
    examination: &Examination,
    flags: &Doctor,
    lacking: &Result<Vec<String>, ()>,
    passed: bool,
) -> Value {
    let points = |points: &[Point]| points.iter().map(point).collect::<Vec<_>>();
    let confinement = examination.confinement.as_ref();
    let confinement = confinement.and_then(|it| serde_json::from_str::<Value>(&it.to_json()).ok());
    let backends = examination.backends.iter().map(|(name, works)| {
        let said = match works {
            Ok(said) | Err(said) => said,
        };
        json!({"name": name, "works": works.is_ok(), "detail": said})
    });
    json!({
        "version": 1,
        "passed": passed,
        "grade": examination.grade(),
        "points": points(&examination.points),
        "microvm": points(&examination.machine),
        "require": flags.require.to_string(),
        "lacking": lacking.as_ref().ok(),
        "confinement": confinement,
        "backends": backends.collect::<Vec<_>>(),
    })
}

fn point(point: &Point) -> Value {
    let mut object = json!({
        "name": point.name,
        "guarantee": point.guarantee,
        "held": point.outcome.is_ok(),
    });
    match &point.outcome {
        Ok(seen) => object["detail"] = Value::from(seen.as_str()),
        Err(lost) => {
            object["detail"] = Value::from(lost.why.as_str());
            object["remedy"] = Value::from(lost.remedy.as_str());
        }
    }
    object
}
