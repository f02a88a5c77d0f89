//! Takes values out of a tree and notes what is wrong with them, so that one reading finds
//! everything.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::error::{PROBLEMS_MAX, Problem};
use super::tree::{Entry, Located, Spot, Value};
use crate::limits::parse_thousandths;
use crate::policy::{Effect, Origin, Rule};
use crate::right::Right;

/// What is being read: the problems so far, and where it comes from.
pub(crate) struct Reader {
    source: Arc<str>,
    pub(crate) problems: Vec<Problem>,
}

/// The keys of a table that is allowed to have only certain ones.
#[derive(Clone, Copy, Default)]
pub(crate) struct Fields<'n>(&'n [Entry]);

impl<'n> Fields<'n> {
    pub(crate) fn get(self, key: &str) -> Option<&'n Located> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub(crate) fn entry(self, key: &str) -> Option<&'n Entry> {
        self.0.iter().find(|entry| entry.key == key)
    }

    pub(crate) fn all(self) -> &'n [Entry] {
        self.0
    }
}

impl Reader {
    pub(crate) fn new(source: &str) -> Self {
        Self { source: source.into(), problems: Vec::new() }
    }

    pub(crate) fn problem(
        &mut self,
        spot: Spot,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.problems.push(Problem::at(spot, message, advice));
    }

    pub(crate) fn rule(&self, effect: Effect, right: Right, spot: Spot) -> Rule {
        let origin =
            Origin { source: Arc::clone(&self.source), line: spot.line, column: spot.column };
        Rule { effect, right, origin }
    }

    /// Notes that a value is of the wrong kind.
    pub(crate) fn wrong(&mut self, node: &Located, wanted: &str, example: &str) {
        let message = match &node.value {
            Value::Other(text) => format!("expected {wanted}, found {text}"),
            value => format!("expected {wanted}, found {}", value.kind()),
        };
        let advice =
            if example.is_empty() { String::new() } else { format!("write it as {example}") };
        self.problem(node.spot, message, advice);
    }

