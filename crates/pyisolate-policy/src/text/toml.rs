//! TOML into a tree.

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::error::Problem;
use super::tree::{Budget, Entry, Lines, Located, Value};

/// Reads a text; every error of its form at once.
pub(crate) fn read(text: &str) -> Result<Located, Vec<Problem>> {
    let lines = Lines::new(text);
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let problem = |error: &toml::de::Error| {
            let span = error.span().unwrap_or(0..0);
            let message = format!("this is no TOML: {}", error.message());
            Problem::at(lines.spot(span.start, span.end), message, "")
        };
        return Err(errors.iter().map(problem).collect());
    }
    let mut reader = Reader { lines, budget: Budget::default() };
    let span = root.span();
    reader.table(root.get_ref(), span, 1).map_err(|problem| vec![problem])
}

struct Reader<'t> {
    lines: Lines<'t>,
    budget: Budget,
}

impl Reader<'_> {
    fn table(
        &mut self,
        table: &DeTable<'_>,
        span: std::ops::Range<usize>,
        depth: usize,
    ) -> Result<Located, Problem> {
        let spot = self.lines.spot(span.start, span.end);
        self.budget.take(1 + table.len(), depth, spot)?;
        let mut keys: Vec<(&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)> = table.iter().collect();
        keys.sort_by_key(|(key, _)| key.span().start);
        let mut entries = Vec::with_capacity(keys.len());
        for (key, value) in keys {
            let span = key.span();
            entries.push(Entry {
                key: key.get_ref().clone().into_owned(),
                spot: self.lines.spot(span.start, span.end),
                value: self.value(value, depth + 1)?,
            });
        }
        Ok(Located { value: Value::Table(entries), spot })
    }

    fn value(&mut self, node: &Spanned<DeValue<'_>>, depth: usize) -> Result<Located, Problem> {
        let span = node.span();
        let spot = self.lines.spot(span.start, span.end);
        let value = match node.get_ref() {
            DeValue::Table(table) => return self.table(table, span, depth),
            DeValue::String(text) => Value::Text(text.clone().into_owned()),
            DeValue::Boolean(yes) => Value::Bool(*yes),
            DeValue::Integer(integer) => {
                match u64::from_str_radix(integer.as_str(), integer.radix()) {
                    Ok(number) => Value::Number(number),
                    Err(_) => Value::Other(integer.as_str().to_owned()),
                }
            }
            DeValue::Float(float) => Value::Other(float.as_str().to_owned()),
            DeValue::Datetime(date) => Value::Other(date.to_string()),
            DeValue::Array(items) => {
                let items: Result<_, _> =
                    items.iter().map(|item| self.value(item, depth + 1)).collect();
                Value::List(items?)
            }
        };
        self.budget.take(1, depth, spot)?;
        Ok(Located { value, spot })
    }
}
