//! How many tests passed, failed or were skipped, read from the runners' closing lines.

use std::fmt;
use std::ops::AddAssign;

/// Tests counted over one or more runners.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    /// Adds up every closing line of nextest, libtest or pytest in `text`, which has no colours.
    pub(crate) fn from_output(text: &str) -> Self {
        let mut counts = Self::default();
        for line in text.lines().filter(|line| is_closing_line(line)) {
            counts += Self::from_line(line);
        }
        counts
    }

    pub(crate) fn ran(self) -> u64 {
        self.passed + self.failed
    }

    fn from_line(line: &str) -> Self {
        let mut counts = Self::default();
        let words: Vec<&str> = line
            .split(|c: char| !c.is_alphanumeric() && c != '.')
            .filter(|word| !word.is_empty())
            .collect();
        for pair in words.windows(2) {
            let Ok(number) = pair[0].parse::<u64>() else { continue };
            match pair[1] {
                "passed" | "xfailed" => counts.passed += number,
                // nextest: failed, timed out, exec failed. pytest: failed, error(s), xpassed.
                "failed" | "timed" | "exec" | "error" | "errors" | "xpassed" => {
                    counts.failed += number;
                }
                "skipped" | "ignored" => counts.skipped += number,
                _ => {}
            }
        }
        counts
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Removes terminal colour sequences (`ESC [ … letter`).
pub(crate) fn strip_ansi(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // Eats up to the letter that ends the sequence.
            chars.find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}

fn is_closing_line(line: &str) -> bool {
    let line = line.trim();
    let nextest = line.starts_with("Summary [") && line.contains(" run: ");
    let libtest = line.starts_with("test result: ");
    let core = line.trim_matches('=').trim();
    // `=== 3 passed in 0.12s ===`, without the frame under -q, and with `(0:01:02)` after the
    // seconds of a long run.
    let pytest = core.starts_with(|c: char| c.is_ascii_digit())
        && core.split_once(" in ").is_some_and(|(_, time)| {
            time.starts_with(|c: char| c.is_ascii_digit()) && time.ends_with(['s', ')'])
        });
    nextest || libtest || pytest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_each_runner() {
        let text = "\
     Summary [   0.005s] 5 tests run: 3 passed (1 slow), 1 failed, 1 timed out, 4 skipped
test result: ok. 7 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.10s
======= 1 failed, 20 passed, 3 skipped, 1 xfailed, 2 errors in 62.10s (0:01:02) =======
4 passed in 0.50s
======= FAILURES =======
a test printed: 99 passed";
        let expected = Counts { passed: 3 + 7 + 21 + 4, failed: 2 + 3, skipped: 4 + 2 + 3 };
        assert_eq!(Counts::from_output(text), expected);
    }

    #[test]
    fn colours_are_no_obstacle() {
        assert_eq!(strip_ansi("\u{1b}[32m\u{1b}[1m2 passed\u{1b}[0m in"), "2 passed in");
    }

    #[test]
    fn prints_the_line_that_ci_reads() {
        let counts = Counts { passed: 3, failed: 0, skipped: 1 };
        assert_eq!(counts.to_string(), "3 passed, 0 failed, 1 skipped");
    }
}
