//! YAML into a tree.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::error::Problem;
use super::tree::{Budget, Entry, Located, Spot, Value, insert};

/// Reads one document.
pub(crate) fn read(text: &str) -> Result<Located, Problem> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        budget: Budget::default(),
    };
    reader.document()
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    anchors: HashMap<usize, Located>,
    budget: Budget,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Spot), Problem> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, spot(span))),
            Some(Err(error)) => Err(scan_problem(&error)),
            None => Ok((Event::StreamEnd, Spot { line: 1, column: 1, width: 1 })),
        }
    }

    fn document(&mut self) -> Result<Located, Problem> {
        loop {
            match self.next()? {
                (Event::DocumentStart(_), _) => break,
                (Event::StreamEnd, spot) => return Ok(Located { value: Value::Null, spot }),
                _ => {}
            }
        }
        let (event, spot) = self.next()?;
        let root = self.value(event, spot, 1)?;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(root),
                (Event::DocumentStart(_), spot) => {
                    let advice = "put everything into one, and remove the '---'";
                    return Err(Problem::at(spot, "there is a second document", advice));
                }
                _ => {}
            }
        }
    }

    fn value(&mut self, event: Event<'t>, spot: Spot, depth: usize) -> Result<Located, Problem> {
        self.budget.take(1, depth, spot)?;
        match event {
            Event::Alias(anchor) => {
                let Some(value) = self.anchors.get(&anchor).cloned() else {
                    let advice = "an alias stands for what has ended before it";
                    return Err(Problem::at(spot, "the alias stands for nothing", advice));
                };
                self.budget.take(value.count(), depth + height(&value), spot)?;
                Ok(value)
            }
            Event::Scalar(text, style, anchor, tag) => {
                untagged(tag.as_deref(), spot)?;
                let value = match style {
                    ScalarStyle::Plain => Value::of_plain(&text),
                    _ => Value::Text(text.into_owned()),
                };
                self.keep(anchor, Located { value, spot })
            }
            Event::SequenceStart(anchor, tag) => {
                untagged(tag.as_deref(), spot)?;
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, spot) => items.push(self.value(event, spot, depth + 1)?),
                    }
                }
                self.keep(anchor, Located { value: Value::List(items), spot })
            }
            Event::MappingStart(anchor, tag) => {
                untagged(tag.as_deref(), spot)?;
                let (mut entries, mut seen) = (Vec::new(), HashMap::new());
                loop {
                    let (event, spot) = self.next()?;
                    let Event::Scalar(key, ..) = event else {
                        if event == Event::MappingEnd {
                            break;
                        }
                        return Err(Problem::at(spot, "a key has to be a text", ""));
                    };
                    self.budget.take(1, depth, spot)?;
                    let (event, at) = self.next()?;
                    let value = self.value(event, at, depth + 1)?;
                    let entry = Entry { key: key.into_owned(), spot, value };
                    insert(&mut entries, &mut seen, entry)?;
                }
                self.keep(anchor, Located { value: Value::Table(entries), spot })
            }
            _ => Err(Problem::at(spot, "a value is missing", "")),
        }
    }

    /// Remembers a value that an alias can stand for; 0 is no anchor.
    fn keep(&mut self, anchor: usize, value: Located) -> Result<Located, Problem> {
        if anchor != 0 {
            // The copy counts: with anchors inside of each other there are as many as anchors.
            self.budget.take(value.count(), 1, value.spot)?;
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }
}

fn height(value: &Located) -> usize {
    match &value.value {
        Value::List(items) => 1 + items.iter().map(height).max().unwrap_or(0),
        Value::Table(entries) => {
            1 + entries.iter().map(|entry| height(&entry.value)).max().unwrap_or(0)
        }
        _ => 0,
    }
}

fn untagged(tag: Option<&Tag>, spot: Spot) -> Result<(), Problem> {
    match tag {
        None => Ok(()),
        Some(tag) => {
            let message = format!("a policy has no tags such as {}{}", tag.handle, tag.suffix);
            Err(Problem::at(spot, message, "remove it, or put the text into quotes"))
        }
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn spot(span: Span) -> Spot {
    let same_line = span.start.line() == span.end.line();
    let width = if same_line { span.end.index().saturating_sub(span.start.index()) } else { 1 };
    Spot { width: number(width), ..mark(&span.start) }
}

fn mark(marker: &Marker) -> Spot {
    Spot { line: number(marker.line().max(1)), column: number(marker.col() + 1), width: 1 }
}

fn scan_problem(error: &ScanError) -> Problem {
    Problem::at(mark(error.marker()), format!("this is no YAML: {}", error.info()), "")
}
