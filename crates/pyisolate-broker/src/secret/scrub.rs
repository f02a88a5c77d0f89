//! Taking secrets out of what comes back, however it is cut into pieces.

use std::fmt::Write;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

/// What is looked for: values in every common encoding.
#[derive(Default)]
pub(crate) struct Scrub {
    patterns: Vec<Pattern>,
    /// For every two bytes whether a pattern begins with them; empty if there is no pattern. Only
    /// where one does is more looked at.
    begins: Vec<bool>,
}

struct Pattern {
    bytes: Zeroizing<Vec<u8>>,
    /// A placeholder; for an encoded value as many stars as it is long.
    instead: Vec<u8>,
}

/// How many pairs of bytes there are.
const PAIRS: usize = 1 << 16;

fn pair(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

/// What is less than this of a value's beginning may end a text; see [`Pattern::piece`].
const PIECE_BYTES_MIN: usize = 8;

impl Pattern {
    /// Whether a text is the beginning of this, and not all of it.
    fn is_begun_by(&self, text: &[u8]) -> bool {
        self.bytes.len() > text.len() && self.bytes.starts_with(text)
    }

    /// How much of it may not end a text. A guest that has its guesses echoed sees by this rule how
    /// far they are right, so it has to have guessed half of the value before the rule tells it
    /// anything.
    fn piece(&self) -> usize {
        (self.bytes.len() / 2).max(PIECE_BYTES_MIN)
    }
}

impl std::fmt::Debug for Scrub {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Scrub").field("patterns", &self.patterns.len()).finish()
    }
}

impl Scrub {
    /// Looks for one more value.
    pub(super) fn add(&mut self, value: &[u8], placeholder: &str) {
        // Servers take white space off the ends of what they are sent in a header.
        for value in [value, value.trim_ascii()] {
            self.add_pattern(Zeroizing::new(value.to_vec()), placeholder.into());
            for encoded in encodings(value) {
                let stars = vec![b'*'; encoded.len()];
                self.add_pattern(encoded, stars);
            }
        }
    }

    fn add_pattern(&mut self, bytes: Zeroizing<Vec<u8>>, instead: Vec<u8>) {
        let [first, second, ..] = bytes[..] else { return };
        if self.patterns.iter().any(|pattern| pattern.bytes == bytes) {
            return;
        }
        self.begins.resize(PAIRS, false);
        self.begins[pair(first, second)] = true;
        self.patterns.push(Pattern { bytes, instead });
    }

    /// Whether nothing is looked for.
    pub(crate) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// A text that is there as a whole.
    pub(crate) fn text(&self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len());
        let used = self.pass(text, true, &mut out);
        debug_assert_eq!(used, text.len());
        out
    }

    /// Where a pattern may begin: at two bytes with which one does, or at the last byte.
    fn next(&self, text: &[u8]) -> Option<usize> {
        if self.patterns.is_empty() {
            return None;
        }
        let is_begun = |two: &[u8]| self.begins[pair(two[0], two[1])];
        text.windows(2).position(is_begun).or_else(|| text.len().checked_sub(1))
    }

    /// Copies what is certain and says how much that was. What could be the beginning of a value is
    /// left, unless this is the end.
    fn pass(&self, text: &[u8], is_end: bool, out: &mut Vec<u8>) -> usize {
        let mut at = 0;
        while let Some(skip) = self.next(&text[at..]) {
            out.extend_from_slice(&text[at..at + skip]);
            at += skip;
            let rest = &text[at..];
            let begun = |least: fn(&Pattern) -> usize| {
                let long_enough = |pattern: &&Pattern| rest.len() >= least(pattern);
                self.patterns.iter().filter(long_enough).any(|pattern| pattern.is_begun_by(rest))
            };
            if !is_end && begun(|_| 1) {
                return at;
            }
            let whole = self.patterns.iter().filter(|pattern| rest.starts_with(&pattern.bytes));
            if let Some(pattern) = whole.max_by_key(|pattern| pattern.bytes.len()) {
                out.extend_from_slice(&pattern.instead);
                at += pattern.bytes.len();
            } else if is_end && begun(Pattern::piece) {
                // A text that was cut off in the middle of a value.
                out.resize(out.len() + rest.len(), b'*');
                at = text.len();
            } else {
                out.push(rest[0]);
                at += 1;
            }
        }
        out.extend_from_slice(&text[at..]);
        text.len()
    }
}

/// A text that comes in pieces.
#[derive(Debug)]
pub(crate) struct Scrubbing {
    scrub: Scrub,
    held: Zeroizing<Vec<u8>>,
}

impl Scrubbing {
    pub(crate) fn new(scrub: Scrub) -> Self {
        Self { scrub, held: Zeroizing::default() }
    }

    /// Takes a piece and gives what is certain by now.
    pub(crate) fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(piece);
        let used = self.scrub.pass(&self.held, false, out);
        self.held.drain(..used);
    }

    /// Nothing more comes.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        self.scrub.pass(&held, true, out);
    }
}

