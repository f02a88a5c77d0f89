//! What is wrong with a text, shown where it stands.

use std::fmt;
use std::sync::Arc;

use super::tree::Spot;

/// How much of a line is shown, in characters.
const LINE_CHARS_MAX: usize = 160;
/// How many problems are shown: whoever has more repairs these first.
pub(crate) const PROBLEMS_MAX: usize = 20;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1.
    pub line: u32,
    /// Counted from 1, in characters.
    pub column: u32,
    /// How many characters it concerns.
    pub width: u32,
    /// What is wrong.
    pub message: String,
    /// What to do; may be empty.
    pub advice: String,
}

impl Problem {
    pub(crate) fn at(spot: Spot, message: impl Into<String>, advice: impl Into<String>) -> Self {
        let Spot { line, column, width } = spot;
        Self { line, column, width, message: message.into(), advice: advice.into() }
    }
}

/// A text that is no policy. Shown with file, line, column, the line itself and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextError {
    source_name: Arc<str>,
    /// Each with the line where it is.
    problems: Vec<(Problem, String)>,
}

impl TextError {
    pub(crate) fn new(source_name: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems.dedup();
        let lines: Vec<&str> = text.lines().collect();
        let line = |problem: &Problem| {
            let at = usize::try_from(problem.line).unwrap_or(0).saturating_sub(1);
            let line = lines.get(at).copied().unwrap_or_default();
            // Nothing that could move the cursor of a terminal, and one column a character.
            // No more of it than is shown: a text that is one line could have many problems in it.
            let shown = line.chars().take(LINE_CHARS_MAX);
            shown.map(|c| if c.is_control() { ' ' } else { c }).collect::<String>()
        };
        let problems = problems
            .into_iter()
            .map(|problem| {
                let line = line(&problem);
                (problem, line)
            })
            .collect();
        Self { source_name: source_name.into(), problems }
    }

    /// Everything that was found, in the order of the text.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().map(|(problem, _)| problem)
    }
}

impl std::error::Error for TextError {}

impl fmt::Display for TextError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (problem, line)) in self.problems.iter().take(PROBLEMS_MAX).enumerate() {
            if at > 0 {
                out.write_str("\n\n")?;
            }
            show(out, &self.source_name, problem, line)?;
        }
        match self.problems.len().saturating_sub(PROBLEMS_MAX) {
            0 => Ok(()),
            more => write!(out, "\n\nand {more} more"),
        }
    }
}

fn show(out: &mut fmt::Formatter<'_>, source: &str, problem: &Problem, line: &str) -> fmt::Result {
    let Problem { line: number, column, width, message, advice } = problem;
    write!(out, "{source}:{number}:{column}: {message}")?;
    let column = usize::try_from(*column).unwrap_or(1).max(1);
    if !line.trim().is_empty() && column <= LINE_CHARS_MAX {
        let shown: String = line.chars().take(LINE_CHARS_MAX).collect();
        let gutter = " ".repeat(number.to_string().len());
        let most = shown.chars().count().saturating_sub(column - 1).max(1);
        let carets = "^".repeat(usize::try_from(*width).unwrap_or(1).clamp(1, most));
        let indent = " ".repeat(column - 1);
        write!(out, "\n{gutter} |\n{number} | {}", shown.trim_end())?;
        write!(out, "\n{gutter} | {indent}{carets}")?;
        if !advice.is_empty() {
            write!(out, "\n{gutter} = {advice}")?;
        }
    } else if !advice.is_empty() {
        write!(out, "\n  = {advice}")?;
    }
    Ok(())
}
