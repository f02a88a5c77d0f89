//! Values as lines of YAML, TOML and JSON.

use std::fmt::Write;

use super::tree::Value;
use super::write::{Out, document, rule};
use crate::policy::{Policy, Rule};

impl Policy {
    /// A YAML document whose `defaults` are this policy in its [canonical](Policy::canonical) form.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let mut text = String::new();
        yaml(&mut text, &document(self), 0);
        text
    }

    /// A TOML document whose `defaults` are this policy in its [canonical](Policy::canonical) form.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        toml(&mut text, &document(self), "");
        text
    }

    /// A JSON document whose `defaults` are this policy in its [canonical](Policy::canonical) form.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = String::new();
        json(&mut text, &document(self), 0);
        text.push('\n');
        text
    }
}

impl Rule {
    /// As lines of YAML that can be pasted into a policy.
    pub(crate) fn to_yaml_lines(&self) -> String {
        let mut text = String::new();
        yaml(&mut text, &rule(self), 0);
        text
    }
}

/// The rule in one line of the YAML form: `fs: {read: [/data]}`.
impl std::fmt::Display for Rule {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Out::Table { entries, .. } = rule(self) else { return Ok(()) };
        for (at, (key, value)) in entries.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(out, "{comma}{}: {}", yaml_text(key), yaml_flow(value))?;
        }
        Ok(())
    }
}

fn indent(text: &mut String, depth: usize) {
    text.extend(std::iter::repeat_n("  ", depth));
}

fn yaml(text: &mut String, value: &Out, depth: usize) {
    let Out::Table { entries, .. } = value else { return };
    for (key, value) in entries {
        indent(text, depth);
        text.push_str(&yaml_text(key));
        text.push(':');
        match value {
            Out::Table { block: true, entries } if !entries.is_empty() => {
                text.push('\n');
                yaml(text, value, depth + 1);
            }
            Out::List(items) if items.iter().any(|item| matches!(item, Out::Table { .. })) => {
                text.push('\n');
                for item in items {
                    indent(text, depth + 1);
                    text.push_str("- ");
                    text.push_str(&yaml_flow(item));
                    text.push('\n');
                }
            }
            value => {
                text.push(' ');
                text.push_str(&yaml_flow(value));
                text.push('\n');
            }
        }
    }
}

fn yaml_flow(value: &Out) -> String {
    match value {
        Out::Bool(value) => value.to_string(),
        Out::Number(value) => value.to_string(),
        Out::Fraction(value) => value.clone(),
        Out::Text(value) => yaml_text(value),
        Out::List(items) => {
            let items: Vec<String> = items.iter().map(yaml_flow).collect();
            format!("[{}]", items.join(", "))
        }
        Out::Table { entries, .. } => {
            let entry =
                |(key, value): &(String, Out)| format!("{}: {}", yaml_text(key), yaml_flow(value));
            let entries: Vec<String> = entries.iter().map(entry).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

/// Without quotes if no reader of YAML, old ones among them, could take it for something else.
fn yaml_text(text: &str) -> String {
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || "/_.".contains(c));
    let fits = |c: char| c.is_ascii_alphanumeric() || "/_.-+@=:".contains(c);
    let old_bool = ["y", "n", "yes", "no", "on", "off"].contains(&&*text.to_ascii_lowercase());
    let like_number = text.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && text.chars().all(|c| c.is_ascii_hexdigit() || ".-+:_xXoO".contains(c));
    let plain = begins
        && text.chars().all(fits)
        && !text.ends_with(':')
        && !old_bool
        && !like_number
        && matches!(Value::of_plain(text), Value::Text(_));
    if plain { text.to_owned() } else { quoted(text) }
}

/// In double quotes, with escapes that YAML and TOML share.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') =>
            {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c if is_unseen(c) => {
                let _ = match u32::from(c) {
                    code @ 0..=0xffff => write!(quoted, "\\u{code:04X}"),
                    code => write!(quoted, "\\U{code:08X}"),
                };
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Whether a character is not seen, or turns the text around it about: whoever reads a policy has to
/// see what it says.
fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
    )
}

fn toml(text: &mut String, value: &Out, path: &str) {
    let Out::Table { entries, .. } = value else { return };
    let is_section =
        |value: &Out| matches!(value, Out::Table { block: true, entries } if !entries.is_empty());
    // What a table has itself comes before the tables in it.
    for (key, value) in entries.iter().filter(|(_, value)| !is_section(value)) {
        let _ = writeln!(text, "{} = {}", toml_key(key), toml_value(value));
    }
    for (key, value) in entries.iter().filter(|(_, value)| is_section(value)) {
        let dot = if path.is_empty() { "" } else { "." };
        let path = format!("{path}{dot}{}", toml_key(key));
        let Out::Table { entries, .. } = value else { continue };
        if entries.iter().any(|(_, value)| !is_section(value)) {
            let _ = writeln!(text, "\n[{path}]");
        }
        toml(text, value, &path);
    }
}

fn toml_key(key: &str) -> String {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if !key.is_empty() && key.bytes().all(fits) { key.to_owned() } else { quoted(key) }
}

fn toml_value(value: &Out) -> String {
    match value {
        Out::Bool(value) => value.to_string(),
        Out::Number(value) => value.to_string(),
        Out::Fraction(value) => value.clone(),
        Out::Text(value) => quoted(value),
        Out::List(items) => {
            let items: Vec<String> = items.iter().map(toml_value).collect();
            format!("[{}]", items.join(", "))
        }
        Out::Table { entries, .. } if entries.is_empty() => "{}".to_owned(),
        Out::Table { entries, .. } => {
            let entry =
                |(key, value): &(String, Out)| format!("{} = {}", toml_key(key), toml_value(value));
            let entries: Vec<String> = entries.iter().map(entry).collect();
            format!("{{ {} }}", entries.join(", "))
        }
    }
}

fn json(text: &mut String, value: &Out, depth: usize) {
    match value {
        Out::Table { block: true, entries } if !entries.is_empty() => {
            text.push_str("{\n");
            for (at, (key, value)) in entries.iter().enumerate() {
                indent(text, depth + 1);
                text.push_str(&json_text(key));
                text.push_str(": ");
                json(text, value, depth + 1);
                text.push_str(if at + 1 < entries.len() { ",\n" } else { "\n" });
            }
            indent(text, depth);
            text.push('}');
        }
        value => text.push_str(&json_flow(value)),
    }
}

fn json_flow(value: &Out) -> String {
    match value {
        Out::Bool(value) => value.to_string(),
        Out::Number(value) => value.to_string(),
        Out::Fraction(value) => value.clone(),
        Out::Text(value) => json_text(value),
        Out::List(items) => {
            let items: Vec<String> = items.iter().map(json_flow).collect();
            format!("[{}]", items.join(", "))
        }
        Out::Table { entries, .. } => {
            let entry =
                |(key, value): &(String, Out)| format!("{}: {}", json_text(key), json_flow(value));
            let entries: Vec<String> = entries.iter().map(entry).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