/// A value in the encodings that programs commonly write. Equal ones may be among them.
fn encodings(value: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut all = Vec::new();
    for shift in 0..3 {
        for engine in [BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD] {
            all.push(base64_within(&engine, value, shift).into_bytes());
        }
    }
    all.push(written(value, |byte, out| write!(out, "{byte:02x}")));
    all.push(written(value, |byte, out| write!(out, "{byte:02X}")));
    for kept in [&b""[..], b"-._~", b"-._~/", b"-._", b"-._~!$&'()*+,;=:@/"] {
        let is_kept =
            |byte: u8| !kept.is_empty() && (byte.is_ascii_alphanumeric() || kept.contains(&byte));
        let percent = |space: &'static str| {
            move |byte: u8, out: &mut String| match byte {
                b' ' if !space.is_empty() => out.write_str(space),
                _ if is_kept(byte) => write!(out, "{}", char::from(byte)),
                _ => write!(out, "%{byte:02X}"),
            }
        };
        let lower = |byte: u8, out: &mut String| match byte {
            _ if is_kept(byte) => write!(out, "{}", char::from(byte)),
            _ => write!(out, "%{byte:02x}"),
        };
        all.push(written(value, percent("")));
        all.push(written(value, percent("+")));
        all.push(written(value, lower));
    }
    if let Ok(text) = std::str::from_utf8(value) {
        all.extend(as_json(text));
        all.extend(as_html(text));
    }
    all.into_iter().map(Zeroizing::new).collect()
}

/// What of the base64 of a text depends on a value within it alone, where the value begins `shift`
/// bytes behind a group of three.
fn base64_within(engine: &impl Engine, value: &[u8], shift: usize) -> String {
    let mut text = Zeroizing::new(vec![0_u8; shift]);
    text.extend_from_slice(value);
    let encoded = Zeroizing::new(engine.encode(&*text));
    let begin = [0, 2, 3][shift];
    let end = text.len() * 8 / 6;
    encoded[begin.min(end)..end].to_owned()
}

fn written(value: &[u8], mut write: impl FnMut(u8, &mut String) -> std::fmt::Result) -> Vec<u8> {
    let mut out = String::with_capacity(value.len() * 3);
    for byte in value {
        // Writing to a string does not fail.
        let _ = write(*byte, &mut out);
    }
    out.into_bytes()
}

/// As it stands in a JSON string: by itself, with `\/`, and with all but ASCII as `\u`.
fn as_json(text: &str) -> Vec<Vec<u8>> {
    let quoted = serde_json::Value::from(text).to_string();
    let inner = &quoted[1..quoted.len() - 1];
    let mut ascii = String::new();
    for c in inner.chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    // As .NET writes it: more characters, and the digits in capitals.
    let mut capitals = String::new();
    for c in text.chars() {
        if c == '\\' {
            capitals.push_str("\\\\");
        } else if (c.is_ascii_graphic() || c == ' ') && !"\"&'+<>`".contains(c) {
            capitals.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(capitals, "\\u{unit:04X}");
            }
        }
    }
    let slashes = inner.replace('/', "\\/");
    let ascii_slashes = ascii.replace('/', "\\/");
    // Many languages also write these so, for pages.
    let mut html = ascii.clone();
    for (c, escape) in [('&', "\\u0026"), ('<', "\\u003c"), ('>', "\\u003e"), ('\'', "\\u0027")] {
        html = html.replace(c, escape);
    }
    [inner.to_owned(), slashes, ascii, ascii_slashes, html, capitals].map(String::into_bytes).into()
}

