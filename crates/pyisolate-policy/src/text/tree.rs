//! What the three formats are read into: values that know where they stand.

use super::error::Problem;

/// The longest text, in bytes: some ten thousand rules.
pub(crate) const TEXT_BYTES_MAX: usize = 1 << 20;
/// How deep values may be nested: a policy needs seven levels.
pub(crate) const DEPTH_MAX: usize = 64;
/// How many values there may be, those that YAML's aliases repeat among them.
pub(crate) const NODES_MAX: usize = 100_000;
/// A text that an alias repeats counts as one value more for so many bytes: longer than what is
/// usual in a policy.
const NODE_BYTES: usize = 256;

/// A place in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spot {
    /// From 1.
    pub(crate) line: u32,
    /// From 1, in characters.
    pub(crate) column: u32,
    /// In characters; at least 1 is shown.
    pub(crate) width: u32,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    pub(crate) value: Value,
    pub(crate) spot: Spot,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(u64),
    Text(String),
    /// A number that no policy has, or a date: as it was written.
    Other(String),
    List(Vec<Located>),
    /// In the order of the text, each key once.
    Table(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) spot: Spot,
    pub(crate) value: Located,
}

impl Value {
    /// For people.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::Other(_) => "a number or date of another kind",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }

    /// A scalar that a text may have meant without quotes, by the core schema of YAML.
    pub(crate) fn of_plain(text: &str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Self::Null,
            "true" | "True" | "TRUE" => return Self::Bool(true),
            "false" | "False" | "FALSE" => return Self::Bool(false),
            _ => {}
        }
        let number = match (text.strip_prefix("0x"), text.strip_prefix("0o")) {
            (Some(hex), _) => u64::from_str_radix(hex, 16).ok(),
            (_, Some(octal)) => u64::from_str_radix(octal, 8).ok(),
            _ if text.starts_with('+') => None,
            _ => text.parse().ok(),
        };
        if let Some(number) = number {
            return Self::Number(number);
        }
        let digits = text.trim_start_matches(['-', '+', '.']);
        let like_number = digits.starts_with(|c: char| c.is_ascii_digit())
            && text.parse::<f64>().is_ok()
            || matches!(digits, "inf" | "Inf" | "INF" | "nan" | "NaN" | "NAN") && digits != text;
        if like_number { Self::Other(text.to_owned()) } else { Self::Text(text.to_owned()) }
    }
}

/// Counts values while a tree is built, so that no text becomes larger than [`NODES_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Budget {
    used: usize,
}

impl Budget {
    /// Takes `count` values at this place and depth.
    pub(crate) fn take(&mut self, count: usize, depth: usize, spot: Spot) -> Result<(), Problem> {
        self.used = self.used.saturating_add(count);
        if depth > DEPTH_MAX {
            let advice = format!("{DEPTH_MAX} levels are the most");
            return Err(Problem::at(spot, "values are nested too deep", advice));
        }
        if self.used > NODES_MAX {
            let advice = format!("{NODES_MAX} are the most, those of aliases among them");
            return Err(Problem::at(spot, "the text has too many values", advice));
        }
        Ok(())
    }
}

/// Puts an entry in, unless its key is there already.
pub(crate) fn insert(
    entries: &mut Vec<Entry>,
    seen: &mut std::collections::HashMap<String, u32>,
    entry: Entry,
) -> Result<(), Problem> {
    if let Some(line) = seen.insert(entry.key.clone(), entry.spot.line) {
        let message = format!("the key {:?} is there twice", entry.key);
        return Err(Problem::at(entry.spot, message, format!("the first is in line {line}")));
    }
    entries.push(entry);
    Ok(())
}

impl Located {
    /// How many values it is made of, itself among them, and long texts as several.
    pub(crate) fn count(&self) -> usize {
        1 + match &self.value {
            Value::Text(text) | Value::Other(text) => text.len() / NODE_BYTES,
            Value::List(items) => items.iter().map(Self::count).sum(),
            Value::Table(entries) => {
                let key = |entry: &Entry| 1 + entry.key.len() / NODE_BYTES;
                entries.iter().map(|entry| key(entry) + entry.value.count()).sum()
            }
            _ => 0,
        }
    }
}

/// Where the lines of a text begin, for the formats whose reader counts bytes.
pub(crate) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(ends).collect() }
    }

    /// The place of the bytes `from..to`.
    pub(crate) fn spot(&self, from: usize, to: usize) -> Spot {
        let line = self.starts.partition_point(|&start| start <= from).max(1);
        let start = self.starts[line - 1];
        let next = self.starts.get(line).copied().unwrap_or(self.text.len());
        let chars = |from: usize, to: usize| {
            self.text.get(from..to).map_or(0, |part| part.trim_end_matches('\n').chars().count())
        };
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Spot {
            line: number(line),
            column: number(chars(start, from) + 1),
            width: number(chars(from, to.min(next))),
        }
    }
}
