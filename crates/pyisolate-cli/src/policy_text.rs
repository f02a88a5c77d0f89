//! Policies by the name of a file or of a template.

use std::path::Path;

use pyisolate_supervisor::policy::{Document, Format, Policy, TextError, template, templates};

use crate::report::Trouble;
use crate::source::{is_stdin, shown, text, usage};

/// The longest policy that is read, in bytes. What is longer is refused by its reader in words.
const TEXT_BYTES_MAX: u64 = 16 << 20;

/// Why there is no policy.
#[derive(Debug)]
pub(crate) enum NoPolicy {
    /// It cannot be read.
    Unread(Trouble),
    /// It is none.
    Wrong(TextError),
}

impl From<NoPolicy> for Trouble {
    fn from(error: NoPolicy) -> Self {
        match error {
            NoPolicy::Unread(trouble) => trouble,
            NoPolicy::Wrong(error) => usage(format!("the policy cannot be used:\n{error}")),
        }
    }
}

/// Reads a file. What has another ending than a policy's is read as YAML.
pub(crate) fn read(path: &Path) -> Result<Document, NoPolicy> {
    let source = text(path, TEXT_BYTES_MAX, "a policy").map_err(NoPolicy::Unread)?;
    let format = Format::of_path(path).unwrap_or(Format::Yaml);
    Document::parse(&source, &shown(path), format).map_err(NoPolicy::Wrong)
}

/// Reads a template, or else a file. A file with a template's name is meant by `./NAME`.
pub(crate) fn find(path: &Path) -> Result<Document, Trouble> {
    let name = path.to_str().unwrap_or_default();
    let is_name = !name.contains('/') && !is_stdin(path);
    if is_name {
        match template(name) {
            Ok(defaults) => return Ok(Document { defaults, ..Document::default() }),
            Err(unknown) if !path.exists() && Format::of_path(path).is_none() => {
                return Err(usage(format!("there is no file {name:?}, and {unknown}")));
            }
            Err(_) => {}
        }
    }
    Ok(read(path)?)
}

/// What a cell has. Says so where the policy names cells and not this one.
pub(crate) fn of_cell(
    document: &Document,
    cell: Option<&str>,
    path: &Path,
) -> Result<(Policy, Option<String>), Trouble> {
    let policy = document.policy(cell).map_err(|error| usage(format!("--cell: {error}")))?;
    let is_listed = |cell: &str| document.cells.keys().any(|name| name.as_str() == cell);
    let note = cell.filter(|cell| !document.cells.is_empty() && !is_listed(cell)).map(|cell| {
        format!("{} says nothing of a cell {cell:?}: it has the defaults", shown(path))
    });
    Ok((policy, note))
}

/// A template's text.
pub(crate) fn template_text(name: &str) -> Result<&'static str, Trouble> {
    let has = |own: &str| own == name;
    let found = templates().iter().find(|own| has(own.name) || own.alias.is_some_and(has));
    match (found, template(name)) {
        (Some(template), _) => Ok(template.text),
        (None, Err(unknown)) => Err(usage(unknown.to_string())),
        (None, Ok(_)) => Err(usage(format!("the template {name:?} has no text of its own"))),
    }
}