/// As it stands in HTML, with the two common spellings of the quote.
fn as_html(text: &str) -> Vec<Vec<u8>> {
    let mut escaped = text.replace('&', "&amp;");
    for (c, escape) in [('<', "&lt;"), ('>', "&gt;")] {
        escaped = escaped.replace(c, escape);
    }
    let mut all = vec![escaped.clone().into_bytes()];
    for (double, single) in
        [("&quot;", "&#x27;"), ("&quot;", "&#39;"), ("&#34;", "&#39;"), ("&quot;", "&#039;")]
    {
        all.push(escaped.replace('"', double).replace('\'', single).into_bytes());
    }
    all
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};

    use super::*;

    const VALUE: &str = "s3cr+t/va lu\"e&\u{e4}?~";

    fn scrub(value: &str) -> Scrub {
        let mut scrub = Scrub::default();
        scrub.add(value.as_bytes(), "HOLDER");
        scrub
    }

    /// As the text comes whole, a byte at a time, and in odd pieces.
    fn every_way(value: &str, text: &[u8]) -> Vec<u8> {
        let whole = scrub(value).text(text);
        for size in [1, 3, 7] {
            let mut scrubbing = Scrubbing::new(scrub(value));
            let mut out = Vec::new();
            text.chunks(size).for_each(|piece| scrubbing.push(piece, &mut out));
            scrubbing.end(&mut out);
            assert_eq!(out, whole, "in pieces of {size}");
        }
        whole
    }

    #[test]
    fn a_value_becomes_its_placeholder() {
        let text = format!("a{VALUE}b{VALUE}");
        assert_eq!(every_way(VALUE, text.as_bytes()), b"aHOLDERbHOLDER");
        assert_eq!(every_way("aabaabaac", b"aabaabaabaac-aab"), b"aabHOLDER-aab");
    }

    #[test]
    fn a_value_is_found_without_the_white_space_around_it() {
        let text = b"{\"key\":\"s3cr+t/value\"}";
        assert_eq!(every_way(" s3cr+t/value\n", text), b"{\"key\":\"HOLDER\"}");
        assert_eq!(every_way(" s3cr+t/value\n", b"< s3cr+t/value\n>"), b"<HOLDER>");
        assert_eq!(every_way("s3cr+t/value\n", b"s3cr%2Bt%2Fvalue"), b"****************");
    }

    #[test]
    fn an_encoded_value_becomes_stars() {
        let hex: String = VALUE.bytes().map(|byte| format!("{byte:02x}")).collect();
        let all: String = VALUE.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let json = serde_json::Value::from(VALUE).to_string();
        for encoded in [
            hex.clone(),
            hex.to_uppercase(),
            all.clone(),
            all.to_lowercase(),
            "s3cr%2Bt%2Fva%20lu%22e%26%C3%A4%3F~".to_owned(),
            "s3cr%2Bt%2Fva+lu%22e%26%C3%A4%3F~".to_owned(),
            "s3cr%2Bt/va%20lu%22e%26%C3%A4%3F~".to_owned(),
            "s3cr%2bt%2fva%20lu%22e%26%c3%a4%3f~".to_owned(),
            json[1..json.len() - 1].to_owned(),
            "s3cr+t/va lu\\\"e&\\u00e4?~".to_owned(),
            "s3cr+t\\/va lu\\\"e&\\u00e4?~".to_owned(),
            "s3cr\\u002Bt/va lu\\u0022e\\u0026\\u00E4?~".to_owned(),
            "s3cr+t/va lu&quot;e&amp;\u{e4}?~".to_owned(),
        ] {
            let text = format!("<{encoded}>");
            let expected = format!("<{}>", "*".repeat(encoded.len()));
            let got = every_way(VALUE, text.as_bytes());
            assert_eq!(String::from_utf8(got).unwrap(), expected);
        }
    }

    #[test]
    fn base64_of_a_text_with_the_value_within_gives_next_to_nothing_away() {
        for before in 0..7 {
            for after in 0..5 {
                let text = format!("{}{VALUE}{}", "u".repeat(before), "z".repeat(after));
                for encoded in [BASE64_STANDARD.encode(&text), BASE64_URL_SAFE.encode(&text)] {
                    let got = every_way(VALUE, encoded.as_bytes());
                    assert_eq!(got.len(), encoded.len());
                    let stars = got.iter().filter(|byte| **byte == b'*').count();
                    // A character at either end carries bits of the text around it as well.
                    assert!(stars + 2 >= VALUE.len() * 8 / 6, "{encoded}");
                }
            }
        }
    }

    #[test]
    fn a_text_that_is_cut_off_gives_no_long_piece_away() {
        assert_eq!(every_way("0123456789abcdef", b"x0123456789abcde"), b"x***************");
        assert_eq!(every_way("0123456789abcdef", b"x0123456"), b"x0123456");
    }

    #[test]
    fn other_text_is_left_alone() {
        let text = b"nothing of the sort, s3cr, s3c, and the end s3cr+t/";
        assert_eq!(every_way(VALUE, text), text);
    }

    proptest::proptest! {
        #[test]
        fn no_cut_lets_a_value_through(
            around in proptest::collection::vec("[a-c%+/]{0,12}", 1..6),
            value in "[a-c/+% ]{8,20}",
            cuts in proptest::collection::vec(1_usize..9, 1..40),
        ) {
            let text = around.join(&value);
            let whole = scrub(&value).text(text.as_bytes());
            proptest::prop_assert!(!whole.windows(value.len()).any(|w| w == value.as_bytes()));
            let mut scrubbing = Scrubbing::new(scrub(&value));
            let mut out = Vec::new();
            let mut rest = text.as_bytes();
            for cut in cuts.iter().cycle() {
                let (piece, more) = rest.split_at(rest.len().min(*cut));
                scrubbing.push(piece, &mut out);
                // What is certain is never taken back, nor is more of a value there than a piece.
                proptest::prop_assert!(whole.starts_with(&out));
                rest = more;
                if rest.is_empty() {
                    break;
                }
            }
            scrubbing.end(&mut out);
            proptest::prop_assert_eq!(out, whole);
        }
    }
}