    /// The entries of a table whose keys may be any; nothing for nothing.
    pub(crate) fn entries<'n>(&mut self, node: &'n Located, example: &str) -> Fields<'n> {
        match &node.value {
            Value::Table(entries) => Fields(entries),
            Value::Null => Fields::default(),
            _ => {
                self.wrong(node, "a table", example);
                Fields::default()
            }
        }
    }

    /// The entries of a table, which may have only `keys`.
    pub(crate) fn fields<'n>(
        &mut self,
        node: &'n Located,
        place: &str,
        keys: &[&str],
    ) -> Fields<'n> {
        let fields = self.entries(node, &format!("{{{}: ...}}", keys.first().unwrap_or(&"")));
        self.only(fields, place, keys);
        fields
    }

    /// The candidate that was probably meant by `text`. Looked for while what is noted is shown
    /// too: to compare all unknown names with all known ones could take hours.
    pub(crate) fn nearest<'c>(
        &self,
        text: &str,
        candidates: impl IntoIterator<Item = &'c str>,
    ) -> Option<&'c str> {
        if self.problems.len() < PROBLEMS_MAX { nearest(text, candidates) } else { None }
    }

    /// Notes every key that is not one of `keys`.
    pub(crate) fn only(&mut self, fields: Fields<'_>, place: &str, keys: &[&str]) {
        for entry in fields.all() {
            if !keys.contains(&entry.key.as_str()) {
                let message = format!("unknown key {:?} in {place}", shorten(&entry.key));
                let advice = match self.nearest(&entry.key, keys.iter().copied()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("the keys are {}", keys.join(", ")),
                };
                self.problem(entry.spot, message, advice);
            }
        }
    }

    /// A list, or one value for a list of it; nothing for nothing.
    pub(crate) fn items<'n>(&mut self, node: Option<&'n Located>) -> &'n [Located] {
        match node.map(|node| (&node.value, node)) {
            None | Some((Value::Null, _)) => &[],
            Some((Value::List(items), _)) => items,
            Some((_, node)) => std::slice::from_ref(node),
        }
    }

    pub(crate) fn text<'n>(&mut self, node: &'n Located, wanted: &str) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) => Some(text),
            Value::Number(_) | Value::Bool(_) | Value::Null | Value::Other(_) => {
                let message = format!("expected {wanted}, found {}", node.value.kind());
                self.problem(node.spot, message, "put a text that looks like that into quotes");
                None
            }
            _ => {
                self.wrong(node, wanted, "");
                None
            }
        }
    }

    /// A text that is read by its type.
    pub(crate) fn parsed<T>(&mut self, node: &Located, wanted: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        match self.text(node, wanted)?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(node.spot, T::Err::to_string(&error), "");
                None
            }
        }
    }

    /// A name that says something and has nothing in it that could be misread in a log.
    pub(crate) fn name(&mut self, node: &Located, wanted: &str) -> Option<String> {
        let name = self.text(node, wanted)?;
        self.is_name(name, node.spot, wanted).then(|| name.to_owned())
    }

    pub(crate) fn is_name(&mut self, name: &str, spot: Spot, wanted: &str) -> bool {
        let good = !name.is_empty() && name.len() <= 255 && !name.contains(char::is_control);
        if !good {
            let message = format!("{:?} is not {wanted}", shorten(name));
            self.problem(spot, message, "use 1 to 255 bytes without control characters");
        }
        good
    }

    pub(crate) fn bool(&mut self, node: Option<&Located>) -> bool {
        match node.map(|node| (&node.value, node)) {
            None => false,
            Some((Value::Bool(value), _)) => *value,
            Some((_, node)) => {
                self.wrong(node, "true or false", "");
                false
            }
        }
    }

    pub(crate) fn number(&mut self, node: &Located) -> Option<u64> {
        match &node.value {
            Value::Number(number) => Some(*number),
            _ => {
                self.wrong(node, "a whole number", "");
                None
            }
        }
    }

    /// A number of bytes, with a unit if it is a text.
    pub(crate) fn size(&mut self, node: &Located) -> Option<u64> {
        let size = match &node.value {
            Value::Number(number) => Some(*number),
            Value::Text(text) => bytes(text),
            _ => None,
        };
        if size.is_none() {
            self.wrong(node, "a number of bytes", "67108864, 64MiB or 64MB");
        }
        size
    }

    /// A number, with a fraction if need be, as thousandths.
    pub(crate) fn thousandths(&mut self, node: &Located) -> Option<u64> {
        let value = match &node.value {
            Value::Number(number) => number.checked_mul(1000),
            Value::Other(text) => parse_thousandths(text),
            _ => None,
        };
        if value.is_none() {
            self.wrong(node, "a number with at most three decimal places", "0.5");
        }
        value
    }
}

/// Reads `64MiB`, `512 MB`, `4096`.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1000 * 1000,
        "GB" => 1000 * 1000 * 1000,
        "TB" => 1000 * 1000 * 1000 * 1000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// A text from a policy, short enough for a message.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The candidate that was probably meant by `text`.
pub(crate) fn nearest<'c>(
    text: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    if text.chars().count() > 80 {
        return None;
    }
    let text = text.to_lowercase().replace('-', "_");
    let distance = |candidate: &str| {
        strsim::damerau_levenshtein(&text, &candidate.to_lowercase().replace('-', "_"))
    };
    candidates
        .into_iter()
        .map(|candidate| (distance(candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, size) in [
            ("0", Some(0)),
            ("64MiB", Some(64 << 20)),
            ("512MB", Some(512_000_000)),
            ("1 KiB", Some(1024)),
            ("", None),
            ("MB", None),
            ("1mb", None),
            ("-1", None),
            ("1.5GB", None),
            ("99999999TiB", None),
        ] {
            assert_eq!(bytes(text), size, "{text}");
        }
    }

    #[test]
    fn a_slip_is_recognised() {
        assert_eq!(nearest("conect", ["connect", "http"]), Some("connect"));
        assert_eq!(nearest("web_scraper", ["web-scraper"]), Some("web-scraper"));
        assert_eq!(nearest("filesystem", ["fs", "net"]), None);
    }
}
