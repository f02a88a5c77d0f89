//! JSON into a tree.
//!
//! serde_json judges whether it is JSON; as it tells no places, a second pass takes the text, known
//! to be JSON by then, apart.

use std::collections::HashMap;

use serde::de::IgnoredAny;

use super::error::Problem;
use super::tree::{Budget, Entry, Lines, Located, Value, insert};

/// Reads a text.
pub(crate) fn read(text: &str) -> Result<Located, Problem> {
    let lines = Lines::new(text);
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        let line = text.split_inclusive('\n').take(error.line().saturating_sub(1));
        let at = line.map(str::len).sum::<usize>() + error.column().saturating_sub(1);
        let at = (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        let whole = error.to_string();
        let message = whole.split(" at line ").next().unwrap_or(&whole);
        let message = format!("this is no JSON: {message}");
        return Err(Problem::at(lines.spot(at, at + 1), message, ""));
    }
    let mut reader = Reader { text, at: 0, lines, budget: Budget::default() };
    reader.value(1)
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    lines: Lines<'t>,
    budget: Budget,
}

impl Reader<'_> {
    /// The next byte that is neither white space nor a comma or colon, without taking it.
    fn peek(&mut self) -> u8 {
        let rest = &self.text.as_bytes()[self.at..];
        let skipped = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b':');
        self.at += rest.iter().take_while(skipped).count();
        self.text.as_bytes().get(self.at).copied().unwrap_or(b']')
    }

    fn value(&mut self, depth: usize) -> Result<Located, Problem> {
        let first = self.peek();
        let from = self.at;
        self.budget.take(1, depth, self.lines.spot(from, from + 1))?;
        let value = match first {
            b'[' => {
                self.at += 1;
                let mut items = Vec::new();
                while self.peek() != b']' {
                    items.push(self.value(depth + 1)?);
                }
                self.at += 1;
                Value::List(items)
            }
            b'{' => {
                self.at += 1;
                let (mut entries, mut seen) = (Vec::new(), HashMap::new());
                while self.peek() != b'}' {
                    let start = self.at;
                    let key = self.string()?;
                    let spot = self.lines.spot(start, self.at);
                    self.budget.take(1, depth, spot)?;
                    let value = self.value(depth + 1)?;
                    insert(&mut entries, &mut seen, Entry { key, spot, value })?;
                }
                self.at += 1;
                Value::Table(entries)
            }
            b'"' => Value::Text(self.string()?),
            _ => {
                let rest = &self.text[from..];
                let ends = |c: char| c.is_ascii_whitespace() || ",:]}".contains(c);
                let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
                self.at += word.len();
                Value::of_plain(word)
            }
        };
        Ok(Located { value, spot: self.lines.spot(from, self.at) })
    }

    fn string(&mut self) -> Result<String, Problem> {
        let rest = &self.text[self.at..];
        let mut escaped = false;
        let end = rest.bytes().skip(1).position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        });
        let literal = &rest[..end.map_or(rest.len(), |end| end + 2)];
        let spot = self.lines.spot(self.at, self.at + literal.len());
        self.at += literal.len();
        serde_json::from_str(literal)
            .map_err(|error| Problem::at(spot, format!("this is no JSON: {error}"), ""))
    }
}
