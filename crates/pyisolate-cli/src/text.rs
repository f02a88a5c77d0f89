//! Text and bytes as Python writes them, and text made fit for a terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// A character of Python text, which may hold lone surrogates.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    Char(char),
    Surrogate(u16),
}

/// The characters of UTF-8 in which each lone surrogate is three bytes.
pub(crate) fn units(bytes: &[u8]) -> impl Iterator<Item = Unit> {
    let mut rest = bytes;
    let mut chars = "".chars();
    std::iter::from_fn(move || {
        if let Some(c) = chars.next() {
            return Some(Unit::Char(c));
        }
        let valid = match std::str::from_utf8(rest) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&rest[..error.valid_up_to()]).unwrap_or_default(),
        };
        rest = &rest[valid.len()..];
        chars = valid.chars();
        if let Some(c) = chars.next() {
            return Some(Unit::Char(c));
        }
        match rest {
            [a, b, c, after @ ..] => {
                let bits = |byte: u8, mask: u8| u16::from(byte & mask);
                rest = after;
                Some(Unit::Surrogate(bits(*a, 0x0f) << 12 | bits(*b, 0x3f) << 6 | bits(*c, 0x3f)))
            }
            _ => None,
        }
    })
}

/// `repr` of a `str`, as far as `limit` bytes.
pub(crate) fn write_text(out: &mut String, text: &[u8], limit: usize) {
    let quote = quote(text);
    out.push(quote);
    for unit in units(text) {
        if out.len() > limit {
            return;
        }
        match unit {
            Unit::Char(c) => write_char(out, c, quote),
            Unit::Surrogate(code) => push(out, format_args!("\\u{code:04x}")),
        }
    }
    out.push(quote);
}

/// `repr` of `bytes`, as far as `limit` bytes.
pub(crate) fn write_bytes(out: &mut String, bytes: &[u8], limit: usize) {
    let quote = quote(bytes);
    out.push('b');
    out.push(quote);
    for &byte in bytes {
        if out.len() > limit {
            return;
        }
        match byte {
            0x20..0x7f | b'\t' | b'\n' | b'\r' => write_char(out, char::from(byte), quote),
            _ => push(out, format_args!("\\x{byte:02x}")),
        }
    }
    out.push(quote);
}

/// Formatting into a `String` cannot fail.
pub(crate) fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

fn quote(text: &[u8]) -> char {
    if text.contains(&b'\'') && !text.contains(&b'"') { '"' } else { '\'' }
}

fn write_char(out: &mut String, c: char, quote: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\\' => out.push_str("\\\\"),
        _ if c == quote => {
            out.push('\\');
            out.push(c);
        }
        _ if is_printable(c) => out.push(c),
        _ => write_escape(out, c),
    }
}

fn write_escape(out: &mut String, c: char) {
    match u32::from(c) {
        code @ 0..=0xff => push(out, format_args!("\\x{code:02x}")),
        code @ 0x100..=0xffff => push(out, format_args!("\\u{code:04x}")),
        code => push(out, format_args!("\\U{code:08x}")),
    }
}

/// Whether it can be shown as it is: no control, format or separator character, and assigned.
fn is_printable(c: char) -> bool {
    // Behind another character, so that a combining one counts as what it is.
    c == ' ' || matches!(c, '\'' | '"') || {
        let mut buffer = [0; 5];
        buffer[0] = b'x';
        let len = 1 + c.encode_utf8(&mut buffer[1..]).len();
        std::str::from_utf8(&buffer[..len]).is_ok_and(|text| text.escape_debug().count() == 2)
    }
}

/// Text of a guest for a terminal: control characters are shown, not obeyed. Lines and tabs stay.
pub(crate) fn for_terminal(text: &str) -> Cow<'_, str> {
    let is_harmless = |c: char| matches!(c, '\n' | '\t' | '\\') || is_printable(c);
    if text.chars().all(is_harmless) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_harmless(c) {
            shown.push(c);
        } else {
            write_escape(&mut shown, c);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> String {
        let mut out = String::new();
        write_text(&mut out, text.as_bytes(), 1000);
        out
    }

    #[test]
    fn text_is_written_as_python_does() {
        assert_eq!(text("it's"), r#""it's""#);
        assert_eq!(text(r#"it's "it""#), r#"'it\'s "it"'"#);
        assert_eq!(text("a\n\t\\\x1b[0m"), r"'a\n\t\\\x1b[0m'");
        assert_eq!(text("grüße 🐍 e\u{301}"), "'grüße 🐍 e\u{301}'");
        assert_eq!(text("\u{202e}\u{e0001}\u{a0}"), r"'\u202e\U000e0001\xa0'");
    }

    #[test]
    fn surrogates_are_written_as_escapes() {
        let mut out = String::new();
        write_text(&mut out, b"a\xed\xb2\x80b\xed\xa0\x80", 1000);
        assert_eq!(out, r"'a\udc80b\ud800'");
    }

    #[test]
    fn a_terminal_is_not_commanded() {
        assert_eq!(
            for_terminal("a\x1b]52;c;eA==\x07b\r\n\tc\u{9b}"),
            "a\\x1b]52;c;eA==\\x07b\\x0d\n\tc\\x9b"
        );
        assert!(matches!(for_terminal("naïve café\n"), Cow::Borrowed(_)));
        assert!(matches!(for_terminal(r"C:\new \d+"), Cow::Borrowed(_)));
    }
}
