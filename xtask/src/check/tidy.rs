//! House rules that a compiler does not know.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::XtaskError;
use crate::workspace;

/// Past some 400 lines of code a file is asking to be two; past this many it needs an entry below.
const MOST_LINES: usize = 500;

/// Files that may be longer, each with the reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// Folders that hold nothing written by hand. Hidden ones are passed over by their dot.
const SKIPPED: [&str; 6] = ["target", "node_modules", "__pycache__", "dist", "corpus", "artifacts"];

/// Hidden folders that are ours all the same.
const HIDDEN_BUT_OURS: [&str; 3] = [".cargo", ".ci", ".config"];

/// Files with text that people wrote.
const TEXT: [&str; 7] = ["rs", "py", "pyi", "toml", "md", "sh", "txt"];

pub(super) fn check() -> Result<(), XtaskError> {
    let root = workspace::root();
    let mut violations = Vec::new();
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();
    for path in &files {
        let name = path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
        let text = workspace::read(path)?;
        violations
            .extend(check_file(&name, &text).into_iter().map(|rule| format!("{name}: {rule}")));
    }
    for (name, _) in LONG_FILES.iter().filter(|(name, _)| !root.join(name).exists()) {
        violations.push(format!("{name}: is in LONG_FILES but gone"));
    }
    if violations.is_empty() { Ok(()) } else { Err(XtaskError::Rules { violations }) }
}

/// The rules that one file breaks. `name` is its path from the top of the checkout.
fn check_file(name: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    broken.extend(too_long(name, text));
    broken.extend(unfinished(text));
    if (name.ends_with("/lib.rs") || name.ends_with("/main.rs")) && !text.starts_with("//!") {
        broken.push("its first lines must say what the crate is, after `//!`".to_owned());
    }
    if name.ends_with("__init__.py") && name.starts_with("python/") && !text.starts_with("\"\"\"") {
        broken.push("its first lines must be a docstring that says what it is".to_owned());
    }
    // Put together here so that this file does not accuse itself.
    if name.ends_with(".rs") && text.contains(concat!("#[", "ignore")) {
        broken
            .push("an ignored test is no test; skip by name at run time, or delete it".to_owned());
    }
    if name.starts_with("crates/") && name.ends_with("/Cargo.toml") {
        broken.extend(manifest(text));
    }
    broken
}

fn too_long(name: &str, text: &str) -> Option<String> {
    let lines = match name.rsplit('.').next() {
        Some("rs") => rust_lines(text),
        Some("py") => count(text.lines(), "#"),
        _ => return None,
    };
    let listed = LONG_FILES.iter().any(|(listed, _)| *listed == name);
    match (lines > MOST_LINES, listed) {
        (true, false) => Some(format!(
            "{lines} lines of code, more than {MOST_LINES}; split it, or say why not in LONG_FILES"
        )),
        (false, true) => Some("is in LONG_FILES but no longer long".to_owned()),
        _ => None,
    }
}

/// Lines of code before the file's own test module.
fn rust_lines(text: &str) -> usize {
    let end = text.find("\n#[cfg(test)]\nmod ").unwrap_or(text.len());
    count(text[..end].lines(), "//")
}

fn count<'a>(lines: impl Iterator<Item = &'a str>, comment: &str) -> usize {
    lines.map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(comment)).count()
}

/// Work left undone belongs in the tracker, where somebody will find it.
fn unfinished(text: &str) -> Option<String> {
    let markers = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let marked = |line: &&str| {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.any(|word| markers.contains(&word))
    };
    let number = text.lines().position(|line| marked(&line))? + 1;
    Some(format!("line {number} marks unfinished work; finish it or file it"))
}

/// Versions, edition and lints are written once, in the root.
fn manifest(text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    for line in ["version.workspace = true", "edition.workspace = true", "license.workspace = true"]
    {
        if !text.lines().any(|has| has.trim() == line) {
            broken.push(format!("needs `{line}`"));
        }
    }
    if !text.contains("[lints]\nworkspace = true") {
        broken.push("needs `[lints]` with `workspace = true`".to_owned());
    }
    broken
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) -> Result<(), XtaskError> {
    let read_error = |source| XtaskError::Read { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(read_error)? {
        let entry = entry.map_err(read_error)?;
        let kind = entry.file_type().map_err(read_error)?;
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if kind.is_dir() {
            let hidden = name.starts_with('.') && !HIDDEN_BUT_OURS.contains(&name.as_str());
            if !hidden && !SKIPPED.contains(&name.as_str()) {
                collect(&path, into)?;
            }
        } else if kind.is_file() && is_text(&path) {
            into.push(path);
        }
    }
    Ok(())
}

fn is_text(path: &Path) -> bool {
    path.extension().is_some_and(|ending| TEXT.iter().any(|text| ending == *text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_needs_a_reason() {
        let code = "let x = 1;\n".repeat(MOST_LINES);
        assert!(too_long("crates/a/src/b.rs", &code).is_none());
        let comments = format!("{code}\n// why\n\n#[cfg(test)]\nmod tests {{\n{code}}}\n");
        assert!(too_long("crates/a/src/b.rs", &comments).is_none());
        assert!(too_long("crates/a/src/b.rs", &format!("{code}let y = 1;\n")).is_some());
    }

    #[test]
    fn unfinished_work_is_found_by_whole_words() {
        let marker = concat!("TO", "DO");
        assert!(
            unfinished(&format!("fine\n// {marker}: later")).is_some_and(|t| t.contains("line 2"))
        );
        assert!(unfinished(&format!("{marker}S is a name")).is_none());
    }

    #[test]
    fn crates_say_what_they_are() {
        assert_eq!(check_file("crates/a/src/lib.rs", "//! A.\n").len(), 0);
        assert_eq!(check_file("crates/a/src/lib.rs", "use b;\n").len(), 1);
    }

    #[test]
    fn manifests_inherit() {
        let good = "version.workspace = true\nedition.workspace = true\n\
                    license.workspace = true\n[lints]\nworkspace = true\n";
        assert!(manifest(good).is_empty());
        assert_eq!(manifest("version = \"1\"\n").len(), 4);
    }
}
